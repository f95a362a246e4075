"""Models: what is present, the anatomy of any model, bringing one in, taking one away, a catalogue of open ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gradio as gr

from llm import anatomy, catalogue, inventory, versions
from llm.config import ModelConfig, from_dict
from llm.convert import families
from llm.modes import is_shared
from ui import belongings, endpoints, exports, imports, pickers, shelf
from ui.figures import models as figures
from ui.figures.base import message
from ui.parts import answered, intro, plain_errors, section, show_code
from ui.view import View

CHOSEN, PASTED = "the model chosen above", "a config.json that I paste"
LONGEST_CONFIG = 200_000  # characters of a pasted config.json
ROOMS = {  # name in the address bar: title
    "anatomy": "Anatomy",
    "take": "Take it away",
    "bring": "Bring a model",
    "catalogue": "Catalogue",
    "endpoints": "Endpoints",
    "texts": "Your texts",
}
SCRIPT = Path(__file__).resolve().parents[1] / "js" / "models.js"
CLICKS = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-action]');
  if (!button) return;
  const { action, name } = button.dataset;
  if (action === 'delete' && !confirm(`Delete ${name} for good?`)) return;
  trigger('click', { action, name });
});
"""
CONFIG_EXAMPLE = json.dumps(
    {
        "model_type": "llama",
        "vocab_size": 32000,
        "max_position_embeddings": 2048,
        "hidden_size": 512,
        "intermediate_size": 1376,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
    },
    indent=2,
)


# ---- What is present ---------------------------------------------------------------------------------------------


def look(request: gr.Request, name: str) -> list[str]:
    """The table of all models, and what can be done with the chosen one."""
    model = shelf.current(name, request)
    table = figures.present(shelf.visible(request), model.name, inventory.disk_used())
    kept = inventory.read(model.name.partition("@")[0]).kept
    return [table, figures.chosen(model, kept, shelf.may_delete(model, request))]


def settled(request: gr.Request, name: str) -> str:
    """The model of this name, or the one the page opens with when there is none (any more)."""
    return shelf.current(name, request).name


def corrected(request: gr.Request, name: str) -> Any:
    """Another model where a link names one that has gone; else nothing is written, as a click may have chosen meanwhile."""
    found = settled(request, name)
    return gr.skip() if found == name else found


def act(request: gr.Request, chosen: str, of: str, event: gr.EventData) -> list[str]:
    """A click in the table or beside the chosen model: choose one, or delete it. Gives what is chosen and drawn then."""
    action, name = str(event._data.get("action")), str(event._data.get("name"))
    if action == "choose":
        return [shelf.own(name, request).name, CHOSEN]
    if action == "delete":
        if not shelf.may_delete(shelf.own(name, request), request):
            raise ValueError(f"{name} is not yours to delete.")
        inventory.delete(name)
    return [settled(request, chosen), of]


def models() -> list[dict[str, Any]]:
    """The models that are present for everyone: the built-in ones and, at home, all that were made or brought here.

    Returns:
        name, kind, parameters, shape in words, context, encoding, licence, origin and bytes on the disk of each
    """
    return [
        {
            "name": model.name,
            "kind": model.kind,
            "parameters": model.parameters,
            "shape": anatomy.in_words(model.config) if model.config else "",
            "context": model.config.context_length if model.config else None,
            "encoding": model.encoding,
            "licence": model.licence,
            "origin": model.origin,
            "bytes": model.size,
        }
        for model in inventory.models()
        if model.kind == "built in" or not is_shared()
    ]


# ---- Anatomy -----------------------------------------------------------------------------------------------------


def config_of(text: str) -> ModelConfig:
    """The shape that a pasted config.json describes: one of Hugging Face's, or of this lab. Raises ValueError."""
    if not isinstance(text, str) or not text.strip():
        raise ValueError("Paste a config.json first, or choose a model above.")
    if len(text) > LONGEST_CONFIG:
        raise ValueError(
            f"That is {len(text):,} characters; a config.json has at most {LONGEST_CONFIG:,} here."
        )
    try:
        stored = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"That is no JSON: {str(error)[:120]}.") from None
    if not isinstance(stored, dict):
        raise ValueError("A config.json is an object: it begins with { and ends with }.")
    if stored.get("made_by") or "context_length" in stored:
        versions.check(stored.get("version"), inventory.VERSION, "The pasted config.json")
        config = from_dict(ModelConfig, {k: v for k, v in stored.items() if k not in ("version", "made_by")})
        if not config.vocab_size:
            raise ValueError("The config says no vocab_size: enter how many ids the encoding has.")
        return config
    return families.model_config(stored)


def subject(request: gr.Request | None, chosen: str, of: str, pasted: str) -> tuple[str, ModelConfig]:
    """What is drawn: its title and its shape. Raises ValueError when it has none."""
    if of == PASTED:
        return "The pasted config.json", config_of(pasted)
    if of and of != CHOSEN:
        return of, catalogue.find(of).shape()
    model = shelf.current(chosen, request)
    if model.config is None:
        raise ValueError(model.problem)
    return model.name, model.config


def draw(request: gr.Request, chosen: str, of: str, pasted: str, number_format: str) -> list[Any]:
    """The whole anatomy: heading, architecture, totals, formula, cache in words, curve and table, tensors."""
    number_format = number_format if number_format in figures.NUMBER_BYTES else "bf16"
    try:
        title, config = subject(request, chosen, of, pasted)
        weights = tensors(request, chosen, config) if of in ("", CHOSEN) else figures.config_tensors(config)
    except ValueError as error:
        refused = message(str(error), "error")
        return [refused, "", "", "", "", "", gr.skip(), "", ""]
    return [
        f"<p class='md-title'><b>{figures.escape(title)}</b> {figures.escape(anatomy.in_words(config))}</p>",
        figures.architecture(config),
        figures.totals(config),
        figures.behaviours(config),
        figures.by_formula(config),
        figures.cache_words(config, number_format),
        figures.cache(config, number_format),
        figures.cache_table(config),
        weights,
    ]


def tensors(request: gr.Request | None, chosen: str, config: ModelConfig) -> str:
    """The tensors of a model that is here: where those of a foreign file went, then those in our own file."""
    folder = shelf.current(chosen, request).folder
    own_list = figures.tensor_list(inventory.tensors(folder), config)
    source = inventory.read_source(folder)
    if not source.get("rows"):
        return own_list
    return figures.weight_map(source["rows"], anatomy.parameters(config)) + own_list


def drawable() -> list[str]:
    """What can be drawn besides the chosen model: a pasted config, and the catalogue's rows with a known shape."""
    return [CHOSEN, PASTED, *(entry.name for entry in catalogue.entries() if entry.config)]


# ---- Catalogue ---------------------------------------------------------------------------------------------------


@answered
def lab_catalogue(asked: dict) -> dict[str, Any]:
    """All rows of the catalogue, for the table in the browser."""
    rows = [
        {
            **{k: v for k, v in vars(entry).items() if k not in ("config", "here", "dated")},
            "opens": entry.opens,
            "drawn": entry.config is not None,
            "repo": hub_name(entry) if entry.opens and entry.kind == "model" else "",
        }
        for entry in catalogue.entries()
    ]
    return {"rows": rows, "dated": max(entry.dated for entry in catalogue.entries())}


def hub_name(entry: catalogue.Entry) -> str:
    """The id on the Hugging Face Hub that an entry's source names; "" when it lies elsewhere."""
    start = "https://huggingface.co/"
    return entry.source.removeprefix(start) if entry.source.startswith(start) else ""


# ---- The page ----------------------------------------------------------------------------------------------------


def build_anatomy(view: View, chosen: gr.Textbox) -> gr.Dropdown:
    """The room of one model's anatomy; returns the dropdown that says what is drawn."""
    with gr.Row(elem_classes="md-anatomy"):
        with gr.Column(scale=7, min_width=320):
            of = gr.Dropdown(drawable(), value=CHOSEN, label="Draw", elem_id="models-of")
            pasted = gr.Textbox(
                CONFIG_EXAMPLE,
                label="config.json",
                lines=8,
                max_lines=16,
                visible=False,
                elem_id="models-config",
            )
            title = gr.HTML(padding=False, elem_id="models-title")
            flow = gr.HTML(padding=False, elem_id="models-flow")
        with gr.Column(scale=6, min_width=320):
            totals = gr.HTML(padding=False, elem_id="models-totals")
            known = gr.HTML(padding=False, elem_id="models-behaviours")
            with gr.Accordion("Parameters and memory by formula", open=False, elem_classes="lab-quiet"):
                formula = gr.HTML(padding=False, elem_id="models-formula")
            section(
                "KV cache",
                "Keys and values of every token so far, kept so that a new token costs one token's work.",
            )
            numbers = gr.Radio(
                list(figures.NUMBER_BYTES), value="bf16", label="Number format", show_label=False, container=False,
                elem_id="models-cache-format",
            )  # fmt: skip
            said = gr.HTML(padding=False, elem_id="models-cache-words")
            curve = gr.Plot(show_label=False, elem_id="models-cache-curve")
            with gr.Accordion("The numbers", open=False, elem_classes="lab-quiet"):
                cells = gr.HTML(padding=False, elem_id="models-cache-table")
    with gr.Accordion("Every tensor, and where it came from", open=False, elem_classes="lab-quiet"):
        weights = gr.HTML(padding=False, elem_id="models-tensors")
    show_code(
        "llm.anatomy:parts",
        "llm.config:ModelConfig.parameters",
        "llm.anatomy:cache_bytes",
        "llm.model:KVCache",
    )
    view.keep("of", of)
    view.keep("config", pasted)
    view.keep("cache", numbers)
    quick = dict(api_visibility="private", show_progress="hidden", queue=False, trigger_mode="always_last")
    inputs = [chosen, of, pasted, numbers]
    outputs = [title, flow, totals, known, formula, said, curve, cells, weights]
    gr.on([widget.change for widget in inputs], plain_errors(draw), inputs, outputs, **quick)
    of.change(lambda of: gr.update(visible=of == PASTED), of, pasted, **quick)
    view.on_load(lambda of: gr.update(visible=of == PASTED), pasted, of)
    view.on_load(plain_errors(draw), outputs, inputs)
    return of


def build(view: View) -> None:
    """Lay out the tab and wire it."""
    intro(
        "A model is a few large tables of numbers: see which, how large, and what they cost in memory.",
        "Draw Llama 3 8B beside a model made here, then watch its KV cache grow with the context.",
    )
    # what is restored, so that nothing changes and nothing is drawn before the tab is shown
    chosen = gr.Textbox(pickers.first_model(), visible="hidden", elem_id="models-chosen", show_label=False)
    source = gr.Textbox(visible="hidden", elem_id="models-source", show_label=False)
    view.keep("model", chosen, restore=lambda text: text or pickers.first_model())
    clicks = dict(js_on_load=CLICKS, padding=False, apply_default_css=False)
    here = gr.HTML(elem_id="models-present", **clicks)
    about = gr.HTML(elem_id="models-about", **clicks)
    room = gr.Radio(
        [(title, name) for name, title in ROOMS.items()], value="anatomy", show_label=False, container=False,
        elem_id="models-room", elem_classes="lab-rooms",
    )  # fmt: skip
    view.keep("room", room)
    places = {name: gr.Column(visible=name == "anatomy", elem_id=f"models-room-{name}") for name in ROOMS}
    with places["anatomy"]:
        of = build_anatomy(view, chosen)
    with places["take"]:
        written = exports.build(view, chosen)
    with places["bring"]:
        brought, repo, place = imports.build(view, source)
    with places["catalogue"]:
        listed = gr.HTML(
            html_template="<div class='md-catalogue'></div>", js_on_load=SCRIPT.read_text(encoding="utf-8"),
            server_functions=[lab_catalogue], apply_default_css=False, padding=False, elem_id="models-catalogue",
        )  # fmt: skip
    with places["endpoints"]:
        endpoints.build(view)
    with places["texts"]:
        belongings.build(view)
    quiet = dict(api_visibility="private", show_progress="hidden", queue=False)
    room.change(enter, room, list(places.values()), **quiet)
    view.on_load(enter, list(places.values()), room)
    view.on_load(corrected, chosen, chosen)
    view.on_load(look, [here, about], chosen)
    # one event for all that changes the table: of two answers, the one to the last choice is shown
    changes = [chosen.change, brought.change, written.change, view.again.change]
    gr.on(changes, look, chosen, [here, about], trigger_mode="always_last", **quiet)
    gr.on([here.click, about.click], plain_errors(act), [chosen, of], [chosen, of], **quiet)
    listed.click(from_catalogue, None, [of, room, repo, place], **quiet)
    gr.api(plain_errors(models), api_name="models")


def enter(room: str) -> list[dict]:
    """Show one room; the others are not even drawn."""
    return [gr.update(visible=name == room) for name in ROOMS]


def from_catalogue(event: gr.EventData) -> list[Any]:
    """A click in the catalogue: draw a row, or bring the model of a repository."""
    action, name = str(event._data.get("action")), str(event._data.get("name"))
    if action == "bring":
        return [gr.skip(), "bring", name, "hub"]
    drawn = name if name in drawable() else gr.skip()
    return [drawn, "anatomy", gr.skip(), gr.skip()]
