"""The lab as a server for other programs: `/v1` in the way of OpenAI's API, for every model that is here.

On at home; on a shared page only with LLM_SERVE=1, and then for the built-in models alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Iterator
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from llm import inventory, openai_api, paths
from llm.openai_api import Wrong
from ui.owner import is_shared


def switched_on() -> bool:
    """Whether `/v1` answers."""
    said = os.environ.get("LLM_SERVE", "")
    return said.lower() in ("1", "true", "yes") if said else not is_shared()


def names() -> list[str]:
    """The models that are served."""
    if is_shared():
        return [model.name for model in inventory.models() if model.kind == "built in"]
    return paths.model_names(steps=True)


def refused(error: Wrong) -> JSONResponse:
    """An error in OpenAI's shape."""
    return JSONResponse(error.body(), error.status)


async def body_of(request: Request) -> Any:
    """The JSON of a request. Raises Wrong.

    Only application/json is read: a page of another site cannot send that without asking this server first.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Wrong("Send the request as application/json.", 415)
    try:
        return json.loads(await request.body())
    except (ValueError, RecursionError):
        raise Wrong("The body is no JSON.") from None


def off() -> Wrong:
    """What is said where the switch is off."""
    return Wrong("This page does not serve its models: its owner can switch that on with LLM_SERVE=1.", 403)


async def list_models(request: Request) -> Response:
    """GET /v1/models, and /v1/models/NAME."""
    if not switched_on():
        return refused(off())
    listed = await run_in_threadpool(lambda: openai_api.models(names()))
    name = request.path_params.get("name")
    if name is None:
        return JSONResponse(listed)
    found = next((row for row in listed["data"] if row["id"] == name), None)
    if found is None:
        return refused(Wrong(f"There is no model {name[:80]!r} here.", 404, "model_not_found", "model"))
    return JSONResponse(found)


async def complete(request: Request) -> Response:
    """POST /v1/completions and /v1/chat/completions."""
    if not switched_on():
        return refused(off())
    kind = "chat" if request.url.path.endswith("/chat/completions") else "text"
    try:
        body = await body_of(request)
        asked = await run_in_threadpool(lambda: openai_api.read(kind, body, names()))
        if not asked.stream:
            return JSONResponse(await run_in_threadpool(openai_api.whole, asked))
    except Wrong as error:
        return refused(error)
    return StreamingResponse(events(openai_api.chunks(asked)), media_type="text/event-stream")


async def events(chunks: Iterator[dict[str, Any]]) -> AsyncIterator[str]:
    """Server-sent events of a stream; when the reader goes away the work ends."""
    try:
        while (chunk := await run_in_threadpool(next, chunks, None)) is not None:
            yield f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n"
        yield "data: [DONE]\n\n"
    except Wrong as error:  # the status is sent already: the error is the last event
        yield f"data: {json.dumps(error.body(), ensure_ascii=False)}\n\n"
    finally:
        await run_in_threadpool(chunks.close)


ROUTES = [
    Route("/v1/models", list_models),
    Route("/v1/models/{name}", list_models),
    Route("/v1/completions", complete, methods=["POST"]),
    Route("/v1/chat/completions", complete, methods=["POST"]),
]
