"""Well-known public texts, fetched on request: resumed when cut, checked by size and SHA-256, put in place in one step."""

from __future__ import annotations

import errno
import hashlib
import http.client
import json
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from llm import paths

BLOCK = 65_536  # bytes read at once: often enough for a progress bar and for a stop
TIMEOUT = 30  # seconds without a byte


@dataclass(frozen=True)
class Download:
    """A public text. `sha256` is written down only for bytes that were hashed here; others are pinned at first download."""

    title: str
    about: str
    url: str
    size: int  # bytes; approximate while sha256 is None
    licence: str
    sha256: str | None = None
    suffix: str = ".txt"
    name: str = ""

    @property
    def file(self) -> str:
        return self.name + self.suffix


GUTENBERG = "public domain in the USA (Project Gutenberg licence for the edition)"
DOWNLOADS = {
    "tiny-shakespeare": Download(
        title="Tiny Shakespeare", about="40,000 lines from Shakespeare's plays; the classic of character-level models.",
        url="https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
        size=1_115_394, licence="public domain",
        sha256="86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    ),
    "the-verdict": Download(
        title="The Verdict", about="A short story by Edith Wharton (1908), used in many lessons.",
        url="https://raw.githubusercontent.com/rasbt/LLMs-from-scratch/main/ch02/01_main-chapter-code/the-verdict.txt",
        size=20_479, licence="public domain",
        sha256="b41e41a68f0398a3154ae69e2e4c0e2694e17fe0d66730536837f1b01935b31f",
    ),
    "tinystories-valid": Download(
        title="TinyStories, validation split", about="Short stories by GPT-4 for small models (Eldan & Li 2023).",
        url="https://huggingface.co/datasets/roneneldan/TinyStories/resolve/main/TinyStoriesV2-GPT4-valid.txt",
        size=22_500_000, licence="CDLA-Sharing-1.0",
    ),
    "alice": Download(
        title="Alice's Adventures in Wonderland", about="Lewis Carroll, 1865.",
        url="https://www.gutenberg.org/cache/epub/11/pg11.txt", size=170_000, licence=GUTENBERG,
    ),
    "frankenstein": Download(
        title="Frankenstein", about="Mary Shelley, 1818.",
        url="https://www.gutenberg.org/cache/epub/84/pg84.txt", size=440_000, licence=GUTENBERG,
    ),
    "sherlock-holmes": Download(
        title="The Adventures of Sherlock Holmes", about="Arthur Conan Doyle, 1892.",
        url="https://www.gutenberg.org/cache/epub/1661/pg1661.txt", size=600_000, licence=GUTENBERG,
    ),
    "pride-and-prejudice": Download(
        title="Pride and Prejudice", about="Jane Austen, 1813.",
        url="https://www.gutenberg.org/cache/epub/1342/pg1342.txt", size=760_000, licence=GUTENBERG,
    ),
    "grimms-fairy-tales": Download(
        title="Grimms' Fairy Tales", about="Jacob and Wilhelm Grimm, in English.",
        url="https://www.gutenberg.org/cache/epub/2591/pg2591.txt", size=550_000, licence=GUTENBERG,
    ),
}  # fmt: skip
DOWNLOADS = {name: Download(**{**text.__dict__, "name": name}) for name, text in DOWNLOADS.items()}


class Cancelled(Exception):
    """The person stopped the download; what has arrived is kept, and the next fetch goes on from there."""


def named(name: str) -> Download:
    """The table's entry. Raises ValueError when there is none."""
    if name not in DOWNLOADS:
        raise ValueError(f"There is no download called {name!r}: choose {', '.join(DOWNLOADS)}.")
    return DOWNLOADS[name]


def trust(name: str) -> str:
    """What is known of the bytes: "verified" (hash in the table), "unverified" (pinned at first download, or not yet)."""
    text = named(name)
    if text.sha256:
        return "verified by SHA-256"
    pin = _pins().get(name)
    return f"unverified, pinned at first download as {pin[:12]}..." if pin else "unverified"


def fetch(
    name: str, progress: Callable[[int, int], None] | None = None, cancelled: Callable[[], bool] | None = None
) -> Path:
    """The file of a public text, downloaded if it is not here; `progress(done, total)` in bytes, total 0 when unknown.

    Raises ValueError (a sentence for people) when it cannot be had, and `Cancelled` when `cancelled()` says so.
    """
    path = paths.datasets() / named(name).file
    for done, total in steps(name):
        if progress:
            progress(done, total)
        if cancelled and cancelled():
            raise Cancelled
    return path


def steps(name: str) -> Iterator[tuple[int, int]]:
    """Download and yield (bytes done, bytes in all; 0 when unknown) as it goes on; closing it keeps what has arrived.

    Raises ValueError as `fetch` does. The file is complete, checked and in place when the iterator ends.
    """
    text = named(name)
    path = paths.datasets() / text.file
    if path.exists():
        yield path.stat().st_size, path.stat().st_size
        return
    part, about = path.with_name(f".{path.name}.part"), path.with_name(f".{path.name}.part.json")
    try:
        total = yield from _receive(text, part, about)
        _verify(text, part, total)
        with open(part, "rb") as f:
            os.fsync(f.fileno())
        os.replace(part, path)
        about.unlink(missing_ok=True)
        paths.sync_directory(path.parent)
    except (OSError, http.client.HTTPException) as error:
        if getattr(error, "code", None) == 416:  # no such range: what is here is not the start of that file
            part.unlink(missing_ok=True)
        raise ValueError(_said(text, error)) from error


def _receive(text: Download, part: Path, about: Path) -> Iterator[tuple[int, int]]:
    """Bytes into `part`, from where an earlier try was cut; returns the size in all that the server stated (0: none).

    A rest is taken only when the server says 206 with the right start, and the same ETag or date as before (RFC 9110, 13.1.5).
    """
    have, mark = _resumable(part, about)
    headers = {"User-Agent": "llm-lab", "Accept-Encoding": "identity"}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": mark}
    with urllib.request.urlopen(urllib.request.Request(text.url, headers=headers), timeout=TIMEOUT) as answer:
        length = int(answer.headers.get("Content-Length") or 0)
        start = 0
        if answer.status == 206:
            span, _, total = answer.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
            if span.partition("-")[0] != str(have) or not have:
                part.unlink(missing_ok=True)
                raise ValueError(
                    f"The server sent another part of {text.title} than was asked for: try again."
                )
            start, length = have, int(total) if total.isdigit() else have + length
        new = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
        if not start:  # a server that ignores Range, or has a new version, sends all of it: begin anew
            about.write_text(json.dumps({"url": text.url, "mark": new}), encoding="utf-8")
        done = start
        with open(part, "ab" if start else "wb") as f:
            yield done, length
            while block := answer.read(BLOCK):
                f.write(block)
                done += len(block)
                yield done, length
    if length and done < length:
        raise ValueError(
            f"The download of {text.title} was cut after {done:,} of {length:,} bytes: start it again to go on."
        )
    return length


def _resumable(part: Path, about: Path) -> tuple[int, str]:
    """How many bytes of an earlier try are usable, and the mark of the version that they belong to."""
    try:
        mark = json.loads(about.read_text(encoding="utf-8"))["mark"]
    except (OSError, ValueError, KeyError):
        return 0, ""
    if not mark or mark.startswith("W/") or not part.exists():  # a weak ETag does not promise the same bytes
        return 0, ""
    return part.stat().st_size, mark


def _verify(text: Download, part: Path, total: int) -> None:
    """Size and SHA-256; wrong bytes are deleted. The first hash of a text without one is kept as its pin."""
    size = part.stat().st_size
    if (total and size != total) or (text.sha256 and size != text.size):
        part.unlink()
        raise ValueError(
            f"{text.title} has {size:,} bytes where {total if total and size != total else text.size:,} were expected: "
            "the file was thrown away, try again."
        )
    with open(part, "rb") as f:
        digest = (
            hashlib.file_digest(f, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _digest(f)
        )
    pins = _pins()
    expected = text.sha256 or pins.get(text.name)
    if expected and digest != expected:
        part.unlink()
        raise ValueError(
            f"The SHA-256 of {text.title} is {digest[:16]}..., expected {expected[:16]}...: these are not the bytes that "
            "this lab knows, so they were thrown away."
        )
    if not text.sha256 and not pins.get(text.name):
        with paths.replacing(_pin_file()) as temporary:
            temporary.write_text(json.dumps({**pins, text.name: digest}, indent=1), encoding="utf-8")


def _digest(f) -> str:
    """hashlib.file_digest for Python 3.10."""
    state = hashlib.sha256()
    while block := f.read(1 << 20):
        state.update(block)
    return state.hexdigest()


def _pin_file() -> Path:
    return paths.datasets() / ".pins.json"


def _pins() -> dict[str, str]:
    """name -> SHA-256 seen at the first download."""
    try:
        return json.loads(_pin_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _said(text: Download, error: OSError | http.client.HTTPException) -> str:
    """An operating-system or network error as a sentence that says what to do."""
    if isinstance(error, urllib.error.HTTPError):
        if error.code == 404:
            return f"The server does not have {text.title} any more (404): {text.url}"
        return f"The server refused {text.title} ({error.code} {error.reason}): try again later."
    if isinstance(error, http.client.HTTPException):
        return f"The download of {text.title} was cut ({type(error).__name__}): start it again to go on."
    if error.errno == errno.ENOSPC:
        return f"The disk is full: {text.title} needs {text.size:,} bytes in {paths.datasets()}."
    if isinstance(error, PermissionError):
        return f"{paths.datasets()} cannot be written: {error.strerror}."
    reason = getattr(error, "reason", error)
    return f"{text.title} could not be downloaded from {text.url}: {reason}. Is there a network?"
