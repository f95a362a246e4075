"""Who a visitor is: a random id in a signed cookie, so that runs and uploads have an owner without a login."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import tempfile
from http.cookies import CookieError, SimpleCookie
from pathlib import Path

import gradio as gr

from llm import paths

COOKIE = "lab_owner"
YEAR = 365 * 24 * 3600  # seconds


def secret() -> bytes:
    """The key that signs cookies: made once in $LLM_HOME/secret, readable by its user alone."""
    path = paths.home() / "secret"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".secret.")  # mode 0600
        with os.fdopen(handle, "wb") as f:
            f.write(secrets.token_bytes(32))
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


def owner(request: gr.Request | None) -> str:
    """The identity of the visitor behind `request`; "local" for a call from Python itself, without a request."""
    if request is None:
        return "local"
    return verified(request.cookies.get(COOKIE)) or "unknown"


def is_shared() -> bool:
    """Whether strangers use this page (a Space): then each sees and changes only what is theirs."""
    return bool(os.environ.get("SPACE_ID"))


def may_use(run_owner: str, visitor: str) -> bool:
    """Whether a visitor may see, stop and delete a run: at home all runs are yours, whichever browser you open."""
    return not is_shared() or run_owner == visitor


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
        # A Space is shown inside a frame of huggingface.co: there only SameSite=None cookies are sent.
        self.attributes = "SameSite=None; Secure; Partitioned" if hosted else "SameSite=Lax"
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http" or verified(_cookie_in(scope["headers"])):
            return await self.app(scope, receive, send)
        value = sign(secrets.token_hex(16))
        others = [
            (name, b"; ".join(p for p in old.split(b"; ") if not p.startswith(COOKIE.encode() + b"=")))
            for name, old in scope["headers"]
        ]
        scope = {**scope, "headers": [*others, (b"cookie", f"{COOKIE}={value}".encode())]}
        line = f"{COOKIE}={value}; Path=/; Max-Age={YEAR}; HttpOnly; {self.attributes}".encode()

        async def send_with_cookie(message):
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), (b"set-cookie", line)]}
            await send(message)

        return await self.app(scope, receive, send_with_cookie)
