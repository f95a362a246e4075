"""Runs as tabs show them: which are a visitor's, start, stop, resume, delete; chart, monitor and history side by side."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr

from llm import dispatch, modes, paths
from llm.config import RunConfig, to_dict
from llm.runs import Run, all_runs
from ui import live, monitor, plans
from ui.figures import train as figures
from ui.owner import may_see, may_use, owner
from ui.parts import plain_errors, section
from ui.view import View

DOUBLE_CLICK = 3.0  # seconds in which the same settings from the same visitor are one run
STARTING = threading.Lock()  # two clicks at the same instant look one after the other


def visible_to(source: str, request: gr.Request | None) -> bool:
    """Whether the visitor may see this log: built-in models always, runs by their owner."""
    if source.startswith("model:"):
        return True
    try:
        return may_see(Run.open(source.partition(":")[2]), owner(request))
    except ValueError:
        return False


def own(name: str, request: gr.Request | None) -> Run:
    """The visitor's run of this name. Raises ValueError when there is none, or it is another visitor's."""
    run = Run.open(str(name))
    if not may_use(run.meta["owner"], owner(request)):
        raise ValueError(f"There is no run called {str(name)[:80]!r}.")
    return run


def source_of(shown: str) -> str:
    """What the address bar names -> a source of the live chart."""
    return f"run:{shown}" if shown and not shown.startswith("model:") else shown or ""


def is_tuning(config: dict[str, Any]) -> bool:
    """Whether the stored settings of a run, or its "start" event, are those of another objective than plain text."""
    return (config.get("objective") or "pretrain") != "pretrain"


def free_name(name: str) -> str:
    """The name for a new run. Raises ValueError when it is unsafe, or a built-in model's: all would get the run's instead."""
    paths.checked_name(name, "run name")
    if paths.is_model(paths.shipped_models() / name):
        raise ValueError(f"There is a built-in model called {name!r}: choose another name for the run.")
    return name


@dataclass(frozen=True)
class Room:
    """The training runs that one tab is about; its methods are handlers."""

    belongs: Callable[[dict[str, Any]], bool]  # to this tab, told by the settings of a run
    exemplary: Callable[[dict[str, Any]], bool]  # a built-in model, told by the "start" event of its log

    def own_runs(self, request: gr.Request | None) -> list[Run]:
        """The training runs that the visitor may see, newest first."""
        visitor = owner(request)
        return [run for run in all_runs("train") if may_see(run, visitor) and self.belongs(run.config)]

    def worked_example(self) -> str:
        """A built-in model that brings the log of its own training, as "model:NAME"; "" when there is none."""
        logs = sorted(paths.shipped_models().glob("*/events.jsonl"))
        names = [log.parent.name for log in logs if self.exemplary(begun(Run(log.parent)))]
        return f"model:{names[0]}" if names else ""

    def look(self, request: gr.Request, shown: str, others: str) -> list[Any]:
        """Everything that shows the chosen run: chart, monitor, history, Stop and Resume."""
        source = source_of(shown)
        laid_over = [source_of(name) for name in (others or "").split(",") if name]
        status, visitor = "", owner(request)
        if source.startswith("run:") and visible_to(source, request):
            run = Run.open(shown)
            status = run.status() if may_use(run.meta["owner"], visitor) else ""
        rows = [monitor.summary(run) | whose(run, visitor) for run in self.own_runs(request)]
        example = self.worked_example().partition(":")[2]
        history = figures.history(rows, example, shown, set((others or "").split(",")))
        return [
            live.value_of([source, *laid_over]),
            source,
            history,
            gr.update(visible=bool(status) and monitor.can_stop(status)),
            gr.update(visible=bool(status) and monitor.can_resume(status)),
        ]

    def opened(self, request: gr.Request, shown: str, others: str) -> list[Any]:
        """What the tab opens with: the run that the address names, else the visitor's last one, else the worked example."""
        if not (shown and visible_to(source_of(shown), request)):
            runs = self.own_runs(request)
            shown = runs[0].name if runs else self.worked_example()
        return [shown, *self.look(request, shown, others)]

    def allowed(self, config: RunConfig, visitor: str) -> float | None:
        """The forecast of a run in seconds, None without one. Raises ValueError where it is more than the visitor may ask for."""
        full = plans.resolved(config)
        found = plans.measured(full, tuning=is_tuning(to_dict(config)))
        seconds = found["seconds_per_step"] * config.train.max_steps if found else None
        if not getattr(visitor, "teacher", False):
            modes.refuse_large(sum(full.model.parameters().values()), full.train.processes, seconds)
        return seconds

    def begin(self, request: gr.Request, name: str, config: RunConfig) -> list[Any]:
        """Start a run: it gets a directory, a place in the queue and a process of its own. A double click is one run."""
        wanted, visitor = to_dict(config), owner(request)
        seconds = self.allowed(config, visitor)
        with STARTING:
            for run in self.own_runs(request)[:1]:
                age = time.time() - run.meta["created"]
                if run.config == wanted and run.meta["owner"] == visitor and age < DOUBLE_CLICK:
                    return [run.name, "", *self.look(request, run.name, "")]
            run = Run.create(
                "train", wanted, visitor, free_name(name) if name else "", expected=seconds or 0.0
            )
        dispatch.pump()
        return [run.name, "", *self.look(request, run.name, "")]

    def stop(self, request: gr.Request, shown: str, others: str) -> list[Any]:
        """Ask the shown run to stop; it keeps its model and can be resumed."""
        own(shown, request).request_stop()
        return self.look(request, shown, others)

    def resume(self, request: gr.Request, shown: str, others: str) -> list[Any]:
        """Put the shown run back into the queue; it goes on from its last checkpoint."""
        own(shown, request).request_resume()
        dispatch.pump()
        return self.look(request, shown, others)

    def act(self, request: gr.Request, shown: str, others: str, event: gr.EventData) -> list[Any]:
        """A click in the history: show a run, lay it over the shown one, share it with all, or delete it."""
        action, name = str(event._data.get("action")), str(event._data.get("name"))
        over = [other for other in (others or "").split(",") if other]
        if action == "show":
            shown, over = name, [other for other in over if other != name]
        elif action == "overlay":
            over = (
                [other for other in over if other != name]
                if name in over
                else [*over, name][: live.SOURCES - 1]
            )
        elif action == "share":
            run = own(name, request)
            run.share(not run.shared())
        elif action == "delete":
            own(name, request).delete()
            over = [other for other in over if other != name]
            if shown == name:
                shown = self.opened(request, "", "")[0]
        return [shown, ",".join(over), *self.look(request, shown, ",".join(over))]


def whose(run: Run, visitor: str) -> dict[str, Any]:
    """What a row of the history says of whose a run is; nothing at home."""
    return {"mine": may_use(run.meta["owner"], visitor), "shared": run.shared()} if modes.is_shared() else {}


def begun(run: Run) -> dict[str, Any]:
    """The "start" event of a log, which stands near its beginning; {} without one."""
    with open(run.path / "events.jsonl", encoding="utf-8") as lines:
        for _, line in zip(range(20), lines):
            if '"kind": "start"' in line:
                return json.loads(line)
    return {}


# --- the page


HISTORY_SCRIPT = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-action]');
  if (!button) return;
  const { action, name } = button.dataset;
  if (action === 'delete' && !confirm(`Delete the run ${name} and its model for good?`)) return;
  trigger('click', { action, name });
});
"""


@dataclass(frozen=True)
class Shown:
    """What shows runs on a page."""

    shown: gr.Textbox  # which run
    others: gr.Textbox  # those that lie over it
    monitor: gr.HTML
    stopper: gr.Button
    resumer: gr.Button
    chart: gr.HTML
    history: gr.HTML

    @property
    def views(self) -> list[gr.components.Component]:
        """The outputs of `Room.look`."""
        return [self.chart, self.monitor, self.history, self.stopper, self.resumer]


def names(view: View, prefix: str) -> tuple[gr.Textbox, gr.Textbox]:
    """Hidden boxes for the shown run and those laid over it, kept in the address bar as `run` and `with`.

    Hidden by a style sheet: `visible="hidden"` is undone when a column around them is shown.
    """
    shown = gr.Textbox("", elem_id=f"{prefix}-run", show_label=False, elem_classes="lab-hidden")
    others = gr.Textbox("", elem_id=f"{prefix}-with", show_label=False, elem_classes="lab-hidden")
    view.keep("run", shown, restore=lambda text: text or "")
    view.keep("with", others, restore=lambda text: text or "")
    return shown, others


def start_button(prefix: str) -> gr.Button:
    """Start; dead until the form holds what the link names, so that a quick click cannot start another run than is seen."""
    return gr.Button(
        "Reading the form …", interactive=False, variant="primary", size="lg", elem_id=f"{prefix}-start"
    )


def watched(
    shown: gr.Textbox, others: gr.Textbox, prefix: str, panels: tuple[str, ...] = ("loss", "perplexity")
) -> Shown:
    """Lay out monitor, Stop, Resume, chart, looks and history, one under the other."""
    monitored = monitor.monitor(f"{prefix}-monitor", visible_to)
    with gr.Row(elem_classes="train-actions"):
        stopper = gr.Button("Stop and keep the model", visible=False, elem_id=f"{prefix}-stop", size="sm")
        resumer = gr.Button("Resume", visible=False, elem_id=f"{prefix}-resume", size="sm", variant="primary")
    chart = live.live_chart(f"{prefix}-chart", visible_to, panels)
    monitor.looks(f"{prefix}-monitor")
    section(
        "Runs",
        "Show one, lay others over it, delete what you no longer need. A run goes on without this page.",
    )
    history = gr.HTML(
        elem_id=f"{prefix}-history", js_on_load=HISTORY_SCRIPT, padding=False, apply_default_css=False
    )
    return Shown(shown, others, monitored, stopper, resumer, chart, history)


def wire(view: View, room: Room, page: Shown) -> None:
    """Show the right run as the tab opens and is chosen again; Stop, Resume and the history's buttons."""
    quiet = dict(api_visibility="private", show_progress="hidden", queue=False)
    which, views = [page.shown, page.others], page.views
    view.on_load(room.opened, [page.shown, *views], which)
    view.on_select(room.look, views, which)
    page.stopper.click(plain_errors(room.stop), which, views, **quiet)
    page.resumer.click(plain_errors(room.resume), which, views, **quiet)
    page.history.click(plain_errors(room.act), which, [*which, *views], **quiet)
    page.monitor.input(room.look, which, views, **quiet)
