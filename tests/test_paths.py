"""Where things live, and writing that survives a kill."""

import os

import pytest

from llm import paths


def test_the_home_is_asked_each_time(monkeypatch, tmp_path):
    monkeypatch.setenv("LLM_HOME", str(tmp_path / "a"))
    assert paths.runs() == tmp_path / "a" / "runs"
    monkeypatch.setenv("LLM_HOME", str(tmp_path / "b"))
    assert paths.runs() == tmp_path / "b" / "runs" and paths.runs().is_dir()


def test_replacing_keeps_the_old_content_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "f"
    path.write_text("old")
    with pytest.raises(RuntimeError), paths.replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError("killed here")
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["f"]
    with paths.replacing(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new" and os.listdir(tmp_path) == ["f"]


def test_a_failing_rename_keeps_the_old_content(tmp_path, monkeypatch):
    path = tmp_path / "f"
    path.write_text("old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError), paths.replacing(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["f"]


def whole(folder):
    folder.mkdir(parents=True)
    (folder / "model.safetensors").touch()
    (folder / "config.json").touch()


def test_models_are_listed_when_they_are_whole():
    whole(paths.models() / "mine")
    whole(paths.runs() / "run1" / "model")
    whole(paths.runs() / "run1" / "model" / "steps" / "0000010")
    (paths.models() / "half").mkdir()
    (paths.models() / "half" / "model.safetensors").touch()
    names = paths.model_names(steps=True)
    assert "mine" in names and "run1" in names and "run1@0000010" in names and "half" not in names
    assert paths.model_folder("run1@0000010").name == "0000010"
    assert [paths.called(paths.model_folder(name)) for name in names] == names  # no message speaks of "model"
    built_in = paths.shipped_models() / "story-llama"
    assert paths.model_folder("story-llama") == built_in
    (paths.runs() / "story-llama" / "model").mkdir(parents=True)  # has begun, is not there yet
    assert paths.model_folder("story-llama") == built_in and names == paths.model_names(steps=True)
    again = paths.runs() / "story-llama" / "model"
    again.rmdir()
    whole(again)
    assert paths.model_folder("story-llama") == again and names == paths.model_names(steps=True)
    for bad in ("half", "../runs", "run1@../..", "run1@99"):
        with pytest.raises(ValueError):
            paths.model_folder(bad)
