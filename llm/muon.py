"""Muon: momentum whose matrices are made orthogonal before each step, so that every direction is learned at one pace.

Jordan et al. 2024 (https://kellerjordan.github.io/posts/muon/). AdamW still does the embeddings and the norms.
"""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor

COEFFICIENTS = (
    3.4445,
    -4.7750,
    2.0315,
)  # of the polynomial a x + b x^3 + c x^5, steep at 0 and near 1 around 1
ITERATIONS = 5


def orthogonalised(matrices: Tensor) -> Tensor:
    """The nearest matrices whose singular values are all about 1, keeping the directions. (N, R, S) -> (N, R, S).

    Newton-Schulz: with X = G / |G|, five times X <- a X + (b A + c A A) X, where A = X X^T.
    """
    a, b, c = COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    X = matrices.transpose(1, 2) if tall else matrices
    X = X / (X.float().norm(dim=(1, 2), keepdim=True) + 1e-7).to(X.dtype)
    for _ in range(ITERATIONS):
        A = X @ X.transpose(1, 2)
        X = a * X + (b * A + c * A @ A) @ X
    return X.transpose(1, 2) if tall else X


class Muon(torch.optim.Optimizer):
    """One step moves each matrix by lr * sqrt(max(1, rows / columns)) along its orthogonalised Nesterov momentum.

    `parts` says for a parameter how its rows divide into matrices of their own (q, k and v live in one).
    """

    def __init__(
        self,
        parameters: list[Tensor],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        parts: dict[Tensor, tuple[int, ...]] | None = None,
        dtype: torch.dtype = torch.float32,
    ):
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.parts, self.dtype = parts or {}, dtype

    @torch.no_grad()
    def step(self) -> None:
        """Update every matrix that has a gradient; matrices of one shape are worked on together."""
        for group in self.param_groups:
            in_shares: list[tuple[Tensor, Tensor]] = []
            alike: dict[torch.Size, list[tuple[Tensor, Tensor]]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is None:
                    continue
                memory = self.state[p].setdefault("momentum", torch.zeros_like(p))
                memory.lerp_(p.grad, 1 - group["momentum"])
                ahead = p.grad.lerp(memory, group["momentum"])  # Nesterov: look where the momentum leads
                p.mul_(1 - group["lr"] * group["weight_decay"])
                rows, whole = self.parts.get(p, (len(p),)), p
                if hasattr(
                    p, "full_tensor"
                ):  # held in shares: every process works out the whole move, takes its own
                    ahead, whole = ahead.full_tensor(), torch.zeros(p.shape, device=p.device)
                    in_shares.append((p, whole))
                for weight, move in zip(whole.split(rows), ahead.split(rows)):
                    alike[weight.shape].append((weight, move))
            for shape, pairs in alike.items():
                moves = orthogonalised(torch.stack([move for _, move in pairs]).to(self.dtype))
                rate = group["lr"] * max(1.0, shape[0] / shape[1]) ** 0.5
                for (weight, _), move in zip(pairs, moves):
                    weight.add_(move, alpha=-rate)
            for p, moved in in_shares:
                p.add_(own_share(moved, p))


def own_share(whole: Tensor, like: Tensor) -> Tensor:
    """What of a tensor that every process has belongs to this one, as `like` is shared out."""
    from torch.distributed.tensor import distribute_tensor  # half a second to import, and only needed here

    return distribute_tensor(whole, like.device_mesh, like.placements, src_data_rank=None)
