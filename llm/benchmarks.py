"""What came of a benchmark: accuracies with their errors, micro and macro, and every question of a run. No torch, no harness."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from llm.runs import Run

Z95 = 1.959964


def accuracy(right: int, of: int) -> dict[str, Any]:
    """Share of right answers with its standard error sqrt(p (1 - p) / (n - 1)), the sample's, as the harness gives it."""
    if not of:
        return {"accuracy": None, "stderr": None, "right": 0, "of": 0}
    p = right / of
    return {
        "accuracy": p,
        "stderr": math.sqrt(p * (1 - p) / (of - 1)) if of > 1 else None,
        "right": right,
        "of": of,
    }


def overall(tasks: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Micro: all questions count alike. Macro: all tasks count alike. Both with standard errors, None without questions."""
    done = [task for task in tasks if task["of"]]
    right, of = sum(task["right"] for task in done), sum(task["of"] for task in done)
    micro = accuracy(right, of)
    n = len(done)
    errors = [task["stderr"] for task in done]
    return {
        "micro": micro["accuracy"],
        "micro_stderr": micro["stderr"],
        "macro": sum(task["accuracy"] for task in done) / n if n else None,
        "macro_stderr": math.sqrt(sum(e * e for e in errors)) / n if n and None not in errors else None,
        "right": right,
        "of": of,
        "tasks": n,
    }


def tasks_of(run: Run) -> list[dict[str, Any]]:
    """The finished tasks of a run, in their order."""
    return [event for event in run.events() if event["kind"] == "task"]


def questions(run: Run, task: str) -> list[dict[str, Any]]:
    """The questions of a finished task: prompt, choices with their log-probabilities, which was right, which was taken.

    Raises ValueError when they are not there.
    """
    known = {event["task"] for event in tasks_of(run)}
    if task not in known:
        raise ValueError(f"The run {run.name} has not finished a task called {task!r}.")
    text = (run.path / "questions" / f"{task}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def flags(questions_of: Sequence[dict[str, Any]]) -> list[str]:
    """What looks wrong with the scores of a task, a sentence each."""
    scored = [one["logprobs"] for one in questions_of if one.get("logprobs")]
    told = []
    if any(all(value == 0 for value in values) for values in scored):
        told.append("All log-probabilities of a question are 0: nothing was scored there.")
    if scored and all(len(set(values)) == 1 for values in scored):
        told.append(
            "All choices of every question have the same log-probability: the model does not see them."
        )
    if any(value > 1e-6 or value != value for values in scored for value in values):
        told.append("A log-probability is above 0 or no number.")
    return told
