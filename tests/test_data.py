"""Ids, split, windows and batches: against plain Python written out, torch's DataLoader, and hand-made numbers."""

import itertools
import json
import multiprocessing
import os
import random
from types import SimpleNamespace

import numpy as np
import pytest

from llm import data, files, paths, tokenizer
from llm.config import TrainConfig

PIECES = [
    "the", " cat", "Sat", " it's", "'S", "’s", "don't", " ", "  ", "\n", "\n\n\n", "\t", "\r", "\r\n", " \n ", "12", "3456", "½", "²", "_",
    "a_b", "/", "//\n", "...", "!\n", " ?", "。", "，", "漢字", "カメラ", "🙂", "é", "e\u0301", "\u200d", "\u00a0", "\u3000", "\u2028", "\x1c",
    "Привет", " мир", "\ufeff", "<|endoftext|>", "<|endoftext|> ", "<|fim_prefix|>", "<|", "ǅ", "ß", "İ",
]  # fmt: skip


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("LLM_HOME", str(tmp_path / "home"))


def joined(parts):
    return list(itertools.chain.from_iterable(parts))


def metaspace(name="sentence-like"):
    """A tokenizer.json as SentencePiece models have it: a space is put before the text, nothing is cut at spaces."""
    import tokenizers

    made = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="<unk>", byte_fallback=True))
    made.normalizer = tokenizers.normalizers.Sequence(
        [tokenizers.normalizers.Prepend("▁"), tokenizers.normalizers.Replace(" ", "▁")]
    )
    made.decoder = tokenizers.decoders.Sequence(
        [
            tokenizers.decoders.Replace("▁", " "),
            tokenizers.decoders.ByteFallback(),
            tokenizers.decoders.Fuse(),
            tokenizers.decoders.Strip(" ", 1, 0),
        ]
    )
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=300, special_tokens=["<unk>", "<s>", "</s>"])
    made.train_from_iterator(["the cat sat on the mat. the cat sat again.\n" * 20], trainer)
    return tokenizer.HFTokenizer(name, json.loads(made.to_str()), "</s>")


def small_bpe(pattern):
    """Bytes and a few merges, cut by `pattern`."""
    tokens = [bytes([b]) for b in range(256)] + [
        b"th",
        b"the",
        b" c",
        b"at",
        b" cat",
        b"it",
        b"12",
        b"\n\n",
        b". ",
        b"e c",
    ]
    return tokenizer.BPETokenizer(
        "small", {t: i for i, t in enumerate(tokens)}, pattern, {"<|endoftext|>": len(tokens)}
    )


def encodings():
    yield "char", tokenizer.CharTokenizer.train("".join(PIECES))
    yield "small", small_bpe(tokenizer.GPT2_SPLIT)
    yield "lines", small_bpe(r"[^\n]+|\n+")  # merges go over spaces here, so a cut at one would change ids
    yield "metaspace", metaspace()
    for name in ("byte", "gpt2", "cl100k_base", "o200k_base"):
        yield name, tokenizer.get(name)


@pytest.mark.parametrize("name, encoding", encodings(), ids=lambda v: v if isinstance(v, str) else "")
def test_encoding_in_pieces_gives_the_ids_of_the_whole(name, encoding):
    rng, cut = random.Random(0), 0
    for _ in range(300):
        text = "".join(rng.choices(PIECES, k=rng.randint(1, 60)))
        parts = list(data.encoded(text, encoding, size=1))
        cut += len(parts) > 1
        assert joined(parts) == encoding.encode(text, special=True), text
    assert cut > 20  # the texts really were cut


@pytest.mark.parametrize("name, encoding", encodings(), ids=lambda v: v if isinstance(v, str) else "")
def test_a_large_file_is_read_and_encoded_in_pieces_to_the_same_ids(name, encoding, monkeypatch, tmp_path):
    """Pieces cut anywhere, in the middle of a character too."""
    rng = random.Random(1)
    monkeypatch.setattr(data, "CHUNK", 9)
    monkeypatch.setattr(data, "LARGE", 0)
    really = files.pieces
    monkeypatch.setattr(files, "pieces", lambda path: really(path, 7))
    plain = [piece for piece in PIECES if "\r" not in piece and not files._controls(piece.encode())]
    for number in range(20):
        text = "".join(rng.choices(plain, k=rng.randint(20, 60))) + "end"
        (paths.datasets() / f"t{number}.txt").write_bytes(text.encode())
        assert data.load(f"t{number}", encoding).ids.tolist() == encoding.encode(text, special=True), text


@pytest.mark.parametrize(
    "odd", [b"\r\nx", "caf\xe9".encode("cp1252"), "\ufeffx".encode(), "x\u00e9".encode()[:-1]]
)
def test_a_large_file_that_is_not_plain_is_read_as_any_other(odd, monkeypatch):
    monkeypatch.setattr(data, "LARGE", 0)
    content = odd + b" and so on" if odd[:1] == b"\xef" else b"One two three. " * 3 + odd
    (paths.datasets() / "odd.txt").write_bytes(content)
    with pytest.raises(files.NotPlain):
        list(files.pieces(paths.datasets() / "odd.txt"))
    gpt2, read = tokenizer.get("gpt2"), files.read_text(paths.datasets() / "odd.txt")
    loaded = data.load("odd", gpt2)
    assert loaded.ids.tolist() == gpt2.encode(read.text, special=True) and loaded.notes == tuple(read.notes)


def test_texts_without_a_safe_place_stay_whole_and_nothing_is_lost():
    for text in ("\n" * 50, "!" * 50, "12345" * 10, "\r\n" * 30, "aaaa" * 20, ""):
        assert "".join(data.chunks(text, 3)) == text
        assert joined(data.encoded(text, tokenizer.get("gpt2"), size=3)) == tokenizer.get("gpt2").encode(text)
    assert len(list(data.chunks("one two three four", 3))) > 2


def test_ids_are_those_of_the_encoder_and_come_from_the_disk_the_second_time(monkeypatch):
    name = files.save_upload("Once upon a time<|endoftext|>the end.\r\nReally.", "tale")
    gpt2 = tokenizer.get("gpt2")
    first = data.load(name, gpt2)
    assert first.ids.tolist() == gpt2.encode("Once upon a time<|endoftext|>the end.\nReally.", special=True)
    assert gpt2.eot_id in first.ids
    assert (
        first.ids.dtype == np.uint16 and data.load(name, tokenizer.get("cl100k_base")).ids.dtype == np.uint32
    )
    assert first.notes == ("1 Windows line ends (CR LF) became plain ones (LF).",)
    monkeypatch.setattr(files, "read_text", lambda *_: pytest.fail("the file was read again"))
    again = data.load(name, gpt2)
    assert again.ids.tolist() == first.ids.tolist() and again.notes == first.notes
    with pytest.raises((ValueError, TypeError)):
        again.ids[0] = 0  # mapped from the disk, read only


def test_a_changed_text_is_encoded_anew():
    name = files.save_upload("First version.", "note")
    byte = tokenizer.get("byte")
    assert bytes(data.load(name, byte).ids.tolist()) == b"First version."
    path = paths.datasets() / "note.txt"
    path.write_text("Other version.")  # as long as before
    os.utime(path, ns=(5, 5))
    assert bytes(data.load(name, byte).ids.tolist()) == b"Other version."


@pytest.mark.parametrize("damage", ["cut", "json", "gone", "long"])
def test_a_damaged_cache_is_never_read(damage):
    name = files.save_upload("A text of some length.", "note")
    byte = tokenizer.get("byte")
    want = data.load(name, byte).ids.tolist()
    kept = next(paths.cache().glob("ids-*.bin"))
    about = kept.with_suffix(".json")
    {
        "cut": lambda: os.truncate(kept, 7),
        "json": lambda: about.write_text('{"tok'),
        "gone": kept.unlink,
        "long": lambda: kept.write_bytes(kept.read_bytes() * 2),
    }[damage]()
    assert data.load(name, byte).ids.tolist() == want


def test_without_room_for_a_cache_the_ids_are_still_right(monkeypatch):
    name = files.save_upload("A text of some length.", "note")
    byte = tokenizer.get("byte")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(data, "keep", full)
    assert bytes(data.load(name, byte).ids.tolist()) == b"A text of some length."
    assert not list(paths.cache().iterdir())


def _load_sum(name, barrier, queue):
    barrier.wait()
    queue.put(int(data.load(name, tokenizer.get("byte")).ids.astype(np.int64).sum()))


def test_two_processes_at_once_get_the_same_ids():
    text = "the cat sat on the mat. " * 20_000
    name = files.save_upload(text, "shared")
    context = multiprocessing.get_context("fork")
    barrier, queue = context.Barrier(2), context.Queue()
    workers = [context.Process(target=_load_sum, args=(name, barrier, queue)) for _ in range(2)]
    for worker in workers:
        worker.start()
    sums = [queue.get(timeout=30) for _ in workers]
    for worker in workers:
        worker.join()
    assert sums == [sum(text.encode())] * 2
    assert len(list(paths.cache().glob("*.bin"))) == 1 and not list(paths.cache().glob(".*"))


def test_fingerprints_tell_encodings_apart_and_are_made_once(monkeypatch):
    abc, abd = tokenizer.CharTokenizer("abc", "char"), tokenizer.CharTokenizer("abd", "char")
    same = tokenizer.CharTokenizer("abc", "char")
    assert data.fingerprint(abc) == data.fingerprint(same) != data.fingerprint(abd)
    one = metaspace("m")
    document = json.loads(json.dumps(one._document))
    document["normalizer"] = {"type": "Lowercase"}
    assert data.fingerprint(one) != data.fingerprint(tokenizer.HFTokenizer("m", document, "</s>"))
    monkeypatch.setattr(abc, "token_bytes", lambda i: pytest.fail("computed again"))
    data.fingerprint(abc)


def test_token_lengths_count_bytes():
    gpt2 = tokenizer.get("gpt2")
    text = "Größe 🙂 and more<|endoftext|>"
    lengths = data.token_lengths(gpt2)
    assert len(lengths) == gpt2.vocab_size
    assert lengths[gpt2.encode(text, special=True)].sum() == len(text.encode())


def written_out(n, context, stride):
    """Windows as a loop that a beginner would write."""
    windows, start = [], 0
    while start + context + 1 <= n:
        windows.append(list(range(start, start + context)))
        start += stride
    return windows


def test_windows_equal_the_loop_written_out():
    for n in range(0, 26):
        for context in range(1, 8):
            for stride in range(1, 11):
                ids = np.arange(n, dtype=np.uint16) + 100
                windows = data.Windows(ids, context, stride)
                want = written_out(n, context, stride)
                assert len(windows) == len(want) == max(0, -((context - n) // stride))
                inputs, targets = windows.inputs_and_targets(np.arange(len(want)))
                assert inputs.tolist() == [[p + 100 for p in w] for w in want]
                assert targets.tolist() == [[p + 101 for p in w] for w in want]
                used = {p for w in want for p in w}
                assert data.never_inputs(windows).tolist() == [p for p in range(n) if p not in used]
                assert data.never_targets(windows).tolist() == [p for p in range(n) if p - 1 not in used]
                assert data.n_used(windows) == len(used)
                for p in range(n):
                    assert list(data.holding(windows, p)) == [k for k, w in enumerate(want) if p in w]
                most = max((sum(p in w for w in want) for p in range(n)), default=0)
                assert data.overlap(windows) == max(most, 1)


def test_never_used_tokens_of_an_excerpt_are_those_of_the_whole():
    windows = data.Windows(np.arange(200), 5, 7)
    inputs, targets = data.never_inputs(windows), data.never_targets(windows)
    for start, end in ((0, 20), (1, 2), (37, 90), (150, 500), (200, 210), (60, 60), (0, 0)):
        assert data.never_inputs(windows, start, end).tolist() == [p for p in inputs if start <= p < end]
        assert data.never_targets(windows, start, end).tolist() == [p for p in targets if start <= p < end]


def test_ten_letters_by_hand():
    letters = tokenizer.CharTokenizer("abcdefghij")
    ids = np.array(letters.encode("abcdefghij"))
    assert [len(data.Windows(ids, 4, s)) for s in (1, 2, 4, 5)] == [6, 3, 2, 2]
    assert [len(data.Windows(np.arange(n), 4, 4)) for n in (12, 13)] == [2, 3]
    inputs, targets = data.Windows(ids, 4, 4).inputs_and_targets(np.array([0, 1]))
    assert [letters.decode(row) for row in inputs] == ["abcd", "efgh"]
    assert [letters.decode(row) for row in targets] == ["bcde", "fghi"]
    gaps = data.Windows(ids, 4, 5)
    assert letters.decode(data.never_inputs(gaps, 0, 9)) == "e"  # and "j", the last, has no next token
    assert letters.decode(data.never_targets(gaps)) == "af"
    with pytest.raises(ValueError, match="-1"):
        data.Windows(ids, 4, -1)
    with pytest.raises(ValueError, match="not 0"):
        data.Windows(ids, 0)
    assert data.Windows(ids, 4).step == 4


def test_a_text_too_short_for_one_window_is_refused_with_both_numbers():
    ids = tokenizer.get("gpt2").encode("The sun warms the old stone.")
    assert len(ids) == 8
    with pytest.raises(ValueError, match="has 8 tokens; one window of 8 needs 9"):
        data.refuse_short(data.Windows(np.array(ids), 8, 8))
    data.refuse_short(data.Windows(np.array(ids), 7, 7))


@pytest.mark.parametrize(
    "n, fraction, train, val, train_windows, val_windows",
    [
        (1061, 0.05, 1007, 54, 15, 0),
        (1061, 0.10, 954, 107, 14, 1),
        (10, 0.9, 1, 9, 0, 0),
        (1000, 0.8, 200, 800, 3, 12),
        (1000, 0.0, 1000, 0, 15, 0),
        (0, 0.5, 0, 0, 0, 0),
    ],
)
def test_split_gives_the_first_part_to_training(n, fraction, train, val, train_windows, val_windows):
    ids = np.arange(n)
    a, b = data.split(ids, fraction)
    assert (len(a), len(b)) == (train, val)
    assert np.array_equal(np.concatenate([a, b]), ids)
    assert (len(data.Windows(a, 64)), len(data.Windows(b, 64))) == (train_windows, val_windows)
    assert data.Batches(val_windows, 2, drop_last=True).per_epoch == val_windows // 2


def test_split_is_exact_for_every_decimal_share():
    for n in (10, 100, 1000, 123_000, 10**9):
        for percent in range(0, 100):
            a, _ = data.split(range(n), percent / 100)
            assert len(a) == n * (100 - percent) // 100
    for share in (-0.1, 1.0, float("nan")):
        with pytest.raises(ValueError, match="validation share"):
            data.split(np.arange(5), share)


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("n, batch", [(10, 3), (9, 3), (7, 7), (7, 8), (1, 1), (23, 4)])
def test_batches_count_and_cover_like_torchs_loader(n, batch, drop_last, shuffle):
    torch = pytest.importorskip("torch")
    loader = torch.utils.data.DataLoader(range(n), batch_size=batch, shuffle=shuffle, drop_last=drop_last)
    batches = data.Batches(n, batch, shuffle, seed=3, drop_last=drop_last)
    assert batches.per_epoch == len(loader)
    if not len(loader):
        with pytest.raises(ValueError, match=f"{n} windows and a batch of {batch}"):
            batches.numbers(0)
        return
    for epoch in range(3):
        seen = [batches.numbers(epoch * batches.per_epoch + i).tolist() for i in range(batches.per_epoch)]
        assert [len(b) for b in seen] == [len(b) for b in loader]
        drawn = joined(seen)
        assert len(set(drawn)) == len(drawn) and set(drawn) <= set(range(n))
        if not drop_last:
            assert sorted(drawn) == list(range(n))
        if not shuffle:
            assert drawn == list(range(len(drawn)))


def test_batches_are_a_function_of_seed_and_step_only():
    batches = data.Batches(100, 8, seed=5)
    straight = [batches.numbers(step).tolist() for step in range(40)]
    data.order.cache_clear()
    again = data.Batches(100, 8, seed=5)
    assert [again.numbers(step).tolist() for step in reversed(range(40))] == straight[
        ::-1
    ]  # any order, any time
    assert data.Batches(100, 8, seed=6).numbers(0).tolist() != straight[0]
    assert straight[:12] != straight[12:24]  # each pass has an order of its own
    with pytest.raises(ValueError):
        batches.numbers(0)[0] = 1  # an order that is shared cannot be changed by accident
    with pytest.raises(ValueError, match="at least 1 window"):
        data.Batches(10, 0)


def test_drop_last_over_many_passes_leaves_no_window_out_for_good():
    batches = data.Batches(10, 4, seed=0)
    seen = {int(w) for step in range(40) for w in batches.numbers(step)}
    assert seen == set(range(10))


def encoded(characters: str, text: str) -> tuple[np.ndarray, tokenizer.Tokenizer]:
    encoding = tokenizer.CharTokenizer(characters, eot=True)
    return np.array(encoding.encode(text, special=True)), encoding


def test_documents_begin_at_their_mark_and_at_their_first_word_in_turn():
    mark = "<|endoftext|>"
    text = f"abc{mark}\nab{mark}\nbca{mark}c{mark}\nb{mark}{mark}\n"
    ids, encoding = encoded("abc\n", text)
    #       a b c # . a b # . b c a # c # . b # # .     (# the mark, . the line end)
    assert len(ids) == 20 and data.document_begins(ids, encoding).tolist() == [0, 3, 9, 12, 16, 17]
    for end in range(len(ids) + 1):  # wherever a split falls, nothing begins behind the end
        assert data.document_begins(ids[:end], encoding).max() < max(end, 1)
    alone = encoding.encode("abc")
    assert data.document_begins(np.array(alone), encoding).tolist() == [0]


def test_document_windows_begin_where_documents_do():
    # 9 is the end-of-text; three documents of 3, 7 and 2 tokens after it, context 3
    ids = np.array([1, 2, 3, 9, 4, 5, 6, 7, 8, 1, 9, 2, 3])
    windows = data.DocumentWindows(ids, 3, np.array([0, 3, 10]))
    assert windows.starts.tolist() == [0, 3, 6, 9]  # the last document lacks its fourth token
    inputs, targets = windows.inputs_and_targets(np.arange(len(windows)))
    assert inputs.tolist() == [[1, 2, 3], [9, 4, 5], [6, 7, 8], [1, 9, 2]]
    assert targets.tolist() == [[2, 3, 9], [4, 5, 6], [7, 8, 1], [9, 2, 3]]
    assert len(data.DocumentWindows(ids[:3], 3, np.array([0]))) == 0


def test_what_is_said_of_document_windows_equals_the_loop_written_out():
    random = np.random.default_rng(0)
    for _ in range(200):
        ids = random.integers(0, 5, size=random.integers(0, 40))  # 4 is the end of text
        T = int(random.integers(1, 7))
        begins = [p for p in range(len(ids)) if p == 0 or ids[p] == 4] or [0]
        want = []
        for begin, end in zip(begins, [*begins[1:], len(ids)]):
            want += [list(range(s, s + T)) for s in range(begin, end, T) if s + T < len(ids)]
        windows = data.DocumentWindows(ids, T, np.array(begins))
        used = {p for w in want for p in w}
        assert windows.starts.tolist() == [w[0] for w in want]
        assert data.n_used(windows) == len(used)
        assert data.never_inputs(windows).tolist() == [p for p in range(len(ids)) if p not in used]
        assert data.never_targets(windows).tolist() == [p for p in range(len(ids)) if p - 1 not in used]
        for p in range(len(ids)):
            assert list(data.holding(windows, p)) == [k for k, w in enumerate(want) if p in w]
        assert data.overlap(windows) == max([1, *(sum(p in w for w in want) for p in range(len(ids)))])


def test_a_text_is_cut_by_document_only_when_it_is_asked_for_and_has_several():
    ids, encoding = encoded("abcd", "abc<|endoftext|>dabcabc<|endoftext|>abdddddd")
    cut = lambda **how: data.cut(ids, 3, TrainConfig(validation_fraction=0.2, **how), encoding)  # noqa: E731
    train, validation = cut()
    assert isinstance(train, data.DocumentWindows) and isinstance(validation, data.DocumentWindows)
    assert len(train.ids) == 16 and len(validation.ids) == 4
    for plain in (
        cut(windows="stride"),
        cut(stride=2),
        data.cut(ids, 3, TrainConfig(), SimpleNamespace(eot_id=None)),
    ):
        assert all(isinstance(part, data.Windows) for part in plain)
    assert cut(stride=2)[0].step == 2 and cut(stride=2)[1].step == 3  # validation windows never overlap
