"""Pictures of the Arena: two answers without names, who it was, the board with its intervals, who beat whom."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ui.figures.base import escape, message, table


def pane(side: str, text: str, state: str, problem: str = "") -> str:
    """One answer, nameless. `state`: empty, writing, done."""
    told = message(problem, "error") if problem else ""
    shown = (
        f"<span translate='no'>{escape(text.lstrip())}</span>"
        if text.strip()
        else "<span class='ar-none'>Nothing yet.</span>"
    )
    return (
        f"<section class='ar-pane ar-{escape(state)}' aria-label='Answer {side}'><h4>{side}</h4>"
        f"<div class='ar-text' aria-live='off'>{shown}</div>{told}</section>"
    )


def names(a: str, b: str, sentence: str) -> str:
    """Who the two were."""
    return (
        f"<p class='ar-names'><span>A was <b translate='no'>{escape(a)}</b></span><span>B was <b translate='no'>{escape(b)}</b></span>"
        f"<span class='ar-said'>{escape(sentence)}</span></p>"
    )


def board(
    who: Sequence[str],
    points: np.ndarray,
    margins: np.ndarray,
    wins: np.ndarray,
    games: np.ndarray,
    unbounded: bool,
) -> str:
    """Everyone by rating, each with its 95 % interval as a bar on one scale."""
    if not len(who):
        return message("Nobody has been voted on yet: start a round and vote.")
    order = np.argsort(-points, kind="stable")
    played = games.sum(1) > 0
    low = float((points - np.minimum(margins, 400))[order].min())
    high = float((points + np.minimum(margins, 400))[order].max())
    width = max(high - low, 1.0)
    rows = []
    for place, i in enumerate(order, 1):
        left, right = (max(min((x - low) / width, 1), 0) * 100 for x in (points[i] - margins[i], points[i] + margins[i]))  # fmt: skip
        middle = (points[i] - low) / width * 100
        bar = (
            f"<div class='ar-bar' aria-hidden='true'><i style='left:{left:.1f}%;width:{max(right - left, 0.5):.1f}%'></i>"
            f"<b style='left:{middle:.1f}%'></b></div>"
        )
        rating = f"{points[i]:.0f}" if played[i] else "–"
        interval = f"±&#8239;{margins[i]:.0f}" if played[i] else "no votes yet"
        rows.append(
            f"<tr><td class='num'>{place}</td><td class='ar-who' translate='no'>{escape(who[i])}</td><td class='num'>{rating}</td>"
            f"<td>{interval}</td><td class='ar-cell'>{bar}</td><td class='num'>{wins[i].sum():g}</td>"
            f"<td class='num'>{games[i].sum():g}</td></tr>"
        )
    head = "".join(f"<th{' class=num' if n in (0, 2, 5, 6) else ''}>{text}</th>" for n, text in enumerate(("#", "who", "rating", "95 %", "", "wins", "rounds")))  # fmt: skip
    open_ = (
        "<p class='ar-remark'>Somebody has not lost, or not won, against the rest yet: the votes alone would put them "
        "infinitely far away, so a weak prior holds them. More rounds will say.</p>"
        if unbounded and played.any()
        else ""
    )
    return (
        f"<div class='lab-scroll' tabindex='0'><table class='lab-table ar-board'><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>{open_}"
    )


def matrix(who: Sequence[str], wins: np.ndarray, games: np.ndarray) -> str:
    """How often each row beat each column, of how many rounds; a tie is half."""
    if not games.any():
        return ""
    rows = [
        [name, *(f"{wins[i, j]:g} of {games[i, j]:g}" if games[i, j] else "–" for j in range(len(who)))]
        for i, name in enumerate(who)
    ]
    return table(("beat", *who), rows, caption="Row against column; a tie is half a win.", numeric=range(1, len(who) + 1))  # fmt: skip
