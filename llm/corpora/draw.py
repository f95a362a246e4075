"""Seeded choices that every Python version makes alike: of random.Random only random() is used."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Draw:
    """Choices from one seed."""

    def __init__(self, seed: int):
        self.random = random.Random(seed)

    def pick(self, options: Sequence[T]) -> T:
        """One of `options`."""
        return options[int(self.random.random() * len(options))]

    def chance(self, p: float) -> bool:
        return self.random.random() < p

    def shuffled(self, options: Sequence[T]) -> list[T]:
        """All of `options` in another order (Fisher and Yates)."""
        found = list(options)
        for i in range(len(found) - 1, 0, -1):
            j = int(self.random.random() * (i + 1))
            found[i], found[j] = found[j], found[i]
        return found

    def sample(self, options: Sequence[T], count: int) -> list[T]:
        """`count` different ones of `options`, or all of them when there are fewer."""
        return self.shuffled(options)[:count]
