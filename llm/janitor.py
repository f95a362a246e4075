"""The janitor: while the lab takes more than its quota ($LLM_QUOTA, see `llm.disk`), it removes what may go, and no more than is needed.

    python -m llm.janitor             remove it
    python -m llm.janitor --dry-run   say what would be removed

In this order: leftovers of what was never finished, older than a day; what can be made again (the cache, downloads that nobody has
imported), the longest unused first; on a Space also runs of visitors that ended more than a day ago and are not shared, the oldest first.
Never a run that waits or works or that such a run needs, never what a person made at home or in a class, never what is shared.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import logging
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from llm import disk, halving, inventory, modes, paths
from llm.runs import ENDED, Run, all_runs

DAY, HOUR = 86_400.0, 3_600.0  # seconds
HALF_MADE = (".new-*", ".gone-*", ".restore-*")
TEMPORARY = re.compile(r"\..+\.[a-z0-9_]{8}")  # as `paths.replacing` names them

log = logging.getLogger("llm-lab")


@dataclass(frozen=True)
class Removed:
    """One thing that went, or would."""

    what: str
    why: str
    size: int  # bytes


@dataclass(frozen=True)
class Candidate:
    """One thing that may go, and how."""

    places: tuple[Path, ...]  # named by the first
    why: str
    remove: Callable[[], None]


def tidy(dry: bool = False) -> list[Removed]:
    """Remove what may go until the quota is kept; what went. Nothing goes without a quota, or below it.

    Raises ValueError when $LLM_QUOTA is no number.
    """
    most = disk.quota()
    over = disk.used(fresh=True) - most if most else 0
    gone: list[Removed] = []
    for find in (leftovers, made_again, old_runs):
        if over <= 0:
            break
        for one in find():
            size = sum(map(disk.size, one.places))
            if not dry:
                try:
                    one.remove()
                except (OSError, ValueError) as error:  # it is at work again, or not ours to remove
                    log.warning("the janitor could not remove %s: %s", called(one.places[0]), error)
                    continue
            gone.append(Removed(called(one.places[0]), one.why, size))
            over -= size
            if over <= 0:
                break
    if gone and not dry:
        disk.used(fresh=True)
    return gone


def called(path: Path) -> str:
    return path.relative_to(paths.home()).as_posix()


def newest(path: Path) -> float:
    """When something was last written at or in `path`, seconds since 1970; 0 when it has gone."""
    times = [0.0]
    for file in (path, *path.rglob("*")):
        try:
            times.append(file.lstat().st_mtime)
        except OSError:
            continue
    return max(times)


def erase(path: Path) -> None:
    """Remove a file or folder. Raises OSError."""
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)


def erasing(path: Path, why: str) -> Candidate:
    return Candidate((path,), why, lambda: erase(path))


# --- what may go


def leftovers() -> Iterator[Candidate]:
    """What was never finished and nobody has touched for a day."""
    old, home = time.time() - DAY, paths.home()
    for folder in (home, paths.runs(), paths.models(), paths.tokenizers()):
        for pattern in HALF_MADE:
            for path in sorted(folder.glob(pattern)):
                if newest(path) < old and not at_work(path.name.removeprefix(".new-")):
                    yield erasing(path, "left over from something that was broken off")
    wanted = needed()
    for path in sorted((home / "uploads").glob("*")):
        if newest(path) < old and path.name not in wanted:
            yield erasing(path, "an upload that nobody imported")
    for folder, _, names in os.walk(home):
        for name in sorted(names):
            path = Path(folder) / name
            if TEMPORARY.fullmatch(name) and newest(path) < old and not inside_work(path):
                yield erasing(path, "a file that was never written to its end")


def at_work(name: str) -> bool:
    """Whether a run of this name waits or works."""
    try:
        return not has_ended(Run.open(name))
    except ValueError:
        return False


def has_ended(run: Run) -> bool:
    """Whether a run neither works nor waits, for its turn or for the other trials of its sweep."""
    return run.status() in ENDED and not halving.is_paused(run)


def inside_work(path: Path) -> bool:
    """Whether a file lies in the directory of a run that waits or works."""
    inside = path.relative_to(paths.home()).parts
    return len(inside) > 2 and inside[0] == "runs" and at_work(inside[1])


def made_again() -> Iterator[Candidate]:
    """What lies in the cache, the longest unused first; nothing of the last hour, and no download that goes on or is waited for."""
    downloads = paths.cache() / "hub"
    wanted = needed()
    shards = paths.cache() / "shards"  # each is made again by itself
    found = [path for path in paths.cache().glob("*") if path not in (downloads, shards)]
    found += shards.glob("*")
    found += [
        path
        for path in downloads.glob("*")
        if not is_locked(path / ".lock")
        and f"hf:{path.name.partition('@')[0].replace('--', '/')}" not in wanted
    ]
    for when, path in sorted((newest(path), path) for path in found):
        if when < time.time() - HOUR:
            why = "a download that nobody imported" if path.parent == downloads else "can be made again"
            yield erasing(path, why)


def is_locked(file: Path) -> bool:
    """Whether another process holds this lock."""
    try:
        with open(file, "rb") as f:
            fcntl.flock(f, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
    except BlockingIOError:
        return True
    except OSError:
        return False


def needed() -> str:
    """The settings of all runs that wait or work, as one text: what is named in it stays."""
    found = []
    for run in all_runs():
        with suppress(OSError, ValueError):  # deleted at this moment, or damaged: it cannot begin
            if not has_ended(run):
                found.append(json.dumps(run.config))
    return "\n".join(found)


def old_runs() -> Iterator[Candidate]:
    """On a Space: runs of visitors that ended more than a day ago, are not shared and that no other run needs; oldest first."""
    if modes.mode() != "space":
        return
    wanted = needed()
    ended: list[tuple[float, str, Run]] = []
    for run in all_runs():
        try:
            last = run.last_event() or {}
            if run.meta["owner"] in disk.NOBODY or run.shared() or not has_ended(run):
                continue
        except (OSError, ValueError):  # deleted at this moment, or damaged: nobody knows whose it is
            continue
        when = last["time"] if last.get("kind") == "end" else newest(run.path)
        named = (
            f'"{run.name}' in wanted or f"+{run.name}" in wanted
        )  # a model of its own, or an adapter on another
        if when < time.time() - DAY and not named:
            ended.append((when, run.name, run))
    for _, _, run in sorted(ended, key=lambda row: row[:2]):
        places = (run.path, *brought_by(run))
        yield Candidate(places, "an old run of a visitor, not shared", lambda places=places: remove(*places))


def brought_by(run: Run) -> list[Path]:
    """The model that an import has brought, which goes with it."""
    folder = paths.models() / run.name
    try:
        theirs = run.meta["kind"] == "import" and inventory.read_source(folder).get("run") == run.name
    except ValueError:  # of a later version
        theirs = False
    return [folder] if theirs else []


def remove(place: Path, *models: Path) -> None:
    """Delete a run and what it brought. Raises ValueError when it waits or works by now, or has been shared."""
    run = Run(place)
    if not has_ended(run) or run.shared():
        raise ValueError("it is in use again.")
    run.delete()
    for model in models:
        erase(model)


# --- by itself, and by hand


def look_after() -> None:
    """Tidy up once, and say in the log what went; a thread's work, which never fails."""
    try:
        for one in tidy():
            log.warning("the janitor removed %s (%s, %.1f MB)", one.what, one.why, one.size / 1e6)
        if disk.is_full():
            log.warning("the quota is used up: %.3g of %.3g GB, and nothing more may be removed", disk.used() / 1e9, disk.quota() / 1e9)  # fmt: skip
    except Exception:  # it must not take the queue along
        log.exception("the janitor failed")


def main(arguments: Sequence[str] | None = None) -> None:
    """Keep the quota of $LLM_HOME ($LLM_QUOTA, in GB): remove what may go, and no more than is needed."""
    parser = argparse.ArgumentParser(prog="python -m llm.janitor", description=main.__doc__)
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would be removed, and remove nothing"
    )
    given = parser.parse_args(arguments)
    try:
        most, before = disk.quota(), disk.used(fresh=True)
        gone = tidy(given.dry_run)
    except ValueError as error:
        sys.exit(f"{error}")
    for one in gone:
        print(
            f"{'would remove' if given.dry_run else 'removed'} {one.what}: {one.why}, {one.size / 1e6:,.1f} MB"
        )
    if not most:
        print(f"{before / 1e6:,.1f} MB in {paths.home()}; no quota is set (LLM_QUOTA, in GB).")
        return
    after = before - sum(one.size for one in gone) if given.dry_run else disk.used()
    kept = "the quota is kept" if after < most else "the quota is used up: delete runs, models or texts"
    print(
        f"{before / 1e6:,.1f} MB in {paths.home()}, {after / 1e6:,.1f} MB after this, of {most / 1e6:,.0f} MB; {kept}."
    )


if __name__ == "__main__":
    main()
