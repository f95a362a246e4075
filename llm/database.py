"""One way to open the lab's SQLite files: write-ahead log, so that thirty browsers can write at once; committed at the end."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from llm import versions

WAIT_SECONDS = 10  # for another one's write


@contextmanager
def opened(file: Path, schema: str, version: int) -> Iterator[sqlite3.Connection]:
    """A connection to `file`, which is made with `schema` when it is not there; its changes are kept when nothing is raised.

    Raises ValueError for a file of a later version than `version`, which is left as it is.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(file, timeout=WAIT_SECONDS)
    try:
        (found,) = connection.execute("pragma user_version").fetchone()
        versions.check(found or None, version, file)
        connection.execute("pragma journal_mode = wal")
        connection.execute("pragma synchronous = normal")
        connection.executescript(schema)
        if not found:  # a new file, or one of version 1 from before versions were written
            connection.execute(f"pragma user_version = {version}")
        with connection:
            yield connection
    finally:
        connection.close()
