"""Imports and exports as runs: what they write, what they say, and that a stop, a kill or an error leaves nothing half done."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile

import pytest
import torch

from llm import bpe, check, checkpoint, commands, convert, hub, inventory, job, paths, train
from llm.config import (
    FORMATS,
    ExportConfig,
    ImportConfig,
    ModelConfig,
    RunConfig,
    TrainConfig,
    from_dict,
    to_dict,
)
from llm.convert import bring, describe, export, families, folder, gguf, nanogpt
from llm.model import GPT
from llm.runs import Run
from tests.test_hub import COMMIT, GOOD, server  # noqa: F401 - a fixture

TEXT = "the cat sat on the mat and the other cat ate that rat, they said. " * 20
LLAMA = dict(context_length=32, n_layer=2, n_head=2, n_kv_head=1, n_embd=32, mlp_hidden=64)


def model_here(name: str, **changes) -> GPT:
    """A model directory called `name`, with random weights and a small encoding."""
    encoding = bpe.learn(bpe.documents_of(TEXT), 280, name)
    torch.manual_seed(1)
    model = GPT(ModelConfig(**{"vocab_size": encoding.vocab_size, **LLAMA, **changes})).eval()
    checkpoint.save_model(paths.models() / name, model, encoding, f"# {name}\n")
    return model


@pytest.fixture(autouse=True)
def unlimited(monkeypatch):
    """The limit of memory is for the run's own process, not for the one of the tests."""
    monkeypatch.setattr(bring, "limit_memory", lambda _: None)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """One model in the forms of other tools."""
    place = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLM_HOME", str(place / "home"))
        model_here("small")
        folder.save("small", place / "small")
        folder.save("small", place / "small-bf16", "bf16")
        gguf.save("small", place / "small.gguf", "q8_0")
    return place


def weights(name: str) -> dict[str, torch.Tensor]:
    return dict(checkpoint.read_weights(paths.model_folder(name)))


def imported(name: str, source: str, **values) -> Run:
    """An import done in this process."""
    run = Run.create("import", to_dict(ImportConfig(source=str(source), **values)), owner="tester", name=name)
    job.guarded(run, bring.work)
    return run


def exported(name: str, **values) -> Run:
    run = Run.create("export", to_dict(ExportConfig(**values)), owner="tester", name=name)
    job.guarded(run, export.work)
    return run


def result(run: Run) -> dict:
    assert run.status() == "finished", run.last_event()
    (event,) = (event for event in run.events() if event["kind"] == "result")
    return event


def why(run: Run) -> str:
    """The sentence with which a run failed; no model and nothing half done is left of it."""
    assert run.status() == "failed"
    assert nothing_left(run.name)
    return run.last_event()["message"]


def nothing_left(name: str) -> bool:
    return (
        not [path for path in paths.models().iterdir() if name in path.name]
        and name not in paths.model_names()
    )


def command(module: str, *arguments: str, code: str = "") -> subprocess.CompletedProcess:
    """`python -m MODULE ARGUMENTS`, with `code` carried out first."""
    begin = f"{code}\nimport sys; from {module} import main; sys.exit(main(sys.argv[1:]))"
    env = os.environ | {"LLM_HOME": str(paths.home())}
    return subprocess.run(
        [sys.executable, "-c", begin, *arguments],
        cwd=paths.ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
    )


# ---- In ----------------------------------------------------------------------------------------------------------


def test_an_import_as_a_command(made):
    code = """
import resource
from llm import checkpoint
write = checkpoint.write_tensors
checkpoint.write_tensors = lambda *a: (print("limit", resource.getrlimit(resource.RLIMIT_AS)[0]), write(*a))
"""
    done = command("llm.convert.bring", "tiny", "--source", str(made / "small"), code=code)
    assert done.returncode == 0, done.stderr
    run = Run.open("tiny")
    assert run.status() == "finished" and run.meta["kind"] == "import"
    said = result(run)
    stages = list(dict.fromkeys(event["stage"] for event in run.events() if event["kind"] == "progress"))
    assert stages == ["looking at it", "checking the encoding", "converting the weights"]
    model, encoding = checkpoint.load_model(paths.model_folder("tiny"))
    assert said["parameters"] == sum(p.numel() for p in model.parameters())
    assert (said["model"], said["container"], said["family"]) == ("tiny", "Hugging Face folder", "llama")
    assert said["tensors"] == 2 * 9 + 2 and said["left_out"] == 0
    assert (
        int(done.stdout.split()[1]) == describe.size_of(made / "small") + 4 * said["parameters"] + bring.SPARE
    )
    assert said["bytes"] == sum(file.stat().st_size for file in paths.model_folder("tiny").iterdir())
    assert run.last_event()["message"].startswith("The model tiny is here: ")
    assert encoding.encode("the cat") and list(paths.models().iterdir()) == [paths.models() / "tiny"]
    again = command("llm.convert.bring", "tiny", "--source", str(made / "small"))
    assert again.returncode == 2 and "is finished: its model is called tiny" in again.stderr


def test_the_same_weights_come_out_as_went_in(made, home, monkeypatch):
    imported("a", made / "small")
    own = weights("a")
    monkeypatch.setenv("LLM_HOME", str(made / "home"))
    for name, tensor in weights("small").items():
        assert torch.equal(own[name], tensor), name
    assert len(own) == len(weights("small"))


def test_numbers_keep_their_format_and_quantised_ones_lose_nothing_more(made, monkeypatch):
    imported("half", made / "small-bf16")
    assert {tensor.dtype for tensor in weights("half").values()} == {torch.bfloat16}
    run = imported("packed", made / "small.gguf")
    assert {tensor.dtype for tensor in weights("packed").values()} == {torch.float32}
    expected = dict(convert.look(made / "small.gguf").read())
    for name, tensor in weights("packed").items():
        assert torch.equal(tensor, expected[name].float()), name
    assert any("quantised" in note for note in result(run)["notes"])


def test_the_card_and_the_source_say_where_it_is_from(made):
    imported("tiny", made / "small.gguf")
    place = paths.model_folder("tiny")
    card = (place / "README.md").read_text()
    assert card.startswith("# tiny\n") and "- container: GGUF" in card and "- family: llama" in card
    assert str(made) not in card  # whose folders these are is nobody's business
    stored = json.loads((place / "source.json").read_text())
    assert str(made) not in json.dumps(stored)
    found = check.inspect(str(made / "small.gguf"))
    assert stored["rows"] == found["rows"] and stored["parameters"] == found["parameters"]
    assert (stored["run"], stored["owner"], stored["version"]) == ("tiny", "tester", 1)
    assert inventory.read("tiny").kind == "imported" and inventory.read("tiny").owner == "tester"


def test_a_name_that_is_taken(made):
    model_here("mine")
    run = imported("mine", made / "small")
    assert "There is a model called 'mine' already" in run.last_event()["message"]
    assert "made by" not in (paths.model_folder("mine") / "README.md").read_text()
    assert "already" in imported("story-llama", made / "small").last_event()["message"]  # a built-in one


def test_the_model_of_an_earlier_run_of_the_same_name_is_not_taken_for_this_ones(made):
    imported("tiny", made / "small")
    Run.open("tiny").delete()
    run = imported("tiny", made / "small.gguf")
    assert "There is a model called 'tiny' already" in run.last_event()["message"]


def test_what_cannot_be_opened_leaves_nothing(made, tmp_path):
    shutil.copytree(made / "small", tmp_path / "bad")
    (tmp_path / "bad" / "model.safetensors").rename(tmp_path / "bad" / "model-00001-of-00002.safetensors")
    assert "model-00002-of-00002.safetensors is missing" in why(imported("bad", tmp_path / "bad"))
    assert "not there" in why(imported("nowhere", tmp_path / "nothing"))
    shutil.copytree(made / "small", tmp_path / "mute")
    (tmp_path / "mute" / "tokenizer.json").unlink()
    assert "brings no encoding along" in why(imported("mute", tmp_path / "mute"))
    assert "do not belong together" in why(imported("other", tmp_path / "mute", encoding="gpt2"))
    (tmp_path / "mute" / "tokenizer.json").write_text('{"model": {"type": "BPE", "vocab": {}, "merges": []}}')
    assert "do not belong together" in why(imported("empty", tmp_path / "mute"))


def test_an_encoding_can_be_named(made, tmp_path):
    shutil.copytree(made / "small", tmp_path / "mute")
    encoding = json.loads((tmp_path / "mute" / "tokenizer.json").read_text())
    (tmp_path / "mute" / "tokenizer.json").unlink()
    (paths.tokenizers() / "known").mkdir()
    (paths.tokenizers() / "known" / "tokenizer.json").write_text(json.dumps(encoding))
    result(imported("told", tmp_path / "mute", encoding="known"))
    _, found = checkpoint.load_model(paths.model_folder("told"))
    assert found.decode(found.encode("the cat sat")) == "the cat sat"


def test_a_model_of_characters_keeps_them(tmp_path):
    """A nanoGPT checkpoint that lists its characters."""
    characters = " abcdehimnorstuy.\n"
    config = ModelConfig(
        vocab_size=len(characters), context_length=16, n_layer=1, n_head=2, n_embd=8, position="learned", norm="layernorm",
        mlp="gelu", bias=True, qkv_bias=True,
    )  # fmt: skip
    state = {
        f"transformer.{name}": torch.randn(place.shape)
        for name, place in families.places(nanogpt.TABLE, config).items()
    }
    about = dict(n_layer=1, n_head=2, n_embd=8, block_size=16, vocab_size=len(characters), bias=True)
    torch.save(dict(model=state, model_args=about, itos=dict(enumerate(characters))), tmp_path / "ckpt.pt")
    said = result(imported("letters", tmp_path / "ckpt.pt"))
    model, encoding = checkpoint.load_model(paths.model_folder("letters"))
    assert said["container"] == "nanoGPT checkpoint" and model.config.vocab_size == len(characters)
    assert encoding.decode(encoding.encode("the cat.\n")) == "the cat.\n"
    assert torch.equal(model.token_embedding.weight, state["transformer.wte.weight"])


def test_an_upload_is_gone_after_its_import(made, monkeypatch):
    monkeypatch.setenv("SPACE_ID", "a/b")
    place = check.uploads() / "0123abcd"
    shutil.copytree(made / "small", place)
    result(imported("mine", "upload:0123abcd"))
    assert not place.exists() and paths.is_model(paths.models() / "mine")
    assert "from the Hub or as an upload" in why(imported("other", made / "small"))


def test_a_full_disk_is_told_before_anything_is_written(made, monkeypatch):
    usage = shutil.disk_usage(made)
    monkeypatch.setattr(hub.shutil, "disk_usage", lambda _: usage._replace(free=hub.SPARE + 50_000))
    assert "the disk has 0 MB left" in why(imported("big", made / "small"))


# ---- Stopped, killed, resumed ------------------------------------------------------------------------------------


def stopping(monkeypatch, at: str) -> None:
    """A person asks for a stop as soon as a stage begins."""
    tell = bring.Teller.__call__

    def told(self, stage, done, total):
        if stage == at:
            self.run.request_stop()
        tell(self, stage, done, total)

    monkeypatch.setattr(bring.Teller, "__call__", told)


@pytest.mark.parametrize("stage", ["looking at it", "checking the encoding", "converting the weights"])
def test_a_stop_leaves_nothing_and_resume_begins_again(made, monkeypatch, stage):
    with monkeypatch.context() as patch:
        stopping(patch, stage)
        run = imported("tiny", made / "small")
    assert run.status() == "stopped" and nothing_left("tiny")
    run.request_resume()
    bring.work(run)
    result(run)
    assert paths.is_model(paths.models() / "tiny") and not list(paths.models().glob(".new-*"))


KILLED = {
    "in the weights": """
from llm.convert import bring
tell = bring.Teller.__call__
bring.Teller.__call__ = lambda self, stage, *a: die() if stage == "converting the weights" else tell(self, stage, *a)
""",
    "before the rename": """
import pathlib
rename = pathlib.Path.rename
pathlib.Path.rename = lambda path, *a: die() if path.name == "whole" else rename(path, *a)
""",
    "after the rename": """
from llm.convert import bring
bring._tidy = lambda *a: die()
""",
    "of an export": """
from llm.convert import export
export.pack = lambda *a: die()
""",
}


def killed(moment: str, *arguments: str) -> None:
    """Run a command that is killed at that moment."""
    code = f"import os\ndef die(): os.kill(os.getpid(), 9)\n{KILLED[moment]}"
    done = command(f"llm.convert.{'export' if 'export' in moment else 'bring'}", *arguments, code=code)
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.parametrize("moment", ["in the weights", "before the rename", "after the rename"])
def test_a_kill_leaves_no_half_model(made, moment):
    killed(moment, "tiny", "--source", str(made / "small"))
    run = Run.open("tiny")
    assert run.status() == "crashed"
    whole = moment == "after the rename"
    assert ("tiny" in paths.model_names()) == whole
    assert bool(list(paths.models().glob(".new-*"))) != whole
    run.request_resume()
    bring.work(run)
    result(run)
    assert [path.name for path in paths.models().iterdir()] == ["tiny"]
    checkpoint.load_model(paths.model_folder("tiny"))


def test_what_a_killed_import_left_is_swept_by_the_next(made):
    killed("before the rename", "first", "--source", str(made / "small"))
    assert [path.name for path in paths.models().iterdir()] == [".new-first"]
    imported("second", made / "small")
    assert [path.name for path in paths.models().iterdir()] == ["second"]


# ---- From the Hub ------------------------------------------------------------------------------------------------


@pytest.fixture
def repository(server, made):  # noqa: F811
    """The small model on the Hub of this machine."""
    files = {file.name: file.read_bytes() for file in (made / "small").iterdir()}
    server.repos["org/small"] = dict(files=files, gated=False, private=False)
    server.repos["org/closed"] = dict(files=files, gated="auto", private=False)
    server.repos["org/packed"] = dict(
        files={"a.gguf": (made / "small.gguf").read_bytes(), "b.gguf": b"GGUF"}, gated=False, private=False
    )
    return server


def test_an_import_from_the_hub(repository):
    run = imported("fetched", "hf:org/small@main")
    said = result(run)
    stages = [event["stage"] for event in run.events() if event["kind"] == "progress"]
    assert "downloading model.safetensors" in stages and stages[-1] == "converting the weights"
    stored = json.loads((paths.model_folder("fetched") / "source.json").read_text())
    assert stored["origin"] == f"{repository.url}/org/small at {COMMIT[:12]}"
    assert said["parameters"] == stored["parameters"]
    assert list(hub.root().iterdir()) == []  # not kept twice


def test_one_of_several_gguf_files(repository):
    assert "has 2 GGUF files: choose one of a.gguf" in why(imported("some", "hf:org/packed"))
    result(imported("one", "hf:org/packed", file="a.gguf"))
    assert json.loads((paths.model_folder("one") / "source.json").read_text())["origin"].endswith(", a.gguf")


def test_a_gated_model_is_fetched_by_the_page_and_imported_without_a_token(repository, monkeypatch):
    assert "org/closed is gated: accept its terms" in why(imported("closed", "hf:org/closed"))
    list(hub.download("org/closed", token=GOOD, owner="someone-else"))
    assert "is gated" in why(imported("closed2", "hf:org/closed"))
    list(hub.download("org/closed", token=GOOD, owner="tester"))
    repository.asked.clear()
    result(imported("closed3", "hf:org/closed"))
    assert repository.asked == []
    for run in paths.runs().iterdir():
        assert GOOD not in "".join(file.read_text() for file in run.iterdir() if file.is_file())


def test_a_stopped_download_goes_on(repository, monkeypatch):
    repository.repos["org/small"]["files"]["README.md"] = b"x" * 3_000_000
    with monkeypatch.context() as patch:
        stopping(patch, "downloading model.safetensors")
        run = imported("fetched", "hf:org/small")
    assert run.status() == "stopped" and nothing_left("fetched")
    repository.asked.clear()
    run.request_resume()
    bring.work(run)
    result(run)
    assert not any(path.endswith("README.md") for _, path, _, _ in repository.asked)  # it was here already


# ---- Out ---------------------------------------------------------------------------------------------------------


def test_a_folder_is_exported_with_one_file_to_download():
    model = model_here("mine")
    run = exported("out", model="mine", format="hf")
    said = result(run)
    assert (said["format"], said["dtype"], said["file"], said["folder"]) == (
        "hf",
        "fp32",
        "result/mine.zip",
        "result/mine",
    )
    assert said["bytes"] == (run.path / said["file"]).stat().st_size
    listed = {file["name"]: file["bytes"] for file in said["files"]}
    assert listed == {
        file.relative_to(run.path / "result").as_posix(): file.stat().st_size
        for file in (run.path / "result").rglob("*")
        if file.is_file()
    }
    with zipfile.ZipFile(io.BytesIO((run.path / said["file"]).read_bytes())) as archive:
        assert archive.testzip() is None
        assert {name: archive.getinfo(name).compress_type for name in archive.namelist()} == {
            f"mine/{file.name}": zipfile.ZIP_STORED for file in (run.path / "result" / "mine").iterdir()
        }
    # and back again, unpacked, with the same logits
    again = imported("back", run.path / "result" / "mine")
    result(again)
    ids = torch.arange(20)[None]
    with torch.no_grad():
        assert torch.equal(checkpoint.load_model(paths.model_folder("back"))[0](ids), model(ids))


def test_an_export_as_a_command():
    model_here("mine")
    done = command("llm.convert.export", "out", "--model", "mine", "--format", "gguf", "--dtype", "q8_0")
    assert done.returncode == 0, done.stderr
    said = result(Run.open("out"))
    assert said["file"] == "result/mine.gguf" and said["folder"] == "" and said["dtype"] == "q8_0"
    assert abs(convert.size("mine", "gguf", "q8_0") - said["bytes"]) < 5000
    assert check.inspect(str(Run.open("out").path / said["file"]))["container"] == "GGUF"
    again = command("llm.convert.export", "out", "--model", "mine", "--format", "gguf", "--dtype", "q8_0")
    assert again.returncode == 2 and "is finished" in again.stderr


def test_what_a_format_cannot_hold_is_refused_with_the_setting():
    model_here("odd", norm="layernorm", position="rope")
    for format in ("hf", "gguf"):
        run = exported(f"out-{format}", model="odd", format=format)
        assert run.status() == "failed" and not (run.path / "result").exists()
        message = run.last_event()["message"]
        assert "norm" in message.lower() and len(message) < 500, message
        with pytest.raises(ValueError) as error:
            convert.size("odd", format)
        assert str(error.value) == message
    assert "no model called 'nothing'" in exported("out-3", model="nothing").last_event()["message"]


@pytest.mark.parametrize("stage", ["writing the weights", "packing"])
def test_a_stopped_export_leaves_nothing(monkeypatch, stage):
    model_here("mine")
    with monkeypatch.context() as patch:
        stopping(patch, stage)
        run = exported("out", model="mine", format="hf")
    assert run.status() == "stopped" and not (run.path / "result").exists()
    run.request_resume()
    export.work(run)
    result(run)


def test_a_killed_export_begins_again():
    model_here("mine")
    killed("of an export", "out", "--model", "mine")
    run = Run.open("out")
    assert run.status() == "crashed"
    run.request_resume()
    export.work(run)
    assert sorted(p.name for p in (run.path / "result").iterdir()) == ["mine", "mine.zip"]
    result(run)


# ---- The tables --------------------------------------------------------------------------------------------------


def test_the_number_format_must_be_one_of_the_format():
    with pytest.raises(ValueError, match="The format hf holds fp32, bf16, fp16, not q8_0"):
        ExportConfig(model="m", format="hf", dtype="q8_0")
    with pytest.raises(ValueError, match="format must be one of"):
        ExportConfig(model="m", format="exe")
    assert ExportConfig(format="gguf").numbers == "fp16"


@pytest.mark.parametrize(
    ("kind", "config", "line"),
    [
        (
            "import", ImportConfig(source="hf:org/name", file="a.gguf"),
            "python -m llm.convert.bring NAME --source hf:org/name --file a.gguf",
        ),
        (
            "export", ExportConfig(model="m", format="gguf", dtype="q8_0"),
            "python -m llm.convert.export NAME --model m --format gguf --dtype q8_0",
        ),
    ],
)  # fmt: skip
def test_the_page_and_a_terminal_say_the_same(kind, config, line):
    assert commands.command_line(kind, "NAME", config) == line
    assert from_dict(type(config), to_dict(config)) == config


def test_every_row_of_the_tables_has_what_it_needs():
    assert set(convert.EXPORTERS) == set(FORMATS)
    for importer in convert.IMPORTERS.values():
        assert callable(convert._module(importer.module).look)
    for format in convert.EXPORTERS:
        module = convert.exporter(format)
        assert callable(module.size) and callable(module.save)
    with pytest.raises(ValueError, match="no format called 'exe'"):
        convert.exporter("exe")


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (["transformer.wte.weight", "transformer.h.0.attn.c_attn.weight"], "nanogpt"),
        (["tok_emb.weight", "pos_emb.weight", "trf_blocks.0.ff.layers.0.weight"], "from_scratch"),
        (["_orig_mod.transformer.wte.weight", "_orig_mod.transformer.h.0.attn.c_attn.weight"], "nanogpt"),
    ],
)
def test_state_dicts_are_known_by_the_names_of_their_tensors(tmp_path, names, kind):
    torch.save({name: torch.zeros(2, 2) for name in names}, tmp_path / "any.bin")
    assert convert.container(tmp_path / "any.bin") == convert.container(tmp_path) == kind


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["transformer.h.0.attn.qkv.weight"], "take the whole directory, with model_config.yaml"),
        (["conv1.weight"], "tensors such as conv1.weight, and neither nanoGPT's"),
    ],
)
def test_other_state_dicts_are_refused(tmp_path, names, sentence):
    torch.save({name: torch.zeros(2, 2) for name in names}, tmp_path / "any.pt")
    with pytest.raises(ValueError, match=sentence):
        convert.look(tmp_path / "any.pt")


def test_a_model_trained_further_keeps_the_chat_template_it_came_with(made, home, tmp_path):
    source = tmp_path / "chatty"
    shutil.copytree(made / "small", source)
    settings = json.loads((source / "tokenizer_config.json").read_text())
    settings["chat_template"] = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    (source / "tokenizer_config.json").write_text(json.dumps(settings))
    (source / "generation_config.json").write_text('{"eos_token_id": [256, 7]}')
    result(imported("chatty", source))
    (paths.datasets() / "cats.txt").write_text(TEXT)
    how = TrainConfig(
        max_steps=2, warmup_steps=0, batch_size=2, eval_every=2, checkpoint_every=2, precision="fp32"
    )
    config = RunConfig(dataset="cats", start_from="chatty", sample_tokens=0, train=how)
    run = Run.create("train", to_dict(config), owner="tester", name="further")
    job.guarded(run, train.work)
    assert run.status() == "finished", run.last_event()
    brought = checkpoint.extras_of(paths.model_folder("chatty"))
    assert set(brought) >= {"tokenizer_config.json", "generation_config.json"}
    kept = checkpoint.extras_of(paths.model_folder("further"))
    assert {n: f.read_bytes() for n, f in kept.items()} == {n: f.read_bytes() for n, f in brought.items()}
