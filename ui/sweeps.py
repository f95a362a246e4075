"""Train: a sweep, the form's run with many settings; its trials in a table, in parallel coordinates and as curves."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from llm import dispatch, halving, sweep
from llm.config import RunConfig
from llm.halving import Sweep
from llm.runs import ENDED, Run, new_name, refuse_more
from ui import forms, plans, running
from ui.figures import sweeps as figures
from ui.figures.base import message
from ui.owner import may_use, owner
from ui.parts import Choice, plain_errors, section
from ui.view import View

KNOBS = 3  # settings that one sweep varies in the page; the command takes any number
POLL_SECONDS = 2
GRID, RANDOM = "every combination", "drawn at random"
FIRST = ("learning_rate", "1e-3, 4e-3, 1.6e-2")
Ready = Callable[..., tuple[RunConfig, RunConfig, int]]  # the form of the tab -> the run it describes


def wish_of(kind: str, count: Any, eta: Any, *pairs: Any) -> tuple[dict[str, str], int, int]:
    """(knob: what was written for it, how many to draw, eta) of the form. Raises ValueError."""
    varied = {knob: text for knob, text in zip(pairs[::2], pairs[1::2]) if knob}
    if len(varied) < sum(1 for knob in pairs[::2] if knob):
        raise ValueError("The same setting was chosen twice: vary each once.")
    return varied, int(count or 0) if kind == RANDOM else 0, int(eta or 0)


def planned(
    ready: Ready, visitor: str, name: str, wish: Sequence[Any], form: Sequence[Any]
) -> tuple[Sweep, list[RunConfig], str, float | None]:
    """The sweep that both forms describe, its trials' settings, its command, seconds of the form's run. Raises ValueError."""
    base, full, _ = ready(*form)
    varied, count, eta = wish_of(*wish)
    name = (name or "").strip() or new_name(f"sweep-{base.dataset}")
    found, configs = sweep.plan(name, base, varied, count, eta, owner=visitor)
    known = plans.measured(full)
    seconds = known["seconds_per_step"] * full.train.max_steps if known else None
    return found, configs, shlex.join(sweep.command(name, base, varied, count, eta, 0)), seconds


def work_of(found: Sweep) -> tuple[list[int], int]:
    """(how many go on after each rung, steps of all trials together)."""
    left, steps, before, going = len(found.trials), 0, 0, []
    for rung in (*found.rungs, found.max_steps):
        steps += left * (rung - before)
        before, left = rung, math.ceil(left / max(found.eta, 1))
        going.append(left)
    return going[:-1], steps


def fits(configs: Sequence[RunConfig], trials: Sequence[halving.Trial]) -> None:
    """Raise ValueError with the trial whose text or encoding does not fit its settings."""
    for trial, config in zip(trials, configs):
        try:
            plans.check_text(plans.resolved(config))
        except ValueError as error:
            said = ", ".join(f"{knob} {figures.value(one)}" for knob, one in trial.values.items())
            raise ValueError(f"The trial with {said} cannot be: {error}") from None


def own_sweeps(request: gr.Request | None) -> list[Sweep]:
    """The visitor's sweeps, newest first."""
    return [found for found in halving.all_sweeps() if may_use(found.owner, owner(request))]


def own(name: str, request: gr.Request | None) -> Sweep:
    """The visitor's sweep of this name. Raises ValueError when there is none, or it is another visitor's."""
    found = next((one for one in own_sweeps(request) if one.name == name), None)
    if found is None:
        raise ValueError(f"There is no sweep called {str(name)[:80]!r}.")
    return found


def shown(name: str, seen: str, run: str, request: gr.Request | None) -> list[Any]:
    """(picker, table, coordinates, curves, the mark, the clock, the three buttons); nothing is sent where nothing changed."""
    names = [found.name for found in own_sweeps(request)]
    if not names:
        gone = gr.update(visible=False)
        return [
            gr.update(choices=[], value=None, visible=False),
            "",
            gone,
            gone,
            "",
            gr.Timer(active=False),
            gone,
            gone,
            gone,
        ]
    found = own(name if name in names else names[0], request)
    rows = sweep.rows(found)
    mark = f"{found.name}|{run}|" + "|".join(
        f"{row['status']} {row['step']} {len(row['curve'])} {row['note']}" for row in rows
    )
    live = any(row["status"] in ("waiting", "running") for row in rows)
    if mark == seen:
        return [gr.skip()] * 5 + [gr.Timer(active=live)] + [gr.skip()] * 3
    judged = [row for row in rows if row["rank"]]
    ended = any(row["status"] in ("stopped", "failed", "crashed") for row in rows)
    return [
        gr.update(choices=names, value=found.name, visible=True), figures.trials(rows, list(found.varied), found.max_steps, run),
        gr.update(value=figures.coordinates(rows, list(found.varied), found.log), visible=True) if judged else gr.update(visible=False),
        gr.update(value=figures.curves(rows), visible=True) if judged else gr.update(visible=False), mark, gr.Timer(active=live),
        gr.update(visible=live), gr.update(visible=ended), gr.update(visible=not live),
    ]  # fmt: skip


def for_all(name: str, request: gr.Request, act: Callable[[Run], None], when: tuple[str, ...]) -> None:
    """Do something to every trial of a visitor's sweep whose status is one of `when`. Raises ValueError."""
    for trial in own(name, request).trials:
        run = halving.run_of(trial)
        if run is not None and run.status() in when:
            act(run)


@plain_errors
def stop(name: str, run: str, request: gr.Request) -> list[Any]:
    """Stop what waits or goes on, and let nobody go on by halving; checkpoints are kept."""
    for_all(name, request, lambda one: one.pause(0), ("stopped",))
    for_all(name, request, Run.request_stop, ("waiting", "running"))
    return shown(name, "", run, request)


@plain_errors
def go_on(name: str, run: str, request: gr.Request) -> list[Any]:
    """Let every trial that ended early go all the way, those that halving left behind too."""

    def resume(one: Run) -> None:
        one.pause(0)
        one.request_resume()

    for_all(name, request, resume, ("stopped", "failed", "crashed"))
    dispatch.pump()
    return shown(name, "", run, request)


@plain_errors
def delete(name: str, run: str, request: gr.Request) -> list[Any]:
    """Remove a sweep with all its trials and their models; without a name nothing, as when a person thought better of it."""
    if not name:
        return [gr.skip()] * 9
    for_all(name, request, Run.delete, ("waiting", *ENDED))
    halving.remove(own(name, request))
    return shown("", "", run, request)


def build(
    view: View,
    ready: Ready,
    form: list[gr.components.Component],
    run: gr.Textbox,
    others: gr.Textbox,
    page: running.Shown,
    room: running.Room,
) -> None:
    """Lay out the sweep under the tab's form and runs, and wire it. `ready` reads `form`; a click on a trial shows it in `page`."""
    section(
        "Sweeps",
        "The form above as many runs, each with other values: which of them learns best? Separate values with commas.",
    )
    knobs = [("", ""), *((forms.title(name), name) for name in sweep.varied_knobs())]
    pairs: list[gr.components.Component] = []
    with gr.Row(elem_classes="train-room"):
        with gr.Column(scale=4, min_width=320, elem_classes="train-form"):
            for i in range(KNOBS):
                first, text = FIRST if not i else ("", "")
                with gr.Row(elem_classes="train-pair"):
                    label = "Vary" if not i else "and"
                    pairs += [
                        Choice(knobs, value=first, label=label, elem_id=f"train-sweep-knob-{i}", interactive=True, min_width=130),
                        gr.Textbox(text, label="Values, or low..high", max_lines=1, elem_id=f"train-sweep-values-{i}", min_width=130),
                    ]  # fmt: skip
            kind = gr.Radio(
                [GRID, RANDOM], value=GRID, label="Which combinations", elem_id="train-sweep-kind"
            )
            with gr.Row(elem_classes="train-pair"):
                count = gr.Number(
                    12,
                    label="Draw",
                    precision=0,
                    minimum=2,
                    maximum=sweep.MOST_TRIALS,
                    visible=False,
                    elem_id="train-sweep-count",
                    min_width=110,
                )
                eta = gr.Number(
                    0,
                    label="Halving: keep one of",
                    info="0: all go to the end",
                    precision=0,
                    minimum=0,
                    maximum=16,
                    elem_id="train-sweep-eta",
                    min_width=110,
                )
                name = gr.Textbox(
                    "", label="Name (optional)", max_lines=1, elem_id="train-sweep-name", min_width=110
                )
            told = gr.HTML(padding=False, elem_id="train-sweep-told")
            start = gr.Button(
                "Start the sweep", interactive=False, variant="primary", elem_id="train-sweep-start"
            )
            with gr.Accordion("The command that it runs", open=False, elem_classes="lab-quiet"):
                line = gr.Code(
                    language="shell",
                    interactive=False,
                    show_label=False,
                    wrap_lines=True,
                    lines=2,
                    elem_id="train-sweep-command",
                )
        with gr.Column(scale=7, min_width=320):
            which = Choice([], label="Sweep", visible=False, elem_id="train-sweep-which", interactive=True)
            table = gr.HTML(
                padding=False,
                js_on_load=running.HISTORY_SCRIPT,
                apply_default_css=False,
                elem_id="train-sweep-table",
            )
            with gr.Row(elem_classes="train-actions"):
                halt = gr.Button("Stop all", size="sm", visible=False, elem_id="train-sweep-stop")
                more = gr.Button(
                    "Let all go on to the end", size="sm", visible=False, elem_id="train-sweep-go"
                )
                drop = gr.Button(
                    "Delete the sweep and its runs", size="sm", visible=False, elem_id="train-sweep-delete"
                )
            lines = gr.Plot(show_label=False, visible=False, elem_id="train-sweep-coordinates")
            losses = gr.Plot(show_label=False, visible=False, elem_id="train-sweep-curves")
    mark = gr.Textbox("", show_label=False, elem_classes="lab-hidden", elem_id="train-sweep-mark")
    clock = gr.Timer(POLL_SECONDS, active=False)
    wish = [kind, count, eta, *pairs]
    for i in range(KNOBS):
        view.keep(f"sweep.knob{i}", pairs[2 * i])
        view.keep(f"sweep.values{i}", pairs[2 * i + 1])
    for key, widget in dict(kind=kind, count=count, eta=eta, name=name).items():
        view.keep(f"sweep.{key}", widget)
    view.keep("sweep", which, restore=lambda text: gr.update(value=text))
    seen = [which, table, lines, losses, mark, clock, halt, more, drop]
    cut = len(wish)

    def preview(request: gr.Request, name: str, *both: Any) -> list[Any]:
        try:
            found, _, command, seconds = planned(ready, owner(request), name, both[:cut], both[cut:])
        except ValueError as error:
            return [message(str(error), "warning"), "", gr.Button(interactive=False)]
        going, steps = work_of(found)
        seconds = seconds and seconds / found.max_steps * steps
        return [
            figures.planned(len(found.trials), found.rungs, going, steps, seconds),
            command,
            gr.Button(interactive=True),
        ]

    def begin(request: gr.Request, name: str, *both: Any) -> list[Any]:
        found, configs, _, _ = planned(ready, owner(request), name, both[:cut], both[cut:])
        fits(configs, found.trials)
        refuse_more(owner(request), len(configs))
        for config in configs:
            room.allowed(config, owner(request))
        sweep.create(found, configs)
        dispatch.pump()
        return shown(found.name, "", "", request)

    quiet = dict(api_visibility="private", show_progress="hidden", queue=False)
    gr.on(
        [w.change for w in (name, *wish, *form)],
        preview,
        [name, *wish, *form],
        [told, line, start],
        trigger_mode="always_last",
        **quiet,
    )
    kind.change(lambda kind: gr.update(visible=kind == RANDOM), kind, count, **quiet)
    start.click(plain_errors(begin), [name, *wish, *form], seen, **quiet)
    which.input(shown, [which, mark, run], seen, **quiet)
    clock.tick(shown, [which, mark, run], seen, **quiet)
    for button, handler in ((halt, stop), (more, go_on)):
        button.click(handler, [which, run], seen, **quiet)
    drop.click(
        delete,
        [which, run],
        seen,
        **quiet,
        js="(name, run) => [confirm(`Delete the sweep ${name}, its runs and their models for good?`) ? name : '', run]",
    )
    table.click(plain_errors(room.act), [run, others], [run, others, *page.views], **quiet)
    view.on_load(preview, [told, line, start], [name, *wish, *form])
    view.on_load(shown, seen, [which, mark, run])
    view.on_select(shown, seen, [which, mark, run])
