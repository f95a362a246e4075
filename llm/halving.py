"""Sweeps: the same training with different settings, each a run of its own; which of them go on (successive halving).

A sweep is a directory under `paths.sweeps()` whose spec.json lists its trials; all else is read from the trials' logs. With
halving, every trial pauses at the first rung (a number of steps); once all have arrived, the best 1/eta by validation loss
go on to the next rung, eta times as far, and the others stay where they are (Jamieson & Talwalkar 2016; Li et al. 2018).
The choice depends on the logs alone: not on the order in which trials ended, nor on who asks.
"""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from llm import paths, versions
from llm.runs import Run, effective

VERSION = 1


class Trial(NamedTuple):
    """One run of a sweep and what is different in it."""

    name: str
    values: dict[str, Any]  # knob: value


@dataclass(frozen=True)
class Sweep:
    """What spec.json says."""

    name: str
    owner: str
    created: float
    varied: dict[str, str]  # knob: as it was asked for, "1e-3,3e-3" or "1e-4..1e-2"
    log: tuple[str, ...]  # knobs drawn on a logarithmic scale
    trials: tuple[Trial, ...]
    max_steps: int
    eta: int  # 0: every trial goes all the way
    rungs: tuple[int, ...]  # steps at which trials pause


class Look(NamedTuple):
    """An evaluation of a trial."""

    step: int
    val_loss: float | None
    bits_per_byte: float | None


def read(name: str) -> Sweep:
    """The sweep of this name. Raises ValueError when there is none, or it is damaged or of a later version."""
    file = paths.sweeps() / paths.checked_name(name, "sweep") / "spec.json"
    try:
        spec = json.loads(file.read_text(encoding="utf-8"))
        versions.check(spec.pop("version", None), VERSION, file)
        trials = tuple(Trial(one["name"], one["values"]) for one in spec.pop("trials"))
        return Sweep(
            name=name, trials=trials, log=tuple(spec.pop("log")), rungs=tuple(spec.pop("rungs")), **spec
        )
    except FileNotFoundError:
        raise ValueError(f"There is no sweep called {name!r}.") from None
    except versions.Unknown:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"The sweep {name} cannot be read: its spec.json is damaged.") from None


def all_sweeps() -> list[Sweep]:
    """Every sweep that can be read, newest first."""
    found = []
    for folder in paths.sweeps().iterdir():
        try:
            found.append(read(folder.name))
        except ValueError:
            continue
    return sorted(found, key=lambda sweep: sweep.created, reverse=True)


def remove(sweep: Sweep) -> None:
    """Forget a sweep; its runs stay."""
    shutil.rmtree(paths.sweeps() / sweep.name, ignore_errors=True)


def run_of(trial: Trial) -> Run | None:
    """The run of a trial; None when it was deleted. Raises ValueError when it cannot be read."""
    try:
        run = Run.open(trial.name)
    except ValueError:
        return None
    return run if run.meta else None


def looks(run: Run) -> tuple[Look, ...]:
    """The evaluations of a run that count, the earliest first."""
    return _looks(run.path, (run.path / "events.jsonl").stat().st_size)


@lru_cache(maxsize=512)
def _looks(path: Path, size: int) -> tuple[Look, ...]:
    del size  # a log that has grown is read again
    seen = {
        e["step"]: Look(e["step"], e.get("val_loss"), e.get("bits_per_byte"))
        for e in effective(Run(path).read()[0])
        if e["kind"] == "evaluate"
    }
    return tuple(seen[step] for step in sorted(seen))


def loss_at(run: Run, step: int) -> float | None:
    """The validation loss at a rung: infinity where it is not a finite number, None where the run has not come so far."""
    for look in looks(run):
        if look.step == step:
            return math.inf if look.val_loss is None else look.val_loss
    return None


def best(losses: dict[str, float], eta: int) -> list[str]:
    """The names of the best 1/eta (rounded up) by loss, equals in the order of their names."""
    ranked = sorted(losses, key=lambda name: (losses[name], name))
    return ranked[: math.ceil(len(ranked) / eta)]


def standing(sweep: Sweep) -> tuple[int, list[str]]:
    """(rungs that are decided, the names of those that go on after them).

    A rung is decided when each trial still in has been looked at there, or has ended before it.
    """
    still = {trial.name: run for trial in sweep.trials if (run := run_of(trial))}
    for decided, rung in enumerate(sweep.rungs):
        losses = {name: loss_at(run, rung) for name, run in still.items()}
        arrived = {name: loss for name, loss in losses.items() if loss is not None}
        if not arrived or any(on_its_way(still[name]) for name in still if name not in arrived):
            return decided, list(still)
        # one that is still writing its checkpoint at this rung has arrived all the same: its loss is known
        still = {name: still[name] for name in best(arrived, sweep.eta)}
    return len(sweep.rungs), list(still)


def advance() -> None:
    """Let the trials that are to go on wait for their turn. Only one process at a time may do this (dispatch sees to it)."""
    for sweep in all_sweeps():
        try:
            paused = [run for trial in sweep.trials if (run := run_of(trial)) and is_paused(run)]
        except ValueError:  # a trial that cannot be read: nothing is decided without it
            continue
        if not paused:
            continue
        decided, _ = standing(sweep)
        for run in paused:
            rung = run.pause_at()
            if rung not in sweep.rungs[:decided]:
                continue  # others are still on their way to this rung
            after = sweep.rungs.index(rung) + 1
            goes_on = run.name in survivors(sweep, after)
            run.pause(sweep.rungs[after] if goes_on and after < len(sweep.rungs) else 0)
            if goes_on:
                run.request_resume()


def survivors(sweep: Sweep, decided: int) -> list[str]:
    """Who went on after the first `decided` rungs."""
    return standing(replace(sweep, rungs=sweep.rungs[:decided]))[1]


def on_its_way(run: Run) -> bool:
    """Whether a run goes on, or will."""
    return run.status() in ("waiting", "running") or is_paused(run)


def is_paused(run: Run) -> bool:
    """Whether a run has stopped at its rung and waits for the others."""
    last = run.last_event()
    return bool(last and last["kind"] == "end" and last.get("paused") and run.pause_at())


def note(sweep: Sweep, trial: Trial) -> str:
    """What halving has to say of a trial; "" where nothing."""
    run = run_of(trial)
    if run is None:
        return "deleted"
    last = run.last_event() or {}
    if not last.get("paused"):
        return ""
    if run.pause_at():
        return f"Waits at step {last['step']} until all have come so far."
    count = len(survivors(sweep, 1 + sweep.rungs.index(last["step"])))
    return f"Stopped at step {last['step']}: only the best {f'{count} go' if count > 1 else 'one goes'} on."
