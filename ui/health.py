"""Whether the lab is well, for whoever watches over it: GET /health, 200 or 503, with the reasons in sentences."""

from __future__ import annotations

import json
import shutil
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from llm import disk, dispatch, paths
from llm.runs import all_runs

LEAST_FREE = 200_000_000  # bytes on the disk below which runs may fail


def looked_at() -> dict[str, Any]:
    """{"status": "ok" or "trouble", "problems", "running", "waiting", "disk_free"}: nothing of whose runs they are."""
    problems = [trouble] if (trouble := dispatch.trouble()) else []
    found: dict[str, Any] = {"running": None, "waiting": None, "disk_free": None}
    try:
        probe = paths.home() / ".health"
        probe.write_text("ok", encoding="utf-8")
        probe.unlink()
        statuses = [run.status() for run in all_runs()]
        found["running"], found["waiting"] = statuses.count("running"), statuses.count("waiting")
        found["disk_free"] = shutil.disk_usage(paths.home()).free
        if found["disk_free"] < LEAST_FREE:
            problems.append(
                f"Only {found['disk_free'] / 1e6:,.0f} MB are free on the disk of LLM_HOME: runs may fail for want of room."
            )
        if disk.is_full():
            problems.append(
                f"The quota of {disk.quota() / 1e9:,.3g} GB is used up ({disk.used() / 1e9:,.3g} GB are taken): nothing new can be made."
            )
    except ValueError as error:
        problems.append(str(error))
    except OSError as error:
        problems.append(f"LLM_HOME cannot be written to ({error.strerror or error}).")
    return {"status": "trouble" if problems else "ok", "problems": problems, **found}


async def health(request: Request) -> Response:
    """The answer, never from a cache."""
    found = await run_in_threadpool(looked_at)
    return Response(
        json.dumps(found),
        503 if found["problems"] else 200,
        {"cache-control": "no-store"},
        "application/json",
    )


ROUTES = [Route("/health", health, methods=["GET"])]
