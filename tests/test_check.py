"""Files made to do harm, looked at in a disposable process: each gets one sentence, soon, in bounded memory, and runs nothing."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import torch

from llm import bpe, check, checkpoint, hub, paths
from llm.config import ModelConfig
from llm.convert import describe, families, folder, gguf, nanogpt
from llm.model import GPT
from llm.runs import Run

CONFIG = dict(
    model_type="llama", vocab_size=280, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
    intermediate_size=24, max_position_embeddings=32, rms_norm_eps=1e-5, tie_word_embeddings=True, hidden_act="silu",
)  # fmt: skip
OURS = dict(
    vocab_size=280,
    context_length=32,
    n_layer=2,
    n_head=2,
    n_kv_head=1,
    n_embd=16,
    mlp_hidden=24,
    tie_embeddings=True,
)
NANO = ModelConfig(
    vocab_size=8, context_length=8, n_layer=1, n_head=2, n_embd=8, position="learned", norm="layernorm", mlp="gelu", bias=True,
    qkv_bias=True,
)  # fmt: skip
TEXT = "the cat sat on the mat and the other cat ate that rat, they said. " * 20


def model_here(name: str, **changes: int) -> None:
    """A model directory called `name`, with random weights and a small encoding."""
    torch.manual_seed(1)
    encoding = bpe.learn(bpe.documents_of(TEXT), 280, name)
    config = ModelConfig(**{**OURS, "vocab_size": encoding.vocab_size, **changes})
    checkpoint.save_model(paths.models() / name, GPT(config), encoding, f"# {name}\n")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """One small model in the forms of other tools: a Hugging Face folder and a GGUF file."""
    place = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLM_HOME", str(place / "home"))
        model_here("small")
        folder.save("small", place / "small")
        gguf.save("small", place / "small.gguf", "q8_0")
        shutil.copytree(paths.models() / "small", place / "own")
        nano = families.places(nanogpt.TABLE, NANO)
        state = {f"transformer.{name}": torch.zeros(place.shape) for name, place in nano.items()}
        torch.save({"model": state, "itos": dict(enumerate("abcdefgh"))}, place / "ckpt.pt")
    return place


@pytest.fixture
def hf(made, tmp_path):
    """A Hugging Face folder to spoil."""
    shutil.copytree(made / "small", tmp_path / "victim")
    return tmp_path / "victim"


def refused(path: Path, apart: bool = False) -> str:
    """The sentence with which a look at `path` is refused: one, soon there, and nothing is left behind.

    apart: in the disposable process, where it belongs; else by the same code in this one, which is ten times as fast.
    """
    began = time.monotonic()
    try:
        found = check.inspect(str(path)) if apart else None
        said = {} if apart else describe.answer(path.name, lambda: describe.model(check.allowed(str(path))))
        assert not found and "found" not in said, f"{path} was opened"
        sentence = said["error"]
    except ValueError as error:
        sentence = str(error)
    assert time.monotonic() - began < 5  # alone on this machine: well under one
    assert "\n" not in sentence and sentence.endswith((".", ")", "?")) and len(sentence) < 700
    assert "Traceback" not in sentence and "nobody here thought of" not in sentence, sentence
    assert not paths.home().exists() or not [p for p in paths.home().rglob("*") if p.is_file()]
    return sentence


def opened(path: Path) -> dict:
    """What a look at `path` finds, in this process."""
    return describe.model(check.allowed(str(path)))


def header_of(file: Path) -> tuple[dict, bytes]:
    """The header and the numbers of a safetensors file."""
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def write_header(file: Path, header: dict, numbers: bytes) -> None:
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + numbers)


def change(file: Path, **values) -> None:
    """Replace values of a JSON file; None takes one out."""
    known = {**json.loads(file.read_text()), **values}
    file.write_text(json.dumps({k: v for k, v in known.items() if v is not None}))


# ---- What is well --------------------------------------------------------------------------------------------------


def test_a_good_folder_as_plain_values(hf):
    found = check.inspect(str(hf))
    assert found["container"] == "Hugging Face folder" and found["family"] == "llama"
    config = ModelConfig(**found["config"])
    assert found["parameters"] == found["formula"] == sum(config.parameters().values())
    assert found["unmatched"] == [] and found["tokenizer"] is True
    header, _ = header_of(hf / "model.safetensors")
    assert sorted(row[0] for row in found["rows"]) == sorted(set(header) - {"__metadata__"})
    assert json.loads(json.dumps(found)) == found
    # norms, q k v and the others of two layers, the embedding, the last norm
    assert len(found["rows"]) == 2 * 9 + 2


def test_a_file_in_a_folder_stands_for_the_folder_and_a_folder_of_one_file_for_the_file(hf, made, tmp_path):
    assert opened(hf / "model.safetensors")["family"] == "llama"
    assert opened(hf / "config.json")["family"] == "llama"
    (tmp_path / "one").mkdir()
    shutil.copy(made / "small.gguf", tmp_path / "one" / "any-name.gguf")
    assert opened(tmp_path / "one")["container"] == "GGUF"
    shutil.copy(made / "small.gguf", tmp_path / "one" / "second.gguf")
    assert "2 GGUF files (any-name.gguf, second.gguf): choose one" in refused(tmp_path / "one")


def test_content_counts_and_not_the_name(made, tmp_path):
    shutil.copy(made / "small.gguf", tmp_path / "model.safetensors")
    assert opened(tmp_path / "model.safetensors")["container"] == "GGUF"


def test_a_model_directory_of_this_lab(made, tmp_path):
    found = opened(made / "own")
    assert found["container"] == "LLM Lab model directory" and found["parameters"] == found["formula"]
    shutil.copytree(made / "own", tmp_path / "own")
    change(tmp_path / "own" / "config.json", n_layer=3)
    assert "blocks.2.norm1.weight is missing; the config of own says 16" in refused(tmp_path / "own")
    change(tmp_path / "own" / "config.json", n_layer=2, n_embd=32)
    assert "has the shape" in refused(tmp_path / "own")
    (tmp_path / "own" / "tokenizer.json").unlink()
    assert "tokenizer.json is missing" in refused(tmp_path / "own")


# ---- What is damaged -------------------------------------------------------------------------------------------------


def test_a_missing_shard(hf):
    header, _ = header_of(hf / "model.safetensors")
    (hf / "model.safetensors").rename(hf / "model-00001-of-00002.safetensors")
    index = {
        "weight_map": {name: "model-00001-of-00002.safetensors" for name in header if name != "__metadata__"}
    }
    index["weight_map"]["lm_head.weight"] = "model-00002-of-00002.safetensors"
    (hf / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "model-00002-of-00002.safetensors is missing" in refused(hf)


@pytest.mark.parametrize("keep", [0, 4, 8, 100, 0.5, 0.99])
def test_a_truncated_file(hf, made, tmp_path, keep):
    for file in (hf / "model.safetensors", tmp_path / "cut.gguf"):
        if file.suffix == ".gguf":
            shutil.copy(made / "small.gguf", file)
        size = file.stat().st_size
        os.truncate(file, int(keep * size) if keep < 1 else keep)
        said = refused(file)
        assert any(
            word in said for word in ("cut short", "is empty", "no model", "damaged", "does not begin")
        ), said


@pytest.mark.parametrize("name", ["a.gguf", "a.safetensors", "a.pt", "a"])
@pytest.mark.parametrize(
    "start",
    [
        b"GGML" + bytes(60),
        b"FUGG" + bytes(60),
        b"%PDF-1.7",
        b"\x89PNG\r\n",
        b"\x1f\x8b",
        b"hello, this is a text",
    ],
)
def test_a_wrong_beginning(tmp_path, name, start):
    (tmp_path / name).write_bytes(start)
    assert f"{name} is no model: it " in refused(tmp_path / name)


def test_tensors_too_many_and_too_few(hf):
    header, numbers = header_of(hf / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    write_header(hf / "model.safetensors", {k: v for k, v in header.items() if k != name}, numbers)
    assert f"1 tensors are missing: {name}" in refused(hf)
    extra = {
        **header,
        "model.layers.0.mlp.extra.weight": header[name],
        "model.layers.7.norm.weight": header[name],
    }
    write_header(hf / "model.safetensors", extra, numbers)
    assert "2 tensors have no place" in refused(hf)


def test_tied_flags_that_lie(hf):
    header, numbers = header_of(hf / "model.safetensors")
    change(hf / "config.json", tie_word_embeddings=False)
    assert "The output matrix is missing" in refused(hf)
    # a second matrix that is another one, though the flag says that there is but one
    embedding = header["model.embed_tokens.weight"]
    length = embedding["data_offsets"][1] - embedding["data_offsets"][0]
    head = {**embedding, "data_offsets": [len(numbers), len(numbers) + length]}
    write_header(hf / "model.safetensors", {**header, "lm_head.weight": head}, numbers + bytes(length))
    change(hf / "config.json", tie_word_embeddings=True)
    found = opened(hf)
    assert found["config"]["tie_embeddings"] is False
    assert any("tie_word_embeddings is true, yet" in note for note in found["notes"])


def test_an_encoding_larger_than_the_embedding(hf):
    document = json.loads((hf / "tokenizer.json").read_text())
    rows = json.loads((hf / "config.json").read_text())["vocab_size"]
    document["model"]["vocab"]["newtoken"] = rows + 6
    (hf / "tokenizer.json").write_text(json.dumps(document))
    assert f"({rows + 7} ids) and the model has {rows} rows" in refused(hf)


def test_an_added_token_beyond_the_embedding_is_dropped_with_a_note(hf):
    document = json.loads((hf / "tokenizer.json").read_text())
    rows = json.loads((hf / "config.json").read_text())["vocab_size"]
    token = {**document["added_tokens"][0], "content": "<|extra|>", "id": rows}
    change(hf / "tokenizer.json", added_tokens=[*document["added_tokens"], token])
    notes = opened(hf)["notes"]
    assert any("<|extra|>" in note and str(rows) in note for note in notes)


def test_an_unknown_family_and_a_missing_config(hf):
    change(hf / "config.json", model_type="mamba")
    assert "'mamba'" in refused(hf) and "llama" in refused(hf)
    (hf / "config.json").unlink()
    assert "no config.json" in refused(hf)


def test_an_adapter_of_another_width(tmp_path, made, monkeypatch):
    monkeypatch.setenv("LLM_HOME", str(made / "home"))
    place = tmp_path / "lora"
    place.mkdir()
    about = dict(
        peft_type="LORA", r=2, lora_alpha=4, target_modules=["q_proj"], base_model_name_or_path="some/base"
    )
    (place / "adapter_config.json").write_text(json.dumps(about))
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"
    shapes = {name.format("A"): [2, 48], name.format("B"): [48, 2]}
    entries = {
        key: {"dtype": "F32", "shape": shape, "data_offsets": [96 * 4 * i, 96 * 4 * (i + 1)]}
        for i, (key, shape) in enumerate(shapes.items())
    }
    write_header(place / "adapter_model.safetensors", entries, bytes(2 * 96 * 4))
    with pytest.raises(ValueError, match="48"):
        describe.model(place, base="small")
    with pytest.raises(ValueError, match="some/base"):
        describe.model(place)
    with pytest.raises(ValueError, match="no model called 'nothing'"):
        describe.model(place, base="nothing")


# ---- What is made to run ---------------------------------------------------------------------------------------------


class Evil:
    """A pickle of it touches a file when it is opened carelessly."""

    def __init__(self, canary: Path):
        self.canary = canary

    def __reduce__(self):
        return os.system, (f"touch {self.canary}",)


@pytest.mark.parametrize(
    "disguise",
    ["model.safetensors", "model.gguf", "ckpt.pt", "zip/ckpt.pt", "zip/model.safetensors", "config"],
)
def test_a_pickle_in_disguise_is_not_opened(hf, tmp_path, disguise):
    canary = tmp_path / "canary"
    evil = pickle.dumps({"model": Evil(canary), "model_args": {}})
    target = hf / disguise.removeprefix("zip/")
    if disguise.startswith("zip/"):
        with zipfile.ZipFile(target, "w") as archive:
            archive.writestr("archive/data.pkl", evil)
            archive.writestr("archive/version", "3")
    elif disguise == "config":
        target = hf / "config.json"
        target.write_bytes(evil)
    else:
        target.write_bytes(evil)
    said = refused(target, apart=True)
    assert not canary.exists()
    assert any(word in said for word in ("pickle", "asks for", "damaged")), said
    pickle.loads(evil)  # the proof that this one would have
    assert canary.exists()


def test_python_files_beside_a_model_are_passed_over(hf, tmp_path):
    code = f"open({str(tmp_path / 'canary')!r}, 'w')"
    for name in ("modeling_evil.py", "__init__.py", "json.py", "torch.py", "sitecustomize.py"):
        (hf / name).write_text(code)
    change(hf / "config.json", auto_map={"AutoModelForCausalLM": "modeling_evil.Model"})
    notes = opened(hf)["notes"]
    assert any("never run" in note and ".py" in note for note in notes)
    assert not (tmp_path / "canary").exists()


# ---- What is made to fill the memory or to stall -----------------------------------------------------------------------


PEAK = """
import resource, subprocess, sys
print(subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout.strip())
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def peak(path: Path) -> tuple[int, dict]:
    """Most bytes of real memory that a look at `path` took, and what it said.

    Told by a small process in between, since a process begins with the peak of the one it was split from.
    """
    line = [sys.executable, "-c", PEAK, *check._command(path, [])]
    done = subprocess.run(line, cwd=paths.ROOT, stdout=subprocess.PIPE, text=True, timeout=30)
    said, kilobytes = done.stdout.splitlines()
    return int(kilobytes) * (1024 if sys.platform == "linux" else 1), json.loads(said)


def test_header_bombs(tmp_path, made):
    usual, _ = peak(made / "small")
    names = ",".join(
        f'"t{i:07}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}' for i in range(1_150_000)
    )
    text = f"{{{names}}}".encode()
    assert len(text) > 65e6  # JSON of this length fills a gigabyte once it is read
    bomb = tmp_path / "bomb.safetensors"
    bomb.write_bytes(len(text).to_bytes(8, "little") + text)
    most, said = peak(bomb)
    assert "The header of bomb.safetensors has" in said["error"] and most < usual + 100e6
    for length in (2**63, 2**64 - 1, 2**40, 10**6):
        bomb.write_bytes(length.to_bytes(8, "little") + b'{"a": 1}')
        assert f"{length:,}" in refused(bomb)
    most, said = peak(bomb)
    assert "1,000,000" in said["error"] and most < usual + 50e6
    bomb.write_bytes((2_000_008).to_bytes(8, "little") + b'{"a":' + b"[" * 2_000_003)
    most, said = peak(bomb)
    assert "damaged" in said["error"] and most < usual + 100e6


def test_a_header_of_any_length_is_one(hf):
    """The first eight bytes are a number, and some numbers begin as a pickle does (0x80 0x02 to 0x05)."""
    header, numbers = header_of(hf / "model.safetensors")
    header.pop("__metadata__")
    short = len(json.dumps({"__metadata__": {"pad": ""}, **header}))
    length = next(n for n in range(short, short + 2**17) if n & 0xFF == 0x80 and 2 <= n >> 8 & 0xFF <= 5)
    write_header(
        hf / "model.safetensors", {"__metadata__": {"pad": "x" * (length - short)}, **header}, numbers
    )
    assert pickle.PROTO + b"\x02" <= (hf / "model.safetensors").read_bytes()[:2] <= pickle.PROTO + b"\x05"
    assert opened(hf)["unmatched"] == []
    (hf / "config.json").unlink()
    assert "no config.json" in refused(hf / "model.safetensors")


def gguf_bytes(version: int, tensors: int, entries: int, rest: bytes) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, entries) + rest


def test_a_gguf_of_a_few_bytes_with_an_endless_array(tmp_path):
    bomb = tmp_path / "bomb.gguf"
    key = struct.pack("<Q", 3) + b"abc"
    for kind in (8, 4, 9, 0):  # texts, numbers, arrays, bytes
        bomb.write_bytes(gguf_bytes(3, 0, 1, key + struct.pack("<IIQ", 9, kind, 2**63)))
        refused(bomb)
    most, said = peak(bomb)
    assert "error" in said and most < 200e6
    for counts in ((2**63, 1), (1, 2**63), (2**32, 2**32)):
        bomb.write_bytes(gguf_bytes(3, *counts, key))
        refused(bomb)
    bomb.write_bytes(gguf_bytes(3, 0, 1, struct.pack("<Q", 2**63) + b"abc"))
    refused(bomb)
    for version in (0, 1, 99, 2**31):
        bomb.write_bytes(gguf_bytes(version, 0, 0, b""))
        refused(bomb)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("num_hidden_layers", 20_000),
        ("num_hidden_layers", -1),
        ("num_hidden_layers", "many"),
        ("hidden_size", 2**40),
        ("hidden_size", None),
        ("vocab_size", 10**12),
        ("intermediate_size", 10**15),
        ("num_attention_heads", 0),
        ("num_key_value_heads", 3),
        ("rope_theta", float("nan")),
        ("rope_theta", -1),
        ("rms_norm_eps", [1]),
    ],
)
def test_sizes_without_sense_are_told_by_arithmetic(hf, setting, value):
    change(hf / "config.json", **{setting: value})
    refused(hf)


def test_20_000_layers_take_neither_time_nor_memory(hf):
    change(hf / "config.json", num_hidden_layers=20_000)
    most, said = peak(hf)
    assert "20" in said["error"] and most < 200e6


def test_a_zip_bomb_stays_packed(tmp_path):
    bomb = tmp_path / "ckpt.pt"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(200_000_000))
    assert bomb.stat().st_size < 400_000
    most, said = peak(bomb)
    assert "error" in said and most < 200e6


def test_json_bombs(hf):
    (hf / "config.json").write_text("[" * 100_000)
    assert "config.json" in refused(hf)
    (hf / "config.json").write_text('{"model_type": "llama", "hidden_size": ' + "9" * 5000 + "}")
    refused(hf)
    (hf / "config.json").write_bytes(b'{"a": "' + b"x" * 30_000_000 + b'"}')
    refused(hf)


# ---- What is not ours to open ------------------------------------------------------------------------------------------


def test_on_a_shared_page_a_path_stays_closed(hf, monkeypatch):
    monkeypatch.setenv("SPACE_ID", "a/b")
    for source in (str(hf), "/etc/passwd", "models/story-llama", "~", ".", ""):
        with pytest.raises(ValueError, match="from the Hub or as an upload"):
            check.inspect(source)


@pytest.mark.parametrize("id", ["../runs", "..", "/etc", "a/b", "", ".hidden", "x" * 90])
def test_the_id_of_an_upload_is_never_a_path(id):
    with pytest.raises(ValueError, match=r"The upload .* cannot be used"):
        check.allowed(f"upload:{id}")


def test_an_upload_by_its_id(hf, monkeypatch):
    monkeypatch.setenv("SPACE_ID", "a/b")
    shutil.move(hf, check.uploads() / "abc123")
    assert check.inspect("upload:abc123")["family"] == "llama"
    with pytest.raises(ValueError, match="not here any more"):
        check.inspect("upload:abc124")


@pytest.mark.parametrize("target", ["/etc/passwd", "/etc", "../../secret", "nowhere"])
def test_links_that_lead_out_of_an_upload(hf, target):
    place = check.uploads() / "abc"
    shutil.move(hf, place)
    (place / "generation_config.json").unlink()
    (place / "generation_config.json").symlink_to(target)
    with pytest.raises(ValueError, match=r"is a link that leads out|is no ordinary file"):
        check.inspect("upload:abc")
    (place / "generation_config.json").unlink()
    (place / "copy.json").symlink_to("config.json")  # one that stays inside does no harm
    check.inspect("upload:abc")


def test_pipes_and_devices_do_not_stall(hf, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert "no ordinary file" in refused(tmp_path / "pipe")
    assert "no ordinary file" in refused(Path("/dev/zero"))
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (hf / name).rename(hf / "aside")
        os.mkfifo(hf / name)
        began = time.monotonic()
        try:
            check.inspect(str(hf))
        except ValueError as error:
            assert "seconds" not in str(error)
        assert time.monotonic() - began < 5
        (hf / name).unlink()
        (hf / "aside").rename(hf / name)


def test_an_index_that_points_out_of_the_folder(hf, tmp_path):
    shutil.copy(hf / "model.safetensors", tmp_path / "outside.safetensors")
    header, _ = header_of(hf / "model.safetensors")
    (hf / "model.safetensors").unlink()
    for name in ("../outside.safetensors", str(tmp_path / "outside.safetensors")):
        index = {"weight_map": {tensor: name for tensor in header if tensor != "__metadata__"}}
        (hf / "model.safetensors.index.json").write_text(json.dumps(index))
        assert "no .safetensors file of this folder" in refused(hf)


def test_nothing_and_nowhere(tmp_path):
    assert "not there" in refused(tmp_path / "nothing")
    assert "it is empty" in refused(tmp_path)
    (tmp_path / "a\nb.txt").write_text("x")
    assert "holds no model that this lab knows" in refused(tmp_path)
    for source in ("", "\0", "a\0b", "hf:org/name"):
        with pytest.raises(ValueError, match=r"Say where|not downloaded yet"):
            check.inspect(source)


# ---- The process itself --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("import time; time.sleep(60)", "not understood within 1 seconds"),
        ("while True: pass", "not understood within 1 seconds"),
        ("print('rubbish')", r"gave no answer \(status 0\)"),
        ("print('{\"found\": ')", "gave no answer"),
        ("print('7')", "gave no answer"),
        ("", "gave no answer"),
        ("import sys; sys.exit(3)", r"status 3"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "took more memory than it may have, or crashed"),
        ("import os; os.abort()", "took more memory than it may have, or crashed"),
        ("import ctypes; ctypes.string_at(0)", "took more memory than it may have, or crashed"),
        ("from llm.convert import describe; describe.limit(9, 0); [print('x' * 10**6) for _ in range(40)]", "no answer|output"),
        ("from llm.convert import describe; describe.limit(9, 0); b'x' * (3 << 30)", "no answer"),
    ],
)  # fmt: skip
def test_however_the_process_ends_there_is_a_sentence(hf, monkeypatch, code, sentence):
    monkeypatch.setattr(check, "_command", lambda *_: [sys.executable, "-c", code])
    monkeypatch.setattr(check, "DEADLINE", 1 if "1 seconds" in sentence else 20)
    with pytest.raises(ValueError, match=sentence):
        check.inspect(str(hf))


def test_a_process_that_hangs_is_gone(hf, monkeypatch, tmp_path):
    code = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    monkeypatch.setattr(check, "_command", lambda *_: [sys.executable, "-c", code])
    monkeypatch.setattr(check, "DEADLINE", 1)
    with pytest.raises(ValueError):
        check.inspect(str(hf))
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_the_process_is_given_no_keys(hf, monkeypatch):
    for name in ("HF_TOKEN", "OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY", "SOMETHING_ELSE"):
        monkeypatch.setenv(name, "canary-of-a-key")
    code = (
        "import json, os; print(json.dumps({'error': ' '.join(f'{k}={v}' for k, v in os.environ.items())}))"
    )
    monkeypatch.setattr(check, "_command", lambda *_: [sys.executable, "-c", code])
    with pytest.raises(ValueError) as error:
        check.inspect(str(hf))
    assert "canary-of-a-key" not in str(error.value) and f"LLM_HOME={paths.home()}" in str(error.value)


def test_limits_hold():
    """Each in a process of its own: memory, output, processor time, no core file."""
    begin = "from llm.convert import describe; import resource; describe.limit(1, 0); "
    for code, status in (
        ("bytearray(3 << 30)", 1),  # MemoryError
        (
            "open('/dev/null').close(); resource.setrlimit(resource.RLIMIT_AS, (1 << 40, 1 << 40))",
            1,
        ),  # not to be raised again
        ("\nwhile True: pass", -24),  # SIGXCPU
    ):
        done = subprocess.run(
            [sys.executable, "-c", begin + code], cwd=paths.ROOT, capture_output=True, timeout=20
        )
        assert done.returncode == status, (code, done.stderr)


def test_the_encoding_of_a_folder(made, hf):
    rows = opened(made / "own")["config"]["vocab_size"]
    assert check.encoding_of(made / "own", rows)["vocab_size"] == rows
    with pytest.raises(ValueError, match=f"{rows} ids and the model {rows - 1} rows"):
        check.encoding_of(made / "own", rows - 1)
    with pytest.raises(ValueError, match="do not belong together"):
        check.encoding_of(made / "own", 2 * rows)
    for bad in ("", "[]", '{"model": {"type": "BPE", "vocab": 7, "merges": "x"}}', '{"model": 1}', "\x00"):
        (hf / "tokenizer.json").write_text(bad)
        with pytest.raises(ValueError):
            check.encoding_of(hf, rows)


def test_what_was_left_behind_goes(hf):
    (paths.models() / ".new-killed" / "whole").mkdir(parents=True)
    run = Run.create("import", {}, name="at-work")
    (paths.models() / ".new-at-work").mkdir()
    lock = run.lock()
    old, young = check.uploads() / "old", check.uploads() / "young"
    for place in (old, young, hub.root() / "half"):
        place.mkdir()
        (place / "file").write_bytes(b"x")
    long_ago = time.time() - 8 * 86_400
    for path in (old, old / "file", hub.root() / "half", hub.root() / "half" / "file"):
        os.utime(path, (long_ago, long_ago))
    assert sorted(check.sweep()) == [".new-killed", "half", "old"]
    assert (paths.models() / ".new-at-work").exists() and young.exists() and not old.exists()
    os.close(lock)
    assert check.sweep() == [".new-at-work"]
