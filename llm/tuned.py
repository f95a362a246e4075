"""What was tuned from what: a model's base, its adapter, the command that made it; read from the disk, no torch."""

from __future__ import annotations

import argparse
import json
import re
import shlex
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from llm import paths
from llm.config import RunConfig, add_flags, from_dict, from_flags
from llm.runs import Run

STRONGEST = 2.0  # where the dial of an adapter ends
LONGEST_CARD = 100_000  # bytes of a README.md that are read


@dataclass(frozen=True)
class Adapter:
    """Small matrices beside a model, in PEFT's layout: <run>/adapter, or the folder `adapter` of a model."""

    name: str  # of the run or model that it belongs to
    folder: Path
    base: str  # the model that it changes
    classifier: bool  # it has a head beside: it tells classes and writes no text
    made: float  # seconds since 1970

    @property
    def stamp(self) -> tuple[int, int]:
        """Changes whenever its weights are written again."""
        state = (self.folder / "adapter_model.safetensors").stat()
        return state.st_mtime_ns, state.st_size


def adapter(name: str) -> Adapter:
    """The adapter of the model or run called `name`. Raises ValueError when it has none, or one that cannot be read."""
    paths.checked_name(name, "name of an adapter")
    for home in (paths.models(), paths.shipped_models(), paths.runs()):
        folder = home / name / "adapter"
        if (folder / "adapter_config.json").is_file() and (folder / "adapter_model.safetensors").is_file():
            return _read(name, folder)
    raise ValueError(f"There is no adapter called {name!r} here: a training with LoRA leaves one.")


def _read(name: str, folder: Path) -> Adapter:
    try:
        said = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        base, classifier = str(said.get("base_model_name_or_path") or ""), said.get("task_type") == "SEQ_CLS"
    except (OSError, ValueError, AttributeError):
        raise ValueError(f"The adapter {name} cannot be read: its adapter_config.json is damaged.") from None
    return Adapter(name, folder, base, classifier, (folder / "adapter_model.safetensors").stat().st_mtime)


def adapters() -> list[Adapter]:
    """Every adapter that can be read, the newest first."""
    found: dict[str, Adapter] = {}
    for home in (paths.models(), paths.shipped_models(), paths.runs()):
        for config in home.glob("[!.]*/adapter/adapter_config.json"):
            name = config.parent.parent.name
            try:
                found.setdefault(name, adapter(name))
            except (ValueError, OSError):  # half written, or deleted at this moment
                continue
    return sorted(found.values(), key=lambda one: (-one.made, one.name))


def own_adapter(model: str) -> Adapter | None:
    """The adapter that is merged into this model and can be taken off it, its base being here; None where there is none."""
    try:
        found = adapter(model)
        paths.model_folder(found.base)
    except ValueError:
        return None
    return None if found.classifier else found


def below(model: str) -> str:
    """The model whose weights adapters are put on when `model` is dialled: its base, or itself where it is one."""
    found = own_adapter(model)
    return found.base if found else model


def dialled(model: str) -> list[Adapter]:
    """The adapters that can be dialled when `model` is open: its own first, then others of the same base, newest first."""
    base = below(model)
    found = [one for one in adapters() if one.base == base and not one.classifier]
    return sorted(found, key=lambda one: one.name != model)


def checked_strengths(strengths: object) -> dict[str, float]:
    """How strongly each adapter speaks, as a person or a link says it. Raises ValueError with a sentence."""
    if not isinstance(strengths, dict):
        raise ValueError('The strengths of adapters are given by name, as in {"my-adapter": 1.5}.')
    for name, strength in strengths.items():
        paths.checked_name(name, "name of an adapter")
        number = isinstance(strength, (int, float)) and not isinstance(strength, bool)
        if not number or not 0 <= strength <= STRONGEST:
            raise ValueError(
                f"The strength of the adapter {name} goes from 0 to {STRONGEST:g}, not {str(strength)[:40]}."
            )
    return {name: float(strength) for name, strength in strengths.items()}


def parsed(words: list[str] | tuple[str, ...]) -> dict[str, float]:
    """Strengths from a command line: ["one=1.5", "other"] -> {"one": 1.5, "other": 1.0}. Raises ValueError."""
    found = {}
    for word in words:
        name, equals, number = word.partition("=")
        try:
            found[name] = float(number) if equals else 1.0
        except ValueError:
            raise ValueError(
                f"The adapter is given as NAME=STRENGTH, for instance {name or 'NAME'}=1.5, not {word!r}."
            ) from None
    return checked_strengths(found)


# --- the training that made a model


def training(model: str) -> RunConfig | None:
    """The settings of the training that made a model: those of its run, else of the command on its card; None without.

    Raises ValueError when there is no such model.
    """
    folder = paths.model_folder(model)
    if folder.name == "model" and folder.parent.parent == paths.runs():
        try:
            return from_dict(RunConfig, Run.open(folder.parent.name).config)
        except ValueError:
            return None
    try:
        state = (folder / "README.md").stat()
    except OSError:
        return None
    return _on_card(folder / "README.md", state.st_mtime_ns)


@lru_cache(maxsize=256)
def _on_card(card: Path, stamp: int) -> RunConfig | None:
    text = card.read_bytes()[:LONGEST_CARD].decode("utf-8", "replace").replace("\\\n", " ")
    for line in re.findall(r"^\s*python -m llm\.train (.+)$", text, re.MULTILINE):
        parser = argparse.ArgumentParser(add_help=False, exit_on_error=False)
        parser.add_argument("run")
        add_flags(parser, RunConfig)
        try:
            given, unknown = parser.parse_known_args(shlex.split(line))
            if not unknown:
                return from_flags(RunConfig, given)
        except (ValueError, argparse.ArgumentError, SystemExit):  # a command of another version
            continue
    return None


def models() -> list[str]:
    """Models that were tuned from another one: made by a training that started from a model, newest first."""
    return [name for name in paths.model_names() if (found := training(name)) and found.start_from]
