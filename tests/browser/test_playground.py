"""The Playground as a student uses it: generate, stop, open a token, go on from another, compare; values against llm."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from llm import generate, scoring
from llm.checkpoint import load_model, save_model
from llm.config import WEIGHTS, ModelConfig, SampleConfig
from llm.model import GPT
from llm.tokenizer import ByteTokenizer
from ui import weights
from ui.figures.base import number
from ui.figures.playground import percent

TABS = "playground"  # what the page is built with

BYTE = ByteTokenizer()
NEW = "#playground-text-a .pg-new"
RAW = '<b>x</b><script>document.title="x"</script><style>*{display:none}</style> 2<3 &amp; <s>'
ANSWER = "<|endoftext|>user: Hi there <|endoftext|>assistant: Hello!"  # what `parrot` knows, as its template writes it
LONG = {"playground.stop_at_eot": "false", "playground.max_new_tokens": "4000", "playground.seed": "3"}


def trained(text: str) -> GPT:
    """A model that has learned one text by heart."""
    torch.manual_seed(0)
    model = GPT(
        ModelConfig(vocab_size=257, context_length=128, n_layer=2, n_head=2, n_embd=48, position="learned")
    )
    ids = torch.tensor([[*BYTE.encode(text, special=True), 256]])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(200):
        loss = F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1
    return model.eval()


@pytest.fixture(scope="module", autouse=True)
def models(server) -> Path:
    """In the page's home: `fox` and `raw` know one text each, `babble` (context 64) is random, `parrot` can chat.

    `slow` is deep: a text of 4,000 tokens takes it half a minute, so that a busy browser can still press Stop.
    """
    folder = server.home / "models"
    if not (folder / "babble").is_dir():
        save_model(folder / "fox", trained("The quick brown fox"), BYTE, "")
        save_model(folder / "raw", trained(RAW), BYTE, "")
        torch.manual_seed(0)
        babble = GPT(
            ModelConfig(vocab_size=257, context_length=64, n_layer=2, n_head=4, n_kv_head=2, n_embd=32)
        )
        with torch.no_grad():
            for p in babble.parameters():
                p.add_(torch.randn_like(p) * 0.1)
        save_model(folder / "babble", babble, BYTE, "")
        deep = ModelConfig(vocab_size=257, context_length=64, n_layer=24, n_head=4, n_kv_head=2, n_embd=64)
        save_model(folder / "slow", GPT(deep), BYTE, "")
        template = "{% for m in messages %}<|endoftext|>{{ m.role }}: {{ m.content }} {% endfor %}<|endoftext|>assistant: "
        save_model(folder / "parrot", trained(ANSWER), BYTE, "")
        (folder / "parrot" / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    return folder


def written(page) -> str:
    return page.text_content(NEW)


def wait_till_still(page) -> None:
    page.wait_for_selector("#playground-out .pg-token", state="attached")
    page.wait_for_selector("#playground-out [data-state=still], #playground-out[data-state=still]")


def tokens(page) -> int:
    return page.locator(f"{NEW} .pg-token").count()


@pytest.fixture
def playground(open_tab):
    """`playground(model, prompt, **settings)`: the tab when its first text is there."""

    def go(model: str, prompt: str, wait: bool = True, **query: str):
        page = open_tab("playground", **{"playground.model": model, "playground.prompt": prompt, **query})
        if wait:
            wait_till_still(page)
        return page

    return go


def worker_seconds(server) -> float:
    """Processor time that the page's engine has used."""
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = status.read_text().rpartition(")")[2].split()
            line = (status.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if int(words[1]) == server.process.pid and b"llm.worker" in line:
            return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")
    raise AssertionError("The page has no engine.")


def is_idle(server, patience: float = 8) -> bool:
    """Whether the engine rests for a whole second within `patience` seconds."""
    until = time.monotonic() + patience
    while True:
        before = worker_seconds(server)
        time.sleep(1)
        if worker_seconds(server) - before < 0.05:
            return True
        if time.monotonic() > until:
            return False


def test_it_opens_with_a_text_already_written(playground):
    page = playground("fox", "The", **{"playground.temperature": "0"})
    assert written(page) == " quick brown fox"
    assert page.text_content("#playground-text-a .pg-prompt") == "The"
    told = page.text_content(".pg-told")
    assert told.startswith("17 tokens") and "the model ended the text" in told
    assert int(re.search(r"([\d,]+) tokens/s", told)[1].replace(",", "")) > 0
    page.wait_for_selector("#playground-table .pg-chosen")
    assert page.text_content("#playground-table .pg-chosen .pg-go") == "␣"


def test_terminal_and_page_write_the_same(playground, server):
    page = playground(
        "babble",
        "It's\n-x",
        **{"playground.seed": "7", "playground.top_p": "0.95", "playground.max_new_tokens": "50"},
    )
    page.wait_for_function(
        "document.querySelector('#playground-command .cm-content').textContent.includes('seed')"
    )
    line = "\n".join(page.locator("#playground-command .cm-line").all_text_contents())
    words = shlex.split(line)
    assert words[:3] == ["python", "-m", "llm.generate"]
    env = os.environ | {"LLM_HOME": str(server.home)}
    done = subprocess.run([sys.executable, *words[1:]], capture_output=True, env=env, timeout=120, check=True)
    assert done.stdout.decode() == written(page) + "\n" and len(written(page)) > 20


def test_a_seed_repeats_a_text(playground):
    page = playground("babble", "abc", **{"playground.seed": "5"})
    first = written(page)
    page.fill("#playground-seed input", "6")
    page.click("#playground-generate")
    page.wait_for_function(
        "([box, was]) => document.querySelector(box).textContent !== was", arg=[NEW, first]
    )
    wait_till_still(page)
    second = written(page)
    page.fill("#playground-seed input", "5")
    page.click("#playground-generate")
    page.wait_for_function(
        "([box, was]) => document.querySelector(box).textContent === was", arg=[NEW, first]
    )
    assert first != second


def test_the_keyboard_is_enough_and_stopping_frees_the_engine(playground, server):
    page = playground("slow", "abc", wait=False, **LONG)
    page.wait_for_function("document.querySelectorAll('.pg-token').length > 5")
    page.keyboard.press("Escape")
    page.wait_for_function(
        "document.querySelector('.pg-told').textContent.includes('stopped by you')", timeout=60_000
    )
    time.sleep(1)
    stood = tokens(page)
    assert is_idle(server) and tokens(page) == stood < 4000
    page.fill("#playground-max_new_tokens input", "9")
    page.focus("#playground-prompt textarea")
    page.keyboard.press("Control+Enter")
    page.wait_for_function(
        "document.querySelector('.pg-told').textContent.startsWith('9 tokens')", timeout=60_000
    )
    assert page.input_value("#playground-prompt textarea") == "abc"


def test_starting_again_ends_what_is_being_written(playground, server):
    page = playground("slow", "abc", wait=False, **LONG)
    page.wait_for_function("document.querySelectorAll('.pg-token').length > 5")
    page.fill("#playground-max_new_tokens input", "8")
    page.keyboard.press("Control+Enter")
    page.wait_for_function(
        "document.querySelector('.pg-told').textContent.startsWith('8 tokens')", timeout=60_000
    )
    assert is_idle(server) and tokens(page) == 8


def test_closing_the_tab_ends_the_generation(playground, server):
    page = playground("slow", "abc", wait=False, **LONG)
    page.wait_for_function("document.querySelectorAll('.pg-token').length > 5")
    assert not is_idle(server, 0)
    page.close()
    assert is_idle(server)


def test_the_stop_button_stops(playground, server):
    page = playground("slow", "abc", wait=False, **LONG)
    page.wait_for_function("document.querySelectorAll('.pg-token').length > 5")
    page.click("#playground-stop")
    page.wait_for_function(
        "document.querySelector('.pg-told').textContent.includes('stopped by you')", timeout=60_000
    )
    assert is_idle(server)


def test_a_token_opens_its_table_and_another_one_continues(playground, models):
    page = playground("babble", "abc", **{"playground.top_k": "5", "playground.max_new_tokens": "12"})
    loaded, _ = load_model(models / "babble")
    prompt, config = BYTE.encode("abc"), SampleConfig(top_k=5, max_new_tokens=12)
    own = [step.id for step in generate.generate(loaded, BYTE, [prompt], config)]
    page.locator(f"{NEW} .pg-token").nth(4).click(force=True)
    page.wait_for_function("document.querySelector('.pg-place')?.textContent.includes('New token 5')")
    ids = prompt + own[:4]
    table = generate.explain(generate.next_logits(loaded, ids), ids, config, BYTE, 14, [own[4]])
    for row in table["rows"]:
        cells = page.locator(f"#playground-table tr[data-id='{row['id']}'] td").all_text_contents()
        assert cells[-1] == ("–" if row["min_p"] is None else percent(row["min_p"]))
        assert cells[4] == percent(row["softmax"])
    assert page.get_attribute("#playground-table tr.pg-chosen", "data-id") == str(own[4])
    other = next(row["id"] for row in table["rows"] if row["id"] != own[4])
    page.click(f"#playground-table button.pg-go[data-id='{other}']")
    page.wait_for_function("n => document.querySelectorAll('.pg-token').length === n", arg=17)
    wait_till_still(page)
    forced = [*own[:4], other]
    more = SampleConfig(top_k=5, max_new_tokens=17)
    expected = "".join(s.text for s in generate.generate(loaded, BYTE, [prompt], more, forced=forced))
    assert written(page) == expected


def test_the_table_follows_the_temperature(playground):
    page = playground("babble", "abc")
    page.wait_for_selector("#playground-table .pg-chosen")
    assert page.locator("#playground-table tr.pg-out").count() == 0
    page.fill("#playground-temperature input[type=number]", "0")
    page.keyboard.press("Tab")
    page.wait_for_function(
        "document.querySelectorAll('#playground-table tbody tr:not(.pg-out)').length === 1"
    )
    assert page.locator("#playground-table tbody tr:not(.pg-out) td").last.text_content() == "100 %"
    assert "--temperature 0" in page.text_content("#playground-command .cm-content")


def test_arrow_keys_walk_through_the_tokens(playground):
    page = playground("fox", "The")  # "babble" may end after two tokens
    page.wait_for_selector("#playground-table .pg-chosen")
    page.focus("#playground-text-a")
    for token in (2, 3):
        page.keyboard.press("ArrowRight")
        page.wait_for_function(
            f"document.querySelector('.pg-place').textContent.includes('New token {token}')"
        )


def test_the_last_of_many_quick_presses_is_followed(playground):
    page = playground("fox", "The")
    page.wait_for_selector("#playground-table .pg-chosen")
    page.focus("#playground-text-a")
    at = 1
    for keys in (
        ("ArrowRight",) * 3,
        ("ArrowRight", "ArrowLeft", "ArrowRight", "ArrowRight"),
        ("ArrowLeft",) * 2,
    ):
        for key in keys:
            page.keyboard.press(key)
            at += 1 if key == "ArrowRight" else -1
        page.wait_for_function(
            f"document.querySelector('.pg-place').textContent.startsWith('New token {at}:')"
        )
        assert page.get_attribute(".pg-token.pg-on", "data-i") == str(at - 1)
        page.wait_for_timeout(300)  # and no late answer takes its place
        assert page.text_content(".pg-place").startswith(f"New token {at}:")


def test_two_settings_side_by_side(playground, models):
    page = playground("babble", "abc", wait=False, **{"playground.compare": "true", "playground.b_temperature": "0", "playground.max_new_tokens": "30"})  # fmt: skip
    page.wait_for_selector("#playground-text-b .pg-token", state="attached")
    wait_till_still(page)
    loaded, _ = load_model(models / "babble")
    for side, config in (("a", SampleConfig()), ("b", SampleConfig(temperature=0))):
        expected = generate.complete(loaded, BYTE, ["abc"], replace(config, max_new_tokens=30))[0]
        assert page.text_content(f"#playground-text-{side} .pg-new") == expected
    assert len(page.locator("#playground-command .cm-line").all_text_contents()) == 2


def test_smaller_weights_beside_whole_ones_with_what_they_cost(playground, models):
    page = playground("babble", "abc", wait=False, **{"playground.compare": "true", "playground.b_weights": "int8", "playground.max_new_tokens": "30", "playground.b_temperature": "0.7"})  # fmt: skip
    page.wait_for_selector("#playground-text-b .pg-token", state="attached")
    wait_till_still(page)
    loaded, _ = load_model(models / "babble")
    for side, config in (("a", SampleConfig()), ("b", SampleConfig(weights="int8"))):
        expected = generate.complete(loaded, BYTE, ["abc"], replace(config, max_new_tokens=30))[0]
        assert page.text_content(f"#playground-text-{side} .pg-new") == expected
    page.wait_for_selector("#playground-weights-costs table")
    text, dataset = weights.text_for("babble")
    found = scoring.by_weights(loaded, BYTE, text)
    for row, kind in enumerate(WEIGHTS):
        cells = page.locator(
            f"#playground-weights-costs tbody tr:nth-child({row + 1}) td"
        ).all_text_contents()
        assert cells[0].startswith(kind) and cells[1] == number(found[kind]["perplexity"])
    assert dataset == "stories" and "511 held-out tokens of stories" in page.text_content(
        "#playground-weights-costs"
    )
    page.locator("#playground-b_weights label").first.click()  # fp32 again: nothing is saved, nothing is told
    page.wait_for_selector("#playground-weights-costs", state="hidden")


def test_what_the_model_writes_is_shown_letter_by_letter(playground):
    page = playground("raw", "<b>x", **{"playground.temperature": "0"})
    assert "<b>x" + written(page) == RAW
    assert page.title() != "x"
    assert page.locator(f"{NEW} .pg-token").first.is_visible()
    page.wait_for_selector("#playground-table .pg-chosen")
    assert page.text_content("#playground-table .pg-chosen .pg-go") == "<"


def test_a_stop_string_never_shows(playground):
    page = playground("fox", "The", **{"playground.temperature": "0", "playground.stop": "own fox"})
    assert page.inner_text(NEW).rstrip() == page.inner_text(NEW) and written(page) == " quick br"
    assert "a stop string was met" in page.text_content(".pg-told")


def test_a_full_context_is_said_and_shown(playground):
    page = playground(
        "babble", "x" * 100, **{"playground.max_new_tokens": "60", "playground.stop_at_eot": "false"}
    )
    notes = page.locator(".pg-notes p").all_text_contents()
    assert "first 36 were dropped" in notes[0] and "context of 64" in notes[1]
    gone = page.locator(".pg-token.pg-gone").count()
    assert 0 < gone < tokens(page) == 60


def test_a_bad_setting_is_a_sentence_and_nothing_is_lost(playground):
    page = playground("babble", "abc")
    before = written(page)
    page.fill("#playground-top_k input", "-1")
    page.click("#playground-generate")
    toast = page.locator(".toast-body")
    toast.wait_for()
    assert "top_k is -1" in toast.inner_text() and "Traceback" not in page.content()
    assert written(page) == before and page.input_value("#playground-prompt textarea") == "abc"
    page.problems.clear()  # a refused click may be an error to the console as well


def test_a_space_at_the_end_of_the_prompt_is_pointed_out(playground):
    page = playground("fox", "The")
    assert not page.locator("#playground-hint .lab-message").count()
    page.fill("#playground-prompt textarea", "The ")
    page.wait_for_selector("#playground-hint .lab-message")


def test_a_conversation(playground, models):
    page = playground("parrot", "Hi there", **{"playground.temperature": "0"})
    assert page.is_checked("#playground-chat input") and page.inner_text("#playground-generate") == "Send"
    assert written(page) == "Hello!"
    assert page.locator(".pg-turn .pg-said").all_text_contents() == ["Hi there"]
    page.click(".pg-reads summary")
    assert page.text_content(".pg-readtext") == "<|endoftext|>user: Hi there <|endoftext|>assistant: "
    assert page.locator(".pg-readtext .pg-special").all_text_contents() == ["<|endoftext|>"] * 2
    page.fill("#playground-prompt textarea", "<|endoftext|> <b>me</b>")
    page.click("#playground-generate")
    page.wait_for_function("document.querySelectorAll('.pg-turn').length === 3")
    wait_till_still(page)
    assert page.input_value("#playground-prompt textarea") == ""
    assert page.locator(".pg-turn .pg-said").all_text_contents() == [
        "Hi there",
        "Hello!",
        "<|endoftext|> <b>me</b>",
    ]
    read = "<|endoftext|>user: Hi there <|endoftext|>assistant: Hello! <|endoftext|>user: <|endoftext|> <b>me</b> <|endoftext|>assistant: "
    assert page.text_content(".pg-readtext") == read
    assert page.locator(".pg-readtext .pg-special").count() == 4  # the one that was typed is text
    loaded, _ = load_model(models / "parrot")
    ids = [
        256,
        *b"user: Hi there ",
        256,
        *b"assistant: Hello! ",
        256,
        *b"user: <|endoftext|> <b>me</b> ",
        256,
        *b"assistant: ",
    ]
    steps = generate.generate(loaded, BYTE, [ids], SampleConfig(temperature=0, max_new_tokens=120))
    assert written(page) == "".join(step.text for step in steps)
    line = "".join(page.locator("#playground-command .cm-line").all_text_contents())
    assert "--chat" in line and '"content": "Hello!"' in line and "<b>me</b>" in line
    page.click("#playground-fresh")
    assert page.locator(".pg-turn").count() == 0
    page.fill("#playground-prompt textarea", "Hi there")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector(".pg-turn")
    wait_till_still(page)
    assert written(page) == "Hello!" and page.locator(".pg-turn").count() == 1


def test_two_browsers_keep_their_own(new_page, models):
    """Models, texts and settings of one visitor never reach another; a reload of one leaves the other alone."""

    def opened(model: str, prompt: str, temperature: float):
        page = new_page()
        page.goto(
            f"/?tab=playground&playground.model={model}&playground.prompt={prompt}&playground.seed=5"
            f"&playground.max_new_tokens=40&playground.temperature={temperature}"
        )
        wait_till_still(page)
        return page

    def alone(model: str, prompt: str, temperature: float) -> str:
        loaded, encoding = load_model(models / model)
        how = SampleConfig(temperature=temperature, seed=5, max_new_tokens=40)
        return generate.complete(loaded, encoding, [prompt], how)[0]

    one, two = opened("fox", "The quick", 0), opened("babble", "Once", 1.5)
    for _ in range(2):  # by turns
        for page in (one, two):
            page.click("#playground-generate")
        for page, asked in ((one, ("fox", "The quick", 0)), (two, ("babble", "Once", 1.5))):
            page.wait_for_function("document.querySelector('#playground-text-a .pg-new')?.textContent")
            wait_till_still(page)
            assert written(page) == alone(*asked)
    one.fill("#playground-prompt textarea", "brown")
    one.reload()
    wait_till_still(one)
    assert two.input_value("#playground-prompt textarea") == "Once" and written(two) == alone(
        "babble", "Once", 1.5
    )
    names = [{cookie["name"]: cookie["value"] for cookie in page.context.cookies()} for page in (one, two)]
    assert names[0]["lab_owner"] != names[1]["lab_owner"]


def test_chat_with_a_model_that_only_completes(playground):
    page = playground("fox", "The", **{"playground.temperature": "0"})
    assert not page.is_checked("#playground-chat input")
    page.check("#playground-chat input")
    page.wait_for_selector("#playground-notice .lab-message")
    assert "fox has no chat template: it only completes texts" in page.text_content("#playground-notice")
    page.click("#playground-generate")
    page.wait_for_selector(".pg-turn")
    wait_till_still(page)
    page.click(".pg-reads summary")
    assert page.text_content(".pg-readtext") == "User: The\nAssistant:"
    page.uncheck("#playground-chat input")
    page.wait_for_function("document.querySelector('#playground-generate').textContent.includes('Generate')")
    page.fill("#playground-prompt textarea", "The")
    page.click("#playground-generate")
    page.wait_for_function("document.querySelectorAll('.pg-turn').length === 0")
    wait_till_still(page)
    assert written(page) == " quick brown fox"


def test_a_narrow_page_has_the_text_right_below_the_button(new_page, server):
    page = new_page(width=390, height=844, dark=True)
    page.goto("/?tab=playground&playground.model=fox&playground.prompt=The")
    wait_till_still(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    button, text, slider = (
        page.locator(f"#playground-{name}").bounding_box() for name in ("generate", "text-a", "temperature")
    )
    assert button["y"] < text["y"] < slider["y"]
