"""What training costs as work grows, the limit each point meets, and the forecast of the Train tab beside real runs.

    python -m bench.growth [--steps 5]

Each point is a process of its own: seconds of an update (the fastest of a few) and the most memory held beyond the
imports. Two floors stand beside it, from this machine's own speed measured first: the update's floating-point operations at the
speed of a large matrix product, and the bytes that an update must move (weights forward and backward, and AdamW's reading and
writing of weight, gradient and two averages) at the speed of a large copy. The larger floor is the limit; the share says how
near the update comes to it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.chart import curves
from bench.report import ROOT, machine, print_json

PICTURE = ROOT / "docs" / "pictures" / "growth.svg"
BASE = dict(n_layer=6, n_head=4, n_embd=256, vocab_size=1280, context_length=128, batch_size=8)
GROWS: dict[str, list[dict[str, int]]] = {
    "parameters": [
        dict(n_layer=layers, n_head=4, n_embd=width)
        for layers, width in ((4, 64), (4, 128), (6, 256), (8, 512), (12, 768))
    ],
    "context": [dict(context_length=T, batch_size=4) for T in (32, 64, 128, 256, 512, 1024)],
    "batch": [dict(batch_size=B) for B in (1, 2, 4, 8, 16, 32, 64)],
}
TEXTS = (1, 10, 100)  # megabytes
TRIED = {  # what is forecast and then trained: sizes, each with 1 and 2 threads
    "0.8 M": dict(n_layer=4, n_head=4, n_embd=128, context_length=128, batch_size=8),
    "5 M": dict(n_layer=6, n_head=4, n_embd=256, context_length=128, batch_size=8),
}
ADAMW_BYTES = 4 * 7  # of a weight: read it, its gradient and two averages; write it and the averages


def point(settings: dict[str, int], steps: int) -> dict[str, float]:
    """One point, in this process: seconds, bytes, parameters, operations."""
    import torch

    from bench.data import held, settled
    from bench.train import Case, gpt2_config, ours
    from llm import forecast

    case = Case(**settings)
    config = gpt2_config(case)
    torch.ones(512, 512) @ torch.ones(
        512, 512
    )  # the libraries' own buffers are there before the count begins
    before = settled()
    update = ours(case, "auto")
    times = []
    for step in range(steps + 2):
        began = time.perf_counter()
        update(step)
        times.append(time.perf_counter() - began)
    tokens = case.batch_size * case.context_length
    return {
        "seconds": min(times[2:]),
        "memory": held() - before,
        "parameters": sum(config.parameters().values()),
        "flops": forecast.flops_per_token(config) * tokens,
    }


def speeds() -> dict[str, float]:
    """This machine: operations a second of a large matrix product as training makes it, bytes a second of a large copy."""
    import torch

    from llm import precision

    device = torch.device("cpu")
    number_format = precision.choose("auto", device)
    a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
    source, target = torch.empty(64_000_000), torch.empty(64_000_000)

    def best(work: Any, n: int = 5) -> float:
        times = []
        for _ in range(n):
            began = time.perf_counter()
            work()
            times.append(time.perf_counter() - began)
        return min(times)

    with torch.no_grad(), precision.arithmetic(number_format, device):
        product = best(lambda: a @ b)
    return {
        "flops": 2 * 2048**3 / product,
        "bytes": 2 * source.numel() * 4 / best(lambda: target.copy_(source)),
        "number_format": number_format,
    }


def limit(found: dict[str, float], fast: dict[str, float]) -> tuple[str, float]:
    """Which floor is the larger one, and the share of the measured time that it explains."""
    floors = {
        "FLOPs": found["flops"] / fast["flops"],
        "bandwidth": found["parameters"] * (2 * 4 + ADAMW_BYTES) / fast["bytes"],
    }
    name = max(floors, key=floors.__getitem__)
    return name, floors[name] / found["seconds"]


def apart(*words: str, **environment: str) -> Any:
    """Part of this file in a process of its own; the JSON it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.growth", *words],
        cwd=ROOT, env=os.environ | environment, stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def text(megabytes: int) -> dict[str, float]:
    """A text of this size made ids for the first time, as bench.data measures it."""
    from bench import data

    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        (home / "datasets").mkdir()
        data.text_of(megabytes, home / "datasets" / "text.txt")
        found = data.measured("ours", home / "datasets" / "text.txt", "T 256, stride 256", home)
    return {"seconds": found["seconds"], "memory": found["memory"]}


def tried(settings: dict[str, int], threads: int, steps: int = 40) -> dict[str, float]:
    """The forecast of a run, then the run itself: seconds a step, and the bytes of weights, gradients, averages and activations."""
    from llm import forecast
    from llm.config import ModelConfig, RunConfig, TrainConfig
    from llm.runs import Run

    settings = dict(settings)
    batch = settings.pop("batch_size")
    train = TrainConfig(
        max_steps=steps, warmup_steps=2, batch_size=batch, eval_every=steps, eval_batches=1, threads=threads
    )
    config = RunConfig(model=ModelConfig(**settings), train=train, sample_tokens=0)
    said = forecast.forecast(replace(config, model=replace(config.model, vocab_size=1280)), threads)
    from llm.config import to_flags

    subprocess.run(
        [sys.executable, "-m", "llm.train", "tried", *to_flags(config)],
        cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": str(threads)}, stdout=subprocess.DEVNULL, check=True,
    )  # fmt: skip
    events = Run.open("tried").events()
    seconds = [event["seconds"] for event in events if event["kind"] == "step"]
    really = [later - earlier for earlier, later in itertools.pairwise(seconds)]
    held = next(event["memory"] for event in events if event["kind"] == "end")
    parts = ("weights", "gradients", "optimizer", "activations")
    return {
        "forecast": said["seconds_per_step"],
        "measured": statistics.median(really[5:]),
        "memory, forecast": sum(said["memory"].values()),
        "memory, counted": sum(held[part] for part in parts),
    }


def row(value: float) -> dict[str, float]:
    """One number as the report's tables have it."""
    return {"median": value, "least": value, "most": value, "n": 1}


def main() -> None:
    """Print the result as JSON and draw docs/pictures/growth.svg."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--point", help=argparse.SUPPRESS)
    parser.add_argument("--tried", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.point:
        print(json.dumps(point(json.loads(given.point), given.steps)))
        return
    if given.tried:
        print(json.dumps(tried(TRIED[given.tried[0]], int(given.tried[1]))))
        return
    about, fast = machine(), speeds()
    results: dict[str, dict[str, Any]] = {}
    series: dict[str, list[tuple[float, float, float, str]]] = {}
    for name, grows in GROWS.items():
        rows, drawn = {}, []
        for change in grows:
            settings = BASE | change
            found = apart("--steps", str(given.steps), "--point", json.dumps(settings))
            met, share = limit(found, fast)
            x = {
                "parameters": found["parameters"],
                "context": settings["context_length"],
                "batch": settings["batch_size"],
            }[name]
            rows[f"{x:,}: {found['memory'] / 1e6:,.0f} MB; limit {met}, of which it reaches {share:.0%}"] = (
                row(1000 * found["seconds"])
            )
            drawn.append((x, found["seconds"], found["memory"], met))
        results[name], series[name] = rows, drawn
    rows, drawn = {}, []
    for megabytes in TEXTS:
        found = text(megabytes)
        rows[f"{megabytes} MB of text: {found['memory'] / 1e6:,.0f} MB; limit tiktoken on all cores"] = row(
            1000 * found["seconds"]
        )
        drawn.append((megabytes * 1e6, found["seconds"], found["memory"], "encoding"))
    results["dataset"], series["dataset"] = rows, drawn
    rows = {}
    for size in TRIED:
        for threads in (1, 2):
            with tempfile.TemporaryDirectory() as folder:
                found = apart("--tried", size, str(threads), LLM_HOME=folder)
            off = found["forecast"] / found["measured"] - 1
            room = found["memory, forecast"] / found["memory, counted"] - 1
            rows[f"{size}, {threads} threads, forecast ({off:+.0%}; memory {room:+.0%})"] = row(
                1000 * found["forecast"]
            )
            rows[f"{size}, {threads} threads, measured"] = row(1000 * found["measured"])
    results["forecast"] = rows
    PICTURE.write_text(curves(series), encoding="utf-8")
    note = (
        f"This machine multiplies matrices at {fast['flops'] / 1e9:,.0f} GFLOP/s in {fast['number_format']} and copies "
        f"{fast['bytes'] / 1e9:.0f} GB/s. AdamW, V 1,280; what does not grow: {', '.join(f'{k} {v}' for k, v in BASE.items())}.\n\n"
        "![Seconds and memory of an update by parameters, context and batch, and of a text made ids by its size](pictures/growth.svg)"
    )
    print_json(
        {
            "bench": "growth", "unit": "ms", "machine": about, "note": note, "results": results,
            "cases": {"forecast": {k: str(asdict_of(v)) for k, v in TRIED.items()}}, "speeds": fast,
        }
    )  # fmt: skip


def asdict_of(settings: dict[str, int]) -> str:
    """Settings in a few words."""
    return ", ".join(f"{name} {value}" for name, value in settings.items())


if __name__ == "__main__":
    main()
