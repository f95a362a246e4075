"""LitGPT directories: what is written opens there with equal logits, and what LitGPT saves opens here."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from llm import checkpoint, paths, tokenizer
from llm.config import ModelConfig
from llm.convert import litgpt
from llm.model import GPT

ROOT = Path(__file__).resolve().parent.parent
LLAMA = ModelConfig(
    vocab_size=1280, context_length=40, n_layer=3, n_head=4, n_kv_head=2, n_embd=32, mlp_hidden=48
)
NEOX = replace(LLAMA, n_kv_head=0, norm="layernorm", mlp="gelu", bias=True, qkv_bias=True)
SHAPES = {  # behaviours that LitGPT has too
    "llama": LLAMA,
    "untied, all heads": replace(LLAMA, n_kv_head=0, tie_embeddings=False),
    "pythia": replace(NEOX, parallel=True, rope_share=0.25, tie_embeddings=False),
    "tanh": replace(NEOX, mlp="gelu_tanh"),
    "qwen2": replace(LLAMA, qkv_bias=True),
    "qwen3": replace(LLAMA, qk_norm="head", head_size=16),
    "olmo2": replace(LLAMA, qk_norm="width", norm_position="output"),
    "sandwich": replace(
        LLAMA, mlp="geglu", norm_position="sandwich", qk_norm="head", embedding_scale=True, score_size=20.0,
        sliding_window=5, global_every=3, rope_theta=1e6, rope_theta_local=1e4,
    ),
    "mistral": replace(LLAMA, sliding_window=6),
    "llama3": replace(LLAMA, rope_scaling="llama3", rope_factor=8.0, rope_original=16),
    "linear": replace(LLAMA, rope_scaling="linear", rope_factor=3.0),
    "no places": replace(LLAMA, position="none"),
    "odd share": replace(LLAMA, head_size=22, rope_share=0.55),
}  # fmt: skip
IDS = torch.randint(0, 1279, (2, 40), generator=torch.Generator().manual_seed(4))


def made(name, config, encoding="stories-1280"):
    """A model directory with weights that are far from their beginnings; the model."""
    torch.manual_seed(2)
    model = GPT(config).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) / 8)
    found = tokenizer.get(encoding, "abc")
    checkpoint.save_model(paths.models() / name, model, found, f"# {name}\n")
    return model


def opened(source):
    """The model that a Source describes."""
    source.check()
    return checkpoint.fill(checkpoint.empty_model(source.config), source.read(), "the test").eval()


def theirs(folder):
    """The model as LitGPT itself opens a directory."""
    there = pytest.importorskip("litgpt", reason="the package litgpt is not installed")
    model = there.GPT(there.Config.from_file(folder / "model_config.yaml")).eval()
    model.load_state_dict(torch.load(folder / "lit_model.pth", mmap=True, weights_only=True), strict=True)
    return model


def close(a, b, ids=IDS):
    with torch.no_grad():
        torch.testing.assert_close(a(ids), b(ids), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", SHAPES)
def test_out_and_opened_by_litgpt(tmp_path, name):
    model = made("m", SHAPES[name])
    litgpt.save("m", tmp_path / "out")
    close(theirs(tmp_path / "out"), model)


@pytest.mark.parametrize("name", SHAPES)
def test_out_and_in_again(tmp_path, name):
    model = made("m", SHAPES[name])
    written = litgpt.size("m")
    litgpt.save("m", tmp_path / "out")
    real = sum(file.stat().st_size for file in (tmp_path / "out").iterdir())
    assert real <= written <= 1.03 * real
    source = litgpt.look(tmp_path / "out")
    assert source.config.tie_embeddings == model.config.tie_embeddings
    back = opened(source)
    for key, tensor in model.state_dict().items():
        assert torch.equal(back.state_dict()[key], tensor), key
    close(back, model)


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_smaller_numbers(tmp_path, dtype):
    model = made("m", LLAMA)
    litgpt.save("m", tmp_path / "out", dtype)
    file = tmp_path / "out" / "lit_model.pth"
    assert file.stat().st_size < litgpt.size("m", dtype) < 0.6 * litgpt.size("m")
    assert {t.dtype for t in torch.load(file, weights_only=True).values()} == {checkpoint.DTYPES[dtype]}
    with torch.no_grad():
        torch.testing.assert_close(opened(litgpt.look(tmp_path / "out"))(IDS), model(IDS), atol=0.2, rtol=0)


def test_zeros_where_litgpt_always_has_a_bias(tmp_path):
    model = made("m", replace(NEOX, bias=False, qkv_bias=False))
    notes = litgpt.save("m", tmp_path / "out")
    assert notes == ["Biases that LitGPT has and this model has not are zeros, which changes nothing."]
    weights = torch.load(tmp_path / "out" / "lit_model.pth", weights_only=True)
    assert not weights["transformer.h.2.norm_1.bias"].any()
    close(theirs(tmp_path / "out"), model)


def test_names_that_change_litgpts_arithmetic_are_not_used(tmp_path):
    model = made("My-Gemma", LLAMA)
    notes = litgpt.save("My-Gemma", tmp_path / "out")
    assert notes == ["Named My-model inside: LitGPT calculates differently where a name holds Gemma or OLMo."]
    close(theirs(tmp_path / "out"), model)


def test_litgpts_tokenizer_gives_our_ids(tmp_path):
    there = pytest.importorskip("litgpt", reason="the package litgpt is not installed")
    made("m", LLAMA)
    litgpt.save("m", tmp_path / "out")
    found = there.Tokenizer(tmp_path / "out")
    text = "Long ago, a fox ate 12 buns."
    assert found.encode(text).tolist() == tokenizer.get("stories-1280").encode(text)
    assert found.eos_id == tokenizer.get("stories-1280").eot_id


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (replace(LLAMA, position="learned"), "position is learned"),
        (
            replace(LLAMA, position="sinusoidal", norm_position="post"),
            "position is sinusoidal; norm_position is post",
        ),
        (replace(LLAMA, mlp="relu"), "mlp is relu"),
        (replace(NEOX, qk_norm="head"), "qk_norm is head with layernorm"),
    ],
)
def test_what_litgpt_cannot_express(tmp_path, config, sentence):
    made("m", config)
    for ask in (lambda: litgpt.size("m"), lambda: litgpt.save("m", tmp_path / "out")):
        with pytest.raises(ValueError, match=f"LitGPT cannot express this model: {sentence}"):
            ask()
    assert not list(tmp_path.glob("*out*"))


def test_an_encoding_of_characters_has_no_file_there(tmp_path):
    made("m", replace(LLAMA, vocab_size=3), "char")
    with pytest.raises(ValueError, match="cuts texts into chars"):
        litgpt.size("m")


def test_stopped_and_refused_halfway(tmp_path):
    made("m", LLAMA)
    seen = []

    def stop(what, done, total):
        seen.append((done, total))
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        litgpt.save("m", tmp_path / "out", progress=stop)
    assert len(seen) > 3 and not list(tmp_path.glob("*out*"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep")
    with pytest.raises(ValueError, match="something called out already"):
        litgpt.save("m", tmp_path / "out")
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["mine.txt"]


# ---- What LitGPT writes ---------------------------------------------------------------------------------------------


def written_there(folder, **settings):
    """A directory as LitGPT's own functions write it; the model."""
    there = pytest.importorskip("litgpt", reason="the package litgpt is not installed")
    from litgpt.utils import incremental_save, save_config

    torch.manual_seed(6)
    shape = dict(n_layer=2, n_head=4, n_embd=32, block_size=40, vocab_size=1280, padding_multiple=64)
    config = there.Config(**{**shape, **settings})
    model = there.GPT(config).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) / 8)
    folder.mkdir()
    save_config(config, folder)
    with incremental_save(folder / "lit_model.pth") as saver:  # as its convert_hf_checkpoint does
        saver.save({name: saver.store_early(tensor) for name, tensor in model.state_dict().items()})
    return model


LLAMA_THERE = dict(
    n_query_groups=2, rotary_percentage=1.0, parallel_residual=False, bias=False, norm_class_name="RMSNorm",
    mlp_class_name="LLaMAMLP", intermediate_size=48,
)  # fmt: skip


@pytest.mark.parametrize(
    "settings",
    [
        {},  # its defaults: GPT-NeoX
        LLAMA_THERE,
        {**LLAMA_THERE, "rope_condense_ratio": 4, "head_size": 12},
        {
            **LLAMA_THERE,
            "name": "Gemma-tiny",
            "mlp_class_name": "GemmaMLP",
            "gelu_approximate": "tanh",
            "scale_embeddings": True,
        },
    ],
)
def test_what_litgpt_saves(tmp_path, settings):
    model = written_there(tmp_path / "there", **settings)
    source = litgpt.look(tmp_path / "there")
    assert source.unmatched() == [] and not source.config.tie_embeddings
    close(opened(source), model)


def test_the_older_order_of_q_k_v(tmp_path):
    model = written_there(tmp_path / "there", **LLAMA_THERE, attn_bias=True)
    state = {}
    for name, tensor in model.state_dict().items():
        if ".attn.qkv." in name:
            q, k, v = (t.split(8) for t in tensor.split((32, 16, 16)))  # heads of 8 rows
            tensor = torch.cat(
                [*q[:2], k[0], v[0], *q[2:], k[1], v[1]]
            )  # each group: its two q, its k, its v
            name = name.replace("attn.qkv", "attn.attn")
        state[name] = tensor
    torch.save(
        {"model": {f"_orig_mod.{k}": t for k, t in state.items()}}, tmp_path / "there" / "lit_model.pth"
    )
    source = litgpt.look(tmp_path / "there" / "lit_model.pth")
    assert any("take turns by groups of heads" in note for note in source.notes)
    close(opened(source), model)


# ---- Bad directories ------------------------------------------------------------------------------------------------


@pytest.fixture
def written(tmp_path):
    made("m", LLAMA)
    litgpt.save("m", tmp_path / "out")
    return tmp_path / "out"


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"n_layer": "three"}, "n_layer is 'three': it should be a whole number"),
        ({"n_layer": 20_000}, "n_layer is 20000; the largest value is 256"),
        ({"n_layer": 10**9, "sliding_window_size": 4}, "n_layer is 1000000000; the largest value is 256"),
        ({"rope_base": 10**400}, "a number that is too large"),
        ({"rotary_percentage": "half"}, "rope_share must be of type float"),
        ({"norm_class_name": "BatchNorm"}, "norm_class_name is 'BatchNorm'"),
        (
            {"norm_1": False},
            "norm_1, norm_2, post_attention_norm and post_mlp_norm are False, True, False, False",
        ),
        ({"mlp_class_name": "LLaMAMoE"}, "mlp_class_name is 'LLaMAMoE'"),
        ({"mlp_class_name": "GemmaMLP"}, "GemmaMLP with tanh"),
        ({"n_expert": 8}, "n_expert is 8 in model_config.yaml: only 0 is read here"),
        ({"final_logit_softcapping": 30.0}, "final_logit_softcapping is 30.0"),
        ({"something_new": True}, "settings unknown here: something_new"),
        ({"rope_adjustments": {"beta_fast": 32}}, r"beta_fast \(YaRN\)"),
        (
            {"rope_adjustments": {"factor": 2.0, "low_freq_factor": 1.0}},
            "rope_adjustments has no high_freq_factor",
        ),
        ({"rope_local_base_freq": 5000}, "rope_local_base_freq is set for other layers"),
        (
            {"sliding_window_size": 4, "sliding_window_indices": [0, 1, 1]},
            "in a way this lab's models do not have",
        ),
        ({"sliding_window_size": 4, "sliding_window_indices": [1]}, "a 0 or a 1 for each of the 3 layers"),
        ({"norm_class_name": "LayerNorm"}, "bias is false and norm_class_name LayerNorm"),
        ({"intermediate_size": 64}, r"fc_1\.weight is 48 x 32, not 64 x 32"),
        ({"n_layer": 4}, r"transformer\.h\.3\.norm_1\.weight is missing"),
        (
            {"padded_vocab_size": 1279},
            "The encoding goes up to id|rows|do not belong together|1280 x 32, not 1279",
        ),
    ],
)
def test_settings_in_the_way(written, settings, sentence):
    file = written / "model_config.yaml"
    file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), **settings}))
    with pytest.raises(ValueError, match=sentence):
        litgpt.look(written)


def test_damaged_directories(written):
    file = written / "model_config.yaml"
    good = file.read_text()
    for text, sentence in (
        ("a: [", "no whole YAML file"),
        ("- 1", "holds a list, no settings"),
        ("!!python/object/apply:os.system ['true']", "no whole YAML file"),
        ("[" * 30_000, "no whole YAML file"),
        ("#" * 70_000, "at most 65,536 are read"),
        ("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n", "settings unknown here: a, b, c"),
    ):
        file.write_text(text)
        with pytest.raises(ValueError, match=sentence):
            litgpt.look(written)
    file.write_text(good)
    state = torch.load(written / "lit_model.pth", weights_only=True)
    torch.save({k: t for k, t in state.items() if "wte" not in k}, written / "lit_model.pth")
    with pytest.raises(ValueError, match=r"transformer\.wte\.weight is missing"):
        litgpt.look(written)
    weights = (written / "lit_model.pth").read_bytes()
    (written / "lit_model.pth").write_bytes(weights[:-3000])
    with pytest.raises(ValueError, match=r"lit_model\.pth is cut short or damaged"):
        litgpt.look(written)
    (written / "lit_model.pth").unlink()
    with pytest.raises(ValueError, match=r"lit_model\.pth is missing in out"):
        litgpt.look(written)


def test_without_an_encoding(written):
    (written / "tokenizer.json").unlink()
    source = litgpt.look(written)
    assert "tokenizer.json" not in source.files
    assert "The directory has no tokenizer.json, so texts cannot become tokens." in source.notes


def test_looking_and_sizing_need_no_torch(written, home):
    code = (
        "import sys; from pathlib import Path; from llm.convert import litgpt;"
        f"print(len(litgpt.look(Path({str(written)!r})).rows), litgpt.size('m') > 0, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["24", "True", "False"], done.stderr
    assert json.loads((written / "generation_config.json").read_text())["eos_token_id"] == 1279
