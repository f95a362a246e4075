"""One gate for every event: what a widget names (a model, an encoding, a text) must be the visitor's to use.

A page that only lists what a visitor may use protects nothing: whoever knows a name can send it. So widgets that hold names
say who may use them (`gate(box, rule)`), and every handler that reads such a widget is wrapped once, when the page is built.
"""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable
from typing import Any

import gradio as gr
from gradio.utils import get_type_hints

from llm import modes
from ui.figures.base import escape
from ui.owner import Visitor, here

Rule = Callable[[str, Visitor], bool]  # (name, visitor) -> may they use it
NOT_A_VALUE = (gr.Request, gr.EventData, gr.Progress)  # Gradio hands these to a handler itself


def gate(component: gr.components.Component, rule: Rule) -> gr.components.Component:
    """Let handlers read this widget only when the visitor may use every name in it."""
    component.lab_rule = rule
    return component


def authorise(page: gr.Blocks) -> None:
    """Wrap every handler of the page that reads a gated widget."""
    for event in page.fns.values():
        rules = {i: rule for i, one in enumerate(event.inputs) if (rule := getattr(one, "lab_rule", None))}
        if event.fn is not None and rules:
            event.fn = guarded(event.fn, rules, len(event.inputs))


def names_in(value: Any) -> list[str]:
    """The names that a widget's value holds: one, several, or a list written as JSON."""
    if isinstance(value, str) and value.startswith("["):
        try:
            value = json.loads(value)
        except ValueError:
            return [value]
    return [one for one in value if isinstance(one, str)] if isinstance(value, (list, tuple)) else [value] if isinstance(value, str) else []  # fmt: skip


def guarded(fn: Callable, rules: dict[int, Rule], count: int) -> Callable:
    """`fn`, refused with a sentence when an input of `rules` names what is not the visitor's."""
    at = places(fn, count)

    def check(values: tuple) -> None:
        if not modes.is_shared():
            return
        visitor = here()
        for i, rule in rules.items():
            for name in names_in(values[at[i]]) if at[i] < len(values) else ():
                if not rule(name, visitor):
                    raise gr.Error(
                        escape(f"There is nothing called {name[:80]} here."), print_exception=False
                    )

    if inspect.isgeneratorfunction(fn):

        @functools.wraps(fn)
        def handler(*values: Any, **more: Any):
            check(values)
            yield from fn(*values, **more)
    else:

        @functools.wraps(fn)
        def handler(*values: Any, **more: Any):
            check(values)
            return fn(*values, **more)

    return handler


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
