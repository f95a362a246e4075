"""Scoring beside peers: multiple-choice questions beside the harness's Hugging Face backend, long texts beside transformers.

    python -m bench.evaluate [--cases quiz_0 quiz_5 gpt2_quiz text] [--rounds 5]

The same random weights on both sides, fp32. Questions are the shipped quiz as the harness asks them (`lm_eval`, whose
requests both sides get); the Hugging Face backend reads 16 rows at once and keeps its own sorting and sharing. A text is
scored by windows of the whole context, half of it apart: transformers one window after the other, as its documentation
shows it. The largest difference of any log-probability stands in the note of the result.
"""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bench.report import machine, print_json, spread
from llm import checkpoint, corpora, files, harness, paths, scoring, tokenizer
from llm.config import ModelConfig
from llm.convert import folder
from llm.model import GPT


@dataclass(frozen=True)
class Case:
    """What is scored: questions with `shots` solved ones before each, or with `shots` -1 a text of `limit` characters."""

    n_layer: int
    n_head: int
    n_embd: int
    encoding: str
    context_length: int
    shots: int
    limit: int  # questions of each subject


CASES = {
    "quiz_0": Case(4, 4, 128, "stories-1280", 1024, shots=0, limit=20),
    "quiz_5": Case(4, 4, 128, "stories-1280", 1024, shots=5, limit=20),
    "gpt2_quiz": Case(12, 12, 768, "gpt2", 1024, shots=5, limit=2),
    "text": Case(4, 4, 128, "stories-1280", 256, shots=-1, limit=200_000),
}
BATCH = 16


def pair(case: Case, place: Path) -> tuple[GPT, Any, Any, Any]:
    """The same random model twice: ours with its encoding, and as transformers opens it with its tokenizer."""
    import transformers

    encoding = tokenizer.get(case.encoding)
    model = GPT(
        ModelConfig(
            vocab_size=encoding.vocab_size, context_length=case.context_length, n_layer=case.n_layer, n_head=case.n_head,
            n_embd=case.n_embd, norm="layernorm", mlp="gelu_tanh", position="learned", bias=True, qkv_bias=True,
        )
    )  # fmt: skip
    checkpoint.save_model(paths.models() / "ours", model, encoding, "# random\n")
    folder.save("ours", place / "theirs", "fp32")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(place / "theirs", dtype=torch.float32)
    kit = transformers.AutoTokenizer.from_pretrained(place / "theirs")
    return model.eval(), encoding, theirs.eval(), kit


def requests(case: Case) -> list[Any]:
    """What the harness asks for this case: (text, continuation) of every choice of every question."""
    from lm_eval.tasks import TaskManager, get_task_dict

    with harness.quiz_tasks() as place:
        names = sorted(path.stem for path in place.glob("*.yaml"))
        manager = TaskManager(include_path=str(place), include_defaults=False)
        tasks = get_task_dict([f"{harness.QUIZ}_{name}" for name in names], manager)
        found = []
        for task in tasks.values():
            task.set_config(key="num_fewshot", value=case.shots)
            task.set_fewshot_seed(seed=0)
            task.build_all_requests(limit=case.limit, rank=0, world_size=1)
            found += task.instances
    return found


def questions(case: Case, place: Path) -> tuple[dict[str, Callable[[], list[float]]], int]:
    """Each competitor's way to score all choices, and how many questions they belong to."""
    from lm_eval.models.huggingface import HFLM

    ours, encoding, theirs, kit = pair(case, place)
    lms = {
        "ours": harness.adapter(ours, encoding),
        "the harness's Hugging Face backend": HFLM(
            pretrained=theirs, tokenizer=kit, batch_size=BATCH, device="cpu", max_length=case.context_length
        ),
    }
    asked = requests(case)
    runners = {
        name: lambda lm=lm: [logprob for logprob, _ in lm.loglikelihood(asked, disable_tqdm=True)]
        for name, lm in lms.items()
    }
    return runners, len(asked) // 4


def text(case: Case, place: Path) -> tuple[dict[str, Callable[[], list[float]]], int]:
    """Each competitor's way to score a text through sliding windows, and its number of tokens."""
    ours, encoding, theirs, _ = pair(case, place)
    ids = encoding.encode(files.read_text(corpora.path("stories")).text[: case.limit])
    window, stride = case.context_length, case.context_length // 2

    def mine() -> list[float]:
        return scoring.score_ids(ours, ids, window, stride).logprobs[1:].tolist()

    @torch.inference_mode()
    def other() -> list[float]:
        found: list[float] = []
        for one in scoring.windows(len(ids), window, stride):
            idx = torch.tensor([ids[one.begin : one.end]])
            logprobs = theirs(idx).logits[0, :-1].log_softmax(-1)
            own = logprobs.gather(-1, idx[0, 1:, None])[:, 0]
            found += own[one.first - one.begin - 1 :].tolist()
        return found

    return {"ours": mine, "transformers, a window at a time": other}, len(ids)


def measure(case: Case, rounds: int) -> tuple[dict[str, dict[str, float]], float, int]:
    """(units a second of each, the largest difference of a log-probability, units): all have their turn in each round."""
    with tempfile.TemporaryDirectory() as place:
        os.environ["LLM_HOME"] = place
        runners, units = (text if case.shots < 0 else questions)(case, Path(place))
        first, *others = [run() for run in runners.values()]
        apart = max(abs(a - b) for other in others for a, b in zip(first, other, strict=True))
        speeds: dict[str, list[float]] = {name: [] for name in runners}
        names = list(runners)
        for r in range(rounds):
            for name in names[r % len(names) :] + names[: r % len(names)]:
                began = time.perf_counter()
                runners[name]()
                speeds[name].append(units / (time.perf_counter() - began))
    return {name: spread(values) for name, values in speeds.items()}, apart, units


def main() -> None:
    """Print the result as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    logging.disable(logging.WARNING)
    torch.manual_seed(0)
    results, notes, cases = {}, [], {}
    for name in given.cases:
        results[name], apart, units = measure(CASES[name], given.rounds)
        notes.append(f"{name} {apart:.1e}")
        asked = {"tokens" if CASES[name].shots < 0 else "questions": units}
        cases[name] = {k: v for k, v in vars(CASES[name]).items() if k != "limit" and v != -1} | asked
    print_json(
        {
            "bench": "evaluate",
            "unit": "questions/s",
            "units": {name: "tokens/s" for name in results if CASES[name].shots < 0},
            "machine": machine(),
            "note": f"fp32, the Hugging Face backend at batch size {BATCH}. Log-probabilities differ at most by: {'; '.join(notes)}.",
            "cases": cases,
            "results": results,
        }
    )  # fmt: skip


if __name__ == "__main__":
    main()
