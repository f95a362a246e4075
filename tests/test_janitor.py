"""The disk's quota: what the janitor removes, in which order, what it never touches; and what a visitor over their share is told."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from llm import disk, dispatch, files, janitor, modes, owned, paths
from llm.runs import Run
from ui import health, owner

DAYS = 86_400
MB = 1_000_000


@pytest.fixture(autouse=True)
def no_run_starts(monkeypatch):
    monkeypatch.setattr(dispatch.Local, "start", lambda self, run: False)


def aged(path: Path, days: float) -> Path:
    """As if nobody had touched it for so many days."""
    then = time.time() - days * DAYS
    for one in (*path.rglob("*"), path) if path.is_dir() else (path,):
        os.utime(one, (then, then))
    return path


def filled(path: Path, megabytes: float, days: float = 0.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * int(megabytes * MB))
    return aged(path, days)


def ended(name: str, owner: str, megabytes: float, days: float = 2.0, kind: str = "train", **config) -> Run:
    """A run that ended so many days ago."""
    run = Run.create(kind, {"dataset": "stories", **config}, owner, name)
    filled(run.path / "model" / "model.safetensors", megabytes)
    event = {"kind": "end", "reason": "finished", "time": time.time() - days * DAYS, "step": 1}
    (run.path / "events.jsonl").write_text(json.dumps(event) + "\n")
    return run


def kept_to(monkeypatch, megabytes):
    monkeypatch.setenv("LLM_QUOTA", str(megabytes / 1000))


def names(gone):
    return [one.what for one in gone]


# --- measuring


def test_a_file_with_two_names_counts_once_and_links_are_not_followed(home, tmp_path):
    filled(home / "a" / "one", 2)
    os.link(home / "a" / "one", home / "a" / "two")
    filled(tmp_path / "outside", 5)
    (home / "a" / "link").symlink_to(tmp_path / "outside")
    (home / "a" / "round").symlink_to(home)
    taken = disk.used(fresh=True)
    assert 2 * MB <= taken < 2 * MB + 2000
    assert disk.size(home / "nowhere") == 0 and disk.size(home / "a" / "one") == 2 * MB


@pytest.mark.parametrize("bad", ["much", "-1", "nan", "inf", "1e400"])
def test_a_quota_that_is_no_number_is_a_sentence(home, monkeypatch, bad):
    monkeypatch.setenv("LLM_QUOTA", bad)
    with pytest.raises(ValueError, match="LLM_QUOTA is a number of GB"):
        disk.quota()


def test_only_a_space_has_a_quota_by_itself(home, monkeypatch):
    found = {}
    for mode in modes.LIMITS:
        monkeypatch.setenv("LLM_MODE", mode)
        found[mode] = disk.quota()
    assert found == {"local": 0, "class": 0, "space": 20_000_000_000}
    monkeypatch.setenv("LLM_QUOTA", "0")
    assert disk.quota() == 0


# --- what goes, and in which order


def test_nothing_goes_below_the_quota_or_without_one(home, monkeypatch):
    filled(home / ".gone-1" / "x", 1, days=9)
    filled(paths.cache() / "ids-1.bin", 1, days=9)
    assert janitor.tidy() == []
    kept_to(monkeypatch, 50)
    assert janitor.tidy() == [] and (home / ".gone-1").exists()


def test_leftovers_go_first_then_the_cache_and_no_more_than_is_needed(home, monkeypatch):
    for name in (
        ".gone-1",
        "runs/.new-aa",
        "runs/.gone-b",
        "models/.new-c",
        ".restore-d",
        "uploads/old",
        "tokenizers/.new-e",
    ):
        filled(home / name / "x", 1)
        aged(home / name, 2)
    filled(home / "datasets" / ".mine.txt.ab12cd_9", 1, days=2)
    filled(home / "runs" / ".new-fresh" / "x", 1)  # somebody makes it at this moment
    filled(home / "datasets" / ".other.txt.ab12cd_9", 1)
    filled(home / "datasets" / ".pins.json", 0.1, days=9)
    filled(home / "datasets" / "mine.txt", 3, days=99)
    filled(paths.cache() / "ids-1.bin", 1, days=5)
    filled(paths.cache() / "ids-2.bin", 1, days=9)
    filled(paths.cache() / "shards" / "3.bin", 1, days=7)
    filled(paths.cache() / "hub" / "org--name@main.ada" / "model.safetensors", 1)
    aged(paths.cache() / "hub" / "org--name@main.ada", 6)
    filled(paths.cache() / "ids-now.bin", 1)
    whole = disk.used(fresh=True)
    order = [".gone-1", ".restore-d", "runs/.new-aa", "runs/.gone-b", "models/.new-c", "tokenizers/.new-e", "uploads/old", "datasets/.mine.txt.ab12cd_9"]  # fmt: skip

    kept_to(monkeypatch, whole / MB - 2.5)
    would = janitor.tidy(dry=True)
    assert (
        names(would) == order[:3] and disk.used(fresh=True) == whole
    )  # 3 MB suffice; a dry run removes nothing
    assert names(janitor.tidy()) == names(would) and disk.used() == whole - 3 * MB

    kept_to(monkeypatch, whole / MB - 9.5)
    assert names(janitor.tidy()) == [*order[3:], "cache/ids-2.bin", "cache/shards/3.bin"]
    kept_to(monkeypatch, 0.000001)
    assert names(janitor.tidy()) == ["cache/hub/org--name@main.ada", "cache/ids-1.bin"]
    left = {path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file()}
    assert left == {"runs/.new-fresh/x", "datasets/.other.txt.ab12cd_9", "datasets/.pins.json", "datasets/mine.txt", "cache/ids-now.bin"}  # fmt: skip


def test_a_download_that_goes_on_or_is_waited_for_stays(home, monkeypatch):
    import fcntl

    kept_to(monkeypatch, 0.000001)
    for name in ("org--busy@main.ada", "org--wanted@main.ada", "org--left@main.ada"):
        filled(paths.cache() / "hub" / name / "model.safetensors", 1)
        (paths.cache() / "hub" / name / ".lock").touch()
        aged(paths.cache() / "hub" / name, 9)
    monkeypatch.delenv("LLM_QUOTA")
    Run.create("import", {"source": "hf:org/wanted"}, "terminal", "wanted")
    kept_to(monkeypatch, 0.000001)
    with open(paths.cache() / "hub" / "org--busy@main.ada" / ".lock", "a") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        assert names(janitor.tidy()) == ["cache/hub/org--left@main.ada"]


@pytest.mark.parametrize("mode", ["local", "class"])
def test_no_run_goes_at_home_or_in_a_class(home, monkeypatch, mode):
    monkeypatch.setenv("LLM_MODE", mode)
    ended("old", "ada", 2, days=30)
    kept_to(monkeypatch, 0.5)
    assert janitor.tidy() == [] and (paths.runs() / "old").exists()


def test_on_a_space_old_runs_of_visitors_go_the_oldest_first(home, monkeypatch):
    monkeypatch.setenv("LLM_MODE", "space")
    for name, days in (("second", 5), ("first", 9), ("third", 3), ("fresh", 0.5)):
        ended(name, "ada", 1, days=days)
    ended("of-terminal", "terminal", 1, days=30)
    ended("of-nobody", "", 1, days=30)
    ended("shown", "ada", 1, days=30).share()
    ended("base", "ada", 1, days=30)
    Run.create("train", {"dataset": "stories", "start_from": "base@10"}, "ada", "waits")
    busy = ended("busy", "ada", 1, days=30)
    (busy.path / "events.jsonl").write_text('{"kind": "start", "time": 1.0, "step": 0}\n')
    lock = busy.lock()  # as by its process
    paused = ended("paused", "ada", 1)
    event = {"kind": "end", "reason": "stopped", "time": 1.0, "step": 9, "paused": True}
    (paused.path / "events.jsonl").write_text(json.dumps(event) + "\n")
    paused.pause(9)  # at its rung, until the other trials have come so far
    aged(busy.path, 30)
    kept_to(monkeypatch, disk.used(fresh=True) / MB - 1.5)
    assert names(janitor.tidy()) == ["runs/first", "runs/second"]
    kept_to(monkeypatch, 0.000001)
    assert names(janitor.tidy()) == ["runs/third"]
    assert {path.name for path in paths.runs().iterdir()} == {"fresh", "of-terminal", "of-nobody", "shown", "base", "waits", "busy", "paused"}  # fmt: skip
    os.close(lock)


def test_an_old_import_goes_with_its_model(home, monkeypatch):
    monkeypatch.setenv("LLM_MODE", "space")
    ended("brought", "ada", 0.1, kind="import", source="hf:org/small")
    filled(paths.models() / "brought" / "model.safetensors", 3)
    (paths.models() / "brought" / "source.json").write_text(json.dumps({"run": "brought", "owner": "ada"}))
    filled(paths.models() / "of-teacher" / "model.safetensors", 1)
    kept_to(monkeypatch, 1.5)
    [one] = janitor.tidy()
    assert one.what == "runs/brought" and one.size == pytest.approx(3.1 * MB, abs=2000)
    assert (paths.models() / "of-teacher").exists() and not (paths.models() / "brought").exists()


def test_a_run_that_is_resumed_meanwhile_stays(home, monkeypatch):
    monkeypatch.setenv("LLM_MODE", "space")
    run = ended("again", "ada", 1)
    (run.path / "events.jsonl").write_text('{"kind": "end", "reason": "stopped", "time": 1.0, "step": 0}\n')
    [one] = janitor.old_runs()
    run.request_resume()
    with pytest.raises(ValueError, match="in use again"):
        one.remove()
    assert run.path.exists()


# --- a visitor's share


@pytest.fixture
def in_class(home, monkeypatch):
    monkeypatch.setenv("LLM_MODE", "class")
    modes.change(megabytes=3)
    return home


def test_a_visitor_over_their_share_is_told_both_figures(in_class):
    ended("mine", "ada", 2)
    filled(paths.models() / "brought" / "model.safetensors", 0.5)
    (paths.models() / "brought" / "source.json").write_text(json.dumps({"owner": "ada"}))
    owned.claim(files.save_upload("y" * MB, "poem"), "ada")
    assert disk.of_visitor("ada") == pytest.approx(3.5 * MB, abs=2000) and disk.of_visitor("bob") == 0
    with pytest.raises(ValueError, match=r"take 3\.5 MB of the 3 MB that one visitor may have.*delete a run"):
        Run.create("train", {"dataset": "stories"}, "ada", "more")
    assert not (paths.runs() / "more").exists()
    teacher = owner.Visitor("ada")
    teacher.teacher = True
    for who in ("bob", "terminal", teacher):
        Run.create("train", {"dataset": "stories"}, who, f"of-{len(list(paths.runs().iterdir()))}")
    Run.open("mine").delete()
    Run.create("train", {"dataset": "stories"}, "ada", "more")


def test_an_upload_that_does_not_fit_is_not_kept(in_class, tmp_path):
    from gradio.context import LocalContext

    from ui.tabs import train, windows

    class Asking:
        cookies = {owner.COOKIE: owner.sign("ada")}  # noqa: RUF012

    ended("mine", "ada", 2.5)
    (tmp_path / "large.txt").write_text("z" * MB)
    token = LocalContext.request.set(Asking())
    try:
        for bring in (
            lambda: train.add_text(str(tmp_path / "large.txt"), "", ""),
            lambda: train.add_text(None, "z" * MB, "large"),
            lambda: windows.keep_upload(str(tmp_path / "large.txt")),
            lambda: windows.keep_paste("z" * MB, "large"),
        ):
            with pytest.raises(ValueError, match=r"2\.5 MB of the 3 MB .* and 1\.0 MB more are too much"):
                bring()
        assert list(paths.datasets().glob("*.txt")) == []
        windows.keep_paste("A small poem.", "small")
        assert owned.owners("small") == {"ada"}
    finally:
        LocalContext.request.reset(token)


def test_a_full_lab_takes_nothing_new_and_says_so(home, monkeypatch):
    filled(home / "datasets" / "mine.txt", 2)
    kept_to(monkeypatch, 1)
    with pytest.raises(ValueError, match=r"quota of 0\.001 GB is used up \(0\.002 GB are taken\)"):
        Run.create("train", {"dataset": "stories"}, "local", "more")
    Run.create("train", {"dataset": "stories"}, "terminal", "by-hand")
    client = TestClient(Starlette(routes=health.ROUTES))
    answer = client.get("/health")
    assert answer.status_code == 503 and "quota of 0.001 GB is used up" in answer.json()["problems"][0]
    (home / "datasets" / "mine.txt").unlink()  # room again at once, not when the measurement is old
    Run.create("train", {"dataset": "stories"}, "local", "more")
    assert client.get("/health").status_code == 200
    monkeypatch.setenv("LLM_QUOTA", "much")
    assert "LLM_QUOTA is a number" in client.get("/health").json()["problems"][0]


# --- by hand and by itself


def test_the_command(home):
    filled(home / ".gone-1" / "x", 2)
    aged(home / ".gone-1", 2)

    def janitor_said(*words, quota="0.001"):
        done = subprocess.run(
            [sys.executable, "-m", "llm.janitor", *words], cwd=paths.ROOT, capture_output=True, text=True,
            env=os.environ | {"LLM_QUOTA": quota},
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    code, said = janitor_said("--dry-run")
    assert (
        code == 0
        and "would remove .gone-1: left over" in said
        and "2.0 MB" in said
        and (home / ".gone-1").exists()
    )
    code, said = janitor_said()
    assert (
        code == 0
        and "removed .gone-1" in said
        and "the quota is kept" in said
        and not (home / ".gone-1").exists()
    )
    filled(home / "datasets" / "mine.txt", 2)
    assert "the quota is used up: delete" in janitor_said()[1]
    assert "no quota is set" in janitor_said(quota="")[1]
    code, said = janitor_said(quota="lots")
    assert code == 1 and "number of GB" in said and "Traceback" not in said


def test_the_queue_s_keeper_calls_it_and_outlives_its_failures(home, monkeypatch):
    paths.runs()
    called, looked = threading.Event(), threading.Event()
    monkeypatch.setattr(janitor, "tidy", lambda: called.set() or [])

    def breaks():
        if called.is_set():
            looked.set()
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(dispatch, "stop_overdue", breaks)
    keeper = threading.Thread(target=dispatch.keep_pumping, args=(0.02,), daemon=True)
    keeper.start()
    assert called.wait(10) and looked.wait(10) and keeper.is_alive()
    home.rename(home.with_name("gone"))
    keeper.join(10)
    assert not keeper.is_alive()


def test_limits_of_another_version_hold_the_queue_back_with_a_sentence(home, monkeypatch):
    monkeypatch.setenv("LLM_MODE", "class")
    Run.create("train", {"dataset": "stories"}, "ada", "mine")
    modes.file().write_text('{"version": 9, "waiting": 3}')
    assert dispatch.pump() == [] and dispatch.trouble().startswith("limits.json is of version 9")
    modes.file().unlink()
    dispatch.pump()
    assert dispatch.trouble() == ""


@pytest.mark.parametrize("broken", ["quota", "limits"])
def test_the_page_does_not_start_without_knowing_what_it_may(home, monkeypatch, broken):
    import app

    monkeypatch.setenv("LLM_MODE", "class")
    if broken == "quota":
        monkeypatch.setenv("LLM_QUOTA", "much")
    else:
        home.mkdir()
        modes.file().write_text('{"version": 9}')
    with pytest.raises(
        SystemExit, match=r"LLM_QUOTA is a number|limits\.json is of version 9; this lab reads 1"
    ):
        app.main(["--host", "127.0.0.1", "--no-browser"])
