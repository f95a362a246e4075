"""A tuned model as a student tries it: the dial, base against tuned, a classifier's table, answers chosen; values against llm."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from llm import generate, lora, objectives, paths
from llm.checkpoint import load_model, save_model
from llm.config import RunConfig, SampleConfig, TuneConfig, to_dict
from llm.runs import Run
from ui.figures.playground import percent

TABS = "finetune playground"  # what the page is built with

PROMPT = "Long ago, a proud badger"


@pytest.fixture(scope="module", autouse=True)
def tuned(server) -> Path:
    """In the page's home: `tuned` (an adapter on story-llama, rows `tasks`) and `kind`, a classifier of two classes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLM_HOME", str(server.home))
        if not (paths.runs() / "tuned").exists():
            rows = [
                dict(instruction=f"Say {n}.", output=str(n), split="test" if n < 4 else "train")
                for n in range(12)
            ]
            (paths.datasets() / "tasks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            rows = [
                dict(text=f"a fox {n}", label=("no", "yes")[n % 2], split="test" if n < 8 else "train")
                for n in range(16)
            ]
            (paths.datasets() / "kinds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            leave("tuned", "tasks", "instruct")
            folder = leave("kind", "kinds", "classify")
            head = torch.randn(2, 128, generator=torch.Generator().manual_seed(1)) * 0.1
            save_file({"weight": head}, folder / "classifier.safetensors")
            (folder / "classifier.json").write_text('{"labels": ["no", "yes"], "max_length": 64}')
    return server.home


def leave(name: str, dataset: str, objective: str) -> Path:
    """What a LoRA training leaves, with random numbers in its adapter. Returns the folder of the merged model."""
    config = RunConfig(
        dataset=dataset, start_from="story-llama", objective=objective, tune=TuneConfig(trained="lora", prompt_style="plain")
    )  # fmt: skip
    Run.create("train", to_dict(config), name=name)
    model, encoding = load_model(paths.shipped_models() / "story-llama")
    lora.add(model, lora.Settings(rank=4))
    torch.manual_seed(0)
    with torch.no_grad():
        for part, values in model.named_parameters():
            if part.endswith(".B"):
                values.normal_(std=0.02)
    folder = paths.runs() / name
    lora.save(model, folder / "adapter", base="story-llama")
    save_model(folder / "model", lora.merged(model), encoding, "")
    return folder / "model"


def at(home: Path, strength: float) -> tuple:
    """story-llama with the adapter of `tuned` this strong, and its encoding."""
    model, encoding = load_model(paths.shipped_models() / "story-llama")
    lora.load(model, home / "runs" / "tuned" / "adapter", base="story-llama")
    lora.set_strength(model, "default", strength)
    return model, encoding


def first_rows(page, count: int = 3) -> list[str]:
    """The probabilities at the top of the next-token table."""
    return page.eval_on_selector_all(
        "#playground-table tbody tr",
        f"rows => rows.slice(0, {count}).map((row) => row.children[5].textContent)",
    )


def wanted(home: Path, strength: float) -> list[str]:
    model, encoding = at(home, strength)
    ids = encoding.encode(PROMPT)
    rows = generate.explain(generate.next_logits(model, ids), ids, SampleConfig(), encoding, 14)["rows"]
    return [percent(row["softmax"]) for row in rows[:3]]


@pytest.mark.slow
def test_the_dial_turns_the_table_and_the_text(open_tab, tuned):
    page = open_tab(
        "playground",
        **{"playground.model": "tuned", "playground.prompt": PROMPT, "playground.adapters": "tuned=0",
           "playground.temperature": "0", "playground.max_new_tokens": "12", "playground.chat": "false"},
    )  # fmt: skip
    page.wait_for_selector("#playground-table tbody tr")
    page.wait_for_selector("#playground-out[data-state=still], #playground-out [data-state=still]")
    dial = page.locator("#playground-dial-0 input[type=number]")
    assert dial.input_value() == "0" and page.locator("#playground-dials label", has_text="tuned").count()
    page.fill("#playground-temperature input[type=number]", "0.7")
    page.press("#playground-temperature input[type=number]", "Tab")
    for strength in (0, 1, 2):
        dial.fill(str(strength))
        dial.press("Tab")
        expected = wanted(tuned, strength)
        page.wait_for_function(
            "(wanted) => [...document.querySelectorAll('#playground-table tbody tr')].slice(0, 3)"
            ".every((row, i) => row.children[5].textContent === wanted[i])",
            arg=expected,
        )
        assert first_rows(page) == expected
    page.wait_for_function("location.search.includes('playground.adapters=tuned%3D2')")
    page.wait_for_function(
        "document.querySelector('#playground-command').textContent.includes('--adapter=tuned=2')"
    )
    page.fill("#playground-temperature input[type=number]", "0")
    page.press("#playground-temperature input[type=number]", "Tab")
    page.click("#playground-generate")
    model, encoding = at(tuned, 2)
    text = generate.complete(model, encoding, [PROMPT], SampleConfig(temperature=0, max_new_tokens=12))[0]
    page.wait_for_function("(text) => document.querySelector('.pg-new')?.textContent === text", arg=text)


@pytest.mark.slow
def test_base_and_tuned_side_by_side_then_measured(open_tab, tuned):
    page = open_tab("finetune", **{"finetune.room": "try", "finetune.tuned": "tuned"})
    page.wait_for_selector("#try-about a[href*='tab=playground']")
    assert "answers to instructions" in page.text_content("#try-about")
    page.fill("#try-prompts textarea", "Say 3.\n---\nSay 5.")
    page.fill("#try-most input", "12")
    page.press("#try-most input", "Tab")
    page.click("#try-compare")
    page.wait_for_selector("#try-both [data-state=still]")
    shown = page.locator("#try-both .tn-answer p").all_text_contents()
    texts = []
    for strength in (0, 1):
        model, encoding = at(tuned, strength)
        ids = [encoding.encode(f"User: {prompt}\nAssistant:") for prompt in ("Say 3.", "Say 5.")]
        config = SampleConfig(temperature=0, max_new_tokens=12, stop=("\nUser:",))
        found = ["", ""]
        for step in generate.generate(model, encoding, ids, config):
            found[step.row] += step.text
        texts.append([text.strip() or "nothing: it ended at once" for text in found])
    assert shown == [texts[0][0], texts[1][0], texts[0][1], texts[1][1]]
    page.click("#try-measure")
    page.wait_for_selector("#try-report table", timeout=120_000)
    assert "of 4)" in page.text_content("#try-report") and "perplexity" in page.text_content("#try-report")
    with page.expect_download() as download:
        page.click("#try-adapter")
    assert download.value.suggested_filename == "tuned-adapter.zip"


@pytest.mark.slow
def test_a_classifier_is_tried_and_its_threshold_moved(open_tab, tuned):
    page = open_tab("finetune", **{"finetune.room": "try", "finetune.tuned": "kind"})
    page.wait_for_selector("#try-text textarea")
    assert page.locator("#try-compare").count() == 0 or not page.is_visible("#try-compare")
    page.fill("#try-text textarea", "a fox 3")
    page.click("#try-classify")
    page.wait_for_selector("#try-class .tn-class")
    folder = tuned / "runs" / "kind" / "model"
    chances = objectives.class_probabilities(*load_model(folder), str(folder), ["a fox 3"])["probabilities"][
        0
    ]
    shown = page.locator("#try-class .tn-class b").all_text_contents()
    assert shown == [f"{100 * p:.1f} %" for p in sorted(chances, reverse=True)]
    page.click("#try-measure")
    page.wait_for_selector("#try-report .tn-matrix", timeout=120_000)
    for threshold, column in (("0", 1), ("1", 0)):  # all are taken for the second class, then none
        page.fill("#try-threshold input[type=number]", threshold)
        page.press("#try-threshold input[type=number]", "Tab")
        cells = ["0", "4"] * 2 if column else ["4", "0"] * 2
        page.wait_for_function(
            "(cells) => JSON.stringify([...document.querySelectorAll('#try-report .tn-matrix td')].map((c) => c.textContent)) === cells",
            arg=json.dumps(cells, separators=(",", ":")),
        )


def test_answers_are_chosen_looked_at_and_trained_on(open_tab, tuned):
    page = open_tab(
        "finetune",
        **{"finetune.room": "choose", "finetune.pairs-name": "picked", "finetune.model": "story-llama"},
    )
    page.wait_for_selector("#choose-write")
    page.wait_for_function(
        "document.querySelector('#choose-pairs').textContent.includes('picked has no pair yet')"
    )
    page.fill("#choose-prompt textarea", "<b>A fox</b>")
    page.fill("#choose-seed input", "3")
    page.press("#choose-seed input", "Tab")
    page.click("#choose-write")
    page.wait_for_selector("#choose-answers [data-state=still]")
    answers = page.locator("#choose-answers .tn-said").all_text_contents()
    assert len(answers) == 2 and answers[0] != answers[1]
    page.locator("#choose-answers .tn-pick").nth(1).click()
    page.wait_for_selector("#choose-pairs [data-look]")
    kept = [json.loads(line) for line in (tuned / "datasets" / "picked.jsonl").read_text().splitlines()]
    assert kept == [dict(prompt="<b>A fox</b>", chosen=answers[1], rejected=answers[0])]
    page.click("#choose-pairs [data-look]")
    page.wait_for_selector("#choose-pair .tn-steps")
    assert "0.6931" in page.text_content("#choose-pair")  # the model against itself: ln 2
    page.click("#choose-train")
    page.wait_for_selector("#choose-told .lab-message")
    page.wait_for_function("document.querySelector('#finetune-dataset input').value === 'picked'")
    assert page.is_checked("#finetune-objective input[value=prefer]")
    page.click("#choose-pairs [data-remove]")
    page.wait_for_function("document.querySelector('#choose-pairs').textContent.includes('no pair yet')")


@pytest.mark.parametrize("room", ["try", "choose"])
def test_on_a_phone_nothing_is_wider_than_the_screen(new_page, room, tuned):
    page = new_page(width=390, dark=True)
    page.goto(f"/?tab=finetune&finetune.room={room}&finetune.tuned=tuned")
    page.wait_for_selector("#try-about .tn-go" if room == "try" else "#choose-write")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert re.search(r"finetune\.room=", page.url)
