"""Watch a run: how it stands, what it writes, one position of its loss worked out; stop it, resume it, find it again."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from llm import commands, dispatch, paths
from llm.runs import ENDED, Event, Run, all_runs, effective, perplexity
from ui.figures import train as figures
from ui.figures.base import duration, number
from ui.live import log_of
from ui.parts import answered

TAIL = 2**16  # bytes at the end of a log that tell how fast it goes
FIRST = 2**20  # bytes at the end of a log that the first look reads
SAMPLES = 12  # evaluations whose samples are shown
SCRIPT = Path(__file__).parent / "js" / "monitor.js"
FURTHER = {  # what an evaluation may say too: its title on a card
    "accuracy": "Accuracy, held out",
    "reward_margin": "Margin, held out",
    "reward_accuracy": "Right order, held out",
    "old_loss": "Loss on the old text",
}


def tail(run: Run, length: int = TAIL) -> list[Event]:
    """The events in the last `length` bytes of a log, without those that a resume took back."""
    size = (run.path / "events.jsonl").stat().st_size
    return effective(run.read(max(0, size - length))[0])


def status_of(source: str, run: Run) -> str:
    """The status of a run; the log of a built-in model is finished."""
    return "finished" if source.startswith("model:") else run.status()


def newest(events: list[Event], kind: str) -> Event | None:
    """The last event of this kind."""
    return next((event for event in reversed(events) if event["kind"] == kind), None)


def seconds_a_step(events: list[Event]) -> float | None:
    """Wall time of a step, evaluations included, since the process last began; None before the second step."""
    begun = max((i for i, e in enumerate(events) if e["kind"] in ("start", "resume")), default=0)
    steps = [e for e in events[begun:] if e["kind"] == "step"]
    if len(steps) < 2:
        return None
    return (steps[-1]["time"] - steps[0]["time"]) / (steps[-1]["step"] - steps[0]["step"])


def sentence(source: str, run: Run, status: str, events: list[Event], step: int, max_steps: int) -> str:
    """What a person wants to know now: place in the queue, time left, or why it ended."""
    if source.startswith("model:"):
        return "A built-in model of this lab: the log of its own training."
    if status == "waiting":
        try:
            place, wait = dispatch.outlook(run)
        except ValueError:  # it has just started
            return "It starts now."
        if trouble := dispatch.trouble():
            return trouble
        if dispatch.paused():
            return "The queue is held back: it goes on when the teacher lets it."
        running = sum(other.status() == "running" for other in all_runs())
        before = f"{place} waiting before it" if place else "it is the next one"
        most = (
            "as many as the cluster has room for"
            if dispatch.where() == "ray"
            else f"{commands.slots()} at a time on this machine"
        )
        when = (
            ""
            if wait is None
            else f" It begins in about {duration(wait)}."
            if wait >= 1
            else " It begins next."
        )
        return f"In the queue: {before}; {running} running, {most}.{when}"
    end = newest(events, "end")
    if status in ("finished", "stopped", "failed") and end:
        return end.get("message") or ""
    if status == "crashed":
        return f"Its process has gone (a kill, or the machine went down) at step {step:,}. Resume goes on from its last checkpoint."
    if run.stop_requested():
        return "Stopping: it finishes its step and keeps the model."
    if not step and not newest(events, "step"):
        return "Getting ready: reading the text, making token ids, the first look at the untrained model."
    pace = seconds_a_step(events)
    if pace is None:
        return "The first steps run."
    left = duration(pace * (max_steps - step))
    return f"About {left} left at {number(1 / pace if pace else None, 3)} steps a second, looks at the model included."


def values(events: list[Event], status: str) -> list[tuple[str, str]]:
    """The newest numbers of a log, for the cards."""
    step, look = newest(events, "step") or {}, newest(events, "evaluate") or {}
    loss = look.get("val_loss")
    found = [("Training loss", number(step.get("loss"))), ("Validation loss", number(loss))]
    further = [
        (title, number(look[name], 3)) for name, title in FURTHER.items() if look.get(name) is not None
    ]
    if "accuracy" not in look and "reward_margin" not in look:  # then the loss is one a token
        further = [
            ("Perplexity", number(perplexity(loss))),
            ("Bits per byte", number(look.get("bits_per_byte"))),
            *further,
        ]
    found += further
    if best := next((e for e in reversed(events) if e["kind"] == "evaluate" and e.get("best")), None):
        found.append(("Best so far", f"step {best['step']:,}"))
    if status == "running":
        found.append(("Tokens a second", number(step.get("tokens_per_second"), 3)))
    elif step:
        found.append(("Training time", duration(step.get("seconds"))))
    return found if step or look else []


def whereabouts(run: Run) -> list[tuple[str, str]]:
    """How and where a run is done: its arithmetic, and what is not one process of this machine at its first try."""
    begun, found = run.first_start(), []
    if begun.get("precision"):
        threads = begun.get("threads", 1)
        where = "" if begun.get("device", "cpu") != "cpu" else f", {threads} thread{'s' * (threads != 1)}"
        found.append(("Arithmetic", f"{begun['precision']} on {begun.get('device', 'cpu')}{where}"))
    if begun.get("processes", 1) > 1:
        found.append(("Processes", str(begun["processes"])))
    if (node := run.node()) and node != platform.node():
        found.append(("Machine", "waits for one" if node == "ray" else node))
    if run.attempts() > 1:
        found.append(("Attempt", str(run.attempts())))
    return found


def standing(source: str) -> dict[str, Any]:
    """How a run stands: name, status, step, max_steps and the HTML of the progress card."""
    run = log_of(source)
    status = status_of(source, run)
    events = tail(run)
    step = max(
        (e["step"] for e in events if e["kind"] in ("step", "evaluate", "checkpoint", "end")), default=0
    )
    begun = (
        newest(events, "start") or newest(run.read()[0] if source.startswith("model:") else [], "start") or {}
    )
    max_steps = begun.get("max_steps") or (
        0 if source.startswith("model:") else run.config["train"]["max_steps"]
    )
    note = sentence(source, run, status, events, step, max_steps)
    playable = status in ENDED and (source.startswith("model:") or paths.is_model(run.model_folder))
    found = values(events, status)
    if found and not source.startswith("model:"):
        found += whereabouts(run)
    html = figures.progress(source.partition(":")[2], status, step, max_steps, note, found, playable)
    return {"status": status, "step": step, "max_steps": max_steps, "html": html}


def task(look: Event) -> str:
    """What the position of an evaluation is about: the next token, one of a chosen answer, or a class."""
    return "class" if "accuracy" in look else "pair" if "reward_margin" in look else "token"


def watch(source: str, offset: int) -> dict[str, Any]:
    """What the page does not have yet of this run: its standing, and the looks at the model after byte `offset`.

    "fresh" means: forget the samples you have (the first answer, and after a resume took steps back).
    """
    run = log_of(source)
    size = (run.path / "events.jsonl").stat().st_size
    fresh = offset <= 0
    events, end = run.read(max(0, size - FIRST) if fresh else offset)
    if not fresh and any(event["kind"] == "resume" for event in events):
        fresh = True
        events, end = run.read(max(0, size - FIRST))
    events = effective(events)
    looks = [e for e in events if e["kind"] == "evaluate" and e.get("position")]
    texts = [e for e in events if e["kind"] == "sample"][-SAMPLES:]
    return {
        **standing(source),
        "offset": end,
        "fresh": fresh,
        "position": figures.position(looks[-1]["step"], looks[-1]["position"], task(looks[-1]))
        if looks
        else None,
        "samples": [{"step": e["step"], "html": figures.samples(e["step"], e["texts"])} for e in texts],
    }


def monitor(elem_id: str, visible_to: Callable[[str, gr.Request], bool]) -> gr.HTML:
    """The component: its value is a source ("run:NAME"); it asks for news every second while the run goes on.

    Its `input` event says that the status has changed.
    """

    @answered
    def lab_watch(asked: dict, request: gr.Request) -> dict:
        source, offset = str(asked.get("source")), asked.get("offset")
        if not visible_to(source, request) or not isinstance(offset, int):
            return {"gone": True}
        try:
            return watch(source, offset)
        except (ValueError, OSError):
            return {"gone": True}

    return gr.HTML(
        value="",
        html_template="<div class='lab-monitor'></div>",
        js_on_load=SCRIPT.read_text(encoding="utf-8"),
        server_functions=[lab_watch],
        apply_default_css=False,
        padding=False,
        elem_id=elem_id,
    )


def looks(of: str) -> gr.HTML:
    """The place where the monitor `of` puts the samples and the position worked out, when they stand elsewhere."""
    return gr.HTML(
        f"<div data-looks-of='{of}'></div>", padding=False, apply_default_css=False, js_on_load=None
    )


def summary(run: Run) -> dict[str, Any]:
    """A run as a row of the history: name, status, step, max_steps, loss, val_loss, created (local time)."""
    events = tail(run)
    look, step = newest(events, "evaluate") or {}, newest(events, "step") or {}
    return {
        "name": run.name,
        "status": run.status(),
        "step": max(look.get("step", 0), step.get("step", 0)),
        "max_steps": run.config["train"]["max_steps"],
        "loss": step.get("loss"),
        "val_loss": look.get("val_loss"),
        "created": time.strftime("%d %b %H:%M", time.localtime(run.meta["created"])),
    }


def can_stop(status: str) -> bool:
    """Whether Stop does anything."""
    return status in ("waiting", "running")


def can_resume(status: str) -> bool:
    """Whether Resume does anything."""
    return status in ENDED and status != "finished"
