"""The English article before a word: by its first sound, not by its first letter."""

from __future__ import annotations

import re

# A vowel at the start that is said "you" or "w" (useful, unicorn, European, one), and an h that is not said (hour).
_VOWEL_SOUND = r"(?!us[eau]|uni(?!m|n)|eu|one\b|once\b|ewe)[aeiou]|hour|hono|honest|heir"


def article(word: str) -> str:
    """ "a" or "an", as it stands before the word."""
    return "an" if re.match(_VOWEL_SOUND, word.lower()) else "a"


def with_articles(text: str) -> str:
    """The text with every "a" before a vowel's sound made "an"."""
    return re.sub(rf"\b([Aa]) (?={_VOWEL_SOUND})", r"\1n ", text)
