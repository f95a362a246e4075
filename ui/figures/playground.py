"""Pictures of the Playground: the next token as a table, from logit to the probability it is drawn with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ui.figures.base import escape, message, number, table

BLANKS = {" ": "␣", "\n": "⏎", "\t": "⇥", "\r": "␍", "": "(empty)"}
FILTERS = {"top_k": "top-k", "top_p": "top-p", "min_p": "min-p"}
COLUMNS = {  # column: heading, what it is
    "logit": ("logit", "the model's raw score"),
    "penalty": ("penalty", "tokens already in the text made less likely"),
    "temperature": ("temperature", "divided by the temperature"),
    "softmax": ("softmax", "softmax over the whole vocabulary"),
    "top_k": ("top-k", "the kept tokens' probabilities, summing to 1"),
    "top_p": ("top-p", "the kept tokens' probabilities, summing to 1"),
    "min_p": ("min-p", "the kept tokens' probabilities, summing to 1: what is drawn from"),
}


def visible(text: str) -> str:
    """A token's text in which no blank is invisible."""
    return "".join(BLANKS.get(c, c) for c in text) if text else BLANKS[""]


def percent(share: float) -> str:
    """A probability for reading: 0.1234 -> "12.3 %"."""
    if share >= 0.9995:
        return "100 %"
    return f"{share * 100:.1f} %" if share >= 0.001 else "< 0.1 %"


def dropped_by(row: dict[str, Any]) -> str:
    """Which step dropped a token, in words; "" when none did."""
    if row["temperature"] is None:
        return "temperature 0"
    return next((title for name, title in FILTERS.items() if row[name] is None), "")


def next_token(found: dict[str, Any], chosen: int | None, place: str) -> str:
    """The table of `llm.generate.explain` as HTML; each token is a button that goes on from it.

    `chosen` is the id that stands in the text there; `place` says in words where that is.
    """
    head = "".join(
        f"<th class='num' scope='col' title='{escape(what)}'>{order} {escape(heading)}<small>{left(found['kept'], name)}</small></th>"
        for (name, (heading, what)), order in zip(COLUMNS.items(), ("", "1", "2", "", "3", "4", "5"))
    )
    body = "".join(table_row(row, chosen) for row in found["rows"])
    note = f"<p class='pg-aside'>{escape(found['note'])}</p>" if found.get("note") else ""
    return (
        f"<p class='pg-place'>{escape(place)}</p>{note}"
        f"<div class='lab-scroll' tabindex='0'><table class='lab-table pg-table'><thead><tr><th scope='col'>go on from</th>"
        f"<th class='num' scope='col'>id</th>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def left(kept: dict[str, int], name: str) -> str:
    """How many tokens a step leaves, for its heading."""
    tokens = kept["temperature"] if name == "softmax" else kept[name]
    return "" if name in ("penalty", "softmax") else f"{tokens:,} left"


def table_row(row: dict[str, Any], chosen: int | None) -> str:
    """One token of the table."""
    cause, is_chosen = dropped_by(row), row["id"] == chosen
    cells = [
        f"<td class='num'>{'–' if row[name] is None else number(row[name])}</td>"
        for name in ("logit", "penalty", "temperature")
    ]
    for name in ("softmax", *FILTERS):
        share = row[name]
        bar = (
            f" style='--share:{share * 100:.2f}%'"
            if share is not None and name in ("softmax", "min_p")
            else ""
        )
        kind = " pg-bar" if bar else ""
        cells.append(f"<td class='num{kind}'{bar}>{'–' if share is None else percent(share)}</td>")
    marks = ("<i class='pg-mark'>chosen</i>" if is_chosen else "") + (
        "<i class='pg-mark pg-seen' title='stands in the text already, so the penalty counts'>seen</i>"
        if row["seen"]
        else ""
    )
    text = escape(visible(row["text"]))
    classes = " ".join(filter(None, ("pg-out" if cause else "", "pg-chosen" if is_chosen else "")))
    why = f" title='dropped by {escape(cause)}'" if cause else ""
    return (
        f"<tr class='{classes}' data-id='{row['id']}'{why}><th scope='row'><button type='button' class='pg-go' translate='no' "
        f"data-id='{row['id']}' aria-label='Go on from {text}'>{text}</button>{marks}</th>"
        f"<td class='num'>{row['id']}</td>{''.join(cells)}</tr>"
    )


def told_afar(top: Sequence[Sequence[Any]]) -> str:
    """The likeliest tokens as a server behind HTTP told them; it tells neither logits nor what its filters did."""
    if not top:
        return message("This server tells no probabilities: of its choices only the text is known.")
    rows = [[visible(text), f"{share:.2%}"] for text, share in top]
    return table(
        ("token", "probability"),
        rows,
        caption="As the server told it, before or after its own filters.",
        numeric=(1,),
    )
