"""The Slurm script with stand-ins for `srun` and `scontrol`: one node, two processes, time running out, the job queued again."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest

from llm import paths
from llm.config import to_flags
from llm.runs import Run
from tests.test_train import losses, small

SCRIPT = paths.ROOT / "scripts" / "slurm" / "train.sbatch"
pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")


def test_the_script_is_sound():
    done = subprocess.run(["bash", "-n", str(SCRIPT)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    missing = subprocess.run(["bash", str(SCRIPT)], capture_output=True, text=True)
    assert missing.returncode and "name the run" in missing.stderr


@pytest.fixture
def submitted(tmp_path, home):
    """A function that starts the job as Slurm would, and the file in which `scontrol` notes what it was told."""
    tools, told = tmp_path / "tools", tmp_path / "told"
    tools.mkdir()
    (tools / "srun").write_text('#!/bin/sh\nexec "$@"\n')
    (tools / "scontrol").write_text(
        f'#!/bin/sh\nif [ "$1" = show ]; then echo 127.0.0.1; else echo "$@" >> {told}; fi\n'
    )
    for tool in tools.iterdir():
        tool.chmod(0o755)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    variables = {
        "PATH": f"{tools}:{os.environ['PATH']}", "LLM_HOME": str(home), "LLM_PROCESSES": "2", "LLM_PORT": str(port),
        "PYTHON": sys.executable, "OMP_NUM_THREADS": "1", "SLURM_JOB_ID": "77", "SLURM_JOB_NODELIST": "node1",
        "SLURM_NNODES": "1", "SLURM_CPUS_PER_TASK": "2",
    }  # fmt: skip

    def submit(*arguments):
        return subprocess.Popen(
            ["bash", str(SCRIPT), *arguments], cwd=paths.ROOT, env=os.environ | variables, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    return submit, told


@pytest.mark.slow
def test_a_job_whose_time_runs_out_is_queued_again_and_goes_on(submitted):
    submit, told = submitted
    config = small(max_steps=400, eval_every=100, checkpoint_every=1000)
    job = submit("long", *to_flags(config))
    until = time.monotonic() + 90
    while time.monotonic() < until and not (paths.runs() / "long" / "events.jsonl").is_file():
        time.sleep(0.05)
    run = Run.open("long")
    while time.monotonic() < until and len(losses(run)) < 20:
        time.sleep(0.02)
    job.send_signal(signal.SIGUSR1)
    said, _ = job.communicate(timeout=90)
    assert job.returncode == 0, said
    assert told.read_text() == "requeue 77\n" and "queued again" in said
    stopped = run.last_event()
    assert stopped["reason"] == "stopped" and 20 <= stopped["step"] < 400
    again = submit("long", *to_flags(config))
    said, _ = again.communicate(timeout=120)
    assert again.returncode == 0, said
    assert run.status() == "finished" and [step for step, *_ in losses(run)] == list(range(1, 401))
