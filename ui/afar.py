"""The Playground with a model behind HTTP: who can be asked, its answer as the browser reads it, the same in a terminal."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Iterator
from typing import Any

from llm import chat, endpoints, speakers
from llm.config import SampleConfig, to_flags
from llm.modes import is_shared
from ui import pickers
from ui.figures.base import utf16


def is_far(model: object) -> bool:
    """Whether it is a model behind HTTP."""
    return isinstance(model, str) and speakers.is_far(model)


def names() -> list[str]:
    """The models of this machine, then those behind HTTP.

    On a shared page an endpoint is its owner's, and this list is everybody's: there they are asked in the Arena.
    """
    far = [] if is_shared() else [speakers.FAR + name for name in endpoints.names()]
    return [*pickers.model_names(), *far]


def messages(asked: dict[str, Any]) -> list[dict[str, str]]:
    """The conversation that is sent: a chat as it stands, or the prompt alone."""
    talk = asked["chat"] or {"system": "", "turns": []}
    return chat.conversation(talk["system"], talk["turns"], asked["prompt"])


def command(asked: dict[str, Any], config: SampleConfig) -> str:
    """The line for a terminal that asks the same."""
    words = ["python", "-m", "llm.speakers", asked["model"], f"--prompt={asked['prompt']}", *to_flags(config)]
    if talk := asked["chat"]:
        words += [f"--system={talk['system']}"] if talk["system"] else []
        words += [f"--history={json.dumps(talk['turns'], ensure_ascii=False)}"] if talk["turns"] else []
    return shlex.join(words)


def news(row: int, asked: dict[str, Any], how: SampleConfig) -> Iterator[list[Any] | dict[str, Any]]:
    """The answer as news for playground.js: tokens with their probabilities where the server tells them, else its pieces.

    Raises ValueError with a sentence when the server cannot be asked.
    """
    if is_shared():
        raise ValueError("On a shared page models behind HTTP are asked in the Arena, each by its owner.")
    endpoint = endpoints.get(asked["model"].removeprefix(speakers.FAR))
    if lost := endpoints.unheard(endpoint, how):
        yield {"note": f"{endpoint.name} does not know {' and '.join(lost)}: left out.", "row": row}
    shown, held, end, began, made = 0, None, "", None, 0
    for piece in speakers.speak(asked["model"], messages(asked), how):
        began = began or time.monotonic()
        for text, share, top in parts(piece):
            if held:
                yield held
            shown, made = shown + utf16(text), made + 1
            held = [row, 0, text, shown, share, share, None, 0, top]  # the last one says how it ended
        end = piece.end or end
        if piece.usage:
            yield {"note": used(piece.usage), "row": row}
    if held:
        yield [*held[:6], end or "stopped", *held[7:]]
    if made > 1:
        yield {"rate": (made - 1) / max(time.monotonic() - began, 1e-9), "row": row}


def parts(piece: endpoints.Piece) -> Iterator[tuple[str, float | None, list | None]]:
    """(text, probability, likeliest tokens) of each token; the whole piece without them where they do not make its text."""
    if piece.tokens and "".join(token["text"] for token in piece.tokens) == piece.text:
        for token in piece.tokens:
            yield token["text"], round(token["probability"], 5), token["top"]
    elif piece.text:
        yield piece.text, None, None


def used(usage: dict[str, Any]) -> str:
    """What an answer took, as far as it is known."""
    counted = [f"{usage[name]:,} tokens {word}" for name, word in (("prompt_tokens", "read"), ("completion_tokens", "written")) if usage.get(name) is not None]  # fmt: skip
    cost = f"; {usage['cost']:.6f} dollars" if usage.get("cost") is not None else ""
    return f"The server counts {', '.join(counted)}{cost}."


def told(top: object) -> list[list[Any]]:
    """The likeliest tokens as the browser sends them back; none where they are not well formed."""
    rows = top if isinstance(top, list) else []
    good = [row for row in rows[:20] if isinstance(row, list) and len(row) == 2 and isinstance(row[0], str)]
    return [row for row in good if isinstance(row[1], (int, float)) and 0 <= row[1] <= 1]
