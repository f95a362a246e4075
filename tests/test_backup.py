"""A backup while the lab works, and back: runs go on, votes are whole, no keys, nothing but what was written."""

import hashlib
import io
import json
import subprocess
import sys
import tarfile
import threading
import time

import pytest

from llm import arena, backup, endpoints, job, paths, train
from llm.config import ModelConfig, RunConfig, TrainConfig, to_dict
from llm.runs import Run

TINY = RunConfig(
    dataset="verse", tokenizer="byte", sample_tokens=0, prompts=(),
    model=ModelConfig(n_layer=1, n_head=2, n_embd=16, context_length=16),
    train=TrainConfig(max_steps=40, warmup_steps=2, batch_size=4, eval_every=20, eval_batches=1, checkpoint_every=5, threads=1, precision="fp32"),
)  # fmt: skip


def stopped_at(step, name="poem"):
    """A run that broke off after its checkpoint of `step`."""
    run = Run.create("train", to_dict(TINY), name=name)
    really = train.update

    def broken(state, *rest):
        if state.step == step + 2:
            raise OSError(5, "Input/output error")
        return really(state, *rest)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(train, "update", broken)
        assert job.guarded(run, train.work) == 1
    return run


def losses(run):
    return [event["loss"] for event in run.events() if event["kind"] == "step"]


@pytest.mark.parametrize("ending", ["tar", "tar.gz"])
def test_everything_comes_back_and_a_run_goes_on(tmp_path, monkeypatch, ending):
    run = stopped_at(15)
    round = arena.begin("Who?", "story-llama", "story-gpt2", "me")
    (paths.datasets() / "mine.txt").write_text("My own text.\n")
    (paths.cache() / "ids.bin").write_bytes(b"x" * 1000)
    file = tmp_path / f"lab.{ending}"
    said = backup.write(file)
    assert said["files"] > 8
    with tarfile.open(file) as tar:
        names = tar.getnames()
    assert names[-1] == "manifest.json" and not any(
        name.startswith("cache") or name.endswith("/lock") for name in names
    )
    assert names.index("runs/poem/checkpoint/state.pt") < names.index("runs/poem/events.jsonl")
    monkeypatch.setenv("LLM_HOME", str(tmp_path / "other"))
    paths.runs()  # an empty folder is no obstacle
    assert backup.restore(file) == said
    again = Run.open("poem")
    assert again.read()[0] == run.read()[0] and again.status() == "failed"
    assert (paths.datasets() / "mine.txt").read_text() == "My own text.\n"
    with arena.board() as db:
        assert arena.one(db, round).prompt == "Who?"
    again.request_resume()
    assert job.guarded(again, train.work) == 0
    whole = Run.create("train", to_dict(TINY), name="whole")
    assert job.guarded(whole, train.work) == 0
    assert losses(again) == losses(whole)
    with pytest.raises(ValueError, match="is not empty"):
        backup.restore(file)


def test_a_backup_of_a_run_at_work_is_a_run_that_broke_off(tmp_path, monkeypatch):
    """Written again and again while a run writes: each is whole, its log reaches to the checkpoint at least."""
    run = Run.create("train", to_dict(TINY), name="busy")
    worker = threading.Thread(target=job.guarded, args=(run, train.work))
    worker.start()
    number = 0
    while worker.is_alive() and number < 20:
        backup.write(tmp_path / f"{number}.tar")
        number += 1
    worker.join()
    home = paths.home()
    for n in range(number):
        monkeypatch.setenv("LLM_HOME", str(tmp_path / f"home{n}"))
        backup.restore(tmp_path / f"{n}.tar")
        again = Run.open("busy")
        if again.can_go_on() and again.status() != "finished":
            if again.status() in ("crashed", "failed"):
                again.request_resume()
            assert job.guarded(again, train.work) == 0
            monkeypatch.setenv("LLM_HOME", str(home))
            assert len(losses(again)) == 40 and losses(again) == losses(Run.open("busy"))
            break


def test_keys_are_not_in_it(tmp_path):
    endpoints.save(
        endpoints.Endpoint(name="far", preset="vllm", address="http://127.0.0.1:9/v1", model="m"),
        "sk-canary-0815",
    )
    backup.write(tmp_path / "lab.tar")
    assert b"sk-canary-0815" not in (tmp_path / "lab.tar").read_bytes()
    with tarfile.open(tmp_path / "lab.tar") as tar:
        assert "endpoints/far.json" in tar.getnames()


def archive(file, files, version=1, listed=None):
    """A tar with these files and a manifest."""
    with tarfile.open(file, "w") as tar:
        for name, data in files.items():
            about = tarfile.TarInfo(name)
            about.size = len(data)
            tar.addfile(about, io.BytesIO(data))
        sums = {
            name: hashlib.sha256(data).hexdigest()
            for name, data in (files if listed is None else listed).items()
        }
        data = json.dumps({"version": version, "files": sums}).encode()
        about = tarfile.TarInfo("manifest.json")
        about.size = len(data)
        tar.addfile(about, io.BytesIO(data))


@pytest.mark.parametrize(
    ("files", "version", "listed", "said"),
    [
        ({"../evil": b"x"}, 1, None, "which no backup does"),
        ({"/etc/evil": b"x"}, 1, None, "which no backup does"),
        ({"runs/a": b"x"}, 9, None, "version 9"),
        ({"runs/a": b"x"}, 1, {"runs/a": b"y"}, "runs/a is missing or differs"),
        ({}, 1, {"runs/a": b"y"}, "runs/a is missing or differs"),
    ],
)
def test_what_is_no_backup_is_refused_and_leaves_nothing(tmp_path, monkeypatch, files, version, listed, said):
    archive(tmp_path / "bad.tar", files, version, listed)
    monkeypatch.setenv("LLM_HOME", str(tmp_path / "other"))
    with pytest.raises(ValueError, match=said):
        backup.restore(tmp_path / "bad.tar")
    assert list((tmp_path / "other").iterdir()) == [] and not (tmp_path / "evil").exists()


@pytest.mark.parametrize("cut", [0, 100, 3000])
def test_one_that_is_cut_off_is_refused(tmp_path, monkeypatch, cut):
    (paths.datasets() / "mine.txt").write_text("x" * 9000)
    backup.write(tmp_path / "lab.tar")
    (tmp_path / "cut.tar").write_bytes((tmp_path / "lab.tar").read_bytes()[:cut])
    monkeypatch.setenv("LLM_HOME", str(tmp_path / "other"))
    with pytest.raises(ValueError, match="no whole backup"):
        backup.restore(tmp_path / "cut.tar")


def test_the_command(tmp_path, monkeypatch):
    (paths.datasets() / "mine.txt").write_text("Mine.\n")
    command = [sys.executable, "-m", "llm.backup", str(tmp_path / "lab.tar.gz")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=paths.ROOT)
    assert done.returncode == 0 and "Written to" in done.stdout, done.stderr
    inside = subprocess.run(
        [*command[:-1], str(paths.home() / "lab.tar")], capture_output=True, text=True, cwd=paths.ROOT
    )
    assert inside.returncode == 1 and "cannot lie inside" in inside.stderr
    monkeypatch.setenv("LLM_HOME", str(tmp_path / "other"))
    began = time.time()
    done = subprocess.run([*command, "--restore"], capture_output=True, text=True, cwd=paths.ROOT)
    assert done.returncode == 0 and "Restored from" in done.stdout and time.time() - began < 30
    assert (tmp_path / "other" / "datasets" / "mine.txt").read_text() == "Mine.\n"
