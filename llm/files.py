"""From the bytes of a file to its text, with everything that was changed on the way said in words."""

from __future__ import annotations

import codecs
import errno
import hashlib
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from llm import paths

SAMPLE = 65_536  # bytes at the start by which a file's kind is told
CONTROLS = bytes(set(range(32)) - set(b"\t\n\v\f\r\x1b")) + b"\x7f"  # bytes that no text has
MANY_CONTROLS = 0.01  # share of such bytes above which a file is no text (random bytes have 0.10)

BINARY = {
    # first bytes of a file: what it is
    b"PK\x03\x04": "a ZIP archive (Word, Excel and EPUB files are such archives too)",
    b"PK\x05\x06": "an empty ZIP archive",
    b"\x1f\x8b": "a gzip archive",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ\x00": "an xz archive",
    b"7z\xbc\xaf\x27\x1c": "a 7-Zip archive",
    b"\x28\xb5\x2f\xfd": "a Zstandard archive",
    b"%PDF-": "a PDF",
    b"\xd0\xcf\x11\xe0": "an old Word or Excel file",
    b"{\\rtf": "a rich-text (RTF) file",
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"GIF8": "a GIF picture",
    b"RIFF": "a sound, video or WebP picture",
    b"OggS": "an Ogg sound",
    b"ID3": "an MP3 sound",
    b"GGUF": "a model in GGUF format",
    b"\x93NUMPY": "a NumPy array",
    b"PAR1": "a Parquet table",
    b"SQLite format 3": "an SQLite database",
    b"\x7fELF": "a program (ELF)",
    b"MZ": "a Windows program",
    b"\x80\x02": "a Python pickle (often a model checkpoint)",
    b"\x80\x03": "a Python pickle (often a model checkpoint)",
    b"\x80\x04": "a Python pickle (often a model checkpoint)",
    b"\x80\x05": "a Python pickle (often a model checkpoint)",
}
WIDE_MARKS = (b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff")  # UTF-16 and UTF-32
ALWAYS_BINARY = (b"%PDF-", b"{\\rtf")  # written in ASCII, and still no text to learn from


@dataclass(frozen=True)
class Read:
    """A text and what was done to the file's bytes to get it, a sentence each."""

    text: str
    notes: tuple[str, ...] = ()


def upload_limit() -> int:
    """Most bytes an uploaded or pasted text may have: $LLM_MAX_UPLOAD_MB megabytes, 100 unless set."""
    given = os.environ.get("LLM_MAX_UPLOAD_MB", "100")
    try:
        megabytes = float(given)
    except ValueError:
        megabytes = 0.0
    if not 0 < megabytes < 1e9:
        raise ValueError(f"LLM_MAX_UPLOAD_MB must be a number of megabytes above 0, not {given!r}.")
    return int(megabytes * 1e6)


def check_size(size: int, limit: int) -> None:
    """Raise ValueError with both numbers when a text of `size` bytes is above `limit`."""
    if size > limit:
        raise ValueError(
            f"The text has {size / 1e6:,.1f} MB; at most {limit / 1e6:,.0f} MB are taken here. "
            "Cut it into smaller files, or raise LLM_MAX_UPLOAD_MB where the lab is started."
        )


def read_text(path: str | Path, limit: int | None = None) -> Read:
    """The text of a file: UTF-8, UTF-16 or Windows-1252, with or without a byte order mark, lines ended by \\n.

    `limit` is the largest size in bytes, checked before anything is read. The last files read are remembered until
    they change. Raises ValueError for what is missing, empty, too large or not a text.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"There is no file called {path.name!r} here.")
    about = path.stat()
    if limit is not None:
        check_size(about.st_size, limit)
    return _read(path, about.st_size, about.st_mtime_ns)


@lru_cache(maxsize=2)
def _read(path: Path, size: int, mtime_ns: int) -> Read:
    try:
        return text_of(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from None


def text_of(data: bytes) -> Read:
    """Bytes to text. Raises ValueError when they are empty or no text."""
    refuse_binary(data)
    text, notes = _decoded(data)
    if "\0" in text:
        raise ValueError(
            "This is not a text: it has a zero character. Save it as plain text (UTF-8) and try again."
        )
    text, line_notes = _one_line_end(text)
    if not text.strip():
        raise ValueError(
            f"There is no text in it, only {len(data)} bytes of blanks." if data else "The file is empty."
        )
    return Read(text, (*notes, *line_notes))


class NotPlain(Exception):
    """A file that cannot be read a piece at a time: it is no UTF-8 throughout, or has line ends or characters to look into."""


def pieces(path: Path, size: int = 8_000_000) -> Iterator[str]:
    """A large file's text, about `size` bytes at a time: what `read_text` gives, without ever holding the whole.

    Raises NotPlain, at the latest with the last piece, for what only `read_text` can deal with.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    with open(path, "rb") as f:
        start = f.read(SAMPLE)
        if start.startswith((b"\xef\xbb\xbf", *WIDE_MARKS)):
            raise NotPlain
        f.seek(0)
        while data := f.read(size):
            if b"\0" in data or b"\r" in data or _controls(data) > MANY_CONTROLS * len(data):
                raise NotPlain
            try:
                yield decoder.decode(data)
            except UnicodeDecodeError:
                raise NotPlain from None
    try:
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        raise NotPlain from None


def refuse_binary(data: bytes) -> None:
    """Raise ValueError that names what the bytes look like when they are no text."""
    start = data[:SAMPLE]
    if start.startswith(WIDE_MARKS):
        return
    odd = _controls(start) > MANY_CONTROLS * len(start)
    kind = next((name for magic, name in BINARY.items() if start.startswith(magic)), "")
    if start[8:10] == b'{"' and int.from_bytes(start[:8], "little") < 2**32 and b"\0" in start[:8]:
        kind = "a model in safetensors format"
    if kind and (odd or b"\0" in start or start.startswith(ALWAYS_BINARY) or not _is_utf_8_start(start)):
        raise ValueError(
            f"This looks like {kind}, not like a text. Save it as plain text (UTF-8) and try again."
        )
    if _utf_16_order(data):
        return
    if b"\0" in data:
        raise ValueError(
            f"This is not a text: it has zero bytes, the first at byte {data.index(0) + 1:,}. "
            "Save it as plain text (UTF-8) and try again."
        )
    if odd or _controls(data) > MANY_CONTROLS * len(data):
        raise ValueError(
            f"This is not a text: {_controls(data):,} of its {len(data):,} bytes are control characters. "
            "Save it as plain text (UTF-8) and try again."
        )


def _controls(data: bytes) -> int:
    return len(data) - len(data.translate(None, CONTROLS))


def _is_utf_8_start(start: bytes) -> bool:
    try:
        start[: max(len(start) - 3, 0)].decode("utf-8")
        return True
    except UnicodeDecodeError as error:  # only a character that the sample cuts in two is no error
        return error.reason == "unexpected end of data"


def _utf_16_order(data: bytes) -> str:
    """ "le" or "be" when the bytes are UTF-16 without a mark: zeros in every other place only; else ""."""
    start = data[: SAMPLE // 2 * 2]
    if len(data) % 2 or b"\0" not in start:
        return ""
    high_first, high_second = start[::2].count(0), start[1::2].count(0)
    for order, zeros, others in (("be", high_first, high_second), ("le", high_second, high_first)):
        if zeros > 10 * others and zeros * 20 >= len(start) // 2:
            try:
                text = start[: -(len(start) % 4) or None].decode(
                    f"utf-16-{order}", "strict" if len(data) <= SAMPLE else "ignore"
                )
            except UnicodeDecodeError:
                continue
            if not _controls(text.encode("utf-8", "replace")):
                return order
    return ""


def _decoded(data: bytes) -> tuple[str, list[str]]:
    for mark, codec, name in (
        (b"\xff\xfe\0\0", "utf-32-le", "UTF-32"),
        (b"\0\0\xfe\xff", "utf-32-be", "UTF-32"),
        (b"\xff\xfe", "utf-16-le", "UTF-16"),
        (b"\xfe\xff", "utf-16-be", "UTF-16"),
    ):
        if data.startswith(mark):
            return _strictly(data[len(mark) :], codec, name), [
                f"It was read as {name}, as its byte order mark says."
            ]
    if order := _utf_16_order(data):
        note = "It has no byte order mark, but a zero in every other byte: it was read as UTF-16."
        return _strictly(data, f"utf-16-{order}", "UTF-16"), [note]
    notes = []
    if data.startswith(b"\xef\xbb\xbf"):
        data, notes = data[3:], ["A byte order mark at its start was left out."]
    try:
        return data.decode("utf-8"), notes
    except UnicodeDecodeError as error:
        text, note = _not_utf_8(data, error)
        return text, [*notes, note]


def _strictly(data: bytes, codec: str, name: str) -> str:
    try:
        return data.decode(codec)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"It starts like {name} but breaks off or goes wrong at byte {error.start:,}."
        ) from None


def _not_utf_8(data: bytes, error: UnicodeDecodeError) -> tuple[str, str]:
    """UTF-8 with some damage, else an older character set: whichever the bytes speak for, and a note that says so."""
    text = data.decode("utf-8", "surrogateescape")
    bad = len(re.findall("[\udc80-\udcff]", text))
    good = len(re.findall("[^\0-\x7f\udc80-\udcff]", text))
    if bad * 10 <= good:
        return data.decode("utf-8", "replace"), (
            f"{bad:,} bytes are not valid UTF-8 (the first is byte {error.start + 1:,}); they are shown as \ufffd."
        )
    try:
        text, name = data.decode("cp1252"), "Windows-1252"
    except UnicodeDecodeError:
        text, name = data.decode("latin-1"), "Latin-1"
    letters = "".join(dict.fromkeys(c for c in text if ord(c) > 127))[:8]
    return text, f"It is not UTF-8; it was read as {name}. Check that these are right: {letters}"


def _one_line_end(text: str) -> tuple[str, list[str]]:
    notes = []
    if pairs := text.count("\r\n"):
        text = text.replace("\r\n", "\n")
        notes.append(f"{pairs:,} Windows line ends (CR LF) became plain ones (LF).")
    if lone := text.count("\r"):
        text = text.replace("\r", "\n")
        notes.append(f"{lone:,} old line ends (CR alone) became plain ones (LF).")
    return text, notes


def save_upload(source: Path | str, name: str) -> str:
    """Keep a file (a Path) or a pasted text (a str) as a dataset, and return the dataset's name.

    `name` is a wish: made safe, and told apart by a few letters of its content when another text has it already.
    Raises ValueError for whatever `read_text` refuses, and when it is too large or the disk is full.
    """
    if isinstance(source, Path):
        data = _bytes_of_upload(source)
    else:
        data = _bytes_of_paste(source)
    stem = safe_name(name)
    for candidate in (stem, f"{stem}-{hashlib.sha256(data).hexdigest()[:8]}"):
        if _kept(data, candidate):
            return candidate
    raise ValueError(f"The name {stem!r} is taken: choose another one.")


def safe_name(name: str) -> str:
    """A file's name as a dataset's name: no folder, no ending, letters digits dots dashes underscores only."""
    stem = Path(name.replace("\\", "/")).name
    stem = re.sub(r"\.(txt|text|md)$", "", stem, flags=re.IGNORECASE)
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-_")[:60].rstrip("-_")
    return stem or "text"


def _bytes_of_upload(path: Path) -> bytes:
    if not path.is_file():
        raise ValueError("The uploaded file is no longer there: choose it again.")
    check_size(path.stat().st_size, upload_limit())
    data = path.read_bytes()
    text_of(data)
    return data


def _bytes_of_paste(text: str) -> bytes:
    try:
        data = text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"Character {error.start + 1:,} of the text is half of a pair (U+{ord(text[error.start]):04X}) and cannot "
            "be stored: delete it and try again."
        ) from None
    check_size(len(data), upload_limit())
    text_of(data)
    return data


def _kept(data: bytes, name: str) -> bool:
    """Store `data` as dataset `name`; True also when just this text has the name already, False when another has."""
    target = paths.datasets() / f"{name}.txt"
    if (paths.shipped_datasets() / target.name).exists() or has_another_kind(name, ".txt"):
        return False
    try:
        target.open("xb").close()  # takes the name, so that two uploads at once never overwrite each other
    except FileExistsError:
        return target.stat().st_size == len(data) and target.read_bytes() == data
    try:
        with paths.replacing(target) as temporary:
            temporary.write_bytes(data)
    except OSError as error:
        target.unlink(missing_ok=True)
        if error.errno == errno.ENOSPC:
            raise ValueError(
                f"The disk is full: {len(data) / 1e6:,.1f} MB more are needed. Nothing was kept."
            ) from None
        raise
    return True


def has_another_kind(name: str, ending: str) -> bool:
    """Whether the name is that of a dataset of another kind: a name stands for one, since what it is belongs to its owner."""
    return any((paths.datasets() / f"{name}{one}").exists() for one in paths.DATASET_KINDS if one != ending)


def validation_part(text: str, fraction: float = 0.05) -> str:
    """The end of a text that training with this validation share does not see, from the first document in it on.

    Training cuts by tokens, which are not the same for every encoding; characters come near enough, as the next
    document begins later still.
    """
    start = math.ceil(len(text) * (1 - fraction))
    mark = "<|endoftext|>"
    document = text.find(mark, start)
    return text[document + len(mark) :].lstrip("\n") if document >= 0 else text[start:]
