"""Every file of a frozen home is opened by today's lab, with and without its version; a later version is refused in one sentence."""

import json
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import torch

from llm import (
    arena,
    backup,
    checkpoint,
    classroom,
    corpora,
    endpoints,
    generate,
    halving,
    handin,
    inventory,
    job,
    lessons,
    logins,
    modes,
    objectives,
    owned,
    paths,
    rows,
    state,
    sweep,
    tables,
    tokenizer,
    train,
    versions,
)
from llm.config import SampleConfig
from llm.runs import Run, all_runs

FIXTURES = Path(__file__).parent / "fixtures"
HOMES = [1]  # the frozen ones
LATER = 9  # a version of another day


@pytest.fixture(params=HOMES)
def frozen(request, home, monkeypatch):
    """A copy of a frozen home as $LLM_HOME of a class; its number."""
    shutil.copytree(FIXTURES / f"home-{request.param}", home)
    monkeypatch.setenv("LLM_MODE", "class")
    return request.param


# --- every reader opens them


def test_all_lists_are_whole(frozen):
    assert {run.name: run.status() for run in all_runs()} == {
        "fox-byte": "finished", "halted": "stopped", "labels": "finished", "rates-1": "finished", "rates-2": "finished",
        "fox-bpe": "finished", "brought": "finished",
    }  # fmt: skip
    found = {model.name: model for model in inventory.models() if model.kind != "built in"}
    assert set(found) == {"fox-byte", "halted", "labels", "rates-1", "rates-2", "brought"}
    assert not any(model.problem for model in found.values()) and found["brought"].owner == "ada"
    assert endpoints.names() == ["far"] and endpoints.get("far").address == "http://127.0.0.1:9/v1"
    assert owned.owners("fox") == {"ada"} and owned.owners("moods") == set()
    assert "fox-bpe" in tokenizer.names() and {"fox"} <= set(corpora.names())
    assert {"answers", "moods"} <= set(corpora.row_names())
    assert (
        "of-mine" in lessons.names() and lessons.get("of-mine").steps[0].ask == "How many tokens are there?"
    )


def test_a_stopped_run_goes_on_to_its_end(frozen):
    run = Run.open("halted")
    before = [event["loss"] for event in run.events() if event["kind"] == "step"]
    run.request_resume()
    assert job.guarded(run, train.work) == 0, run.last_event()
    losses = [event["loss"] for event in run.events() if event["kind"] == "step"]
    assert run.status() == "finished" and len(losses) == 6 and losses[: len(before)] == before


@pytest.mark.parametrize("name", ["fox-byte", "halted", "brought", "rates-2"])
def test_models_speak(frozen, name):
    model, encoding = checkpoint.load_model(paths.model_folder(name))
    prompts = [encoding.encode("A fox")]
    steps = list(generate.generate(model, encoding, prompts, SampleConfig(max_new_tokens=4, seed=1)))
    assert len(steps) == 4


def test_the_rest_is_read(frozen, tmp_path, monkeypatch):
    table = sweep.rows(halving.read("rates"))
    assert [row["status"] for row in table] == ["finished"] * 2 and {row["rank"] for row in table} == {1, 2}
    assert tokenizer.get("fox-bpe").decode(tokenizer.get("fox-bpe").encode("the sea")) == "the sea"
    assert objectives.classifier(paths.model_folder("labels"))[0] == ["calm", "glad"]
    assert len(rows.check(tables.read(corpora.row_path("answers"))).good) == 3
    [vote] = arena.voted()
    assert (vote.choice, vote.text_a) == ("a", "The fox.")
    [ada] = classroom.people()
    assert ada["name"] == "Ada" and classroom.answers("ada")[0]["answer"] == "1"
    assert classroom.poll()["guesses"] == {"up": 1} and classroom.told("follow") == ("?tab=train", 1)
    assert modes.limits().waiting == 3 and modes.limits().parameters == 30_000_000
    checks = handin.checked(handin.read(FIXTURES / f"hand-in-{frozen}.json"))
    assert len(checks) == 7 and {row["check"] for row in checks} == {"as kept here"}
    monkeypatch.setenv("LLM_HOME", str(tmp_path / "other"))
    assert backup.restore(FIXTURES / f"backup-{frozen}.tar.gz")["files"] > 10
    assert {run.name for run in all_runs()} == {"halted", "fox-bpe", "brought"} and classroom.people()


# --- one file at a time is of another version


def in_json(path, *keys):
    """Where the version stands in a JSON file of the home."""

    def change(home, version):
        file = home / path
        found = json.loads(file.read_text(encoding="utf-8"))
        inner = found
        for key in keys:
            inner = inner[key]
        inner.pop("version", None)
        file.write_text(json.dumps(found if version is None else with_version(found, keys, version)))

    return change


def with_version(found, keys, version):
    inner = found
    for key in keys:
        inner = inner[key]
    inner["version"] = version
    return found


def in_sqlite(path):
    def change(home, version):
        with closing(sqlite3.connect(home / path)) as db:
            db.execute(f"pragma user_version = {version or 0}")

    return change


def in_state(home, version):
    file = home / "runs/halted/checkpoint/state.pt"
    saved = torch.load(file, weights_only=True)
    saved.pop("version", None)
    torch.save(saved | ({} if version is None else {"version": version}), file)


def in_owners(home, version):
    (home / "owners" / "fox").write_text("ada\n" if version is None else f"version {version}\nada\n")


def in_keys(home, version):
    os.environ["LLM_MODE"] = "local"  # a shared page keeps no key on its disk; monkeypatch sets it back
    kept = {"far": {"host": endpoints.get("far").host, "key": "sk-x"}}
    stored = kept if version is None else {"version": version, "keys": kept}
    (home / "endpoints" / "keys").write_text(json.dumps(stored))


def key():
    return endpoints.key_of(endpoints.get("far"))


def in_logins(home, version):
    logins.add("Ada", "long-enough")
    in_json("logins.json")(home, version)


def in_hand_in(home, version):
    found = json.loads((FIXTURES / "hand-in-1.json").read_text(encoding="utf-8"))
    found.pop("version")
    (home / "mine.json").write_text(json.dumps(found if version is None else found | {"version": version}))


KINDS = {  # what is broken: how, who reads it, and the file as the sentence names it
    "run": (in_json("runs/fox-byte/meta.json"), lambda: Run.open("fox-byte").meta, "runs/fox-byte/meta.json"),
    "model": (in_json("runs/fox-byte/model/config.json"), lambda: inventory.shape(paths.model_folder("fox-byte")), "runs/fox-byte/model/config.json"),
    "source": (in_json("models/brought/source.json"), lambda: inventory.read("brought"), "models/brought/source.json"),
    "classifier": (in_json("runs/labels/model/classifier.json"), lambda: objectives.classifier(paths.model_folder("labels")), "runs/labels/model/classifier.json"),
    "bytes": (in_json("runs/fox-byte/model/tokenizer.json", "lab"), lambda: tokenizer.load(paths.model_folder("fox-byte")), "runs/fox-byte/model/tokenizer.json"),
    "characters": (in_json("runs/halted/model/tokenizer.json", "lab"), lambda: tokenizer.load(paths.model_folder("halted")), "runs/halted/model/tokenizer.json"),
    "sweep": (in_json("sweeps/rates/spec.json"), lambda: halving.read("rates"), "sweeps/rates/spec.json"),
    "trial": (in_json("runs/rates-1/meta.json"), lambda: sweep.rows(halving.read("rates")), "runs/rates-1/meta.json"),
    "endpoint": (in_json("endpoints/far.json"), lambda: endpoints.get("far"), "endpoints/far.json"),
    "keys": (in_keys, key, "endpoints/keys"),
    "board": (in_sqlite("arena/main.sqlite"), arena.voted, "arena/main.sqlite"),
    "class": (in_sqlite("class.sqlite"), classroom.people, "class.sqlite"),
    "limits": (in_json("limits.json"), modes.limits, "limits.json"),
    "owners": (in_owners, lambda: owned.owners("fox"), "owners/fox"),
    "logins": (in_logins, logins.known, "logins.json"),
    "hand-in": (in_hand_in, lambda: handin.read(paths.home() / "mine.json"), "mine.json"),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_version_it_is_of_the_first(frozen, home, kind):
    change, read, _ = KINDS[kind]
    change(home, None)
    assert read() is not None


@pytest.mark.parametrize(
    ("kind", "version"),
    [  # SQLite's version is a whole number, and 0 is none
        (kind, version)
        for kind in KINDS
        for version in ([LATER] if kind in ("board", "class") else [LATER, 0, "two", True])
    ],
)
def test_a_later_version_is_refused_by_name(frozen, home, kind, version):
    change, read, file = KINDS[kind]
    change(home, version)
    with pytest.raises(versions.Unknown) as refused:
        read()
    said = str(refused.value)
    assert said.startswith(f"{file} is of version {version}; this lab reads 1") and said.count(". ") == 0


def test_a_checkpoint_without_a_version_goes_on_and_a_later_one_does_not(frozen, home):
    in_state(home, LATER)
    run = Run.open("halted")
    run.request_resume()
    assert job.guarded(run, train.work) == 1
    assert "runs/halted/checkpoint/state.pt is of version 9; this lab reads 1" in run.last_event()["message"]
    in_state(home, None)
    run.request_resume()
    assert job.guarded(run, train.work) == 0 and run.status() == "finished"


def test_a_checkpoint_in_shares_of_a_later_version_is_refused(frozen, home):
    run = Run.open("halted")
    place = run.path / "checkpoint" / "shares-00000003"
    place.mkdir()
    (place / "numbers.json").write_text(
        json.dumps({"version": LATER, "step": 3, "seconds": 1.0, "tokens": 9})
    )
    with pytest.raises(
        versions.Unknown, match=r"shares-00000003/numbers\.json is of version 9; this lab reads 1"
    ):
        state.InShares(run).load(None, None)


def test_a_backup_of_a_later_version_is_refused_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(backup, "VERSION", LATER)
    (paths.datasets() / "mine.txt").write_text("Mine.\n")
    backup.write(tmp_path / "lab.tar")
    monkeypatch.setattr(backup, "VERSION", 1)
    monkeypatch.setenv("LLM_HOME", str(tmp_path / "other"))
    with pytest.raises(versions.Unknown, match=r"lab\.tar is of version 9; this lab reads 1"):
        backup.restore(tmp_path / "lab.tar")
    assert list((tmp_path / "other").iterdir()) == []


# --- what is of another version takes nothing else along


def test_lists_leave_out_what_they_cannot_read(frozen, home):
    for kind in ("run", "sweep", "endpoint", "source"):
        KINDS[kind][0](home, LATER)
    assert "fox-byte" not in {run.name for run in all_runs()} and len(all_runs()) == 6
    assert halving.all_sweeps() == [] and endpoints.names() == []
    assert not {"fox-byte", "brought"} & {model.name for model in inventory.models()}


def test_pickers_leave_it_out_and_a_handler_says_why(frozen, home):
    from ui import owner, pickers

    for kind in ("run", "source", "owners"):
        KINDS[kind][0](home, LATER)
    ada = owner.Visitor("ada")
    listed = pickers.listed(paths.model_names(), owner.may_open, ada)
    assert "halted" in listed and not {"fox-byte", "brought"} & set(listed)
    assert "fox" not in pickers.dataset_names() and "stories" in pickers.dataset_names()
    for rule, name in ((owner.may_open, "fox-byte"), (owner.may_open, "brought"), (owner.may_read, "fox")):
        with pytest.raises(versions.Unknown, match="this lab reads 1"):
            rule(name, ada)


def test_nothing_of_a_later_lab_is_written_over(frozen, home, monkeypatch):
    for kind in ("endpoint", "board"):
        KINDS[kind][0](home, LATER)
    monkeypatch.setenv("LLM_MODE", "local")
    before = {name: (home / name).read_bytes() for name in ("endpoints/far.json", "arena/main.sqlite")}
    with pytest.raises(versions.Unknown):
        endpoints.save(
            endpoints.Endpoint(name="far", preset="vllm", address="http://127.0.0.1:9/v1", model="n")
        )
    with pytest.raises(versions.Unknown):
        arena.begin("Who?", "a", "b", "me")
    assert {name: (home / name).read_bytes() for name in before} == before


def test_halving_decides_nothing_without_a_trial_that_it_cannot_read(frozen, home):
    spec = home / "sweeps/rates/spec.json"
    found = json.loads(spec.read_text())
    spec.write_text(json.dumps(found | {"eta": 2, "rungs": [3]}))
    run = Run.open("rates-2")
    run.pause(3)
    run.append("end", reason="stopped", step=3, paused=True)
    KINDS["trial"][0](home, LATER)
    log = (run.path / "events.jsonl").read_bytes()
    halving.advance()
    assert (run.path / "events.jsonl").read_bytes() == log and run.pause_at() == 3


def test_new_files_carry_the_version(home, monkeypatch):
    monkeypatch.setenv("LLM_MODE", "class")
    run = Run.create("train", {"dataset": "stories"}, "ada", "mine")
    modes.change(waiting=2)
    owned.claim("fox", "ada")
    owned.claim("fox", "bob")
    classroom.rename("ada", "Ada")
    monkeypatch.setenv("LLM_MODE", "local")
    endpoints.save(
        endpoints.Endpoint(name="far", preset="vllm", address="http://127.0.0.1:9/v1", model="m"), "sk-1"
    )
    for file in (run.path / "meta.json", modes.file(), home / "endpoints/far.json"):
        assert json.loads(file.read_text())["version"] == 1, file
    assert json.loads((home / "endpoints/keys").read_text())["version"] == 2 and key() == "sk-1"
    assert (home / "owners/fox").read_text() == "version 1\nada\nbob\n" and owned.owners("fox") == {
        "ada",
        "bob",
    }
    with closing(sqlite3.connect(home / "class.sqlite")) as db:
        assert db.execute("pragma user_version").fetchone() == (1,)


def test_a_pasted_config_of_a_later_version_is_refused():
    from ui.tabs import models

    pasted = json.loads((FIXTURES / "home-1/runs/halted/model/config.json").read_text())
    assert models.config_of(json.dumps(pasted)).n_embd == 8
    with pytest.raises(versions.Unknown, match=r"The pasted config\.json is of version 9; this lab reads 1"):
        models.config_of(json.dumps(pasted | {"version": LATER}))
