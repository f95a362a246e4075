"""Every family against Hugging Face's own code: tiny random models, saved by transformers and opened here."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest
import torch

from llm import checkpoint
from llm.config import ModelConfig
from llm.convert import families, folder
from llm.model import GPT, KVCache

transformers = pytest.importorskip("transformers")

TINY = dict(
    vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=64, rms_norm_eps=3e-3, bos_token_id=None, eos_token_id=None,
    pad_token_id=None,
)  # fmt: skip
GPT2 = dict(
    vocab_size=97, n_positions=64, n_embd=32, n_layer=3, n_head=4, layer_norm_epsilon=3e-3, bos_token_id=None,
    eos_token_id=None,
)  # fmt: skip
NEOX = {k: v for k, v in TINY.items() if k not in ("num_key_value_heads", "rms_norm_eps")} | dict(
    num_attention_heads=2, layer_norm_eps=3e-3
)


def rope(theta: float = 700.0, **fields) -> dict:
    return dict(rope_parameters={"rope_type": "default", "rope_theta": theta, **fields})


# name: (config class, settings, and what our config must not be without its logits changing)
CASES: dict[str, tuple[str, dict, list[dict]]] = {
    "gpt2": ("GPT2Config", GPT2, [dict(norm_eps=1e-5), dict(mlp="gelu")]),
    "gpt2, untied, other curve": (
        "GPT2Config", {**GPT2, "tie_word_embeddings": False, "activation_function": "relu", "n_inner": 40},
        [dict(mlp="gelu")],
    ),
    "llama": ("LlamaConfig", {**TINY, **rope()}, [dict(rope_theta=1e4), dict(norm_eps=1e-6)]),
    "llama, tied, biased, wide heads": (
        "LlamaConfig",
        {**TINY, **rope(), "tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True, "head_dim": 16},
        [],
    ),
    "llama, linear": (
        "LlamaConfig", {**TINY, **rope(rope_type="linear", factor=3.0)}, [dict(rope_factor=1.0)],
    ),
    "llama 3": (
        "LlamaConfig",
        {
            **TINY,
            **rope(
                60.0, rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                original_max_position_embeddings=32,
            ),
        },
        [dict(rope_scaling="none"), dict(rope_scaling="linear"), dict(rope_original=64), dict(rope_high=2.0)],
    ),
    "mistral": (
        "MistralConfig", {**TINY, **rope(), "sliding_window": 7, "head_dim": 16},
        [dict(sliding_window=0), dict(sliding_window=8)],
    ),
    "mistral, no window": ("MistralConfig", {**TINY, **rope(), "sliding_window": None}, []),
    "qwen2": ("Qwen2Config", {**TINY, **rope(), "sliding_window": 5}, []),  # use_sliding_window is false
    "qwen2, windows": (
        "Qwen2Config",
        {**TINY, **rope(), "use_sliding_window": True, "sliding_window": 6, "max_window_layers": 0},
        [dict(sliding_window=0)],
    ),
    "qwen3": ("Qwen3Config", {**TINY, **rope(), "head_dim": 16}, []),
    "gemma3": (
        "Gemma3TextConfig",
        {
            **TINY, "num_hidden_layers": 5, "head_dim": 12, "sliding_window": 5, "sliding_window_pattern": 2,
            "query_pre_attn_scalar": 20,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 3.0, "rope_theta": 900.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
            },
        },
        [
            dict(sliding_window=0), dict(global_every=3), dict(score_size=12.0), dict(rope_theta_local=900.0),
            dict(rope_factor=1.0), dict(rope_theta=50.0), dict(embedding_scale=False), dict(mlp="swiglu"),
        ],
    ),
    "olmo2": ("Olmo2Config", {**TINY, **rope()}, [dict(rope_theta=1e4)]),
    "gpt_neox": (
        "GPTNeoXConfig", {**NEOX, **rope(partial_rotary_factor=0.5)}, [dict(parallel=False), dict(rope_share=1.0)],
    ),
    "gpt_neox, in turn, tied": (
        "GPTNeoXConfig",
        {**NEOX, **rope(partial_rotary_factor=0.25), "use_parallel_residual": False, "tie_word_embeddings": True},
        [dict(parallel=True), dict(mlp="gelu_tanh")],
    ),
}  # fmt: skip


def made(name: str, seed: int = 0):
    """A random model of transformers in which no scale is 1 and no bias is 0."""
    kind, settings, _ = CASES[name]
    torch.manual_seed(seed)
    config = getattr(transformers, kind)(**json.loads(json.dumps(settings)))
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.2)
    return model


def opened(source) -> GPT:
    return checkpoint.fill(checkpoint.empty_model(source.config), source.read(), "this model").eval()


def some_ids(B: int, T: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(0, 97, (B, T), generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=CASES)
def name(request) -> str:
    return request.param


@torch.no_grad()
def test_each_family_gives_the_numbers_of_transformers(name, tmp_path):
    theirs = made(name)
    theirs.save_pretrained(tmp_path / "m")
    source = folder.look(tmp_path / "m")
    ours = opened(source)
    assert source.family == theirs.config.model_type and not source.unmatched()
    counts = {theirs.num_parameters(), source.parameters(), sum(source.config.parameters().values())}
    assert counts == {sum(p.numel() for p in ours.parameters())}

    idx = some_ids(2, 40)
    expected = theirs(idx).logits
    assert expected.std() > 0.3
    torch.testing.assert_close(ours(idx), expected, atol=1e-4, rtol=0)
    cache = KVCache(ours.config, 2, 40, like=ours.token_embedding.weight)
    steps = torch.cat([ours(part, cache) for part in idx.split([9, *[1] * 24, 7], dim=1)], dim=1)
    torch.testing.assert_close(steps, expected, atol=1e-4, rtol=0)

    prompt = idx[:1, :9]
    greedy = theirs.generate(prompt, max_new_tokens=20, do_sample=False, pad_token_id=0)
    cache = KVCache(ours.config, 1, 40, like=ours.token_embedding.weight)
    ids, fresh = prompt, prompt
    for _ in range(20):
        fresh = ours(fresh, cache)[:, -1:].argmax(-1)
        ids = torch.cat((ids, fresh), dim=1)
    assert ids.tolist() == greedy.tolist()

    for change in CASES[name][2]:  # each is seen in the logits, or what is above would prove nothing
        other = checkpoint.fill(checkpoint.empty_model(replace(source.config, **change)), source.read(), "x")
        assert (other(idx) - expected).abs().max() > 1e-3, change


@torch.no_grad()
def test_each_family_is_written_back_to_the_bit(name, tmp_path):
    theirs = made(name)
    theirs.save_pretrained(tmp_path / "m")
    source = folder.look(tmp_path / "m")
    ours = dict(source.read())
    written = families.their_config(source.config)
    tensors = dict(families.to_theirs(source.config, ours))
    assert {k: tuple(v.shape) for k, v in tensors.items()} == families.their_shapes(source.config)
    same_family = "mistral, no window" not in name  # which is a Llama by another name
    assert (written["model_type"] == source.family) is same_family

    back = families.model_config(written)
    again = dict(families.to_ours(written, back, tensors.__getitem__, list(tensors)))
    assert again.keys() == ours.keys() and all(torch.equal(again[k], ours[k]) for k in ours)

    (tmp_path / "back").mkdir()
    (tmp_path / "back" / "config.json").write_text(json.dumps({**written, "torch_dtype": "float32"}))
    wanted = {k: ("fp32", tuple(v.shape)) for k, v in tensors.items()}
    checkpoint.write_tensors(tmp_path / "back" / "model.safetensors", wanted, tensors.items())
    opened_there, report = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "back", output_loading_info=True
    )
    assert not any(report.values()), report
    idx = some_ids(2, 40)
    torch.testing.assert_close(opened_there(idx).logits, theirs(idx).logits, atol=1e-5, rtol=0)


OLDER = {  # how transformers 4 writes what the cases above say in the words of transformers 5
    "llama": {"rope_theta": 700.0, "rope_scaling": None},
    "llama, linear": {"rope_theta": 700.0, "rope_scaling": {"type": "linear", "factor": 3.0}},
    "llama 3": {
        "rope_theta": 60.0,
        "rope_scaling": {
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
    },
    "gemma3": {
        "rope_theta": 900.0, "rope_local_base_freq": 50.0, "rope_scaling": {"rope_type": "linear", "factor": 3.0},
        "sliding_window_pattern": 2, "layer_types": None,
    },
    "gpt_neox": {"rotary_emb_base": 700.0, "rotary_pct": 0.5},
    "olmo2": {"rope_theta": 700.0},
}  # fmt: skip


@pytest.mark.parametrize("name", OLDER)
def test_both_spellings_of_rope_are_read(name, tmp_path):
    theirs = made(name)
    theirs.config.save_pretrained(tmp_path)
    newer = json.loads((tmp_path / "config.json").read_text())
    assert "rope_parameters" in newer
    older = {k: v for k, v in newer.items() if k not in ("rope_parameters", "dtype")} | OLDER[name]
    older["torch_dtype"] = "float32"
    assert families.model_config(older) == families.model_config(newer)
    del older["rope_theta" if name != "gpt_neox" else "rotary_emb_base"]
    assert families.model_config(older).rope_theta == (1e6 if name == "gemma3" else 1e4)


def test_gpt2_as_its_first_files_wrote_it(tmp_path):
    """Without the prefix and the head, with the causal mask among the weights, and only the class for a family."""
    theirs = made("gpt2")
    theirs.save_pretrained(tmp_path)
    tensors = {
        k.removeprefix("transformer."): v for k, v in theirs.state_dict().items() if k != "lm_head.weight"
    }
    masks = {f"h.{i}.attn.bias": torch.ones(64, 64).tril().bool() for i in range(3)}
    masks |= {f"h.{i}.attn.masked_bias": torch.tensor(-1e4) for i in range(3)}
    checkpoint.save_file(tensors | masks, tmp_path / "model.safetensors")
    config = json.loads((tmp_path / "config.json").read_text())
    del config["model_type"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    source = folder.look(tmp_path)
    left = [row for row in source.rows if not row.ours]
    assert sorted(row.theirs for row in left) == sorted(masks) and all("mask" in row.how for row in left)
    torch.testing.assert_close(
        opened(source)(some_ids(1, 30)), theirs(some_ids(1, 30)).logits, atol=1e-4, rtol=0
    )
    how = {row.theirs: row.how for row in source.rows}
    assert how["h.0.attn.c_proj.weight"] == "transposed" and how["wte.weight"] == "same"


def test_gpt_neox_with_the_buffers_of_its_first_files(tmp_path):
    theirs = made("gpt_neox")
    theirs.save_pretrained(tmp_path)
    tensors = {k.replace("lm_head", "embed_out"): v for k, v in theirs.state_dict().items()}
    for i in range(3):
        tensors[f"gpt_neox.layers.{i}.attention.bias"] = torch.ones(1, 1, 64, 64).tril().bool()
        tensors[f"gpt_neox.layers.{i}.attention.masked_bias"] = torch.tensor(-1e9)
        tensors[f"gpt_neox.layers.{i}.attention.rotary_emb.inv_freq"] = torch.ones(4)
    checkpoint.save_file(tensors, tmp_path / "model.safetensors")
    source = folder.look(tmp_path)
    assert not source.unmatched() and sum(not row.ours for row in source.rows) == 9
    torch.testing.assert_close(
        opened(source)(some_ids(1, 30)), theirs(some_ids(1, 30)).logits, atol=1e-4, rtol=0
    )


def test_the_text_part_of_a_gemma_that_sees(tmp_path):
    theirs = made("gemma3")
    theirs.save_pretrained(tmp_path)
    text = json.loads((tmp_path / "config.json").read_text())
    config = {
        "model_type": "gemma3",
        "architectures": ["Gemma3ForConditionalGeneration"],
        "text_config": text,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    plain = {k: v for k, v in theirs.state_dict().items() if k != "lm_head.weight"}
    eye = {"vision_tower.vision_model.embeddings.patch_embedding.bias": torch.ones(3)}
    for prefix in ("language_model.model.", "model.language_model."):  # as transformers 4 and 5 write it
        tensors = {k.replace("model.", prefix, 1): v.contiguous() for k, v in plain.items()}
        checkpoint.save_file(tensors | eye, tmp_path / "model.safetensors")
        source = folder.look(tmp_path)
        assert [row.how for row in source.rows if not row.ours] == [
            "sees pictures: only the part that reads text is opened"
        ]
        torch.testing.assert_close(
            opened(source)(some_ids(1, 30)), theirs(some_ids(1, 30)).logits, atol=1e-4, rtol=0
        )


LLAMA = dict(
    model_type="llama", hidden_size=2048, num_attention_heads=32, vocab_size=32000, num_hidden_layers=22,
    num_key_value_heads=4, intermediate_size=5632, max_position_embeddings=2048, rms_norm_eps=1e-5,
)  # fmt: skip


@pytest.mark.parametrize(
    "config, parameters",
    [  # the settings of the published config.json files, and the sums that their model pages state
        (LLAMA, 1_100_048_384),  # TinyLlama 1.1B
        (
            {**LLAMA, "hidden_size": 576, "num_attention_heads": 9, "num_key_value_heads": 3, "num_hidden_layers": 30,
             "intermediate_size": 1536, "vocab_size": 49152, "tie_word_embeddings": True}, 134_515_008,
        ),  # SmolLM2 135M
        (
            {**LLAMA, "num_key_value_heads": 8, "num_hidden_layers": 16, "intermediate_size": 8192, "head_dim": 64,
             "vocab_size": 128256, "tie_word_embeddings": True, "max_position_embeddings": 131072}, 1_235_814_400,
        ),  # Llama 3.2 1B
        (
            {**LLAMA, "model_type": "mistral", "hidden_size": 4096, "num_key_value_heads": 8, "num_hidden_layers": 32,
             "intermediate_size": 14336, "max_position_embeddings": 32768}, 7_241_732_096,
        ),  # Mistral 7B
        (
            {**LLAMA, "model_type": "qwen2", "hidden_size": 896, "num_attention_heads": 14, "num_key_value_heads": 2,
             "num_hidden_layers": 24, "intermediate_size": 4864, "vocab_size": 151936, "tie_word_embeddings": True,
             "max_position_embeddings": 32768}, 494_032_768,
        ),  # Qwen2.5 0.5B
        (
            {**LLAMA, "model_type": "qwen3", "hidden_size": 1024, "num_attention_heads": 16, "num_key_value_heads": 8,
             "num_hidden_layers": 28, "intermediate_size": 3072, "vocab_size": 151936, "tie_word_embeddings": True,
             "max_position_embeddings": 40960}, 596_049_920,
        ),  # Qwen3 0.6B
        (
            {"model_type": "gemma3_text", "hidden_size": 640, "num_attention_heads": 4, "num_key_value_heads": 1,
             "num_hidden_layers": 18, "intermediate_size": 2048, "vocab_size": 262144, "max_position_embeddings": 32768,
             "sliding_window": 512}, 268_098_176,
        ),  # Gemma 3 270M
        (
            {"model_type": "gemma3_text", "hidden_size": 1152, "num_attention_heads": 4, "num_key_value_heads": 1,
             "num_hidden_layers": 26, "intermediate_size": 6912, "vocab_size": 262144, "max_position_embeddings": 32768,
             "sliding_window": 512}, 999_885_952,
        ),  # Gemma 3 1B
        (
            {**LLAMA, "model_type": "olmo2", "num_attention_heads": 16, "num_key_value_heads": 16, "num_hidden_layers": 16,
             "intermediate_size": 8192, "vocab_size": 100352, "max_position_embeddings": 4096}, 1_484_916_736,
        ),  # OLMo 2 1B
        (
            {"model_type": "gpt_neox", "hidden_size": 768, "num_attention_heads": 12, "num_hidden_layers": 12,
             "intermediate_size": 3072, "vocab_size": 50304, "max_position_embeddings": 2048}, 162_322_944,
        ),  # Pythia 160M
        (
            {"model_type": "gpt2", "n_embd": 768, "n_head": 12, "n_layer": 12, "n_positions": 1024, "vocab_size": 50257},
            124_439_808,
        ),  # GPT-2
    ],
)  # fmt: skip
def test_published_models_have_their_published_size(config, parameters):
    ours = families.model_config(config)
    assert sum(ours.parameters().values()) == parameters
    theirs = families.their_config(ours)
    assert theirs["model_type"] == config["model_type"]
    shapes = families.their_shapes(ours)
    assert sum(torch.Size(shape).numel() for shape in shapes.values()) == parameters


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"model_type": "mamba"}, "family 'mamba'; the families opened here are llama"),
        ({"model_type": None}, "does not say its family"),
        ({"model_type": ["llama"]}, "the families opened here"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"hidden_act": ["silu"]}, "hidden_act is"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "rope_type is 'yarn'"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 4.0}}, "no low_freq_factor"),
        ({"rope_scaling": "linear"}, "rope_scaling is 'linear', not a group"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 3.0}}}, "differ from layer to layer"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
        ({"attention_bias": True}, "attention_bias is True and mlp_bias False"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config"),
        ({"num_hidden_layers": 20_000}, "n_layer is 20000; the largest value is 256"),
        ({"hidden_size": "32"}, "n_embd must be of type int"),
        ({"rms_norm_eps": float("nan")}, "norm_eps must be a finite number"),
        ({"num_key_value_heads": 3}, "key/value heads cannot be shared"),
        ({"model_type": "gemma3_text", "final_logit_softcapping": 30.0}, "final_logit_softcapping is 30.0"),
        ({"model_type": "gemma3_text", "use_bidirectional_attention": True}, "use_bidirectional_attention is True"),
        ({"model_type": "gemma3_text", "layer_types": ["full_attention"]}, "layer_types must name 22 layers"),
        ({"model_type": "gemma3_text", "sliding_window_pattern": 0}, "sliding_window_pattern must be"),
        ({"model_type": "qwen2", "use_sliding_window": True, "max_window_layers": 5}, "follow one another"),
        ({"model_type": "gpt2"}, "The config.json has no n_positions"),
        ({"model_type": "gpt_neox", "rotary_pct": 0.3}, "no whole number of pairs"),
        ({"model_type": "gpt_neox", "attention_bias": False}, "attention_bias is False"),
    ],
)  # fmt: skip
def test_what_cannot_be_followed_is_refused_by_name(change, sentence):
    config = {**LLAMA, **change}
    if config["model_type"] == "gpt_neox":
        config["hidden_act"] = "gelu"
    with pytest.raises(ValueError) as refused:
        families.model_config(config)
    assert sentence in str(refused.value)


def test_gpt2_that_scales_otherwise_is_refused():
    config = dict(model_type="gpt2", n_embd=32, n_head=4, n_layer=2, n_positions=16, vocab_size=50)
    assert families.model_config(config).hidden == 128
    for key in ("scale_attn_weights", "scale_attn_by_inverse_layer_idx"):
        value = key != "scale_attn_weights"
        with pytest.raises(ValueError, match=f"{key} is {value}"):
            families.model_config({**config, key: value})


def test_odd_configs_are_refused_and_never_crash():
    """Settings put in at random places, of every JSON type: a config comes out, or a sentence."""
    odd = [
        None,
        True,
        -1,
        0,
        3,
        1e300,
        10**400,
        "x",
        [],
        [1],
        {},
        {"rope_theta": "x"},
        {"a": {}},
        float("inf"),
    ]
    draw, refused = random.Random(0), 0
    starts = [
        families.their_config(families.model_config({**LLAMA, "model_type": k})) for k in ("llama", "qwen3")
    ]
    starts += [
        {"model_type": "gemma3_text"},
        {"model_type": "gemma3", "text_config": {"rope_parameters": {}}},
    ]
    starts.append(
        families.their_config(ModelConfig(vocab_size=5, norm="layernorm", mlp="gelu", parallel=True))
    )
    more = [
        "rope_parameters",
        "layer_types",
        "sliding_window_pattern",
        "use_sliding_window",
        "text_config",
        "architectures",
    ]
    for _ in range(3000):
        config = dict(draw.choice(starts))
        for _ in range(draw.randint(1, 3)):
            config[draw.choice([*config, *more])] = draw.choice(odd)
        try:
            families.model_config(config)
        except (ValueError, OverflowError):  # the second is put in words by the callers, who know the file
            refused += 1
    assert refused > 1000


@pytest.mark.parametrize(
    "fields, sentence",
    [
        (
            dict(norm="layernorm"),
            "the nearest is llama, and this stands in the way: norm is layernorm here and rmsnorm",
        ),
        (
            dict(position="learned"),
            "the nearest is gpt2, and this stands in the way: norm is rmsnorm here and layernorm",
        ),
        (dict(position="none"), "position is none here"),
        (
            dict(position="sinusoidal", norm="layernorm", mlp="relu"),
            "position is sinusoidal here and learned there",
        ),
        (dict(norm_position="post"), "norm_position is post here and pre there"),
        (dict(qk_norm="width"), "qk_norm is width here"),
        (dict(embedding_scale=True), "embedding_scale is True here"),
        (dict(norm="layernorm", mlp="gelu", n_kv_head=2), "n_kv_head is 2 here and 4 there"),
        (dict(score_size=7.0), "score_size is 7.0 here"),
        (dict(rope_theta_local=50.0, sliding_window=5), "rope_theta_local is 50.0 here"),
        (dict(mlp="relu"), "mlp is relu here"),
        (dict(rope_share=0.5), "rope_share is 0.5 here"),
    ],
)
def test_a_model_no_family_can_hold_names_the_setting(fields, sentence):
    with pytest.raises(ValueError) as refused:
        families.their_config(ModelConfig(vocab_size=50, **fields))
    assert sentence in str(refused.value)


@pytest.mark.parametrize(
    "fields, family",
    [
        (dict(), "llama"),
        (dict(mlp="geglu", n_kv_head=1, head_size=16), "llama"),
        (dict(bias=True, qkv_bias=True), "llama"),
        (dict(qkv_bias=True), "qwen2"),
        (dict(sliding_window=4), "mistral"),
        (dict(sliding_window=4, global_every=2), "qwen2"),  # with biases of zero
        (dict(qk_norm="head", sliding_window=4, global_every=3), "qwen3"),
        (dict(qk_norm="width", norm_position="output"), "olmo2"),
        (dict(qk_norm="head", norm_position="sandwich", embedding_scale=True, mlp="geglu"), "gemma3_text"),
        (dict(position="learned", norm="layernorm", mlp="gelu_tanh"), "gpt2"),
        (dict(position="learned", norm="layernorm", mlp="relu", bias=True, qkv_bias=False), "gpt2"),
        (dict(norm="layernorm", mlp="gelu", rope_share=0.5), "gpt_neox"),
    ],
)
@torch.no_grad()
def test_models_made_here_are_opened_by_transformers(fields, family, tmp_path):
    """Where ours has no biases and the family has, they are zeros, and the logits are the same."""
    base = dict(vocab_size=97, context_length=48, n_layer=3, n_head=4, n_embd=32, norm_eps=1e-3)
    torch.manual_seed(0)
    ours = GPT(ModelConfig(**{**base, **fields})).eval()
    for p in ours.parameters():
        p.add_(torch.randn_like(p) * 0.1)
    written = families.their_config(ours.config)
    assert written["model_type"] == family
    weights = {
        k: v for k, v in ours.state_dict().items() if k != "output.weight" or not ours.config.tie_embeddings
    }
    tensors = dict(families.to_theirs(ours.config, weights))
    (tmp_path / "config.json").write_text(json.dumps(written))
    wanted = {k: ("fp32", shape) for k, shape in families.their_shapes(ours.config).items()}
    checkpoint.write_tensors(tmp_path / "model.safetensors", wanted, tensors.items())
    theirs, report = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    idx = some_ids(2, 40)
    torch.testing.assert_close(theirs.float()(idx).logits, ours(idx), atol=1e-4, rtol=0)


SHAPES = [
    dict(), dict(position="learned", norm="layernorm", bias=True, qkv_bias=True, tie_embeddings=False),
    dict(norm_position="post", norm="layernorm"), dict(norm_position="sandwich", qk_norm="head", n_kv_head=1),
    dict(norm_position="output", qk_norm="width", mlp="relu", head_size=10), dict(bias=True),
]  # fmt: skip


@pytest.mark.parametrize("fields", SHAPES)
def test_our_shapes_are_those_of_the_model(fields):
    config = ModelConfig(vocab_size=50, n_layer=2, **fields)
    with torch.device("meta"):
        model = GPT(config)
    stored = {name: tuple(p.shape) for name, p in model.named_parameters()}
    assert families.our_shapes(config) == stored


@pytest.mark.parametrize(
    "flag, head, expected",
    [
        (True, None, True), (False, "other", False), (None, None, True), (None, "other", False), (True, "same", True),
        (True, "other", False), (False, "same", False), (False, None, "output matrix is missing"),
    ],
)  # fmt: skip
def test_the_tensors_decide_whether_the_output_is_the_embedding(flag, head, expected):
    """Llama's flag is false where it is not said."""
    config = {**LLAMA, **({} if flag is None else {"tie_word_embeddings": flag})}
    names = ["model.embed_tokens.weight", "model.norm.weight", *(["lm_head.weight"] if head else [])]
    if isinstance(expected, str):
        with pytest.raises(ValueError, match=expected):
            families.settle_tie(config, names, lambda a, b: head == "same")
        return
    settled, note = families.settle_tie(config, names, lambda a, b: head == "same")
    assert settled["tie_word_embeddings"] is expected
    lied = (flag, head) == (True, "other") or (flag is None and head is None)
    assert bool(note) is lied


def test_a_number_without_end_is_a_sentence():
    theirs = families.their_config(
        ModelConfig(vocab_size=99, position="rope", norm="rmsnorm", mlp="swiglu", bias=False)
    )
    for key in ("rms_norm_eps", "rope_theta"):
        changed = {k: v for k, v in theirs.items() if k != "rope_parameters"} | {key: 10**400}
        with pytest.raises(ValueError, match="a number that is too large"):
            families.model_config(changed)
