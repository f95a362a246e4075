"""Trainings that are hurt on purpose: a process that has imported everything forks one for each line that it reads.

    {"arguments": ["NAME", "--max_steps", "40"], "strike": {"how": "kill", "at": 17}}

A strike falls at the `at`-th operation on files below $LLM_HOME/runs: an open, a rename, a sync. `how`: "kill" ends the process
there with SIGKILL, "fail" lets that one operation fail with `errno`. {"how": "kill", "after": 0.3} falls after so many seconds,
wherever the process is. {"how": "large", "most": 30000} lets every file end at so many bytes, as a full disk would.
Each answer is a line: {"status": exit status or minus the signal, "operations": how many there were}.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

import torch._dynamo  # noqa: F401  torch's optimizers import it when they are made, which would take every child two seconds

from llm import paths, train


class Struck:
    """Counts operations on files below a folder, and strikes at one of them."""

    def __init__(self, below: Path, strike: dict[str, Any]):
        self.below, self.strike, self.count = str(below), strike, 0
        sys.addaudithook(self.heard)
        sync = os.fsync

        def synced(descriptor: int) -> None:
            self.operation(f"/proc/self/fd/{descriptor}")
            sync(descriptor)

        os.fsync = synced

    def heard(self, event: str, arguments: tuple) -> None:
        if event in ("open", "os.rename") and isinstance(arguments[0], str) and arguments[0].startswith(self.below):  # fmt: skip
            self.operation(arguments[0])

    def operation(self, path: str) -> None:
        self.count += 1
        if self.count != self.strike.get("at"):
            return
        if self.strike["how"] == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        code = self.strike.get("errno", errno.ENOSPC)
        raise OSError(code, os.strerror(code), path)


def attempt(asked: dict[str, Any], answers: int) -> None:
    """One training in this (forked) process, which ends with it."""
    strike = asked.get("strike") or {}
    struck = Struck(paths.runs(), strike)
    if "after" in strike:
        threading.Timer(strike["after"], os.kill, (os.getpid(), signal.SIGKILL)).start()
    if strike.get("how") == "large":
        resource.setrlimit(resource.RLIMIT_FSIZE, (strike["most"], resource.RLIM_INFINITY))
    try:
        status = train.main(asked["arguments"])
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
        status = 1
    os.write(answers, f"{struck.count}\n".encode())
    os._exit(status)


class Attempts:
    """The forking process, asked from another one."""

    def __init__(self, home: Path, log: Path):
        environment = os.environ | {"LLM_HOME": str(home), "OMP_NUM_THREADS": "1", "LLM_NICE": "0"}
        self.log = log.open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", __spec__.name], cwd=paths.ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self.log, text=True,
        )  # fmt: skip

    def __call__(self, arguments: list[str], **strike: Any) -> dict[str, Any]:
        """Do one training, struck or not; its exit status and operations."""
        self.process.stdin.write(json.dumps({"arguments": arguments, "strike": strike}) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(30)
        self.log.close()


def main() -> None:
    """Answer until there is nothing more to read."""
    for line in sys.stdin:
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            os.dup2(2, 1)
            attempt(json.loads(line), writing)
        os.close(writing)
        _, status = os.waitpid(pid, 0)
        said = os.read(reading, 100)
        os.close(reading)
        print(
            json.dumps({"status": os.waitstatus_to_exitcode(status), "operations": int(said or 0)}),
            flush=True,
        )


if __name__ == "__main__":
    main()
