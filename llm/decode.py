"""One more token for every text, with few operations: the values of `llm.model` where each row reads one token.

A small model spends most of such a step not on its matrices but on getting from one operation to the next. Here what all layers
share (positions, angles, masks) is worked out once, and no place is left to look in. model.py says what is computed; tests
hold the two together for every shape that the config allows.

Shapes: B texts, S tokens seen so far by the longest of them (this one included), C width, H heads, K key/value heads, D head size.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from llm.model import GPT, Attention, Block, KVCache, causal_mask, rope_angles, rotate


class Shared:
    """What every layer of one step needs: where the new tokens stand, and views of the cache."""

    def __init__(self, model: GPT, cache: KVCache):
        self.cache = cache
        self.positions = cache.lengths[:, None]  # (B, 1)
        lengths = cache.lengths.tolist()
        self.S = max(lengths) + 1
        self.level = min(lengths) == self.S - 1  # all texts are equally long: no row needs a mask
        self.rows = torch.arange(len(lengths), device=cache.lengths.device)
        self.keys = cache.keys[:, :, :, : self.S].unbind(0)  # of each layer (B, K, S, D)
        self.values = cache.values[:, :, :, : self.S].unbind(0)
        if self.level:
            self.new_keys = cache.keys[:, :, :, self.S - 1].unbind(0)  # (B, K, D), to be written
            self.new_values = cache.values[:, :, :, self.S - 1].unbind(0)
        self.masks: dict[int, Tensor | None] = {}
        self.turns: dict[bool, tuple[Tensor, Tensor, Tensor]] = {}

    def mask(self, window: int) -> Tensor | None:
        """(B, 1, 1, S): where the new tokens may look; None where that is everywhere."""
        if self.level and not 0 < window < self.S:
            return None
        if window not in self.masks:
            self.masks[window] = causal_mask(self.positions, self.S, window)
        return self.masks[window]

    def turn(self, attention: Attention, x: Tensor) -> Tensor:
        """RoPE of queries and keys together, (B, H + K, D), as `llm.model.rotate` does it.

        (first, second) * cos + (second, first) * (-sin, sin): where all of a head is turned, the swap is a roll by half of it.
        """
        kind = bool(attention.window)  # layers with a window may have rates of their own
        if kind not in self.turns:
            angles = rope_angles(self.positions, attention.rates)  # (B, 1, R/2)
            cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
            self.turns[kind] = angles, torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1)
        angles, cos, sin = self.turns[kind]
        if cos.shape[-1] < x.shape[-1]:
            return rotate(x[:, :, None], angles)[:, :, 0]
        return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin)

    def store(self, layer: int, k: Tensor, v: Tensor) -> None:
        """Write the new keys and values (B, K, D) of a layer into the cache."""
        if self.level:
            self.new_keys[layer].copy_(k)
            self.new_values[layer].copy_(v)
        else:
            at = self.cache.lengths
            self.keys[layer][self.rows, :, at] = k.to(self.cache.keys.dtype)
            self.values[layer][self.rows, :, at] = v.to(self.cache.values.dtype)


def cache_type(model: GPT) -> Tensor:
    """An empty tensor of the type and on the device that the cache is best kept in: on a processor fp32.

    There, attention over bf16 is converted number by number and takes several times as long.
    """
    weight = model.token_embedding.weight
    return weight.new_empty(0, dtype=torch.float32 if weight.device.type == "cpu" else weight.dtype)


def step(model: GPT, idx: Tensor, cache: KVCache) -> Tensor:
    """idx (B, 1), the token after those the cache holds -> logits (B, V); the cache then holds it.

    Raises ValueError as `GPT.forward` does, for a learned position that the model does not have.
    """
    shared = Shared(model, cache)
    x = model.embed(idx, shared.positions)[:, 0]  # (B, C)
    for layer, block in enumerate(model.blocks):
        x = through(block, layer, x, shared)
    cache.lengths += 1
    return model.output(model.norm(x))


def through(block: Block, layer: int, x: Tensor, shared: Shared) -> Tensor:
    """x (B, C) -> (B, C), as `Block.forward`."""
    if block.norm_position == "post":
        x = block.norm1(x + attend(block.attention, layer, x, shared))
        return block.norm2(x + block.mlp(x))
    before = block.norm_position in ("pre", "sandwich")
    added = attend(block.attention, layer, block.norm1(x) if before else x, shared)
    middle = x + block.after(1, added)
    source = x if block.parallel else middle
    return middle + block.after(2, block.mlp(block.norm2(source) if before else source))


def attend(attention: Attention, layer: int, x: Tensor, shared: Shared) -> Tensor:
    """x (B, C) -> (B, C), as `Attention.forward`: softmax over the scores with the tokens in the cache."""
    H, K, D = attention.n_head, attention.n_kv_head, attention.head_dim
    heads = attention.qkv(x).view(len(x), -1, D)
    qk, v = heads[:, : H + K], heads[:, H + K :]
    if attention.qk_norm != "none":
        q, k = (part[:, :, None] for part in qk.split((H, K), 1))  # (B, H or K, 1, D)
        qk = torch.cat((attention.norm_heads(attention.q_norm, q), attention.norm_heads(attention.k_norm, k)), 1)[:, :, 0]  # fmt: skip
    if attention.rates is not None:
        qk = shared.turn(attention, qk)
    shared.store(layer, qk[:, H:], v)
    keys, values = shared.keys[layer], shared.values[layer]
    y = F.scaled_dot_product_attention(
        qk[:, :H, None].to(keys.dtype),
        keys,
        values,
        attn_mask=shared.mask(attention.window),
        scale=1 / attention.divisor,
        enable_gqa=H != K,
    )
    return attention.out(y.flatten(1).to(x.dtype))
