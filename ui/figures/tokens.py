"""Pictures of the Tokens tab: bytes made visible, merges step by step, progress of learning an encoding, the duel."""

from __future__ import annotations

import csv
import io
import unicodedata
import urllib.parse
from collections.abc import Sequence

import plotly.graph_objects as go

from ui.figures.base import MARKERS, SERIES, duration, escape, facts, message, number, table

BLANKS = {" ": "·", "\n": "⏎", "\t": "⇥", "\r": "␍", "\u00a0": "⍽"}
SHAPES = [*MARKERS, "triangle-down", "cross", "star"]  # 7 shapes and 4 colours: 28 different marks


def runs_of(data: bytes) -> list[tuple[str, bytes]]:
    """The bytes cut into what is UTF-8 ("text") and what is a part of a character only ("bytes")."""
    runs: list[tuple[str, bytes]] = []
    while data:
        try:
            data.decode("utf-8")
            runs.append(("text", data))
            break
        except UnicodeDecodeError as error:
            if error.start:
                runs.append(("text", data[: error.start]))
            runs.append(("bytes", data[error.start : error.end]))
            data = data[error.end :]
    return runs


def visible(data: bytes) -> str:
    """Bytes as HTML in which nothing is invisible: signs for blanks, code points for what has no shape, hex for parts
    of characters."""
    return "".join(
        _text(run.decode("utf-8")) if kind == "text" else f"<i class='tk-hex'>{run.hex(' ')}</i>"
        for kind, run in runs_of(data)
    )


def _text(text: str) -> str:
    """Text as HTML, each character that one could not see replaced by a sign."""
    parts = []
    for i, character in enumerate(text):
        category = unicodedata.category(character)
        if character in BLANKS:
            parts.append(f"<i class='tk-blank'>{BLANKS[character]}</i>")
        elif category[0] in "CZ" or character == "\ufffd":  # control, format, unassigned, other blanks
            parts.append(f"<i class='tk-code'>U+{ord(character):04X}</i>")
        elif category[0] == "M" and i == 0:
            parts.append("◌" + escape(character))  # a mark with nothing under it
        else:
            parts.append(escape(character))
    return "".join(parts)


def merge_ladder(pieces: Sequence[tuple[str, Sequence[dict], Sequence[int]]]) -> str:
    """The merges of each piece of a word, a row a step.

    A piece is (its text, steps, ids of its tokens); a step has `before` and `after` (parts), `at` (index of the pair
    in `before`) and `rank` (priority of the merge, lower is earlier).
    """
    return "".join(_ladder(*piece) for piece in pieces)


def _ladder(text: str, steps: Sequence[dict], ids: Sequence[int]) -> str:
    start = (
        steps[0]["before"]
        if steps
        else tuple(text.encode("utf-8")[i : i + 1] for i in range(len(text.encode("utf-8"))))
    )
    rows = [_rung("bytes", "", start, -1)]
    for i, step in enumerate(steps):
        rows.append(_rung(f"{i + 1}", f"rank {step['rank']:,}", step["after"], step["at"]))
    parts = steps[-1]["after"] if steps else start
    ends = (
        ""
        if len(parts) == len(ids)
        else f"<p class='tk-whole'>The whole piece is itself a token: {escape(ids[0])}.</p>"
    )
    what = f"{len(steps)} merges" if len(steps) != 1 else "1 merge"
    title = f"<b>{visible(text.encode('utf-8'))}</b> <span>{what}, tokens {escape(', '.join(map(str, ids)))}</span>"
    return f"<section class='tk-ladder'><h4>{title}</h4><ol>{''.join(rows)}</ol>{ends}</section>"


def _rung(name: str, rank: str, parts: Sequence[bytes], merged: int) -> str:
    cells = "".join(
        f"<span class='tk-part{' tk-new' if i == merged else ''}'>{visible(part)}</span>"
        for i, part in enumerate(parts)
    )
    return f"<li><span class='tk-step'>{escape(name)}</span><span class='tk-rank'>{escape(rank)}</span><span class='tk-parts' translate='no'>{cells}</span></li>"


def progress(status: str, events: Sequence[dict], stages: dict[str, str], place: int | None = None) -> str:
    """How a run that learns an encoding stands: its stages with their shares, then what came of it."""
    last = events[-1] if events else {}
    if status == "waiting":
        return message(f"Waiting for its turn: {place or 0} before it." if place else "Starts in a moment.")
    shares = {
        event["stage"]: (event["done"], event["total"]) for event in events if event["kind"] == "progress"
    }
    result = next((event for event in events if event["kind"] == "result"), None)
    bars = "".join(_bar(label, *shares.get(stage, (0, 0))) for stage, label in stages.items())
    parts = [f"<div class='tk-bars'>{bars}</div>"]
    if result:
        seconds = last["time"] - events[0]["time"]
        pairs = [
            ("Ids", number(result["vocab_size"])),
            ("Bytes per token", number(result["bytes_per_token"], 3)),
            ("Took", f"{seconds:.1f} s" if seconds < 60 else duration(seconds)),
        ]
        parts.append(facts(pairs))
    if last.get("kind") == "end":
        parts.append(message(last["message"], "note" if last["reason"] == "finished" else "warning"))
    elif status == "crashed":
        parts.append(message("The process that learnt it is gone: start it again.", "warning"))
    merges = next((event["first"] for event in events if event["kind"] == "merges"), None)
    return "".join(parts) + (first_merges(merges) if merges else "")


def _bar(label: str, done: int, total: int) -> str:
    share = 100 * done / total if total else 0
    told = f"{done:,} of {total:,}" if total else "–"
    return (
        f"<div><span>{escape(label)}</span><span class='num'>{told}</span>"
        f"<div role='progressbar' aria-label='{escape(label)}' aria-valuenow='{share:.0f}' aria-valuemin='0' "
        f"aria-valuemax='100'><i style='width:{share:.1f}%'></i></div></div>"
    )


def first_merges(pairs: Sequence[Sequence[str]], title: str = "The first merges") -> str:
    """The first merges of an encoding, each as left + right = token; `pairs` are the two parts in hex."""
    cells = "".join(
        f"<li><span class='tk-part'>{visible(bytes.fromhex(left))}</span><span class='tk-part'>"
        f"{visible(bytes.fromhex(right))}</span><b>→</b><span class='tk-part tk-new'>"
        f"{visible(bytes.fromhex(left + right))}</span></li>"
        for left, right in pairs
    )
    return f"<h4 class='tk-title'>{escape(title)}</h4><ol class='tk-first' translate='no'>{cells}</ol>"


MEASURES = {
    # measure: title of the axis, its value from (bytes, tokens, tokens of the same encoding for the first text)
    "bytes per token": (
        "bytes per token (more is better)",
        lambda b, t, first: b / t,
    ),
    "tokens against English": (
        "tokens, as a multiple of English (fewer is better)",
        lambda b, t, first: t / first,
    ),
}


def duel(
    names: Sequence[str], counts: dict[str, Sequence[int]], sizes: Sequence[int], measure: str
) -> go.Figure:
    """All encodings on all texts: a row a text, a mark an encoding.

    `counts[encoding]` and `sizes` hold the tokens and the UTF-8 bytes of each text in `names`.
    """
    title, value = MEASURES[measure]
    figure = go.Figure()
    for i, (encoding, tokens) in enumerate(counts.items()):
        color, marker = SERIES[i % len(SERIES)], SHAPES[i % len(SHAPES)]
        values = [value(size, n, tokens[0]) if n else None for size, n in zip(sizes, tokens)]
        told = [f"{encoding}: {n:,} tokens for {size:,} bytes" if n else "" for size, n in zip(sizes, tokens)]
        figure.add_scatter(
            x=values, y=list(names), name=encoding, mode="markers", text=told,
            marker={"color": color, "symbol": marker, "size": 11, "line": {"width": 1, "color": "rgba(127,127,127,.6)"}},
            hovertemplate="%{y}<br>%{text}<br>%{x:.3g}<extra></extra>",
        )  # fmt: skip
    figure.update_layout(
        template=None,
        height=120 + 27 * len(names),
        margin={"l": 10, "r": 16, "t": 8, "b": 56},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "xanchor": "left"},
        xaxis={"title": {"text": title}, "rangemode": "tozero", "zeroline": False},
        yaxis={"autorange": "reversed", "automargin": True, "type": "category"},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        hoverlabel={"align": "left"},
    )
    return figure


def duel_table(
    names: Sequence[str], counts: dict[str, Sequence[int]], sizes: Sequence[int], measure: str
) -> str:
    """The numbers behind the chart: a row a text, a column an encoding."""
    value = MEASURES[measure][1]
    rows = [
        [name, f"{size:,}", *(number(value(size, n[i], n[0]), 3) if n[i] else "–" for n in counts.values())]
        for i, (name, size) in enumerate(zip(names, sizes))
    ]
    header = ["text", "bytes", *counts]
    caption = measure.capitalize() + "; a dash: a character is missing."
    link = csv_link(header, [[*row[:1], row[1].replace(",", ""), *row[2:]] for row in rows], "encodings.csv")
    return table(header, rows, caption=caption, numeric=range(1, len(header))) + link


def csv_link(header: Sequence[str], rows: Sequence[Sequence[str]], name: str) -> str:
    """A link that saves a small table as CSV; the data stands in the link itself."""
    text = io.StringIO()
    csv.writer(text).writerows([header, *rows])
    data = urllib.parse.quote(text.getvalue())
    return f"<a class='tk-save' download='{escape(name)}' href='data:text/csv;charset=utf-8,%EF%BB%BF{data}'>Save CSV</a>"
