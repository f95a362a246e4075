"""Preferences that a person gives: one row a pair of answers, kept as rows that training reads."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from llm import corpora, files, paths, rows

Pair = dict[str, str]  # prompt, chosen, rejected
FIELDS = ("prompt", "chosen", "rejected")


def path(name: str) -> Path:
    """The file of a person's own pairs. Raises ValueError for a name that cannot be one, or that ships with the lab."""
    paths.checked_name(name, "name of the rows")
    if name in corpora.ROWS:
        raise ValueError(f"{name} ships with the lab and stays as it is: choose another name for your pairs.")
    return paths.datasets() / f"{name}.jsonl"


def read(name: str) -> list[Pair]:
    """The pairs kept under a name so far; none where there is no such file yet. Raises ValueError for rows of another kind."""
    file = path(name)
    if not file.is_file() or not file.stat().st_size:
        return []
    table = rows.read(file)
    if rows.kind_of(table) != "preference":
        raise ValueError(
            f"The rows of {name} hold no pairs of answers: choose another name for those you pick here."
        )
    return [dict(row) for row in table.rows]


def of_choice(prompt: str, answers: Sequence[str], best: int) -> list[Pair]:
    """The pairs that one choice gives: the best answer against each other one.

    Raises ValueError when there is nothing to prefer: no prompt, an empty best answer, or all answers the same.
    """
    if not prompt.strip():
        raise ValueError("There is no prompt: type one, then let the model answer it.")
    if not 0 <= best < len(answers):
        raise ValueError(f"There is no answer {best + 1}: choose one of 1 to {len(answers)}.")
    chosen = answers[best].strip()
    if not chosen:
        raise ValueError(f"Answer {best + 1} is empty: there would be nothing to learn. Write answers again.")
    others = list(dict.fromkeys(answer.strip() for answer in answers))
    others = [answer for answer in others if answer and answer != chosen]
    if not others:
        raise ValueError(
            "All answers are the same, or the others are empty: raise the temperature and write them again."
        )
    return [dict(prompt=prompt.strip(), chosen=chosen, rejected=other) for other in others]


def append(name: str, pairs: Sequence[Pair]) -> int:
    """Add pairs to those kept under a name; returns how many there are then. Raises ValueError as `path` and `read`."""
    with _alone():
        kept = read(name)
        known = {tuple(pair.get(field) for field in FIELDS) for pair in kept}
        new = [pair for pair in pairs if tuple(pair[field] for field in FIELDS) not in known]
        if not new:
            raise ValueError(f"{name} has this choice already: nothing was added.")
        _write(name, [*kept, *new])
        return len(kept) + len(new)


def remove(name: str, number: int) -> int:
    """Take pair `number` (from 1) away; returns how many are left. Raises ValueError when there is none."""
    with _alone():
        kept = read(name)
        if not 1 <= number <= len(kept):
            raise ValueError(f"{name} has no pair {number}: there are {len(kept)}.")
        del kept[number - 1]
        _write(name, kept)
        return len(kept)


def _write(name: str, pairs: Sequence[Pair]) -> None:
    said = [{field: value for field, value in pair.items() if value is not None} for pair in pairs]
    data = "".join(json.dumps(pair, ensure_ascii=False) + "\n" for pair in said).encode()
    if len(data) > files.upload_limit():
        raise ValueError(f"{name} would grow beyond what the lab reads: begin another one.")
    with paths.replacing(path(name)) as temporary:
        temporary.write_bytes(data)


@contextmanager
def _alone() -> Iterator[None]:
    """Two choices at the same moment come one after the other."""
    with open(paths.datasets() / ".pairs.lock", "a") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        yield
