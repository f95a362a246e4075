"""The Train tab as a student uses it: start, watch, stop, resume, reload, compare, take the numbers home."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import subprocess
import sys
import time
import urllib.parse

import pytest

from llm import paths

TABS = "tokens train"  # what the page is built with

TINY = (
    "train.encoding=byte&train.n_layer=1&train.n_head=2&train.n_kv_head=0&train.n_embd=32&train.context_length=32"
    "&train.batch_size=4&train.warmup_steps=2&train.sample_tokens=8&train.threads=1"
)
TEXT = "A fox sat by the well and sang to the moon until the frogs sang back. " * 60


@pytest.fixture
def fox(server):
    """A short text on the disk of the page."""
    folder = server.home / "datasets"
    folder.mkdir(exist_ok=True)
    (folder / "fox.txt").write_text(TEXT, encoding="utf-8")
    return "fox"


def opened(page, **settings):
    """The Train tab with a tiny model and these settings, ready to start."""
    page.goto(
        f"/?tab=train&train.dataset=fox&{TINY}&"
        + urllib.parse.urlencode({f"train.{k}": v for k, v in settings.items()})
    )
    page.wait_for_function("document.querySelector('#train-start')?.innerText === 'Start training'")


def begin(page, server) -> str:
    """Press Start; returns the new run's name once the page shows it."""
    there = set((server.home / "runs").glob("fox*"))
    page.click("#train-start")
    while not (new := set((server.home / "runs").glob("fox*")) - there):
        page.wait_for_timeout(50)
    (name,) = (path.name for path in new)
    page.wait_for_function(
        "(n) => document.querySelector('#train-monitor .lab-progress-head b')?.innerText === n", arg=name
    )
    return name


def wait_status(page, word: str, seconds: float = 60) -> None:
    page.wait_for_function(
        "(word) => document.querySelector('#train-monitor .lab-pill')?.innerText === word",
        arg=word,
        timeout=seconds * 1000,
    )


def events(server, name: str) -> list[dict]:
    return [
        json.loads(line) for line in (server.home / "runs" / name / "events.jsonl").read_text().splitlines()
    ]


def label(page, panel: str) -> str:
    return page.get_attribute(f"#train-chart [data-panel={panel}] .lab-plot", "aria-label") or ""


def curve(page, panel: str) -> list[list[float]]:
    """x of every trace that Plotly has drawn in a panel."""
    return page.evaluate(
        f"[...document.querySelector('#train-chart figure[data-panel={panel}] .lab-plot').data].map(t => [...t.x])"
    )


def test_a_run_from_start_to_its_numbers(new_page, server, fox, tmp_path):
    page = new_page()
    opened(page, max_steps=30, eval_every=10)
    before = set((server.home / "runs").glob("fox*"))
    page.dblclick("#train-start")  # a double click is one run
    page.wait_for_timeout(1500)
    (name,) = (path.name for path in set((server.home / "runs").glob("fox*")) - before)
    page.wait_for_function(
        "(n) => document.querySelector('#train-monitor .lab-progress-head b')?.innerText === n", arg=name
    )
    wait_status(page, "Finished")
    log = events(server, name)
    losses = [e["loss"] for e in log if e["kind"] == "step"]
    looks = [e for e in log if e["kind"] == "evaluate"]
    assert len(losses) == 30 and [e["step"] for e in looks] == [0, 10, 20, 30]
    page.wait_for_function(
        "document.querySelector('#train-chart [data-panel=loss] .lab-plot')?.ariaLabel.includes('at step 30')"
    )
    shown = re.search(r"training ([\d.]+) at step 30; validation ([\d.]+) at step 30", label(page, "loss"))
    assert float(shown[1]) == pytest.approx(losses[-1], abs=1e-4)
    assert float(shown[2]) == pytest.approx(looks[-1]["val_loss"], abs=1e-4)
    assert [0, 10, 20, 30] in curve(page, "loss")  # validation begins at step 0
    assert "Step 30" in page.inner_text(".lab-samples") and "−log p(target)" in page.inner_text(".lab-worked")
    page.click("#train-chart .lab-chip[data-panel=grad_norm]")
    page.wait_for_function(
        "document.querySelector('#train-chart [data-panel=grad_norm] .lab-plot')?.ariaLabel.includes('at step 30')"
    )
    with page.expect_download() as found:
        page.click("#train-chart >> text=CSV")
    found.value.save_as(tmp_path / "run.csv")
    rows = list(csv.DictReader((tmp_path / "run.csv").open()))
    assert [float(r["loss"]) for r in rows[1:]] == losses
    with page.expect_download() as found:
        page.click("#train-chart >> text=PNG")
    found.value.save_as(tmp_path / "loss.png")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_reload_and_a_second_browser_show_the_running_run(new_page, server, fox):
    page, other = new_page(), new_page()
    opened(page, max_steps=100_000, eval_every=50)
    name = begin(page, server)
    page.wait_for_function(
        "document.querySelector('#train-chart [data-panel=loss] .lab-plot')?.ariaLabel.includes('at step')",
        timeout=60_000,
    )
    page.wait_for_function("(n) => new URLSearchParams(location.search).get('train.run') === n", arg=name)
    page.reload()
    page.wait_for_selector("#train-start")
    other.goto("/?tab=train")  # no link: the last run
    for one in (page, other):
        one.wait_for_function(
            "document.querySelector('#train-chart [data-panel=loss] .lab-plot')?.ariaLabel.includes('at step')"
        )
        assert one.inner_text("#train-monitor .lab-progress-head b") == name
        assert min(min(x) for x in curve(one, "loss")) == 0  # the whole curve
    ends = []
    for one in (page, other):
        ends.append(
            int(
                re.search(r"step ([\d,]+) of", one.inner_text("#train-monitor .lab-progress-step"))[
                    1
                ].replace(",", "")
            )
        )
    last = max(e["step"] for e in events(server, name) if e["kind"] == "step")
    assert all(0 < end <= last for end in ends)
    page.click("#train-stop")
    for one in (page, other):
        wait_status(one, "Stopped")
    stopped = events(server, name)[-1]
    assert stopped["kind"] == "end" and f"Stopped at step {stopped['step']}" in page.inner_text(
        "#train-monitor"
    )
    assert (server.home / "runs" / name / "model" / "model.safetensors").is_file()
    page.click("#train-resume")
    page.wait_for_function(
        "(k) => Number(document.querySelector('#train-monitor .lab-progress-step')?.innerText.replace(/\\D*([\\d,]+) of.*/, '$1').replaceAll(',', '')) > k",
        arg=stopped["step"], timeout=60_000,
    )  # fmt: skip
    page.click("#train-stop")
    wait_status(page, "Stopped")
    numbers = [e["step"] for e in events(server, name) if e["kind"] == "step"]
    assert numbers == sorted(set(numbers))  # no step lost or done twice
    assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.slow
def test_a_run_of_three_steps_has_its_points_and_can_be_laid_over_another(new_page, server, fox):
    page = new_page()
    names = []
    for seed in (1, 2):
        opened(page, max_steps=3, warmup_steps=1, eval_every=10, seed=seed)
        names.append(begin(page, server))
        wait_status(page, "Finished")
    page.wait_for_function(
        "document.querySelector('#train-chart [data-panel=loss] .lab-plot')?.ariaLabel.includes('at step 3')"
    )
    assert [1, 2, 3] in curve(page, "loss")
    page.click(f"#train-history [data-action=overlay][data-name={names[0]}]")
    page.wait_for_function(
        "(n) => document.querySelector('#train-chart [data-panel=loss] .lab-plot')?.ariaLabel.includes(n)",
        arg=names[0],
    )
    page.wait_for_function(
        "(n) => new URLSearchParams(location.search).get('train.with') === n", arg=names[0]
    )
    assert curve(page, "loss").count([1, 2, 3]) == 2
    page.on("dialog", lambda dialog: dialog.accept())
    page.click(f"#train-history [data-action=delete][data-name={names[0]}]")
    page.wait_for_selector(f"#train-history [data-name={names[0]}]", state="detached")
    assert not (server.home / "runs" / names[0]).exists()


def test_start_says_what_is_missing_and_nothing_is_lost(new_page, fox):
    page = new_page()
    opened(page)
    batch = page.locator("#train-batch_size input")
    batch.fill("4000")
    page.wait_for_function(
        "document.querySelector('#train-start').innerText === 'Text too short: 124 windows, 4,000 needed'"
    )
    page.wait_for_selector("#train-remark:has-text('fewer than the 4,000 of one batch')")
    assert page.is_disabled("#train-start")
    batch.fill("4")
    page.wait_for_function("document.querySelector('#train-start').innerText === 'Start training'")
    assert page.input_value("#train-batch_size input") == "4"


def test_a_pasted_text_can_be_trained_on(new_page, server, fox):
    page = new_page()
    page.goto(f"/?tab=train&{TINY}")
    page.click("text=Use a text of your own")
    page.fill("#train-paste textarea", "The bell rang once, twice, and then the hall was still. " * 50)
    page.fill("#train-text-name textarea, #train-text-name input", "bells")
    page.click("#train-add")
    page.wait_for_function("document.querySelector('#train-dataset input').value === 'bells'")
    assert "Added as bells" in page.inner_text("#train-added")
    page.wait_for_function("document.querySelector('#train-start').innerText === 'Start training'")
    page.click("text=The command that Start runs")
    page.wait_for_function("document.querySelector('#train-command')?.innerText.includes('--dataset bells')")


@pytest.mark.slow
def test_figures_fit_also_when_they_were_drawn_while_hidden(new_page, server, fox):
    for width in (1280, 400):
        page = new_page(width=width)
        opened(page, max_steps=3, warmup_steps=1, eval_every=10, seed=width)
        begin(page, server)
        page.click("#tab-tokens-button")
        time.sleep(2)
        page.click("#tab-train-button")
        wait_status(page, "Finished")
        page.wait_for_function(
            "document.querySelector('#train-chart [data-panel=loss] .lab-plot')?.ariaLabel.includes('at step 3')"
        )
        plot = page.locator("#train-chart [data-panel=loss] .lab-plot").bounding_box()
        drawn = page.locator("#train-chart [data-panel=loss] .main-svg").first.bounding_box()
        assert drawn["width"] >= 0.9 * plot["width"] and drawn["height"] > 150


def test_the_browser_and_a_terminal_make_the_same_run(new_page, server, fox):
    page = new_page()
    opened(page, max_steps=25, eval_every=10)
    name = begin(page, server)
    wait_status(page, "Finished")
    shown = page.evaluate("document.querySelector('#train-command .cm-content')?.innerText ?? ''")
    if not shown:
        page.click("text=The command that Start runs")
        shown = page.wait_for_selector("#train-command .cm-content").inner_text()
    words = shlex.split(shown.replace("\n", " "))
    assert words[:3] == ["python", "-m", "llm.train"]
    command = [sys.executable, *words[1:3], "by-hand", *words[4:]]
    done = subprocess.run(
        command,
        cwd=paths.ROOT,
        env=os.environ | {"LLM_HOME": str(server.home)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    wanted = {"step": ("loss", "grad_norm"), "evaluate": ("val_loss", "bits_per_byte"), "sample": ("texts",)}
    there, here = (
        [
            [e["step"], *(e[key] for key in wanted[e["kind"]])]
            for e in events(server, run)
            if e["kind"] in wanted
        ]
        for run in (name, "by-hand")
    )
    assert there == here and len(here) == 25 + 2 * 4
    weights = [
        (server.home / "runs" / run / "model" / "model.safetensors").read_bytes() for run in (name, "by-hand")
    ]
    assert weights[0] == weights[1]
