"""The Playground's handlers as plain functions: what they ask, what they send to the browser, what they refuse."""

import itertools
import json
import shlex
import shutil
import subprocess
import sys
import time
from types import SimpleNamespace

import gradio as gr
import pytest
import tokenizers
import torch
from tokenizers import decoders, models, pre_tokenizers, processors

from llm import chat, generate, lora, paths, tokenizer
from llm.checkpoint import load_model, save_model
from llm.config import ModelConfig, SampleConfig
from llm.model import GPT
from llm.tokenizer import ByteTokenizer
from ui.figures import playground as figures
from ui.tabs import playground as tab

BYTE = ByteTokenizer()
HELLO = dict(model="tiny", prompt="Hello", special=False, chat=None)
OFF = (False, "", "", "{}")  # no chat: switch, system message, template, turns


@pytest.fixture(autouse=True)
def inline(monkeypatch, home):
    monkeypatch.setenv("LLM_ENGINE", "inline")


@pytest.fixture
def model() -> GPT:
    torch.manual_seed(0)
    model = GPT(ModelConfig(vocab_size=257, context_length=64, n_layer=2, n_head=4, n_kv_head=2, n_embd=32))
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.15)
    save_model(paths.models() / "tiny", model.eval(), BYTE, "")
    return model


SAY = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"


@pytest.fixture
def talker(home) -> GPT:
    """A random model with a chat template and markers of its own; its plain texts begin with <s>."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    own = tokenizers.Tokenizer(models.BPE({sign: id for id, sign in enumerate(alphabet)}, []))
    own.pre_tokenizer, own.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    own.add_special_tokens(["<s>", "<|im_start|>", "<|im_end|>"])
    own.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 256)])
    torch.manual_seed(1)
    model = GPT(ModelConfig(vocab_size=259, context_length=96, n_layer=2, n_head=2, n_embd=32))
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.15)
    folder = paths.models() / "talker"
    save_model(folder, model.eval(), tokenizer.HFTokenizer("talker", json.loads(own.to_str())), "")
    settings = dict(chat_template=SAY, bos_token="<s>", eos_token="<|im_end|>")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return model


def values(b: dict | None = None, **changed) -> tuple:
    """The widgets' values in the tab's order: A, B, then what both share."""
    base = {name: getattr(SampleConfig(), name) for name in (*tab.EACH, *tab.BOTH)} | {
        "stop": "",
        "max_new_tokens": 20,
    }
    base |= changed
    return (
        *(base[name] for name in tab.EACH),
        *((base | (b or {}))[name] for name in tab.EACH),
        *(base[name] for name in tab.BOTH),
    )


def news(text: str) -> list:
    return [json.loads(line) for line in text.splitlines()]


def written(told: str, row: int = 0) -> str:
    """The text a browser shows for what it was told."""
    tokens = [item for item in news(told) if isinstance(item, list) and item[0] == row]
    whole = "".join(item[2] for item in tokens).encode("utf-16-le")
    return whole[: 2 * tokens[-1][3]].decode("utf-16-le")


def test_what_is_sent_only_grows_and_is_the_text(model):
    sent = list(tab.generate("tiny", "Hello", False, False, *OFF, *values(seed=4)))
    for before, after in itertools.pairwise(sent):
        assert after.startswith(before)
    expected = generate.complete(model, BYTE, ["Hello"], SampleConfig(seed=4, max_new_tokens=20))[0]
    assert written(sent[-1]) == expected
    first, *_, last = news(sent[-1])
    assert first["begin"]["asked"] == {"0": HELLO} and first["begin"]["rows"] == [0] and last == {"end": True}
    assert any("rate" in item for item in news(sent[-1]) if isinstance(item, dict))


def test_at_most_fifteen_updates_a_second(model):
    start = time.monotonic()
    sent = list(
        tab.generate("tiny", "Hello", False, False, *OFF, *values(max_new_tokens=300, stop_at_eot=False))
    )
    assert len(sent) <= 2 + 15 * (time.monotonic() - start)
    assert len(sent) < 300


def test_two_settings_write_side_by_side(model):
    sent = list(tab.generate("tiny", "Hello", False, True, *OFF, *values(b=dict(temperature=0.0), seed=2)))[
        -1
    ]
    for row, config in enumerate(
        (SampleConfig(seed=2, max_new_tokens=20), SampleConfig(temperature=0, max_new_tokens=20))
    ):
        assert written(sent, row) == generate.complete(model, BYTE, ["Hello"], config)[0]


def test_markup_cannot_leave_its_string(model):
    forced = BYTE.encode("<script>alert(1)</script>")
    asked = tab.asking("tiny", "<b>", False, *OFF[:3])
    told = list(tab.stream({0: asked}, [SampleConfig(max_new_tokens=30)], forced))[-1]
    assert "<" not in told and written(told).startswith("<script>alert(1)</script>")


def test_the_page_and_the_terminal_write_the_same(model, home):
    sent = list(
        tab.generate(
            "tiny", "It's -x", False, False, *OFF, *values(seed=9, top_p=0.95, temperature=0.6, stop="zq\\n")
        )
    )
    line = tab.commands(
        "tiny", "It's -x", False, False, *OFF, *values(seed=9, top_p=0.95, temperature=0.6, stop="zq\\n")
    )
    words = shlex.split(line)
    assert words[:3] == ["python", "-m", "llm.generate"]
    done = subprocess.run([sys.executable, *words[1:]], capture_output=True, timeout=120, check=True)
    assert done.stdout.decode() == written(sent[-1]) + "\n"


def test_going_on_from_another_token(model):
    free = [
        item
        for item in news(list(tab.generate("tiny", "Hello", False, False, *OFF, *values()))[-1])
        if isinstance(item, list)
    ]
    after = [item[1] for item in free[:5]]
    place = dict(asked=HELLO, row=0, after=after, chosen=free[5][1])
    told = list(tab.go_on(place, 88, False, *values()))[-1]
    tokens = [item[1] for item in news(told) if isinstance(item, list)]
    assert tokens[:6] == [*after, 88] and 6 < len(tokens) <= 26  # an end-of-text may come first
    begun = news(told)[0]["begin"]
    assert begun["forced"] == [*after, 88] and begun["rows"] == [0]
    again = tab.command(HELLO, SampleConfig(max_new_tokens=26), begun["forced"])
    assert f"--forced={','.join(map(str, begun['forced']))}" in again


def test_going_on_in_b_leaves_a_alone(model):
    place = dict(asked=HELLO, row=1, after=[], chosen=None)
    told = list(tab.go_on(place, 88, True, *values()))[-1]
    assert news(told)[0]["begin"]["rows"] == [1]
    assert {item[0] for item in news(told) if isinstance(item, list)} == {1}


def test_the_table_is_that_of_explain(model):
    place = tab.placed(dict(asked=HELLO, row=0, after=[65], chosen=200))
    html = tab.table(place, False, *values(top_k=3))
    ids = [*BYTE.encode("Hello"), 65]
    expected = generate.explain(
        generate.next_logits(model, ids), ids, SampleConfig(top_k=3), BYTE, tab.LISTED, [200]
    )
    for row in expected["rows"]:
        assert f"data-id='{row['id']}'" in html
    assert html.count("class='pg-out'") + html.count("class='pg-out pg-chosen'") == len(expected["rows"]) - 3
    assert "dropped by top-k" in html and "3 left" in html and "chosen</i>" in html
    assert figures.percent(expected["rows"][0]["probability"]) in html


def test_the_table_follows_the_setting_of_its_side(model):
    place = tab.placed(dict(asked=HELLO, row=1, after=[], chosen=None))
    assert "1 left" in tab.table(place, True, *values(b=dict(temperature=0.0)))
    assert "setting B" in tab.table(place, True, *values())
    assert "1 left" not in tab.table(place, False, *values(b=dict(temperature=0.0)))
    assert "largest value is" in tab.table(place, False, *values(top_p=7))


def test_tokens_are_escaped_in_the_table():
    row = dict(id=1, text="<b>&\"'", seen=True, logit=1.0, penalty=1.0, temperature=1.0, softmax=1.0, top_k=1.0, top_p=1.0, min_p=1.0)  # fmt: skip
    html = figures.table_row(row, None)
    assert "<b>" not in html and "&lt;b&gt;&amp;&quot;&#x27;" in html


@pytest.mark.parametrize(
    "share, text", [(1.0, "100 %"), (0.1234, "12.3 %"), (0.0004, "< 0.1 %"), (0.99951, "100 %")]
)
def test_percent(share, text):
    assert figures.percent(share) == text


def refusal(iterator) -> str:
    with pytest.raises(gr.Error) as error:
        list(iterator)
    return str(error.value)


def refusal_of(fn, *given) -> str:
    with pytest.raises(gr.Error) as error:
        fn(*given)
    return str(error.value)


def test_refusals_are_sentences(model):
    assert "Train tab" in refusal(tab.generate(None, "a", False, False, *OFF, *values()))
    assert "no model called" in refusal(tab.generate("nobody", "a", False, False, *OFF, *values()))
    assert "top_k" in refusal(tab.generate("tiny", "a", False, False, *OFF, *values(top_k=-1)))
    assert "whole number" in refusal(tab.generate("tiny", "a", False, False, *OFF, *values(seed=None)))
    assert "100,000" in refusal(tab.generate("tiny", "a" * 100_001, False, False, *OFF, *values()))
    assert "4,000" in refusal(tab.generate("tiny", "a", False, False, *OFF, *values(max_new_tokens=4001)))
    assert "no token ids" in refusal(tab.go_on(dict(after=[], row=0), "x", False, *values()))
    assert "Open a token" in refusal(tab.go_on({}, 1, False, *values()))
    for wrong in ([-1], ["a"], "12", [True], [2**40]):
        with pytest.raises(ValueError):
            tab.placed(dict(asked=HELLO, after=wrong))


def test_top_k_beyond_the_vocabulary_is_off(model):
    texts = [
        written(list(tab.generate("tiny", "a", False, False, *OFF, *values(top_k=k)))[-1])
        for k in (0, 257, 100_000)
    ]
    assert texts[0] == texts[1] == texts[2]


def test_context_overflow_is_told(model):
    told = news(
        list(
            tab.generate("tiny", "x" * 100, False, False, *OFF, *values(max_new_tokens=50, stop_at_eot=False))
        )[-1]
    )
    notes = [item["note"] for item in told if isinstance(item, dict) and "note" in item]
    assert "first 36 were dropped" in notes[0] and "64" in notes[1]
    gone = [item[7] for item in told if isinstance(item, list)]
    assert gone[0] == 0 and gone[-1] > 0 and gone == sorted(gone)


def test_special_tokens_are_text_unless_switched_on(model):
    for special in (False, True):
        told = list(tab.generate("tiny", "<|endoftext|>a", special, False, *OFF, *values(temperature=0)))[-1]
        ids = BYTE.encode("<|endoftext|>a", special=special)
        step = next(generate.generate(model, BYTE, [ids], SampleConfig(temperature=0)))
        assert next(item for item in news(told) if isinstance(item, list))[1] == step.id
        assert ("--special" in tab.commands("tiny", "a", special, False, *OFF, *values())) == special


def test_stop_strings_one_a_line():
    assert tab.unescaped("") == () and tab.unescaped(None) == ()
    assert tab.unescaped("own fox\n\n.\\n\n \\\\n") == ("own fox", ".\n", " \\n")


def test_a_space_at_the_end_is_pointed_out():
    assert "ends with a space" in tab.hint("Once ") and tab.hint("Once") == ""


def test_without_a_model_the_page_says_what_to_do(monkeypatch):
    monkeypatch.setattr(paths, "model_names", list)
    assert "Train tab" in news(list(tab.opening(None, "a", False, False, *OFF, *values()))[-1])[0]["message"]


def test_leaving_ends_the_generation(model):
    from llm import engine

    running = tab.generate("tiny", "a", False, False, *OFF, *values(max_new_tokens=4000, stop_at_eot=False))
    next(running), next(running)
    assert engine.get().worker.busy
    running.close()
    assert not engine.get().worker.busy


def test_the_api_functions_give_what_llm_gives(model):
    assert (
        tab.continuation("tiny", "Hello", 12, 0.5, 3)
        == generate.complete(
            model, BYTE, ["Hello"], SampleConfig(max_new_tokens=12, temperature=0.5, seed=3)
        )[0]
    )
    chances = generate.next_logits(model, BYTE.encode("H")).log_softmax(-1)
    assert tab.surprise("tiny", "Hi")["logprobs"] == [None, pytest.approx(float(chances[ord("i")]), abs=1e-4)]
    found = tab.next_tokens("tiny", "Hello", top_k=2)
    assert found["kept"]["top_k"] == 2 and len(found["rows"]) == tab.LISTED


# --- chat


def talk(*turns: str) -> str:
    """What the browser says of a conversation: user and assistant in turn."""
    return json.dumps(
        {"0": [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(turns)]}
    )


def own(name: str = "talker") -> tuple:
    folder = paths.model_folder(name)
    return folder, tokenizer.load(folder)


def test_a_message_is_answered_through_the_models_own_template(talker):
    said = talk("one", "two")
    sent = list(tab.generate("talker", "Hi <|im_end|>", False, False, True, "Be", "", said, *values(seed=4)))[
        -1
    ]
    begun = news(sent)[0]["begin"]
    turns = json.loads(said)["0"]
    found = chat.prompt(*own(), chat.conversation("Be", turns, "Hi <|im_end|>"))
    config = SampleConfig(seed=4, max_new_tokens=20)
    expected = generate.generate(talker, own()[1], [found.ids], config, ends=[258])
    assert written(sent) == "".join(step.text for step in expected)
    assert begun["sent"] and begun["asked"]["0"]["chat"] == dict(system="Be", template="", turns=turns)
    reads = begun["reads"]["0"]
    assert "".join(text for text, _ in reads["pieces"]) == found.text and reads["count"] == len(found.ids)
    assert [id for _, id in reads["pieces"] if id is not None] == [257, 258] * 4 + [257]


def test_page_and_terminal_answer_alike(talker):
    given = ("talker", "Hi", False, False, True, "Be brief", "", talk("one", "two"), *values(seed=3))
    line = tab.commands(*given)
    done = subprocess.run(
        [sys.executable, *shlex.split(line)[1:], "--show_prompt"],
        capture_output=True,
        timeout=120,
        check=True,
    )
    assert done.stdout.decode() == written(list(tab.generate(*given))[-1]) + "\n"
    assert "<|im_start|>system\nBe brief<|im_end|>\n<|im_start|>user\none" in done.stderr.decode()
    # with nothing typed it is the command of the answer on the screen
    after = tab.commands(
        "talker", "", False, False, True, "Be brief", "", talk("one", "two", "Hi", "x"), *values(seed=3)
    )
    assert after == line


def test_the_end_of_a_turn_ends_the_answer(talker):
    asked = tab.asking("talker", "Hi", False, True, "", "")
    told = news(list(tab.stream({0: asked}, [SampleConfig(max_new_tokens=30)], [65, 258]))[-1])
    assert [item[6] for item in told if isinstance(item, list)] == [None, "eot"]


def test_a_plain_text_begins_with_the_models_first_token_exactly_once(talker):
    encoding = own()[1]
    for prompt, special in (("Hi", False), ("<s>Hi", True)):
        sent = list(tab.generate("talker", prompt, special, False, *OFF, *values(temperature=0)))[-1]
        ids = [256, *encoding.encode("Hi")]
        step = next(generate.generate(talker, encoding, [ids], SampleConfig(temperature=0)))
        assert next(item for item in news(sent) if isinstance(item, list))[1] == step.id
        pieces = news(sent)[0]["begin"]["reads"]["0"]["pieces"]
        assert pieces == ([["<s>Hi", None]] if special else [["<s>", 256], ["Hi", None]])
    chances = generate.next_logits(talker, [256, *encoding.encode("H")]).log_softmax(-1)
    found = tab.surprise("talker", "Hi")
    assert found["ids"][0] == 256 and found["logprobs"][2] == pytest.approx(
        float(chances[encoding.encode("i")[0]]), abs=1e-4
    )
    table = tab.next_tokens("talker", "Hi")
    logits = generate.next_logits(talker, [256, *encoding.encode("Hi")])
    best = table["rows"][0]
    assert best["logit"] == pytest.approx(float(logits[best["id"]]), abs=1e-4)


def test_the_terminal_says_what_a_text_begins_with(talker, capsys):
    generate.main(
        ["--model", "talker", "--prompt=Hi", "--temperature=0", "--max_new_tokens=5", "--show_prompt"]
    )
    told = capsys.readouterr()
    assert (
        "[<s> stands in front, as this model's texts begin with it]" in told.err
        and "<s>Hi [3 tokens]" in told.err
    )
    ids = [256, *own()[1].encode("Hi")]
    steps = generate.generate(
        talker, own()[1], [ids], SampleConfig(temperature=0, max_new_tokens=5), ends=[258]
    )
    assert told.out == "".join(step.text for step in steps) + "\n"


def test_the_table_of_an_answer_is_that_of_its_prompt(talker):
    asked = tab.asking("talker", "Hi", False, True, "", "", [])
    wish = json.dumps(dict(asked=asked, row=0, after=[65], chosen=70))
    place, html = tab.opened(wish, False, *values(top_k=3))
    ids = [*chat.prompt(*own(), chat.conversation("", [], "Hi")).ids, 65]
    for row in generate.explain(
        generate.next_logits(talker, ids), ids, SampleConfig(top_k=3), own()[1], tab.LISTED
    )["rows"]:
        assert f"data-id='{row['id']}'" in html
    told = news(list(tab.go_on(place, 66, False, *values()))[-1])
    assert told[0]["begin"]["asked"]["0"] == asked and told[0]["begin"]["forced"] == [65, 66]
    assert not told[0]["begin"]["sent"]


def test_each_setting_has_its_own_conversation(talker):
    said = json.dumps({"0": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "A"}],
                       "1": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "B"}]})  # fmt: skip
    sent = list(tab.generate("talker", "Hi", False, True, True, "", "", said, *values(temperature=0)))[-1]
    asked = news(sent)[0]["begin"]["asked"]
    assert [asked[row]["chat"]["turns"][1]["content"] for row in "01"] == ["A", "B"]
    for row, answer in ((0, "A"), (1, "B")):
        turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": answer}]
        ids = chat.prompt(*own(), chat.conversation("", turns, "Hi")).ids
        config = SampleConfig(temperature=0, max_new_tokens=20)
        steps = generate.generate(talker, own()[1], [ids], config, ends=[258])
        assert written(sent, row) == "".join(step.text for step in steps)


def test_a_long_conversation_is_said_to_be_forgotten(talker):
    sent = list(tab.generate("talker", "x" * 200, False, False, True, "", "", "{}", *values()))[-1]
    note = next(item["note"] for item in news(sent) if isinstance(item, dict) and "note" in item)
    assert "the model sees 96" in note and "beginning of the conversation" in note


def test_without_a_template_one_is_chosen_and_its_answer_ends_where_the_person_would_speak(model):
    refused = refusal(tab.generate("tiny", "Hi", False, False, True, "", "", "{}", *values()))
    assert "tiny has no chat template: it only completes texts" in refused
    asked = tab.asking("tiny", "Hi", False, True, "", "plain")
    read = tab.reading(asked)
    assert bytes(read.prompt).decode() == "User: Hi\nAssistant:"
    forced = BYTE.encode(" yes\nUser: no")
    sent = list(tab.stream({0: asked}, [SampleConfig(max_new_tokens=40)], forced))[-1]
    assert written(sent) == " yes"


def test_chat_is_on_where_the_model_has_a_template(talker, model):
    def request(**query):
        return SimpleNamespace(query_params=query)

    on, *_, start = tab.at_opening("talker", "", tab.EXAMPLE, False, request())
    assert on is True and start == 1
    off, *rest, _ = tab.at_opening("tiny", "", tab.EXAMPLE, False, request())
    assert off is False and rest[0]["visible"] is False and "value" not in rest[3]
    kept, *_ = tab.at_opening("talker", "", tab.EXAMPLE, False, request(**{"playground.chat": "false"}))
    assert kept is False
    column, template, notice, prompt, button, _ = tab.talked(True, "tiny", "", tab.EXAMPLE)
    assert (
        column["visible"]
        and template["value"] == "plain"
        and notice["visible"]
        and "only completes" in notice["value"]
    )
    assert prompt["label"] == "Message" and prompt["value"] == tab.QUESTION and button["value"] == "Send"
    _, template, notice, prompt, *_ = tab.talked(True, "talker", "", "mine")
    assert template["value"] == "" and not notice["visible"] and "value" not in prompt
    assert tab.has_template(None) is False and tab.has_template("nobody") is False


def test_conversations_from_a_browser_are_looked_at(talker):
    for wrong in (
        "[]",
        "x",
        '{"0": 1}',
        '{"0": [1]}',
        '{"0": [{"role": "system2", "content": "x"}]}',
        None,
        "[" * 100_000,
    ):
        if wrong is not None:
            refusal(tab.generate("talker", "Hi", False, False, True, "", "", wrong, *values()))
    assert "type one" in refusal(tab.generate("talker", " ", False, False, True, "", "", "{}", *values()))
    assert "no chat template called" in refusal(
        tab.generate("talker", "Hi", False, False, True, "", "nope", "{}", *values())
    )
    assert tab.commands("talker", "", False, False, True, "", "", "{}", *values()).startswith(
        "# There is no message"
    )


def test_the_api_answers(talker):
    ids = chat.prompt(*own(), chat.conversation("S", [], "Hi")).ids
    config = SampleConfig(max_new_tokens=12, temperature=0.5, seed=3)
    steps = generate.generate(talker, own()[1], [ids], config, ends=[258])
    assert tab.answer("talker", "Hi", "S", None, "", 12, 0.5, 3) == "".join(step.text for step in steps)


def test_a_click_in_the_text_opens_its_place(model):
    wish = json.dumps(dict(row=0, after=[1, 2], chosen=3, asked=HELLO))
    place, html = tab.opened(wish, False, *values())
    assert place["after"] == [1, 2] and "New token 3" in html
    for wrong in ("", "[]", "{}", None, "{", '{"asked": 3}'):
        refusal_of(tab.opened, wrong, False, *values())


# --- adapters


@pytest.fixture
def loud(model) -> GPT:
    """A LoRA run on `tiny`: its adapter, its merged model, and a chat template of its own."""
    lora.add(model, lora.Settings(rank=4))
    with torch.no_grad():
        for part, values in model.named_parameters():
            if part.endswith(".B"):
                values.normal_(std=0.1)
    lora.save(model, paths.runs() / "loud" / "adapter", base="tiny")
    plain = lora.merged(model)
    save_model(paths.runs() / "loud" / "model", plain, BYTE, "", extras={"chat_template.jinja": SAY.encode()})
    return plain


def dialled(strength: float, names: str = "loud", **changed) -> tuple:
    """The widgets' values with the dial of `loud`."""
    return (*values(**changed), names, strength, *[0] * (tab.DIALS - 1))


def test_a_model_with_adapters_has_dials_and_its_own_stands_at_one(loud):
    panel, told, names, first, second, *_ = tab.dials("loud")
    assert panel["visible"] and names == "loud" and "loud is tiny with its adapter at 1" in told
    assert first == {"__type__": "update", "visible": True, "label": "loud", "value": 1.0}
    assert second["visible"] is False
    assert tab.dials("tiny")[2] == "loud" and tab.dials("tiny")[3]["value"] == 0.0
    assert tab.dials("tiny", "loud=1.75")[3]["value"] == 1.75  # a link says so
    for wrong in ("other=1", "loud=9", "loud=x", "<b>"):
        assert tab.dials("loud", wrong)[3]["value"] == 1.0
    for without in ("nobody", None, "story-gpt2"):
        panel, told, names, *sliders = tab.dials(without)
        assert not panel["visible"] and names == told == "" and not any(one["visible"] for one in sliders)
    assert tab.refreshed_dials("tiny", "", "loud", 0.25)[3]["value"] == 0.25
    assert tab.linked("loud shy", 0.5, 2, 0) == "loud=0.5 shy=2"


def test_more_adapters_than_dials_are_said(loud):
    for n in range(tab.DIALS):
        shutil.copytree(paths.runs() / "loud" / "adapter", paths.runs() / f"more-{n}" / "adapter")
    found = tab.dials("loud")
    assert found[2].split()[0] == "loud" and len(found[2].split()) == tab.DIALS
    assert "1 more" in found[1] and "Several of them add up" in found[1]


def test_the_text_follows_the_dial_and_the_terminal_says_the_same(model, loud):
    texts = {}
    for strength in (0, 1, 2):
        given = ("tiny", "Hello", False, False, *OFF, *dialled(strength, temperature=0))
        sent = list(tab.generate(*given))[-1]
        texts[strength] = written(sent)
        assert news(sent)[0]["begin"]["asked"]["0"] == HELLO | {"adapters": {"loud": strength}}
    plain = SampleConfig(temperature=0, max_new_tokens=20)
    for strength, one in ((0, "tiny"), (1, "loud")):
        own, _ = load_model(paths.model_folder(one))
        assert texts[strength] == generate.complete(own, BYTE, ["Hello"], plain)[0]
    assert texts[2] != texts[1] != texts[0]
    line = tab.commands(*given)
    assert "--adapter=loud=2" in line
    done = subprocess.run(
        [sys.executable, *shlex.split(line)[1:]], capture_output=True, check=True, timeout=120
    )
    assert done.stdout.decode() == texts[2] + "\n"


def test_the_table_follows_the_dial_of_the_model_that_was_asked(model, loud):
    asked = HELLO | {"adapters": {"loud": 1.0}}
    place = tab.placed(dict(asked=asked, row=0, after=[], chosen=None))
    assert place["asked"] == asked
    tables = [tab.table(place, False, *dialled(strength)) for strength in (0, 1, 2)]
    assert len(set(tables)) == 3
    bare = tab.table(tab.placed(dict(asked=HELLO, row=0, after=[], chosen=None)), False, *dialled(2))
    assert (
        bare == tables[0]
    )  # the text was written without adapters: the dials of another model do not touch it
    assert tab.table(place, False, *dialled(2, names="other")) == tables[1]
    told = list(tab.go_on(place, 88, False, *dialled(2)))[-1]
    assert news(told)[0]["begin"]["asked"]["0"]["adapters"] == {"loud": 2.0}
    for wrong in ({"loud": 3}, {"loud": "x"}, {"../x": 1}, [1], {"loud": True}):
        with pytest.raises(ValueError):
            tab.placed(dict(asked=HELLO | {"adapters": wrong}, row=0, after=[], chosen=None))


def test_a_tuned_model_is_spoken_to_in_its_own_way_at_every_strength(model, loud):
    """The base has no chat template; dialled down to it, the tuned model's is still the one that asks."""
    given = ("loud", "Hi", False, False, True, "", "", "{}")
    sent = list(tab.generate(*given, *dialled(0, temperature=0)))[-1]
    ids = chat.prompt(paths.model_folder("loud"), BYTE, chat.conversation("", [], "Hi")).ids
    base, _ = load_model(paths.model_folder("tiny"))
    config = SampleConfig(temperature=0, max_new_tokens=20)
    assert written(sent) == "".join(s.text for s in generate.generate(base, BYTE, [ids], config))


def test_a_dial_beyond_its_end_is_refused(model, loud):
    assert "from 0 to 2" in refusal(tab.generate("tiny", "a", False, False, *OFF, *dialled(2.5)))
    assert tab.commands("tiny", "a", False, False, *OFF, *dialled(-1)).startswith("# The strength")
