"""Notebooks: their cells, run one after the other, give the losses that the run wrote into its log."""

import json
import random
import shutil

import pytest

from llm import paths, train
from llm.convert import notebook
from llm.runs import Run

FLAGS = [
    "--dataset", "words", "--tokenizer", "byte", "--n_layer", "1", "--n_embd", "16", "--n_head", "2", "--context_length", "16",
    "--max_steps", "8", "--warmup_steps", "2", "--eval_every", "4", "--batch_size", "4", "--threads", "1", "--sample_tokens", "4",
    "--prompts", "the", "--seed", "3",
]  # fmt: skip


@pytest.fixture
def trained(home):
    """A small run that is finished."""
    words = random.Random(1).choices(["the", "old", "fox", "saw", "a", "boat"], k=2000)
    (paths.datasets() / "words.txt").write_text(" ".join(words))
    assert train.main(["small", *FLAGS]) == 0
    return Run.open("small")


def cells_of(file, kind="code"):
    document = json.loads(file.read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in document["cells"] if cell["cell_type"] == kind]


def executed(file):
    """All code cells in one namespace, as a notebook runs them."""
    space = {}
    for cell in cells_of(file):
        exec(compile(cell, "cell", "exec"), space)
    return space


def test_the_same_losses(trained, tmp_path, capsys):
    notes = notebook.save("small", tmp_path / "small.ipynb", steps=5)
    capsys.readouterr()
    space = executed(tmp_path / "small.ipynb")
    wanted = {e["step"]: e["loss"] for e in trained.events() if e["kind"] == "step" and e["step"] <= 5}
    assert notes == [] and len(wanted) == 5
    assert space["losses"] == wanted  # to the last bit
    first = next(e["val_loss"] for e in trained.events() if e["kind"] == "evaluate")
    assert space["before"] == first
    printed = capsys.readouterr().out
    assert f"step    5   here {wanted[5]:.6f}   run {wanted[5]:.6f}   same" in printed
    assert "largest difference: 0.0" in printed


def test_the_whole_run(trained, tmp_path):
    notebook.save("small", tmp_path / "small.ipynb", steps=100)
    space = executed(tmp_path / "small.ipynb")
    last = [e for e in trained.events() if e["kind"] == "step"][-1]
    assert max(space["losses"]) == last["step"] == 8 and space["losses"][8] == last["loss"]


def test_a_small_adapter_on_a_model(trained, tmp_path):
    flags = [
        *FLAGS[4:],
        "--dataset",
        "words",
        "--start_from",
        "small",
        "--trained",
        "lora",
        "--lora_rank",
        "2",
    ]
    assert train.main(["tuned", *flags]) == 0
    notebook.save("tuned", tmp_path / "tuned.ipynb", steps=4)
    space = executed(tmp_path / "tuned.ipynb")
    wanted = {
        e["step"]: e["loss"] for e in Run.open("tuned").events() if e["kind"] == "step" and e["step"] <= 4
    }
    assert space["losses"] == wanted
    learns = sum(p.numel() for p in space["model"].parameters() if p.requires_grad)
    assert 0 < learns < sum(p.numel() for p in space["model"].parameters()) / 2


def test_a_valid_notebook_of_the_told_size(trained, tmp_path):
    file = tmp_path / "small.ipynb"
    seen = []
    notebook.save("small", file, progress=lambda *told: seen.append(told))
    assert file.stat().st_size == notebook.size("small") == seen[-1][1] == seen[-1][2]
    nbformat = pytest.importorskip("nbformat", reason="the package nbformat is not installed")
    nbformat.validate(nbformat.read(file, as_version=4))
    assert "# small" in cells_of(file, "markdown")[0]


def test_a_model_that_keeps_its_command_and_its_log(trained, tmp_path):
    """As built-in models do: the run is gone, its model directory stays."""
    shutil.copytree(trained.model_folder, paths.models() / "kept")
    shutil.copyfile(trained.path / "events.jsonl", paths.models() / "kept" / "events.jsonl")
    losses = {e["step"]: e["loss"] for e in trained.events() if e["kind"] == "step"}
    trained.delete()
    notes = notebook.save("kept", tmp_path / "kept.ipynb", steps=3)
    assert "command in the model's card" in notes[0]
    space = executed(tmp_path / "kept.ipynb")
    assert space["losses"] == {step: losses[step] for step in (1, 2, 3)}
    (paths.models() / "kept" / "events.jsonl").unlink()
    assert "nothing to compare" in notebook.save("kept", tmp_path / "kept.ipynb", steps=3)[1]


def test_refused(trained, tmp_path):
    shutil.copytree(trained.model_folder, paths.models() / "imported")
    (paths.models() / "imported" / "README.md").write_text("# From elsewhere\n")
    with pytest.raises(ValueError, match="imported was not trained by this lab"):
        notebook.size("imported")
    (paths.models() / "imported" / "README.md").write_text("python -m llm.train x --no_such_setting 3\n")
    with pytest.raises(ValueError, match="settings that are unknown today"):
        notebook.size("imported")
    with pytest.raises(ValueError, match="There is no run called 'nothing'"):
        notebook.save("nothing", tmp_path / "n.ipynb")
    with pytest.raises(ValueError, match="cannot be used"):
        notebook.save("../x", tmp_path / "n.ipynb")
    with pytest.raises(ValueError, match="at least 1 step, not 0"):
        notebook.save("small", tmp_path / "n.ipynb", steps=0)
    Run.create("tokenizer", {}, name="words-bpe")
    with pytest.raises(ValueError, match="words-bpe is a run of the kind tokenizer"):
        notebook.save("words-bpe", tmp_path / "n.ipynb")
    assert not list(tmp_path.glob("*.ipynb*"))


def test_stopped_before_anything_is_written(trained, tmp_path):
    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        notebook.save("small", tmp_path / "small.ipynb", progress=stop)
    assert not list(tmp_path.glob("*small*"))
