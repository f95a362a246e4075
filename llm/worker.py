"""The torch side of the engine: holds loaded models, answers requests, decodes the texts of all visitors together."""

from __future__ import annotations

import importlib
import os
import pickle
import queue
import secrets
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from llm import chat, dial, lora, paths, quantised, tuned
from llm.checkpoint import load_model
from llm.config import SampleConfig, to_dict
from llm.generate import Batch, Row, Step, evaluating, next_logits, prompt_ids, shown, started
from llm.generate import explain as explain_logits
from llm.model import GPT
from llm.tokenizer import Tokenizer

MOST_BYTES = 4 * 2**30  # weights kept in memory; beyond it the models longest unused are dropped
ROWS = 8  # texts of one model decoded side by side; more wait


# --- operations: (model, encoding, **plain values) -> plain values and numpy arrays
# A `text` may be its ids already: the worker makes them, so that a text begins as the model's texts do (`llm.chat.read`).


def info(model: GPT, encoding: Tokenizer) -> dict[str, Any]:
    """What a page says of a model: its config, its size, its encoding."""
    return dict(
        config=to_dict(model.config),
        parameters=sum(p.numel() for p in model.parameters()),
        encoding=dict(
            name=encoding.name, kind=encoding.kind, vocab_size=encoding.vocab_size, eot_id=encoding.eot_id
        ),
    )


def score(
    model: GPT, encoding: Tokenizer, text: str | Sequence[int], special: bool = False
) -> dict[str, Any]:
    """How likely the model finds each token of `text`, given those before it (those that its context holds).

    `logprobs` has None for the first token, which nothing precedes. Only the last context_length tokens are read;
    `dropped` counts the others. Raises ValueError for a text that the encoding cannot write.
    """
    ids = encoding.encode(text, special=special) if isinstance(text, str) else list(text)
    dropped = max(len(ids) - model.config.context_length, 0)
    ids = ids[dropped:]
    logprobs: list[float | None] = [None] * min(len(ids), 1)
    if len(ids) > 1:
        idx = torch.tensor([ids], device=model.device)
        with torch.inference_mode(), evaluating(model):
            found = model(idx)[0, :-1].float().log_softmax(-1).gather(-1, idx[0, 1:, None])
        logprobs += found[:, 0].tolist()
    return dict(ids=ids, texts=[shown(encoding, id) for id in ids], logprobs=logprobs, dropped=dropped)


def explain(
    model: GPT,
    encoding: Tokenizer,
    text: str | Sequence[int],
    config: SampleConfig,
    special: bool = False,
    after: Sequence[int] = (),
    top: int = 20,
    also: Sequence[int] = (),
) -> dict[str, Any]:
    """The table of the token that follows `text` and the ids `after`; see llm.generate.explain."""
    ids = encoding.encode(text, special=special) if isinstance(text, str) else text
    ids, _, note = started(ids, model.config.context_length, encoding)
    ids += list(after)
    return explain_logits(next_logits(model, ids), ids, config, encoding, top, also) | dict(note=note)


OPERATIONS: dict[str, Callable | str] = {  # a "module:function" is imported when it is first asked for
    "info": info,
    "score": score,
    "explain": explain,
    "trace": "llm.trace:run",
    "cell": "llm.trace:cell",
    "lens": "llm.trace:lens",
    "block": "llm.trace:block",
    "positions": "llm.trace:positions",
    "beyond": "llm.trace:beyond",
    "classify": "llm.objectives:class_probabilities",
    "seen_pair": "llm.objectives:seen_pair",
    "adapter": "llm.lora:seen",
    "text_score": "llm.scoring:text_score",
    "by_weights": "llm.scoring:by_weights",
    "copied": "llm.memory:check",
}
WITHOUT_ENCODING = ("seen_pair",)  # what it is asked of is ids already
BY_OUTPUT = ("score", "explain", "text_score")  # these only call the model; others look at its matrices


def operation(name: str) -> Callable:
    """The function behind a name of OPERATIONS. Raises ValueError for an unknown one."""
    if name not in OPERATIONS:
        raise ValueError(f"The engine has no operation {name!r}; it knows {', '.join(OPERATIONS)}.")
    found = OPERATIONS[name]
    if isinstance(found, str):
        module, function = found.split(":")
        found = getattr(importlib.import_module(module), function)
    return found


# --- loaded models


@dataclass(eq=False)
class Stream:
    """One request for text: where its steps go, and which of its rows are still growing."""

    deliver: Callable[
        [str, Any], None
    ]  # ("steps", list) any number of times, then ("end", None) or ("refused", why)
    rows: list[Row] = field(default_factory=list)


Mix = tuple[tuple[str, float], ...]  # adapters and how strongly they speak; () is the model alone
Way = tuple[Mix, str]  # a mix, and what its weights are kept as: SampleConfig.weights
COPIES = 2  # with smaller weights, of each model


@dataclass(eq=False)
class Loaded:
    """A model in memory, its adapters, and the texts that it is making."""

    folder: Path
    stamp: tuple
    model: GPT
    encoding: Tokenizer
    batches: dict[Way, Batch] = field(default_factory=dict)  # texts of one way are decoded together
    smaller: dict[Way, GPT] = field(default_factory=dict)  # copies with smaller weights, the last few
    streams: dict[Row, Stream] = field(default_factory=dict)
    adapted: GPT | None = None  # the same weights with adapters beside them
    adapters: dict[tuple, str] = field(default_factory=dict)  # (name, stamp) of each, and its label there

    @property
    def size(self) -> int:
        """Bytes of its weights."""
        own = sum(p.numel() * p.element_size() for p in self.model.parameters())
        parts = self.adapted.named_parameters() if self.adapted else ()
        copies = sum(quantised.size(copy) for copy in self.smaller.values())
        return own + copies + sum(p.numel() * p.element_size() for name, p in parts if lora.in_adapter(name))

    def label(self, base: str, name: str) -> str:
        """What an adapter is called on this model, where it is put when it is first asked for. Raises ValueError."""
        key = (name, tuned.adapter(name).stamp)
        if key not in self.adapters:
            self.adapted = self.adapted or lora.merged(self.model)
            in_use = {label for mix, _ in self.batches for label, _ in mix}
            for old, label in list(self.adapters.items()):
                if old[0] == name and label not in in_use:  # it was written again since
                    lora.remove(self.adapted, label)
                    del self.adapters[old]
            label = f"adapter-{secrets.token_hex(6)}"
            dial.put(self.adapted, base, name, label)
            self.adapters[key] = label
        return self.adapters[key]

    def mixed(self, mix: Mix, weights: str = "fp32") -> GPT:
        """The model as it answers with these adapters, until it is asked for another mix. No weight is touched.

        With smaller weights: a copy that has the adapters in its matrices.
        """
        if weights == "fp32":
            if mix:
                lora.mix(self.adapted, dict(mix))
            return self.adapted if mix else self.model
        way = (mix, weights)
        made = self.smaller.pop(way, None)
        if made is None:
            made = quantised.smaller(lora.merged(self.mixed(mix)) if mix else self.model, weights)
        self.smaller = {**dict(list(self.smaller.items())[1 - COPIES :]), way: made}
        return made

    def batch(self, way: Way) -> Batch:
        """Where texts of this way are made."""
        if way not in self.batches:
            self.batches[way] = Batch(self.mixed(*way), self.encoding, ROWS)
        return self.batches[way]

    def tidy(self) -> None:
        """Let go of the caches of mixes with no text left."""
        self.batches = {way: batch for way, batch in self.batches.items() if batch.rows or batch.waiting}


def text_ids(folder: Path, encoding: Tokenizer, text: str, special: bool) -> list[int]:
    """The ids of a text, with what the texts of this model directory begin with in front. Raises ValueError."""
    return prompt_ids(encoding, text, special, chat.read(folder).begin_id)


def stamp(folder: Path) -> tuple:
    """Changes whenever a file of the model directory is replaced. Raises ValueError when one is missing."""
    try:
        states = [(folder / name).stat() for name in ("config.json", "model.safetensors", "tokenizer.json")]
    except FileNotFoundError as error:
        raise ValueError(
            f"The model directory {paths.called(folder)} is not whole: {Path(error.filename).name} is missing."
        ) from None
    return tuple((state.st_mtime_ns, state.st_size, state.st_ino) for state in states)


class Worker:
    """The models in memory, the least recently used first, and the work on them, one thing at a time."""

    def __init__(self, most_bytes: int = MOST_BYTES, device: str = "cpu"):
        self.most_bytes, self.device = most_bytes, device
        self.loaded: list[Loaded] = []

    def get(self, name: str) -> Loaded:
        """The model called `name`, read from the disk when it is not in memory or has changed there. Raises ValueError."""
        folder = paths.model_folder(name)
        now = stamp(folder)
        found = next((one for one in self.loaded if (one.folder, one.stamp) == (folder, now)), None)
        if found is None:
            model, encoding = load_model(folder)
            found = Loaded(folder, now, model.to(self.device), encoding)
        outdated = [
            one for one in self.loaded if one.folder == folder and one is not found and not one.streams
        ]
        self.loaded = [one for one in self.loaded if one is not found and one not in outdated] + [found]
        for old in self.loaded[:-1]:
            if sum(one.size for one in self.loaded) > self.most_bytes and not old.streams:
                self.loaded.remove(old)
        return found

    def dialled(self, model: str, strengths: Mapping[str, float] | None) -> tuple[Loaded, Mix]:
        """The model to ask, and its mix: `model` as it is, or with `strengths` the one below it and those adapters.

        Raises ValueError for an adapter of another model and for a strength outside 0 to 2.
        """
        if strengths is None:
            return self.get(model), ()
        base = tuned.below(model)
        found = self.get(base)
        said = tuned.checked_strengths(dict(strengths))
        return found, tuple(sorted((found.label(base, name), value) for name, value in said.items() if value))

    def answer(self, op: str, model: str, plain: dict[str, Any]) -> Any:
        """The result of an operation on a model. `adapters` among the values says how strong which are. Raises ValueError."""
        function = operation(op)
        plain = dict(plain)
        found, mix = self.dialled(model, plain.pop("adapters", None))
        config = plain.get("config")
        weights = config.weights if isinstance(config, SampleConfig) else "fp32"
        asked = found.mixed(mix, weights)
        if mix and weights == "fp32" and op not in BY_OUTPUT:
            asked = lora.merged(asked)
        if op in WITHOUT_ENCODING:
            return function(asked, **plain)
        if op != "beyond" and isinstance(
            plain.get("text"), str
        ):  # that one cuts its stretches out of the middle
            folder = paths.model_folder(model)
            plain |= {"text": text_ids(folder, found.encoding, plain["text"], plain.get("special", False))}
        return function(asked, found.encoding, **plain)

    def begin(
        self,
        deliver: Callable[[str, Any], None],
        model: str,
        prompts: Sequence[str | Sequence[int]],
        config: SampleConfig | Sequence[SampleConfig],
        special: bool = False,
        alternatives: int = 0,
        forced: Sequence[int] = (),
        adapters: Mapping[str, float] | None = None,
    ) -> Stream:
        """Start texts; their steps come with `turn`. See `llm.engine.Engine.generate`. Raises ValueError."""
        found, mix = self.dialled(model, adapters)
        folder = paths.model_folder(model)
        configs = (
            [replace(config, seed=(config.seed + r) % 2**31) for r in range(len(prompts))]
            if isinstance(config, SampleConfig)
            else list(config)
        )
        stream, ends = Stream(deliver), chat.read(folder).end_ids
        for r, (prompt, own) in enumerate(zip(prompts, configs)):
            ids = (
                text_ids(folder, found.encoding, prompt, special) if isinstance(prompt, str) else list(prompt)
            )
            row = Row(r, ids, own, found.model, found.encoding, forced, alternatives, ends)
            if own.max_new_tokens > 0:
                stream.rows.append(row)
        for row in stream.rows:
            found.batch((mix, row.config.weights)).join(row)
            found.streams[row] = stream
        if not stream.rows:  # max_new_tokens is 0
            deliver("end", None)
        return stream

    def cancel(self, stream: Stream) -> None:
        """End a request for text; its places are free at once."""
        for found in self._busy():
            for row in [row for row, owner in found.streams.items() if owner is stream]:
                for batch in found.batches.values():
                    batch.leave(row)
                del found.streams[row]
            found.tidy()
        stream.rows = []

    def _busy(self) -> list[Loaded]:
        return [found for found in self.loaded if found.streams]

    @property
    def busy(self) -> bool:
        """Whether a text is in the making."""
        return bool(self._busy())

    def turn(self) -> None:
        """One more token for every text of every model, delivered."""
        for found in self._busy():
            for (mix, weights), batch in list(found.batches.items()):
                if weights == "fp32":
                    found.mixed(mix)  # the dials are one set for all: each mix sets them before its own step
                try:
                    made = batch.step()
                except Exception as error:  # the texts of this model cannot go on; those of others can
                    message = as_message(error)
                    failed = [found.streams.pop(row) for row in (*batch.rows, *batch.waiting)]
                    del found.batches[mix, weights]
                    for stream in dict.fromkeys(failed):
                        stream.rows = []
                        stream.deliver(*message)
                else:
                    self._deliver(found, made)
            found.tidy()

    def _deliver(self, found: Loaded, made: list[tuple[Row, Step]]) -> None:
        by_stream: dict[Stream, list[dict[str, Any]]] = {}
        for row, step in made:
            stream = found.streams[row]
            by_stream.setdefault(stream, []).append(step._asdict())
            if step.finish:
                del found.streams[row]
                stream.rows.remove(row)
        for stream, steps in by_stream.items():
            stream.deliver("steps", steps)
            if not stream.rows:
                stream.deliver("end", None)


def as_message(error: Exception) -> tuple[str, str]:
    """("refused", a sentence for the reader), or ("failed", a name for the log, to which the traceback goes)."""
    if isinstance(error, ValueError):
        return "refused", str(error)
    traceback.print_exception(error)
    if isinstance(error, MemoryError) or "alloc" in str(error):
        return (
            "refused",
            "There is not enough memory on this machine for that: take a smaller model or a shorter text.",
        )
    return "failed", f"{type(error).__name__}: {error}"


# --- the process: pickles over standard input and output


def main() -> None:
    """Serve the page that started this process until it goes away.

    In: (id, operation, model, values), or (id, "cancel", "", {}). Out: (id, kind, value), where kind is value, steps, end,
    refused or failed. Only the process at the other end of the pipe, which has our rights, can write to it.
    """
    inbox: queue.SimpleQueue = queue.SimpleQueue()
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints goes to the log, not between the frames

    def listen() -> None:
        while True:
            try:
                inbox.put(pickle.load(sys.stdin.buffer))
            except (EOFError, pickle.UnpicklingError):
                os._exit(0)  # the page has gone: nobody waits for an answer

    def send(message: tuple) -> None:
        pickle.dump(message, out, protocol=pickle.HIGHEST_PROTOCOL)
        out.flush()

    threading.Thread(target=listen, daemon=True).start()
    worker, streams = Worker(), {}
    while True:
        if worker.busy and inbox.empty():
            worker.turn()
        else:
            handle(worker, streams, inbox.get(), send)
            if worker.busy:
                worker.turn()  # between two long operations too


def handle(worker: Worker, streams: dict[int, Stream], message: tuple, send: Callable[[Any], None]) -> None:
    """Do what one message asks; `streams` are the texts in the making by the id of their request."""
    id, op, model, plain = message

    def deliver(kind: str, value: Any) -> None:
        if kind != "steps":
            streams.pop(id, None)
        send((id, kind, value))

    try:
        if op == "cancel":
            if id in streams:
                worker.cancel(streams.pop(id))
        elif op == "ready":
            deliver("value", torch.__version__)
        elif op == "generate":
            stream = worker.begin(deliver, model, **plain)
            if stream.rows:
                streams[id] = stream
        else:
            deliver("value", worker.answer(op, model, plain))
    except Exception as error:  # the boundary of the process: every request gets its answer
        deliver(*as_message(error))
