"""Ratings: the maximum of the likelihood by another way, the curvature by differences, and no memory of the order."""

import math

import numpy as np
import pytest

from llm import ratings


def likelihood(s, wins):
    return sum(
        wins[i, j] * -math.log1p(math.exp(s[j] - s[i]))
        for i in range(len(s))
        for j in range(len(s))
        if i != j
    )


def test_two_to_one_is_120_points():
    found = ratings.fit(np.array([[0, 2], [1, 0]]))
    a, b = found.points()
    assert a - b == pytest.approx(400 * math.log10(2), abs=0.005) and a + b == pytest.approx(2000)
    assert not found.open


def test_it_is_the_maximum_of_the_likelihood():
    random = np.random.default_rng(3)
    wins = random.integers(1, 9, (5, 5)) / 2
    np.fill_diagonal(wins, 0)
    found = ratings.fit(wins).strengths
    best = likelihood(found, wins)
    for _ in range(200):
        assert likelihood(found + random.normal(0, 0.05, 5), wins) <= best + 1e-9
    # the minorize-maximize iteration of Hunter (2004), another road to the same place
    p = np.ones(5)
    games = wins + wins.T
    for _ in range(5000):
        p = wins.sum(1) / (games / (p[:, None] + p[None])).sum(1)
        p /= np.exp(np.log(p).mean())
    np.testing.assert_allclose(found, np.log(p), atol=1e-5)


def test_the_margin_of_two_is_the_one_of_their_share():
    """With n rounds between two, the log-odds have the variance 1 / (n p (1 - p))."""
    found = ratings.fit(np.array([[0, 30], [10, 0]]))
    expected = ratings.POINTS * 1.959964 / math.sqrt(40 * 0.75 * 0.25)
    assert found.gaps()[0, 1] == pytest.approx(expected, rel=0.01)


def test_intervals_hold_the_truth_as_often_as_they_say():
    random, truth = np.random.default_rng(1), np.array([0.8, 0.1, -0.2, -0.7])
    hits = total = 0
    for _ in range(150):
        wins = np.zeros((4, 4))
        for i in range(4):
            for j in range(i + 1, 4):
                won = random.binomial(60, 1 / (1 + math.exp(truth[j] - truth[i])))
                wins[i, j], wins[j, i] = won, 60 - won
        found = ratings.fit(wins)
        error = np.abs(found.points() - ratings.MEAN - ratings.POINTS * truth)
        hits, total = hits + int((error < found.margins()).sum()), total + 4
    assert 0.92 <= hits / total <= 0.98


def test_who_never_lost_has_a_finite_rating_and_a_remark():
    found = ratings.fit(np.array([[0, 3, 0], [0, 0, 1], [0, 1, 0]]))
    assert found.open and np.isfinite(found.points()).all() and found.points()[0] > found.points()[1]
    assert found.margins()[0] > 300


def test_without_votes_all_are_equal_and_unknown():
    found = ratings.fit(np.zeros((3, 3)))
    assert (found.points() == 1000).all() and (found.margins() > 1000).all()
    assert ratings.fit(np.zeros((0, 0))).points().shape == (0,)


def test_one_without_votes_moves_nobody():
    two, three = (
        ratings.fit(np.array([[0, 2], [1, 0]])),
        ratings.fit(np.array([[0, 2, 0], [1, 0, 0], [0, 0, 0]])),
    )
    np.testing.assert_allclose(three.points()[:2], two.points(), atol=1e-9)
    np.testing.assert_allclose(three.margins()[:2], two.margins(), atol=1e-9)
    assert three.points()[2] == 1000 and three.margins()[2] > 1000 and not three.open


@pytest.mark.parametrize("n", [2, 5, 12, 20])
def test_the_ratings_of_choix(n):
    """choix (Maystre), another implementation of the same maximum likelihood, without a prior."""
    choix = pytest.importorskip("choix")
    wins = np.random.default_rng(n).integers(1, 9, (n, n)).astype(float)
    np.fill_diagonal(wins, 0)
    games = [(i, j) for i in range(n) for j in range(n) for _ in range(int(wins[i, j]))]
    expected = choix.opt_pairwise(n, games, alpha=0, method="Newton-CG", tol=1e-12)
    np.testing.assert_allclose(ratings.fit(wins).strengths, expected - expected.mean(), atol=1e-6)


def test_the_next_pair_is_the_one_known_least():
    wins = np.array([[0, 20, 1], [20, 0, 1], [1, 1, 0]], float)
    found = ratings.fit(wins)
    pairs = ratings.widest(found, wins + wins.T)
    assert set(pairs[:2]) == {(0, 2), (1, 2)} and pairs[-1] == (0, 1)
    assert ratings.widest(ratings.fit(np.zeros((3, 3))), np.array([[0, 2, 0], [2, 0, 1], [0, 1, 0]]))[0] == (
        0,
        2,
    )


def test_another_shape_is_refused():
    with pytest.raises(ValueError, match="square"):
        ratings.fit(np.zeros((2, 3)))
