"""The anatomy of a model from its config alone: every tensor with its shape, the parts they form, memory and KV cache."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from math import prod

from llm.config import ModelConfig

Shape = tuple[int, ...]

PRECISIONS = {  # number format: bits of a weight
    "fp32": 32,
    "bf16": 16,
    "int8": 8,
    "4-bit": 4,
}


@dataclass(frozen=True)
class Part:
    """One piece of a model: its tensors by the name they have in it, and how often it stands there."""

    name: str
    tensors: dict[str, Shape]
    times: int = 1
    in_block: bool = False  # it stands in each block, n_layer times

    @property
    def each(self) -> int:
        """Parameters of one of them."""
        return sum(prod(shape) for shape in self.tensors.values())

    @property
    def parameters(self) -> int:
        """Parameters of all of them."""
        return self.times * self.each


def norm(config: ModelConfig, name: str) -> dict[str, Shape]:
    """A normalisation over the width: a scale, and a shift where LayerNorm has one."""
    shifted = config.norm == "layernorm" and config.bias
    return {f"{name}.weight": (config.n_embd,)} | ({f"{name}.bias": (config.n_embd,)} if shifted else {})


def linear(name: str, rows: int, columns: int, bias: bool) -> dict[str, Shape]:
    """A matrix (rows, columns) that turns `columns` numbers into `rows`, and its bias."""
    return {f"{name}.weight": (rows, columns)} | ({f"{name}.bias": (rows,)} if bias else {})


def attention(config: ModelConfig) -> dict[str, Shape]:
    """q, k and v of all heads in one matrix, the way back to the width, and the norms of q and k where there are any."""
    C, D, H, K = config.n_embd, config.head_dim, config.n_head, config.kv_heads
    sizes = {"none": None, "head": (D, D), "width": (H * D, K * D)}[config.qk_norm]
    return {
        **linear("attention.qkv", (H + 2 * K) * D, C, config.qkv_bias),
        **linear("attention.out", C, H * D, config.bias),
        **({"attention.q_norm.weight": (sizes[0],), "attention.k_norm.weight": (sizes[1],)} if sizes else {}),
    }


def mlp(config: ModelConfig) -> dict[str, Shape]:
    """Up, the gate where there is one, and down."""
    C, hidden = config.n_embd, config.hidden
    return {
        **(linear("mlp.gate", hidden, C, config.bias) if config.gated else {}),
        **linear("mlp.up", hidden, C, config.bias),
        **linear("mlp.down", C, hidden, config.bias),
    }


def block(config: ModelConfig) -> list[Part]:
    """The pieces of one block, in the order in which a token's numbers pass them."""

    def piece(name: str, tensors: dict[str, Shape] | None = None) -> Part:
        return Part(name, norm(config, name) if tensors is None else tensors, config.n_layer, in_block=True)

    first, second = piece("attention", attention(config)), piece("mlp", mlp(config))
    norm1, norm2 = piece("norm1"), piece("norm2")
    if config.norm_position == "pre":
        return [norm1, first, norm2, second]
    if config.norm_position == "sandwich":
        return [norm1, first, piece("norm1_out"), norm2, second, piece("norm2_out")]
    return [first, norm1, second, norm2]  # post and output: a norm follows each


def parts(config: ModelConfig) -> list[Part]:
    """All pieces from the token ids to the logits. A tied output has no tensors of its own."""
    V, C = config.vocab_size, config.n_embd
    found = [Part("token embedding", {"token_embedding.weight": (V, C)})]
    if config.position == "learned":
        found.append(Part("position embedding", {"position_embedding.weight": (config.context_length, C)}))
    found += block(config)
    if config.norm_position != "post":
        found.append(Part("final norm", norm(config, "norm")))
    found.append(Part("output", {} if config.tie_embeddings else {"output.weight": (V, C)}))
    return found


def tensors(config: ModelConfig) -> Iterator[tuple[str, Shape]]:
    """Every tensor of the model by its full name, as a model directory stores it (a tied output is not stored)."""
    for in_block, pieces in groupby(parts(config), key=lambda part: part.in_block):
        together = [pair for piece in pieces for pair in piece.tensors.items()]
        for layer in range(config.n_layer if in_block else 1):
            yield from ((f"blocks.{layer}.{name}" if in_block else name, shape) for name, shape in together)


def parameters(config: ModelConfig) -> int:
    """Numbers the model has learned, by the formulas of `ModelConfig.parameters`."""
    return sum(config.parameters().values())


def memory(config: ModelConfig) -> dict[str, int]:
    """Bytes of the weights alone in each number format: parameters x bits / 8.

    Formats of 8 and 4 bits keep a scale for each small group of weights on top: GGUF's Q8_0 takes 8.5 bits a weight
    and its Q4_0 4.5, since 32 weights share a scale of 16 bits.
    """
    return {name: parameters(config) * bits // 8 for name, bits in PRECISIONS.items()}


def cache_bytes(config: ModelConfig, tokens: int, number_bytes: int = 2) -> int:
    """Bytes of the keys and values of `tokens` tokens: 2 K D T a layer, times the bytes of a number.

    A layer with a sliding window needs the last `sliding_window` tokens only. (The cache of `llm.model` keeps them all.)
    """
    window = config.sliding_window
    held = [min(tokens, window) if config.slides(layer) else tokens for layer in range(config.n_layer)]
    return 2 * config.kv_heads * config.head_dim * sum(held) * number_bytes


def cache_curve(config: ModelConfig, number_bytes: int = 2) -> list[tuple[int, int]]:
    """(tokens, bytes of the KV cache) at powers of two up to the context, and at the ends of window and context."""
    marks = {2**power for power in range(4, 32) if 2**power < config.context_length}
    marks |= {config.context_length, min(config.sliding_window, config.context_length)} - {0}
    return [(tokens, cache_bytes(config, tokens, number_bytes)) for tokens in sorted(marks)]


def sliding_layers(config: ModelConfig) -> int:
    """How many layers see only a sliding window."""
    return sum(config.slides(layer) for layer in range(config.n_layer))


NAMES = {
    # value of a field: what a person reads
    "rope": "RoPE", "learned": "learned positions", "sinusoidal": "sinusoids", "none": "no positions",
    "rmsnorm": "RMSNorm", "layernorm": "LayerNorm",
    "swiglu": "SwiGLU", "geglu": "GEGLU", "gelu": "GELU", "gelu_tanh": "GELU (tanh)", "relu": "ReLU",
}  # fmt: skip


def in_words(config: ModelConfig) -> str:
    """The shape in one line: "3 blocks of width 128, 4 heads on 2 key/value heads, RoPE, RMSNorm, SwiGLU"."""
    heads = f"{config.n_head} head{'s' if config.n_head > 1 else ''}"
    if config.kv_heads != config.n_head:
        heads += f" on {config.kv_heads} key/value head{'s' if config.kv_heads > 1 else ''}"
    blocks = f"{config.n_layer} block{'s' if config.n_layer > 1 else ''} of width {config.n_embd:,}"
    return ", ".join([blocks, heads, NAMES[config.position], NAMES[config.norm], NAMES[config.mlp]])


def behaviours(config: ModelConfig) -> list[tuple[str, str]]:
    """What the shapes do not tell, as pairs of name and value; only what this model has."""
    scaling = {
        "none": "",
        "linear": f", all pairs {config.rope_factor:g} times slower",
        "llama3": f", slow pairs {config.rope_factor:g} times slower beyond {config.rope_original:,} tokens",
    }[config.rope_scaling]
    found = [("Positions", NAMES[config.position])]
    if config.position == "rope":
        found.append(("RoPE base", f"{config.rope_theta:,.10g}{scaling}"))
        if config.rope_theta_local and config.sliding_window:
            found.append(("RoPE base of sliding layers", f"{config.rope_theta_local:,.10g}"))
        if config.rope_size != config.head_dim:
            found.append(("RoPE turns", f"{config.rope_size} of {config.head_dim} numbers of a head"))
    found.append(
        ("Norm", f"{NAMES[config.norm]}, {NORM_PLACES[config.norm_position]}, epsilon {config.norm_eps:g}")
    )
    if config.qk_norm != "none":
        over = "of each head" if config.qk_norm == "head" else "over all heads"
        found.append(("RMSNorm of q and k", over))
    if config.sliding_window:
        sees = f"{sliding_layers(config)} of {config.n_layer} layers see {config.sliding_window:,} tokens"
        found.append(("Sliding window", sees))
    if config.score_size:
        found.append(("Scores divided by", f"√{config.score_size:g}"))
    if config.embedding_scale:
        found.append(("Token vectors times", f"√{config.n_embd:,}"))
    if config.parallel:
        found.append(("Attention and MLP", "read the same stream, side by side"))
    found.append(("Biases", biases(config)))
    found.append(
        ("Output matrix", "the token embedding again (tied)" if config.tie_embeddings else "its own")
    )
    return found


NORM_PLACES = {
    "pre": "before attention and MLP",
    "post": "after each sum with the stream",
    "sandwich": "before and after attention and MLP",
    "output": "after attention and MLP, before the sum",
}


def biases(config: ModelConfig) -> str:
    """Which parts have biases, in words."""
    places = ["q, k, v"] if config.qkv_bias else []
    places += ["attention's output, MLP"] if config.bias else []
    return ", ".join(places) or "none"
