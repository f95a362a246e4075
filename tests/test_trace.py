"""What the trace shows against transformers, against formulas computed another way, and against the untouched model."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from llm import trace as t
from llm.config import ModelConfig
from llm.model import GPT, Tapped, untouched
from llm.tokenizer import ByteTokenizer

SHAPES = {
    "gpt2": dict(position="learned", norm="layernorm", mlp="gelu_tanh", bias=True, qkv_bias=True),
    "llama": dict(position="rope", norm="rmsnorm", mlp="swiglu", n_kv_head=2),
    "post": dict(
        position="sinusoidal", norm="layernorm", norm_position="post", mlp="relu", tie_embeddings=False
    ),
    "bare": dict(position="none", norm="layernorm", mlp="gelu", head_size=6),
    "gemma": dict(
        norm_position="sandwich", mlp="geglu", sliding_window=4, global_every=3, rope_theta_local=100.0, qk_norm="head",
        embedding_scale=True, score_size=5.0, n_kv_head=1, head_size=16,
    ),
    "olmo": dict(norm_position="output", qk_norm="width", n_kv_head=2, tie_embeddings=False),
    "neox": dict(
        parallel=True, rope_share=0.5, norm="layernorm", mlp="gelu", bias=True, qkv_bias=True, tie_embeddings=False
    ),
}  # fmt: skip
TEXT = "The cat sat on a mat."
ENCODING = ByteTokenizer()


def made(seed: int = 0, **fields) -> GPT:
    """A random model whose attention is far from even and whose scales and shifts are not 1 and 0."""
    torch.manual_seed(seed)
    model = GPT(
        ModelConfig(**{**dict(vocab_size=257, context_length=24, n_layer=3, n_head=4, n_embd=32), **fields})
    )
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.15)
    return model.eval()


@pytest.fixture(params=SHAPES)
def model(request) -> GPT:
    return made(**SHAPES[request.param])


def ids(T: int = 12, B: int = 1, V: int = 257) -> torch.Tensor:
    return torch.randint(0, V, (B, T), generator=torch.Generator().manual_seed(3))


def taps(model: GPT) -> list:
    return [m.tap for m in model.modules() if isinstance(m, Tapped)]


# --- looking in


def test_the_watched_way_gives_the_logits_of_the_fast_way(model):
    idx = ids(B=2)
    expected = model(idx)
    torch.testing.assert_close(t.trace(model, idx)["logits"], expected, atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(model(idx), expected, atol=0, rtol=0)


def test_only_what_is_wanted_is_kept(model):
    found = t.trace(model, ids(), ("blocks.*.attention.weights", "logits"))
    assert set(found) == {f"blocks.{i}.attention.weights" for i in range(3)} | {"logits"}
    assert not any(tensor.requires_grad for tensor in found.values())


def test_taps_modes_and_random_state_come_back_after_an_error():
    model = made(dropout=0.3, **SHAPES["gpt2"])
    model.train()
    model.blocks[1].eval()  # a mixed state is restored as it was
    modes = [m.training for m in model.modules()]
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)

    def fail(tensor):
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        t.trace(model, ids(), replace={"blocks.1.mlp.out": fail}, training=True, dropout=0.9)
    assert all(tap is untouched for tap in taps(model))
    assert [m.training for m in model.modules()] == modes
    assert model.blocks[0].attention.dropout == model.blocks[0].drop.p == 0.3
    torch.testing.assert_close(torch.rand(3), expected)


def test_one_watcher_inside_another_gives_the_place_back(model):
    outer, inner = [], []
    with t.watching(model, lambda name, x: outer.append(name) or x, ("logits",)):
        with t.watching(model, lambda name, x: inner.append(name) or x, ("logits",)):
            model(ids())
        model(ids())
    assert "logits" in outer and "logits" in inner and all(tap is untouched for tap in taps(model))


def test_a_replacement_of_another_shape_is_refused(model):
    with pytest.raises(ValueError, match="cannot be replaced"):
        t.trace(model, ids(), replace={"final": lambda x: x[:, :1]})


def test_muting_a_head_is_taking_its_part_out_of_the_attention_output(model):
    whole = t.trace(model, ids())
    without = t.trace(model, ids(), replace={"blocks.1.attention.heads": t.silence([2])})
    part = t.head_parts(model, whole, 1)[2]
    name = "blocks.1.attention.out"
    torch.testing.assert_close(without[name][0], whole[name][0] - part, atol=1e-5, rtol=1e-4)
    assert (whole["logits"] - without["logits"]).abs().max() > 1e-3


# --- attention


def test_weights_are_a_causal_probability_also_right_after_training_with_dropout(model):
    for module in model.modules():
        if hasattr(module, "dropout"):
            module.dropout = 0.5
    model.train()
    model(ids()).sum().backward()  # a training step just happened, and the model is still in that mode
    first = t.run(model, ENCODING, "Hi you")
    assert model.training
    again = t.run(model, ENCODING, "Hi you")
    for layer in range(3):
        for head in range(4):
            one = t.run(model, ENCODING, "Hi you", layer=layer, head=head)["stages"]
            weights = one["weights"]
            np.testing.assert_allclose(weights.sum(1), 1, atol=1e-5)
            assert weights.min() >= 0 and weights.max() <= 1
            assert (weights[np.triu_indices(6, 1)] == 0).all()
            np.testing.assert_array_equal(weights[0], [1, 0, 0, 0, 0, 0])
            np.testing.assert_array_equal(one["dropped"], weights)  # nothing is dropped outside training
            np.testing.assert_array_equal(first["maps"][layer, head], weights.astype(np.float16))
    for name, stage in first["stages"].items():
        np.testing.assert_array_equal(stage, again["stages"][name])


def test_stages_follow_the_formula(model):
    found = t.trace(model, ids())
    c = model.config
    for layer, head in ((0, 0), (2, 3)):
        at, kv = f"blocks.{layer}.attention.", head // (c.n_head // c.kv_heads)
        turned = "_turned" if c.position == "rope" else ""
        q, k = found[f"{at}q{turned}"][0, head].double(), found[f"{at}k{turned}"][0, kv].double()
        stages = t.head_stages(found, layer, head)
        torch.testing.assert_close(stages["scores"].double(), q @ k.T, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(
            stages["scaled"].double(), q @ k.T / math.sqrt(c.score_size or c.head_dim), atol=1e-5, rtol=1e-4
        )
        hidden = torch.ones(12, 12).triu(1).bool()
        if c.slides(layer):
            hidden |= torch.ones(12, 12).tril(-c.sliding_window).bool()
        exps = (q @ k.T / math.sqrt(c.score_size or c.head_dim)).exp().masked_fill(hidden, 0)
        torch.testing.assert_close(
            stages["weights"].double(), exps / exps.sum(1, keepdim=True), atol=1e-6, rtol=1e-4
        )
        assert (stages["masked"].isneginf() == hidden).all()


def test_the_scale_is_of_the_head_size_where_it_is_not_width_by_heads():
    model = made(**SHAPES["bare"])  # 4 heads of 6 in a width of 32
    stages = t.head_stages(t.trace(model, ids()), 0, 0)
    torch.testing.assert_close(
        stages["scores"] / stages["scaled"], torch.full((12, 12), math.sqrt(6)), atol=1e-3, rtol=0
    )


@pytest.mark.parametrize("own, chosen", [(0.0, 0.25), (0.5, 0.0), (0.1, 0.5)])
def test_dropout_zeroes_its_share_and_the_kept_grow_by_one_over_one_minus_p(own, chosen):
    model = made(context_length=64, dropout=own, **SHAPES["llama"])
    text, p = "a long enough text to count the zeros in, as one should do", chosen or own
    view = t.run(model, ENCODING, text, training=True, dropout=chosen)
    weights, dropped = view["stages"]["weights"], view["stages"]["dropped"]
    seen = np.tril(np.ones_like(weights)) > 0
    kept = seen & (dropped != 0)
    np.testing.assert_allclose(dropped[kept], weights[kept] / (1 - p), rtol=1e-5)
    assert abs(1 - kept.sum() / seen.sum() - p) < 0.06 and view["dropout"] == p
    assert view["zeroed"] == seen.sum() - kept.sum() and view["seen"] == seen.sum()
    assert view["row_sum"] == pytest.approx(float(dropped.sum(1).mean()), rel=1e-5)
    same = t.run(model, ENCODING, text, training=True, dropout=chosen)
    np.testing.assert_array_equal(same["stages"]["dropped"], dropped)
    other = t.run(model, ENCODING, text, training=True, dropout=chosen, seed=1)
    assert (other["stages"]["dropped"] != dropped).any()


def test_every_number_of_a_cell(model):
    c = model.config
    for layer, head, row, column in ((0, 1, 9, 4), (2, 3, 5, 5), (1, 0, 3, 8)):
        steps = t.cell(model, ENCODING, TEXT, layer, head, row, column)
        stages = t.run(model, ENCODING, TEXT, layer=layer, head=head)["stages"]
        np.testing.assert_allclose(np.multiply(steps["q"], steps["k"]), steps["products"], rtol=1e-5)
        assert steps["dot"] == pytest.approx(sum(steps["products"]), abs=1e-4)
        assert steps["dot"] == pytest.approx(stages["scores"][row, column], abs=1e-4)
        assert steps["scaled"] == pytest.approx(
            steps["dot"] / math.sqrt(c.score_size or c.head_dim), abs=1e-5
        )
        assert steps["row_sum"] == pytest.approx(sum(steps["row_exps"]), rel=1e-5)
        assert len(steps["row_exps"]) == row + 1 and max(steps["row_exps"]) == 1
        assert steps["weight"] == pytest.approx(steps["exp"] / steps["row_sum"], rel=1e-5)
        assert steps["weight"] == pytest.approx(stages["weights"][row, column], abs=1e-6)
        assert steps["model_weight"] == pytest.approx(stages["weights"][row, column], abs=1e-6)
        hidden = column > row or (c.slides(layer) and column <= row - c.sliding_window)
        assert steps["masked"] == hidden and (steps["weight"] == 0) == hidden
        assert len(steps["q"]) == len(steps["k"]) == c.head_dim


def test_rope_turns_the_q_and_k_of_a_cell_by_its_angles():
    model = made(**SHAPES["llama"])
    steps = t.cell(model, ENCODING, TEXT, 1, 2, 7, 3)
    for vector, place in (("q", 0), ("k", 1)):
        before, half = steps[f"{vector}_before"], model.config.head_dim // 2
        for i, angle in enumerate(steps["angles"][place]):
            turned = complex(before[i], before[i + half]) * complex(math.cos(angle), math.sin(angle))
            assert steps[vector][i] == pytest.approx(turned.real, abs=1e-5)
            assert steps[vector][i + half] == pytest.approx(turned.imag, abs=1e-5)


def test_entropy_in_bits_by_hand():
    weights = torch.tensor([[1.0, 0, 0, 0], [0.5, 0.5, 0, 0], [0.5, 0.25, 0.25, 0], [0.25] * 4])
    torch.testing.assert_close(t.entropy(weights), torch.tensor([0, 1, 1.5, 2.0]))
    model = made(**SHAPES["gpt2"])
    view = t.run(model, ENCODING, TEXT)
    assert (view["entropy"][:, :, 0] == 0).all()
    assert (view["entropy"] <= np.log2(np.arange(1, len(TEXT) + 1)) + 1e-4).all()


def test_only_the_head_size_gives_the_models_own_entropy():
    model = made(**SHAPES["llama"])
    view = t.run(model, ENCODING, TEXT, layer=1, head=2)
    own = float(view["entropy"][1, 2].mean())
    assert view["spreads"]["head size"] == pytest.approx(own, abs=1e-5)
    assert view["spreads"]["one"] < own - 0.01 < own + 0.01 < view["spreads"]["width"]


def test_the_entropy_of_a_model_that_divides_by_a_size_of_its_own_and_slides():
    model = made(**SHAPES["gemma"])
    for layer in (0, 2):  # a sliding one and one that sees all
        view = t.run(model, ENCODING, TEXT, layer=layer, head=1)
        assert view["spreads"]["own"] == pytest.approx(float(view["entropy"][layer, 1].mean()), abs=1e-5)
        assert view["divisor"] == pytest.approx(math.sqrt(5))
    assert view["windows"] == [4, 4, 0]
    stage = t.run(model, ENCODING, TEXT, layer=0, head=1)["stages"]
    row, column = np.indices(stage["masked"].shape)
    np.testing.assert_array_equal(stage["masked"] == -np.inf, (column > row) | (row - column >= 4))
    assert (stage["weights"][stage["masked"] == -np.inf] == 0).all()


def test_a_cell_outside_the_window_is_masked_and_the_row_begins_where_it_does():
    model = made(**SHAPES["gemma"])
    far, near = (t.cell(model, ENCODING, TEXT, 0, 1, 9, column) for column in (5, 6))
    assert far["masked"] and far["weight"] == 0 and not near["masked"] and near["first"] == far["first"] == 6
    assert near["row_exps"][:6] == [0] * 6 and sum(near["row_exps"]) == pytest.approx(
        near["row_sum"], abs=1e-5
    )
    assert near["scaled"] == pytest.approx(near["dot"] / math.sqrt(5), abs=1e-5) and near["divided_by"] == 5


@pytest.mark.parametrize("shape", ["gemma", "olmo"])
def test_what_q_and_k_are_normed_by(shape):
    model = made(**SHAPES[shape])
    attention = model.blocks[1].attention
    found = t.trace(model, torch.tensor([list(TEXT.encode())]))
    with torch.no_grad():
        x = found["blocks.1.norm1"] if shape == "gemma" else found["blocks.1.input"]
        rows = attention.qkv(x)[0]  # (T, rows): q then k then v
    H, K, D = attention.n_head, attention.n_kv_head, attention.head_dim
    q, k = rows[7, : H * D].view(H, D), rows[3, H * D : (H + K) * D].view(K, D)
    kv = 3 // (H // K)
    q, k = (q[3], k[kv]) if shape == "gemma" else (q.flatten(), k.flatten())
    view = t.cell(model, ENCODING, TEXT, 1, 3, 7, 3)
    for root, raw in ((view["q_root"], q), (view["k_root"], k)):
        assert root == pytest.approx(math.sqrt(float(raw.pow(2).mean()) + 1e-5), rel=1e-4)


def test_without_maps_the_rest_is_the_same(model):
    whole, part = (t.run(model, ENCODING, TEXT, layer=1, head=2, maps=maps) for maps in (True, False))
    assert "maps" not in part and "entropy" not in part
    np.testing.assert_allclose(part["stages"]["weights"], whole["stages"]["weights"], atol=1e-5)
    assert [id for id, *_ in part["next"]] == [id for id, *_ in whole["next"]]


def test_only_the_modules_spoken_of_leave_their_fast_way(model):
    seen = []
    with t.watching(
        model, lambda name, tensor: seen.append(name) or tensor, ("blocks.*.output", "blocks.1.mlp.after")
    ):
        model(ids())
        assert not any(block.attention.watched for block in model.blocks) and model.blocks[1].mlp.watched
    assert "blocks.2.output" in seen and not any("attention" in name and "out" not in name for name in seen)


def test_a_small_map_keeps_the_largest_weight_of_each_square():
    weights = torch.rand(2, 130, 130, generator=torch.Generator().manual_seed(0))
    small = t.small_map(weights, 64)
    assert small.shape == (2, 44, 44)
    assert small[1, 0, 2] == weights[1, 0:3, 6:9].max() and small[0, 43, 43] == weights[0, 129:, 129:].max()
    torch.testing.assert_close(t.small_map(weights, 200), weights, atol=0, rtol=0)


def test_the_parts_of_the_heads_sum_to_the_attention_output(model):
    found = t.trace(model, ids())
    out = model.blocks[1].attention.out
    total = t.head_parts(model, found, 1).sum(0) + (0 if out.bias is None else out.bias)
    torch.testing.assert_close(total, found["blocks.1.attention.out"][0], atol=1e-5, rtol=1e-4)


# --- against transformers


def test_attentions_and_hidden_states_are_those_of_gpt2():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    theirs = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=97, n_positions=20, n_embd=32, n_layer=3, n_head=4, attn_implementation="eager",
            bos_token_id=0, eos_token_id=0,
        )
    ).eval()  # fmt: skip
    with torch.no_grad():
        for p in theirs.parameters():
            p.add_(torch.randn_like(p) * 0.1)
    ours = made(vocab_size=97, context_length=20, **SHAPES["gpt2"])
    source = dict(theirs.transformer.named_parameters())
    names = {"token_embedding": "wte", "position_embedding": "wpe", "norm": "ln_f"}
    parts = {"norm1": "ln_1", "norm2": "ln_2", "attention.qkv": "attn.c_attn", "attention.out": "attn.c_proj",
             "mlp.up": "mlp.c_fc", "mlp.down": "mlp.c_proj"}  # fmt: skip
    names |= {f"blocks.{i}.{a}": f"h.{i}.{b}" for i in range(3) for a, b in parts.items()}
    with torch.no_grad():
        for name, p in ours.named_parameters():
            module, _, kind = name.rpartition(".")
            given = source[f"{names[module]}.{kind}"]
            p.copy_(given.T if module.startswith("blocks") and given.dim() == 2 else given)
    compare(ours, theirs, transformers)


def test_attentions_and_hidden_states_are_those_of_llama():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    theirs = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=97, hidden_size=32, intermediate_size=88, num_hidden_layers=3, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=20, rms_norm_eps=1e-5, tie_word_embeddings=True,
            attn_implementation="eager",
        )
    ).eval()  # fmt: skip
    with torch.no_grad():
        for p in theirs.parameters():
            p.add_(torch.randn_like(p) * 0.1)
    ours = made(vocab_size=97, context_length=20, **SHAPES["llama"])
    source = dict(theirs.named_parameters())
    parts = {"norm1": "input_layernorm", "norm2": "post_attention_layernorm", "attention.out": "self_attn.o_proj",
             "mlp.gate": "mlp.gate_proj", "mlp.up": "mlp.up_proj", "mlp.down": "mlp.down_proj"}  # fmt: skip
    with torch.no_grad():
        ours.token_embedding.weight.copy_(source["model.embed_tokens.weight"])
        ours.norm.weight.copy_(source["model.norm.weight"])
        for i, block in enumerate(ours.blocks):
            theirs_at = f"model.layers.{i}."
            block.attention.qkv.weight.copy_(
                torch.cat([source[f"{theirs_at}self_attn.{letter}_proj.weight"] for letter in "qkv"])
            )
            for mine, name in parts.items():
                block.get_submodule(mine).weight.copy_(source[f"{theirs_at}{name}.weight"])
    compare(ours, theirs, transformers)


def compare(ours: GPT, theirs, transformers) -> None:
    idx = ids(20, V=97)
    with torch.no_grad():
        expected = theirs(idx, output_attentions=True, output_hidden_states=True)
    found = t.trace(ours, idx)
    assert expected.attentions[2].std() > 0.02
    for i, weights in enumerate(expected.attentions):
        torch.testing.assert_close(found[f"blocks.{i}.attention.weights"], weights, atol=1e-5, rtol=0)
    *stops, last = t.streams(found, ours.config)
    for stop, hidden in zip(stops, expected.hidden_states):
        torch.testing.assert_close(stop, hidden[0], atol=1e-4, rtol=1e-4)
    # theirs gives the last stream after the final norm
    torch.testing.assert_close(ours.norm(last), expected.hidden_states[-1][0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(t.lens_logits(ours, last), expected.logits[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        t.lens_logits(ours, stops[1]),
        theirs.get_output_embeddings()((theirs.transformer.ln_f if hasattr(theirs, "transformer") else theirs.model.norm)(expected.hidden_states[1]))[0],
        atol=1e-4, rtol=1e-4,
    )  # fmt: skip


# --- the next token, the lens, the parts


def test_next_tokens_are_the_softmax_of_the_last_logits(model):
    view = t.run(model, ENCODING, TEXT, top=5)
    logits = model(torch.tensor([ENCODING.encode(TEXT)]))[0, -1].detach()
    p = logits.exp() / logits.exp().sum()
    order = p.argsort(descending=True)[:5]
    assert [i for i, *_ in view["next"]] == order.tolist()
    np.testing.assert_allclose([share for *_, share in view["next"]], p[order], rtol=1e-4)
    assert [b for _, b, *_ in view["next"]] == [ENCODING.token_bytes(int(i)) for i in order]


def test_muted_heads_change_the_next_token_and_the_whole_model_is_beside_it(model):
    whole = {i: p for i, _, _, p in t.run(model, ENCODING, TEXT, top=257)["next"]}
    view = t.run(model, ENCODING, TEXT, muted=[(0, 1), (2, 0)], top=5)
    for (i, *_), beside in zip(view["next"], view["next_whole"]):
        assert beside == pytest.approx(whole[i], rel=1e-3)
    assert any(abs(p - whole[i]) > 1e-5 for i, _, _, p in view["next"])
    assert "next_whole" not in t.run(model, ENCODING, TEXT)


def test_the_last_row_of_the_lens_is_the_models_answer(model):
    view = t.lens(model, ENCODING, TEXT)
    logits = model(torch.tensor([ENCODING.encode(TEXT)]))[0].detach()
    assert len(view["layers"]) == len(view["grid"]) == 4 and view["position"] == len(TEXT) - 1
    assert [i for i, *_ in view["grid"][-1]] == logits.argmax(-1).tolist()
    last = view["layers"][-1]
    assert last["answer_place"] == 1 and last["top"][0][0] == view["answer"][0] == logits[-1].argmax()
    assert view["answer_logit"] == pytest.approx(float(logits[-1].max()), rel=1e-4)
    p = torch.softmax(logits[-1].double(), -1)
    assert last["entropy"] == pytest.approx(float(-(p * p.log2()).sum()), abs=1e-3)


def test_a_long_text_is_read_by_the_lens_around_the_chosen_token(model):
    view = t.lens(model, ENCODING, TEXT, position=12, columns=6)
    whole = t.lens(model, ENCODING, TEXT, position=12)
    assert whole["start"] == 0 and view["start"] == 8 and len(view["grid"][0]) == 6
    assert [i for i, *_ in view["grid"][2]] == [i for i, *_ in whole["grid"][2][8:14]]
    assert view["layers"][1]["top"][0][0] == whole["grid"][1][12][0]
    assert t.lens(model, ENCODING, TEXT, columns=6)["start"] == len(TEXT) - 6


def test_the_parts_of_a_logit_sum_to_it(model):
    if model.config.norm_position == "post":
        assert "attribution" not in t.lens(model, ENCODING, TEXT)
        with pytest.raises(ValueError, match="post-norm"):
            t.attribution(model, t.trace(model, ids()), 0, 0)
        return
    view = t.lens(model, ENCODING, TEXT, position=4)
    assert sum(share for _, share in view["attribution"]) == pytest.approx(view["answer_logit"], abs=1e-3)
    assert len(view["attribution"]) >= 1 + 2 * 3


# --- the rest of the block


def test_norm_statistics_before_and_after(model):
    view = t.block(model, ENCODING, TEXT, layer=1, position=5)
    for name, norm in view["norms"].items():
        x = torch.tensor(norm["before_here"])
        module = getattr(model.blocks[1], name)
        torch.testing.assert_close(torch.tensor(norm["after_here"]), module(x).detach(), atol=1e-5, rtol=1e-4)
        assert norm["before"]["mean"][5] == pytest.approx(float(x.mean()), abs=1e-5)
        assert norm["before"]["deviation"][5] == pytest.approx(
            float(((x - x.mean()) ** 2).mean().sqrt()), rel=1e-4
        )
        assert norm["before"]["root mean square"][5] == pytest.approx(float((x**2).mean().sqrt()), rel=1e-4)
        np.testing.assert_array_equal(norm["scale"], module.weight.detach())
        assert (norm["shift"] is None) == (getattr(module, "bias", None) is None)


def test_the_norms_of_a_block_are_the_ones_it_has(model):
    found = t.trace(model, ids())
    pairs = t.norm_inputs(found, model.config, 1)
    names = ["norm1", "norm2", "norm1_out", "norm2_out"][
        : 4 if model.config.norm_position == "sandwich" else 2
    ]
    assert list(pairs) == names
    for name, (before, after) in pairs.items():
        with torch.no_grad():
            torch.testing.assert_close(getattr(model.blocks[1], name)(before), after, atol=1e-5, rtol=1e-4)
    view = t.block(model, ENCODING, TEXT, layer=1)
    assert list(view["norms"]) == names
    if model.config.norm_position in ("sandwich", "output"):
        found = t.trace(model, torch.tensor([list(TEXT.encode())]))
        np.testing.assert_allclose(
            view["attention_added"], found["blocks.1.added1"][0].norm(dim=-1), rtol=1e-4
        )
    parts = t.head_parts(model, t.trace(model, torch.tensor([list(TEXT.encode())])), 1)
    np.testing.assert_allclose(view["heads"], parts.norm(dim=-1), rtol=1e-4)


def test_activations_lie_on_the_curve(model):
    view = t.block(model, ENCODING, TEXT, layer=0)
    curves = {
        "gelu": F.gelu, "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"), "relu": F.relu, "swiglu": F.silu,
        "geglu": lambda x: F.gelu(x, approximate="tanh"),
    }  # fmt: skip
    curve = curves[model.config.mlp]
    for x, y in (view["curve"], (view["before_here"], view["after_here"])):
        torch.testing.assert_close(torch.tensor(y), curve(torch.tensor(x)), atol=1e-5, rtol=1e-4)
    assert (
        view["curve"][0][0] <= view["before_here"].min() and view["curve"][0][-1] >= view["before_here"].max()
    )
    assert view["histogram"].sum() == len(TEXT) * model.config.hidden
    if model.config.mlp == "swiglu":
        np.testing.assert_allclose(
            view["gated_here"], view["after_here"] * view["up_here"], rtol=1e-4, atol=1e-6
        )


def test_gelu_at_one_in_both_kinds():
    x = torch.ones(1)
    assert float(t.ACTIVATIONS["gelu"](x)) == pytest.approx(0.5 * (1 + math.erf(1 / math.sqrt(2))), abs=1e-6)
    inner = math.sqrt(2 / math.pi) * (1 + 0.044715)
    assert float(t.ACTIVATIONS["gelu_tanh"](x)) == pytest.approx(0.5 * (1 + math.tanh(inner)), abs=1e-6)


def test_the_stream_grows_by_what_is_added(model):
    found = t.trace(model, ids())
    names, lengths, added = t.growth(found, model.config)
    assert names == ["embedded", "attention 0", "MLP 0", "attention 1", "MLP 1", "attention 2", "MLP 2"]
    torch.testing.assert_close(
        lengths[-1], found["blocks.2.output"][0].pow(2).sum(-1).sqrt(), atol=1e-4, rtol=1e-4
    )
    if model.config.norm_position != "post":
        before, after = found["blocks.1.middle"][0], found["blocks.1.output"][0]
        torch.testing.assert_close(added[4], (after - before).norm(dim=-1), atol=1e-4, rtol=1e-3)


def test_tying_is_one_storage_and_nearest_tokens_are_by_cosine(model):
    assert t.tied(model) == model.config.tie_embeddings
    found, cosine = t.nearest(model.output.weight.detach(), 65, k=3)
    matrix = model.output.weight.detach().double().numpy()
    unit = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
    expected = unit @ unit[65]
    expected[65] = -2
    assert found.tolist() == np.argsort(-expected)[:3].tolist()
    np.testing.assert_allclose(cosine, np.sort(expected)[::-1][:3], atol=1e-5)


# --- positions


def test_position_tables_of_each_kind():
    learned = t.positions(made(**SHAPES["gpt2"]), ENCODING)
    assert learned["rows"] == 24 and "shorten the text" in learned["refusal"]
    model = made(**SHAPES["post"])
    sines = t.positions(model, ENCODING)
    assert sines["rows"] == 48 and sines["refusal"] == ""  # computed beyond the context too
    for p, i in ((0, 0), (5, 3), (40, 7)):
        angle = p / 10_000 ** (2 * i / 32)
        assert sines["vectors"][p][2 * i] == pytest.approx(math.sin(angle), abs=1e-4)
        assert sines["vectors"][p][2 * i + 1] == pytest.approx(math.cos(angle), abs=1e-4)
    v = sines["vectors"]
    assert sines["cosines"][3][9] == pytest.approx(
        v[3] @ v[9] / np.linalg.norm(v[3]) / np.linalg.norm(v[9]), abs=1e-4
    )
    assert t.positions(made(**SHAPES["bare"]), ENCODING)["refusal"] == ""


def through_the_model(config: ModelConfig, distance: int, rates: torch.Tensor) -> float:
    """What is left of q . k at a distance when q = k = all ones, through the model's own rotation."""
    from llm.model import rope_angles, rotate

    ones = torch.ones(1, 1, distance + 1, config.head_dim)
    turned = rotate(ones, rope_angles(torch.arange(distance + 1)[None], rates))[0, 0]
    return float(turned[0] @ turned[distance]) / config.head_dim


def test_rope_speeds_turns_and_distance():
    from llm.model import rope_rates

    model = made(**SHAPES["llama"])
    view = t.positions(model, ENCODING)["layers"]["all"]
    np.testing.assert_allclose(view["speed"], [10_000.0 ** (-2 * i / 8) for i in range(4)], rtol=1e-5)
    np.testing.assert_allclose(view["turn"], 2 * math.pi / view["speed"], rtol=1e-5)
    assert view["unfinished"] == sum(2 * math.pi / s > 24 for s in view["speed"])
    assert view["by_distance"][0] == pytest.approx(1) and view["distances"].tolist() == list(range(48))
    expected = through_the_model(model.config, 5, rope_rates(8, 10_000.0))
    assert view["by_distance"][5] == pytest.approx(expected, abs=1e-5)
    assert "unscaled" not in view


def test_rope_where_only_a_share_of_the_head_is_turned():
    model = made(**SHAPES["neox"])
    view = t.positions(model, ENCODING)["layers"]["all"]
    assert view["size"] == 4 and len(view["speed"]) == 2
    expected = through_the_model(model.config, 7, model.blocks[0].attention.rates)
    assert view["by_distance"][7] == pytest.approx(expected, abs=1e-5) and expected > 0.5


def test_rope_of_sliding_and_of_other_layers():
    model = made(**SHAPES["gemma"])
    layers = t.positions(model, ENCODING)["layers"]
    for layer, name in ((0, "sliding"), (2, "all")):
        np.testing.assert_allclose(layers[name]["speed"], model.blocks[layer].attention.rates, rtol=1e-6)
    assert layers["sliding"]["theta"] == 100 and layers["all"]["theta"] == 10_000


@pytest.mark.parametrize(
    "scaling", [dict(rope_scaling="linear"), dict(rope_scaling="llama3", rope_original=64)]
)
def test_scaled_rope_stands_beside_the_unscaled(scaling):
    model = made(rope_factor=8.0, **scaling)
    view = t.positions(model, ENCODING)["layers"]["all"]
    np.testing.assert_allclose(view["speed"], model.blocks[0].attention.rates, rtol=1e-6)
    np.testing.assert_allclose(view["unscaled"], [10_000.0 ** (-2 * i / 8) for i in range(4)], rtol=1e-5)
    assert view["speed"][-1] == pytest.approx(view["unscaled"][-1] / 8)
    assert view["by_distance_unscaled"][9] == pytest.approx(np.cos(9 * view["unscaled"]).mean(), abs=1e-5)


def test_the_view_of_a_long_context_stays_small():
    model = made(context_length=100_000, n_layer=1)
    view = t.positions(model, ENCODING)
    assert len(view["layers"]["all"]["distances"]) == 1024 and view["refusal"] == ""
    with pytest.raises(ValueError, match="200,000 tokens, which it would take minutes"):
        t.beyond(model, ENCODING, "x" * 300)
    assert t.most_tokens(model.config) == 1024
    many = ModelConfig(n_head=128, n_embd=512, context_length=4096, n_layer=200)
    assert t.most_tokens(many) == 512 and t.map_size(many) ** 2 * 128 * 200 <= t.MAP_CELLS
    assert t.map_size(ModelConfig(n_layer=30, n_head=9, n_embd=576)) == 64


def test_loss_by_position_is_the_loss_of_each_place():
    model = made(**SHAPES["llama"])
    text_ids = ids(200)[0].tolist()
    losses = t.loss_by_position(model, text_ids, 40, windows=3)
    rows = torch.tensor(text_ids[:120]).view(3, 40)
    with torch.no_grad():
        p = torch.softmax(model(rows[:, :-1]).double(), -1)
    expected = -p.gather(-1, rows[:, 1:, None])[..., 0].log().mean(0)
    torch.testing.assert_close(losses.double(), expected, atol=1e-4, rtol=1e-4)


def test_beyond_the_context_is_measured_or_refused_in_the_models_own_words():
    text = "Some text that is long enough for a few stretches of forty-nine tokens. " * 5
    view = t.beyond(made(**SHAPES["llama"]), ENCODING, text)
    assert view["length"] == 48 and view["stretches"] == 7 and len(view["losses"]) == len(view["starts"])
    with pytest.raises(ValueError, match="has learned 24 positions"):
        t.beyond(made(**SHAPES["gpt2"]), ENCODING, text)
    with pytest.raises(ValueError, match="take a longer text"):
        t.beyond(made(**SHAPES["llama"]), ENCODING, "short")


# --- what a person may do wrong


def test_empty_text_and_wrong_numbers_are_sentences(model):
    with pytest.raises(ValueError, match="type a word"):
        t.run(model, ENCODING, "")
    for bad in (dict(layer=3), dict(head=-1), dict(muted=[(0, 4)])):
        with pytest.raises(ValueError, match="numbered 0 to"):
            t.run(model, ENCODING, TEXT, **bad)
    with pytest.raises(ValueError, match="row"):
        t.cell(model, ENCODING, TEXT, 0, 0, 99, 0)
    with pytest.raises(ValueError, match="token"):
        t.lens(model, ENCODING, TEXT, position=99)


def test_a_long_text_is_cut_and_the_cut_is_counted(model):
    view = t.run(model, ENCODING, "x" * 100)
    assert len(view["tokens"]) == 24 and view["length"] == 100 and view["maps"].shape == (3, 4, 24, 24)


def test_bytes_of_tokens_come_along_also_parts_of_a_character(model):
    view = t.run(model, ENCODING, "é!")
    assert view["tokens"] == [(0xC3, b"\xc3"), (0xA9, b"\xa9"), (33, b"!")]
