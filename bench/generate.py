"""Generation speed beside peers from PyPI, new tokens a second, greedy, interleaved in one process.

    python -m bench.generate [--cases tiny gpt2 eight] [--rounds 5] [--tokens 200]

Random weights of one shape: the speed does not depend on them. transformers keeps a cache as we do; llms-from-scratch
is its chapter 4 function as shipped, which has none. In the case "eight" eight texts are asked for at the same moment:
ours are written side by side, transformers writes one after the other, as eight calls of its pipeline would.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch

from bench.report import machine, print_json, spread
from bench.train import Case, from_scratch, gpt2_config, transformers_gpt2
from llm import generate, tokenizer
from llm.config import SampleConfig
from llm.model import GPT

CASES = {
    "tiny": Case(n_layer=4, n_head=4, n_embd=128, vocab_size=50257, context_length=256, batch_size=1),
    "gpt2": Case(n_layer=12, n_head=12, n_embd=768, vocab_size=50257, context_length=1024, batch_size=1),
    "eight": Case(n_layer=12, n_head=12, n_embd=768, vocab_size=50257, context_length=1024, batch_size=8),
}
PROMPT = list(range(1000, 1016))  # 16 ids


def ours(case: Case, dtype: torch.dtype) -> Callable[[int], int]:
    """Our stream of Steps, exactly as the page gets it."""
    model, encoding = GPT(gpt2_config(case)).to(dtype).eval(), tokenizer.get("gpt2")

    def run(tokens: int) -> int:
        config = SampleConfig(temperature=0.0, max_new_tokens=tokens, stop_at_eot=False)
        return sum(1 for _ in generate.generate(model, encoding, [PROMPT] * case.batch_size, config))

    return run


def transformers(case: Case, dtype: torch.dtype) -> Callable[[int], int]:
    """Hugging Face's generate with its cache."""
    model = transformers_gpt2(case).to(dtype).eval()
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0

    def run(tokens: int) -> int:
        idx, made = torch.tensor([PROMPT]), 0
        for _ in range(case.batch_size):
            out = model.generate(
                idx, attention_mask=torch.ones_like(idx), max_new_tokens=tokens, do_sample=False
            )
            made += out.shape[1] - len(PROMPT)
        return made

    return run


def scratch(case: Case) -> Callable[[int], int]:
    """The book's chapter 4 function on its fast model: the whole text goes through the model for each new token."""
    from llms_from_scratch.ch04 import generate_text_simple

    model = from_scratch(case, True).eval()

    def run(tokens: int) -> int:
        out = generate_text_simple(model, torch.tensor([PROMPT]), tokens, case.context_length)
        return out.shape[1] - len(PROMPT)

    return run


def measure(case: Case, rounds: int, tokens: int) -> dict[str, dict[str, float]]:
    """New tokens a second of each competitor: median over rounds, in each of which all have their turn."""
    runners = {
        "ours, fp32": ours(case, torch.float32),
        "ours, bf16": ours(case, torch.bfloat16),
        "transformers, fp32": transformers(case, torch.float32),
        "transformers, bf16": transformers(case, torch.bfloat16),
    }
    if case.batch_size == 1:
        runners["llms-from-scratch, no cache"] = scratch(case)
    for run in runners.values():
        run(4)
    speeds: dict[str, list[float]] = {name: [] for name in runners}
    names = list(runners)
    for r in range(rounds):
        for name in names[r % len(names) :] + names[: r % len(names)]:
            began = time.perf_counter()
            made = runners[name](tokens)
            speeds[name].append(made / (time.perf_counter() - began))
            assert made == tokens * case.batch_size, f"{name} made {made} tokens"
    return {name: spread(values) for name, values in speeds.items()}


def main() -> None:
    """Print the result as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=200)
    given = parser.parse_args()
    torch.manual_seed(0)
    results = {name: measure(CASES[name], given.rounds, given.tokens) for name in given.cases}
    cases = {name: vars(CASES[name]) | {"new_tokens": given.tokens} for name in given.cases}
    print_json(
        {"bench": "generate", "unit": "tokens/s", "machine": machine(), "cases": cases, "results": results}
    )


if __name__ == "__main__":
    main()
