"""Pictures of rows for fine-tuning: what is usable, the split, lengths against the context, a row by role, a batch with its masks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ui.figures.base import escape, facts, message, number, table
from ui.figures.windows import SIGNS

IGNORED = -100
BINS = 24
COLUMNS = 160  # places of a batch that are drawn
LISTED = 30  # rows of a list that are drawn
ROLES = {  # whose a token is: what the legend says
    "template": "the prompt style's",
    "system": "system",
    "user": "user",
    "assistant": "answer",
    "end": "end of the answer",
    "read": "what the head reads",
}
TALK = ("template", "system", "user", "assistant", "end")


def _rows(n: int) -> str:
    return f"{number(n)} row{'' if n == 1 else 's'}"


def _tokens(n: int) -> str:
    return f"{number(n)} token{'' if n == 1 else 's'}"


def signs(text: str) -> str:
    """A token's text, escaped, blanks and line ends as pale signs."""
    text = "".join(c if c.isprintable() or c in SIGNS else f"U+{ord(c):04X}" for c in text)
    text = escape(text) or "∅"
    for character, sign in SIGNS.items():
        text = text.replace(character, f"<i>{sign}</i>")
    return text


# ---- A table of rows ---------------------------------------------------------------------------------------------


def summary(title: str, form: str, kind: str, good: int, rejected: int, columns: Mapping[str, str]) -> str:
    """What was read: how many rows can be used, of which kind, and which column is what."""
    cards = facts([("rows to learn from", number(good)), ("left out", number(rejected)), ("read as", form)])
    used = ", ".join(
        field if field == column else f"{field} from {column}" for field, column in columns.items()
    )
    return f"<p class='ft-title'><b>{escape(title)}</b> {escape(kind)}</p>{cards}<p class='ft-said'>Columns: {escape(used)}.</p>"


def said(notes: Sequence[str], problems: Sequence[str]) -> str:
    """What makes training impossible, then what one should know."""
    items = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return "".join(message(problem, "error") for problem in problems) + (
        f"<ul class='ft-notes'>{items}</ul>" if items else ""
    )


def rejected(found: Sequence[tuple[int, str]]) -> str:
    """The rows left out, each with the reason."""
    if not found:
        return "<p class='ft-said'>No row was left out.</p>"
    more = f" The first {LISTED} are listed; the file has all." if len(found) > LISTED else ""
    return table(
        ("Row", "Why it is left out"),
        [(number(row), reason) for row, reason in found[:LISTED]],
        caption=f"{_rows(len(found))} left out.{more}",
        numeric=[0],
    )


def repeats(
    exact: Sequence[tuple[int, int]],
    near: Sequence[tuple[int, int, float]],
    contradictions: Sequence[tuple[int, int]],
    compared: int,
    total: int,
) -> str:
    """Duplicates, near duplicates and contradictions: counted, the first of each named."""
    cards = facts(
        [
            ("said before", number(len(exact))),
            ("nearly said before", number(len(near))),
            ("same question, other answer", number(len(contradictions))),
        ]
    )
    lines = [
        *((number(a), number(b), "the same but for case and blanks") for a, b in exact[:10]),
        *((number(a), number(b), f"{shared:.0%} of their pieces in common") for a, b, shared in near[:10]),
        *((number(a), number(b), "same question, another answer") for a, b in contradictions[:10]),
    ]
    left = (
        f"<p class='ft-said'>Near ones were looked for among the first {number(compared)} rows.</p>"
        if compared < total
        else ""
    )
    listed = table(("Row", "Like row", "How"), lines, numeric=[0, 1]) if lines else ""
    return cards + left + listed


def split(parts: Mapping[str, int], leaks: Mapping[str, int]) -> str:
    """The parts as a bar, each with its rows; rows that stand in the training part too are counted."""
    total = max(sum(parts.values()), 1)
    shown = {name: n for name, n in parts.items() if n or name in ("train", "validation", "test")}
    bar = "".join(
        f"<i class='ft-part-{min(place, 4)}' style='flex:{n}'></i>"
        for place, n in enumerate(shown.values())
        if n
    )
    items = "".join(
        f"<li><i class='ft-part-{min(place, 4)}'></i><b>{escape(name)}</b> {_rows(n)} ({n / total:.0%})"
        + (f", <em>{number(leaks[name])} of them also in train</em>" if leaks.get(name) else "")
        + "</li>"
        for place, (name, n) in enumerate(shown.items())
    )
    clean = "" if any(leaks.values()) else "<p class='ft-said'>No held-out row stands in train too.</p>"
    return f"<div class='ft-split'><div class='ft-bar'>{bar}</div><ul>{items}</ul>{clean}</div>"


def lengths(found: Sequence[int], most: int, context: int) -> str:
    """How many rows have how many tokens, as columns, with the most tokens that are read of one."""
    if not found:
        return message("No row can be written for this model.", "warning")
    top = max(*found, most)
    width = max(1, math.ceil(top / BINS))
    bins = [0] * (top // width + 1)
    for n in found:
        bins[n // width] += 1
    highest = max(bins)
    over = sum(n > most for n in found)
    columns = "".join(
        f"<i class='{'ft-over' if place * width > most else ''}' style='height:{100 * n / highest:.1f}%' "
        f"title='{place * width}–{place * width + width - 1} tokens: {_rows(n)}'></i>"
        for place, n in enumerate(bins)
    )
    middle = sorted(found)[len(found) // 2]
    limit = f"the context of {number(context)}" if most == context else f"the limit of {number(most)}"
    sentence = (
        f"Half of the rows have up to {_tokens(middle)}, the longest {number(max(found))}. "
        f"{_rows(over) if over else 'None'} {'is' if over <= 1 else 'are'} longer than {limit}"
        f"{': the end is cut off.' if over else '.'}"
    )
    at = 100 * (most + 1) / (len(bins) * width)
    return (
        f"<div class='ft-lengths' role='img' aria-label='{escape(sentence)}'><div class='ft-columns'>{columns}"
        f"<span class='ft-limit' style='left:{min(at, 100):.2f}%'></span></div><div class='ft-axis'><span>0</span>"
        f"<span>{number(len(bins) * width)} tokens</span></div></div><p class='ft-said'>{escape(sentence)}</p>"
    )


# ---- One row -----------------------------------------------------------------------------------------------------


def legend(roles: Sequence[str] = TALK) -> str:
    """What the colours of a row mean."""
    items = "".join(f"<span class='ft-{role}'>{escape(ROLES[role])}</span>" for role in roles)
    learned = "<span class='ft-learned'>underlined: learnt</span>" if "assistant" in roles else ""
    return f"<p class='ft-legend'>{items}{learned}</p>"


def written(title: str, tokens: Sequence[tuple[str, str, bool]], cut_after: int | None = None) -> str:
    """A text token by token: coloured by whose it is, underlined where it is learned, struck out where it is cut off."""
    spans = []
    for place, (text, role, learned) in enumerate(tokens):
        gone = cut_after is not None and place >= cut_after
        kind = f"ft-{role if role in ROLES else 'template'}{' ft-learned' if learned else ''}{' ft-gone' if gone else ''}"
        line_end = "<br>" if text.endswith("\n") else ""
        spans.append(f"<span class='{kind}'>{signs(text)}</span>{line_end}")
    learned = sum(
        learned
        for place, (_, _, learned) in enumerate(tokens)
        if place and (cut_after is None or place < cut_after)
    )
    cut = (
        f" The last {number(len(tokens) - cut_after)} do not fit and are cut off."
        if cut_after is not None and cut_after < len(tokens)
        else ""
    )
    answers = any(role == "assistant" for _, role, _ in tokens)
    said = f"{_tokens(len(tokens))}{f', {number(learned)} of them learnt' if answers else ''}.{cut}"
    return f"<div class='ft-row'><p class='ft-title'><b>{escape(title)}</b> {escape(said)}</p><div class='ft-text' translate='no'>{''.join(spans)}</div></div>"


# ---- A batch -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """One text of a batch: inputs and, but in classification, targets; everything as long as the batch is wide."""

    title: str
    inputs: Sequence[int]
    targets: Sequence[int]  # (T,), IGNORED where nothing is learned; () when there are none
    n_real: int  # inputs before it is filled up
    asked: str = ""  # what its last token is to tell, in classification
    begins: Sequence[int] = ()  # where rows begin that lie end to end


def _cell(id: int, texts: Mapping[int, str], kind: str) -> str:
    if id == IGNORED:
        return f"<td class='ft-masked {kind}'>{IGNORED}</td>"
    return f"<td class='{kind}' translate='no'><b>{signs(texts[id])}</b><small>{id}</small></td>"


def batch(
    lines: Sequence[Line],
    texts: Mapping[int, str],
    n_rows: int,
    said: str,
    end_id: int | None,
) -> str:
    """A batch as it is trained on: of each row the ids, and under each what the model is asked for there.

    `texts` gives the text of each id; `end_id` is the end-of-text.
    """
    width = max(len(line.inputs) for line in lines)
    drawn = min(width, COLUMNS)
    blocks = []
    for line in lines:
        inputs = "".join(
            _cell(
                int(id),
                texts,
                ("ft-pad" if place >= line.n_real else "")
                + (" ft-read" if line.asked and place == line.n_real - 1 else "")
                + (" ft-begin" if place in line.begins else ""),
            )
            for place, id in enumerate(line.inputs[:drawn])
        )
        targets = "".join(
            _cell(int(id), texts, ("ft-pad" if place >= line.n_real else "") + (" ft-end" if id == end_id else ""))
            for place, id in enumerate(line.targets[:drawn])
        )  # fmt: skip
        below = f"<tr class='y'><th>target</th>{targets}</tr>" if len(line.targets) else ""
        asked = f"<p class='ft-said'>{escape(line.asked)}</p>" if line.asked else ""
        blocks.append(
            f"<p class='ft-title'><b>{escape(line.title)}</b></p><div class='lab-scroll' tabindex='0'><table class='ft-batch'>"
            f"<tr class='x'><th>input</th>{inputs}</tr>{below}</table></div>{asked}"
        )
    more = (
        f" The first {number(drawn)} of {number(width)} places are drawn." if drawn < width else ""
    ) + f" {number(len(lines))} of the {number(n_rows)} lines of the batch are drawn." * (n_rows > len(lines))
    return f"<p class='ft-said'>{escape(said + more)}</p>{''.join(blocks)}"


def truncated(
    found: Sequence[tuple[int, int, int]], n_cut: int, most: int, dropped: Sequence[tuple[int, str]]
) -> str:
    """What the limit did: rows cut, from how many tokens to how many, and rows of which no answer was left."""
    if not n_cut and not dropped:
        return f"<p class='ft-said'>No row is longer than {number(most)} tokens: nothing is cut.</p>"
    shown = [
        (number(row), number(before), number(after), "cut at its end")
        for row, before, after in found[:LISTED]
    ]
    shown += [(number(row), "", "", reason) for row, reason in dropped[:LISTED]]
    return table(
        ("Row", "Tokens", "Kept", "What happened"),
        shown,
        caption=f"{_rows(n_cut)} cut, {_rows(len(dropped))} left out as no part of an answer fits.",
        numeric=[0, 1, 2],
    )
