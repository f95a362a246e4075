"""Finetune: from a base model to an assistant, a classifier, or a model that answers as people chose; four rooms around one form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from llm import chat, paths, prompts
from llm.tuning_defaults import DEFAULTS, defaults
from ui import choosing, keeping, pickers, tune_rows, tuned, tuning
from ui.allowed import gate
from ui.owner import may_read
from ui.parts import Choice
from ui.view import View

OBJECTIVES = {
    "instruct": "Instructions",
    "classify": "Classes",
    "prefer": "Preferences",
    "pretrain": "Plain text",
}
FIRST = "instruct"
ROOMS = {  # name in the address bar: title, what builds it
    "data": ("Data", tune_rows),
    "tune": ("Tune", tuning),
    "try": ("Try it", tuned),
    "choose": ("Choose answers", choosing),
}
OWN = ("The model's own chat template", "own")


@dataclass(frozen=True)
class Shared:
    """The controls above the rooms: what is learnt, by which model, from which rows, and how they are written."""

    objective: gr.Radio
    model: gr.Dropdown
    dataset: gr.Dropdown
    style: gr.Dropdown
    mask_prompt: gr.Checkbox
    packing: gr.Checkbox
    max_length: gr.Number

    @property
    def form(self) -> list[gr.components.Component]:
        """All of them, in the order in which handlers take them."""
        return [
            self.objective, self.model, self.dataset, self.style, self.mask_prompt, self.packing, self.max_length
        ]  # fmt: skip


# ---- What there is to choose from --------------------------------------------------------------------------------


def datasets(objective: str) -> list[str]:
    """What an objective can learn from: rows of its kind, or the texts; those shipped first."""
    if objective == "pretrain":
        return pickers.dataset_names()
    return [name for name in pickers.row_names() if tune_rows.kind_of_rows(name) in prompts.KINDS[objective]]


def styles(model: str | None) -> list[tuple[str, str]]:
    """The prompt styles, and the model's own template where it has one: (label, name)."""
    found = [(style.label, name) for name, style in prompts.STYLES.items()]
    try:
        own = bool(model) and bool(chat.read(paths.model_folder(model)).template)
    except ValueError:  # the model has gone, or its template cannot be read
        own = False
    return [*found, OWN] if own else found


def fitting(objective: str, model: str | None, dataset: str | None, style: str | None) -> list[Any]:
    """Dataset, style, masking, packing and length as they fit objective and model; what still fits stays as it is."""
    objective = objective if objective in OBJECTIVES else FIRST
    opening, names, known = defaults(objective), datasets(objective), styles(model)
    fallback = opening.dataset if opening.dataset in names else next(iter(names), None)
    said = [name for _, name in known]
    return [
        gr.update(choices=names, value=dataset if dataset in names else fallback),
        gr.update(
            choices=known,
            value=style if style in said else opening.tune.prompt_style,
            visible=objective in ("instruct", "prefer"),
        ),
        gr.update(visible=objective == "instruct"),
        gr.update(visible=objective == "instruct"),
        gr.update(visible=objective != "pretrain"),
    ]


def chosen(objective: str) -> list[Any]:
    """Masking, packing and length that an objective is best begun with (the Tune room sets the style, with its own fields)."""
    tune = defaults(objective if objective in DEFAULTS else FIRST).tune
    return [tune.mask_prompt, tune.packing, tune.max_length]


# ---- The page ----------------------------------------------------------------------------------------------------


def controls(view: View) -> Shared:
    """Lay out the controls above the rooms and wire what depends on what."""
    opening = defaults(FIRST)
    with gr.Row(elem_classes="ft-shared"):
        objective = gr.Radio(
            [(title, name) for name, title in OBJECTIVES.items()], value=FIRST, label="What is learnt",
            elem_id="finetune-objective", scale=4, min_width=300,
        )  # fmt: skip
        model = pickers.model_picker(view, label="Start from", scale=2, min_width=150)
        dataset = Choice(
            datasets(FIRST), value=opening.dataset, label="Dataset", elem_id="finetune-dataset", scale=2, min_width=150,
            interactive=True, allow_custom_value=True,  # a handler may be asked while the list is still that of before
        )  # fmt: skip
        gate(dataset, may_read)
    with gr.Row(elem_classes="ft-shared", equal_height=True):
        style = Choice(
            [*styles(None), OWN], value=opening.tune.prompt_style, label="Prompt style", elem_id="finetune-style", scale=3,
            min_width=260, interactive=True,
        )  # fmt: skip
        mask = gr.Checkbox(
            opening.tune.mask_prompt, label="Learn answers only", info="Off: the prompts are learnt too.",
            elem_id="finetune-mask", scale=2, min_width=170,
        )  # fmt: skip
        packing = gr.Checkbox(
            opening.tune.packing, label="Pack rows", info="Short ones share a line of the batch.",
            elem_id="finetune-packing", scale=2, min_width=170,
        )  # fmt: skip
        length = gr.Number(
            opening.tune.max_length, label="Most tokens of a row", info="0: the model's context", precision=0, minimum=0,
            elem_id="finetune-length", scale=2, min_width=150,
        )  # fmt: skip
    view.keep("objective", objective)
    view.keep("dataset", dataset, restore=lambda text: gr.update(value=text or opening.dataset,
              choices=[*pickers.row_names(), *pickers.dataset_names()]))  # fmt: skip
    view.keep("style", style)
    view.keep("mask", mask)
    view.keep("packing", packing)
    view.keep("length", length)
    quiet = dict(api_visibility="private", show_progress="hidden", queue=False)
    asked, fitted = [objective, model, dataset, style], [dataset, style, mask, packing, length]
    view.on_load(fitting, fitted, asked)
    view.on_select(fitting, fitted, asked)
    gr.on([objective.change, model.change, dataset.focus], fitting, asked, fitted, **quiet)
    objective.input(chosen, objective, [mask, packing, length], **quiet)
    return Shared(objective, model, dataset, style, mask, packing, length)


def build(view: View) -> None:
    """Lay out the tab and wire it."""
    if said := keeping.where_trained():
        gr.HTML(said, padding=False, apply_default_css=False, js_on_load=None)
    shared = controls(view)
    room = gr.Radio(
        [(title, name) for name, (title, _) in ROOMS.items()], value="data", show_label=False, container=False,
        elem_id="finetune-room",
    )  # fmt: skip
    view.keep("room", room)
    places = {name: gr.Column(visible=name == "data", elem_id=f"finetune-room-{name}") for name in ROOMS}
    quiet = dict(api_visibility="private", show_progress="hidden", queue=False)
    view.on_load(enter, list(places.values()), room)
    for name, (_, module) in ROOMS.items():
        with places[name]:
            module.build(view, shared)
    room.change(enter, room, list(places.values()), **quiet)


def enter(room: str) -> list[dict]:
    """Show one room; the others are not even drawn."""
    return [gr.update(visible=name == room) for name in ROOMS]
