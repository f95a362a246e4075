"""Models behind HTTP: choose a kind of server, test it, save it; from then on it takes part in the arena and as a judge."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import gradio as gr

from llm import endpoints
from llm.endpoints import PRESETS, Endpoint
from ui.figures import endpoints as figures
from ui.figures.base import message
from ui.owner import owner
from ui.parts import plain_errors, section
from ui.view import View

FIRST = "ollama"
CLICKS = """element.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-action]');
  if (!button) return;
  const { action, name } = button.dataset;
  if (action === 'delete' && !confirm(`Forget ${name} and its key?`)) return;
  trigger('click', { action, name });
});"""


def described(
    preset: str, name: str, address: str, model: str, price_in: Any, price_out: Any, request: gr.Request
) -> Endpoint:
    """What the form describes. Raises ValueError."""
    if preset not in PRESETS:
        raise ValueError("Choose a kind of server first.")
    name = (name or "").strip() or preset
    prices = [price_of(price) for price in (price_in, price_out)]
    return endpoints.checked(Endpoint(name, preset, address or "", model or "", owner(request), *prices))


def price_of(text: Any) -> float | None:
    """A price in dollars; None where none is entered. Raises ValueError."""
    if text in (None, ""):
        return None
    try:
        price = float(text)
    except (TypeError, ValueError):
        price = -1.0
    if not 0 <= price < 1e6:
        raise ValueError(
            f"The price {str(text)[:40]!r} is no number of dollars: leave it empty where it is unknown."
        )
    return price


def listed(request: gr.Request) -> str:
    """The visitor's endpoints."""
    rows = []
    for name in endpoints.names(owner(request)):
        one = endpoints.get(name)
        rows.append(
            dict(
                name=name,
                title=PRESETS[one.preset].title,
                address=one.address,
                model=one.model,
                key=bool(endpoints.key_of(one)),
            )
        )
    return figures.saved(rows)


def choose(preset: str) -> list[Any]:
    """The usual address of a kind of server, and how it is started."""
    found = PRESETS.get(preset, PRESETS["other"])
    start = f"Start it with: {found.start}." if found.start else ""
    needs = "It needs a key." if found.needs_key else ""
    return [found.address, message(" ".join(filter(None, (start, needs)))) if start or needs else ""]


@plain_errors
def test(preset, name, address, model, price_in, price_out, key, request: gr.Request) -> Iterator[str]:
    """Ask the server for its models and a few words; one sentence says what is wrong. Nothing is saved by it."""
    endpoint = described(preset, name, address, model, price_in, price_out, request)
    endpoint = replace(endpoint, trial=endpoints.checked_key(key))
    yield message(f"Asking {endpoint.address} ...")
    try:
        found = endpoints.test(endpoint)
    except ValueError as error:
        yield message(str(error), "error")
        return
    yield figures.tested(found)


@plain_errors
def save(preset, name, address, model, price_in, price_out, key, request: gr.Request) -> list[Any]:
    """Keep the endpoint; its key goes to a file of its own and leaves the page."""
    kept = endpoints.save(described(preset, name, address, model, price_in, price_out, request), key or "")
    return [
        listed(request),
        message(f"Saved as {kept.name}: choose endpoint:{kept.name} in the Arena or as a judge."),
        "",
    ]


def clicked(event: gr.EventData, request: gr.Request) -> list[Any]:
    """A button of the list."""
    return act(str(event._data.get("action")), str(event._data.get("name")), request)


@plain_errors
def act(action: str, name: str, request: gr.Request) -> list[Any]:
    """Forget an endpoint, or bring it into the form."""
    if action == "delete":
        endpoints.delete(name, owner(request))
        return [listed(request), *[gr.skip()] * 6]
    one = endpoints.get(name, owner(request))
    return [
        gr.skip(),
        one.preset,
        one.name,
        one.address,
        one.model,
        *(f"{p:g}" if p is not None else "" for p in (one.price_in, one.price_out)),
    ]


def build(view: View) -> None:
    """Lay out the room and wire it."""
    section(
        "Models behind HTTP",
        "A server on this machine or elsewhere: it takes part in the Arena and judges in Evaluate. Keys lie in a file "
        "that only its user can read, and go to their own host only.",
    )
    have = gr.HTML(padding=False, js_on_load=CLICKS, apply_default_css=False, elem_id="endpoints-list")
    with gr.Row(elem_classes="md-anatomy"):
        with gr.Column(scale=5, min_width=320):
            preset = gr.Dropdown([(one.title, key) for key, one in PRESETS.items()], value=FIRST, label="Server", elem_id="endpoints-preset")  # fmt: skip
            hint = gr.HTML(choose(FIRST)[1], padding=False, elem_id="endpoints-hint")
            address = gr.Textbox(
                PRESETS[FIRST].address, label="Address", max_lines=1, elem_id="endpoints-address"
            )
            model = gr.Textbox(label="Model, as the server calls it (Test lists them)", max_lines=1, elem_id="endpoints-model")  # fmt: skip
            key = gr.Textbox(label="Key, where one is needed (env:NAME reads it from the environment)", type="password", max_lines=1, elem_id="endpoints-key")  # fmt: skip
        with gr.Column(scale=5, min_width=320):
            name = gr.Textbox(label="Call it (optional)", max_lines=1, elem_id="endpoints-name")
            with gr.Row(elem_classes="train-pair"):
                price_in = gr.Textbox(label="Dollars for a million tokens read (optional)", max_lines=1, elem_id="endpoints-price-in", min_width=140)  # fmt: skip
                price_out = gr.Textbox(label="Dollars for a million written (optional)", max_lines=1, elem_id="endpoints-price-out", min_width=140)  # fmt: skip
            with gr.Row(elem_classes="train-pair"):
                try_it = gr.Button("Test", elem_id="endpoints-test", min_width=120)
                keep = gr.Button("Save", variant="primary", elem_id="endpoints-save", min_width=120)
            said = gr.HTML(padding=False, elem_id="endpoints-said")
    quiet = dict(api_visibility="private", show_progress="hidden", queue=False)
    form = [preset, name, address, model, price_in, price_out]
    preset.input(choose, preset, [address, hint], **quiet)
    try_it.click(test, [*form, key], said, api_visibility="private", show_progress="hidden", concurrency_id="endpoints", concurrency_limit=4)  # fmt: skip
    keep.click(save, [*form, key], [have, said, key], **quiet)
    have.click(clicked, None, [have, *form], **quiet)
    view.on_load(listed, have)
    view.on_select(listed, have)
