"""Learning an encoding: by hand on tiny texts, against the `tokenizers` library, and as a run in a process of its own."""

import itertools
import json
import os
import random
import subprocess
import sys

import pytest
import tokenizers

from llm import bpe, corpora, files, paths
from llm import tokenizer as T
from llm.runs import Run

SAYING = "the cat sat on the mat and the other cat ate that rat, they said. "
MIXED = SAYING * 30 + "Ünïcödé 漢字漢字 🙂🙂 12 12 aaaaaaaaaaaa " * 8


def learnt(text: str, vocab_size: int) -> T.BPETokenizer:
    return bpe.learn(bpe.documents_of(text), vocab_size, "own")


def test_the_most_frequent_pair_is_merged_first_by_hand():
    # words "ab", " cb", " ab" x 3, " xyb": (a, b) stands 4 times, (space, a) 3 times, all others less often
    assert learnt("ab cb ab ab xyb ab", 258).merges() == [(b"a", b"b")]


def test_merges_are_those_of_counting_again_after_each_merge():
    """The textbook loop (Sennrich et al. 2016, algorithm 1), in which ties may fall either way."""
    made = learnt(MIXED, 340)
    words = [[bytes([b]) for b in piece.encode()] for piece in made.pieces(MIXED)]
    for left, right in made.merges():
        counts: dict[tuple[bytes, bytes], int] = {}
        for word in words:
            for pair in itertools.pairwise(word):
                counts[pair] = counts.get(pair, 0) + 1
        assert counts[left, right] == max(counts.values())
        words = [joined(word, left, right) for word in words]


def joined(word: list[bytes], left: bytes, right: bytes) -> list[bytes]:
    parts: list[bytes] = []
    i = 0
    while i < len(word):
        if i + 1 < len(word) and (word[i], word[i + 1]) == (left, right):
            parts.append(left + right)
            i += 2
        else:
            parts.append(word[i])
            i += 1
    return parts


def test_ids_are_bytes_then_merges_then_end_of_text():
    made = learnt(MIXED, 300)
    assert made.vocab_size == 300 and made.eot_id == 299
    assert sorted(made.token_bytes(id) for id in range(256)) == [bytes([b]) for b in range(256)]
    assert all(len(made.token_bytes(id)) > 1 for id in range(256, 299))
    assert made.decode(made.encode("any 🔥 text\x00")) == "any 🔥 text\x00"


def test_a_short_text_gives_fewer_ids_and_the_separator_is_never_merged():
    made = learnt("ab ab<|endoftext|>cd cd", 1000)
    assert 257 < made.vocab_size < 270
    assert not any(b"<|" in made.token_bytes(id) for id in range(made.vocab_size - 1))


def test_equal_ids_in_tokenizers_for_odd_texts(tmp_path):
    made = learnt(MIXED, 420)
    made.save(tmp_path)
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    draw = random.Random(7)
    signs = [
        "the",
        " cat",
        " that",
        "ate",
        "a",
        "aa",
        " ",
        "\n",
        "漢字",
        "字",
        "🙂",
        "é",
        "ü",
        "1",
        "2",
        ",",
        "\x00",
        "'s",
        "z",
    ]
    for _ in range(2000):
        text = "".join(draw.choices(signs, k=draw.randint(1, 40)))
        assert theirs.encode(text).ids == made.encode(text)
    again = T.load(tmp_path)
    assert isinstance(again, T.BPETokenizer) and again.ranks == made.ranks and again.eot_id == made.eot_id


def test_the_same_text_gives_the_same_encoding():
    assert learnt(MIXED, 400).ranks == learnt(MIXED, 400).ranks


def test_nothing_to_learn_from_is_said_in_words():
    for text in ("", " \n ", "<|endoftext|>"):
        with pytest.raises(ValueError, match="no text to learn from"):
            learnt(text, 300)
    with pytest.raises(ValueError, match="too small"):
        learnt(MIXED, 256)
    assert learnt(MIXED, 257).merges() == []


@pytest.mark.parametrize("size", [1280, 2048])
def test_the_shipped_encodings_are_what_their_command_gives(size):
    shipped = T.get(f"stories-{size}")
    text = files.read_text(corpora.path("stories")).text
    assert shipped.vocab_size == size and isinstance(shipped, T.BPETokenizer)
    assert learnt(text, size).ranks == shipped.ranks


# ---- As a run --------------------------------------------------------------------------------------------------


def dataset(name: str, text: str) -> None:
    (paths.datasets() / name).write_text(text, encoding="utf-8")


def command(*arguments: str) -> subprocess.CompletedProcess:
    env = os.environ | {"LLM_HOME": str(paths.home())}
    line = [sys.executable, "-m", "llm.bpe", *arguments]
    return subprocess.run(line, cwd=paths.ROOT, env=env, capture_output=True, text=True, timeout=120)


def test_a_run_learns_saves_and_tells(tmp_path):
    dataset("mine.txt", MIXED)
    done = command("own-300", "--dataset", "mine", "--vocab_size", "300")
    assert done.returncode == 0, done.stderr
    run = Run.open("own-300")
    assert run.status() == "finished" and run.meta["kind"] == "tokenizer"
    events = run.events()
    stages = [event["stage"] for event in events if event["kind"] == "progress"]
    assert list(dict.fromkeys(stages)) == list(bpe.STAGES)
    assert all(e["done"] == e["total"] for e in events if e["kind"] == "progress" and e["stage"] == "Read")
    made = T.get("own-300")
    assert made.vocab_size == 300 and "own-300" in T.names()
    first = next(event for event in events if event["kind"] == "merges")["first"]
    assert [tuple(bytes.fromhex(part) for part in pair) for pair in first] == made.merges()
    result = next(event for event in events if event["kind"] == "result")
    assert result["bytes_per_token"] == T.bytes_per_token(MIXED, made.encode(MIXED))
    assert events[-1] == {
        "kind": "end",
        "time": events[-1]["time"],
        "reason": "finished",
        "step": 0,
        "message": "The encoding has 300 ids.",
    }
    again = command("own-300", "--dataset", "mine", "--vocab_size", "300")
    assert again.returncode == 2 and "is finished" in again.stderr


def test_a_run_that_cannot_work_says_why():
    done = command("lost", "--dataset", "nowhere")
    assert done.returncode == 1 and Run.open("lost").status() == "failed"
    assert "nowhere" in Run.open("lost").last_event()["message"] and "Traceback" not in done.stderr
    dataset("mine.txt", MIXED)
    done = command("gpt2", "--dataset", "mine")
    assert done.returncode == 1 and "already" in Run.open("gpt2").last_event()["message"]
    assert command("../x").returncode == 2


def test_a_stop_ends_the_run_without_a_half_written_encoding():
    draw = random.Random(8)
    text = " ".join(
        "".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(3, 12))) for _ in range(400_000)
    )
    dataset("long.txt", text)
    env = os.environ | {"LLM_HOME": str(paths.home())}
    line = [sys.executable, "-m", "llm.bpe", "slow", "--dataset", "long", "--vocab_size", "60000"]
    process = subprocess.Popen(
        line, cwd=paths.ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        while not (paths.runs() / "slow").exists() or not Run.open("slow").last_event():
            assert process.poll() is None
        Run.open("slow").request_stop()
        assert process.wait(20) == 0
    finally:
        process.kill()
    assert Run.open("slow").status() == "stopped" and "slow" not in T.names()
    assert list(paths.tokenizers().glob("*/tokenizer.json")) == []
    assert json.loads((Run.open("slow").path / "config.json").read_text())["vocab_size"] == 60000
