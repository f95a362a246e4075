"""Imports and exports as the page shows them: each a run, followed, stopped and deleted; what an export made is fetched here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

from llm import dispatch, paths
from llm.runs import Run, all_runs
from ui.figures import transfers as figures
from ui.owner import may_use, owner

KINDS = ("import", "export")
SHOWN = 8  # runs in a list
DOWNLOAD = "lab/download"  # address of a finished export's file, below the page's own
CLICKS = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-action]');
  if (!button) return;
  const { action, name } = button.dataset;
  if (action === 'delete' && !confirm(`Delete ${name} for good?`)) return;
  trigger('click', { action, name });
});
"""


def own(name: str, request: gr.Request | Request | None) -> Run:
    """The visitor's import or export of this name. Raises ValueError when there is none, or it is another visitor's."""
    run = Run.open(str(name))
    if run.meta["kind"] not in KINDS or not may_use(run.meta["owner"], owner(request)):
        raise ValueError(f"There is no import or export called {str(name)[:80]!r}.")
    return run


def own_runs(kind: str, request: gr.Request | None) -> list[Run]:
    """The runs of a kind that the visitor may see, newest first."""
    visitor = owner(request)
    return [run for run in all_runs(kind) if may_use(run.meta["owner"], visitor)]


def stop_or_go(run: Run) -> None:
    """Stop a run that waits or goes on, or let one that ended early go on with what it has not done. Raises ValueError."""
    if run.status() in ("waiting", "running"):
        run.request_stop()
    else:
        run.request_resume()
        dispatch.pump()


def free_name(wish: str) -> str:
    """`wish`, or `wish-2`, `wish-3`, ...: the first that no run has."""
    names = (wish, *(f"{wish}-{number}" for number in range(2, 1000)))
    return next(name for name in names if not (paths.runs() / name).exists())


def standing(run: Run) -> dict[str, Any]:
    """How a transfer stands, as plain values: name, kind, about, status, progress, result, message."""
    events = run.events()
    last = {event["kind"]: event for event in events}
    status = run.status()
    begun = next((event["time"] for event in events if event["kind"] == "start"), None)
    message = last.get("end", {}).get("message") or ""
    if status == "waiting":
        try:
            place = dispatch.outlook(run)[0]
        except ValueError:  # it has just started
            place = 0
        message = f"Waits for its turn; {place} before it." if place else "Starts in a moment."
    if status == "crashed":
        message = "Its process has gone: start it again."
    config, file = run.config, result_file(run)
    return {
        "name": run.name,
        "kind": run.meta["kind"],
        "about": about(config),
        "status": status,
        "progress": last.get("progress") if status == "running" else None,
        "result": last.get("result") if status == "finished" else None,
        "seconds": events[-1]["time"] - begun if begun and events else None,
        "message": message,
        "link": f"{DOWNLOAD}/{run.name}" if file else "",
        "modelfile": bool(file) and file.with_suffix(".Modelfile").is_file(),
    }


def about(config: dict[str, Any]) -> str:
    """What a transfer is of, in words."""
    if "format" in config:
        return f"{config['model']} as {config['format']} {config['dtype']}".strip()
    return "from uploaded files" if config["source"].startswith("upload:") else f"from {config['source']}"


def follow(request: gr.Request, kind: str) -> tuple[str, gr.Timer]:
    """The visitor's newest imports or exports as HTML, and the timer that asks again while one of them goes on."""
    found = [standing(run) for run in own_runs(kind, request)[:SHOWN]]
    live = any(one["status"] in ("waiting", "running") for one in found)
    return figures.transfers(kind, found), gr.Timer(active=live)


def act(request: gr.Request, kind: str, event: gr.EventData) -> tuple[str, gr.Timer]:
    """A click in the list: stop a transfer, or delete it with what it made."""
    action, name = str(event._data.get("action")), str(event._data.get("name"))
    run = own(name, request)
    if action == "stop":
        run.request_stop()
    elif action == "delete":
        run.delete()
    return follow(request, kind)


def listed(kind: str, elem_id: str) -> tuple[gr.HTML, gr.Timer]:
    """The list as a component with its clock; `connect` wires it."""
    box = gr.HTML(elem_id=elem_id, js_on_load=CLICKS, padding=False, apply_default_css=False)
    return box, gr.Timer(0.7, active=False)


# ---- Fetching what an export made -----------------------------------------------------------------------------------


def result_file(run: Run) -> Path | None:
    """The one file of a finished export, inside its own directory; None when there is none (any more)."""
    if run.meta["kind"] != "export" or run.status() != "finished":
        return None
    result = next((event for event in reversed(run.events()) if event["kind"] == "result"), {})
    path = run.path / str(result.get("file", ""))
    inside = run.path.resolve() in path.resolve().parents
    return path if inside and path.is_file() else None


def fetch(request: Request) -> Response:
    """GET lab/download/NAME: the file of the visitor's own export; parts of it too, so that a cut download goes on.

    lab/download/NAME/Modelfile is the one for Ollama beside it.
    """
    try:
        path = result_file(own(request.path_params["name"], request))
    except ValueError:
        path = None
    if path and request.url.path.endswith("/Modelfile"):
        path = path.with_suffix(".Modelfile")
    if path is None or not path.is_file():
        return PlainTextResponse("There is no such export here (any more).", status_code=404)
    return FileResponse(path, media_type="application/octet-stream", filename=path.name)


ROUTES = [Route(f"/{DOWNLOAD}/{{name}}", fetch), Route(f"/{DOWNLOAD}/{{name}}/Modelfile", fetch)]
