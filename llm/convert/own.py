"""A model directory of this lab, from another machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from llm import inventory
from llm.convert import families
from llm.convert.folder import EXTRAS, MOST_TOKENIZER, fitted, read_header
from llm.convert.source import MapRow, Source

if TYPE_CHECKING:
    from torch import Tensor


def look(path: Path) -> Source:
    """The model directory at `path`, before any weight is read. Raises ValueError when it is not whole or damaged."""
    folder = path if path.is_dir() else path.parent
    for name in ("model.safetensors", "tokenizer.json"):
        if not (folder / name).is_file():
            raise ValueError(f"The model directory {folder.name} is not whole: {name} is missing.")
    if (folder / "tokenizer.json").stat().st_size > MOST_TOKENIZER:
        raise ValueError(f"The tokenizer.json of {folder.name} has more than {MOST_TOKENIZER:,} bytes.")
    config = inventory.shape(folder)
    wanted = families.our_shapes(config)
    found = read_header(folder / "model.safetensors")
    for name, shape in wanted.items():
        if name not in found or found[name][1] != shape:
            has = f"has the shape {families.by(found[name][1])}" if name in found else "is missing"
            raise ValueError(f"{name} {has}; the config of {folder.name} says {families.by(shape)}.")
    _check_encoding(folder, config.vocab_size)
    origin = inventory.read_source(folder).get("origin") or "made by LLM Lab"
    licence = inventory.licence(folder)
    return Source(
        container="LLM Lab model directory",
        family="LLM Lab",
        config=config,
        rows=tuple(
            MapRow(name, name if name in wanted else "", shape, dtype, "same" if name in wanted else "")
            for name, (dtype, shape, *_) in found.items()
        ),
        read=lambda: _read(folder),
        files={name: folder / name for name in ("tokenizer.json", *EXTRAS) if (folder / name).is_file()},
        facts={"origin": str(origin), **({"licence": licence} if licence else {})},
    )


def _check_encoding(folder: Path, vocab_size: int) -> None:
    try:
        document = json.loads((folder / "tokenizer.json").read_bytes())
    except (ValueError, RecursionError):
        raise ValueError(f"The tokenizer.json of {folder.name} is damaged: it is no whole JSON.") from None
    if not isinstance(document, dict):
        raise ValueError(f"The tokenizer.json of {folder.name} is damaged: it holds no settings.")
    if "lab" not in document:
        fitted(document, vocab_size)


def _read(folder: Path) -> Iterator[tuple[str, Tensor]]:
    from llm.checkpoint import read_weights

    return read_weights(folder)
