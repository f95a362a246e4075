"""What a training will cost here, before it starts: counted by formula where there is one, measured on this machine where not."""

from __future__ import annotations

import argparse
import copy
import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from llm import checkpoint, lora, losses, machine, optim, paths, precision
from llm.config import ModelConfig, RunConfig, TrainConfig, add_flags, from_flags
from llm.distributed import World, best_device
from llm.model import GPT
from llm.objectives import OBJECTIVES, Batch, Prefer, Pretrain

PATIENCE = 3.0  # seconds a measurement may take, beyond its first step
BATCHES = 8  # of a tuning's rows that are looked at: so many are dealt out by length among one another


def flops_per_token(config: ModelConfig) -> int:
    """Floating-point operations a token of training: 6 for every weight in a matrix, 12 L H D T for attention's scores.

    Forward costs 2 a weight, backward 4 (Kaplan et al. 2020, table 1; PaLM 2022, appendix B). The token embedding
    is a look-up and counts only as output matrix.
    """
    parts = config.parameters()
    matrices = parts["attention"] + parts["mlp"] + config.vocab_size * config.n_embd
    return 6 * matrices + 12 * config.n_layer * config.n_head * config.head_dim * config.context_length


def memory(config: ModelConfig, optimizer: str, activations: int) -> dict[str, int]:
    """Bytes of training in fp32: weights, gradients, the optimizer's averages, and what backward needs of the forward pass.

    AdamW keeps two averages a weight; Muon keeps one, for the matrices inside the blocks.
    """
    parts = config.parameters()
    weights = 4 * sum(parts.values())
    matrices = 4 * (parts["attention"] + parts["mlp"]) if optimizer == "muon" else 0
    return {
        "weights": weights,
        "gradients": weights,
        "optimizer": 2 * weights - matrices,
        "activations": activations,
    }


def at_least(model: ModelConfig, config: RunConfig) -> int:
    """Bytes of main memory that a run takes whatever its batch: of what learns weights, gradients and averages, else weights.

    On a GPU, in shares, or where only a part learns, that part is left out here: it is small, or lies elsewhere.
    """
    held = memory(model, config.train.optimizer, 0)
    whole = config.train.sharding != "full" and config.tune.trained == "all" and best_device().type == "cpu"
    return sum(held.values()) if whole else held["weights"]


def saved_bytes(model: GPT, forward: Callable[[], Any], number_format: str) -> int:
    """Bytes of all tensors that a forward pass keeps for the backward pass, each storage once, weights left out."""
    kept: dict[int, int] = {}
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t),
        precision.arithmetic(number_format, model.device),
    ):
        forward()
    return sum(kept.values())


def saved_by(model: GPT, windows: int, number_format: str) -> int:
    """`saved_bytes` of so many windows of random tokens."""
    idx = torch.randint(
        model.config.vocab_size, (windows, model.config.context_length + 1), device=model.device
    )
    return saved_bytes(model, lambda: losses.next_token(model(idx[:, :-1]), idx[:, 1:]), number_format)


def step_seconds(model: GPT, train: TrainConfig, rows: int, number_format: str) -> float:
    """The fastest of a few real updates on random tokens, in seconds: one to warm up, then as many as patience allows."""
    config = model.config
    optimizers = optim.optimizers(model, train, number_format)
    idx = torch.randint(config.vocab_size, (rows, config.context_length + 1), device=model.device)
    best, until = float("inf"), 0.0
    while until == 0.0 or (best == float("inf") or time.perf_counter() < until):
        began = time.perf_counter()
        for part in idx.chunk(train.grad_accumulation):
            with precision.arithmetic(number_format, model.device):
                tally = losses.next_token(model(part[:, :-1]), part[:, 1:])
            (tally.total / tally.count).backward()
        optim.clip(model, train.grad_clip)
        for optimizer in optimizers:
            optimizer.step()
        model.zero_grad(set_to_none=True)
        if until == 0.0:
            until = time.perf_counter() + PATIENCE  # the first one allocates and is not counted
        else:
            best = min(best, time.perf_counter() - began)
    return best


def forecast(config: RunConfig, threads: int = 0, tuning: bool = False) -> dict[str, Any]:
    """Parameters, tokens and FLOPs of a run by formula; memory and seconds by running a few steps of it here.

    With `tuning` see `_tuned`; else a batch too large to try is measured with fewer windows and scaled up; `measured_rows` says how many were.
    Raises ValueError when the model cannot be built, or the machine has not the memory for it.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        with torch.random.fork_rng():
            return (_tuned if tuning else _measured)(config, threads or before)
    finally:
        torch.set_num_threads(before)


def _measured(config: RunConfig, threads: int) -> dict[str, Any]:
    model_config, train = config.model, config.train
    parameters = sum(model_config.parameters().values())
    device = best_device()
    number_format = precision.choose(train.precision, device)
    tokens = train.batch_size * model_config.context_length
    flops = flops_per_token(model_config) * tokens
    rows = max(1, min(train.batch_size, int(2e11 / (flops / train.batch_size))))  # about a second's work
    accumulation = train.grad_accumulation if rows == train.batch_size else 1
    machine.refuse_memory(at_least(model_config, config), "This training")
    model = GPT(model_config).to(device)
    precision.prepare(model, number_format)
    together = train.batch_size // train.grad_accumulation
    few = [saved_by(model, windows, number_format) for windows in ((together,) if together < 3 else (2, 3))]
    saved = few[0] + (few[-1] - few[0]) * max(together - 2, 0)  # what all windows share counts once
    seconds = step_seconds(
        model, replace(train, grad_accumulation=accumulation, batch_size=rows), rows, number_format
    )
    return {
        "parameters": parameters,
        "parts": model_config.parameters(),
        "tokens_per_step": tokens,
        "tokens": tokens * train.max_steps,
        "flops_per_step": flops,
        "flops": flops * train.max_steps,
        "memory": memory(model_config, train.optimizer, saved),
        "seconds_per_step": seconds * train.batch_size / rows,
        "seconds": seconds * train.batch_size / rows * train.max_steps,
        "measured_rows": rows,
        "threads": threads,
        "precision": number_format,
        "device": device.type,
    }


# --- tuning: on the run's own rows, with the model that it starts from


def _tuned(config: RunConfig, threads: int) -> dict[str, Any]:
    """What tuning costs: memory by part for what is to learn, and for everything and LoRA beside it; seconds a step.

    Nothing is kept of the steps that are made. Raises ValueError as the run itself does.
    """
    device, number_format = best_device(), precision.choose(config.train.precision, best_device())
    model, encoding = checkpoint.load_model(paths.model_folder(config.start_from))
    config = replace(config, model=model.config)
    objective = OBJECTIVES[config.objective](config, encoding)
    here = World(rank=0, size=1, device=device)
    ways, seconds, tokens = {}, 0.0, 0.0
    for way in dict.fromkeys((config.tune.trained, "all", "lora")):
        try:
            twin, aim = _begun(model, objective, way, here, number_format)
        except ValueError:  # this model cannot learn that way; what the run asks for must be possible
            if way == config.tune.trained:
                raise
            continue
        batches = [aim.batch(step) for step in range(min(BATCHES, config.train.max_steps))]
        largest = _first_part(max(batches, key=lambda batch: batch[0].numel()), config.train, device)
        size = lora.counts(twin)
        ways[way] = {
            **held_by_formula(twin, config.train.optimizer),
            "activations": saved_bytes(twin, partial(aim.tally, twin, largest), number_format),
            "trainable": size.trainable,
            "frozen": size.frozen,
        }
        if way == config.tune.trained:
            seconds = tuning_seconds(twin, aim, config.train, batches, number_format)
            tokens = sum(batch[0].numel() for batch in batches) / len(batches)
    parts = ("weights", "gradients", "optimizer", "activations")
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "memory": {part: ways[config.tune.trained][part] for part in parts},
        "ways": ways,
        "tokens_per_step": round(tokens),
        "seconds_per_step": seconds,
        "seconds": seconds * config.train.max_steps,
        "threads": threads,
        "precision": number_format,
        "device": device.type,
    }


def _begun(
    model: GPT, objective: Pretrain, way: str, here: World, number_format: str
) -> tuple[GPT, Pretrain]:
    """A copy of the model with `way` chosen as what learns, and the objective that goes with it."""
    twin, aim = copy.deepcopy(model).to(here.device), copy.copy(objective)
    aim.config = replace(objective.config, tune=replace(objective.config.tune, trained=way))
    precision.prepare(twin, number_format)
    lora.choose(twin, aim.config.tune)
    if isinstance(aim, Prefer):  # what the reference says changes nothing in what a step costs
        aim.silenced = way == "lora"
        aim.kept = {id(example): torch.zeros(2) for example in aim.train}
    else:
        aim.prepare(twin, here, number_format)
    return twin.train(), aim


def _first_part(batch: Batch, train: TrainConfig, device: torch.device) -> Batch:
    """What is worked through at once of a batch."""
    return tuple(t.chunk(train.grad_accumulation)[0].to(device) for t in batch)


def held_by_formula(model: GPT, optimizer: str) -> dict[str, int]:
    """Bytes of a model that learns: its weights; a gradient for each that learns; two averages of it (AdamW), or one (Muon)."""
    learns = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    trainable = sum(p.numel() for _, p in learns)
    matrices = sum(
        p.numel()
        for name, p in learns
        if name.startswith("blocks.") and p.dim() == 2 and not lora.in_adapter(name)
    )
    return {
        "weights": sum(p.numel() * p.element_size() for p in model.parameters()),
        "gradients": 4 * trainable,
        "optimizer": 8 * trainable - (4 * matrices if optimizer == "muon" else 0),
    }


def tuning_seconds(
    model: GPT, objective: Pretrain, train: TrainConfig, batches: list[Batch], number_format: str
) -> float:
    """Mean seconds of an update over these batches, as many as patience allows; one more before them is not counted."""
    optimizers = optim.optimizers(model, train, number_format)
    spent, done, until = 0.0, 0, float("inf")
    for batch in [batches[0], *batches]:
        began = time.perf_counter()
        count = objective.count(batch)
        for part in zip(*(t.to(model.device).chunk(train.grad_accumulation) for t in batch)):
            with precision.arithmetic(number_format, model.device):
                tally = objective.tally(model, part)
            (tally.total / count).backward()
        optim.clip(model, train.grad_clip)
        for optimizer in optimizers:
            optimizer.step()
        model.zero_grad(set_to_none=True)
        now = time.perf_counter()
        if until == float("inf"):
            until = now + PATIENCE
            continue
        spent, done = spent + now - began, done + 1
        if now > until:
            break
    return spent / done


# --- what a run really held


def held(
    model: GPT,
    optimizers: list[torch.optim.Optimizer],
    objective: Pretrain,
    batch: Batch,
    train: TrainConfig,
    number_format: str,
) -> dict[str, int]:
    """Bytes that training holds now, counted tensor by tensor; what a forward pass of `batch` keeps; the most the process had."""
    state = [value for optimizer in optimizers for one in optimizer.state.values() for value in one.values()]
    part = _first_part(batch, train, model.device)
    return {
        "weights": sum(p.numel() * p.element_size() for p in model.parameters()),
        "gradients": sum(p.grad.numel() * p.grad.element_size() for p in model.parameters() if p.grad is not None),
        "optimizer": sum(t.numel() * t.element_size() for t in state if isinstance(t, torch.Tensor)),
        "activations": saved_bytes(model, lambda: objective.tally(model, part), number_format),
        "process": peak(model.device),
    }  # fmt: skip


def peak(device: torch.device) -> int:
    """The most bytes that this process has held so far: on a GPU of its memory, else of the machine's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024  # Linux counts in KB


def main(arguments: list[str] | None = None) -> None:
    """`python -m llm.forecast --vocab_size 1024 ...`: the forecast of a run as JSON; takes the flags of llm.train."""
    parser = argparse.ArgumentParser(prog="python -m llm.forecast", description=__doc__)
    parser.add_argument("--tuning", action="store_true", help="measure on the run's own rows, with its model")
    add_flags(parser, RunConfig)
    given = parser.parse_args(arguments)
    config = from_flags(RunConfig, given)
    try:
        if given.tuning and not config.start_from:
            raise ValueError("Say which model is tuned: --start_from story-llama, for example.")
        if not given.tuning and not config.model.vocab_size:
            raise ValueError("Say how many ids the encoding has: --vocab_size 1024, for example.")
        print(json.dumps(forecast(config, config.train.threads, given.tuning)))
    except ValueError as error:
        parser.exit(2, f"{error}\n")


if __name__ == "__main__":
    main()
