"""Take a model away: choose a format, see its size and the commands of other tools, write it as a run, fetch or push it."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import gradio as gr

from llm import chat, commands, convert, dispatch, hub, inventory
from llm.config import FORMATS, ExportConfig, to_dict
from llm.convert import EXPORTERS
from llm.modes import is_shared
from llm.runs import Run
from ui import serve, shelf, transfers
from ui.figures import transfers as figures
from ui.figures.base import message
from ui.owner import owner
from ui.parts import Choice, plain_errors, section, show_code
from ui.recipes import PROMPT, QUESTION, over_http, recipes
from ui.view import View


def config_of(model: str, format: str, dtype: str) -> ExportConfig:
    """The export that the form describes. Raises ValueError."""
    return ExportConfig(model=model, format=format, dtype=dtype or FORMATS.get(format, ("",))[0])


def name_of(config: ExportConfig) -> str:
    """What an export's run, and so its file, is called."""
    return transfers.free_name(f"{config.model.replace('@', '-')}-{config.format}-{config.numbers}"[:76])


def choose_format(format: str) -> dict:
    """The number formats that a format can hold."""
    return gr.update(
        choices=list(FORMATS[format]), value=FORMATS[format][0], interactive=len(FORMATS[format]) > 1
    )


def plan(request: gr.Request, chosen: str, format: str, dtype: str) -> list[Any]:
    """Size, or what is in the way; the command; the recipes; the button."""
    model = shelf.current(chosen, request)
    try:
        config = config_of(model.name, format, dtype)
        estimate = convert.size(config.model, config.format, config.dtype)
    except ValueError as error:
        refused = message(str(error), "error")
        return [refused, "", "", gr.Button("This format cannot hold the model", interactive=False)]
    name = name_of(config)
    told = figures.plan(EXPORTERS[format].about, estimate, inventory.read(model.name).size)
    context = model.config.context_length if model.config else 0
    opened = figures.recipes(recipes(format, model.name.replace("@", "-"), prompt_for(model), context))
    line = commands.command_line("export", name, config)
    return [
        told,
        line,
        opened,
        gr.Button(f"Write {model.name} as {EXPORTERS[format].title}", interactive=True),
    ]


def prompt_for(model: inventory.Present) -> str:
    """A beginning that suits the model: of a story for those that learned stories, else of a fact."""
    return PROMPT if "stories" in model.origin or model.kind == "built in" else "The capital of France is"


def http(request: gr.Request, chosen: str) -> str:
    """How other programs ask the chosen model through this very page, or why they cannot, as HTML."""
    model = shelf.current(chosen, request)
    if not serve.is_on():
        return message(serve.why_off())
    if is_shared() and model.owner:
        return message(
            f"{model.name} is yours alone: a shared lab serves only the models that belong to everyone."
        )
    try:
        chats = bool(chat.read(model.folder).template)
    except ValueError as error:  # its files are damaged
        return message(str(error), "error")
    return figures.recipes(
        over_http(address(request), model.name, QUESTION if chats else prompt_for(model), chats)
    )


def address(request: gr.Request) -> str:
    """Where the visitor's browser has this page: what it says itself, as a proxy may stand between."""
    said = urlsplit(request.headers.get("referer", ""))
    if said.scheme in ("http", "https") and said.netloc:
        return f"{said.scheme}://{said.netloc}{said.path.rstrip('/')}"
    return str(request.request.base_url).rstrip("/")


def start(request: gr.Request, chosen: str, format: str, dtype: str) -> list[Any]:
    """Start the run that writes the export. Raises ValueError when the format cannot hold the model."""
    model = shelf.own(chosen, request)
    config = config_of(model.name, format, dtype)
    convert.size(config.model, config.format, config.dtype)
    Run.create("export", to_dict(config), owner(request), name=name_of(config))
    dispatch.pump()
    return follow(request)


def follow(request: gr.Request) -> list[Any]:
    """The visitor's exports, the clock, and which of them can be pushed."""
    html, timer = transfers.follow(request, "export")
    names = pushable(request)
    return [html, timer, gr.update(choices=names, value=names[0] if names else None)]


def act(request: gr.Request, event: gr.EventData) -> list[Any]:
    """A click in the list of exports."""
    transfers.act(request, "export", event)
    return follow(request)


# ---- To the Hub ----------------------------------------------------------------------------------------------------


def pushable(request: gr.Request | None) -> list[str]:
    """The visitor's finished exports, newest first."""
    return [run.name for run in transfers.own_runs("export", request) if pushed_path(run)]


def pushed_path(run: Run) -> Path | None:
    """What of an export goes to the Hub: its folder, or its file where it is one."""
    file = transfers.result_file(run)
    if file is None:
        return None
    result = next(event for event in reversed(run.events()) if event["kind"] == "result")
    folder = run.path / result["folder"] if result.get("folder") else file
    return folder if run.path.resolve() in folder.resolve().parents and folder.exists() else None


def push(request: gr.Request, name: str, repo: str, token: str, public: bool):
    """Put a finished export into a new repository of the visitor's account; the token is used for this call only."""
    if not name:
        raise ValueError("Write an export first: what is pushed is a finished one.")
    if not repo or not repo.strip():
        raise ValueError("Name the repository first: NAME, or ORGANISATION/NAME.")
    source = pushed_path(transfers.own(name, request))
    if source is None:
        raise ValueError(f"The export {name} is not there any more: write it again.")
    yield message("Asking the Hub ..."), gr.skip()
    page = hub.push(source, repo.strip(), token or "", private=not public)
    yield figures.pushed(page, not public), ""


# ---- The page ------------------------------------------------------------------------------------------------------


def build(view: View, chosen: gr.Textbox) -> gr.HTML:
    """The room in which a model is written in the format of other tools; returns the list of exports."""
    with gr.Row(elem_classes="md-anatomy"):
        with gr.Column(scale=6, min_width=320):
            format = gr.Radio(
                [(exporter.title, key) for key, exporter in EXPORTERS.items()], value="hf", label="Format",
                elem_id="models-format",
            )  # fmt: skip
            dtype = Choice(
                list(FORMATS["hf"]),
                value=FORMATS["hf"][0],
                label="Number format of the weights",
                elem_id="models-dtype",
            )
            size = gr.HTML(padding=False, elem_id="models-export-plan")
            go = gr.Button("Write it", variant="primary", elem_id="models-export")
            with gr.Accordion("The command that it runs", open=False, elem_classes="lab-quiet"):
                line = gr.Code(
                    language="shell", interactive=False, show_label=False, wrap_lines=True, lines=1,
                    elem_id="models-export-command",
                )  # fmt: skip
            written, clock = transfers.listed("export", "models-exports")
            with gr.Accordion("Push to the Hugging Face Hub", open=False, elem_classes="lab-quiet"):
                which = Choice([], label="Finished export", elem_id="models-push-which")
                repo = gr.Textbox(
                    label="New repository",
                    placeholder="NAME or ORGANISATION/NAME",
                    max_lines=1,
                    elem_id="models-push-repo",
                )
                token = gr.Textbox(
                    label="Your token with the right to write (used once, not kept)", type="password", max_lines=1,
                    elem_id="models-push-token",
                )  # fmt: skip
                public = gr.Checkbox(
                    False, label="Anyone may see it (else it is private)", elem_id="models-push-public"
                )
                give = gr.Button("Push it", size="sm", elem_id="models-push")
                given = gr.HTML(padding=False, elem_id="models-pushed")
        with gr.Column(scale=7, min_width=320):
            section("What opens it", "The exact commands, for the name that the export gets.")
            commands = gr.HTML(padding=False, elem_id="models-recipes", js_on_load=figures.COPY)
            section(
                "Use it over HTTP",
                "This page serves the model itself, as OpenAI's API does: nothing has to be written.",
            )
            asked = gr.HTML(padding=False, elem_id="models-http", js_on_load=figures.COPY)
    show_code("llm.convert.families:their_config", "llm.convert.families:to_theirs")
    view.keep("format", format)
    quick = dict(api_visibility="private", show_progress="hidden", queue=False)
    inputs, outputs = [chosen, format, dtype], [size, line, commands, go]
    format.input(choose_format, format, dtype, **quick)
    gr.on(
        [chosen.change, format.change, dtype.change],
        plain_errors(plan),
        inputs,
        outputs,
        trigger_mode="always_last",
        **quick,
    )
    chosen.change(plain_errors(http), chosen, asked, trigger_mode="always_last", **quick)
    seen = [written, clock, which]
    go.click(plain_errors(start), inputs, seen, **quick).success(plain_errors(plan), inputs, outputs, **quick)
    clock.tick(follow, None, seen, **quick)
    written.click(plain_errors(act), None, seen, **quick)
    give.click(
        plain_errors(push), [which, repo, token, public], [given, token], api_visibility="private", show_progress="hidden",
        concurrency_id="push", concurrency_limit=2,
    )  # fmt: skip
    view.on_load(choose_format, dtype, format)
    view.on_load(plain_errors(plan), outputs, inputs)
    view.on_load(plain_errors(http), asked, chosen)
    view.on_load(follow, seen)
    return written
