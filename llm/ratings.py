"""From votes between two to a rating of each: Bradley-Terry, with intervals, independent of the order of the votes.

The model: i beats j with probability 1 / (1 + 10^((R_j - R_i) / 400)), so 120 points are odds of two to one. A tie counts
as half a win for each. Source: Bradley and Terry, Rank analysis of incomplete block designs, Biometrika 39 (1952).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

POINTS = 400 / math.log(10)  # points for each unit of log-odds
MEAN = 1000.0  # of all ratings
PRIOR = 1e-6  # precision of the prior on log-odds: so weak that it changes no rating that the votes give
PRIOR_OPEN = 0.1  # where somebody has not won, or not lost, against the rest, and the votes alone give no finite rating
PRIOR_UNKNOWN = 1e-2  # of those without votes, and in all intervals: keeps them finite
Z95 = 1.959964  # standard deviations on each side that hold 95 % of a normal distribution


@dataclass(frozen=True)
class Ratings:
    """Log-odds and what is known of their error, in the order of the names they were made for."""

    strengths: np.ndarray  # (n,), natural log-odds, mean 0
    covariance: np.ndarray  # (n, n)
    open: bool  # the votes alone give no finite ratings: the prior holds them

    def points(self) -> np.ndarray:
        """(n,): ratings in points."""
        return MEAN + POINTS * self.strengths

    def margins(self) -> np.ndarray:
        """(n,): half the width of each 95 % interval, in points (normal approximation, from the curvature)."""
        return POINTS * Z95 * np.sqrt(np.diag(self.covariance))

    def gaps(self) -> np.ndarray:
        """(n, n): half the width of the 95 % interval of each difference, in points; 0 on the diagonal."""
        own = np.diag(self.covariance)
        return POINTS * Z95 * np.sqrt(np.maximum(own[:, None] + own[None] - 2 * self.covariance, 0))


def fit(wins: np.ndarray) -> Ratings:
    """Ratings from wins (n, n): wins[i, j] is how often i beat j, halves for ties. Raises ValueError for another shape.

    Newton's method on the log-likelihood sum wins[i, j] log p(i beats j) with a weak normal prior around 0, which makes
    the mean 0 and gives those without votes the mean rating and a wide interval.
    """
    wins = np.asarray(wins, float)
    if wins.ndim != 2 or wins.shape[0] != wins.shape[1] or (wins < 0).any():
        raise ValueError(f"Wins are a square table of counts, not one of shape {wins.shape}.")
    played = (wins + wins.T).sum(1) > 0
    if not played.all():
        return _with_unknown(fit(wins[played][:, played]), played)
    n = len(wins)
    unbounded = not connected(wins)
    prior = PRIOR_OPEN if unbounded else PRIOR
    games = wins + wins.T
    strengths = np.zeros(n)

    def likelihood(s: np.ndarray) -> float:
        return float((wins * -np.logaddexp(0, s[None] - s[:, None])).sum() - prior / 2 * (s @ s))

    for _ in range(200):
        p = 1 / (1 + np.exp(strengths[None] - strengths[:, None]))  # (n, n): i beats j
        slope = (wins - games * p).sum(1) - prior * strengths
        step = np.linalg.solve(curvature(games, p, prior), slope)
        while likelihood(strengths + step) < likelihood(strengths) - 1e-12 and np.abs(step).max() > 1e-12:
            step /= 2
        strengths = strengths + step
        if np.abs(step).max(initial=0) < 1e-11:
            break
    p = 1 / (1 + np.exp(strengths[None] - strengths[:, None]))
    covariance = np.linalg.inv(curvature(games, p, max(prior, PRIOR_UNKNOWN)))
    if not unbounded and n:  # the mean of all is fixed, so it has no error of its own
        centred = np.eye(n) - 1 / n
        covariance = centred @ covariance @ centred
    return Ratings(strengths - strengths.mean() if n else strengths, covariance, unbounded)


def _with_unknown(known: Ratings, played: np.ndarray) -> Ratings:
    """The ratings of those who `played` (n,), with the others at the mean and unknown: they move nobody."""
    strengths, covariance = np.zeros(len(played)), np.eye(len(played)) / PRIOR_UNKNOWN
    strengths[played] = known.strengths
    covariance[np.ix_(played, played)] = known.covariance
    return Ratings(strengths, covariance, known.open)


def curvature(games: np.ndarray, p: np.ndarray, prior: float) -> np.ndarray:
    """(n, n): minus the second derivative of the log-likelihood, by the strengths."""
    off = games * p * (1 - p)
    return np.diag(off.sum(1) + prior) - off


def connected(wins: np.ndarray) -> bool:
    """Whether everyone has beaten everyone else through a chain of wins: then the votes alone give finite ratings."""
    reached = (np.asarray(wins) > 0) | np.eye(len(wins), dtype=bool)
    for _ in range(max(len(wins), 1).bit_length()):
        reached = reached @ reached
    return bool(reached.all())


def widest(ratings: Ratings, games: np.ndarray) -> list[tuple[int, int]]:
    """All pairs (i, j), i < j, the one whose difference is known least first; of equals, the one seen less often."""
    gaps = ratings.gaps()
    pairs = [(i, j) for i in range(len(gaps)) for j in range(i + 1, len(gaps))]
    return sorted(pairs, key=lambda pair: (-round(gaps[pair], 6), games[pair]))
