"""What a visitor takes away is theirs and nobody else's, and goes on at home."""

from __future__ import annotations

import errno
import io
import json
import os
import tarfile
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.testclient import TestClient

from assure import kills
from llm import backup, owned, paths, sweep, takeaway, train
from llm.config import RunConfig, TrainConfig, to_dict
from llm.halving import Sweep
from llm.runs import Run
from ui import keeping
from ui.owner import OwnerCookie

SHAPE = ["--n_layer", "1", "--n_head", "2", "--n_embd", "16", "--context_length", "16", "--batch_size", "4", "--max_steps", "6", "--warmup_steps", "1", "--tokenizer", "byte", "--sample_tokens", "2"]  # fmt: skip


@pytest.fixture
def things(monkeypatch, home):
    """A class in which Ada has a run with a model and a text, and Bob a run."""
    monkeypatch.setenv("LLM_MODE", "class")
    kills.fable(home)
    assert train.main(["poem", *SHAPE, "--dataset", "fable"]) == 0
    run = Run.open("poem")
    (run.path / "meta.json").write_text(json.dumps(run.meta | {"owner": "ada"}))
    Run.create("train", to_dict(RunConfig(train=TrainConfig())), "bob", "bobs")
    (paths.datasets() / "mine.txt").write_text("A text of mine.")
    owned.claim("mine", "ada")
    (paths.models() / "brought").mkdir()
    (paths.models() / "brought" / "source.json").write_text(
        json.dumps({"owner": "ada", "source": "upload:x"})
    )
    made = Run.create("tokenizer", {"dataset": "mine"}, "ada", "letters")
    (paths.tokenizers() / made.name).mkdir()
    (paths.tokenizers() / made.name / "tokenizer.json").write_text("{}")
    for name, whose in (("rates", "ada"), ("widths", "bob")):
        sweep.create(Sweep(name, whose, 0.0, {}, (), (), 6, 0, ()), [])
    return home


def pack(visitor: str, file: Path) -> dict:
    with open(file, "wb") as out:
        return takeaway.write(visitor, out)


def test_it_holds_what_is_the_visitors_and_goes_on_at_home(things, tmp_path, monkeypatch):
    file = tmp_path / "ada.tar.gz"
    about = pack("ada", file)
    with tarfile.open(file) as tar:
        names = tar.getnames()
    assert about["files"] == len(names) - 1 and "datasets/mine.txt" in names
    assert "runs/poem/checkpoint/state.pt" in names and not any("bobs" in name for name in names)
    assert not {"runs/poem/lock", "runs/poem/heartbeat"} & set(names)
    before = Run.open("poem").events()
    monkeypatch.setenv("LLM_HOME", str(tmp_path / "own"))
    monkeypatch.setenv("LLM_MODE", "local")
    assert takeaway.read(file) == [
        "datasets/mine.txt",
        "models/brought",
        "runs/letters",
        "runs/poem",
        "sweeps/rates",
        "tokenizers/letters",
    ]
    assert json.loads((paths.models() / "brought" / "source.json").read_text())["owner"] == ""
    run = Run.open("poem")
    assert run.events() == before and run.status() == "finished" and run.meta["owner"] == "terminal"
    assert "poem" in paths.model_names() and paths.is_model(paths.model_folder("poem"))
    with pytest.raises(ValueError, match="something called 'mine' already"):
        takeaway.read(file)
    assert not list((tmp_path / "own").glob(".restore-*"))


@pytest.mark.parametrize(
    ("place", "there"),
    [
        ("datasets/mine.txt", "datasets/mine.jsonl"),  # a name stands for one kind of dataset
        ("datasets/stories.txt", ""),
        ("runs/poem/meta.json", "models/poem/config.json"),  # both would be the model "poem"
        ("models/brought/source.json", "runs/brought/meta.json"),
        ("tokenizers/gpt2/tokenizer.json", ""),
        ("sweeps/rates/spec.json", "sweeps/rates/spec.json"),
    ],
)
def test_a_name_that_stands_for_something_here_is_refused(home, tmp_path, place, there):
    if there:
        (home / there).parent.mkdir(parents=True, exist_ok=True)
        (home / there).write_text("{}")
    before = sorted(home.rglob("*"))
    with pytest.raises(ValueError, match="something called"):
        takeaway.read(packed(tmp_path, {place: "{}"}))
    assert [path for path in before if path.is_file()] == [
        path for path in sorted(home.rglob("*")) if path.is_file()
    ]


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("runs/poem/model/config.json", "runs/poem is not whole: its meta.json"),
        ("models/brought", "models/brought is not whole"),
        ("datasets/mine.pt", "neither a text"),
        ("datasets/mine.txt/x", "neither a text"),
        ("secret", "nobody takes away"),
    ],
)
def test_pieces_that_nobody_takes_away_are_refused(home, tmp_path, place, said):
    with pytest.raises(ValueError, match=said):
        takeaway.read(packed(tmp_path, {place: "{}"}))


def packed(folder: Path, files: dict[str, str]) -> Path:
    """An archive in its right form, of anything."""
    for name, text in files.items():
        (folder / "odd" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "odd" / name).write_text(text)
    with tarfile.open(folder / "odd.tar.gz", "w:gz") as tar:
        backup.pack(tar, folder / "odd", [Path(name) for name in files])
    return folder / "odd.tar.gz"


def test_a_full_disk_is_a_sentence(things):
    class Full(io.BytesIO):
        def write(self, data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(ValueError, match="No space left on device"):
        takeaway.write("ada", Full())


def test_only_so_many_are_packed_at_a_time_and_who_leaves_leaves_nothing(things, monkeypatch):
    client = TestClient(Starlette(routes=keeping.ROUTES, middleware=[Middleware(OwnerCookie)]))
    before = set(paths.cache().iterdir())
    for _ in range(2):
        assert keeping.PACKING.acquire(blocking=False)
    assert client.get("/lab/take-away").status_code == 503
    for _ in range(2):
        keeping.PACKING.release()
    opened = io.BytesIO(b"x" * (3 << 20))
    left = keeping.pieces(opened)
    next(left)
    left.close()
    assert opened.closed
    monkeypatch.setattr(takeaway, "write", lambda *_: (_ for _ in ()).throw(ValueError("no room")))
    for _ in range(3):  # a failure gives its place back
        assert client.get("/lab/take-away").status_code == 507
    assert set(paths.cache().iterdir()) == before


def test_who_has_nothing_takes_an_empty_file(things, tmp_path, monkeypatch, capsys):
    pack("eve", tmp_path / "eve.tar.gz")
    monkeypatch.setenv("LLM_HOME", str(tmp_path / "own"))
    takeaway.main([str(tmp_path / "eve.tar.gz")])
    assert "nothing in it" in capsys.readouterr().out


def test_a_damaged_or_strange_file_is_refused_and_nothing_is_kept(things, tmp_path, monkeypatch):
    file = tmp_path / "ada.tar.gz"
    pack("ada", file)
    monkeypatch.setenv("LLM_HOME", str(tmp_path / "own"))
    (tmp_path / "cut.tar.gz").write_bytes(file.read_bytes()[:3000])
    with tarfile.open(tmp_path / "out.tar.gz", "w:gz") as tar:
        about = tarfile.TarInfo("../../evil")
        about.size = 1
        tar.addfile(about, io.BytesIO(b"x"))
    for name in ("cut.tar.gz", "out.tar.gz", "none.tar.gz"):
        with pytest.raises(ValueError, match=name.replace(".", r"\.")):
            takeaway.read(tmp_path / name)
    assert (
        not [path for path in (tmp_path / "own").rglob("*") if path.is_file()]
        and not (tmp_path / "evil").exists()
    )


def test_the_route_gives_a_visitor_their_own(things):
    client = TestClient(Starlette(routes=keeping.ROUTES, middleware=[Middleware(OwnerCookie)]))
    answer = client.get("/lab/take-away")
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as tar:
        assert tar.getnames() == ["manifest.json"]
    assert "attachment" in answer.headers["content-disposition"] and not list(
        paths.cache().glob("take-away-*")
    )


def test_at_home_it_says_how_everything_is_kept(things, monkeypatch):
    monkeypatch.setenv("LLM_MODE", "local")
    answer = TestClient(Starlette(routes=keeping.ROUTES)).get("/lab/take-away")
    assert answer.status_code == 404 and "llm.backup" in answer.text


def test_only_a_space_has_the_line_and_it_says_what_is_lost(monkeypatch, home):
    assert keeping.line() == ""
    monkeypatch.setenv("SPACE_ID", "some/one")
    monkeypatch.setattr(os.path, "ismount", lambda path: str(path) == "/")
    assert "lost when this Space sleeps" in keeping.line()  # LLM_HOME is set, and on no storage
    assert "spaces/some/one?duplicate=true" in keeping.line()
    monkeypatch.setattr(os.path, "ismount", lambda path: path == home.parent)
    assert "kept" in keeping.line()
    monkeypatch.setenv("SPACE_ID", "<script>")
    assert "script" not in keeping.line()
