"""The quiz that ships: questions with four choices in MMLU's file format, and what can be measured of it without a model."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm import paths

LETTERS = "ABCD"
PARTS = ("dev", "test")  # solved examples to show a model first; questions to answer


@dataclass(frozen=True)
class Question:
    """One question, its four choices and the index of the right one."""

    text: str
    choices: tuple[str, str, str, str]
    answer: int


def folder() -> Path:
    """Where the files lie: dev/SUBJECT_dev.csv and test/SUBJECT_test.csv."""
    return paths.shipped_datasets() / "quiz"


def subjects(where: Path | None = None) -> list[str]:
    """The subjects of a folder in MMLU's layout, by name. Raises ValueError when there are none."""
    where = where or folder()
    found = sorted(file.name.removesuffix("_test.csv") for file in (where / "test").glob("*_test.csv"))
    if not found:
        raise ValueError(
            f"{where.name} holds no quiz: it needs files test/SUBJECT_test.csv and dev/SUBJECT_dev.csv."
        )
    return found


def read(subject: str, part: str = "test", where: Path | None = None) -> list[Question]:
    """The questions of a subject: rows of question, four choices and the right letter, no header.

    Raises ValueError with file and line for a row that is none.
    """
    file = (where or folder()) / part / f"{subject}_{part}.csv"
    try:
        with file.open(encoding="utf-8", newline="") as f:
            rows = list(csv.reader(f))
    except OSError:
        raise ValueError(f"There is no file {part}/{file.name} in this quiz.") from None
    found = []
    for number, row in enumerate(rows, 1):
        if (
            len(row) != 6
            or row[5].strip() not in LETTERS
            or not row[5].strip()
            or not all(cell.strip() for cell in row)
        ):
            raise ValueError(
                f"{file.name}, line {number}: a row is a question, four choices and a letter from A to D, not {row!r}"[
                    :300
                ]
            )
        found.append(Question(row[0], tuple(row[1:5]), LETTERS.index(row[5].strip())))
    return found


def measured(where: Path | None = None) -> dict[str, Any]:
    """What habits alone would be worth: the share of each letter, of always the longest and always the shortest choice.

    Choices of equal length share the point. "of": how many test questions.
    """
    asked = [question for subject in subjects(where) for question in read(subject, "test", where)]
    letters = Counter(LETTERS[question.answer] for question in asked)

    def always(pick) -> float:
        points = 0.0
        for question in asked:
            lengths = [len(choice) for choice in question.choices]
            best = pick(lengths)
            points += (lengths[question.answer] == best) / lengths.count(best)
        return points / len(asked)

    return {
        "of": len(asked),
        "letters": {letter: letters[letter] / len(asked) for letter in LETTERS},
        "longest": always(max),
        "shortest": always(min),
    }
