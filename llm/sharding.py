"""A model in shares: each process holds a part of every weight, its gradient and its averages, and asks the others for
the rest of a block only while it works on it (Rajbhandari et al. 2020, ZeRO stage 3; torch's fully_shard, FSDP2).

Checkpoints are written by all processes at once, each its own shares, and load on any number of them.
"""

from __future__ import annotations

import copy
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from llm.distributed import Batch, World
from llm.losses import Tally
from llm.model import GPT


class Spread(nn.Module):
    """A model whose loss is asked for in one call, so that its weights come together before it and part after it."""

    def __init__(self, model: GPT, keep_whole: bool):
        super().__init__()
        self.model = model
        self.twin = (
            [copy.deepcopy(model)] if keep_whole else []
        )  # in a list: its weights are not to be shared out

    def forward(self, objective: Any, part: Batch) -> tuple[Tensor, int, dict[str, Tensor]]:
        """The sum of the losses of a part of a batch, over how many targets, and further sums."""
        tally = objective.tally(self.model, part)
        return tally.total, tally.count, tally.sums

    def tally(self, objective: Any, part: Batch) -> Tally:
        """The same as a Tally."""
        return Tally(*self(objective, part))

    def whole(self) -> GPT | None:
        """The model as a plain one, on the process that keeps it; all processes must ask at once."""
        for name, tensor in self.model.state_dict().items():
            full = tensor.full_tensor()  # one tensor at a time
            for twin in self.twin:
                twin.state_dict()[name].copy_(full)
        return self.twin[0] if self.twin else None


def shard(model: GPT, here: World) -> World:
    """Share a model's weights out over all processes; the world that knows it. One process alone keeps it whole."""
    if here.size == 1:
        return here
    mesh = init_device_mesh(here.device.type, (here.size,))
    spread = Spread(model, keep_whole=here.leads)
    for block in model.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(spread, mesh=mesh)  # what is outside the blocks: embeddings, the last norm, the output matrix
    return replace(here, spread=spread)


# --- checkpoints in shares


def tensors_of(model: GPT, optimizers: list[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """Weights that learn, and what the optimizers remember of each, by names that do not depend on the processes."""
    found = {f"model/{name}": p.detach() for name, p in model.named_parameters() if p.requires_grad}
    for number, optimizer in enumerate(optimizers):
        for name, p in model.named_parameters():
            for key, value in optimizer.state.get(p, {}).items():
                found[f"optimizer{number}/{name}/{key}"] = value
    return found


def save(tensors: dict[str, Tensor], folder: Path, here: World) -> None:
    """Write tensors to a folder, every process its shares; all must call it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that one process alone is one process
        try:
            dcp.save(tensors, storage_writer=dcp.FileSystemWriter(folder), no_dist=here.size == 1)
        except CheckpointException as error:  # torch's own, and no Exception: what is behind it says more
            raise next(iter(error.failures.values()))[0] from None


def load(
    model: GPT, optimizers: list[torch.optim.Optimizer], random: Tensor, folder: Path, here: World
) -> None:
    """Bring back what `save` wrote, `random` included, on this number of processes.

    Raises ValueError when the folder is damaged or holds another model's tensors.
    """
    reader = dcp.FileSystemReader(folder)
    kept = reader.read_metadata().state_dict_metadata
    parameters = dict(model.named_parameters())
    for key, about in kept.items():
        where, _, rest = key.partition("/")
        if where.startswith("optimizer"):  # a fresh optimizer remembers nothing yet: make room for it
            name, _, what = rest.rpartition("/")
            p = parameters[name]
            state = optimizers[int(where.removeprefix("optimizer"))].state[p]
            state[what] = torch.zeros_like(p) if about.size == p.shape else torch.zeros(about.size)
    wanted = {**tensors_of(model, optimizers), "random": random}
    if wanted.keys() != kept.keys():
        other = sorted(wanted.keys() ^ kept.keys())[0]
        raise ValueError(f"it belongs to another model or other settings ({other})")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        try:
            dcp.load(wanted, storage_reader=reader, no_dist=here.size == 1)
        except CheckpointException as error:  # torch's own, and no Exception
            rank, (why, *_) = next(iter(error.failures.items()))
            raise ValueError(
                f"its shares cannot be read by process {rank + 1} ({type(why).__name__}: {why})"
            ) from None
