"""LoRA: peft is the oracle for values, gradients and files; what stands still stands still to the bit."""

import copy
import json
import math

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from llm import checkpoint, lora
from llm.config import ModelConfig, TuneConfig
from llm.convert import families
from llm.lora import Settings
from llm.model import GPT, Linear

SIZES = dict(
    vocab_size=50, hidden_size=16, intermediate_size=24, num_hidden_layers=2, max_position_embeddings=32,
    attention_dropout=0.0, bos_token_id=0, eos_token_id=0,
)  # fmt: skip
THEIRS = {
    "gpt2": transformers.GPT2Config(
        vocab_size=50, n_positions=32, n_embd=16, n_layer=2, n_head=2, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        bos_token_id=0, eos_token_id=0,
    ),
    "llama": transformers.LlamaConfig(**SIZES, num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True),
    "neox": transformers.GPTNeoXConfig(**SIZES, num_attention_heads=2, rotary_pct=0.5),
}  # fmt: skip
TARGETS = {
    "gpt2": ["c_attn", "c_fc", "mlp.c_proj"],
    "llama": ["q_proj", "v_proj", "down_proj"],
    "neox": ["query_key_value", "dense_h_to_4h"],
}
IDX = torch.randint(50, (2, 9), generator=torch.Generator().manual_seed(1))


def their_model(kind):
    torch.manual_seed(3)
    return transformers.AutoModelForCausalLM.from_config(THEIRS[kind]).eval()


def ours(theirs):
    """The same weights as a model of ours."""
    said = json.loads(json.dumps(theirs.config.to_dict()))
    config, state = families.model_config(said), theirs.state_dict()
    weights = families.to_ours(said, config, lambda name: state[name].clone(), list(state))
    return checkpoint.fill(checkpoint.empty_model(config), weights, "it").eval()


def small(**settings):
    """A model of the kind this lab trains."""
    torch.manual_seed(5)
    shape = dict(vocab_size=40, n_layer=2, n_head=4, n_kv_head=2, n_embd=16, context_length=32)
    return GPT(ModelConfig(**(shape | settings))).eval()


def awake(model, name="default", seed=0):
    """The adapter with random numbers in B, so that it does something."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in lora.layers(model).values():
            for pair in layer.pairs(name):
                pair.B.normal_(std=0.1, generator=generator)
    return model


# --- peft's values ---------------------------------------------------------------------------------------------------


@pytest.fixture(params=[dict(), dict(use_rslora=True), dict(use_dora=True)], ids=["plain", "rslora", "dora"])
def variant(request):
    return request.param


def with_peft(theirs, targets, **settings):
    """The model with an adapter of peft's, its matrices random."""
    peft = pytest.importorskip("peft", reason="the package peft is not installed: it is the oracle here")
    usual = dict(r=4, lora_alpha=8, target_modules=targets, task_type="CAUSAL_LM")
    model = peft.get_peft_model(copy.deepcopy(theirs), peft.LoraConfig(**(usual | settings)))
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_" in name:
                p.add_(torch.randn(p.shape, generator=generator) / 10)
    return model.eval()


@pytest.mark.parametrize("kind", list(THEIRS))
def test_values_gradients_and_files_are_those_of_peft(kind, variant, tmp_path):
    theirs = their_model(kind)
    oracle, model = with_peft(theirs, TARGETS[kind], **variant), ours(theirs)
    oracle.save_pretrained(tmp_path / "theirs")
    assert lora.load(model, tmp_path / "theirs") == []
    assert torch.allclose(model(IDX), oracle(IDX).logits, atol=1e-5)
    counts = lora.counts(model)
    assert (counts.trainable, counts.trainable + counts.frozen) == oracle.get_nb_trainable_parameters()

    lora.save(model, tmp_path / "ours", base="it")
    wanted, written = (load_file(tmp_path / who / "adapter_model.safetensors") for who in ("theirs", "ours"))
    assert wanted.keys() == written.keys() and all(torch.equal(wanted[k], written[k]) for k in wanted)
    settings, said = (
        json.loads((tmp_path / who / "adapter_config.json").read_text()) for who in ("theirs", "ours")
    )
    settings["target_modules"].sort()  # a set there
    same = (
        "r",
        "lora_alpha",
        "use_rslora",
        "use_dora",
        "target_modules",
        "peft_type",
        "task_type",
        "bias",
        "lora_dropout",
    )
    assert {k: said[k] for k in same} == {k: settings[k] for k in same}

    weights = torch.randn(2, 9, 50, generator=torch.Generator().manual_seed(2))
    (model(IDX) * weights).sum().backward()
    (oracle(IDX).logits * weights).sum().backward()
    gradients = {name: p.grad for name, p in oracle.named_parameters() if p.grad is not None}
    with torch.no_grad():  # saved like weights, they come under peft's names and in its order of rows
        for name, p in model.named_parameters():
            if lora.in_adapter(name):
                p.copy_(p.grad)
    lora.save(model, tmp_path / "gradients")
    found = load_file(tmp_path / "gradients" / "adapter_model.safetensors")
    assert len(found) == len(gradients)
    for name, gradient in gradients.items():
        key = name.replace(".default", "").replace("magnitude_vector.weight", "magnitude_vector")
        assert torch.allclose(found[key], gradient, atol=1e-4, rtol=1e-4), name


@pytest.mark.parametrize(
    ("kind", "modules"),
    [
        ("llama", ("all",)),
        ("llama", ("qkv", "output")),  # whole here, three in peft's files; the output matrix is tied
        ("gpt2", ("all", "output")),
        ("gpt2", ("q", "v")),  # apart here, one matrix of twice the rank there
        ("gpt2", ("k", "out")),
        ("neox", ("all",)),
    ],
)
def test_our_adapters_open_in_peft(kind, modules, variant, tmp_path):
    peft = pytest.importorskip("peft", reason="the package peft is not installed: it is the oracle here")
    theirs = their_model(kind)
    model = ours(theirs)
    scaling = "alpha/sqrt(r)" if "use_rslora" in variant else "alpha/r"
    lora.add(model, Settings(3, 6.0, scaling=scaling, dora="use_dora" in variant, modules=modules))
    lora.save(awake(model), tmp_path, base="it")
    opened = peft.PeftModel.from_pretrained(theirs, tmp_path).eval()
    assert torch.allclose(opened(IDX).logits, model(IDX), atol=1e-5)
    again = ours(their_model(kind))
    lora.load(again, tmp_path)
    assert torch.allclose(again(IDX), model(IDX), atol=1e-5)


def test_alpha_as_a_scale_of_its_own_is_written_so_that_peft_comes_to_the_same(tmp_path):
    peft = pytest.importorskip("peft", reason="the package peft is not installed: it is the oracle here")
    theirs = their_model("llama")
    model = ours(theirs)
    lora.add(model, Settings(4, 2.0, scaling="alpha", modules=("q", "up")))
    lora.save(awake(model), tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["lora_alpha"] == 8
    assert torch.allclose(
        peft.PeftModel.from_pretrained(theirs, tmp_path).eval()(IDX).logits, model(IDX), atol=1e-5
    )


# --- by hand ---------------------------------------------------------------------------------------------------------


def test_a_table_by_hand():
    # W = I, A = [[1, 0], [1, 1]], B = [[1, 0], [0, 2]], x = (1, 3): A x = (1, 4), B A x = (1, 8); scale 6/2 = 3
    linear = torch.nn.Linear(2, 2, bias=False)
    linear.weight.data = torch.eye(2)
    layer = lora.LoRALinear(linear, {"a": 1.0})
    layer.put("a", lora.Pair(linear.weight, 0, 2, 2, Settings(2, 6.0).scale, 0.0, False))
    (pair,) = layer.pairs("a")
    pair.A.data, pair.B.data = torch.tensor([[1.0, 0.0], [1.0, 1.0]]), torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    assert layer(torch.tensor([1.0, 3.0])).tolist() == [4.0, 27.0]
    layer.dials["a"] = 0.5
    assert layer(torch.tensor([1.0, 3.0])).tolist() == [2.5, 15.0]
    assert layer.changed().tolist() == [[2.5, 0.0], [3.0, 4.0]]


@pytest.mark.parametrize(("scaling", "scale"), [("alpha/r", 2.0), ("alpha", 32.0), ("alpha/sqrt(r)", 8.0)])
def test_three_ways_to_scale(scaling, scale):
    assert Settings(rank=16, alpha=32, scaling=scaling).scale == scale
    tune = TuneConfig(lora_rank=16, lora_alpha=32, lora_scaling=scaling)
    assert lora.settings(tune).scale == scale


def test_gpt2_small_has_the_published_number_of_adapter_weights():
    # r (768 + 2304) in each of 12 layers
    config = ModelConfig(
        vocab_size=50257, n_layer=12, n_head=12, n_embd=768, context_length=1024, position="learned", norm="layernorm",
        mlp="gelu_tanh", bias=True, qkv_bias=True,
    )  # fmt: skip
    assert lora.parameters(config, Settings(rank=8, modules=("qkv",))) == 12 * 8 * (768 + 2304) == 294_912


@pytest.mark.parametrize("modules", [("all",), ("q", "v"), ("qkv", "down", "output")])
@pytest.mark.parametrize("dora", [False, True])
def test_the_number_is_known_before_there_is_a_model(modules, dora):
    model, settings = small(), Settings(3, dora=dora, modules=modules)
    lora.add(model, settings)
    assert lora.counts(model).trainable == lora.parameters(model.config, settings)


# --- what must not change --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("modules", [("all", "output"), ("qkv",), ("k",)])
@pytest.mark.parametrize("dora", [False, True])
def test_a_new_adapter_changes_nothing_to_the_bit(modules, dora):
    model = small()
    before = model(IDX % 40)
    lora.add(model, Settings(4, 8.0, dora=dora, modules=modules))
    assert torch.equal(model(IDX % 40), before)


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("strength", [1.0, 0.4, 2.0])
def test_merged_is_unmerged_and_comes_apart_to_the_bit(dora, strength):
    model = small()  # its output matrix is tied
    lora.add(model, Settings(4, 8.0, dora=dora, modules=("all", "output")))
    lora.set_strength(awake(model), "default", strength)
    weights = {name: p.clone() for name, p in model.state_dict().items()}
    before, config = model(IDX % 40), model.config
    plain = lora.merged(model)
    assert type(plain.blocks[0].attention.qkv) is Linear and not plain.config.tie_embeddings
    assert torch.allclose(plain(IDX % 40), before, atol=1e-5)
    lora.merge(model)
    assert torch.allclose(model(IDX % 40), before, atol=1e-5)
    with pytest.raises(ValueError, match="merged into the weights already"):
        lora.merge(model)
    assert torch.equal(lora.merged(model)(IDX % 40), model(IDX % 40))  # not added a second time
    lora.unmerge(model)
    assert model.config == config and model.output.weight is model.token_embedding.weight
    assert all(torch.equal(p, weights[name]) for name, p in model.state_dict().items())
    assert torch.equal(model(IDX % 40), before)
    with pytest.raises(ValueError, match="not merged"):
        lora.unmerge(model)


def test_a_plain_model_shares_what_no_adapter_changes():
    model = small()
    lora.add(model, Settings(4, modules=("down",)))
    plain = lora.merged(awake(model))
    assert plain.token_embedding.weight.data_ptr() == model.token_embedding.weight.data_ptr()
    assert plain.output.weight is plain.token_embedding.weight and plain.config == model.config
    assert plain.blocks[0].mlp.down.weight.data_ptr() != model.blocks[0].mlp.down.weight.data_ptr()


def test_the_base_stands_still_while_the_adapter_learns():
    model = small(dropout=0.1).train()
    before = {name: p.clone() for name, p in model.state_dict().items()}
    lora.add(model, Settings(4, 8.0, dropout=0.2))
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=0.01, weight_decay=0.1
    )
    for _ in range(3):
        optimizer.zero_grad()
        model(IDX % 40).square().mean().backward()
        optimizer.step()
    now = model.state_dict()
    assert all(torch.equal(now[name], p) for name, p in before.items())
    assert all(
        pair.B.abs().sum() > 0 for layer in lora.layers(model).values() for pair in layer.pairs("default")
    )


# --- dials -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dora", [False, True])
def test_the_dial_moves_each_weight_in_proportion(dora):
    model = small()
    lora.add(model, Settings(4, 8.0, dora=dora, modules=("up",)))
    layer = awake(model).blocks[0].mlp.up
    base, whole = layer.weight.clone(), layer.changed() - layer.weight
    for strength in (0.0, 0.3, 1.0, 2.0):
        lora.set_strength(model, "default", strength)
        assert torch.allclose(layer.changed(), base + strength * whole, atol=1e-6)
        x = torch.randn(3, 16)
        assert torch.allclose(layer(x), x @ (base + strength * whole).T, atol=1e-5)


def test_silenced_adapters_leave_the_base_to_the_bit():
    model = small()
    before = model(IDX % 40)
    lora.add(model, Settings(4, 8.0))
    awake(model)
    assert not torch.equal(model(IDX % 40), before)
    with lora.off(model):
        assert torch.equal(model(IDX % 40), before)
    assert lora.strengths(model) == {"default": 1.0}
    lora.set_strength(model, "default", 0)
    assert torch.equal(model(IDX % 40), before)
    lora.remove(model, "default")
    assert torch.equal(model(IDX % 40), before) and lora.adapters(model) == {}


def test_two_adapters_are_switched_and_mixed():
    model = small()
    for name, seed in (("first", 1), ("second", 2)):
        lora.add(model, Settings(4, 8.0, modules=("q", "down")), name)
        awake(model, name, seed)
    changes = {}
    base = model.blocks[0].mlp.down.weight.clone()
    for name in ("first", "second"):
        lora.mix(model, {name: 1.0})
        changes[name] = lora.merged(model).blocks[0].mlp.down.weight - base
    lora.mix(model, {"first": 0.5, "second": 1.5})
    mixed = lora.merged(model)
    wanted = base + 0.5 * changes["first"] + 1.5 * changes["second"]
    assert torch.allclose(mixed.blocks[0].mlp.down.weight, wanted, atol=1e-6)
    assert torch.allclose(mixed(IDX % 40), model(IDX % 40), atol=1e-5)


def test_singular_values_are_those_of_the_whole_product():
    model = small()
    lora.add(model, Settings(4, 8.0, modules=("q", "down")))
    found = lora.singular_values(awake(model))
    assert list(found) == [f"blocks.{n}.{m}" for n in (0, 1) for m in ("attention.qkv q", "mlp.down")]
    (pair,) = model.blocks[1].mlp.down.pairs("default")
    whole = torch.linalg.svdvals(2.0 * (pair.B @ pair.A).detach())
    assert found["blocks.1.mlp.down"] == pytest.approx(whole[:4].tolist(), abs=1e-5)
    assert whole[4:].max() < 1e-5


# --- files -----------------------------------------------------------------------------------------------------------


def test_a_model_of_no_family_keeps_its_adapters_under_our_names(tmp_path):
    model = small(position="sinusoidal", norm="layernorm")
    with pytest.raises(ValueError):
        families.their_config(model.config)
    lora.add(model, Settings(4, 8.0, modules=("all", "output")))
    lora.save(awake(model), tmp_path)
    assert "base_model.model.blocks.0.attention.q.lora_A.weight" in load_file(
        tmp_path / "adapter_model.safetensors"
    )
    again = small(position="sinusoidal", norm="layernorm")
    lora.load(again, tmp_path)
    assert torch.allclose(again(IDX % 40), model(IDX % 40), atol=1e-6)


def saved(tmp_path, model=None, base="it", **settings):
    model = small() if model is None else model
    lora.add(model, Settings(4, 8.0, modules=("q",), **settings))
    lora.save(awake(model), tmp_path, base=base)
    return tmp_path


def test_the_folder_or_the_file_in_it(tmp_path):
    place = saved(tmp_path)
    outputs = []
    for path in (place, place / "adapter_model.safetensors"):
        model = small()
        assert lora.load(model, path) == []
        outputs.append(model(IDX % 40))
    assert torch.equal(*outputs)


def test_an_adapter_of_other_weights_is_said(tmp_path):
    place = saved(tmp_path, base="elsewhere")
    other = small()
    with torch.no_grad():
        other.norm.weight.mul_(1.5)
    (note,) = lora.load(other, place, base="here")
    assert "elsewhere" in note and "here" in note


def test_an_adapter_of_unknown_weights_is_told_by_the_name_of_its_base(tmp_path):
    place = saved(tmp_path, base="org/Elsewhere")
    tensors = load_file(place / "adapter_model.safetensors")
    save_file(tensors, place / "adapter_model.safetensors", metadata={"format": "pt"})
    assert lora.load(small(), place, base="elsewhere") == []
    (note,) = lora.load(small(), place, base="another")
    assert "Elsewhere" in note


def test_an_adapter_of_another_shape_is_refused_with_both_numbers_and_changes_nothing(tmp_path):
    place = saved(tmp_path, small(n_embd=24))
    model = small()
    before = model(IDX % 40)
    with pytest.raises(ValueError) as error:
        lora.load(model, place, base="it")
    assert "q_proj" in str(error.value) and "24" in str(error.value) and "16" in str(error.value)
    assert lora.adapters(model) == {} and torch.equal(model(IDX % 40), before)


def test_a_damaged_file_is_said(tmp_path):
    place = saved(tmp_path)
    file = place / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(ValueError, match=r"adapter_model\.safetensors"):
        lora.load(small(), place)


# --- what a person may get wrong -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (dict(rank=17), ["17", "16"]),
        (dict(modules=("q", "qkv")), ["qkv"]),
        (dict(modules=("nose",)), ["nose", "down"]),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, words):
    with pytest.raises(ValueError) as error:
        lora.add(small(), Settings(**settings))
    for word in words:
        assert word in str(error.value)


def test_a_gate_where_there_is_none_is_refused():
    with pytest.raises(ValueError, match="no gate"):
        lora.add(small(mlp="gelu"), Settings(4, modules=("gate",)))


def test_names_and_dials_are_checked():
    model = small()
    lora.add(model, Settings(4), "my.adapter")
    for wrong, words in (
        (lambda: lora.add(model, Settings(4), "my.adapter"), "my.adapter"),
        (lambda: lora.add(model, Settings(4), "../up"), "cannot be used"),
        (lambda: lora.set_strength(model, "my.adapter", 2.5), "0 to 2"),
        (lambda: lora.set_strength(model, "my.adapter", math.nan), "0 to 2"),
        (lambda: lora.set_strength(model, "another", 1), "my.adapter"),
        (lambda: lora.mix(model, {"another": 1}), "another"),
    ):
        with pytest.raises(ValueError, match=words):
            wrong()
    lora.merge(model)
    with pytest.raises(ValueError, match="unmerge"):
        lora.set_strength(model, "my.adapter", 0.5)
