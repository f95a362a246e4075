"""Whoever can answer: local models, steps of a run, models with an adapter, and models behind HTTP, all asked the same way."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from llm import chat, endpoints, engine, paths, tokenizer, tuned
from llm.config import SampleConfig, add_flags, from_flags
from llm.endpoints import Piece

FAR = "endpoint:"
ENDS = {"eot": "stop", "stop": "stop", "length": "length"}  # ours: as servers call them


def names(owner: str | None = None) -> list[str]:
    """Everyone that can be asked: models, NAME@STEP, BASE+ADAPTER, endpoint:NAME (those that `owner` may use)."""
    local = [name for name in paths.model_names(steps=True) if not tells_classes(name)]
    adapters = [
        f"{one.base}+{one.name}" for one in tuned.adapters() if one.base in local and not one.classifier
    ]
    return [*local, *adapters, *(FAR + name for name in endpoints.names(owner))]


def tells_classes(model: str) -> bool:
    """Whether a model was made to tell classes: it writes no text."""
    return (paths.model_folder(model) / "classifier.safetensors").is_file()


def is_far(who: str) -> bool:
    """Whether it is a model behind HTTP."""
    return who.startswith(FAR)


def speak(
    who: str,
    messages: Sequence[dict[str, str]],
    how: SampleConfig,
    stopped: Callable[[], bool] = lambda: False,
    owner: str | None = None,
    alternatives: int = 0,
) -> Iterator[Piece]:
    """Stream what `who` answers to a conversation, the last message being a person's.

    A model with a chat template is asked through it; one without goes on from the text of the last message. Closing the
    iterator, or `stopped`, ends the work at once. Raises ValueError with a sentence when it cannot answer.
    """
    if not messages or not messages[-1].get("content", "").strip():
        raise ValueError("There is nothing to answer: write a prompt first.")
    if is_far(who):
        endpoint = endpoints.get(who.removeprefix(FAR), owner)
        yield from endpoints.speak(endpoint, messages, how, stopped)
    else:
        yield from near(who, messages, how, stopped, alternatives)


def has_template(model: str) -> bool:
    """Whether a local model has a chat template: one without goes on from the bare text."""
    return bool(chat.read(paths.model_folder(model)).template)


def prompt_of(model: str, messages: Sequence[dict[str, str]]) -> tuple[str | list[int], tuple[str, ...]]:
    """What a local model reads for a conversation, text or ids, and the texts that end its answer. Raises ValueError."""
    if not has_template(model):
        return messages[-1]["content"], ()
    found = chat.prompt(paths.model_folder(model), tokenizer.get(f"model:{model}"), messages)
    return found.ids, found.stops


def near(
    who: str,
    messages: Sequence[dict[str, str]],
    how: SampleConfig,
    stopped: Callable[[], bool] = lambda: False,
    alternatives: int = 0,
) -> Iterator[Piece]:
    """The answer of a model of this machine."""
    model, _, adapter = who.partition("+")
    prompt, stops = prompt_of(model, messages)
    steps = engine.get().generate(
        model,
        [prompt],
        [replace(how, stop=(*how.stop, *stops))],
        alternatives=alternatives,
        adapters={adapter: 1.0} if adapter else None,
    )
    made = 0
    try:
        for batch in steps:
            if stopped():
                yield Piece(end="stopped")
                return
            for step in batch:
                made += 1
                top = [[text, share] for _, text, share in step["top"]]
                token = {"text": step["piece"], "probability": math.exp(step["logprob"]), "top": top}
                ended = ENDS.get(step["finish"] or "", "")
                usage = {"prompt_tokens": None, "completion_tokens": made, "cost": None} if ended else None
                yield Piece(step["text"], (token,), ended, usage)
    finally:
        steps.close()


def answer(
    who: str,
    messages: Sequence[dict[str, str]],
    how: SampleConfig,
    stopped: Callable[[], bool] = lambda: False,
    owner: str | None = None,
) -> tuple[str, str]:
    """The whole answer and why it ended. Raises ValueError as `speak`."""
    text, end = "", ""
    for piece in speak(who, messages, how, stopped, owner):
        text, end = text + piece.text, piece.end or end
    return text, end


def main(arguments: Sequence[str] | None = None) -> None:
    """`python -m llm.speakers WHO --prompt "..."`: what a model, here or behind HTTP, answers."""
    parser = argparse.ArgumentParser(prog="python -m llm.speakers", description=main.__doc__)
    parser.add_argument("who", help="a model, NAME@STEP, BASE+ADAPTER, or endpoint:NAME")
    parser.add_argument("--prompt", required=True)
    parser.add_argument("--system", default="")
    parser.add_argument("--history", default="[]", metavar="JSON", help='turns so far: [{"role": "user", "content": "..."}, ...]')  # fmt: skip
    add_flags(parser, SampleConfig)
    given = parser.parse_args(arguments)
    try:
        messages = chat.conversation(given.system, json.loads(given.history), given.prompt)
        for piece in speak(given.who, messages, from_flags(SampleConfig, given)):
            print(piece.text, end="", flush=True)
            if piece.usage:
                said = ", ".join(
                    f"{name} {value}" for name, value in piece.usage.items() if value is not None
                )
                print(f"\n[{piece.end}; {said}]", file=sys.stderr)
    except ValueError as error:
        sys.exit(f"{error}")
    print()


if __name__ == "__main__":
    main()
