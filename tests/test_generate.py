"""Sampling by hand-computed tables, and generation by what must never change: rows, seeds, streams, limits."""

import math
import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F

from llm import generate as g
from llm.checkpoint import save_model
from llm.config import ModelConfig, SampleConfig
from llm.model import GPT
from llm.tokenizer import BPETokenizer, ByteTokenizer, CharTokenizer

BYTE = ByteTokenizer()
SENTENCE = "The quick brown fox"


def made(seed: int = 0, spread: float = 0.15, **fields) -> GPT:
    torch.manual_seed(seed)
    shape = dict(vocab_size=257, context_length=64, n_layer=2, n_head=4, n_kv_head=2, n_embd=32)
    model = GPT(ModelConfig(**{**shape, **fields}))
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * spread)
    return model.eval()


@pytest.fixture(scope="module")
def model() -> GPT:
    return made()


@pytest.fixture(scope="module")
def fox() -> GPT:
    """A model that has learned one sentence, and to end it."""
    torch.manual_seed(0)
    model = GPT(
        ModelConfig(vocab_size=257, context_length=64, n_layer=2, n_head=2, n_embd=32, position="learned")
    )
    ids = torch.tensor([[256, *BYTE.encode(SENTENCE), 256]])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(200):
        loss = F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.05
    return model.eval()


def logits_of(*shares: float) -> torch.Tensor:
    return torch.tensor(shares).log()


def kept(logits: torch.Tensor) -> list[int]:
    return (logits > -torch.inf).nonzero()[:, 0].tolist()


def texts(model, prompts, config, encoding=BYTE, **more) -> list[str]:
    found = [""] * len(prompts)
    for step in g.generate(model, encoding, prompts, config, **more):
        found[step.row] += step.text
    return found


def ids_of(model, prompts, config, encoding=BYTE, **more) -> list[list[int]]:
    found = [[] for _ in prompts]
    for step in g.generate(model, encoding, prompts, config, **more):
        found[step.row].append(step.id)
    return found


def greedy(n: int, **more) -> SampleConfig:
    return SampleConfig(temperature=0.0, max_new_tokens=n, **more)


# --- the steps, by hand


def test_penalty_makes_seen_tokens_less_likely_whatever_their_sign():
    logits, seen = torch.tensor([2.0, -1.0, 0.5]), torch.tensor([True, True, False])
    after = g.penalise(logits, seen, 2.0)
    assert after.tolist() == [1.0, -2.0, 0.5]
    # exp(2), exp(-1), exp(0.5) over their sum, and the same after the penalty
    torch.testing.assert_close(logits.softmax(-1), torch.tensor([0.7856, 0.0391, 0.1753]), atol=1e-4, rtol=0)
    torch.testing.assert_close(after.softmax(-1), torch.tensor([0.6037, 0.0301, 0.3662]), atol=1e-4, rtol=0)
    assert torch.equal(g.penalise(logits, seen, 1.0), logits)


def test_penalty_counts_each_token_once_and_the_prompt_too(model):
    config = SampleConfig(repetition_penalty=2.0)
    row = g.Row(0, [5, 5, 5, 7], config, model, BYTE)
    assert row.seen.nonzero()[:, 0].tolist() == [5, 7]
    row.add(9, 0.0, 1.0, ())
    assert row.seen.nonzero()[:, 0].tolist() == [5, 7, 9]
    once = g.explain(torch.tensor([2.0, -1.0, 0.5]), [0, 1], config)
    thrice = g.explain(torch.tensor([2.0, -1.0, 0.5]), [0, 0, 0, 1], config)
    assert once == thrice


def test_temperature_divides_and_zero_takes_the_first_of_the_likeliest():
    logits = torch.tensor([1.0, 3.0, 2.0])
    assert g.at_temperature(logits, 0.5).tolist() == [2.0, 6.0, 4.0]
    assert kept(g.at_temperature(logits, 0.0)) == [1]
    assert kept(g.at_temperature(torch.tensor([1.0, 3.0, 3.0]), 0.0)) == [1]
    assert kept(g.at_temperature(logits, 1e-300)) == [1]
    both = g.at_temperature(torch.tensor([[1.0, 3.0, 2.0], [9.0, 3.0, 2.0]]), 0.0)
    assert [kept(row) for row in both] == [[1], [0]]


@pytest.mark.parametrize(
    "k, expected", [(0, [0, 1, 2, 3]), (1, [2]), (2, [0, 2]), (4, [0, 1, 2, 3]), (99, [0, 1, 2, 3])]
)
def test_top_k(k, expected):
    assert kept(g.keep_top_k(torch.tensor([2.0, 1.0, 3.0, 0.0]), k)) == expected


def test_top_k_keeps_exactly_k_of_equal_tokens():
    assert kept(g.keep_top_k(torch.tensor([1.0, 2.0, 1.0, 1.0, 0.0]), 3)) == [0, 1, 2]


@pytest.mark.parametrize(
    "shares, p, expected",
    [
        ((0.5, 0.41, 0.09), 0.9, [0, 1]),  # the token that crosses p belongs to the set
        ((0.4, 0.3, 0.2, 0.1), 0.8, [0, 1, 2]),
        ((0.5, 0.3, 0.15, 0.05), 0.6, [0, 1]),
        ((0.5, 0.3, 0.15, 0.05), 0.85, [0, 1, 2]),
        ((0.5, 0.25, 0.125, 0.125), 0.75, [0, 1]),  # p is reached exactly: no further one
        ((0.125, 0.5, 0.125, 0.25), 0.75, [1, 3]),
        ((0.6, 0.3, 0.1), 0.6, [0]),
        ((0.6, 0.3, 0.1), 0.0, [0]),  # never empty
        ((0.25, 0.25, 0.25, 0.25), 0.5, [0, 1]),
        ((0.6, 0.3, 0.1), 1.0, [0, 1, 2]),
    ],
)
def test_top_p(shares, p, expected):
    assert kept(g.keep_top_p(logits_of(*shares), p)) == expected
    shifted = logits_of(*shares) + 3.0  # logits are not log-probabilities
    assert kept(g.keep_top_p(shifted, p)) == expected


def test_top_p_beyond_the_pre_cut_is_that_of_a_full_sort():
    torch.manual_seed(0)
    logits = torch.randn(3, 5000)
    for p in (0.1, 0.5, 0.9, 0.999):
        chances = logits.softmax(-1).double()
        for row, chance in zip(g.keep_top_p(logits, p), chances):
            order = chance.argsort(descending=True)
            held, expected = 0.0, []
            for id in order.tolist():
                expected.append(id)
                held += float(chance[id])
                if held >= p - g.EXACT:
                    break
            assert kept(row) == sorted(expected)


@pytest.mark.parametrize(
    "shares, min_p, expected",
    [
        ((0.48, 0.37, 0.10, 0.05), 0.2, [0, 1, 2]),  # the cut is 9.6 %
        ((0.98, 0.015, 0.005), 0.2, [0]),  # the cut is 19.6 %
        ((0.5, 0.25, 0.25), 0.5, [0, 1, 2]),  # exactly on the cut stays
        ((0.5, 0.3, 0.2), 1.0, [0]),
        ((0.5, 0.3, 0.2), 0.0, [0, 1, 2]),
    ],
)
def test_min_p(shares, min_p, expected):
    assert kept(g.keep_min_p(logits_of(*shares), min_p)) == expected


def test_temperature_comes_before_the_filters():
    logits, none = torch.tensor([3.0, 2.0, 1.0]), torch.zeros(3, dtype=torch.bool)
    colder = g.probabilities(logits, none, SampleConfig(temperature=0.5, top_p=0.8))
    assert colder.nonzero()[:, 0].tolist() == [
        0
    ]  # exp(6) alone holds 0.867; at temperature 1 it would be {0, 1}
    warmer = g.probabilities(logits, none, SampleConfig(temperature=2.0, min_p=0.3))
    assert warmer.nonzero()[:, 0].tolist() == [0, 1, 2]  # exp(-1) = 0.368 of the top; at temperature 1 {0, 1}


def test_what_is_kept_is_renormalised():
    logits, none = logits_of(0.5, 0.3, 0.15, 0.05), torch.zeros(4, dtype=torch.bool)
    chances = g.probabilities(logits, none, SampleConfig(temperature=1.0, top_k=2))
    torch.testing.assert_close(chances, torch.tensor([0.625, 0.375, 0.0, 0.0]))
    # top-p sees what top-k has left: 0.625 reaches 0.6 by itself, 0.5 would not
    chances = g.probabilities(logits, none, SampleConfig(temperature=1.0, top_k=2, top_p=0.6))
    assert chances.tolist() == [1.0, 0.0, 0.0, 0.0]


def test_draw_gives_each_token_its_share():
    chances = torch.tensor([0.0, 0.2, 0.0, 0.5, 0.3, 0.0])
    u = (torch.arange(1000) / 1000)[:, None]
    drawn = g.draw(chances.expand(1000, 6), u)[:, 0]
    assert drawn.bincount(minlength=6).tolist() == pytest.approx([0, 200, 0, 500, 300, 0], abs=1)
    almost_one = torch.tensor([[1 - 2**-53]], dtype=torch.float64)
    assert g.draw(chances[None], almost_one).tolist() == [[4]]
    assert g.draw(chances[None], torch.zeros(1, 1)).tolist() == [[1]]


def test_logits_that_are_not_numbers_are_refused():
    for bad in (math.nan, math.inf):
        with pytest.raises(ValueError, match="not finite"):
            g.explain(torch.tensor([1.0, bad]), [], SampleConfig())


def test_negative_settings_are_refused():
    for wrong in (
        dict(temperature=-1),
        dict(top_k=-1),
        dict(top_p=1.5),
        dict(min_p=-0.1),
        dict(temperature=math.nan),
    ):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            SampleConfig(**wrong)


# --- the table


def test_explain_shows_what_each_step_does():
    shares = (0.4, 0.3, 0.15, 0.1, 0.05)
    config = SampleConfig(temperature=1.0, top_k=4, top_p=0.8, min_p=0.5, repetition_penalty=1.0)
    table = g.explain(logits_of(*shares), [], config, top=5)
    by_id = {row["id"]: row for row in table["rows"]}
    assert [row["id"] for row in table["rows"]] == [0, 1, 2, 3, 4]
    assert [by_id[i]["softmax"] for i in range(5)] == pytest.approx(shares, abs=1e-6)
    assert [by_id[i]["top_k"] for i in range(4)] == pytest.approx([s / 0.95 for s in shares[:4]], abs=1e-6)
    assert by_id[4]["top_k"] is None
    assert [by_id[i]["top_p"] for i in range(3)] == pytest.approx([s / 0.85 for s in shares[:3]], abs=1e-6)
    assert by_id[3]["top_p"] is None and by_id[3]["top_k"] is not None
    assert [by_id[i]["min_p"] for i in range(2)] == pytest.approx([4 / 7, 3 / 7], abs=1e-6)
    assert by_id[2]["min_p"] is None and by_id[2]["top_p"] is not None
    assert by_id[0]["probability"] == by_id[0]["min_p"] and by_id[2]["probability"] == 0
    assert table["kept"] == dict(logit=5, penalty=5, temperature=5, top_k=4, top_p=3, min_p=2)
    assert table["order"] == ["penalty", "temperature", "top_k", "top_p", "min_p"]


def test_explain_lists_what_was_chosen_even_when_it_is_unlikely():
    table = g.explain(logits_of(0.4, 0.3, 0.2, 0.1), [], SampleConfig(), top=2, also=[3, 0])
    assert [row["id"] for row in table["rows"]] == [0, 1, 3]


def test_explain_and_sampling_are_the_same_numbers(model):
    torch.manual_seed(0)
    config = SampleConfig(temperature=0.7, top_k=30, top_p=0.9, min_p=0.02, repetition_penalty=1.3)
    prompt = BYTE.encode("some words, some words")
    step = next(g.generate(model, BYTE, [prompt], config))
    table = g.explain(g.next_logits(model, prompt), prompt, config, BYTE, top=257)
    row = next(row for row in table["rows"] if row["id"] == step.id)
    assert row["probability"] == pytest.approx(step.chance, rel=1e-4)
    assert sum(row["probability"] for row in table["rows"]) == pytest.approx(1)
    raw = g.next_logits(model, prompt).log_softmax(-1)
    assert step.logprob == pytest.approx(float(raw[step.id]), abs=1e-4)


def test_ids_without_a_token_are_never_listed_or_drawn():
    padded = made(vocab_size=270, spread=0.0)  # all tokens about equally likely, 13 of 270 rows are padding
    config = SampleConfig(temperature=100.0, max_new_tokens=60, stop_at_eot=False)
    drawn = [id for row in ids_of(padded, [[65]] * 20, config) for id in row]
    assert len(drawn) == 1200 and max(drawn) <= 256
    table = g.explain(g.next_logits(padded, [65]), [], config, BYTE, top=270)
    assert len(table["rows"]) == 257
    tops = [step.top for step in g.generate(padded, BYTE, [[65]], config, alternatives=270)]
    assert all(len(top) == 257 for top in tops)


# --- generation


def test_greedy_is_greedy_whatever_the_seed_and_top_k(model):
    prompt = BYTE.encode("abc")
    expected, ids = [], list(prompt)
    with torch.no_grad():
        for _ in range(20):
            ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
            expected.append(ids[-1])
    for top_k in (0, 1, 50):
        for seed in range(5):
            config = greedy(20, top_k=top_k, seed=seed, stop_at_eot=False)
            assert ids_of(model, [prompt], config) == [expected]
    cold = SampleConfig(temperature=1.0, top_k=1, max_new_tokens=20, stop_at_eot=False)
    assert ids_of(model, [prompt], cold) == [expected]


def test_top_k_of_the_whole_vocabulary_or_more_is_off(model):
    def text(k):
        return ids_of(model, [[65, 66]], SampleConfig(top_k=k, seed=7, max_new_tokens=30, stop_at_eot=False))

    assert text(0) == text(257) == text(100_000)
    assert text(0) != text(2)


def test_a_seed_repeats_a_text_and_another_gives_another(model):
    def text(seed):
        return texts(model, [[65]], SampleConfig(seed=seed, max_new_tokens=40))

    assert text(3) == text(3)
    assert text(3) != text(4)


@pytest.mark.parametrize(
    "config", [greedy(25), SampleConfig(max_new_tokens=25, seed=5, repetition_penalty=1.2)]
)
def test_each_row_of_a_batch_is_its_single_run(model, config):
    prompts = [BYTE.encode(text) for text in ("abc", "nine byte", "a prompt of 20 bytes")]
    together = ids_of(model, prompts, config)
    for r, prompt in enumerate(prompts):
        alone = ids_of(model, [prompt], SampleConfig(**{**vars(config), "seed": config.seed + r}))
        assert together[r] == alone[0]


def test_rows_end_by_themselves(fox):
    prompts = [
        BYTE.encode(text, special=True) for text in ("<|endoftext|>The", "<|endoftext|>The quick brown f")
    ]
    steps = list(g.generate(fox, BYTE, prompts, greedy(40)))
    assert [s.finish for s in steps if s.finish] == ["eot", "eot"]
    for r, rest in enumerate((" quick brown fox", "ox")):
        own = [s for s in steps if s.row == r]
        assert "".join(s.text for s in own) == rest
        assert own[-1].id == 256 and own[-1].finish == "eot" and own[-1].text == ""
        assert len(own) == len(rest) + 1


def test_end_of_text_may_be_walked_over(fox):
    prompt = BYTE.encode("<|endoftext|>The quick brown f", special=True)
    text = texts(fox, [prompt], greedy(10, stop_at_eot=False))[0]
    assert text.startswith("ox<|endoftext|>")


def test_more_texts_than_places_wait_their_turn(model):
    batch = g.Batch(model, BYTE, rows=2)
    for r in range(5):
        batch.join(g.Row(r, [65 + r], greedy(3 + r, stop_at_eot=False), model, BYTE))
    found = {}
    while batch.rows or batch.waiting:
        assert len(batch.rows) <= 2
        for _, step in batch.step():
            found.setdefault(step.row, []).append(step.id)
    for r in range(5):
        assert found[r] == ids_of(model, [[65 + r]], greedy(3 + r, stop_at_eot=False))[0]


def test_a_text_that_leaves_frees_its_place_and_harms_no_other(model):
    batch, found = g.Batch(model, BYTE), {}
    rows = [g.Row(r, [65 + r], greedy(12, stop_at_eot=False), model, BYTE) for r in range(3)]
    for row in rows:
        batch.join(row)
    for n in range(12):
        if n == 4:
            batch.leave(rows[0])
            assert len(batch.rows) == 2
        for _, step in batch.step():
            found.setdefault(step.row, []).append(step.id)
    assert len(found[0]) == 4
    for r in (1, 2):
        assert found[r] == ids_of(model, [[65 + r]], greedy(12, stop_at_eot=False))[0]
    batch.leave(rows[0])  # again: no longer there, no error
    assert not batch.rows


def test_forced_tokens_come_first_and_leave_the_rest_as_it_was(model):
    config = SampleConfig(seed=2, max_new_tokens=20, stop_at_eot=False)
    free = ids_of(model, [[65]], config)[0]
    assert ids_of(model, [[65]], config, forced=free[:8]) == [free]
    other = (free[7] + 1) % 256
    changed = ids_of(model, [[65]], config, forced=[*free[:7], other])[0]
    assert changed[:8] == [*free[:7], other] and changed[8:] != free[8:]


# --- stop strings


def test_a_stop_string_is_never_shown_not_even_its_beginning(fox):
    prompt = BYTE.encode("<|endoftext|>The", special=True)
    steps = list(g.generate(fox, BYTE, [prompt], greedy(40, stop=("own fox",))))
    shown = ""
    for step in steps:
        shown += step.text
        assert " quick br".startswith(shown)  # nothing has to be taken back
    assert shown == " quick br" and steps[-1].finish == "stop"


def test_text_held_back_for_a_stop_string_arrives_in_the_end(fox):
    prompt = BYTE.encode("<|endoftext|>The", special=True)
    for stop in (("own cat",), ("fox!",), ("own cat", "foxes", "x?")):
        steps = list(g.generate(fox, BYTE, [prompt], greedy(40, stop=stop)))
        assert "".join(s.text for s in steps) == " quick brown fox"
        assert steps[-1].finish == "eot"
    cut = list(g.generate(fox, BYTE, [prompt], greedy(12, stop=("brown fox",))))
    assert "".join(s.text for s in cut) == " quick brown" and cut[-1].finish == "length"


def test_the_first_stop_string_in_the_text_counts(fox):
    prompt = BYTE.encode("<|endoftext|>The", special=True)
    assert texts(fox, [prompt], greedy(40, stop=("fox", "brown", "quick brown fox")))[0] == " quick "
    assert (
        texts(fox, [prompt], greedy(40, stop=("The",)))[0] == " quick brown fox"
    )  # the prompt does not stop it


def test_stop_strings_across_pieces_of_any_length(model):
    """Whatever the cut into tokens, what is shown is the text before the first stop string."""
    whole = "aab aabaac aabaab end"
    for stop in ("aabaab", "aac", "b e", "zz", " "):
        for size in range(1, 8):
            row = g.Row(0, [65], SampleConfig(stop=(stop,)), model, BYTE)
            shown, stopped = "", False
            pieces = [whole[i : i + size] for i in range(0, len(whole), size)]
            for piece in pieces:
                text, stopped = row.certain(piece, final=piece is pieces[-1])
                shown += text
                if stopped:
                    break
            assert (shown, stopped) == (whole.split(stop)[0], stop in whole)


# --- characters that are cut


def streamed(ids: list[int], encoding) -> list[str]:
    """What is on screen after each id."""
    model = made(vocab_size=encoding.vocab_size)
    config = greedy(len(ids) + 1, stop_at_eot=False)
    shown = [""]
    for step in g.generate(model, encoding, [[65]], config, forced=ids):
        shown.append(shown[-1] + step.text)
    return shown[1 : len(ids) + 1]


def test_characters_of_several_tokens_appear_whole():
    assert streamed(list("é漢".encode()), BYTE) == ["", "é", "é", "é", "é漢"]


def test_characters_of_several_bpe_tokens_appear_whole():
    ranks = {bytes([b]): b for b in range(256)} | {b"\xf0\x9f": 256, b"\x94\xa5": 257, b" o": 258}
    bpe = BPETokenizer("fire", ranks, r"\S+|\s+", {"<|endoftext|>": 259})
    assert streamed([256, 257, 258, ord("k")], bpe) == ["", "🔥", "🔥 o", "🔥 ok"]


def test_a_character_cut_off_by_the_end_is_left_out():
    model, ids = made(), list("a漢".encode())
    assert texts(model, [[65]], greedy(3), forced=ids) == ["a"]
    assert texts(model, [[65]], greedy(4), forced=ids) == ["a漢"]


# --- limits of the context


@pytest.mark.parametrize("position", ["learned", "rope", "sinusoidal", "none"])
def test_a_prompt_beyond_the_context_keeps_its_end(position):
    model = made(position=position)
    prompt = [int(i) for i in torch.randint(0, 256, (100,), generator=torch.Generator().manual_seed(1))]
    first = next(g.generate(model, BYTE, [prompt], greedy(5)))
    assert first.dropped == 36 and "100" in first.note and "64" in first.note and "36" in first.note
    same = next(g.generate(model, BYTE, [prompt[36:]], greedy(5)))
    assert same.id == first.id and same.dropped == 0 and same.note == ""


@pytest.mark.parametrize("position", ["learned", "rope"])
def test_generation_goes_on_when_the_context_is_full(position):
    model = made(position=position)
    prompt = [int(i) for i in torch.randint(0, 256, (60,), generator=torch.Generator().manual_seed(1))]
    steps = list(g.generate(model, BYTE, [prompt], greedy(100, stop_at_eot=False)))
    assert len(steps) == 100
    # the model has read 64 tokens after 5 new ones; the 6th is drawn from the newer 32, and so on every 33 tokens
    assert [(n, s.dropped) for n, s in enumerate(steps) if s.dropped] == [(5, 33), (38, 33), (71, 33)]
    assert all(bool(s.note) == bool(s.dropped) for s in steps)
    ids = prompt + [s.id for s in steps]
    for n in (5, 20, 37):
        with torch.no_grad():
            assert int(model(torch.tensor([ids[33 : 60 + n]]))[0, -1].argmax()) == ids[60 + n]


def test_contexts_of_one_and_two_tokens_go_on():
    for context_length in (1, 2, 3):
        steps = list(
            g.generate(
                made(context_length=context_length), BYTE, [[65, 66, 67, 68]], greedy(9, stop_at_eot=False)
            )
        )
        assert len(steps) == 9 and steps[0].dropped == 4 - context_length


def test_rows_overflow_independently(model):
    prompts = [[65] * 62, [66] * 3, [67] * 40]
    config = greedy(50, stop_at_eot=False)
    together = ids_of(model, prompts, config)
    assert together == [ids_of(model, [prompt], config)[0] for prompt in prompts]


def test_an_empty_prompt_starts_from_end_of_text_or_is_refused(fox):
    first, *rest = g.generate(fox, BYTE, [[]], greedy(40))
    assert "end-of-text" in first.note
    assert first.text + "".join(s.text for s in rest) == SENTENCE
    letters = CharTokenizer("abc")
    with pytest.raises(ValueError, match="type a prompt"):
        list(g.generate(made(vocab_size=3), letters, [[]], greedy(5)))


def test_no_new_tokens_is_no_text(model):
    assert list(g.generate(model, BYTE, [[65]], greedy(0))) == []


def test_unknown_ids_are_refused(model):
    with pytest.raises(ValueError, match="999"):
        list(g.generate(model, BYTE, [[65, 999]], greedy(2)))
    with pytest.raises(ValueError, match="999"):
        list(g.generate(model, BYTE, [[65]], greedy(2), forced=[999]))


# --- manners


def test_generation_is_without_dropout_and_leaves_the_model_as_it_was():
    model = made(dropout=0.5)
    still = ids_of(model, [[65]], greedy(10))
    model.train()
    model.blocks[0].eval()
    modes = [m.training for m in model.modules()]
    assert ids_of(model, [[65]], greedy(10)) == still
    steps = g.generate(model, BYTE, [[65]], greedy(10))
    next(steps)
    assert [m.training for m in model.modules()] == modes  # between two steps too
    assert not torch.is_inference_mode_enabled()
    assert all(p.grad is None for p in model.parameters())


def test_a_model_of_nan_is_refused_in_words():
    model = made()
    with torch.no_grad():
        model.norm.weight.fill_(math.nan)
    with pytest.raises(ValueError, match="not finite"):
        list(g.generate(model, BYTE, [[65]], SampleConfig(max_new_tokens=3)))


def test_alternatives_are_the_models_own_opinion(model):
    step = next(g.generate(model, BYTE, [[65, 66]], greedy(1), alternatives=5))
    chances = g.next_logits(model, [65, 66]).softmax(-1)
    values, ids = chances.topk(5)
    assert [id for id, _, _ in step.top] == ids.tolist()
    assert [p for _, _, p in step.top] == pytest.approx(values.tolist(), rel=1e-4)
    assert step.id == step.top[0][0] and math.exp(step.logprob) == pytest.approx(step.top[0][2])
    assert step.chance == 1.0


# --- the terminal


def command(model_home, *flags: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "llm.generate", *flags], capture_output=True, text=True, timeout=120,
        env={"PATH": "/usr/bin:/bin", "LLM_HOME": str(model_home), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def test_the_command_prints_the_text(tmp_path, fox):
    save_model(tmp_path / "models" / "fox", fox, BYTE, "# fox\n")
    flags = ("--model", "fox", "--prompt", "<|endoftext|>The", "--special", "--temperature", "0")
    done = command(tmp_path, *flags)
    assert done.stdout == " quick brown fox\n" and "the model ended the text" in done.stderr
    assert command(tmp_path, *flags, "--stop", "own", "--max_new_tokens", "30").stdout == " quick br\n"
    table = command(tmp_path, *flags, "--explain", "3").stdout
    assert "min_p" in table and "' '" in table
    wrong = command(tmp_path, "--model", "nobody")
    assert wrong.returncode == 1 and "nobody" in wrong.stderr and "Traceback" not in wrong.stderr


@pytest.mark.parametrize("rules", [dict(top_k=5), dict(top_k=5, top_p=0.8), dict(top_k=7, min_p=0.2), dict(top_k=3, repetition_penalty=1.5)])  # fmt: skip
@pytest.mark.parametrize("tied", [False, True])
def test_a_shortlist_changes_nothing(rules, tied):
    """The few that top-k keeps, looked at by themselves, against every step on the whole vocabulary."""
    config = SampleConfig(temperature=0.7, **rules)
    logits = torch.randn(3, 64, generator=torch.Generator().manual_seed(1)) * 3
    if tied:
        edge = logits[1].topk(config.top_k).indices[-1]
        logits[1, (edge + 1) % 64] = logits[1, edge]
    seen = torch.rand(3, 64, generator=torch.Generator().manual_seed(2)) < 0.3
    whole = logits
    for step in g.STEPS.values():
        whole = step(whole, seen, config)
    torch.testing.assert_close(g.probabilities(logits, seen, config), torch.softmax(whole, -1))
    (one,) = g.probabilities(logits[:1], seen[:1], config)
    torch.testing.assert_close(g.probabilities(logits[0], seen[0], config), one)
    assert (g.shortlist(logits, config.top_k) is None) == tied
