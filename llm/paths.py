"""Where datasets, models and runs live: functions of the environment, asked each time, never constants."""

from __future__ import annotations

import os
import re
import tempfile
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DATASET_KINDS = (".txt", ".jsonl", ".shards")  # a text, rows, a list of shards: under `datasets()`
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
UMASK = os.umask(
    0o022
)  # what this process takes from new files: it can only be read by setting it, so before any thread
os.umask(UMASK)


def home() -> Path:
    """The folder of everything a person makes: $LLM_HOME, else ~/.llm-lab (on a Space: /data when it is there)."""
    if chosen := os.environ.get("LLM_HOME"):
        return Path(chosen)
    if os.environ.get("SPACE_ID") and os.access("/data", os.W_OK):
        return Path("/data/llm-lab")
    return Path.home() / ".llm-lab"


def _made(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def runs() -> Path:
    """One directory a run."""
    return _made(home() / "runs")


def sweeps() -> Path:
    """One directory a sweep; its trials are runs."""
    return _made(home() / "sweeps")


def models() -> Path:
    """Models made or imported here; the built-in ones are in `shipped_models()`."""
    return _made(home() / "models")


def tokenizers() -> Path:
    """Encodings trained here, one directory each."""
    return _made(home() / "tokenizers")


def datasets() -> Path:
    """Texts uploaded, pasted or downloaded; the shipped ones are in `shipped_datasets()`."""
    return _made(home() / "datasets")


def cache() -> Path:
    """Whatever can be made again: token ids of large texts, measured speeds."""
    return _made(home() / "cache")


def shipped_models() -> Path:
    """The built-in model directories of the repository (read only)."""
    return ROOT / "models"


def shipped_datasets() -> Path:
    """The data files of the repository (read only)."""
    return ROOT / "datasets"


def checked_name(name: str, what: str = "name") -> str:
    """`name` if it is safe as a file name, so that an id can never point outside its folder.

    Raises ValueError with the rule when it is not.
    """
    if not isinstance(name, str) or not NAME.fullmatch(name) or ".." in name:
        raise ValueError(
            f"The {what} {str(name)[:80]!r} cannot be used: start with a letter or digit, then letters, digits, "
            "dots, dashes or underscores, 80 at most."
        )
    return name


def find(name: str, *folders: Path, what: str = "name") -> Path:
    """The first `folder/name` that exists. Raises ValueError when the name is unsafe or nowhere."""
    checked_name(name, what)
    for folder in folders:
        if (folder / name).exists():
            return folder / name
    raise ValueError(f"There is no {what} called {name!r} here.")


def is_model(path: Path) -> bool:
    """Whether `path` is a whole model directory (config.json is written last, so a half-written one has none)."""
    return (path / "config.json").is_file() and (path / "model.safetensors").is_file()


def model_folder(name: str) -> Path:
    """The directory of a model: imported here, a run's, or built in. NAME@STEP is one that a run kept on its way.

    A run that has the name of a built-in model goes before it: it is that model, made again. Raises ValueError when the name is unsafe or there is no whole model of that name.
    """
    base, _, step = name.partition("@") if isinstance(name, str) else (name, "", "")
    checked_name(base, "model")
    for folder in (models() / base, runs() / base / "model", shipped_models() / base):
        if step:
            folder = folder / "steps" / checked_name(step, "step")
        if is_model(folder):
            return folder
    raise ValueError(f"There is no model called {name!r} here (or it is not written to its end).")


def called(folder: Path) -> str:
    """What a model directory is called: its own name, or that of the run it belongs to; NAME@STEP one that was kept."""
    if folder.parent.name == "steps":
        return f"{called(folder.parent.parent)}@{folder.name}"
    return folder.parent.name if folder.name == "model" and folder.parent.parent == runs() else folder.name


def model_names(steps: bool = False) -> list[str]:
    """All whole models: made or imported here, built in, then those of runs, newest first; with `steps` NAME@STEP too."""
    run_folders = sorted(runs().glob("[!.]*/model"), key=lambda path: path.stat().st_mtime, reverse=True)
    names: dict[str, None] = {}
    for folder in (*sorted(models().iterdir()), *_listed(shipped_models()), *run_folders):
        name = called(folder)
        if name in names or not is_model(folder):
            continue
        names[name] = None
        if steps:
            kept = _listed(model_folder(name) / "steps")
            names |= dict.fromkeys(f"{name}@{one.name}" for one in kept if is_model(one))
    return list(names)


def _listed(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


@contextmanager
def replacing(path: Path):
    """Write a file that survives a kill or a full disk: the old content stays until the new one is safe.

    Yields a temporary path beside `path`; on success it is synced and renamed over `path`, and the directory synced.
    """
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        yield Path(temporary)
        with open(temporary, "rb") as f:
            os.fsync(f.fileno())
        os.chmod(temporary, 0o666 & ~UMASK)  # mkstemp makes private files
        os.replace(temporary, path)
        sync_directory(path.parent)
    finally:
        Path(temporary).unlink(missing_ok=True)


def sync_directory(path: Path) -> None:
    """Make renames in `path` durable (POSIX keeps them in the directory itself)."""
    if os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
