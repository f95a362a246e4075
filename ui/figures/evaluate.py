"""Pictures of the Evaluate tab's text room: several models on one text, each token's surprise, what was copied."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from ui.figures.base import SERIES, duration, escape, facts, message, number, table

LIMITS = (0.01, 0.05, 0.25, 0.75)  # probabilities at which the tint changes, as in the Playground
HEADER = (
    "model",
    "bits per byte",
    "perplexity",
    "loss (nats a token)",
    "tokens scored",
    "bytes",
    "windows",
    "time",
)
RULE = (
    "A token is scored once, after what its window holds before it; one with nothing before it is not scored."
)


def results(rows: Sequence[dict[str, Any]]) -> str:
    """A table of several models on one text; a model that could not be scored has its sentence below."""
    done = [row for row in rows if "loss" in row]
    cells = [
        [row["model"], number(row["bits_per_byte"]), number(row["perplexity"]), number(row["loss"]),
         f"{row['scored']:,} of {row['tokens']:,}", f"{row['bytes']:,}",
         f"{row['windows']:,} of {row['window']:,}, stride {row['stride']:,}", duration(row["seconds"])]
        for row in done
    ]  # fmt: skip
    failed = "".join(
        message(f"{row['model']}: {row['problem']}", "error") for row in rows if "problem" in row
    )
    if not done:
        return failed
    caption = "Perplexity is per token, and encodings cut differently: only bits per byte can be compared between them."
    return table(HEADER, cells, caption=caption, numeric=range(1, 6)) + failed


def chart(rows: Sequence[dict[str, Any]]) -> go.Figure:
    """Bits per byte of each model, a bar each: shorter is better."""
    done = [row for row in rows if row.get("bits_per_byte") is not None]
    figure = go.Figure(
        go.Bar(
            x=[row["bits_per_byte"] for row in done],
            y=[row["model"] for row in done],
            orientation="h",
            marker={"color": [SERIES[i % len(SERIES)] for i in range(len(done))]},
            text=[number(row["bits_per_byte"]) for row in done],
            textposition="auto",
            hovertemplate="%{y}: %{x:.4f} bits per byte<extra></extra>",
        )
    )
    figure.update_layout(
        template=None, height=90 + 38 * max(len(done), 1), margin={"l": 10, "r": 16, "t": 8, "b": 44}, showlegend=False,
        xaxis={"title": {"text": "bits per byte (lower is better)"}, "rangemode": "tozero", "zeroline": False},
        yaxis={"autorange": "reversed", "automargin": True, "type": "category"},
        paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)",
    )  # fmt: skip
    return figure


def tint(logprob: float | None) -> str:
    """The class of a token by the probability that the model gave it."""
    if logprob is None:
        return "ev-none"
    p = math.exp(logprob)
    return f"pg-p{sum(p >= limit for limit in LIMITS)}"


def surprise(model: str, drawn: Sequence[Sequence[Any]], total: int) -> str:
    """The text under one model: each token tinted by its probability, the rest of what is known in its attributes."""
    spans = []
    for text, logprob, rank, best, best_logprob in drawn:
        if logprob is None:
            told = "not scored: nothing stands before it"
        else:
            told = f"{share(logprob)}, {-logprob / math.log(2):.1f} bits, rank {rank:,}"
            if rank > 1:
                told += f"; likelier: {best!r} with {share(best_logprob)}"
        spans.append(
            f"<span class='ev-t {tint(logprob)}' title='{escape(f'{text!r}: {told}')}'>{escape(text)}</span>"
        )
    more = (
        f"<p class='ev-more'>The first {len(drawn):,} of {total:,} tokens.</p>" if total > len(drawn) else ""
    )
    legend = (
        "<div class='pg-legend'><span>Probability</span><i class='pg-p0'>below 1 %</i><i class='pg-p1'>1–5 %</i>"
        "<i class='pg-p2'>5–25 %</i><i class='pg-p3'>25–75 %</i><i class='pg-p4'>above 75 %</i></div>"
    )
    return (
        f"<div class='pg ev'>{legend}<p class='ev-told' aria-live='polite'>Point at a token, or choose one, to see what "
        f"{escape(model)} thought of it.</p><div class='ev-text' translate='no' tabindex='0'>{''.join(spans)}</div>{more}</div>"
    )


def share(logprob: float) -> str:
    """A probability in words: "31 %", "0.02 %"."""
    p = 100 * math.exp(logprob)
    return f"{p:.0f} %" if p >= 10 else f"{p:.1f} %" if p >= 0.1 else f"{p:.2g} %"


def copies(ids_texts: Sequence[str], found: dict[str, Any], dataset: str, n: int) -> str:
    """A text with the stretches that stand word for word in the training data, and a table of where."""
    spans, at = [], 0
    for number_, one in enumerate(found["found"], 1):
        spans.append(escape("".join(ids_texts[at : one["start"]])))
        inside = escape("".join(ids_texts[one["start"] : one["end"]]))
        spans.append(f"<mark class='ev-copy'>{inside}<sup>{number_}</sup></mark>")
        at = one["end"]
    spans.append(escape("".join(ids_texts[at:])))
    portion = found["copied"] / found["tokens"] if found["tokens"] else 0.0
    pairs = [
        ("Tokens of the text", f"{found['tokens']:,}"),
        ("In copied stretches", f"{found['copied']:,} ({portion:.0%})"),
        ("Longest", f"{max((o['end'] - o['start'] for o in found['found']), default=0)} tokens"),
        ("Searched", f"{found['train_tokens']:,} tokens"),
    ]
    if not found["found"]:
        told = message(f"No stretch of {n} tokens stands in the training part of {dataset}.")
        return facts(pairs) + told + f"<div class='ev-text ev-plain' translate='no'>{''.join(spans)}</div>"
    rows = [
        [
            i,
            one["end"] - one["start"],
            f"{one['times']:,}",
            place(one),
            f"…{one['before']}[{one['text']}]{one['after']}…",
        ]
        for i, one in enumerate(found["found"], 1)
    ]
    where = table(("#", "tokens", "times", "where", "in the training text"), rows, numeric=(0, 1, 2))
    return f"{facts(pairs)}<div class='ev-text ev-plain' translate='no'>{''.join(spans)}</div>{where}"


def place(one: dict[str, Any]) -> str:
    """Where a stretch stands: its document, its training window, its token."""
    parts = [f"document {one['document']:,}"] if one["document"] is not None else []
    parts += [f"window {one['window']:,}"] if one["window"] is not None and one["window"] >= 0 else []
    return ", ".join([*parts, f"token {one['at']:,}"])
