"""An equal-budget race: who comes lowest in bits per byte of held-out text after training on the same number of tokens.

Bits per byte do not depend on the encoding, so everything is free but the text, the share of it that is held out, and the
budget: steps x batch x context tokens read in training.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from llm import corpora
from llm.config import RunConfig, TrainConfig, from_dict
from llm.runs import Run, all_runs

LEAST = 1_000  # tokens
COUNTED = ("running", "finished", "stopped")


def rules(dataset: str, tokens: int) -> dict[str, Any]:
    """The rules of a race that begins now. Raises ValueError for a text that is not here or a budget below 1,000 tokens."""
    corpora.path(dataset)
    if tokens < LEAST:
        raise ValueError(f"{tokens:,} tokens are no race: at least {LEAST:,}.")
    return {"dataset": dataset, "tokens": tokens, "begun": time.time()}


def form(rules: Mapping[str, Any]) -> dict[str, str]:
    """What a link sets in the Train tab for those who take part."""
    return {"tab": "train", "train.dataset": rules["dataset"]}


def budget(config: RunConfig) -> int:
    """Tokens that a training reads: steps x batches a step x windows x tokens of a window."""
    train = config.train
    return train.max_steps * train.batch_size * train.grad_accumulation * config.model.context_length


def refusal(rules: Mapping[str, Any], run: Run) -> str:
    """Why a run does not take part; "" when it does."""
    try:
        config = from_dict(RunConfig, run.config)
    except ValueError:
        return "its settings cannot be read"
    if config.objective != "pretrain" or config.start_from:
        return "it did not start from new weights on plain text"
    if config.dataset != rules["dataset"]:
        return f"its text is {config.dataset}"
    if config.train.validation_fraction != TrainConfig().validation_fraction:
        return "it holds out another share of the text"
    if config.train.shift != 1 or not config.model.causal:
        return "it is broken on purpose"
    if budget(config) > rules["tokens"]:
        return f"it reads {budget(config):,} tokens"
    return ""


def standing(rules: Mapping[str, Any], names: Mapping[str, str]) -> list[dict[str, Any]]:
    """The board: each visitor's best run, lowest bits per byte first; `names` says what visitors are called."""
    best: dict[str, dict[str, Any]] = {}
    for run in all_runs("train"):
        if run.meta["created"] < rules["begun"] or run.status() not in COUNTED or refusal(rules, run):
            continue
        looks = [
            event
            for event in run.events()
            if event["kind"] == "evaluate" and event.get("bits_per_byte") is not None
        ]
        if not looks:
            continue
        config, who = from_dict(RunConfig, run.config), run.meta["owner"]
        row = {
            "who": names.get(who, "somebody"), "run": run.name, "bits_per_byte": looks[-1]["bits_per_byte"], "step": looks[-1]["step"],
            "tokens": budget(config) * looks[-1]["step"] // config.train.max_steps, "status": run.status(),
        }  # fmt: skip
        if who not in best or row["bits_per_byte"] < best[who]["bits_per_byte"]:
            best[who] = row
    rows = sorted(best.values(), key=lambda row: row["bits_per_byte"])
    return [{"rank": i, **row} for i, row in enumerate(rows, 1)]
