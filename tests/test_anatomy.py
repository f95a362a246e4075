"""A model's parts, memory and KV cache from its config, held against the model itself and against published numbers."""

from __future__ import annotations

import itertools

import pytest
import torch

from llm import anatomy
from llm.config import PRESETS, ModelConfig
from llm.model import GPT, KVCache

SMALL = dict(vocab_size=50, context_length=12, n_layer=2, n_head=4, n_embd=16)
CONFIGS = {
    "llama": ModelConfig(**SMALL, n_kv_head=2, tie_embeddings=False),
    "gpt2": ModelConfig(**SMALL, position="learned", norm="layernorm", mlp="gelu_tanh", bias=True, qkv_bias=True),
    "qwen2": ModelConfig(**SMALL, n_kv_head=1, qkv_bias=True),
    "qwen3": ModelConfig(**SMALL, n_kv_head=2, head_size=6, qk_norm="head"),
    "gemma3": ModelConfig(**SMALL, n_kv_head=1, head_size=8, qk_norm="head", norm_position="sandwich", mlp="geglu",
                          sliding_window=4, global_every=2, embedding_scale=True, rope_theta_local=1e4),
    "olmo2": ModelConfig(**SMALL, qk_norm="width", norm_position="output", tie_embeddings=False),
    "neox": ModelConfig(**SMALL, norm="layernorm", parallel=True, rope_share=0.5, mlp="gelu", bias=True, qkv_bias=True),
    "first transformer": ModelConfig(**SMALL, position="sinusoidal", norm="layernorm", norm_position="post", mlp="relu"),
    "no positions": ModelConfig(**SMALL, position="none"),
}  # fmt: skip


def in_memory(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the real model's tensors, as a model directory stores them."""
    with torch.device("meta"):
        stored = GPT(config).state_dict()
    if config.tie_embeddings:
        del stored["output.weight"]
    return {name: tuple(tensor.shape) for name, tensor in stored.items()}


@pytest.mark.parametrize("name", CONFIGS)
def test_every_tensor_has_its_real_name_and_shape(name):
    assert dict(anatomy.tensors(CONFIGS[name])) == in_memory(CONFIGS[name])


@pytest.mark.parametrize("name", CONFIGS)
def test_the_parts_sum_to_the_formula_and_to_the_model(name):
    config = CONFIGS[name]
    parts = anatomy.parts(config)
    with torch.device("meta"):
        model = GPT(config)
    real = sum(p.numel() for p in model.parameters())  # a shared tensor counts once
    assert sum(part.parameters for part in parts) == anatomy.parameters(config) == real


def test_the_parts_stand_in_the_order_a_token_passes_them():
    names = [part.name for part in anatomy.parts(CONFIGS["gpt2"])]
    assert names == [
        "token embedding", "position embedding", "norm1", "attention", "norm2", "mlp", "final norm", "output",
    ]  # fmt: skip
    assert [p.name for p in anatomy.block(CONFIGS["gemma3"])] == [
        "norm1", "attention", "norm1_out", "norm2", "mlp", "norm2_out",
    ]  # fmt: skip
    assert [p.name for p in anatomy.block(CONFIGS["olmo2"])] == ["attention", "norm1", "mlp", "norm2"]
    assert "final norm" not in [part.name for part in anatomy.parts(CONFIGS["first transformer"])]


def test_gpt2_has_its_published_size_and_memory():
    config = ModelConfig(vocab_size=50257, **PRESETS["GPT-2 124M"])
    assert anatomy.parameters(config) == 124_439_808  # Hugging Face's count of openai-community/gpt2
    assert anatomy.memory(config) == {
        "fp32": 497_759_232, "bf16": 248_879_616, "int8": 124_439_808, "4-bit": 62_219_904,
    }  # fmt: skip


def test_the_cache_of_llama_3_8b_takes_a_gigabyte_for_8192_tokens():
    """2 x 32 layers x 8 key/value heads x 128 numbers x 8,192 tokens x 2 bytes."""
    config = ModelConfig(
        vocab_size=128256, context_length=8192, n_layer=32, n_head=32, n_kv_head=8, n_embd=4096
    )
    assert anatomy.cache_bytes(config, 8192) == 2**30
    assert anatomy.cache_bytes(config, 8192, 4) == 2**31
    assert anatomy.cache_curve(config)[-1] == (8192, 2**30)


@pytest.mark.parametrize("name", ["llama", "qwen3", "neox"])
def test_the_formula_is_what_the_model_allocates(name):
    config = CONFIGS[name]
    cache = KVCache(config, batch=1, length=12, like=torch.zeros(1, dtype=torch.bfloat16))
    assert cache.keys.nbytes + cache.values.nbytes == anatomy.cache_bytes(config, 12, 2)


def test_layers_with_a_window_keep_only_its_tokens():
    config = CONFIGS["gemma3"]  # layer 0 slides over 4 tokens, layer 1 is global; K = 1, D = 8
    assert anatomy.sliding_layers(config) == 1
    assert anatomy.cache_bytes(config, 3) == 2 * 8 * (3 + 3) * 2
    assert anatomy.cache_bytes(config, 10) == 2 * 8 * (4 + 10) * 2
    assert (4, 2 * 8 * (4 + 4) * 2) in anatomy.cache_curve(config)


def test_the_curve_rises_and_ends_at_the_context():
    for config in CONFIGS.values():
        curve = anatomy.cache_curve(config)
        assert curve[-1][0] == config.context_length
        assert all(a < b and x <= y for (a, x), (b, y) in itertools.pairwise(curve))


def test_words_say_the_shape():
    config = ModelConfig(vocab_size=1280, n_kv_head=2)
    assert anatomy.in_words(config) == (
        "3 blocks of width 128, 4 heads on 2 key/value heads, RoPE, RMSNorm, SwiGLU"
    )
    one = ModelConfig(
        vocab_size=9, n_layer=1, n_head=1, n_embd=8, position="learned", norm="layernorm", mlp="relu"
    )
    assert anatomy.in_words(one) == "1 block of width 8, 1 head, learned positions, LayerNorm, ReLU"


def test_behaviours_name_what_the_file_says():
    said = dict(anatomy.behaviours(ModelConfig(vocab_size=9, rope_theta=500_000, norm_eps=1e-3)))
    assert said["RoPE base"] == "500,000"
    assert said["Norm"].endswith("epsilon 0.001")
    assert "Sliding window" not in said
    gemma = dict(anatomy.behaviours(CONFIGS["gemma3"]))
    assert gemma["Sliding window"] == "1 of 2 layers see 4 tokens"
    assert gemma["RoPE base of sliding layers"] == "10,000"
    assert dict(anatomy.behaviours(CONFIGS["gpt2"]))["Biases"] == "q, k, v, attention's output, MLP"
