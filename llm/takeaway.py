"""Everything of one visitor as one file, and into a home of their own: runs with their models, imported models, texts and rows.

    python -m llm.takeaway mine.tar.gz      read it into $LLM_HOME, beside what is there

The file is made by the page (`lab/take-away`). Names that are taken are refused before anything is written; every file is checked by its
SHA-256. What is read belongs to whoever reads it.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from llm import backup, owned, paths
from llm.runs import Run, all_runs

PLACES = ("datasets", "tokenizers", "models", "runs")  # what such a file may hold


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
    for file in sorted((home / "owners").glob("[!.]*")):
        try:
            theirs = visitor in owned.owners(file.name)
        except ValueError:  # of a later version
            continue
        for ending in (".txt", ".jsonl") if theirs else ():
            if (paths.datasets() / f"{file.name}{ending}").is_file():
                yield Path("datasets") / f"{file.name}{ending}"


def contents(visitor: str) -> Iterator[Path]:
    """The files of a visitor; of each run the log last, so that it reaches as far as the checkpoint."""
    home = paths.home()
    for place in folders(visitor):
        if (home / place).is_file():
            yield place
            continue
        for path in backup.contents(home / place):
            yield place / path


def write(visitor: str, file: Path) -> dict[str, Any]:
    """Write a visitor's things to a tar.gz file; what is in it: files, bytes. A run that goes on is there up to its last checkpoint.

    Sweeps are not taken along; their trials are, as runs.
    """
    sums, total, home = {}, 0, paths.home()
    with tarfile.open(file, "w:gz", compresslevel=1) as tar:
        for path in contents(visitor):
            try:
                with backup.opened(home / path) as (f, size):
                    summed = backup.Summed(f)
                    tar.addfile(backup.entry(path.as_posix(), size, os.fstat(f.fileno()).st_mtime), summed)
            except FileNotFoundError:  # a run that was just deleted
                continue
            sums[path.as_posix()], total = summed.sum.hexdigest(), total + size
        data = json.dumps({"version": backup.VERSION, "written": time.time(), "files": sums}).encode()
        tar.addfile(backup.entry(backup.MANIFEST, len(data), time.time()), io.BytesIO(data))
    return {"files": len(sums), "bytes": total}


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
            paths.checked_name(path.name, "name in this file")
            if (home / path).exists():
                raise ValueError(
                    f"{path.as_posix()} is there already in {home}: rename it, or read the file into another LLM_HOME."
                )
            adopt(building / path)
        for path in brought:
            (building / path).rename(home / path)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return [path.as_posix() for path in brought]


def adopt(folder: Path) -> None:
    """Make a run or an imported model belong to this machine's user. Raises ValueError for a run of a later version."""
    if (folder / "meta.json").is_file():
        about, owned_by = Run(folder).meta, "terminal"
        file = folder / "meta.json"
    elif (folder / "source.json").is_file():
        file, owned_by = folder / "source.json", ""
        about = json.loads(file.read_text(encoding="utf-8"))
    else:
        return
    with paths.replacing(file) as temporary:
        temporary.write_text(json.dumps(about | {"owner": owned_by}) + "\n", encoding="utf-8")


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
