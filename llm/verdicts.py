"""From what a judge said to numbers: verdicts in both orders, win rate with its interval, the same at equal length."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

DRAWS = 2000  # of the bootstrap
RIDGE = 1e-3  # holds the fit where length alone tells all verdicts apart
SAID = {"a": "a", "b": "b", "tie": "tie", "c": "tie"}


def read(text: str) -> str:
    """What a judge decided: a, b or tie; "" when it said nothing that can be taken for a verdict. Never a guess.

    [[A]], [[B]], [[tie]] or [[C]] anywhere, as long as it is one and the same; else the whole reply is such a word.
    """
    marked = {found.lower() for found in re.findall(r"\[\[\s*(A|B|C|tie)\s*\]\]", text, re.IGNORECASE)}
    if marked:
        return SAID[marked.pop()] if len(marked) == 1 else ""
    bare = re.sub(r"^(?:answer|verdict)\s*:?\s*", "", text.strip().strip("\"'*.()[] ").lower())
    return SAID.get(bare, "") if bare != "c" else ""


def turned(verdict: str) -> str:
    """A verdict on the two answers in the other order, as one on the first order."""
    return {"a": "b", "b": "a"}.get(verdict, verdict)


def outcome(first: str, second: str | None) -> tuple[float | None, bool]:
    """(score of a: 1, 0.5 or 0, None without a verdict; whether the position decided).

    `second` is the verdict in the other order, turned back already; None where nobody asked. Two that disagree are a tie.
    """
    if not first or second == "":
        return None, False
    score = {"a": 1.0, "b": 0.0, "tie": 0.5}
    if second is None:
        return score[first], False
    return (score[first] if first == second else 0.5), {first, second} == {"a", "b"}


def interval(
    scores: np.ndarray, statistic: Callable[..., float], seed: int, *others: np.ndarray
) -> tuple[float, float]:
    """The middle 95 % of a statistic over samples drawn from the rows with replacement (the bootstrap's percentiles)."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(DRAWS):
        rows = random.integers(0, len(scores), len(scores))
        found.append(statistic(scores[rows], *(other[rows] for other in others)))
    low, high = np.percentile(found, [2.5, 97.5])
    return float(low), float(high)


def at_equal_length(scores: np.ndarray, lengths: np.ndarray) -> float:
    """The win rate of a were its answers as long as b's: 1 / (1 + exp(-t)) of the fit score ~ t + w * difference.

    scores (N,) in 0 to 1; lengths (N,): characters of a's answer less those of b's, divided by their spread before the
    fit. A logistic regression by Newton's method with a weak ridge on w. Not AlpacaEval's own figure, whose fit knows
    more of the instructions and models.
    """
    spread = np.sqrt((lengths.astype(float) ** 2).mean())
    X = np.stack([np.ones(len(scores)), lengths / spread if spread else np.zeros(len(scores))], 1)
    w, pull = np.zeros(2), np.diag([RIDGE, RIDGE])
    for _ in range(100):
        p = 1 / (1 + np.exp(-np.clip(X @ w, -30, 30)))
        step = np.linalg.solve((X * (p * (1 - p))[:, None]).T @ X + pull, X.T @ (scores - p) - pull @ w)
        w = w + np.clip(step, -5, 5)
        if np.abs(step).max() < 1e-9:
            break
    return float(1 / (1 + np.exp(-w[0])))


@lru_cache(maxsize=64)
def intervals(
    scores: tuple[float, ...], lengths: tuple[int, ...], seed: int
) -> tuple[tuple[float, float], tuple[float, float]]:
    """The 95 % intervals of the win rate and of that at equal length; kept, for a page asks again each second."""
    s, difference = np.array(scores), np.array(lengths)
    plain = interval(s, lambda drawn: float(drawn.mean()), seed)
    return plain, interval(s, at_equal_length, seed, difference)


def summary(rows: Sequence[dict[str, Any]], seed: int = 0) -> dict[str, Any]:
    """Verdicts (events with first, second, text_a, text_b) counted. Rates are None where nothing was judged."""
    judged = [(outcome(row["first"], row.get("second")), row) for row in rows]
    counted = [(score, flipped, row) for (score, flipped), row in judged if score is not None]
    found: dict[str, Any] = {"of": len(rows), "judged": len(counted), "nonsense": len(rows) - len(counted)}
    scores = np.array([score for score, _, _ in counted])
    lengths = np.array([len(row["text_a"]) - len(row["text_b"]) for _, _, row in counted])
    found |= {
        "wins": int((scores == 1).sum()),
        "losses": int((scores == 0).sum()),
        "ties": int((scores == 0.5).sum()),
        "flips": sum(flipped for _, flipped, _ in counted),
        "swapped": any(row.get("second") is not None for row in rows),
    }
    if not counted:
        return found | dict(win_rate=None, interval=None, equal_length=None, equal_length_interval=None, length_difference=None)  # fmt: skip
    plain, equal = intervals(tuple(scores.tolist()), tuple(lengths.tolist()), seed)
    return found | {
        "win_rate": float(scores.mean()),
        "interval": plain,
        "equal_length": at_equal_length(scores, lengths),
        "equal_length_interval": equal,
        "length_difference": float(lengths.mean()),
    }


def agreement(rows: Sequence[dict[str, Any]], a: str, b: str, votes: Sequence[Any]) -> tuple[int, int]:
    """(verdicts that agree, verdicts compared) with people's votes on the same prompt and the same two.

    `votes` are rounds of the arena; several on one prompt count by their majority, and no majority compares nothing.
    """
    people: dict[str, float] = {}
    for one in votes:
        if {one.a, one.b} != {a, b} or one.choice not in ("a", "b", "tie"):
            continue
        sign = {"a": 1.0, "b": -1.0, "tie": 0.0}[one.choice] * (1 if one.a == a else -1)
        people[one.prompt.strip()] = people.get(one.prompt.strip(), 0.0) + sign
    agree = compared = 0
    for row in rows:
        score, _ = outcome(row["first"], row.get("second"))
        said = people.get(row["instruction"].strip())
        if score is None or not said:
            continue
        compared += 1
        agree += (score - 0.5) * said > 0
    return agree, compared
