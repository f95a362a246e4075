"""PEFT adapters merged into a model of ours: the logits of peft's own merge_and_unload."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from llm import checkpoint, paths, tokenizer
from llm.convert import adapter, folder

ROOT = Path(__file__).resolve().parent.parent
IDS = torch.randint(0, 1279, (2, 24), generator=torch.Generator().manual_seed(7))
SIZES = dict(
    vocab_size=1280, num_hidden_layers=2, hidden_size=32, num_attention_heads=4, max_position_embeddings=32
)
BASES = {
    "llama": transformers.LlamaConfig(**SIZES, intermediate_size=48, num_key_value_heads=2),
    "gpt2": transformers.GPT2Config(vocab_size=1280, n_layer=2, n_embd=32, n_head=4, n_positions=32),
    "neox": transformers.GPTNeoXConfig(**SIZES, intermediate_size=48),
}
MODULES = {
    "llama": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    "gpt2": ["c_attn", "c_proj", "c_fc"],
    "neox": ["query_key_value", "dense_h_to_4h"],
}


def their_model(kind):
    """A tiny random model of transformers."""
    torch.manual_seed(8)
    model = transformers.AutoModelForCausalLM.from_config(BASES[kind]).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) / 10)
    return model


def brought(kind, tmp_path):
    """The same as a model of ours, called like its kind."""
    place = tmp_path / f"{kind}-there"
    their_model(kind).save_pretrained(place)
    source = folder.look(place)
    model = checkpoint.fill(checkpoint.empty_model(source.config), source.read(), kind)
    checkpoint.save_model(paths.models() / kind, model, tokenizer.get("stories-1280"), f"# {kind}\n")
    return kind


def adapted(kind, place, **settings):
    """An adapter with random matrices, saved by peft; the model as peft merges it."""
    peft = pytest.importorskip("peft", reason="the package peft is not installed")
    usual = dict(task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules=MODULES[kind])
    model = peft.get_peft_model(their_model(kind), peft.LoraConfig(**{**usual, **settings}))
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_" in name:
                p.add_(torch.randn_like(p) / 5)
    model.save_pretrained(place)
    return model.merge_and_unload().eval()


def logits(source):
    source.check()
    model = checkpoint.fill(checkpoint.empty_model(source.config), source.read(), "the test").eval()
    with torch.no_grad():
        return model(IDS)


@pytest.mark.parametrize("kind", BASES)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_rslora": True},
        {"use_dora": True},
        {"layers_to_transform": [1]},
    ],
    ids=str,
)
def test_as_peft_merges_it(tmp_path, kind, settings):
    merged = adapted(kind, tmp_path / "adapter", **settings)
    base = brought(kind, tmp_path)
    source = adapter.look(tmp_path / "adapter", base)
    with torch.no_grad():
        wanted, plain = merged(IDS).logits, their_model(kind)(IDS).logits
    torch.testing.assert_close(logits(source), wanted, atol=1e-4, rtol=0)
    assert (wanted - plain).abs().max() > 0.05  # the adapter does something


def test_ranks_and_scales_by_name(tmp_path):
    patterns = {
        "rank_pattern": {"v_proj": 2, "layers.1.self_attn.q_proj": 6},
        "alpha_pattern": {"v_proj": 12},
    }
    merged = adapted("llama", tmp_path / "adapter", **patterns)
    source = adapter.look(tmp_path / "adapter", brought("llama", tmp_path))
    with torch.no_grad():
        torch.testing.assert_close(logits(source), merged(IDS).logits, atol=1e-4, rtol=0)
    assert source.notes[0] == "14 matrices are changed, of rank 2, 4, 6 and scale 1.33333, 2, 6."


def hand_made(tmp_path, r=2, alpha=4, width=32, rows=32, **settings):
    """An adapter on q of the second layer, without peft: (its folder, A, B)."""
    place = tmp_path / "adapter"
    place.mkdir(exist_ok=True)
    torch.manual_seed(9)
    A, B = torch.randn(r, width), torch.randn(rows, r)
    stem = "base_model.model.model.layers.1.self_attn.q_proj"
    save_file({f"{stem}.lora_A.weight": A, f"{stem}.lora_B.weight": B}, place / "adapter_model.safetensors")
    said = {
        "peft_type": "LORA",
        "r": r,
        "lora_alpha": alpha,
        "base_model_name_or_path": "org/llama",
        **settings,
    }
    (place / "adapter_config.json").write_text(json.dumps(said))
    return place, A, B


@pytest.mark.parametrize(("rslora", "scale"), [(False, 2.0), (True, 4 / math.sqrt(2))])
def test_the_formula(tmp_path, rslora, scale):
    """W + scale * B A in the rows of q, and nowhere else."""
    base = brought("llama", tmp_path)
    place, A, B = hand_made(tmp_path, use_rslora=rslora)
    source = adapter.look(place, base)
    before = load_file(paths.model_folder(base) / "model.safetensors")
    for name, tensor in source.read():
        wanted = before[name].clone()
        if name == "blocks.1.attention.qkv.weight":
            wanted[:32] += scale * B @ A
        torch.testing.assert_close(tensor, wanted, atol=1e-6, rtol=1e-6)


def test_what_the_map_says(tmp_path):
    source = adapter.look(hand_made(tmp_path)[0], brought("llama", tmp_path))
    rows = {row.theirs: row for row in source.rows}
    assert rows["blocks.1.attention.qkv.weight"].how == "changed: q"
    assert rows["blocks.0.attention.qkv.weight"].how == "same"
    half = rows["base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight"]
    assert (half.ours, half.how) == ("", "B of 2 * B A, added to blocks.1.attention.qkv.weight, rows of q")
    assert source.facts["base model"] == "llama" and source.facts["made for"] == "org/llama"
    assert source.files["tokenizer.json"] == paths.model_folder("llama") / "tokenizer.json"
    other = adapter.look(hand_made(tmp_path, base_model_name_or_path="org/other")[0], "llama")
    assert any("says that it was made for org/other" in note for note in other.notes)


@pytest.mark.parametrize(
    ("made", "sentence"),
    [
        (dict(width=48), r"layers\.1\.self_attn\.q_proj reads 48 numbers, and that of llama 32"),
        (dict(rows=64), r"q_proj gives 64 numbers, and that of llama 32"),
        (dict(peft_type="IA3"), "peft_type is 'IA3'"),
        (dict(bias="all"), "bias is 'all'"),
        (dict(modules_to_save=["lm_head"]), r"modules_to_save = \['lm_head'\]: only plain LoRA"),
        (
            dict(init_lora_weights="pissa"),
            "init_lora_weights is 'pissa', which changes the base model as well",
        ),
        (dict(layer_replication=[[0, 2]]), "layer_replication"),
        (dict(something_new={"x": 1}), "something_new"),
        (dict(rank_pattern={"(a+)+$": 2}), "no search patterns"),
        (dict(alpha=0), "lora_alpha is '0': it should be a number above 0"),
        (dict(alpha=math.nan), "lora_alpha is 'nan'"),
        (
            dict(rank_pattern={"q_proj": 3}),
            r"lora_A of .*q_proj is 2 x 32, and by adapter_config\.json 3 x 32",
        ),
        (dict(use_dora=True), r"no lora_magnitude_vector of model\.layers\.1\.self_attn\.q_proj"),
    ],
)
def test_what_does_not_fit(tmp_path, made, sentence):
    base = brought("llama", tmp_path)
    with pytest.raises(ValueError, match=sentence):
        adapter.look(hand_made(tmp_path, **made)[0], base)


def renamed(place, change):
    """The adapter with other names or tensors."""
    file = place / "adapter_model.safetensors"
    save_file(change({name: t.clone() for name, t in load_file(file).items()}), file)
    return place


def test_tensors_that_do_not_belong(tmp_path):
    base, other = brought("llama", tmp_path), brought("gpt2", tmp_path)
    place = hand_made(tmp_path)[0]
    with pytest.raises(
        ValueError, match=r"changes model\.layers\.1\.self_attn\.q_proj, and gpt2 has no such matrix"
    ):
        adapter.look(place, other)
    with pytest.raises(ValueError, match=r"choose the one it was made for \(org/llama\) as its base"):
        adapter.look(place, "")
    with pytest.raises(ValueError, match="There is no model called 'nothing'"):
        adapter.look(place, "nothing")
    later = renamed(place, lambda all: {name.replace("layers.1", "layers.11"): t for name, t in all.items()})
    with pytest.raises(ValueError, match=r"it changes layer 11 .* and llama has 2 layers, 0 to 1"):
        adapter.look(later, base)
    half = renamed(hand_made(tmp_path)[0], lambda all: {k: t for k, t in all.items() if "lora_A" in k})
    with pytest.raises(ValueError, match="no lora_B"):
        adapter.look(half, base)
    more = renamed(
        hand_made(tmp_path)[0], lambda all: {**all, "base_model.model.lm_head.weight": torch.ones(2)}
    )
    with pytest.raises(
        ValueError, match=r"base_model\.model\.lm_head\.weight, which is no part of a plain LoRA"
    ):
        adapter.look(more, base)
    none = renamed(hand_made(tmp_path)[0], lambda all: {})
    with pytest.raises(ValueError, match="holds no LoRA matrices"):
        adapter.look(none, base)


def test_files_that_are_missing_or_pickles(tmp_path):
    base, place = brought("llama", tmp_path), hand_made(tmp_path)[0]
    weights = place / "adapter_model.safetensors"
    good = weights.read_bytes()
    weights.write_bytes(b"\x80\x02}q\x00." + good)
    with pytest.raises(ValueError, match=r"pickle|damaged|cut short"):
        adapter.look(place, base)
    weights.write_bytes(good[:-8])
    with pytest.raises(ValueError, match="cut short"):
        adapter.look(place, base)
    weights.rename(place / "adapter_model.bin")
    with pytest.raises(ValueError, match=r"adapter_model.bin is a pickle and stays closed"):
        adapter.look(place, base)
    (place / "adapter_config.json").unlink()
    with pytest.raises(ValueError, match=r"adapter_config\.json is missing"):
        adapter.look(place, base)


def test_looking_needs_no_torch(tmp_path, home):
    brought("llama", tmp_path)
    place = hand_made(tmp_path)[0]
    code = (
        "import sys; from pathlib import Path; from llm.convert import adapter;"
        f"print(len(adapter.look(Path({str(place)!r}), 'llama').rows), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout.split()[-1:] == ["False"], done.stderr
