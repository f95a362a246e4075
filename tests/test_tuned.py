"""What was tuned from what: adapters and trainings as they lie on the disk."""

import json

import pytest

from llm import paths, tuned
from llm.config import RunConfig, TuneConfig, from_dict, to_dict
from llm.runs import Run


@pytest.fixture
def alone(monkeypatch, tmp_path):
    """No built-in model but those of the test."""
    monkeypatch.setattr(paths, "shipped_models", lambda: tmp_path / "shipped")


def model(folder) -> None:
    """The two files that make a directory a whole model for those who do not open it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_bytes(b"")
    (folder / "config.json").write_text("{}")


def adapter(folder, base: str, **said) -> None:
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base, **said}))
    (folder / "adapter_model.safetensors").write_bytes(b"")


def test_adapters_are_found_in_runs_and_beside_models(home, alone):
    model(paths.models() / "base")
    model(paths.runs() / "one" / "model")
    adapter(paths.runs() / "one" / "adapter", "base")
    model(paths.models() / "kept")
    adapter(paths.models() / "kept" / "adapter", "base")
    adapter(paths.runs() / "classes" / "adapter", "base", task_type="SEQ_CLS")
    adapter(paths.runs() / "lost" / "adapter", "nobody")
    assert {one.name for one in tuned.adapters()} == {"one", "kept", "classes", "lost"}
    assert [one.name for one in tuned.dialled("kept")] == ["kept", "one"]
    assert {one.name for one in tuned.dialled("base")} == {"one", "kept"}
    assert tuned.below("one") == tuned.below("base") == "base"
    assert tuned.below("lost") == "lost" and tuned.own_adapter("lost") is None
    assert tuned.own_adapter("classes") is None and tuned.adapter("classes").classifier


def test_what_is_no_adapter_is_said(home, alone):
    for name in ("nobody", "../x", "", None):
        with pytest.raises(ValueError):
            tuned.adapter(name)
    adapter(paths.runs() / "broken" / "adapter", "base")
    (paths.runs() / "broken" / "adapter" / "adapter_config.json").write_text("[")
    with pytest.raises(ValueError, match="broken cannot be read"):
        tuned.adapter("broken")
    assert tuned.adapters() == []


def test_strengths_of_a_command_line():
    assert tuned.parsed(["a=0", "b", "c=1.25"]) == {"a": 0.0, "b": 1.0, "c": 1.25}
    for words, sentence in (
        (["a=x"], "a=1.5, not 'a=x'"),
        (["a=2.01"], "from 0 to 2"),
        (["a=nan"], "from 0"),
        (["/a=1"], "cannot"),
    ):
        with pytest.raises(ValueError, match=sentence):
            tuned.parsed(words)


def test_the_training_of_a_run_and_of_a_card(home, alone):
    config = RunConfig(
        dataset="rows", start_from="base", objective="prefer", tune=TuneConfig(trained="lora", beta=0.25)
    )
    Run.create("train", to_dict(config), name="one")
    model(paths.runs() / "one" / "model")
    assert tuned.training("one") == config
    model(paths.models() / "kept")
    assert tuned.training("kept") is None
    card = paths.models() / "kept" / "README.md"
    card.write_text(
        "# kept\n\n```\npython -m llm.train kept --start_from base --objective instruct \\\n  --dataset rows --lora_rank 4\n"
        "python -m llm.checkpoint kept models/kept\n```\n"
    )
    found = tuned.training("kept")
    assert (found.start_from, found.objective, found.dataset, found.tune.lora_rank) == (
        "base",
        "instruct",
        "rows",
        4,
    )
    card.write_text("```\npython -m llm.train kept --no_such_flag 3\n```\n")
    assert tuned.training("kept") is None
    assert tuned.models() == ["one"]
    with pytest.raises(ValueError, match="nobody"):
        tuned.training("nobody")


def test_the_built_in_models_say_how_they_were_made():
    found = tuned.training("story-llama")
    assert found == from_dict(
        RunConfig, {"model": {"n_kv_head": 2}, "train": {"max_steps": 2400, "threads": 2}}
    )
