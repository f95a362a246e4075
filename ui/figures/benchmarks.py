"""Pictures of benchmarks: accuracy by task with its error, chance drawn in, and every question with its choices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from ui.figures.base import MARKERS, SERIES, escape, message, table

CHANCE = 0.25
Z95 = 1.959964
LETTERS = "ABCD"


def title(task: str) -> str:
    """A task's name for reading."""
    return task.removeprefix("quiz_").replace("_", " ")


def percent(value: float | None, error: float | None = None) -> str:
    """A share, with its standard error."""
    if value is None:
        return "–"
    return f"{value:.1%}" + (f" ± {error:.1%}" if error is not None else "")


def chart(runs: Sequence[tuple[str, Sequence[dict[str, Any]]]]) -> go.Figure:
    """Accuracy of each task for each run (name, tasks), with 95 % intervals; the dashed line is chance."""
    figure = go.Figure()
    names = list(dict.fromkeys(task["task"] for _, tasks in runs for task in tasks))
    for i, (name, tasks) in enumerate(runs):
        done = {task["task"]: task for task in tasks if task["accuracy"] is not None}
        known = [task for task in names if task in done]
        figure.add_scatter(
            x=[done[task]["accuracy"] for task in known], y=[title(task) for task in known], name=name, mode="markers",
            marker={"color": SERIES[i % len(SERIES)], "symbol": MARKERS[i % len(MARKERS)], "size": 10},
            error_x={"type": "data", "array": [Z95 * (done[task]["stderr"] or 0) for task in known], "thickness": 1.4, "width": 4},
            hovertemplate="%{y}: %{x:.1%}<extra>" + escape(name) + "</extra>",
        )  # fmt: skip
    figure.add_vline(x=CHANCE, line_dash="dash", line_color="rgba(127,127,127,.9)", annotation_text="chance", annotation_position="top")  # fmt: skip
    figure.update_layout(
        template=None, height=120 + 32 * max(len(names), 1), margin={"l": 10, "r": 16, "t": 26, "b": 48},
        legend={"orientation": "h", "y": 1.06, "yanchor": "bottom", "x": 0, "xanchor": "left"}, showlegend=len(runs) > 1,
        xaxis={"title": {"text": "share of right answers"}, "tickformat": ".0%", "range": [0, 1], "zeroline": False},
        yaxis={"autorange": "reversed", "automargin": True, "type": "category"},
        paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)",
    )  # fmt: skip
    return figure


def results(tasks: Sequence[dict[str, Any]], overall: dict[str, Any]) -> str:
    """The numbers: a row a task, then all questions (micro) and all tasks (macro)."""
    rows = [
        [title(task["task"]), percent(task["accuracy"], task["stderr"]), f"{task['right']} of {task['of']}", task["fewshot"] if task["fewshot"] is not None else "–", task.get("cut", 0)]
        for task in tasks
    ]  # fmt: skip
    rows.append(["all questions alike (micro)", percent(overall["micro"], overall["micro_stderr"]), f"{overall['right']} of {overall['of']}", "", ""])  # fmt: skip
    rows.append(["all tasks alike (macro)", percent(overall["macro"], overall["macro_stderr"]), f"{overall['tasks']} tasks", "", ""])  # fmt: skip
    told = "".join(
        message(f"{title(task['task'])}: {flag}", "warning") for task in tasks for flag in task["flags"]
    )
    if cut := sum(task.get("cut", 0) for task in tasks):
        told += message(
            f"Prompts longer than the model's context: {cut}. Their beginning, with the first solved examples, was cut off. "
            "Fewer examples may suit this model better.",
            "warning",
        )
    header = ("task", "right (± standard error)", "", "examples shown", "prompts cut")
    return table(header, rows, numeric=(3, 4)) + told


def question(one: dict[str, Any], number: int, of: int) -> str:
    """One question: the prompt as it was scored, each choice's log-probability and share of the whole vocabulary."""
    head = f"<p class='ar-remark'>Question {number} of {of}</p><pre class='bm-prompt'><span>{escape(one['prompt'])}</span></pre>"
    if "logprobs" not in one:
        verdict = {True: "right", False: "wrong", None: "not judged here"}[one["right"]]
        return head + message(f"The model wrote: {one['answer']} ({verdict}; wanted: {one['target']})")
    mass = sum(math.exp(value) for value in one["logprobs"])
    rows = []
    for i, (choice, value) in enumerate(zip(one["choices"], one["logprobs"])):
        marks = [
            word for word, is_so in (("right", i == one["target"]), ("taken", i == one["taken"])) if is_so
        ]
        rows.append([repr(choice), f"{value:.3f}", f"{math.exp(value):.2%}", ", ".join(marks)])
    caption = f"Together they have {mass:.2%} of the probability of the whole vocabulary." if all(len(c) <= 3 for c in one["choices"]) else ""  # fmt: skip
    return head + table(
        ("continuation", "log-probability", "probability", ""), rows, caption=caption, numeric=(1, 2)
    )
