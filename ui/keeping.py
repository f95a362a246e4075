"""What a visitor made, as one file to take away; and on a Space without storage the line that says what will be lost."""

from __future__ import annotations

import os
import re
import tempfile
import time
from pathlib import Path

from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

from llm import modes, paths, takeaway
from ui.owner import owner

SPACE = re.compile(r"[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+")


def is_lost() -> bool:
    """Whether what is made here goes when the machine does: on a Space without storage."""
    return (
        bool(os.environ.get("SPACE_ID"))
        and "LLM_HOME" not in os.environ
        and not paths.home().is_relative_to("/data")
    )


def line() -> str:
    """Under the header, on a Space only: what is lost, how to take it away, how to have a Space of one's own."""
    space = os.environ.get("SPACE_ID", "")
    if not space:
        return ""
    lost = (
        "Runs, models and texts made here are lost when this Space sleeps or is restarted. "
        if is_lost()
        else "Runs, models and texts made here are kept on this Space's storage. "
    )
    said = f"{lost}<a href='lab/take-away' download>Take yours away</a>"
    if SPACE.fullmatch(space):
        said += f" · <a href='https://huggingface.co/spaces/{space}?duplicate=true' target='_blank' rel='noopener'>Duplicate this Space</a>"
    return f"<p class='lab-keeping'>{said}</p>"


async def take_away(request: Request) -> Response:
    """GET lab/take-away: the visitor's runs, models, texts and rows. Made for this answer, and removed after it."""
    if not modes.is_shared():
        return PlainTextResponse(
            "This lab is yours alone: `python -m llm.backup lab.tar` keeps everything.", 404
        )
    handle, name = tempfile.mkstemp(prefix="take-away-", suffix=".tar.gz", dir=paths.cache())
    os.close(handle)
    file = Path(name)
    try:
        await run_in_threadpool(takeaway.write, str(owner(request)), file)
    except BaseException:
        file.unlink(missing_ok=True)
        raise
    return FileResponse(
        file, media_type="application/gzip", filename=time.strftime("llm-lab-%Y-%m-%d.tar.gz"),
        headers={"cache-control": "no-store"}, background=BackgroundTask(file.unlink, missing_ok=True),
    )  # fmt: skip


ROUTES = [Route("/lab/take-away", take_away, methods=["GET"])]
