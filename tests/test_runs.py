"""A run is a directory: its log survives kills, its status is read, its queue is fair."""

import json
import math
import os
import platform
import subprocess
import sys
import time

import pytest

from llm import commands, dispatch, job, paths, runs
from llm.config import RunConfig
from llm.runs import Run, Superseded, all_runs, effective


def new(name="", kind="train", **config):
    return Run.create(kind, {"dataset": "stories", **config}, owner="me", name=name)


def test_a_run_is_found_again_with_what_it_was_told():
    run = new("first", max_steps=3)
    again = Run.open("first")
    assert again.config == {"dataset": "stories", "max_steps": 3}
    assert again.meta["owner"] == "me" and again.meta["kind"] == "train"
    assert again.status() == "waiting" and again.last_event() is None
    assert run.name in [r.name for r in all_runs("train")] and not all_runs("tokenizer")


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "x" * 81, "a..b", "nul\0"])
def test_names_cannot_leave_the_folder(name):
    with pytest.raises(ValueError):
        Run.open(name)


def test_a_name_is_given_once():
    new("one")
    with pytest.raises(ValueError, match="already"):
        new("one")
    assert not [p for p in paths.runs().iterdir() if p.name.startswith(".")]


def test_numbers_that_are_not_finite_are_null_and_the_log_is_strict_json():
    run = new()
    run.append("step", loss=math.inf, nested={"values": [math.nan, 1.5]})
    (line,) = (run.path / "events.jsonl").read_text().splitlines()
    event = json.loads(line, parse_constant=lambda word: pytest.fail(word))
    assert event["loss"] is None and event["nested"] == {"values": [None, 1.5]}


def test_a_half_written_last_line_waits_and_the_next_writer_mends_it():
    run = new()
    run.append("step", step=1)
    with open(run.path / "events.jsonl", "ab") as f:
        f.write(b'{"kind": "step", "st')
    events, offset = run.read()
    assert [e["step"] for e in events] == [1]
    assert run.last_event()["step"] == 1
    run.append("step", step=2)
    assert [e["step"] for e in run.read(offset)[0]] == [2]
    assert run.last_event()["step"] == 2


def test_reading_goes_on_where_it_was():
    run = new()
    run.append("step", step=1)
    first, offset = run.read()
    assert run.read(offset) == ([], offset)
    run.append("step", step=2)
    assert [e["step"] for e in first + run.read(offset)[0]] == [1, 2]


def test_the_last_event_of_a_long_log():
    run = new()
    run.append("step", step=1, text="x" * 300_000)
    assert run.last_event()["step"] == 1
    run.append("end", reason="finished", step=1)
    assert run.status() == "finished"


def test_a_resume_takes_back_what_is_done_again():
    def event(kind, step):
        return {"kind": kind, "step": step}

    log = [
        event("evaluate", 0),
        event("step", 1),
        event("step", 2),
        event("evaluate", 2),
        event("step", 3),
        event("end", 3),
    ]
    kept = effective([*log, event("resume", 2)])
    assert [(e["kind"], e["step"]) for e in kept] == [
        ("evaluate", 0),
        ("step", 1),
        ("step", 2),
        ("resume", 2),
    ]


def test_status_follows_log_and_lock():
    run = new()
    lock = run.lock()
    assert run.status() == "running" and Run.open(run.name).locked()
    run.append("start", step=0)
    os.close(lock)
    assert run.status() == "crashed"
    run.append("end", reason="failed", step=1)
    assert run.status() == "failed"
    run.request_resume()
    assert run.status() == "waiting"
    with pytest.raises(ValueError, match="waits"):
        run.request_resume()


def test_only_one_process_has_a_run():
    run = new()
    code = f"from llm.runs import Run; print(Run.open({run.name!r}).lock() is None)"
    lock = run.lock()
    asked = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=paths.ROOT, check=True
    )
    os.close(lock)
    assert asked.stdout.strip() == "True"


def test_a_waiting_run_is_stopped_at_once_and_a_running_one_is_asked():
    waits, works = new(), new()
    waits.request_stop()
    assert waits.status() == "stopped"
    lock = works.lock()
    works.append("start", step=0)
    works.request_stop()
    assert works.stop_requested() and works.status() == "running"
    with pytest.raises(ValueError, match="still running"):
        works.delete()
    os.close(lock)
    works.delete()
    assert works.name not in [r.name for r in all_runs()]


def test_a_run_of_a_later_version_is_refused_not_guessed():
    run = new("later")
    meta = json.loads((run.path / "meta.json").read_text()) | {"version": 99}
    (run.path / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(ValueError, match="version 99"):
        _ = Run.open("later").meta
    assert "later" not in [r.name for r in all_runs()]


def test_the_queue_keeps_its_order_and_its_slots(monkeypatch):
    monkeypatch.setenv("LLM_SLOTS", "1")
    order = [new(f"r{i}") for i in range(3)]
    for i, run in enumerate(order):
        assert dispatch.outlook(run)[0] == i
    monkeypatch.setattr(dispatch.Local, "start", lambda self, run: bool(run.lock()))
    assert [r.name for r in dispatch.pump()] == ["r0"]
    assert dispatch.pump() == []
    assert dispatch.outlook(order[1])[0] == 0
    with pytest.raises(ValueError, match="r0"):
        dispatch.outlook(order[0])


def test_a_run_whose_process_dies_at_once_is_not_started_for_ever(monkeypatch):
    monkeypatch.setitem(commands.KINDS, "train", ("llm.no_such_module", RunConfig))
    run = new("dies")
    assert [r.name for r in dispatch.pump()] == ["dies"]
    deadline = time.time() + 20
    while run.locked() and time.time() < deadline:
        time.sleep(0.05)
    assert run.status() == "crashed" and dispatch.pump() == []
    assert b"no_such_module" in (run.path / "log.txt").read_bytes()


def test_runs_get_no_secrets_and_their_share_of_threads(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    monkeypatch.setenv("HF_TOKEN", "x")
    monkeypatch.setenv("LLM_SLOTS", "2")
    environment = commands.environment(5)
    assert "OPENAI_API_KEY" not in environment and "HF_TOKEN" not in environment
    assert int(environment["OMP_NUM_THREADS"]) == max(1, commands.cores() // 2)


# --- attempts and signs of life


def test_what_a_given_up_attempt_still_wants_to_write_is_refused():
    run = new("twice")
    first = run.next_attempt()
    first.append("start", step=0)
    second = Run.open("twice").next_attempt()
    assert (first.attempt, second.attempt, run.attempts()) == (1, 2, 2)
    with pytest.raises(Superseded, match="Attempt 1 of twice was given up; attempt 2"):
        first.append("end", reason="finished", step=9, message="too late")
    second.append("end", reason="finished", step=9, message="done")
    run.append("note")  # somebody who does not do the run may always say something
    assert [e["kind"] for e in run.read()[0]] == ["start", "end", "note"]


def test_a_run_on_another_machine_is_followed_by_its_heartbeat(monkeypatch):
    run = new("far").next_attempt()
    run.append("starting")
    assert run.status() == "crashed"
    run.beat("another-machine")
    assert run.status() == "running" and run.node() == "another-machine"
    with pytest.raises(ValueError, match="still running"):
        run.delete()
    old = time.time() - 61
    os.utime(run.heartbeat_path, (old, old))
    assert run.status() == "crashed"
    monkeypatch.setenv("LLM_STALE", "600")
    assert run.status() == "running"
    run.beat(platform.node())  # of a run on this machine its lock says whether it lives
    assert run.status() == "crashed"


def test_a_process_whose_run_another_does_ends_without_a_word(monkeypatch, tmp_path):
    run = new("fenced")
    code = (
        "import time; from llm import job; from llm.runs import Run\n"
        "run = Run.open('fenced').next_attempt()\n"
        "with job.beating(run): print('up', flush=True); time.sleep(30)"
    )
    environment = os.environ | {"LLM_HOME": str(paths.home()), "LLM_STALE": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=paths.ROOT, env=environment, stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"up\n"
    run.next_attempt()
    assert process.wait(timeout=10) == job.GIVEN_UP
    assert run.read()[0] == []


def test_a_cluster_that_does_not_answer_is_said_and_the_runs_wait(monkeypatch):
    pytest.importorskip("ray", reason="ray is not installed: pip install -r requirements-cluster.txt")
    run = new("waits")
    monkeypatch.setenv("LLM_RAY", "127.0.0.1:9")
    assert dispatch.pump() == [] and run.status() == "waiting"
    assert "127.0.0.1:9 does not answer" in dispatch.trouble()
    assert "127.0.0.1:9" in (run.path / "log.txt").read_text()
    monkeypatch.delenv("LLM_RAY")
    monkeypatch.setattr(dispatch.Local, "free", lambda self: 0)
    dispatch.pump()
    assert dispatch.trouble() == ""


def test_without_ray_its_address_is_answered_with_what_to_install(monkeypatch):
    monkeypatch.setenv("LLM_RAY", "127.0.0.1:9")
    monkeypatch.setitem(sys.modules, "ray", None)
    new("waits")
    assert dispatch.pump() == [] and "requirements-cluster.txt" in dispatch.trouble()


def test_names_carry_the_dataset_and_the_time():
    assert runs.new_name("My text!.txt").startswith("my-text--txt-")
