"""Number formats: which one is fast here, and the arithmetic of a model in it."""

from __future__ import annotations

import os
import shutil
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from pathlib import Path

import torch

from llm.model import GPT


@lru_cache(maxsize=1)
def multiplies_bf16() -> bool:
    """Whether this processor multiplies bf16 in hardware (AMX or AVX-512): only then is bf16 the faster one on a CPU."""
    try:
        flags = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return False
    return "amx_bf16" in flags or "avx512_bf16" in flags


def choose(wanted: str, device: torch.device) -> str:
    """fp32 or bf16 for "auto"; otherwise what is wanted."""
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    return "bf16" if device.type == "cpu" and multiplies_bf16() else "fp32"


def arithmetic(precision: str, device: torch.device) -> AbstractContextManager:
    """Matrix products in `precision` inside this context; weights, their updates, norms and losses stay fp32."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def prepare(model: GPT, precision: str) -> None:
    """Choose the faster of two ways through attention: the one whose matrix products use the processor's unit."""
    fast = precision == "bf16" and model.device.type == "cpu"
    for block in model.blocks:
        block.attention.fast = fast


def compile_blocks(model: GPT) -> None:
    """Let torch write code of its own for the blocks, which are alike, at their first step.

    Raises ValueError where a processor's code cannot be built for want of a C++ compiler.
    """
    if model.device.type == "cpu" and not shutil.which(os.environ.get("CXX") or "g++"):
        raise ValueError(
            "To compile the model, torch needs a C++ compiler, and there is none here: install g++, or train without --compile."
        )
    for block in model.blocks:
        block.attention.fast = False  # the compiler writes its own fast way, and stumbles over ours
        block.compile()
