"""The table of texts and rows that were brought here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ui.figures.base import escape, message, number, size
from ui.figures.models import button, made

KINDS = {".txt": "text", ".jsonl": "rows", ".shards": "text in parts"}


def texts(rows: Sequence[dict[str, Any]], taken: int, most: int) -> str:
    """Each with name, kind, bytes, made, runs, others (who brought it too); `taken` of `most` bytes (0: no limit) in a sentence."""
    limit = (
        f"<p class='lab-note'>Your runs, models and texts take {size(taken)} of {size(most)}.</p>"
        if most
        else ""
    )
    if not rows:
        return message("Nothing was brought here yet: texts come in the Train tab, rows in Finetune.") + limit
    body = "".join(
        f"<tr><td translate='no'>{escape(row['name'])}</td><td>{KINDS[row['kind']]}</td><td class=num>{size(row['bytes'])}</td>"
        f"<td>{made(row['made'])}</td><td class=num>{number(row['runs'])}</td><td>{_others(row['others'])}"
        f"{button('delete', row['name'], 'Delete', 'delete ' + row['name'])}</td></tr>"
        for row in rows
    )
    head = (
        "<th>Name</th><th>Kind</th><th class=num>On disk</th><th>Brought</th><th class=num>Runs</th><th></th>"
    )
    return f"<div class='lab-scroll' tabindex='0'><table class='lab-table md-texts'><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{limit}"


def _others(count: int) -> str:
    return f"<span class='md-under'>also brought by {count} more</span>" if count else ""
