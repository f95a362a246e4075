"""Pictures of a sweep: what it will cost, its trials as a table, parallel coordinates, all curves in one chart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from ui.figures.base import SERIES, duration, escape, message, number
from ui.figures.train import pill

CLEAR = {"paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)", "template": None}
FAINT = "rgba(127,127,127,.55)"
MOST_POINTS = 300  # of a curve


def planned(
    trials: int, rungs: Sequence[int], goes_on: Sequence[int], steps: int, seconds: float | None
) -> str:
    """What Start will do: so many runs, who goes on where, how long it takes when each is as slow as the form's."""
    way = "; ".join(f"at step {rung:,} {those(count)} on" for rung, count in zip(rungs, goes_on))
    told = f"{trials} runs, {steps:,} steps in all" + (f": {way}." if way else ".")
    if seconds is not None:
        told += f" About {duration(seconds)} of training, if each is as fast as the form's own; starting a run takes seconds more."
    return message(told)


def those(count: int) -> str:
    """Who goes on, in words."""
    return "the best goes" if count == 1 else f"the best {count} go"


def trials(rows: Sequence[dict[str, Any]], varied: Sequence[str], max_steps: int, shown: str) -> str:
    """The trials as a table, the best first; a click on a name shows that run above."""
    ordered = sorted(rows, key=lambda row: (row["rank"] or math.inf, row["name"]))
    head = "".join(
        f"<th{' class=num' if kind else ''}>{escape(name)}</th>"
        for name, kind in [("", 1), ("run", 0), *((name, 1) for name in varied), ("status", 0), ("step", 1),
                           ("validation loss", 1), ("bits per byte", 1), ("", 0)]
    )  # fmt: skip
    body = "".join(_trial(row, varied, max_steps, shown) for row in ordered)
    return f"<div class='lab-scroll' tabindex='0'><table class='lab-table'><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def _trial(row: dict[str, Any], varied: Sequence[str], max_steps: int, shown: str) -> str:
    name, best = escape(row["name"]), row["rank"] == 1
    link = (
        name
        if row["status"] == "deleted"
        else f"<button type='button' class='lab-link' data-action='show' data-name='{name}' translate='no'>{name}</button>"
    )
    cells = [
        f"<td class=num>{row['rank'] or '–'}</td>",
        f"<td class='sw-name'>{link}{' <b>best</b>' if best else ''}</td>",
    ]
    cells += [f"<td class=num>{escape(value(row['values'][knob]))}</td>" for knob in varied]
    status = "deleted" if row["status"] == "deleted" else pill(row["status"])
    cells += [f"<td>{status}</td>", f"<td class=num>{row['step']:,} / {max_steps:,}</td>"]
    cells += [f"<td class=num>{number(row[key])}</td>" for key in ("val_loss", "bits_per_byte")]
    cells.append(f"<td class='sw-note'>{escape(row['note'])}</td>")
    mark = " class='lab-chosen'" if row["name"] == shown or (best and not shown) else ""
    return f"<tr{mark}>{''.join(cells)}</tr>"


def value(of: Any) -> str:
    """A knob's value for reading."""
    return f"{of:g}" if isinstance(of, float) else str(of).lower() if isinstance(of, bool) else str(of)


def coordinates(rows: Sequence[dict[str, Any]], varied: Sequence[str], log: Sequence[str]) -> go.Figure:
    """A line for each trial through its values to its validation loss, the lower the darker. Trials without a loss are left out."""
    done = [row for row in rows if row["rank"]]
    losses = [row["val_loss"] for row in done]
    axes = [_axis(knob, [row["values"][knob] for row in done], knob in log) for knob in varied]
    axes.append({"label": "validation loss", "values": losses, "tickformat": ".3~f"})
    figure = go.Figure(
        go.Parcoords(
            dimensions=axes, labelangle=-18, labelside="top", labelfont={"size": 13}, tickfont={"size": 12},
            line={"color": losses, "colorscale": [[0, SERIES[0]], [0.5, "#56B4E9"], [1, "#D55E00"]], "showscale": False},
            unselected={"line": {"color": "rgba(127,127,127,.2)"}},
        )
    )  # fmt: skip
    figure.update_layout(**CLEAR, height=330, margin={"l": 62, "r": 62, "t": 76, "b": 24})
    return figure


def _axis(name: str, values: Sequence[Any], log: bool) -> dict[str, Any]:
    """One axis: numbers as they are or by their logarithm, words by their place in the list."""
    label = name.replace("_", " ")
    if any(isinstance(one, (str, bool)) for one in values):
        words = sorted({value(one) for one in values})
        places = [words.index(value(one)) for one in values]
        return {"label": label, "values": places, "tickvals": list(range(len(words))), "ticktext": words}
    ticks = sorted(set(values))
    if log or _wide(ticks):
        if len(ticks) > 8:  # powers of ten and three
            low, high = math.floor(math.log10(ticks[0])), math.ceil(math.log10(ticks[-1]))
            ticks = [base * 10.0**power for power in range(low, high + 1) for base in (1, 3)]
            ticks = [tick for tick in ticks if min(values) <= tick <= max(values)]
        return {
            "label": label, "values": [math.log10(one) for one in values],
            "tickvals": [math.log10(tick) for tick in ticks], "ticktext": [f"{tick:g}" for tick in ticks],
        }  # fmt: skip
    shown = {"tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]} if len(ticks) <= 8 else {}
    return {"label": label, "values": list(values), **shown}


def _wide(ticks: Sequence[float]) -> bool:
    return bool(ticks) and ticks[0] > 0 and ticks[-1] / ticks[0] >= 10


def curves(rows: Sequence[dict[str, Any]]) -> go.Figure:
    """The validation loss of every trial by step; the best one stands out."""
    figure = go.Figure()
    for row in sorted(rows, key=lambda row: -(row["rank"] or math.inf)):  # the best is drawn last, on top
        points = [(step, loss) for step, loss in row["curve"] if loss is not None]
        points = points[:: max(1, math.ceil(len(points) / MOST_POINTS))] + points[-1:]
        best = row["rank"] == 1
        said = ", ".join(f"{knob} {value(one)}" for knob, one in row["values"].items())
        figure.add_scatter(
            x=[step for step, _ in points], y=[loss for _, loss in points], name=row["name"], mode="lines+markers",
            line={"color": SERIES[0] if best else FAINT, "width": 3 if best else 1.5}, marker={"size": 6 if best else 4},
            hovertemplate=f"step %{{x:,}}: %{{y:.4f}}<extra>{escape(row['name'])}<br>{escape(said)}</extra>",
        )  # fmt: skip
    figure.update_layout(
        **CLEAR, height=300, margin={"l": 62, "r": 16, "t": 12, "b": 48}, showlegend=False,
        xaxis={"title": {"text": "step"}, "zeroline": False}, yaxis={"title": {"text": "validation loss"}, "zeroline": False},
    )  # fmt: skip
    return figure
