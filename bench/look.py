"""Looking inside: one pass that returns every attention map, beside transformers' output_attentions; milliseconds.

    python -m bench.look [--cases 64 512 1024] [--rounds 9]

GPT-2's shape with random weights, fp32. transformers' eager attention is the one that returns its weights. Ours keeps the
weights (H, T, T) of each layer, as the Attention tab asks for them. The maps themselves are compared before the clock
starts: the same weights stand in both models.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from bench.evaluate import Case as Shape
from bench.evaluate import pair
from bench.report import machine, print_json, spread
from llm import trace

CASES = {str(T): T for T in (64, 512, 1024)}
SHAPE = Shape(12, 12, 768, "gpt2", 1024, shots=0, limit=0)


def measure(runners: dict[str, Callable[[], object]], rounds: int) -> dict[str, dict[str, float]]:
    """Milliseconds of each competitor: median over rounds, in each of which all have their turn."""
    times: dict[str, list[float]] = {name: [] for name in runners}
    names = list(runners)
    for r in range(rounds):
        for name in names[r % len(names) :] + names[: r % len(names)]:
            began = time.perf_counter()
            runners[name]()
            times[name].append((time.perf_counter() - began) * 1000)
    return {name: spread(values) for name, values in times.items()}


def competitors(place: Path) -> Callable[[int], dict[str, Callable[[], object]]]:
    """For a text of T ids: each one's way to all maps and the logits. Raises AssertionError when the maps differ."""
    ours, _, theirs, _ = pair(SHAPE, place)
    theirs.set_attn_implementation("eager")
    wanted = ("blocks.*.attention.weights", "logits")

    def of(T: int) -> dict[str, Callable[[], object]]:
        idx = torch.randint(ours.config.vocab_size, (1, T), generator=torch.Generator().manual_seed(T))

        def other() -> tuple:
            with torch.no_grad():
                return theirs(idx, output_attentions=True, use_cache=False).attentions

        found, maps = trace.trace(ours, idx, wanted), other()
        for layer, weights in enumerate(maps):
            torch.testing.assert_close(
                found[f"blocks.{layer}.attention.weights"], weights, atol=1e-5, rtol=1e-3
            )
        return {"ours": lambda: trace.trace(ours, idx, wanted), "transformers": other}

    return of


def main() -> None:
    """Print the result as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as place:
        os.environ["LLM_HOME"] = place
        of = competitors(Path(place))
        results = {name: measure(of(CASES[name]), given.rounds) for name in given.cases}
    cases = {
        name: {"tokens": CASES[name], "n_layer": 12, "n_head": 12, "n_embd": 768} for name in given.cases
    }
    print_json({"bench": "look", "unit": "ms", "machine": machine(), "cases": cases, "results": results})


if __name__ == "__main__":
    main()
