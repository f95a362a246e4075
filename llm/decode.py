"""One more token for every text, with few operations: the values of `llm.model` where each row reads one token.

A small model spends most of such a step not on its matrices but on getting from one operation to the next. Here what all layers
share (positions, angles, masks) is worked out once, and no place is left to look in. model.py says what is computed; tests
hold the two together for every shape that the config allows.

Shapes: B texts, S tokens seen so far by the longest of them (this one included), C width, H heads, K key/value heads, D head size.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from llm import quantised
from llm.model import GPT, Block, KVCache, causal_mask, rope_angles, rotate

FEW = 4  # key/value heads of all texts up to which they are better worked on by one core
Way = Callable[[Tensor], Tensor]


class Shared:
    """What every layer of one step needs: where the new tokens stand, and views of the cache."""

    def __init__(self, cache: KVCache, fixed: bool = False):
        """`fixed`: the same operations on the same places at every step, with the whole cache in view and masks for what is not there yet."""
        self.cache = cache
        self.positions = cache.lengths[:, None]  # (B, 1)
        B, K, room = cache.keys.shape[1:4]
        lengths = [] if fixed else cache.lengths.tolist()
        self.S = max(lengths) + 1 if lengths else room
        self.level = bool(lengths) and min(lengths) == self.S - 1  # all equally long: no row needs a mask
        self.rows = torch.arange(B, device=cache.lengths.device)
        self.few = cache.keys.device.type == "cpu" and B * K <= FEW
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

    def turn(self, layer: Layer, x: Tensor) -> Tensor:
        """RoPE of queries and keys together, (B, H + K, D), as `llm.model.rotate` does it.

        (first, second) * cos + (second, first) * (-sin, sin): where all of a head is turned, the swap is a roll by half of it.
        """
        kind = bool(layer.window)  # layers with a window may have rates of their own
        if kind not in self.turns:
            angles = rope_angles(self.positions, layer.rates)  # (B, 1, R/2)
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


def same(x: Tensor) -> Tensor:
    """Where a model has no norm."""
    return x


def straight(part: nn.Module) -> Way:
    """A part as a function of x: what nn.Module does around every call and look-up, a thousand times a token, is done once."""
    return part.as_function() if isinstance(part, quantised.Smaller) else part.forward


class Layer:
    """One block with its parts at hand."""

    def __init__(self, block: Block, device: torch.device):
        attention, mlp = block.attention, block.mlp
        self.parallel, self.attention = block.parallel, attention
        self.before1 = self.after1 = self.beyond1 = self.before2 = self.after2 = self.beyond2 = same
        norm1, norm2 = straight(block.norm1), straight(block.norm2)
        if block.norm_position == "post":
            self.beyond1, self.beyond2 = norm1, norm2
        elif block.norm_position in ("pre", "sandwich"):
            self.before1, self.before2 = norm1, norm2
        else:
            self.after1, self.after2 = norm1, norm2
        if block.norm_position == "sandwich":
            self.after1, self.after2 = straight(block.norm1_out), straight(block.norm2_out)
        self.qkv, self.out = straight(attention.qkv), straight(attention.out)
        self.H, self.K = attention.n_head, attention.n_kv_head
        self.window, self.scale = attention.window, 1 / attention.divisor
        self.rates = None if attention.rates is None else attention.rates.to(device)
        self.normed = attention.qk_norm != "none"
        self.activation, self.up, self.down = mlp.activation, straight(mlp.up), straight(mlp.down)
        self.gate = None if mlp.gate is None else straight(mlp.gate)

    def __call__(self, layer: int, x: Tensor, shared: Shared) -> Tensor:
        """x (B, C) -> (B, C), as `Block.forward`."""
        middle = self.beyond1(x + self.after1(self.attend(layer, self.before1(x), shared)))
        source = x if self.parallel else middle
        return self.beyond2(middle + self.after2(self.mlp(self.before2(source))))

    def mlp(self, x: Tensor) -> Tensor:
        """x (B, C) -> (B, C), as `MLP.forward`."""
        if self.gate is None:
            return self.down(self.activation(self.up(x)))
        return self.down(self.activation(self.gate(x)) * self.up(x))

    def attend(self, layer: int, x: Tensor, shared: Shared) -> Tensor:
        """x (B, C) -> (B, C), as `Attention.forward`: softmax over the scores with the tokens in the cache."""
        H, K = self.H, self.K
        heads = self.qkv(x).view(len(x), H + 2 * K, -1)
        qk, v = heads[:, : H + K], heads[:, H + K :]
        if self.normed:
            attention = self.attention
            q, k = (part[:, :, None] for part in qk.split((H, K), 1))  # (B, H or K, 1, D)
            qk = torch.cat((attention.norm_heads(attention.q_norm, q), attention.norm_heads(attention.k_norm, k)), 1)[:, :, 0]  # fmt: skip
        if self.rates is not None:
            qk = shared.turn(self, qk)
        shared.store(layer, qk[:, H:], v)
        keys, values, mask = shared.keys[layer], shared.values[layer], shared.mask(self.window)
        q = qk[:, :H].to(keys.dtype)
        if mask is None and shared.few:
            y = few_heads(q, keys, values, self.scale)
        else:
            y = F.scaled_dot_product_attention(
                q[:, :, None], keys, values, attn_mask=mask, scale=self.scale, enable_gqa=H != K
            )
        return self.out(y.reshape(len(x), -1).to(x.dtype))


def few_heads(q: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
    """softmax(scale q k^T) v for one query a head. q (B, H, D), keys and values (B, K, S, D) -> (B * K, H / K, D).

    The queries that share a key are the rows of one product: with few heads that is quicker than to divide them among cores.
    """
    B, K, S, D = keys.shape
    q, keys, values = q.reshape(B * K, -1, D), keys.view(B * K, S, D), values.view(B * K, S, D)
    scores = torch.baddbmm(q.new_empty(()), q, keys.transpose(1, 2), beta=0, alpha=scale)
    return torch.bmm(scores.softmax(-1), values)


class Decoder:
    """A model that writes. Its tree of parts must stay as it was when this was made; its weights may change."""

    def __init__(self, model: GPT):
        self.model = model
        self.layers = [Layer(block, model.device) for block in model.blocks]
        self.norm, self.output = straight(model.norm), straight(model.output)

    def step(self, idx: Tensor, cache: KVCache) -> Tensor:
        """idx (B, 1), the token after those the cache holds -> logits (B, V); the cache then holds it.

        Raises ValueError as `GPT.forward` does, for a learned position that the model does not have.
        """
        return self.through(idx, cache, Shared(cache))

    def through(self, idx: Tensor, cache: KVCache, shared: Shared) -> Tensor:
        """All layers, one after the other."""
        x = self.model.embed(idx, shared.positions)[:, 0]  # (B, C)
        for layer, part in enumerate(self.layers):
            x = part(layer, x, shared)
        cache.lengths += 1
        return self.output(self.norm(x))
