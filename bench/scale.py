"""docs/scale.md: what limits at 10, 1,000 and 100,000 students and at 1B and 70B parameters, worked out from the measurements.

    python -m bench.scale

Every number of a machine is read from docs/performance.json, so the page is written anew whenever that is (`make bench` does). What
is assumed is said beside it.
"""

from __future__ import annotations

import json
import math
from typing import Any

from bench.report import RESULTS, ROOT

PAGE = ROOT / "docs" / "scale.md"
READS = 5  # tokens a second that a person reads
WRITING = 0.1  # share of the students for whom a text is being written at one moment
TOKENS_A_PARAMETER = 20  # of training (Hoffmann et al. 2022, section 3)
STATE = 16  # bytes a parameter that AdamW training in fp32 holds: weight, gradient, two averages
H200 = dict(memory=141e9, flops=989e12)  # NVIDIA's data sheet: memory, dense bf16 operations a second
USED = 0.4  # share of a GPU's operations that a good training reaches (torchtitan's and Megatron's own reports lie at 0.35 to 0.55)


def measured(results: dict[str, Any]) -> dict[str, float]:
    """The numbers that the page is worked out from."""

    def median(bench: str, case: str, row: str) -> float:
        rows = results[bench]["results"][case]
        return next(value["median"] for name, value in rows.items() if name.startswith(row))

    return {
        "one": median("generate", "gpt2", "ours, bf16"),
        "eight": median("generate", "eight", "ours, bf16"),
        "small_model": median("generate", "tiny", "ours, fp32"),
        "smollm2": median("smol", "SmolLM2-135M", "ours, int8"),
        "training": median("train", "gpt2", "ours"),
        "megabytes": median("data", "T 256, stride 256", "ours"),
        "flops": results["growth"]["speeds"]["flops"],
        "bytes": results["growth"]["speeds"]["bytes"],
    }


def students(n: int, rate: float) -> str:
    """How many such machines n students need for writing, in words."""
    wanted = n * WRITING * READS
    machines = math.ceil(wanted / rate)
    return f"{wanted:,.0f} tokens a second: {machines:,} such machine{'s' * (machines != 1)}"


def training(parameters: float, m: dict[str, float]) -> dict[str, str]:
    """What training a model of this size asks for."""
    flops = 6 * parameters * parameters * TOKENS_A_PARAMETER
    years = flops / m["flops"] / 31_557_600
    gpus = math.ceil(
        STATE * parameters / (0.6 * H200["memory"])
    )  # the rest of a GPU's memory is for activations
    days = flops / (USED * H200["flops"]) / 86_400
    return {
        "tokens": f"{parameters * TOKENS_A_PARAMETER / 1e9:,.0f} billion",
        "flops": f"{flops:.1e}",
        "years": f"{years:,.0f} years",
        "state": f"{STATE * parameters / 1e9:,.0f} GB",
        "gpus": f"{gpus}",
        "days": f"{days:,.0f} GPU days",
        "whole": f"{4 * parameters / 1e9:,.0f} GB",
        "text": f"{parameters * TOKENS_A_PARAMETER * 4 / m['megabytes'] / 1e6 / 3600:,.0f} h",
    }


def page(results: dict[str, Any]) -> str:
    """The whole page."""
    m = measured(results)
    where = results["growth"]["machine"]
    small, large = training(1e9, m), training(70e9, m)
    rows = [
        ("tokens of text", "tokens"), ("operations", "flops"), ("on this machine's two cores, at the speed of its matrix product", "years"),
        ("weights, gradients and averages in fp32", "state"), ("GPUs of 141 GB that hold them (full shares, 60 % of each)", "gpus"),
        (f"at {USED:.0%} of such a GPU's operations", "days"), ("a whole copy in fp32 on the leading process", "whole"),
        ("making the text ids here", "text"),
    ]  # fmt: skip
    table = "\n".join(f"| {said} | {small[key]} | {large[key]} |" for said, key in rows)
    return f"""# Scale: what limits, and what takes over

Written by `python -m bench.scale` from [performance.md](performance.md) ({where["date"]}, {where["processor"]}, {where["cores"]} cores). Numbers of the
machine are measured; what is assumed is marked so. Nothing on this page was run at the sizes it speaks of.

## Students

A student who reads follows {READS} tokens a second (assumed), and for {WRITING:.0%} of them a text is being written at one moment (assumed). GPT-2 124M
writes {m["one"]:.0f} tokens a second for one and {m["eight"]:.0f} for eight at once here, SmolLM2-135M in int8 {m["smollm2"]:.0f}, a model of the size
that a class trains (0.8 M weights beside a large vocabulary) {m["small_model"]:.0f}.

| students | writing with GPT-2 124M, eight at once | what limits | what takes over |
|---|---|---|---|
| 10 | {students(10, m["eight"])} | nothing: one laptop | - |
| 1,000 | {students(1000, m["eight"])} | the engine, one process that reads all weights for every token; then the page, one process of Python | the lab's own queue on a Ray cluster for runs; vLLM as an endpoint for writing (the Playground, Arena and judge ask it as they ask a local model); several pages behind a proxy, each with its own `LLM_HOME` |
| 100,000 | {students(100_000, m["eight"])} | everything that is one file or one process: the SQLite of votes, the directory of runs, the page | vLLM or SGLang on GPUs; runs in object storage with an index beside it; votes in PostgreSQL; a static page that asks these services. The lab is then what one class opens, not what all share |

Training is the dearer half: GPT-2 124M learns {m["training"]:,.0f} tokens a second here, so one student's fine-tuning on 100,000 tokens takes
{100_000 / m["training"] / 60:.0f} minutes of both cores. Thirty at once wait for one another in the queue; a cluster of thirty such nodes does not.

## Parameters

Tokens by the rule of {TOKENS_A_PARAMETER} a parameter, 6 operations a parameter and token, AdamW with {STATE} bytes a parameter.

| | 1B | 70B |
|---|---|---|
{table}

- **124M** is where two cores end: {m["training"]:,.0f} tokens a second, and one token written reads all weights, at most {m["bytes"] / 1e9:.0f} GB/s.
- **1B** fits one GPU, or several with `--sharding full`, by the same command. What limits is arithmetic. The lab's loop makes no use of
  activation checkpointing or of kernels fused for one GPU; torchtitan or NeMo do, and read the Hugging Face folder that the lab exports.
- **70B** needs shares over many GPUs, and parallelism inside a layer (tensor) and between layers (pipeline), which the lab does not have. Its own limit
  comes earlier: the leading process puts a whole copy together to save and to sample, {large["whole"]}. torchtitan, NeMo or Megatron take over, with
  checkpoints in object storage. Looking inside such a model stays possible where its weights fit the machine that looks.
- **Text**: {m["megabytes"]:.0f} MB a second become ids here. Beyond the disk, shards come and go (`NAME.shards`, see the README); beyond one machine's
  encoding speed, ids are made beforehand on many (Ray Data, datatrove).
"""


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(json.loads(RESULTS.read_text())), encoding="utf-8")


if __name__ == "__main__":
    main()
