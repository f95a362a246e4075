"""Which waiting run starts next, and how: every run is a process of its own, started with the command a person would type."""

from __future__ import annotations

import argparse
import fcntl
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager, suppress
from typing import Any

from llm import commands, halving, janitor, modes, paths, turns
from llm.runs import Run, all_runs

TIDY = 600.0  # seconds between two looks of the janitor

log = logging.getLogger("llm-lab")


@contextmanager
def _alone():
    """Only one process decides at a time."""
    with open(paths.home() / "dispatch.lock", "a") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        yield


def waiting() -> list[Run]:
    """The queue: runs that wait, the next one first (see `llm.turns`)."""
    return turns.order(turns.seen())


def outlook(run: Run) -> tuple[int, float | None]:
    """(how many runs go first, seconds until it begins or None when nobody knows). Raises ValueError when it does not wait."""
    look = turns.seen()
    queue = turns.order(look)
    names = [r.name for r in queue]
    if run.name not in names:
        raise ValueError(f"The run {run.name} does not wait in the queue.")
    known = where() == "local" and not paused()
    return names.index(run.name), turns.waits(look, queue, commands.slots())[run.name] if known else None


# --- held back


def paused() -> bool:
    """Whether somebody holds the queue back."""
    return (paths.home() / "paused").exists()


def pause(yes: bool = True) -> None:
    """Hold the queue back, or let it go on. What runs is left alone."""
    flag = paths.home() / "paused"
    if yes:
        paths.home().mkdir(parents=True, exist_ok=True)
        flag.touch()
    else:
        flag.unlink(missing_ok=True)
        pump()


def stop_overdue() -> None:
    """Ask visitors' runs that take longer than they may to stop."""
    for run in turns.overdue(turns.seen()):
        if not run.stop_requested():
            run.request_stop(f"A run may take {modes.limits().minutes} minutes on this page.")


def pump() -> list[Run]:
    """Start waiting runs while there is room for them; return the ones started. Safe at any time, from any process.

    Where runs go to a cluster, those that were lost with their machine are put back into the queue first.
    """
    paths.runs()
    started = []
    with _alone():
        halving.advance()
        launcher = LAUNCHERS[where()]()
        trouble = launcher.trouble() or unreadable()
        note_trouble(trouble)
        if not trouble and not paused():
            launcher.recover()
            free = launcher.free()
            for run in waiting()[: max(0, free)]:
                if launcher.start(run):
                    started.append(run)
    return started


# --- where runs go


class Local:
    """On this machine: a process each, which outlives the one that started it."""

    def trouble(self) -> str:
        """Why no run can be started, in a sentence; "" when they can."""
        return ""

    def recover(self) -> None:
        """A run that has broken off here waits for somebody to resume it."""

    def free(self) -> int:
        """How many more runs may begin."""
        return commands.slots() - sum(run.status() == "running" for run in all_runs())

    def start(self, run: Run) -> bool:
        """Start the run's process. It inherits the lock, so there is no moment at which the run looks abandoned."""
        descriptor = run.lock()
        if descriptor is None:
            return False
        try:
            run = run.next_attempt()
            # From here on a run without a process has broken off, and is not started again.
            run.append("starting", attempt=run.attempt, launcher="local")
            with open(run.path / "log.txt", "ab") as out:
                child = subprocess.Popen(
                    [sys.executable, *commands.command(run)[1:]],
                    cwd=paths.ROOT,
                    env=commands.environment(descriptor) | {"LLM_ATTEMPT": str(run.attempt)},
                    pass_fds=(descriptor,),
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                    start_new_session=True,  # Ctrl-C and the end of the page's process do not reach it
                )
        finally:
            os.close(descriptor)
        log.info("run %s (%s) begins, attempt %d", run.name, run.meta["kind"], run.attempt)
        threading.Thread(target=_reap, args=(child, run), daemon=True).start()
        return True


def _ray() -> Any:
    from llm import on_ray  # an optional part

    return on_ray.Ray()


LAUNCHERS: dict[str, Callable[[], Any]] = {"local": Local, "ray": _ray}


def where() -> str:
    """Which of LAUNCHERS takes the runs: a Ray cluster when $LLM_RAY has its address, else this machine."""
    return "ray" if os.environ.get("LLM_RAY") else "local"


def note_trouble(sentence: str) -> None:
    """Keep why runs do not start where the page and the terminal find it, and in the log of the run that is next."""
    file = paths.home() / "launcher.txt"
    if sentence == trouble():
        return
    if not sentence:
        file.unlink(missing_ok=True)
        return
    paths.home().mkdir(parents=True, exist_ok=True)
    file.write_text(sentence, encoding="utf-8")
    for run in waiting()[:1] if not unreadable() else ():
        with open(run.path / "log.txt", "a", encoding="utf-8") as out:
            out.write(f"{sentence}\n")


def unreadable() -> str:
    """Why nobody knows who may have what, in a sentence: the limits are of a later version; "" when they can be read."""
    try:
        modes.limits()
        return ""
    except ValueError as error:
        return str(error)


def trouble() -> str:
    """Why waiting runs are not started, in a sentence; "" when nothing is wrong."""
    try:
        return (paths.home() / "launcher.txt").read_text(encoding="utf-8")
    except OSError:
        return ""


def keep_pumping(seconds: float = 3.0) -> None:
    """Look after the queue, and now and then the disk, for as long as this process lives.

    Needed where runs go to a cluster, where visitors have limits, and where the disk has a quota.
    """
    failed, tidied = "", -TIDY
    while paths.home().is_dir():
        time.sleep(seconds)
        try:
            stop_overdue()
            pump()
            failed = ""
        except Exception as error:  # a disk that does not answer for a moment; the next look may find it well
            if str(error) != failed:
                log.exception("the queue could not be looked after")
            failed = str(error)
        if time.monotonic() - tidied >= TIDY:
            tidied = time.monotonic()
            threading.Thread(target=janitor.look_after, daemon=True).start()


def _reap(child: subprocess.Popen, run: Run) -> None:
    """Wait for the process to end, so that it does not linger, then let the next one start."""
    child.wait()
    if paths.home().is_dir():
        with suppress(OSError):  # it may have been deleted
            if run.status() == "crashed":
                log.warning("run %s broke off: its process ended with %d", run.name, child.returncode)
        pump()


def main(arguments: list[str] | None = None) -> None:
    """`python -m llm.dispatch`: look after the queue until no run waits or works, without a page."""
    argparse.ArgumentParser(prog="python -m llm.dispatch", description=main.__doc__).parse_args(arguments)
    said = ""
    while any(run.status() in ("waiting", "running") for run in all_runs()):
        pump()
        if (sentence := trouble()) != said:
            print(said := sentence, flush=True)
        time.sleep(0.5)


if __name__ == "__main__":
    main()
