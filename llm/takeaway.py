"""Everything of one visitor as one file, and into a home of their own: runs with their models, sweeps, encodings, imported models, texts, rows.

    python -m llm.takeaway mine.tar.gz      read it into $LLM_HOME, beside what is there

The file is made by the page (`lab/take-away`). Names that are taken are refused before anything is written; every file is checked by its
SHA-256. What is read belongs to whoever reads it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from llm import backup, corpora, files, halving, owned, paths, tokenizer, versions
from llm.runs import Run, all_runs

WHOLE = {"tokenizers": "tokenizer.json", "models": "source.json", "runs": "meta.json", "sweeps": "spec.json"}
PLACES = ("datasets", *WHOLE)  # what such a file may hold; of each folder the file without which it is none


def folders(visitor: str) -> Iterator[Path]:
    """The directories and files of a visitor, relative to $LLM_HOME."""
    home = paths.home()
    for run in all_runs():
        if run.meta["owner"] == visitor:
            yield run.path.relative_to(home)
            if run.meta["kind"] == "tokenizer" and (paths.tokenizers() / run.name).is_dir():
                yield Path("tokenizers") / run.name
    for about in sorted(paths.models().glob("[!.]*/source.json")):
        try:
            if json.loads(about.read_text(encoding="utf-8")).get("owner") == visitor:
                yield about.parent.relative_to(home)
        except (OSError, ValueError, AttributeError):
            continue
    for sweep in halving.all_sweeps():
        if sweep.owner == visitor:
            yield Path("sweeps") / sweep.name
    for file in owned.brought(visitor):
        yield file.relative_to(home)


def contents(visitor: str) -> Iterator[Path]:
    """The files of a visitor; of each run the log last, so that it reaches as far as the checkpoint."""
    home = paths.home()
    for place in folders(visitor):
        if (home / place).is_file():
            yield place
            continue
        for path in backup.contents(home / place):
            yield place / path


def write(visitor: str, file: BinaryIO) -> dict[str, Any]:
    """Write a visitor's things as a tar.gz; what is in it: files, bytes. A run that goes on is there up to its last checkpoint.

    Raises ValueError when the disk has no room for it.
    """
    try:
        with tarfile.open(fileobj=file, mode="w:gz", compresslevel=1) as tar:
            return backup.pack(tar, paths.home(), contents(visitor))
    except OSError as error:
        raise ValueError(
            f"What is yours could not be packed here ({error.strerror or error}): delete a run or a model that you no longer need, then try again."
        ) from None


def read(file: Path) -> list[str]:
    """Bring what such a file holds into $LLM_HOME, all of it or nothing; what came, such as "runs/poem".

    Raises ValueError when a name is taken, or the file is no whole one of this kind.
    """
    home = paths.home()
    for place in PLACES:
        (home / place).mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(dir=home, prefix=".restore-"))
    try:
        backup.unpacked(file, building)
        if strange := sorted(path.name for path in building.iterdir() if path.name not in PLACES):
            raise ValueError(
                f"{file.name} holds {strange[0]!r}, which nobody takes away: a backup is read by llm.backup."
            )
        brought = sorted(
            path.relative_to(building) for place in PLACES for path in (building / place).glob("*")
        )
        for path in brought:
            check(path, building)
        for path in brought:
            adopt(building / path)
        for path in brought:
            (building / path).rename(home / path)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return [path.as_posix() for path in brought]


def check(path: Path, building: Path) -> None:
    """Raise ValueError when a piece (such as runs/poem, found in `building`) is no whole one, or its name stands for something here."""
    home, name = paths.home(), paths.checked_name(path.name, "name in this file")
    place, piece = path.parts[0], building / path
    if place == "datasets":
        name, ending = piece.stem, piece.suffix
        if not piece.is_file() or ending not in paths.DATASET_KINDS:
            raise ValueError(
                f"{path.as_posix()} is neither a text (.txt) nor rows (.jsonl): nobody takes that away."
            )
        is_taken = name in (*corpora.TEXTS, *corpora.ROWS) or (home / path).exists()
        is_taken = is_taken or files.has_another_kind(name, ending)
    else:
        if not (piece / WHOLE[place]).is_file():
            raise ValueError(f"{path.as_posix()} is not whole: its {WHOLE[place]} is missing.")
        same = ("runs", "models") if place in ("runs", "models") else (place,)  # both are names of models
        is_taken = any((home / one / name).exists() for one in same)
        is_taken = is_taken or (place == "tokenizers" and name in tokenizer.names())
    if is_taken:
        raise ValueError(
            f"There is something called {name!r} already in {home}: rename it, or read the file into another LLM_HOME."
        )


def adopt(piece: Path) -> None:
    """Make a run, a sweep or an imported model belong to this machine's user. Raises ValueError for one of a later version."""
    place, owner = piece.parent.name, "terminal"
    if place == "runs":
        about = Run(piece).meta
    elif place in ("models", "sweeps"):
        owner = "" if place == "models" else owner
        about = json.loads((piece / WHOLE[place]).read_text(encoding="utf-8"))
        if place == "sweeps":
            versions.check(about.get("version"), halving.VERSION, piece / WHOLE[place])
    else:
        return
    with paths.replacing(piece / WHOLE[place]) as temporary:
        temporary.write_text(json.dumps(about | {"owner": owner}) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """`python -m llm.takeaway FILE`."""
    parser = argparse.ArgumentParser(prog="python -m llm.takeaway", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("file", type=Path, help="the file that the page gave")
    try:
        brought = read(parser.parse_args(arguments).file)
    except ValueError as error:
        sys.exit(f"{error}")
    print("\n".join(brought) or "There was nothing in it.")


if __name__ == "__main__":
    main()
