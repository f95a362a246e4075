"""The Evaluate tab's judge room: two answer the same instructions, a third judges, in both orders, as a run."""

from __future__ import annotations

from typing import Any

import gradio as gr

from llm import arena, commands, dispatch, judge, verdicts
from llm.config import JUDGE_PROMPT, JudgeConfig, to_dict
from llm.runs import Run
from ui import pickers, transfers
from ui.allowed import gate
from ui.figures import judge as figures
from ui.figures.base import message
from ui.owner import may_open, may_read, owner
from ui.parts import Choice, plain_errors, section, show_code
from ui.view import View

FIRST = {"a": "story-instruct", "b": "story-llama", "judge": "story-gpt2"}
POLL_SECONDS = 1.5


def config_of(
    a: str,
    b: str,
    who: str,
    dataset: str,
    part: str,
    count: Any,
    swap: bool,
    length: Any,
    seed: Any,
    prompt: str,
) -> JudgeConfig:
    """The judging that the form describes. Raises ValueError."""
    return JudgeConfig(
        a=a or "", b=b or "", judge=who or "", dataset=dataset or "", part=(part or "").strip(), count=int(count or 0),
        swap=swap is True, max_new_tokens=int(length or 0), seed=int(seed or 0), prompt=prompt or "",
    )  # fmt: skip


def name_of(config: JudgeConfig) -> str:
    """What its run is called."""
    plain = f"judge-{config.a}-{config.b}".replace("endpoint:", "").replace("@", "-").replace("+", "-")
    return transfers.free_name(plain[:76])


def preview(request: gr.Request, *form: Any) -> list[Any]:
    """What is in the way, the command, and the button."""
    try:
        config = config_of(*form)
        judge.check(config, owner(request))
    except ValueError as error:
        return [message(str(error), "warning"), "", gr.Button("Change a setting first", interactive=False)]
    fair = ""
    if config.judge in (config.a, config.b):
        fair = message("The judge is one of the two: models prefer their own words.", "warning")
    return [
        fair,
        commands.command_line("judge", name_of(config), config),
        gr.Button("Judge", interactive=True),
    ]


@plain_errors
def start(request: gr.Request, *form: Any) -> list[Any]:
    """Start the run; what is shown follows it. Raises ValueError."""
    config = config_of(*form)
    judge.check(config, owner(request))
    run = Run.create("judge", to_dict(config), owner(request), name=name_of(config))
    dispatch.pump()
    return shown(run.name, request)


def own_runs(request: gr.Request | None) -> list[str]:
    """The visitor's judgings, newest first."""
    return [run.name for run in transfers.own_runs("judge", request)]


def shown(name: str, request: gr.Request | None) -> list[Any]:
    """(which run, how it stands, result, verdicts, the clock, Stop) of one judging, or of the newest."""
    names = own_runs(request)
    if not names:
        empty = message("Nothing was judged yet. A local model can judge; one behind HTTP judges better (Models, Endpoints).")  # fmt: skip
        return [
            gr.update(choices=[], value=None),
            empty,
            "",
            "",
            gr.Timer(active=False),
            gr.Button(visible=False),
        ]
    name = name if name in names else names[0]
    run = Run.open(name)
    status, events, config = run.status(), run.events(), run.config
    rows = [event for event in events if event["kind"] == "verdict"]
    count = next((event["count"] for event in events if event["kind"] == "start"), config["count"])
    last = events[-1] if events else {}
    note = last.get("message", "") if last.get("kind") == "end" else ""
    result = ""
    if rows:
        agree, compared = verdicts.agreement(
            rows, config["a"], config["b"], arena.voted(between=(config["a"], config["b"]))
        )
        result = figures.result(verdicts.summary(rows, config["seed"]), config, agree, compared)
    live = status in ("waiting", "running")
    return [
        gr.update(choices=names, value=name), figures.standing(name, status, config, len(rows), count, note), result,
        figures.verdicts(rows), gr.Timer(active=live), gr.Button("Stop" if live else "Go on", visible=status != "finished"),
    ]  # fmt: skip


@plain_errors
def stop_or_go(name: str, request: gr.Request) -> list[Any]:
    """Stop a judging that goes on, or let one that ended early go on."""
    if name not in own_runs(request):
        raise ValueError("Choose one of your judgings first.")
    transfers.stop_or_go(Run.open(name))
    return shown(name, request)


def askable(request: gr.Request) -> Any:
    """A picker of who can be asked, with what the visitor may choose."""
    return gr.update(choices=pickers.speaker_names(owner(request)))


def speaker(view: View, key: str, label: str) -> gr.Dropdown:
    """A dropdown of everyone who can speak, kept in the address bar."""

    def restored(text: str | None = None) -> dict:
        names = pickers.speaker_names("")
        wish = text or FIRST[key]
        return gr.update(choices=names, value=wish if wish in names else next(iter(names), None))

    names = pickers.speaker_names("")
    value = FIRST[key] if FIRST[key] in names else next(iter(names), None)
    box = Choice(
        names, value=value, label=label, elem_id=f"evaluate-judge-{key}", interactive=True, min_width=140
    )
    gate(box, may_open)
    view.keep(f"judge.{key}", box, restore=restored)
    view.on_load(askable, box)
    view.on_select(askable, box)
    return box


def datasets() -> list[str]:
    """Rows that hold instructions."""
    from ui.tune_rows import kind_of_rows

    return [name for name in pickers.row_names() if kind_of_rows(name) == "instruction"]


def build(view: View) -> None:
    """Lay out the room and wire it."""
    section(
        "A judge",
        "Two answer the same instructions; a third says which answer is better, once in each order. A judge has habits of "
        "its own (the first answer, the longer one, its own style): the page counts what it can see of them.",
    )
    with gr.Row(elem_classes="ev-room"):
        with gr.Column(scale=4, min_width=320):
            with gr.Row(elem_classes="train-pair"):
                a, b = speaker(view, "a", "A"), speaker(view, "b", "B")
            who = speaker(view, "judge", "Judge")
            with gr.Row(elem_classes="train-pair"):
                known = datasets()
                dataset = Choice(known, value=known[0] if known else None, label="Instructions", elem_id="evaluate-judge-dataset", interactive=True, min_width=140)  # fmt: skip
                gate(dataset, may_read)
                part = gr.Textbox(
                    "test", label="Part", max_lines=1, elem_id="evaluate-judge-part", min_width=100
                )
            with gr.Row(elem_classes="train-pair"):
                count = gr.Number(40, label="Instructions", precision=0, minimum=1, maximum=5000, elem_id="evaluate-judge-count", min_width=100)  # fmt: skip
                length = gr.Number(120, label="Tokens of an answer", precision=0, minimum=1, maximum=4000, elem_id="evaluate-judge-length", min_width=100)  # fmt: skip
                seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=2**31 - 1, elem_id="evaluate-judge-seed", min_width=80)  # fmt: skip
            swap = gr.Checkbox(True, label="Ask in both orders", elem_id="evaluate-judge-swap")
            with gr.Accordion("What the judge is told", open=False, elem_classes="lab-quiet"):
                prompt = gr.Textbox(JUDGE_PROMPT, show_label=False, lines=10, max_lines=20, elem_id="evaluate-judge-prompt")  # fmt: skip
            remark = gr.HTML(padding=False, elem_id="evaluate-judge-remark")
            go = gr.Button("Judge", variant="primary", elem_id="evaluate-judge-go")
            with gr.Accordion("The command that Judge runs", open=False, elem_classes="lab-quiet"):
                line = gr.Code(language="shell", interactive=False, show_label=False, wrap_lines=True, lines=2, elem_id="evaluate-judge-command")  # fmt: skip
        with gr.Column(scale=7, min_width=320):
            which = Choice([], label="Judging", elem_id="evaluate-judge-run", interactive=True)
            stands = gr.HTML(padding=False, elem_id="evaluate-judge-stands")
            stop = gr.Button("Stop", size="sm", visible=False, elem_id="evaluate-judge-stop")
            result = gr.HTML(padding=False, elem_id="evaluate-judge-result")
            with gr.Accordion("Every verdict", open=False, elem_classes="lab-quiet"):
                told = gr.HTML(padding=False, elem_id="evaluate-judge-verdicts")
    show_code(
        "llm.verdicts:read", "llm.verdicts:outcome", "llm.verdicts:at_equal_length", "llm.verdicts:interval"
    )
    clock = gr.Timer(POLL_SECONDS, active=False)
    form = [a, b, who, dataset, part, count, swap, length, seed, prompt]
    seen = [which, stands, result, told, clock, stop]
    quiet = dict(api_visibility="private", show_progress="hidden", queue=False)
    view.keep("judge.run", which, restore=lambda text: gr.update(value=text))
    gr.on([w.change for w in form], preview, form, [remark, line, go], trigger_mode="always_last", **quiet)
    go.click(start, form, seen, **quiet)
    which.input(shown, which, seen, **quiet)
    clock.tick(shown, which, seen, **quiet)
    stop.click(stop_or_go, which, seen, **quiet)
    view.on_load(preview, [remark, line, go], form)
    view.on_load(shown, seen, which)
