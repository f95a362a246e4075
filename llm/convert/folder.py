"""A Hugging Face folder in and out: config.json, safetensors in one file or several, tokenizer.json.

Nothing in such a folder is ever run: Python files and pickles stay closed. Everything is checked by the sizes in the
headers before a weight is read.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm import inventory, paths
from llm.config import ModelConfig
from llm.convert import families
from llm.convert.source import Source

if TYPE_CHECKING:
    from torch import Tensor

Progress = Callable[[str, int, int], None]  # what, bytes done, bytes in all; may raise to stop

MOST_CONFIG = 4 * 2**20  # bytes of a config or an index; real ones have thousands
MOST_HEADER = 16 * 2**20  # bytes that name a file's tensors; a model of 256 layers has less than one million
MOST_TENSORS = 20_000
MOST_TOKENIZER = 128 * 2**20  # bytes; the largest vocabularies in use take 35 million
ITEM_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1,
    "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1,
}  # fmt: skip
READ = ("F32", "F16", "BF16", "F64")  # number formats that weights may have
FORMATS = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}  # ours: what config.json calls it
SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.safetensors")
EXTRAS = ("tokenizer_config.json", "chat_template.jinja", "generation_config.json")  # as in llm.checkpoint
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


# ---- In -----------------------------------------------------------------------------------------------------------


def look(path: Path) -> Source:
    """A Hugging Face folder, or the folder around a .safetensors file, before any weight is read.

    Raises ValueError, with the file or the field in the way, for anything that is missing, damaged or unknown here.
    """
    path = Path(path)
    folder = path.parent if path.is_file() else path
    if not folder.is_dir():
        raise ValueError(f"There is no folder {path.name!r}.")
    stored = _config(folder)
    shards = _shards(folder, path.name if path.is_file() else "")
    tensors: dict[str, tuple[str, tuple[int, ...]]] = {}
    places: dict[str, tuple[Path, int, int]] = {}
    for shard in shards:
        for name, (dtype, shape, begin, end) in read_header(shard).items():
            if name in tensors:
                raise ValueError(f"The tensor {name} is in {places[name][0].name} and again in {shard.name}.")
            tensors[name], places[name] = (dtype, shape), (shard, begin, end)
    _complete(folder, tensors, shards)
    try:
        theirs, tied = families.settle_tie(stored, tensors, lambda a, b: _equal(tensors, places, a, b))
        config = families.model_config(theirs)
        rows = tuple(families.weight_rows(theirs, tensors))
        families.check_tensors(theirs, tensors)
    except OverflowError:
        raise ValueError(f"The config.json of {folder.name} has a number that is too large.") from None
    for row in rows:
        if row.ours and row.dtype not in READ:
            raise ValueError(
                f"{row.theirs} is stored as {row.dtype}: weights are read as {', '.join(READ)}. Take the unquantised model."
            )
    files, dropped = _files(folder, config, stored)
    notes = [tied, *dropped, *_passed_over(folder, stored)]
    told = theirs.get("max_position_embeddings")
    if isinstance(told, int) and told > config.context_length:
        notes.append(
            f"Made for {told:,} tokens at once; here it reads {config.context_length:,}, the longest context of this lab."
        )
    source = Source(
        container="Hugging Face folder",
        family=theirs["model_type"],
        config=config,
        rows=rows,
        read=lambda: _read(
            theirs,
            config,
            {name: place[0] for name, place in places.items()},
            {row.theirs for row in rows if row.ours and (row.dtype != "F32" or row.how != "same")},
        ),
        files=files,
        facts=_facts(folder, stored, {row.dtype for row in rows if row.ours}),
        notes=tuple(note for note in notes if note),
    )
    source.check()
    return source


def read_json(path: Path, most: int) -> dict[str, Any]:
    """A JSON file with a group of settings. Raises ValueError when it is missing, too large or damaged."""
    if not path.is_file():
        raise ValueError(f"{path.name} is missing in {path.parent.name}.")
    if path.stat().st_size > most:
        raise ValueError(f"{path.name} has {path.stat().st_size:,} bytes; at most {most:,} are read.")
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError):  # no JSON, no UTF-8, or a number of thousands of digits
        raise ValueError(f"{path.name} in {path.parent.name} is damaged: it is no whole JSON file.") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path.name} in {path.parent.name} holds a {type(found).__name__}, no settings.")
    return found


def _config(folder: Path) -> dict[str, Any]:
    if not (folder / "config.json").is_file():
        extra = ""
        if (folder / "adapter_config.json").is_file():
            extra = " It holds an adapter, which is opened together with the model it was made for."
        raise ValueError(
            f"{folder.name} has no config.json, so the shape of the model is unknown: take the whole folder of the model, "
            f"with config.json and tokenizer.json beside the .safetensors files.{extra}"
        )
    return read_json(folder / "config.json", MOST_CONFIG)


def _shards(folder: Path, chosen: str) -> list[Path]:
    """The safetensors files of the model. Raises ValueError with the name of one that is missing."""
    index = folder / "model.safetensors.index.json"
    present = sorted(file.name for file in folder.glob("*.safetensors") if file.is_file())
    if chosen and not chosen.endswith(".safetensors"):
        raise ValueError(f"{chosen} is no .safetensors file: choose one, or the folder of the model.")
    part = SHARD.fullmatch(chosen)
    if not part and (single := chosen or ("model.safetensors" if "model.safetensors" in present else "")):
        return [folder / single]
    if index.is_file():
        names = read_json(index, MOST_HEADER).get("weight_map")
        if not isinstance(names, dict) or not names or not all(isinstance(n, str) for n in names.values()):
            raise ValueError(f"{index.name} has no weight_map: it is damaged.")
        wanted = sorted(set(names.values()))
    elif parts := [found for name in present if (found := SHARD.fullmatch(name))]:
        last = parts[0]
        wanted = [
            f"{last[1]}-{i:05d}-of-{last[3]}.safetensors" for i in range(1, min(int(last[3]), 10_000) + 1)
        ]
    elif len(present) == 1:
        wanted = present
    elif present:
        raise ValueError(
            f"{folder.name} holds {len(present)} .safetensors files ({', '.join(present[:3])}) and no "
            f"{index.name} that says which belong together: choose one of them."
        )
    else:
        pickles = sorted(file.name for form in PICKLES for file in folder.glob(form))
        if pickles:
            raise ValueError(
                f"The weights of {folder.name} are in {pickles[0]}, a pickle: a file that can run commands as it is opened. "
                "Only .safetensors are read; many models offer both."
            )
        raise ValueError(
            f"{folder.name} has a config.json and no .safetensors file: the weights are missing."
        )
    for name in wanted:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise ValueError(
                f"{index.name} points to {name[:80]!r}, which is no .safetensors file of this folder."
            )
        if not (folder / name).is_file():
            raise ValueError(
                f"{name} is missing: the weights of {folder.name} are in {len(wanted)} files, and all are needed."
            )
    return [folder / name for name in wanted]


def read_header(path: Path) -> dict[str, tuple[str, tuple[int, ...], int, int]]:
    """The tensors of a safetensors file: name -> (number format, shape, first byte, byte after the last).

    Raises ValueError when the header does not fit the file: cut short, of another kind, or made to fill the memory.
    """
    size = path.stat().st_size
    with open(path, "rb") as f:
        start, brace = f.read(8), f.read(1)
        # a header's length may begin with any byte: what follows it tells
        if brace != b"{" and (start[:4] == b"PK\x03\x04" or start[:1] == b"\x80"):
            raise ValueError(
                f"{path.name} is a pickle with another name: a file that can run commands as it is opened. It stays closed."
            )
        if start.startswith(b"version "):
            raise ValueError(
                f"{path.name} only points to the weights (a Git LFS file): download the file itself."
            )
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length < 2 or length > size - 8:
            raise ValueError(
                f"{path.name} is cut short or no safetensors file: it has {size:,} bytes and its header asks for {length:,}."
            )
        if length > MOST_HEADER:
            raise ValueError(
                f"The header of {path.name} has {length:,} bytes; at most {MOST_HEADER:,} are read."
            )
        try:
            f.seek(8)
            header = json.loads(f.read(length).decode("utf-8"))
        except (ValueError, RecursionError):
            raise ValueError(f"The header of {path.name} is damaged: it is no whole JSON.") from None
    if not isinstance(header, dict) or len(header) > MOST_TENSORS:
        raise ValueError(f"The header of {path.name} is no list of at most {MOST_TENSORS:,} tensors.")
    header.pop("__metadata__", None)
    return {name: _entry(path, name, entry, 8 + length, size) for name, entry in header.items()}


def _entry(path: Path, name: str, entry: Any, begin: int, size: int) -> tuple[str, tuple[int, ...], int, int]:
    """One tensor of a header, with its bytes counted from the beginning of the file."""
    try:
        dtype, shape, (first, last) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        numbers = [*shape, first, last]
        sound = all(type(n) is int and 0 <= n < 2**60 for n in numbers) and len(shape) <= 8
    except (TypeError, KeyError, ValueError):
        sound = False
    if not sound or not isinstance(dtype, str):
        raise ValueError(f"The header of {path.name} is damaged: what it says of {name[:80]} has no sense.")
    if begin + last > size:
        raise ValueError(
            f"{path.name} is cut short: it has {size:,} bytes, and {name[:80]} ends at {begin + last:,}."
        )
    if dtype in ITEM_BYTES and last - first != prod(shape) * ITEM_BYTES[dtype]:
        raise ValueError(
            f"The header of {path.name} is damaged: {name[:80]} of {families.by(shape)} as {dtype} does not fill "
            f"{last - first:,} bytes."
        )
    return dtype, shape, begin + first, begin + last


def _complete(folder: Path, tensors: Mapping[str, Any], shards: list[Path]) -> None:
    """Raise ValueError when the index names a tensor that no file has."""
    index = folder / "model.safetensors.index.json"
    if len(shards) > 1 and index.is_file():
        names = read_json(index, MOST_HEADER)["weight_map"]
        if missing := [name for name in names if name not in tensors]:
            raise ValueError(
                f"{missing[0]} should be in {names[missing[0]]} by {index.name}, and is not there."
            )


def _equal(tensors: Mapping, places: Mapping[str, tuple[Path, int, int]], a: str, b: str) -> bool:
    """Whether two tensors are the same, byte by byte. Raises ValueError when the disk does not give them."""
    if tensors[a] != tensors[b]:
        return False
    (path_a, begin_a, end), (path_b, begin_b, _) = places[a], places[b]
    with open(path_a, "rb") as file_a, open(path_b, "rb") as file_b:
        file_a.seek(begin_a)
        file_b.seek(begin_b)
        left = end - begin_a
        while left:
            part = min(left, 4 * 2**20)
            if file_a.read(part) != file_b.read(part):
                return False
            left -= part
    return True


def _read(
    theirs: Mapping[str, Any], config: ModelConfig, shards: Mapping[str, Path], copied: Collection[str]
) -> Iterator[tuple[str, Tensor]]:
    """Our tensors, mapped from the files; copied: names of those that are changed, joined or converted on their way.

    Raises ValueError when a file was damaged or taken away meanwhile.
    """
    from safetensors import SafetensorError, safe_open

    kept: dict[Path, Any] = {}
    passing: dict[Path, Any] = {}  # opened anew again and again: pages already copied do not stay in memory
    asked, few = 0, max(1, len(copied) // 20)

    def get(name: str) -> Tensor:
        nonlocal asked
        path, opened = shards[name], kept
        if name in copied:
            asked, opened = asked + 1, passing
            if path not in passing or asked % few == 0:
                passing.clear()
        if path not in opened:
            opened[path] = safe_open(path, framework="pt").__enter__()
        return opened[path].get_tensor(name)

    try:
        yield from families.to_ours(theirs, config, get, list(shards))
    except (OSError, SafetensorError) as error:
        raise ValueError(f"The weights cannot be read: {error}.") from None


def _files(folder: Path, config: ModelConfig, stored: dict) -> tuple[dict[str, bytes | Path], list[str]]:
    """What goes along into the model directory, and what a person should know of it."""
    files: dict[str, bytes | Path] = {
        name: folder / name
        for name in EXTRAS
        if (folder / name).is_file() and (folder / name).stat().st_size <= MOST_CONFIG
    }
    if not (folder / "tokenizer.json").is_file():
        others = [n for n in ("tokenizer.model", "vocab.json", "spiece.model") if (folder / n).is_file()]
        why = (
            f" Its encoding is in {others[0]}; transformers writes tokenizer.json from it." if others else ""
        )
        return files, [f"The folder has no tokenizer.json, so texts cannot become tokens.{why}"]
    document = read_json(folder / "tokenizer.json", MOST_TOKENIZER)
    document, notes = fitted(document, config.vocab_size)
    files["tokenizer.json"] = (
        json.dumps(document, ensure_ascii=False).encode("utf-8") if notes else folder / "tokenizer.json"
    )
    return files, notes


def fitted(document: dict[str, Any], vocab_size: int) -> tuple[dict[str, Any], list[str]]:
    """A tokenizer.json without the added tokens that the model has no row for, and a note that names them.

    Raises ValueError when the vocabulary itself is larger than the model's, or fills less than nine tenths of it.
    """
    model = document.get("model") if isinstance(document.get("model"), dict) else {}
    vocab, added = model.get("vocab"), document.get("added_tokens") or []
    ids = vocab.values() if isinstance(vocab, dict) else range(len(vocab)) if isinstance(vocab, list) else ()
    sound = isinstance(added, list) and all(isinstance(t, dict) and type(t.get("id")) is int for t in added)
    if not sound or not all(type(id) is int for id in ids):
        raise ValueError("The tokenizer.json is damaged: a token in it has no whole number.")
    extra = {str(t.get("content")) for t in added}
    words = vocab.items() if isinstance(vocab, dict) else ()
    most = max((id for piece, id in words if piece not in extra), default=len(ids) - 1 if not words else -1)
    if most >= vocab_size:
        raise ValueError(
            f"The encoding goes up to id {most:,} ({most + 1:,} ids) and the model has {vocab_size:,} rows: they do not "
            "belong together."
        )
    count = max([most, *(t["id"] for t in added)]) + 1
    if count < 0.9 * vocab_size:
        raise ValueError(
            f"The encoding has {count:,} ids and the model {vocab_size:,} rows: they do not belong together."
        )
    beyond = [t for t in added if t["id"] >= vocab_size]
    if not beyond:
        return document, []
    named = [str(t.get("content")) for t in beyond]
    if any(json.dumps(name) in json.dumps(document.get("post_processor")) for name in named):
        raise ValueError(
            f"The encoding puts {named[0][:40]!r} (id {beyond[0]['id']:,}) around every text, and the model has only "
            f"{vocab_size:,} rows: they do not belong together."
        )
    kept = [t for t in added if t["id"] < vocab_size]
    document = {**document, "added_tokens": kept}
    if isinstance(vocab, dict):
        document["model"] = {**model, "vocab": {piece: id for piece, id in vocab.items() if id < vocab_size}}
    return document, [
        f"{len(beyond)} added tokens are left out ({', '.join(named)[:120]}): the encoding has {count:,} ids and the "
        f"model {vocab_size:,} rows."
    ]


def _passed_over(folder: Path, stored: Mapping[str, Any]) -> list[str]:
    """What lies in the folder and stays closed."""
    notes = []
    if code := sorted(file.name for file in folder.glob("*.py")):
        more = f" and {len(code) - 3} more" if len(code) > 3 else ""
        notes.append(f"Python files are never run here and were passed over: {', '.join(code[:3])}{more}.")
    if stored.get("auto_map"):
        notes.append(
            "The config asks for Python code of its own (auto_map); the model is read as its family says."
        )
    if pickles := sorted(file.name for form in PICKLES for file in folder.glob(form)):
        notes.append(f"Pickles stay closed and were passed over: {', '.join(pickles[:3])}.")
    return notes


def _facts(folder: Path, stored: Mapping[str, Any], formats: set[str]) -> dict[str, str]:
    """Where the model is from, as its folder says."""
    facts = {"origin": folder.name, "number format": ", ".join(sorted(formats))}
    if isinstance(told := stored.get("_name_or_path"), str) and re.fullmatch(r"[\w.-]+/[\w.-]+", told):
        facts["origin"] = told
        facts["organisation"] = told.split("/")[0]
    card = folder / "README.md"
    if card.is_file():
        with open(card, encoding="utf-8", errors="replace") as f:
            head = f.read(64 * 1024)
        front = head[3:].partition("\n---")[0] if head.startswith("---") else ""
        for name, key in (("licence", "license"), ("licence", "license_name"), ("base model", "base_model")):
            if found := re.search(rf"^{key}:[ \t]*([\w./-]+)[ \t]*$", front, re.MULTILINE):
                facts[name] = found[1]
    return facts


# ---- Out ----------------------------------------------------------------------------------------------------------


def size(name: str, dtype: str = "fp32") -> int:
    """Bytes that `save` will write, within a few thousand. Raises ValueError when the model cannot be written so."""
    origin = paths.model_folder(name)
    config = _checked(origin, dtype)
    shapes = families.their_shapes(config)
    weights = sum(prod(shape) for shape in shapes.values()) * (4 if dtype == "fp32" else 2)
    return weights + 110 * len(shapes) + (origin / "tokenizer.json").stat().st_size + 4000


def save(name: str, folder: Path, dtype: str = "fp32", progress: Progress | None = None) -> list[str]:
    """Write the model `name` as a Hugging Face folder, for transformers and all that read the same; returns notes.

    The folder appears when it is whole. Raises ValueError with the setting in the way when no family can hold the model,
    when its encoding has no file of that format, or when something lies at `folder` already; OSError from the disk.
    """
    origin, folder = paths.model_folder(name), Path(folder)
    config = _checked(origin, dtype)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(
            f"There is something called {folder.name} already: choose another place or remove it."
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        _write_texts(origin, temporary, config, dtype)
        _write_weights(origin, temporary, config, dtype, progress)
        for file in temporary.iterdir():
            with open(file, "rb") as f:
                os.fsync(f.fileno())
        os.chmod(temporary, 0o755)  # mkdtemp makes private ones
        if folder.is_dir():
            folder.rmdir()
        os.replace(temporary, folder)
        paths.sync_directory(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return _notes(config)


def _checked(origin: Path, dtype: str) -> ModelConfig:
    """The shape of a model that can be written. Raises ValueError when it cannot."""
    if dtype not in FORMATS:
        raise ValueError(f"{dtype!r} is no number format of such a folder: choose {', '.join(FORMATS)}.")
    config = inventory.shape(origin)
    families.their_config(config)
    document = read_json(origin / "tokenizer.json", MOST_TOKENIZER)
    if "lab" in document:
        raise ValueError(
            f"The encoding of {paths.called(origin)} cuts texts into {document['lab'].get('kind', 'own')}s, and other tools have no "
            "file for that: train the model with a byte-level BPE encoding, such as stories-1280."
        )
    return config


def _write_weights(
    origin: Path, folder: Path, config: ModelConfig, dtype: str, progress: Progress | None
) -> None:
    from safetensors import SafetensorError, safe_open

    from llm import checkpoint

    wanted = {name: (dtype, shape) for name, shape in families.their_shapes(config).items()}
    try:
        with safe_open(origin / "model.safetensors", framework="pt") as f:
            weights = {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118 - mapped, not read yet
            tensors = families.to_theirs(config, weights)
            checkpoint.write_tensors(folder / "model.safetensors", wanted, tensors, progress)
    except SafetensorError as error:
        raise ValueError(f"The weights of {paths.called(origin)} cannot be read: {error}.") from None


def _write_texts(origin: Path, folder: Path, config: ModelConfig, dtype: str) -> None:
    """Everything but the weights."""
    brought = ("tokenizer_config.json", "generation_config.json")
    known = {name: read_json(origin / name, MOST_CONFIG) for name in brought if (origin / name).is_file()}
    settings = tokenizer_config(origin, config, known.get("tokenizer_config.json", {}))
    ids = special_ids(origin, settings)
    generation = known.get("generation_config.json") or ids
    theirs = {**families.their_config(config), **ids, "pad_token_id": None}
    if "eos_token_id" in generation:
        theirs["eos_token_id"] = generation[
            "eos_token_id"
        ]  # several where a chat model ends its turn by another
    theirs |= {
        "dtype": FORMATS[dtype],
        "torch_dtype": FORMATS[dtype],
    }  # transformers 5's name and the older one
    written = {
        "config.json": theirs,
        "generation_config.json": generation,
        "tokenizer_config.json": settings,
    }
    for name, values in written.items():
        text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
        (folder / name).write_text(text, encoding="utf-8")
    for name in ("tokenizer.json", "chat_template.jinja"):
        if (origin / name).is_file():
            shutil.copyfile(origin / name, folder / name)
    (folder / "README.md").write_text(_card(origin, config, theirs, dtype), encoding="utf-8")


def tokenizer_config(origin: Path, config: ModelConfig, known: dict[str, Any]) -> dict[str, Any]:
    """tokenizer_config.json: what the model came with; the class is the one that takes tokenizer.json as it is."""
    from llm import tokenizer

    left_out = ("added_tokens_decoder", "auto_map", "tokenizer_file", "name_or_path")
    found = {k: _plain(v) for k, v in known.items() if k not in left_out}
    if tokenizer.EOT in tokenizer.load(origin).special_tokens:
        found.setdefault("eos_token", tokenizer.EOT)
        found.setdefault(
            "bos_token", found["eos_token"]
        )  # it stands between documents: one begins after it too
    found.setdefault("model_max_length", config.context_length)
    return {**found, "tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}


def _plain(value: Any) -> Any:
    """A token by its text; older files wrote it with how it is cut, which tokenizer.json says too."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value["content"] if isinstance(value, dict) and isinstance(value.get("content"), str) else value


def special_ids(origin: Path, settings: Mapping[str, Any]) -> dict[str, int | None]:
    """The ids of the tokens that begin and end a text by tokenizer_config.json; None where there is none."""
    document = read_json(origin / "tokenizer.json", MOST_TOKENIZER)
    ids = {token["content"]: token["id"] for token in document.get("added_tokens") or []}
    found = {}
    for kind in ("bos", "eos"):
        token = settings.get(f"{kind}_token")
        found[f"{kind}_token_id"] = ids.get(token) if isinstance(token, str) else None
    return found


def _card(origin: Path, config: ModelConfig, theirs: Mapping[str, Any], dtype: str) -> str:
    """The model card: what our card says (data, command, losses), and how to open the folder."""
    file = origin / "README.md"
    own = file.read_text(encoding="utf-8") if file.is_file() else f"# {paths.called(origin)}\n"
    front = "---\nlibrary_name: transformers\npipeline_tag: text-generation\ntags:\n- llm-lab\n---\n\n"
    if own.startswith("---"):
        front = ""  # it has one
    total = sum(config.parameters().values())
    return f"""{front}{own.rstrip()}

## As a Hugging Face folder

{theirs["architectures"][0]}, {total:,} parameters in {dtype}, {config.n_layer} layers of width {config.n_embd}, a context of
{config.context_length:,} tokens. Written by LLM Lab.

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("path/to/this/folder")
tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
```
"""


def _notes(config: ModelConfig) -> list[str]:
    theirs = families.their_config(config)
    there = families.model_config(theirs)
    notes = [f"Written as {theirs['architectures'][0]}."]
    if (there.bias, there.qkv_bias) != (config.bias, config.qkv_bias):
        notes.append(
            "That family has biases where this model has none: they are written as zeros, which changes nothing."
        )
    return notes
