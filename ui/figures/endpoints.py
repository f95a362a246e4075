"""Pictures of the endpoints: those that are saved, what one of them answered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ui.figures.base import escape, message


def saved(rows: Sequence[dict[str, Any]]) -> str:
    """The saved endpoints, each with its buttons."""
    if not rows:
        return message("No endpoint is saved yet: choose a kind of server below, test it, save it.")
    cells = "".join(
        f"<tr><td><b>{escape(row['name'])}</b></td><td>{escape(row['title'])}</td><td>{escape(row['address'])}</td>"
        f"<td>{escape(row['model'])}</td><td>{'saved' if row['key'] else 'none'}</td>"
        f"<td><button type='button' class='ep-do' data-action='edit' data-name='{escape(row['name'])}'>Edit</button> "
        f"<button type='button' class='ep-do' data-action='delete' data-name='{escape(row['name'])}'>Delete</button></td></tr>"
        for row in rows
    )
    head = "".join(f"<th>{title}</th>" for title in ("name", "server", "address", "model", "key", ""))
    return f"<div class='lab-scroll' tabindex='0'><table class='lab-table'><thead><tr>{head}</tr></thead><tbody>{cells}</tbody></table></div>"  # fmt: skip


def tested(found: dict[str, Any]) -> str:
    """A server that works: its models, a few words from it."""
    models = ", ".join(found["models"][:30]) + (" ..." if len(found["models"]) > 30 else "")
    listed = f" It has: {models}." if models else ""
    return message(
        f"It works: the answer came in {found['seconds']:.1f} s and begins “{found['answer'][:120]}”.{listed}"
    )
