"""The Arena as a class uses it: rounds, votes by key, a second browser sees the board move, votes become rows."""

from __future__ import annotations

import json
import urllib.parse

import pytest

from llm import arena, pairs

TABS = "arena finetune"


def test_votes_make_a_board_that_others_see(open_tab, server):
    page = open_tab("arena")
    page.wait_for_selector("#arena-ranking")
    page.click("#arena-go")
    page.wait_for_function("document.querySelectorAll('.ar-pane.ar-done').length === 2", timeout=60_000)
    shown = page.inner_text("#arena-a") + page.inner_text("#arena-b")
    assert "story-" not in shown and len(shown) > 60
    other = page.context.browser.new_context().new_page()
    other.goto(f"{server.url}/?tab=arena")
    other.wait_for_function("document.querySelector('#arena-counts')?.textContent.includes('0 votes')")
    page.keyboard.press("1")
    page.wait_for_function("document.querySelector('#arena-told')?.textContent.includes('A was story-')")
    page.wait_for_function("document.querySelector('#arena-counts')?.textContent.includes('1 vote,')")
    other.wait_for_function(
        "document.querySelector('#arena-counts')?.textContent.includes('1 vote,')", timeout=15_000
    )
    other.close()
    page.click("#arena-vote-b")  # a second vote for one round
    page.wait_for_selector(".lab-toast:has-text('has its vote already')")
    page.click(".lab-toast button")
    assert not page.locator(".lab-toast").count()
    page.problems.clear()  # a refused click is an error to the console as well


def test_votes_become_rows_that_finetune_opens(open_tab, server, monkeypatch):
    page = open_tab("arena")
    page.wait_for_selector("#arena-ranking")
    for _ in range(2):
        page.click("#arena-go")
        page.wait_for_function(
            "document.querySelector('#arena-told')?.textContent.includes('Vote when you know')"
        )
        page.wait_for_function("document.querySelectorAll('.ar-pane.ar-done').length === 2", timeout=60_000)
        page.click("#arena-vote-a")
        page.wait_for_function("document.querySelector('#arena-told')?.textContent.includes('A was')")
    page.click("text=Make rows of the votes, and train on them")
    page.fill("#arena-rows-name input, #arena-rows-name textarea", "class-votes")
    page.click("#arena-rows")
    page.wait_for_selector("#arena-made a")
    monkeypatch.setenv("LLM_HOME", str(server.home))
    assert len(pairs.read("class-votes")) >= 2
    page.click("#arena-made a")
    page.wait_for_function(
        "document.querySelector('#finetune-dataset input')?.value === 'class-votes'", timeout=30_000
    )


PROMPT = "Long ago, a shy otter named Otto"
RUN = dict(
    trained="lora", lora_rank=8, max_steps=40, batch_size=8,
    learning_rate=0.001, min_learning_rate=0.0001, warmup_steps=4, eval_every=20, sample_tokens=0, threads=1,
)  # fmt: skip


def answers_of(page) -> dict[str, str]:
    return {side: page.inner_text(f"#arena-{side} .ar-text") for side in "ab"}


def votes_for(word: str, page, who: list[str], rounds: int) -> None:
    """Play rounds between two, voting for the answer that has the word."""
    query = {
        "tab": "arena",
        "arena.who": json.dumps(who),
        "arena.prompt": PROMPT,
        "arena.length": 14,
        "arena.board": word,
    }
    page.goto("/?" + urllib.parse.urlencode(query))
    page.wait_for_selector("#arena-ranking table, #arena-ranking .lab-message")
    for _ in range(rounds):
        page.click("#arena-go")
        page.wait_for_function(
            "document.querySelector('#arena-told')?.textContent.includes('Vote when you know')"
        )
        page.wait_for_function("document.querySelectorAll('.ar-pane.ar-done').length === 2", timeout=60_000)
        has = {side: word in text for side, text in answers_of(page).items()}
        key = "1" if has["a"] > has["b"] else "2" if has["b"] > has["a"] else "3"
        page.keyboard.press(key)
        page.wait_for_function("document.querySelector('#arena-told')?.textContent.includes('A was ')")


def share(who: str, other: str, board: str) -> float:
    counted = arena.tally(name=board)
    i, j = counted.names.index(who), counted.names.index(other)
    return counted.wins[i, j] / counted.games[i, j]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("base", "style", "other", "word"), [("story-prefer", "own", "story-llama", "lived"), ("story-llama", "bare", "story-gpt2", "under")])  # fmt: skip
def test_votes_train_a_model_that_then_wins_more(new_page, server, monkeypatch, base, style, other, word):
    """Votes, rows, preference tuning, votes again, all in the page on the shipped models, with a chat template and without."""
    monkeypatch.setenv("LLM_HOME", str(server.home))
    page = new_page()
    votes_for(word, page, [base, other], 24)
    before = share(base, other, word)
    page.click("text=Make rows of the votes, and train on them")
    page.fill("#arena-rows-name input, #arena-rows-name textarea", f"{word}-{style}")
    page.click("#arena-rows")
    page.wait_for_selector("#arena-made a")
    rows = pairs.read(f"{word}-{style}")
    assert len(rows) >= 5 and all(word in row["chosen"] and word not in row["rejected"] for row in rows)

    there = set((server.home / "runs").glob("[!.]*/"))
    link = page.get_attribute("#arena-made a", "href") or ""
    given = "&".join(f"finetune.{field}={value}" for field, value in RUN.items())
    if f"finetune.model={base}&" in link:  # else the other one was preferred
        assert f"finetune.style={style}&" in link
    page.goto(f"/{link}&finetune.model={base}&finetune.style={style}&{given}")
    page.wait_for_function(
        "document.querySelector('#tune-start')?.innerText === 'Start tuning'", timeout=60_000
    )
    page.click("#tune-start")
    page.wait_for_function(
        "document.querySelector('#tune-monitor .lab-pill')?.innerText === 'Finished'", timeout=120_000
    )
    (tuned,) = (path.name for path in set((server.home / "runs").glob("[!.]*/")) - there)

    votes_for(word, page, [tuned, other], 16)
    after = share(tuned, other, word)
    assert after > before + 0.1, (before, after)
    shown = page.inner_text("#arena-ranking")
    assert tuned in shown and shown.index(tuned) < shown.index(base)
