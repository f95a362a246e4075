"""Training speed beside peers from PyPI, tokens a second, interleaved in one process on the same random batches.

    python -m bench.train [--cases tiny small gpt2] [--rounds 5] [--steps 3]

"as shipped" is the peer's own way on a CPU (fp32, plain AdamW); "same settings" gives it our number format, the fused
optimizer and clipping. Dropout is 0 everywhere and every model has the same shape and tied embeddings.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from bench.report import machine, print_json, spread
from llm import losses, optim, precision
from llm.config import ModelConfig, TrainConfig
from llm.distributed import World
from llm.model import GPT
from llm.train import State, update


@dataclass(frozen=True)
class Case:
    """One size of model and batch."""

    n_layer: int
    n_head: int
    n_embd: int
    vocab_size: int
    context_length: int
    batch_size: int


CASES = {
    "tiny": Case(n_layer=4, n_head=4, n_embd=128, vocab_size=65, context_length=64, batch_size=12),
    "small": Case(n_layer=6, n_head=6, n_embd=384, vocab_size=65, context_length=256, batch_size=12),
    "gpt2": Case(n_layer=12, n_head=12, n_embd=768, vocab_size=50257, context_length=256, batch_size=2),
}
CPU = torch.device("cpu")


class RandomText:
    """What our loop asks of an objective, on random ids: the speed of a step does not depend on the text."""

    measures = ()

    def __init__(self, case: Case):
        self.case = case

    def batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and targets (B, T) of step number `step`, the same for every competitor."""
        source = torch.Generator().manual_seed(step)
        shape = (self.case.batch_size, self.case.context_length + 1)
        ids = torch.randint(self.case.vocab_size, shape, generator=source)
        return ids[:, :-1], ids[:, 1:]

    def count(self, batch: tuple[torch.Tensor, torch.Tensor]) -> int:
        """Targets in a batch."""
        return batch[1].numel()

    def tally(self, model: GPT, batch: tuple[torch.Tensor, torch.Tensor]) -> losses.Tally:
        """The very loss of pretraining."""
        return losses.next_token(model(batch[0]), batch[1])


def gpt2_config(case: Case) -> ModelConfig:
    """Our model in GPT-2's shape, as the peers have it."""
    return ModelConfig(
        vocab_size=case.vocab_size, context_length=case.context_length, n_layer=case.n_layer, n_head=case.n_head,
        n_embd=case.n_embd, position="learned", norm="layernorm", mlp="gelu_tanh", bias=True, qkv_bias=True, n_kv_head=0,
    )  # fmt: skip


def ours(case: Case, number_format: str, compiled: bool = False) -> Callable[[int], None]:
    """A function that makes one update with the lab's own loop."""
    model, text, config = (
        GPT(gpt2_config(case)),
        RandomText(case),
        TrainConfig(optimizer="adamw", learning_rate=1e-4, schedule="constant"),
    )
    number_format = precision.choose(number_format, CPU)
    precision.prepare(model, number_format)
    if compiled:
        precision.compile_blocks(model)
    state = State(model.train(), optim.optimizers(model, config, number_format))
    return lambda step: update(state, text, config, World(0, 1, CPU), number_format)


def peer(case: Case, model: torch.nn.Module, logits: Callable, same: bool) -> Callable[[int], None]:
    """One update of a peer's model, in the manner of its own training code or with our settings."""
    number_format = precision.choose("auto", CPU) if same else "fp32"
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.1, fused=True if same else None)
    text = RandomText(case)
    model.train()

    def step(number: int) -> None:
        inputs, targets = text.batch(number)
        optimizer.zero_grad()
        with precision.arithmetic(number_format, CPU):
            out = logits(model, inputs)
            loss = torch.nn.functional.cross_entropy(out.flatten(0, 1).float(), targets.flatten())
        loss.backward()
        if same:
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


def transformers_gpt2(case: Case) -> torch.nn.Module:
    """Hugging Face's GPT-2 of this shape."""
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=case.vocab_size, n_positions=case.context_length, n_layer=case.n_layer, n_head=case.n_head,
            n_embd=case.n_embd, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
        )
    )  # fmt: skip


def from_scratch(case: Case, fast: bool) -> torch.nn.Module:
    """The GPT of "Build a Large Language Model From Scratch", plain or in its faster variant, embeddings tied."""
    from llms_from_scratch.ch04 import GPTModel, GPTModelFast

    model = (GPTModelFast if fast else GPTModel)(
        dict(
            vocab_size=case.vocab_size, context_length=case.context_length, emb_dim=case.n_embd, n_heads=case.n_head,
            n_layers=case.n_layer, drop_rate=0.0, qkv_bias=True,
        )
    )  # fmt: skip
    model.out_head.weight = model.tok_emb.weight
    return model


def hf_logits(model: torch.nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """Logits (B, T, V) of a Hugging Face model."""
    return model(inputs, use_cache=False).logits


def competitors(case: Case) -> dict[str, Callable[[int], None]]:
    """Name -> one update, freshly initialised."""
    return {
        "ours": ours(case, "auto"),
        "ours, compiled": ours(case, "auto", compiled=True),
        "ours, fp32": ours(case, "fp32"),
        "transformers, as shipped": peer(case, transformers_gpt2(case), hf_logits, same=False),
        "transformers, same settings": peer(case, transformers_gpt2(case), hf_logits, same=True),
        "llms-from-scratch, as shipped": peer(case, from_scratch(case, False), lambda m, x: m(x), same=False),
        "llms-from-scratch fast, same settings": peer(
            case, from_scratch(case, True), lambda m, x: m(x), same=True
        ),
    }


def measure(case: Case, rounds: int, steps: int) -> dict[str, dict[str, float]]:
    """Tokens a second of each competitor: median over rounds, in each of which all have their turn."""
    runners = competitors(case)
    for run in runners.values():
        run(0)  # first steps allocate
        run(1)
    speeds: dict[str, list[float]] = {name: [] for name in runners}
    names = list(runners)
    for r in range(rounds):
        for name in names[r % len(names) :] + names[: r % len(names)]:  # nobody always comes first
            began = time.perf_counter()
            for step in range(steps):
                runners[name](2 + r * steps + step)
            spent = time.perf_counter() - began
            speeds[name].append(steps * case.batch_size * case.context_length / spent)
    return {name: spread(values) for name, values in speeds.items()}


def main() -> None:
    """Print the result as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3)
    given = parser.parse_args()
    torch.manual_seed(0)
    results = {name: measure(CASES[name], given.rounds, given.steps) for name in given.cases}
    cases = {name: vars(CASES[name]) for name in given.cases}
    print_json(
        {"bench": "train", "unit": "tokens/s", "machine": machine(), "cases": cases, "results": results}
    )


if __name__ == "__main__":
    main()
