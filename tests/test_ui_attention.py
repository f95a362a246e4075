"""The Attention tab without a browser: what its handlers answer, how arrays travel, what code it shows."""

import base64
import inspect
import json

import numpy as np
import pytest
import tokenizers
import torch
from tokenizers import decoders, models, pre_tokenizers

from llm import checkpoint, paths, trace
from llm.config import ModelConfig
from llm.model import GPT, Attention
from llm.tokenizer import ByteTokenizer
from ui import parts
from ui.figures import attention as figures
from ui.tabs import attention as tab

TEXT = "The cat sat."


@pytest.fixture
def small(home, monkeypatch):
    """A random model called `small`, in this test's own home, and an engine of this process that has it."""
    torch.manual_seed(0)
    model = GPT(ModelConfig(vocab_size=257, context_length=16, n_layer=2, n_head=2, n_embd=16))
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.2)
    checkpoint.save_model(paths.models() / "small", model.eval(), ByteTokenizer(), "A random model.")
    monkeypatch.setattr(
        tab,
        "ask",
        lambda op, name, **values: engine_operation(op)(
            *checkpoint.load_model(paths.model_folder(name)), **values
        ),
    )
    return model


def engine_operation(op: str):
    """The function that the engine calls by this name."""
    from llm import worker

    return worker.operation(op)


def unpacked(value: dict) -> np.ndarray:
    kind = {"uint8": np.uint8, "float32": "<f4"}[value["type"]]
    return np.frombuffer(base64.b64decode(value["b64"]), kind).reshape(value["shape"])


def asked(**more) -> dict:
    return {
        "model": "small",
        "text": TEXT,
        "special": False,
        "training": False,
        "dropout": 0.2,
        "seed": 0,
        "muted": [],
    } | more


# --- figures


@pytest.mark.parametrize(
    "token, shown",
    [
        (b" cat", "·cat"), (b"\n", "⏎"), (b"\t", "⇥"), ("é".encode(), "é"), (b"\xc3", "⟨C3⟩"), (b"\xe2\x82", "⟨E2 82⟩"),
        (b"a\x00b", "a⟨00⟩b"), (b"", "⟨no token⟩"), ("🙂".encode(), "🙂"), (b"\x9f\x99\x82!", "⟨9F 99 82⟩!"),
    ],
)  # fmt: skip
def test_labels_show_every_byte(token, shown):
    assert figures.label(token) == shown and "\ufffd" not in figures.label(token)


def test_arrays_travel_exactly():
    array = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    np.testing.assert_array_equal(unpacked(figures.pack(array)), array)
    small = np.arange(12, dtype=np.uint8).reshape(3, 4)
    np.testing.assert_array_equal(unpacked(figures.pack(small)), small)
    np.testing.assert_array_equal(unpacked(figures.pack(array.T)), array.T)


def test_packed_is_json_whatever_is_in_it():
    value = {"a": np.ones(2), "b": (b" x", float("nan"), np.float32(0.5), np.int64(3)), "c": None, "d": "<b>"}
    assert json.loads(json.dumps(figures.packed(value)))["b"] == ["·x", None, 0.5, 3]


# --- handlers


def test_look_gives_what_the_trace_gives(small):
    found = tab.look(asked(layer=1, head=1))
    expected = trace.run(small, ByteTokenizer(), TEXT, layer=1, head=1)
    for stage in ("scores", "scaled", "weights"):
        np.testing.assert_array_equal(unpacked(found["stages"][stage]), expected["stages"][stage])
    assert set(found["stages"]) == {"scores", "scaled", "weights"} and found["largest"]["weights"] == 1
    assert found["largest"]["scores"] == pytest.approx(np.abs(expected["stages"]["scores"]).max())
    maps = unpacked(found["maps"])
    assert maps.shape == (2, 2, 12, 12) and np.abs(maps / 255 - expected["maps"]).max() <= 0.5 / 255 + 1e-3
    assert [name for _, name in found["tokens"]][3] == "·" and found["cut"] == ""
    json.dumps(found)


def test_training_mode_shows_dropped_weights(small):
    found = tab.look(asked(training=True, dropout=0.5, layer=0, head=0))
    weights, dropped = unpacked(found["stages"]["weights"]), unpacked(found["stages"]["dropped"])
    kept = dropped != 0
    np.testing.assert_allclose(dropped[kept], weights[kept] * 2, rtol=1e-5)
    assert 0 < found["zeroed"] < found["seen"] and found["largest"]["dropped"] == pytest.approx(dropped.max())


def test_a_cut_is_said(small):
    found = tab.look(asked(text="x" * 20))
    assert (
        found["cut"] == "The text has 20 tokens and this model looks at 16 at once: the last 4 are left out."
    )


def random_model(name: str, **fields) -> GPT:
    """A random model in this test's own home."""
    torch.manual_seed(1)
    shape = dict(vocab_size=257, context_length=64, n_layer=3, n_head=2, n_embd=16)
    model = GPT(ModelConfig(**{**shape, **fields}))
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.2)
    checkpoint.save_model(paths.models() / name, model.eval(), ByteTokenizer(), "A random model.")
    return model


def test_a_sliding_window_travels_as_a_rule(small):
    model = random_model("slides", sliding_window=5, global_every=3)
    for layer in range(3):
        found = tab.look(asked(model="slides", layer=layer))
        expected = trace.run(model, ByteTokenizer(), TEXT, layer=layer)
        assert found["windows"] == [5, 5, 0] and "masked" not in found["stages"]
        weights, window = unpacked(found["stages"]["weights"]), found["windows"][layer]
        row, column = np.indices(weights.shape)
        hidden = (column > row) | ((row - column >= window) if window else False)
        np.testing.assert_array_equal(expected["stages"]["masked"] == -np.inf, hidden)
        assert (weights[hidden] == 0).all()


def test_the_strip_is_the_entropy_over_the_most_it_can_be(small):
    model = random_model("slides", sliding_window=5, global_every=3, context_length=200)
    text = "The cat sat on the mat. " * 8
    found = tab.look(asked(model="slides", text=text))
    entropy = trace.run(model, ByteTokenizer(), text)["entropy"]
    np.testing.assert_allclose(unpacked(found["entropy"]), entropy.mean(-1), rtol=1e-5)
    strip = unpacked(found["strip"])
    assert strip.shape == (3, 2, 64)
    for layer, place in ((0, 150), (2, 150)):  # three rows of the text are one part of the strip
        rows = np.array_split(np.arange(192), 64)[place // 3]
        most = np.log2(np.minimum(rows + 1, 5)) if layer == 0 else np.log2(rows + 1)
        assert strip[layer, 1, place // 3] == pytest.approx(
            255 * (entropy[layer, 1, rows] / most).mean(), abs=1
        )


def test_a_long_text_travels_up_to_the_diagonal_and_stays_small(small):
    model = random_model("long", context_length=4096, n_layer=3, n_head=2)
    text = "".join(chr(97 + (7 * i) % 26) for i in range(1500))
    found = tab.look(asked(model="long", text=text, layer=2, head=1))
    n = len(found["tokens"])
    assert n == 1024 and found["triangle"] and set(found["stages"]) == {"scores"}
    assert "first 1,024 (the model itself reads 4,096): the last 476 are left out" in found["cut"]
    assert len(json.dumps(found)) < 4_000_000
    expected = trace.run(model, ByteTokenizer(), text, layer=2, head=1, maps=False)["stages"]
    scores = np.zeros((n, n), np.float32)
    scores[np.tril_indices(n)] = unpacked(found["stages"]["scores"])
    below = np.tril_indices(n)
    # without maps the layers before go their fast way, which rounds otherwise
    np.testing.assert_allclose(scores[below], expected["scores"][below], atol=1e-3)
    again = tab.look(asked(model="long", text=text, layer=2, head=0, maps=False))
    assert "maps" not in again and "strip" not in again and len(json.dumps(again)) < 3_000_000


def test_what_a_models_texts_begin_with_is_said(small):
    assert tab.look(asked())["begins"] == ""
    own = tokenizers.Tokenizer(
        models.BPE({sign: id for id, sign in enumerate(pre_tokenizers.ByteLevel.alphabet())}, [])
    )
    own.pre_tokenizer, own.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    own.add_special_tokens(["<s>"])
    own.save(str(paths.models() / "small" / "tokenizer.json"))
    (paths.models() / "small" / "tokenizer_config.json").write_text(
        '{"bos_token": "<s>", "add_bos_token": true}'
    )
    assert tab.look(asked())["begins"] == "<s>"


def test_every_other_answer_is_json_of_the_same_numbers(small):
    cell = tab.cell(asked(layer=0, head=1, row=5, column=2))
    assert cell["weight"] == pytest.approx(
        trace.run(small, ByteTokenizer(), TEXT, head=1)["stages"]["weights"][5, 2], abs=1e-6
    )
    lens = tab.lens(asked(position=4))
    assert lens["position"] == 4 and len(lens["grid"]) == 3 and len(lens["attribution"]) == 5
    block = tab.block(asked(layer=1, position=4))
    assert block["layer"] == 1 and unpacked(block["lengths"]).shape == (5, 12) and block["tied"]
    places = tab.positions(asked())
    assert (
        places["position"] == "rope"
        and places["refusal"] == ""
        and unpacked(places["layers"]["all"]["speed"])[0] == 1
    )
    for answer in (cell, lens, block, places):
        assert "error" not in answer
        json.dumps(answer)


def test_loss_beyond_the_context_on_a_dataset(small):
    (paths.datasets() / "mine.txt").write_text("A line of text to read on and on.\n" * 40)
    found = tab.beyond(asked(dataset="mine", factor=2))
    assert found["length"] == 32 and found["inside"] > 0 and len(found["losses"]) == len(found["starts"])
    assert "no text called" in tab.beyond(asked(dataset="absent"))["error"]
    assert "error" in tab.beyond(asked(dataset="../mine"))


def test_the_tail_of_a_file_is_whole_lines(tmp_path):
    file = tmp_path / "x.txt"
    file.write_text("érst\nsecond\nthird\n", encoding="utf-8")
    assert tab.tail(file, 9) == "third\n" and tab.tail(file, 1000) == "érst\nsecond\nthird\n"


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        ({"text": ""}, "type a word"), ({"layer": 9}, "numbered 0 to 1"), ({"model": ""}, "Choose a model"), ({"model": None}, "Choose a model"),
        ({"model": "../etc"}, "model"), ({"text": "x" * 20_001}, "20,000"), ({"layer": "0"}, "layer"), ({"head": True}, "head"),
        ({"dropout": 1.5}, "between 0 and 1"), ({"muted": "all"}, "muted"),
    ],
)  # fmt: skip
def test_wrong_requests_are_sentences(small, wrong, sentence):
    assert sentence in tab.look(asked(**wrong))["error"]


def test_our_own_mistakes_show_no_traceback(monkeypatch):
    def broken(*_, **__):
        raise KeyError("a secret detail")

    monkeypatch.setattr(tab, "ask", broken)
    error = tab.look(asked())["error"]
    assert "Something went wrong" in error and "secret" not in error


def test_shown_code_is_the_source_of_the_function():
    assert parts.source("llm.trace:cell_steps") == inspect.getsource(trace.cell_steps).rstrip()
    assert parts.source("llm.model:Attention.attend").splitlines()[0].startswith("def attend(")
    assert "return kept.to(v.dtype) @ v" in parts.source("llm.model:Attention.attend") and hasattr(
        Attention, "attend"
    )
    assert "@contextmanager" in parts.source("llm.trace:mode")
    assert "error" in tab.code("os:system")


@pytest.mark.parametrize("picture", tab.CODE)
def test_every_picture_has_code(picture):
    found = tab.code(picture)
    assert "def " in found["code"] and found["where"].startswith("llm/")


def test_the_public_function_gives_plain_numbers(small):
    found = tab.heads("small", TEXT, layer=1, head=0)
    assert sum(found["stages"]["weights"][7]) == pytest.approx(1, abs=1e-5)
    assert found["stages"]["masked"][0][1] is None and found["tokens"][0] == [84, "T"]
    json.dumps(found)
    with pytest.raises(ValueError, match="numbered"):
        tab.heads("small", TEXT, layer=5)
