"""State dicts of the GPT of the book "Build a Large Language Model (From Scratch)", chapters 4 and 5, and its faster form."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from llm.config import ModelConfig
from llm.convert import families, state_dict
from llm.convert.source import Source

EMBEDDING, OUTPUT = "tok_emb.weight", "out_head.weight"
BLOCK = "trf_blocks.{}."
NAMES = {  # the book's model; the faster one of its bonus material joins q, k and v as ours does
    "token_embedding": "tok_emb",
    "position_embedding": "pos_emb",
    "norm": "final_norm",
    "output": "out_head",
    "norm1": f"{BLOCK}norm1",
    "norm2": f"{BLOCK}norm2",
    "attention.qkv": (f"{BLOCK}att.W_query", f"{BLOCK}att.W_key", f"{BLOCK}att.W_value"),
    "attention.out": f"{BLOCK}att.out_proj",
    "mlp.up": f"{BLOCK}ff.layers.0",
    "mlp.down": f"{BLOCK}ff.layers.2",
}
FAST = {"attention.qkv": f"{BLOCK}att.qkv", "attention.out": f"{BLOCK}att.proj"}


def is_one(names: object) -> bool:
    """Whether tensors of these names are of the book's GPT."""
    return EMBEDDING in names and "pos_emb.weight" in names and "trf_blocks.0.ff.layers.0.weight" in names


def look(path: Path, encoding: str = "", n_head: int = 0) -> Source:
    """A state dict, saved by torch.save (alone or with its optimizer, as in chapter 5) or as safetensors, not yet read.

    encoding, n_head: for what the file does not say. Raises ValueError in words when the file is none, or when
    something is missing that nobody could guess.
    """
    held = state_dict.look(path)
    if not is_one(held.tensors):
        raise ValueError(
            f"{path.name} is no GPT of the book's chapters 4 and 5: it has no {EMBEDDING}, pos_emb.weight and "
            "trf_blocks.0.ff.layers.0.weight."
        )
    vocab_size, n_embd = state_dict.shape(held.tensors, EMBEDDING)
    context_length, _ = state_dict.shape(held.tensors, "pos_emb.weight")
    fast = "trf_blocks.0.att.qkv.weight" in held.tensors
    n_head, notes = state_dict.heads(n_embd, n_head)
    config = ModelConfig(
        vocab_size=vocab_size,
        context_length=context_length,
        n_layer=state_dict.layers(held.tensors, BLOCK),
        n_head=n_head,
        n_embd=n_embd,
        position="learned",
        norm="layernorm",
        mlp="gelu_tanh",
        bias=True,
        qkv_bias=f"trf_blocks.0.att.{'qkv' if fast else 'W_query'}.bias" in held.tensors,
        tie_embeddings=state_dict.tied(held, EMBEDDING, OUTPUT),
    )
    files, more = state_dict.encoding(
        encoding, vocab_size, path.parent, "the file does not say what they mean"
    )
    return state_dict.source(
        held,
        config,
        replace(families.FAMILIES["gpt2"], names={**NAMES, **(FAST if fast else {})}, transposed=False),
        _called,
        {
            r"out_head\.weight": "the token embedding once more",
            r"trf_blocks\.\d+\.att\.mask": "the causal mask: made anew here",
        },
        container="LLMs-from-scratch state dict",
        family="llms-from-scratch",
        files=files,
        facts={"origin": path.name},
        notes=(*notes, *more),
    )


def _called(name: str) -> str:
    """The book calls a norm's weight its scale and its bias its shift."""
    for theirs, usual in ((".scale", ".weight"), (".shift", ".bias")):
        if name.endswith(theirs):
            return name.removesuffix(theirs) + usual
    return name
