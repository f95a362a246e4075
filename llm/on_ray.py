"""Runs on the machines of a Ray cluster: each is a task with its resources, done by the command a person would type there.

Set LLM_RAY to the cluster's address, and LLM_HOME to a folder that all its machines share: the queue, the logs and the
checkpoints stay files there. A run is followed by its heartbeat. One whose machine is lost waits again and goes on from
its last checkpoint; what the lost attempt may still want to write is refused (see `Run.next_attempt`).
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

from llm import commands, paths
from llm.runs import Run, Superseded, all_runs

NAMESPACE = "llm-lab"
MOST_ATTEMPTS = 5  # of a run that is lost again and again
REACHABLE = 3.0  # seconds to wait for the address to answer


BEGUN: dict[
    str, tuple[Run, Any]
] = {}  # what this process has sent and not yet heard of: Ray's answer to come


class Runner:
    """Lives on one machine of the cluster and does one attempt of one run there."""

    def begin(self, home: str, name: str, attempt: int, command: list[str], given: dict[str, str]) -> str:
        """Start the run's process; "" when it runs, else why this machine cannot do it."""
        import ray

        os.environ["LLM_HOME"] = home
        here = f"{socket.gethostname()} ({ray.get_runtime_context().get_node_id()[:8]})"
        try:
            run = Run.open(name)
        except ValueError:
            return (
                f"The machine {here} does not see the run in {home}: LLM_HOME must be a folder that all machines of the "
                "cluster share."
            )
        environment = commands.environment(0) | given | {"LLM_ATTEMPT": str(attempt), "LLM_NODE": here}
        environment.pop("LLM_LOCK")
        environment.pop("LLM_RAY", None)  # what this run starts, it starts here
        me = ray.get_runtime_context().current_actor
        threading.Thread(target=self.do, args=(run, attempt, command, environment, me), daemon=True).start()
        return ""

    def do(self, run: Run, attempt: int, command: list[str], environment: dict[str, str], me: Any) -> None:
        """The run's process from beginning to end; then the resources are free again."""
        import ray

        with open(run.path / "log.txt", "ab") as log:
            status = subprocess.run(
                [sys.executable, *command[1:]],
                cwd=paths.ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False,
            ).returncode  # fmt: skip
        try:
            if run.last_event()["kind"] != "end":
                message = f"Its process ended with status {status} and said nothing: see the run's log.txt."
                replace(run, attempt=attempt).append("end", reason="failed", step=0, message=message)
        except Superseded:
            pass
        ray.kill(me)


def processors() -> int:
    """Processors that each run gets: $LLM_RAY_CPUS, else 2."""
    return int(os.environ.get("LLM_RAY_CPUS", "2"))


def gpus() -> float:
    """Graphics processors that each run gets: $LLM_RAY_GPUS, else none."""
    return float(os.environ.get("LLM_RAY_GPUS", "0"))


def answers(address: str) -> bool:
    """Whether somebody listens at host:port; an address of another form is left to Ray to judge."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return True
    try:
        socket.create_connection((host, int(port)), timeout=REACHABLE).close()
        return True
    except OSError:
        return False


class Ray:
    """The cluster at $LLM_RAY."""

    def trouble(self) -> str:
        """Why no run can be started, in a sentence; "" when they can."""
        address = os.environ["LLM_RAY"]
        try:
            import ray
        except ImportError:
            return (
                "LLM_RAY is set, and Ray is not installed here: pip install -r requirements-cluster.txt, or unset it to run "
                "here. The runs wait."
            )
        refused = f"The Ray cluster at {address} does not answer: start it, or correct LLM_RAY. The runs wait"
        if not answers(address):
            if ray.is_initialized():  # it has gone since we were connected
                BEGUN.clear()
                ray.shutdown()
            return f"{refused}."
        if ray.is_initialized():
            return ""
        try:
            ray.init(
                address=address,
                namespace=NAMESPACE,
                log_to_driver=False,
                configure_logging=False,
                runtime_env={"env_vars": {"PYTHONPATH": str(paths.ROOT)}},
            )
        except Exception as error:  # Ray's own kinds, of which there are many
            return f"{refused} ({str(error).splitlines()[0] if str(error) else type(error).__name__})."
        return ""

    def recover(self) -> None:
        """Hear what the machines said of the runs they were sent, and put those that were lost back into the queue."""
        import ray

        for key, (run, answer) in list(BEGUN.items()):
            if not ray.wait([answer], timeout=0)[0]:
                if run.status() == "running" and run.node() == "ray":
                    run.beat("ray")  # it still waits for a machine
                continue
            del BEGUN[key]
            try:
                refused = ray.get(answer)
            except ray.exceptions.RayError as error:  # lost before it had begun
                with open(run.path / "log.txt", "a", encoding="utf-8") as log:
                    log.write(f"Attempt {run.attempt}: {error}\n")
                continue
            if refused and run.attempts() == run.attempt and run.status() != "waiting":
                run.append("end", reason="failed", step=0, message=refused)
        for run in all_runs():
            if run.status() == "crashed" and (sent := times_sent(run)):
                if sent < MOST_ATTEMPTS:
                    begun = run.meta["created"]  # it keeps its place before those that came after it
                    run.next_attempt().append("queued", lost=run.node(), since=begun)
                else:
                    message = f"Lost {MOST_ATTEMPTS} times with its machine, the last time on {run.node()}: see log.txt."
                    step = max((event.get("step", 0) for event in run.events()), default=0)
                    run.next_attempt().append("end", reason="failed", step=step, message=message)

    def free(self) -> int:
        """How many more runs have room in the cluster now."""
        import ray

        there = ray.available_resources()
        rooms = [int(there.get("CPU", 0) // processors())]
        if gpus():
            rooms.append(int(there.get("GPU", 0) // gpus()))
        waiting = sum(run.status() == "running" and run.node() == "ray" for run, _ in BEGUN.values())
        return min(rooms) - waiting  # sent, and their room not yet taken

    def start(self, run: Run) -> bool:
        """Send the run to the cluster as a detached actor: it lives on when this process ends."""
        import ray

        run = run.next_attempt()
        run.append("starting", attempt=run.attempt, launcher="ray")
        run.beat("ray")  # until the machine that gets it says so itself
        actor = ray.remote(Runner).options(
            name=f"{run.name}-{run.attempt}",
            namespace=NAMESPACE,
            lifetime="detached",
            num_cpus=processors(),
            num_gpus=gpus(),
            max_restarts=0,
        )
        given = {"LLM_THREADS": str(processors()), "OMP_NUM_THREADS": str(processors())}
        answer = actor.remote().begin.remote(
            str(Path(paths.home()).resolve()), run.name, run.attempt, commands.command(run), given
        )
        BEGUN[f"{run.name}-{run.attempt}"] = (run, answer)
        return True


def times_sent(run: Run) -> int:
    """How often a run was sent to a cluster, if that is where it went the last time; 0 else."""
    starts = [event for event in run.read()[0] if event["kind"] == "starting"]
    return len(starts) if starts and starts[-1].get("launcher") == "ray" else 0
