"""Evaluate: is it any good? On a text, on a benchmark, in the eyes of a judge."""

from __future__ import annotations

import gradio as gr

from ui import eval_benchmarks, eval_judge, eval_text
from ui.parts import intro
from ui.view import View

ROOMS = {  # name in the address bar: title, module
    "text": ("On a text", eval_text),
    "benchmarks": ("Benchmarks", eval_benchmarks),
    "judge": ("A judge", eval_judge),
}


def enter(room: str) -> list[dict]:
    """Show one room."""
    return [gr.update(visible=name == room) for name in ROOMS]


def build(view: View) -> None:
    """Lay out the tab and wire it."""
    intro(
        "A good model is seldom surprised by texts like those it learned from, and often by others.",
        "Point at the tokens after the blank line: the same model, and a sentence from another world.",
    )
    choices = [(title, name) for name, (title, _) in ROOMS.items()]
    room = gr.Radio(
        choices,
        value="text",
        show_label=False,
        container=False,
        elem_id="evaluate-room",
        elem_classes="lab-rooms",
    )
    view.keep("room", room)
    places = {name: gr.Column(visible=name == "text", elem_id=f"evaluate-room-{name}") for name in ROOMS}
    for name, (_, module) in ROOMS.items():
        with places[name]:
            module.build(view)
    room.change(enter, room, list(places.values()), api_visibility="private", show_progress="hidden", queue=False)  # fmt: skip
    view.on_load(enter, list(places.values()), room)
