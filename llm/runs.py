"""A run is a directory: what to do (config.json), what happened (events.jsonl) and what is needed to go on (checkpoint/).

Every kind of long work is one. The status is read from what lies on the disk and never stored, so a run can be
followed, stopped and resumed by any process, and outlives all of them.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import platform
import secrets
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from llm import disk, modes, paths, versions

VERSION = 1  # of meta.json, and so of the whole directory
Event = dict[str, Any]  # {"kind": ..., "time": seconds since 1970, ...}; every number finite or None

STATUS = {  # what a person reads
    "waiting": "waits for its turn",
    "running": "running",
    "finished": "finished",
    "stopped": "stopped",
    "failed": "failed",
    "crashed": "broken off",
    "gone": "deleted",
}
ENDED = ("finished", "stopped", "failed", "crashed")


class Superseded(RuntimeError):
    """This process has been given up and another one does the run now: it must write nothing more."""


@dataclass(frozen=True)
class Run:
    """One directory under `paths.runs()`; its name is the run's id."""

    path: Path
    attempt: int = field(default=0, compare=False)  # of the process that does it; 0 for everybody else

    # --- making and finding -------------------------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        kind: str,
        config: dict[str, Any],
        owner: str = "",
        name: str = "",
        pause: int = 0,
        expected: float = 0.0,
    ) -> Run:
        """A new run that waits for its turn. It appears whole: two creations of one name cannot mix.

        `pause`: the step at which it is to stop and wait (see `llm.halving`); 0 for none. `expected`: its forecast in
        seconds; 0 without one. Raises ValueError when the name is unsafe or taken, or the visitor has as many as they may.
        """
        name = paths.checked_name(name or new_name(str(config.get("dataset") or kind)), "run name")
        refuse_more(owner)
        meta = {
            "version": VERSION,
            "kind": kind,
            "owner": owner,
            "created": time.time(),
            "expected": expected,
        }
        building = paths.runs() / f".new-{secrets.token_hex(8)}"
        building.mkdir()
        try:
            (building / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
            (building / "meta.json").write_text(json.dumps(meta) + "\n", encoding="utf-8")
            (building / "events.jsonl").touch()
            cls(building).pause(pause)
            try:
                building.rename(paths.runs() / name)
            except OSError:
                raise ValueError(
                    f"There is a run called {name!r} already: choose another name, or resume that one."
                ) from None
        finally:
            shutil.rmtree(building, ignore_errors=True)
        return cls(paths.runs() / name)

    @classmethod
    def open(cls, name: str) -> Run:
        """The run of this id. Raises ValueError when there is none."""
        run = cls(paths.runs() / paths.checked_name(name, "run"))
        if not (run.path / "meta.json").is_file():
            raise ValueError(f"There is no run called {name!r}.")
        return run

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def meta(self) -> dict[str, Any]:
        """kind, owner, created (seconds since 1970), version. Raises ValueError when damaged or of a later version."""
        file = self.path / "meta.json"
        try:
            meta = dict(_read_unless_known(file, *_stamp(file)))
        except OSError:
            raise _damaged(file) from None
        versions.check(meta.get("version"), VERSION, file)
        return meta

    @property
    def config(self) -> dict[str, Any]:
        return _read_json(self.path / "config.json")

    @property
    def model_folder(self) -> Path:
        """Where the run keeps its model: a model directory, there after the first checkpoint."""
        return self.path / "model"

    @property
    def state_path(self) -> Path:
        """What a training goes on from when one process writes it."""
        return self.path / "checkpoint" / "state.pt"

    def shares(self) -> Path | None:
        """The folder that it goes on from when every process writes its shares: the newest whole one."""
        return max((self.path / "checkpoint").glob("shares-*"), default=None)

    def can_go_on(self) -> bool:
        """Whether a checkpoint is kept."""
        return self.state_path.is_file() or self.shares() is not None

    # --- what happened ------------------------------------------------------------------------------------------

    def append(self, kind: str, **values: Any) -> None:
        """Add one line to the log, in one write. Numbers that are not finite are stored as null.

        Raises Superseded, and adds nothing, when this process does the run no more.
        """
        event = {"kind": kind, "time": time.time(), **values}
        if kind == "end" and values.get("reason") == "stopped" and (why := self.why_stopped()):
            event["message"] = f"{why} {event.get('message', '')}".strip()
        line = json.dumps(_finite(event), allow_nan=False, ensure_ascii=False) + "\n"
        with open(self.path / "events.jsonl", "ab+") as f:
            fcntl.flock(
                f, fcntl.LOCK_EX
            )  # between the look at the attempt and the writing nobody begins another
            self.still_mine()
            f.seek(0, os.SEEK_END)
            if f.tell():
                f.seek(-1, os.SEEK_END)
                if f.read(1) != b"\n":  # a writer was killed in the middle of its last line
                    line = "\n" + line
            f.write(line.encode())

    # --- who does it

    @property
    def attempt_path(self) -> Path:
        return self.path / "attempt"

    def attempts(self) -> int:
        """How often somebody has begun to do it: the number of the last attempt, 0 before the first.

        Raises OSError when the disk does not answer: that says nothing of who does the run.
        """
        try:
            return int(self.attempt_path.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return 0

    def next_attempt(self) -> Run:
        """The run as the next attempt's process sees it. What an earlier one still wants to write is refused from now on."""
        with open(self.path / "events.jsonl", "ab") as f:
            fcntl.flock(f, fcntl.LOCK_EX)
            number = self.attempts() + 1
            with paths.replacing(self.attempt_path) as temporary:
                temporary.write_text(f"{number}\n", encoding="utf-8")
        return replace(self, attempt=number)

    def still_mine(self) -> None:
        """Raises Superseded when this is a process whose attempt is no longer the last one."""
        if self.attempt and self.attempt != (last := self.attempts()):
            raise Superseded(
                f"Attempt {self.attempt} of {self.name} was given up; attempt {last} does it now."
            )

    @property
    def heartbeat_path(self) -> Path:
        return self.path / "heartbeat"

    def beat(self, node: str) -> None:
        """Say that this attempt is alive, and where."""
        about = {"node": node, "attempt": self.attempt}
        with paths.replacing(self.heartbeat_path) as temporary:
            temporary.write_text(json.dumps(about), encoding="utf-8")

    def node(self) -> str:
        """Where it was last alive; "" when it has never said so."""
        try:
            return str(json.loads(self.heartbeat_path.read_text(encoding="utf-8"))["node"])
        except (OSError, ValueError, KeyError, TypeError):
            return ""

    def alive_elsewhere(self) -> bool:
        """Whether another machine, whose locks cannot be seen from here, has lately said that it does this run."""
        try:
            age = time.time() - self.heartbeat_path.stat().st_mtime
        except OSError:
            return False
        return age < stale() and self.node() not in ("", platform.node())

    # --- the log, read

    def read(self, offset: int = 0) -> tuple[list[Event], int]:
        """The events after byte `offset` and the offset to ask from next time. A half-written last line waits."""
        with open(self.path / "events.jsonl", "rb") as f:
            f.seek(offset)
            data = f.read()
        whole = data.rfind(b"\n") + 1
        return [event for line in data[:whole].splitlines() if (event := _parsed(line))], offset + whole

    def events(self) -> list[Event]:
        """All that counts: steps that a resumed run repeated stand once, as they were done the last time."""
        return effective(self.read()[0])

    def first_start(self) -> Event:
        """What it said when it first began: number format, threads, device; {} before that. Read from the log's beginning."""
        with open(self.path / "events.jsonl", "rb") as f:
            lines = f.read(65_536).splitlines()
        return next((e for line in lines if (e := _parsed(line)) and e["kind"] == "start"), {})

    def last_event(self) -> Event | None:
        """The newest whole line of the log, read from its end."""
        file = self.path / "events.jsonl"
        last = _last_unless_known(file, *_stamp(file))
        return last and dict(last)

    # --- how it stands ------------------------------------------------------------------------------------------

    @property
    def lock_path(self) -> Path:
        return self.path / "lock"

    def locked(self) -> bool:
        """Whether a process works on this run (it holds the lock as long as it lives, however it dies)."""
        try:
            descriptor = os.open(self.lock_path, os.O_RDONLY)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)

    def lock(self) -> int | None:
        """Take the run for this process: an open descriptor that holds the lock, or None when another has it."""
        descriptor = os.open(self.lock_path, os.O_RDWR | os.O_CREAT, 0o600)
        for _ in range(20):  # a reader that only looks may hold it for a moment
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return descriptor
            except BlockingIOError:
                time.sleep(0.02)
        os.close(descriptor)
        return None

    def status(self) -> str:
        """waiting, running, finished, stopped, failed or crashed; gone when somebody has just deleted it."""
        try:
            last = self.last_event()
        except FileNotFoundError:
            return "gone"
        if last and last["kind"] == "end":
            return last["reason"]
        if self.locked():
            return "running"
        if not last or last["kind"] == "queued":
            return "waiting"
        return "running" if self.alive_elsewhere() else "crashed"

    def queued_at(self) -> float:
        """Since when it waits."""
        last = self.last_event()
        return last.get("since", last["time"]) if last else self.meta["created"]

    # --- what a person may ask of it ----------------------------------------------------------------------------

    @property
    def stop_path(self) -> Path:
        return self.path / "stop"

    def request_stop(self, why: str = "") -> None:
        """Ask the run to stop: it keeps its checkpoint and its model. A waiting one ends at once. `why` is said at its end."""
        self.stop_path.write_text(why, encoding="utf-8")
        descriptor = self.lock() if self.status() == "waiting" else None
        if descriptor is not None:
            try:
                if self.status() in ("waiting", "running"):  # we hold the lock ourselves now
                    self.append("end", reason="stopped", step=0, message="Stopped before it began.")
            finally:
                os.close(descriptor)

    def stop_requested(self) -> bool:
        return self.stop_path.exists()

    def why_stopped(self) -> str:
        """What was said with the wish to stop it; "" when nothing was."""
        try:
            return self.stop_path.read_text(encoding="utf-8")
        except OSError:
            return ""

    def share(self, yes: bool = True) -> None:
        """Let everybody on the page look at the run and use its model, or no longer."""
        if yes:
            (self.path / "shared").touch()
        else:
            (self.path / "shared").unlink(missing_ok=True)

    def shared(self) -> bool:
        """Whether everybody may look at it."""
        return (self.path / "shared").exists()

    def pause(self, step: int) -> None:
        """Let a training stop at this step, after its evaluation, and wait there; 0 lets it go all the way."""
        if step:
            (self.path / "pause").write_text(f"{step}\n", encoding="utf-8")
        else:
            (self.path / "pause").unlink(missing_ok=True)

    def pause_at(self) -> int:
        """The step at which it is to stop and wait; 0 for none."""
        try:
            return int((self.path / "pause").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return 0

    def request_resume(self) -> None:
        """Put an ended run back into the queue. Raises ValueError while it waits, runs, or is finished."""
        status = self.status()
        if status not in ("stopped", "failed", "crashed"):
            raise ValueError(
                f"The run {self.name} is {STATUS[status]}: only one that ended early can be resumed."
            )
        self.stop_path.unlink(missing_ok=True)
        self.append("queued")

    def delete(self) -> None:
        """Remove the run and its models for good. Raises ValueError while a process works on it, and when it is gone already."""
        status = self.status()
        try:
            descriptor = None if status in ("running", "gone") else self.lock()
            if descriptor is None and self.status() != "gone":
                raise ValueError(f"The run {self.name} is still running: stop it first.")
            if descriptor is None:
                raise FileNotFoundError
            try:
                gone = self.path.with_name(f".gone-{secrets.token_hex(8)}")
                self.path.rename(gone)
            finally:
                os.close(descriptor)
        except FileNotFoundError:  # another tab was faster
            raise ValueError(f"There is no run called {self.name!r} any more.") from None
        shutil.rmtree(gone)


def refuse_more(owner: str, count: int = 1) -> None:
    """Raise modes.Refused where `count` more runs are more than a visitor may have: in the queue, or on the disk.

    A terminal may have any.
    """
    disk.refuse_full(owner)
    most = modes.limits().waiting
    if not most or owner in ("", "terminal", "local") or getattr(owner, "teacher", False):
        return
    waiting = sum(run.meta["owner"] == owner and run.status() == "waiting" for run in all_runs())
    if waiting + count > most:
        raise modes.Refused(
            f"You have {waiting} runs in the queue and {count} more would be above the {most} that one visitor may have: wait "
            "until one has begun, or stop one."
        )


def stale() -> float:
    """Seconds without a sign of life after which a run on another machine counts as broken off: $LLM_STALE, else 60."""
    return float(os.environ.get("LLM_STALE", "60"))


def all_runs(kind: str = "") -> list[Run]:
    """Every run, newest first; those that cannot be read are left out."""
    found = []
    for path in paths.runs().iterdir():
        if path.name.startswith("."):
            continue
        try:
            meta = Run(path).meta
        except ValueError:
            continue
        if not kind or meta["kind"] == kind:
            found.append((meta["created"], path.name, Run(path)))
    return [run for _, _, run in sorted(found, key=lambda row: row[:2], reverse=True)]


def effective(events: Iterable[Event]) -> list[Event]:
    """The events that count: a "resume" from step k takes back what was done after the checkpoint of step k.

    The checkpoint is written between update k and the look at the model that may follow it.
    """
    kept: list[Event] = []
    for event in events:
        if event["kind"] == "resume":
            kept = [e for e in kept if not taken_back(e, event["step"])]
        kept.append(event)
    return kept


def taken_back(event: Event, step: int) -> bool:
    """Whether a resume from `step` does this event again."""
    if event["kind"] in ("evaluate", "sample"):
        return event["step"] >= step
    return event["kind"] == "end" or event.get("step", 0) > step


def perplexity(loss: float | None) -> float | None:
    """exp of a mean negative log-likelihood in nats; infinity above the largest float (about exp(709.78))."""
    if loss is None or math.isnan(loss):
        return None
    return math.exp(loss) if loss < 709.7827 else math.inf


def new_name(about: str) -> str:
    """A name with the time in it, such as stories-1125-134210."""
    stem = "".join(c if c.isalnum() else "-" for c in about.lower()).strip("-")[:40] or "run"
    name = f"{stem}-{time.strftime('%m%d-%H%M%S')}"
    return f"{name}-{secrets.token_hex(2)}" if (paths.runs() / name).exists() else name


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return value


def _parsed(line: bytes) -> Event | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and "kind" in event else None


# A page that shows a queue looks at every run again and again: what has not changed since is not read again.


def _stamp(file: Path) -> tuple[int, int, int]:
    """What changes with a file."""
    about = os.stat(file)
    return about.st_mtime_ns, about.st_size, about.st_ino


@lru_cache(maxsize=8192)
def _read_unless_known(file: Path, *stamp: int) -> dict[str, Any]:
    return _read_json(file)


@lru_cache(maxsize=8192)
def _last_unless_known(file: Path, *stamp: int) -> Event | None:
    with open(file, "rb") as f:
        size = f.seek(0, os.SEEK_END)
        for length in (4096, 262_144, size):
            f.seek(max(0, size - length))
            data = f.read()
            lines = data[: data.rfind(b"\n") + 1].splitlines()
            for line in reversed(lines if length >= size else lines[1:]):
                if event := _parsed(line):
                    return event
            if length >= size:
                return None
    return None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise _damaged(path) from None
    if not isinstance(found, dict):
        raise _damaged(path)
    return found


def _damaged(path: Path) -> ValueError:
    return ValueError(f"{path.parent.name}/{path.name} cannot be read: the run is damaged.")
