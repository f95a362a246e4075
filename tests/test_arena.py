"""Rounds and votes: facts that are only added, counted the same in every order, once a round, and never after the names."""

import random
import threading
import time

import numpy as np
import pytest

from llm import arena, ratings


def round_of(a="fox", b="owl", choice="a", voter="me", topic="", texts=("one", "two"), prompt="Tell me."):
    id = arena.begin(prompt, a, b, voter, topic)
    for side, text in zip("ab", texts):
        arena.answered(id, side, text)
    return arena.vote(id, choice, voter) if choice else arena.get(id)


def test_a_round_from_its_begin_to_its_vote():
    found = round_of(choice="")
    assert (found.text_a, found.text_b, found.choice, found.problem) == ("one", "two", "", "")
    voted = arena.vote(found.id, "b", "me")
    assert voted.choice == "b" and (voted.a, voted.b) == ("fox", "owl")
    with pytest.raises(ValueError, match=r"has its vote already \(b is better\)"):
        arena.vote(found.id, "a", "me")
    assert arena.get(found.id).choice == "b" and arena.tally().votes == 1


def test_a_vote_before_both_have_finished_counts():
    id = arena.begin("Go.", "fox", "owl", "me")
    arena.answered(id, "a", "only one")
    assert arena.vote(id, "a", "me").choice == "a"
    arena.answered(id, "b", "late")
    assert arena.get(id).text_b == "late" and arena.tally().votes == 1


def test_names_seen_before_the_vote_make_it_void_and_after_it_do_not():
    id = arena.begin("Go.", "fox", "owl", "me")
    arena.reveal(id)
    with pytest.raises(ValueError, match="names were shown before the vote"):
        arena.vote(id, "a", "me")
    found = round_of()
    time.sleep(0.002)
    arena.reveal(found.id)
    assert arena.get(found.id).problem == "" and arena.tally().votes == 1


def test_what_breaks_off_after_an_early_vote_does_not_count_either():
    id = arena.begin("Go.", "fox", "owl", "me")
    arena.answered(id, "b", "poor")
    arena.vote(id, "a", "me")
    arena.answered(id, "a", "half a sen", "fox stopped in the middle.")
    assert "stopped in the middle" in arena.get(id).problem
    assert arena.tally().votes == 0 and arena.voted() == []


def test_votes_between_two_in_either_order():
    round_of("fox", "owl"), round_of("owl", "fox"), round_of("fox", "hare")
    assert [(one.a, one.b) for one in arena.voted(between=("owl", "fox"))] == [("fox", "owl"), ("owl", "fox")]


def test_what_broke_off_does_not_count():
    id = arena.begin("Go.", "fox", "owl", "me")
    arena.answered(id, "a", "half", "fox stopped in the middle.")
    with pytest.raises(ValueError, match="does not count: fox stopped in the middle"):
        arena.vote(id, "b", "me")


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (("", "fox", "owl"), "prompt is empty"),
        (("  \n", "fox", "owl"), "prompt is empty"),
        (("Go.", "fox", "fox"), "cannot meet itself"),
        (("x" * 30_000, "fox", "owl"), "30,000 characters"),
    ],
)
def test_rounds_that_cannot_be(values, sentence):
    with pytest.raises(ValueError, match=sentence):
        arena.begin(*values, "me")


def test_votes_that_cannot_be():
    found = round_of(choice="")
    with pytest.raises(ValueError, match="no vote"):
        arena.vote(found.id, "better", "me")
    for id, voter in ((found.id, "you"), ("unknown", "me")):
        with pytest.raises(ValueError, match="not yours"):
            arena.vote(id, "a", voter)
    with pytest.raises(ValueError, match="board"):
        arena.begin("Go.", "a", "b", "me", name="../elsewhere")


def test_counts_by_hand_with_ties_and_both_bad():
    for choice, count in (("a", 3), ("b", 1), ("tie", 2), ("bad", 4)):
        for _ in range(count):
            round_of(choice=choice)
    round_of("owl", "fox", "a")  # the other way round
    found = arena.tally(also=["hare"])
    assert found.names == ("fox", "hare", "owl")
    np.testing.assert_array_equal(found.wins, [[0, 0, 4], [0, 0, 0], [3, 0, 0]])
    np.testing.assert_array_equal(found.games, [[0, 0, 7], [0, 0, 0], [7, 0, 0]])
    assert (found.ties, found.bad, found.votes) == (2, 4, 11)


def test_the_order_of_votes_changes_nothing():
    votes = [("fox", "owl", "a"), ("owl", "hare", "tie"), ("hare", "fox", "b"), ("fox", "hare", "b"), ("owl", "fox", "a")]  # fmt: skip
    found = []
    for order in range(3):
        random.Random(order).shuffle(votes)
        for a, b, choice in votes:
            id = arena.begin("Go.", a, b, "me", name=f"board{order}")
            arena.vote(id, choice, "me", name=f"board{order}")
        found.append(ratings.fit(arena.tally(name=f"board{order}").wins).points())
    np.testing.assert_allclose(found[0], found[1], atol=1e-9)
    np.testing.assert_allclose(found[0], found[2], atol=1e-9)


def test_topics_and_voters_are_counted_apart():
    round_of(topic="rhymes")
    round_of(topic="sums", choice="b")
    round_of(topic="sums", choice="b", voter="you")
    assert arena.topics() == ["rhymes", "sums"]
    assert (
        arena.tally("sums").votes == 2
        and arena.tally("sums", "you").votes == 1
        and arena.tally("", "me").votes == 2
    )
    assert [one.topic for one in arena.voted(voter="me")] == ["rhymes", "sums"]


def test_thirty_vote_at_once_and_two_clicks_are_one_vote():
    rounds = [round_of(choice="", voter=f"v{i}") for i in range(30)]
    refused = []

    def click(one):
        try:
            arena.vote(one.id, "a", one.voter)
        except ValueError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=click, args=(one,)) for one in rounds for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert arena.tally().votes == 30 and len(refused) == 30 and all("already" in text for text in refused)


def test_votes_become_rows_and_those_that_do_not_are_counted():
    round_of(choice="a", texts=("good", "poor"), prompt="First.")
    round_of(choice="b", texts=("poor", "good"), prompt="Second.")
    round_of(choice="tie")
    round_of(choice="bad")
    round_of(choice="a", texts=("same", "same "))
    id = arena.begin("Go.", "fox", "owl", "me")
    arena.vote(id, "a", "me")
    rows, left = arena.preferences(arena.voted())
    assert [(r["prompt"], r["chosen"], r["rejected"], r["chosen_by"]) for r in rows] == [
        ("First.", "good", "poor", "fox"),
        ("Second.", "good", "poor", "owl"),
    ]
    assert left == {"tie": 1, "both bad": 1, "equal texts": 1, "not finished": 1}


def test_ten_thousand_votes_are_counted_and_rated_quickly():
    chance = random.Random(0)
    names = [f"model-{i}" for i in range(12)]
    with arena.board() as db:
        for i in range(10_000):
            a, b = chance.sample(names, 2)
            db.execute("insert into rounds values (?, ?, 'me', '', 'p', ?, ?, 0)", (f"r{i}", i, a, b))
            db.execute("insert into votes values (?, ?, 'me', ?)", (f"r{i}", chance.choice(["a", "b", "tie", "bad"]), i))  # fmt: skip
    arena.tally()
    began = time.perf_counter()
    found = arena.tally()
    ratings.fit(found.wins)
    assert found.votes == 10_000 and time.perf_counter() - began < 0.2
