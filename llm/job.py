"""The life of a run's process, whatever the run does: find or create it, hold its lock, do its work, say how it ended."""

from __future__ import annotations

import argparse
import errno
import os
import platform
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from llm import commands, dispatch, logbook
from llm.config import add_flags, from_dict, from_flags, to_dict
from llm.runs import Run, Superseded, stale

GIVEN_UP = 3  # the exit status of a process whose run another one does now


def do(
    kind: str, work: Callable[[Run], None], about: str, finished: str, arguments: Sequence[str] | None
) -> int:
    """`python -m MODULE NAME --flags`: make the run of this name, or go on with the one there is; the exit status.

    `work` does it, and ends it with an "end" event; `about` describes the command; `finished` is what is said of a run
    that has nothing left to do ("{name}" stands for its name).
    """
    module, config = commands.KINDS[kind]
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=about)
    parser.add_argument("run", help="name of the run: a new one is made, an unfinished one goes on")
    add_flags(parser, config)
    given = parser.parse_args(arguments)
    leads = int(os.environ.get("RANK", "0")) == 0  # of several processes under torchrun, the first
    try:
        run = find_or_create(kind, config, given, finished)
    except ValueError as error:
        parser.exit(2, f"{error}\n")
    number = int(os.environ.get("LLM_ATTEMPT", "0"))  # of this attempt, by who sent this process
    lock = taken(run, leads)
    if lock is None or (not number and "RANK" not in os.environ and run.alive_elsewhere()):
        parser.exit(2, f"The run {run.name} is already running{f' on {run.node()}' if run.node() else ''}.\n")
    if leads:
        try:
            run = replace(run, attempt=number) if number else run.next_attempt()
        except OSError as error:
            parser.exit(1, f"{why(error)}\n")
    os.nice(int(os.environ.get("LLM_NICE", "0")))
    signal.signal(signal.SIGTERM, lambda *_: run.request_stop())
    signal.signal(signal.SIGINT, lambda *_: run.request_stop())
    with beating(run):
        status = guarded(run, work, int(os.environ.get("RANK", "0")))
    if number and leads and not sent_away():  # the queue has begun it
        logbook.start()
        end = run.last_event() or {}
        logbook.log.info("run %s ended: %s. %s", run.name, end.get("reason"), end.get("message", ""))
    if leads:
        if status == 0:
            print(run.last_event().get("message", ""))
        if lock > 0:
            os.close(lock)
        if not sent_away():
            dispatch.pump()
    return status


def taken(run: Run, leads: bool) -> int | None:
    """A descriptor that holds the run's lock; None when another process holds it, -1 where it is not this one's to hold.

    That is: the others under torchrun; all of them where torchrun was handed it; and on another machine, whose locks mean
    nothing here: there the number of the attempt decides who may write.
    """
    handed = int(os.environ.pop("LLM_LOCK", "0"))
    if not leads or sent_away() or (handed and "RANK" in os.environ):
        return -1
    return handed or run.lock()


def sent_away() -> bool:
    """Whether this process was sent here from another machine, whose queue goes on without its help."""
    return "LLM_NODE" in os.environ


@contextmanager
def beating(run: Run) -> Iterator[None]:
    """Every few seconds say that this attempt is alive, for those who follow it from another machine.

    When another attempt does the run now (this process had been given up for dead), it ends: nothing of it counts.
    """
    over = threading.Event()
    node = os.environ.get("LLM_NODE") or platform.node()

    def beat() -> None:
        while True:
            try:
                run.still_mine()
                run.beat(node)
            except Superseded as error:
                print(error, file=sys.stderr, flush=True)
                os._exit(GIVEN_UP)
            except OSError:  # a full disk, or the run's directory is gone: the work itself will say so
                pass
            if over.wait(min(5.0, stale() / 4)):
                return

    if run.attempt:
        threading.Thread(target=beat, daemon=True).start()
    try:
        yield
    finally:
        over.set()


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
    if result(from_flags(config, given, stored)) != result(stored):
        raise ValueError(f"The run {run.name} exists with other settings: choose another name.")
    if run.status() == "finished":
        raise ValueError(finished.format(name=run.name))
    if "LLM_ATTEMPT" not in os.environ and run.status() in ("stopped", "failed", "crashed"):
        run.request_resume()  # who was sent by the queue need not ask
    return run


def result(config: object) -> dict:
    """The settings that decide what comes out; on how many processes a run goes on is none of them."""
    settings = to_dict(config)
    settings.get("train", {}).pop("processes", None)
    return settings


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
    except Superseded as error:
        print(error, file=sys.stderr)
        return GIVEN_UP
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


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
WRITERS = (
    "PytorchStreamWriter",
    "inline_container",
    "iostream error",
    "unexpected pos",
)  # torch, when a write fails


def disk_trouble(error: BaseException) -> str:
    """What a failed read or write comes to, in a sentence; "" when it was something else. Libraries have errors of their own for it."""
    text = str(error)
    codes = [int(found) for found in re.findall(r"os error (\d+)", text)]  # safetensors
    code = error.errno if isinstance(error, OSError) else codes[0] if codes else None
    torchs = isinstance(error, RuntimeError) and any(word in text for word in WRITERS)
    if code in FULL or torchs:
        return "The disk is full, or a file may not grow any more: free some space, then resume."
    if code in (errno.EIO, errno.EROFS, errno.ESTALE):
        return f"The disk does not answer as it should ({os.strerror(code)}): look after it, then resume."
    return ""


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
    if trouble := disk_trouble(error):
        return trouble
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "memory" in text.lower()):
        return "Not enough memory: use a smaller batch, more accumulation parts, a smaller model or a shorter text."
    return f"Something unexpected happened ({type(error).__name__}: {text}); the details are in the run's log.txt."
