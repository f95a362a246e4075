"""The model: one decoder-only transformer whose config chooses the behaviours of GPT-2, Llama and their relatives.

Shapes: B batch, T tokens, S tokens seen so far (cache included), C width, H heads, K key/value heads, D head size,
V vocabulary. Every tensor worth seeing passes `self.tap(name, tensor)`, which returns it unchanged until `llm.trace`
puts something there to look at it or to replace it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from llm import fast
from llm.config import ModelConfig


def untouched(name: str, tensor: Tensor) -> Tensor:
    """The tap nobody uses."""
    return tensor


class Tapped(nn.Module):
    """A module with a place to look in. With no one looking, `forward` may take a faster way to the same values."""

    tap: Callable[[str, Tensor], Tensor] = staticmethod(untouched)

    @property
    def watched(self) -> bool:
        return self.tap is not untouched


class Linear(nn.Linear):
    """x W^T + b, with the weights W stored as (out, in)."""

    def forward(self, x: Tensor) -> Tensor:  # (..., in) -> (..., out)
        return fast.linear(x, self.weight, self.bias)


class LayerNorm(Tapped):
    """Each token's C numbers to mean 0 and variance 1, then a learned scale and shift (Ba et al. 2016, eq. 4)."""

    def __init__(self, config: ModelConfig, size: int = 0):
        super().__init__()
        self.eps = config.norm_eps
        self.weight = nn.Parameter(torch.ones(size or config.n_embd))
        self.bias = nn.Parameter(torch.zeros(size or config.n_embd)) if config.bias else None

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C) -> (B, T, C)
        if not self.watched:
            return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)
        mean = self.tap("mean", x.mean(-1, keepdim=True))
        variance = self.tap("variance", x.var(-1, keepdim=True, unbiased=False))
        normed = self.tap("normed", (x - mean) / torch.sqrt(variance + self.eps))
        return normed * self.weight + (0 if self.bias is None else self.bias)


class RMSNorm(Tapped):
    """Each token's C numbers divided by their root mean square, then a learned scale (Zhang & Sennrich 2019, eq. 4)."""

    def __init__(self, config: ModelConfig, size: int = 0):
        super().__init__()
        self.eps = config.norm_eps
        self.weight = nn.Parameter(torch.ones(size or config.n_embd))

    def forward(self, x: Tensor) -> Tensor:  # (..., C) -> (..., C)
        if not self.watched:
            return fast.rms_norm(x, self.weight, self.eps)
        mean_square = self.tap("mean_square", x.pow(2).mean(-1, keepdim=True))
        normed = self.tap("normed", x / torch.sqrt(mean_square + self.eps))
        return normed * self.weight


NORMS: dict[str, type[Tapped]] = {"layernorm": LayerNorm, "rmsnorm": RMSNorm}


def sinusoids(positions: Tensor, n_embd: int) -> Tensor:
    """Sines and cosines of each position at wavelengths from 2 pi to 10,000 * 2 pi (Vaswani et al. 2017, section 3.5).

    positions (...,) -> (..., C): even columns sin(p / 10000^(2i/C)), odd columns cos of the same angle.
    """
    rates = 10_000.0 ** (-torch.arange(0, n_embd, 2, device=positions.device) / n_embd)
    angles = positions[..., None] * rates
    return torch.stack((angles.sin(), angles.cos()), -1).flatten(-2)[..., :n_embd]


def rope_rates(size: int, theta: float) -> Tensor:
    """How far each pair of numbers is turned from one position to the next: theta^(-2i/size) radians. (size/2,).

    Su et al. 2021, eq. 15.
    """
    return theta ** (
        -torch.arange(0, size, 2, device="cpu") / size
    )  # also where a model is only being laid out


def rates_of(config: ModelConfig, sliding: bool = False) -> Tensor:
    """The rates of a layer of this model, slowed down where it scales RoPE for longer texts. (rope_size/2,).

    linear: all by the factor (Chen et al. 2023). llama3: pairs that turn less than rope_low times in the original
    context by the factor, those that turn more than rope_high times not at all, in between by degrees.
    """
    if sliding and config.rope_theta_local:
        return rope_rates(config.rope_size, config.rope_theta_local)
    rates = rope_rates(config.rope_size, config.rope_theta)
    if config.rope_scaling == "none":
        return rates
    slow = rates / config.rope_factor
    if config.rope_scaling == "linear":
        return slow
    turns = config.rope_original * rates / (2 * math.pi)
    kept = ((turns - config.rope_low) / (config.rope_high - config.rope_low)).clamp(0, 1)
    return kept * rates + (1 - kept) * slow


def rope_angles(positions: Tensor, rates: Tensor) -> Tensor:
    """How far each pair of a head's numbers is turned at each position: p * rate radians. (...,) -> (..., R/2)."""
    return positions[..., None] * rates.to(positions.device)


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Turn the pairs (x_i, x_{i + R/2}) of the first R numbers by their angle; the rest stays.

    x (B, H, T, D), angles (B or 1, T, R/2) -> (B, H, T, D). A turned q times a turned k depends on the distance of
    their positions only (Su et al. 2021, eq. 16).
    """
    half = angles.shape[-1]
    first, second, rest = x.split((half, half, x.shape[-1] - 2 * half), -1)
    cos, sin = angles.cos()[:, None].to(x.dtype), angles.sin()[:, None].to(x.dtype)
    return torch.cat((first * cos - second * sin, second * cos + first * sin, rest), -1)


class KVCache:
    """The keys and values of the tokens already seen, so that a new token costs one token's work.

    Each row of the batch has its own length: rows of different prompts live side by side without any padding.
    """

    def __init__(self, config: ModelConfig, batch: int, length: int, like: Tensor):
        """Room for `batch` rows of `length` tokens, in the type and on the device of `like`."""
        shape = (config.n_layer, batch, config.kv_heads, length, config.head_dim)
        self.keys = torch.zeros(shape, dtype=like.dtype, device=like.device)
        self.values = torch.zeros_like(self.keys)
        self.lengths = torch.zeros(batch, dtype=torch.long, device=like.device)  # tokens held, row by row

    def positions(self, T: int) -> Tensor:
        """(B, T): the places in the text of the next T tokens of each row."""
        return self.lengths[:, None] + torch.arange(T, device=self.lengths.device)

    def store(self, layer: int, k: Tensor, v: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Write k, v (B, K, T, D) at `positions` (B, T); return all keys and values held, (B, K, S, D)."""
        rows = torch.arange(len(positions), device=positions.device)[:, None]
        self.keys[layer][rows, :, positions] = k.transpose(1, 2).to(self.keys.dtype)
        self.values[layer][rows, :, positions] = v.transpose(1, 2).to(self.values.dtype)
        S = int(positions.max()) + 1
        return self.keys[layer][:, :, :S], self.values[layer][:, :, :S]


def causal_mask(positions: Tensor, S: int, window: int = 0) -> Tensor:
    """(B, 1, T, S): True where a token at its position may look: at itself and at what came before, `window` tokens in all."""
    back = positions[..., None] - torch.arange(S, device=positions.device)
    seen = (back >= 0) if not window else (back >= 0) & (back < window)
    return seen[:, None]


def packed_mask(positions: Tensor, window: int = 0) -> Tensor:
    """(B, 1, T, T): `causal_mask` inside each of the texts that lie end to end in a line; position 0 begins one."""
    T = positions.shape[1]
    text = (positions == 0).cumsum(1)
    places = torch.arange(T, device=positions.device)[None]
    return causal_mask(places, T, window) & (text[:, None, :, None] == text[:, None, None, :])


class Attention(Tapped):
    """Causal self-attention: each token looks back and takes a weighted mean of the values it finds.

    softmax(q k^T / sqrt(D)) v in each head (Vaswani et al. 2017, eq. 1). With fewer key/value heads than heads,
    groups of heads share them (Ainslie et al. 2023).
    """

    def __init__(self, config: ModelConfig, layer: int = 0):
        super().__init__()
        self.n_head, self.n_kv_head, self.head_dim = config.n_head, config.kv_heads, config.head_dim
        self.rates = rates_of(config, config.slides(layer)) if config.position == "rope" else None
        self.window = config.sliding_window if config.slides(layer) else 0
        self.divisor = math.sqrt(config.score_size or config.head_dim)
        self.causal = config.causal
        self.dropout = config.dropout
        self.fast = False  # take the way of llm.fast where it fits: set by llm.precision for some processors
        rows = (config.n_head + 2 * config.kv_heads) * config.head_dim
        self.qkv = Linear(config.n_embd, rows, bias=config.qkv_bias)
        self.out = Linear(config.n_head * config.head_dim, config.n_embd, bias=config.bias)
        self.qk_norm = config.qk_norm
        if config.qk_norm != "none":
            heads = (config.n_head, config.kv_heads) if config.qk_norm == "width" else (1, 1)
            self.q_norm, self.k_norm = (RMSNorm(config, n * config.head_dim) for n in heads)

    def forward(
        self, x: Tensor, positions: Tensor, cache: KVCache | None = None, layer: int = 0, packed: bool = False
    ) -> Tensor:
        B, T, _ = x.shape
        heads = self.qkv(x).view(B, T, -1, self.head_dim).transpose(1, 2)
        q, k, v = heads.split((self.n_head, self.n_kv_head, self.n_kv_head), dim=1)  # (B, H or K, T, D)
        if self.qk_norm != "none":
            q, k = self.norm_heads(self.q_norm, q), self.norm_heads(self.k_norm, k)
        q, k, v = self.tap("q", q), self.tap("k", k), self.tap("v", v)
        if self.rates is not None:
            angles = rope_angles(positions, self.rates)
            turn = fast.rotate if self.fast and not self.watched else rotate
            q, k = self.tap("q_turned", turn(q, angles)), self.tap("k_turned", turn(k, angles))
        if cache is not None:
            k, v = cache.store(layer, k, v, positions)
        # each sees all that came before it
        plain = cache is None and not packed and not 0 < self.window < T and self.causal
        mask = None if plain and not self.watched else self.mask(positions, k.shape[2], packed)
        if self.watched:
            y = self.attend(q, k, v, mask)
        elif self.fast and plain and not (self.training and self.dropout):
            y = fast.causal_attention(q, k, v.to(q.dtype), 1 / self.divisor)
        else:
            y = F.scaled_dot_product_attention(
                q,
                k.to(q.dtype),
                v.to(q.dtype),
                attn_mask=None if plain else mask,
                is_causal=plain,
                dropout_p=self.dropout if self.training else 0.0,
                scale=1 / self.divisor,
                enable_gqa=self.n_kv_head != self.n_head,
            )
        y = self.tap("heads", y)  # (B, H, T, D)
        return self.tap("out", self.out(y.transpose(1, 2).flatten(2)))

    def mask(self, positions: Tensor, S: int, packed: bool) -> Tensor:
        """(B, 1, T, S): True where a token may look. Without the causal mask each sees what follows it, too."""
        mask = packed_mask(positions, self.window) if packed else causal_mask(positions, S, self.window)
        if self.causal:
            return mask
        return mask | mask.transpose(-2, -1) if mask.shape[-2] == S else torch.ones_like(mask)

    def norm_heads(self, norm: RMSNorm, x: Tensor) -> Tensor:
        """RMSNorm of q or k, of each head or over the width of all heads. (B, H, T, D) -> (B, H, T, D)."""
        if self.qk_norm == "head":
            return norm(x)
        return norm(x.transpose(1, 2).flatten(2)).unflatten(2, (-1, self.head_dim)).transpose(1, 2)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """The same in single steps: q (B, H, T, D), k and v (B, K, S, D), mask (B or 1, 1, T, S) -> (B, H, T, D)."""
        group = self.n_head // self.n_kv_head
        k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
        scores = self.tap("scores", q @ k.transpose(-2, -1))  # (B, H, T, S)
        scaled = self.tap("scaled", scores / self.divisor)
        masked = scaled.masked_fill(~mask, -torch.inf)
        weights = self.tap("weights", torch.softmax(self.tap("masked", masked), dim=-1))
        kept = self.tap(
            "dropped", F.dropout(weights, self.dropout, self.training)
        )  # kept ones grow by 1 / (1 - p)
        return kept.to(v.dtype) @ v


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,  # x * Phi(x), Hendrycks & Gimpel 2016
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),  # their approximation, which GPT-2 uses
    "relu": F.relu,
    "swiglu": F.silu,  # x * sigmoid(x), on the gate
    "geglu": lambda x: F.gelu(x, approximate="tanh"),  # on the gate (Shazeer 2020, eq. 6)
}


class MLP(Tapped):
    """Each token by itself: wider, bent by a curve, and back. SwiGLU and GEGLU multiply by a gate (Shazeer 2020, eq. 6)."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.activation = ACTIVATIONS[config.mlp]
        self.gate = Linear(config.n_embd, config.hidden, bias=config.bias) if config.gated else None
        self.up = Linear(config.n_embd, config.hidden, bias=config.bias)
        self.down = Linear(config.hidden, config.n_embd, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C) -> (B, T, C)
        bent = self.up if self.gate is None else self.gate
        before = self.tap("before", bent(x))  # (B, T, hidden)
        after = self.tap("after", self.activation(before))
        if self.gate is not None:
            after = self.tap("gated", after * self.tap("up", self.up(x)))
        return self.tap("out", self.down(after))


class Block(Tapped):
    """Attention, then MLP, each added to the stream that runs through all blocks (the residual stream).

    norm_position pre: x + f(norm(x)), as GPT-2 and Llama do; post: norm(x + f(x)), as the first transformer did;
    sandwich: x + norm(f(norm(x))), as Gemma 3 does; output: x + norm(f(x)), as OLMo 2 does.
    """

    def __init__(self, config: ModelConfig, layer: int = 0):
        super().__init__()
        self.norm_position, self.parallel = config.norm_position, config.parallel
        norm = NORMS[config.norm]
        self.norm1, self.attention = norm(config), Attention(config, layer)
        self.norm2, self.mlp = norm(config), MLP(config)
        if config.norm_position == "sandwich":
            self.norm1_out, self.norm2_out = norm(config), norm(config)
        self.drop = nn.Dropout(config.dropout)

    def forward(
        self, x: Tensor, positions: Tensor, cache: KVCache | None = None, layer: int = 0, packed: bool = False
    ) -> Tensor:
        x = self.tap("input", x)
        if self.norm_position == "post":
            attended = self.attention(x, positions, cache, layer, packed)
            x = self.norm1(self.tap("sum1", x + self.drop(attended)))
            x = self.tap("middle", x)
            return self.tap("output", self.norm2(self.tap("sum2", x + self.drop(self.mlp(x)))))
        before = self.norm_position in ("pre", "sandwich")
        normed = self.tap("norm1", self.norm1(x)) if before else x
        added = self.after(1, self.attention(normed, positions, cache, layer, packed))
        middle = self.tap("middle", x + self.drop(added))
        source = x if self.parallel else middle
        normed = self.tap("norm2", self.norm2(source)) if before else source
        return self.tap("output", middle + self.drop(self.after(2, self.mlp(normed))))

    def after(self, part: int, y: Tensor) -> Tensor:
        """What part 1 (attention) or 2 (MLP) adds to the stream: its output, normed where this block does so."""
        if self.norm_position == "sandwich":
            y = (self.norm1_out if part == 1 else self.norm2_out)(y)
        elif self.norm_position == "output":
            y = (self.norm1 if part == 1 else self.norm2)(y)
        return self.tap(f"added{part}", y)


class GPT(Tapped):
    """Token ids in, one row of logits a position out: the scores of every possible next token."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        assert config.vocab_size > 0, "the encoding's size must be filled in before a model is made"
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.n_embd)
        self.position_embedding = (
            nn.Embedding(config.context_length, config.n_embd) if config.position == "learned" else None
        )
        self.drop = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
        self.norm = nn.Identity() if config.norm_position == "post" else NORMS[config.norm](config)
        self.output = Linear(config.n_embd, config.vocab_size, bias=False)
        if config.tie_embeddings:
            self.output.weight = self.token_embedding.weight  # one matrix, two uses (Press & Wolf 2017)
        self.initialise()

    def initialise(self) -> None:
        """Random weights as GPT-2 begins (section 2.3), whose 0.02 belongs to a width of 768: narrower, larger.

        The first logits then spread alike at every width, and the first loss is close to ln V.
        """
        std = 0.02 * math.sqrt(768 / self.config.n_embd)
        for name, p in self.named_parameters():
            if name.endswith(("attention.out.weight", "mlp.down.weight")):  # 2 L sums: keep the stream's size
                nn.init.normal_(p, std=std / math.sqrt(2 * self.config.n_layer))
            elif p.dim() == 2:
                nn.init.normal_(p, std=std)
            elif name.endswith("bias"):
                nn.init.zeros_(p)

    def forward(self, idx: Tensor, cache: KVCache | None = None) -> Tensor:
        """idx (B, T) token ids -> logits (B, T, V). With a cache, idx are the tokens after those it holds.

        Raises ValueError when a learned position is asked for that the model does not have.
        """
        return self.tap("logits", self.output(self.hidden(idx, cache)))

    def hidden(self, idx: Tensor, cache: KVCache | None = None, positions: Tensor | None = None) -> Tensor:
        """idx (B, T) -> (B, T, C): what the output matrix turns into logits.

        positions (B, T): places in texts that lie end to end, each of which begins at 0 and sees only itself.
        """
        T, packed = idx.shape[1], positions is not None
        if positions is None:
            positions = torch.arange(T, device=idx.device)[None] if cache is None else cache.positions(T)
        x = self.embed(idx, positions)
        for layer, block in enumerate(self.blocks):
            x = block(x, positions, cache, layer, packed)
        if cache is not None:
            cache.lengths += T
        return self.tap("final", self.norm(x))

    def refuse_unlearned(self, positions: Tensor) -> None:
        """Raise ValueError for a position beyond those that the model has learned."""
        if positions.is_cuda and torch.cuda.is_current_stream_capturing():
            return  # what is recorded cannot be looked at; see llm.recorded, which asks before
        last = int(positions.max())
        if last >= self.config.context_length:
            raise ValueError(
                f"This model has learned {self.config.context_length} positions and cannot read token number "
                f"{last + 1}: shorten the text."
            )

    def embed(self, idx: Tensor, positions: Tensor) -> Tensor:
        """idx (B, T), positions (B or 1, T) -> (B, T, C): the token's vector plus, for some models, its place's."""
        x = self.token_embedding(idx)
        x = self.tap("token", x * math.sqrt(self.config.n_embd) if self.config.embedding_scale else x)
        if self.position_embedding is not None:
            self.refuse_unlearned(positions)
            x = x + self.tap("position", self.position_embedding(positions))
        elif self.config.position == "sinusoidal":
            x = x + self.tap("position", sinusoids(positions, self.config.n_embd).to(x.dtype))
        return self.tap("embedded", self.drop(x))

    @property
    def device(self) -> torch.device:
        return self.token_embedding.weight.device
