"""The tokenizers against their own libraries, by property on odd texts, and with bad input."""

import itertools
import json
import random

import pytest
import tiktoken
import tiktoken_ext.openai_public as published
import tokenizers

from llm import paths
from llm import tokenizer as T

ODD = [
    "",
    " ",
    "Hello, world!",
    "It's we'll I'D 'tis they'RE",
    "  leading and trailing  ",
    "tabs\tand\nlines\r\nand\r old ones\n\n\n",
    "The answer is 1234567 or 3.14159, or ٣٤٥ or Ⅷ.",
    "🙂 👩‍👩‍👧 🔥 ok 🇩🇪",
    "漢字とカタカナ、ひらがな。",
    "Ünïcödé e\u0301 n\u0303 ﷽ שלום مرحبا",
    "\x00\x01 NUL and \x7f",
    "\u200b\u200d\ufeff zero widths \u00a0\u2003 blanks",
    "<b>x</b> <script>alert(1)</script> &amp;",
    "def f(x):\n    return x ** 2  # square\n",
    "<|endoftext|> as text <|fim_prefix|>",
    "\\frac{a}{b} $x_1$ `code` **bold**",
    "aaaaaaaaaaaaaaaaaaaaaaaa bbbbbbbbbbbbbbb",
    "snake_case camelCase SHOUTING McDonald",
    "!!!???...---///\n\n/path//to\r\n",
]


def odd_texts(count: int, seed: int) -> list[str]:
    """Random strings that mix letters, signs, blanks and characters of two, three and four bytes."""
    draw = random.Random(seed)
    signs = "abcdeABC  \n\t\r'123.,!/_éßñ漢字カ🙂🔥\u0301\u200d\u00a0\x00"
    alphabet = [*signs, "the", " and", "'s", "  ", "\r\n"]
    return ["".join(draw.choices(alphabet, k=draw.randint(1, 60))) for _ in range(count)]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("LLM_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="module")
def small_bpe() -> T.BPETokenizer:
    """A byte-level BPE with a few merges of its own, built from a rank table."""
    ranks = {bytes([b]): b for b in range(256)}
    for token in (
        b"th",
        b"he",
        b"the",
        b" the",
        b"an",
        b"and",
        b" a",
        b" and",
        b"aa",
        b"aaa",
        b"\xc3\xa9",
        b"\xf0\x9f",
    ):
        ranks[token] = len(ranks)
    return T.BPETokenizer("small", ranks, T.GPT2_SPLIT, {T.EOT: len(ranks)})


# ---- Published encodings ---------------------------------------------------------------------------------------


def oracle(name: str) -> tiktoken.Encoding:
    """tiktoken's own definition (its pattern, its specials), with its download replaced by our table."""
    ranks = T.get(name).ranks
    function = {"gpt2": published.r50k_base}.get(name) or getattr(published, name)
    keep = published.load_tiktoken_bpe
    published.load_tiktoken_bpe = lambda *args, **kwargs: ranks
    try:
        return tiktoken.Encoding(**function())
    finally:
        published.load_tiktoken_bpe = keep


@pytest.mark.parametrize("name", T.ENCODINGS)
def test_published_encodings_equal_tiktokens_own_definition(name):
    theirs, ours = oracle(name), T.get(name)
    assert ours.vocab_size == theirs.n_vocab
    assert ours.special_tokens == theirs._special_tokens
    for text in ODD + odd_texts(300, seed=1):
        assert ours.encode(text) == theirs.encode(text, disallowed_special=())
        assert ours.encode(text, special=True) == theirs.encode(text, allowed_special="all")
        assert ours.decode(ours.encode(text)) == text


def test_the_gpt2_table_is_the_published_one():
    import hashlib

    data = (paths.shipped_datasets() / "encodings" / "r50k_base.tiktoken").read_bytes()
    # the hash that tiktoken itself expects of its download
    assert (
        hashlib.sha256(data).hexdigest() == "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930"
    )


def test_special_strings_are_text_unless_asked():
    gpt2 = T.get("gpt2")
    text = "one<|endoftext|>two"
    plain, special = gpt2.encode(text), gpt2.encode(text, special=True)
    assert 50256 not in plain and special.count(50256) == 1 and len(special) == 3
    assert gpt2.decode(plain) == gpt2.decode(special) == text
    for name in ("byte", "cl100k_base", "o200k_base"):
        tokenizer = T.get(name)
        assert tokenizer.eot_id not in tokenizer.encode(text)
        assert tokenizer.encode(text, special=True).count(tokenizer.eot_id) == 1


def test_known_ids_of_gpt2():
    gpt2 = T.get("gpt2")  # ids as GPT-2's own encoder.py gives them
    assert [gpt2.encode(text) for text in ("Hello", "Hello,", ",", "Implementation")] == [
        [15496],
        [15496, 11],
        [11],
        [3546, 32851],
    ]
    assert gpt2.encode("Answer: ") == [33706, 25, 220]  # the trailing space is kept, as its own token


# ---- Round trips and bytes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["byte", "small", *T.ENCODINGS])
def test_bytes_and_spans_cover_the_text(name, small_bpe):
    tokenizer = small_bpe if name == "small" else T.get(name)
    for text in ODD + odd_texts(100, seed=2):
        tokens = T.spans(text, tokenizer)
        assert b"".join(token.bytes for token in tokens) == text.encode()
        at = 0  # bytes
        for token in tokens:
            first, last = text.encode()[:at], text.encode()[: at + len(token.bytes)]
            at += len(token.bytes)
            covered = text[token.start : token.end]
            assert token.bytes in covered.encode()
            if not token.partial:
                assert token.bytes == covered.encode()
                assert first.decode() == text[: token.start] and last.decode() == text[: token.end]
            else:
                with pytest.raises(UnicodeDecodeError):
                    token.bytes.decode()


def test_a_character_split_over_tokens_is_marked_partial():
    tokens = T.spans("a🔥b", T.get("byte"))
    assert [(t.start, t.end, t.partial) for t in tokens] == [(0, 1, False)] + [(1, 2, True)] * 4 + [
        (2, 3, False)
    ]


def test_specials_are_one_span():
    text = "a🔥<|endoftext|>b"
    for name in ("byte", "gpt2", "o200k_base"):
        token = next(t for t in T.spans(text, T.get(name), special=True) if t.id == T.get(name).eot_id)
        assert (token.start, token.end, token.partial) == (2, 15, False)


def test_unknown_ids_are_refused_in_words():
    for name, id in [
        ("byte", 257),
        ("gpt2", 50257),
        ("gpt2", -1),
        ("cl100k_base", 100256),
        ("cl100k_base", 100270),
    ]:
        tokenizer = T.get(name)
        for call in (tokenizer.token_bytes, lambda id, t=tokenizer: t.decode([0, id])):
            with pytest.raises(ValueError, match=f"no token {id}"):
                call(id)


def test_surrogates_have_a_stated_loss():
    for name in ("byte", *T.ENCODINGS):
        tokenizer = T.get(name)
        assert tokenizer.decode(tokenizer.encode("a\ud800b")) == "a\ufffdb"
        assert tokenizer.decode(tokenizer.encode("\ud83d\ude42")) == "🙂"  # a pair is the character


def test_bytes_per_token():
    assert T.bytes_per_token("漢字", [1, 2, 3]) == 2.0
    with pytest.raises(ValueError, match="no tokens"):
        T.bytes_per_token("", [])


@pytest.mark.parametrize("name", ["byte", *T.ENCODINGS])
def test_long_runs_do_not_hang_or_crash(name):
    tokenizer = T.get(name)
    for sign in "aA!1漢":
        assert tokenizer.decode(tokenizer.encode(sign * 300_000)) == sign * 300_000
    for blank in " \n":
        text = "x" + blank * T.LONGEST_BLANK + "x"
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_too_long_a_run_of_blanks_is_refused_with_its_place():
    for name in T.ENCODINGS:
        for before in (0, 1, 49_999, 70_001):
            with pytest.raises(ValueError, match=f"100,001 whitespace.*character {before:,} on"):
                T.get(name).encode("x" * before + " " * 100_001 + "x")


# ---- Characters ------------------------------------------------------------------------------------------------


def test_char_vocabulary_is_the_sorted_characters():
    tokenizer = T.CharTokenizer.train("hello world\n")
    assert tokenizer.vocab_size == 9 and tokenizer.eot_id is None
    assert tokenizer.encode("\n dehlorw") == list(range(9))
    assert tokenizer.decode(tokenizer.encode("world hello")) == "world hello"


def test_newline_kinds_are_characters_like_any_other():
    lines = ["ab", "bc", "ca"]
    sizes = [T.CharTokenizer.train(end.join(lines)).vocab_size for end in ("\n", "\r\n", "\r")]
    assert sizes == [4, 5, 4]


def test_a_character_outside_is_named_and_nothing_else():
    tokenizer = T.CharTokenizer.train("abc xyz")
    with pytest.raises(ValueError) as error:
        tokenizer.encode("a Z b Q?")
    assert "'?' 'Q' 'Z'" in str(error.value) and "'a'" not in str(error.value)
    assert tokenizer.encode("cab") == [tokenizer.encode(c)[0] for c in "cab"]


def test_char_has_an_end_of_text_only_where_its_text_has_one():
    tokenizer = T.CharTokenizer.train("ab<|endoftext|>ba")
    assert tokenizer.vocab_size == 3 and tokenizer.eot_id == 2
    assert tokenizer.encode("ab<|endoftext|>b", special=True) == [0, 1, 2, 1]
    with pytest.raises(ValueError, match="Not in the character vocabulary"):
        tokenizer.encode("ab<|endoftext|>b")
    with pytest.raises(ValueError, match="empty"):
        T.CharTokenizer.train("")


# ---- Merges ----------------------------------------------------------------------------------------------------


def test_merge_steps_by_hand(small_bpe):
    steps = small_bpe.merge_steps("then")
    assert [step.pair for step in steps] == [(b"t", b"h"), (b"th", b"e")]
    assert [step.rank for step in steps] == [256, 258]
    assert steps[0].before == (b"t", b"h", b"e", b"n") and steps[-1].after == (b"the", b"n")
    assert small_bpe.merge_steps("") == small_bpe.merge_steps("x") == []


@pytest.mark.parametrize("name", ["small", *T.ENCODINGS])
def test_merge_steps_end_in_the_encoders_tokens(name, small_bpe):
    tokenizer = small_bpe if name == "small" else T.get(name)
    for text in [*ODD, *odd_texts(150, seed=3), "Internationalisation of pneumonoultramicroscopic words"]:
        assert "".join(tokenizer.pieces(text)) == text
        for piece in tokenizer.pieces(text):
            steps = tokenizer.merge_steps(piece)
            start = tuple(bytes([b]) for b in piece.encode())
            parts = steps[-1].after if steps else start
            assert list(parts) == [tokenizer.token_bytes(id) for id in tokenizer.encode(piece)]
            for before, after in itertools.pairwise(steps):
                assert before.after == after.before
            for step in steps:
                assert step.pair[0] + step.pair[1] == step.after[step.at] == tokenizer.token_bytes(step.rank)


def test_the_merges_of_gpt2_are_those_of_its_paper():
    # the first lines of GPT-2's own vocab.bpe
    assert T.get("gpt2").merges()[:4] == [(b" ", b"t"), (b" ", b"a"), (b"h", b"e"), (b"i", b"n")]


# ---- Files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["byte", "char", "small", "gpt2", "cl100k_base"])
def test_saved_and_loaded_is_the_same(name, small_bpe, tmp_path):
    made = {"char": lambda: T.CharTokenizer.train("".join(ODD) + "<|endoftext|>"), "small": lambda: small_bpe}
    tokenizer = made.get(name, lambda: T.get(name))()
    tokenizer.save(tmp_path)
    again = T.load(tmp_path)
    assert type(again) is type(tokenizer) and again.vocab_size == tokenizer.vocab_size
    assert again.special_tokens == tokenizer.special_tokens
    for text in ODD + (odd_texts(50, seed=4) if name != "char" else []):
        if name != "char" or T.EOT not in text:
            assert again.encode(text) == tokenizer.encode(text)
        assert again.encode(text, special=True) == tokenizer.encode(text, special=True)
    assert [file.name for file in tmp_path.iterdir()] == ["tokenizer.json"]


@pytest.mark.parametrize("name", ["small", "gpt2", "cl100k_base"])
def test_saved_bpe_opens_in_tokenizers_with_equal_ids(name, small_bpe, tmp_path):
    tokenizer = small_bpe if name == "small" else T.get(name)
    tokenizer.save(tmp_path)
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for text in ODD + odd_texts(300, seed=5) + ["a" * n for n in range(1, 40)]:
        assert theirs.encode(text).ids == tokenizer.encode(text, special=True)
        assert theirs.decode(tokenizer.encode(text), skip_special_tokens=False) == text


def test_a_model_encoding_is_found_by_name(small_bpe):
    folder = paths.models() / "mine"
    folder.mkdir()
    small_bpe.save(folder)
    for name in ("config.json", "model.safetensors"):  # a model directory is whole when these are there
        (folder / name).touch()
    (paths.tokenizers() / "own").mkdir()
    T.CharTokenizer.train("abc").save(paths.tokenizers() / "own")
    assert {"byte", "char", "gpt2", "cl100k_base", "o200k_base", "own", "model:mine"} <= set(T.names())
    assert T.get("model:mine").encode("the and") == small_bpe.encode("the and")
    assert T.get("own").name == "own" and T.get("own") is T.get("own")
    T.CharTokenizer.train("abcdefgh").save(paths.tokenizers() / "own")
    assert T.get("own").vocab_size == 8  # written anew: read anew
    with pytest.raises(ValueError, match="no encoding called 'nowhere'"):
        T.get("nowhere")
    with pytest.raises(ValueError, match="cannot be used"):
        T.get("../mine")
    with pytest.raises(ValueError, match="belongs to a text"):
        T.get("char")
    assert T.get("char", "banana").vocab_size == 3


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b'{"model": {"type": "BPE", "vocab": {"a": 0',
        b"\xff\xfe\x00",
        b"[]",
        b"null",
        b"{}",
        b'{"model": 3}',
        b'{"model": {"type": "Nonsense"}}',
        b'{"model": {"type": "BPE", "vocab": {}, "merges": []}, "added_tokens": []}',
        b'{"lab": {"kind": "char"}}',
        b'{"lab": {"kind": "char", "characters": "aab", "eot": false}}',
        b'{"lab": {"kind": "rune"}}',
        b'{"lab": 7}',
        b"[" * 100_000,
    ],
)
def test_a_broken_file_is_refused_in_words(content, tmp_path):
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(ValueError):
        T.load(tmp_path)


@pytest.mark.parametrize("id", [-1, 4_000_000, 2**40])
def test_ids_that_no_vocabulary_has_are_refused_before_they_fill_the_memory(id, small_bpe, tmp_path):
    small_bpe.save(tmp_path)
    document = json.loads((tmp_path / "tokenizer.json").read_text())
    document["model"]["vocab"]["Ġand"] = id
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    with pytest.raises(ValueError):
        T.load(tmp_path)


def test_a_prefix_that_its_merges_lack_is_refused(tmp_path):
    document = json.loads(metaspace_bpe().to_str())
    document["model"]["continuing_subword_prefix"] = "##"  # the library would abort this very process
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    with pytest.raises(ValueError, match="without the prefix '##'"):
        T.load(tmp_path)


def test_a_special_token_without_a_text_is_refused(small_bpe, tmp_path):
    small_bpe.save(tmp_path)
    whole = (tmp_path / "tokenizer.json").read_text()
    (tmp_path / "tokenizer.json").write_text(whole.replace('"content": "<|endoftext|>"', '"content": ""'))
    with pytest.raises(ValueError, match="without a text"):
        T.load(tmp_path)


def test_a_half_written_file_is_refused_at_every_length(small_bpe, tmp_path):
    small_bpe.save(tmp_path)
    whole = (tmp_path / "tokenizer.json").read_bytes()
    for length in range(0, len(whole) - 1, len(whole) // 40):
        (tmp_path / "tokenizer.json").write_bytes(whole[:length])
        with pytest.raises(ValueError, match="half written"):
            T.load(tmp_path)
    with pytest.raises(ValueError, match="no tokenizer"):
        T.load(tmp_path / "absent")


# ---- Other tools' tokenizers -----------------------------------------------------------------------------------

CORPUS = ["the cat sat on the mat and the dog sat too", "she sells sea shells", "Ünï 漢字 numbers 1234"] * 20


def metaspace_bpe() -> tokenizers.Tokenizer:
    """Llama's way: ▁ for a space, byte fallback."""
    t = tokenizers.Tokenizer(tokenizers.models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    t.normalizer = tokenizers.normalizers.Sequence(
        [tokenizers.normalizers.Prepend("▁"), tokenizers.normalizers.Replace(" ", "▁")]
    )
    t.decoder = tokenizers.decoders.Sequence(
        [
            tokenizers.decoders.Replace("▁", " "),
            tokenizers.decoders.ByteFallback(),
            tokenizers.decoders.Fuse(),
            tokenizers.decoders.Strip(" ", 1, 0),
        ]
    )
    special = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=400, special_tokens=special, show_progress=False)
    t.train_from_iterator(CORPUS, trainer)
    document = json.loads(t.to_str())  # the 256 fallbacks are ordinary entries of the vocabulary
    document["added_tokens"] = [a for a in document["added_tokens"] if not a["content"].startswith("<0x")]
    return tokenizers.Tokenizer.from_str(json.dumps(document))


def unigram() -> tokenizers.Tokenizer:
    t = tokenizers.Tokenizer(tokenizers.models.Unigram())
    t.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    t.decoder = tokenizers.decoders.Metaspace()
    trainer = tokenizers.trainers.UnigramTrainer(
        vocab_size=120, special_tokens=["<unk>", "</s>"], unk_token="<unk>", show_progress=False
    )
    t.train_from_iterator(CORPUS, trainer)
    return t


def byte_level() -> tokenizers.Tokenizer:
    """As most model files are: only the trained merges, and a normalizer."""
    t = tokenizers.Tokenizer(tokenizers.models.BPE())
    t.normalizer = tokenizers.normalizers.NFC()
    t.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=["<|endoftext|>", "<|im_start|>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    t.train_from_iterator(CORPUS, trainer)
    return t


def stored(tokenizer: tokenizers.Tokenizer, folder, eos: str | None = None) -> T.Tokenizer:
    tokenizer.save(str(folder / "tokenizer.json"))
    if eos:
        (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": {"content": eos}}))
    return T.load(folder)


@pytest.mark.parametrize("make", [metaspace_bpe, unigram, byte_level])
def test_other_tools_files_give_their_own_ids_and_texts(make, tmp_path):
    theirs = make()
    ours = stored(theirs, tmp_path)
    assert isinstance(ours, T.HFTokenizer)
    for text in ["the cat sat", "shells and numbers 12", "mat  on dots", "the"]:
        ids = theirs.encode(text, add_special_tokens=False).ids
        assert ours.encode(text) == ids
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=False) == text
        tokens = T.spans(text, ours)
        assert tokens[0].start == 0 and tokens[-1].end == len(text)
        stream = T.StreamDecoder(ours)
        assert "".join([stream.push(id) for id in ids] + [stream.finish()]) == text


def test_byte_fallback_pieces_are_their_bytes(tmp_path):
    ours = stored(metaspace_bpe(), tmp_path, eos="</s>")
    text = "the 🔥"
    tokens = T.spans(text, ours)
    assert [t.bytes for t in tokens if t.partial] == [b"\xf0", b"\x9f", b"\x94", b"\xa5"]
    assert ours.decode(ours.encode(text)) == text
    assert ours.eot_id == ours.special_tokens["</s>"]
    twice = ours.encode("the<|endoftext|>cat", special=True)
    assert twice.count(ours.eot_id) == 1
    places = [
        (t.start, t.end) for t in T.spans("the<|endoftext|>cat", ours, special=True) if t.id == ours.eot_id
    ]
    assert places == [(3, 16)]


def test_specials_of_other_tools_are_text_unless_asked(tmp_path):
    ours = stored(byte_level(), tmp_path)
    text = "the<|im_start|>cat"
    assert ours.special_tokens["<|im_start|>"] not in ours.encode(text)
    assert ours.encode(text, special=True).count(ours.special_tokens["<|im_start|>"]) == 1
    assert ours.decode(ours.encode(text)) == text
    assert ours.token_bytes(ours.special_tokens["<|im_start|>"]) == b"<|im_start|>"


def test_merge_steps_of_another_tools_byte_level_bpe(tmp_path):
    ours = stored(byte_level(), tmp_path)
    for text in ["the cat sat on she sells 漢字 Ünï", *CORPUS[:3]]:
        for piece in ours.pieces(text):
            steps = ours.merge_steps(piece)
            parts = steps[-1].after if steps else tuple(bytes([b]) for b in piece.encode())
            assert list(parts) == [ours.token_bytes(id) for id in ours.encode(piece)]
    with pytest.raises(ValueError, match="not a byte-level BPE"):
        (tmp_path / "unigram").mkdir()
        stored(unigram(), tmp_path / "unigram").merge_steps("the")


def test_saving_another_tools_file_keeps_it(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir(), second.mkdir()
    ours = stored(metaspace_bpe(), first)
    ours.save(second)
    assert T.load(second).encode("the cat 🔥") == ours.encode("the cat 🔥")


# ---- Streaming -------------------------------------------------------------------------------------------------


def test_streaming_gives_whole_characters_only():
    gpt2 = T.get("gpt2")
    stream, seen = T.StreamDecoder(gpt2), []
    for id in gpt2.encode("é🙂字!"):
        seen.append(stream.push(id))
    assert "".join(seen) == "é🙂字!" and "\ufffd" not in "".join(seen) and stream.finish() == ""
    stream = T.StreamDecoder(T.get("byte"))
    assert [stream.push(b) for b in "🙂".encode()] == ["", "", "", "🙂"]


def test_streaming_equals_decoding_whatever_the_ids():
    draw = random.Random(6)
    for name in ("byte", "gpt2"):
        tokenizer = T.get(name)
        for _ in range(300):
            ids = [draw.choice(tokenizer.encode(draw.choice(ODD)) or [0]) for _ in range(draw.randint(1, 12))]
            stream = T.StreamDecoder(tokenizer)
            assert "".join([stream.push(id) for id in ids] + [stream.finish()]) == tokenizer.decode(ids)


def test_a_cut_off_tail_is_one_replacement_sign():
    byte = T.get("byte")
    stream = T.StreamDecoder(byte)
    assert [stream.push(b) for b in b"ok\xf0\x9f\x94"] == ["o", "k", "", "", ""]
    assert stream.finish() == "\ufffd" and byte.decode(list(b"ok\xf0\x9f\x94")) == "ok\ufffd"
