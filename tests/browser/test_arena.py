"""The Arena as a class uses it: rounds, votes by key, a second browser sees the board move, votes become rows."""

from __future__ import annotations

from llm import pairs

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
