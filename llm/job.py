"""The life of a run's process, whatever the run does: find or create it, hold its lock, do its work, say how it ended."""

from __future__ import annotations

import argparse
import errno
import os
import platform
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence

from llm import dispatch
from llm.config import add_flags, from_dict, from_flags, to_dict
from llm.runs import Run


def do(
    kind: str, work: Callable[[Run], None], about: str, finished: str, arguments: Sequence[str] | None
) -> int:
    """`python -m MODULE NAME --flags`: make the run of this name, or go on with the one there is; the exit status.

    `work` does it, and ends it with an "end" event; `about` describes the command; `finished` is what is said of a run
    that has nothing left to do ("{name}" stands for its name).
    """
    module, config = dispatch.KINDS[kind]
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=about)
    parser.add_argument("run", help="name of the run: a new one is made, an unfinished one goes on")
    add_flags(parser, config)
    given = parser.parse_args(arguments)
    leads = int(os.environ.get("RANK", "0")) == 0  # of several processes under torchrun, the first
    try:
        run = find_or_create(kind, config, given, finished)
    except ValueError as error:
        parser.exit(2, f"{error}\n")
    handed = int(os.environ.pop("LLM_LOCK", "0"))  # a descriptor; under torchrun it is torchrun that holds it
    lock = -1 if not leads or (handed and "RANK" in os.environ) else handed or run.lock()
    if lock is None:
        parser.exit(2, f"The run {run.name} is already running.\n")
    os.nice(int(os.environ.get("LLM_NICE", "0")))
    signal.signal(signal.SIGTERM, lambda *_: run.request_stop())
    signal.signal(signal.SIGINT, lambda *_: run.request_stop())
    status = guarded(run, work, int(os.environ.get("RANK", "0")))
    if leads:
        if status == 0:
            print(run.last_event().get("message", ""))
        if lock > 0:
            os.close(lock)
        dispatch.pump()
    return status


def find_or_create(kind: str, config: type, given: argparse.Namespace, finished: str) -> Run:
    """The run of this name with these settings. Raises ValueError when it exists with others, or is finished."""
    try:
        run = Run.open(given.run)
    except ValueError:
        settings = to_dict(from_flags(config, given))
        try:
            return Run.create(kind, settings, owner="terminal", name=given.run)
        except ValueError:  # another process, of this same torchrun for one, has made it in the meantime
            run = Run.open(given.run)
    if run.meta["kind"] != kind:
        raise ValueError(f"There is a run called {run.name}, and it is no {kind} run: choose another name.")
    stored = from_dict(config, run.config)
    if from_flags(config, given, stored) != stored:
        raise ValueError(f"The run {run.name} exists with other settings: choose another name.")
    if run.status() == "finished":
        raise ValueError(finished.format(name=run.name))
    if run.status() in ("stopped", "failed", "crashed"):
        run.request_resume()
    return run


def guarded(run: Run, work: Callable[[Run], None], rank: int = 0) -> int:
    """Do the work of a run; whatever ends it early is said in the run's log. Returns the exit status.

    Of several processes the first writes the log; another leaves what happened to it where the first looks.
    """
    began = time.time()
    try:
        work(run)
        return 0
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # some libraries panic with a class that is no Exception
        sentence = why(error)
        if rank == 0:
            sentence = (lost(error) and elsewhere(run, began)) or sentence
            tail = " The last checkpoint is kept: it can be resumed from there." if run.can_go_on() else ""
            step = max((e.get("step", 0) for e in run.events()), default=0)
            run.append("end", reason="failed", step=step, message=sentence + tail)
        elif not lost(error):
            (run.path / f"trouble-{rank}").write_text(f"on {platform.node()}: {sentence}", encoding="utf-8")
        print(sentence, file=sys.stderr)
        if not isinstance(error, ValueError):
            traceback.print_exc()
        return 1


def lost(error: BaseException) -> bool:
    """Whether another process of this run has gone while this one waited for it."""
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(
        words in text
        for words in ("connection closed", "connection reset", "broken pipe", "timed out", "timeout")
    )


def elsewhere(run: Run, since: float) -> str:
    """What the other processes left before they went, in a sentence; "" when they left nothing."""
    said = []
    for path in sorted(run.path.glob("trouble-*")):
        if path.stat().st_mtime >= since - 60:  # clocks of two machines may differ a little
            said.append(f"Process {int(path.name.rpartition('-')[2]) + 1} {path.read_text(encoding='utf-8')}")
        path.unlink()
    return " ".join(said)


def why(error: BaseException) -> str:
    """What happened and what to do about it."""
    text = str(error)
    if isinstance(error, ValueError):
        return text
    if lost(error):
        return "Another process of this run was lost while this one waited for it: see its machine and the run's log.txt."
    if isinstance(error, FloatingPointError):
        return f"The numbers ran away: {text}. Try a lower learning rate or a longer warm-up."
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "The disk is full: free some space, then resume."
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "memory" in text.lower()):
        return "Not enough memory: use a smaller batch, more accumulation parts, a smaller model or a shorter text."
    return f"Something unexpected happened ({type(error).__name__}: {text}); the details are in the run's log.txt."
