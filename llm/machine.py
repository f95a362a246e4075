"""How much memory this process may still take, so that what cannot fit is refused with figures and not killed halfway."""

from __future__ import annotations

import re
from pathlib import Path

SPARE = 200 * 2**20  # bytes left alone: what a program takes besides its tensors


def free_memory() -> int | None:
    """Bytes: the least of what the machine has free, what its control group allows, and this process's own limits.

    None where none of them can be read (a system other than Linux).
    """
    found = [value for value in (_machine(), _group(), _own()) if value is not None]
    return max(0, min(found)) if found else None


def refuse_memory(needed: int, what: str) -> None:
    """Raise ValueError when `needed` bytes are more than can be had; `what` begins the sentence."""
    free = free_memory()
    if free is not None and needed + SPARE > free:
        raise ValueError(
            f"{what} needs at least {(needed + SPARE) / 2**30:,.1f} GB of memory, and {free / 2**30:,.1f} GB are free here: choose a smaller "
            "model, or LoRA where a model is tuned, or a machine with more."
        )


def _number(path: str, pattern: str) -> int | None:
    try:
        found = re.search(pattern, Path(path).read_text(encoding="ascii", errors="replace"))
    except OSError:
        return None
    return int(found[1]) if found else None


def _machine() -> int | None:
    kilobytes = _number("/proc/meminfo", r"MemAvailable:\s+(\d+)")
    return None if kilobytes is None else kilobytes * 1024


def _group() -> int | None:
    """A container's limit less what it holds; file pages that can be dropped at once are not counted as held."""
    most = _number("/sys/fs/cgroup/memory.max", r"^(\d+)")
    held = _number("/sys/fs/cgroup/memory.current", r"^(\d+)")
    if most is None or held is None:
        return None
    return most - held + (_number("/sys/fs/cgroup/memory.stat", r"(?m)^inactive_file (\d+)") or 0)


def _own() -> int | None:
    """What `ulimit -v` leaves: addresses, of which libraries reserve more than they use."""
    try:
        import resource
    except ImportError:
        return None
    most = resource.getrlimit(resource.RLIMIT_AS)[0]
    held = _number("/proc/self/status", r"VmSize:\s+(\d+)")
    return None if most == resource.RLIM_INFINITY or held is None else most - held * 1024
