"""All that training changes, and how it is kept: one file, or with the model in shares a folder of them."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from typing import Any

import torch

from llm import lora, paths, versions
from llm.distributed import World
from llm.model import GPT
from llm.runs import Run

VERSION = 1  # of a checkpoint


@dataclass
class State:
    """All that training changes, and so all that a checkpoint holds."""

    model: GPT
    optimizers: list[torch.optim.Optimizer]
    step: int = 0  # updates made
    seconds: float = 0.0  # spent on them
    tokens: int = 0  # read for them
    frozen: str = ""  # the fingerprint of the weights that stand still; "" when all learn

    def learning(self) -> dict[str, Any]:
        """The weights that learn; of a model that learns as a whole, all of them."""
        learns = {name for name, p in self.model.named_parameters() if p.requires_grad}
        whole = all(p.requires_grad for p in self.model.parameters())
        return {name: p for name, p in self.model.state_dict().items() if whole or name in learns}

    def numbers(self) -> dict[str, Any]:
        """Where it stands, and of weights that stand still only their fingerprint."""
        standing = {"version": VERSION, "step": self.step, "seconds": self.seconds, "tokens": self.tokens}
        return standing | ({"frozen": self.frozen} if self.frozen else {})

    def saved(self) -> dict[str, Any]:
        """Plain tensors and numbers, random state included."""
        return {
            **self.numbers(),
            "model": self.learning(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "random": torch.get_rng_state(),
        }

    def stand_at(self, saved: dict[str, Any]) -> None:
        """Take over the numbers. Raises ValueError when the weights that stand still are others now."""
        if saved.get("frozen", "") != self.frozen:
            raise ValueError(
                "The model that this run started from has changed since: the weights that stood still are others now. "
                "Bring the old one back, or start a new run."
            )
        self.step, self.seconds, self.tokens = saved["step"], saved["seconds"], saved["tokens"]

    def restore(self, saved: dict[str, Any]) -> None:
        """Back to exactly where `saved` was made. Raises ValueError when the weights that stand still are others now."""
        self.stand_at(saved)
        assert saved["model"].keys() == self.learning().keys()
        self.model.load_state_dict(saved["model"], strict=not self.frozen)
        for optimizer, kept in zip(self.optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        torch.set_rng_state(saved["random"])


def fingerprint(model: GPT) -> str:
    """Of the weights that stand still; "" when all learn."""
    return lora.fingerprint(model) if lora.counts(model).frozen else ""


@dataclass(frozen=True)
class OneFile:
    """A checkpoint that one process writes: checkpoint/state.pt."""

    run: Run

    def save(self, state: State, here: World) -> None:
        """The old one stays until the new one is whole."""
        if here.leads:
            self.run.state_path.parent.mkdir(exist_ok=True)
            with paths.replacing(self.run.state_path) as temporary:
                torch.save(state.saved(), temporary)

    def load(self, state: State, here: World) -> None:
        """Raises ValueError when it is damaged or of a later version, or the weights that stand still are others now."""
        try:
            saved = torch.load(self.run.state_path, map_location=here.device, weights_only=True)
            versions.check(saved.get("version"), VERSION, self.run.state_path)
        except versions.Unknown:
            raise
        except Exception as error:  # torch raises many kinds for a damaged file
            raise damaged(self.run, error) from None
        state.restore(saved)


@dataclass(frozen=True)
class InShares:
    """A checkpoint that all processes write at once: checkpoint/shares-STEP/, the newest whole one counts."""

    run: Run

    def save(self, state: State, here: World) -> None:
        """The old one is removed when the new one has its name."""
        from llm import sharding  # torch's part for it takes a second to import

        folder = self.run.state_path.parent
        building = folder / f".new-{state.step:08d}"
        if here.leads:
            shutil.rmtree(building, ignore_errors=True)
            building.mkdir(parents=True)
        here.agree(False)  # wait for the folder
        tensors = sharding.tensors_of(state.model, state.optimizers) | {"random": torch.get_rng_state()}
        sharding.save(tensors, building, here)
        if here.leads:
            with paths.replacing(building / "numbers.json") as temporary:
                temporary.write_text(json.dumps(state.numbers()), encoding="utf-8")
            place = folder / f"shares-{state.step:08d}"
            shutil.rmtree(place, ignore_errors=True)  # of an earlier attempt at these steps
            building.rename(place)
            paths.sync_directory(folder)
            for other in folder.glob("shares-*"):
                if other != place:
                    shutil.rmtree(other)
        here.agree(False)  # nobody goes on before it is safe

    def load(self, state: State, here: World) -> None:
        """On this number of processes, whatever the number that wrote it.

        Raises ValueError when it is damaged or of a later version, or the weights that stand still are others now.
        """
        from llm import sharding

        place, random = self.run.shares(), torch.get_rng_state()
        try:
            numbers = json.loads((place / "numbers.json").read_text(encoding="utf-8"))
            versions.check(numbers.get("version"), VERSION, place / "numbers.json")
            sharding.load(state.model, state.optimizers, random, place, here)
        except versions.Unknown:
            raise
        except Exception as error:
            raise damaged(self.run, error) from None
        state.stand_at(numbers)
        torch.set_rng_state(random)


def damaged(run: Run, error: Exception) -> ValueError:
    """What is said of a checkpoint that cannot be read."""
    return ValueError(f"The checkpoint of {run.name} is damaged and cannot be resumed: {error}")
