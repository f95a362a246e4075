"""Smaller weights for writing texts: bf16 keeps 8 significant bits of each, int8 one of 255 steps with a scale for each row.

Every new token reads all weights once, so a model of half the bytes writes up to twice as fast. What it costs is measured, not
assumed: `llm.scoring.by_weights` scores the same text with each.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from llm.model import GPT

STEPS = 127  # int8 holds -127 to 127
COLUMNS = 32  # torch's product with int8 reads so many columns at once, and beyond the end where they do not come out even


def rounded(weight: Tensor) -> tuple[Tensor, Tensor]:
    """W (N, C) -> Q (N, C) of int8 and a scale for each row (N,): W is about scale * Q, no number off by more than scale / 2.

    The largest number of a row becomes 127 or -127 (absmax quantisation, Dettmers et al. 2022, eq. 1, row by row).
    """
    scale = weight.abs().amax(1).clamp(min=1e-12) / STEPS
    return (weight / scale[:, None]).round().to(torch.int8), scale


class Int8Linear(nn.Module):
    """x W^T + b with W as scale * Q: the sum over whole numbers first, then one product a row."""

    def __init__(self, linear: nn.Linear):
        super().__init__()
        Q, scale = rounded(linear.weight.detach().float())
        self.padding = -Q.shape[1] % COLUMNS
        self.register_buffer("Q", F.pad(Q, (0, self.padding)))
        self.register_buffer("scale", scale.to(torch.bfloat16))
        self.bias = None if linear.bias is None else nn.Parameter(linear.bias.detach().bfloat16())

    def forward(self, x: Tensor) -> Tensor:  # (..., C) -> (..., N)
        rows = F.pad(x.reshape(-1, x.shape[-1]), (0, self.padding))
        if rows.device.type == "cpu":
            y = torch._weight_int8pack_mm(rows, self.Q, self.scale)  # reads Q as it is, one byte a weight
        else:
            y = rows @ self.Q.to(rows.dtype).T * self.scale
        y = y.view(*x.shape[:-1], len(self.Q))
        return y if self.bias is None else y + self.bias


def smaller(model: GPT, weights: str) -> GPT:
    """A copy of a model with its weights in bf16, or its matrices in int8 and the rest in bf16; the model itself for fp32."""
    if weights == "fp32":
        return model
    made = copy.deepcopy(model).bfloat16()
    if weights == "int8":
        found = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear)}
        for name, linear in found.items():
            parent, _, own = name.rpartition(".")
            setattr(
                made.get_submodule(parent), own, Int8Linear(linear)
            )  # of the fp32 weights, not of their bf16 copy
    return made


def size(model: GPT) -> int:
    """Bytes of all its weights, each once."""
    held = {t.data_ptr(): t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers())}
    return sum(held.values())
