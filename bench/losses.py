"""Whether the fast way learns like the exact one: the mean loss of the last 100 of 1,000 steps, three seeds each.

    python -m bench.losses [--steps 1000]

fp32 is the exact way; bf16 is what `precision auto` takes on a processor that multiplies it in hardware: bf16 products, attention
by llm.fast, fp32 weights. The bar of the fast way is two standard deviations of the fp32 seeds from their mean.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile

from bench.report import ROOT, machine, print_json
from llm.config import ModelConfig, RunConfig, TrainConfig, to_flags

SEEDS = (0, 1, 2)
LAST = 100
SHAPE = ModelConfig(n_layer=3, n_head=4, n_embd=64, context_length=64)


def final(number_format: str, seed: int, steps: int) -> float:
    """The mean training loss of the last steps of a run of the shipped stories, by the command that a person types."""
    train = TrainConfig(
        max_steps=steps,
        warmup_steps=20,
        batch_size=8,
        eval_every=steps,
        eval_batches=1,
        precision=number_format,
        seed=seed,
    )
    flags = to_flags(RunConfig(model=SHAPE, train=train, sample_tokens=0))
    with tempfile.TemporaryDirectory() as home:
        subprocess.run(
            [sys.executable, "-m", "llm.train", "learns", *flags],
            cwd=ROOT, env=os.environ | {"LLM_HOME": home}, stdout=subprocess.DEVNULL, check=True,
        )  # fmt: skip
        with open(f"{home}/runs/learns/events.jsonl") as f:
            losses = [event["loss"] for event in map(json.loads, f) if event["kind"] == "step"]
    assert len(losses) == steps
    return statistics.fmean(losses[-LAST:])


def compared(steps: int = 1000) -> dict[str, list[float]]:
    """The final losses of both ways, seed by seed."""
    found: dict[str, list[float]] = {"fp32": [], "bf16": []}
    for seed in SEEDS:
        for number_format, losses in found.items():
            losses.append(final(number_format, seed, steps))
    return found


def within(found: dict[str, list[float]]) -> tuple[float, float]:
    """(How far the fast way's mean lies from the exact one's, two standard deviations of the exact one's seeds)."""
    apart = abs(statistics.fmean(found["bf16"]) - statistics.fmean(found["fp32"]))
    return apart, 2 * statistics.stdev(found["fp32"])


def main() -> None:
    """Print the result as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=1000)
    given = parser.parse_args()
    about = machine()
    found = compared(given.steps)
    apart, allowed = within(found)
    rows = {
        f"{name}, mean of the last {LAST}": {
            "median": statistics.fmean(losses), "least": min(losses), "most": max(losses), "n": len(losses)
        }
        for name, losses in found.items()
    }  # fmt: skip
    rows["apart"] = {"median": apart, "least": apart, "most": apart, "n": 1, "bar": allowed}
    print_json(
        {
            "bench": "losses", "unit": "nats", "machine": about, "results": {"1,000 steps": rows},
            "cases": {"1,000 steps": {"steps": given.steps, "seeds": list(SEEDS), "n_layer": SHAPE.n_layer, "n_embd": SHAPE.n_embd}},
        }
    )  # fmt: skip


if __name__ == "__main__":
    main()
