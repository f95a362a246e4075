"""Pictures of the judge: how a judging stands, what came out, every verdict to read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ui.figures.base import escape, facts, message
from ui.figures.train import progress

WORDS = {"a": "A", "b": "B", "tie": "tie", "": "no verdict"}


def percent(value: float | None) -> str:
    """A share in words."""
    return "–" if value is None else f"{value:.1%}"


def between(interval: Sequence[float] | None) -> str:
    """A 95 % interval in words."""
    return f" ({interval[0]:.0%} to {interval[1]:.0%})" if interval else ""


def standing(name: str, status: str, config: dict[str, Any], done: int, count: int, note: str) -> str:
    """Status, a bar of instructions, one sentence."""
    told = note or f"{config['a']} against {config['b']}, judged by {config['judge']}"
    return progress(name, status, done, count, told, []).replace("step ", "instruction ", 1)


def result(found: dict[str, Any], config: dict[str, Any], agree: int, compared: int) -> str:
    """Rates with their intervals, and what one should know of them."""
    pairs = [
        (f"{config['a']} wins", percent(found["win_rate"]) + between(found["interval"])),
        ("At equal length", percent(found["equal_length"]) + between(found["equal_length_interval"])),
        ("Won, tied, lost", f"{found['wins']}, {found['ties']}, {found['losses']}"),
        ("Position decided", f"{found['flips']} of {found['judged']}" if found["swapped"] else "not asked"),
        ("No readable verdict", f"{found['nonsense']} of {found['of']}"),
        ("Agrees with people", f"{agree} of {compared}" if compared else "no votes on these"),
    ]
    told = ""
    if not found["swapped"] and found["judged"]:
        told += message(
            "The answers were shown in one order only. A judge that likes the first one would look like a good model: "
            "switch the second order on.",
            "warning",
        )
    if found["judged"] and found["flips"] / found["judged"] > 0.3:
        told += message(
            f"In {found['flips'] / found['judged']:.0%} of the pairs the judge chose by the place of the answer, not by the "
            "answer. They count as ties; this judge says little.",
            "warning",
        )
    if found["nonsense"] > found["of"] / 2:
        told += message(
            "Most replies of this judge hold no verdict: it is too weak for the task, or needs another prompt. Nothing "
            "was guessed from them.",
            "warning",
        )
    length = found["length_difference"]
    said = (
        f"<p class='ar-remark'>Answers of A are {abs(length):.0f} characters {'longer' if length >= 0 else 'shorter'} in the "
        "mean. At equal length: a logistic fit of the verdicts on that difference, read at zero; AlpacaEval's own figure "
        "knows more of instructions and models. Intervals: 95 %, bootstrap.</p>"
        if length is not None
        else ""
    )
    return facts(pairs) + told + said


def verdicts(rows: Sequence[dict[str, Any]], most: int = 200) -> str:
    """Every verdict with both answers and the judge's own words, folded."""
    parts = []
    for number, row in enumerate(rows[:most], 1):
        second = row.get("second")
        told = WORDS[row["first"]] + ("" if second is None else f", other order {WORDS[second]}")
        said = f"<h5>The judge</h5><pre>{escape(row['said'])}</pre>"
        if second is not None:
            said += f"<h5>The judge, with the answers in the other order</h5><pre>{escape(row['said_swapped'])}</pre>"
        parts.append(
            f"<details class='ju'><summary><b>{number}</b> <span translate='no'>{escape(row['instruction'][:140])}</span> <i>{escape(told)}</i></summary>"
            f"<div class='ju-two'><div><h5>A</h5><pre>{escape(row['text_a'])}</pre></div>"
            f"<div><h5>B</h5><pre>{escape(row['text_b'])}</pre></div></div>{said}</details>"
        )
    more = f"<p class='ar-remark'>The first {most} of {len(rows):,}.</p>" if len(rows) > most else ""
    return "".join(parts) + more
