"""The Tune room as a student uses it: choose what learns, start, watch, stop, see what the adapter holds, try the model."""

from __future__ import annotations

import csv
import json
import re
import urllib.parse

import pytest

TABS = "finetune playground"  # what the page is built with

QUICK = dict(
    room="tune", dataset="instructions", style="plain", lora_rank=4, max_steps=400, batch_size=8, eval_every=10, warmup_steps=5,
    sample_tokens=8, eval_batches=1, threads=1, learning_rate=0.003, name="",
)  # fmt: skip


def opened(page, ready: str = "Start tuning", **settings):
    """The Tune room with these settings; waits until Start says `ready`."""
    given = {f"finetune.{k}": v for k, v in (QUICK | settings).items() if v != ""}
    page.goto("/?" + urllib.parse.urlencode({"tab": "finetune", **given}))
    page.wait_for_function(
        "(text) => document.querySelector('#tune-start')?.innerText === text", arg=ready, timeout=60_000
    )


def begin(page, server) -> str:
    """Press Start; returns the new run's name once the page shows it."""
    there = set((server.home / "runs").glob("*/"))
    page.click("#tune-start")
    while not (new := set((server.home / "runs").glob("[!.]*/")) - there):
        page.wait_for_timeout(50)
    (name,) = (path.name for path in new)
    page.wait_for_function(
        "(n) => document.querySelector('#tune-monitor .lab-progress-head b')?.innerText === n", arg=name
    )
    return name


def events(server, name: str) -> list[dict]:
    lines = (server.home / "runs" / name / "events.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def wait_status(page, word: str) -> None:
    page.wait_for_function(
        "(word) => document.querySelector('#tune-monitor .lab-pill')?.innerText === word",
        arg=word,
        timeout=90_000,
    )


def panel(page, name: str) -> str:
    return page.get_attribute(f"#tune-chart [data-panel={name}] .lab-plot", "aria-label") or ""


def test_an_adapter_learns_the_shipped_rows_is_stopped_and_speaks_in_the_playground(
    new_page, server, tmp_path
):
    page = new_page()
    opened(page)
    page.click("#tune-trained >> text=An adapter (LoRA)")
    page.wait_for_selector("#tune-lora_rank input")
    page.wait_for_selector("#tune-scalings:has-text('4.000')")  # alpha 16 over rank 4
    plan = page.locator("#tune-plan")
    page.wait_for_function(
        "document.querySelector('#tune-plan').innerText.includes('LoRA (chosen)')", timeout=90_000
    )
    said = plan.inner_text()
    learns, whole = (
        int(n.replace(",", "")) for n in re.search(r"([\d,]+) of ([\d,]+) numbers learn", said).groups()
    )
    rows = int(re.search(r"Rows: ([\d,]+) to learn from", said)[1].replace(",", ""))
    name = begin(page, server)
    while not any(e["kind"] == "evaluate" and e["step"] >= 10 for e in events(server, name)):
        page.wait_for_timeout(50)
    page.click("#tune-stop")
    wait_status(page, "Stopped")

    log = events(server, name)
    begun = next(e for e in log if e["kind"] == "start")
    assert (begun["trainable"], begun["parameters"]) == (learns, whole)
    assert begun["rows"]["train"] == rows and begun["objective"] == "instruct" and begun["trained"] == "lora"
    looks = [e for e in log if e["kind"] == "evaluate"]
    steps = [e for e in log if e["kind"] == "step"]
    assert looks[-1]["val_loss"] < looks[0]["val_loss"] - 0.5
    page.wait_for_function(
        "(n) => document.querySelector('#tune-chart [data-panel=loss] .lab-plot').ariaLabel.includes(`at step ${n}`)",
        arg=steps[-1]["step"],
    )
    shown = re.search(
        r"training ([\d.]+) at step (\d+); validation ([\d.]+) at step (\d+)", panel(page, "loss")
    )
    assert (int(shown[2]), int(shown[4])) == (steps[-1]["step"], looks[-1]["step"])
    assert float(shown[1]) == pytest.approx(steps[-1]["loss"], abs=1e-4)
    assert float(shown[3]) == pytest.approx(looks[-1]["val_loss"], abs=1e-4)
    assert page.locator("#tune-chart figure[data-panel=accuracy]").count() == 0  # instructions have none
    assert page.locator("#tune-chart .lab-chip[data-panel=accuracy]").is_hidden()

    last = [e for e in log if e["kind"] == "sample"][-1]
    answer = page.locator(f"#finetune-room-tune .lab-sample[data-step='{last['step']}'] .lab-answer").first
    assert last["texts"][0]["wanted"].strip() in answer.inner_text() and "Wanted" in answer.inner_text()

    held = page.locator("#tune-seen")
    page.wait_for_selector("#tune-seen:has-text('LoRA of rank 4 on story-llama')", timeout=60_000)
    assert f"{learns:,} of {whole:,} numbers learn" in held.inner_text()
    assert page.locator("#tune-seen .tune-bars").count() == 3 * 7  # layers, matrices
    assert page.locator("#tune-seen .tune-bars").first.locator("i").count() == 4  # the rank
    gradients = page.locator("#tune-seen tr:has-text('gradients') td").all_inner_texts()
    assert gradients[1] == gradients[2]  # forecast and measured

    with page.expect_download() as found:
        page.click("#tune-chart >> text=CSV")
    found.value.save_as(tmp_path / "run.csv")
    table = list(csv.DictReader((tmp_path / "run.csv").open()))
    assert float(table[-1]["loss"]) == pytest.approx(steps[-1]["loss"])

    page.click("#tune-monitor >> text=Write with this model in the Playground")
    page.wait_for_function(
        "(n) => document.querySelector('#playground-model input')?.value === n", arg=name, timeout=60_000
    )


def test_start_names_what_is_missing_and_nothing_is_lost(new_page):
    page = new_page()
    opened(page, trained="lora")
    rank = page.locator("#tune-lora_rank input")
    rank.fill("400")
    page.wait_for_function(
        "document.querySelector('#tune-start').innerText.startsWith('Change a setting first')"
    )
    page.wait_for_selector("#tune-remark:has-text('A rank of 400 is above the model\\'s width of 128')")
    assert page.is_disabled("#tune-start")
    rank.fill("8")
    page.wait_for_function("document.querySelector('#tune-start').innerText === 'Start tuning'")


@pytest.mark.slow
def test_each_objective_shows_what_matters_to_it_and_takes_its_defaults(new_page):
    page = new_page()
    opened(page, max_steps="", learning_rate="")
    assert page.locator("#tune-beta").count() == 0 or page.locator("#tune-beta").is_hidden()
    page.click("#finetune-objective >> text=Classes")
    page.wait_for_function("document.querySelector('#tune-max_steps input').value === '300'", timeout=60_000)
    page.wait_for_function("document.querySelector('#tune-start').innerText === 'Start tuning'")
    page.wait_for_selector("#tune-plan:has-text('5 classes')", timeout=60_000)
    page.wait_for_selector("#tune-plan:has-text('Measured on these rows')", timeout=90_000)
    page.click("#tune-trained label:has-text('The last blocks')")
    page.wait_for_selector("#tune-last_blocks input", timeout=60_000)
    page.wait_for_function(
        "/; [1-9][\\d,]* stand still/.test(document.querySelector('#tune-plan').innerText)"
    )


@pytest.mark.slow
def test_a_classifier_shows_its_accuracy(new_page, server):
    page = new_page()
    opened(
        page, objective="classify", dataset="classification-two", style="", max_steps=12, optimizer="adamw", batch_size=4,
        warmup_steps=2, eval_every=6, trained="last",
    )  # fmt: skip
    name = begin(page, server)
    wait_status(page, "Finished")
    looks = [e for e in events(server, name) if e["kind"] == "evaluate"]
    page.wait_for_function(
        "document.querySelector('#tune-chart [data-panel=accuracy] .lab-plot')?.ariaLabel.includes('at step 12')"
    )
    shown = re.search(r"validation ([\d.]+) at step 12", panel(page, "accuracy"))
    assert float(shown[1]) == pytest.approx(looks[-1]["accuracy"], abs=1e-4)
    assert page.locator("#tune-chart figure[data-panel=perplexity]").count() == 0  # none of a text
    assert "nats a row" in page.inner_text("#tune-chart figure[data-panel=loss] .lab-panel-unit")
    assert "has the label" in page.inner_text("#finetune-room-tune .lab-worked")
