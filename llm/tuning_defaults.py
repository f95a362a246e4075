"""How each objective is best begun on the built-in models: the one table that the page's form and the written commands take."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from llm.config import RunConfig

MODEL = "story-llama"  # the base that ships
# objective: what differs from the defaults of RunConfig, TrainConfig ("train") and TuneConfig ("tune")
DEFAULTS: dict[str, dict[str, Any]] = {
    "instruct": dict(  # a strong pull towards zero keeps so small a model from learning 2,500 rows by heart
        dataset="instructions",
        sample_tokens=40,
        train=dict(batch_size=16, learning_rate=8e-3, weight_decay=0.4, eval_batches=0),
        tune=dict(trained="all", prompt_style="plain"),
    ),
    "classify": dict(
        dataset="classification-five",
        train=dict(
            max_steps=300, batch_size=16, learning_rate=8e-3, weight_decay=0.4, eval_every=50, eval_batches=0,
            checkpoint_every=100,
        ),
        tune=dict(trained="all"),
    ),
    "prefer": dict(
        dataset="preferences",
        train=dict(
            max_steps=200, learning_rate=1e-3, min_learning_rate=1e-4, warmup_steps=20, eval_every=50, eval_batches=0,
            checkpoint_every=100,
        ),
        tune=dict(trained="lora", prompt_style="plain", old_dataset="stories"),
    ),
    "pretrain": dict(
        dataset="verse",
        train=dict(
            max_steps=300, batch_size=8, learning_rate=1e-3, matrix_learning_rate=0.01, min_learning_rate=1e-4,
            warmup_steps=20, eval_every=50, checkpoint_every=100,
        ),
        tune=dict(trained="all", old_dataset="stories"),
    ),
}  # fmt: skip


def defaults(objective: str, start_from: str = MODEL) -> RunConfig:
    """The run that the form opens with for this objective."""
    chosen = DEFAULTS[objective]
    base = RunConfig()
    plain = {name: value for name, value in chosen.items() if name not in ("train", "tune")}
    return replace(
        base, objective=objective, start_from=start_from, train=replace(base.train, **chosen["train"]),
        tune=replace(base.tune, **chosen["tune"]), **plain,
    )  # fmt: skip
