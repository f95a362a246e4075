"""Whose texts and rows are whose: a file for each name under $LLM_HOME/owners, a line for each who brought it.

The same text brought by two visitors is one file of both. What nobody brought (shipped, downloaded, made in a terminal) is everybody's.
"""

from __future__ import annotations

import threading
from pathlib import Path

from llm import modes, paths, versions

VERSION = 1
_writing = threading.Lock()  # one who brings a text while another lets go of it


def claim(name: str, owner: str) -> str:
    """Note that a visitor brought this dataset; its name. At home nothing is noted."""
    with _writing:
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


def brought(visitor: str) -> list[Path]:
    """The files of the datasets that a visitor brought."""
    found = []
    for note in sorted((paths.home() / "owners").glob("[!.]*")):
        try:
            theirs = visitor in owners(note.name)
        except ValueError:  # of a later version
            continue
        found += files(note.name) if theirs else []
    return found


def files(name: str) -> list[Path]:
    """The files of a dataset under `paths.datasets()`: one, or none."""
    places = (
        paths.datasets() / f"{paths.checked_name(name, 'dataset')}{kind}" for kind in paths.DATASET_KINDS
    )
    return [place for place in places if place.is_file()]


def let_go(name: str, visitor: str = "") -> bool:
    """A visitor no longer has this dataset; without one ("") nobody has. True when it is deleted: it stays while others have it.

    Raises ValueError when there is none, and as `owners`.
    """
    with _writing:
        if not (found := files(name)):
            raise ValueError(f"There is no text and there are no rows called {name!r} to delete.")
        others, note = owners(name) - {visitor}, paths.home() / "owners" / name
        if visitor and others:
            with paths.replacing(note) as temporary:
                temporary.write_text("\n".join([f"version {VERSION}", *sorted(others), ""]), encoding="utf-8")
            return False
        for file in found:
            file.unlink(missing_ok=True)
        note.unlink(missing_ok=True)
    return True
