"""Whose run is next, and when: a fair order of the queue, and the wait that follows from it.

At home the longest waiting run goes first. Where several visitors wait, the run with the highest ratio
    (waited + expected) / (expected + used)
goes first: `expected` seconds that it will take, `used` seconds that its visitor's runs took in the last hour. With
used = 0 this is the highest response ratio next (Brinch Hansen 1971): short runs pass long ones, and since the ratio of a run
that waits grows without end, none waits for ever.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

from llm import modes
from llm.runs import Run, all_runs

HOUR = 3600.0
KNOWN = 20  # finished runs of a kind whose median stands in for a run without a forecast


@dataclass(frozen=True)
class Seen:
    """What the order is made of: one look at every run."""

    running: list[Run]
    waiting: list[Run]
    ended: list[Run]
    used: dict[str, float]  # visitor -> seconds of the machine in the last hour
    typical: dict[str, float]  # kind of run -> median seconds of those that finished

    def expected(self, run: Run) -> float | None:
        """Seconds that a run will take: its forecast, else what runs of its kind took; None when nothing is known."""
        return run.meta.get("expected") or self.typical.get(run.meta["kind"])


def worked(run: Run) -> tuple[float, float] | None:
    """(since when, until when) the last attempt of a run had the machine; None before it began."""
    try:
        begun = run.attempt_path.stat().st_mtime
        last = run.last_event()
    except OSError:
        return None
    ended = last["time"] if last and last["kind"] == "end" else time.time()
    return begun, max(ended, begun)


def seen() -> Seen:
    """All runs, by how they stand."""
    by_status: dict[str, list[Run]] = {}
    for run in all_runs():
        by_status.setdefault(run.status(), []).append(run)
    running, waiting = by_status.pop("running", []), by_status.pop("waiting", [])
    ended = [run for runs in by_status.values() for run in runs]
    used: dict[str, float] = {}
    now, took = time.time(), {}
    for run in (*running, *ended):
        if (span := worked(run)) is None:
            continue
        share = span[1] - max(span[0], now - HOUR)
        if share > 0:
            used[run.meta["owner"]] = used.get(run.meta["owner"], 0.0) + share
        if run in by_status.get("finished", ()):
            took.setdefault(run.meta["kind"], []).append(span[1] - span[0])
    typical = {kind: statistics.median(seconds[:KNOWN]) for kind, seconds in took.items()}
    return Seen(running, waiting, ended, used, typical)


def order(look: Seen) -> list[Run]:
    """The waiting runs, the next one first."""
    first_come = sorted(look.waiting, key=Run.queued_at)
    if not modes.is_shared():
        return first_come
    now, most = time.time(), modes.limits().at_once

    def ratio(run: Run) -> float:
        expected = max(look.expected(run) or 60.0, 1.0)
        return (now - run.queued_at() + expected) / (expected + look.used.get(run.meta["owner"], 0.0))

    first = sorted(first_come, key=ratio, reverse=True)
    having: dict[str, int] = {}
    for run in look.running:
        having[run.meta["owner"]] = having.get(run.meta["owner"], 0) + 1
    due, later = [], []  # a visitor's next run beyond what they may have at once waits until nobody else does
    for run in first:
        owner = run.meta["owner"]
        having[owner] = having.get(owner, 0) + 1
        (later if most and having[owner] > most else due).append(run)
    return due + later


def waits(look: Seen, queue: Sequence[Run], slots: int) -> dict[str, float | None]:
    """Seconds until each waiting run of `queue` begins, in that order; None where what is before it is not known.

    Every run that goes on needs its expected time less what it has had; then a free place takes the next.
    """
    now = time.time()
    free: list[float | None] = []
    for run in look.running:
        expected, span = look.expected(run), worked(run)
        left = None if expected is None or span is None else max(0.0, expected - (now - span[0]))
        free.append(left)
    free += [0.0] * max(0, slots - len(free))
    found: dict[str, float | None] = {}
    for run in queue:
        known = [at for at in free if at is not None]
        if not known:
            found[run.name] = None
            continue
        at = min(known)
        found[run.name] = at
        expected = look.expected(run)
        free[free.index(at)] = None if expected is None else at + expected
    return found


def overdue(look: Seen) -> list[Run]:
    """Runs of visitors that take longer than they may."""
    minutes = modes.limits().minutes
    if not minutes:
        return []
    late = []
    for run in look.running:
        span = worked(run)
        if run.meta["owner"] not in ("", "terminal") and span and time.time() - span[0] > 60 * minutes:
            late.append(run)
    return late
