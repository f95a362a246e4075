"""One gate for every event: values are of their widget's kind, and what they name (a model, a text) is the visitor's to use.

A page that only lists what a visitor may use protects nothing: whoever knows a name can send it. So widgets that hold names
say who may use them (`gate(box, rule)`), and every handler that reads such a widget is wrapped once, when the page is built.
"""

from __future__ import annotations

import functools
import inspect
import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr
from gradio.components.api_component import Api
from gradio.utils import get_type_hints

from llm import modes
from ui.owner import Visitor, here
from ui.parts import plain_errors

Rule = Callable[[str, Visitor], bool]  # (name, visitor) -> may they use it
NOT_A_VALUE = (gr.Request, gr.EventData, gr.Progress)  # Gradio hands these to a handler itself


def gate(component: gr.components.Component, rule: Rule) -> gr.components.Component:
    """Let handlers read this widget only when the visitor may use every name in it."""
    component.lab_rule = rule
    return component


def authorise(page: gr.Blocks) -> None:
    """Wrap every handler of the page: Gradio checks neither the type of a value nor whose name it is."""
    for event in page.fns.values():
        if event.fn is None:
            continue
        rules = {i: rule for i, one in enumerate(event.inputs) if (rule := getattr(one, "lab_rule", None))}
        event.fn = plain_errors(guarded(event.fn, event.inputs, rules))


def fits(component: Any, value: Any) -> bool:
    """Whether a value is of the kind that a widget has: anybody can send another one. None stands for an empty widget."""
    if value is None:  # one of a radio's choices is always chosen
        return not (isinstance(component, gr.Radio) and component.value is not None)
    if isinstance(component, gr.Checkbox):
        return isinstance(value, bool)
    if isinstance(component, (gr.Number, gr.Slider)):
        return is_plain(value) and not isinstance(value, (str, bool))
    if isinstance(component, gr.CheckboxGroup) or getattr(component, "multiselect", None):
        return isinstance(value, list) and all(map(is_plain, value))
    if isinstance(component, (gr.Dropdown, gr.Radio)):
        return is_plain(value)
    if isinstance(component, (gr.Textbox, gr.Code)):
        return isinstance(value, str)
    return True


def refuse_halves(value: Any, what: str) -> None:
    """Raise ValueError for a text that no file and no answer can hold: with half of a pair of surrogates in it."""
    for text in value if isinstance(value, list) else [value]:
        if isinstance(text, str):
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise ValueError(
                    f"{what}: character {error.start + 1:,} is half of a pair (U+{ord(text[error.start]):04X}): delete it and "
                    "try again."
                ) from None


def is_plain(value: Any) -> bool:
    """Whether a value is one choice of a list: a text or a finite number."""
    return isinstance(value, str) or (isinstance(value, (int, float)) and math.isfinite(value))


def names_in(value: Any) -> list[str]:
    """The names that a widget's value holds: one, several, or a list written as JSON."""
    if isinstance(value, str) and value.startswith("["):
        try:
            value = json.loads(value)
        except ValueError:
            return [value]
    return [one for one in value if isinstance(one, str)] if isinstance(value, (list, tuple)) else [value] if isinstance(value, str) else []  # fmt: skip


def guarded(fn: Callable, inputs: Sequence[Any], rules: dict[int, Rule]) -> Callable:
    """`fn`, refused with a sentence for values of another kind than their widgets', and names that are not the visitor's."""
    at, hints = places(fn, len(inputs)), kinds(fn, inputs)

    def checked(values: tuple) -> list[Any]:
        values = list(values)
        for value in values:
            if type(value) is gr.EventData and not isinstance(value._data, dict):
                value._data = {}  # what a script of ours sends is an object; whoever sends another names nothing
        for i, component in enumerate(inputs):
            if at[i] >= len(values):
                continue
            value, what = values[at[i]], getattr(component, "label", None) or type(component).__name__
            if not fits(component, value) or not (hints[i] is None or isinstance(value, hints[i])):
                raise ValueError(f"{what}: {str(value)[:80]!r} is not a value of this setting.")
            if value is None and isinstance(component, (gr.Textbox, gr.Code)):
                values[at[i]] = ""
            refuse_halves(value, what)
        if not rules or not modes.is_shared():
            return values
        visitor = here()
        for i, rule in rules.items():
            for name in names_in(values[at[i]]) if at[i] < len(values) else ():
                if not rule(name, visitor):
                    raise ValueError(f"There is nothing called {name[:80]} here.")
        return values

    if inspect.isgeneratorfunction(fn):

        @functools.wraps(fn)
        def handler(*values: Any, **more: Any):
            yield from fn(*checked(values), **more)
    else:

        @functools.wraps(fn)
        def handler(*values: Any, **more: Any):
            return fn(*checked(values), **more)

    return handler


def kinds(fn: Callable, inputs: Sequence[Any]) -> list[tuple[type, ...] | None]:
    """The plain types that a function for programs (gr.api) says of its arguments; None for widgets and other types."""
    try:
        said = [hint for hint in get_type_hints(fn).values() if not is_given(hint)]
    except (TypeError, ValueError, NameError):
        said = []
    found: list[tuple[type, ...] | None] = []
    for i, component in enumerate(inputs):
        kind = said[i] if isinstance(component, Api) and i < len(said) else None
        plain = (int, float) if kind in (int, float) else (kind,)
        found.append(plain if kind in (str, int, float, bool, list, dict) else None)
    return found


def places(fn: Callable, count: int) -> list[int]:
    """Where each of `count` inputs stands among the arguments: Gradio puts the request and the event between them."""
    try:
        parameters, hints = list(inspect.signature(fn).parameters.values()), get_type_hints(fn)
    except (TypeError, ValueError):
        return list(range(count))
    found, argument, parameter = [], 0, 0
    for _ in range(count):
        while parameter < len(parameters) and is_given(hints.get(parameters[parameter].name)):
            argument, parameter = argument + 1, parameter + 1
        found.append(argument)
        argument += 1
        if parameter < len(parameters) and parameters[parameter].kind is not inspect.Parameter.VAR_POSITIONAL:
            parameter += 1
    return found


def is_given(hint: Any) -> bool:
    """Whether an argument of this type comes from Gradio and not from a widget."""
    kinds = getattr(hint, "__args__", None) or (hint,)
    return any(isinstance(kind, type) and issubclass(kind, NOT_A_VALUE) for kind in kinds)
