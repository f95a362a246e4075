"""Model files from outside, looked at in a disposable process with limits; and what such files may be."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llm import hub, paths
from llm.convert import describe
from llm.runs import Run

DEADLINE = 30  # seconds until a look is given up
KEPT = (
    "PATH",
    "LANG",
    "LC_ALL",
    "LD_LIBRARY_PATH",
    "SPACE_ID",
    "LLM_MODE",
)  # variables that such a process is given; no keys
UPLOAD_DAYS, HUB_DAYS = 1, 7  # after which uploads and downloads that nobody imported are removed


# ---- What may be looked at ----------------------------------------------------------------------------------------


def hosted() -> bool:
    """Whether strangers use this lab (a Space): then models come by id, never by path."""
    return hub.hosted()


def uploads() -> Path:
    """Where uploads wait for their import: a folder each, named by a random id."""
    folder = paths.home() / "uploads"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def allowed(source: str, file: str = "", owner: str = "") -> Path:
    """The file or folder that `source` stands for: "upload:ID", "hf:ORGANISATION/NAME[@REVISION]", or a path at home.

    Raises ValueError when it is nothing that may be opened: a path on a shared page, an upload with links that lead out
    of it, a download that is not complete, nothing at all.
    """
    kind, _, rest = source.partition(":")
    if kind == "upload":
        path = uploads() / paths.checked_name(rest, "upload")
        if not path.is_dir():
            raise ValueError("This upload is not here any more: choose the file once more.")
        _refuse_links(path)
        return path
    if kind == "hf":
        repo, revision = hub.parse(source)
        return hub.present(repo, revision, file, owner)
    if hosted():
        raise ValueError(
            "On a shared page models come from the Hub or as an upload, not from a path of the server's disk."
        )
    if not source or "\0" in source:
        raise ValueError("Say where the model lies: a file or a folder.")
    path = Path(source).expanduser().absolute()
    if not (path.is_file() or path.is_dir()):
        what = "no ordinary file or folder" if path.exists() else "not there"
        raise ValueError(f"{source} is {what}.")
    return path


def _refuse_links(folder: Path) -> None:
    """Raise ValueError when something in an upload is no ordinary file, or leads out of it."""
    inside = folder.resolve()
    for place, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = Path(place) / name
            if path.is_symlink() and inside not in path.resolve().parents:
                raise ValueError(f"{name} is a link that leads out of the upload: it is not followed.")
            if not (path.is_file() or path.is_dir()):
                raise ValueError(f"{name} is no ordinary file.")


# ---- Looking ------------------------------------------------------------------------------------------------------


def inspect(
    source: str, base: str = "", encoding: str = "", n_head: int = 0, file: str = "", owner: str = ""
) -> dict[str, Any]:
    """What a model is, before it is imported, as plain values; see `llm.convert.describe.model`.

    Raises ValueError with one sentence when it may not or cannot be opened.
    """
    return look_at(allowed(source, file, owner), base, encoding, n_head)


def look_at(path: Path, base: str = "", encoding: str = "", n_head: int = 0) -> dict[str, Any]:
    """`inspect` for a path that is known to be allowed."""
    for name, what in ((base, "base model"), (encoding, "encoding")):
        if name:
            paths.checked_name(name.partition("@")[0].removeprefix("char:"), what)
    flags = [f"--base={base}", f"--encoding={encoding}", f"--n_head={int(n_head)}"]
    return _described(path, flags)


def encoding_of(folder: Path, rows: int) -> dict[str, Any]:
    """What the tokenizer.json of `folder` is: kind, vocab_size. `rows` is how many ids the model knows.

    Raises ValueError when it cannot be opened, or when it and a model of so many rows do not belong together.
    """
    found = _described(folder, ["--what=encoding"])
    most = max(found["vocab_size"], found["highest"] + 1)
    if not 0.9 * rows <= most <= rows:
        raise ValueError(
            f"The encoding has {most:,} ids and the model {rows:,} rows: they do not belong together."
        )
    return found


def _described(path: Path, flags: Sequence[str]) -> dict[str, Any]:
    """What a process of its own finds at `path`. Raises ValueError with its sentence, or one of how it ended."""
    with tempfile.TemporaryFile() as out:  # a file: its size is limited by the system
        child = subprocess.Popen(
            _command(path, flags), cwd=paths.ROOT, env=_environment(), stdin=subprocess.DEVNULL, stdout=out,
            stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            status = child.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            raise ValueError(
                f"{path.name} was not understood within {DEADLINE:g} seconds: it is damaged or made to stall."
            ) from None
        finally:
            _end(child)
        out.seek(0)
        said = out.read(describe.OUTPUT)
    try:
        answer = json.loads(said.splitlines()[-1])
        return answer["found"] if "found" in answer else _refused(answer["error"])
    except (IndexError, json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):
        raise ValueError(f"{path.name} cannot be read as a model: looking at it {_ended(status)}.") from None


def _command(path: Path, flags: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", describe.__name__, *flags, f"--seconds={DEADLINE}", "--", str(path)]


def _refused(sentence: str) -> dict[str, Any]:
    raise ValueError(sentence)


def _end(child: subprocess.Popen) -> None:
    """Nothing of the process stays, whatever it was doing."""
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _ended(status: int) -> str:
    """How a process ended that gave no answer."""
    if status in (-signal.SIGKILL, -signal.SIGABRT, -signal.SIGSEGV):
        return "took more memory than it may have, or crashed"
    if status == -signal.SIGXCPU:
        return "took more time than it may have"
    if status == -signal.SIGXFSZ:
        return "gave more output than it may"
    return f"gave no answer (status {status})"


def _environment() -> dict[str, str]:
    """Only what Python needs: no keys, and nothing that a file from outside could ask for."""
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    return {
        **kept,
        "LLM_HOME": str(paths.home()),
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


# ---- What was left behind -----------------------------------------------------------------------------------------


def sweep() -> list[str]:
    """Remove what imports that were killed, and uploads and downloads that nobody imported, left; returns the names."""
    gone = []
    for path in paths.models().glob(".new-*"):
        if not _at_work(path.name.removeprefix(".new-")):
            gone.append(path)
    for folder, days in ((uploads(), UPLOAD_DAYS), (hub.root(), HUB_DAYS)):
        old = time.time() - days * 86_400
        gone += [path for path in folder.glob("*") if _newest(path) < old]
    for path in gone:
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    return [path.name for path in gone]


def _at_work(name: str) -> bool:
    try:
        return Run.open(name).status() == "running"
    except ValueError:
        return False


def _newest(path: Path) -> float:
    """When something was last written at or in `path` (seconds since 1970)."""
    times = [path.lstat().st_mtime]
    times += [file.lstat().st_mtime for file in path.rglob("*")] if path.is_dir() else []
    return max(times)
