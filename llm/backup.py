"""Everything a person has made, as one file, while the lab goes on working; and back again.

    python -m llm.backup lab.tar              write it
    python -m llm.backup --restore lab.tar    read it into $LLM_HOME, which must be empty

Left out: what can be made again (cache), half-finished uploads and downloads, locks, logs of the page, and the keys of endpoints. A run comes with its last
checkpoint and a log that reaches at least as far, so it goes on from there. Each file is checked by its SHA-256 before anything is put
into place.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import shutil
import sqlite3
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from llm import paths, versions

VERSION = 1
MANIFEST = "manifest.json"
LEFT_OUT = {"cache", "uploads", "hub"}  # folders that can be filled again
NOT_KEPT = {"lock", "heartbeat", "dispatch.lock", "launcher.txt", "keys", "stop", "server.log", "lab.log", "lab.log.1", "lab.log.2"}  # fmt: skip
LOG = "events.jsonl"


def contents(home: Path) -> Iterator[Path]:
    """The files to keep, relative to `home`; of each run the log last, so that it reaches as far as the checkpoint."""
    for folder, below, names in os.walk(home):
        here = Path(folder).relative_to(home)
        below[:] = sorted(
            name for name in below if not name.startswith(".") and (here.parts or name not in LEFT_OUT)
        )
        wanted = [name for name in names if name not in NOT_KEPT and not name.startswith((".", "trouble-"))]
        if LOG not in wanted:
            yield from (
                here / name for name in sorted(wanted) if not name.endswith((".part", "-wal", "-shm"))
            )
            continue
        for path in sorted((home / here).rglob("*")):
            inside = path.relative_to(home)
            kept = path.name not in NOT_KEPT and not any(part.startswith(".") for part in inside.parts)
            if path.is_file() and kept and inside != here / LOG and not path.name.startswith("trouble-"):
                yield inside
        yield here / LOG
        below.clear()


@contextmanager
def opened(file: Path) -> Iterator[tuple[BinaryIO, int]]:
    """A file as it can be read back, and its bytes: a database copied at one moment, a log up to its last whole line.

    What is replaced while it is read stays what it was. Raises FileNotFoundError when it has been removed meanwhile.
    """
    with open(file, "rb") as f:
        size = os.fstat(f.fileno()).st_size
        if f.read(16) == b"SQLite format 3\0":
            with tempfile.TemporaryDirectory() as folder:
                copy = Path(folder) / "copy"
                with closing(sqlite3.connect(file)) as source, closing(sqlite3.connect(copy)) as target:
                    source.backup(target)
                with open(copy, "rb") as whole:
                    yield whole, copy.stat().st_size
            return
        if file.name == LOG:
            f.seek(0)
            size = f.read(size).rfind(b"\n") + 1
        f.seek(0)
        yield f, size


class Summed:
    """A file that is read, or written, while its SHA-256 is taken."""

    def __init__(self, file: BinaryIO):
        self.file, self.sum = file, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self.file.read(size)
        self.sum.update(data)
        return data


def write(file: Path) -> dict[str, Any]:
    """Write everything to a tar file, whole or not at all; what is in it: files, bytes. Raises ValueError when it cannot be written."""
    home = paths.home()
    if home.resolve() in file.resolve().parents:
        raise ValueError(
            f"The backup cannot lie inside {home}: it would have to hold itself. Choose another place."
        )
    try:
        with (
            paths.replacing(file) as temporary,
            tarfile.open(temporary, "w:gz" if file.suffix == ".gz" else "w") as tar,
        ):
            return pack(tar, home, contents(home))
    except OSError as error:
        raise ValueError(f"The backup could not be written to {file}: {error.strerror or error}.") from None


def pack(tar: tarfile.TarFile, home: Path, wanted: Iterable[Path]) -> dict[str, Any]:
    """Write files (relative to `home`) and then the list of them with their sums; how many files, and their bytes."""
    sums, total = {}, 0
    for path in wanted:
        try:
            with opened(home / path) as (f, size):
                summed = Summed(f)
                tar.addfile(entry(path.as_posix(), size, os.fstat(f.fileno()).st_mtime), summed)
        except FileNotFoundError:  # a run or model that was just deleted
            continue
        sums[path.as_posix()], total = summed.sum.hexdigest(), total + size
    data = json.dumps({"version": VERSION, "written": time.time(), "files": sums}).encode()
    tar.addfile(entry(MANIFEST, len(data), time.time()), io.BytesIO(data))
    return {"files": len(sums), "bytes": total}


def entry(name: str, size: int, when: float) -> tarfile.TarInfo:
    """What the archive says of one file."""
    about = tarfile.TarInfo(name)
    about.size, about.mtime, about.mode = size, int(when), 0o644
    return about


def restore(file: Path) -> dict[str, Any]:
    """Bring everything back into an empty $LLM_HOME, whole or not at all; what was in it: files, bytes.

    Raises ValueError when there is something already, or the file is no whole backup of this lab.
    """
    home = paths.home()
    if home.exists() and any(any(path.iterdir()) if path.is_dir() else True for path in home.iterdir()):
        raise ValueError(
            f"{home} is not empty: name another folder with LLM_HOME, or move what is there away first."
        )
    home.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(dir=home, prefix=".restore-"))
    try:
        total = unpacked(file, building)
        for path in building.iterdir():
            if (home / path.name).is_dir():
                (home / path.name).rmdir()  # an empty one
            path.rename(home / path.name)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return total


def unpacked(file: Path, folder: Path) -> dict[str, Any]:
    """Write an archive's files below `folder`, each checked. Raises ValueError."""
    damaged = f"{file.name} is no whole backup of this lab"
    sums, total = {}, 0
    try:
        with tarfile.open(file) as tar:
            about = None
            for one in tar:
                name = PurePosixPath(one.name)
                if name.is_absolute() or ".." in name.parts or not one.isfile():
                    raise ValueError(f"{damaged}: it holds {one.name[:80]!r}, which no backup does.")
                source = Summed(tar.extractfile(one))
                if one.name == MANIFEST:
                    about = json.loads(source.read())
                    continue
                place = folder / name
                place.parent.mkdir(parents=True, exist_ok=True)
                with open(place, "wb") as f:
                    shutil.copyfileobj(source, f, 1 << 20)
                os.utime(place, (one.mtime, one.mtime))
                sums[one.name], total = source.sum.hexdigest(), total + one.size
    except (OSError, tarfile.TarError, EOFError, json.JSONDecodeError) as error:
        raise ValueError(f"{damaged}: {error}.") from None
    if about is None:
        raise ValueError(f"{damaged}: its list of files is missing; the end may be cut off.")
    versions.check(about.get("version"), VERSION, f"The backup {file.name}")
    if wrong := sorted(about["files"].items() ^ sums.items()):
        raise ValueError(f"{damaged}: {wrong[0][0]} is missing or differs from what was written.")
    return {"files": len(sums), "bytes": total}


def main(arguments: Sequence[str] | None = None) -> None:
    """`python -m llm.backup FILE` and `--restore FILE`."""
    parser = argparse.ArgumentParser(prog="python -m llm.backup", description=main.__doc__)
    parser.add_argument("file", type=Path, help="a .tar or .tar.gz file")
    parser.add_argument("--restore", action="store_true", help="read it into $LLM_HOME instead of writing it")
    given = parser.parse_args(arguments)
    try:
        done = (restore if given.restore else write)(given.file)
    except ValueError as error:
        sys.exit(f"{error}")
    verb = "Restored from" if given.restore else "Written to"
    print(f"{verb} {given.file}: {done['files']:,} files, {done['bytes'] / 1e6:,.1f} MB.")


if __name__ == "__main__":
    main()
