"""Continuations: each against a reading of its own, however many share a beginning."""

import random

import pytest
import torch

from llm import choices
from llm.config import ModelConfig
from llm.model import GPT

SHAPES = {
    "rope": dict(position="rope", n_kv_head=2),
    "learned": dict(position="learned", norm="layernorm", mlp="gelu", bias=True, qkv_bias=True),
    "window": dict(sliding_window=5, n_kv_head=2),
}


def made(**fields):
    torch.manual_seed(3)
    model = GPT(
        ModelConfig(**(dict(vocab_size=60, context_length=48, n_layer=2, n_head=4, n_embd=32) | fields))
    )
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.2)
    return model.eval()


def alone(model, text, continuation):
    """By one forward pass of the whole, cut to the context."""
    ids = [*text, *continuation][-(model.config.context_length + 1) :]
    with torch.inference_mode():
        logprobs = model(torch.tensor([ids[:-1]]))[0].float().log_softmax(-1)[-len(continuation) :]
    own = [float(row[id]) for row, id in zip(logprobs, continuation)]
    return own, all(int(row.argmax()) == id for row, id in zip(logprobs, continuation))


def asked(seed, long=False):
    chance = random.Random(seed)
    draw = lambda n: [chance.randrange(60) for _ in range(n)]  # noqa: E731
    examples = [draw(20), draw(18)]
    found = []
    for i in range(24):
        text = examples[i % 2] + draw(chance.randint(1, 60 if long else 8))
        found += [(text, draw(1 if i % 3 else chance.randint(1, 4))) for _ in range(4)]
    return [*found, (draw(1), draw(1)), (draw(3), draw(5))]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("long", [False, True])
def test_each_is_what_it_is_alone(shape, long, monkeypatch):
    model = made(**SHAPES[shape])
    for most in (choices.MOST_TOKENS, 40):
        monkeypatch.setattr(choices, "MOST_TOKENS", most)
        requests = asked(7, long)
        for (text, continuation), found in zip(requests, choices.continuations(model, requests)):
            own, greedy = alone(model, text, continuation)
            assert found.token_logprobs == pytest.approx(own, abs=1e-4) and found.greedy == greedy
            assert found.logprob == pytest.approx(sum(own), abs=1e-4)


def test_a_shared_beginning_is_read_once(monkeypatch):
    model, read = made(), []
    real = model.hidden
    monkeypatch.setattr(model, "hidden", lambda idx, *rest: (read.append(idx.numel()), real(idx, *rest))[1])
    text = list(range(30))
    requests = [([*text, i], [choice]) for i in range(6) for choice in range(4)]
    choices.continuations(model, requests)
    assert sum(read) == 30 + 6  # the beginning, and one token for each of six questions, not of 24 choices


def test_the_likeliest_token_is_greedy():
    model = made()
    with torch.inference_mode():
        best = int(model(torch.tensor([[5, 6, 7]]))[0, -1].argmax())
    found = choices.continuations(model, [([5, 6, 7], [best]), ([5, 6, 7], [(best + 1) % 60])])
    assert [one.greedy for one in found] == [True, False] and found[0].logprob > found[1].logprob


@pytest.mark.parametrize(("text", "continuation", "sentence"), [([], [1], "at least one"), ([1], [], "at least one"), ([1], [1] * 49, "49 tokens")])  # fmt: skip
def test_what_cannot_be_scored(text, continuation, sentence):
    with pytest.raises(ValueError, match=sentence):
        choices.continuations(made(), [(text, continuation)])
