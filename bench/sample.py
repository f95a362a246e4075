"""One sampling step over 50,257 logits: filters, probabilities, a draw; beside transformers' own processors; microseconds.

    python -m bench.sample [--cases top_k top_p min_p all] [--rounds 9]

The logits are those of a peaked distribution such as a trained model has (a few likely tokens, a long tail), new ones for
each step and the same for both. The largest difference of any probability stands in the note.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch

from bench.report import machine, print_json, spread
from llm import generate
from llm.config import SampleConfig

VOCAB = 50257
STEPS = 40  # sampling steps of one turn
CASES = {
    "top_k": SampleConfig(temperature=0.8, top_k=50),
    "top_p": SampleConfig(temperature=0.8, top_p=0.95),
    "min_p": SampleConfig(temperature=0.8, min_p=0.05),
    "all": SampleConfig(temperature=0.8, top_k=50, top_p=0.95, min_p=0.05),
}


def ours(config: SampleConfig) -> Callable[[torch.Tensor], torch.Tensor]:
    """Probabilities (1, V) by the lab's filters; nothing was seen, and nothing is penalised."""
    seen = torch.zeros(1, VOCAB, dtype=torch.bool)
    return lambda logits: generate.probabilities(logits, seen, config)


def theirs(config: SampleConfig) -> Callable[[torch.Tensor], torch.Tensor]:
    """Probabilities (1, V) by transformers' processors, as its generate applies them."""
    from transformers import (
        LogitsProcessorList,
        MinPLogitsWarper,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    steps = [TemperatureLogitsWarper(config.temperature)]
    steps += [TopKLogitsWarper(config.top_k)] if config.top_k else []
    steps += [TopPLogitsWarper(config.top_p)] if config.top_p < 1 else []
    steps += [MinPLogitsWarper(config.min_p)] if config.min_p else []
    processors, ids = LogitsProcessorList(steps), torch.zeros(1, 1, dtype=torch.long)
    return lambda logits: torch.softmax(processors(ids, logits), -1)


def logits_of(step: int) -> torch.Tensor:
    """(1, V): a few tokens far above a long tail."""
    source = torch.Generator().manual_seed(step)
    return torch.randn(1, VOCAB, generator=source) * 2 + 12 * torch.rand(1, VOCAB, generator=source) ** 200


def turn(
    chances: Callable[[torch.Tensor], torch.Tensor], draw: Callable, logits: list[torch.Tensor]
) -> float:
    """Microseconds a step."""
    began = time.perf_counter()
    for one in logits:
        draw(chances(one))
    return (time.perf_counter() - began) / len(logits) * 1e6


@torch.inference_mode()
def measure(config: SampleConfig, rounds: int) -> tuple[dict[str, dict[str, float]], float]:
    """(microseconds a step of each, the largest difference of a probability): they take turns."""
    logits = [logits_of(step) for step in range(STEPS)]
    u = torch.rand(1, 1, dtype=torch.float64)
    ways = {
        "ours": (ours(config), lambda p: generate.draw(p, u)),
        "transformers": (theirs(config), lambda p: torch.multinomial(p, 1)),
    }
    apart = max(float((ways["ours"][0](one) - ways["transformers"][0](one)).abs().max()) for one in logits)
    times: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    for r in range(rounds):
        for name in names[r % 2 :] + names[: r % 2]:
            times[name].append(turn(*ways[name], logits))
    return {name: spread(values) for name, values in times.items()}, apart


def main() -> None:
    """Print the result as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    results, notes = {}, []
    for name in given.cases:
        results[name], apart = measure(CASES[name], given.rounds)
        notes.append(f"{name} {apart:.1e}")
    fields = ("temperature", "top_k", "top_p", "min_p")
    cases = {name: {field: getattr(CASES[name], field) for field in fields} for name in given.cases}
    note = f"Probabilities differ at most by: {'; '.join(notes)}."
    print_json(
        {
            "bench": "sample",
            "unit": "µs",
            "machine": machine(),
            "note": note,
            "cases": cases,
            "results": results,
        }
    )


if __name__ == "__main__":
    main()
