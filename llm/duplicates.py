"""Texts that say the same twice: equal but for case and spaces, or nearly equal by the pieces they share."""

from __future__ import annotations

import math
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence

PIECE = 5  # characters
NEAR = 0.8  # similarity from which two texts count as nearly the same
HOLDERS = 200  # texts that share a piece, above which it says little
PARTNERS = 50  # texts compared with one whose rarest pieces are shared by many
LONGEST = (
    2_000  # characters of a text that are compared; texts that only differ later count as nearly the same
)


def normal(text: str) -> str:
    """The text without what does not count: case, runs of blanks, other forms of the same letter (Unicode NFKC)."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def pieces(text: str) -> frozenset[str]:
    """Every run of PIECE characters of the normal text; a shorter text is its own only piece."""
    text = normal(text)[:LONGEST]
    return frozenset(text[i : i + PIECE] for i in range(max(len(text) - PIECE + 1, 1)))


def similarity(first: str, second: str) -> float:
    """How alike two texts are, from 0 to 1: the overlap of their pieces."""
    return overlap(pieces(first), pieces(second))


def overlap(a: frozenset[str], b: frozenset[str]) -> float:
    """The Jaccard index: what both have over what either has."""
    common = len(a & b)
    return common / (len(a) + len(b) - common)


def exact(texts: Sequence[str]) -> list[tuple[int, int]]:
    """(i, first) for each text i whose normal form stood before, first at `first`."""
    seen: dict[str, int] = {}
    return [(i, first) for i, text in enumerate(texts) if (first := seen.setdefault(normal(text), i)) != i]


def near(texts: Sequence[str], least: float = NEAR) -> list[tuple[int, int, float]]:
    """(i, j, similarity) for each text i with another one, j < i, at least so similar but not equal: its most similar one.

    Not all pairs are compared: of two sets of n and m <= n pieces with a Jaccard index of at least t, the
    n - ceil(t n) + 1 rarest pieces of one and of the other have a piece in common (prefix filtering: Chaudhuri, Ganti
    and Kaushik 2006; Bayardo, Ma and Srikant 2007). So the answer is exact, but for texts of which more than HOLDERS share
    their rarest pieces: there only the PARTNERS that share most of them are compared, and one may be missed.
    Of texts with one normal form only the first is compared.
    """
    repeats = dict(exact(texts))
    sets = {i: pieces(text) for i, text in enumerate(texts) if i not in repeats}
    frequency = Counter(piece for found in sets.values() for piece in found)
    holders: dict[str, list[int]] = defaultdict(list)
    best: dict[int, tuple[float, int]] = {}
    for i in sorted(sets, key=lambda i: (len(sets[i]), i)):
        n = len(sets[i])
        prefix = n - math.ceil(least * n - 1e-9) + 1
        rarest = sorted(sets[i], key=lambda piece: (frequency[piece], piece))[:prefix]
        partners = Counter(
            j for piece in rarest for j in holders[piece][:HOLDERS] if len(sets[j]) >= least * n - 1e-9
        )
        for j, _ in partners.most_common(PARTNERS if len(partners) > HOLDERS else None):
            shared = overlap(sets[i], sets[j])
            late, early = max(i, j), min(i, j)
            if shared >= least and (shared, -early) > best.get(late, (0.0, 0)):
                best[late] = shared, -early
        for piece in rarest:
            holders[piece].append(i)
    return [(i, -early, shared) for i, (shared, early) in sorted(best.items())]
