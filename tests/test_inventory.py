"""What models are present: read from files alone, honest about damage, and deleted only where they may be."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from llm import anatomy, checkpoint, inventory, paths, tokenizer
from llm.config import ModelConfig, RunConfig, to_dict
from llm.model import GPT
from llm.runs import Run

CONFIG = ModelConfig(vocab_size=256, context_length=16, n_layer=2, n_head=2, n_embd=16)


def made(folder: Path, card: str = "", config: ModelConfig = CONFIG) -> Path:
    """A model directory with random weights."""
    checkpoint.save_model(folder, GPT(config), tokenizer.ByteTokenizer(), card)
    return folder


def test_the_built_in_models_stand_first_with_their_real_numbers():
    found = {model.name: model for model in inventory.models()}
    llama = found["story-llama"]
    assert llama.kind == "built in" and llama.parameters == 708_480 and llama.licence == "MIT"
    assert llama.encoding == "BPE on bytes" and llama.owner == "" and not llama.problem
    assert llama.size == sum(f.stat().st_size for f in llama.folder.iterdir())
    last = (llama.folder / "events.jsonl").read_text(encoding="utf-8").splitlines()[-1]
    assert llama.made == json.loads(last)["time"]
    assert found["verse-char"].kept[:2] == ("0000000", "0000001")
    assert found["verse-char"].encoding == "single characters"


def test_each_kind_says_where_it_comes_from(home):
    made(paths.models() / "mine")
    imported = made(paths.models() / "theirs")
    source = {
        "container": "GGUF",
        "origin": "someone/theirs",
        "owner": "me",
        "facts": {"licence": "Apache-2.0"},
        "rows": [],
    }
    (imported / "source.json").write_text(json.dumps(source), encoding="utf-8")
    config = to_dict(RunConfig(dataset="fox", start_from="mine"))
    run = Run.create("train", config, owner="you", name="my-run")
    made(run.model_folder)
    made(run.model_folder / "steps" / "0000010")
    found = {model.name: model for model in inventory.models()}
    assert [found[name].kind for name in ("mine", "theirs", "my-run")] == ["made here", "imported", "run"]
    assert found["theirs"].origin == "someone/theirs, GGUF" and found["theirs"].licence == "Apache-2.0"
    assert found["theirs"].owner == "me" and found["my-run"].owner == "you" and found["mine"].owner == ""
    assert found["my-run"].origin == "trained here on fox, from mine"
    assert found["my-run"].kept == ("0000010",)
    step = inventory.read("my-run@0000010")
    assert step.kind == "run" and step.owner == "you" and step.size < found["my-run"].size
    assert inventory.disk_used() == sum(found[n].size for n in ("mine", "theirs", "my-run")) + sum(
        f.stat().st_size for f in run.path.iterdir() if f.is_file()
    )


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        ("---\nlicense: apache-2.0\nlanguage: en\n---\n# A", "apache-2.0"),
        ("# A\n\n- licence: CC BY-SA 4.0\n", "CC BY-SA 4.0"),
        ("# A\n\nMIT licence, like its text.\n", "MIT"),
        ("# A\n\nWe have no licence to speak of.\n", ""),
        ("", ""),
    ],
)
def test_the_licence_is_what_the_card_names(tmp_path, card, expected):
    (tmp_path / "README.md").write_text(card, encoding="utf-8")
    assert inventory.licence(tmp_path) == expected


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"lab": {"kind": "byte"}}, "single bytes"),
        ({"model": {"type": "Unigram", "vocab": []}}, "Unigram"),
        ({"pre_tokenizer": {"type": "Metaspace"}, "model": {"type": "BPE", "merges": []}}, "BPE"),
        ({"pre_tokenizer": {"type": "ByteLevel"}, "model": {"type": "BPE", "merges": []}}, "BPE on bytes"),
        ({"pre_tokenizer": {"type": "ByteLevel"}, "model": {"vocab": {}, "merges": []}}, "BPE on bytes"),
    ],
)
def test_an_encoding_in_words(tmp_path, document, words):
    (tmp_path / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
    assert inventory.encoding(tmp_path) == words


def test_the_header_lists_what_the_formula_says():
    folder = inventory.read("story-gpt2").folder
    stored = {tensor.name: tensor.shape for tensor in inventory.tensors(folder)}
    assert stored == dict(anatomy.tensors(inventory.shape(folder)))
    assert inventory.stored_parameters(inventory.tensors(folder)) == 791_680


@pytest.mark.parametrize(
    "data",
    [
        b"",
        (2**62).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        (4).to_bytes(8, "little") + b"{x}}",
        (14).to_bytes(8, "little") + b'{"a":{"b":1} }',
    ],
)
def test_a_damaged_header_is_a_sentence(home, data):
    folder = made(paths.models() / "broken")
    (folder / "model.safetensors").write_bytes(data)
    with pytest.raises(ValueError, match="The weights of broken are damaged"):
        inventory.tensors(folder)


def test_a_model_with_a_damaged_config_is_listed_with_the_reason(home):
    (made(paths.models() / "broken") / "config.json").write_text("{", encoding="utf-8")
    (made(paths.models() / "later") / "config.json").write_text('{"version": 99}', encoding="utf-8")
    found = {model.name: model for model in inventory.models()}
    assert found["broken"].parameters is None and "missing or damaged" in found["broken"].problem
    assert "is of version 99; this lab reads 1" in found["later"].problem


def test_own_models_go_and_others_stay(home):
    folder = made(paths.models() / "mine")
    inventory.delete("mine")
    assert not folder.exists() and not list(home.rglob("*.safetensors"))
    run = Run.create("train", to_dict(RunConfig()), name="my-run")
    made(run.model_folder)
    made(run.model_folder / "steps" / "0000010")
    with pytest.raises(ValueError, match="a step that a run kept"):
        inventory.delete("my-run@0000010")
    inventory.delete("my-run")
    assert not run.path.exists()
    with pytest.raises(ValueError, match="story-llama comes with the lab and stays"):
        inventory.delete("story-llama")
    with pytest.raises(ValueError, match="cannot be used"):
        inventory.delete("../datasets")
    assert (paths.shipped_models() / "story-llama" / "config.json").is_file()


def test_it_reads_without_torch():
    code = "import sys; from llm import inventory, catalogue; inventory.models(); catalogue.entries(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=paths.ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


def test_a_number_without_end_is_a_sentence(home):
    folder = made(paths.models() / "endless")
    stored = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**stored, "rope_theta": 10**400}))
    with pytest.raises(ValueError, match=r"The config\.json of endless has a number that is too large"):
        inventory.shape(folder)
