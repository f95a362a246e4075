"""A sweep as a student runs it: four learning rates, the hopeless stopped on the way, the best marked and opened."""

from __future__ import annotations

import urllib.parse

import pytest

TABS = "train"
RUN = {
    "dataset": "verse", "encoding": "byte", "n_layer": 1, "n_head": 2, "n_kv_head": 0, "n_embd": 16, "context_length": 16, "max_steps": 24,
    "eval_every": 6, "eval_batches": 1, "batch_size": 4, "sample_tokens": 0, "optimizer": "adamw", "threads": 1, "warmup_steps": 2,
    "sweep.values0": "1e-5, 1e-4, 1e-3, 1e-2", "sweep.eta": 2, "sweep.name": "rates",
}  # fmt: skip


@pytest.mark.slow
def test_a_sweep_halves_itself_to_the_best(new_page, server):
    page = new_page()
    page.goto(
        "/?"
        + urllib.parse.urlencode({"tab": "train"} | {f"train.{key}": value for key, value in RUN.items()})
    )
    page.wait_for_function(
        "document.querySelector('#train-sweep-told')?.textContent.includes('at step 6 the best 2 go on; at step 12 the best goes on')"
    )
    page.click("#train-sweep-start:enabled")
    page.wait_for_selector("#train-sweep-table tbody tr")
    page.wait_for_function(
        "[...document.querySelectorAll('#train-sweep-table tbody tr')].some((row) => row.textContent.includes('Finished') && row.textContent.includes('best'))",
        timeout=240_000,
    )  # fmt: skip
    rows = [row.inner_text() for row in page.locator("#train-sweep-table tbody tr").all()]
    assert len(rows) == 4 and "rates-4" in rows[0] and "24 / 24" in rows[0]
    assert sum("only the best" in row for row in rows) == 3
    page.wait_for_selector("#train-sweep-coordinates .js-plotly-plot")
    page.click("#train-sweep-table button:has-text('rates-4')")
    page.wait_for_function("document.querySelector('#train-monitor')?.textContent.includes('rates-4')")
    page.reload()
    page.wait_for_function("document.querySelectorAll('#train-sweep-table tbody tr').length === 4")
