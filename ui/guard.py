"""The gate of the web server: whose address it answers to, how large a request may be, what a browser may do with it."""

from __future__ import annotations

import ipaddress
import json
import os
import re
import socket

BODY_LIMIT = 5 * 2**20  # bytes of a request that is not an upload
FRAMES = {False: "'self'", True: "'self' https://huggingface.co https://*.hf.space"}
SITE = re.compile(r"https?://[A-Za-z0-9.*-]+(:\d+)?")


def frames(hosted: bool) -> str:
    """Which sites may show the page in a frame: its own, Hugging Face where it is a Space, and those of $LLM_EMBED_IN."""
    named = os.environ.get("LLM_EMBED_IN", "").replace(",", " ").split()
    return " ".join([FRAMES[hosted], *(site for site in named if SITE.fullmatch(site))])


def allowed_hosts(bound: str = "127.0.0.1") -> frozenset[str]:
    """Host names the page answers to: this machine, the Space it is, those of $LLM_ALLOWED_HOSTS, and where it is bound.

    Another site's name that was pointed at 127.0.0.1 (DNS rebinding) is none of them.
    """
    names = ["localhost", "127.0.0.1", "::1", bound, os.environ.get("SPACE_HOST", "")]
    names += os.environ.get("LLM_ALLOWED_HOSTS", "").split(",")
    if not is_loopback(bound):
        names.append(socket.gethostname())
    return frozenset(name.strip().lower() for name in names if name.strip())


def is_loopback(host: str) -> bool:
    """True when only programs on this machine can reach a server bound to `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def host_name(header: str) -> str:
    """`Host: name:port` -> name; `[::1]:7860` -> ::1."""
    if header.startswith("["):
        return header[1:].partition("]")[0].lower()
    return header.rpartition(":")[0].lower() if ":" in header else header.lower()


class Guard:
    """ASGI middleware: 421 for a foreign Host, 403 for `/file=http...`, 413 for a large body; security headers on all."""

    def __init__(
        self,
        app,
        hosts: frozenset[str] = frozenset({"localhost", "127.0.0.1"}),
        any_address: bool = False,
        hosted: bool = False,
    ):
        """A host that begins with a dot stands for all names that end with it. `any_address`: numeric addresses pass too (a server in a LAN; a numeric address cannot be rebound)."""
        self.app, self.hosts, self.any_address = app, hosts, any_address
        self.headers = [
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"same-origin"),
            (b"content-security-policy", f"frame-ancestors {frames(hosted)}".encode()),
        ]

    def knows(self, name: str) -> bool:
        if name in self.hosts or any(one.startswith(".") and name.endswith(one) for one in self.hosts):
            return True
        try:
            return self.any_address and bool(ipaddress.ip_address(name))
        except ValueError:
            return False

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        if not self.knows(host_name(headers.get(b"host", ""))):
            sentence = "This address is not served here. Add its name to LLM_ALLOWED_HOSTS to allow it."
            return await self.refuse(send, 421, sentence, scope["path"])
        if "/file=http" in scope["path"]:
            return await self.refuse(send, 403, "Files of other sites are not served here.")
        is_upload = headers.get(b"content-type", "").startswith("multipart/form-data")
        length = headers.get(b"content-length", "0")
        if not is_upload and (not length.isdigit() or int(length) > BODY_LIMIT):
            return await self.refuse(send, 413, TOO_LARGE, scope["path"])
        started, received = False, 0

        async def send_guarded(message):
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message = {**message, "headers": [*message.get("headers", []), *self.headers]}
            await send(message)

        async def receive_counted():
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > BODY_LIMIT and not is_upload:  # a chunked body has no length to check before
                raise BodyTooLarge
            return message

        try:
            await self.app(scope, receive_counted, send_guarded)
        except BodyTooLarge:
            if not started:
                await self.refuse(send, 413, TOO_LARGE, scope["path"])

    async def refuse(self, send, status: int, sentence: str, path: str = "") -> None:
        body, kind = sentence.encode(), b"text/plain; charset=utf-8"
        if "/v1/" in path:  # programs ask there, and read an error in this shape
            said = {"message": sentence, "type": "invalid_request_error", "param": None, "code": None}
            body, kind = json.dumps({"error": said}).encode(), b"application/json"
        start = [
            (b"content-type", kind),
            (b"content-length", str(len(body)).encode()),
        ]
        await send({"type": "http.response.start", "status": status, "headers": [*start, *self.headers]})
        await send({"type": "http.response.body", "body": body})


TOO_LARGE = "This request is too large: 5 MB at most. Upload a long text as a file."


class BodyTooLarge(Exception):
    """A body without a stated length went over the limit."""
