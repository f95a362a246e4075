"""From a text file to all batches of one pass, beside the dataset class of LLMs-from-scratch: megabytes a second, and memory.

    python -m bench.data [--rounds 2] [--ours 100] [--theirs 10]

Each measurement is a process of its own: read the file, encode it as GPT-2 does, cut it into windows, take every batch once.
Ours reads `--ours` megabytes, theirs `--theirs` (it holds every window in memory). "memory" is the most the process held beyond
what it held before the file, as a multiple of the file. "again" is our second look: the ids lie on the disk and are mapped.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.report import ROOT, machine, print_json, spread

CASES = {
    "T 256, stride 256": dict(context_length=256, stride=256),  # as its chapter 5 trains
    "T 4, stride 1": dict(context_length=4, stride=1),  # as its chapter 2 shows windows
}
BATCH = 8


def text_of(megabytes: int, path: Path) -> None:
    """A text of this size: the shipped stories again and again, each time with other words between, so that no two parts are alike."""
    stories = (ROOT / "datasets" / "stories.txt").read_text(encoding="utf-8")
    written, number = 0, 0
    with open(path, "w", encoding="utf-8") as f:
        while written < megabytes * 1_000_000:
            part = f"Part {number}, of {number * 7919 % 10_007} words.\n{stories}"[
                : megabytes * 1_000_000 - written
            ]
            f.write(part)
            written, number = written + len(part.encode()), number + 1


def settled() -> int:
    """Forget the most that this process has held so far; the bytes it holds now (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")
    return in_status("VmRSS")


def held() -> int:
    """The most bytes that this process has held since `settled`."""
    return in_status("VmHWM")


def in_status(name: str) -> int:
    """A number of bytes in /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])


def ours(file: Path, context_length: int, stride: int) -> int:
    """Our own: ids on the disk, mapped; windows cut when a batch asks for them. Returns the windows it gave."""
    from llm import data, tokenizer

    windows = data.Windows(data.load(file.stem, tokenizer.get("gpt2")).ids, context_length, stride)
    batches, seen = data.Batches(len(windows), BATCH), 0
    for step in range(batches.per_epoch):
        inputs, _ = windows.inputs_and_targets(batches.numbers(step))
        seen += len(inputs)
    return seen


def theirs(file: Path, context_length: int, stride: int) -> int:
    """The book's class and loader as they are."""
    import tiktoken
    from llms_from_scratch import ch02
    from torch.utils.data import DataLoader

    from llm import tokenizer

    tiktoken.get_encoding = lambda name: tokenizer.get(name)._encoding  # its table without a download
    dataset = ch02.GPTDatasetV1(
        file.read_text(encoding="utf-8"), tiktoken.get_encoding("gpt2"), context_length, stride
    )
    return sum(len(inputs) for inputs, _ in DataLoader(dataset, BATCH, shuffle=True, drop_last=True))


WAYS = {"ours": ours, "ours, again": ours, "llms-from-scratch": theirs}


def child(way: str, file: str, case: str) -> None:
    """One measurement, printed as JSON."""
    import torch
    from llms_from_scratch import ch02  # before the clock starts: imports are not what is measured

    from llm import data, tokenizer

    del torch, ch02, data
    tokenizer.get("gpt2")
    before, began = settled(), time.perf_counter()
    seen = WAYS[way](Path(file), **CASES[case])
    seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "memory": held() - before, "windows": seen}))


def measured(way: str, file: Path, case: str, home: Path) -> dict:
    """`child` in a process of its own; all but "again" find no ids on the disk."""
    if way != "ours, again":
        for kept in (home / "cache").glob("ids-*"):
            kept.unlink()
    done = subprocess.run(
        [sys.executable, "-m", "bench.data", "--child", way, str(file), case],
        cwd=ROOT, env=os.environ | {"LLM_HOME": str(home)}, stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Print the result as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--ours", type=int, default=100, metavar="MB")
    parser.add_argument("--theirs", type=int, default=10, metavar="MB")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(*given.child)
        return
    about = machine()
    results: dict[str, dict] = {}
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        (home / "datasets").mkdir()
        sizes = {way: given.theirs if way == "llms-from-scratch" else given.ours for way in WAYS}
        for size in set(sizes.values()):
            text_of(size, home / "datasets" / f"text{size}.txt")
        for case in CASES:
            speeds: dict[str, list[float]] = {way: [] for way in WAYS}
            memory: dict[str, list[float]] = {way: [] for way in WAYS}
            for _ in range(given.rounds):
                for way, size in sizes.items():
                    one = measured(way, home / "datasets" / f"text{size}.txt", case, home)
                    speeds[way].append(size / one["seconds"])
                    memory[way].append(one["memory"] / (size * 1e6))
            results[case] = {way: spread(values) for way, values in speeds.items()}
            results[f"{case}: memory"] = {way: spread(values) for way, values in memory.items()}
    cases = {case: {**settings, "batch": BATCH, "MB, ours": given.ours, "MB, theirs": given.theirs} for case, settings in CASES.items()}  # fmt: skip
    units = {f"{case}: memory": "times the file" for case in CASES}
    print_json(
        {
            "bench": "data",
            "unit": "MB/s",
            "units": units,
            "machine": about,
            "cases": cases,
            "results": results,
        }
    )


if __name__ == "__main__":
    main()
