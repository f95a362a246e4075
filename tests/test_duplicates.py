"""Near duplicates against comparing every pair, and the similarity against counting by hand."""

from __future__ import annotations

import random

import pytest

from llm import duplicates

WORDS = ("the", "cat", "dog", "sat", "ran", "on", "under", "mat", "tree", "house", "old", "red", "very", "quickly", "today", "then", "home")  # fmt: skip


def some_texts(seed: int, count: int) -> list[str]:
    """Random sentences, a third of them an earlier one with a word changed, dropped, added, or only other blanks."""
    rng = random.Random(seed)
    texts: list[str] = []
    for _ in range(count):
        words = [rng.choice(WORDS) for _ in range(rng.randint(1, 14))]
        if texts and rng.random() < 0.35:
            words = rng.choice(texts).split()
            at = rng.randrange(len(words))
            change = rng.randrange(4)
            if change == 0:
                words[at] = rng.choice(WORDS)
            elif change == 1 and len(words) > 1:
                del words[at]
            elif change == 2:
                words.insert(at, rng.choice(WORDS))
            else:
                words[at] = words[at].upper() + " "
        texts.append(" ".join(words))
    return texts


def every_pair(texts: list[str], least: float) -> list[tuple[int, int, float]]:
    """What `near` should find: for each text that is no exact repeat its most similar earlier one, the first of equals."""

    def shingles(text: str) -> set[str]:
        text = " ".join(text.lower().split())
        return {text[i : i + 5] for i in range(len(text) - 4)} if len(text) > 5 else {text}

    firsts: list[int] = []
    found = []
    for i, text in enumerate(texts):
        if any(" ".join(texts[j].lower().split()) == " ".join(text.lower().split()) for j in firsts):
            continue
        mine = shingles(text)
        scored = [
            (len(mine & shingles(texts[j])) / len(mine | shingles(texts[j])), -j) for j in firsts
        ]  # fmt: skip
        if scored and max(scored)[0] >= least:
            found.append((i, -max(scored)[1], max(scored)[0]))
        firsts.append(i)
    return found


@pytest.mark.parametrize("least", [0.5, 0.8, 0.95])
@pytest.mark.parametrize("seed", range(6))
def test_near_finds_what_comparing_every_pair_finds(seed, least):
    texts = some_texts(seed, 120)
    want = every_pair(texts, least)
    assert duplicates.near(texts, least) == want
    assert want or least > 0.8


def test_similarity_by_hand():
    # "abcdef" has abcde bcdef; "abcdeg" has abcde bcdeg: one of three
    assert duplicates.similarity("abcdef", "abcdeg") == 1 / 3
    assert duplicates.similarity("A  bc", "a bc") == 1
    assert duplicates.similarity("abc", "abd") == 0
    assert duplicates.similarity("", "") == 1 and duplicates.similarity("", "abc") == 0


def test_what_does_not_count():
    assert duplicates.normal(" Straße\t\nÉ ") == duplicates.normal("STRASSE E\u0301")
    assert duplicates.normal("ﬁne Ａ") == "fine a"
    assert duplicates.normal("one.") != duplicates.normal("one")


def test_exact_names_the_first():
    texts = ["One two", "three", "one  TWO", "Three ", "ONE TWO", "four"]
    assert sorted(duplicates.exact(texts)) == [(2, 0), (3, 1), (4, 0)]
    assert duplicates.exact([]) == [] and duplicates.near([]) == []


def test_only_the_beginning_of_a_long_text_is_compared():
    long = " ".join(f"word{i}" for i in range(600))
    assert len(long) > duplicates.LONGEST
    assert duplicates.similarity(long + " and an end", long + " but not the same") == 1


def test_many_alike_are_found_without_comparing_all(monkeypatch):
    """A thousand texts from one form: each has a neighbour that differs in a letter or two, and most pairs go unseen."""
    texts = [f"Dear customer number {i:04}, your parcel has arrived at the station." for i in range(1000)]
    compared = 0
    overlap = duplicates.overlap

    def counted(a: frozenset[str], b: frozenset[str]) -> float:
        nonlocal compared
        compared += 1
        return overlap(a, b)

    monkeypatch.setattr(duplicates, "overlap", counted)
    found = duplicates.near(texts)
    assert len(found) > 950 and compared < 1000 * 999 / 2 / 4
    assert all(j < i and duplicates.similarity(texts[i], texts[j]) == shared for i, j, shared in found)
