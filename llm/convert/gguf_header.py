"""What stands before the weights of a GGUF file: its settings, and where each tensor lies.

A file says how much of everything follows, and may lie: each count, length and place is held against the file's size
before anything is read or made room for.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

# The header's own types: how `struct` reads each; 8 is a text, 9 a list.
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
TEXT, LIST = 8, 9
LONGEST_HEADER = 64 * 2**20  # bytes; the largest vocabularies take 15 million
MOST_ENTRIES = 2_000_000  # of all lists together; the largest vocabularies have half as many
MOST_TENSORS = 20_000
MOST_SETTINGS = 10_000
MOST_DIMENSIONS = 4
READ = ("F32", "F16", "BF16", "Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0", "Q6_K", "Q5_K", "Q4_K", "Q3_K", "Q2_K")


@dataclass(frozen=True)
class Stored:
    """One tensor of a file: its shape as PyTorch has it, its number format, where its bytes lie."""

    name: str
    shape: tuple[int, ...]
    kind: str
    begin: int
    size: int


@dataclass(frozen=True)
class Header:
    """All that stands before the weights."""

    settings: dict[str, Any]
    tensors: dict[str, Stored]


class _Reader:
    """A file read from its start, which refuses to go beyond its end or beyond what a header may take."""

    def __init__(self, file: BinaryIO, size: int):
        self.file, self.left, self.entries = file, min(size, LONGEST_HEADER), MOST_ENTRIES
        self.whole = size <= LONGEST_HEADER

    def short(self) -> ValueError:
        if self.whole:
            return ValueError(
                "The GGUF file ends inside its header: it is damaged, or was cut short on its way."
            )
        return ValueError(
            f"The header of the GGUF file takes more than {LONGEST_HEADER // 2**20} MB: it is damaged."
        )

    def take(self, length: int) -> bytes:
        if length > self.left:
            raise self.short()
        self.left -= length
        return self.file.read(length)

    def number(self, code: str) -> Any:
        return struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))[0]

    def text(self) -> str:
        return self.texts(1)[0]

    def texts(self, length: int) -> list[str]:
        """So many texts, each after its length: a vocabulary has hundreds of thousands."""
        found, read = [], self.file.read
        for _ in range(length):
            size = int.from_bytes(read(8), "little")
            self.left -= 8 + size
            if self.left < 0:
                raise self.short()
            found.append(read(size))
        try:
            return [raw.decode("utf-8") for raw in found]
        except UnicodeDecodeError as error:
            raise ValueError(
                f"The GGUF file is damaged: {error.object[:20]!r} in its header is no text in UTF-8."
            ) from None

    def value(self, name: str) -> Any:
        """One setting: a number, a text, or a list of either."""
        kind = self.number("I")
        if kind in NUMBERS:
            return _shortest(kind, self.number(NUMBERS[kind]))
        if kind == TEXT:
            return self.text()
        if kind != LIST:
            raise ValueError(f"The GGUF file is damaged: its setting {name!r} is of the unknown type {kind}.")
        kind, length = self.number("I"), self.number("Q")
        self.entries -= length
        if self.entries < 0:
            raise ValueError(
                f"The GGUF file is damaged: its setting {name!r} is a list of {length:,} entries; all lists together have "
                f"{MOST_ENTRIES:,} at most."
            )
        if kind == TEXT:
            return self.texts(length)
        if kind not in NUMBERS:
            what = "lists" if kind == LIST else f"the unknown type {kind}"
            raise ValueError(f"The GGUF file is damaged: its setting {name!r} is a list of {what}.")
        code = f"{length}{NUMBERS[kind]}"
        return list(struct.unpack("<" + code, self.take(struct.calcsize("<" + code))))


def _shortest(kind: int, value: Any) -> Any:
    """A 32-bit fraction as the shortest number that means the same: 1e-05, not 9.999999747378752e-06."""
    if NUMBERS[kind] != "f":
        return value
    import numpy

    return float(str(numpy.float32(value)))


def read_header(path: Path) -> Header:
    """The settings and the tensors of a file, without their values. Raises ValueError in words when it is no whole GGUF."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        reader = _Reader(file, size)
        if reader.left < 24 or reader.take(4) != b"GGUF":
            raise ValueError(
                f"{path.name} is no GGUF file: it does not begin with the letters GGUF and a count."
            )
        version = reader.number("I")
        if version not in (2, 3):
            big = "; it may be one for processors of the other byte order" if version > 2**16 else ""
            raise ValueError(f"{path.name} is a GGUF file of version {version}{big}; 2 and 3 are read here.")
        n_tensors, n_settings = reader.number("Q"), reader.number("Q")
        if n_tensors > MOST_TENSORS or n_settings > MOST_SETTINGS:
            raise ValueError(
                f"{path.name} is damaged: it claims {n_tensors:,} tensors and {n_settings:,} settings."
            )
        settings: dict[str, Any] = {}
        for _ in range(n_settings):
            name = reader.text()
            if name in settings:
                raise ValueError(f"{path.name} is damaged: its setting {name[:60]!r} stands in it twice.")
            settings[name] = reader.value(name[:60])
        listed = [_listed(reader) for _ in range(n_tensors)]
        begin = file.tell()
    alignment = settings.get("general.alignment", 32)
    if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1) or alignment > 2**20:
        raise ValueError(f"{path.name} is damaged: its alignment is {alignment!r}, no power of two.")
    begin += -begin % alignment
    return Header(settings, _placed(path.name, listed, begin, size, alignment))


def _listed(reader: _Reader) -> tuple[str, tuple[int, ...], int, int]:
    """Name, shape, type and place of one tensor."""
    name = reader.text()
    if (dimensions := reader.number("I")) > MOST_DIMENSIONS:
        raise ValueError(f"The GGUF file is damaged: its tensor {name[:60]!r} has {dimensions:,} dimensions.")
    shape = tuple(reader.number("Q") for _ in range(dimensions))[::-1]  # the fastest one stands first there
    return name, shape, reader.number("I"), reader.number("Q")


def _placed(
    file: str, listed: list[tuple[str, tuple[int, ...], int, int]], begin: int, size: int, alignment: int
) -> dict[str, Stored]:
    """The tensors of a file by name. Raises ValueError unless each lies in the file, all apart, in a type read here."""
    import gguf

    tensors: dict[str, Stored] = {}
    kinds = {int(known): known.name for known in gguf.GGMLQuantizationType}
    for name, shape, number, offset in listed:
        kind = kinds.get(number, f"type number {number}")
        if kind not in READ:
            raise ValueError(
                f"The tensor {name[:60]} is stored as {kind}, which is not read here: take a file of the kind {', '.join(READ)}."
            )
        block, bytes_a_block = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
        if not shape or min(shape) < 1 or shape[-1] % block:
            shown = " x ".join(map(str, shape))
            raise ValueError(
                f"{file} is damaged: its tensor {name[:60]} has the shape {shown or 'of nothing'} in {kind}."
            )
        if name in tensors:
            raise ValueError(f"{file} is damaged: its tensor {name[:60]} stands in it twice.")
        length = prod(shape) // block * bytes_a_block
        stored = tensors[name] = Stored(name, shape, kind, begin + offset, length)
        if offset % alignment or stored.begin + length > size:
            raise ValueError(
                f"{file} is damaged or was cut short on its way: its tensor {name[:60]} takes {length:,} bytes from byte "
                f"{stored.begin:,} on, and the file has {size:,}."
            )
    end = begin
    for stored in sorted(tensors.values(), key=lambda one: one.begin):
        if stored.begin < end:
            raise ValueError(f"{file} is damaged: its tensor {stored.name[:60]} lies upon another one.")
        end = stored.begin + stored.size
    return tensors
