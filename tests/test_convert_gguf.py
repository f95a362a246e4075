"""GGUF in and out, held against the gguf library's own writer and names, transformers, tokenizers and hand-made blocks."""

from __future__ import annotations

import random
import struct
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import gguf as library
import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file

from llm import checkpoint, paths, tokenizer
from llm.config import ModelConfig
from llm.convert import gguf, gguf_header
from llm.model import GPT

ROOT = Path(__file__).resolve().parent.parent
TEXT = "the fox in the tall grass thinks: it's 12345, don't  you see?\n\n"


def encoding(rows: int = 0) -> tokenizer.BPETokenizer:
    """A small byte-level BPE whose merges nest: th, the, in, ing, " t", " the"."""
    ranks = {bytes([b]): b for b in range(256)}
    for token in (b"th", b"in", b" t", b"the", b"ing", b" the", b"12"):
        ranks[token] = len(ranks)
    return tokenizer.BPETokenizer("small", ranks, tokenizer.GPT2_SPLIT, {tokenizer.EOT: len(ranks)})


SMALL = encoding()
BASE = {
    "vocab_size": SMALL.vocab_size,
    "context_length": 64,
    "n_layer": 2,
    "n_head": 4,
    "n_embd": 32,
    "mlp_hidden": 48,
}


def random_model(config: ModelConfig) -> GPT:
    """Weights large enough that every part shows in the logits."""
    torch.manual_seed(0)
    model = GPT(config).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * (0.1 if p.dim() == 2 else 0.3))
    return model


def saved(name: str, /, **values) -> GPT:
    model = random_model(ModelConfig(**{**BASE, **values}))
    checkpoint.save_model(paths.models() / name, model, SMALL, "# A card\n")
    return model


def opened(path: Path) -> GPT:
    source = gguf.look(path)
    source.check()
    return checkpoint.fill(checkpoint.empty_model(source.config), source.read(), path.name).eval()


def logits(model: GPT, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([ids]))[0]


# ---- In: every family, from a file that the library wrote ----------------------------------------------------------

SIZES = {
    "vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "head_dim": 8,
}  # fmt: skip
CASES = {  # llama.cpp's architecture: transformers' config and model
    "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM, {**SIZES, "rope_theta": 500_000.0}),
    "llama untied": (transformers.LlamaConfig, transformers.LlamaForCausalLM, {**SIZES, "tie_word_embeddings": False}),
    "llama biased": (
        transformers.LlamaConfig, transformers.LlamaForCausalLM, {**SIZES, "attention_bias": True, "mlp_bias": True}
    ),
    "qwen2": (transformers.Qwen2Config, transformers.Qwen2ForCausalLM, SIZES),
    "qwen3": (transformers.Qwen3Config, transformers.Qwen3ForCausalLM, {**SIZES, "head_dim": 16}),
    "gemma3": (
        transformers.Gemma3TextConfig,
        transformers.Gemma3ForCausalLM,
        {**SIZES, "sliding_window": 8, "num_hidden_layers": 7, "query_pre_attn_scalar": 8, "head_dim": 8},
    ),
    "olmo2": (transformers.Olmo2Config, transformers.Olmo2ForCausalLM, {**SIZES, "tie_word_embeddings": False}),
    "gpt2": (
        transformers.GPT2Config,
        transformers.GPT2LMHeadModel,
        {"vocab_size": 300, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64},
    ),
    "gptneox": (
        transformers.GPTNeoXConfig,
        transformers.GPTNeoXForCausalLM,
        {**{k: v for k, v in SIZES.items() if k not in ("num_key_value_heads", "rms_norm_eps", "head_dim")}, "rotary_pct": 0.5},
    ),
}  # fmt: skip


def their_model(case: str):
    config, model, values = CASES[case]
    torch.manual_seed(0)
    values = {"tie_word_embeddings": case not in ("gptneox",)} | values
    made = model(config(**values, pad_token_id=None, bos_token_id=None, eos_token_id=None)).eval()
    with torch.no_grad():
        for p in made.parameters():
            p.add_(torch.randn_like(p) * (0.1 if p.dim() == 2 else 0.3))
    return made


def as_llama_cpp_has_it(case: str, name: str, tensor: torch.Tensor, config) -> torch.Tensor:
    """What llama.cpp's own conversion does to a tensor of transformers, by its formulas."""
    heads = config.num_attention_heads
    if case.startswith("llama") and ("q_proj" in name or "k_proj" in name):
        n = heads if "q_proj" in name else config.num_key_value_heads
        return (
            tensor.reshape(n, 2, len(tensor) // n // 2, *tensor.shape[1:])
            .swapaxes(1, 2)
            .reshape(tensor.shape)
        )
    if case == "gpt2" and tensor.dim() == 2 and ".h." in name:
        return tensor.T
    if case == "gemma3" and name.endswith("norm.weight"):
        return tensor + 1
    if case == "gptneox" and "query_key_value" in name:
        return tensor.reshape(heads, 3, -1, *tensor.shape[1:]).transpose(0, 1).reshape(tensor.shape)
    return tensor


def written_by_the_library(path: Path, case: str, model, pack=None) -> Path:
    """A GGUF of a transformers model: settings by the library's methods, names by its map."""
    name, config = case.split()[0], model.config
    arch = next(a for a, text in library.MODEL_ARCH_NAMES.items() if text == name)
    writer = library.GGUFWriter(path, name)
    writer.add_context_length(64)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(4 * config.hidden_size if name == "gpt2" else config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    if name in ("gpt2", "gptneox"):
        writer.add_layer_norm_eps(1e-5)
    else:
        writer.add_head_count_kv(config.num_key_value_heads)
        writer.add_layer_norm_rms_eps(1e-5)
        writer.add_key_length(config.head_dim if name != "qwen2" and name != "olmo2" else 8)
        rope = config.rope_parameters
        writer.add_rope_freq_base(rope.get("full_attention", rope)["rope_theta"])
    if name == "gptneox":
        writer.add_rope_dimension_count(4)
        writer.add_parallel_residual(True)
    if name == "gemma3":
        writer.add_sliding_window(config.sliding_window)
    names = library.get_tensor_name_map(arch, config.num_hidden_layers)
    for key, tensor in model.state_dict().items():
        if key.endswith((".attn.bias", ".masked_bias", "inv_freq")) or (
            key == "lm_head.weight" and config.tie_word_embeddings
        ):
            continue
        key = key.replace("lm_head", "embed_out") if name == "gptneox" else key
        values = as_llama_cpp_has_it(case, key, tensor, config).contiguous().numpy()
        theirs = names.get_name(key, try_suffixes=(".weight", ".bias"))
        assert theirs, key
        if pack and values.ndim == 2:
            writer.add_tensor(theirs, library.quants.quantize(values, pack), raw_dtype=pack)
        else:
            writer.add_tensor(theirs, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("case", CASES)
def test_logits_are_those_of_transformers(tmp_path, case):
    theirs = their_model(case)
    path = written_by_the_library(tmp_path / "model.gguf", case, theirs)
    ids = [5, 200, 33, 7, 8, 250, 90, 91, 17, 299, 4, 5, 6]
    with torch.no_grad():
        expected = theirs(torch.tensor([ids])).logits[0]
    assert (logits(opened(path), ids) - expected).abs().max() < 1e-4
    assert expected.std() > 0.3  # so that the bound says something


def test_a_wrong_order_of_rows_is_seen(tmp_path, monkeypatch):
    """Rows of q and k left as they lie in the file, or those of k put apart by the heads of q: other logits."""
    theirs = their_model("llama")
    path = written_by_the_library(tmp_path / "model.gguf", "llama", theirs)
    ids = [5, 200, 33, 7, 8, 250, 90, 91, 17, 299, 4, 5, 6]
    right, apart = logits(opened(path), ids), gguf.halves
    for wrong in (lambda rows, heads: rows, lambda rows, heads: apart(rows, 4)):
        monkeypatch.setattr(gguf, "halves", wrong)
        assert (logits(opened(path), ids) - right).abs().max() > 0.01


def test_rows_go_there_and_back():
    rows = torch.arange(24.0).reshape(8, 3)
    assert gguf.neighbours(rows, 2)[:, 0].tolist() == [
        0,
        6,
        3,
        9,
        12,
        18,
        15,
        21,
    ]  # pairs (i, i + D/2) side by side
    assert torch.equal(gguf.halves(gguf.neighbours(rows, 2), 2), rows)


def test_the_map_names_every_tensor(tmp_path):
    source = gguf.look(written_by_the_library(tmp_path / "m.gguf", "llama", their_model("llama")))
    rows = {row.theirs: row for row in source.rows}
    assert rows["blk.0.attn_q.weight"].ours == "blocks.0.attention.qkv.weight"
    assert rows["blk.0.attn_q.weight"].how == "rows of q, RoPE's pairs put apart head by head"
    assert rows["blk.0.attn_v.weight"].how == "rows of v"
    assert rows["token_embd.weight"].shape == (300, 32)
    assert len(rows) == 2 + 9 * 3 and source.parameters() == sum(source.config.parameters().values())
    assert source.files == {} and "no tokenizer" in source.notes[0]


# ---- In: number formats ---------------------------------------------------------------------------------------------


def stored(path: Path, raw: np.ndarray, kind: str, shape: tuple[int, ...]) -> Path:
    """A file with one tensor, `x`, of these very bytes."""
    writer = library.GGUFWriter(path, "llama")
    writer.add_tensor("x", raw, raw_shape=raw.shape, raw_dtype=library.GGMLQuantizationType[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def read_back(path: Path) -> np.ndarray:
    entry = gguf_header.read_header(path).tensors["x"]
    out = torch.empty(entry.shape)
    with open(path, "rb") as file:
        gguf._fill(file, entry, out)
    return out.numpy()


@pytest.mark.parametrize("kind", gguf_header.READ)
def test_every_number_format_reads_as_the_library_has_it(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(gguf, "PIECE", 1024)  # several pieces, the last one shorter
    rng, shape = np.random.default_rng(0), (5, 768)
    known = library.GGMLQuantizationType[kind]
    if kind in (
        "Q6_K",
        "Q5_K",
        "Q4_K",
        "Q3_K",
        "Q2_K",
    ):  # the library does not write these: random blocks, small scales
        block, size = library.GGML_QUANT_SIZES[known]
        raw = rng.integers(0, 256, (5 * 768 // block, size), dtype=np.uint8)
        scales = {"Q6_K": [208], "Q3_K": [108], "Q2_K": [80, 82]}.get(kind, [0, 2])
        for at in scales:
            raw[:, at : at + 2] = rng.normal(0, 0.1, (len(raw), 1)).astype(np.float16).view(np.uint8)
        raw = raw.reshape(5, -1)
    else:
        raw = library.quants.quantize(rng.normal(size=shape).astype(np.float32), known)
    found = read_back(stored(tmp_path / "x.gguf", raw, kind, shape))
    assert np.array_equal(found, library.quants.dequantize(raw, known))
    assert np.isfinite(found).all() and found.std() > 0.1


def half(value: float) -> bytes:
    return np.float16(value).tobytes()


NIBBLES = bytes(low | (15 - low) << 4 for low in range(16))  # 0..15 in the low halves, 15..0 in the high ones
BY_HAND = {  # one block: its bytes, and its numbers by the format's formula
    "Q8_0": (half(0.5) + bytes(range(16)) + bytes([255] * 16), [0.5 * q for q in [*range(16), *[-1] * 16]]),
    "Q4_0": (half(0.25) + NIBBLES, [0.25 * (q - 8) for q in [*range(16), *range(15, -1, -1)]]),
    "Q4_1": (half(0.5) + half(-2) + NIBBLES, [0.5 * q - 2 for q in [*range(16), *range(15, -1, -1)]]),
    "Q5_0": (half(1) + b"\x01\x00\x00\x80" + NIBBLES, [16 - 16, *[q - 16 for q in [*range(1, 16), *range(15, 0, -1)]], 16 - 16]),
    "Q5_1": (half(2) + half(1) + b"\x00" * 4 + NIBBLES, [2 * q + 1 for q in [*range(16), *range(15, -1, -1)]]),
    "Q4_K": (
        half(0.5) + half(1) + bytes([1] * 4 + [2] * 4 + [1 | 2 << 4] * 4) + NIBBLES * 8,
        [0.5 * q - 2 for _ in range(4) for q in [*range(16), *range(16), *range(15, -1, -1), *range(15, -1, -1)]],
    ),
    "Q6_K": (b"\x00" * 128 + b"\x00" * 64 + bytes([3] * 16) + half(0.5), [0.5 * 3 * -32] * 256),
}  # fmt: skip


@pytest.mark.parametrize("kind", BY_HAND)
def test_blocks_made_by_hand(tmp_path, kind):
    raw, expected = BY_HAND[kind]
    found = read_back(
        stored(tmp_path / "x.gguf", np.frombuffer(raw, np.uint8)[None], kind, (1, len(expected)))
    )
    assert found[0].tolist() == expected


def test_half_floats_stay_half(tmp_path):
    source = gguf.look(
        written_by_the_library(
            tmp_path / "m.gguf", "gpt2", their_model("gpt2"), library.GGMLQuantizationType.F16
        )
    )
    kinds = {name: tensor.dtype for name, tensor in source.read()}
    assert kinds["token_embedding.weight"] == torch.float16 and kinds["norm.weight"] == torch.float32
    assert source.facts["number format"] == "F32, F16"


# ---- In: what the settings say --------------------------------------------------------------------------------------


def changed(path: Path, settings: dict, without: tuple[str, ...] = (), tensors: dict | None = None) -> Path:
    """The file written anew with other settings or tensors; None takes a setting away."""
    reader = library.GGUFReader(path)
    writer = library.GGUFWriter(path.with_name("changed.gguf"), settings.pop("general.architecture", "llama"))
    old = {
        name: field.contents()
        for name, field in reader.fields.items()
        if not name.startswith("GGUF.") and name != "general.architecture"
    }
    adds = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
    for name, value in {**old, **settings}.items():
        if value is not None:
            (writer.add_array if isinstance(value, list) else adds[type(value)])(name, value)
    values = {tensor.name: tensor.data.copy() for tensor in reader.tensors} | (tensors or {})
    for name, value in values.items():
        if name not in without:
            writer.add_tensor(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.with_name("changed.gguf")


@pytest.fixture
def llama(tmp_path) -> Path:
    return written_by_the_library(tmp_path / "llama.gguf", "llama", their_model("llama"))


def test_sizes_and_scales_come_from_the_file(llama):
    config = gguf.look(llama).config
    assert (config.n_layer, config.n_head, config.kv_heads, config.head_dim) == (3, 4, 2, 8)
    assert (config.context_length, config.mlp_hidden, config.vocab_size) == (64, 48, 300)
    assert (config.norm_eps, config.rope_theta, config.tie_embeddings) == (1e-5, 500_000.0, True)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}, {"rope_scaling": "linear", "rope_factor": 4.0}),
        ({"llama.rope.scale_linear": 2.0}, {"rope_scaling": "linear", "rope_factor": 2.0}),
        ({"llama.rope.scaling.type": "none", "llama.rope.scaling.factor": 4.0}, {"rope_scaling": "none"}),
        ({"llama.attention.sliding_window": 16}, {"sliding_window": 16}),
        ({"llama.attention.sliding_window": 64}, {"sliding_window": 0}),
        ({"llama.attention.head_count_kv": [2, 2, 2]}, {"n_kv_head": 2}),
        ({"llama.context_length": 200_000}, {"context_length": 131_072}),
        ({"llama.rope.freq_base": None}, {"rope_theta": 10_000.0}),
        ({"llama.expert_count": 0, "llama.logit_scale": 1.0}, {"n_layer": 3}),
    ],
)  # fmt: skip
def test_settings_are_followed(llama, settings, expected):
    config = gguf.look(changed(llama, settings)).config
    assert {name: getattr(config, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"general.architecture": "mamba"}, "architecture 'mamba'; those opened here are llama, qwen2"),
        ({"general.type": "adapter"}, "no model but of the kind 'adapter'"),
        ({"split.count": 3}, "one of 3 parts of a model: join them first"),
        ({"llama.expert_count": 8}, "sets llama.expert_count to 8"),
        ({"llama.attention.causal": False}, "sets llama.attention.causal to False"),
        ({"llama.attention.scale": 0.5}, "sets llama.attention.scale to 0.5"),
        ({"llama.block_count": None}, "does not say llama.block_count"),
        ({"llama.block_count": 20_000}, "n_layer is 20000; the largest value is 256"),
        ({"llama.attention.head_count": 0}, "one of its sizes is 0"),
        ({"llama.attention.head_count_kv": [2, 1, 2]}, "head_count_kv is .2, 1, 2., not one number for all layers"),
        ({"llama.attention.head_count_kv": 3}, "3 key/value heads cannot be shared evenly by 4 heads"),
        ({"llama.attention.key_length": 16}, "blk.0.attn_q.weight has the shape 32 x 32 and the file's settings say 64 x 32"),
        ({"llama.attention.value_length": 16}, "Values have 16 numbers a head and keys 8"),
        ({"llama.rope.dimension_count": 4}, "partial_rotary_factor is 0.5"),
        ({"llama.rope.scaling.type": "yarn", "llama.rope.scaling.factor": 4.0}, "rope_type is 'yarn'"),
        ({"llama.rope.freq_base": "much"}, "llama.rope.freq_base is much, not one number"),
        ({"llama.attention.layer_norm_rms_epsilon": float("nan")}, "norm_eps must be a finite number"),
        ({"llama.block_count": 4}, "9 tensors are missing: blk.3.attn_norm.weight, blk.3.ffn_norm.weight"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_followed_are_named(llama, settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        gguf.look(changed(llama, dict(settings)))


def test_tensors_too_many_and_too_few(llama):
    with pytest.raises(ValueError, match=r"1 tensors are missing: blk.1.ffn_up.weight"):
        gguf.look(changed(llama, {}, without=("blk.1.ffn_up.weight",)))
    more = changed(llama, {}, tensors={"blk.1.ffn_gate_exps.weight": np.zeros((4, 32), np.float32)})
    with pytest.raises(
        ValueError, match=r"1 tensors have no place in this kind of model: blk.1.ffn_gate_exps.weight"
    ):
        gguf.look(more).check()


def test_the_output_matrix_is_tied_only_when_it_is_the_embedding(llama):
    embedding = library.GGUFReader(llama).tensors[0].data.copy()
    same = gguf.look(changed(llama, {}, tensors={"output.weight": embedding}))
    assert same.config.tie_embeddings
    assert (
        next(row.how for row in same.rows if row.theirs == "output.weight") == "the token embedding once more"
    )
    same.check()
    other = gguf.look(changed(llama, {}, tensors={"output.weight": embedding + 1}))
    assert not other.config.tie_embeddings
    other.check()


def llama3_factors(low: float, high: float, first: int, factor: float, theta: float, size: int) -> np.ndarray:
    """How many times slower each pair turns, by the formula of Llama 3's reference code (wavelengths, case by case)."""
    factors = []
    for rate in theta ** (-np.arange(0, size, 2) / size):
        length = 2 * np.pi / rate
        smooth = (first / length - low) / (high - low)
        within = 1 / ((1 - smooth) / factor + smooth)
        factors.append(1.0 if length < first / high else factor if length > first / low else within)
    return np.array(factors, np.float32)


def test_llama3_factors_are_recognised(llama):
    """Files of Llama 3 hold factors and not the settings they came from."""
    found = gguf.look(
        changed(llama, {}, tensors={"rope_freqs.weight": llama3_factors(1, 4, 8192, 32, 5e5, 8)})
    ).config
    assert (found.rope_scaling, found.rope_factor, found.rope_low, found.rope_high, found.rope_original) == (
        "llama3", 32.0, 1.0, 4.0, 8192,
    )  # fmt: skip
    assert (
        gguf.look(
            changed(llama, {}, tensors={"rope_freqs.weight": np.ones(4, np.float32)})
        ).config.rope_scaling
        == "none"
    )
    odd = changed(llama, {}, tensors={"rope_freqs.weight": np.array([3, 1, 2, 8], np.float32)})
    with pytest.raises(ValueError, match="in another way than Llama 3 does"):
        gguf.look(odd)
    with pytest.raises(ValueError, match=r"rope_freqs.weight holds 3 numbers in F32, not 4"):
        gguf.look(changed(llama, {}, tensors={"rope_freqs.weight": np.ones(3, np.float32)}))


def test_where_it_is_from(llama):
    said = {
        "general.organization": "Someone",
        "general.license": "apache-2.0",
        "general.repo_url": "https://example.org/m",
    }
    assert gguf.look(changed(llama, said)).facts == {
        "organisation": "Someone", "licence": "apache-2.0", "origin": "https://example.org/m", "number format": "F32",
    }  # fmt: skip


# ---- In: hostile files ----------------------------------------------------------------------------------------------


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def setting(name: str, kind: int, value: bytes) -> bytes:
    return text(name) + struct.pack("<I", kind) + value


def tensor(name: str, shape: tuple[int, ...], kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape) + struct.pack("<IQ", kind, offset)


def a_file(settings: tuple[bytes, ...] = (), tensors: tuple[bytes, ...] = (), body: int = 0) -> bytes:
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(settings))
    head += b"".join((*settings, *tensors))
    return head + b"\0" * (-len(head) % 32 + body)


ARRAY = struct.Struct("<IQ").pack
HOSTILE = {
    "a list of 2**63 texts": (a_file((setting("k", 9, ARRAY(8, 2**63)),)), "a list of 9,223,372,036,854,775,808 entries"),
    "a list of 2**40 numbers": (a_file((setting("k", 9, ARRAY(0, 2**40)),)), "a list of 1,099,511,627,776 entries"),
    "a list longer than the file": (a_file((setting("k", 9, ARRAY(12, 1_000_000)),)), "ends inside its header"),
    "lists in lists": (a_file((setting("k", 9, ARRAY(9, 5) + ARRAY(9, 5)),)), "is a list of lists"),
    "a list of nothing known": (a_file((setting("k", 9, ARRAY(77, 5)),)), "a list of the unknown type 77"),
    "an unknown type": (a_file((setting("k", 13, b""),)), "of the unknown type 13"),
    "a text of 2**62 bytes": (a_file((setting("k", 8, struct.pack("<Q", 2**62)),)), "ends inside its header"),
    "a name of 2**64 bytes": (a_file((b"\xff" * 16,)), "ends inside its header"),
    "no UTF-8": (a_file((setting("k", 8, struct.pack("<Q", 2) + b"\xff\xfe"),)), "is no text in UTF-8"),
    "2**40 tensors": (b"GGUF" + struct.pack("<IQQ", 3, 2**40, 0), "claims 1,099,511,627,776 tensors"),
    "2**60 settings": (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**60), "claims 0 tensors and 1,152,921,504,606,846,976 settings"),
    "a setting twice": (a_file((setting("k", 4, b"1234"),) * 2), "'k' stands in it twice"),
    "a tensor twice": (a_file((), (tensor("x", (32,)), tensor("x", (32,), offset=128)), 256), "x stands in it twice"),
    "2**31 dimensions": (a_file((), (text("x") + struct.pack("<I", 2**31),), 99), "has 2,147,483,648 dimensions"),
    "a tensor of 2**60 numbers": (a_file((), (tensor("x", (2**30, 2**30)),), 99), "takes 4,611,686,018,427,387,904 bytes"),
    "a tensor of none": (a_file((), (tensor("x", (32, 0)),), 99), "has the shape 0 x 32 in F32"),
    "a tensor beyond the end": (a_file((), (tensor("x", (32,), offset=64),), 128), "takes 128 bytes from byte"),
    "a place of 2**63": (a_file((), (tensor("x", (32,), offset=2**63),), 128), "takes 128 bytes from byte 9,223,372"),
    "an odd place": (a_file((), (tensor("x", (32,), offset=1),), 256), "damaged or was cut short"),
    "one upon another": (a_file((), (tensor("x", (32,)), tensor("y", (32,), offset=32)), 256), "y lies upon another one"),
    "half a block": (a_file((), (tensor("x", (40,), 8),), 256), "has the shape 40 in Q8_0"),
    "type 99": (a_file((), (tensor("x", (32,), 99),), 256), "stored as type number 99, which is not read here"),
    "a type by name": (a_file((), (tensor("x", (256,), 18),), 256), "stored as IQ3_XXS, which is not read here"),
    "alignment 0": (a_file((setting("general.alignment", 4, struct.pack("<I", 0)),)), "its alignment is 0"),
    "alignment 48": (a_file((setting("general.alignment", 4, struct.pack("<I", 48)),)), "its alignment is 48"),
    "version 1": (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "of version 1; 2 and 3 are read here"),
    "the other byte order": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "the other byte order; 2 and 3"),
    "another file": (b"PK\x03\x04" + b"0" * 40, "does not begin with the letters GGUF"),
    "nothing": (b"", "is no GGUF file"),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_headers_are_refused_at_once(tmp_path, what):
    content, sentence = HOSTILE[what]
    path = tmp_path / "hostile.gguf"
    path.write_bytes(content)
    tracemalloc.start()
    begun = time.perf_counter()
    with pytest.raises(ValueError, match=sentence):
        gguf_header.read_header(path)
    seconds, (_now, peak) = time.perf_counter() - begun, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seconds < 1 and peak < 20 * 2**20


def test_a_file_cut_anywhere_is_refused(tmp_path, llama):
    whole, path = llama.read_bytes(), tmp_path / "cut.gguf"
    for length in [*range(0, 1600, 7), len(whole) // 2, len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"cut short|no GGUF file"):
            gguf.look(path)


def test_changed_bytes_end_in_a_sentence_or_a_model(tmp_path):
    """Headers with bytes changed at random: a Source, or a ValueError, and nothing else."""
    saved("small")
    gguf.save("small", whole := tmp_path / "whole.gguf", "q8_0")
    good, path, chance = whole.read_bytes(), tmp_path / "changed.gguf", random.Random(0)
    end = good.index(b"blk.1.ffn_down.weight") + 60
    refused = 0
    for _ in range(300):
        bad = bytearray(good)
        for _ in range(chance.choice((1, 1, 2, 8))):
            bad[chance.randrange(end)] = chance.choice((0, 1, 255, chance.randrange(256)))
        path.write_bytes(bad)
        try:
            gguf.look(path).check()
        except ValueError as error:
            refused += 1
            assert 10 < len(str(error)) < 600
    assert refused > 50


def test_looking_needs_no_torch(llama):
    code = (
        f"import sys; from pathlib import Path; from llm.convert import gguf; gguf.look(Path({str(llama)!r}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code + "; print('torch' in sys.modules)"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.strip() == "False", done.stderr


# ---- Out ------------------------------------------------------------------------------------------------------------

FAMILIES = {  # what our configs become there
    "llama": {"n_kv_head": 2},
    "llama, wide heads": {"n_kv_head": 2, "head_size": 16, "tie_embeddings": False},
    "llama, biases": {"bias": True, "qkv_bias": True},
    "llama, q k v biases and wide heads": {"qkv_bias": True, "head_size": 16},
    "llama, linear": {"rope_scaling": "linear", "rope_factor": 4.0},
    "llama, as Llama 3": {"rope_scaling": "llama3", "rope_factor": 8.0, "rope_theta": 5e5},
    "llama, own factors": {"rope_scaling": "llama3", "rope_factor": 3.0, "rope_low": 2.0, "rope_high": 3.0, "rope_original": 40},
    "llama, a window of everything": {"sliding_window": 64},
    "qwen2": {"qkv_bias": True, "n_kv_head": 2},
    "qwen3": {"qk_norm": "head", "head_size": 16},
    "gemma3": {
        "qk_norm": "head", "norm_position": "sandwich", "mlp": "geglu", "embedding_scale": True, "sliding_window": 8,
        "global_every": 2, "rope_theta": 1e6, "rope_theta_local": 1e4, "n_layer": 3,
    },
    "olmo2": {"qk_norm": "width", "norm_position": "output", "tie_embeddings": False},
    "olmo2, tied": {"qk_norm": "width", "norm_position": "output"},
    "gpt2": {"position": "learned", "norm": "layernorm", "mlp": "gelu_tanh", "bias": True, "qkv_bias": True},
    "gpt2, exact gelu": {"position": "learned", "norm": "layernorm", "mlp": "gelu", "bias": True, "qkv_bias": True},
    "gptneox": {
        "norm": "layernorm", "mlp": "gelu", "bias": True, "qkv_bias": True, "parallel": True, "rope_share": 0.5,
        "tie_embeddings": False,
    },
    "gptneox, one after the other": {"norm": "layernorm", "mlp": "gelu_tanh", "bias": True, "qkv_bias": True},
}  # fmt: skip


@pytest.mark.parametrize("case", FAMILIES)
def test_out_and_in_again_gives_every_tensor(tmp_path, case):
    model = saved("m", **FAMILIES[case])
    gguf.save("m", tmp_path / "m.gguf", "f32")
    source = gguf.look(tmp_path / "m.gguf")
    source.check()
    assert source.family == case.split(",")[0]
    ours, back = load_file(paths.models() / "m" / "model.safetensors"), dict(source.read())
    assert ours.keys() == back.keys()
    assert all(torch.equal(ours[name], back[name]) for name in ours)
    ids = [5, 200, 33, 7, 8, 250, 90, 91, 17, 29, 4, 5, 6]
    assert (logits(opened(tmp_path / "m.gguf"), ids) - logits(model, ids)).abs().max() < 1e-5
    known = {text.format(bid=0) for text in library.TENSOR_NAMES.values()}
    for row in source.rows:
        assert row.theirs.replace("blk.1.", "blk.0.").replace("blk.2.", "blk.0.").rpartition(".")[0] in known


@pytest.mark.parametrize("case", ["llama", "gpt2"])
def test_transformers_reads_what_is_written(tmp_path, case):
    """An independent reader: the same logits, the same ids. (It takes GPT-2's context and MLP to be the usual ones.)"""
    model = saved("m", **FAMILIES[case], context_length=1024, mlp_hidden=128)
    gguf.save("m", tmp_path / "m.gguf", "f32")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="m.gguf", dtype=torch.float32
    )
    ids = SMALL.encode(TEXT)
    with torch.no_grad():
        found = theirs(torch.tensor([ids])).logits[0]
    assert (found - logits(model, ids)).abs().max() < 1e-4
    assert transformers.AutoTokenizer.from_pretrained(tmp_path, gguf_file="m.gguf").encode(TEXT) == ids


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"position": "sinusoidal"}, "position is sinusoidal"),
        ({"position": "none"}, "position is none"),
        ({"norm_position": "post"}, "norm_position is post"),
        ({"norm": "layernorm"}, "norm is layernorm"),
        ({"position": "learned", "norm": "layernorm", "mlp": "relu"}, "gpt2 cannot compute this model: mlp is relu"),
        ({"mlp": "geglu"}, "llama cannot compute this model: mlp is geglu, and it has only swiglu"),
        ({"sliding_window": 16}, "sliding_window is 16, and its layers see all"),
        ({"qk_norm": "width", "norm_position": "output", "head_size": 16}, "head_size is 16, and its 4 heads must be 32 wide"),
        ({**FAMILIES["gemma3"], "score_size": 20.0}, "gemma3 cannot compute this model: score_size is 20, and it takes 8"),
    ],
)  # fmt: skip
def test_what_llama_cpp_cannot_compute_is_named(tmp_path, values, sentence):
    saved("m", **values)
    for attempt in (lambda: gguf.save("m", tmp_path / "out" / "m.gguf"), lambda: gguf.size("m")):
        with pytest.raises(ValueError, match=sentence):
            attempt()
    assert not (tmp_path / "out").exists()


def test_biases_a_family_has_and_we_have_not_are_zeros(tmp_path):
    model = saved("m", position="learned", norm="layernorm", mlp="gelu_tanh")
    assert any("written as zeros" in note for note in gguf.save("m", tmp_path / "m.gguf", "f32"))
    ids = [5, 200, 33, 7]
    assert (logits(opened(tmp_path / "m.gguf"), ids) - logits(model, ids)).abs().max() < 1e-5
    assert not dict(gguf.look(tmp_path / "m.gguf").read())["blocks.0.mlp.up.bias"].any()


@pytest.mark.parametrize(
    ("kind", "matrix", "embedding", "bound"),
    [("f32", "F32", "F32", 0), ("f16", "F16", "F16", 2**-11), ("bf16", "BF16", "BF16", 2**-8), ("q8_0", "Q8_0", "Q8_0", 1 / 254 + 2**-11),
     ("q4_0", "Q4_0", "Q8_0", 1 / 8)],
)  # fmt: skip
def test_number_formats_written(tmp_path, kind, matrix, embedding, bound):
    """Norms stay F32, rows of 48 numbers F16; each number within the step of its format, of its block's largest."""
    saved("m", mlp_hidden=48)
    notes = gguf.save("m", tmp_path / "m.gguf", kind)
    source, reader = gguf.look(tmp_path / "m.gguf"), library.GGUFReader(tmp_path / "m.gguf")
    kinds = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}  # as the library reads them
    assert kinds["blk.0.attn_q.weight"] == matrix and kinds["token_embd.weight"] == embedding
    assert kinds["blk.0.attn_norm.weight"] == "F32"
    assert kinds["blk.0.ffn_down.weight"] == ("F16" if kind[0] == "q" else matrix)
    assert any("blk.0.ffn_down.weight, blk.1.ffn_down.weight" in note for note in notes) == (kind[0] == "q")
    ours = load_file(paths.models() / "m" / "model.safetensors")
    for name, found in source.read():
        rows = ours[name].reshape(-1, 16 if ours[name].numel() % 32 else 32)
        step = rows.abs().amax(1, keepdim=True) * bound * (1.01 if bound else 0)
        assert ((found.float().reshape(rows.shape) - rows).abs() <= step).all(), name
    if kind[0] == "q":
        assert any("is quantised" in note for note in source.notes)


@pytest.mark.parametrize("kind", gguf.WRITTEN)
def test_size_is_known_before(tmp_path, kind):
    saved("m", n_layer=6)
    gguf.save("m", tmp_path / "m.gguf", kind)
    assert abs(gguf.size("m", kind) / (tmp_path / "m.gguf").stat().st_size - 1) < 0.1


def test_written_whole_or_not_at_all(tmp_path):
    """Stopped by its progress, the export leaves what was there before and no temporary file."""
    saved("m")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "m.gguf").write_text("before")
    seen = []

    def stop(what: str, done: int, total: int) -> None:
        seen.append((what, done, total))
        if done > total / 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        gguf.save("m", tmp_path / "out" / "m.gguf", "f16", stop)
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["m.gguf"]
    assert (tmp_path / "out" / "m.gguf").read_text() == "before"
    assert len(seen) > 2 and [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)
    gguf.save("m", tmp_path / "out" / "m.gguf", "f16", lambda *step: seen.append(step))
    assert seen[-1][1] == seen[-1][2]
    gguf.look(tmp_path / "out" / "m.gguf").check()


def test_numbers_too_large_for_half_floats(tmp_path):
    model = random_model(ModelConfig(**BASE))
    with torch.no_grad():
        model.blocks[1].mlp.up.weight[3, 4] = 1e5
    checkpoint.save_model(paths.models() / "m", model, SMALL, "")
    with pytest.raises(
        ValueError, match=r"blk.1.ffn_up.weight holds numbers up to 100,000, too large for F16"
    ):
        gguf.save("m", tmp_path / "m.gguf", "f16")
    gguf.save("m", tmp_path / "m.gguf", "bf16")


def test_weights_that_are_not_whole(tmp_path):
    from safetensors.torch import save_file

    saved("m", bias=True, qkv_bias=True)
    file = paths.models() / "m" / "model.safetensors"
    save_file({name: t for name, t in load_file(file).items() if name != "blocks.1.mlp.up.bias"}, file)
    with pytest.raises(ValueError, match=r"not whole: blocks.1.mlp.up.bias is missing"):
        gguf.save("m", tmp_path / "m.gguf")


def test_the_file_says_what_it_is(tmp_path):
    saved("m")
    (paths.models() / "m" / "README.md").write_text("# m\n\n- licence: apache-2.0\n- organisation: Someone\n")
    notes = gguf.save("m", tmp_path / "Small Model.gguf", "q8_0")
    fields = library.GGUFReader(tmp_path / "Small Model.gguf").fields
    said = {
        name: fields[f"general.{name}"].contents()
        for name in ("architecture", "name", "license", "organization", "file_type")
    }
    assert said == {
        "architecture": "llama",
        "name": "m",
        "license": "apache-2.0",
        "organization": "Someone",
        "file_type": int(library.LlamaFileType.MOSTLY_Q8_0),
    }
    assert (tmp_path / "Small Model.Modelfile").read_text().splitlines() == [
        "FROM ./Small Model.gguf",
        "PARAMETER num_ctx 64",
        'PARAMETER stop "<|endoftext|>"',
        'TEMPLATE "{{ .Prompt }}"',
    ]
    assert any("ollama create" in note for note in notes)


def test_an_unknown_number_format():
    saved("m")
    with pytest.raises(ValueError, match="'q3_k' is no number format that is written here: choose f32, f16"):
        gguf.size("m", "q3_k")
