"""Dropdowns of what is on the disk: models, encodings, datasets, runs. Names only; read again whenever the tab is shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import gradio as gr

from llm import corpora, paths, speakers
from ui.allowed import Rule, gate
from ui.owner import Visitor, here, may_open, may_read
from ui.parts import Choice
from ui.view import View

FIRST_MODEL = "story-llama"  # what the page opens with


def listed(names: Iterable[str], rule: Rule, visitor: str) -> list[str]:
    """The names that a visitor may use, without those whose files cannot be read: who asks for such a one is told why."""

    def may(name: str) -> bool:
        try:
            return rule(name, visitor)
        except ValueError:
            return False

    return [name for name in names if may(name)]


def model_names() -> list[str]:
    """Models that can be opened: made here, built in, those of runs, each with the steps it kept on its way."""
    return listed(paths.model_names(steps=True), may_open, here())


def speaker_names(visitor: str) -> list[str]:
    """Everyone whom the visitor may ask: see `llm.speakers.names`; "" for what all may."""
    return listed(
        speakers.names(visitor), lambda name, who: speakers.is_far(name) or may_open(name, who), visitor
    )


def dataset_names() -> list[str]:
    """Texts that the visitor may use."""
    return listed(corpora.names(), may_read, here())


def first_model() -> str:
    """The model the page opens with, or "" where there is none."""
    names = model_names()
    return FIRST_MODEL if FIRST_MODEL in names else next(iter(names), "")


def row_names() -> list[str]:
    """Rows for fine-tuning that the visitor may use."""
    return listed(corpora.row_names(), may_read, here())


def may_encode(name: str, visitor: Visitor) -> bool:
    """Whether a visitor may use an encoding: that of a model goes with the model."""
    return may_open(name.removeprefix("model:"), visitor)


def encoding_names() -> list[str]:
    """Encodings: built-in, trained here, and those of models."""
    from llm import tokenizer

    return listed(tokenizer.names(), may_encode, here())


def picker(
    view: View,
    key: str,
    names: Callable[[], list[str]],
    label: str,
    preferred: str | None = None,
    info: str | None = None,
    rule: Rule = may_open,
    **options,
) -> gr.Dropdown:
    """A dropdown of `names()`, kept in the address bar as `key`, read again at load, on focus and when its tab is shown.

    A name that has gone is replaced by `preferred` if that is there, else by the first. `rule` says who may use a name.
    """

    def current(value: str | None) -> tuple[list[str], str | None]:
        choices = listed(names(), rule, here())
        fallback = preferred if preferred in choices else next(iter(choices), None)
        return choices, value if value in choices else fallback

    def restored(value: str | None = None) -> dict:
        choices, value = current(value)
        return gr.update(choices=choices, value=value)

    def refreshed(value: str | None) -> dict:
        # a value that is still there is not sent back: the box may hold a newer one by then
        update = restored(value)
        return gr.update(choices=update["choices"]) if update["value"] == value else update

    choices, value = current(None)
    options = {"elem_id": f"{view.tab}-{key}", "interactive": True} | options
    box = gate(Choice(choices=choices, value=value, label=label, info=info, **options), rule)
    view.keep(key, box, restore=restored)
    view.refresh(box, refreshed)
    box.focus(refreshed, box, box, api_visibility="private", show_progress="hidden", queue=False)
    return box


def model_picker(view: View, key: str = "model", label: str = "Model", **options) -> gr.Dropdown:
    """A dropdown of model directories."""
    return picker(view, key, model_names, label, **({"preferred": FIRST_MODEL} | options))


def encoding_picker(view: View, key: str = "encoding", label: str = "Encoding", **options) -> gr.Dropdown:
    """A dropdown of encodings."""
    return picker(view, key, encoding_names, label, rule=may_encode, **options)


def dataset_picker(view: View, key: str = "dataset", label: str = "Dataset", **options) -> gr.Dropdown:
    """A dropdown of texts."""
    return picker(view, key, dataset_names, label, rule=may_read, **options)
