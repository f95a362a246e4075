"""The tuned built-in models: their cards say what is measured here, and the default runs come to it again."""

import itertools
import json
import re
import time

import numpy as np
import pytest
import torch
from safetensors import safe_open

from llm import checkpoint, corpora, dispatch, evaluate, lora, objectives, paths, tuning_defaults
from llm.config import RunConfig, TuneConfig, to_dict, to_flags
from llm.runs import Run

TUNED = ("story-instruct", "story-prefer", "topic-classifier")
BUDGET = 120  # seconds of training, two threads
PLAIN = TuneConfig(prompt_style="plain")


def card(name):
    return (paths.shipped_models() / name / "README.md").read_text(encoding="utf-8")


def percents(name, row):
    """The percentages of the card's row that begins so."""
    (line,) = [line for line in card(name).splitlines() if line.startswith(f"| {row}")]
    return [float(value) / 100 for value in re.findall(r"([\d.]+) %", line)]


def rows(objective, dataset, part, tune=PLAIN, most=0):
    """The objective of a measurement, its held-out rows an even share of a part."""
    config = RunConfig(dataset=dataset, objective=objective, start_from="story-llama", tune=tune)
    _, encoding = checkpoint.load_model(paths.model_folder("story-llama"))
    found = objectives.OBJECTIVES[objective](config, encoding)
    kept = found.examples.parts[part]
    found.held_out = kept[:: max(1, len(kept) // most)] if most else kept
    return found, encoding


def near(measured, said, n, of):
    """Whether a share of n rows agrees with one of `of` rows, to three standard deviations of the draw, a row at least."""
    return abs(measured - said) <= max(1 / n, 3 * np.sqrt(said * (1 - said) / n * (1 - n / of)))


@pytest.mark.parametrize("name", TUNED)
def test_each_is_a_whole_small_model_with_its_log_and_its_command(name):
    folder = paths.shipped_models() / name
    model, encoding = checkpoint.load_model(folder)
    with safe_open(folder / "model.safetensors", "pt") as weights:
        assert {weights.get_slice(key).get_dtype() for key in weights.keys()} == {"BF16"}  # noqa: SIM118
    assert sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) < 2.2e6
    assert model.config.vocab_size == encoding.vocab_size
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    assert events[0]["kind"] == "start" and events[-1]["kind"] == "end"
    last = [event for event in events if event["kind"] == "evaluate"][-1]
    assert f"val loss: {last['val_loss']:.4f}" in card(name)
    assert f"python -m llm.train {name} " in card(name) and f"{last['step']} of {last['step']}" in card(name)


def test_the_card_of_the_instructed_one_has_the_command_of_the_default_run():
    flags = to_flags(tuning_defaults.defaults("instruct"))
    for knob, value in itertools.pairwise(flags):
        if knob in ("--batch_size", "--learning_rate", "--weight_decay", "--prompt_style", "--max_steps"):
            assert f"{knob} {value}" in card("story-instruct")
    assert "--weight_decay" in flags and "--max_steps" not in card("story-instruct")  # as many as usual


def test_answers_to_instructions_are_as_often_right_as_the_card_says():
    model, _ = checkpoint.load_model(paths.model_folder("story-instruct"))
    for part, row in (("test", "test"), ("unseen", "unseen")):
        found, _ = rows("instruct", "instructions", part, most=40)
        of = len(found.examples.parts[part])
        said = percents("story-instruct", row)
        measured = evaluate.exact(model, found, found.held_out)
        assert near(measured["right"] / measured["of"], said[1], measured["of"], of), (
            part,
            measured["right"],
        )
    found, _ = rows("instruct", "instructions", "test", most=10)
    untuned, _ = checkpoint.load_model(paths.model_folder("story-llama"))
    assert evaluate.exact(untuned, found, found.held_out)["right"] == said[0] == 0


def test_classes_are_told_apart_as_often_as_the_card_says():
    found, encoding = rows("classify", "classification-five", "test")
    folder = paths.model_folder("topic-classifier")
    model, _ = checkpoint.load_model(folder)
    measured = evaluate.confusion(model, encoding, str(folder), found.held_out, found.labels)
    assert measured["accuracy"] == pytest.approx(
        percents("topic-classifier", "test")[0], abs=0.0126
    )  # two rows


def test_chosen_answers_are_likelier_as_the_card_says():
    found, _ = rows("prefer", "preferences", "test", most=24)
    inputs, targets = found.pairs(found.held_out)
    said = percents("story-prefer", "chosen answer is the likelier one")
    for name, share in zip(("story-llama", "story-prefer"), said):
        model, _ = checkpoint.load_model(paths.model_folder(name))
        logprobs = objectives.answer_logprobs(model, inputs, targets).detach()
        measured = float((logprobs[:, 0] > logprobs[:, 1]).float().mean())
        assert near(measured, share, len(inputs), 120), (name, measured)


def test_the_adapter_belongs_to_its_base_and_makes_the_shipped_model():
    base, _ = checkpoint.load_model(paths.model_folder("story-llama"))
    tuned, _ = checkpoint.load_model(paths.model_folder("story-prefer"))
    assert lora.load(base, paths.shipped_models() / "story-prefer" / "adapter", "kind", "story-llama") == []
    merged = dict(lora.merged(base).state_dict())
    for name, weight in tuned.state_dict().items():  # the shipped one is rounded to bf16: 8 bits
        assert (merged[name] - weight).abs().max() <= merged[name].abs().max() / 256, name


@pytest.mark.parametrize("name", ["story-llama", "story-gpt2"])
def test_a_story_goes_on_from_somebodys_first_words_as_from_nothing(name):
    """A model that has only seen texts begin at their end-of-text writes anything after a bare first word."""
    text = corpora.path("stories").read_text(encoding="utf-8")
    model, encoding = checkpoint.load_model(paths.model_folder(name))
    for words in ("Long ago, a", "There was once a", "This is the story of"):
        follows = {encoding.encode(word)[0] for word in re.findall(rf"{words}( \w+)", text)}
        with torch.inference_mode():
            next_token = model(torch.tensor([encoding.encode(words)]))[0, -1].softmax(-1)
        assert float(next_token[list(follows)].sum()) > 0.9, words


@pytest.mark.slow
def test_every_figure_of_the_cards_on_all_rows():
    for part in ("test", "unseen"):
        said = percents("story-instruct", part)
        config = RunConfig(dataset="instructions", objective="instruct", tune=PLAIN)
        for name, share in zip(("story-llama", "story-instruct"), said):
            found = evaluate.report(name, config, part)
            assert found["right"] / found["of"] == pytest.approx(share, abs=1.5 / found["of"])
    config = RunConfig(dataset="preferences", objective="prefer", tune=PLAIN)
    found = evaluate.report("story-prefer", config, reference="story-llama")
    likelier = found["chosen_likelier"]
    assert [likelier["reference"], likelier["model"]] == pytest.approx(
        percents("story-prefer", "chosen answer is the likelier one"), abs=1 / 120
    )
    assert f"| 0.00 | {found['reward_margin']:.2f} |" in card("story-prefer")
    assert f"| dpo loss | 0.6931 | {found['val_loss']:.4f} |" in card("story-prefer")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_default_run_gains_twenty_points_in_two_minutes(monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    chosen = tuning_defaults.defaults("instruct")
    gains, seconds, unseen = [], [], []
    before = evaluate.report("story-llama", chosen)["right"]
    for seed in range(3):
        config = to_dict(chosen)
        config["train"] |= {"seed": seed}
        run = Run.create("train", config, name=f"seed{seed}")
        assert dispatch.Local().start(run)
        deadline = time.time() + 4 * BUDGET
        while run.status() == "running" and time.time() < deadline:
            last = run.last_event()
            if last["kind"] == "step" and last["seconds"] >= BUDGET:
                run.request_stop()
            time.sleep(0.2)
        assert run.status() in ("finished", "stopped"), run.last_event()
        steps = [event for event in run.events() if event["kind"] == "step"]
        seconds.append(round(steps[-1]["seconds"]))
        after = evaluate.report(run.name, chosen)
        gains.append((after["right"] - before) / after["of"])
        unseen.append(evaluate.report(run.name, chosen, "unseen")["right"])
    print(f"gains {gains}; seconds {seconds}; right of 80 rows of unseen families {unseen}")
    assert min(gains) >= 0.2
