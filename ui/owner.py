"""Who a visitor is: a random id in a signed cookie, so that runs and uploads have an owner without a login; and who teaches."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import tempfile
from collections.abc import Callable
from http.cookies import CookieError, SimpleCookie
from pathlib import Path

import gradio as gr
from gradio.context import LocalContext
from starlette.requests import Request

from llm import disk, inventory, modes, owned, paths
from llm.modes import is_shared
from llm.runs import Run

COOKIE, TEACHER = "lab_owner", "lab_teacher"
YEAR = 365 * 24 * 3600  # seconds


def secret() -> bytes:
    """The key that signs cookies: made once in $LLM_HOME/secret, readable by its user alone."""
    return kept_once(paths.home() / "secret", lambda: secrets.token_bytes(32))


def kept_once(path: Path, make: Callable[[], bytes]) -> bytes:
    """The bytes of a private file, which is made when it is asked for the first time."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
        with os.fdopen(handle, "wb") as f:
            f.write(make())
        try:
            os.link(temporary, path)  # two servers that start at once agree on the first
        except FileExistsError:
            pass
        except OSError:  # a file system without hard links
            os.replace(temporary, path)
        Path(temporary).unlink(missing_ok=True)
    return path.read_bytes()


def sign(identity: str) -> str:
    """The cookie's value: `identity.signature` (HMAC-SHA256)."""
    return f"{identity}.{hmac.new(secret(), identity.encode(), hashlib.sha256).hexdigest()}"


def verified(cookie: str | None) -> str | None:
    """The identity in a cookie's value, or None when it is absent or was not signed here."""
    identity, _, signature = (cookie or "").partition(".")
    good = identity.isascii() and identity.isalnum() and signature.isascii()
    return identity if good and hmac.compare_digest(sign(identity), f"{identity}.{signature}") else None


class Visitor(str):
    """A visitor's identity, and whether they teach: then they may see and stop what everybody has."""

    teacher: bool = False


def owner(request: gr.Request | Request | None) -> Visitor:
    """The visitor behind `request`; "local" for a call from Python itself, without a request."""
    if request is None:
        return Visitor("local")
    visitor = Visitor(verified(request.cookies.get(COOKIE)) or "unknown")
    visitor.teacher = teaches(visitor, request.cookies.get(TEACHER))
    return visitor


def may_use(run_owner: str, visitor: str) -> bool:
    """Whether a visitor may stop, resume and delete a run: at home all runs are yours, whichever browser you open."""
    return not is_shared() or run_owner == visitor or getattr(visitor, "teacher", False)


def may_see(run: Run, visitor: str) -> bool:
    """Whether a visitor may look at a run and use its model: their own, and those that are shared with all."""
    return may_use(run.meta["owner"], visitor) or run.shared()


def may_open(name: str, visitor: str) -> bool:
    """Whether a visitor may use a model: built-in ones, those of runs that they may see, imports of their own.

    `name` may be NAME@STEP or BASE+ADAPTER. A name that is not there may be asked for: whoever looks for it says so.
    """
    if not modes.is_shared():
        return True
    for part in str(name).split("+"):
        try:
            folder = paths.model_folder(part.partition("@")[0])
        except ValueError:
            continue
        if (run := inventory.run_of(folder)) is not None:
            if not may_see(run, visitor):
                return False
        elif (theirs := str(inventory.read_source(folder).get("owner", ""))) and not may_use(theirs, visitor):
            return False
    return True


def may_read(dataset: str, visitor: str) -> bool:
    """Whether a visitor may use a text or rows: what nobody brought, and what they brought themselves."""
    if not modes.is_shared() or getattr(visitor, "teacher", False):
        return True
    brought = owned.owners(str(dataset))
    return not brought or visitor in brought


def brought(dataset: str) -> str:
    """The name of a dataset that the visitor has just brought; it is theirs from now on."""
    return owned.claim(dataset, here())


def refuse_full(more: int = 0) -> None:
    """Raise ValueError where the visitor has no room on the disk for `more` bytes."""
    disk.refuse_full(here(), more)


def own_rows(dataset: str) -> str:
    """The name of rows that the visitor wants to add to. Raises ValueError when they are another visitor's, or the disk is full."""
    refuse_full()
    if not may_read(dataset, here()):
        raise ValueError(f"The name {dataset[:80]!r} is taken: choose another one.")
    return dataset


def here() -> Visitor:
    """The visitor whose event is being answered; "local" outside of one."""
    return owner(LocalContext.request.get(None))


# --- who teaches


def teacher_token() -> str:
    """What makes a visitor the teacher: $LLM_TEACHER, else made once in $LLM_HOME/teacher, readable by its user alone."""
    if given := os.environ.get("LLM_TEACHER"):
        return given
    return kept_once(paths.home() / "teacher", lambda: secrets.token_urlsafe(12).encode()).decode()


def teacher_mark(identity: str) -> str:
    """The cookie value of a visitor who has shown the token; another token makes it worthless."""
    return hmac.new(secret(), f"teacher {identity} {teacher_token()}".encode(), hashlib.sha256).hexdigest()


def teaches(identity: str, mark: str | None) -> bool:
    """Whether this visitor has shown the teacher's token. In a class only: elsewhere nobody teaches."""
    if modes.mode() != "class" or not mark or not mark.isascii():
        return False
    return hmac.compare_digest(teacher_mark(identity), mark)


def cookie_line(name: str, value: str, hosted: bool) -> str:
    """A Set-Cookie header. A Space is shown inside a frame of huggingface.co: there only SameSite=None cookies are sent."""
    where = "SameSite=None; Secure; Partitioned" if hosted else "SameSite=Lax"
    return f"{name}={value}; Path=/; Max-Age={YEAR}; HttpOnly; {where}"


def _cookie_in(headers: list[tuple[bytes, bytes]]) -> str | None:
    for name, value in headers:
        if name == b"cookie":
            try:
                morsel = SimpleCookie(value.decode("latin-1")).get(COOKIE)
            except CookieError:
                continue
            if morsel:
                return morsel.value
    return None


class OwnerCookie:
    """ASGI middleware: a visitor without a valid cookie gets one, and the request that brought none sees it already."""

    def __init__(self, app, hosted: bool = False):
        self.app, self.hosted = app, hosted

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http" or verified(_cookie_in(scope["headers"])):
            return await self.app(scope, receive, send)
        value = sign(secrets.token_hex(16))
        others = [
            (name, b"; ".join(p for p in old.split(b"; ") if not p.startswith(COOKIE.encode() + b"=")))
            for name, old in scope["headers"]
        ]
        scope = {**scope, "headers": [*others, (b"cookie", f"{COOKIE}={value}".encode())]}
        line = cookie_line(COOKIE, value, self.hosted).encode()

        async def send_with_cookie(message):
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", []))
                own = f"{COOKIE}=".encode()  # a login sets it itself
                if not any(key == b"set-cookie" and said.startswith(own) for key, said in headers):
                    headers.append((b"set-cookie", line))
                message = {**message, "headers": headers}
            await send(message)

        return await self.app(scope, receive, send_with_cookie)
