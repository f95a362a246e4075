"""Models of other tools in and out: the two tables of formats, and the recognising of a file by what it holds."""

from __future__ import annotations

import importlib
import json
import stat
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

from llm import files
from llm.config import FORMATS
from llm.convert.source import Source


@dataclass(frozen=True)
class Importer:
    """One container of models that can be opened. Its module's `look(path, ...)` gives a Source."""

    module: str
    title: str
    about: str  # a sentence for people
    needs: tuple[str, ...] = ()  # what `look` is told besides the path: base, encoding, n_head


@dataclass(frozen=True)
class Exporter:
    """One format that a model can be written in. Its module has `size(name, ...)` and `save(name, path, ...)`."""

    module: str
    title: str
    about: str  # a sentence for people
    suffix: str = ""  # of the file that is written; "" for a folder
    spelling: Mapping[str, str] = field(
        default_factory=dict
    )  # our number formats: what its module calls them


IMPORTERS: dict[str, Importer] = {
    "own": Importer("llm.convert.own", "LLM Lab model directory", "A model made by this lab, here or elsewhere."),
    "hf": Importer(
        "llm.convert.folder", "Hugging Face folder", "config.json, tokenizer.json and weights in one or more .safetensors."
    ),
    "gguf": Importer(
        "llm.convert.gguf", "GGUF", "One file with weights (often quantised), encoding and chat template: llama.cpp, Ollama."
    ),
    "litgpt": Importer("llm.convert.litgpt", "LitGPT directory", "lit_model.pth, model_config.yaml and the encoding."),
    "nanogpt": Importer(
        "llm.convert.nanogpt", "nanoGPT checkpoint", "ckpt.pt as nanoGPT's train.py writes it.", ("encoding", "n_head")
    ),
    "from_scratch": Importer(
        "llm.convert.from_scratch", "LLMs-from-scratch weights", "A state dict of the book's GPTModel, .pth or .safetensors.",
        ("encoding", "n_head"),
    ),
    "adapter": Importer(
        "llm.convert.adapter", "PEFT adapter", "LoRA matrices, added to the model they were made for.", ("base",)
    ),
}  # fmt: skip

EXPORTERS: dict[str, Exporter] = {  # the number formats of each are in llm.config.FORMATS
    "hf": Exporter(
        "llm.convert.folder", "Hugging Face folder", "For transformers, vLLM, TGI, NeMo AutoModel and all that read the same."
    ),
    "gguf": Exporter(
        "llm.convert.gguf", "GGUF", "One file for llama.cpp, Ollama, GPT4All, llamafile, Jan.", ".gguf",
        {"fp32": "f32", "fp16": "f16"},
    ),
    "litgpt": Exporter("llm.convert.litgpt", "LitGPT directory", "For litgpt's commands: chat, generate, finetune."),
    "onnx": Exporter("llm.convert.onnx", "ONNX", "For onnxruntime and transformers.js: runs in a browser."),
    "notebook": Exporter(
        "llm.convert.notebook", "Notebook", "An .ipynb that rebuilds the experiment in Python, cell by cell.", ".ipynb"
    ),
}  # fmt: skip

CHECKPOINTS = (".pt", ".pth", ".ckpt", ".bin")


def look(path: str | Path, base: str = "", encoding: str = "", n_head: int = 0) -> Source:
    """What lies at `path`, recognised by its content, before any weight is read.

    base: name of the model that an adapter belongs to; encoding and n_head: for state dicts, which say neither. Raises
    ValueError with a sentence when it is no model, a damaged one, or one that this lab cannot express.
    """
    path = Path(path)
    found = IMPORTERS[container(path)]
    given = {"base": base, "encoding": encoding, "n_head": n_head}
    source = _module(found.module).look(_within(path), **{name: given[name] for name in found.needs})
    source.check()
    return source


def _module(name: str) -> ModuleType:
    return importlib.import_module(name)


# ---- Which container ---------------------------------------------------------------------------------------------


def container(path: Path) -> str:
    """The key of IMPORTERS for what lies at `path`. Raises ValueError when nothing here opens it."""
    if not path.exists():
        raise ValueError(f"There is no file or folder called {path.name!r}.")
    path = _within(path)
    return _of_folder(path) if path.is_dir() else _of_file(path)


def _within(path: Path) -> Path:
    """A folder that holds one model in one file stands for that file; a config.json for the folder around it."""
    if path.is_file():
        return path.parent if path.name in ("config.json", "adapter_config.json") else path
    names = _names(path)
    if any(name in names for name in ("config.json", "adapter_config.json", "lit_model.pth")):
        return path
    models = [name for name in names if name.endswith((".gguf", ".safetensors", *CHECKPOINTS))]
    if len(models) == 1:
        return path / models[0]
    ggufs = [name for name in models if name.endswith(".gguf")]
    if len(ggufs) > 1 and ggufs == models and "-of-" not in ggufs[0]:
        raise ValueError(
            f"{path.name} holds {len(ggufs)} GGUF files ({', '.join(ggufs[:4])}): choose one of them."
        )
    return path / ggufs[0] if ggufs else path


def _names(folder: Path) -> list[str]:
    """The ordinary files of a folder (opening a pipe or a device would wait for ever)."""
    return sorted(entry.name for entry in folder.iterdir() if entry.is_file())


def _of_folder(folder: Path) -> str:
    names = _names(folder)
    if "lit_model.pth" in names:
        return "litgpt"
    if "config.json" in names:
        return "own" if _made_here(folder / "config.json") else "hf"
    if "adapter_config.json" in names:
        return "adapter"
    if any(name.endswith(".safetensors") for name in names):
        return "hf"  # it says which file is missing
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    raise ValueError(
        f"{folder.name} holds no model that this lab knows: {f'it has {shown}' if names else 'it is empty'}. "
        f"It opens {', '.join(importer.title for importer in IMPORTERS.values())}."
    )


def _made_here(config: Path) -> bool:
    """Whether a config.json is one of this lab's own."""
    if config.stat().st_size > 100_000:
        return False
    try:
        stored = json.loads(config.read_bytes())
    except (ValueError, RecursionError):
        return False
    return (
        isinstance(stored, dict) and "n_embd" in stored and "version" in stored and "model_type" not in stored
    )


def _of_file(path: Path) -> str:
    about = path.stat()
    if not stat.S_ISREG(about.st_mode):
        raise ValueError(f"{path.name} is no ordinary file.")
    with open(path, "rb") as f:
        start = f.read(16)
    if start[:4] == b"GGUF":
        return "gguf"
    if start[:4] == b"PK\x03\x04":
        return _of_checkpoint(path)
    if start[8:9] == b"{":  # eight bytes of length, then JSON: safetensors
        return _of_safetensors(path)
    if start[:1] == b"\x80" and len(start) > 1 and 2 <= start[1] <= 5:
        raise ValueError(
            f"{path.name} is a plain pickle: a file that can run commands as it is opened, so it stays closed. Save the "
            "weights as .safetensors, or with torch.save of PyTorch 1.6 or later."
        )
    raise ValueError(f"{path.name} is no model: it {_nature(start, path, about.st_size)}.")


def _nature(start: bytes, path: Path, size: int) -> str:
    if not size:
        return "is empty"
    if start.startswith(b"version https://git-lfs"):
        return "only points to the weights (a Git LFS file): download the file itself"
    for magic, what in files.BINARY.items():
        if start.startswith(magic):
            return f"is {what}"
    wanted = {
        ".gguf": "a GGUF file begins with the letters GGUF",
        ".safetensors": "a .safetensors file begins with a header",
    }
    known = next((text for suffix, text in wanted.items() if path.name.endswith(suffix)), "")
    return f"begins with {start[:8]!r}" + (
        f", and {known}" if known else ", like no format that this lab knows"
    )


def _of_safetensors(path: Path) -> str:
    """A folder with a config around it says more than the names of the tensors do."""
    if (path.parent / "config.json").is_file():
        return "own" if _made_here(path.parent / "config.json") else "hf"
    if (path.parent / "adapter_config.json").is_file():
        return "adapter"
    tensors = _module("llm.convert.folder").read_header(path)
    return _by_names(tensors) or "hf"  # it says that the config is missing


def _of_checkpoint(path: Path) -> str:
    """A file of torch.save, by the names of its tensors; it is read by hand, and nothing in it is carried out."""
    tensors = _module("llm.convert.state_dict").look(path).tensors
    if found := _by_names(tensors):
        return found
    if any(name.endswith("transformer.h.0.attn.qkv.weight") for name in tensors):
        raise ValueError(
            f"{path.name} holds weights of LitGPT, without their shape: take the whole directory, with model_config.yaml and "
            "the encoding beside lit_model.pth."
        )
    raise ValueError(
        f"{path.name} is a checkpoint of PyTorch with tensors such as {', '.join(sorted(tensors)[:3])}, and neither "
        "nanoGPT's, LitGPT's nor that of LLMs-from-scratch. Models of Hugging Face are opened from .safetensors."
    )


def _by_names(tensors: Collection[str]) -> str:
    """The importer of state dicts that knows tensors of these names; "" when none does."""
    kinds = ("nanogpt", "from_scratch")
    return next((kind for kind in kinds if _module(IMPORTERS[kind].module).is_one(tensors)), "")


# ---- Out ---------------------------------------------------------------------------------------------------------


def size(name: str, format: str, dtype: str = "") -> int:
    """Bytes that an export of the model `name` will take, about, before anything is written.

    Raises ValueError with the setting in the way when the format cannot hold the model.
    """
    return exporter(format).size(name, *numbers(format, dtype))


def exporter(format: str) -> ModuleType:
    """The module behind a key of EXPORTERS. Raises ValueError for another one."""
    if format not in EXPORTERS:
        raise ValueError(f"There is no format called {format!r}: choose {', '.join(EXPORTERS)}.")
    return _module(EXPORTERS[format].module)


def numbers(format: str, dtype: str = "") -> tuple[str, ...]:
    """How the module of a format is told the number format: not at all where there is but one."""
    if len(FORMATS[format]) == 1:
        return ()
    dtype = dtype or FORMATS[format][0]
    return (EXPORTERS[format].spelling.get(dtype, dtype),)
