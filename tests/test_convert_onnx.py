"""ONNX: onnxruntime gives our logits, with and without a cache; transformers.js writes the same text."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from llm import checkpoint, generate, paths, tokenizer
from llm.config import ModelConfig, SampleConfig
from llm.convert import onnx
from llm.model import GPT

pytest.importorskip("onnx", reason="the package onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="the package onnxruntime is not installed")

ROOT = Path(__file__).resolve().parent.parent
LLAMA = ModelConfig(
    vocab_size=1280, context_length=48, n_layer=3, n_head=4, n_kv_head=2, n_embd=32, mlp_hidden=48
)
GPT2 = replace(
    LLAMA, n_kv_head=0, position="learned", norm="layernorm", mlp="gelu_tanh", bias=True, qkv_bias=True
)
SHAPES = {  # every behaviour once; the first ones are also what a Hugging Face family computes
    "llama": LLAMA,
    "gpt2": GPT2,
    "gpt2, exact gelu": replace(GPT2, mlp="gelu"),
    "pythia": replace(GPT2, position="rope", parallel=True, rope_share=0.25, tie_embeddings=False, mlp="gelu"),
    "qwen2": replace(LLAMA, qkv_bias=True, tie_embeddings=False),
    "qwen3": replace(LLAMA, qk_norm="head", head_size=16),
    "olmo2": replace(LLAMA, qk_norm="width", norm_position="output"),
    "gemma3": replace(
        LLAMA, mlp="geglu", norm_position="sandwich", qk_norm="head", embedding_scale=True, score_size=20.0,
        sliding_window=5, global_every=3, rope_theta=1e6, rope_theta_local=1e4,
    ),
    "mistral": replace(LLAMA, sliding_window=6),
    "llama3": replace(LLAMA, rope_scaling="llama3", rope_factor=8.0, rope_original=16),
}  # fmt: skip
OTHERS = {
    "first transformer": replace(GPT2, position="sinusoidal", norm_position="post", mlp="relu"),
    "an odd width": replace(GPT2, position="sinusoidal", n_embd=33, n_head=3),
    "no biases": replace(GPT2, bias=False, qkv_bias=False),
    "no places": replace(LLAMA, position="none"),
}


def made(config, name="m", encoding="stories-1280"):
    """A model directory with weights that are far from their beginnings; the model."""
    torch.manual_seed(2)
    model = GPT(config).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) / 8)
    checkpoint.save_model(paths.models() / name, model, tokenizer.get(encoding, "abc"), f"# {name}\n")
    return model


def ids_of(B, T, V=1279):
    return torch.randint(0, V, (B, T), generator=torch.Generator().manual_seed(B * 100 + T))


def ours(model, ids):
    with torch.no_grad():
        return model(ids).numpy()


def close(a, b):
    np.testing.assert_allclose(a, b, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", [*SHAPES, *OTHERS])
def test_logits_at_several_lengths(tmp_path, name):
    model = made({**SHAPES, **OTHERS}[name])
    onnx.save("m", tmp_path / "out")
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx")
    for B, T in ((1, 1), (1, 48), (3, 17)):
        ids = ids_of(B, T)
        close(session.run(["logits"], {"input_ids": ids.numpy()})[0], ours(model, ids))


def run(session, config, ids, mask, positions, past=None):
    """Logits and the keys and values of all tokens so far."""
    names = [i.name for i in session.get_inputs()][3:]
    empty = np.zeros((len(ids), config.kv_heads, 0, config.head_dim), np.float32)
    feed = {"input_ids": ids.numpy(), "attention_mask": mask, "position_ids": positions}
    logits, *present = session.run(None, {**feed, **dict(zip(names, past or [empty] * len(names)))})
    return logits, present


@pytest.mark.parametrize("name", SHAPES)
def test_with_a_cache(tmp_path, name):
    model = made(SHAPES[name])
    assert onnx.save("m", tmp_path / "out") == []
    session = onnxruntime.InferenceSession(tmp_path / "out" / "onnx" / "model.onnx")
    ids, B, T = ids_of(2, 20), 2, 20
    wanted = ours(model, ids)
    past, done = None, 0
    for n in (11, 1, 8):  # a prompt, a token, some more
        mask = np.ones((B, done + n), np.int64)
        positions = np.tile(np.arange(done, done + n), (B, 1))
        logits, past = run(session, model.config, ids[:, done : done + n], mask, positions, past)
        close(logits, wanted[:, done : done + n])
        done += n
    assert past[0].shape == (B, model.config.kv_heads, T, model.config.head_dim)


@pytest.mark.parametrize("name", ["llama", "gpt2", "mistral"])
def test_rows_of_different_lengths_padded_on_the_left(tmp_path, name):
    model = made(SHAPES[name])
    onnx.save("m", tmp_path / "out")
    session = onnxruntime.InferenceSession(tmp_path / "out" / "onnx" / "model.onnx")
    long, short = ids_of(1, 12), ids_of(1, 7)
    both = torch.cat((long, torch.cat((torch.full((1, 5), 1279), short), 1)))
    mask = np.array([[1] * 12, [0] * 5 + [1] * 7])
    positions = np.array([range(12), [1] * 5 + [*range(7)]])  # as transformers.js numbers them
    logits, _ = run(session, model.config, both, mask, positions)
    close(logits[:1], ours(model, long))
    close(logits[1:, 5:], ours(model, short))


def test_valid_and_of_the_told_size(tmp_path):
    from onnx import checker, load

    for name in ("gemma3", "pythia"):
        made(SHAPES[name], name)
        out = tmp_path / name
        seen = []
        onnx.save(name, out, progress=lambda what, done, total, seen=seen: seen.append((done, total)))
        real = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
        assert real <= onnx.size(name) <= real + 10_000
        assert [done for done, _ in seen] == sorted(done for done, _ in seen) and seen[-1][0] == seen[-1][1]
        for file in (out / "model.onnx", out / "onnx" / "model.onnx"):
            checker.check_model(str(file), full_check=True)
        weights = {w.name: tuple(w.dims) for w in load(out / "model.onnx").graph.initializer}
        assert weights["blocks.2.mlp.down.weight"] == (48, 32)  # (in, out), as MatMul takes it


def test_the_files_around_it(tmp_path):
    made(LLAMA)
    onnx.save("m", tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["model_type"] == "llama" and config["num_key_value_heads"] == 2
    assert config["eos_token_id"] == 1279
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        "config.json", "generation_config.json", "model.onnx", "onnx", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("config", "encoding", "why"),
    [
        (
            OTHERS["first transformer"],
            "stories-1280",
            "No Hugging Face family can hold this model.*norm_position",
        ),
        (replace(LLAMA, vocab_size=3), "char", "cuts texts into chars"),
    ],
)
def test_the_part_for_transformers_js_is_left_out(tmp_path, config, encoding, why):
    made(config, encoding=encoding)
    (note,) = onnx.save("m", tmp_path / "out")
    assert re.match(f"The part for transformers.js is left out: .*{why}", note), note
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["model.onnx"]


def test_too_large_and_stopped(tmp_path, monkeypatch):
    made(LLAMA)
    half = onnx.size("m") / 2

    def stop(what, done, total):
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        onnx.save("m", tmp_path / "out", progress=stop)
    assert not list(tmp_path.glob("*out*"))
    made(replace(LLAMA, n_embd=64), "wide")
    monkeypatch.setattr(onnx, "MOST", int(half))
    with pytest.raises(ValueError, match=r"wide would take 0\.0 GB, and an ONNX file holds at most 0\.0 GB"):
        onnx.size("wide")


def test_without_the_package(monkeypatch):
    made(LLAMA)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ValueError, match=r"need the package onnx.*requirements-export\.txt"):
        onnx.size("m")


def test_sizing_needs_no_torch(home):
    made(LLAMA)
    code = "import sys; from llm.convert import onnx; print(onnx.size('m') > 0, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["True", "False"], done.stderr


# ---- transformers.js ------------------------------------------------------------------------------------------------

GREEDY = """
const { AutoTokenizer, AutoModelForCausalLM, env } = require(process.env.TRANSFORMERS_JS);
(async () => {
  const [models, name, prompt] = process.argv.slice(2);
  env.localModelPath = models;
  env.allowRemoteModels = false;
  const tokenizer = await AutoTokenizer.from_pretrained(name);
  const model = await AutoModelForCausalLM.from_pretrained(name, { dtype: "fp32", device: "cpu" });
  const inputs = tokenizer(prompt, { add_special_tokens: false });
  const output = await model.generate({ ...inputs, max_new_tokens: 20, do_sample: false });
  console.log(JSON.stringify(output.tolist()[0].map(Number)));
})();
"""


def why_no_node():
    if not shutil.which("node"):
        return "node is not installed"
    if not Path(os.environ.get("TRANSFORMERS_JS", "/nowhere")).is_dir():
        return "TRANSFORMERS_JS names no folder: npm install @huggingface/transformers, then TRANSFORMERS_JS=.../node_modules/@huggingface/transformers"
    return ""


@pytest.mark.slow
@pytest.mark.skipif(bool(why_no_node()), reason=why_no_node())
@pytest.mark.parametrize("name", ["story-llama", "story-gpt2"])
def test_transformers_js_writes_the_same_20_tokens(tmp_path, name):
    prompt = "Long ago, a proud badger"
    onnx.save(name, tmp_path / name)
    (tmp_path / "greedy.cjs").write_text(GREEDY)
    command = ["node", str(tmp_path / "greedy.cjs"), str(tmp_path), name, prompt]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    model, encoding = checkpoint.load_model(paths.model_folder(name))
    prompt_ids = encoding.encode(prompt)
    how = SampleConfig(temperature=0, max_new_tokens=20)
    added = [step.id for step in generate.generate(model, encoding, [prompt_ids], how)]
    assert len(added) == 20
    assert json.loads(done.stdout.strip().splitlines()[-1]) == prompt_ids + added
