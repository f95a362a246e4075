"""Which waiting run starts next, and how: every run is a process of its own, started with the command a person would type."""

from __future__ import annotations

import fcntl
import os
import shlex
import subprocess
import sys
import threading
from contextlib import contextmanager

from llm import halving, paths
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
from llm.runs import Run, all_runs

KINDS: dict[str, tuple[str, type]] = {  # kind of run: the module that does it, its config
    "train": ("llm.train", RunConfig),
    "tokenizer": ("llm.bpe", BPEConfig),
    "import": ("llm.convert.bring", ImportConfig),
    "export": ("llm.convert.export", ExportConfig),
    "judge": ("llm.judge", JudgeConfig),
    "benchmark": ("llm.harness", BenchmarkConfig),
}
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
    """Runs at a time: $LLM_SLOTS, else one for every four cores, at least one."""
    return max(1, int(os.environ.get("LLM_SLOTS", cores() // 4)))


def threads() -> int:
    """Processor threads of each run, so that all slots together do not ask for more than there are."""
    return max(1, cores() // slots())


@contextmanager
def _alone():
    """Only one process decides at a time."""
    with open(paths.home() / "dispatch.lock", "a") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        yield


def waiting() -> list[Run]:
    """The queue: runs that wait, the longest waiting first."""
    return sorted((r for r in all_runs() if r.status() == "waiting"), key=Run.queued_at)


def place(run: Run) -> int:
    """How many runs go first: 0 for the next one. Raises ValueError when the run does not wait."""
    names = [r.name for r in waiting()]
    if run.name not in names:
        raise ValueError(f"The run {run.name} does not wait in the queue.")
    return names.index(run.name)


def pump() -> list[Run]:
    """Start waiting runs while slots are free; return the ones started. Safe to call at any time, from any process."""
    paths.runs()
    started = []
    with _alone():
        halving.advance()
        free = slots() - sum(r.status() == "running" for r in all_runs())
        for run in waiting()[: max(0, free)]:
            if start(run):
                started.append(run)
    return started


def start(run: Run) -> bool:
    """Start the run's process. It inherits the lock, so there is no moment at which the run looks abandoned."""
    descriptor = run.lock()
    if descriptor is None:
        return False
    try:
        run.append(
            "starting"
        )  # from here on a run without a process has broken off, and is not started again
        with open(run.path / "log.txt", "ab") as log:
            child = subprocess.Popen(
                [sys.executable, *command(run)[1:]],
                cwd=paths.ROOT,
                env=environment(descriptor),
                pass_fds=(descriptor,),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C and the end of the page's process do not reach it
            )
    finally:
        os.close(descriptor)
    threading.Thread(target=_reap, args=(child,), daemon=True).start()
    return True


def _reap(child: subprocess.Popen) -> None:
    """Wait for the process to end, so that it does not linger, then let the next one start."""
    child.wait()
    if paths.home().is_dir():
        pump()


def environment(lock: int) -> dict[str, str]:
    """A run's environment: no keys, threads that do not fight, freed memory kept for the next step."""
    clean = {k: v for k, v in os.environ.items() if not any(word in k.upper() for word in SECRET)}
    clean.pop("OMP_WAIT_POLICY", None)
    return {
        **clean,
        "LLM_HOME": str(paths.home()),
        "LLM_LOCK": str(lock),
        "LLM_NICE": os.environ.get("LLM_NICE", "10"),
        "OMP_NUM_THREADS": str(threads()),
        # A thread that waits for the others spins a moment before it sleeps: on an idle machine small steps are then
        # twice as fast, and beside other runs little is lost.
        **({"OMP_WAIT_POLICY": "PASSIVE"} if slots() > 1 else {"GOMP_SPINCOUNT": "10000"}),
        "MALLOC_TRIM_THRESHOLD_": "-1",
        "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
        "PYTHONUNBUFFERED": "1",
    }
