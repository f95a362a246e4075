"""OpenAI's HTTP interface in plain values: a request's body becomes a call of the engine, its steps become answers and chunks.

    asked = completion({"model": "story-llama", "prompt": "Long ago", "max_tokens": 20})
    whole(asked, [piece for some in pieces(engine.get(), asked) for piece in some])

The shapes are those of platform.openai.com/docs/api-reference (completions and chat). A request that cannot be answered as
it asks is refused with a sentence (`Refusal`); IGNORED and NEUTRAL say what is accepted without an effect. No torch and no
web framework here: `ui.serve` puts it on the page's address.
"""

from __future__ import annotations

import json
import math
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from llm import chat, inventory, paths, prompts, tokenizer, tuned
from llm.config import SampleConfig
from llm.engine import Engine, Steps
from llm.tokenizer import StreamDecoder, Tokenizer

MOST_TEXTS = 128  # of one request: prompts times n
MOST_STOPS, LONGEST_STOP = 4, 500  # stop strings, characters of each
MOST_TOP = 20  # alternatives for each token
LONGEST = 1_000_000  # characters of all prompts of a request
COMPLETION_TOKENS = 16  # what OpenAI makes of a completion that does not say how long
LISTED = 30  # models that a "no such model" names
IGNORED = (  # never changes a text, so it is taken and forgotten
    "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention",
    "parallel_tool_calls",
)  # fmt: skip
NEUTRAL: dict[str, tuple[Any, ...]] = {  # what this lab cannot do: only the value that asks for nothing
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "suffix": ("",),
    "response_format": ({"type": "text"},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
}
INSTEAD = {  # where something here comes near
    "frequency_penalty": " There is repetition_penalty (1 is off).",
    "presence_penalty": " There is repetition_penalty (1 is off).",
}
SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed", "stop", "n")
COMMON = ("model", *SAMPLING, "max_tokens", "logprobs", "stream", "stream_options")
KNOWN = {
    False: (*COMMON, "prompt", "echo", "best_of"),
    True: (*COMMON, "messages", "max_completion_tokens", "top_logprobs"),
}
ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


class Refusal(ValueError):
    """What a client is told instead of an answer, with its HTTP status and OpenAI's names for the case."""

    def __init__(self, sentence: str, status: int = 400, param: str | None = None, code: str | None = None):
        super().__init__(sentence)
        self.status, self.param, self.code = status, param, code


TYPES = {429: "rate_limit_error", 500: "server_error"}


def error(refused: Refusal) -> dict[str, Any]:
    """A refusal in OpenAI's shape of an error."""
    kind = TYPES.get(refused.status, "invalid_request_error")
    return {
        "error": {"message": str(refused), "type": kind, "param": refused.param, "code": refused.code},
    }


# --- which models there are


def served(shared: bool = False) -> list[str]:
    """Names of the models to be asked; of a `shared` lab those that belong to no visitor."""
    names = paths.model_names(steps=True)
    return [name for name in names if not shared or _belongs_to_nobody(name)]


def _belongs_to_nobody(name: str) -> bool:
    try:
        return not inventory.read(name).owner
    except (ValueError, OSError):  # half written, or deleted at this moment
        return False


def folder_of(name: object, shared: bool = False) -> Path:
    """The directory of a model that is served. Raises Refusal, which names those that are."""
    if not isinstance(name, str) or not name:
        raise Refusal("Say which model to ask: a model is missing in the request.", param="model")
    try:
        folder = paths.model_folder(name)
    except ValueError:
        folder = None
    if folder is None or (shared and not _belongs_to_nobody(name)):
        names = served(shared)
        more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
        there = f"there are {', '.join(names[:LISTED])}{more}" if names else "there is none yet"
        raise Refusal(
            f"The model {name[:80]!r} does not exist here; {there}.", 404, "model", "model_not_found"
        )
    return folder


def models(shared: bool = False) -> dict[str, Any]:
    """The answer to GET /v1/models."""
    return {"object": "list", "data": [model(name, shared) for name in served(shared)]}


def model(name: str, shared: bool = False) -> dict[str, Any]:
    """The answer to GET /v1/models/NAME. Raises Refusal."""
    made = (folder_of(name, shared) / "model.safetensors").stat().st_mtime
    return {"id": name, "object": "model", "created": int(made), "owned_by": "llm-lab"}


# --- from a body to what is asked of the engine


@dataclass(frozen=True)
class Asked:
    """A request that can be answered: one config and one text for each choice, prompt by prompt."""

    model: str
    chat: bool
    prompts: tuple[tuple[int, ...], ...]  # ids, as the model reads them
    n: int  # texts for each prompt
    configs: tuple[SampleConfig, ...]  # of each text
    encoding: Tokenizer
    top: int | None = None  # likeliest tokens to tell beside each; None tells no log-probability at all
    echo: tuple[tuple[str, int], ...] = ()  # the text to repeat, and how many ids in front are not part of it
    stream: bool = False
    include_usage: bool = False
    style: str = ""  # of a chat: own (the model's chat template) or one of prompts.STYLES
    id: str = field(default_factory=lambda: secrets.token_hex(12))
    created: int = field(default_factory=lambda: int(time.time()))


def read(data: bytes) -> dict[str, Any]:
    """A body as an object. Raises Refusal when it is none."""
    try:
        found = json.loads(data, parse_constant=_no_number)
    except (ValueError, RecursionError) as problem:
        raise Refusal(f"The body is no JSON: {str(problem)[:120]}.") from None
    if not isinstance(found, dict):
        raise Refusal('The body is one JSON object: {"model": ..., ...}.')
    return {name: value for name, value in found.items() if value is not None}  # null means not given


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is not a number that JSON knows")


def completion(body: Mapping[str, Any], shared: bool = False) -> Asked:
    """The body of POST /v1/completions as what is asked. Raises Refusal, and ValueError for a damaged model."""
    check_names(body, False)
    folder = folder_of(body.get("model"), shared)
    name, encoding = body["model"], tokenizer.get(f"model:{body['model']}")
    begin_id, given = chat.read(folder).begin_id, _prompts(body)
    made = [_ids(one, encoding, begin_id) for one in given]
    n = whole_number(body, "n", 1, MOST_TEXTS, 1)
    if "best_of" in body and whole_number(body, "best_of", 1, MOST_TEXTS, n) != n:
        raise Refusal(
            "best_of other than n is not supported: ask for n texts and choose yourself.", param="best_of"
        )
    echo = ()
    if flag(body, "echo"):
        texts = [one if isinstance(one, str) else encoding.decode(one) for one in given]
        echo = tuple((text, front) for text, (_, front) in zip(texts, made))
    most = whole_number(body, "max_tokens", 0, 100_000, COMPLETION_TOKENS)
    top = whole_number(body, "logprobs", 0, MOST_TOP, 0) if "logprobs" in body else None
    ids = [ids for ids, _ in made]
    return Asked(
        name, False, **_common(body, folder, ids, n, most, ()), encoding=encoding, top=top, echo=echo
    )


def chat_completion(body: Mapping[str, Any], shared: bool = False) -> Asked:
    """The body of POST /v1/chat/completions as what is asked. Raises Refusal, and ValueError for a damaged model.

    The conversation is written as the model was taught: through its own chat template, else in the prompt style that it
    was tuned with, else in the style "plain" (User: ... Assistant: ...), which `style` then says.
    """
    check_names(body, True)
    folder = folder_of(body.get("model"), shared)
    name, encoding = body["model"], tokenizer.get(f"model:{body['model']}")
    style = style_of(name, folder)
    said = messages(body)
    try:
        manner = prompts.manner(style, folder, encoding)
        ids = prompts.prompt_ids(manner, encoding, said)
    except ValueError as problem:  # the template refuses this conversation, in its own words
        raise Refusal(str(problem), param="messages") from None
    given = {body[name] for name in ("max_tokens", "max_completion_tokens") if type(body.get(name)) is int}
    if len(given) > 1:
        raise Refusal("max_completion_tokens and max_tokens differ: give one of them.", param="max_tokens")
    length = "max_tokens" if "max_tokens" in body else "max_completion_tokens"
    most = whole_number(body, length, 1, 100_000, 100_000)
    top = _chat_top(body)
    n = whole_number(body, "n", 1, MOST_TEXTS, 1)
    common = _common(body, folder, [ids], n, most, manner.stops)
    return Asked(name, True, **common, encoding=encoding, top=top, style=style)


def check_names(body: Mapping[str, Any], is_chat: bool) -> None:
    """Raise Refusal for the first parameter that is unknown, or asks for what this lab cannot do."""
    for name, value in body.items():
        if name in KNOWN[is_chat] or name in IGNORED:
            continue
        if name not in NEUTRAL:
            raise Refusal(
                f"The parameter {name[:80]!r} is not known here.", param=name[:80], code="unknown_parameter"
            )
        if isinstance(value, bool) or value not in NEUTRAL[name]:
            values = " or ".join(json.dumps(one) for one in NEUTRAL[name])
            sentence = f"{name} is not supported here: leave it out, or at {values}.{INSTEAD.get(name, '')}"
            raise Refusal(sentence, param=name, code="unsupported_parameter")


def style_of(name: str, folder: Path) -> str:
    """How a model is spoken to in a chat: "own", the style it was tuned with, or "plain"."""
    if chat.read(folder).template:
        return "own"
    config = tuned.training(name)
    style = config.tune.prompt_style if config and config.objective in ("instruct", "prefer") else "plain"
    return style if style in prompts.STYLES else "plain"


def messages(body: Mapping[str, Any]) -> list[chat.Message]:
    """The conversation of a body: role and content, which is text or parts of text. Raises Refusal."""
    given = body.get("messages")
    if not isinstance(given, list) or not given:
        raise Refusal(
            'messages is a list with at least one {"role": "user", "content": "..."}.', param="messages"
        )
    found = []
    for number, one in enumerate(given):
        where = f"messages[{number}]"
        role = one.get("role") if isinstance(one, dict) else None
        if not isinstance(role, str) or role not in ROLES:
            raise Refusal(
                f"The role of {where} is one of {', '.join(ROLES)}, not {str(role)[:40]!r}.", param=where
            )
        found.append({"role": ROLES[role], "content": _content(one.get("content"), where)})
    if (length := sum(len(one["content"]) for one in found)) > chat.LONGEST_CHAT:
        raise Refusal(
            f"The conversation has {length:,} characters; {chat.LONGEST_CHAT:,} are the most.",
            413,
            "messages",
        )
    return found


def _content(content: object, where: str) -> str:
    if isinstance(content, str):
        return tokenizer.clean(content)
    parts = content if isinstance(content, list) else [None]
    texts = [
        part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None for part in parts
    ]
    if not all(isinstance(text, str) for text in texts):
        raise Refusal(
            f"The content of {where} is text, or a list of parts of the type text: these models read nothing else.",
            param=where,
        )
    return tokenizer.clean("".join(texts))


def _chat_top(body: Mapping[str, Any]) -> int | None:
    if not flag(body, "logprobs"):
        if "top_logprobs" in body and body["top_logprobs"] != 0:
            raise Refusal("top_logprobs needs logprobs to be true.", param="top_logprobs")
        return None
    return whole_number(body, "top_logprobs", 0, MOST_TOP, 0)


def _prompts(body: Mapping[str, Any]) -> list[str | list[int]]:
    """The prompts of a completion: one text, several, one list of ids, or several. Raises Refusal."""
    given = body.get("prompt", "")
    alone = isinstance(given, str) or (given and _is_ids(given))
    found = [given] if alone else given
    texts = isinstance(found, list) and found and all(isinstance(one, str) for one in found)
    ids = isinstance(found, list) and found and all(_is_ids(one) for one in found)
    if not texts and not ids:
        raise Refusal(
            "prompt is a text, a list of texts, a list of token ids, or a list of such lists.", param="prompt"
        )
    if (length := sum(len(one) for one in found)) > LONGEST:
        raise Refusal(f"The prompts have {length:,} characters; {LONGEST:,} are the most.", 413, "prompt")
    return [tokenizer.clean(one) for one in found] if texts else found


def _is_ids(one: object) -> bool:
    return isinstance(one, list) and all(type(id) is int for id in one)


def _ids(given: str | list[int], encoding: Tokenizer, begin_id: int | None) -> tuple[list[int], int]:
    """What the model reads of a prompt, and how many ids of it were put in front. Raises Refusal.

    A text begins as the model's texts do; ids are taken as they are. Nothing at all begins after an end-of-text.
    """
    try:
        ids = encoding.encode(given) if isinstance(given, str) else list(given)
        for id in ids:
            encoding.token_bytes(id)
    except ValueError as problem:
        raise Refusal(str(problem), param="prompt") from None
    if isinstance(given, str) and begin_id is not None and ids[:1] != [begin_id]:
        return [begin_id, *ids], 1
    if not ids:
        if encoding.eot_id is None:
            raise Refusal(
                "The prompt is empty and this encoding has no end-of-text to start from: give a prompt.",
                param="prompt",
            )
        return [encoding.eot_id], 1
    return ids, 0


def _common(
    body: Mapping[str, Any],
    folder: Path,
    ids: Sequence[Sequence[int]],
    n: int,
    most: int,
    stops: Sequence[str],
) -> dict[str, Any]:
    """What both kinds of request share, as fields of Asked. Raises Refusal.

    A text ends where the model's context is full, so that every log-probability is one given all of the text before.
    """
    if len(ids) * n > MOST_TEXTS:
        raise Refusal(
            f"{len(ids)} prompts times n = {n} are too many texts: {MOST_TEXTS} are the most.", param="n"
        )
    context_length = inventory.shape(folder).context_length
    for one in ids:
        if len(one) > context_length:
            raise Refusal(
                f"The prompt has {len(one):,} tokens; this model's context has {context_length:,}: shorten it.",
                param="messages" if "messages" in body else "prompt", code="context_length_exceeded",
            )  # fmt: skip
    sampling = dict(
        temperature=number(body, "temperature", 0, 2, 1),
        top_p=number(body, "top_p", 0, 1, 1),
        min_p=number(body, "min_p", 0, 1, 0),
        repetition_penalty=number(body, "repetition_penalty", 0.01, 100, 1),
        top_k=whole_number(body, "top_k", 0, 10_000_000, 0),
        stop=(*stops, *_stops(body)),
    )
    seed = whole_number(body, "seed", -(2**63), 2**64, 0) if "seed" in body else secrets.randbelow(2**31)
    configs = [
        SampleConfig(
            **sampling,
            seed=(seed + p * n + i) % 2**31,
            max_new_tokens=min(most, context_length - len(one) + 1),
        )
        for p, one in enumerate(ids)
        for i in range(n)
    ]
    stream, options = flag(body, "stream"), body.get("stream_options", {})
    if not isinstance(options, dict) or set(options) - {"include_usage", "include_obfuscation"}:
        raise Refusal('stream_options is {"include_usage": true} or left out.', param="stream_options")
    if options and not stream:
        raise Refusal("stream_options needs stream to be true.", param="stream_options")
    return dict(
        prompts=tuple(tuple(one) for one in ids), n=n, configs=tuple(configs), stream=stream,
        include_usage=flag(options, "include_usage"),
    )  # fmt: skip


def _stops(body: Mapping[str, Any]) -> list[str]:
    given = body.get("stop", [])
    found = [given] if isinstance(given, str) else given
    good = isinstance(found, list) and all(
        isinstance(one, str) and 0 < len(one) <= LONGEST_STOP for one in found
    )
    if not good or len(found) > MOST_STOPS:
        raise Refusal(
            f"stop is a text or a list of up to {MOST_STOPS} texts, each of 1 to {LONGEST_STOP} characters.",
            param="stop",
        )
    return found


def number(body: Mapping[str, Any], name: str, low: float, high: float, default: float) -> float:
    """A finite number of a body, within its range. Raises Refusal."""
    value = body.get(name, default)
    if type(value) not in (int, float) or not low <= value <= high or not math.isfinite(value):
        raise Refusal(f"{name} is a number from {low:g} to {high:g}, not {_quoted(value)}.", param=name)
    return float(value)


def whole_number(body: Mapping[str, Any], name: str, low: int, high: int, default: int) -> int:
    """A whole number of a body, within its range. Raises Refusal."""
    value = body.get(name, default)
    if type(value) is not int or not low <= value <= high:
        raise Refusal(f"{name} is a whole number from {low:,} to {high:,}, not {_quoted(value)}.", param=name)
    return value


def flag(body: Mapping[str, Any], name: str) -> bool:
    """True or false of a body, false where it is not given. Raises Refusal."""
    value = body.get(name, False)
    if type(value) is not bool:
        raise Refusal(f"{name} is true or false, not {_quoted(value)}.", param=name)
    return value


def _quoted(value: Any) -> str:
    return json.dumps(value)[:60]


# --- from the engine's steps to pieces of the answers


class Token(NamedTuple):
    """One token that belongs to the text of an answer."""

    id: int
    logprob: float | None  # None for the first of a text, which nothing precedes
    top: tuple[tuple[int, float], ...]  # likeliest ids and their log-probabilities
    start: int  # where in the text it begins, in characters


class Piece(NamedTuple):
    """What became certain of one choice."""

    index: int
    text: str
    tokens: tuple[Token, ...]
    finish: str | None  # stop or length, with the last piece
    made: int  # tokens that the model made for it, the one that ended the text too


class Growing:
    """One choice: which of its tokens belong to the text that is certain already.

    A token is told with the text it begins in: the bytes of a character only with the whole character, the tokens of a stop
    string never.
    """

    def __init__(self, index: int, start: int = 0):
        self.index, self.end, self.sent = index, start, start  # characters made, and told
        self.held: list[Token] = []

    def take(self, step: Mapping[str, Any]) -> Piece:
        """The piece that a step of the engine makes certain."""
        top = tuple((id, math.log(p)) for id, _, p in step["top"] if p > 0)
        if step["finish"] != "eot":
            self.held.append(Token(step["id"], step["logprob"], top, self.end))
        self.end += len(step["piece"])
        self.sent += len(step["text"])
        ended = step["finish"] in ("eot", "length")
        told = [token for token in self.held if ended or token.start < self.sent]
        self.held = self.held[len(told) :]
        finish = {None: None, "length": "length"}.get(step["finish"], "stop")
        return Piece(self.index, step["text"], tuple(told), finish, 1)


def pieces(engine: Engine, asked: Asked) -> Iterator[list[Piece]]:
    """The answer as it comes, a list of pieces at a time, sometimes an empty one. Closing it ends the generation.

    Raises ValueError and RuntimeError as `Engine.generate` does.
    """
    starts = [0] * len(asked.configs)
    for p, (text, front) in enumerate(asked.echo):
        tokens = tuple(prompt_tokens(engine, asked, p, front))
        for i in range(p * asked.n, (p + 1) * asked.n):
            starts[i] = len(text)
            yield [Piece(i, text, tokens, None, 0)]
    rows = [Growing(i, start) for i, start in enumerate(starts)]
    texts = [list(ids) for ids in asked.prompts for _ in range(asked.n)]
    going = set(range(len(rows)))
    steps: Iterator[Steps] = engine.generate(
        asked.model, texts, list(asked.configs), alternatives=asked.top or 0
    )
    try:
        for batch in steps:
            found = [rows[step["row"]].take(step) for step in batch]
            going -= {piece.index for piece in found if piece.finish}
            yield found
    finally:
        steps.close()
    yield [Piece(i, "", (), "length", 0) for i in sorted(going)]  # max_tokens is 0


def prompt_tokens(engine: Engine, asked: Asked, p: int, front: int) -> Iterator[Token]:
    """The tokens of an echoed prompt, but the `front` ones that were put before it, with their log-probabilities.

    From one pass over the prompt; where likeliest tokens are asked for, the prompt is made again token by token.
    """
    ids = list(asked.prompts[p])
    if asked.top is None:
        return
    logprobs: list[float | None] = [None]
    tops: list[tuple[tuple[int, float], ...]] = [()] * len(ids)
    if not asked.top:
        logprobs = engine.score(asked.model, text=ids)["logprobs"]
    elif len(ids) > 1:
        again = SampleConfig(max_new_tokens=len(ids) - 1, stop_at_eot=False)
        forced = engine.generate(asked.model, [ids[:1]], again, alternatives=asked.top, forced=ids[1:])
        steps = [step for batch in forced for step in batch]
        logprobs += [step["logprob"] for step in steps]
        tops[1:] = [
            tuple((id, math.log(share)) for id, _, share in step["top"] if share > 0) for step in steps
        ]
    decoder, start = StreamDecoder(asked.encoding), 0
    for i in range(front, len(ids)):
        yield Token(ids[i], logprobs[i], tops[i], start)
        start += len(decoder.push(ids[i]))


# --- from pieces to the bodies of answers


def whole(asked: Asked, found: Sequence[Piece]) -> dict[str, Any]:
    """The body of an answer that is not streamed."""
    choices = []
    for i in range(len(asked.configs)):
        own = [piece for piece in found if piece.index == i]
        text = "".join(piece.text for piece in own)
        told = _logprobs(asked, [token for piece in own for token in piece.tokens])
        finish = next((piece.finish for piece in own if piece.finish), None)
        said = (
            {"message": {"role": "assistant", "content": text, "refusal": None}}
            if asked.chat
            else {"text": text}
        )
        choices.append({"index": i, **said, "logprobs": told, "finish_reason": finish})
    return _envelope(asked, choices) | {"usage": usage(asked, sum(piece.made for piece in found))}


def opening(asked: Asked) -> list[dict[str, Any]]:
    """The chunks that come before the first token: in a chat, who speaks."""
    if not asked.chat:
        return []
    return [
        _chunk(asked, Piece(i, "", (), None, 0), {"role": "assistant", "content": ""}) for i in range(asked.n)
    ]


def chunks(asked: Asked, piece: Piece) -> list[dict[str, Any]]:
    """The chunks of a stream that tell a piece, none when there is nothing to tell; the end has one of its own."""
    found = []
    if piece.text or piece.tokens:
        found.append(_chunk(asked, piece._replace(finish=None), {"content": piece.text}))
    if piece.finish:
        found.append(_chunk(asked, Piece(piece.index, "", (), piece.finish, 0), {}))
    return found


def closing(asked: Asked, made: int) -> list[dict[str, Any]]:
    """The chunk after the last one: the usage, where it is asked for."""
    if not asked.include_usage:
        return []
    return [_envelope(asked, [], ".chunk") | {"usage": usage(asked, made)}]


def event(body: Mapping[str, Any] | str) -> bytes:
    """One server-sent event. ASCII only, so that no chunk of bytes can cut a character."""
    return f"data: {body if isinstance(body, str) else json.dumps(body)}\n\n".encode("ascii")


def usage(asked: Asked, made: int) -> dict[str, int]:
    """How many tokens were read and made; prompts count once, however many texts continue them."""
    read = sum(len(ids) for ids in asked.prompts)
    return {"prompt_tokens": read, "completion_tokens": made, "total_tokens": read + made}


def _envelope(asked: Asked, choices: list[dict[str, Any]], kind: str = "") -> dict[str, Any]:
    prefix, name = ("chatcmpl", f"chat.completion{kind}") if asked.chat else ("cmpl", "text_completion")
    return {
        "id": f"{prefix}-{asked.id}", "object": name, "created": asked.created, "model": asked.model, "choices": choices,
    }  # fmt: skip


def _chunk(asked: Asked, piece: Piece, delta: dict[str, Any]) -> dict[str, Any]:
    said = {"delta": delta} if asked.chat else {"text": piece.text}
    told = _logprobs(asked, piece.tokens) if piece.tokens else None
    choice = {"index": piece.index, **said, "logprobs": told, "finish_reason": piece.finish}
    none_yet = {"usage": None} if asked.include_usage else {}
    return _envelope(asked, [choice], ".chunk") | none_yet


def _logprobs(asked: Asked, tokens: Sequence[Token]) -> dict[str, Any] | None:
    """The log-probabilities of tokens in the shape of a chat or of a completion; None when none are asked for."""
    if asked.top is None:
        return None
    if asked.chat:
        return {"content": [_told(asked, token) for token in tokens], "refusal": None}
    return {
        "tokens": [_shown(asked, token.id) for token in tokens],
        "token_logprobs": [token.logprob for token in tokens],
        "top_logprobs": [_top(asked, token) for token in tokens],
        "text_offset": [token.start for token in tokens],
    }


def _top(asked: Asked, token: Token) -> dict[str, float] | None:
    """The likeliest tokens by text; the one that was taken is always among them."""
    if token.logprob is None:
        return None
    return {_shown(asked, id): logprob for id, logprob in token.top} | {
        _shown(asked, token.id): token.logprob
    }


def _told(asked: Asked, token: Token) -> dict[str, Any]:
    top = [_entry(asked, id, logprob) for id, logprob in token.top]
    return _entry(asked, token.id, token.logprob) | {"top_logprobs": top}


def _entry(asked: Asked, id: int, logprob: float | None) -> dict[str, Any]:
    return {"token": _shown(asked, id), "logprob": logprob, "bytes": list(asked.encoding.token_bytes(id))}


def _shown(asked: Asked, id: int) -> str:
    """A token's text; bytes that are only a part of a character as \\xNN."""
    return asked.encoding.token_bytes(id).decode("utf-8", errors="backslashreplace")
