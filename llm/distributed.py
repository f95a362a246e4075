"""One run on one process or on several (torchrun): who am I, on which device, which rows are mine, and sums over all."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from typing import Any

import torch
from torch import Tensor, distributed, nn

Batch = tuple[Tensor, ...]  # of every tensor the first dimension is the rows
PATIENCE = timedelta(minutes=30)  # how long one process waits for the others before it gives up


@dataclass(frozen=True)
class World:
    """This process among its peers."""

    rank: int
    size: int
    device: torch.device
    spread: Any = None  # the model in shares, see llm.sharding; None: every process holds it whole

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
        if self.size == 1 or self.spread:  # in shares they are added up while they are made
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

    def gather(self, value: Any) -> list[Any]:
        """What each process says, in the order of their ranks: small plain values."""
        if self.size == 1:
            return [value]
        said: list[Any] = [None] * self.size
        distributed.all_gather_object(said, value)
        return said

    @contextmanager
    def together(self) -> Iterator[None]:
        """Whoever fails in here, all fail, with a sentence that says which process it was and why: nobody waits in vain.

        Raises ValueError on every process when one raised it.
        """
        trouble: Exception | None = None
        try:
            yield
        except Exception as error:
            trouble = error
        if self.size == 1 or (trouble is not None and not isinstance(trouble, ValueError)):
            if trouble is not None:
                raise trouble
            return
        said = self.gather((platform.node(), "" if trouble is None else str(trouble)))
        failed = [(rank, host, text) for rank, (host, text) in enumerate(said) if text]
        if len(failed) == self.size and len({text for *_, text in failed}) == 1:
            raise ValueError(failed[0][2])
        if failed:
            rank, host, text = failed[0]
            raise ValueError(f"Process {rank + 1} of {self.size}, on {host}, cannot begin: {text}")

    def tally(self, objective: Any, model: nn.Module, part: Batch) -> Any:
        """The losses of a part of a batch (a Tally), by the model as this world holds it."""
        return self.spread.tally(objective, part) if self.spread else objective.tally(model, part)

    # --- whose rows are whose

    def parts(self, batch: Batch, parts: int) -> Iterator[tuple[Batch, float]]:
        """This process's rows of a batch, in up to `parts` parts on its device, each with what its loss is multiplied by.

        1 where it counts. A process that has no rows, or in shares fewer parts than another, works on the first row
        times 0: with the model in shares all must ask for the weights equally often.
        """
        mine = [t[self.rank :: self.size].to(self.device) for t in batch]
        made = list(zip(*(t.chunk(parts) for t in mine))) if len(mine[0]) else []
        wanted = max(1, len(made))
        if self.spread:
            wanted = max(len(batch[0][rank :: self.size].chunk(parts)) for rank in range(self.size))
        filler = tuple(t[:1].to(self.device) for t in batch)
        yield from ((part, 1.0) for part in made)
        yield from ((filler, 0.0) for _ in range(wanted - len(made)))

    def share(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, bool]]:
        """This process's batches out of all, every size-th; in shares also, where others have one more, one not to count."""
        batches = iter(batches)
        while round := list(islice(batches, self.size)):
            if self.rank < len(round):
                yield tuple(t.to(self.device) for t in round[self.rank]), True
            elif self.spread:
                yield tuple(t.to(self.device) for t in round[0]), False


def best_device(local_rank: int = 0) -> torch.device:
    """The fastest device there is: a CUDA GPU, Apple's, or the processor."""
    if torch.cuda.is_available():
        return torch.device("cuda", local_rank)
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


@contextmanager
def world() -> Iterator[World]:
    """The processes that torchrun started together (its variables WORLD_SIZE, RANK, LOCAL_RANK), or just this one.

    Raises ValueError when not all of them come, or they run different versions of Python or torch.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    device = best_device(int(os.environ.get("LOCAL_RANK", "0")))
    if size == 1:
        yield World(0, 1, device)
        return
    try:
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    except distributed.DistStoreError as error:
        raise ValueError(
            f"Not all of the {size} processes came within {PATIENCE.seconds} seconds: start as many as WORLD_SIZE says, "
            f"with one MASTER_ADDR that all of them reach. ({error})"
        ) from None
    try:
        here = World(distributed.get_rank(), size, device)
        same_versions(here)
        yield here
        distributed.barrier()  # nobody hangs up while another is still talking
    finally:
        distributed.destroy_process_group()


def same_versions(here: World) -> None:
    """Raises ValueError, on every process, when they do not all run the same Python and torch."""
    said = here.gather((platform.node(), f"Python {platform.python_version()}, torch {torch.__version__}"))
    if len({versions for _, versions in said}) > 1:
        each = "; ".join(
            f"process {rank + 1} on {host}: {versions}" for rank, (host, versions) in enumerate(said)
        )
        raise ValueError(f"The processes of a run must have the same versions, and these have not: {each}.")
