"""Train: choose a text and a model, press Start, and watch the loss fall; every run stays here and can be gone on with."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from llm import commands, corpora, files, paths
from llm.config import PRESETS, ModelConfig, RunConfig, TrainConfig, knobs
from llm.corpora import downloads
from llm.runs import new_name
from ui import forms, keeping, pickers, plans, running, sweeps
from ui.figures import train as figures
from ui.figures.base import message, size
from ui.owner import brought, refuse_full
from ui.parts import intro, plain_errors, show_code
from ui.plans import (
    NotReady,
    check_text,
    measured,
    measurement_path,
    refused,
    resolved,
    shape_of,
    token_count,
)
from ui.view import View

SCRATCH = "scratch"  # new random weights
FIRST_PRESET = "0.7M  story teller"
MODEL_FIELDS = tuple(
    k.name for advanced in (False, True) for k in knobs(ModelConfig) if k.advanced is advanced
)
TRAIN_FIELDS = tuple(
    k.name for advanced in (False, True) for k in knobs(TrainConfig) if k.advanced is advanced
)
RUN_FIELDS = ("prompts", "sample_tokens")
ROOM = running.Room(
    belongs=lambda config: not running.is_tuning(config),
    exemplary=lambda start: not running.is_tuning(start) and start.get("trained", "all") == "all",
)


# --- what the form says ----------------------------------------------------------------------------------------------


def settings(dataset: str | None, encoding: str | None, start_from: str | None, *values: Any) -> RunConfig:
    """The run that the form describes. Raises NotReady or ValueError.

    `values` hold the widgets of MODEL_FIELDS, TRAIN_FIELDS and RUN_FIELDS in this order.
    """
    if not dataset:
        raise NotReady("Choose a dataset")
    m, t = len(MODEL_FIELDS), len(MODEL_FIELDS) + len(TRAIN_FIELDS)
    train = forms.read(TrainConfig, TRAIN_FIELDS, values[m:t])
    others = dict(dataset=dataset, train=train)
    if start_from and start_from != SCRATCH:
        return forms.read(RunConfig, RUN_FIELDS, values[t:], start_from=start_from, **others)
    if not encoding:
        raise NotReady("Choose an encoding")
    model = forms.read(ModelConfig, MODEL_FIELDS, values[:m])
    return forms.read(RunConfig, RUN_FIELDS, values[t:], tokenizer=encoding, model=model, **others)


def ready(*form: Any) -> tuple[RunConfig, RunConfig, int]:
    """The form's run as it will be stored, the same `resolved`, and how many tokens its text has. Raises ValueError."""
    config = settings(*form)
    full = resolved(config)
    tokens = token_count(config)
    check_text(full)
    return config, full, tokens


# --- what Start will do ----------------------------------------------------------------------------------------------


def preview(name: str, *form: Any) -> list[Any]:
    """The plan, the remark, the command and the Start button for what the form holds now."""
    try:
        config, full, tokens = ready(*form)
        if name:
            running.free_name(name)
    except ValueError as error:
        return refused(error)
    command = commands.command_line("train", name or new_name(config.dataset), config)
    button = gr.update(value="Start training", interactive=True)
    return [figures.plan(plan(full, tokens)), "", command, button]


def plan(config: RunConfig, tokens: int) -> dict[str, Any]:
    """What is known of a run before it starts: formulas at once, measured values when they have been taken."""
    step = config.train.batch_size * config.model.context_length
    known = {
        "parameters": sum(config.model.parameters().values()),
        "tokens_per_step": step,
        "passes": step * config.train.max_steps / max(tokens * (1 - config.train.validation_fraction), 1),
    }
    if found := measured(config):
        known |= {
            "memory": sum(found["memory"].values()),
            "flops": found["flops_per_step"] * config.train.max_steps,
            "seconds": found["seconds_per_step"] * config.train.max_steps,
            "threads": found["threads"],
            "precision": found["precision"],
        }
    return known


def measure(*form: Any) -> str:
    """Run a few steps of such a training in a process of its own and keep what they cost; "" or what failed.

    Nothing is measured when the form is not ready or it was done before.
    """
    try:
        _, config, _ = ready(*form)
    except ValueError:
        return ""
    return plans.measure(config)


def planned(failed: str, *form: Any) -> Any:
    """The plan of what the form holds now, which may be another run than the one that was just measured."""
    try:
        _, config, tokens = ready(*form)
    except ValueError:
        return gr.skip()
    known = plan(config, tokens)
    if failed and failed == measurement_path(config).name:
        known["remark"] = "This size could not be measured on this machine."
    return figures.plan(known)


def choose_size(preset: str) -> list[Any]:
    """The model widgets' values for a preset of PRESETS."""
    config = ModelConfig(**PRESETS[preset]) if preset in PRESETS else ModelConfig()
    return [forms.shown(getattr(config, name)) for name in MODEL_FIELDS]


def choose_start(start_from: str) -> list[Any]:
    """Show the shape and encoding widgets only for a start from scratch; else say what the model brings."""
    scratch = not start_from or start_from == SCRATCH
    note = ""
    if not scratch:
        config = shape_of(start_from)
        parameters = sum(config.parameters().values())
        note = message(
            f"{start_from} brings its shape and encoding: {parameters:,} parameters, {config.n_layer} layers of width "
            f"{config.n_embd}, {config.context_length} tokens of context, {config.vocab_size:,} ids."
        )
    return [gr.update(visible=scratch), gr.update(visible=scratch), gr.update(value=note, visible=bool(note))]


def add_text(upload: str | None, pasted: str, name: str) -> list[Any]:
    """Keep an uploaded file or a pasted text as a dataset and choose it. Raises ValueError with what is wrong."""
    if upload:
        wish = name.strip() or Path(upload).name
        refuse_full(Path(upload).stat().st_size)
        made = brought(files.save_upload(Path(upload), wish))
    elif pasted and pasted.strip():
        refuse_full(len(pasted))
        made = brought(files.save_upload(pasted, name.strip() or "my text"))
    else:
        raise ValueError("There is no text yet: choose a file or paste some text first.")
    notes = " ".join(files.read_text(corpora.path(made)).notes)
    length = corpora.path(made).stat().st_size
    said = message(f"Added as {made} ({size(length)}) and chosen above. {notes}".strip())
    return [gr.update(choices=pickers.dataset_names(), value=made), said, None, ""]


def fetch_known(name: str) -> Iterator[list[Any]]:
    """Download a known public text, telling how far it is; it is chosen when it is here. Raises ValueError.

    A download that is cut, or left by closing the tab, goes on from there the next time.
    """
    told = 0.0
    for done, total in downloads.steps(name):
        if time.monotonic() - told > 0.3:
            told = time.monotonic()
            yield [gr.skip(), figures.download(done, total)]
    stem = Path(downloads.named(name).file).stem
    said = f"{downloads.named(name).title} is here ({downloads.trust(name)}) and chosen above."
    yield [gr.update(choices=pickers.dataset_names(), value=stem), message(said)]


def known_texts() -> list[tuple[str, str]]:
    """The public texts that can be fetched: (title with size, licence and what is known of the bytes, name)."""
    return [
        (f"{text.title}: {size(text.size)}, {text.licence}, {downloads.trust(name)}", name)
        for name, text in downloads.DOWNLOADS.items()
    ]


# --- runs ------------------------------------------------------------------------------------------------------------


def start(request: gr.Request, name: str, *form: Any) -> list[Any]:
    """Start the run that the form describes. A double click is one run.

    Raises ValueError with one sentence when the form is not ready.
    """
    config, _, _ = ready(*form)
    return ROOM.begin(request, name, config)


# --- the page --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Controls:
    """The widgets of the left column: those that make a run, and what shows what it will be."""

    name: gr.Textbox
    form: list[
        gr.components.Component
    ]  # dataset, encoding, start_from, MODEL_FIELDS, TRAIN_FIELDS, RUN_FIELDS
    plan: gr.HTML
    remark: gr.HTML
    command: gr.Code
    start: gr.Button
    failed: gr.State  # the measurement that could not be made


def text_controls(dataset: gr.Dropdown) -> None:
    """Add a text of the visitor's own to the list of datasets."""
    with gr.Accordion("Use a text of your own", open=False, elem_classes="lab-quiet"):
        limit = size(files.upload_limit())
        upload = gr.File(
            label=f"Text file, at most {limit} (any character set; no PDF or Word)",
            type="filepath",
            height=110,
            elem_id="train-upload",
        )
        pasted = gr.Textbox(label="Or paste it", lines=4, max_lines=8, elem_id="train-paste")
        wish = gr.Textbox(label="Name (optional)", elem_id="train-text-name", max_lines=1)
        add = gr.Button("Add this text", size="sm", elem_id="train-add")
        said = gr.HTML(padding=False, elem_id="train-added")
        texts = known_texts()
        known = gr.Dropdown(texts, value=texts[0][1], label="Or a known public text", elem_id="train-known")
        with gr.Row(elem_classes="train-pair"):
            fetch = gr.Button("Fetch it", size="sm", elem_id="train-fetch")
            halt = gr.Button("Stop fetching", size="sm", elem_id="train-fetch-stop")
        fetched = gr.HTML(padding=False, elem_id="train-fetched")
    add.click(
        plain_errors(add_text), [upload, pasted, wish], [dataset, said, upload, pasted], api_visibility="private",
        concurrency_id="uploads", concurrency_limit=2,
    )  # fmt: skip
    going = fetch.click(
        plain_errors(fetch_known), known, [dataset, fetched], api_visibility="private", show_progress="hidden",
        concurrency_id="downloads", concurrency_limit=2,
    )  # fmt: skip
    halt.click(
        lambda: message("Stopped; what has arrived is kept, and the next try goes on from there."), None, fetched,
        cancels=going, api_visibility="private", queue=False,
    )  # fmt: skip


def controls(view: View) -> Controls:
    """Lay out the left column and wire what happens before Start."""
    with gr.Row(elem_classes="train-pair"):
        dataset = pickers.dataset_picker(view, preferred="stories", min_width=140)
        start_from = pickers.picker(
            view, "start_from", lambda: [SCRATCH, *paths.model_names()], "Start from", SCRATCH, min_width=140
        )
    text_controls(dataset)
    brought = gr.HTML(padding=False, visible=False)
    with gr.Row(elem_classes="train-pair") as scratch:
        encoding = pickers.encoding_picker(view, preferred="stories-1280", min_width=140)
        preset = gr.Dropdown(
            list(PRESETS), value=FIRST_PRESET, label="Size", elem_id="train-size", min_width=140
        )
    pace = forms.form(TrainConfig, "train", advanced=False)
    with gr.Accordion("Shape of the model", open=False, elem_classes="lab-quiet") as shape:
        opening = ModelConfig(**PRESETS[FIRST_PRESET])
        simple_model = forms.form(ModelConfig, "train", advanced=False, defaults=opening)
        with gr.Accordion("More of the shape", open=False, elem_classes="lab-quiet"):
            more_model = forms.form(ModelConfig, "train", advanced=True, defaults=opening)
    with gr.Accordion("More settings", open=False, elem_classes="lab-quiet"):
        more_pace = forms.form(TrainConfig, "train", advanced=True)
        run = forms.form(RunConfig, "train", names=RUN_FIELDS)
        name = gr.Textbox(label="Name of the run (optional)", max_lines=1, elem_id="train-name")
    model, train = forms.merged(simple_model, more_model), forms.merged(pace, more_pace)
    form = [dataset, encoding, start_from, *model.widgets, *train.widgets, *run.widgets]
    for part in (model, train, run):
        for field, widget in zip(part.names, part.widgets):
            view.keep(field, widget)
    plan_box = gr.HTML(padding=False, elem_id="train-plan")
    remark = gr.HTML(padding=False, elem_id="train-remark")
    button = running.start_button("train")
    with gr.Accordion("The command that Start runs", open=False, elem_classes="lab-quiet"):
        command = gr.Code(
            language="shell",
            interactive=False,
            show_label=False,
            wrap_lines=True,
            lines=2,
            elem_id="train-command",
        )
    made = Controls(name, form, plan_box, remark, command, button, gr.State(""))
    preset.input(
        choose_size,
        preset,
        list(model.widgets),
        api_visibility="private",
        show_progress="hidden",
        queue=False,
    )
    start_from.change(
        plain_errors(choose_start),
        start_from,
        [scratch, shape, brought],
        api_visibility="private",
        show_progress="hidden",
        queue=False,
    )
    foresee(made)
    return made


def foresee(made: Controls) -> None:
    """Redraw the plan whenever a setting changes, then measure what is not measured yet."""
    changed = gr.on(
        [widget.change for widget in (made.name, *made.form)],
        preview, [made.name, *made.form], [made.plan, made.remark, made.command, made.start],
        api_visibility="private", show_progress="hidden", queue=False, trigger_mode="always_last",
    )  # fmt: skip
    changed.then(
        measure, made.form, made.failed, api_visibility="private", show_progress="hidden", concurrency_id="forecast",
        concurrency_limit=1, trigger_mode="always_last",
    ).then(
        planned, [made.failed, *made.form], made.plan, api_visibility="private", show_progress="hidden", queue=False
    )  # fmt: skip


def build(view: View) -> None:
    """Lay out the tab and wire it."""
    intro(
        "Training and validation loss fall together while what the model writes turns into language.",
        "Start a run as the form stands, then lay a second one with ten times the learning rate over it.",
    )
    if said := keeping.where_trained():
        gr.HTML(said, padding=False, apply_default_css=False, js_on_load=None)
    shown, others = running.names(view, "train")
    with gr.Row(elem_classes="train-room"):
        with gr.Column(scale=4, min_width=320, elem_classes="train-form"):
            made = controls(view)
        with gr.Column(scale=7, min_width=320):
            watched = running.watched(shown, others, "train")

    sweeps.build(view, ready, made.form, shown, others, watched, ROOM)
    show_code(
        "llm.train:update", "llm.losses:next_token", "llm.losses:worked_out", "llm.optim:learning_rate", "llm.halving:standing",
        "llm.halving:best", "llm.sweep:combinations",
    )  # fmt: skip
    running.wire(view, ROOM, watched)
    view.on_load(preview, [made.plan, made.remark, made.command, made.start], [made.name, *made.form])
    view.on_load(measure, made.failed, made.form, slow=True)
    view.on_load(planned, made.plan, [made.failed, *made.form])
    made.start.click(
        plain_errors(start), [made.name, *made.form], [shown, others, *watched.views], api_visibility="private",
        show_progress="hidden", queue=False,
    )  # fmt: skip
