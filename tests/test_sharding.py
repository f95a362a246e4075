"""A model in shares on several processes: the curve of one, checkpoints for any number, failures that all are told of."""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch

from llm import checkpoint, commands, dispatch, paths
from llm.config import RunConfig, add_flags, from_flags, to_dict
from llm.distributed import World, same_versions
from llm.runs import Run

SMALL = [
    "--dataset",
    "fable",
    "--tokenizer",
    "byte",
    "--n_layer",
    "2",
    "--n_head",
    "2",
    "--n_embd",
    "32",
    "--context_length",
    "32",
    "--max_steps",
    "20",
    "--warmup_steps",
    "2",
    "--batch_size",
    "8",
    "--eval_every",
    "5",
    "--checkpoint_every",
    "5",
    "--precision",
    "fp32",
    "--threads",
    "1",
    "--sample_tokens",
    "6",
]
ROWS = [
    "--max_steps",
    "6",
    "--warmup_steps",
    "2",
    "--eval_every",
    "3",
    "--eval_batches",
    "2",
    "--checkpoint_every",
    "3",
    "--precision",
    "fp32",
    "--threads",
    "1",
    "--batch_size",
    "5",
    "--sample_tokens",
    "6",
]


@pytest.fixture(autouse=True)
def fable():
    chosen = random.Random(1)
    words = ["the", "old", "fox", "and", "a", "small", "owl", "went", "down", "to", "river", "look"]
    (paths.datasets() / "fable.txt").write_text(" ".join(chosen.choice(words) for _ in range(3000)) + "\n")


def begun(name, *flags, processes=0, shell=""):
    """The command as a person types it, here with `processes` of it in shares; `shell` is done first in each."""
    command = [sys.executable, "-m", "llm.train", name, *flags]
    if processes:
        command += ["--sharding", "full", "--processes", str(processes)]
    if shell:
        torchrun = ["torch.distributed.run", "--standalone", f"--nproc_per_node={processes}", "--no-python"]
        inner = [*command[: command.index("--processes")]]
        command = [sys.executable, "-m", *torchrun, "sh", "-c", f'{shell}; exec "$0" "$@"', *inner]
    environment = os.environ | {"LLM_HOME": str(paths.home()), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=paths.ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def done(process, status=0):
    _, said = process.communicate(timeout=120)
    assert process.returncode == status, said.decode()


def curve(name, kind="step", key="loss"):
    return [event[key] for event in Run.open(name).events() if event["kind"] == kind]


def assert_alike(one, many, steps):
    assert len(curve(one)) == len(curve(many)) == steps
    assert curve(many) == pytest.approx(curve(one), abs=1e-5)
    assert curve(many, "evaluate", "val_loss") == pytest.approx(curve(one, "evaluate", "val_loss"), abs=1e-5)


@pytest.mark.parametrize(
    ("processes", "flags"),
    [
        (2, "--optimizer muon --grad_accumulation 4"),
        pytest.param(2, "--optimizer adamw", marks=pytest.mark.slow),
        pytest.param(4, "--optimizer muon --batch_size 6 --grad_accumulation 3", marks=pytest.mark.slow),
        pytest.param(3, "--optimizer adamw --batch_size 2 --tie_embeddings", marks=pytest.mark.slow),
    ],
)
def test_shares_follow_the_curve_of_one_process(processes, flags):
    """Also where processes have fewer parts of a batch than others, or no row of it at all."""
    done(begun("one", *SMALL, *flags.split()))
    done(begun("many", *SMALL, *flags.split(), processes=processes))
    assert_alike("one", "many", steps=20)
    texts = [curve(name, "sample", "texts")[0] for name in ("one", "many")]
    assert texts[0] == texts[1]  # what the untrained model says, out of its shares put together
    (one, _), (many, _) = (checkpoint.load_model(Run.open(name).model_folder) for name in ("one", "many"))
    for a, b in zip(one.parameters(), many.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)
    start = next(event for event in Run.open("many").events() if event["kind"] == "start")
    assert start["processes"] == processes


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags",
    [
        "--objective prefer --start_from story-instruct --dataset preferences",
        "--objective prefer --start_from story-instruct --dataset preferences --trained lora",
        "--objective classify --start_from story-llama --dataset classification-two --trained last",
        "--objective instruct --start_from story-llama --dataset instructions --trained lora --lora_dora --optimizer adamw",
    ],
)
def test_every_way_of_tuning_works_in_shares(flags):
    done(begun("one", *ROWS, *flags.split()))
    done(begun("two", *ROWS, *flags.split(), processes=2))
    assert_alike("one", "two", steps=6)


def stopped_at(process, name, step, how):
    """Let a run come to a step, then do `how` to it."""
    until = time.time() + 90
    while time.time() < until and not (Run(paths.runs() / name).path / "events.jsonl").exists():
        time.sleep(0.02)
    run = Run.open(name)
    while time.time() < until and len(curve(name)) < step:
        time.sleep(0.01)
    how(run)
    return process


@pytest.mark.slow
def test_a_checkpoint_in_shares_goes_on_with_any_number_of_processes():
    flags = [*SMALL, "--max_steps", "60", "--optimizer", "muon"]
    done(begun("whole", *flags, processes=2))
    done(stopped_at(begun("moved", *flags, processes=2), "moved", 8, Run.request_stop))
    run = Run.open("moved")
    assert (
        run.status() == "stopped" and run.shares().name.startswith("shares-") and not run.state_path.exists()
    )
    done(stopped_at(begun("moved", *flags, processes=4), "moved", 30, Run.request_stop))
    done(begun("moved"))  # one process goes on with what four have written
    assert run.status() == "finished"
    assert_alike("whole", "moved", steps=60)
    assert len(list((run.path / "checkpoint").iterdir())) == 1  # older shares are gone


@pytest.mark.slow
def test_a_run_in_shares_that_lost_a_process_says_so_and_goes_on_to_the_same_curve(worker):
    flags = [*SMALL, "--max_steps", "80", "--checkpoint_every", "10"]
    done(begun("whole", *flags, processes=2))
    process = begun("lost", *flags, processes=2)
    stopped_at(process, "lost", 25, lambda run: os.kill(worker(process.pid, 1), signal.SIGKILL))
    done(process, status=1)
    assert end_of("lost")["reason"] == "failed" and "was lost" in end_of("lost")["message"]
    done(begun("lost", *flags, processes=2))
    assert curve("lost") == curve("whole") and len(curve("lost")) == 80


def test_the_queue_starts_a_run_on_several_processes_as_a_terminal_does_and_then_the_next_one(monkeypatch):
    """Its lock is torchrun's as long as that lives; when it has ended the next run has its turn."""
    monkeypatch.setenv("LLM_SLOTS", "1")
    monkeypatch.setenv("LLM_NICE", "0")
    flags = argparse.ArgumentParser()
    add_flags(flags, RunConfig)
    for name, processes in (("first", "2"), ("second", "1")):
        given = flags.parse_args([*SMALL, "--processes", processes])
        Run.create("train", to_dict(from_flags(RunConfig, given)), name=name)
    first, second = Run.open("first"), Run.open("second")
    assert commands.command(first)[-2:] == ["--processes", "2"]
    assert [run.name for run in dispatch.pump()] == ["first"]
    assert first.status() == "running" and second.status() == "waiting"
    until = time.time() + 90
    while second.status() != "finished" and time.time() < until:
        time.sleep(0.1)
    assert first.status() == second.status() == "finished", (first.last_event(), second.last_event())
    start = next(event for event in first.events() if event["kind"] == "start")
    assert start["processes"] == 2 and start["attempt"] == 1
    assert curve("first") == pytest.approx(curve("second"), abs=1e-5)
    until = time.time() + 20
    while first.locked() and time.time() < until:
        time.sleep(0.1)
    assert not first.locked()


def test_more_processes_than_a_machine_can_bear_are_refused_with_its_cores():
    done(begun("many", *SMALL, "--processes", "1000"), status=1)
    assert "1000 processes are too many" in end_of("many")["message"]


# --- what may go wrong on one of them


def end_of(name):
    return Run.open(name).last_event()


@pytest.mark.slow
def test_a_process_without_the_data_is_named_to_all():
    shell = (
        'if [ "$RANK" = 1 ]; then mkdir -p "$LLM_HOME/elsewhere"; export LLM_HOME="$LLM_HOME/elsewhere"; fi'
    )
    process = begun("lonely", *SMALL, processes=2, shell=shell)
    done(process, status=1)
    end = end_of("lonely")
    assert end["reason"] == "failed" and "Process 2 of 2" in end["message"] and "fable" in end["message"]


@pytest.mark.slow
def test_a_process_out_of_memory_is_named():
    """One of two may not hold more than it needs to begin; the other's log says which and why, and the run can be resumed."""
    flags = [*SMALL, "--n_embd", "512", "--context_length", "256", "--batch_size", "128", "--stride", "8"]
    process = begun("tight", *flags, processes=2, shell='if [ "$RANK" = 1 ]; then ulimit -v 2500000; fi')
    done(process, status=1)
    end = end_of("tight")
    assert end["reason"] == "failed" and "Process 2" in end["message"] and "memory" in end["message"], end
    Run.open("tight").request_resume()
    assert Run.open("tight").status() == "waiting"


def test_processes_of_different_versions_are_refused():
    class Mixed(World):
        def gather(self, value):
            return [value, ("far", "Python 3.12.1, torch 2.8.0")]

    with pytest.raises(ValueError, match=r"process 2 on far: Python 3\.12\.1, torch 2\.8\.0"):
        same_versions(Mixed(0, 2, torch.device("cpu")))


def test_one_process_keeps_its_model_whole_and_its_shares_are_damaged_with_a_sentence():
    flags = [*SMALL, "--max_steps", "4"]
    done(begun("alone", *flags, "--sharding", "full"))
    run = Run.open("alone")
    assert run.status() == "finished" and run.shares().name == "shares-00000004"
    (run.shares() / "numbers.json").write_text(json.dumps({"step": 3}))
    next(run.shares().glob("*.distcp")).write_bytes(b"nothing")
    lines = (run.path / "events.jsonl").read_text().splitlines()
    (run.path / "events.jsonl").write_text("\n".join(lines[:-1]) + "\n")  # as if it had broken off
    done(begun("alone", *flags, "--sharding", "full"), status=1)
    assert "damaged" in end_of("alone")["message"]
