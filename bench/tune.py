"""Fine-tuning GPT-2 124M beside peft and transformers: tokens a second, interleaved, and the peak memory of each.

    python -m bench.tune [--formats bf16 fp32] [--rounds 5] [--steps 2]

Random weights, batch 4, 256 tokens, LoRA of rank 8 on every matrix inside the blocks. All have the same number format, fused
AdamW, clipping of gradients and loss. The memory is that of a process which holds nothing else, less what it had before the
model was made.
"""

from __future__ import annotations

import argparse
import gc
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from bench.report import ROOT, machine, print_json, spread
from bench.train import CPU, Case, RandomText, gpt2_config, hf_logits, transformers_gpt2
from llm import lora, optim, precision
from llm.config import TrainConfig
from llm.distributed import World
from llm.model import GPT
from llm.train import State, update

CASE = Case(n_layer=12, n_head=12, n_embd=768, vocab_size=50257, context_length=256, batch_size=4)
RANK, ALPHA, RATE = 8, 16, 1e-4
MEGABYTE = 1e6


def ours(adapter: bool, number_format: str) -> Callable[[int], None]:
    """One update with the lab's own loop, of all weights or of an adapter."""
    model, text = GPT(gpt2_config(CASE)), RandomText(CASE)
    if adapter:
        lora.add(model, lora.Settings(rank=RANK, alpha=ALPHA))
    precision.prepare(model, number_format)
    config = TrainConfig(optimizer="adamw", learning_rate=RATE, schedule="constant", warmup_steps=0)
    state = State(model.train(), optim.optimizers(model, config, number_format))
    return lambda step: update(state, text, config, World(0, 1, CPU), number_format)


def theirs(adapter: bool, number_format: str) -> Callable[[int], None]:
    """One update of transformers' GPT-2, of all weights or of peft's adapter on the same matrices."""
    model, text = transformers_gpt2(CASE), RandomText(CASE)
    if adapter:
        from peft import LoraConfig, get_peft_model

        places = ["c_attn", "c_proj", "c_fc"]
        model = get_peft_model(
            model,
            LoraConfig(
                r=RANK, lora_alpha=ALPHA, lora_dropout=0.0, target_modules=places, fan_in_fan_out=True, task_type="CAUSAL_LM"
            ),
        )  # fmt: skip
    learning = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=RATE, weight_decay=TrainConfig().weight_decay, fused=True)
    model.train()

    def step(number: int) -> None:
        inputs, targets = text.batch(number)
        optimizer.zero_grad()
        with precision.arithmetic(number_format, CPU):
            logits = hf_logits(model, inputs)
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()

    return step


COMPETITORS: dict[str, dict[str, Callable[[str], Callable[[int], None]]]] = {
    "LoRA": {
        "ours": lambda number_format: ours(True, number_format),
        "peft": lambda number_format: theirs(True, number_format),
    },
    "all weights": {
        "ours": lambda number_format: ours(False, number_format),
        "transformers": lambda number_format: theirs(False, number_format),
    },
}


def speeds(kind: str, number_format: str, rounds: int, steps: int) -> dict[str, dict[str, float]]:
    """Tokens a second: median over rounds, in each of which all have their turn."""
    runners = {name: make(number_format) for name, make in COMPETITORS[kind].items()}
    for run in runners.values():
        run(0)  # first steps allocate
        run(1)
    found: dict[str, list[float]] = {name: [] for name in runners}
    names = list(runners)
    for r in range(rounds):
        for name in names[r % len(names) :] + names[: r % len(names)]:  # nobody always comes first
            began = time.perf_counter()
            for step in range(steps):
                runners[name](2 + r * steps + step)
            spent = time.perf_counter() - began
            found[name].append(steps * CASE.batch_size * CASE.context_length / spent)
    return {name: spread(values) for name, values in found.items()}


def resident(peak: bool) -> float:
    """Megabytes of memory that this process has, or had at most since the peak was last forgotten (Linux)."""
    field = "VmHWM" if peak else "VmRSS"
    return int(re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024 / MEGABYTE


def peak(kind: str, name: str, number_format: str, steps: int = 3) -> float:
    """Megabytes that this process takes at most for a few updates, beyond what it had before."""
    import peft  # noqa: F401  (what is imported is not what a step needs: it is there before, for everybody)
    import transformers  # noqa: F401

    transformers_gpt2(Case(1, 1, 8, 16, 8, 1))
    gc.collect()
    before = resident(peak=False)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    run = COMPETITORS[kind][name](number_format)
    for step in range(steps):
        run(step)
    return resident(peak=True) - before


def peaks(kind: str, number_format: str, processes: int) -> dict[str, dict[str, float]]:
    """The peak memory of each competitor, in processes of its own."""
    found: dict[str, list[float]] = {name: [] for name in COMPETITORS[kind]}
    for _ in range(processes):
        for name, values in found.items():
            command = [sys.executable, "-m", "bench.tune", "--peak", kind, name, number_format]
            done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
            values.append(json.loads(done.stdout))
    return {name: spread(values) for name, values in found.items()}


def main() -> None:
    """Print the result as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--formats", nargs="+", choices=("bf16", "fp32"), default=["bf16", "fp32"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--processes", type=int, default=2, help="in which each memory is measured")
    parser.add_argument(
        "--peak", nargs=3, metavar=("KIND", "NAME", "FORMAT"), help="only the memory of one, here"
    )
    given = parser.parse_args()
    torch.manual_seed(0)
    if given.peak:
        print(json.dumps(peak(*given.peak)))
        return
    results, units = {}, {}
    for number_format in given.formats:
        for kind in COMPETITORS:
            results[f"{kind}, {number_format}"] = speeds(kind, number_format, given.rounds, given.steps)
            gc.collect()
    for number_format in given.formats:
        for kind in COMPETITORS:
            name = f"{kind}, {number_format}, peak memory"
            results[name], units[name] = peaks(kind, number_format, given.processes), "MB"
    cases = {name: vars(CASE) | ({"LoRA rank": RANK} if name.startswith("LoRA") else {}) for name in results}
    print_json(
        {"bench": "tune", "unit": "tokens/s", "units": units, "machine": machine(), "cases": cases, "results": results}
    )  # fmt: skip


if __name__ == "__main__":
    main()
