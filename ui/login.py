"""The door where a class has logins: a page with name and password, and nothing else answers before."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from urllib.parse import parse_qs

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from llm import classroom, logins, modes
from ui import language
from ui.figures.base import escape
from ui.owner import COOKIE, TEACHER, cookie_line, owner, sign, teaches

TRIES, WHILE = 8, 60.0  # wrong passwords for a name in so many seconds
OPEN = ("/login", "/teacher/", "/health", "/lab/language/")  # what answers without a login
PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>LLM Lab: log in</title><script>{language}</script><style>
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.5 system-ui, sans-serif; display: grid; place-items: center; min-height: 90vh; margin: 0; background: light-dark(#f6f8f9, #12181d); color: light-dark(#1c2530, #e6edf1); }}
form {{ display: grid; gap: .8rem; width: min(22rem, 86vw); padding: 1.6rem; border-radius: 14px; background: light-dark(#fff, #1a2229); box-shadow: 0 1px 6px #0003; }}
h1 {{ font-size: 1.3rem; margin: 0; }} p {{ margin: 0; }} label {{ display: grid; gap: .25rem; }}
input, button {{ font: inherit; padding: .55rem .7rem; border-radius: 8px; border: 1px solid light-dark(#8a97a3, #5c6a75); background: transparent; color: inherit; }}
button {{ background: #0f766e; border-color: #0f766e; color: #fff; cursor: pointer; }}
.said {{ color: light-dark(#b42318, #ff9b8f); }}
</style></head><body><form method="post" action="{action}"><h1>LLM Lab</h1><p>{about}</p>{said}
<label>Name <input name="name" autocomplete="username" required autofocus maxlength="40"></label>
<label>Password <input name="password" type="password" autocomplete="current-password" required maxlength="200"></label>
<button>Log in</button></form></body></html>"""

_lock = threading.Lock()
_wrong: dict[str, list[float]] = {}


def wanted() -> bool:
    """Whether the page asks for a login: in a class that has some."""
    return modes.mode() == "class" and logins.required()


def too_often(name: str) -> bool:
    """Whether wrong passwords were tried for this name too often lately."""
    since = time.monotonic() - WHILE
    with _lock:
        for one in list(_wrong):
            _wrong[one] = [when for when in _wrong[one] if when > since]
            if not _wrong[one]:
                del _wrong[one]
        return len(_wrong.get(name, ())) >= TRIES


def note_wrong(name: str) -> None:
    with _lock:
        _wrong.setdefault(name, []).append(time.monotonic())


def page(request: Request, said: str = "", status: int = 200) -> Response:
    """The form, with what went wrong."""
    shown = f"<p class='said' role='alert'>{escape(said)}</p>" if said else ""
    action = f"{request.scope.get('root_path', '')}/login"
    text = PAGE.format(
        language=language.script(),
        action=escape(action),
        about="Log in with the name and password that your teacher gave you.",
        said=shown,
    )
    return HTMLResponse(text, status, {"cache-control": "no-store"})


async def log_in(request: Request) -> Response:
    """GET: the form. POST: name and password; a good one gets the cookie that makes runs its own, from any browser."""
    if request.method == "GET" or not wanted():
        return page(request)
    form = parse_qs((await request.body()).decode("utf-8", "replace"), keep_blank_values=True)
    name, password = (form.get(key, [""])[0][:200] for key in ("name", "password"))
    name = name.strip()
    if too_often(name):
        return page(request, "Too many wrong passwords for this name: wait a minute.", 429)
    try:
        identity = await run_in_threadpool(logins.check, name, password)
    except ValueError as error:
        return page(request, str(error), 503)
    if not identity:
        note_wrong(name)
        return page(request, "This name and this password do not belong together.", 403)
    with suppress(ValueError):  # a guest of earlier has the name; the login keeps the one it has
        classroom.rename(identity, name)
    answer = RedirectResponse(f"{request.scope.get('root_path', '')}/", 303)
    answer.headers.append("set-cookie", cookie_line(COOKIE, sign(identity), hosted=False))
    return answer


async def log_out(request: Request) -> Response:
    """Forget who this browser is."""
    answer = RedirectResponse(f"{request.scope.get('root_path', '')}/login", 303)
    for name in (COOKIE, TEACHER):
        answer.headers.append("set-cookie", f"{name}=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax")
    return answer


class Door:
    """ASGI middleware inside OwnerCookie: who is not logged in is sent to the form; programs get 401."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http" or not wanted() or self.is_open(scope):
            return await self.app(scope, receive, send)
        request = Request(scope)
        visitor = owner(request)
        try:
            known = await run_in_threadpool(logins.is_identity, visitor)
        except ValueError as error:
            return await page(request, str(error), 503)(scope, receive, send)
        if known or teaches(visitor, request.cookies.get(TEACHER)):
            return await self.app(scope, receive, send)
        if scope["method"] == "GET" and "text/html" in request.headers.get("accept", ""):
            answer: Response = RedirectResponse(f"{scope.get('root_path', '')}/login", 303)
        else:
            answer = Response("Log in first.", 401, media_type="text/plain")
        return await answer(scope, receive, send)

    @staticmethod
    def is_open(scope) -> bool:
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        return path.startswith(OPEN)


ROUTES = [Route("/login", log_in, methods=["GET", "POST"]), Route("/logout", log_out, methods=["GET"])]
