"""Smaller weights for writing texts: bf16 keeps 8 significant bits of each, int8 one of 255 steps, int4 one of 16.

Every new token reads all weights once, so a model of half the bytes writes up to twice as fast. What it costs is measured, not
assumed: `llm.scoring.by_weights` scores the same text with each.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from llm.model import GPT

STEPS = 127  # int8 holds -127 to 127
GROUP = 32  # numbers of a row that share a step in int4
ROWS = 16  # torch packs so many rows of int4 together
COLUMNS = 32  # torch's product with int8 reads so many columns at once, and beyond the end where they do not come out even


def rounded(weight: Tensor) -> tuple[Tensor, Tensor]:
    """W (N, C) -> Q (N, C) of int8 and a scale for each row (N,): W is about scale * Q, no number off by more than scale / 2.

    The largest number of a row becomes 127 or -127 (absmax quantisation, Dettmers et al. 2022, eq. 1, row by row).
    """
    scale = weight.abs().amax(1).clamp(min=1e-12) / STEPS
    return (weight / scale[:, None]).round().to(torch.int8), scale


class Smaller(nn.Module):
    """x W^T + b for a matrix (N, C) that is kept in few bits: `product` says how, for rows x (B, C + padding)."""

    def __init__(self, linear: nn.Linear, width: int):
        super().__init__()
        self.out_features, self.in_features = linear.weight.shape
        self.padding = -self.in_features % width
        self.bias = None if linear.bias is None else nn.Parameter(linear.bias.detach().bfloat16())

    def forward(self, x: Tensor) -> Tensor:  # (..., C) -> (..., N)
        rows = x if x.dim() == 2 else x.reshape(-1, x.shape[-1])
        y = self.product(F.pad(rows, (0, self.padding)) if self.padding else rows)
        y = y if x.dim() == 2 else y.view(*x.shape[:-1], y.shape[-1])
        return y if self.bias is None else y + self.bias

    def as_function(self) -> Callable[[Tensor], Tensor]:
        """The same for rows x (B, C) alone, with nothing left to look up."""
        if self.padding or self.bias is not None or not (given := self.operation()):
            return self.forward
        operation, *values = given
        return lambda x: operation(x, *values)

    def operation(self) -> tuple:
        """A function of torch that does all of `product`, and what it is given beside x; () where there is none."""
        return ()


class Int8Linear(Smaller):
    """W as scale * Q: the sum over whole numbers first, then one product a row."""

    def __init__(self, linear: nn.Linear):
        super().__init__(linear, COLUMNS)
        Q, scale = rounded(linear.weight.detach().float())
        self.register_buffer("Q", F.pad(Q, (0, self.padding)))
        self.register_buffer("scale", scale.to(torch.bfloat16))

    def product(self, x: Tensor) -> Tensor:
        if x.device.type == "cpu":
            return torch._weight_int8pack_mm(x, self.Q, self.scale)  # reads Q as it is, one byte a weight
        return x @ self.Q.to(x.dtype).T * self.scale

    def operation(self) -> tuple:
        return (torch._weight_int8pack_mm, self.Q, self.scale) if self.Q.device.type == "cpu" else ()


def grouped(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """W (N, C) -> Q (N, C) of 0 to 15, and for each GROUP numbers of a row their step and their least number, (N, C / GROUP).

    W is about least + step * Q: asymmetric min-max quantisation in groups (the blocks of llama.cpp's Q4_1, so that a file of
    those comes back as it was). No number is off by more than step / 2.
    """
    groups = weight.view(len(weight), -1, GROUP)
    least, most = groups.amin(-1), groups.amax(-1)
    step = ((most - least) / 15).clamp(min=1e-12)
    Q = ((groups - least[..., None]) / step[..., None]).round().to(torch.int32)
    return Q.view(weight.shape), step, least


class Int4Linear(Smaller):
    """W in groups of 16 steps: half a byte for each number and four bytes for each group. On a processor only."""

    def __init__(self, linear: nn.Linear):
        super().__init__(linear, GROUP)
        self.more = -self.out_features % ROWS
        Q, step, least = grouped(F.pad(linear.weight.detach().float(), (0, self.padding, 0, self.more)))
        self.register_buffer("Q", torch._convert_weight_to_int4pack_for_cpu(Q, 1))
        middle = least + 8 * step  # torch counts the steps from 8
        self.register_buffer("scale", torch.stack((step, middle), -1).transpose(0, 1).contiguous().bfloat16())

    def product(self, x: Tensor) -> Tensor:
        y = torch._weight_int4pack_mm_for_cpu(x, self.Q, GROUP, self.scale)
        return y[:, : self.out_features] if self.more else y

    def operation(self) -> tuple:
        return () if self.more else (torch._weight_int4pack_mm_for_cpu, self.Q, GROUP, self.scale)


def smaller(model: GPT, weights: str) -> GPT:
    """A copy of a model with its weights in bf16, or its matrices in int8 or int4 and the rest in bf16; the model itself for fp32.

    int4 keeps the output matrix in int8: it decides between near equals. Raises ValueError for int4 anywhere but on a processor.
    """
    if weights == "fp32":
        return model
    if weights == "int4" and model.device.type != "cpu":
        raise ValueError(
            f"int4 is written for processors and this model is on {model.device.type}: choose int8 or bf16."
        )
    made = copy.deepcopy(model).bfloat16()
    if weights in ("int8", "int4"):
        found = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear)}
        for name, linear in found.items():
            parent, _, own = name.rpartition(".")
            kind = Int4Linear if weights == "int4" and name != "output" else Int8Linear
            setattr(
                made.get_submodule(parent), own, kind(linear)
            )  # of the fp32 weights, not of their bf16 copy
    return made.eval()


def size(model: GPT) -> int:
    """Bytes of all its weights, each once."""
    held = {t.data_ptr(): t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers())}
    return sum(held.values())
