"""What a visitor made, as one file to take away; and on a Space without storage the line that says what will be lost."""

from __future__ import annotations

import os
import re
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import BinaryIO

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from llm import modes, paths, takeaway, zero
from ui.owner import owner

PACKING = threading.BoundedSemaphore(
    2
)  # how many are packed at a time: each keeps a core busy and fills the disk
SPACE = re.compile(r"[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+")


def is_lost() -> bool:
    """Whether what is made here goes when the machine does: on a Space whose $LLM_HOME is on no storage of its own."""
    home = paths.home().absolute()
    mounted = any(os.path.ismount(folder) for folder in (home, *home.parents) if folder.parent != folder)
    return bool(os.environ.get("SPACE_ID")) and not mounted


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


def where_trained() -> str:
    """On ZeroGPU, above what starts a training: what it does not get there."""
    if not zero.is_here():
        return ""
    return "<p class='lab-keeping'>Trainings run on the processor of this Space: its GPU is lent for single answers of large models only.</p>"


async def take_away(request: Request) -> Response:
    """GET lab/take-away: what the visitor made. Packed for this answer, for few at a time, and removed after it."""
    if not modes.is_shared():
        return PlainTextResponse(
            "This lab is yours alone: `python -m llm.backup lab.tar` keeps everything.", 404
        )
    if not PACKING.acquire(blocking=False):
        return PlainTextResponse(
            "Others are taking theirs away right now: try again in a minute.", 503, {"retry-after": "60"}
        )
    # without a name: gone with its last reader, whoever leaves when
    file = tempfile.TemporaryFile(dir=paths.cache())  # noqa: SIM115 - closed by who reads it
    try:
        await run_in_threadpool(takeaway.write, str(owner(request)), file)
    except ValueError as error:
        file.close()
        return PlainTextResponse(str(error), 507)
    except BaseException:
        file.close()
        raise
    finally:
        PACKING.release()
    size = file.tell()
    file.seek(0)
    name = time.strftime("llm-lab-%Y-%m-%d.tar.gz")
    return StreamingResponse(
        pieces(file), media_type="application/gzip",
        headers={"cache-control": "no-store", "content-length": str(size), "content-disposition": f'attachment; filename="{name}"'},
    )  # fmt: skip


def pieces(file: BinaryIO) -> Iterator[bytes]:
    """A file from where it stands to its end; closed then, or when nobody reads on."""
    with file:
        while piece := file.read(1 << 20):
            yield piece


ROUTES = [Route("/lab/take-away", take_away, methods=["GET"])]
