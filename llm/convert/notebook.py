"""A notebook that rebuilds an experiment with `llm`, cell by cell, and compares its numbers with those that the run wrote."""

from __future__ import annotations

import argparse
import json
import pprint
import shlex
from pathlib import Path
from typing import Any

from llm import paths
from llm.config import RunConfig, add_flags, from_dict, from_flags, to_dict
from llm.convert import target
from llm.runs import Run

STEPS = 20  # updates that a notebook makes when nobody says otherwise


def size(name: str) -> int:
    """Bytes that `save` will write. Raises ValueError when it is not known how the model was made."""
    return len(_text(name, STEPS)[0])


def save(
    name: str, destination: Path, steps: int = STEPS, progress: target.Progress | None = None
) -> list[str]:
    """Write a notebook that does the first `steps` updates of a run (or of the run that made a model) anew; returns notes.

    It prints each loss beside the one in the run's log. Raises ValueError when it is not known how `name` was made,
    OSError from the disk.
    """
    if steps < 1:
        raise ValueError(f"A notebook needs at least 1 step, not {steps}.")
    text, notes = _text(name, steps)
    if progress:
        progress("cells", 0, len(text))
    with paths.replacing(Path(destination)) as temporary:
        temporary.write_bytes(text)
    if progress:
        progress("cells", len(text), len(text))
    return notes


def _text(name: str, steps: int) -> tuple[bytes, list[str]]:
    """The file, and notes."""
    config, log, notes = experiment(name)
    started = next((event for event in log if event["kind"] == "start"), {})
    steps = min(steps, config.train.max_steps)
    losses = {e["step"]: e["loss"] for e in log if e["kind"] == "step" and e["step"] <= steps}
    first = next((e.get("val_loss") for e in log if e["kind"] == "evaluate" and e["step"] == 0), None)
    if not losses:
        notes.append(
            "The log of the run is not there, so the notebook has nothing to compare its numbers with."
        )
    elif len(losses) < steps:
        notes.append(f"The log of the run has {len(losses)} of the first {steps} steps.")
    if started.get("processes", 1) > 1:
        notes.append(
            f"The run was made by {started['processes']} processes; one gives the same losses but for rounding."
        )
    values = {
        "name": name,
        "root": repr(str(paths.ROOT)),
        "config": pprint.pformat(to_dict(config), width=100, sort_dicts=False),
        "steps": steps,
        "all": config.train.max_steps,
        "threads": started.get("threads") or config.train.threads or 1,
        "precision": repr(started.get("precision") or config.train.precision),
        "losses": pprint.pformat(losses, width=100, compact=True),
        "first": repr(first),
        "made": f"torch {started['torch']}, {started.get('device', 'cpu')}"
        if "torch" in started
        else "a log that is lost",
        "prompt": repr("".join(config.prompts[:1])),
    }
    chosen = CELLS if config.prompts else CELLS[:-2]  # the last ones continue the first prompt
    cells = [_cell(i, kind, text.strip("\n").format(**values)) for i, (kind, text) in enumerate(chosen)]
    document = {
        "cells": cells,
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(document, indent=1, ensure_ascii=False).encode("utf-8") + b"\n", notes


def _cell(number: int, kind: str, text: str) -> dict[str, Any]:
    cell: dict[str, Any] = {
        "cell_type": kind,
        "id": f"cell-{number}",
        "metadata": {},
        "source": text.splitlines(keepends=True),
    }
    return cell if kind == "markdown" else {**cell, "execution_count": None, "outputs": []}


def experiment(name: str) -> tuple[RunConfig, list[dict[str, Any]], list[str]]:
    """The settings of the run that made a model, what it wrote into its log, and notes.

    name: a run, or a model that keeps its log and the command in its card. Raises ValueError when there is neither.
    """
    base = name.partition("@")[0]
    paths.checked_name(base, "run or model")
    folder = next(
        (place / base for place in (paths.models(), paths.shipped_models()) if (place / base).is_dir()), None
    )
    if folder is None:
        run = Run.open(base)
        if run.meta["kind"] != "train":
            raise ValueError(f"{base} is a run of the kind {run.meta['kind']}: notebooks rebuild trainings.")
        return from_dict(RunConfig, run.config), run.events(), []
    command = _command(folder / "README.md")
    if command is None:
        raise ValueError(
            f"{base} was not trained by this lab, or its card no longer has the command: there is nothing to rebuild."
        )
    log = Run(folder).events() if (folder / "events.jsonl").is_file() else []
    return (
        _config(command, base),
        log,
        [
            "The settings are those of the command in the model's card; what it does not say is as it is usual today."
        ],
    )


def _command(card: Path) -> list[str] | None:
    """The words of the training command in a card, after the module's name."""
    if not card.is_file():
        return None
    for line in card.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("python -m llm.train "):
            return shlex.split(line)[3:]
    return None


def _config(words: list[str], name: str) -> RunConfig:
    parser = argparse.ArgumentParser(exit_on_error=False, add_help=False)
    parser.add_argument("run")
    add_flags(parser, RunConfig)
    try:
        return from_flags(RunConfig, parser.parse_args(words))
    except (argparse.ArgumentError, SystemExit):
        raise ValueError(f"The command in the card of {name} has settings that are unknown today.") from None


# ---- The cells: str.format fills in the braces ----------------------------------------------------------------------

CELLS = (
    (
        "markdown",
        """
# {name}

The experiment that made this model, rebuilt with the `llm` package of LLM Lab: the same settings, data and seed, the first
{steps} of its {all} updates. At the end each loss stands beside the one in the log of the run ({made}). On the same machine, with
the same versions and number of threads, they are equal to the last digit; elsewhere the last digits may differ.
""",
    ),
    (
        "code",
        """
import sys

LAB = {root}  # the folder of LLM Lab on this computer
sys.path.insert(0, LAB)  # first, because another package is called llm too

from dataclasses import replace

import torch

from llm import evaluate, generate, optim, precision, train
from llm.config import RunConfig, SampleConfig, from_dict
from llm.distributed import world
from llm.objectives import OBJECTIVES
""",
    ),
    (
        "markdown",
        """
## The settings

All of them, so that nothing depends on what is usual later. `STEPS` may go up to `max_steps`: then the whole model is made anew.
""",
    ),
    (
        "code",
        """
STEPS = {steps}
THREADS = {threads}  # sums in another order have other last digits
NUMBERS = {precision}  # number format of the arithmetic

config = from_dict(RunConfig, {config})
""",
    ),
    (
        "markdown",
        """
## Model, encoding and data

Random weights from the seed (or those of the model it started from), and the text as windows of token ids.
""",
    ),
    (
        "code",
        """
torch.set_num_threads(THREADS)
torch.manual_seed(config.train.seed)
model, encoding = train.begin(config)
config = replace(config, model=model.config)
objective = OBJECTIVES[config.objective](config, encoding)

print(f"{{sum(p.numel() for p in model.parameters()):,}} parameters, {{encoding.vocab_size:,}} token ids")
for what, value in objective.facts().items():
    print(what, value)
""",
    ),
    (
        "markdown",
        """
## Training

`train.fit` is the loop that the run used. It yields before each evaluation and after each update.
""",
    ),
    (
        "code",
        """
losses, before = {{}}, None
with world() as here:
    model.to(here.device)
    number_format = precision.choose(NUMBERS, here.device)
    precision.prepare(model, number_format)
    train.choose(model, config.tune)  # which weights learn
    objective.prepare(model, here, number_format)
    state = train.State(model, optim.optimizers(model, config.train, number_format))
    for kind, event in train.fit(state, objective, config.train, here, number_format):
        if kind == "evaluate" and event["step"] == 0:
            before = evaluate.held_out(model, objective, here, number_format)["val_loss"]
        if kind == "step":
            losses[event["step"]] = event["loss"]
            print(f"step {{event['step']:4d}}   loss {{event['loss']:.6f}}   learning rate {{event['learning_rate']:.2e}}")
            if event["step"] == STEPS:
                break
""",
    ),
    (
        "markdown",
        """
## The same numbers

What the run wrote into its log, and the largest difference to what was computed above.
""",
    ),
    (
        "code",
        """
RUN_LOSSES = {losses}
RUN_BEFORE = {first}  # validation loss before the first update

for step in sorted(losses.keys() & RUN_LOSSES.keys()):
    print(f"step {{step:4d}}   here {{losses[step]:.6f}}   run {{RUN_LOSSES[step]:.6f}}   {{'same' if losses[step] == RUN_LOSSES[step] else ''}}")
if before is not None and RUN_BEFORE is not None:
    print(f"validation loss before: here {{before:.6f}}   run {{RUN_BEFORE:.6f}}")
differences = [abs(losses[step] - RUN_LOSSES[step]) for step in losses.keys() & RUN_LOSSES.keys()]
print("largest difference:", max(differences) if differences else "the run's log is not there")
""",
    ),
    (
        "markdown",
        """
## What it says so far
""",
    ),
    (
        "code",
        """
print(generate.complete(model, encoding, [{prompt}], SampleConfig(max_new_tokens=40, seed=config.train.seed))[0])
""",
    ),
)
