"""Scoring a text: each token once, against a loop over single tokens, transformers, and sums by hand."""

import json
import math

import numpy as np
import pytest
import torch

from llm import checkpoint, corpora, engine, files, paths, scoring
from llm.config import ModelConfig
from llm.model import GPT
from llm.tokenizer import ByteTokenizer

BYTE = ByteTokenizer()
TEXT = "Seven grey geese walked over the wet bridge and looked at the water below. " * 3


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(5)
    made = GPT(ModelConfig(vocab_size=257, context_length=32, n_layer=2, n_head=4, n_kv_head=2, n_embd=32))
    with torch.no_grad():
        for p in made.parameters():
            p.add_(torch.randn_like(p) * 0.2)
    return made.eval()


def alone(model, ids, begin, at):
    """The log-probability of ids[at] after ids[begin:at], computed by itself."""
    with torch.inference_mode():
        return float(model(torch.tensor([ids[begin:at]]))[0, -1].log_softmax(-1)[ids[at]])


@pytest.mark.parametrize(("n", "window", "stride"), [(50, 16, 16), (50, 16, 8), (50, 16, 1), (9, 16, 4), (17, 16, 16), (2, 2, 1)])  # fmt: skip
def test_every_token_is_scored_once_with_what_its_window_holds_before_it(model, n, window, stride):
    ids = BYTE.encode(TEXT)[:n]
    found = scoring.score_ids(model, ids, window, stride)
    for i in range(n):
        begin = (
            0 if i < window else -(-(i - window + 1) // stride) * stride
        )  # the first window that reaches i
        if i == begin:
            assert np.isnan(found.logprobs[i]) and found.ranks[i] == 0 and found.best[i] == -1
        else:
            assert found.logprobs[i] == pytest.approx(alone(model, ids, begin, i), abs=1e-4), i


def test_ranks_and_the_likeliest_token(model):
    ids = BYTE.encode(TEXT)[:20]
    found = scoring.score_ids(model, ids, 32, 16)
    with torch.inference_mode():
        logprobs = model(torch.tensor([ids]))[0].log_softmax(-1)
    for i in range(1, 20):
        row = logprobs[i - 1]
        assert found.ranks[i] == int((row > row[ids[i]]).sum()) + 1
        assert found.best[i] == int(row.argmax())
        assert found.best_logprobs[i] == pytest.approx(float(row.max()), abs=1e-5)


def test_counts_of_scored_tokens_by_stride(model):
    ids = (BYTE.encode(TEXT) * 2)[:208]
    counts = [scoring.text_score(model, BYTE, ids, 32, stride)["scored"] for stride in (32, 16, 8)]
    assert counts == [208 - 7, 207, 207]  # disjoint windows: the first of each of the seven is not scored


def test_sums_are_divided_once():
    found = scoring.totals([-0.5, -1.5, float("nan"), -1.0, -3.0], [1, 2, 9, 1, 4])
    assert found["loss"] == 1.5 and found["perplexity"] == pytest.approx(4.4817, abs=1e-4)
    assert found["scored"] == 4 and found["bytes"] == 8
    assert found["bits_per_byte"] == pytest.approx(6 / math.log(2) / 8)
    assert scoring.totals([float("nan")], [3]) == dict(loss=None, perplexity=None, bits_per_byte=None, scored=0, bytes=0)  # fmt: skip


def test_the_strided_perplexity_of_transformers(tmp_path):
    from transformers import GPT2Config, GPT2LMHeadModel

    from llm.convert import folder

    torch.manual_seed(0)
    theirs = GPT2LMHeadModel(
        GPT2Config(vocab_size=257, n_positions=32, n_embd=32, n_layer=2, n_head=2)
    ).eval()
    theirs.save_pretrained(tmp_path / "hf")
    source = folder.look(tmp_path / "hf")
    ours = checkpoint.fill(checkpoint.empty_model(source.config), source.read(), "hf").eval()
    ids = BYTE.encode(TEXT)[:150]
    total, count, before = 0.0, 0, 0
    for begin in range(0, len(ids), 8):
        end = min(begin + 32, len(ids))
        idx = torch.tensor([ids[begin:end]])
        labels = idx.clone()
        labels[:, : -(end - before)] = -100
        with torch.inference_mode():
            loss = theirs(idx, labels=labels).loss
        scored = int((labels[:, 1:] != -100).sum())
        total, count, before = total + float(loss) * scored, count + scored, end
        if end == len(ids):
            break
    found = scoring.text_score(ours, BYTE, ids, 32, 8)
    assert found["scored"] == count and found["loss"] == pytest.approx(total / count, abs=1e-5)


def test_a_large_vocabulary_is_looked_at_in_pieces(model, monkeypatch):
    ids = BYTE.encode(TEXT)[:100]
    whole = scoring.score_ids(model, ids, 32, 8)
    monkeypatch.setattr(scoring, "MOST_LOGITS", 257 * 5)
    monkeypatch.setattr(scoring, "MOST_TOKENS", 64)
    for a, b in zip(whole, scoring.score_ids(model, ids, 32, 8)):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "window", "stride", "sentence"),
    [
        ("", 0, 0, "The text has 0 tokens"),
        ("a", 0, 0, "The text has 1 token: at least 2"),
        ("abc", 64, 0, "The window is 64 tokens and the model sees 32"),
        ("abc", 8, 9, "The stride is 9: choose from 1 to the window's 8"),
        ("abc", 8, -1, "The stride is -1"),
        ("abc", 1, 1, "A window of 1 tokens"),
    ],
)
def test_what_cannot_be_scored_is_said(model, text, window, stride, sentence):
    with pytest.raises(ValueError, match=sentence.replace("(", r"\(")):
        scoring.text_score(model, BYTE, text, window, stride)


def test_page_and_terminal_give_the_same_numbers(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("LLM_ENGINE", "inline")
    file = tmp_path / "text.txt"
    file.write_text("Long ago, a quiet fox named Willa lived by the lake.", encoding="utf-8")
    scoring.main(["story-llama", "story-gpt2", "--text", str(file), "--window", "16", "--stride", "4"])
    rows = json.loads(capsys.readouterr().out)
    for row in rows:
        told = engine.get().text_score(
            row["model"], text=file.read_text(encoding="utf-8"), window=16, stride=4, drawn=3
        )
        assert len(told["drawn"]) == 3 and told["drawn"][0][1] is None
        for name in ("loss", "perplexity", "bits_per_byte", "scored", "bytes", "tokens"):
            assert told[name] == pytest.approx(row[name], rel=1e-5), name
    with pytest.raises(SystemExit, match="no model called"):
        scoring.main(["nobody", "--text", str(file)])


def test_a_text_begins_as_the_models_texts_do(monkeypatch, tmp_path):
    """A model whose texts begin with a token of their own is given it, and then every token of the text is scored."""
    from llm import chat

    monkeypatch.setattr(chat, "read", lambda folder: chat.Manners("m", "", (), (), "<s>", 256, ()))
    monkeypatch.setattr(scoring.chat, "read", chat.read)
    torch.manual_seed(0)
    checkpoint.save_model(paths.models() / "m", GPT(ModelConfig(vocab_size=257, context_length=32, n_layer=1, n_head=2, n_embd=16)), BYTE, "#")  # fmt: skip
    found = scoring.scored_by("m", "abcdef", 0, 0, False)
    assert found["tokens"] == 7 and found["scored"] == 6 and found["bytes"] == 6


def test_the_validation_part_is_whole_documents_at_the_end():
    text = files.read_text(corpora.path("stories")).text
    part = files.validation_part(text)
    assert text.endswith(part) and part[0].isupper() and 0.04 < len(part) / len(text) < 0.05
    assert files.validation_part("x" * 100) == "x" * 5  # no documents: the last characters


@pytest.mark.slow
def test_a_real_model_by_window_and_stride(smollm, tmp_path):
    """SmolLM2: the numbers of scored tokens by hand, the losses by transformers, one window after the other."""
    from transformers import AutoModelForCausalLM

    from llm import tokenizer
    from llm.convert import gguf

    source = gguf.look(smollm)
    for name, content in source.files.items():
        (tmp_path / name).write_bytes(content)
    encoding = tokenizer.load(tmp_path)
    ours = checkpoint.fill(checkpoint.empty_model(source.config), source.read(), "SmolLM2").eval()
    theirs = AutoModelForCausalLM.from_pretrained(
        smollm.parent, gguf_file=smollm.name, dtype=torch.float32
    ).eval()
    text = "A small boat crossed the grey lake before the rain began, and the old man at the oars sang to himself."
    ids = encoding.encode(" ".join([text] * 8))
    n = len(ids)
    found = {}
    for window, stride in ((n, n), (64, 64), (64, 32), (64, 16)):
        total, count, before = 0.0, 0, 1
        for begin in range(0, n, stride):
            end = min(begin + window, n)
            with torch.inference_mode():
                logprobs = theirs(torch.tensor([ids[begin:end]])).logits[0].log_softmax(-1)
            new = range(
                max(before, begin + 1), end
            )  # those that no window before scored and that have one before them
            total -= sum(float(logprobs[i - begin - 1, ids[i]]) for i in new)
            count, before = count + len(new), end
            if end == n:
                break
        got = scoring.text_score(ours, encoding, ids, window, stride)
        assert got["scored"] == count and got["perplexity"] == pytest.approx(
            math.exp(total / count), rel=0.001
        )
        found[window, stride] = got
    assert [one["scored"] for one in found.values()] == [n - 1, n - -(-(n - 1) // 64), n - 1, n - 1]
    assert found[n, n]["perplexity"] < found[64, 16]["perplexity"] < found[64, 32]["perplexity"] < found[64, 64]["perplexity"]  # fmt: skip
    print("; ".join(f"window {w}, stride {s}: {one['scored']} of {n} tokens, perplexity {one['perplexity']:.3f}" for (w, s), one in found.items()))  # fmt: skip
