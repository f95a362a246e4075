"""Playground: what smaller weights save and what they cost, measured on a text that the model has not learned."""

from __future__ import annotations

import math
from typing import Any

import gradio as gr

from llm import corpora, engine, files
from llm.config import WEIGHTS
from llm.runs import Run
from ui import afar
from ui.figures.base import escape, message, number, size, table

CHARACTERS = 4_000  # of the text; the engine reads the first 512 tokens of it


def text_for(model: str) -> tuple[str, str]:
    """(a text that this model has not seen, the name of its dataset): the held-out end of what it learned, else of the stories."""
    dataset = "stories"
    try:
        config = Run.open(model).config
        if config.get("objective") == "pretrain":
            dataset = config["dataset"]
        path = corpora.path(dataset)
    except (ValueError, KeyError):
        dataset, path = "stories", corpora.path("stories")
    return files.validation_part(files.read_text(path).text)[:CHARACTERS], dataset


def told(model: object, compare: object, a: object, b: object) -> dict[str, Any]:
    """The table of weights, shown where a setting has smaller ones than fp32."""
    chosen = [a, b] if compare is True else [a]
    if (
        not isinstance(model, str)
        or not model
        or afar.is_far(model)
        or all(one not in WEIGHTS[1:] for one in chosen)
    ):
        return gr.update(visible=False)
    try:
        text, dataset = text_for(model)
        found = engine.get().by_weights(model, text=text)
    except ValueError as error:
        return gr.update(value=message(str(error), "warning"), visible=True)
    return gr.update(value=drawn(found, dataset, chosen), visible=True)


def drawn(found: dict[str, dict[str, Any]], dataset: str, chosen: list[object]) -> str:
    """One row for each kind of weights: perplexity, how far from fp32, bytes."""
    whole, rows = found["fp32"], []
    for weights, one in found.items():
        worse = 100 * (one["loss"] / whole["loss"] - 1) if whole["loss"] else math.nan
        rows.append(
            [
                f"{weights}{' ← chosen' if weights in chosen else ''}",
                number(one["perplexity"]),
                "" if weights == "fp32" else f"{worse:+.2f} %",
                "" if weights == "fp32" else f"{100 * one['same']:.1f} %",
                size(one["bytes"]),
            ]
        )
    shown = table(
        ["Weights", "Perplexity", "Loss, against fp32", "Same likeliest token", "Memory"],
        rows,
        numeric=range(1, 5),
    )
    return (
        f"<h3 class='pg-side'>What smaller weights cost</h3>{shown}<p class='pg-aside'>Measured now on {whole['tokens']:,} held-out tokens of "
        f"{escape(dataset)}. int8: each row of a matrix has a scale, and its numbers are rounded to 255 steps of it. "
        "int4: 32 numbers of a row share 16 steps between their least and their largest, the output matrix stays int8; "
        "the text above and the token table below use the weights that are chosen.</p>"
    )
