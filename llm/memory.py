"""Which stretches of a text stand word for word in what a model learned from, and where."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from llm import data, tuned
from llm.config import ModelConfig, RunConfig
from llm.tokenizer import Tokenizer

PIECE = 4_000_000  # tokens of the training text whose hashes are made at once: 32 MB
FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd, so that multiplying by it mod 2**64 loses nothing
MOST_PLACES = 200  # places of one sequence that are compared to find the longest match


class Copied(NamedTuple):
    """ids[start:end] of the text stand at train[at:at + end - start]; its first n tokens stand there `times` times."""

    start: int
    end: int
    at: int
    times: int


def hashes(ids: np.ndarray, n: int) -> np.ndarray:
    """(N,) ids -> (N - n + 1,): a number for each sequence of n tokens, equal for equal ones (mod 2**64)."""
    count = max(len(ids) - n + 1, 0)
    found = np.zeros(count, np.uint64)
    for i in range(n if count else 0):
        found = found * FACTOR + (ids[i : i + count].astype(np.uint64) + np.uint64(1))
    return found


def places(wanted: np.ndarray, train: np.ndarray, n: int) -> Iterator[tuple[int, np.ndarray]]:
    """For each hash in `wanted` that occurs: (hash, where its sequences begin in `train`), a piece of the text at a time."""
    wanted = np.unique(wanted)
    for start in range(0, max(len(train) - n + 1, 0), PIECE):
        found = hashes(train[start : start + PIECE + n - 1], n)
        at = np.flatnonzero(np.isin(found, wanted))
        order = np.argsort(found[at], kind="stable")
        keys, first = np.unique(found[at][order], return_index=True)
        for key, group in zip(keys, np.split(at[order], first[1:])):
            yield int(key), group + start


def copied(ids: Sequence[int], train: np.ndarray, n: int) -> list[Copied]:
    """The stretches of n tokens or more of `ids` (N,) that stand in `train` (M,), the longest from each place, none twice.

    Equal hashes are compared token by token, so nothing is found that does not stand there.
    Raises ValueError for n below 1.
    """
    if n < 1:
        raise ValueError(f"A sequence of {n} tokens cannot be looked for: choose 1 or more.")
    text = np.asarray(ids, np.int64)
    own = hashes(text, n)
    where: dict[int, list[np.ndarray]] = {}
    for key, at in places(own, train, n):
        where.setdefault(key, []).append(at)
    found, i = [], 0
    while i < len(own):
        candidates = np.concatenate(where.get(int(own[i]), [np.empty(0, np.int64)]))
        true = [int(at) for at in candidates if np.array_equal(train[at : at + n], text[i : i + n])]
        if not true:
            i += 1
            continue
        length, at = max(
            ((common(text[i:], train[at:]), at) for at in true[:MOST_PLACES]), key=lambda one: one[0]
        )
        found.append(Copied(i, i + length, at, len(true)))
        i += length
    return found


def common(a: np.ndarray, b: np.ndarray) -> int:
    """How many tokens two sequences have in common from their beginnings on."""
    size = min(len(a), len(b))
    differs = np.flatnonzero(a[:size] != b[:size])
    return int(differs[0]) if len(differs) else size


def learned_from(name: str) -> RunConfig | None:
    """The settings of the training that made the model `name`; None where nothing says so. Raises ValueError."""
    return tuned.training(name)


def check(
    model: Any, encoding: Tokenizer, text: Sequence[int], dataset: str, n: int, name: str = ""
) -> dict[str, Any]:
    """The ids `text` against the training part of `dataset` in the model's encoding, as plain values for a page.

    {"tokens", "copied" (tokens that stand in a found stretch), "train_tokens", "found": [{start, end, text, at, document,
    window, times, before, after}]}. Windows are those of the run that made the model, else of the default settings.
    Raises ValueError when the dataset is not here or cannot be read.
    """
    made = learned_from(name) if name else None
    config = made if made and made.dataset == dataset else RunConfig(dataset=dataset)
    shape: ModelConfig = model.config
    train, _ = data.split(data.load(dataset, encoding).ids, config.train.validation_fraction)
    windows, _ = data.cut(data.load(dataset, encoding).ids, shape.context_length, config.train, encoding)
    marks = np.flatnonzero(train == encoding.eot_id) if encoding.eot_id is not None else np.empty(0, np.int64)
    found = []
    for one in copied(text, train, n):
        end = one.at + one.end - one.start
        found.append(
            {
                **one._asdict(),
                "text": encoding.decode(list(text[one.start : one.end])),
                "document": int(np.searchsorted(marks, one.at, side="right")) + 1 if len(marks) else None,
                "window": int(windows.last_at(np.array([one.at]))[0]) if len(windows) else None,
                "before": encoding.decode(train[max(one.at - 12, 0) : one.at].tolist()),
                "after": encoding.decode(train[end : end + 12].tolist()),
            }
        )
    covered = sum(one["end"] - one["start"] for one in found)
    return {"tokens": len(text), "copied": covered, "train_tokens": len(train), "found": found}
