"""Names and passwords for a class: where there is one, nobody uses the page without it.

    python -m llm.logins ada bob cyd       make logins; each password is printed once
    python -m llm.logins --set ada         choose the password of one
    python -m llm.logins --remove bob
    python -m llm.logins --list

$LLM_HOME/logins.json keeps no password, only what scrypt (RFC 7914) makes of it and a random salt.
"""

from __future__ import annotations

import argparse
import functools
import getpass
import hashlib
import hmac
import json
import os
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llm import classroom, paths, versions

VERSION = 1
WORK = {"n": 2**14, "r": 8, "p": 1}  # about 50 ms and 16 MB for each try
LEAST = 6  # characters of a password that somebody chooses
LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"  # those that nobody mistakes for another


def file() -> Path:
    """Where logins lie."""
    return paths.home() / "logins.json"


def known() -> dict[str, dict[str, str]]:
    """Name -> its salt, hash and identity. Raises ValueError when the file cannot be read: then nobody gets in."""
    try:
        state = file().stat()
        kept = _read(file(), state.st_mtime_ns, state.st_size)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        raise ValueError(f"{file()} cannot be read: make the logins again.") from None
    if not isinstance(kept, dict):
        raise ValueError(f"{file()} cannot be read: make the logins again.")
    versions.check(kept.get("version"), VERSION, file())
    return dict(kept["logins"])


@functools.lru_cache(maxsize=4)
def _read(path: Path, modified: int, size: int) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def required() -> bool:
    """Whether visitors must log in."""
    return file().exists()


def is_identity(identity: str) -> bool:
    """Whether a visitor's identity is one of those who may log in."""
    return any(one["identity"] == identity for one in known().values())


def name_of(identity: str) -> str:
    """The name of a login; "" when there is none of this identity."""
    return next((name for name, one in known().items() if one["identity"] == identity), "")


def hashed(password: str, salt: bytes) -> str:
    """What is kept of a password."""
    return hashlib.scrypt(password.encode(), salt=salt, maxmem=2**26, **WORK).hex()


def add(name: str, password: str = "") -> str:
    """Make a login, or give one a new password; the password, drawn at random when none is given. Raises ValueError."""
    name = classroom.called(name)
    if password and len(password) < LEAST:
        raise ValueError(f"A password has at least {LEAST} characters; this one has {len(password)}.")
    password = password or "-".join("".join(secrets.choice(LETTERS) for _ in range(4)) for _ in range(3))
    logins, salt = known(), secrets.token_bytes(16)
    identity = logins.get(name, {}).get("identity") or secrets.token_hex(16)
    logins[name] = {"salt": salt.hex(), "hash": hashed(password, salt), "identity": identity}
    keep(logins)
    return password


def remove(name: str) -> None:
    """Take a login away; whoever uses it is asked to log in again, and cannot. Raises ValueError when there is none."""
    logins = known()
    if name not in logins:
        raise ValueError(
            f"There is no login called {name!r}; there are {', '.join(sorted(logins)) or 'none'}."
        )
    del logins[name]
    keep(logins)


def keep(logins: dict[str, Any]) -> None:
    paths.home().mkdir(parents=True, exist_ok=True)
    with paths.replacing(file()) as temporary:
        temporary.write_text(
            json.dumps({"version": VERSION, "logins": logins}, indent=1) + "\n", encoding="utf-8"
        )
    os.chmod(file(), 0o600)


def check(name: str, password: str) -> str:
    """The identity of a login, "" when name and password do not belong together. An unknown name takes as long as a known one."""
    found = known().get(name)
    salt = bytes.fromhex(found["salt"]) if found else b"0" * 16
    good = hmac.compare_digest(hashed(password, salt), found["hash"] if found else "0" * 128)
    return found["identity"] if found and good else ""


def main(arguments: Sequence[str] | None = None) -> None:
    """Make, change, list and remove logins."""
    parser = argparse.ArgumentParser(prog="python -m llm.logins", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("names", nargs="*", help="names to make logins for")
    parser.add_argument("--set", metavar="NAME", help="ask for the password of this one")
    parser.add_argument("--remove", metavar="NAME")
    parser.add_argument("--list", action="store_true")
    given = parser.parse_args(arguments)
    try:
        for name in given.names:
            print(f"{classroom.called(name)}\t{add(name)}")
        if given.set:
            add(given.set, getpass.getpass(f"Password of {given.set}: "))
        if given.remove:
            remove(given.remove)
        if given.list or not (given.names or given.set or given.remove):
            print("\n".join(sorted(known())) or "No logins: everybody who reaches the page may use it.")
    except ValueError as error:
        sys.exit(f"{error}")


if __name__ == "__main__":
    main()
