"""What the lab logs, so that a teacher can read it: JSON lines in $LLM_HOME/lab.log, without secrets.

What goes to the logger "llm-lab" stands there: warnings and errors of the lab's own code, its start, runs that begin and end, what was
refused. Three files of 1 MB at most (lab.log, lab.log.1, lab.log.2); several processes write them. Before a line is written, every
secret that is known (the environment, keys of endpoints, the teacher's token) and all that looks like one is taken out.
"""

from __future__ import annotations

import base64
import fcntl
import json
import logging
import os
import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex
from typing import Any, TextIO
from urllib.parse import quote

from llm import endpoints, paths

NAME, MOST, FILES = "lab.log", 1_000_000, 3  # bytes of a file, and how many there are
LONGEST = 4_000  # characters of a text that are kept
LEAST = 6  # characters of a value that can be a secret: a shorter one would take out half of every word
GONE = "[secret]"
NAMED = re.compile(r"KEY|TOKEN|SECRET|PASSW|LLM_TEACHER", re.IGNORECASE)  # variables of the environment
MARKS = re.compile(r"(?m)^[ ~^]+\n")  # under the lines of a traceback: they break on a narrow screen
LOOKS = [  # what looks like a secret: a pattern, and what stands for it
    (re.compile(r"(?im)\b((?:proxy-)?authorization|set-cookie|cookie|x-api-key)(['\"]?\s*[:=]\s*)\S[^\n]*"), rf"\1\2{GONE}"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{6,}"), rf"\1 {GONE}"),
    (re.compile(r"\b(?:sk|pk|rk)-[\w-]{6,}|\b(?:hf|gh[opsur]|github_pat|glpat|xox[a-z])[_-][\w-]{6,}|\bAKIA[0-9A-Z]{12,}|\bAIza[\w-]{20,}"), GONE),
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]+\.[\w-]*"), GONE),  # a JSON web token
    (re.compile(r"(?i)\b((?:\w*[_-])?(?:api[_-]?key|key|token|secret|password|passwd|pwd))(['\"]?\s*[=:]\s*['\"]?)[^\s'\",;&}\])]{4,}"), rf"\1\2{GONE}"),
    (re.compile(r"(://)[^/\s:@]*:[^/\s@]+@"), rf"\1{GONE}@"),  # a name and password in an address
    (re.compile(r"(/teacher/)[^\s'\"]+"), rf"\1{GONE}"),
    (re.compile(r"\b(lab_\w+)=[^\s;'\"]+"), rf"\1={GONE}"),  # the lab's cookies
    (re.compile(r"\b[0-9a-f]{32,}\b(?:\.[0-9a-f]{32,}\b)?"), GONE),  # identities, signatures, marks
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL), GONE),
]  # fmt: skip

log = logging.getLogger("llm-lab")


def file() -> Path:
    """Where the newest lines stand."""
    return paths.home() / NAME


def older() -> list[Path]:
    """The files before it, the newest first."""
    return [file().with_name(f"{NAME}.{number}") for number in range(1, FILES)]


def numbered(where: str, error: BaseException) -> str:
    """Log a fault of ours under a number; the sentence that the visitor is told of it."""
    number = token_hex(3)
    log.error("error %s in %s", number, where, exc_info=error)
    return (
        f"Something went wrong in the lab. Nothing you entered is lost; its log names the cause as {number}."
    )


# --- without secrets


def secrets() -> set[str]:
    """Every secret that is known now."""
    found = {value for name, value in os.environ.items() if NAMED.search(name)}
    found |= endpoints.all_keys()
    for name in ("teacher", "secret"):
        try:
            found.add((paths.home() / name).read_bytes().decode("latin-1"))
        except OSError:
            continue
    return {one for one in found if len(one.strip()) >= LEAST}


def spellings(secret: str) -> Iterator[str]:
    """The ways in which a secret may stand in a text: as it is, escaped, in an address, in base64, line by line."""
    for one in {secret, secret.strip(), *(line.strip() for line in secret.splitlines())}:
        if len(one) >= LEAST:
            yield from (one, repr(one)[1:-1], json.dumps(one)[1:-1], quote(one, safe=""), base64.b64encode(one.encode()).decode().rstrip("="))  # fmt: skip


def without_secrets(text: str) -> str:
    """The text, with [secret] for each that is known or looks like one."""
    known = {spelled for secret in secrets() for spelled in spellings(secret)}
    for one in sorted(known, key=len, reverse=True):
        text = text.replace(one, GONE)
    for pattern, instead in LOOKS:
        text = pattern.sub(instead, text)
    return text


# --- writing


class Plain(logging.Formatter):
    """A record as a terminal shows it."""

    def format(self, record: logging.LogRecord) -> str:
        return without_secrets(super().format(record))


class Book(logging.Handler):
    """Appends each record to lab.log as one JSON line."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
            trace = logging.Formatter().formatException(record.exc_info) if record.exc_info else ""
            trace = MARKS.sub("", trace)
            write(record.levelname.lower(), text, trace, record.created)
        except OSError:  # a full disk: the terminal still has it
            pass
        except Exception:
            self.handleError(record)


def write(level: str, text: str, details: str, when: float) -> None:
    """Add a line; without a home there is nowhere to write. Raises OSError when the disk refuses."""
    said = {"time": when, "level": level, "text": clipped(without_secrets(text))}
    if details:
        said["details"] = clipped(without_secrets(details), newest=True)
    data = (json.dumps(said, ensure_ascii=True) + "\n").encode()
    if not paths.home().is_dir():
        return
    with opened() as f:
        if f.tell() + len(data) > MOST:
            turn()
            with opened() as new:
                new.write(data)
        else:
            f.write(data)


def clipped(text: str, newest: bool = False) -> str:
    """At most LONGEST characters of a text: its beginning, or its end."""
    if len(text) <= LONGEST:
        return text
    return f"... {text[-LONGEST:]}" if newest else f"{text[:LONGEST]} ..."


def opened() -> Any:
    """lab.log for this writer alone, as it is found at this moment (another one may have turned the page)."""
    while True:
        descriptor = os.open(file(), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        f = os.fdopen(descriptor, "ab")
        try:
            if os.path.samestat(os.fstat(descriptor), os.stat(file())):
                f.seek(0, os.SEEK_END)
                return f
        except FileNotFoundError:
            pass
        f.close()


def turn() -> None:
    """Each file takes the next one's place; the last goes."""
    places = [file(), *older()]
    for new, old in zip(reversed(places[1:]), reversed(places[:-1])):
        if old.exists():
            os.replace(old, new)


_starting = threading.Lock()


def start(terminal: TextIO | None = None) -> None:
    """Let this process write the log, warnings also to its terminal (stderr unless another is given); once is enough."""
    with _starting:
        if any(isinstance(one, Book) for one in log.handlers):
            return
        paths.home().mkdir(parents=True, exist_ok=True)
        shown = logging.StreamHandler(terminal or sys.stderr)
        shown.setLevel(logging.WARNING)
        shown.setFormatter(Plain())
        log.addHandler(shown)
        log.addHandler(Book())
        log.setLevel(logging.INFO)
        log.propagate = False


# --- reading


def newest(count: int = 60) -> list[dict[str, Any]]:
    """The last lines, the newest first: time (seconds since 1970), level, text, details ("" without an exception)."""
    found: list[dict[str, Any]] = []
    for place in (file(), *older()):
        try:
            lines = place.read_bytes().splitlines()
        except OSError:
            break
        for line in reversed(lines):
            if len(found) == count:
                return found
            try:
                said = json.loads(line)
                one = {
                    "time": float(said["time"]),
                    "level": str(said["level"]),
                    "text": without_secrets(str(said["text"])),
                }
                found.append(one | {"details": without_secrets(str(said.get("details", "")))})
            except (ValueError, TypeError, KeyError):  # the last line of a process that was killed
                continue
    return found
