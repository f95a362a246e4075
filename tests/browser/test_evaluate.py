"""Evaluate as a student uses it: a text under two models, another text, copies of the training data, a judging to its end."""

from __future__ import annotations

import pytest

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


@pytest.mark.slow
def test_a_judging_runs_to_its_end(open_tab):
    page = open_tab("evaluate")
    page.wait_for_selector("#evaluate-results tbody tr")
    page.click("#evaluate-room label:has-text('A judge')")
    page.wait_for_selector("#evaluate-judge-go:enabled")
    page.click("text=The command that Judge runs")
    page.fill("#evaluate-judge-count input", "2")
    page.fill("#evaluate-judge-length input", "8")
    page.wait_for_function(
        "document.querySelector('#evaluate-judge-command')?.textContent.includes('--count 2')"
    )
    page.click("#evaluate-judge-go")
    page.wait_for_function(
        "document.querySelector('#evaluate-judge-stands')?.textContent.includes('Finished')", timeout=90_000
    )
    assert "of 2" in page.inner_text("#evaluate-judge-result")


def test_a_benchmark_runs_and_shows_its_questions(open_tab):
    pytest.importorskip("lm_eval", reason="requirements-eval.txt is not installed")
    page = open_tab("evaluate")
    page.wait_for_selector("#evaluate-results tbody tr")
    page.click("#evaluate-room label:has-text('Benchmarks')")
    page.wait_for_selector("#evaluate-bench-go:enabled")
    page.click("text=The command that it runs")
    page.fill("#evaluate-bench-limit input", "1")
    page.wait_for_function(
        "document.querySelector('#evaluate-bench-command')?.textContent.includes('--limit 1')"
    )
    page.click("#evaluate-bench-go")
    page.wait_for_function(
        "document.querySelector('#evaluate-bench-stands')?.textContent.includes('Finished')", timeout=120_000
    )
    assert "of 10" in page.inner_text("#evaluate-bench-results")  # one of each subject
    page.wait_for_selector("#evaluate-bench-chart .js-plotly-plot")
    shown = page.inner_text("#evaluate-bench-question")
    assert "Answer:" in shown
    page.reload()
    page.wait_for_function("document.querySelector('#evaluate-bench-results')?.textContent.includes('of 10')")


@pytest.mark.slow
def test_a_benchmark_that_cannot_be_run_says_why(open_tab):
    pytest.importorskip("lm_eval", reason="requirements-eval.txt is not installed")
    page = open_tab("evaluate")
    page.wait_for_selector("#evaluate-results tbody tr")
    page.click("#evaluate-room label:has-text('Benchmarks')")
    page.click("text=The command that it runs")
    page.fill("#evaluate-bench-others input, #evaluate-bench-others textarea", "no_such_task")
    page.wait_for_function(
        "document.querySelector('#evaluate-bench-command')?.textContent.includes('no_such_task')"
    )
    page.click("#evaluate-bench-go")
    page.wait_for_function(
        "document.querySelector('#evaluate-bench-stands')?.textContent.includes('no_such_task')",
        timeout=120_000,
    )
    page.wait_for_function(
        "document.querySelector('#evaluate-bench-stands')?.textContent.includes('Failed')", timeout=120_000
    )
