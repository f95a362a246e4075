"""What a run will be, before it starts: the model it takes, whether its text suffices, what a step of it costs here."""

from __future__ import annotations

import functools
import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from llm import commands, corpora, data, files, inventory, paths, tokenizer
from llm.config import ModelConfig, RunConfig, to_dict, to_flags
from ui.figures.base import message

SAMPLE = 200_000  # characters of a text that are counted; a longer one is scaled up
LABEL = 64  # most characters of a Start button's label
MEASURED = 1  # version of what a measurement says: part of its name
PROBE_SECONDS = 90  # a measurement that takes longer is given up


class NotReady(ValueError):
    """Something is missing before Start; `label` says it in the few words of a button."""

    def __init__(self, label: str, sentence: str = ""):
        super().__init__(sentence or label + ".")
        self.label = label


def refused(error: ValueError) -> list[Any]:
    """Plan, remark, command and Start button while something is missing: the button itself says what."""
    label = error.label if isinstance(error, NotReady) else str(error).rstrip(".")
    label = label if len(label) <= LABEL else "Change a setting first: see the remark"
    return ["", message(str(error), "warning"), "", gr.update(value=label, interactive=False)]


def resolved(config: RunConfig) -> RunConfig:
    """The same run with what it takes from elsewhere filled in: the encoding's vocabulary, or the first model's shape."""
    if config.start_from:
        return replace(config, model=shape_of(config.start_from))
    ids, model = encoding_of(config.dataset, config.tokenizer, "").vocab_size, config.model
    if model.vocab_size and model.vocab_size < ids:
        raise ValueError(
            f"The encoding {config.tokenizer} has {ids:,} ids, but the model knows only {model.vocab_size:,}: "
            "enter 0 to take the encoding's number."
        )
    return replace(config, model=replace(model, vocab_size=model.vocab_size or ids))


def shape_of(name: str) -> ModelConfig:
    """The config of a model on the disk, read without its weights. Raises ValueError as `inventory.shape` does."""
    return inventory.shape(paths.model_folder(name))


def encoding_of(dataset: str, encoding: str, start_from: str) -> tokenizer.Tokenizer:
    """The encoding of a run: that of the model it starts from, else the chosen one. Raises ValueError."""
    if start_from:
        return tokenizer.load(paths.model_folder(start_from))
    text = files.read_text(corpora.path(dataset)).text if encoding == "char" else None
    return tokenizer.get(encoding, text)


@functools.lru_cache(maxsize=32)
def _sample(
    dataset: str, modified: int, encoding: str, start_from: str
) -> tuple[np.ndarray, tokenizer.Tokenizer, float]:
    """Ids of the first part of a text, the encoding, and how many times longer the whole text is."""
    text = files.read_text(corpora.path(dataset)).text
    chosen = encoding_of(dataset, encoding, start_from)
    ids = np.array(chosen.encode(text[:SAMPLE], special=True), dtype=np.int64)
    return ids, chosen, max(len(text) / SAMPLE, 1.0)


def sample_of(config: RunConfig) -> tuple[np.ndarray, tokenizer.Tokenizer, float]:
    """`_sample` of a run's text. Raises ValueError when it cannot be read or has a character that the encoding lacks."""
    modified = corpora.path(config.dataset).stat().st_mtime_ns
    return _sample(config.dataset, modified, config.tokenizer, config.start_from)


def token_count(config: RunConfig) -> int:
    """How many tokens the dataset has; a long text is counted in its first part and scaled up. Raises ValueError."""
    ids, _, times = sample_of(config)
    return round(len(ids) * times)


def check_text(config: RunConfig) -> None:
    """Raise NotReady when the text has no window, or no whole batch of them, cut as training cuts it."""
    train, T = config.train, config.model.context_length
    ids, encoding, times = sample_of(config)
    cut, _ = data.cut(ids, T, train, encoding)
    tokens, windows = round(len(cut.ids) * times), round(len(cut) * times)
    about = "about " if times > 1 else ""
    if not windows:
        raise NotReady(
            f"Text too short: {about}{tokens:,} tokens, {T + 1:,} needed",
            f"The training part of the text has {about}{tokens:,} tokens; a window of {T:,} needs {T + 1:,}, because "
            "each token's target is the one after it. Choose a longer text, a shorter context or a smaller validation share.",
        )
    if not data.Batches(windows, train.batch_size, drop_last=train.drop_last).per_epoch:
        raise NotReady(
            f"Text too short: {about}{windows:,} windows, {train.batch_size:,} needed",
            f"The training part of the text has {about}{windows:,} windows of {T:,} tokens, fewer than the {train.batch_size:,} "
            "of one batch. Use a smaller batch, a shorter context or a longer text.",
        )


# --- what a step costs


def measurement_path(config: RunConfig, tuning: bool = False) -> Path:
    """Where the measured cost of a step of such a run is kept: one file for each shape, batch and share of the machine.

    tuning: measured on the run's own rows, so that these and what learns belong to it too.
    """
    train = config.train
    about: list[Any] = [
        MEASURED,
        to_dict(config.model),
        train.batch_size,
        train.grad_accumulation,
        train.optimizer,
        train.precision,
        train.threads or commands.threads(),
    ]
    if tuning:
        about += [config.objective, config.dataset, config.start_from, to_dict(config.tune)]
    return paths.cache() / f"forecast-{hashlib.sha256(json.dumps(about).encode()).hexdigest()[:24]}.json"


def measured(config: RunConfig, tuning: bool = False) -> dict[str, Any] | None:
    """What was measured of such a run; None before."""
    kept = measurement_path(config, tuning)
    return json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else None


def measure(config: RunConfig, tuning: bool = False) -> str:
    """Run a few steps of such a training in a process of its own and keep what they cost; "" or what failed.

    Nothing is measured when it was done before.
    """
    kept = measurement_path(config, tuning)
    if not kept.is_file():
        command = [
            sys.executable,
            "-m",
            "llm.forecast",
            *(["--tuning"] if tuning else []),
            *to_flags(config),
        ]
        try:
            done = subprocess.run(
                command, cwd=paths.ROOT, env=commands.environment(0), stdin=subprocess.DEVNULL, capture_output=True,
                timeout=PROBE_SECONDS, check=True,
            )  # fmt: skip
        except (subprocess.TimeoutExpired, subprocess.CalledProcessError):
            return kept.name
        with paths.replacing(kept) as temporary:
            temporary.write_bytes(done.stdout)
    return ""
