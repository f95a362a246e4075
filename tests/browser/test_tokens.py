"""The Tokens tab as a student uses it: type, point, copy, page, learn an encoding; every value checked against llm."""

from __future__ import annotations

import csv
import json
import re
import time

import pytest

from llm import tokenizer
from ui.tabs import tokens as tab

TABS = "tokens"  # what the page is built with

TEXT = "#tokens-text textarea"
# a change of the text until the browser has drawn its tokens, in milliseconds
CHANGE = """([text]) => new Promise((done) => {
  const pane = document.querySelector('#tokens-view .tk-text'), box = document.querySelector('#tokens-text textarea');
  const seen = new MutationObserver(() => { seen.disconnect(); requestAnimationFrame(() => done(performance.now() - began)); });
  seen.observe(pane, { childList: true });
  const began = performance.now();
  box.value = text;
  box.dispatchEvent(new Event('input', { bubbles: true }));
})"""


def wait_for_count(page, count: int) -> None:
    page.wait_for_function(
        "n => document.querySelector('#tokens-count')?.textContent === n", arg=f"{count:,}"
    )


def ids_on_screen(page) -> list[int]:
    return [int(text) for text in page.locator(".tk-ids .tk-id").all_inner_texts()]


def choose(page, box: str, value: str) -> None:
    page.click(f"{box} input")
    page.get_by_role("option", name=value, exact=True).click()


@pytest.fixture
def tokens(open_tab):
    """The tab with its worked example drawn."""
    page = open_tab("tokens")
    wait_for_count(page, len(tokenizer.get("gpt2").encode(tab.EXAMPLE)))
    return page


def test_it_opens_with_a_worked_example(tokens):
    gpt2 = tokenizer.get("gpt2")
    assert ids_on_screen(tokens) == gpt2.encode(tab.EXAMPLE)
    assert tokens.inner_text("#tokens-vocabulary") == "50,257"
    assert tokens.inner_text("#tokens-mode") == "as plain text"
    size = len(tab.EXAMPLE.encode())
    assert tokens.inner_text("#tokens-ratio") == f"{size / len(gpt2.encode(tab.EXAMPLE)):.2f}"
    assert tokens.locator("#tokens-merges .tk-ladder").count() == 1
    tokens.wait_for_selector("#tokens-duel .js-plotly-plot")


def test_typing_and_switching_the_encoding_gives_their_ids(tokens):
    text = "Hello, Implementation 漢字"
    tokens.fill(TEXT, text)
    for name in ("gpt2", "o200k_base", "byte"):
        if name != "gpt2":
            choose(tokens, "#tokens-encoding", name)
        expected = tokenizer.get(name).encode(text)
        wait_for_count(tokens, len(expected))
        assert ids_on_screen(tokens) == expected
    tokens.wait_for_function("location.search.includes('tokens.encoding=byte')")
    tokens.wait_for_selector("#tokens-duel .js-plotly-plot")
    tokens.reload()
    wait_for_count(tokens, len(text.encode()))
    assert tokens.input_value(TEXT) == text


def test_special_strings_are_text_or_specials_as_chosen(tokens):
    tokens.fill(TEXT, "one<|endoftext|>two")
    wait_for_count(tokens, 9)
    assert "is read as plain text" in tokens.inner_text(".tk-notes")
    tokens.get_by_label("special tokens").check()
    wait_for_count(tokens, 3)
    assert ids_on_screen(tokens) == [505, 50256, 11545]
    assert tokens.locator(".tk-text .tk-special").inner_text() == "<|endoftext|>"
    assert tokens.inner_text("#tokens-mode") == "as special tokens"
    assert "is read as a special token" in tokens.inner_text(".tk-notes")


def test_text_and_ids_are_linked_both_ways(tokens):
    tokens.fill(TEXT, "a🔥b")
    expected = tokenizer.get("gpt2").encode("a🔥b")
    wait_for_count(tokens, len(expected))

    def lit() -> dict[str, str]:
        found = tokens.locator(".tk-text .tk-on, .tk-ids .tk-on").evaluate_all(
            "all => all.map(e => [e.className.split(' ')[0], e.dataset.i])"
        )
        return dict(found)

    tokens.hover(".tk-text [data-i='1']")
    assert lit() == {"tk-token": "1", "tk-id": "1"}
    assert f"id {expected[1]}" in tokens.inner_text(".tk-told") and "f0 9f" in tokens.inner_text(".tk-told")
    tokens.hover(".tk-ids [data-i='3']")
    assert lit() == {"tk-token": "3", "tk-id": "3"}
    tokens.click(".tk-ids [data-i='0']")
    tokens.mouse.move(5, 5)
    assert lit() == {"tk-token": "0", "tk-id": "0"}  # held
    tokens.focus(".tk-ids")
    tokens.keyboard.press("ArrowRight")
    assert lit() == {"tk-token": "1", "tk-id": "1"}


def test_blanks_and_parts_of_characters_are_visible(tokens):
    tokens.fill(TEXT, "a b\n\tc 🔥\u200d\ufffd")
    wait_for_count(tokens, len(tokenizer.get("gpt2").encode("a b\n\tc 🔥\u200d\ufffd")))
    shown = tokens.inner_text(".tk-text")
    assert "·b" in shown and "⏎" in shown and "⇥" in shown and "f0 9f" in shown
    assert "\ufffd" not in shown and "\ufffd" not in tokens.inner_text(".tk-told")
    assert tokens.locator(".tk-glyph").first.inner_text() in ("🔥", "·🔥")


def test_a_trailing_space_is_its_own_token_with_a_hint(tokens):
    tokens.fill(TEXT, "Answer: ")
    wait_for_count(tokens, 3)
    assert ids_on_screen(tokens) == [33706, 25, 220]
    assert tokens.locator(".tk-text .tk-token").last.inner_text() == "·"
    assert "ends with a space" in tokens.inner_text(".tk-notes")


def test_foreign_tags_stand_there_as_text(tokens):
    title = tokens.title()
    text = '<think>plan</think> 2<3 <b>x</b> <script>document.title="x"</script><style>*{display:none}</style><img src=x onerror="document.title=1">'
    tokens.fill(TEXT, text)
    wait_for_count(tokens, len(tokenizer.get("gpt2").encode(text)))
    assert tokens.inner_text(".tk-text").replace("·", " ").replace("\n", "") == text
    tokens.fill("#tokens-word input, #tokens-word textarea", "<b>x</b>")
    tokens.wait_for_function("document.querySelector('#tokens-merges').innerText.includes('</')")
    assert tokens.locator(".tk-text b, #tokens-merges .tk-part b, .tk-text img").count() == 0
    assert tokens.title() == title and tokens.locator(".tk-text").is_visible()


def test_ids_are_copied_and_the_table_is_paged_and_saved(tokens):
    text = "\n".join(f'line {i}, "quoted" 🔥' for i in range(30))
    expected = tokenizer.get("gpt2").encode(text)
    tokens.fill(TEXT, text)
    wait_for_count(tokens, len(expected))
    tokens.context.grant_permissions(["clipboard-read", "clipboard-write"])
    tokens.click("#tokens-copy")
    tokens.wait_for_function("document.querySelector('#tokens-copy').textContent.startsWith('Copied')")
    assert json.loads(tokens.evaluate("navigator.clipboard.readText()")) == expected

    tokens.click(".tk-summary")
    pages = -(-len(expected) // 20)
    assert tokens.inner_text(".tk-page") == f"page 1 of {pages}"
    seen = []
    for _ in range(pages):
        seen += [int(row) for row in tokens.locator("#tokens-rows tr td:nth-child(2)").all_inner_texts()]
        if tokens.locator(".tk-next").is_enabled():
            tokens.click(".tk-next")
    assert seen == expected
    tokens.click(".tk-first")
    assert tokens.inner_text(".tk-page") == f"page 1 of {pages}"

    with tokens.expect_download() as saved:
        tokens.click("#tokens-csv")
    with open(saved.value.path(), encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["id"]) for row in rows] == expected
    assert b"".join(bytes.fromhex(row["bytes_hex"]) for row in rows).decode() == text


def test_a_large_paste_stays_usable(tokens):
    text = "The quick brown fox jumps over the lazy dog. " * 4500  # 202,500 characters
    tokens.fill(TEXT, text)
    wait_for_count(tokens, len(tokenizer.get("gpt2").encode(text)))
    assert tokens.locator(".tk-text .tk-token").count() == tab.SHOWN
    assert "of the whole text" in tokens.inner_text(".tk-notes")
    tokens.fill(TEXT, "short again")
    wait_for_count(tokens, 2)


def test_a_refused_text_says_why_and_nothing_is_lost(tokens):
    text = "x" + " " * 100_001 + "x"
    tokens.fill(TEXT, text)
    tokens.wait_for_selector("text=/100,001 whitespace characters in a row/")
    assert tokens.input_value(TEXT) == text and tokens.locator(".tk-text .tk-token").count() == 0
    tokens.fill(TEXT, "Hello,")
    wait_for_count(tokens, 2)


def test_the_answer_comes_quickly(tokens):
    """150 ms is the aim on a quiet machine; the median of some changes must stay below 3 times that on a busy one."""
    words = "The old keeper climbed the stairs every evening and lit the lamp. "
    times = sorted(tokens.evaluate(CHANGE, [words * n]) for n in range(3, 12))
    assert times[len(times) // 2] < 450, times


def test_merges_of_a_word_end_in_its_tokens(tokens):
    tokens.fill("#tokens-word input, #tokens-word textarea", " tokenizers")
    tokens.wait_for_function("document.querySelector('#tokens-merges h4')?.innerText.includes('tokenizers')")
    gpt2 = tokenizer.get("gpt2")
    rows = tokens.locator("#tokens-merges li")
    assert rows.count() == len(gpt2.merge_steps(" tokenizers")) + 1
    last = rows.last.locator(".tk-part").all_inner_texts()
    assert [part.replace("·", " ") for part in last] == [
        gpt2.decode([id]) for id in gpt2.encode(" tokenizers")
    ]


def test_a_held_token_leads_to_its_merges(tokens):
    tokens.fill(TEXT, "a lighthouse keeper")
    wait_for_count(tokens, len(tokenizer.get("gpt2").encode("a lighthouse keeper")))
    tokens.click(".tk-text [data-i='2']")
    tokens.click(".tk-follow")
    tokens.wait_for_function("document.querySelector('#tokens-merges h4')?.innerText.includes('keeper')")
    found = tokenizer.get("gpt2").merge_steps(
        tokenizer.get("gpt2").decode(tokenizer.get("gpt2").encode("a lighthouse keeper")[2:3])
    )
    assert tokens.locator("#tokens-merges li").count() == len(found) + 1


def test_an_encoding_is_learnt_with_progress_and_used(tokens, server):
    text = "the cat sat on the mat and the rat sat too, she said. " * 400
    folder = server.home / "datasets"
    folder.mkdir(exist_ok=True)
    (folder / "cats.txt").write_text(text)
    name = f"cats-{time.time_ns() % 10**6}"
    choose(tokens, "#tokens-dataset", "cats")
    tokens.wait_for_selector("#tokens-learn:has-text('Name the encoding first'):disabled")
    choose(tokens, "#tokens-size", "300")
    tokens.fill("#tokens-name input, #tokens-name textarea", name)
    tokens.wait_for_selector("#tokens-learn:has-text('Learn the merges'):enabled")
    assert f"python -m llm.bpe {name} --dataset cats --vocab_size 300" in tokens.inner_text("#tokens-command")
    tokens.click("#tokens-learn")
    tokens.wait_for_selector("#tokens-use:visible", timeout=60_000)
    told = tokens.inner_text("#tokens-progress")
    assert re.search(r"The encoding has \d+ ids", told)
    made = tokenizer.load(server.home / "tokenizers" / name)
    left, right = made.merges()[0]
    assert (
        tokens.locator(".tk-first li").first.inner_text().replace("\n", "").replace("·", " ").replace("→", "")
        == (left + right + left + right).decode()
    )
    tokens.click("#tokens-use")
    tokens.fill(TEXT, "the cat sat")
    wait_for_count(tokens, len(made.encode("the cat sat")))
    assert ids_on_screen(tokens) == made.encode("the cat sat")
    assert tokens.is_disabled("#tokens-learn") and "taken" in tokens.inner_text("#tokens-learn")
    tokens.reload()  # the view comes back: the run is named in the address
    tokens.wait_for_selector("#tokens-use:visible")


def test_the_duel_shows_the_counts_of_the_encodings(tokens):
    tokens.wait_for_selector("#tokens-duel .js-plotly-plot")
    found = tokens.evaluate(
        "document.querySelector('#tokens-duel .js-plotly-plot').data.map(t => [t.name, t.y.slice(), Array.from(t.x)])"
    )
    texts = {entry["name"]: entry["text"] for entry in tab.duel_texts()}
    assert {"gpt2", "cl100k_base", "o200k_base"} <= {name for name, _, _ in found}
    for name, rows, values in found:
        if name in ("gpt2", "o200k_base"):
            for row, value in zip(rows, values):
                if row in texts:
                    text = texts[row]
                    assert value == pytest.approx(
                        tokenizer.bytes_per_token(text, tokenizer.get(name).encode(text))
                    )


def test_the_code_on_the_page_is_the_code_that_ran(tokens):
    tokens.locator(".lab-code button", has_text="Show the code").first.click()
    tokens.wait_for_function(
        "document.querySelector('.lab-code .cm-content')?.innerText.includes('def spans(')"
    )


@pytest.mark.parametrize(("width", "dark"), [(1280, True), (390, False), (390, True)])
def test_it_fits_and_follows_the_theme(new_page, width, dark):
    page = new_page(width=width, dark=dark)
    page.goto("/?tab=tokens" + ("&__theme=dark" if dark else ""))
    wait_for_count(page, len(tokenizer.get("gpt2").encode(tab.EXAMPLE)))
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    colours = page.evaluate(
        """() => { const s = getComputedStyle(document.querySelector('.tk-token')); return [s.color, s.backgroundColor]; }"""
    )
    light, low = sorted((luminance(colour) for colour in colours), reverse=True)
    assert (light + 0.05) / (low + 0.05) >= 4.5  # WCAG 2, contrast of text


def luminance(colour: str) -> float:
    """Relative luminance of "rgb(r, g, b)" (WCAG 2)."""
    parts = [int(value) / 255 for value in re.findall(r"\d+", colour)[:3]]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
