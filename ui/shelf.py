"""Whose model is which: the models that a visitor may see, and those they may delete."""

from __future__ import annotations

import gradio as gr

from llm import inventory
from llm.modes import is_shared
from ui import pickers
from ui.owner import may_use, owner


def visible(request: gr.Request | None) -> list[inventory.Present]:
    """The models that the visitor may see: built-in ones, and those of their own runs and imports."""
    visitor = owner(request)
    return [model for model in inventory.models() if not model.owner or may_use(model.owner, visitor)]


def may_delete(model: inventory.Present, request: gr.Request | None) -> bool:
    """Whether the visitor may delete it. On a shared page a model without an owner belongs to no visitor."""
    if model.kind == "built in" or "@" in model.name:
        return False
    return may_use(model.owner, owner(request)) if model.owner else not is_shared()


def own(name: str, request: gr.Request | None) -> inventory.Present:
    """A model that the visitor may see. Raises ValueError when there is none of that name."""
    model = inventory.read(name)
    if model.owner and not may_use(model.owner, owner(request)):
        raise ValueError(
            f"There is no model called {str(name)[:80]!r} here (or it is not written to its end)."
        )
    return model


def current(name: str, request: gr.Request | None) -> inventory.Present:
    """The model of this name, or the one the page opens with when it has gone."""
    try:
        return own(name, request)
    except ValueError:
        return inventory.read(pickers.first_model())
