"""What the page asks of a loaded model: trace, score, explain, generate. This side knows no torch; a worker process does.

`get()` gives the engine of this process. Its worker is started by the first request, dies with this process, and is
replaced when it dies itself. With LLM_ENGINE=inline the models live in this process instead (tests, scripts);
the answers are the same. On ZeroGPU `llm.zero` puts an engine of its own here.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pickle
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llm import commands, paths
from llm.config import SampleConfig

WAKE_SECONDS = 0.5
Steps = list[dict[str, Any]]  # each a llm.generate.Step as a dict


def operation(name: str) -> Callable:
    """A method that asks for one operation of `llm.worker.OPERATIONS` by name."""

    def ask(self: Engine, model: str, **plain: Any) -> Any:
        return self.call(name, model, **plain)

    ask.__doc__ = f"The operation {name!r} on a model; see `llm.worker.OPERATIONS` and `call`."
    return ask


class Engine:
    """Operations on models by name. Safe to call from many threads. Subclasses say where the models live."""

    info = operation("info")
    score = operation("score")
    explain = operation("explain")
    trace = operation("trace")
    cell = operation("cell")
    lens = operation("lens")
    block = operation("block")
    positions = operation("positions")
    beyond = operation("beyond")
    classify = operation("classify")
    seen_pair = operation("seen_pair")
    adapter = operation("adapter")
    text_score = operation("text_score")
    by_weights = operation("by_weights")
    copied = operation("copied")

    def call(self, op: str, model: str, **plain: Any) -> Any:
        """The result of an operation: plain values and numpy arrays.

        `adapters` among the values asks the model below `model` with these adapters, each as strong as it says.
        Raises ValueError with a sentence for the reader, RuntimeError when it is our mistake.
        """
        raise NotImplementedError

    def generate(
        self,
        model: str,
        prompts: Sequence[str | Sequence[int]],
        config: SampleConfig | Sequence[SampleConfig],
        special: bool = False,
        alternatives: int = 0,
        forced: Sequence[int] = (),
        adapters: Mapping[str, float] | None = None,
    ) -> Iterator[Steps]:
        """Continue the prompts (text or ids) and yield the new steps of all of them, as they come.

        One config for all prompts (row r then draws with seed + r) or one for each. Closing the iterator ends the
        generation; while it waits for its turn an empty list comes now and then, so that the reader can do so.
        `adapters` as in `call`: texts of different strengths grow at the same time without disturbing each other.
        See `llm.generate.generate`. Raises ValueError as `call` does.
        """
        raise NotImplementedError

    def warm_up(self, model: str = "") -> None:
        """Start in the background what the first request would wait for; with `model`, load it too."""

    def close(self) -> None:
        """Let go of all models."""


class Inline(Engine):
    """The models in this process, on `device`."""

    def __init__(self, device: str = "cpu") -> None:
        from llm.worker import Worker

        self.worker, self.lock = Worker(device=device), threading.RLock()

    def call(self, op: str, model: str, **plain: Any) -> Any:
        with self.lock:
            return self.worker.answer(op, model, plain)

    def generate(
        self, model, prompts, config, special=False, alternatives=0, forced=(), adapters=None
    ) -> Iterator[Steps]:
        news: queue.SimpleQueue = queue.SimpleQueue()
        with self.lock:
            stream = self.worker.begin(
                lambda *item: news.put(item), model, prompts, config, special, alternatives, forced, adapters
            )
        try:
            while True:
                with self.lock:
                    if news.empty():  # whoever waits for news makes them, for all streams
                        self.worker.turn()
                while not news.empty():
                    kind, value = news.get()
                    if kind != "steps":
                        return outcome(kind, value)
                    yield value
        finally:
            with self.lock:
                self.worker.cancel(stream)


def outcome(kind: str, value: Any) -> Any:
    """The value of an answer. Raises what the other side could not: ValueError or RuntimeError."""
    if kind == "refused":
        raise ValueError(value)
    if kind == "failed":
        raise RuntimeError(value)
    return value


@dataclass
class Child:
    """One worker process, and where its answers are awaited."""

    process: subprocess.Popen
    home: Path
    waiting: dict[int, queue.SimpleQueue] = field(default_factory=dict)
    dead: bool = False


class Remote(Engine):
    """The models in one worker process, started when first needed."""

    def __init__(self) -> None:
        self.child: Child | None = None
        self.lock = threading.Lock()  # for the child, its list of who waits, and writing to it
        self.ids = itertools.count()

    def call(self, op: str, model: str, **plain: Any) -> Any:
        _, _, answers = self._ask(op, model, plain)
        return outcome(*answers.get())

    def generate(
        self, model, prompts, config, special=False, alternatives=0, forced=(), adapters=None
    ) -> Iterator[Steps]:
        plain = dict(
            prompts=prompts, config=config, special=special, alternatives=alternatives, forced=list(forced),
            adapters=adapters,
        )  # fmt: skip
        child, id, answers = self._ask("generate", model, plain)
        try:
            while True:
                try:
                    kind, value = answers.get(timeout=WAKE_SECONDS)
                except queue.Empty:
                    kind, value = "steps", []
                if kind != "steps":
                    return outcome(kind, value)
                yield value
        finally:
            with self.lock:
                if child.waiting.pop(id, None) is not None:
                    self._write(child, (id, "cancel", "", {}))

    def warm_up(self, model: str = "") -> None:
        def ask() -> None:
            with contextlib.suppress(ValueError):  # the request that needs it will say so
                self.call("info" if model else "ready", model)

        threading.Thread(target=ask, daemon=True, name="engine-warm-up").start()

    def close(self) -> None:
        with self.lock:
            child, self.child = self.child, None
        if child:
            child.process.stdin.close()
            child.process.wait()

    def _ask(self, op: str, model: str, plain: dict[str, Any]) -> tuple[Child, int, queue.SimpleQueue]:
        """Send a request to a living worker; its answers arrive in the queue."""
        id, answers = next(self.ids), queue.SimpleQueue()
        with self.lock:
            if self.child is None or self.child.dead or self.child.home != paths.home():
                self.child = self._start()
            self.child.waiting[id] = answers
            self._write(self.child, (id, op, model, plain))
            return self.child, id, answers

    def _start(self) -> Child:
        """A new worker in place of one that has died or reads another home."""
        if self.child and not self.child.dead:
            self.child.process.stdin.close()
        process = subprocess.Popen(
            [sys.executable, "-c", "from llm.worker import main; main()"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=paths.ROOT,
            env=commands.without_keys() | {"OMP_WAIT_POLICY": "PASSIVE", "LLM_HOME": str(paths.home())},
            start_new_session=True,  # Ctrl-C in the terminal is the page's; the worker ends with the pipe
        )  # fmt: skip
        child = Child(process, paths.home())
        threading.Thread(target=self._listen, args=(child,), daemon=True, name="engine-answers").start()
        return child

    def _write(self, child: Child, message: tuple) -> None:
        try:
            pickle.dump(message, child.process.stdin, protocol=pickle.HIGHEST_PROTOCOL)
            child.process.stdin.flush()
        except (OSError, ValueError):
            pass  # it has died or was closed: `_listen` tells everyone who waits

    def _listen(self, child: Child) -> None:
        """Hand out the answers of one worker until it ends; then tell all who still wait."""
        while True:
            try:
                id, kind, value = pickle.load(child.process.stdout)
            except (EOFError, pickle.UnpicklingError, OSError):
                break
            with self.lock:
                answers = child.waiting.get(id) if kind == "steps" else child.waiting.pop(id, None)
            if answers is not None:
                answers.put((kind, value))
        child.process.wait()
        with self.lock:
            child.dead = True
            left, child.waiting = child.waiting, {}
        for answers in left.values():
            answers.put(("refused", died(child.process.returncode)))


def died(code: int) -> str:
    """What the reader is told when the worker has ended in the middle of a request."""
    cause = "the system ended it, most often for want of memory" if code == -9 else f"exit status {code}"
    return f"The process that holds the models stopped ({cause}). Try again: a new one starts by itself."


ENGINES: dict[str, type[Engine]] = {"worker": Remote, "inline": Inline}
_engines: dict[str, Engine] = {}  # one of each kind in this process
_making = threading.Lock()
USED = "used"  # the key of the one given to `use`


def get() -> Engine:
    """The engine of this process: of the kind that LLM_ENGINE names (worker, or inline), else the one of `use`, else a worker."""
    named = os.environ.get("LLM_ENGINE")
    if not named and USED in _engines:
        return _engines[USED]
    kind = named or "worker"
    if kind not in ENGINES:
        raise ValueError(f"LLM_ENGINE is {kind!r}; it can be {' or '.join(ENGINES)}.")
    with _making:
        if kind not in _engines:
            _engines[kind] = ENGINES[kind]()
        return _engines[kind]


def use(made: Engine) -> None:
    """Let `get` give this engine where LLM_ENGINE names no other."""
    _engines[USED] = made
