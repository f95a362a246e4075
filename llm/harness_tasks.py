"""What the page knows of benchmarks without loading the harness: whether it is here, and which tasks the quiz has."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from llm import quiz

MISSING = "Benchmarks need the package lm_eval: pip install -r requirements-eval.txt, then start again."
QUIZ = "quiz"


def is_here() -> bool:
    """Whether lm-evaluation-harness is installed."""
    return find_spec("lm_eval") is not None


def subjects() -> list[str]:
    """The quiz as tasks: quiz_SUBJECT for each subject."""
    return [f"{QUIZ}_{subject}" for subject in quiz.subjects()]


def wanted(tasks: Sequence[str]) -> list[str]:
    """The tasks of a run, the quiz as its subjects. Raises ValueError when there are none, or a subject is unknown."""
    found: list[str] = []
    for name in tasks:
        if name == QUIZ:
            found += subjects()
            continue
        if name.startswith(f"{QUIZ}_") and name not in subjects():
            known = ", ".join(subject.removeprefix(f"{QUIZ}_") for subject in subjects())
            raise ValueError(f"The quiz has no subject {name.removeprefix(f'{QUIZ}_')!r}; it has {known}.")
        found.append(name)
    if not found:
        raise ValueError("Choose at least one task: quiz, one of its subjects, or a task of the harness.")
    return list(dict.fromkeys(found))
