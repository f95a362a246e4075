"""One token at a time by the quick way gives what the model gives."""

import pytest
import torch
from torch.nn import functional as F

from llm import decode, generate, quantised, recorded
from llm.config import ModelConfig, SampleConfig
from llm.model import GPT, KVCache
from llm.tokenizer import ByteTokenizer
from tests.test_model import SHAPES, made, some_ids

BYTE = ByteTokenizer()

LENGTHS = ([4, 4, 4], [3, 9, 1], [5])  # all texts equally long, and not; one alone, of few heads


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
    ids = some_ids(len(lengths), 20)
    with torch.no_grad():
        whole = model(ids)
        cache, decoder = filled(model, ids, lengths), decode.Decoder(model)
        for more in range(8):
            at = torch.tensor(lengths) + more
            logits = decoder.step(ids.gather(1, at[:, None]), cache)
            torch.testing.assert_close(logits, whole[torch.arange(len(lengths)), at])
        assert cache.lengths.tolist() == [length + 8 for length in lengths]
        plain = filled(model, ids, [length + 8 for length in lengths])
        for kept, other in ((cache.keys, plain.keys), (cache.values, plain.values)):
            torch.testing.assert_close(kept, other)  # the next step finds what the model would have left


@pytest.mark.parametrize("shape", SHAPES)
def test_steps_that_can_be_recorded_give_the_same(shape):
    model = made(**SHAPES[shape]).double()
    ids, lengths = some_ids(2, 20), [3, 9]
    with torch.no_grad():
        whole, cache, decoder = model(ids), filled(model, ids, lengths), decode.Decoder(model)
        for more in range(4):
            at = torch.tensor(lengths) + more
            logits = decoder.through(ids.gather(1, at[:, None]), cache, decode.Shared(cache, fixed=True))
            torch.testing.assert_close(logits, whole[torch.arange(2), at])


class Replay:
    """What torch.cuda.CUDAGraph is to its user, on a processor: to replay is to do the recorded step again, in the same places."""

    def replay(self) -> None:
        self.again()


def test_a_step_is_recorded_once_for_each_size_of_the_cache(monkeypatch):
    model, ids = made(**SHAPES["learned, layernorm"]), some_ids(1, 20)
    decoder = recorded.Recorded(model)

    def record(idx, cache):
        lengths = cache.lengths.clone()
        graph, held = Replay(), idx.clone()
        logits = decoder.through(held, cache, decode.Shared(cache, fixed=True))
        cache.lengths.copy_(lengths)
        graph.again = lambda: logits.copy_(decoder.through(held, cache, decode.Shared(cache, fixed=True)))
        made_for.append(tuple(cache.keys.shape))
        return recorded.Recording(graph, held, logits, cache)

    made_for = []
    monkeypatch.setattr(decoder, "record", record)
    with torch.no_grad():
        whole, cache = model(ids), filled(model, ids, [4])
        first = decoder.step(ids[:, 4:5], cache)
        second = decoder.step(ids[:, 5:6], cache)
        torch.testing.assert_close(torch.stack([first, second], 1), whole[:, 4:6])
        assert len(made_for) == 1 and len(decoder.recordings) == 1
        decoder.step(ids[:, 4:5], filled(model, ids, [4]))
        assert len(made_for) == 2 and len(decoder.recordings) == 1  # the cache before is let go
        cache.lengths[:] = 24
        with pytest.raises(ValueError, match="has learned 24 positions"):
            decoder.step(ids[:, :1], cache)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_where_nothing_can_be_recorded_it_goes_step_by_step(caplog):
    model, ids = made(**SHAPES["rope, rmsnorm, grouped"]), some_ids(1, 20)
    assert type(recorded.decoder(model)) is decode.Decoder
    decoder = recorded.Recorded(model)
    with torch.no_grad():
        whole, cache = model(ids), filled(model, ids, [4])
        for at in (4, 5):
            torch.testing.assert_close(decoder.step(ids[:, at : at + 1], cache), whole[:, at])
    assert decoder.fails and len([one for one in caplog.messages if "could not be recorded" in one]) == 1


@pytest.mark.parametrize("weights", ["bf16", "int8", "int4"])
def test_smaller_weights_with_a_cache_in_fp32(weights):
    model = quantised.smaller(made(**SHAPES["rope, rmsnorm, grouped"]), weights)
    ids = some_ids(2, 20)
    assert decode.cache_type(model).dtype == torch.float32  # on a processor
    with torch.inference_mode():
        cache = KVCache(model.config, 2, 20, like=decode.cache_type(model))
        model.hidden(ids[:, :12], cache)
        decoder = decode.Decoder(model)
        found = torch.stack([decoder.step(ids[:, t : t + 1], cache) for t in range(12, 20)], 1)
        whole = model(ids)[:, 12:]
    assert (found - whole).norm() / whole.norm() < 0.02  # bf16 keeps 8 bits


@pytest.mark.parametrize("heads", [(3, 1), (4, 2), (4, 4), (9, 3)])
def test_few_heads_are_attended_as_many_are(heads):
    H, K = heads
    torch.manual_seed(H)
    q, kept = torch.randn(1, H, 8), torch.randn(2, 1, K, 30, 8)
    keys, values = kept[:, :, :, :20]  # of a cache with room left
    want = F.scaled_dot_product_attention(q[:, :, None], keys, values, scale=0.3, enable_gqa=True)
    torch.testing.assert_close(decode.few_heads(q, keys, values, 0.3).reshape(1, H, 8), want[:, :, 0])


def test_a_position_that_was_never_learned_is_refused():
    model = made(**SHAPES["learned, layernorm"])
    cache = KVCache(model.config, 1, 30, like=model.token_embedding.weight)
    cache.lengths[:] = 24
    with (
        torch.no_grad(),
        pytest.raises(ValueError, match="has learned 24 positions and cannot read token number 25"),
    ):
        decode.Decoder(model).step(torch.tensor([[1]]), cache)


def test_writing_takes_the_quick_way_unless_somebody_looks(monkeypatch):
    torch.manual_seed(0)
    model = GPT(
        ModelConfig(vocab_size=BYTE.vocab_size, n_layer=2, n_head=2, n_embd=16, context_length=12)
    ).eval()
    config, taken, step = SampleConfig(max_new_tokens=30, seed=3), [], decode.Decoder.step

    def counted(*given):
        taken.append(1)
        return step(*given)

    monkeypatch.setattr(decode.Decoder, "step", counted)
    quick = generate.complete(model, BYTE, ["ab", "the cat"], config)
    assert len(taken) == 30
    seen = []

    def look(name, tensor):
        seen.append(name)
        return tensor

    model.blocks[1].attention.tap = look
    assert generate.complete(model, BYTE, ["ab", "the cat"], config) == quick
    assert len(taken) == 30 and "weights" in seen
