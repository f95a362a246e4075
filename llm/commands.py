"""The command that does a run, the same as a person would type, and the environment it gets: cores, threads, no keys."""

from __future__ import annotations

import os
import shlex

from llm import modes, paths
from llm.config import (
    BenchmarkConfig,
    BPEConfig,
    ExportConfig,
    ImportConfig,
    JudgeConfig,
    RunConfig,
    from_dict,
    to_flags,
)
from llm.runs import Run

KINDS: dict[str, tuple[str, type]] = {  # kind of run: the module that does it, its config
    "train": ("llm.train", RunConfig),
    "tokenizer": ("llm.bpe", BPEConfig),
    "import": ("llm.convert.bring", ImportConfig),
    "export": ("llm.convert.export", ExportConfig),
    "judge": ("llm.judge", JudgeConfig),
    "benchmark": ("llm.harness", BenchmarkConfig),
}
OWN = (
    "OMP_WAIT_POLICY", "LLM_ATTEMPT", "LLM_NODE", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "TORCH_NCCL_ASYNC_ERROR_HANDLING",
)  # fmt: skip
SECRET = ("KEY", "TOKEN", "SECRET", "PASSWORD")  # variables with these words are not handed to runs


def command(run: Run) -> list[str]:
    """The command line that does this run, here or in a terminal: only settings that differ from the defaults."""
    module, config = KINDS[run.meta["kind"]]
    return ["python", "-m", module, run.name, *to_flags(from_dict(config, run.config))]


def command_line(kind: str, name: str, config: object) -> str:
    """The same as one line to copy, for a run that does not exist yet."""
    return shlex.join(["python", "-m", KINDS[kind][0], name, *to_flags(config)])


def cores() -> int:
    """Processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def slots() -> int:
    """Runs at a time, at least one: $LLM_SLOTS, else one for every four cores; for a class one a core, on a Space one for two."""
    share = {"local": 4, "class": 1, "space": 2}[modes.mode()]
    return max(1, int(os.environ.get("LLM_SLOTS", cores() // share)))


def threads() -> int:
    """Processor threads of each run, so that all slots together do not ask for more than there are ($LLM_THREADS: as given)."""
    return int(os.environ.get("LLM_THREADS", "0")) or max(1, cores() // slots())


def without_keys() -> dict[str, str]:
    """This process's variables but those that hold keys."""
    return {k: v for k, v in os.environ.items() if not any(word in k.upper() for word in SECRET)}


def environment(lock: int) -> dict[str, str]:
    """A run's environment: no keys, threads that do not fight, freed memory kept for the next step."""
    clean = without_keys()
    for name in list(clean):  # what is this process's own, and would make the run part of its world
        if name in OWN or name.startswith(("TORCHELASTIC_", "MASTER_", "ROLE_", "GROUP_")):
            del clean[name]
    return {
        **clean,
        "LLM_HOME": str(paths.home()),
        "LLM_LOCK": str(lock),
        "LLM_NICE": os.environ.get("LLM_NICE", "10"),
        "OMP_NUM_THREADS": str(threads()),
        "RAYON_NUM_THREADS": str(threads()),  # of the library that trains encodings
        # A thread that waits for the others spins a moment before it sleeps: on an idle machine small steps are then
        # twice as fast, and beside other runs little is lost.
        **({"OMP_WAIT_POLICY": "PASSIVE"} if slots() > 1 else {"GOMP_SPINCOUNT": "10000"}),
        "MALLOC_TRIM_THRESHOLD_": "-1",
        "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
        "PYTHONUNBUFFERED": "1",
    }
