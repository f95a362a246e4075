"""The Attention tab: all heads of a model on a text, one of them in steps, and the rest of the block around it."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import gradio as gr

from llm import chat, corpora, paths
from ui import parts, pickers
from ui.figures import attention as figures
from ui.owner import here, may_open, may_read
from ui.parts import answered
from ui.view import View

log = logging.getLogger("llm-lab")
SCRIPT = Path(__file__).parents[1] / "js" / "attention.js"
EXAMPLE = 'Long ago, a proud badger named Willa lived near the mill. She wanted a red kite. "A red kite for'
LONGEST = 20_000  # characters of a text
MEASURED = 300_000  # bytes, at the end of a dataset, that loss by position is measured on
# What "Show the code" shows under each picture: the functions that made its numbers.
CODE = {
    "heads": ("llm.model:Attention.attend", "llm.trace:small_map", "llm.trace:entropy"),
    "scores": ("llm.model:Attention.forward", "llm.model:Attention.attend"),
    "scaled": ("llm.model:Attention.attend", "llm.trace:spreads"),
    "masked": ("llm.model:causal_mask", "llm.model:Attention.attend"),
    "weights": ("llm.model:Attention.attend",),
    "dropped": ("llm.model:Attention.attend", "llm.trace:mode"),
    "cell": ("llm.trace:cell_steps",),
    "next": ("llm.trace:likeliest", "llm.trace:silence"),
    "lens": ("llm.trace:lens_logits", "llm.trace:streams"),
    "attribution": ("llm.trace:attribution", "llm.trace:stream_parts"),
    "norm": ("llm.model:LayerNorm", "llm.model:RMSNorm", "llm.trace:norm_statistics"),
    "projection": ("llm.trace:head_parts",),
    "mlp": ("llm.model:MLP", "llm.trace:activation_curve"),
    "stream": ("llm.model:Block", "llm.trace:growth"),
    "tying": ("llm.trace:tied", "llm.trace:nearest"),
    "learned": ("llm.model:GPT.embed", "llm.trace:position_vectors", "llm.trace:cosines"),
    "sinusoidal": ("llm.model:sinusoids", "llm.trace:position_vectors", "llm.trace:cosines"),
    "rope": (
        "llm.model:rates_of",
        "llm.model:rope_angles",
        "llm.model:rotate",
        "llm.trace:rope_pairs",
        "llm.trace:rope_by_distance",
    ),
    "none": ("llm.model:causal_mask",),
    "beyond": ("llm.trace:loss_by_position",),
}


def ask(operation: str, model: str, **values: Any) -> dict[str, Any]:
    """The engine's answer to one operation of `llm.trace` on a model of that name."""
    from llm import engine

    return engine.get().call(operation, model, **values)


def checked(asked: dict[str, Any], *names: str) -> dict[str, Any]:
    """The named values of a request, each of the right type and size. Raises ValueError."""
    if not isinstance(asked, dict):
        raise ValueError("The request is not a set of named values.")
    kinds = {
        "text": str,
        "special": bool,
        "training": bool,
        "maps": bool,
        "dropout": (int, float),
        "muted": list,
    }
    values = {name: asked.get(name, DEFAULTS.get(name)) for name in names}
    for name, value in values.items():
        if not isinstance(value, kinds.get(name, int)) or (
            kinds.get(name) is not bool and isinstance(value, bool)
        ):
            raise ValueError(f"The value of {name} cannot be used: {str(value)[:40]!r}.")
    if len(values.get("text", "")) > LONGEST:
        raise ValueError(
            f"The text has {len(values['text']):,} characters; {LONGEST:,} is the most this tab takes."
        )
    if not 0 <= values.get("dropout", 0) < 1:
        raise ValueError(f"The share to drop must lie between 0 and 1, not {values['dropout']}.")
    return values


DEFAULTS = {
    "special": False, "training": False, "dropout": 0.0, "seed": 0, "muted": [], "layer": 0, "head": 0, "position": -1, "factor": 2, "maps": True,
}  # fmt: skip


def named(asked: dict[str, Any]) -> str:
    """The model of a request. Raises ValueError when none is chosen, or it is another visitor's."""
    model = asked.get("model") if isinstance(asked, dict) else None
    if not isinstance(model, str) or not model:
        raise ValueError("Choose a model first. There is none yet? Train one in the Train tab.")
    if not may_open(model, here()):
        raise ValueError(f"There is no model called {model[:80]!r} here.")
    return model


SAID = ("model", "text", "special", "training", "dropout", "seed")  # the controls, in order
# In the browser alone: the board asks for numbers when the controls have settled.
AS_JSON = (
    f"(...values) => JSON.stringify(Object.fromEntries({json.dumps(SAID)}.map((n, i) => [n, values[i]])))"
)
HOW = ("text", "special", "training", "dropout", "seed", "muted")


@answered
def look(asked: dict[str, Any]) -> dict[str, Any]:
    """All heads small (unless `maps` is false: the page has them already), one in stages, the next token."""
    model = named(asked)
    found = figures.heads(ask("trace", model, **checked(asked, *HOW, "layer", "head", "maps")))
    return found | {"begins": begins(model)}


def begins(model: str) -> str:
    """The token that stands before every text of this model, "" for most."""
    return chat.read(paths.model_folder(model)).begins


@answered
def cell(asked: dict[str, Any]) -> dict[str, Any]:
    """Every number on the way to one weight."""
    return figures.packed(ask("cell", named(asked), **checked(asked, *HOW, "layer", "head", "row", "column")))


@answered
def lens(asked: dict[str, Any]) -> dict[str, Any]:
    """What each layer would answer, and who made the final answer."""
    return figures.packed(ask("lens", named(asked), **checked(asked, "text", "special", "position", "muted")))


@answered
def block(asked: dict[str, Any]) -> dict[str, Any]:
    """Norms, MLP, output projection, residual stream and weight tying of one block."""
    return figures.packed(
        ask("block", named(asked), **checked(asked, "text", "special", "layer", "position", "muted"))
    )


@answered
def positions(asked: dict[str, Any]) -> dict[str, Any]:
    """How the model knows places, and the datasets that loss beyond the context can be measured on."""
    return figures.packed(ask("positions", named(asked))) | {"datasets": pickers.dataset_names()}


@answered
def beyond(asked: dict[str, Any]) -> dict[str, Any]:
    """Loss by position beyond the context, on the end of a dataset."""
    dataset = str(asked.get("dataset"))
    if not may_read(dataset, here()):
        raise ValueError(f"There is no text called {dataset[:80]!r} here.")
    text = tail(corpora.path(dataset), MEASURED)
    return figures.packed(ask("beyond", named(asked), text=text, **checked(asked, "factor")))


def tail(file: Path, size: int) -> str:
    """The last whole lines of a text file, `size` bytes at most: validation text, where training kept an end for it."""
    with file.open("rb") as f:
        start = max(f.seek(0, 2) - size, 0)
        f.seek(start)
        text = f.read().decode("utf-8", errors="replace")
    return text.partition("\n")[2] if start else text


@answered
def code(asked: str) -> dict[str, Any]:
    """The source of the functions behind one picture."""
    if asked not in CODE:
        raise ValueError("There is no such picture.")
    return {"code": "\n\n\n".join(parts.source(name) for name in CODE[asked]), "where": where(CODE[asked])}


def where(names: tuple[str, ...]) -> str:
    """The files that hold these functions."""
    return ", ".join(dict.fromkeys(name.partition(":")[0].replace(".", "/") + ".py" for name in names))


def request(model: str, text: str, special: bool, training: bool, dropout: float, seed: float) -> str:
    """What the controls say, for the board."""
    return json.dumps(
        dict(zip(SAID, (model, text, bool(special), bool(training), dropout or 0, int(seed or 0))))
    )


def heads(model: str, text: str, layer: int = 0, head: int = 0, special: bool = False) -> dict[str, Any]:
    """Attention of one head of a model on a text: tokens, each stage as rows of numbers, and the likeliest next tokens.

    Parameters:
        model: name of a model of the lab
        text: any text; what goes beyond the model's context is left out
        layer: from 0
        head: from 0
        special: read strings like <|endoftext|> as special tokens
    """
    values = checked(
        {"text": text, "layer": layer, "head": head, "special": special}, "text", "layer", "head", "special"
    )
    result = ask("trace", named({"model": model}), **values)
    return {
        "tokens": [[id, figures.label(token)] for id, token in result["tokens"]],
        "stages": {
            name: [[None if v == float("-inf") else v for v in row] for row in stage.tolist()]
            for name, stage in result["stages"].items()
        },
        "entropy": result["entropy"][layer][head].tolist(),
        "next": [[id, figures.label(token), p] for id, token, _, p in result["next"]],
    }


def build(view: View) -> None:
    """Controls above, the board below. The board keeps its own place (layer, head, cell) and asks for what it shows."""
    parts.intro(
        "Which earlier tokens does each token look at? Every head of every layer at once, then one head step by step.",
        "Click a small map and move with the arrow keys; then click a cell of the large one to see every number behind it.",
    )
    with gr.Row(elem_classes="att-controls"):
        with gr.Column(scale=1, min_width=230):
            model = pickers.model_picker(view)
        with gr.Column(scale=3, min_width=300):
            text = gr.Textbox(
                EXAMPLE, label="Text", lines=2, max_lines=6, max_length=LONGEST, elem_id="attention-text"
            )
    with gr.Accordion("Dropout and special tokens", open=False, elem_classes="lab-quiet"), gr.Row():
        training = gr.Checkbox(
            False,
            label="Training mode",
            info="drop attention weights as training does",
            elem_id="attention-training",
        )
        dropout = gr.Slider(
            0,
            0.9,
            0.2,
            step=0.05,
            label="Share dropped, p",
            info="0 takes the model's own",
            elem_id="attention-dropout",
        )
        seed = gr.Number(
            0,
            label="Seed of the dropping",
            precision=0,
            minimum=0,
            maximum=2**31 - 1,
            elem_id="attention-seed",
        )
        special = gr.Checkbox(
            False,
            label="Read special tokens",
            info="<|endoftext|> is one token, not its letters",
            elem_id="attention-special",
        )
    board = gr.HTML(
        "",
        html_template="<div class='att'></div>",
        js_on_load=SCRIPT.read_text(encoding="utf-8"),
        server_functions=[look, cell, lens, block, positions, beyond, code],
        apply_default_css=False,
        elem_id="attention-board",
    )
    controls = dict(zip(SAID, (model, text, special, training, dropout, seed)))
    for key, control in controls.items():
        if key != "model":  # the picker keeps itself
            view.keep(key, control)
        control.change(None, [*controls.values()], board, js=AS_JSON, api_visibility="private")
    view.on_load(request, board, [*controls.values()])
    gr.api(heads, api_name="attention")
