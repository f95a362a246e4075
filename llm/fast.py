"""Faster ways to the values of `llm.model` on a CPU: training in bf16 where it is multiplied in hardware, one more token in fp32.

model.py says what is computed; this file computes the same with fewer passes over memory. Tests hold the two together.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

FEW = 8  # rows up to which a product with a large matrix is a matter of reading the matrix
LARGE = 2**20  # numbers in a matrix that does not stay in the processor's cache


@lru_cache(maxsize=8)
def _mask(T: int, group: int, dtype: torch.dtype) -> Tensor:
    """(group * T, T): 0 where a token may look, -inf where not, once for each head that shares a key."""
    return torch.full((T, T), -torch.inf, dtype=dtype).triu(1).repeat(group, 1)


def causal_attention(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """softmax(scale q k^T + mask) v. q (B, H, T, D), k and v (B, K, T, D) -> (B, H, T, D).

    Scaling and mask happen inside the matrix product, and the heads that share a key are rows of one product.
    """
    B, H, T, D = q.shape
    K = k.shape[1]
    rows = q.reshape(B * K, H // K * T, D)
    mask = _mask(T, H // K, q.dtype)
    scores = torch.baddbmm(mask, rows, k.reshape(B * K, T, D).transpose(1, 2), alpha=scale)
    weights = torch.softmax(scores, dim=-1, dtype=q.dtype)
    return torch.bmm(weights, v.reshape(B * K, T, D)).view(B, H, T, D)


def _inverse_rms(x: Tensor, eps: float) -> Tensor:
    """1 / sqrt(mean(x^2) + eps) over the last dimension. x (..., C) -> (..., 1)."""
    mean_square = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1])
    return mean_square.add_(eps).rsqrt_()


class _RMSNorm(torch.autograd.Function):
    """x / rms(x) * weight with its gradient written out: d = (g w - n mean(g w n)) / rms, with n = x / rms."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        inverse = _inverse_rms(x, eps)
        normed = x * inverse
        ctx.save_for_backward(normed, inverse, weight)
        return normed * weight

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        normed, inverse, weight = ctx.saved_tensors
        product = gradient * normed
        share = (product @ weight / -len(weight)).unsqueeze(-1)
        through = (gradient * weight).addcmul_(normed, share).mul_(inverse)
        return through, product.flatten(0, -2).sum(0), None


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """RMSNorm of the last dimension. x (..., C), weight (C,) -> (..., C)."""
    if not torch.is_grad_enabled():
        if x.numel() == len(weight) and x.device.type == "cpu":  # one token: its length is one number
            length = torch.linalg.vector_norm(
                x, dtype=torch.float32 if x.dtype == torch.bfloat16 else None
            ).item()
            return (x * weight).mul_((length * length / len(weight) + eps) ** -0.5)
        return x * _inverse_rms(x, eps) * weight
    return _RMSNorm.apply(x, weight, eps)


class _Rotate(torch.autograd.Function):
    """The pairs (x_i, x_{i + R/2}) of the first R numbers turned by their angle; the gradient is turned back."""

    @staticmethod
    def forward(ctx, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turned(x, cos, sin)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _turned(gradient, cos, -sin), None, None


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = cos.shape[-1]
    first, second = x[..., :half], x[..., half : 2 * half]
    turned = torch.empty_like(x)
    torch.mul(first, cos, out=turned[..., :half]).addcmul_(second, sin, value=-1)
    torch.mul(second, cos, out=turned[..., half : 2 * half]).addcmul_(first, sin)
    turned[..., 2 * half :] = x[..., 2 * half :]
    return turned


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """RoPE. x (B, H, T, D), angles (B or 1, T, R/2) in radians -> (B, H, T, D)."""
    return _Rotate.apply(x, angles.cos()[:, None].to(x.dtype), angles.sin()[:, None].to(x.dtype))


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x W^T + b. x (..., C), weight (N, C), bias (N,) -> (..., N); by `few_rows` where that is faster.

    While a text is written, each token is one row, and nearly all the time goes into reading the weights. Nothing is
    chosen where gradients are wanted, so training has one way only.
    """
    if torch.is_grad_enabled() or weight.numel() < LARGE or not few_pay(x, weight):
        return F.linear(x, weight, bias)
    return few_rows(x.reshape(-1, x.shape[-1]), weight, bias).view(*x.shape[:-1], len(weight))


def few_pay(x: Tensor, weight: Tensor) -> bool:
    """Whether `few_rows` is the faster way: fp32 on a CPU, few rows, and a matrix with more rows than columns."""
    N, C = weight.shape
    return (
        N > C
        and x.numel() <= FEW * C
        and weight.stride() == (C, 1)
        and weight.dtype is x.dtype is torch.float32
        and weight.device.type == "cpu"
        and not torch.is_autocast_enabled("cpu")
    )


def few_rows(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x W^T + b as (W x^T)^T + b, by four rows of x at a time. x (B, C), weight (N, C) -> (B, N).

    A single row would be multiplied as a vector, by one thread; as a matrix of two columns all threads read the weights.
    """
    rows = x if len(x) > 1 else x.repeat(2, 1)
    y = torch.cat([torch.mm(weight, some.t()).t() for some in rows.split(4)])[: len(x)]
    return y if bias is None else y + bias
