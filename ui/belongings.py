"""The texts and rows that were brought here: what each takes on the disk, what was made from it; deleting one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from llm import disk, modes, owned, paths
from llm.runs import Run, all_runs
from ui.figures import belongings as figures
from ui.owner import Visitor, may_use, owner
from ui.parts import plain_errors, section
from ui.view import View

CLICKS = """element.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-action]');
  if (!button) return;
  const { action, name } = button.dataset;
  if (confirm(`Delete ${name} for good?`)) trigger('click', { action, name });
});"""


def is_keeper(visitor: Visitor) -> bool:
    """Whether everything here is this visitor's to delete: at home, and the teacher's."""
    return not modes.is_shared() or visitor.teacher


def places(visitor: Visitor) -> list[Path]:
    """The files that the visitor may delete."""
    if not is_keeper(visitor):
        return owned.brought(visitor)
    every = paths.datasets().glob("[!.]*")
    return sorted(file for file in every if file.is_file() and file.suffix in paths.DATASET_KINDS)


def made_from() -> dict[str, list[Run]]:
    """The runs that read each dataset, by its name."""
    found: dict[str, list[Run]] = {}
    for run in all_runs():
        try:
            found.setdefault(str(run.config.get("dataset")), []).append(run)
        except ValueError:  # damaged
            continue
    return found


def listed(request: gr.Request) -> str:
    """The visitor's texts and rows as a table, and what they may take in all."""
    visitor = owner(request)
    rows, made = [], made_from()
    for file in places(visitor):
        about = file.stat()
        runs = sum(may_use(run.meta["owner"], visitor) for run in made.get(file.stem, ()))
        others = len(owned.owners(file.stem) - {visitor}) if modes.is_shared() else 0
        rows.append(
            dict(
                name=file.stem,
                kind=file.suffix,
                bytes=about.st_size,
                made=about.st_mtime,
                runs=runs,
                others=others,
            )
        )
    most = 0 if is_keeper(visitor) else modes.limits().megabytes
    return figures.texts(rows, disk.of_visitor(visitor) if most else 0, most * 1_000_000)


def delete(name: str, visitor: Visitor) -> None:
    """Delete a text or rows; they stay for others who brought the same. Raises ValueError when they are not the visitor's, or in use."""
    if name not in {file.stem for file in places(visitor)}:
        raise ValueError(
            f"There is no text and there are no rows called {name[:80]!r} that are yours to delete."
        )
    if busy := [run.name for run in made_from().get(name, ()) if run.status() in ("waiting", "running")]:
        raise ValueError(
            f"The run {busy[0]} needs {name}: stop it, or wait for its end, then delete the text."
        )
    owned.let_go(name, "" if is_keeper(visitor) else visitor)


def act(request: gr.Request, event: gr.EventData) -> str:
    """A click in the table."""
    data: Any = event._data
    if data.get("action") == "delete":
        delete(str(data.get("name")), owner(request))
    return listed(request)


def build(view: View) -> None:
    """Lay out the room and wire it."""
    section(
        "Texts and rows",
        "What was brought or downloaded here, beside what ships with the lab. A run whose text has gone keeps its model and cannot go on.",
    )
    have = gr.HTML(padding=False, js_on_load=CLICKS, apply_default_css=False, elem_id="models-texts")
    have.click(plain_errors(act), None, have, api_visibility="private", show_progress="hidden", queue=False)
    view.on_load(listed, have)
    view.on_select(listed, have)
