"""Instructions with their answers from a seeded generator: fifteen families of small tasks to learn, two more only to test.

What the held-out rows of a learned family ask is either new to it or known and asked in another wording (`tasks.FAMILIES`
says which share); none of them is nearly the same as a row for training (`duplicates.similarity`).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable

from llm import duplicates
from llm.corpora import tasks
from llm.corpora.draw import Draw

SEED = 5
VALIDATION, TEST, UNSEEN = 6, 20, 40  # rows of each family


def said(row: dict[str, str]) -> str:
    """A row as one text, by which near duplicates are told."""
    return "\n".join(row[field] for field in ("instruction", "input", "output") if row[field])


def far(rows: Iterable[dict[str, str]], seen: list[frozenset[str]], count: int) -> list[dict[str, str]]:
    """The first `count` rows that are not nearly the same as one already seen."""
    found = []
    for row in rows:
        own = duplicates.pieces(said(row))
        if len(found) < count and all(duplicates.overlap(own, other) < duplicates.NEAR for other in seen):
            found.append(row)
    return found


def learned(family: str, draw: Draw) -> list[dict[str, str]]:
    """The rows of a family that training sees, and those held out for validation and test."""
    ask, wanted, share = tasks.FAMILIES[family]
    questions = draw.shuffled(list({str(question.rows()): question for question in ask(draw)}.values()))
    held = VALIDATION + TEST
    new = round(share * held)
    aside, asked = questions[: 2 * new], [draw.shuffled(question.rows()) for question in questions[2 * new :]]
    # every question once, then every question again in another wording, until there are enough
    order = [(i, rows[turn]) for turn in range(12) for i, rows in enumerate(asked) if turn < len(rows)]
    train = [row for _, row in order[:wanted]]
    trained = {i for i, _ in order[:wanted]}
    seen = [duplicates.pieces(said(row)) for row in train]
    kept = far((draw.pick(question.rows()) for question in aside), seen, new)
    kept += far(draw.shuffled([row for i, row in order[wanted:] if i in trained]), seen, held - len(kept))
    kept = draw.shuffled(kept)
    parts = {"train": train, "validation": kept[:VALIDATION], "test": kept[VALIDATION:]}
    return [row | {"family": family, "split": name} for name, rows in parts.items() for row in rows]


def unseen(family: str, draw: Draw) -> list[dict[str, str]]:
    """Rows of a family that is only for the test: each question once."""
    questions = draw.shuffled(
        list({str(question.rows()): question for question in tasks.UNSEEN[family](draw)}.values())
    )
    rows = [draw.pick(question.rows()) for question in questions[:UNSEEN]]
    return [row | {"family": family, "split": "unseen"} for row in rows]


def rows(seed: int = SEED) -> list[dict[str, str]]:
    """All rows in a mixed order; the same ones for the same seed on every Python version."""
    draw = Draw(seed)
    found = [row for family in tasks.FAMILIES for row in learned(family, draw)]
    found += [row for family in tasks.UNSEEN for row in unseen(family, draw)]
    return draw.shuffled(found)


def make(seed: int = SEED) -> dict[str, tuple[str, dict[str, str]]]:
    """The text of datasets/instructions.json, and what was measured on it."""
    found = rows(seed)
    counts = Counter(row["split"] for row in found)
    words = {word for row in found for word in re.findall(r"[a-z]+", said(row).lower())}
    longest = max(len(row["output"].split()) for row in found)
    train = [duplicates.pieces(said(row)) for row in found if row["split"] == "train"]
    tested = [duplicates.pieces(said(row)) for row in found if row["split"] != "train"]
    nearest = max(duplicates.overlap(a, b) for a in tested for b in train)
    measured = {
        "rows": f"{len(found):,} (seed {seed}): " + ", ".join(f"{counts[name]:,} {name}" for name in ("train", "validation", "test", "unseen")),
        "families": f"{len(tasks.FAMILIES)} learned, {len(tasks.UNSEEN)} unseen",
        "with an input": f"{sum(bool(row['input']) for row in found) / len(found):.0%}",
        "instructions": f"{len({row['instruction'] for row in found}):,} distinct, {sum(len(wordings(f)) for f in {**tasks.FAMILIES, **tasks.UNSEEN}):,} wordings",
        "word types": f"{len(words):,}",
        "answers": f"1 to {longest} words, median {sorted(len(row['output'].split()) for row in found)[len(found) // 2]}",
        "held-out row most similar to one for training": f"{nearest:.2f} (near duplicates begin at {duplicates.NEAR})",
    }  # fmt: skip
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in found)
    return {"instructions": (f"[\n{lines}\n]\n", measured)}


def wordings(family: str) -> set[str]:
    """Every way in which a family asks."""
    ask = tasks.FAMILIES[family][0] if family in tasks.FAMILIES else tasks.UNSEEN[family]
    return {wording for question in ask(Draw(SEED)) for wording in question.wordings}
