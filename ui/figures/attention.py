"""What the Attention tab draws: numbers as compact JSON for its canvas, tokens as labels that show every byte."""

from __future__ import annotations

import base64
import math
from typing import Any

import numpy as np

WHOLE = 384  # tokens; of longer texts a head's stages are sent up to the diagonal
STRIP = 64  # parts of the strip under a small map
SIGNS = {" ": "·", "\n": "⏎", "\t": "⇥", "\r": "␍"}


def label(token: bytes) -> str:
    """A token for reading: spaces and line ends as signs, bytes that are no whole character in hex between ⟨ ⟩."""
    shown, rest = [], token
    while rest:
        for size in (1, 2, 3, 4):
            try:
                character = rest[:size].decode("utf-8")
            except UnicodeDecodeError:
                continue
            break
        else:
            character, size = "", 1
        if character and (character in SIGNS or character.isprintable()):
            shown.append(SIGNS.get(character, character))
        else:
            shown.append(f"⟨{rest[:size].hex(' ').upper()}⟩")
        rest = rest[size:]
    return "".join(shown).replace("⟩⟨", " ") or "⟨no token⟩"


def pack(array: np.ndarray) -> dict[str, Any]:
    """An array as base64 of its little-endian bytes, with shape and type, for a typed array in the browser."""
    array = np.ascontiguousarray(array)
    if array.dtype != np.uint8:
        array = array.astype("<f4")
    kind = "uint8" if array.dtype == np.uint8 else "float32"
    return {
        "b64": base64.b64encode(array.tobytes()).decode("ascii"),
        "shape": list(array.shape),
        "type": kind,
    }


def packed(value: Any) -> Any:
    """Any result of `llm.trace` as JSON: arrays packed, bytes as labels, numbers that JSON lacks as null."""
    if isinstance(value, np.ndarray):
        return pack(value)
    if isinstance(value, bytes):
        return label(value)
    if isinstance(value, dict):
        return {key: packed(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [packed(item) for item in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value


def heads(result: dict[str, Any]) -> dict[str, Any]:
    """The first picture: small maps as bytes (weight x 255), stages; what follows from something else is left out.

    `masked` equals `scaled` where the mask lets a token look, and `dropped` equals `weights` outside training. Of a text
    of more than WHOLE tokens only the scores up to the diagonal are sent (and what dropout left): the browser divides
    and takes the softmax itself, which gives the same numbers (see attention.js).
    """
    stages, n = dict(result["stages"]), len(result["tokens"])
    row, column = np.indices((n, n), sparse=True)
    window = result["windows"][result["layer"]]
    causal = result["config"]["causal"]
    hidden = ((column > row) & causal) | ((abs(row - column) >= window) if window else False)
    assert (
        np.isneginf(stages["masked"]) == hidden
    ).all()  # the browser leaves these cells empty by the same rule
    triangle = n > WHOLE and causal
    largest = sizes(stages, triangle)
    del stages["masked"]
    if not result["dropout"]:
        del stages["dropped"]
    if triangle:
        below = np.tril_indices(n)
        stages = {name: stages[name][below] for name in ("scores", "dropped") if name in stages}
    shown = {**result, "stages": stages, "triangle": triangle, "cut": cut(result), "largest": largest}
    if "maps" in result:
        shown |= small(result)
    return packed(shown)


def small(result: dict[str, Any]) -> dict[str, Any]:
    """All heads at once: their maps as bytes, the mean entropy of each (L, H), and its rows' as a strip of bytes.

    A strip's byte is 255 x the entropy over the most it can be there, log2 of the tokens that are seen; the mean of
    several rows where there are more than STRIP.
    """
    entropy, windows = result["entropy"], np.array(result["windows"])[:, None]
    T = entropy.shape[-1]
    place = np.arange(1, T + 1)[None] if result["config"]["causal"] else np.full((1, T), T)
    most = np.log2(np.where(windows > 0, np.minimum(place, windows), place))  # (L, T)
    share = np.divide(entropy, most[:, None], out=np.zeros_like(entropy), where=most[:, None] > 0)
    parts = np.array_split(share.clip(0, 1), min(STRIP, share.shape[-1]), axis=-1)
    strip = np.stack([part.mean(-1) for part in parts], -1)
    return {
        "maps": np.rint(result["maps"].astype(np.float32) * 255).astype(np.uint8),
        "entropy": entropy.mean(-1), "strip": np.rint(strip * 255).astype(np.uint8),
    }  # fmt: skip


def sizes(stages: dict[str, np.ndarray], triangle: bool) -> dict[str, float]:
    """The largest absolute value of each stage, of what is shown of it: where its colours end (weights always at 1)."""
    shown = np.tril_indices(len(stages["scores"])) if triangle else ...
    found = {
        name: float(np.abs(stages[name][shown]).max())
        for name in ("scores", "scaled", "dropped")
        if name in stages
    }
    return found | {"weights": 1.0}


def cut(result: dict[str, Any]) -> str:
    """What to say when the text is longer than what is looked at; empty otherwise."""
    kept, length, context = len(result["tokens"]), result["length"], result["config"]["context_length"]
    if kept == length:
        return ""
    if result["limit"] < context:
        return (
            f"The text has {length:,} tokens; this tab looks at the first {kept:,} (the model itself reads {context:,}): "
            f"the last {length - kept:,} are left out."
        )
    return (
        f"The text has {length:,} tokens and this model looks at {kept:,} at once: "
        f"the last {length - kept:,} are left out."
    )
