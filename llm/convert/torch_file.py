"""Files of torch.save, looked into without torch and without doing anything that the pickle in them may ask for.

Such a file is a zip: a pickle that names the tensors, and beside it the numbers of each. The pickle is read by a reader
that knows tables, tensors and plain values, and nothing that could be called.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

MOST_PICKLE = 4 * 2**20  # bytes; that of a model of 80 layers with its optimizer has less than a tenth
STORAGES = {  # torch's name: as safetensors calls the number format, and its bytes
    "FloatStorage": ("F32", 4), "HalfStorage": ("F16", 2), "BFloat16Storage": ("BF16", 2), "DoubleStorage": ("F64", 8),
    "LongStorage": ("I64", 8), "IntStorage": ("I32", 4), "ShortStorage": ("I16", 2), "CharStorage": ("I8", 1),
    "ByteStorage": ("U8", 1), "BoolStorage": ("BOOL", 1),
}  # fmt: skip
FORMATS = ("float32", "float16", "bfloat16", "float64", "int64", "int32", "bool")  # may stand in a config


class Refused(ValueError):
    """Said of a file by this module, and not by a library that stumbled over it."""


class Storage(NamedTuple):
    """The numbers of one or more tensors, one after the other."""

    dtype: str
    key: str
    length: int


class Stub(NamedTuple):
    """A tensor whose numbers were not read."""

    storage: Storage
    begin: int  # of its first number in the storage
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def dtype(self) -> str:
        return self.storage.dtype


class Table(dict):
    """What an OrderedDict of the file becomes. The attributes that torch hangs on it are not needed."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        pass


def is_one(path: Path) -> bool:
    """Whether a file is a zip, as those of torch.save are since PyTorch 1.6."""
    with open(path, "rb") as f:
        return f.read(4) == b"PK\x03\x04"


def look(path: Path) -> Any:
    """What was saved, each tensor as a Stub: tables, lists and plain values.

    Raises ValueError when the file is no such file, is cut short, or asks for anything but tensors and plain values.
    """
    with _opened(path) as archive:
        return _Reader(archive, path.name).load()


def same(path: Path, a: Stub, b: Stub) -> bool:
    """Whether two tensors of a file hold the same numbers. Raises ValueError when they cannot be read."""
    if a == b:
        return True
    if (a.dtype, a.shape, a.stride) != (b.dtype, b.shape, b.stride) or a.stride != _packed(a.shape):
        return False
    with _opened(path) as archive:
        try:
            return all(left == right for left, right in zip(_bytes(archive, a), _bytes(archive, b)))
        except (zipfile.BadZipFile, EOFError, OSError, RuntimeError):
            raise ValueError(f"{path.name} is damaged: the numbers of a tensor cannot be read.") from None


def read(path: Path) -> Any:
    """The same with its tensors, mapped from the file. Raises ValueError when torch finds it damaged."""
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (
        RuntimeError,
        ValueError,
        OSError,
        pickle.UnpicklingError,
        EOFError,
        LookupError,
        TypeError,
    ) as error:
        why = str(error).split("\n")[0][:200]
        raise ValueError(f"The weights of {path.name} cannot be read: {why}") from None


def _opened(path: Path) -> zipfile.ZipFile:
    if not is_one(path):
        with open(path, "rb") as f:
            start = f.read(2)
        if start[:1] == b"\x80" or start in (b"(l", b"(d", b"cp", b"co"):
            raise ValueError(
                f"{path.name} is a plain pickle: a file that can run commands as it is opened, so it stays closed. If it "
                "was saved by a PyTorch older than 1.6, load it there and save its state dict with a newer one."
            )
        raise ValueError(f"{path.name} is no file of torch.save: it does not begin as one.")
    if _directory_bytes(path) > MOST_PICKLE:
        raise ValueError(
            f"{path.name} has a table of contents of more than {MOST_PICKLE:,} bytes: no model has."
        )
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, ValueError):  # names that are no UTF-8, too
        raise ValueError(
            f"{path.name} is cut short or damaged: the end of it, with its table of contents, is missing or broken."
        ) from None


def _directory_bytes(path: Path) -> int:
    """Size of a zip's table of contents, as its last record says; 0 where there is none."""
    with open(path, "rb") as f:
        size = f.seek(0, io.SEEK_END)
        f.seek(max(0, size - 66_000))
        tail = f.read()
    if (at := tail.rfind(b"PK\x05\x06")) < 0:
        return 0
    told = int.from_bytes(tail[at + 12 : at + 16], "little")
    if told == 2**32 - 1 and (at := tail.rfind(b"PK\x06\x06")) >= 0:  # the form for more than 4 GB
        told = int.from_bytes(tail[at + 40 : at + 48], "little")
    return told


def _root(archive: zipfile.ZipFile, name: str) -> str:
    """The folder inside the zip that everything lies in, with its slash."""
    found = [entry for entry in archive.namelist() if entry == "data.pkl" or entry.endswith("/data.pkl")]
    if len(found) != 1:
        raise ValueError(f"{name} is a zip, but none that torch.save wrote: it has no data.pkl.")
    return found[0][: -len("data.pkl")]


def _bytes(archive: zipfile.ZipFile, tensor: Stub) -> Iterator[bytes]:
    """The bytes of a tensor that lies in one piece, a few MB at a time."""
    width = dict(STORAGES.values())[tensor.dtype]
    with archive.open(f"{_root(archive, '')}data/{tensor.storage.key}") as f:
        f.seek(tensor.begin * width)
        left = prod(tensor.shape) * width
        while left and (part := f.read(min(left, 4 * 2**20))):
            left -= len(part)
            yield part


def _packed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The strides of a tensor whose numbers lie row after row without gaps."""
    return tuple(prod(shape[i + 1 :]) for i in range(len(shape)))


# The reader in C sets aside memory for whatever number a file names; the one in Python does not. Both are the standard
# library's. What could make an object of a class, or set aside memory before it is read, is taken out.
LEFT_OUT = (
    pickle.INST, pickle.OBJ, pickle.NEWOBJ, pickle.NEWOBJ_EX, pickle.PERSID, pickle.EXT1, pickle.EXT2, pickle.EXT4,
    pickle.BYTEARRAY8, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER,
)  # fmt: skip


class _Reader(pickle._Unpickler):
    """Reads the pickle of a file of torch.save; every name it asks for is looked up here and nowhere else."""

    dispatch = {  # noqa: RUF012 - as in the class above it
        code: step for code, step in pickle._Unpickler.dispatch.items() if bytes([code]) not in LEFT_OUT
    }

    def __init__(self, archive: zipfile.ZipFile, name: str):
        self.name = name
        self.root = _root(archive, name)
        self.sizes = {info.filename: info for info in archive.infolist()}
        if any(info.compress_type != zipfile.ZIP_STORED for info in self.sizes.values()):
            raise ValueError(f"{name} is a compressed zip: torch.save writes plain ones.")
        entry = self.sizes[f"{self.root}data.pkl"]
        if entry.file_size > MOST_PICKLE:
            raise ValueError(
                f"The names of the tensors of {name} take {entry.file_size:,} bytes; at most {MOST_PICKLE:,} are read."
            )
        try:
            super().__init__(io.BytesIO(archive.read(entry)))
        except (zipfile.BadZipFile, EOFError, OSError, RuntimeError, ValueError):
            raise self.damaged() from None

    def load(self) -> Any:
        try:
            return super().load()
        except Refused:
            raise
        except Exception:  # whatever a broken pickle may make of its reader
            raise self.damaged() from None

    def damaged(self) -> Refused:
        return Refused(f"{self.name} is damaged: the list of its tensors cannot be read.")

    def find_class(self, module: str, name: str) -> Any:
        known = {
            "collections.OrderedDict": _table,
            "torch._utils._rebuild_tensor_v2": _tensor,
            "torch._utils._rebuild_parameter": _parameter,
            **{f"torch.{kind}": kind for kind in STORAGES},
            **{f"torch.{kind}": kind for kind in FORMATS},
        }
        asked = f"{module}.{name}"
        if asked not in known:
            raise Refused(
                f"{self.name} asks for {asked[:80]!r} as it is opened: it is more than a table of weights, so it stays "
                "closed. Load it where it was made and save its state dict alone."
            )
        return known[asked]

    def persistent_load(self, pid: Any) -> Storage:
        """The place of a tensor's numbers: ("storage", type, key, device, how many)."""
        if not isinstance(pid, tuple) or len(pid) != 5 or pid[0] != "storage" or pid[1] not in STORAGES:
            raise self.damaged()
        _, kind, key, _, length = pid
        dtype, width = STORAGES[kind]
        if type(key) not in (str, int) or type(length) is not int or length < 0:  # LitGPT numbers them
            raise self.damaged()
        key = str(key)
        entry = self.sizes.get(f"{self.root}data/{key}")
        if entry is None or entry.file_size != length * width:
            raise Refused(
                f"{self.name} is damaged: it says that the numbers {key[:20]!r} of a tensor take {length * width:,} bytes, "
                f"and it has {entry.file_size if entry else 0:,} of them."
            )
        return Storage(dtype, key, length)


def _table(*nothing: Any) -> Table:
    if nothing:
        raise TypeError("a table is made empty")
    return Table()


def _tensor(storage: Any, begin: Any, shape: Any, stride: Any, *_: Any) -> Stub:
    whole = [begin, *shape, *stride]
    if not isinstance(storage, Storage) or not all(type(n) is int and 0 <= n < 2**60 for n in whole):
        raise TypeError("no tensor")
    if len(shape) != len(stride) or len(shape) > 8:
        raise TypeError("no tensor")
    last = begin + sum((n - 1) * step for n, step in zip(shape, stride))
    if prod(shape) > storage.length or (prod(shape) and last >= storage.length):
        raise TypeError("a tensor larger than its numbers")
    return Stub(storage, begin, tuple(shape), tuple(stride))


def _parameter(tensor: Any, *_: Any) -> Any:
    return tensor
