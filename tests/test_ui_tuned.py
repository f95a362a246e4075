"""The rooms "Try it" and "Choose answers" as plain functions: what they write, measure, keep and refuse."""

import json
import math
import random
import re
import shlex
import zipfile
from dataclasses import replace
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from llm import corpora, evaluate, generate, lora, losses, objectives, pairs, paths, prompts, rows, tokenizer
from llm.checkpoint import load_model, save_model
from llm.config import RunConfig, SampleConfig, TuneConfig, to_dict
from llm.model import GPT, ModelConfig
from llm.runs import Run
from llm.tokenizer import ByteTokenizer
from ui import choosing, tuned
from ui.figures import tuned as figures

BYTE = ByteTokenizer()
WORDS = ("fox", "owl", "bee", "ant", "cat", "dog", "hen", "pig", "cow", "elk")


@pytest.fixture(autouse=True)
def inline(monkeypatch, home):
    monkeypatch.setenv("LLM_ENGINE", "inline")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def store(name: str, found: list[dict]) -> None:
    lines = "".join(json.dumps(row) + "\n" for row in found)
    (paths.datasets() / f"{name}.jsonl").write_text(lines)


def base() -> GPT:
    torch.manual_seed(0)
    model = GPT(ModelConfig(vocab_size=257, context_length=96, n_layer=2, n_head=2, n_embd=32))
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.1)
    return model.eval()


def trained(name: str, dataset: str, objective: str, start_from: str = "tiny", **extras: bytes) -> RunConfig:
    """What a LoRA training leaves: its run, the merged model and the adapter (with random numbers in it)."""
    config = RunConfig(
        dataset=dataset, start_from=start_from, objective=objective, tune=TuneConfig(trained="lora", prompt_style="plain"),
    )  # fmt: skip
    Run.create("train", to_dict(config), owner="", name=name)
    model, encoding = load_model(paths.model_folder(start_from))
    lora.add(model, lora.Settings(rank=4))
    torch.manual_seed(len(name))
    with torch.no_grad():
        for part, values in model.named_parameters():
            if part.endswith(".B"):
                values.normal_(std=0.1)
    lora.save(model, paths.runs() / name / "adapter", base=start_from)
    save_model(paths.runs() / name / "model", lora.merged(model), encoding, "", extras=extras)
    return config


@pytest.fixture
def tiny(home) -> GPT:
    """The base, and rows for it: two families of tasks, and pairs of answers."""
    save_model(paths.models() / "tiny", base(), BYTE, "")
    tasks = [
        dict(instruction=f"Say {word}.", input="", output=word, family="say" if i % 2 else "tell", split=part)
        for i, word in enumerate(WORDS)
        for part in (("test",) if i < 4 else ("train",))
    ]
    store("tasks", [*tasks, dict(instruction="Say x.", input="", output="x", family="far", split="unseen")])
    store("liked", [dict(prompt=f"Say {w}.", chosen=w, rejected=w[::-1], split="test" if i < 4 else "train") for i, w in enumerate(WORDS)])  # fmt: skip
    return base()


def last(steps) -> object:
    *_, found = steps
    return found


def refusal(fn, *given) -> str:
    with pytest.raises(gr.Error) as error:
        list(found) if hasattr(found := fn(*given), "__next__") else found
    return str(error.value)


# --- Try it


def test_a_tuned_model_is_told_with_links_to_tabs_that_exist(tiny):
    import app

    trained("tuned", "tasks", "instruct")
    facts, writes, measured, tells, threshold, adapter = tuned.about("tuned")
    for part in (
        "answers to instructions",
        "tiny",
        "an adapter (LoRA)",
        "tasks",
        "tab=playground&amp;playground.model=tuned",
    ):
        assert part in facts
    assert set(tuned.TABS.values()) <= set(app.TABS)
    assert [one["visible"] for one in (writes, measured, tells, threshold, adapter)] == [
        True,
        True,
        False,
        False,
        True,
    ]
    assert "not tuned from another model" in tuned.about("tiny")[0]
    assert tuned.NONE in tuned.about(None)[0].replace("&#x27;", "'")


def test_the_example_suits_the_model_until_something_else_is_typed(tiny):
    trained("tuned", "tasks", "instruct")
    assert tuned.example("tuned", tuned.STORY) == tuned.EXAMPLES["instruct"]
    for name, text in (("tuned", "mine"), ("tiny", tuned.STORY), (None, "")):
        assert tuned.example(name, text) == gr.skip()


def test_base_and_tuned_answer_the_same_prompts_with_the_same_seed(tiny):
    trained("tuned", "tasks", "instruct")
    html = last(tuned.compare("tuned", "Say fox.\n---\nSay <b>owl</b>.", 12, 0.8, 5))
    ids = [BYTE.encode(f"User: {text}\nAssistant:") for text in ("Say fox.", "Say <b>owl</b>.")]
    wanted = SampleConfig(temperature=0.8, seed=5, max_new_tokens=12, stop=("\nUser:",))
    for name in ("tiny", "tuned"):
        model, _ = load_model(paths.model_folder(name))
        texts = ["", ""]
        for step in generate.generate(model, BYTE, ids, wanted):
            texts[step.row] += step.text
        for text in texts:
            assert figures.escape(text.strip()) in html
    assert "<b>" not in html and "data-state='still'" in html


def test_what_cannot_be_compared_is_said(tiny):
    trained("tuned", "tasks", "instruct")
    for given, sentence in (
        (("tiny", "a", 9, 0, 0), "was not tuned"),
        (("tuned", " \n---\n ", 9, 0, 0), "no prompt"),
        (("tuned", "a\n---\n" * 9, 9, 0, 0), "8 prompts"),
        (("tuned", "a", None, 0, 0), "need"),
        (("tuned", "a", 2000, 0, 0), "1,000 tokens"),
        (("tuned", "a", 9, -1, 0), "temperature"),
        ((None, "a", 9, 0, 0), "room Tune"),
    ):
        assert sentence in refusal(tuned.compare, *given)
    (paths.models() / "tiny" / "config.json").unlink()
    assert "no model called" in refusal(tuned.compare, "tuned", "a", 9, 0, 0)


def test_prompts_are_taken_from_rows_that_it_has_not_learned_from(tiny):
    trained("tuned", "tasks", "instruct")
    assert tuned.from_rows("tuned", "test", 0) == "\n---\n".join(f"Say {word}." for word in WORDS[:4])
    assert tuned.from_rows("tuned", "unseen", 0) == "Say x."
    assert "there are train (6)" in refusal(tuned.from_rows, "tuned", "validation", 0)


def test_before_and_after_are_what_llm_evaluate_reports(tiny):
    """Both measured in processes of their own; the oracle is the same function called here."""
    config = trained("tuned", "tasks", "instruct")
    kept, html = last(tuned.measure("tuned", "test", 0.5))
    assert kept is None
    for name in ("tiny", "tuned"):
        found = evaluate.report(name, config, "test")
        assert figures.number(found["val_loss"]) in html and found["of"] == 4
        assert f"{figures.percent(found['right'] / 4)} ({found['right']} of 4)" in html
    assert "<td>say</td>" in html and "<td>tell</td>" in html
    lines = tuned.commands("tuned", "test").splitlines()
    assert [shlex.split(line)[3] for line in lines] == ["tiny", "tuned"] and "--part test" in lines[1]
    sentence = refusal(tuned.measure, "tuned", "nowhere", 0.5)
    assert "no part 'nowhere'" in sentence.replace("&#x27;", "'")


def test_gains_have_their_sign():
    before, after = (
        dict(right=r, of=4, families={"say": [r, 4]}, val_loss=loss, rows=[])
        for r, loss in ((1, 2.0), (3, 0.5))
    )
    html = figures.before_and_after({"a<b": before, "b": after})
    assert "+50.0 points" in html and "−1.50" in html and "a&lt;b" in html and "25.0 % (1 of 4)" in html


@pytest.fixture
def classes(tiny) -> str:
    """A classifier of two classes on the base, its head random."""
    draw = random.Random(0)
    found = [dict(text=f"{draw.choice(WORDS)} {draw.choice(WORDS)}", label=("no", "yes")[i % 2], split=("train", "test")[i // 10]) for i in range(20)]  # fmt: skip
    store("kinds", found)
    trained("kind", "kinds", "classify")
    folder = paths.runs() / "kind" / "model"
    save_file(
        {"weight": torch.randn(2, 32, generator=torch.Generator().manual_seed(3))},
        folder / "classifier.safetensors",
    )
    (folder / "classifier.json").write_text(json.dumps(dict(labels=["no", "yes"], max_length=96)))
    return "kind"


def test_a_classifier_tells_a_text_and_the_threshold_decides(classes):
    model, _ = load_model(paths.model_folder("kind"))
    chances = objectives.class_probabilities(model, BYTE, str(paths.model_folder("kind")), ["fox owl"])[
        "probabilities"
    ][0]
    for threshold in (0.0, chances[1] - 0.01, chances[1] + 0.01, 1.0):
        html = tuned.classify("kind", "fox owl", threshold)
        assert f"data-label='{'yes' if chances[1] >= threshold else 'no'}'" in html
        assert all(figures.percent(p) in html for p in chances)
    assert "no text" in refusal(tuned.classify, "kind", " ", 0.5)
    shown = [one["visible"] for one in tuned.about("kind")[1:5]]
    assert shown == [False, True, True, True] and "playground" not in tuned.about("kind")[0]


def test_the_confusion_matrix_is_counted_from_the_test_rows(classes):
    kept, html = last(tuned.measure("kind", "test", 0.5))
    config = RunConfig(dataset="kinds", start_from="tiny", objective="classify")
    found = evaluate.report("kind", config, "test")
    cells = [n for line in found["matrix"] for n in line]
    assert sum(cells) == 10 and f"{figures.percent(found['accuracy'])} (" in html
    assert [int(cell.split("</td>")[0]) for cell in html.split("%'>")[1:5]] == cells
    wrong = 10 - round(found["accuracy"] * 10)
    assert html.count("<td class=num>") == 2 * wrong
    all_yes = tuned.at_threshold(kept, 0.0)
    assert "recall of yes</dt><dd>100.0 %" in all_yes and "precision of yes</dt><dd>50.0 %" in all_yes
    none = tuned.at_threshold(kept, 1.0)
    assert "recall of yes</dt><dd>0.0 %" in none and "precision of yes</dt><dd>–" in none


def test_more_classes_take_the_likeliest():
    report = dict(labels=["a", "b", "c"], rows=[
        dict(row=1, text="<i>", label="a", probabilities=[0.5, 0.3, 0.2]), dict(row=2, text="y", label="b", probabilities=[0.1, 0.2, 0.7]),
    ])  # fmt: skip
    html = figures.verdicts(report, 0.9)
    assert "50.0 % (1 of 2)" in html and "precision" not in html and "<td>y</td><td>b</td><td>c</td>" in html


def test_the_adapter_is_kept_in_pefts_layout(tiny, tmp_path):
    trained("tuned", "tasks", "instruct")
    button = tuned.adapter_file("tuned")
    with zipfile.ZipFile(button["value"]) as archive:
        archive.extractall(tmp_path)
    folder = tmp_path / "tuned-adapter"
    assert {file.name for file in folder.iterdir()} == {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    again = base()
    assert lora.load(again, folder, base="tiny") == []
    merged, _ = load_model(paths.model_folder("tuned"))
    ids = BYTE.encode("Say fox.")
    assert torch.allclose(generate.next_logits(again, ids), generate.next_logits(merged, ids), atol=1e-4)
    assert tuned.adapter_file("tiny")["visible"] is False


def test_merged_it_is_an_export_run(tiny, monkeypatch):
    monkeypatch.setattr("llm.dispatch.pump", lambda: None)
    trained("tuned", "tasks", "instruct", "story-llama")
    visitor = SimpleNamespace(cookies={}, headers={}, state=SimpleNamespace())
    tuned.export(visitor, "tuned")
    run = Run.open("tuned-hf-fp32")
    assert run.meta["kind"] == "export" and run.config["model"] == "tuned" and run.config["format"] == "hf"
    trained("bytes", "tasks", "instruct")
    with pytest.raises(ValueError, match="byte"):  # other tools have no file for such an encoding
        tuned.export(visitor, "bytes")


# --- Choose answers


def test_answers_are_drawn_and_a_choice_becomes_a_row_that_trains(tiny):
    given = ("tiny", "plain", "Say <b>fox</b>.", 3, 0.9, 16, 7)
    written, html = last(choosing.write(*given))
    said = json.loads(written)
    ids = BYTE.encode("User: Say <b>fox</b>.\nAssistant:")
    wanted = SampleConfig(temperature=0.9, seed=7, max_new_tokens=16, stop=("\nUser:",))
    texts = [""] * 3
    for step in generate.generate(tiny, BYTE, [ids] * 3, wanted):
        texts[step.row] += step.text
    assert said == dict(prompt="Say <b>fox</b>.", answers=texts) and "<b>" not in html
    written = json.dumps(dict(prompt="Say fox.", answers=["fox", "xof", "no"]))
    state, told, table, seed = choosing.choose("mine", written, "1", 7)
    assert state == "" and "2 pairs were added: mine has 2 now" in told and seed == 10
    assert table.count("data-remove") == 2
    good = rows.check(rows.read(corpora.row_path("mine")), "preference").good
    assert [(row["prompt"], row["chosen"], row["rejected"]) for row in good] == [
        ("Say fox.", "xof", "fox"),
        ("Say fox.", "xof", "no"),
    ]
    assert pairs.read("mine") == [
        dict(prompt="Say fox.", chosen="xof", rejected=other) for other in ("fox", "no")
    ]
    config = RunConfig(
        dataset="mine", start_from="tiny", objective="prefer", tune=TuneConfig(prompt_style="plain")
    )
    model_config = tiny.config
    assert len(objectives.Prefer(replace(config, model=model_config), BYTE).train) >= 1
    assert choosing.take_away("mine", "1").count("data-remove") == 1
    assert "already" in refusal(
        choosing.choose, "mine", json.dumps(dict(prompt="Say fox.", answers=["xof", "no"])), "0", 0
    )


def test_what_is_no_choice_is_said(tiny):
    for written, best, sentence in (
        ("", "0", "Write answers first"),
        ("{}", "0", "Write answers first"),
        ('{"prompt": "a", "answers": ["b", "c"]}', "x", "Write answers first"),
        ('{"prompt": "a", "answers": ["b", "b "]}', "0", "the same"),
    ):
        assert sentence in refusal(choosing.choose, "mine", written, best, 0)
    assert "no model" in refusal(choosing.write, None, "plain", "a", 2, 1, 9, 0)
    assert "no prompt" in refusal(choosing.write, "tiny", "plain", " ", 2, 1, 9, 0)
    assert "number" in refusal(choosing.write, "tiny", "plain", "a", 2, None, 9, 0)
    assert "no pair yet" in refusal(choosing.train_on, "mine")
    assert "no pairs" in choosing.listed("tasks") and "ships" in choosing.listed("preferences")
    assert "no pair 3" in refusal(choosing.take_away, "liked", 3 + len(WORDS)).replace("13", "3")


def test_train_on_these_sets_the_form(tiny):
    dataset, told = choosing.train_on("liked")
    assert dataset["value"] == "liked" and {"liked", "tasks"} <= set(dataset["choices"])
    assert "Tune" in told and "little" not in told
    assert "liked" in choosing.preferences() and "tasks" not in choosing.preferences()


def test_a_pair_is_drawn_with_the_numbers_of_the_loss(tiny):
    """Sums, margin and loss against the objective's own functions on the same pair."""
    trained("prefers", "liked", "prefer")
    html = choosing.draw("liked", 2, "prefers", "tiny", "plain", 0.5)
    manner = prompts.manner("plain", paths.model_folder("tiny"), BYTE)
    row = choosing.pair_of("liked", 2)
    policy, _ = load_model(paths.model_folder("prefers"))
    sums, learned = [], 0
    for side in ("chosen", "rejected"):
        (text,) = prompts.write(manner, BYTE, [prompts.conversation(row, "\n", side)])
        inputs, targets = (torch.from_numpy(t) for t in prompts.padded([text], 0))
        learned += int((targets != losses.IGNORED).sum())
        with torch.no_grad():
            sums.append(
                [float(objectives.answer_logprobs(model, inputs, targets)) for model in (policy, tiny)]
            )
    both = torch.tensor(sums)  # side by model
    tally = losses.preference(both[None, :, 0], both[None, :, 1], torch.ones(1, 2), beta=0.5)
    shown = [float(text.replace("−", "-")) for text in re.findall(r">(−?[\d.]+)</(?:td|b)>", html)]
    for value in (*both.flatten().tolist(), float(tally.total), float(tally.sums["reward_margin"])):
        assert any(abs(value - one) <= 1e-3 * abs(value) + 1e-4 for one in shown), (value, shown)
    assert html.count("title='log p") == learned
    same = choosing.draw("liked", 2, "tiny", "tiny", "plain", 0.5)
    assert "0.6931" in same and "is the reference itself" in same


def test_margin_is_the_formula():
    seen = dict(
        chosen=dict(policy=[-1.0, -2.0], reference=[-2.0, -3.0]),
        rejected=dict(policy=[-4.0], reference=[-3.0]),
    )
    found = figures.margin(seen, 0.1)
    assert found == pytest.approx(
        dict(chosen=0.2, rejected=-0.1, margin=0.3, loss=-math.log(1 / (1 + math.exp(-0.3))))
    )
    ratios = torch.tensor([[2.0, -1.0]])
    assert found["loss"] == pytest.approx(float(losses.dpo(ratios, torch.ones(1, 2), 0.1, 0.0)))
    for margin in (-800.0, 800.0):
        wide = dict(
            chosen=dict(policy=[margin], reference=[0.0]), rejected=dict(policy=[0.0], reference=[0.0])
        )
        assert figures.margin(wide, 1.0)["loss"] == pytest.approx(float(-F.logsigmoid(torch.tensor(margin))))


def test_what_cannot_be_drawn_is_said(tiny):
    for given, sentence in (
        (("liked", 99, "tiny", "tiny", "plain", 0.1), "no row 99"),
        (("tasks", 1, "tiny", "tiny", "plain", 0.1), "chosen and rejected"),
        (("liked", 1, "nobody", "tiny", "plain", 0.1), "no model called"),
        (("liked", 1, "tiny", "story-llama", "plain", 0.1), "cut texts differently"),
        (("liked", None, "tiny", "tiny", "plain", 0.1), "needs its number"),
        (("liked", 1, "tiny", "tiny", "plain", 0), "above 0"),
        (("", 1, "tiny", "tiny", "plain", 1), "no pairs"),
    ):
        assert sentence in refusal(choosing.draw, *given)
    store("long", [dict(prompt="x" * 200, chosen="a", rejected="b")])
    assert "fills the context of 96" in refusal(choosing.draw, "long", 1, "tiny", "tiny", "plain", 0.1)


def test_a_policy_brings_its_reference_and_beta(tiny):
    trained("prefers", "liked", "prefer")
    assert choosing.compared("prefers") == ["tiny", TuneConfig().beta]
    assert choosing.compared("tiny") == ["tiny", TuneConfig().beta]
    assert np.isfinite(TuneConfig().beta) and tokenizer.get("model:tiny").vocab_size == 257
