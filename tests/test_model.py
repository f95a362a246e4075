"""The model against Hugging Face's, against its own slow ways, and against the published sizes."""

import math

import pytest
import torch
from torch.nn import functional as F

from llm.config import ModelConfig
from llm.model import GPT, KVCache

# Every behaviour at least once; widths small, heads shared in some, so that a wrong reshape cannot hide.
SHAPES = {
    "learned, layernorm": dict(
        position="learned", norm="layernorm", mlp="gelu_tanh", bias=True, qkv_bias=True
    ),
    "sinusoidal, post": dict(position="sinusoidal", norm="layernorm", norm_position="post", mlp="relu"),
    "sinusoidal, odd head": dict(position="sinusoidal", n_embd=30, n_head=2, head_size=7),
    "rope, rmsnorm, grouped": dict(position="rope", norm="rmsnorm", mlp="swiglu", n_kv_head=2),
    "rope, one key head": dict(position="rope", n_kv_head=1, rope_theta=500.0, tie_embeddings=False),
    "rope, post": dict(position="rope", norm="rmsnorm", norm_position="post", mlp="gelu"),
    "none, wide head": dict(position="none", norm="layernorm", head_size=16),
    "window in every layer": dict(sliding_window=5, n_kv_head=2, qkv_bias=True),
    "sandwich, local and global": dict(
        norm_position="sandwich", mlp="geglu", sliding_window=4, global_every=2, rope_theta_local=100.0, qk_norm="head",
        embedding_scale=True, score_size=5.0, rope_scaling="linear", rope_factor=4.0, n_kv_head=1, head_size=16,
    ),
    "norm of the output": dict(norm_position="output", qk_norm="width", n_kv_head=2, tie_embeddings=False),
    "parallel, part of rope": dict(
        parallel=True, rope_share=0.25, norm="layernorm", mlp="gelu", bias=True, qkv_bias=True
    ),
    "rope for long texts": dict(rope_scaling="llama3", rope_factor=8.0, rope_original=32),
}  # fmt: skip


def made(seed: int = 0, **fields) -> GPT:
    """A random model whose logits are large enough to tell right from wrong."""
    torch.manual_seed(seed)
    model = GPT(
        ModelConfig(**{**dict(vocab_size=50, context_length=24, n_layer=2, n_head=4, n_embd=32), **fields})
    )
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.1)
    return model.eval()


def some_ids(B: int, T: int, V: int = 50, seed: int = 1) -> torch.Tensor:
    return torch.randint(0, V, (B, T), generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=SHAPES)
def model(request) -> GPT:
    return made(**SHAPES[request.param])


# --- the same numbers as Hugging Face's transformers


def copied_from_gpt2(theirs) -> tuple[GPT, dict[str, str]]:
    """Our model with the weights of a GPT2LMHeadModel; and which of their names became which of ours."""
    c = theirs.config
    ours = GPT(
        ModelConfig(
            vocab_size=c.vocab_size, context_length=c.n_positions, n_layer=c.n_layer, n_head=c.n_head, n_embd=c.n_embd,
            position="learned", norm="layernorm", mlp="gelu_tanh", bias=True, qkv_bias=True,
            norm_eps=c.layer_norm_epsilon,
        )
    )  # fmt: skip
    names = {"token_embedding.weight": "wte.weight", "position_embedding.weight": "wpe.weight"}
    names |= {f"norm.{kind}": f"ln_f.{kind}" for kind in ("weight", "bias")}
    parts = {"norm1": "ln_1", "norm2": "ln_2", "attention.qkv": "attn.c_attn", "attention.out": "attn.c_proj",
             "mlp.up": "mlp.c_fc", "mlp.down": "mlp.c_proj"}  # fmt: skip
    for i in range(c.n_layer):
        names |= {
            f"blocks.{i}.{a}.{k}": f"h.{i}.{b}.{k}" for a, b in parts.items() for k in ("weight", "bias")
        }
    return ours, names


def turned(ours: str, tensor: torch.Tensor) -> torch.Tensor:
    """GPT-2 keeps its matrices as (in, out); a Linear has (out, in)."""
    is_matrix = ours.startswith("blocks") and tensor.dim() == 2
    return tensor.T if is_matrix else tensor


def test_gpt2_gives_the_logits_and_gradients_of_transformers():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=97, n_positions=20, n_embd=32, n_layer=3, n_head=4, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    theirs = transformers.GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for p in theirs.parameters():  # their biases start at zero, their scales at one: too easy
            p.add_(torch.randn_like(p) * 0.05)
    ours, names = copied_from_gpt2(theirs)
    source = dict(theirs.transformer.named_parameters())
    with torch.no_grad():
        for mine, p in ours.named_parameters():
            p.copy_(turned(mine, source[names[mine]]))
    idx, targets = some_ids(2, 20, 97), some_ids(2, 20, 97, seed=2)
    logits, expected = ours.eval()(idx), theirs(idx).logits
    assert expected.std() > 0.1
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)
    F.cross_entropy(logits.flatten(0, 1), targets.flatten()).backward()
    F.cross_entropy(expected.flatten(0, 1), targets.flatten()).backward()
    for mine, p in ours.named_parameters():
        torch.testing.assert_close(
            p.grad, turned(mine, source[names[mine]].grad), atol=1e-4, rtol=0, msg=mine
        )


def test_llama_gives_the_logits_and_gradients_of_transformers():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=20, rms_norm_eps=1e-5, tie_word_embeddings=False,
        rope_parameters={"rope_type": "default", "rope_theta": 700.0},
    )  # fmt: skip
    theirs = transformers.LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for p in theirs.parameters():
            p.add_(torch.randn_like(p) * 0.05)
    ours = GPT(
        ModelConfig(
            vocab_size=97, context_length=20, n_layer=3, n_head=4, n_kv_head=2, n_embd=32, position="rope",
            rope_theta=700.0, norm="rmsnorm", mlp="swiglu", mlp_hidden=48, tie_embeddings=False,
        )
    )  # fmt: skip
    source = dict(theirs.named_parameters())
    parts = {"norm1": "input_layernorm", "norm2": "post_attention_layernorm", "attention.out": "self_attn.o_proj",
             "mlp.gate": "mlp.gate_proj", "mlp.up": "mlp.up_proj", "mlp.down": "mlp.down_proj"}  # fmt: skip
    names = {"token_embedding.weight": "model.embed_tokens.weight", "norm.weight": "model.norm.weight",
             "output.weight": "lm_head.weight"}  # fmt: skip
    for i in range(3):
        names |= {f"blocks.{i}.{a}.weight": f"model.layers.{i}.{b}.weight" for a, b in parts.items()}

    def of(mine: str, grad: bool) -> torch.Tensor:
        def get(name):
            return source[name].grad if grad else source[name]

        if mine in names:
            return get(names[mine])
        prefix = mine.replace("blocks", "model.layers").replace("attention.qkv.weight", "self_attn.")
        return torch.cat([get(f"{prefix}{letter}_proj.weight") for letter in "qkv"])

    with torch.no_grad():
        for mine, p in ours.named_parameters():
            p.copy_(of(mine, grad=False))
    idx, targets = some_ids(2, 20, 97), some_ids(2, 20, 97, seed=2)
    logits, expected = ours.eval()(idx), theirs(idx).logits
    assert expected.std() > 0.1
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)
    F.cross_entropy(logits.flatten(0, 1), targets.flatten()).backward()
    F.cross_entropy(expected.flatten(0, 1), targets.flatten()).backward()
    for mine, p in ours.named_parameters():
        torch.testing.assert_close(p.grad, of(mine, grad=True), atol=1e-4, rtol=0, msg=mine)


# --- properties


@torch.no_grad()
def test_changing_the_future_changes_nothing(model):
    idx = some_ids(2, 24)
    logits = model(idx)
    for t in (1, 11, 23):
        changed = idx.clone()
        changed[:, t:] = (changed[:, t:] + 1) % 50
        again = model(changed)
        torch.testing.assert_close(again[:, :t], logits[:, :t], atol=1e-5, rtol=0)
        assert (again[:, t] - logits[:, t]).abs().max() > 1e-3  # and the present does change


@torch.no_grad()
def test_the_order_of_tokens_matters_where_there_are_positions():
    idx = some_ids(1, 8)
    swapped = idx[:, [1, 0, 2, 3, 4, 5, 6, 7]]
    for position in ("learned", "sinusoidal", "rope"):
        model = made(position=position, n_layer=1)
        assert (model(idx)[:, -1] - model(swapped)[:, -1]).abs().max() > 1e-3, position
    model = made(position="none", n_layer=1)  # one layer without positions sees a bag of tokens
    torch.testing.assert_close(model(idx)[:, -1], model(swapped)[:, -1], atol=1e-5, rtol=0)


@torch.no_grad()
def test_with_a_cache_token_by_token_is_the_same_as_without(model):
    idx = some_ids(2, 24)
    cache = KVCache(model.config, 2, 24, like=model.token_embedding.weight)
    steps = torch.cat([model(idx[:, t : t + 1], cache) for t in range(24)], dim=1)
    torch.testing.assert_close(steps, model(idx), atol=1e-4, rtol=0)
    assert cache.lengths.tolist() == [24, 24]


@torch.no_grad()
def test_a_cache_filled_in_chunks_is_the_same(model):
    idx = some_ids(1, 24)
    cache = KVCache(model.config, 1, 24, like=model.token_embedding.weight)
    chunks = torch.cat([model(part, cache) for part in idx.split([9, 1, 14], dim=1)], dim=1)
    torch.testing.assert_close(chunks, model(idx), atol=1e-4, rtol=0)


@torch.no_grad()
def test_rows_of_different_lengths_live_in_one_cache(model):
    rows = [some_ids(1, T, seed=T) for T in (3, 9, 18)]
    cache = KVCache(model.config, 3, 24, like=model.token_embedding.weight)
    for i, row in enumerate(rows):  # each prompt by itself, into its own row
        alone = KVCache(model.config, 1, 24, like=cache.keys)
        model(row, alone)
        cache.keys[:, i], cache.values[:, i], cache.lengths[i] = (
            alone.keys[:, 0],
            alone.values[:, 0],
            row.shape[1],
        )
    new = some_ids(3, 5, seed=7)
    together = torch.cat([model(new[:, t : t + 1], cache) for t in range(5)], dim=1)
    for i, row in enumerate(rows):
        alone = model(torch.cat((row, new[i : i + 1]), dim=1))[0, -5:]
        torch.testing.assert_close(together[i], alone, atol=1e-4, rtol=0)


@torch.no_grad()
def test_the_written_out_way_and_the_watched_way_are_the_fast_way(model):
    idx = some_ids(2, 24)
    fast = model(idx)
    for block in model.blocks:
        block.attention.fast = True
    torch.testing.assert_close(model(idx), fast, atol=1e-4, rtol=0)
    seen = {}
    for place, module in model.named_modules():
        if hasattr(module, "tap"):
            module.tap = lambda name, tensor, place=place: seen.setdefault(f"{place}.{name}", tensor)
    torch.testing.assert_close(model(idx), fast, atol=1e-4, rtol=0)
    weights = seen["blocks.0.attention.weights"]  # (B, H, T, T)
    assert weights.shape == (2, model.config.n_head, 24, 24)
    torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
    assert weights.triu(1).abs().max() == 0
    scores, scaled = seen["blocks.1.attention.scores"], seen["blocks.1.attention.scaled"]
    torch.testing.assert_close(scaled, scores / math.sqrt(model.config.score_size or model.config.head_dim))


@torch.no_grad()
def test_the_fast_way_with_a_cache_is_the_same():
    model, idx = made(n_kv_head=2), some_ids(2, 12)
    for block in model.blocks:
        block.attention.fast = True
    cache = KVCache(model.config, 2, 24, like=model.token_embedding.weight)
    steps = torch.cat([model(part, cache) for part in idx.split([5, 1, 1, 5], dim=1)], dim=1)
    torch.testing.assert_close(steps, model(idx), atol=1e-4, rtol=0)


def test_both_ways_have_the_same_gradients(model):
    idx, targets = some_ids(2, 24), some_ids(2, 24, seed=3)
    grads = []
    for way in (False, True):
        for block in model.blocks:
            block.attention.fast = way
        model.zero_grad()
        F.cross_entropy(model(idx).flatten(0, 1), targets.flatten()).backward()
        grads.append({name: p.grad.clone() for name, p in model.named_parameters()})
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, atol=1e-4, rtol=1e-3, msg=name)


def test_dropout_acts_in_training_only():
    model, idx = made(dropout=0.5), some_ids(2, 24)
    assert torch.equal(model(idx), model(idx))
    model.train()
    assert not torch.equal(model(idx), model(idx))


@torch.no_grad()
def test_rope_scores_depend_on_the_distance_only():
    from llm.model import rope_angles, rope_rates, rotate

    q, k = torch.randn(2, 1, 1, 1, 16, generator=torch.Generator().manual_seed(0))

    def score(p_q: int, p_k: int) -> float:
        turn = [
            rotate(x, rope_angles(torch.tensor([[p]]), rope_rates(16, 10_000.0)))
            for x, p in ((q, p_q), (k, p_k))
        ]
        return float((turn[0] * turn[1]).sum())

    assert score(7, 3) == pytest.approx(score(104, 100), abs=1e-4)
    assert abs(score(7, 3) - score(7, 5)) > 1e-3


def test_a_new_model_knows_nothing():
    """The loss of a fresh model is that of a guess among V tokens, ln V."""
    for fields in SHAPES.values():
        torch.manual_seed(0)
        model = GPT(
            ModelConfig(
                **{**dict(vocab_size=1000, context_length=64, n_layer=4, n_head=4, n_embd=64), **fields}
            )
        )
        if model.config.norm_position == "post" and model.config.tie_embeddings:
            continue  # the stream leaves with size 1 whatever the depth, and meets the embedding it came from
        idx, targets = some_ids(8, 64, 1000), some_ids(8, 64, 1000, seed=2)
        loss = F.cross_entropy(model(idx).flatten(0, 1), targets.flatten()).item()
        # logits spread by s lift it by s^2 / 2, and tied ones begin with s of 0.55
        assert loss == pytest.approx(math.log(1000), abs=0.25), fields


# --- sizes

GPT2 = {  # (n_layer, n_head, n_embd): Radford et al. 2019, table 2; the sums are those of the published checkpoints
    "small": ((12, 12, 768), 124_439_808),
    "medium": ((24, 16, 1024), 354_823_168),
    "large": ((36, 20, 1280), 774_030_080),
    "xl": ((48, 25, 1600), 1_557_611_200),
}


def gpt2(size: str = "small", **fields) -> ModelConfig:
    (n_layer, n_head, n_embd), _ = GPT2[size]
    return ModelConfig(
        **{
            **dict(
                vocab_size=50257, context_length=1024, n_layer=n_layer, n_head=n_head, n_embd=n_embd,
                position="learned", norm="layernorm", mlp="gelu_tanh", bias=True, qkv_bias=True,
            ),
            **fields,
        }
    )  # fmt: skip


@pytest.mark.parametrize("size", GPT2)
def test_parameters_of_the_gpt2_family(size):
    config = gpt2(size)
    assert sum(config.parameters().values()) == GPT2[size][1]
    with torch.device("meta"):
        assert sum(p.numel() for p in GPT(config).parameters()) == GPT2[size][1]


@pytest.mark.parametrize(
    "fields, expected",
    [
        (dict(qkv_bias=False), 124_412_160),
        (dict(tie_embeddings=False), 163_037_184),
        (dict(tie_embeddings=False, qkv_bias=False), 163_009_536),
    ],
)
def test_parameters_of_gpt2_small_without_some_parts(fields, expected):
    assert sum(gpt2(**fields).parameters().values()) == expected


def test_parameters_by_formula_are_those_that_exist(model):
    formula = model.config.parameters()
    assert sum(formula.values()) == sum(p.numel() for p in model.parameters())
    counted = dict.fromkeys(formula, 0)
    for name, p in model.named_parameters():
        part = next(
            part
            for part, word in (("token embedding", "token_embedding"), ("position embedding", "position_embedding"),
                               ("norms", "norm"), ("attention", ".attention."), ("mlp", ".mlp."), ("output", "output"))
            if word in name
        )  # fmt: skip
        counted[part] += p.numel()
    assert counted == formula


def test_tied_matrices_are_one():
    tied, untied = made(), made(tie_embeddings=False)
    assert tied.output.weight.data_ptr() == tied.token_embedding.weight.data_ptr()
    assert untied.output.weight.data_ptr() != untied.token_embedding.weight.data_ptr()
    tied(some_ids(1, 4)).sum().backward()
    assert len(list(untied.parameters())) == len(list(tied.parameters())) + 1


# --- what is refused


@pytest.mark.parametrize(
    "fields, words",
    [
        (dict(n_embd=100, n_head=7), ("7 heads", "100", "5 or 10 heads", "98 or 105")),
        (dict(n_embd=768, n_head=11), ("11 heads", "768", "8 or 12 heads", "759 or 770")),
        (dict(n_head=6, n_embd=48, n_kv_head=4), ("4 key/value heads", "6 heads", "3 or 6")),
        (dict(n_head=4, n_embd=20, position="rope"), ("even", "5")),
        (dict(n_layer=0), ("n_layer", "0", "smallest", "1")),
        (dict(norm="batchnorm"), ("norm", "layernorm", "rmsnorm", "batchnorm")),
    ],
)
def test_impossible_shapes_are_refused_with_what_is_possible(fields, words):
    with pytest.raises(ValueError) as error:
        ModelConfig(**fields)
    for word in words:
        assert word in str(error.value)


def test_the_values_proposed_are_accepted():
    for n_head, n_embd in ((5, 100), (10, 100), (7, 98), (7, 105)):
        ModelConfig(n_head=n_head, n_embd=n_embd, position="learned")


@torch.no_grad()
def test_heads_may_be_wider_together_than_the_model():
    model = made(n_embd=32, n_head=4, head_size=16)
    assert model.blocks[0].attention.qkv.weight.shape == (3 * 64, 32)
    assert model(some_ids(1, 5)).shape == (1, 5, 50)


@torch.no_grad()
def test_a_learned_position_that_does_not_exist_is_said():
    model = made(position="learned")
    with pytest.raises(ValueError, match=r"24 positions.*25"):
        model(some_ids(1, 25))
    for position in ("sinusoidal", "rope", "none"):  # these can be computed beyond the context
        assert made(position=position)(some_ids(1, 25)).shape == (1, 25, 50)
