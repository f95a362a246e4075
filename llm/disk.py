"""What the lab's files take on the disk, and how much they may: $LLM_QUOTA for all of them, a share for each visitor.

$LLM_QUOTA is in GB (10**9 bytes), for everything under $LLM_HOME: 20 on a Space unless set, else without one. Only new work is
refused, with a sentence; what is there stays, apart from what `llm.janitor` may remove. A terminal is not limited.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path

from llm import modes, owned, paths

SPACE_GB = 20.0
FRESH = 30.0  # seconds for which a measurement of everything counts
NOBODY = ("", "terminal", "local")  # owners that are no visitors of a shared page

_measured: tuple[str, float, int] = ("", 0.0, 0)  # of which home, when, bytes


def quota() -> int:
    """Bytes that everything may take; 0 without a quota. Raises ValueError when $LLM_QUOTA is no number of GB."""
    given = os.environ.get("LLM_QUOTA", "").strip()
    if not given:
        return int(SPACE_GB * 1e9) if modes.mode() == "space" else 0
    try:
        gigabytes = float(given)
    except ValueError:
        gigabytes = -1.0
    if not 0 <= gigabytes < math.inf:
        raise ValueError(f"LLM_QUOTA is a number of GB, such as 20 or 0.5 (0: none), not {given[:40]!r}.")
    return math.ceil(gigabytes * 1e9)


def size(path: Path, seen: set[tuple[int, int]] | None = None) -> int:
    """Bytes that a file or folder takes; a file with several names (hard links) once for one `seen`. Links are not followed."""
    seen = set() if seen is None else seen
    return sum(_once(about, seen) for about in _stats(path))


def _once(about: os.stat_result, seen: set[tuple[int, int]]) -> int:
    if about.st_nlink > 1:
        if (about.st_dev, about.st_ino) in seen:
            return 0
        seen.add((about.st_dev, about.st_ino))
    return about.st_size


def _stats(path: Path | str) -> Iterator[os.stat_result]:
    """Of every file at or below `path`; what goes while it is looked at is left out."""
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                try:
                    if entry.is_dir(follow_symlinks=False):
                        yield from _stats(entry.path)
                    else:
                        yield entry.stat(follow_symlinks=False)
                except OSError:
                    continue
    except NotADirectoryError:
        yield os.lstat(path)
    except OSError:
        return


def used(fresh: bool = False) -> int:
    """Bytes of everything under $LLM_HOME; measured again after 30 seconds, or at once when `fresh`."""
    global _measured
    home, now = str(paths.home()), time.monotonic()
    if fresh or _measured[0] != home or now - _measured[1] > FRESH:
        _measured = (home, now, size(paths.home()))
    return _measured[2]


def is_full() -> bool:
    """Whether the quota is used up. Raises ValueError as `quota`."""
    most = quota()
    return bool(most) and used() >= most and used(fresh=True) >= most


def of_visitor(owner: str) -> int:
    """Bytes of a visitor's runs, the models they imported and the texts and rows they brought."""
    seen: set[tuple[int, int]] = set()
    found = 0
    for folder, about in ((paths.runs(), "meta.json"), (paths.models(), "source.json")):
        for path in folder.iterdir():
            if not path.name.startswith(".") and _owner(path / about) == owner:
                found += size(path, seen)
    found += sum(size(file, seen) for file in owned.brought(owner))
    return found


def _owner(file: Path) -> str | None:
    try:
        return str(json.loads(file.read_text(encoding="utf-8")).get("owner", ""))
    except (OSError, ValueError, AttributeError):
        return None


def refuse_full(owner: str, more: int = 0) -> None:
    """Raise modes.Refused where a visitor has no room for anything new (of `more` bytes, where they are known)."""
    if owner == "terminal":
        return
    if is_full():
        raise modes.Refused(
            f"The lab's quota of {quota() / 1e9:,.3g} GB is used up ({used() / 1e9:,.3g} GB are taken): delete runs, models or texts that "
            "are no longer needed, or raise LLM_QUOTA where the lab is started."
        )
    most = modes.limits().megabytes * 1_000_000
    if not most or owner in NOBODY or getattr(owner, "teacher", False):
        return
    taken = of_visitor(owner)
    if taken + more > most or taken >= most:
        new = f" and {more / 1e6:,.1f} MB more are too much: bring less, or" if taken < most else ":"
        raise modes.Refused(
            f"Your runs, models and texts take {taken / 1e6:,.1f} MB of the {most / 1e6:,.0f} MB that one visitor may have on this "
            f"page{new} delete a run in Train's history, or a model or a text in Models."
        )
