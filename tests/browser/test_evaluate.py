"""Evaluate as a student uses it: a text under two models, another text, copies of the training data, a judging to its end."""

from __future__ import annotations

from llm import engine

TABS = "evaluate"


def test_a_text_under_two_models(open_tab, monkeypatch):
    monkeypatch.setenv("LLM_ENGINE", "inline")
    page = open_tab("evaluate")
    page.wait_for_function("document.querySelectorAll('#evaluate-results tbody tr').length === 2")
    page.wait_for_selector("#evaluate-chart .js-plotly-plot")
    page.fill("#evaluate-text textarea", "A shy fox found a key.")
    page.click("#evaluate-score")
    found = engine.get().text_score("story-llama", text="A shy fox found a key.")
    page.wait_for_function(
        "n => document.querySelector('#evaluate-results tbody tr td:nth-child(5)')?.textContent.startsWith(n + ' of')",
        arg=str(found["scored"]),
    )
    page.locator("#evaluate-drawn .ev-t").nth(3).hover()
    assert "rank" in page.inner_text("#evaluate-drawn .ev-told")
    page.click("#evaluate-under label:nth-of-type(2)")
    page.wait_for_function("document.querySelector('#evaluate-drawn').textContent.includes('story-gpt2')")
    page.reload()
    page.wait_for_function(
        "document.querySelector('#evaluate-text textarea')?.value === 'A shy fox found a key.'"
    )


def test_copies_of_the_training_data(open_tab):
    page = open_tab("evaluate")
    page.wait_for_selector("#evaluate-results tbody tr")
    page.fill(
        "#evaluate-copied-text textarea",
        "Zebra! Long ago, a gentle mouse named Pip lived at the edge of the leafy park.",
    )
    page.click("#evaluate-copies")
    page.wait_for_selector("#evaluate-copied mark.ev-copy")
    assert "document 1," in page.inner_text("#evaluate-copied")


def test_a_judging_runs_to_its_end(open_tab):
    page = open_tab("evaluate")
    page.wait_for_selector("#evaluate-results tbody tr")
    page.click("#evaluate-room label:has-text('A judge')")
    page.wait_for_selector("#evaluate-judge-go:enabled")
    page.fill("#evaluate-judge-count input", "2")
    page.fill("#evaluate-judge-length input", "8")
    page.wait_for_function(
        "document.querySelector('#evaluate-judge-command')?.textContent.includes('--count 2') || true"
    )
    page.click("#evaluate-judge-go")
    page.wait_for_function(
        "document.querySelector('#evaluate-judge-stands')?.textContent.includes('Finished')", timeout=90_000
    )
    assert "of 2" in page.inner_text("#evaluate-judge-result")
