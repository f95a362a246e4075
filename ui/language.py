"""The page in other languages: which there are (ui/languages/*.json), their switch, and how the browser gets one of them."""

from __future__ import annotations

import functools
import gzip
import hashlib
import json
from pathlib import Path

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from ui.figures.base import escape

HERE = Path(__file__).resolve().parent
FOLDER = HERE / "languages"
PLACE = "lab/language"  # relative, so that it works behind a prefix too
YEAR = "public, max-age=31536000, immutable"


@functools.cache
def catalogue(code: str) -> dict[str, str]:
    """The texts of a language by their English; "" is what the language calls itself."""
    return json.loads((FOLDER / f"{code}.json").read_text(encoding="utf-8"))


@functools.cache
def served(code: str) -> tuple[str, bytes]:
    """The name under which a language is served, which changes with its content, and its texts as JSON, gzipped."""
    body = json.dumps(catalogue(code), ensure_ascii=False, separators=(",", ":")).encode()
    return f"{code}-{hashlib.sha256(body).hexdigest()[:12]}.json", gzip.compress(body, mtime=0)


@functools.cache
def languages() -> dict[str, tuple[str, str]]:
    """{code: (its own name, where the browser finds it)}; English is written in the source and has no file."""
    codes = sorted(path.stem for path in FOLDER.glob("*.json"))
    return {"en": ("English", "")} | {
        code: (catalogue(code)[""], f"{PLACE}/{served(code)[0]}") for code in codes
    }


def script() -> str:
    """What chooses the language and translates, for the head of a page (a JavaScript expression)."""
    source = (HERE / "js" / "language.js").read_text(encoding="utf-8")
    return f"({source})({json.dumps(languages(), ensure_ascii=False)})"


def switch() -> str:
    """The choice of language in the header: its name, with the browser's own list over it."""
    options = "".join(f"<option value='{code}' lang='{code}' translate='no'>{escape(name)}</option>" for code, (name, _) in languages().items())  # fmt: skip
    return (
        "<span class='lab-switch lab-plain lab-language'><span aria-hidden='true' translate='no'>English</span>"
        f"<select id='lab-language' aria-label='Language'>{options}</select></span>"
    )


async def file(request: Request) -> Response:
    """A language under the name of its content, to be kept for good; 404 for names of earlier contents."""
    name = request.path_params["name"]
    for code in languages():
        if code != "en" and served(code)[0] == name:
            body, headers = served(code)[1], {"cache-control": YEAR, "vary": "accept-encoding"}
            if "gzip" in request.headers.get("accept-encoding", ""):
                headers["content-encoding"] = "gzip"
            else:
                body = gzip.decompress(body)
            return Response(body, 200, headers, "application/json")
    return PlainTextResponse("There is no such language here: load the page again.", 404)


ROUTES = [Route(f"/{PLACE}/{{name}}", file, methods=["GET"])]
