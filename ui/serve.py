"""The lab as a server of OpenAI's interface: /v1/models, /v1/completions and /v1/chat/completions, beside the page."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from llm import engine, openai_api
from llm.logbook import numbered
from llm.modes import is_shared
from llm.openai_api import Asked, Piece, Refusal

Reader = Callable[[dict[str, Any], bool], Asked]
ASK = {"/v1/completions": openai_api.completion, "/v1/chat/completions": openai_api.chat_completion}
BODY_LIMIT = 2 * 2**20  # bytes
MOST_AT_ONCE = 64  # requests that are answered at the same time; the engine decodes some of them together
LOOK_SECONDS = 0.2  # how often it is seen whether the client is still there
STYLE_HEADER = "x-lab-prompt-style"
OFF = (
    "This lab does not serve its models over HTTP: it is shared by many. Whoever runs it can switch that on with "
    "LLM_SERVE=1."
)
SWITCHED_OFF = "This lab does not serve its models over HTTP: it was started with LLM_SERVE=0."


def is_on() -> bool:
    """Whether models are served: at home yes, on a Space only with LLM_SERVE=1; LLM_SERVE=0 switches it off."""
    chosen = os.environ.get("LLM_SERVE", "").strip()
    return chosen not in ("0", "false", "no") if chosen else not is_shared()


def why_off() -> str:
    """The sentence for a client, or a visitor, of a lab that serves no models."""
    return SWITCHED_OFF if os.environ.get("LLM_SERVE", "").strip() else OFF


def routes() -> list[Route]:
    """What is mounted beside the page: OpenAI's three addresses, and a sentence for every other one below /v1."""
    places = threading.BoundedSemaphore(MOST_AT_ONCE)

    def asked(read: Reader) -> Callable:
        return guarded(lambda request: answer(request, read, places))

    return [
        Route("/v1/models", guarded(models), methods=["GET"]),
        Route("/v1/models/{name:path}", guarded(model), methods=["GET"]),
        *(Route(path, asked(read), methods=["POST"]) for path, read in ASK.items()),
        Route("/v1/{rest:path}", guarded(unknown), methods=["GET", "POST", "PUT", "PATCH", "DELETE"]),
    ]


def guarded(endpoint: Callable) -> Callable:
    """An endpoint whose refusals come in OpenAI's shape, and whose other errors are logged and named by a number only."""

    async def handler(request: Request) -> Response:
        try:
            if not is_on():
                raise Refusal(why_off(), 403, code="not_served")
            return await endpoint(request)
        except Exception as error:  # the boundary to the client
            return refused(as_refusal(error))

    return handler


def as_refusal(error: Exception) -> Refusal:
    """What a client is told of an error. What a request could have avoided is a Refusal already."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, ValueError):  # of a model's files, or the engine: a sentence that may be read
        return Refusal(str(error), 500, code="model_failed")
    return Refusal(numbered("/v1", error), 500)


def refused(error: Refusal) -> Response:
    """An error as a response."""
    more = {"retry-after": "1"} if error.status == 429 else {}
    return as_json(openai_api.error(error), error.status, more)


def as_json(body: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(json.dumps(body), status, headers, "application/json")


# --- the addresses


async def models(request: Request) -> Response:
    """GET /v1/models."""
    return as_json(await run_in_threadpool(openai_api.models, is_shared()))


async def model(request: Request) -> Response:
    """GET /v1/models/NAME."""
    return as_json(await run_in_threadpool(openai_api.model, request.path_params["name"], is_shared()))


async def unknown(request: Request) -> Response:
    """Every other address or method below /v1."""
    path, known = "/v1/" + request.path_params["rest"], ["/v1/models", *ASK]
    if path in known:
        raise Refusal(f"{path} is not asked with {request.method}.", 405, code="method_not_allowed")
    raise Refusal(f"There is no {path[:80]} here; there are {', '.join(known)}.", 404, code="unknown_url")


async def answer(request: Request, read: Reader, places: threading.BoundedSemaphore) -> Response:
    """POST of a completion or a chat: its text in one answer, or as a stream of events."""
    body = openai_api.read(await body_of(request))
    asked, models = await run_in_threadpool(read, body, is_shared()), engine.get()
    if not places.acquire(blocking=False):
        raise Refusal(f"{MOST_AT_ONCE} requests are being answered: try again in a moment.", 429)
    headers = {STYLE_HEADER: asked.style} if asked.style else {}
    found = news(request, openai_api.pieces(models, asked), places.release)
    if not asked.stream:
        told = [piece async for some in found for piece in some]
        return as_json(openai_api.whole(asked, told), headers=headers)
    first = await begun(found)  # what is refused here still has a status of its own
    events = stream(asked, first, found)
    return StreamingResponse(
        events, headers=headers | {"cache-control": "no-cache"}, media_type="text/event-stream"
    )


async def body_of(request: Request) -> bytes:
    """The body of a request. Raises Refusal for one that is too large, or is not said to be JSON.

    A page of another site can make a browser post plain text here, but not JSON.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refusal(
            f"The body is JSON: send the header Content-Type: application/json, not {kind[:60] or 'none'}.",
            415,
        )
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > BODY_LIMIT:
            raise Refusal(f"This request is too large: {BODY_LIMIT // 2**20} MB at most.", 413)
    return bytes(data)


# --- the text as it comes


async def begun(found: AsyncIterator[list[Piece]]) -> list[Piece]:
    """The first pieces; until then nothing is sent, so that a refusal keeps its status."""
    async for some in found:
        if some:
            return some
    return []


async def stream(asked: Asked, first: list[Piece], found: AsyncIterator[list[Piece]]) -> AsyncIterator[bytes]:
    """The events of a streamed answer. An error on the way is the last of them."""
    made = 0
    try:
        for chunk in openai_api.opening(asked):
            yield openai_api.event(chunk)
        async for some in following(first, found):
            made += sum(piece.made for piece in some)
            if lines := [openai_api.event(c) for piece in some for c in openai_api.chunks(asked, piece)]:
                yield b"".join(lines)
        for chunk in openai_api.closing(asked, made):
            yield openai_api.event(chunk)
        yield openai_api.event("[DONE]")
    except Exception as error:  # the status has gone out already
        yield openai_api.event(openai_api.error(as_refusal(error)))
    finally:
        await found.aclose()


async def following(first: list[Piece], found: AsyncIterator[list[Piece]]) -> AsyncIterator[list[Piece]]:
    yield first
    async for some in found:
        yield some


async def news(
    request: Request, texts: Iterator[list[Piece]], done: Callable[[], None]
) -> AsyncIterator[list[Piece]]:
    """What a thread takes from `texts`, until they end or the client has gone; then `texts` are closed and `done` called.

    The event loop never waits for the engine. Raises what `texts` raise.
    """
    loop, queue, gone = asyncio.get_running_loop(), asyncio.Queue(), threading.Event()
    threading.Thread(target=pump, args=(texts, loop, queue, gone, done), daemon=True, name="serve").start()
    looked = time.monotonic()
    try:
        while True:
            try:
                kind, value = await asyncio.wait_for(queue.get(), LOOK_SECONDS)
            except asyncio.TimeoutError:
                kind, value = "pieces", []
            if kind == "error":
                raise value
            if kind == "end":
                return
            if time.monotonic() - looked > LOOK_SECONDS:
                looked = time.monotonic()
                if await request.is_disconnected():
                    return
            yield value
    finally:
        gone.set()


def pump(texts: Iterator, loop: asyncio.AbstractEventLoop, queue: asyncio.Queue, gone, done) -> None:
    """The thread of one request: hand over what comes, and end the generation as soon as the client has gone."""

    def tell(*item: Any) -> None:
        try:
            loop.call_soon_threadsafe(queue.put_nowait, item)
        except RuntimeError:  # the server has stopped
            gone.set()

    try:
        for some in texts:
            if gone.is_set():
                break
            tell("pieces", some)
        tell("end", None)
    except Exception as error:
        tell("error", error)
    finally:
        texts.close()
        done()
