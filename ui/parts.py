"""Pieces every tab uses: the introduction, a dropdown whose list changes, "Show the code", errors as plain sentences."""

from __future__ import annotations

import ast
import functools
import importlib.util
import inspect
import json
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_origin, get_type_hints

import gradio as gr

from llm import modes
from llm.logbook import numbered
from ui.figures.base import escape

log = logging.getLogger("llm-lab")
PARSING = threading.Lock()  # Python's parser, asked by several threads at one instant, has raised SystemError


class Choice(gr.Dropdown):
    """A dropdown whose list changes with other widgets: what the browser holds reaches the handler as it is.

    Gradio refuses a value that has left the list, also when the browser has not heard of the new list yet; here the
    handler decides, as it does for every value that comes from outside.
    """

    is_template = True  # drawn as the dropdown that it is

    def preprocess(self, payload: Any) -> Any:
        """The value, or the list of values, that the browser holds."""
        return payload


def intro(look_at: str, try_this: str) -> gr.HTML:
    """The top of a tab: one sentence on what to look at and one thing to try. Our own text, shown as text."""
    return gr.HTML(
        f"<p class='lab-intro'><span class='lab-intro-look'><b>Look</b> {escape(look_at)}</span>"
        f"<span class='lab-intro-try'><b>Try</b> {escape(try_this)}</span></p>",
        padding=False,
    )


def section(title: str, sentence: str = "") -> gr.HTML:
    """A small heading inside a tab, with a sentence under it."""
    below = f"<p>{escape(sentence)}</p>" if sentence else ""
    return gr.HTML(f"<div class='lab-section'><h3>{escape(title)}</h3>{below}</div>", padding=False)


@functools.cache
def source(name: str) -> str:
    """The text of "package.module:Class.method" as it stands in its file, read without importing the module."""
    module, _, attributes = name.partition(":")
    text = Path(importlib.util.find_spec(module).origin).read_text(encoding="utf-8")
    with PARSING:
        node: Any = ast.parse(text)
    for attribute in attributes.split("."):
        node = next(child for child in node.body if getattr(child, "name", None) == attribute)
    first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
    lines = text.splitlines()[first - 1 : node.end_lineno]
    return "\n".join(line[node.col_offset :] for line in lines)


def show_code(*names: str, label: str = "Show the code") -> gr.Accordion:
    """A closed accordion with the source of the very functions that made the picture; read when it is opened.

    Each is named as in "llm.model:Attention.attend".
    """
    with gr.Accordion(label, open=False, elem_classes="lab-code") as accordion:
        code = gr.Code(language="python", interactive=False, show_label=False, max_lines=40, container=False)

    def read() -> str:
        return "\n\n\n".join(source(name) for name in names)

    accordion.expand(read, None, code, api_visibility="private", queue=False, show_progress="hidden")
    return accordion


def plain_errors(fn: Callable) -> Callable:
    """A handler whose ValueErrors are shown word for word, and whose other errors are logged and named by a number only.

    Nothing is written to the outputs then, so that inputs survive. Works for functions and generators.
    """

    def as_sentence(error: Exception) -> gr.Error:
        if isinstance(error, gr.Error):
            return error
        if isinstance(error, modes.Refused):
            log.info("refused in %s: %s", fn.__qualname__, error)
        if isinstance(error, ValueError):
            said = str(error).encode("utf-8", "replace").decode()  # an answer cannot hold half of a character
            return gr.Error(escape(said), print_exception=False, duration=15)
        return gr.Error(numbered(fn.__qualname__, error), print_exception=False)

    if inspect.isgeneratorfunction(fn):

        @functools.wraps(fn)
        def handler(*args, **kwargs):
            try:
                yield from fn(*args, **kwargs)
            except Exception as error:  # the boundary to the browser
                raise as_sentence(error) from None
    else:

        @functools.wraps(fn)
        def handler(*args, **kwargs):
            try:
                return fn(*args, **kwargs)
            except Exception as error:  # the boundary to the browser
                raise as_sentence(error) from None

    return handler


def answered(fn: Callable) -> Callable:
    """A server function of a component of ours, which anybody may call with anything: refusals come back as {"error": sentence}.

    What is not of the type that its first argument says is refused; errors that are no ValueError are logged and named by a number.
    """
    kind = next(iter(get_type_hints(fn).values()))
    kind = get_origin(kind) or kind

    @functools.wraps(fn)
    def answer(*given: Any) -> dict[str, Any]:
        try:
            if not given or not isinstance(given[0], kind):
                raise ValueError("This request is not one that the page makes.")
            json.dumps(given[0], ensure_ascii=False).encode()  # an answer cannot hold half of a character
            return fn(*given)
        except UnicodeEncodeError:
            return {"error": "There is half of a character in this request: delete it and try again."}
        except ValueError as error:
            return {"error": str(error)}
        except Exception as error:  # the boundary to the browser
            return {"error": numbered(fn.__qualname__, error)}

    return answer
