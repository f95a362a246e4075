"""The fast ways give the values and the gradients of the plain ones."""

import pytest
import torch

from bench import losses
from llm import fast, precision
from llm.config import ModelConfig
from llm.model import GPT, Attention, causal_mask, rope_angles, rope_rates, rotate

EXACT = torch.double


def some(*shape, seed=0):
    return torch.randn(*shape, dtype=EXACT, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def gradients(value, *inputs):
    return torch.autograd.grad(
        (value * torch.linspace(-1, 1, value.numel(), dtype=EXACT).view_as(value)).sum(), inputs
    )


@pytest.mark.parametrize("n_kv_head", [1, 2, 4])
def test_attention_is_that_of_the_model(n_kv_head):
    attention = Attention(ModelConfig(vocab_size=5, n_head=4, n_kv_head=n_kv_head, n_embd=24))
    q, k, v = some(2, 4, 9, 6), some(2, n_kv_head, 9, 6, seed=1), some(2, n_kv_head, 9, 6, seed=2)
    plain = attention.attend(q, k, v, causal_mask(torch.arange(9)[None], 9))
    quick = fast.causal_attention(q, k, v, 6**-0.5)
    torch.testing.assert_close(quick, plain)
    for a, b in zip(gradients(quick, q, k, v), gradients(plain, q, k, v)):
        torch.testing.assert_close(a, b)


def test_rms_norm_is_the_formula():
    x, weight = some(3, 5, 8), some(8, seed=1)
    plain = x / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * weight
    quick = fast.rms_norm(x, weight, 1e-5)
    torch.testing.assert_close(quick, plain)
    for a, b in zip(gradients(quick, x, weight), gradients(plain, x, weight)):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("size", [10, 4])  # all of a head, and a part of it
def test_rotation_is_that_of_the_model(size):
    x, angles = some(2, 3, 7, 10), rope_angles(torch.arange(7, dtype=EXACT)[None], rope_rates(size, 10_000.0))
    torch.testing.assert_close(fast.rotate(x, angles), rotate(x, angles))
    torch.testing.assert_close(*(gradients(turn(x, angles), x)[0] for turn in (fast.rotate, rotate)))


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("bias", [True, False])
def test_few_rows_times_a_large_matrix(rows, bias):
    x, weight = some(rows, 6).detach(), some(11, 6, seed=1).detach()
    shift = some(11, seed=2).detach() if bias else None
    torch.testing.assert_close(fast.few_rows(x, weight, shift), torch.nn.functional.linear(x, weight, shift))


def test_the_model_writes_the_same_either_way(monkeypatch):
    """Where no gradient is wanted and the matrices are large, a token goes through `few_rows`; else it never does."""
    torch.manual_seed(0)
    model = GPT(
        ModelConfig(
            vocab_size=97, context_length=16, n_layer=2, n_head=2, n_embd=16, bias=True, qkv_bias=True
        )
    ).eval()
    idx = torch.tensor([[1, 2, 3]])
    used = []
    few = fast.few_rows
    monkeypatch.setattr(fast, "few_rows", lambda *args: used.append(1) or few(*args))
    with torch.inference_mode():
        plain = model(idx)
        assert not used
        monkeypatch.setattr(fast, "LARGE", 0)
        torch.testing.assert_close(model(idx), plain)
        assert (
            len(used) == 2 * 3 + 1
        )  # qkv, gate and up of each block, and the output matrix: higher than wide
        model(torch.ones(1, 9, dtype=torch.long))  # more rows than few
        assert len(used) == 7
    model(idx)
    assert len(used) == 7


@pytest.mark.slow
@pytest.mark.skipif(
    not precision.multiplies_bf16(), reason="this processor does not multiply bf16 in hardware"
)
def test_the_fast_way_learns_like_the_exact_one():
    """Over 1,000 steps of the shipped stories its mean lies within two standard deviations of three fp32 seeds."""
    apart, allowed = losses.within(losses.compared(1000))
    assert apart <= allowed
