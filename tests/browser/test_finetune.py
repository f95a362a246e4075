"""The Finetune tab as a student uses it: the worked example, rows of one's own, other styles, the batch; values against llm."""

from __future__ import annotations

import json
import re

import pytest

from llm import corpora, paths, prompts, tokenizer
from ui import tune_rows as room
from ui.tabs import finetune as tab

TABS = "finetune"  # what the page is built with

MODEL = "story-llama"
SLOW = 60_000  # ms: all rows are written for the model; other tests may have the machine


def text_in(page, place: str, text: str) -> None:
    page.wait_for_function(
        "([place, text]) => document.querySelector(place)?.innerText.replace(/\\s+/g, ' ').includes(text)",
        arg=[place, text],
        timeout=SLOW,
    )


def tokens(page) -> list[str]:
    return page.locator("#rows-one .ft-text span").all_text_contents()


def expected(row: dict, style: str) -> list[str]:
    """The tokens of a row as they are drawn."""
    folder = paths.model_folder(MODEL)
    encoding = tokenizer.load(folder)
    manner = prompts.manner(style, folder, encoding)
    found = prompts.coloured(manner, encoding, prompts.conversation(row, manner.joint))
    return [re.sub(r"<[^>]+>", "", room.figures.signs(text)).replace("&lt;", "<").replace("&gt;", ">")
            .replace("&#x27;", "'").replace("&quot;", '"') for text, _, _ in found]  # fmt: skip


def targets(page, place: int) -> list[int]:
    cells = page.locator("#rows-batch tr.y").nth(place).locator("td").all_inner_texts()
    return [int(cell.split()[-1]) for cell in cells]


def choose(page, box: str, label: str) -> None:
    page.click(f"{box} input")
    page.get_by_role("option", name=label, exact=False).first.click()


@pytest.fixture
def finetune(open_tab):
    """The tab with its worked example drawn."""
    page = open_tab("finetune")
    page.wait_for_selector("#rows-batch .ft-batch", timeout=SLOW)
    page.wait_for_selector("#rows-lengths .ft-lengths", timeout=SLOW)
    return page


def test_it_opens_with_a_worked_example(finetune):
    stored = json.loads(corpora.row_path("instructions").read_text())
    text_in(finetune, "#rows-summary", f"rows to learn from {len(stored):,}")
    text_in(finetune, "#rows-split", f"train {sum(row['split'] == 'train' for row in stored):,} rows")
    assert tokens(finetune) == expected({**stored[0], "history": []}, "plain")


def test_style_row_and_mask_change_the_pictures(finetune):
    stored = json.loads(corpora.row_path("instructions").read_text())
    finetune.click("#rows-row-on")
    finetune.wait_for_function(
        "document.querySelector('#rows-one')?.innerText.includes('Row 2')", timeout=SLOW
    )
    assert tokens(finetune) == expected({**stored[1], "history": []}, "plain")
    choose(finetune, "#finetune-style", "ChatML")
    finetune.wait_for_function(
        "n => document.querySelectorAll('#rows-one .ft-text span').length === n",
        arg=len(expected({**stored[1], "history": []}, "chatml")), timeout=SLOW,
    )  # fmt: skip
    finetune.uncheck("#finetune-mask input")
    text_in(finetune, "#rows-batch", "the other 0 belong to prompts")
    config = room.run_of("instruct", MODEL, "instructions", "chatml", False, False, 0)
    chosen = room.picked(config, room.tuning.examples_of(config), 0)
    _, wanted = prompts.padded([example.texts[0] for example in chosen], 0, False)
    assert targets(finetune, 0) == wanted[0].tolist()[: room.figures.COLUMNS]
    finetune.check("#finetune-packing input")
    config = room.run_of("instruct", MODEL, "instructions", "chatml", False, True, 0)
    texts = [example.texts[0] for example in room.picked(config, room.tuning.examples_of(config), 0)]
    most = max(len(row.texts[0]) for row in room.tuning.examples_of(config).parts["train"]) - 1
    _, wanted, _ = prompts.packed(texts, 0, False, most)
    text_in(finetune, "#rows-batch", f"They lie in {len(wanted)} lines")
    assert targets(finetune, 0) == wanted[0].tolist()[: room.figures.COLUMNS]


def test_rows_of_ones_own_are_read_mended_kept_and_chosen(finetune, server, tmp_path):
    table = [{"question": f"Name {n}.", "reply": f"It is {n}.", "other": "no"} for n in range(30)] + [
        {"question": "x"}
    ]
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(table))
    finetune.get_by_label("A file", exact=True).click()
    finetune.set_input_files("#rows-file input[type=file]", path)
    text_in(finetune, "#rows-summary", "rows to learn from 30 left out 1")
    text_in(finetune, "#rows-summary", "instruction from question, output from reply")
    finetune.get_by_role("button", name="Rows left out").click()
    text_in(finetune, "#rows-rejected", "31 reply is missing")
    with finetune.expect_download() as download:
        finetune.click("#rows-download")
    assert json.loads(download.value.path().read_text()) == {
        "row": 31,
        "reason": "reply is missing",
        "question": "x",
    }
    choose(finetune, "#rows-column-2", "other")
    text_in(finetune, "#rows-summary", "output from other")
    choose(finetune, "#rows-column-2", "reply")
    text_in(finetune, "#rows-summary", "output from reply")
    finetune.fill("#rows-name textarea, #rows-name input", "names")
    finetune.click("#rows-keep")
    text_in(finetune, "#rows-told", "30 rows are kept as names and chosen above")
    finetune.wait_for_function(
        "document.querySelector('#finetune-dataset input')?.value === 'names'", timeout=SLOW
    )
    text_in(finetune, "#rows-split", "train 26 rows")
    stored = (server.home / "datasets" / "names.jsonl").read_text().splitlines()
    assert len(stored) == 30 and json.loads(stored[0])["output"] == "It is 0."


def test_a_broken_paste_is_one_sentence_and_the_page_goes_on(finetune):
    finetune.get_by_label("A pasted text").click()
    text_in(finetune, "#rows-summary", "left out 1")
    finetune.fill(
        "#rows-paste textarea", '[\n{"instruction": "a", "output": "b"},\n{"instruction": "a" "output": "b"}]'
    )
    text_in(finetune, "#rows-summary", "The JSON breaks at line 3, column 21")
    assert finetune.locator("#rows-keep").is_disabled()
    finetune.fill("#rows-paste textarea", "text,label\nSunny,good\nRain,bad\n")
    text_in(finetune, "#rows-summary", "Classes: a text and its label")
    assert finetune.locator("#rows-keep").is_enabled()


def test_classes_have_a_token_that_is_read(finetune):
    finetune.get_by_label("Classes", exact=True).click()
    text_in(finetune, "#rows-batch", "The head reads place")
    assert finetune.locator("#rows-batch td.ft-read").count() == room.DRAWN
    assert not finetune.locator("#finetune-style").is_visible()


@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_a_phone(new_page, dark):
    page = new_page(width=390, dark=dark)
    page.goto("/?tab=finetune")
    page.wait_for_selector("#rows-batch .ft-batch", timeout=SLOW)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_every_room_opens(finetune):
    for name, (title, _) in tab.ROOMS.items():
        finetune.locator("#finetune-room").get_by_label(title, exact=True).click()
        finetune.locator(f"#finetune-room-{name}").wait_for(state="visible", timeout=SLOW)
