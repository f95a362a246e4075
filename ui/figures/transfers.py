"""Imports and exports as a list: how each stands, how far it is, what came of it, where to fetch it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from llm import anatomy
from llm.config import ModelConfig
from llm.convert import Importer
from ui.figures import models
from ui.figures.base import count, duration, escape, facts, message, number, size, table
from ui.figures.train import pill

COPY = """
element.addEventListener('click', async (event) => {
  const button = event.target.closest('.tf-copy');
  if (!button) return;
  const code = button.parentElement.querySelector('code');
  if (navigator.clipboard) {
    await navigator.clipboard.writeText(code.textContent);
    button.textContent = 'copied';
    setTimeout(() => { button.textContent = 'copy'; }, 1500);
  } else getSelection().selectAllChildren(code); // a page without https: marked, to be copied by hand
});
"""


# ---- The list ----------------------------------------------------------------------------------------------------


def transfers(kind: str, found: Sequence[dict[str, Any]]) -> str:
    """Each as a card: name, status, a bar, a sentence, buttons. Values come from `ui.transfers.standing`."""
    cards = "".join(card(one) for one in found)
    return (
        f"<div class='tf' data-live='{str(any(one['progress'] for one in found)).lower()}'>{cards}</div>"
        if found
        else ""
    )


def card(one: dict[str, Any]) -> str:
    """One import or export."""
    name, progress, result = one["name"], one["progress"], one["result"]
    bar = ""
    if progress and progress.get("total"):
        share = min(100 * progress["done"] / progress["total"], 100)
        told = f"{size(progress['done'])} of {size(progress['total'])}"
        bar = (
            f"<div class='tf-bar'><span>{escape(progress['stage'])}</span><span>{told}</span></div>"
            f"<div class='lab-bar' role='progressbar' aria-label='{escape(progress['stage'])}' aria-valuenow='{share:.0f}' "
            f"aria-valuemin='0' aria-valuemax='100'><i style='width:{share:.1f}%'></i></div>"
        )
    elif one["status"] in ("waiting", "running"):
        bar = f"<div class='tf-bar'><span>{escape(progress['stage'] if progress else one['message'] or 'starts')}</span></div>"
    told = sentence(one) if one["status"] not in ("waiting", "running") else ""
    notes = "".join(f"<p class='tf-told'>{escape(note)}</p>" for note in (result or {}).get("notes", []))
    return (
        f"<article class='tf-card' data-run='{escape(name)}' data-status='{escape(one['status'])}'><header>{pill(one['status'])}"
        f"<b translate='no'>{escape(name)}</b><span class='tf-about'>{escape(one['about'])}</span>{tools(one)}</header>{bar}{told}{notes}</article>"
    )


def sentence(one: dict[str, Any]) -> str:
    """What came of it, in a line."""
    result = one["result"]
    if not result:
        return f"<p class='tf-told'>{escape(one['message'])}</p>"
    took = f" in {duration(one['seconds'])}" if one["seconds"] is not None else ""
    if one["kind"] == "import":
        parts = [
            f"{number(result['parameters'])} parameters", f"{number(result['tensors'])} tensors",
            f"{size(result['bytes'])} on the disk{took}",
        ]  # fmt: skip
        return f"<p class='tf-told'>{escape(result['container'])}, {escape(result['family'])}: {escape(', '.join(parts))}.</p>"
    inside = f"{result['folder'].rpartition('/')[2]}/" if result.get("folder") else ""
    parts = [f for f in result["files"] if f["name"].startswith(inside)]  # of a folder, not the archive of it
    files = ", ".join(f"{f['name'].removeprefix(inside)} {size(f['bytes'])}" for f in parts[:12])
    return f"<p class='tf-told'>{size(result['bytes'])}{took}: {escape(files)}.</p>"


def tools(one: dict[str, Any]) -> str:
    """What can be done with it now."""
    parts = []
    if one["link"]:
        what = f" ({size(one['result']['bytes'])})" if one["result"] else ""
        parts.append(f"<a class='md-go tf-fetch' href='{escape(one['link'])}' download>Download{what}</a>")
    if one["modelfile"]:
        parts.append(f"<a class='md-go' href='{escape(one['link'])}/Modelfile' download>Modelfile</a>")
    if one["kind"] == "import" and one["result"]:
        link = "?" + urlencode({"tab": "models", "models.model": one["result"]["model"]})
        parts.append(f"<a class='md-go' href='{escape(link)}'>Look at it</a>")
    going = one["status"] in ("waiting", "running")
    action, text = (
        ("stop", "Cancel") if going else ("delete", "Delete" if one["kind"] == "export" else "Forget")
    )
    label = f"{text.lower()} {one['name']}"
    parts.append(
        f"<button type='button' class='lab-link' data-action='{action}' data-name='{escape(one['name'])}' "
        f"aria-label='{escape(label)}'>{text}</button>"
    )
    return f"<span class='tf-tools'>{''.join(parts)}</span>"


# ---- Before an export --------------------------------------------------------------------------------------------


def plan(about: str, estimate: int, now: int) -> str:
    """What a format is for, and how large the export will be."""
    return f"<p class='lab-note'>{escape(about)}</p>" + facts(
        [("Size of the export, about", size(estimate)), ("The model here", size(now))]
    )


def recipes(found: Sequence[tuple[str, str, str]]) -> str:
    """Each tool with its commands, to copy: (tool, where they are typed or "" for plain words, the commands)."""
    return "".join(
        f"<section class='tf-recipe'><h4>{escape(tool)} <span>{escape(where)}</span></h4>"
        + (
            f"<div class='tf-code'><pre><code>{escape(text)}</code></pre>"
            f"<button type='button' class='tf-copy' aria-label='copy the commands for {escape(tool)}'>copy</button></div>"
            if where
            else f"<p>{escape(text)}</p>"
        )
        + "</section>"
        for tool, where, text in found
    )


def pushed(page: str, private: bool) -> str:
    """Where a pushed export lies now."""
    seen = "only you may see it" if private else "anyone may see it"
    link = f"<a href='{escape(page)}' target='_blank' rel='noopener noreferrer'>{escape(page)}</a>"
    return f"<div class='lab-message' role='note'>Pushed to {link}; {seen}.</div>"


# ---- Before an import --------------------------------------------------------------------------------------------


def opened(importers: Mapping[str, Importer], families: Sequence[str]) -> str:
    """What can be brought in, while nothing has been looked at."""
    rows = [[one.title, one.about] for one in importers.values()]
    kinds = f"Families of Hugging Face's models that are opened: {', '.join(families)}."
    return table(["what is opened", ""], rows) + f"<p class='lab-note'>{escape(kinds)}</p>"


def found(look: dict[str, Any], shape: ModelConfig) -> str:
    """What `llm.check.inspect` found: the facts, notes, shape and the weight map."""
    cards = [
        ("Container", look["container"]),
        ("Family", look["family"]),
        ("Parameters", number(look["parameters"])),
        ("Context", number(shape.context_length)),
        ("Encoding", "comes with it" if look["tokenizer"] else "is missing"),
        ("Size", size(look["bytes"])),
    ]
    cards += [
        (name.capitalize(), value)
        for name, value in look["facts"].items()
        if name in ("licence", "organisation")
    ]
    notes = "".join(message(note, "warning") for note in look["notes"])
    words = f"<p class='md-title'>{escape(anatomy.in_words(shape))}</p>"
    return (
        facts(cards)
        + words
        + notes
        + models.weight_map(look["rows"], look["formula"])
        + models.behaviours(shape)
    )


def on_the_hub(
    about: dict[str, Any], wanted: Sequence[dict[str, Any]], shape: ModelConfig | None, problem: str
) -> str:
    """What the Hub says of a repository before anything is fetched."""
    cards = [
        ("Family", about["family"] or "–"),
        ("Parameters", number(anatomy.parameters(shape) if shape else about["parameters"])),
        ("Licence", about["licence"] or "–"),
        ("Gated", "yes: accept its terms there first" if about["gated"] else "no"),
        ("To download", size(sum(one["size"] for one in wanted)) if wanted else "–"),
        ("Commit", about["revision"][:12] if about["revision"] else "–"),
    ]
    link = f"<a href='{escape(about['page'])}' target='_blank' rel='noopener noreferrer'>{escape(about['page'])}</a>"
    words = f"<p class='md-title'><b>{escape(about['id'])}</b> {escape(anatomy.in_words(shape)) if shape else ''} {link}</p>"
    said = (
        message(problem, "error")
        if problem
        else message(
            "The weight map is made once the file is here: the import looks at it before it makes a model of it."
        )
    )
    rows = [[one["name"], size(one["size"])] for one in wanted]
    files = table(["file that is fetched", "size"], rows, numeric=(1,)) if rows else ""
    return facts(cards) + words + said + files + (models.behaviours(shape) if shape else "")


def hub_rows(found: Sequence[dict[str, Any]], families: Sequence[str]) -> str:
    """What a search of the Hub found, a button to take each."""
    if not found:
        return message("The Hub has no such model that makes text.")
    rows = "".join(
        f"<tr><td>{models.button('pick', one['id'], one['id'], 'take ' + one['id'])}"
        f"<span class='md-under'>{escape(one['licence'] or '')}{' · gated' if one['gated'] else ''}</span></td>"
        f"<td>{escape(one['family'] or '')}</td><td class=num>{count(one['parameters']) if one['parameters'] else ''}</td>"
        f"<td class=num>{number(one['downloads'])}</td><td>{'yes' if one['family'] in families else 'no' if one['family'] else ''}</td></tr>"
        for one in found
    )
    head = "<th>Repository</th><th>Family</th><th class=num>Parameters</th><th class=num>Downloads</th><th>Opens here</th>"
    return (
        f"<div class='md-tall'><div class='lab-scroll' tabindex='0'><table class='lab-table'><thead><tr>{head}</tr></thead>"
        f"<tbody>{rows}</tbody></table></div></div>"
    )


def fetching(what: str, done: int, total: int) -> str:
    """How far a download in the page is."""
    share = 100 * done / total if total else 0
    return (
        f"<div class='tf-bar'><span>downloading {escape(what)}</span><span>{size(done)} of {size(total)}</span></div>"
        f"<div class='lab-bar' role='progressbar' aria-label='download' aria-valuenow='{share:.0f}' aria-valuemin='0' "
        f"aria-valuemax='100'><i style='width:{share:.1f}%'></i></div>"
    )
