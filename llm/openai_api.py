"""The lab's models as OpenAI's API speaks of them: requests in, answers and stream chunks out, as plain dicts.

Shapes after OpenAI's published reference of `/v1/models`, `/v1/completions` and `/v1/chat/completions`.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llm import chat, engine, paths, tokenizer
from llm.config import SampleConfig

FINISH = {"eot": "stop", "stop": "stop", "length": "length"}
MOST_TEXTS = 8  # of one request: prompts times n
MOST_LOGPROBS = 20
DEFAULT_TOKENS = {"chat": 512, "text": 16}  # without max_tokens; 16 is OpenAI's own for plain completions
IGNORED = (
    "user",
    "metadata",
    "store",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
)  # change no answer
NEUTRAL: dict[str, tuple] = {  # what the lab cannot do, and the values that ask for nothing
    "tools": (None, []), "functions": (None, []), "tool_choice": (None, "none", "auto"), "logit_bias": (None, {}),
    "presence_penalty": (None, 0), "frequency_penalty": (None, 0), "echo": (None, False), "suffix": (None, ""),
    "best_of": (None, 1), "response_format": (None, {"type": "text"}), "modalities": (None, ["text"]),
    "audio": (None,), "prediction": (None,), "function_call": (None, "none", "auto"), "reasoning_effort": (None, "none"),
}  # fmt: skip


class Wrong(ValueError):
    """A request that cannot be answered: a sentence, the HTTP status and OpenAI's code for it."""

    def __init__(self, sentence: str, status: int = 400, code: str | None = None, param: str | None = None):
        super().__init__(sentence)
        self.status, self.code, self.param = status, code, param

    def body(self) -> dict[str, Any]:
        """OpenAI's shape of an error."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}


@dataclass(frozen=True)
class Asked:
    """A request, read."""

    kind: str  # chat or text
    model: str
    prompts: tuple[tuple[int, ...], ...]  # ids, one for each prompt
    n: int  # texts for each prompt
    hows: tuple[SampleConfig, ...]  # one for each text
    stream: bool
    logprobs: int | None  # alternatives asked for with each token; None: no probabilities at all
    include_usage: bool
    id: str
    created: int


def models(names: Sequence[str]) -> dict[str, Any]:
    """The list of `/v1/models`."""
    rows = []
    for name in names:
        made = int((paths.model_folder(name) / "config.json").stat().st_mtime)
        rows.append({"id": name, "object": "model", "created": made, "owned_by": "llm-lab"})
    return {"object": "list", "data": rows}


def read(kind: str, body: Any, names: Sequence[str]) -> Asked:
    """A request body of `/v1/chat/completions` ("chat") or `/v1/completions` ("text"). Raises Wrong."""
    if not isinstance(body, dict):
        raise Wrong("The body must be a JSON object.")
    model = body.get("model")
    if model not in names:
        listed = ", ".join(names[:20]) or "none"
        raise Wrong(f"There is no model {str(model)[:80]!r} here; there are: {listed}.", 404, "model_not_found", "model")  # fmt: skip
    for name, neutral in NEUTRAL.items():
        if name in body and body[name] not in neutral:
            raise Wrong(f"{name} is not something this lab can do: leave it out.", param=name)
    stops: tuple[str, ...] = ()
    try:
        if kind == "chat":
            ids, stops = chat_ids(model, body.get("messages"))
            prompts = [ids]
        else:
            prompts = text_ids(model, body.get("prompt"))
    except Wrong:
        raise
    except ValueError as error:
        raise Wrong(str(error)) from None
    n = body.get("n") or 1
    if type(n) is not int or n < 1 or n * len(prompts) > MOST_TEXTS:
        raise Wrong(f"One request may ask for {MOST_TEXTS} texts at most (prompts times n).", param="n")
    how = settings(kind, body, stops)
    hows = [replace(how, seed=(how.seed + i) % 2**31) for i in range(n * len(prompts))]
    options = body.get("stream_options") or {}
    return Asked(
        kind, model, tuple(map(tuple, prompts)), n, tuple(hows), body.get("stream") is True, alternatives(kind, body),
        isinstance(options, dict) and options.get("include_usage") is True,
        f"{'chatcmpl' if kind == 'chat' else 'cmpl'}-{secrets.token_hex(12)}", int(time.time()),
    )  # fmt: skip


def chat_ids(model: str, messages: Any) -> tuple[list[int], tuple[str, ...]]:
    """A conversation as the model reads it, and the texts that end an answer. Raises ValueError.

    A model without a chat template is asked in the plain style: User: ... Assistant: ...
    """
    if not isinstance(messages, list) or not messages:
        raise Wrong("messages must be a list of at least one message.", param="messages")
    said = [{"role": role_of(one), "content": content_of(one)} for one in messages]
    folder = paths.model_folder(model)
    template = "" if chat.read(folder).template else "plain"
    found = chat.prompt(folder, tokenizer.get(f"model:{model}"), said, template)
    return found.ids, found.stops


def role_of(message: Any) -> str:
    """The role of a message, as the lab names it. Raises Wrong for one it does not know."""
    role = message.get("role") if isinstance(message, dict) else None
    role = "system" if role == "developer" else role
    if role not in chat.ROLES:
        raise Wrong(f"A message has the role system, user or assistant, not {str(role)[:40]!r}.", param="messages")  # fmt: skip
    return role


def content_of(message: dict[str, Any]) -> str:
    """The text of a message, which may come in parts. Raises Wrong for pictures and sounds."""
    content = message.get("content")
    if isinstance(content, list) and all(isinstance(p, dict) and p.get("type") == "text" for p in content):
        content = "".join(str(part.get("text", "")) for part in content)
    if not isinstance(content, str):
        raise Wrong("The content of a message must be text.", param="messages")
    return content


def text_ids(model: str, prompt: Any) -> list[list[int]]:
    """The prompts of a plain completion: a text, ids, or a list of either. Raises ValueError."""
    encoding, begin = tokenizer.get(f"model:{model}"), chat.read(paths.model_folder(model)).begin_id
    prompt = "" if prompt is None else prompt
    several = isinstance(prompt, list) and not (prompt and all(type(i) is int for i in prompt))
    found = []
    for one in prompt if several else [prompt]:
        if isinstance(one, str):
            ids = encoding.encode(one)
            found.append(ids if begin is None else [begin, *ids])
        elif isinstance(one, list) and all(type(i) is int and 0 <= i < encoding.vocab_size for i in one):
            found.append(one)
        else:
            raise Wrong("The prompt must be text, or ids of the model's encoding.", param="prompt")
    if not found:
        raise Wrong("The list of prompts is empty.", param="prompt")
    return found


def settings(kind: str, body: dict[str, Any], stops: tuple[str, ...]) -> SampleConfig:
    """The sampling settings of a request. top_k, min_p and repetition_penalty are known too. Raises Wrong."""
    stop = body.get("stop") or []
    stop = [stop] if isinstance(stop, str) else stop
    if not isinstance(stop, list) or len(stop) > 16 or not all(isinstance(s, str) and s for s in stop):
        raise Wrong("stop is a text or a list of up to 16 texts.", param="stop")
    most = body.get("max_completion_tokens", body.get("max_tokens"))
    values = {
        "temperature": body.get("temperature", 1.0), "top_p": body.get("top_p", 1.0), "top_k": body.get("top_k", 0),
        "min_p": body.get("min_p", 0.0), "repetition_penalty": body.get("repetition_penalty", 1.0),
        "max_new_tokens": DEFAULT_TOKENS[kind] if most is None else most, "seed": body.get("seed"),
    }  # fmt: skip
    given = {name: value for name, value in values.items() if value is not None}
    given.setdefault("seed", secrets.randbelow(2**31))
    try:
        return SampleConfig(**given, stop=(*stop, *stops))
    except (ValueError, TypeError) as error:
        raise Wrong(str(error)) from None


def alternatives(kind: str, body: dict[str, Any]) -> int | None:
    """How many alternatives are asked for with each token; None for no probabilities. Raises Wrong."""
    said = body.get("logprobs")
    if kind == "chat":
        if said is not True:
            return None
        said = body.get("top_logprobs") or 0
    if said is None or said is False:
        return None
    if type(said) is not int or not 0 <= said <= MOST_LOGPROBS:
        raise Wrong(f"The number of log-probabilities is from 0 to {MOST_LOGPROBS}.", param="logprobs")
    return said


# --- answers


def steps_of(asked: Asked) -> Iterator[list[dict[str, Any]]]:
    """The steps of the engine for all texts of a request. Raises Wrong where the model cannot."""
    prompts = [list(prompt) for prompt in asked.prompts for _ in range(asked.n)]
    try:
        yield from engine.get().generate(
            asked.model, prompts, list(asked.hows), alternatives=asked.logprobs or 0
        )
    except ValueError as error:
        raise Wrong(str(error)) from None


def logprob_of(step: dict[str, Any]) -> dict[str, Any]:
    """A token as chat answers tell its probability."""
    from math import log

    top = [
        {"token": text, "logprob": log(p) if p > 0 else -9999.0, "bytes": list(text.encode())}
        for _, text, p in step["top"]
    ]
    piece = step["piece"]
    return {"token": piece, "logprob": step["logprob"], "bytes": list(piece.encode()), "top_logprobs": top}


def logprobs_of(asked: Asked, steps: Sequence[dict[str, Any]], offset: int = 0) -> dict[str, Any] | None:
    """The probabilities of some tokens, in the shape of the request's kind; None where none are asked for."""
    if asked.logprobs is None:
        return None
    found = [logprob_of(step) for step in steps]
    if asked.kind == "chat":
        return {"content": found, "refusal": None}
    places = []
    for one in found:
        places.append(offset)
        offset += len(one["token"])
    return {
        "tokens": [one["token"] for one in found],
        "token_logprobs": [one["logprob"] for one in found],
        "top_logprobs": [{t["token"]: t["logprob"] for t in one["top_logprobs"]} for one in found],
        "text_offset": places,
    }


def usage(asked: Asked, made: int) -> dict[str, int]:
    """Tokens read and written."""
    read_tokens = sum(map(len, asked.prompts))
    return {"prompt_tokens": read_tokens, "completion_tokens": made, "total_tokens": read_tokens + made}


def whole(asked: Asked) -> dict[str, Any]:
    """The answer to a request that does not stream. Raises Wrong."""
    count = len(asked.hows)
    kept: list[list[dict[str, Any]]] = [[] for _ in range(count)]
    for batch in steps_of(asked):
        for step in batch:
            kept[step["row"]].append(step)
    choices = []
    for index, steps in enumerate(kept):
        text = "".join(step["text"] for step in steps)
        said = {"message": {"role": "assistant", "content": text, "refusal": None}} if asked.kind == "chat" else {"text": text}  # fmt: skip
        finish = FINISH[steps[-1]["finish"]] if steps else "length"
        choices.append({"index": index, **said, "logprobs": logprobs_of(asked, steps), "finish_reason": finish})  # fmt: skip
    return {
        **head(asked, "chat.completion" if asked.kind == "chat" else "text_completion"),
        "choices": choices,
        "usage": usage(asked, sum(map(len, kept))),
    }


def head(asked: Asked, kind: str) -> dict[str, Any]:
    """What every answer begins with."""
    return {"id": asked.id, "object": kind, "created": asked.created, "model": asked.model}


def chunks(asked: Asked) -> Iterator[dict[str, Any]]:
    """The answer to a request that streams, a piece at a time; closing it ends the work. Raises Wrong."""
    about = head(asked, "chat.completion.chunk" if asked.kind == "chat" else "text_completion")
    if asked.include_usage:
        about["usage"] = None
    if asked.kind == "chat":
        first = [{"index": i, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None} for i in range(len(asked.hows))]  # fmt: skip
        yield {**about, "choices": first}
    made, offsets = 0, [0] * len(asked.hows)
    steps = steps_of(asked)
    try:
        for batch in steps:
            for step in batch:
                made += 1
                row, text = step["row"], step["text"]
                said = {"delta": {"content": text}} if asked.kind == "chat" else {"text": text}
                probabilities = logprobs_of(asked, [step], offsets[row])
                offsets[row] += len(step["piece"])
                finish = FINISH.get(step["finish"] or "")
                if text or finish or probabilities:
                    choice = {"index": row, **said, "logprobs": probabilities, "finish_reason": finish}
                    yield {**about, "choices": [choice]}
    finally:
        steps.close()
    if asked.include_usage:
        yield {**about, "choices": [], "usage": usage(asked, made)}
