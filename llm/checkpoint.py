"""A model directory in and out: config.json, model.safetensors, tokenizer.json and a card, each written whole or not at all."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from math import prod
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.overrides import TorchFunctionMode

from llm import inventory, paths, tokenizer
from llm.config import ModelConfig, to_dict
from llm.model import GPT

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
SAFETENSORS = {"fp32": "F32", "bf16": "BF16", "fp16": "F16"}  # what that format calls them
# What a model brings along and keeps: its end-of-text and chat template, the tokens that end an answer.
EXTRAS = ("tokenizer_config.json", "chat_template.jinja", "generation_config.json")
CLASSIFIER = ("classifier.json", "classifier.safetensors")  # the head that makes classes of texts
CHUNK = 16 * 2**20  # numbers converted at once
Progress = Callable[[str, int, int], None]  # what, bytes done, bytes in all; may raise to stop


def save_model(
    folder: Path,
    model: GPT,
    encoding: tokenizer.Tokenizer,
    card: str,
    dtype: str = "fp32",
    extras: Mapping[str, bytes | Path] | None = None,
) -> None:
    """Write a model directory. config.json comes last, so a directory that has one is whole.

    extras: files to keep beside the tokenizer, see `extras_of`. Raises OSError when the disk refuses; what was there
    before is then still whole, file by file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        name: p.detach().to("cpu", DTYPES[dtype]).contiguous()
        for name, p in model.state_dict().items()
        if not (model.config.tie_embeddings and name == "output.weight")  # stored once, as the embedding
    }
    with paths.replacing(folder / "model.safetensors") as temporary:
        save_file(weights, temporary, metadata={"format": "pt"})
    encoding.save(folder)
    for name, content in (extras or {}).items():
        with paths.replacing(folder / name) as temporary:
            temporary.write_bytes(content if isinstance(content, bytes) else content.read_bytes())
    with paths.replacing(folder / "README.md") as temporary:
        temporary.write_text(card, encoding="utf-8")
    write_config(folder, model.config)


def write_config(folder: Path, config: ModelConfig) -> None:
    """Write config.json: the last file of a model directory."""
    with paths.replacing(folder / "config.json") as temporary:
        stored = {"version": inventory.VERSION, "made_by": "LLM Lab", **to_dict(config)}
        temporary.write_text(json.dumps(stored, indent=2) + "\n", encoding="utf-8")


def extras_of(folder: Path) -> dict[str, Path]:
    """The files of a model directory that belong to its tokenizer and that nothing here makes anew."""
    return {name: folder / name for name in EXTRAS if (folder / name).is_file()}


def write_tensors(
    path: Path,
    wanted: Mapping[str, tuple[str, tuple[int, ...]]],
    tensors: Iterable[tuple[str, torch.Tensor]],
    progress: Progress | None = None,
) -> None:
    """Write a safetensors file one tensor at a time, so that a model larger than the memory can pass through.

    wanted: name -> (fp32, bf16 or fp16; shape) of every tensor, which may then come in any order. Raises ValueError
    when one is missing, unknown or misshapen, OSError when the disk refuses.
    """
    # the format wants them without gaps, and readers want each to begin at a multiple of its item size
    order = sorted(wanted, key=lambda name: (-DTYPES[wanted[name][0]].itemsize, name))
    header: dict = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in order:
        dtype, shape = wanted[name]
        begin, end = end, end + prod(shape) * DTYPES[dtype].itemsize
        header[name] = {"dtype": SAFETENSORS[dtype], "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode("utf-8")
    text += b" " * (-(len(text) + 8) % 64)  # the numbers begin at a multiple of 64, for the processor
    left, done = set(wanted), 0
    with open(path, "wb") as f:
        f.write(len(text).to_bytes(8, "little") + text)
        for name, tensor in tensors:
            if name not in left or tuple(tensor.shape) != tuple(wanted[name][1]):
                raise ValueError(f"The tensor {name} of shape {tuple(tensor.shape)} was not expected here.")
            left.remove(name)
            f.seek(8 + len(text) + header[name]["data_offsets"][0])
            for part in tensor.detach().reshape(-1).split(CHUNK):
                part = part.to("cpu", DTYPES[wanted[name][0]])
                if part.dtype is torch.float16 and part.isinf().any():
                    raise ValueError(f"{name} has numbers beyond 65,504, the largest of fp16: choose bf16.")
                f.write(memoryview(part.view(torch.uint8).numpy()))
                done += part.nbytes
                if progress:
                    progress(name, done, end)
    if left:
        raise ValueError(f"{len(left)} tensors are missing: {', '.join(sorted(left)[:4])}.")


def read_weights(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of model.safetensors one after the other, mapped from the file. Raises ValueError when it is damaged.

    Those of 32 bits are used where they lie; a file of smaller numbers, which are copied into larger ones, is opened
    anew for every few tensors, so that the pages already read do not stay in memory.
    """
    path = folder / "model.safetensors"
    try:
        with safe_open(path, framework="pt") as f:
            names = list(f.keys())
            mapped = all(f.get_slice(name).get_dtype() == "F32" for name in names)
        few = max(1, len(names) if mapped else len(names) // 20)
        for start in range(0, len(names), few):
            with safe_open(path, framework="pt") as f:
                for name in names[start : start + few]:
                    yield name, f.get_tensor(name)
    except (OSError, SafetensorError) as error:
        raise ValueError(
            f"The weights of {paths.called(folder)} cannot be read (model.safetensors is missing, cut short or damaged): {error}."
        ) from None


def fill(
    model: GPT, weights: Mapping[str, torch.Tensor] | Iterable[tuple[str, torch.Tensor]], where: str
) -> GPT:
    """Make `weights` those of `model`, in fp32: tensors of that format are taken as they are, others converted one by one.

    Raises ValueError with the names when any is missing, left over or misshapen.
    """
    wanted = dict(model.named_parameters())  # a matrix with two uses has one name
    taken: dict[str, torch.Tensor] = {}
    extra, shapes = [], []
    for name, tensor in weights.items() if isinstance(weights, Mapping) else weights:
        if name not in wanted:
            extra.append(name)
        elif tensor.shape != wanted[name].shape:
            shapes.append(f"{name} is {tuple(tensor.shape)}, not {tuple(wanted[name].shape)}")
        taken[name] = tensor.to(torch.float32)
    missing = sorted(set(wanted) - set(taken))
    if missing or extra or shapes:
        listed = [
            *(f"missing {n}" for n in missing),
            *(f"unknown {n}" for n in sorted(extra)),
            *sorted(shapes),
        ]
        raise ValueError(
            f"The weights of {where} do not fit its config: {'; '.join(listed[:8])}"
            + (f"; and {len(listed) - 8} more." if len(listed) > 8 else ".")
        )
    model.load_state_dict(taken, strict=False, assign=True)
    if model.config.tie_embeddings:
        model.output.weight = model.token_embedding.weight
    return model


def load_model(folder: Path) -> tuple[GPT, tokenizer.Tokenizer]:
    """The model (fp32, in evaluation mode) and the encoding of a model directory.

    Raises ValueError when a file is missing or damaged, or when encoding and model do not belong together.
    """
    config, encoding = inventory.shape(folder), tokenizer.load(folder)
    check_pair(config, encoding, paths.called(folder))
    return fill(empty_model(config), read_weights(folder), paths.called(folder)).eval(), encoding


def check_pair(config: ModelConfig, encoding: tokenizer.Tokenizer, where: str) -> None:
    """Raise ValueError unless the model has a row for every id, and at most a tenth of its rows are padding."""
    if not 0.9 * config.vocab_size <= encoding.vocab_size <= config.vocab_size:
        raise ValueError(
            f"The encoding of {where} has {encoding.vocab_size:,} ids and the model {config.vocab_size:,}: they do "
            "not belong together."
        )


class Unfilled(TorchFunctionMode):
    """Where this is on, the functions that give a tensor its first values leave it as it is."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if getattr(func, "__module__", "") == "torch.nn.init" or func in (
            torch.Tensor.normal_,
            torch.Tensor.uniform_,
        ):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def empty_model(config: ModelConfig) -> GPT:
    """A model whose weights are about to be filled in: they take no memory and hold nothing yet.

    (Random numbers for tensors without memory would cost nothing but the import of torch's compiler: seconds.)
    """
    with torch.device("meta"), Unfilled():
        return GPT(config)


def copy(name: str, folder: Path, dtype: str) -> None:
    """Write the model `name`, its adapter, the steps it kept on its way and its log into `folder`, in another number format.

    Raises ValueError when there is no such model.
    """
    source = None if "@" in name else paths.runs() / paths.checked_name(name, "run")
    for step in (
        "",
        *(n.partition("@")[2] for n in paths.model_names(steps=True) if n.startswith(f"{name}@")),
    ):
        origin = paths.model_folder(f"{name}@{step}" if step else name)
        model, encoding = load_model(origin)
        card = (origin / "README.md").read_text(encoding="utf-8")
        target = folder / "steps" / step if step else folder
        heads = {file: origin / file for file in CLASSIFIER if (origin / file).is_file()}
        save_model(target, model, encoding, card, dtype, extras_of(origin) | heads)
    if source and (source / "adapter").is_dir():  # as it was trained, in fp32
        shutil.copytree(source / "adapter", folder / "adapter", dirs_exist_ok=True)
    if source and (source / "events.jsonl").is_file():
        shutil.copyfile(source / "events.jsonl", folder / "events.jsonl")


def main(arguments: list[str] | None = None) -> None:
    """`python -m llm.checkpoint NAME FOLDER`: a model with its kept steps and its log, to ship or to hand on."""
    parser = argparse.ArgumentParser(prog="python -m llm.checkpoint", description=main.__doc__)
    parser.add_argument("name", help="a model or run")
    parser.add_argument("folder", type=Path, help="where to write it")
    parser.add_argument("--dtype", choices=DTYPES, default="bf16", help="number format of the weights")
    given = parser.parse_args(arguments)
    try:
        copy(given.name, given.folder, given.dtype)
    except ValueError as error:
        parser.exit(2, f"{error}\n")


if __name__ == "__main__":
    main()
