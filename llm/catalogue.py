"""The catalogue of open models and datasets: facts with their sources, read from datasets/catalogue.csv."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from llm import paths
from llm.config import ModelConfig
from llm.convert import families


@dataclass(frozen=True)
class Entry:
    """One row. What is not known is "" or None."""

    kind: str  # model or dataset
    name: str
    organisation: str
    year: int | None
    parameters: int | None
    context: int | None  # tokens
    licence: str
    architecture: str  # Hugging Face's model_type
    size: str  # of a dataset, as its source puts it
    about: str
    source: str  # the address of the paper, card or repository that says so
    here: str  # of a dataset: the name under which the lab fetches it
    dated: str  # when the row was written
    config: dict[str, Any] | None  # the shape as its config.json says, where a family of the lab expresses it

    @property
    def opens(self) -> bool:
        """Whether the lab opens it: a model of a known family, or a text that it can fetch."""
        return bool(self.here) if self.kind == "dataset" else self.architecture in families.FAMILIES

    def shape(self) -> ModelConfig:
        """Its shape in our words. Raises ValueError when it is of a family that the lab does not know."""
        if self.config is None:
            known = ", ".join(families.FAMILIES)
            what = f"is of the family {self.architecture}" if self.architecture else "has no known shape"
            raise ValueError(f"{self.name} {what}; the families drawn here are {known}.")
        return families.model_config(self.config)


@lru_cache(maxsize=1)
def entries() -> tuple[Entry, ...]:
    """All rows of the file, models first."""
    path = paths.shipped_datasets() / "catalogue.csv"
    with path.open(encoding="utf-8", newline="") as f:
        return tuple(_entry(row) for row in csv.DictReader(f))


def _entry(row: dict[str, str]) -> Entry:
    numbers = {name: int(row[name]) if row[name] else None for name in ("year", "parameters", "context")}
    config = json.loads(row["config"]) if row["config"] else None
    return Entry(**{**row, **numbers, "config": config})


def find(name: str) -> Entry:
    """The row of this name. Raises ValueError when there is none."""
    for entry in entries():
        if entry.name == name:
            return entry
    raise ValueError(f"The catalogue has no row called {str(name)[:80]!r}.")
