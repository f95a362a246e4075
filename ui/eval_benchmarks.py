"""The Evaluate tab's benchmark room: a quiz and published tasks as runs, accuracy by task, every question to look at."""

from __future__ import annotations

from typing import Any

import gradio as gr

from llm import benchmarks, commands, dispatch, harness_tasks
from llm.config import BenchmarkConfig, to_dict
from llm.modes import is_shared
from llm.runs import Run
from ui import pickers, transfers
from ui.figures import benchmarks as figures
from ui.figures.base import message
from ui.figures.train import progress
from ui.owner import owner
from ui.parts import Choice, plain_errors, section, show_code
from ui.view import View

POLL_SECONDS = 1.5
MOST = 4  # runs beside each other
FIRST_MODEL = "story-gpt2"


def config_of(model: str, tasks: Any, others: str, fewshot: Any, limit: Any, include: str) -> BenchmarkConfig:
    """The benchmark that the form describes. Raises ValueError."""
    if include and is_shared():
        raise ValueError("Folders of this machine can be named at home only, not on a shared page.")
    names = [*(tasks or []), *(others or "").replace(",", " ").split()]
    return BenchmarkConfig(
        model=model or "", tasks=tuple(names), fewshot=int(fewshot if fewshot is not None else -1), limit=int(limit or 0),
        include=(include or "").strip(),
    )  # fmt: skip


def checked(config: BenchmarkConfig) -> None:
    """Raise ValueError for what can be known to be wrong before it starts."""
    if not config.model:
        raise ValueError("Choose a model first.")
    harness_tasks.wanted(config.tasks)
    if not harness_tasks.is_here():
        raise ValueError(harness_tasks.MISSING)


def name_of(config: BenchmarkConfig) -> str:
    """What its run is called."""
    return transfers.free_name(f"bench-{config.model.replace('@', '-')}"[:76])


def preview(*form: Any) -> list[Any]:
    """What is in the way, the command, the button."""
    try:
        config = config_of(*form)
        checked(config)
    except ValueError as error:
        return [message(str(error), "warning"), "", gr.Button("Change a setting first", interactive=False)]
    return [
        "",
        commands.command_line("benchmark", name_of(config), config),
        gr.Button("Run it", interactive=True),
    ]


@plain_errors
def start(request: gr.Request, *form: Any) -> list[Any]:
    """Start the run; what is shown follows it. Raises ValueError."""
    config = config_of(*form)
    checked(config)
    run = Run.create("benchmark", to_dict(config), owner(request), name=name_of(config))
    dispatch.pump()
    return shown([run.name], "", request)


def own_runs(request: gr.Request | None) -> list[str]:
    """The visitor's benchmarks, newest first."""
    return [run.name for run in transfers.own_runs("benchmark", request)]


def shown(chosen: Any, task: str, request: gr.Request | None) -> list[Any]:
    """(runs, how the newest stands, chart, numbers, tasks to open, the clock, Stop)."""
    names = own_runs(request)
    if not names:
        told = message("Nothing was run yet: start with the quiz, which needs no network.")
        return [gr.update(choices=[], value=[]), told, gr.skip(), "", gr.update(choices=[], value=None), gr.Timer(active=False), gr.Button(visible=False)]  # fmt: skip
    chosen = [name for name in (chosen if isinstance(chosen, list) else [chosen]) if name in names][
        :MOST
    ] or names[:1]
    first = Run.open(chosen[0])
    status, tasks = first.status(), benchmarks.tasks_of(first)
    live = status in ("waiting", "running")
    found = [
        (f"{Run.open(name).config['model']} ({name})", benchmarks.tasks_of(Run.open(name))) for name in chosen
    ]
    known = [one["task"] for one in tasks]
    opened = task if task in known else (known[0] if known else None)
    choices = [(figures.title(one), one) for one in known]
    return [
        gr.update(choices=names, value=chosen), standing(first, status, tasks), figures.chart(found) if tasks else gr.skip(),
        figures.results(tasks, benchmarks.overall(tasks)) if tasks else "", gr.update(choices=choices, value=opened),
        gr.Timer(active=live), gr.Button("Stop" if live else "Go on", visible=status != "finished"),
    ]  # fmt: skip


def standing(run: Run, status: str, tasks: list[dict[str, Any]]) -> str:
    """How a run stands, as HTML."""
    events = run.events()
    count = next((event["count"] for event in events if event["kind"] == "start"), len(run.config["tasks"]))
    last = events[-1] if events else {}
    doing = next((event["task"] for event in reversed(events) if event["kind"] == "progress"), "")
    note = last.get("message", "") if last.get("kind") == "end" else f"{run.config['model']}: {figures.title(doing)}" if doing else run.config["model"]  # fmt: skip
    return progress(run.name, status, len(tasks), max(count, len(tasks)), note, []).replace(
        "step ", "task ", 1
    )


def open_task(chosen: Any, task: str, number: Any, request: gr.Request) -> list[Any]:
    """One question of a task of the first run that is shown."""
    names = own_runs(request)
    chosen = [name for name in (chosen or []) if name in names]
    if not chosen or not task:
        return ["", gr.skip()]
    try:
        asked = benchmarks.questions(Run.open(chosen[0]), task)
    except ValueError as error:
        return [message(str(error), "warning"), gr.skip()]
    number = min(max(int(number or 1), 1), len(asked))
    return [
        figures.question(asked[number - 1], number, len(asked)),
        gr.update(value=number, maximum=len(asked)),
    ]


@plain_errors
def stop_or_go(chosen: Any, task: str, request: gr.Request) -> list[Any]:
    """Stop a run that goes on, or let one that ended early go on with what it has not done."""
    names = [name for name in (chosen or []) if name in own_runs(request)]
    if not names:
        raise ValueError("Choose one of your runs first.")
    transfers.stop_or_go(Run.open(names[0]))
    return shown(names, task, request)


def build(view: View) -> None:
    """Lay out the room and wire it."""
    section(
        "Benchmarks",
        "Through lm-evaluation-harness, as published results are made: the shipped quiz in MMLU's format runs without a "
        "network; its own tasks (mmlu, hellaswag, arc_easy, ...) run where their data is in the Hub's cache.",
    )
    with gr.Row(elem_classes="ev-room"):
        with gr.Column(scale=4, min_width=320):
            model = pickers.model_picker(view, "benchmarks.model", preferred=FIRST_MODEL)
            subjects = [
                ("the whole quiz", "quiz"),
                *((figures.title(t), t) for t in harness_tasks.subjects()),
            ]
            tasks = gr.Dropdown(subjects, value=["quiz"], multiselect=True, label="The quiz", elem_id="evaluate-bench-tasks")  # fmt: skip
            others = gr.Textbox("", label="Tasks of the harness, by name (optional)", max_lines=1, elem_id="evaluate-bench-others")  # fmt: skip
            with gr.Row(elem_classes="train-pair"):
                fewshot = gr.Number(2, label="Solved examples before each", precision=0, minimum=-1, maximum=100, elem_id="evaluate-bench-shots", min_width=140)  # fmt: skip
                limit = gr.Number(0, label="Questions a task (0: all)", precision=0, minimum=0, elem_id="evaluate-bench-limit", min_width=140)  # fmt: skip
            include = gr.Textbox("", label="Folder with tasks of your own (optional)", max_lines=1, visible=not is_shared(), elem_id="evaluate-bench-include")  # fmt: skip
            remark = gr.HTML(padding=False, elem_id="evaluate-bench-remark")
            go = gr.Button("Run it", variant="primary", elem_id="evaluate-bench-go")
            with gr.Accordion("The command that it runs", open=False, elem_classes="lab-quiet"):
                line = gr.Code(language="shell", interactive=False, show_label=False, wrap_lines=True, lines=2, elem_id="evaluate-bench-command")  # fmt: skip
        with gr.Column(scale=7, min_width=320):
            which = Choice([], multiselect=True, value=[], label="Runs", info="The first is shown in full; up to four in the chart", elem_id="evaluate-bench-runs", interactive=True)  # fmt: skip
            stands = gr.HTML(padding=False, elem_id="evaluate-bench-stands")
            stop = gr.Button("Stop", size="sm", visible=False, elem_id="evaluate-bench-stop")
            bars = gr.Plot(show_label=False, elem_id="evaluate-bench-chart")
            numbers = gr.HTML(padding=False, elem_id="evaluate-bench-results")
    section("A question, as it was scored")
    with gr.Row(elem_classes="train-pair"):
        task = Choice([], label="Task", elem_id="evaluate-bench-task", interactive=True, min_width=160)
        number = gr.Number(
            1, label="Question", precision=0, minimum=1, elem_id="evaluate-bench-number", min_width=100
        )
    opened = gr.HTML(padding=False, elem_id="evaluate-bench-question")
    show_code(
        "llm.choices:continuations", "llm.choices:common", "llm.choices:score", "llm.benchmarks:overall"
    )
    clock = gr.Timer(POLL_SECONDS, active=False)
    form = [model, tasks, others, fewshot, limit, include]
    seen = [which, stands, bars, numbers, task, clock, stop]
    quiet = dict(api_visibility="private", show_progress="hidden", queue=False)
    for key, widget in dict(tasks=tasks, others=others, shots=fewshot, limit=limit).items():
        view.keep(f"benchmarks.{key}", widget)
    gr.on([w.change for w in form], preview, form, [remark, line, go], trigger_mode="always_last", **quiet)
    go.click(start, form, seen, **quiet)
    which.input(shown, [which, task], seen, **quiet)
    clock.tick(shown, [which, task], seen, **quiet)
    stop.click(stop_or_go, [which, task], seen, **quiet)
    gr.on([task.change, number.change], open_task, [which, task, number], [opened, number], trigger_mode="always_last", **quiet)  # fmt: skip
    view.on_load(preview, [remark, line, go], form)
    view.on_load(shown, seen, [which, task])
