"""Checkpoints of nanoGPT: a state dict in GPT-2's names, with the shape of the model beside it or without."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from llm.config import ModelConfig
from llm.convert import families, state_dict
from llm.convert.source import Source
from llm.tokenizer import CharTokenizer

# GPT-2's names; its matrices stand as nn.Linear has them, not turned as in OpenAI's files.
TABLE = replace(families.FAMILIES["gpt2"], transposed=False)
EMBEDDING, OUTPUT = "transformer.wte.weight", "lm_head.weight"
SHAPE = ("n_layer", "n_head", "n_embd", "block_size", "vocab_size")
KNOWN = {*SHAPE, "bias", "dropout"}  # what nanoGPT keeps of its settings


def is_one(names: object) -> bool:
    """Whether tensors of these names are nanoGPT's."""
    return EMBEDDING in names and "transformer.h.0.attn.c_attn.weight" in names


def look(path: Path, encoding: str = "", n_head: int = 0) -> Source:
    """A nanoGPT checkpoint, or the folder that has its ckpt.pt, before any weight is read.

    encoding, n_head: for what the file does not say. Raises ValueError in words when the file is none, or when
    something is missing that nobody could guess.
    """
    path = path / "ckpt.pt" if path.is_dir() else path
    held = state_dict.look(path)
    if not is_one(held.tensors):
        raise ValueError(f"{path.name} is no nanoGPT checkpoint: it has no {EMBEDDING}.")
    config, notes = _config(held, n_head)
    files, more = _encoding(held, encoding, config.vocab_size)
    if (path.parent / "meta.pkl").is_file():
        more.append("meta.pkl lies beside it and was not opened: a pickle can run commands.")
    step = held.rest.get("iter_num")
    return state_dict.source(
        held,
        config,
        TABLE,
        families.bare,
        {
            r"lm_head\.weight": "the token embedding once more",
            r"transformer\.h\.\d+\.attn\.bias": "the causal mask: made anew here",
        },
        container="nanoGPT checkpoint",
        family="nanogpt",
        files=files,
        facts={"origin": path.name, **({"steps": f"{step:,}"} if type(step) is int else {})},
        notes=(*notes, *more),
    )


def _config(held: state_dict.StateDict, n_head: int) -> tuple[ModelConfig, list[str]]:
    """The shape of the model, by its tensors; what the file says of it must agree. And notes."""
    tensors = held.tensors
    vocab_size, n_embd = state_dict.shape(tensors, EMBEDDING)
    context_length, _ = state_dict.shape(tensors, "transformer.wpe.weight")
    n_layer = state_dict.layers(tensors, "transformer.h.{}.")
    said = held.rest.get("model_args")
    notes = [
        "The MLP's curve is taken to be the exact GELU, as nanoGPT has it since 2023; earlier ones used its tanh form."
    ]
    if isinstance(said, dict):
        found = dict(n_layer=n_layer, n_embd=n_embd, block_size=context_length, vocab_size=vocab_size)
        _refuse(said, {**found, **({"n_head": n_head} if n_head else {})})
        n_head = said.get("n_head", n_head)
    n_head, assumed = state_dict.heads(n_embd, n_head)
    bias = "transformer.h.0.attn.c_proj.bias" in tensors  # `source` misses what only some layers have
    config = ModelConfig(
        vocab_size=vocab_size,
        context_length=context_length,
        n_layer=n_layer,
        n_head=n_head,
        n_embd=n_embd,
        position="learned",
        norm="layernorm",
        mlp="gelu",
        bias=bias,
        # where the file says that there are biases, one that lacks is missing; else the tensors tell
        qkv_bias="transformer.h.0.attn.c_attn.bias" in tensors
        or (isinstance(said, dict) and said.get("bias") is True),
        tie_embeddings=state_dict.tied(held, EMBEDDING, OUTPUT),
    )
    return config, [*notes, *assumed]


def _refuse(said: dict[str, Any], found: dict[str, int]) -> None:
    """Raise ValueError when the settings in the file are not nanoGPT's, or are not those of its tensors."""
    for name in SHAPE:
        if name in said and type(said[name]) is not int:
            raise ValueError(
                f"model_args says that {name} is {str(said[name])[:40]!r}: it should be a whole number."
            )
        if name in said and said[name] != found.get(name, said[name]):
            raise ValueError(
                f"model_args says that {name} is {said[name]:,} and the tensors or you say {found[name]:,}: they do not "
                "belong together."
            )
    if other := [f"{name} = {str(said[name])[:40]}" for name in said if name not in KNOWN and said[name]]:
        raise ValueError(
            f"model_args has settings that nanoGPT does not have ({', '.join(other)[:200]}): a variant of it, whose "
            "calculation is unknown here."
        )


def _encoding(
    held: state_dict.StateDict, name: str, vocab_size: int
) -> tuple[dict[str, bytes | Path], list[str]]:
    """The tokenizer.json: by name, of the characters that the checkpoint lists, or GPT-2's by the vocabulary's size."""
    listed = held.rest.get("itos", held.rest.get("chars"))
    if isinstance(listed, dict):
        listed = [listed.get(id) for id in range(len(listed))]
    single = isinstance(listed, (list, str)) and all(isinstance(c, str) and len(c) == 1 for c in listed)
    if not name and single and len(listed) == vocab_size:
        made = CharTokenizer("".join(listed))
        return {"tokenizer.json": state_dict.as_file(made)}, [
            "The encoding is made of the characters that the checkpoint lists."
        ]
    why = "nanoGPT keeps their meaning outside of the checkpoint, in meta.pkl, a pickle that is not opened"
    return state_dict.encoding(name, vocab_size, held.path.parent, why)
