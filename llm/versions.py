"""Which version a file is of: a later one is refused in a sentence, never guessed at; one without a version is of version 1.

Whoever changes a format raises its number, reads the older ones too, and freezes a home of the day in tests/fixtures.

| what | where its version stands |
|---|---|
| a run: settings, log, marks, questions | `version` in its meta.json, for the whole directory |
| a checkpoint of a run | `version` in state.pt, or in numbers.json of shares-STEP |
| a model directory: weights, card, template | `version` in its config.json |
| where an imported model comes from; a classifier's labels | `version` in source.json, classifier.json |
| an encoding of bytes or characters | `lab.version` in tokenizer.json |
| a sweep | `version` in spec.json |
| an endpoint; the keys of endpoints | `version` in NAME.json, keys |
| arena boards, the class book | SQLite's `user_version` (0 is 1) |
| limits, logins, a hand-in, the list in a backup | `version` in limits.json, logins.json, the file, manifest.json |
| whose a text is | the line `version 1` in owners/NAME |

None has: texts, rows and lessons (a person's own, in open formats); tokenizer.json of Hugging Face, PEFT adapters and exports (formats of
other tools); the cache (named by content and settings, made again); hashes of downloads (name and SHA-256, nothing else); a secret, a token,
and empty marks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llm import paths


class Unknown(ValueError):
    """A file of a version that this lab does not read. Listings leave it out; who asks for it by name is told."""


def check(found: Any, known: int, what: Path | str) -> int:
    """The version of a file, given what stands in it (None where nothing does: 1) and the newest that is read.

    Raises Unknown, which names the file, both versions and what to do.
    """
    version = 1 if found is None else found
    if type(version) is not int or not 1 <= version <= known:
        reads = "1" if known == 1 else f"1 to {known}"
        raise Unknown(
            f"{called(what)} is of version {str(found)[:20]}; this lab reads {reads}: use the lab that wrote it, or a newer one."
        )
    return version


def called(what: Path | str) -> str:
    """A file as a person finds it: below $LLM_HOME without that, elsewhere with the folder it lies in."""
    if isinstance(what, str):
        return what
    if what.is_relative_to(paths.home()):
        return what.relative_to(paths.home()).as_posix()
    return f"{what.parent.name}/{what.name}"
