"""One token at a time by the quick way gives what the model gives."""

import pytest
import torch

from llm import decode, generate, quantised
from llm.config import ModelConfig, SampleConfig
from llm.model import GPT, KVCache
from llm.tokenizer import ByteTokenizer
from tests.test_model import SHAPES, made, some_ids

BYTE = ByteTokenizer()

LENGTHS = ([4, 4, 4], [3, 9, 1])  # all texts equally long, and not


def filled(model, ids, lengths):
    """A cache that has read so many of each row's ids, with room for all."""
    cache = KVCache(model.config, len(ids), ids.shape[1], like=model.token_embedding.weight)
    for row, length in enumerate(lengths):
        model.hidden(ids[row : row + 1, :length], generate.part(cache, row, row + 1))
    return cache


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_gives_the_logits_of_the_whole_text(shape, lengths):
    model = made(**SHAPES[shape]).double()
    ids = some_ids(3, 20)
    with torch.no_grad():
        whole = model(ids)
        cache = filled(model, ids, lengths)
        for more in range(8):
            at = torch.tensor(lengths) + more
            logits = decode.step(model, ids.gather(1, at[:, None]), cache)
            torch.testing.assert_close(logits, whole[torch.arange(3), at])
        assert cache.lengths.tolist() == [length + 8 for length in lengths]
        plain = filled(model, ids, [length + 8 for length in lengths])
        for kept, other in ((cache.keys, plain.keys), (cache.values, plain.values)):
            torch.testing.assert_close(kept, other)  # the next step finds what the model would have left


@pytest.mark.parametrize("weights", ["bf16", "int8", "int4"])
def test_smaller_weights_with_a_cache_in_fp32(weights):
    model = quantised.smaller(made(**SHAPES["rope, rmsnorm, grouped"]), weights)
    ids = some_ids(2, 20)
    assert decode.cache_type(model).dtype == torch.float32  # on a processor
    with torch.inference_mode():
        cache = KVCache(model.config, 2, 20, like=decode.cache_type(model))
        model.hidden(ids[:, :12], cache)
        found = torch.stack([decode.step(model, ids[:, t : t + 1], cache) for t in range(12, 20)], 1)
        whole = model(ids)[:, 12:]
    assert (found - whole).norm() / whole.norm() < 0.02  # bf16 keeps 8 bits


def test_a_position_that_was_never_learned_is_refused():
    model = made(**SHAPES["learned, layernorm"])
    cache = KVCache(model.config, 1, 30, like=model.token_embedding.weight)
    cache.lengths[:] = 24
    with (
        torch.no_grad(),
        pytest.raises(ValueError, match="has learned 24 positions and cannot read token number 25"),
    ):
        decode.step(model, torch.tensor([[1]]), cache)


def test_writing_takes_the_quick_way_unless_somebody_looks(monkeypatch):
    torch.manual_seed(0)
    model = GPT(
        ModelConfig(vocab_size=BYTE.vocab_size, n_layer=2, n_head=2, n_embd=16, context_length=12)
    ).eval()
    config, taken, step = SampleConfig(max_new_tokens=30, seed=3), [], decode.step

    def counted(*given):
        taken.append(1)
        return step(*given)

    monkeypatch.setattr(decode, "step", counted)
    quick = generate.complete(model, BYTE, ["ab", "the cat"], config)
    assert len(taken) == 30
    seen = []

    def look(name, tensor):
        seen.append(name)
        return tensor

    model.blocks[1].attention.tap = look
    assert generate.complete(model, BYTE, ["ab", "the cat"], config) == quick
    assert len(taken) == 30 and "weights" in seen
