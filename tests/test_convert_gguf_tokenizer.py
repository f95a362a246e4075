"""The tokenizer of a GGUF file both ways, held against the `tokenizers` library set up as the models' own files are."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import tokenizers
from tokenizers import Regex, models, normalizers, pre_tokenizers, trainers

from llm import tokenizer
from llm.convert import gguf_tokenizer
from llm.convert.gguf_tokenizer import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED

TEXTS = [
    "It's 1234567 o'clock; THEY'LL say: don't -- x=y+3*[4];{}  \r\n  naïve café 日本語 Привет 🦊🦊",
    "   leading", "trailing   ", "\n\n\n", "\t tabs\t", "a/b//c\n/ d\r\r\n", "12,345.67 $5^2 ~a|b <c> `d`", "٣٤٥ ①② ½", "",
]  # fmt: skip
SIGNS = [
    "a",
    "B",
    " ",
    "  ",
    "\n",
    "\r\n",
    "1",
    "23",
    "é",
    "'s",
    "'T",
    "!",
    "--",
    "中",
    "🦊",
    "$",
    "\t",
    "Ж",
    "_",
    "/",
    "½",
]
CHANCE = random.Random(0)
TEXTS += ["".join(CHANCE.choice(SIGNS) for _ in range(20)) for _ in range(40)]


def byte_level() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges of a byte-level BPE trained on the texts above."""
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        TEXTS * 3, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    )
    model = json.loads(made.to_str())["model"]
    return model["vocab"], [tuple(pair) for pair in model["merges"]]


VOCAB, MERGES = byte_level()


def settings(pre: str | None = "gpt-2", **more) -> dict:
    """The metadata of a GGUF with that vocabulary and an end-of-text token after it."""
    tokens = [*sorted(VOCAB, key=VOCAB.get), "<|end|>"]
    found = {
        "model": "gpt2", "tokens": tokens, "token_type": [*[NORMAL] * len(VOCAB), CONTROL],
        "merges": [" ".join(pair) for pair in MERGES], "bos_token_id": len(VOCAB), "eos_token_id": len(VOCAB),
    }  # fmt: skip
    found |= {"pre": pre} if pre else {}
    return {f"tokenizer.ggml.{key}": value for key, value in {**found, **more}.items() if value is not None}


def loaded(folder: Path, found: dict, rows: int = 0) -> tokenizer.Tokenizer:
    """What the lab makes of it, from the files of a model directory."""
    files, _ = gguf_tokenizer.files_of(found, rows or len(found["tokenizer.ggml.tokens"]))
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return tokenizer.load(folder)


def reference(*parts, normalizer=None, ignore_merges: bool = False) -> tokenizers.Tokenizer:
    made = tokenizers.Tokenizer(models.BPE(vocab=VOCAB, merges=MERGES, ignore_merges=ignore_merges))
    made.pre_tokenizer = pre_tokenizers.Sequence(list(parts))
    if normalizer:
        made.normalizer = normalizer
    return made


def cut(pattern: str) -> pre_tokenizers.Split:
    return pre_tokenizers.Split(Regex(pattern), behavior="isolated")


SIGNS_ONLY = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
GPT2 = pre_tokenizers.ByteLevel(add_prefix_space=False)
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PUBLISHED = {  # how the tokenizer.json of these models cuts a text
    "gpt-2": reference(GPT2),
    "olmo": reference(GPT2),
    "smollm": reference(pre_tokenizers.Digits(individual_digits=True), GPT2),
    "starcoder": reference(pre_tokenizers.Digits(individual_digits=True), GPT2),
    "llama-bpe": reference(cut(LLAMA3), SIGNS_ONLY, ignore_merges=True),
    "dbrx": reference(cut(LLAMA3), SIGNS_ONLY),
    "qwen2": reference(cut(LLAMA3.replace("{1,3}", "")), SIGNS_ONLY, normalizer=normalizers.NFC()),
}


@pytest.mark.parametrize("pre", PUBLISHED)
def test_texts_are_cut_as_the_models_own_file_does(tmp_path, pre):
    ours = loaded(tmp_path / "m", settings(pre))
    for text in [*TEXTS, "cafe\u0301"]:
        assert ours.encode(text) == PUBLISHED[pre].encode(text).ids, text


def test_ways_of_cutting_differ(tmp_path):
    """So that the test above can fail."""
    ways = [
        tuple(map(tuple, (PUBLISHED[pre].encode(text).ids for text in TEXTS)))
        for pre in ("gpt-2", "smollm", "dbrx")
    ]
    assert len(set(ways)) == 3


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"model": "bert"}, "of the kind 'bert': gpt2 .* and llama"),
        ({"pre": "falcon"}, "cuts a text in the way 'falcon' .*; the ways known here are gpt-2, olmo"),
        ({"pre": ["gpt-2"]}, "cuts a text in the way .*gpt-2"),
        ({"tokens": None}, "tokenizer.ggml.tokens is missing or no list"),
        ({"tokens": [1, 2]}, "tokenizer.ggml.tokens is missing or no list"),
        ({"tokens": []}, "has no tokens"),
        ({"merges": None}, "tokenizer.ggml.merges is missing"),
        ({"merges": ["a zz"]}, "'a zz' is no merge of its tokens"),
        ({"merges": ["ab"]}, "'ab' is no merge of its tokens"),
        ({"token_type": [1]}, "token_type has 1 entries for 401 tokens"),
        ({"tokens": ["a", "b", "a"], "token_type": None}, "the token 'a' stands in it twice"),
        ({"model": "llama"}, "tokenizer.ggml.scores is missing"),
    ],
)  # fmt: skip
def test_damaged_and_unknown_ones_are_refused(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        gguf_tokenizer.files_of(settings(**{"pre": "gpt-2", **changes}), 401)


def test_no_tokenizer_is_said():
    assert gguf_tokenizer.files_of({}, 10) == (
        {},
        ["The file has no tokenizer: choose an encoding that belongs to this model."],
    )


def test_an_old_file_that_does_not_say_how(tmp_path):
    _, notes = gguf_tokenizer.files_of(settings(None), 401)
    assert "does not say how its tokenizer cuts a text" in notes[0]
    ours = loaded(tmp_path / "m", settings(None))
    # llama.cpp's default: signs apart, digits in threes
    assert ours.pieces("it's 12345!") == ["it", "'", "s", " ", "123", "45", "!"]


def test_tokens_with_a_role(tmp_path):
    tokens = [*settings()["tokenizer.ggml.tokens"], "<|user|>", "[TOOL]"]
    kinds = [*[NORMAL] * len(VOCAB), CONTROL, CONTROL, USER_DEFINED]
    found = settings(
        tokens=tokens,
        token_type=kinds,
        bos_token_id=401,
        padding_token_id=400,
        eot_token_id=401,
        add_bos_token=True,
    ) | {"tokenizer.chat_template": "{{ messages }}"}
    ours = loaded(tmp_path / "m", found)
    config = json.loads((tmp_path / "m" / "tokenizer_config.json").read_text())
    assert {k: config[k] for k in ("bos_token", "eos_token", "pad_token", "add_bos_token", "add_eos_token", "chat_template")} == {
        "bos_token": "<|user|>", "eos_token": "<|end|>", "pad_token": "<|end|>", "add_bos_token": True, "add_eos_token": False,
        "chat_template": "{{ messages }}",
    }  # fmt: skip
    generation = json.loads((tmp_path / "m" / "generation_config.json").read_text())
    assert generation["eos_token_id"] == [400, 401] and generation["bos_token_id"] == 401
    assert ours.special_tokens == {"<|end|>": 400, "<|user|>": 401} and ours.eot_id == 400
    assert ours.encode("<|user|>", special=True) == [401] and len(ours.encode("<|user|>")) > 1
    assert ours.encode("[TOOL]") == [402]  # a user-defined token is found in any text
    whole = tokenizers.Tokenizer.from_file(str(tmp_path / "m" / "tokenizer.json"))
    assert whole.encode("a").ids == [401, *ours.encode("a")]  # the file itself puts the first token there


@pytest.mark.parametrize(
    ("pre", "adds"), [("gpt-2", False), ("llama-bpe", True), ("qwen2", False), ("tekken", True)]
)
def test_a_first_token_unless_the_file_says(pre, adds):
    for said, expected in ((None, adds), (True, True), (False, False)):
        files, _ = gguf_tokenizer.files_of(settings(pre, add_bos_token=said), 401)
        assert json.loads(files["tokenizer_config.json"])["add_bos_token"] is expected


def test_tokens_and_rows(tmp_path):
    """Padding at the end is left out; added tokens beyond the embedding too, with a note; real ones are refused."""
    padded = settings()
    padded["tokenizer.ggml.tokens"] = [*padded["tokenizer.ggml.tokens"], "[PAD401]", "[PAD402]"]
    padded["tokenizer.ggml.token_type"] = [*padded["tokenizer.ggml.token_type"], UNUSED, UNUSED]
    assert loaded(tmp_path / "m", padded).vocab_size == 401
    _, notes = gguf_tokenizer.files_of(settings(), 400)
    assert notes == ["1 added tokens without a row in the embedding were left out."]
    with pytest.raises(ValueError, match="The tokenizer has 401 tokens and the embedding 300 rows"):
        gguf_tokenizer.files_of(settings(), 300)


# ---- SentencePiece --------------------------------------------------------------------------------------------------


def pieces() -> tuple[list[str], list[int], list[float], tokenizers.Tokenizer]:
    """Tokens, kinds and scores as SentencePiece has them, and the library's BPE of the same merges."""
    made = tokenizers.Tokenizer(models.BPE())
    made.normalizer = normalizers.Replace(" ", "▁")
    made.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    made.train_from_iterator(TEXTS * 3, trainers.BpeTrainer(vocab_size=260, show_progress=False))
    model = json.loads(made.to_str())["model"]
    merged = [left + right for left, right in model["merges"]]
    single = [text for text in sorted(model["vocab"], key=model["vocab"].get) if text not in merged]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), *merged, *single]
    kinds = [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256, *[NORMAL] * (len(tokens) - 259)]
    scores = [*[0.0] * 259, *(-float(rank) for rank in range(len(tokens) - 259))]
    vocab = {text: id for id, text in enumerate(tokens)}
    # as transformers makes merges of a SentencePiece model: all pairs that join to a token, the best token first
    pairs = []
    for text in merged:
        cuts = [(text[:i], text[i:]) for i in range(1, len(text)) if text[:i] in vocab and text[i:] in vocab]
        pairs += sorted(cuts, key=lambda pair: (vocab[pair[0]], vocab[pair[1]]))
    whole = tokenizers.Tokenizer(
        models.BPE(vocab=vocab, merges=pairs, byte_fallback=True, unk_token="<unk>", fuse_unk=True)
    )
    return tokens, kinds, scores, whole


@pytest.mark.parametrize("spaced", [True, False])
def test_sentencepiece_by_its_scores(tmp_path, spaced):
    tokens, kinds, scores, whole = pieces()
    marks = [normalizers.Prepend("▁")] if spaced else []
    whole.normalizer = normalizers.Sequence([*marks, normalizers.Replace(" ", "▁")])
    found = {
        "model": "llama",
        "tokens": tokens,
        "token_type": kinds,
        "scores": scores,
        "add_space_prefix": spaced,
    }
    ours = loaded(tmp_path / "m", {f"tokenizer.ggml.{key}": value for key, value in found.items()})
    for text in TEXTS:
        ids = ours.encode(text)
        assert ids == whole.encode(text).ids, text
        assert ours.decode(ids) == text
    config = json.loads((tmp_path / "m" / "tokenizer_config.json").read_text())
    assert (config["bos_token"], config["eos_token"], config["add_bos_token"]) == ("<s>", "</s>", True)
    back, notes = gguf_tokenizer.settings_of(tmp_path / "m", len(tokens) + 2)
    assert back["tokenizer.ggml.model"] == "llama" and not notes
    assert back["tokenizer.ggml.token_type"] == [*kinds, UNUSED, UNUSED]
    assert back["tokenizer.ggml.add_space_prefix"] is spaced and back["tokenizer.ggml.add_bos_token"] is True
    again = loaded(tmp_path / "again", back)
    assert all(again.encode(text) == ours.encode(text) for text in TEXTS)


# ---- Out ------------------------------------------------------------------------------------------------------------


def small(*tokens: bytes, eot: bool = True, pattern: str = tokenizer.GPT2_SPLIT) -> tokenizer.BPETokenizer:
    ranks = {bytes([b]): b for b in range(256)} | {token: 256 + n for n, token in enumerate(tokens)}
    return tokenizer.BPETokenizer("small", ranks, pattern, {tokenizer.EOT: len(ranks)} if eot else {})


@pytest.mark.parametrize(
    ("pattern", "pre"),
    [(tokenizer.GPT2_SPLIT, "gpt-2"), (tokenizer.CL100K_SPLIT, "llama-bpe"), (tokenizer.O200K_SPLIT, "gpt-4o")],
)  # fmt: skip
def test_our_own_encoding_out_and_in(tmp_path, pattern, pre):
    ours = small(b"th", b"the", b" t", b" the", b"12", b"\xc3\xa9", pattern=pattern)
    ours.save(tmp_path)
    found, notes = gguf_tokenizer.settings_of(tmp_path, 266)
    assert found["tokenizer.ggml.pre"] == pre and not notes
    assert found["tokenizer.ggml.tokens"][262:] == ["<|endoftext|>", "[PAD263]", "[PAD264]", "[PAD265]"]
    assert found["tokenizer.ggml.token_type"][261:] == [NORMAL, CONTROL, UNUSED, UNUSED, UNUSED]
    assert found["tokenizer.ggml.merges"] == ["t h", "th e", "Ġ t", "Ġ the", "1 2", "Ã ©"]
    assert found["tokenizer.ggml.eos_token_id"] == found["tokenizer.ggml.bos_token_id"] == 262
    assert found["tokenizer.ggml.add_bos_token"] is False
    back = loaded(tmp_path / "back", found, 266)
    assert all(back.encode(text) == ours.encode(text) for text in TEXTS) and back.eot_id == 262
    assert back.encode("a<|endoftext|>b", special=True) == ours.encode("a<|endoftext|>b", special=True)


def test_every_way_of_cutting_goes_out_again(tmp_path):
    for pre, (cuts, whole) in gguf_tokenizer.PRE_TOKENIZERS.items():
        loaded(tmp_path / pre, settings(pre))
        found, _ = gguf_tokenizer.settings_of(tmp_path / pre, 401)
        name = found["tokenizer.ggml.pre"]
        assert gguf_tokenizer.PRE_TOKENIZERS[name] == (cuts, whole)
        assert (name in gguf_tokenizer.COMPOSES) == (pre in gguf_tokenizer.COMPOSES)
        assert found["tokenizer.ggml.merges"] == settings(pre)["tokenizer.ggml.merges"]


def test_a_chat_template_goes_along(tmp_path):
    small(b"th").save(tmp_path)
    assert "tokenizer.chat_template" not in gguf_tokenizer.settings_of(tmp_path, 258)[0]
    (tmp_path / "tokenizer_config.json").write_text(
        '{"chat_template": [{"name": "default", "template": "by name"}]}'
    )
    assert gguf_tokenizer.settings_of(tmp_path, 258)[0]["tokenizer.chat_template"] == "by name"
    (tmp_path / "tokenizer_config.json").write_text(
        '{"chat_template": "in the config", "add_bos_token": true}'
    )
    found, _ = gguf_tokenizer.settings_of(tmp_path, 258)
    assert (
        found["tokenizer.chat_template"] == "in the config" and found["tokenizer.ggml.add_bos_token"] is True
    )
    (tmp_path / "chat_template.jinja").write_text("in a file")
    assert gguf_tokenizer.settings_of(tmp_path, 258)[0]["tokenizer.chat_template"] == "in a file"


def test_encodings_that_gguf_does_not_know(tmp_path):
    for made, sentence in (
        (tokenizer.CharTokenizer("abc"), "has single chars as tokens"),
        (tokenizer.ByteTokenizer(), "has single bytes as tokens"),
        (small(b"th", eot=False), "no token that ends a text"),
        (small(), "has no merges"),
        (small(b"thx", b"qrst"), "2 tokens of the encoding .* are not made by its merges"),
        (small(b"th", pattern=r"\w+|\W"), "cuts a text in a way that llama.cpp has no name for"),
    ):
        made.save(tmp_path)
        with pytest.raises(ValueError, match=sentence):
            gguf_tokenizer.settings_of(tmp_path, 260)


def test_ids_beyond_the_rows(tmp_path):
    small(b"th").save(tmp_path)
    with pytest.raises(ValueError, match="has ids up to 257 and its model 200 rows"):
        gguf_tokenizer.settings_of(tmp_path, 200)


def test_a_first_token_as_the_post_processor_says(tmp_path):
    """A file of Llama 3 names its first token there and nowhere else."""
    made = tokenizers.Tokenizer(models.BPE(vocab=VOCAB, merges=MERGES, ignore_merges=True))
    made.pre_tokenizer = pre_tokenizers.Sequence([cut(LLAMA3), SIGNS_ONLY])
    made.decoder = tokenizers.decoders.ByteLevel()
    made.add_special_tokens(["<|begin|>", "<|end|>"])
    first = tokenizers.processors.TemplateProcessing(
        single="<|begin|> $A", special_tokens=[("<|begin|>", 400)]
    )
    made.post_processor = tokenizers.processors.Sequence(
        [tokenizers.processors.ByteLevel(trim_offsets=False), first]
    )
    made.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(
        '{"bos_token": "<|begin|>", "eos_token": {"content": "<|end|>"}}'
    )
    found, _ = gguf_tokenizer.settings_of(tmp_path, 402)
    assert found["tokenizer.ggml.pre"] == "llama-bpe"
    assert (found["tokenizer.ggml.bos_token_id"], found["tokenizer.ggml.eos_token_id"]) == (400, 401)
    assert found["tokenizer.ggml.add_bos_token"] is True and found["tokenizer.ggml.add_eos_token"] is False


def test_another_kind_is_named(tmp_path):
    made = tokenizers.Tokenizer(models.Unigram([("a", -1.0), ("b", -2.0)], 0, False))
    (tmp_path / "tokenizer.json").write_text(made.to_str())
    with pytest.raises(ValueError, match="of the kind Unigram; only BPE"):
        gguf_tokenizer.settings_of(tmp_path, 2)
