"""The learning rate of every step, and which weights are pulled towards zero."""

import subprocess
import sys

import pytest
import torch

from llm.config import ModelConfig, TrainConfig
from llm.model import GPT
from llm.optim import adamw, clip, learning_rate, optimizers, set_rate


def test_cosine_after_a_linear_warm_up():
    config = TrainConfig(max_steps=1000, warmup_steps=200, learning_rate=2e-3, min_learning_rate=2e-4)
    # half-way up, the top, and a quarter, half and three quarters of the way down: min + (peak - min)(1 + cos)/2
    expected = {100: 1e-3, 200: 2e-3, 400: 1.736396e-3, 600: 1.1e-3, 800: 4.63604e-4, 1000: 2e-4}
    for update, rate in expected.items():
        assert learning_rate(update, config) == pytest.approx(rate, rel=1e-5)
    rates = [learning_rate(n, config) for n in range(200, 1001)]
    assert rates == sorted(rates, reverse=True)
    assert max(learning_rate(n, config) for n in range(1, 1001)) == 2e-3
    assert learning_rate(1, config) > 0


def test_the_published_curve_of_a_short_warm_up():
    config = TrainConfig(max_steps=1000, warmup_steps=100, learning_rate=1e-5, min_learning_rate=1e-6)
    for update, rate in {50: 5e-6, 100: 1e-5, 325: 8.682e-6, 550: 5.5e-6, 775: 2.318e-6, 1000: 1e-6}.items():
        assert learning_rate(update, config) == pytest.approx(rate, rel=1e-3)


def test_linear_and_constant():
    linear = TrainConfig(
        max_steps=110, warmup_steps=10, schedule="linear", learning_rate=1.0, min_learning_rate=0.0
    )
    assert learning_rate(60, linear) == pytest.approx(0.5)
    constant = TrainConfig(max_steps=5, warmup_steps=5, schedule="constant")
    assert learning_rate(5, constant) == constant.learning_rate


def test_only_matrices_decay():
    model = GPT(ModelConfig(vocab_size=11, n_layer=1, n_embd=16, n_head=2, bias=True, norm="layernorm"))
    decayed, rest = adamw(list(model.parameters()), TrainConfig(weight_decay=0.1)).param_groups
    assert decayed["weight_decay"] == 0.1 and rest["weight_decay"] == 0
    assert all(p.dim() >= 2 for p in decayed["params"]) and all(p.dim() < 2 for p in rest["params"])
    assert len(decayed["params"]) + len(rest["params"]) == len(list(model.parameters()))


def test_clipping_shortens_to_the_bound_and_tells_the_length_before():
    model = torch.nn.Linear(3, 1, bias=False)
    model.weight.grad = torch.tensor([[3.0, 4.0, 0.0]])
    assert clip(model, 1.0) == pytest.approx(5.0)
    assert model.weight.grad.norm() == pytest.approx(1.0, rel=1e-4)
    assert clip(model, 0) == pytest.approx(1.0, rel=1e-4)


def test_muon_takes_the_matrices_inside_the_blocks_and_adamw_the_rest():
    model = GPT(ModelConfig(vocab_size=11, n_layer=2, n_embd=16, n_head=2, bias=True, norm="layernorm"))
    config = TrainConfig(optimizer="muon", max_steps=100, warmup_steps=10)
    muon, rest = optimizers(model, config)
    mine = {id(p) for group in muon.param_groups for p in group["params"]}
    others = {id(p) for group in rest.param_groups for p in group["params"]}
    assert mine == {id(p) for p in model.blocks.parameters() if p.dim() == 2}
    assert mine | others == {id(p) for p in model.parameters()} and not mine & others
    assert set_rate([muon, rest], 5, config) == config.learning_rate / 2
    assert muon.param_groups[0]["lr"] == config.matrix_learning_rate / 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_step_is_torchs_own_to_the_bit_also_after_a_restart(dtype):
    torch.manual_seed(0)
    mine = [torch.nn.Parameter(torch.randn(*shape).to(dtype)) for shape in [(7, 5), (5,), (3, 2)]]
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in mine]
    config = TrainConfig(weight_decay=0.3, beta1=0.8, beta2=0.9)
    ours = adamw(mine, config)
    groups = [
        {"params": [theirs[0], theirs[2]], "weight_decay": 0.3},
        {"params": [theirs[1]], "weight_decay": 0.0},
    ]
    torchs = torch.optim.AdamW(groups, betas=(0.8, 0.9), eps=1e-8, fused=True)
    for update in range(12):
        for a, b in zip(mine, theirs):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        if update in (2, 5):  # a part that the loss did not reach
            mine[2].grad = theirs[2].grad = None
        if update == 6:  # one reads what the other kept
            kept = ours.state_dict(), torchs.state_dict()
            ours = adamw(mine, config)
            ours.load_state_dict(kept[1])
            torchs.load_state_dict(kept[0])
        for one in (ours, torchs):
            for group in one.param_groups:
                group["lr"] = 0.1 / (update + 1)
            one.step()
            one.zero_grad()
        assert all(torch.equal(a, b) for a, b in zip(mine, theirs))
    assert all(p.grad is None for p in mine)


def test_training_does_not_load_torchs_compiler():
    code = """
import sys, torch
from llm.config import ModelConfig, TrainConfig
from llm.model import GPT
from llm import optim
model = GPT(ModelConfig(vocab_size=11, n_layer=1, n_embd=16, n_head=2))
for kind in ("adamw", "muon"):
    made = optim.optimizers(model, TrainConfig(optimizer=kind))
    model(torch.tensor([[1, 2, 3]])).sum().backward()
    optim.clip(model, 1.0)
    for one in made:
        one.step(); one.zero_grad(); one.load_state_dict(one.state_dict())
print("torch._dynamo" in sys.modules)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (said.stdout.strip(), said.returncode) == ("False", 0), said.stderr
