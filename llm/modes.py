"""Who uses the lab, by one setting ($LLM_MODE), and what each of them may ask of the machine.

`local`: one person, all cores. `class`: a teacher's machine, each visitor with runs of their own. `space`: strangers.
A teacher's changes of the limits stand in $LLM_HOME/limits.json. Only visitors are limited: a terminal is not.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from llm import paths, versions

VERSION = 1  # of limits.json


class Refused(ValueError):
    """More than a visitor may have: said to them, and noted in the log."""


@dataclass(frozen=True)
class Limits:
    """What one visitor may have; 0 stands for no limit."""

    at_once: int = 0  # runs that go on while others wait
    waiting: int = 0  # runs in the queue
    minutes: int = 0  # of one run
    parameters: int = 0  # of a model that is trained
    processes: int = 0  # of one run
    megabytes: int = 0  # of runs, models and texts


LIMITS = {
    "local": Limits(),
    "class": Limits(at_once=1, waiting=8, minutes=20, parameters=30_000_000, processes=1, megabytes=500),
    "space": Limits(at_once=1, waiting=4, minutes=10, parameters=15_000_000, processes=1, megabytes=200),
}
SAID = {
    "at_once": "runs of one visitor at a time",
    "waiting": "runs of one visitor in the queue",
    "minutes": "minutes a run may take",
    "parameters": "parameters of a model that is trained",
    "processes": "processes of one run",
    "megabytes": "megabytes of one visitor's runs, models and texts",
}
MOST = 10**12


def mode() -> str:
    """$LLM_MODE, else `space` on a Hugging Face Space, else `local`. Raises ValueError for an unknown one."""
    named = os.environ.get("LLM_MODE") or ("space" if os.environ.get("SPACE_ID") else "local")
    if named not in LIMITS:
        raise ValueError(f"LLM_MODE is {named!r}; the modes are {', '.join(LIMITS)}.")
    return named


def is_shared() -> bool:
    """Whether the page has visitors who must not touch one another's work."""
    return mode() != "local"


def file() -> Path:
    """Where a teacher's changes of the limits are kept."""
    return paths.home() / "limits.json"


def limits() -> Limits:
    """Those of the mode, with a teacher's changes. Raises ValueError when these are of a later version."""
    if not is_shared():
        return Limits()
    try:
        changed = json.loads(file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        changed = {}
    changed = changed if isinstance(changed, dict) else {}
    versions.check(changed.get("version"), VERSION, file())
    return replace(LIMITS[mode()], **{name: changed[name] for name in SAID if _is_count(changed.get(name))})


def change(**values: Any) -> Limits:
    """Keep new limits. Raises ValueError for an unknown name or a value that is no whole number from 0."""
    for name, value in values.items():
        if name not in SAID:
            raise ValueError(f"{name!r} is no limit; the limits are {', '.join(SAID)}.")
        if not _is_count(value):
            raise ValueError(
                f"{SAID[name][0].upper()}{SAID[name][1:]}: {value!r} is no whole number from 0 on."
            )
    new = replace(limits(), **values)
    paths.home().mkdir(parents=True, exist_ok=True)
    with paths.replacing(file()) as temporary:
        temporary.write_text(json.dumps({"version": VERSION, **asdict(new)}) + "\n", encoding="utf-8")
    return new


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST


def refuse_large(parameters: int, processes: int, seconds: float | None) -> None:
    """Raise Refused where a run is more than a visitor may ask for; `seconds` is the forecast, None without one."""
    now = limits()
    if now.parameters and parameters > now.parameters:
        raise Refused(
            f"This model has {parameters:,} parameters; on this page at most {now.parameters:,} are trained: choose a "
            "smaller size, or run the lab on a machine of your own."
        )
    if now.processes and processes > now.processes:
        raise Refused(
            f"{processes} processes are more than the {now.processes} that one run may have on this page."
        )
    if now.minutes and seconds and seconds > 60 * now.minutes:
        raise Refused(
            f"This run would take about {seconds / 60:,.0f} minutes; on this page a run may take {now.minutes}: lower "
            "max_steps, or choose a smaller size."
        )
