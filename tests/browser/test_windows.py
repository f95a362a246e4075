"""The Windows tab as a student uses it: click tokens, change the stride, step through batches; values against llm."""

from __future__ import annotations

import re

import numpy as np
import pytest

from llm import data, tokenizer
from llm.config import RunConfig
from ui.tabs import windows as tab

TABS = "windows"  # what the page is built with

TEXT = "#windows-text textarea"


def example_ids() -> np.ndarray:
    return np.array(tokenizer.get("gpt2").encode(tab.EXAMPLE))


def example_windows(stride: int = tab.FIRST["stride"]) -> data.Windows:
    train, _ = data.split(example_ids(), tab.FIRST["share"])
    return data.Windows(train, tab.FIRST["context"], stride)


def open_file(page, path) -> None:
    with page.expect_file_chooser() as chooser:
        page.click("#windows-file")
    chooser.value.set_files(path)


def row(page, kind: str, place: int = 0) -> list[str]:
    return page.locator(f".win-batch tr.{kind}").nth(place).locator("td").all_inner_texts()


def shown(ids) -> list[str]:
    return [tab.figures.shown(tokenizer.get("gpt2").token_bytes(int(i))) for i in ids]


def wait_for_fact(page, place: int, value: int) -> None:
    page.wait_for_function(
        "([i, n]) => document.querySelectorAll('.win-summary dd')[i]?.textContent === n",
        arg=[place, f"{value:,}"],
    )


@pytest.fixture
def windows(open_tab):
    """The tab with its worked example drawn."""
    page = open_tab("windows")
    wait_for_fact(page, 0, len(example_ids()))
    return page


def test_it_opens_with_a_worked_example(windows):
    expected = example_windows()
    wait_for_fact(windows, 1, len(expected))
    inputs, targets = expected.inputs_and_targets([0, 1])
    for i in range(2):
        assert row(windows, "x", i) == shown(inputs[i]) and row(windows, "y", i) == shown(targets[i])
    assert windows.locator(".win-text .wt").count() == len(example_ids())
    assert windows.locator(".win-text .win-border").count() == 1
    assert windows.locator(".win-bar span").count() == 2
    assert windows.locator("#windows-dataset").is_hidden()


def test_a_click_tells_which_windows_hold_the_token(windows):
    windows.fill("#windows-stride input", "3")
    expected = example_windows(3)
    wait_for_fact(windows, 1, len(expected))
    windows.click(".win-text .wt[data-p='10']")
    windows.wait_for_function("document.querySelector('.win-head').textContent.includes('token 10,')")
    as_input = windows.locator(".win-roles > div").nth(0).locator("li[data-window]")
    assert [int(e.get_attribute("data-window")) for e in as_input.all()] == list(data.holding(expected, 10))
    as_target = windows.locator(".win-roles > div").nth(1).locator("li[data-window]")
    assert [int(e.get_attribute("data-window")) for e in as_target.all()] == list(data.holding(expected, 9))
    lit = windows.locator(".win-text .wt.lit").evaluate_all("all => all.map(e => +e.dataset.p)")
    held = data.holding(expected, 10)
    assert lit == list(range(held[0] * 3, held[-1] * 3 + 8))
    windows.focus(".win-text")
    windows.keyboard.press("ArrowRight")
    windows.wait_for_function("document.querySelector('.win-head').textContent.includes('token 11,')")
    windows.wait_for_function("location.search.includes('windows.at=11')")
    windows.reload()
    windows.wait_for_function("document.querySelector('.win-head')?.textContent.includes('token 11,')")
    wait_for_fact(windows, 1, len(expected))


def test_pointing_at_an_input_links_its_target(windows):
    windows.locator(".win-batch tr.x").first.locator("td").nth(3).hover()
    answer = windows.locator(".win-batch td.answer")
    assert answer.count() == 1 and answer.inner_text() == shown(example_ids()[4:5])[0]
    same = windows.locator(".win-batch td.same")
    assert same.inner_text() == shown(example_ids()[3:4])[0] and same.get_attribute("data-c") == "2"
    assert "and the 3 tokens before it" in windows.inner_text(".win-link")
    windows.mouse.move(5, 5)
    windows.wait_for_function("!document.querySelector('.win-batch .answer')")


def test_the_batches_of_a_shuffled_pass_are_those_of_training(windows):
    windows.get_by_label("Shuffle").check()
    windows.fill("#windows-seed input", "7")
    expected = example_windows()
    batches = data.Batches(len(expected), 2, True, 7, True)
    for step in range(3):  # into the second pass
        numbers = [str(k) for k in batches.numbers(step)]
        windows.wait_for_function(
            "([step, numbers]) => document.querySelector('.win-steps').textContent.includes(`training step ${step}`) && "
            "[...document.querySelectorAll('.win-batch tr.x')].map(e => e.dataset.r).join() === numbers",
            arg=[step, ",".join(numbers)],
        )
        inputs, targets = expected.inputs_and_targets(batches.numbers(step))
        assert row(windows, "x") == shown(inputs[0]) and row(windows, "y") == shown(targets[0])
        if step < 2:
            windows.click(".win-steps [data-step]:last-child")
    first = windows.locator(".win-batch tr.x button").first
    start = first.get_attribute("data-go")
    first.click()
    windows.wait_for_selector(f".win-text .wt.sel[data-p='{start}']")


def test_one_click_shows_the_shipped_stories(windows):
    windows.click("#windows-stories")
    run = RunConfig()
    encoding = tokenizer.get(run.tokenizer)
    ids = data.load(run.dataset, encoding).ids
    cut, kept = data.cut(ids, run.model.context_length, run.train, encoding)
    wait_for_fact(windows, 0, len(ids))
    wait_for_fact(windows, 1, len(cut))
    windows.wait_for_function(
        "said => document.querySelector('.win-key[data-part=val]')?.textContent.includes(said)",
        arg=f"{len(kept.ids):,} tokens, {len(kept):,} windows",
    )
    assert windows.input_value("#windows-encoding input") == run.tokenizer
    assert windows.input_value("#windows-context input") == str(run.model.context_length)
    assert windows.is_checked("#windows-shuffle input") == run.train.shuffle
    assert windows.is_checked(f"#windows-begin input[value='{run.train.windows}']")
    assert windows.is_disabled("#windows-stride input")
    assert windows.locator(TEXT).is_hidden() and windows.locator("#windows-dataset").is_visible()
    windows.get_by_role("button", name="later →").click()
    windows.wait_for_selector(f".win-text .wt[data-p='{tab.PAGE}']")
    windows.click("#windows-example")
    wait_for_fact(windows, 0, len(example_ids()))


def test_refusals_are_sentences_and_the_page_goes_on(windows):
    for box, value, said in (
        ("#windows-stride input", "0", "A stride of 0 never moves forward"),
        ("#windows-context input", "0", "context_length is 0"),
        (TEXT, "", "The text is empty"),
    ):
        before = windows.input_value(box)
        windows.fill(box, value)
        windows.wait_for_function(
            "said => document.querySelector('#windows-said')?.textContent.includes(said)", arg=said
        )
        assert windows.locator(".win-summary").count() == 0
        windows.fill(box, before)
        windows.wait_for_selector(".win-summary")
    windows.fill(TEXT, "two words")
    windows.wait_for_function(
        "document.querySelector('#windows-said').textContent.includes('one window of 8 needs 9')"
    )
    windows.fill(TEXT, tab.EXAMPLE)
    wait_for_fact(windows, 1, len(example_windows()))


def test_foreign_text_is_text(windows):
    nasty = "<img src=x onerror=\"document.title='taken'\"> ${1+1} {{value}} <script>document.title='taken'</script>"
    windows.fill(TEXT, nasty)
    wait_for_fact(windows, 0, len(tokenizer.get("gpt2").encode(nasty)))
    assert windows.locator(".win-text img, .win-batch img, .win-text script").count() == 0
    text = "".join(windows.locator(".win-text .wt").evaluate_all(
        "all => all.map(e => [...e.childNodes].filter(n => n.nodeName !== 'SUP').map(n => n.textContent).join(''))"
    ))  # fmt: skip
    assert text.replace("·", " ") == nasty
    assert windows.title() != "taken"


def test_an_upload_becomes_the_dataset(windows, tmp_path):
    path = tmp_path / "seagulls.txt"
    path.write_bytes(b"\xef\xbb\xbfOne seagull, two seagulls.\r\n" * 12)
    open_file(windows, path)
    windows.wait_for_function("document.querySelector('#windows-said')?.textContent.includes('line ends')")
    assert windows.input_value("#windows-dataset input") == "seagulls"
    bad = tmp_path / "picture.txt"
    bad.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4)
    open_file(windows, bad)
    windows.wait_for_selector(".toast-body:has-text('PNG')")
    assert windows.input_value("#windows-dataset input") == "seagulls"


def test_show_the_code_is_the_source_of_llm_data(windows):
    windows.locator(".lab-code").locator("visible=true").first.locator("button").first.click()
    windows.wait_for_function("document.body.innerText.includes('A text as training cuts it')")


@pytest.mark.parametrize("dark", [False, True])
def test_nothing_is_wider_than_a_telephone(new_page, dark):
    page = new_page(width=390, dark=dark)
    page.goto("/?tab=windows")
    page.wait_for_selector(".win-batch")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert not re.search("undefined|NaN", page.inner_text("#windows-summary"))
