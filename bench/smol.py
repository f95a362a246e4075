"""SmolLM2-135M written by us and by llama.cpp, new tokens a second, with the quality of each beside its speed.

    LLAMA_CPP_PYTHON=/path/to/python python -m bench.smol [--rounds 5] [--tokens 200]

The same file (Q4_1) for both. Ours in fp32, bf16, int8 and int4 made of the file's numbers; llama.cpp with the file's own blocks, by
llama-cpp-python in a Python of its own (LLAMA_CPP_PYTHON). Both have all cores and take turns, greedy, batch 1. Quality: mean
negative log-likelihood of held-out text, and the share of places whose likeliest token is that of fp32.
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

import numpy as np
import torch

from bench import smollm2
from bench.report import ROOT, machine, print_json, spread
from llm import corpora, files, paths, quantised, scoring
from llm.checkpoint import load_model
from llm.config import WEIGHTS, SampleConfig
from llm.generate import generate

SCORED = 512  # tokens
# What llama.cpp's Python does: one JSON line in, one out.
PEER = """
import json, os, sys, time
import numpy as np
from llama_cpp import Llama
out = os.fdopen(os.dup(1), "w"); os.dup2(2, 1)
llm = Llama(sys.argv[1], n_ctx=1024, n_threads=int(sys.argv[2]), n_threads_batch=int(sys.argv[2]), logits_all=True, verbose=False)
for line in sys.stdin:
    asked = json.loads(line)
    llm.reset()
    if "score" in asked:
        llm.eval(asked["score"])
        logits = np.array(llm.scores[: len(asked["score"])], dtype=np.float64)
        logits -= logits.max(-1, keepdims=True)
        logprobs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        wanted = asked["score"][1:]
        answer = dict(nll=float(-logprobs[np.arange(len(wanted)), wanted].mean()), best=logprobs[:-1].argmax(-1).tolist())
    else:
        ids, began = list(asked["ids"]), time.perf_counter()
        for made, token in enumerate(llm.generate(ids, temp=0.0, top_k=1, repeat_penalty=1.0), 1):
            if made == asked["tokens"]:
                break
        answer = dict(seconds=time.perf_counter() - began, made=made)
    print(json.dumps(answer), file=out, flush=True)
"""


class Peer:
    """llama.cpp in a process of its own."""

    def __init__(self, file: Path, threads: int):
        python = os.environ.get("LLAMA_CPP_PYTHON")
        if not python:
            raise SystemExit("Say where llama-cpp-python is installed: LLAMA_CPP_PYTHON=/path/to/python")
        self.process = subprocess.Popen(
            [python, "-c", PEER, str(file), str(threads)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )  # fmt: skip

    def ask(self, **asked: object) -> dict:
        """Its answer."""
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        """End it."""
        self.process.stdin.close()
        self.process.wait()


def main() -> None:
    """Print the result as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=200)
    given = parser.parse_args()
    about, threads = machine(), torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LLM_HOME"] = folder
        file = smollm2.fetch(Path(folder))
        subprocess.run(
            [sys.executable, "-m", "llm.convert.bring", "smol", "--source", str(file)],
            cwd=ROOT, stdout=subprocess.DEVNULL, check=True,
        )  # fmt: skip
        model, encoding = load_model(paths.model_folder("smol"))
        peer = Peer(file, threads)
        text = files.validation_part(files.read_text(corpora.path("stories")).text)[: 8 * SCORED]
        ids = encoding.encode(text)[:SCORED]
        models = {f"ours, {name}": quantised.smaller(model, name) for name in WEIGHTS}
        quality, first = {}, None
        for name, one in models.items():
            scores = scoring.score_ids(one, ids, len(ids), len(ids))
            first = scores.best[1:] if first is None else first
            quality[name] = (-float(np.nanmean(scores.logprobs)), float((scores.best[1:] == first).mean()))
        said = peer.ask(score=ids)
        quality["llama.cpp, Q4_1"] = (said["nll"], float((np.array(said["best"]) == first).mean()))
        prompt = ids[:16]
        how = SampleConfig(temperature=0.0, max_new_tokens=given.tokens, stop_at_eot=False)

        def written(one) -> float:
            began = time.perf_counter()
            made = sum(1 for _ in generate(one, encoding, [prompt], how))
            assert made == given.tokens
            return made / (time.perf_counter() - began)

        def by_peer() -> float:
            said = peer.ask(ids=prompt, tokens=given.tokens)
            assert said["made"] == given.tokens
            return said["made"] / said["seconds"]

        runners = {name: (lambda one=one: written(one)) for name, one in models.items()} | {
            "llama.cpp, Q4_1": by_peer
        }
        speeds: dict[str, list[float]] = {name: [] for name in runners}
        for run in runners.values():
            run()
        for _ in range(given.rounds):
            for name, run in runners.items():
                speeds[name].append(run())
        peer.close()
    labels = {
        name: f"{name} (NLL {nll:.4f}, same likeliest {same:.1%})" for name, (nll, same) in quality.items()
    }
    order = [
        "ours, int4",
        "ours, int8",
        "ours, bf16",
        "ours, fp32",
        "llama.cpp, Q4_1",
    ]  # the ratio is to the first
    results = {"SmolLM2-135M": {labels[name]: spread(speeds[name]) for name in order}}
    cases = {"SmolLM2-135M": {"new_tokens": given.tokens, "threads": threads, "scored": SCORED}}
    print_json({"bench": "smol", "unit": "tokens/s", "machine": about, "cases": cases, "results": results})


if __name__ == "__main__":
    main()
