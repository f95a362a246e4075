"""Whose texts and rows are whose: a file for each name under $LLM_HOME/owners, a line for each who brought it.

The same text brought by two visitors is one file of both. What nobody brought (shipped, downloaded, made in a terminal) is everybody's.
"""

from __future__ import annotations

from llm import modes, paths, versions

VERSION = 1


def claim(name: str, owner: str) -> str:
    """Note that a visitor brought this dataset; its name. At home nothing is noted."""
    if modes.is_shared() and owner not in owners(name):
        file = paths.home() / "owners" / paths.checked_name(name, "dataset")
        file.parent.mkdir(parents=True, exist_ok=True)
        with open(file, "a", encoding="utf-8") as lines:
            lines.write(f"{'' if lines.tell() else f'version {VERSION}{chr(10)}'}{owner}\n")
    return name


def owners(name: str) -> set[str]:
    """Who brought it; empty when it is everybody's. Raises ValueError when the file is of a later version."""
    try:
        file = paths.home() / "owners" / paths.checked_name(name, "dataset")
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return set()
    first, _, number = lines[0].partition(" ") if lines else ("", "", "")
    if first == "version":
        versions.check(int(number) if number.isdecimal() else number, VERSION, file)
    return {line for line in lines if line and not line.startswith("version ")}
