"""One run on one process or on several (torchrun): who am I, on which device, and sums over all."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn


@dataclass(frozen=True)
class World:
    """This process among its peers."""

    rank: int
    size: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this process writes the log and the files."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """The sum of `values` over all processes, the same on each."""
        if self.size > 1:
            distributed.all_reduce(values)
        return values

    def sum_gradients(self, model: nn.Module) -> None:
        """Add up every gradient over all processes (each has worked on its own rows of the batch)."""
        if self.size == 1:
            return
        grads = [p.grad for p in model.parameters() if p.grad is not None]
        flat = self.sum(torch.cat([g.flatten() for g in grads]))  # one message, not one a tensor
        for g, part in zip(grads, flat.split([g.numel() for g in grads])):
            g.copy_(part.view_as(g))

    def agree(self, flag: bool) -> bool:
        """Whether any process says yes: all of them then do the same thing at the same step."""
        if self.size == 1:
            return flag
        return bool(self.sum(torch.tensor(int(flag), device=self.device)))


def best_device(local_rank: int = 0) -> torch.device:
    """The fastest device there is: a CUDA GPU, Apple's, or the processor."""
    if torch.cuda.is_available():
        return torch.device("cuda", local_rank)
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


@contextmanager
def world():
    """The processes that torchrun started together (its variables WORLD_SIZE, RANK, LOCAL_RANK), or just this one."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    device = best_device(int(os.environ.get("LOCAL_RANK", "0")))
    if size == 1:
        yield World(0, 1, device)
        return
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield World(distributed.get_rank(), size, device)
        distributed.barrier()  # nobody hangs up while another is still talking
    finally:
        distributed.destroy_process_group()
