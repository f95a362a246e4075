"""State dicts: tensors by name with no config beside them. What their names and shapes tell, and what a person must."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm import data, tokenizer
from llm.config import ModelConfig
from llm.convert import families, folder, torch_file
from llm.convert.source import MapRow, Source

if TYPE_CHECKING:
    from torch import Tensor

INSIDE = ("model", "model_state_dict", "state_dict")  # where checkpoints keep the weights among other things
WRAPPED = re.compile(
    r"^(?:_orig_mod\.|module\.)+"
)  # torch.compile and DistributedDataParallel put these before
GPT2_IDS = (50_257, 50_304)  # its vocabulary, and the same filled up to a multiple of 64
PER_HEAD = 64  # numbers of a head in GPT-2 of every size


@dataclass(frozen=True)
class StateDict:
    """The tensors of a file, not yet read. Names are without what torch.compile and the like put before them."""

    path: Path
    tensors: dict[str, tuple[str, tuple[int, ...]]]  # name -> number format, shape
    same: Callable[[str, str], bool]  # whether two of them hold the same numbers
    load: Callable[[], Mapping[str, Tensor]]
    rest: dict[str, Any] = field(default_factory=dict)  # what the file holds beside them


def look(path: Path) -> StateDict:
    """The state dict of a file of torch.save or of a safetensors file, told apart by content.

    Raises ValueError when it is neither, holds no tensors, or is a pickle that asks for more than tensors.
    """
    if not path.is_file():
        raise ValueError(f"There is no file {path.name!r}.")
    if path.suffix == ".safetensors" or _begins_as_safetensors(path):
        return _of_safetensors(path)
    return _of_torch(path)


def _begins_as_safetensors(path: Path) -> bool:
    with open(path, "rb") as f:
        return f.read(9)[8:] == b"{"


def _of_torch(path: Path) -> StateDict:
    saved = torch_file.look(path)
    if not isinstance(saved, dict):
        raise ValueError(f"{path.name} holds a {type(saved).__name__}, no weights by name.")
    stubs = _weights(saved)
    if not stubs:
        keys = ", ".join(str(key) for key in list(saved)[:8])[:200]
        raise ValueError(f"{path.name} holds no weights by name: its keys are {keys or 'none'}.")
    return StateDict(
        path,
        {name: (stub.dtype, stub.shape) for name, stub in stubs.items()},
        lambda a, b: torch_file.same(path, stubs[a], stubs[b]),
        lambda: _weights(torch_file.read(path)),
        {key: value for key, value in saved.items() if isinstance(key, str) and key not in INSIDE},
    )


def _weights(saved: Mapping[str, Any]) -> dict[str, Any]:
    """The tensors by name of a checkpoint: all it holds, or what it keeps under one of the usual keys."""
    inner = next((saved[key] for key in INSIDE if isinstance(saved.get(key), dict)), saved)
    return {
        WRAPPED.sub("", name): value
        for name, value in inner.items()
        if isinstance(name, str) and hasattr(value, "shape")
    }


def _of_safetensors(path: Path) -> StateDict:
    header = {WRAPPED.sub("", name): entry for name, entry in folder.read_header(path).items()}

    def same(a: str, b: str) -> bool:
        (*kind_a, begin_a, end), (*kind_b, begin_b, _) = header[a], header[b]
        return kind_a == kind_b and _same_bytes(path, begin_a, begin_b, end - begin_a)

    def load() -> Mapping[str, Tensor]:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return {WRAPPED.sub("", name): tensor for name, tensor in load_file(path).items()}
        except (OSError, SafetensorError) as error:
            raise ValueError(f"The weights of {path.name} cannot be read: {error}.") from None

    return StateDict(path, {name: entry[:2] for name, entry in header.items()}, same, load)


def _same_bytes(path: Path, a: int, b: int, length: int) -> bool:
    """Whether `length` bytes of a file from byte `a` on are those from byte `b` on."""
    with open(path, "rb") as first, open(path, "rb") as second:
        first.seek(a)
        second.seek(b)
        for done in range(0, length, 4 * 2**20):
            part = min(4 * 2**20, length - done)
            if first.read(part) != second.read(part):
                return False
    return True


# ---- What is not written in the file ------------------------------------------------------------------------------


def layers(tensors: Mapping[str, Any], form: str) -> int:
    """How many layers the names count: 1 + the largest number where `form`, such as "h.{}.", has its braces.

    Raises ValueError for none, or for more than this lab's models may have.
    """
    pattern = re.compile(re.escape(form).replace(r"\{\}", r"(\d{1,6})"))
    count = 1 + max((int(found[1]) for name in tensors if (found := pattern.match(name))), default=-1)
    if not 1 <= count <= families.MOST_LAYERS:
        raise ValueError(
            f"The names of the tensors count {count:,} layers ({form}): models here have 1 to {families.MOST_LAYERS}."
        )
    return count


def shape(tensors: Mapping[str, tuple[str, tuple[int, ...]]], name: str) -> tuple[int, int]:
    """Rows and columns of a matrix. Raises ValueError when it is missing or none."""
    if name not in tensors:
        raise ValueError(f"The tensor {name} is missing: it gives the model its shape.")
    found = tensors[name][1]
    if len(found) != 2:
        raise ValueError(f"{name} should be a matrix and has the shape {families.by(found)}.")
    return found[0], found[1]


def heads(n_embd: int, told: int) -> tuple[int, list[str]]:
    """The number of heads, which no tensor's shape shows: `told`, or one for each 64 numbers as in GPT-2, with a note.

    Raises ValueError when it is not told and the width is no multiple of 64.
    """
    if told:
        return told, []
    if n_embd % PER_HEAD:
        raise ValueError(
            f"The number of heads (n_head) is needed: the shapes do not show it, and a width of {n_embd} is no multiple of "
            f"{PER_HEAD}, the numbers of a head in GPT-2."
        )
    found = n_embd // PER_HEAD
    return found, [
        f"{found} heads are assumed, {PER_HEAD} numbers each as in GPT-2: the file does not say. If texts come out as "
        "nonsense, give the number of heads (n_head)."
    ]


def encoding(name: str, vocab_size: int, beside: Path, why: str) -> tuple[dict[str, bytes | Path], list[str]]:
    """The tokenizer.json of a model that comes without one, and notes.

    name: an encoding of this lab, or char:DATASET for the characters of a dataset; without it, a tokenizer.json in
    the folder `beside` the file counts, then GPT-2's encoding where the vocabulary has its size. `why` says what the
    file lacks. Raises ValueError when none is known, or when it does not belong to a vocabulary of this size.
    """
    if not name and (beside / "tokenizer.json").is_file():
        document = folder.read_json(beside / "tokenizer.json", folder.MOST_TOKENIZER)
        document, notes = folder.fitted(document, vocab_size)
        return {"tokenizer.json": json.dumps(document, ensure_ascii=False).encode("utf-8")}, notes
    if not name and vocab_size not in GPT2_IDS:
        raise ValueError(
            f"The model has {vocab_size:,} token ids, and {why}: say which encoding it learned with, such as gpt2 or, for "
            "single characters, char:DATASET with the text it learned from."
        )
    found = data.encoding_of(name[5:], "char") if name.startswith("char:") else tokenizer.get(name or "gpt2")
    notes = (
        [] if name else [f"The vocabulary has {vocab_size:,} ids, so the encoding is taken to be GPT-2's."]
    )
    return {"tokenizer.json": as_file(found)}, [*notes, *_spare(found, vocab_size)]


def _spare(found: tokenizer.Tokenizer, vocab_size: int) -> list[str]:
    """A note on rows that no token uses. Raises ValueError when there are too few rows, or too many."""
    spare = vocab_size - found.vocab_size
    if spare < 0 or spare > vocab_size // 10 or (spare and found.kind == "char"):
        raise ValueError(
            f"The encoding {found.name} has {found.vocab_size:,} ids and the model {vocab_size:,}: they do not belong "
            "together."
        )
    return [f"{spare} rows of padding follow the {found.vocab_size:,} ids of the encoding."] if spare else []


def as_file(found: tokenizer.Tokenizer) -> bytes:
    """The tokenizer.json of an encoding."""
    with tempfile.TemporaryDirectory() as place:
        found.save(Path(place))
        return (Path(place) / "tokenizer.json").read_bytes()


# ---- From names to our model --------------------------------------------------------------------------------------


def tied(held: StateDict, embedding: str, output: str) -> bool:
    """Whether the output matrix is the token embedding: it is left out, or holds the same numbers.

    Raises ValueError when there is no token embedding.
    """
    shape(held.tensors, embedding)
    return output not in held.tensors or held.same(embedding, output)


def source(
    held: StateDict,
    config: ModelConfig,
    table: families.Family,
    called: Callable[[str], str],
    left_out: Mapping[str, str],
    change: Callable[[families.Place, Tensor], Tensor] = lambda place, tensor: tensor,
    **about: Any,
) -> Source:
    """The Source of a state dict whose names `called` turns into those of `table`.

    left_out: what a name looks like, and why such a tensor is not needed. change: what is done to a tensor on its way.
    about: the other fields of Source. Raises ValueError with the names when tensors are missing, left over or misshapen.
    """
    known = families.places(table, config)
    names = {called(name): name for name in held.tensors}
    wrong = [f"{name} is missing" for name in known if name not in names]
    rows = []
    for name, (dtype, size) in held.tensors.items():
        place = known.get(called(name))
        how = next((why for form, why in left_out.items() if re.fullmatch(form, name)), "")
        rows.append(MapRow(name, place.ours if place else "", size, dtype, place.how if place else how))
        if place and size != place.shape:
            wrong.append(f"{name} is {families.by(size)}, not {families.by(place.shape)}")
        if place and dtype not in folder.READ:
            wrong.append(f"{name} is stored as {dtype}, not as {', '.join(folder.READ)}")
    wrong += [f"{row.theirs} is unknown" for row in rows if not row.ours and not row.how]
    if wrong:
        more = f"; and {len(wrong) - 8} more" if len(wrong) > 8 else ""
        raise ValueError(f"The tensors of {held.path.name} do not fit: {'; '.join(wrong[:8])}{more}.")

    def read() -> Iterator[tuple[str, Tensor]]:
        import torch

        weights = held.load()
        parts: list[Tensor] = []
        for name, place in known.items():
            parts.append(change(place, weights[names[name]].detach()))
            if place.rows is None or len(parts) == 3:
                yield place.ours, torch.cat(parts) if len(parts) == 3 else parts[0]
                parts = []

    found = Source(config=config, rows=tuple(rows), read=read, **about)
    found.check()
    return found
