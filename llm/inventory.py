"""The models that are present: what each is, where it came from, how much disk it takes; read without loading any."""

from __future__ import annotations

import json
import re
import secrets
import shutil
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

from llm import anatomy, paths, versions
from llm.config import ModelConfig, from_dict
from llm.runs import Run

VERSION = 1  # of config.json
SOURCE_VERSION = 1  # of source.json
LONGEST_HEADER = 100_000_000  # bytes: what safetensors itself allows
LONGEST_CARD = 100_000  # bytes of a README.md that are read
ALGORITHMS = {b"BPE": "BPE", b"Unigram": "Unigram", b"WordPiece": "WordPiece", b"WordLevel": "whole words"}


@dataclass(frozen=True)
class Present:
    """One model directory."""

    name: str
    folder: Path
    kind: str  # built in, run, imported, made here
    owner: str  # of the run that made it; "" for a built-in one
    config: ModelConfig | None  # None where it cannot be read
    problem: str  # why it cannot be read; "" when all is well
    size: int  # bytes on the disk, kept steps included
    kept: tuple[str, ...]  # steps it kept on its way, each a model of its own as NAME@STEP
    encoding: str  # in words
    licence: str  # "" when its card does not say
    origin: str  # where it comes from, in words
    made: float  # seconds since 1970

    @property
    def parameters(self) -> int | None:
        return anatomy.parameters(self.config) if self.config else None


@dataclass(frozen=True)
class Tensor:
    """One tensor of a safetensors file as its header says."""

    name: str
    dtype: str
    shape: tuple[int, ...]


# ---- What is there ----------------------------------------------------------------------------------------------


def models() -> list[Present]:
    """Every whole model directory: built in, then made or imported here and those of runs, newest first."""
    found = []
    for name in paths.model_names():
        try:
            found.append(read(name))
        except (ValueError, OSError):  # deleted at this moment, or only half there
            continue
    return sorted(found, key=lambda model: (model.kind != "built in", -model.made, model.name))


def read(name: str) -> Present:
    """One model, NAME or NAME@STEP. Raises ValueError when there is none of that name."""
    folder = paths.model_folder(name)
    run = run_of(folder)
    source = read_source(folder)
    if paths.shipped_models() in folder.parents:
        kind = "built in"
    elif run:
        kind = "run"
    else:
        kind = "imported" if source else "made here"
    config, problem = None, ""
    try:
        config = shape(folder)
    except ValueError as error:
        problem = str(error)
    return Present(
        name=name,
        folder=folder,
        kind=kind,
        owner=run.meta["owner"] if run else str(source.get("owner", "")),
        config=config,
        problem=problem,
        size=sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
        kept=tuple(sorted(p.name for p in (folder / "steps").glob("*") if paths.is_model(p))),
        encoding=encoding(folder),
        licence=str(source.get("facts", {}).get("licence", "")) or licence(folder),
        origin=_origin(kind, run, source),
        made=_made(folder),
    )


def _made(folder: Path) -> float:
    """When it was made: the end of its own log if it brings one (a copy has a new date), else its weights' date."""
    if (folder / "events.jsonl").is_file() and (last := Run(folder).last_event()):
        return last["time"]
    return (folder / "model.safetensors").stat().st_mtime


def run_of(folder: Path) -> Run | None:
    """The run that this model directory belongs to."""
    for parent in folder.parents:
        if parent.name == "model" and parent.parent.parent == paths.runs():
            folder = parent
    if folder.name != "model" or folder.parent.parent != paths.runs():
        return None
    try:
        return Run.open(folder.parent.name)
    except ValueError:
        return None


def _origin(kind: str, run: Run | None, source: dict[str, Any]) -> str:
    if kind == "run":
        about = run.config
        text = f"trained here on {about.get('dataset') or 'a text'}"
        return text + (f", from {about['start_from']}" if about.get("start_from") else "")
    if source:
        origin = (
            "uploaded" if re.fullmatch(r"[0-9a-f]{32}", str(source.get("origin"))) else source.get("origin")
        )
        return ", ".join(str(part) for part in (origin, source.get("container")) if part)
    return "comes with the lab" if kind == "built in" else ""


def shape(folder: Path) -> ModelConfig:
    """The config of a model directory. Raises ValueError when it is missing, damaged or of another version."""
    if not (folder / "config.json").is_file():
        raise ValueError(f"{paths.called(folder)} is no model directory: its config.json is missing.")
    stored = _json(folder / "config.json")
    versions.check(stored.pop("version", None), VERSION, folder / "config.json")
    stored.pop("made_by", None)
    try:
        return from_dict(ModelConfig, stored)
    except OverflowError:  # JSON's whole numbers have no end
        raise ValueError(
            f"The config.json of {paths.called(folder)} has a number that is too large."
        ) from None


def _json(path: Path) -> dict[str, Any]:
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise ValueError(
            f"{path.parent.name}/{path.name} cannot be read: it is missing or damaged."
        ) from None
    if not isinstance(stored, dict):
        raise ValueError(f"{path.parent.name}/{path.name} is not what this lab writes: it is damaged.")
    return stored


def disk_used() -> int:
    """Bytes of everything under $LLM_HOME that is a model or a run."""
    places = (paths.models(), paths.runs())
    return sum(f.stat().st_size for place in places for f in place.rglob("*") if f.is_file())


# ---- What its files say ------------------------------------------------------------------------------------------


def encoding(folder: Path) -> str:
    """How a model cuts text, in words: "BPE on bytes, 1,280 ids"; "" without a tokenizer."""
    file = folder / "tokenizer.json"
    if not file.is_file():
        return ""
    state = file.stat()
    return _encoding(file, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=256)
def _encoding(file: Path, modified: int, size: int) -> str:
    """Told by a few words in the file: one of 30 MB is not parsed for a line in a table."""
    data = file.read_bytes()
    if own := re.match(rb'\s*\{"lab":\s*\{"kind":\s*"(\w+)"', data):
        return {b"byte": "single bytes", b"char": "single characters"}.get(own[1], "")
    found = re.search(rb'"model"\s*:\s*\{\s*"type"\s*:\s*"(\w+)"', data)
    algorithm = ALGORITHMS.get(found[1], "") if found else "BPE" if b'"merges"' in data else ""
    on_bytes = algorithm == "BPE" and b'"ByteLevel"' in data
    return f"{algorithm} on bytes" if on_bytes else algorithm


def licence(folder: Path) -> str:
    """The licence that a model's card names: in its front matter, as a list item, or as "MIT licence"; else ""."""
    try:
        with (folder / "README.md").open("rb") as f:
            card = f.read(LONGEST_CARD).decode("utf-8", "replace")
    except OSError:
        return ""
    named = re.search(r"^(?:- )?licen[cs]e: *[\"']?([^\s\"'][^\n\"']{0,60})", card, re.MULTILINE)
    plain = re.search(r"^([A-Z][\w.-]*(?: [\d.]+)?) licen[cs]e\b", card, re.MULTILINE)
    return (named or plain)[1].strip() if named or plain else ""


def tensors(folder: Path) -> list[Tensor]:
    """Every tensor of a model directory's weights, from the header alone. Raises ValueError when it is damaged."""
    path = folder / "model.safetensors"
    damaged = ValueError(
        f"The weights of {paths.called(folder)} are damaged: the header of model.safetensors does not fit."
    )
    try:
        with path.open("rb") as f:
            length = int.from_bytes(f.read(8), "little")
            if length > min(LONGEST_HEADER, path.stat().st_size - 8):
                raise damaged
            header = json.loads(f.read(length))
        return [
            Tensor(name, str(entry["dtype"]), tuple(entry["shape"]))
            for name, entry in header.items()
            if name != "__metadata__"
        ]
    except FileNotFoundError:
        raise ValueError(f"{paths.called(folder)} has no model.safetensors.") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise damaged from None


def read_source(folder: Path) -> dict[str, Any]:
    """What an import wrote beside the model (source.json): container, family, origin, rows, ...; {} for other models.

    Raises ValueError for one of a later version: whose the model is stands in it.
    """
    try:
        found = _json(folder / "source.json")
    except ValueError:
        return {}
    versions.check(found.get("version"), SOURCE_VERSION, folder / "source.json")
    return found


def stored_parameters(found: list[Tensor]) -> int:
    """Numbers in a list of tensors."""
    return sum(prod(tensor.shape) for tensor in found)


# ---- Taking one away ---------------------------------------------------------------------------------------------


def delete(name: str) -> None:
    """Remove a model that was made or imported here, or a run with its model, for good.

    Raises ValueError for a built-in model, a kept step, or a run that is still going.
    """
    model = read(name)
    if model.kind == "built in":
        raise ValueError(f"{name} comes with the lab and stays.")
    if "@" in name:
        raise ValueError(f"{name} is a step that a run kept: it goes with its run.")
    if model.kind == "run":
        Run.open(name).delete()
        return
    brought_by = str(read_source(model.folder).get("run", ""))
    gone = paths.home() / f".gone-{secrets.token_hex(8)}"
    model.folder.rename(gone)  # at once out of sight, then off the disk
    shutil.rmtree(gone)
    if brought_by == name and (paths.runs() / name).is_dir() and Run.open(name).meta["kind"] == "import":
        Run.open(name).delete()  # its import goes too, so that the name is free again
