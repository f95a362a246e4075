"""Smaller weights: rounding by the formula, the same product as plain arithmetic, what they cost, and the choice of them."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from llm import checkpoint, engine, paths, quantised, scoring, tokenizer, tuned
from llm.config import WEIGHTS, ModelConfig, SampleConfig
from llm.generate import complete
from llm.model import GPT


def test_rounding_by_hand():
    """Row scales 1.27 / 127 = 0.01 and 2.54 / 127 = 0.02."""
    Q, scale = quantised.rounded(torch.tensor([[1.27, -0.634, 0.004], [0.05, 2.54, -1.0]]))
    assert Q.tolist() == [[127, -63, 0], [2, 127, -50]] and Q.dtype == torch.int8
    torch.testing.assert_close(scale, torch.tensor([0.01, 0.02]))


def test_no_weight_is_off_by_more_than_half_a_step():
    W = torch.randn(50, 70, generator=torch.Generator().manual_seed(0))
    Q, scale = quantised.rounded(W)
    assert ((scale[:, None] * Q - W).abs() <= scale[:, None] / 2 + 1e-6).all()
    assert (quantised.rounded(torch.zeros(2, 3))[0] == 0).all()


def test_groups_by_hand():
    """32 numbers from -1 to 0.5: steps of 0.1; the other group is constant."""
    row = torch.tensor([-1.0, 0.5, -0.94, -0.96, 0.0] + [0.2] * 27 + [3.0] * 32)[None]
    Q, step, least = quantised.grouped(row)
    assert Q[0, :6].tolist() == [0, 15, 1, 0, 10, 12] and (Q[0, 32:] == 0).all()
    torch.testing.assert_close(step[0, :1], torch.tensor([0.1]))
    assert least[0].tolist() == [-1.0, 3.0]


def test_four_bits_of_a_file_come_back_as_they_were():
    """Numbers that are least + step * (0 ... 15) already, as the blocks of Q4_1 are: nothing more is lost."""
    torch.manual_seed(0)
    step, least = torch.rand(20, 3, 1) + 0.1, torch.randn(20, 3, 1)
    kept = torch.randint(16, (20, 3, 32))
    kept[..., 0], kept[..., 1] = 0, 15
    Q, found, low = quantised.grouped((least + step * kept).view(20, 96))
    assert torch.equal(Q, kept.view(20, 96).int())
    torch.testing.assert_close(found, step[..., 0])
    torch.testing.assert_close(low, least[..., 0])


@pytest.mark.parametrize("shape", [(1, 64, 64), (3, 1281, 40), (5, 130, 344), (8, 33, 7), (40, 96, 128)])
@pytest.mark.parametrize("bias", [False, True])
def test_the_product_with_four_bits_is_that_of_plain_arithmetic(shape, bias):
    """Also where rows and columns do not come out even."""
    B, N, C = shape
    torch.manual_seed(1)
    linear = nn.Linear(C, N, bias=bias)
    x = torch.randn(B, C).bfloat16()
    W = nn.functional.pad(linear.weight.detach(), (0, -C % 32))
    Q, step, least = quantised.grouped(W)
    W = (least[..., None] + step[..., None] * Q.view(N, -1, 32)).view(N, -1)[:, :C]
    wanted = x.float() @ W.T + (linear.bias if bias else 0)
    found = quantised.Int4Linear(linear)
    assert found(x.view(1, B, C)).shape == (1, B, N)
    torch.testing.assert_close(found(x).float(), wanted, atol=0.03, rtol=0.02)


@pytest.mark.parametrize("shape", [(1, 64, 64), (3, 1281, 40), (5, 130, 344), (8, 33, 7), (40, 96, 128)])
@pytest.mark.parametrize("bias", [False, True])
def test_the_product_is_that_of_plain_arithmetic(shape, bias):
    """Also for widths that torch's own product would read beyond."""
    B, N, C = shape
    torch.manual_seed(1)
    linear = nn.Linear(C, N, bias=bias)
    found = quantised.Int8Linear(linear)
    x = torch.randn(B, C).bfloat16()
    Q, scale = quantised.rounded(linear.weight.detach())
    wanted = x.float() @ Q.float().T * scale + (linear.bias if bias else 0)
    assert found(x.view(1, B, C)).shape == (1, B, N)
    torch.testing.assert_close(found(x).float(), wanted, atol=0.02, rtol=0.02)


def small(**settings):
    torch.manual_seed(0)
    return GPT(
        ModelConfig(vocab_size=300, n_layer=2, n_head=2, n_embd=40, context_length=64, **settings)
    ).eval()


def test_a_smaller_model_leaves_the_whole_one_alone_and_takes_less_memory():
    model = small(bias=True)
    before = {name: p.clone() for name, p in model.named_parameters()}
    sizes = {weights: quantised.size(quantised.smaller(model, weights)) for weights in WEIGHTS}
    assert sizes["fp32"] == sum(4 * p.numel() for p in model.parameters())
    assert sizes["bf16"] == sizes["fp32"] / 2 and quantised.smaller(model, "fp32") is model
    assert not any(m.training for weights in WEIGHTS for m in quantised.smaller(model, weights).modules())
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    idx = torch.randint(300, (2, 64))
    with torch.no_grad():
        for weights, close in (("bf16", 0.02), ("int8", 0.04), ("int4", 0.2)):
            logits = quantised.smaller(model, weights)(idx).float()
            assert (logits - model(idx)).norm() / model(idx).norm() < close


def test_what_smaller_weights_cost_is_what_scoring_says():
    model, encoding = checkpoint.load_model(paths.model_folder("story-llama"))
    text = (
        "Long ago, an old owl lived by the river. She was kind, and every morning she flew over the fields."
    )
    found = scoring.by_weights(model, encoding, text)
    ids = encoding.encode(text)
    plain = scoring.text_score(model, encoding, ids)
    assert found["fp32"]["loss"] == pytest.approx(plain["loss"]) and found["fp32"]["same"] == 1.0
    with torch.no_grad():  # the likeliest tokens, counted by hand
        whole, other = (
            m(torch.tensor([ids]))[0, :-1].argmax(-1) for m in (model, quantised.smaller(model, "int8"))
        )
    assert found["int8"]["same"] == pytest.approx(float((whole == other).float().mean()))
    for weights in ("bf16", "int8"):
        assert found[weights]["loss"] == pytest.approx(plain["loss"], rel=0.01)
        assert found[weights]["same"] > 0.9 and found[weights]["bytes"] < 0.6 * found["fp32"]["bytes"]
    assert scoring.by_weights(model, encoding, text) is found  # measured once
    with pytest.raises(ValueError, match="at least 2 tokens"):
        scoring.by_weights(model, encoding, "")


def test_every_model_that_ships_stays_within_one_percent():
    for name in ("story-gpt2", "story-llama", "verse-char"):
        model, encoding = checkpoint.load_model(paths.model_folder(name))
        text = (
            paths.ROOT / "datasets" / ("verse.txt" if name == "verse-char" else "stories.txt")
        ).read_text()[-3000:]
        found = scoring.by_weights(model, encoding, text)
        assert found["int8"]["loss"] == pytest.approx(found["fp32"]["loss"], rel=0.01), (name, found)
        assert found["int8"]["same"] >= 0.95, (name, found)
        assert found["int4"]["loss"] == pytest.approx(found["fp32"]["loss"], rel=0.05), (name, found)
        assert found["int4"]["bytes"] < found["int8"]["bytes"]


@pytest.mark.parametrize("kind", ["inline", "worker"])
def test_the_engine_writes_with_the_weights_that_are_asked_for(monkeypatch, kind):
    """Texts of different weights grow side by side, each as it would alone."""
    monkeypatch.setenv("LLM_ENGINE", kind)
    asked = engine.ENGINES[kind]()
    how = [
        SampleConfig(temperature=0.0, max_new_tokens=12, weights=weights)
        for weights in ("fp32", "int8", "bf16", "int4")
    ]
    texts = [""] * 4
    for steps in asked.generate("story-llama", ["Long ago, a"] * 4, how):
        for step in steps:
            texts[step["row"]] += step["text"]
    model, encoding = checkpoint.load_model(paths.model_folder("story-llama"))
    assert texts == [complete(model, encoding, ["Long ago, a"], one)[0] for one in how]
    table = asked.explain("story-llama", text="Long ago, a", config=how[1])
    ids = encoding.encode("Long ago, a")
    with torch.no_grad():
        logits = quantised.smaller(model, "int8")(torch.tensor([ids]))[0, -1].float()
    assert table["rows"][0]["logit"] == pytest.approx(float(logits.max()), abs=1e-3)
    asked.close()


def test_adapters_speak_in_smaller_weights_too():
    asked = engine.Inline()
    how = SampleConfig(temperature=0.0, max_new_tokens=8, weights="int8")
    said = {}
    for strength in (0.0, 1.0):
        steps = asked.generate("story-prefer", ["Long ago, a"], how, adapters={"story-prefer": strength})
        said[strength] = "".join(step["text"] for some in steps for step in some)
    alone = "".join(s["text"] for some in asked.generate("story-prefer", ["Long ago, a"], how) for s in some)
    assert said[1.0] == alone  # the adapter at 1 is the tuned model
    found = asked.worker.get(tuned.below("story-prefer"))
    assert 0 < len(found.smaller) <= 2


def test_the_terminal_has_the_same_choice():
    command = [sys.executable, "-m", "llm.generate", "--model", "story-llama", "--prompt", "Long ago, a"]
    done = subprocess.run(
        [*command, "--weights", "int8", "--temperature", "0", "--max_new_tokens", "12"],
        capture_output=True, text=True, cwd=paths.ROOT, check=True,
    )  # fmt: skip
    model, encoding = checkpoint.load_model(paths.model_folder("story-llama"))
    how = SampleConfig(temperature=0.0, max_new_tokens=12, weights="int8")
    assert done.stdout.strip().endswith(complete(model, encoding, ["Long ago, a"], how)[0].strip())
    assert tokenizer.get("model:story-llama").vocab_size == model.config.vocab_size
