"""Runs on a real Ray cluster of several nodes on this machine: room, loss of a node, what comes back from the dead."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="ray is not installed: pip install -r requirements-cluster.txt")

from llm import dispatch, halving, job, on_ray, paths, sweep
from llm.config import ModelConfig, RunConfig, TrainConfig, to_dict
from llm.runs import Run, all_runs

pytestmark = pytest.mark.slow


@pytest.fixture
def cluster(monkeypatch):
    """A head without room for runs, and three nodes with room for two each."""
    import ray
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    made.nodes_for_runs = [made.add_node(num_cpus=2) for _ in range(3)]
    monkeypatch.setenv("LLM_RAY", made.address)
    monkeypatch.setenv("LLM_RAY_CPUS", "1")
    monkeypatch.setenv("LLM_STALE", "8")
    on_ray.BEGUN.clear()
    yield made
    ray.shutdown()
    made.shutdown()


def tiny(name, steps, every):
    """A run that waits: a small model and a checkpoint every few steps."""
    chosen = random.Random(1)
    (paths.datasets() / "fable.txt").write_text(
        " ".join(chosen.choice(["the", "old", "fox", "and", "owl"]) for _ in range(3000))
    )
    config = RunConfig(
        dataset="fable", tokenizer="byte", sample_tokens=0,
        model=ModelConfig(n_layer=1, n_head=2, n_embd=32, context_length=32),
        train=TrainConfig(max_steps=steps, warmup_steps=2, eval_every=steps, checkpoint_every=every, precision="fp32"),
    )  # fmt: skip
    return Run.create("train", to_dict(config), name=name)


def pumped(runs, until, limit):
    """Look after the queue until something is true of the runs."""
    deadline = time.time() + limit
    while time.time() < deadline and not until(runs):
        dispatch.pump()
        time.sleep(0.3)
    assert until(runs), dispatch.trouble() or {
        run.name: (run.status(), run.attempts(), run.node()) for run in runs
    }


def processes_on(node):
    """The processes of runs that a node of the cluster has, by the names of the runs."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            variables = dict(
                v.split(b"=", 1) for v in (folder / "environ").read_bytes().split(b"\0") if b"=" in v
            )
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if node[:8] in variables.get(b"LLM_NODE", b"").decode() and b"llm.train" in words:
            found[words[words.index(b"llm.train") + 1].decode()] = int(folder.name)
    return found


def test_a_lost_node_costs_no_run_and_doubles_none(cluster):
    """Twenty runs; a node dies with its two (Ray ends their processes); then a process of a lost attempt turns up again."""
    runs = [tiny(f"r{i:02d}", steps=1500, every=100) for i in range(20)]
    lost = cluster.nodes_for_runs[1]
    at_work = {}

    def two_at_work(_):
        at_work.update(processes_on(lost.node_id))
        names = [
            n
            for n, pid in at_work.items()
            if Path(f"/proc/{pid}").exists() and len(losses(Run.open(n))) > 150
        ]
        return len(names) == 2

    pumped(runs, two_at_work, 120)
    names = sorted(n for n, pid in at_work.items() if Path(f"/proc/{pid}").exists())
    cluster.remove_node(lost, allow_graceful=False)
    pumped(
        runs,
        lambda runs: all(Run.open(n).attempts() > 1 and Run.open(n).status() == "running" for n in names),
        120,
    )
    ghost = subprocess.run(
        [sys.executable, "-m", "llm.train", names[0]],
        cwd=paths.ROOT, env=os.environ | {"LLM_ATTEMPT": "1", "LLM_NODE": "of the dead"}, check=False,
    )  # fmt: skip
    assert ghost.returncode == job.GIVEN_UP
    pumped(runs, lambda runs: all(run.status() in ("finished", "failed") for run in runs), 420)
    for run in runs:
        raw = run.read()[0]
        ends = [event for event in raw if event["kind"] == "end"]
        assert len(ends) == 1 and ends[0]["reason"] == "finished", (run.name, ends)
        assert [event["step"] for event in run.events() if event["kind"] == "step"] == list(range(1, 1501))
        starts = [event["attempt"] for event in raw if event["kind"] == "starting"]
        assert starts == sorted(set(starts)) and len(starts) >= (2 if run.name in names else 1)
    whole = losses(runs[-1])
    for name in names:
        resumed = next(event for event in Run.open(name).read()[0] if event["kind"] == "resume")
        assert resumed["step"] >= 100, "it went on from a checkpoint"
        assert losses(Run.open(name)) == whole  # to the bit


def losses(run):
    return [event["loss"] for event in run.events() if event["kind"] == "step"]


def test_a_node_that_does_not_see_the_run_says_so(cluster, monkeypatch, tmp_path):
    run = tiny("hidden", steps=5, every=5)
    monkeypatch.setattr(on_ray.paths, "home", lambda: tmp_path)  # what the node is told of is an empty folder
    launcher = on_ray.Ray()
    assert launcher.trouble() == "" and launcher.start(run)
    deadline = time.time() + 60
    while run.status() != "failed" and time.time() < deadline:
        launcher.recover()
        time.sleep(0.3)
    assert "LLM_HOME must be a folder that all machines" in run.last_event()["message"]
    run.request_resume()
    assert run.status() == "waiting"


def test_a_sweep_halves_on_a_cluster_as_it_does_here(cluster, monkeypatch, capsys):
    """The same trials, on Ray and on this machine: the same ones go on, with the same losses to the bit."""
    flags = (
        "--dataset verse --tokenizer byte --n_layer 1 --n_head 2 --n_embd 16 --context_length 16 --max_steps 8 --batch_size 4 "
        "--eval_every 2 --eval_batches 1 --warmup_steps 1 --precision fp32 --threads 1 --sample_tokens 0 --halving 2"
    )
    words = [*flags.split(), "--vary", "learning_rate=1e-4,1e-3,1e-2,3e-2"]
    sweep.main(["far", *words])
    sent = [event for run in all_runs() for event in run.read()[0] if event["kind"] == "starting"]
    assert {event["launcher"] for event in sent} == {"ray"}
    monkeypatch.delenv("LLM_RAY")
    sweep.main(["near", *words])
    far, near = (sweep.rows(halving.read(name)) for name in ("far", "near"))
    assert [row["values"] for row in far] == [row["values"] for row in near]
    assert [(row["status"], row["val_loss"], row["curve"]) for row in far] == [
        (row["status"], row["val_loss"], row["curve"]) for row in near
    ]
    assert {row["status"] for row in far} == {"finished", "stopped"}
