"""What a text repeats of the training data: by brute force, and in the page's words."""

import numpy as np
import pytest

from llm import engine, memory, paths, tokenizer


def brute(ids, train, n):
    """All starts in `ids` whose n tokens stand in `train`."""
    grams = {tuple(train[i : i + n]) for i in range(len(train) - n + 1)}
    return {i for i in range(len(ids) - n + 1) if tuple(ids[i : i + n]) in grams}


@pytest.mark.parametrize("n", [1, 2, 3, 5])
@pytest.mark.parametrize("seed", range(5))
def test_it_finds_what_a_search_by_hand_finds(n, seed, monkeypatch):
    monkeypatch.setattr(memory, "PIECE", 17)  # pieces that cut sequences in the middle
    random = np.random.default_rng(seed)
    train, ids = random.integers(0, 4, 200), random.integers(0, 4, 40)
    found = memory.copied(ids, train, n)
    covered = {i for one in found for i in range(one.start, one.end)}
    expected = {i + k for i in brute(ids.tolist(), train.tolist(), n) for k in range(n)}
    assert covered <= expected and {one.start for one in found} <= brute(ids.tolist(), train.tolist(), n)
    for one in found:
        length = one.end - one.start
        assert length >= n and (ids[one.start : one.end] == train[one.at : one.at + length]).all()
        starts = [
            i for i in range(len(train) - n + 1) if (train[i : i + n] == ids[one.start : one.start + n]).all()
        ]
        assert one.times == len(starts)
        longest = max(memory.common(ids[one.start :], train[i:]) for i in starts)
        assert length == longest
    ends = [one.end for one in found]
    assert all(a <= b.start for a, b in zip(ends, found[1:]))
    # nothing whole is left between what was found
    for i in brute(ids.tolist(), train.tolist(), n):
        assert any(one.start < i + n and i < one.end for one in found)


def test_equal_hashes_are_not_enough(monkeypatch):
    monkeypatch.setattr(memory, "hashes", lambda ids, n: np.zeros(max(len(ids) - n + 1, 0), np.uint64))
    assert memory.copied([1, 2, 3], np.array([4, 5, 6, 7]), 2) == []
    (one,) = memory.copied([9, 5, 6, 8], np.array([4, 5, 6, 7]), 2)
    assert one == memory.Copied(1, 3, 1, 1)


def test_nothing_to_find():
    assert (
        memory.copied([], np.array([1, 2]), 2) == [] and memory.copied([1, 2, 3], np.array([], int), 2) == []
    )
    with pytest.raises(ValueError, match="choose 1 or more"):
        memory.copied([1], np.array([1]), 0)


def test_a_sentence_of_the_stories_is_found_with_its_story_and_window(monkeypatch):
    monkeypatch.setenv("LLM_ENGINE", "inline")
    text = (paths.shipped_datasets() / "stories.txt").read_text(encoding="utf-8")
    stories = text.split("<|endoftext|>")
    sentence = stories[40].strip()[:90]
    found = engine.get().copied("story-llama", text=f"Zebras whistle. {sentence} Violins!", dataset="stories", n=8, name="story-llama")  # fmt: skip
    longest = max(found["found"], key=lambda one: one["end"] - one["start"])
    assert longest["document"] == 41 and longest["text"].strip() in sentence and len(longest["text"]) > 60
    encoding = tokenizer.get("model:story-llama")
    assert (
        0 < found["copied"] <= found["tokens"] == len(encoding.encode(f"Zebras whistle. {sentence} Violins!"))
    )
    assert found["train_tokens"] > 500_000 and longest["window"] is not None
    with pytest.raises(ValueError, match="nothing"):
        engine.get().copied("story-llama", text="A fox.", dataset="nothing", n=8)


def test_where_a_model_learned_from_is_read_from_its_card():
    assert memory.learned_from("story-llama").dataset == "stories"
    assert memory.learned_from("verse-char").dataset == "verse"
