"""A checkpoint of another tool, looked at but not yet read: its shape in our words, and where each tensor goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from llm.config import ModelConfig

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class MapRow:
    """One tensor of the file and what becomes of it."""

    theirs: str  # its name there
    ours: str  # its name in our model; "" when it is left out on purpose
    shape: tuple[int, ...]  # as it stands in the file
    dtype: str  # as it stands in the file: F32, BF16, Q4_1, ...
    how: str  # in words: same, transposed, rows of q, plus one, a mask buffer that is not needed, ...


@dataclass(frozen=True)
class Source:
    """All that is known of a checkpoint before its values are read."""

    container: str  # what it lies in: "Hugging Face folder", "GGUF", ...
    family: str  # what its own config calls the architecture: "llama", "gpt2", ...
    config: ModelConfig
    rows: tuple[MapRow, ...]
    read: Callable[
        [], Iterator[tuple[str, Tensor]]
    ]  # our name and the tensor in our shape, one after the other
    files: dict[str, bytes | Path] = field(default_factory=dict)  # tokenizer.json, tokenizer_config.json, ...
    facts: dict[str, str] = field(default_factory=dict)  # licence, origin, ... for the card
    notes: tuple[str, ...] = ()  # what a person should know: dropped tokens, a quantised file, ...

    def unmatched(self) -> list[str]:
        """Names of the file's tensors that have no place in our model and no reason to be left out."""
        return [row.theirs for row in self.rows if not row.ours and not row.how]

    def parameters(self) -> int:
        """Numbers in the tensors that are used, as they stand in the file."""
        return sum(prod(row.shape) for row in self.rows if row.ours)

    def check(self) -> None:
        """Raises ValueError when a tensor has no place, or the sum of all is not what the shape of the model says."""
        if lost := self.unmatched():
            more = f" and {len(lost) - 5} more" if len(lost) > 5 else ""
            raise ValueError(
                f"{len(lost)} tensors have no place in this kind of model: {', '.join(lost[:5])}{more}. The file does "
                f"not fit its config."
            )
        expected = sum(self.config.parameters().values())
        if self.parameters() != expected:
            raise ValueError(
                f"The file holds {self.parameters():,} numbers in its tensors and its config says {expected:,}: "
                "something is missing, or the config belongs to another model."
            )
