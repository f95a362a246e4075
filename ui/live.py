"""The live chart: curves of one or several runs that ask for what is new, outside the queue, and redraw only on news.

A source is "run:NAME" (a run directory) or "model:NAME" (the log a built-in model keeps of its training).
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import gradio as gr

from llm import paths
from llm.runs import Event, Run, effective, perplexity
from ui.parts import answered

POINTS = 300  # of a curve that is sent or drawn; longer ones keep the lowest and highest point of each bucket
SOURCES = 6  # curves of so many runs at most lie over one another
EXTRAS = ("accuracy", "reward_chosen", "reward_rejected", "reward_margin", "reward_accuracy")
METRICS = {  # curve: the kind of event that it stands in, the field there
    "loss": ("step", "loss"),
    "val_loss": ("evaluate", "val_loss"),
    "bits_per_byte": ("evaluate", "bits_per_byte"),
    **{name: ("step", name) for name in EXTRAS},
    **{f"val_{name}": ("evaluate", name) for name in EXTRAS},
    "old_loss": ("evaluate", "old_loss"),
    "learning_rate": ("step", "learning_rate"),
    "grad_norm": ("step", "grad_norm"),
    "tokens_per_second": ("step", "tokens_per_second"),
}
COLUMNS = (
    "loss", "val_loss", "perplexity", "bits_per_byte", *EXTRAS, *(f"val_{name}" for name in EXTRAS), "old_loss",
    "best", "learning_rate", "grad_norm", "tokens_per_second", "seconds",
)  # fmt: skip
SCRIPT = Path(__file__).parent / "js" / "live.js"


def log_of(source: str) -> Run:
    """The log behind a source, read like a run's. Raises ValueError when there is none of that name."""
    kind, _, name = str(source).partition(":")
    if kind == "run":
        return Run.open(name)
    if kind == "model":
        folder = paths.find(name, paths.models(), paths.shipped_models(), what="model")
        if (folder / "events.jsonl").is_file():
            return Run(folder)
    raise ValueError(f"There is no training log called {str(source)[:80]!r}.")


def curves(events: Iterable[Event]) -> dict[str, list[list[float]]]:
    """metric -> [steps, values], without the values that are not finite (those are null in the log)."""
    found: dict[str, list[list[float]]] = {name: [[], []] for name in METRICS}
    for event in events:
        for name, (kind, field) in METRICS.items():
            if event["kind"] == kind and event.get(field) is not None:
                found[name][0].append(event["step"])
                found[name][1].append(event[field])
    return found


def marks(events: Iterable[Event]) -> dict[str, Any]:
    """What else the chart is told, where the events say it.

    "per_token": whether exp(loss) is a perplexity; "best": step and validation loss of the best evaluation so far;
    "early": the step at which patience ended the run.
    """
    found: dict[str, Any] = {}
    for event in events:
        if event["kind"] == "start":
            found["per_token"] = per_token(event)
        if event["kind"] == "evaluate" and event.get("best") and event.get("val_loss") is not None:
            found["best"] = [event["step"], event["val_loss"]]
        if event["kind"] == "end" and "Stopped early" in (event.get("message") or ""):
            found["early"] = event["step"]
    return found


def per_token(start: Event) -> bool:
    """Whether the loss of a run is one a token, told by its "start" event: that of classes and preferences is none."""
    return (start.get("objective") or "pretrain") in ("pretrain", "instruct")


def thinned(x: list[float], y: list[float], most: int = POINTS) -> list[list[float]]:
    """At most `most` points that keep each bucket's lowest and highest one, and the first and last of all."""
    if len(x) <= most:
        return [x, y]
    buckets = (most - 2) // 2
    inner = range(1, len(x) - 1)
    kept = {0, len(x) - 1}
    for b in range(buckets):
        part = inner[b * len(inner) // buckets : (b + 1) * len(inner) // buckets]
        kept |= {min(part, key=y.__getitem__), max(part, key=y.__getitem__)}
    order = sorted(kept)
    return [[x[i] for i in order], [y[i] for i in order]]


def news(source: str, offset: int) -> dict[str, Any]:
    """What the chart does not have yet: the points after byte `offset` of the log, and how the run stands.

    "fresh" means: forget what you have (the first answer, and after a resume took steps back).
    """
    run = log_of(source)
    status = "finished" if source.startswith("model:") else run.status()
    events, end = run.read(offset) if offset else ([], 0)
    if not offset or any(event["kind"] == "resume" for event in events):
        log = (run.path / "events.jsonl").stat()
        return {**whole(run, log.st_size, log.st_mtime_ns), "status": status}
    lines = {name: value for name, value in curves(events).items() if value[0]}
    return {"offset": end, "fresh": False, "curves": lines, **marks(events), "status": status}


@lru_cache(maxsize=64)
def whole(run: Run, size: int, modified: int) -> dict[str, Any]:
    """The news of one who has nothing yet. A log that has not grown is read once: a class opens the same one all at once."""
    events, end = run.read(0)
    events = effective(events)
    lines = {name: thinned(x, y) for name, (x, y) in curves(events).items()}
    return {"offset": end, "fresh": True, "curves": {k: v for k, v in lines.items() if v[0]}, **marks(events)}


def poll(wanted: dict[str, int]) -> dict[str, Any]:
    """For each source its `news` since the byte offset the page has; a source that has gone says so."""
    answers: dict[str, Any] = {}
    for source, offset in list(wanted.items())[:SOURCES]:
        try:
            answers[source] = news(source, max(int(offset), 0))
        except (ValueError, TypeError, OSError):
            answers[source] = {"gone": True}
    return answers


def table(sources: list[str]) -> str:
    """Every step and evaluation of the sources as CSV; a value that was not taken is empty, infinity is "inf"."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["run", "step", *COLUMNS])
    for source in list(sources)[:SOURCES]:
        rows: dict[int, dict[str, Any]] = {}
        events = log_of(source).events()
        speaks = all(per_token(event) for event in events if event["kind"] == "start")
        for event in events:
            if event["kind"] not in ("step", "evaluate"):
                continue
            row = rows.setdefault(event["step"], {})
            looks = event["kind"] == "evaluate"
            row.update(
                {
                    f"val_{name}" if looks and name in EXTRAS else name: value
                    for name, value in event.items()
                    if value is not None and not isinstance(value, dict) and name != "perplexity"
                }
            )
            if looks and speaks and event.get("val_loss") is not None:
                row["perplexity"] = perplexity(event["val_loss"])
        for step, row in sorted(rows.items()):
            cells = [row.get(name, "") for name in COLUMNS]
            cells = ["inf" if isinstance(c, float) and math.isinf(c) else c for c in cells]
            writer.writerow([source.partition(":")[2], step, *cells])
    return out.getvalue()


def live_chart(
    elem_id: str,
    visible_to: Callable[[str, gr.Request], bool],
    panels: tuple[str, ...] = ("loss", "perplexity"),
) -> gr.HTML:
    """The chart as a component; its value is `value_of(sources)`. `visible_to(source, request)` guards every answer.

    `panels` are open at first, of those in js/live.js; one without values is not shown.
    """

    @answered
    def lab_poll(wanted: dict, request: gr.Request) -> dict:
        known = {str(s): n for s, n in dict(wanted).items() if visible_to(str(s), request)}
        return poll(known)

    @answered
    def lab_csv(sources: list, request: gr.Request) -> dict:
        try:
            return {"csv": table([str(s) for s in sources if visible_to(str(s), request)])}
        except (ValueError, OSError) as error:
            return {"error": str(error)}

    chart = gr.HTML(
        value=value_of([]),
        html_template="<div class='lab-live'></div>",
        js_on_load=SCRIPT.read_text(encoding="utf-8").replace('"PANELS"', json.dumps(panels)),
        server_functions=[lab_poll, lab_csv],
        apply_default_css=False,
        padding=False,
        elem_id=elem_id,
    )
    # An empty figure makes Gradio load its plotly.js, which the chart then uses as window.Plotly.
    empty = gr.components.plot.PlotData(type="plotly", plot='{"data": [], "layout": {}}')
    gr.Plot(empty, show_label=False, elem_classes="lab-hidden")
    return chart


def value_of(sources: Iterable[str]) -> str:
    """The chart's value for these sources."""
    return json.dumps([s for s in dict.fromkeys(sources) if s][:SOURCES])
