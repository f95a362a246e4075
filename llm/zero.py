"""ZeroGPU, where a Space is lent a GPU for one call at a time: large models answer in the process that has it, small ones on the processor.

The package `spaces`, which is there on such a Space, runs a function marked with `spaces.GPU` in a process forked from the page's. Only that
process sees the GPU; arguments and results are pickled, and nothing else comes back. So the models live in that process, which reads
them from the disk when they are first asked for. The page's process itself never computes: a fork would inherit half of torch's threads.

A GPU takes a while to get and each visitor has a few minutes of it a day, while a small model answers on the processor in milliseconds. So
only models of $LLM_GPU_FROM_MB on the disk and more are asked there; 0 asks all of them there. Trainings are processes of their own, which get no GPU.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import cache
from pathlib import Path
from typing import Any

from llm import engine, logbook, paths
from llm.config import SampleConfig
from llm.engine import Engine, Inline, Remote, Steps, outcome

FROM_MB = 100  # a model of 25 million parameters in fp32
ON_GPU = ("score", "explain", "trace", "cell", "lens", "block", "beyond", "text_score")  # and texts
# what a GPU is asked for; too much is refused, too little is cut off
SECONDS, MOST_SECONDS, TOKENS_A_SECOND = 20, 60, 20
# any number of ("steps", list), then one of ("value" | "end" | "refused" | "failed", value)
Answers = Iterator[tuple[str, Any]]


def is_here() -> bool:
    """Whether this is a Space on ZeroGPU hardware."""
    return os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true")


def install() -> None:
    """Make the engine of this process ask the GPU. Call it before the page is launched: `spaces` then looks for marked functions."""
    from llm import worker

    try:
        import spaces
    except ImportError:
        logbook.log.warning("the package `spaces` is missing: all models answer on the processor")
        return
    for op in ON_GPU:  # imported here, so that no fork begins in the middle of an import
        worker.operation(op)
    engine.use(Lent(spaces.GPU(duration=seconds)(work)))


def work(op: str, model: str, plain: dict[str, Any]) -> Answers:
    """Answer one request of an engine where the GPU is. What goes wrong is an answer too: exceptions do not come back whole."""
    from llm.worker import as_message

    try:
        if op == "generate":
            with closing(models().generate(model, **plain)) as stream:
                for steps in stream:
                    yield "steps", steps
            yield "end", None
        else:
            yield "value", models().call(op, model, **plain)
    except Exception as error:  # the boundary of the process
        yield as_message(error)


@cache
def models() -> Inline:
    """The models of the process that has the GPU, for as long as it lives."""
    from llm.distributed import best_device

    if multiprocessing.parent_process():
        let_go()
    return Inline(str(best_device()))


def let_go() -> None:
    """Let go of the files that were open in the page at the moment of the fork: a lock among them would never be free again."""
    nothing, home = os.open(os.devnull, os.O_RDWR), paths.home().resolve()
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            if Path(os.readlink(f"/proc/self/fd/{name}")).is_relative_to(home):
                os.dup2(nothing, int(name))  # not closed: its number would be given to another file
    os.close(nothing)


def seconds(op: str, model: str, plain: dict[str, Any]) -> int:
    """How long the GPU is asked for, from what `work` is called with. Less is sooner given."""
    longest = max((one.max_new_tokens for one in configs(plain)), default=0) if op == "generate" else 0
    return min(SECONDS + longest // TOKENS_A_SECOND, MOST_SECONDS)


def configs(plain: dict[str, Any]) -> list[SampleConfig]:
    """How the texts of a request are drawn: of all of them, or of each."""
    given = plain.get("config")
    return [given] if isinstance(given, SampleConfig) else list(given or ())


class Lent(Engine):
    """Large models where the GPU is, as long as one is lent; everything else, and what was refused there, in the usual worker."""

    def __init__(self, work: Callable[[str, str, dict[str, Any]], Answers]):
        """`work` is the function of this name, marked with `spaces.GPU`."""
        self.work, self.processor = work, Remote()

    def call(self, op: str, model: str, **plain: Any) -> Any:
        if self.is_for_gpu(op, model, plain):
            for kind, value in list(self.lent(op, model, plain)):
                return outcome(kind, value)
        return self.processor.call(op, model, **plain)

    def generate(
        self, model, prompts, config, special=False, alternatives=0, forced=(), adapters=None
    ) -> Iterator[Steps]:
        plain = dict(
            prompts=prompts, config=config, special=special, alternatives=alternatives, forced=list(forced), adapters=adapters
        )  # fmt: skip
        last = None
        if self.is_for_gpu("generate", model, plain):
            with closing(self.lent("generate", model, plain)) as answers:
                for kind, value in answers:
                    if kind == "steps":
                        yield value
                    else:
                        last = kind, value
        if last is None:
            return (yield from self.processor.generate(model, **plain))
        return outcome(*last)

    def warm_up(self, model: str = "") -> None:
        self.processor.warm_up("" if model and self.is_for_gpu("generate", model, {}) else model)

    def close(self) -> None:
        self.processor.close()

    def is_for_gpu(self, op: str, model: str, plain: dict[str, Any]) -> bool:
        """Whether a request is worth a GPU. Smaller weights are for processors, and so is what only looks at a model's files."""
        if op not in (*ON_GPU, "generate") or any(one.weights != "fp32" for one in configs(plain)):
            return False
        try:
            size = (paths.model_folder(model) / "model.safetensors").stat().st_size
        except (OSError, ValueError):  # the processor says what is wrong with it
            return False
        return size >= 1e6 * float(os.environ.get("LLM_GPU_FROM_MB") or FROM_MB)

    def lent(self, op: str, model: str, plain: dict[str, Any]) -> Answers:
        """What is said where the GPU is; nothing at all when none could be had, or it failed before a word was said.

        Raises ValueError when it is taken back in the middle of a text.
        """
        told = False
        try:
            with closing(self.work(op, model, plain)) as answers:
                for kind, value in answers:
                    if kind == "failed" and not told:
                        logbook.log.warning(
                            "%s of %s failed on the GPU (%s): the processor answers", op, model, value
                        )
                        return
                    told = True
                    yield kind, value
        except Exception as error:  # of `spaces`: no GPU is free, or this visitor's time is used up
            if told:
                raise ValueError(
                    "The GPU was taken back before the text was whole: ask for fewer tokens, or try again."
                ) from error
            logbook.log.warning("no GPU for %s of %s (%s): the processor answers", op, model, error)
