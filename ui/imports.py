"""Bring a model: from files, the Hub or this machine; looked at first, then imported as a run."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from llm import check, commands, dispatch, files, hub, paths, tokenizer
from llm.config import ImportConfig, ModelConfig, from_dict, to_dict
from llm.convert import IMPORTERS, families
from llm.runs import ENDED, Run
from ui import pickers, transfers
from ui.allowed import gate
from ui.figures import transfers as figures
from ui.figures.base import message, size
from ui.owner import may_open, owner, refuse_full
from ui.parts import Choice, plain_errors, show_code
from ui.view import View

FROM = {"files": "Files", "hub": "The Hugging Face Hub", "path": "A place on this machine"}
MOST_FILES = 200
NONE = "none: the file brings what it needs"


def sources() -> list[tuple[str, str]]:
    """Where models may come from: a path of this machine's disk only when no strangers use the page."""
    return [(title, key) for key, title in FROM.items() if key != "path" or not check.hosted()]


# ---- Where it lies ---------------------------------------------------------------------------------------------------


def staged(uploaded: list[str] | None) -> str:
    """The uploaded files together in one folder, as the source "upload:ID". Raises ValueError."""
    if not uploaded:
        raise ValueError(
            "Choose the files first: a .gguf, .safetensors or .pt file, or all files of a model's folder."
        )
    if len(uploaded) > MOST_FILES:
        raise ValueError(f"Those are {len(uploaded)} files; a model has at most {MOST_FILES} here.")
    identity = secrets.token_hex(16)
    folder = check.uploads() / identity
    folder.mkdir()
    for path in map(Path, uploaded):
        target = folder / path.name
        if target.exists():
            shutil.rmtree(folder)
            raise ValueError(f"Two of the files are called {path.name}: choose the files of one folder.")
        try:
            os.link(path, target)
        except OSError:  # the upload lies on another disk
            shutil.copyfile(path, target)
    return f"upload:{identity}"


def wish(source: str, uploaded: list[str] | None, file: str) -> str:
    """A name for the model, made of the source's: letters, digits, dots and dashes, and not taken."""
    kind, _, rest = source.partition(":")
    if kind == "upload":
        names = [Path(path).name for path in uploaded or []]
        weights = [n for n in names if n.endswith((".gguf", ".safetensors", ".pt", ".pth", ".bin"))]
        rest = weights[0] if len(weights) == 1 and not weights[0].startswith("model") else "my-model"
    elif kind == "hf":
        rest = Path(file).name if file else hub.parse(source)[0].split("/")[-1]
    else:
        rest = Path(source).name
    stem = re.sub(r"\.(gguf|safetensors|pt|pth|bin)$", "", rest, flags=re.IGNORECASE)
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-._")[:60].rstrip("-._") or "my-model"
    taken = {*paths.model_names(), *(path.name for path in paths.runs().iterdir())}
    candidates = (stem, *(f"{stem}-{number}" for number in range(2, 1000)))
    return next(name for name in candidates if name not in taken)


def source_of(kind: str, uploaded: list[str] | None, repo: str, path: str) -> str:
    """What the form names, as an ImportConfig's source. Raises ValueError when nothing is named."""
    if kind == "files":
        return staged(uploaded)
    if kind == "hub":
        if not repo or not repo.strip():
            raise ValueError(
                "Name a repository first, such as HuggingFaceTB/SmolLM2-135M, or search for one."
            )
        found, revision = hub.parse(repo.strip())
        return f"hf:{found}" + (f"@{revision}" if revision != "main" else "")
    if check.hosted():
        raise ValueError("On a shared page models come from the Hub or as an upload.")
    if not path or not path.strip():
        raise ValueError("Say where the model lies: a file or a folder of this machine.")
    return path.strip()


# ---- Looking -------------------------------------------------------------------------------------------------------


def config_of(source: str, file: str, base: str, encoding: str, n_head: float | None) -> ImportConfig:
    """The import that the form describes. Raises ValueError."""
    return ImportConfig(
        source=source, file=file or "", base="" if base in (None, NONE) else base,
        encoding="" if encoding in (None, NONE) else encoding, n_head=int(n_head or 0),
    )  # fmt: skip


def look(
    request: gr.Request, kind: str, uploaded: list[str] | None, repo: str, file: str, token: str, path: str, base: str,
    encoding: str, n_head: float | None,
) -> list[Any]:  # fmt: skip
    """Look at a model without importing it: what it is, where its tensors go, what is in the way.

    Returns the picture, the source, a name for it, and the files to choose from. A refusal is a sentence in the picture.
    """
    try:
        source = source_of(kind, uploaded, repo, path)
        config = config_of(source, file, base, encoding, n_head)
        found = looked_at(config, token or "", owner(request))
    except ValueError as error:
        return [message(str(error), "error"), "", gr.skip(), gr.skip()]
    choices = found.get("gguf") or []
    files_box = (
        gr.update(choices=["", *choices], visible=bool(choices))
        if kind == "hub"
        else gr.update(visible=False)
    )
    return [found["html"], source if found["fits"] else "", wish(source, uploaded, config.file), files_box]


def looked_at(config: ImportConfig, token: str, visitor: str) -> dict[str, Any]:
    """html: the picture; fits: whether it can be imported; gguf: files of a Hub repository to choose from."""
    if config.source.startswith("hf:"):
        repo, revision = hub.parse(config.source)
        try:
            hub.present(repo, revision, config.file, visitor)
        except ValueError:
            return on_the_hub(repo, revision, config.file, token)
    found = check.inspect(
        config.source, config.base, config.encoding, config.n_head, file=config.file, owner=visitor
    )
    shape = from_dict(ModelConfig, found["config"])
    return {
        "html": figures.found(found, shape),
        "fits": not found["unmatched"] and found["parameters"] == found["formula"],
    }


def on_the_hub(repo: str, revision: str, file: str, token: str) -> dict[str, Any]:
    """What the Hub says before anything is fetched: shape, size, licence, gate. Raises ValueError with what to do."""
    about = hub.info(repo, revision, token)
    problem, wanted, shape = "", [], None
    try:
        wanted = hub.needed(about, file)
    except ValueError as error:
        problem = str(error)
    if any(one["name"] == "config.json" for one in about["files"]):
        try:
            shape = families.model_config(hub.config(repo, revision, token))
        except ValueError as error:
            problem = problem or str(error)
    html = figures.on_the_hub(about, wanted, shape, problem)
    return {"html": html, "fits": not problem, "gguf": about["gguf"] if len(about["gguf"]) > 1 else []}


def search(text: str, token: str) -> str:
    """Models of the Hub with these words in their name, the most downloaded first."""
    try:
        return figures.hub_rows(hub.search(text or "", 20, token or ""), tuple(families.FAMILIES))
    except ValueError as error:
        return message(str(error), "error")


def pick(event: gr.EventData) -> str:
    """A click in the list of what the Hub has."""
    return str(event._data.get("name"))


# ---- Importing -----------------------------------------------------------------------------------------------------


def ready(source: str, name: str, file: str, base: str, encoding: str, n_head: float | None) -> list[Any]:
    """The Import button, whose label says what is missing, and the command that it runs."""
    if not source:
        return [gr.Button("Look at it first", interactive=False), ""]
    try:
        config = config_of(source, file, base, encoding, n_head)
        check_name(name)
    except ValueError as error:
        label = str(error) if len(str(error)) < 64 else "Choose another name"
        return [gr.Button(label, interactive=False), ""]
    return [
        gr.Button(f"Import it as {name}", interactive=True),
        commands.command_line("import", name, config),
    ]


def check_name(name: str) -> None:
    """Raise ValueError when a model of this name, or another kind of run, is here already."""
    paths.checked_name(name, "name")
    if name in paths.model_names():
        raise ValueError("A model has that name already.")
    if (paths.runs() / name).exists() and Run.open(name).meta["kind"] != "import":
        raise ValueError("A run has that name already.")


def start(
    request: gr.Request,
    source: str,
    name: str,
    token: str,
    file: str,
    base: str,
    encoding: str,
    n_head: float | None,
):
    """Start the run that imports a model; a gated or private one is fetched here first, since a run is given no token.

    Yields what is told meanwhile, then the list of imports and its clock. Raises ValueError.
    """
    if not source:
        raise ValueError("Look at the model first.")
    check_name(name)
    config = config_of(source, file, base, encoding, n_head)
    if not source.startswith("hf:"):
        check.allowed(source)
    refuse_full()
    make_room(name, request)
    if fetched_here(source, token):
        repo, revision = hub.parse(source)
        told = 0.0
        for what, done, total in hub.download(repo, revision, config.file, token, owner(request)):
            if time.monotonic() - told > 0.3:
                told = time.monotonic()
                yield [figures.fetching(what, done, total), gr.skip(), gr.skip()]
    Run.create("import", to_dict(config), owner(request), name=name)
    dispatch.pump()
    yield ["", *transfers.follow(request, "import")]


def fetched_here(source: str, token: str) -> bool:
    """Whether a model of the Hub is downloaded by the page: with a visitor's or this machine's key, which no run gets."""
    return source.startswith("hf:") and (bool(token) or hub.logged_in())


def make_room(name: str, request: gr.Request | None) -> None:
    """A try of the same name that has ended gives its name to the next one. Raises ValueError while it goes on."""
    if not (paths.runs() / name).exists():
        return
    earlier = transfers.own(name, request)
    if earlier.status() not in ENDED:
        raise ValueError(f"{name} is being imported already.")
    earlier.delete()


# ---- The page ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """The widgets that say where a model lies and what its file lacks."""

    kind: gr.Radio
    uploaded: gr.File
    repo: gr.Textbox
    file: gr.Dropdown
    token: gr.Textbox
    path: gr.Textbox
    base: gr.Dropdown
    encoding: gr.Dropdown
    n_head: gr.Number

    def lacks(self) -> list[gr.components.Component]:
        """The file of a repository, the base of an adapter, encoding and heads of a state dict."""
        return [self.file, self.base, self.encoding, self.n_head]


def choose_place(kind: str) -> list[dict]:
    """Show what belongs to the chosen place."""
    return [gr.update(visible=kind == one) for one in FROM]


def lists() -> list[dict]:
    """Models that an adapter may belong to, and encodings for files that have none, as they are on the disk now."""
    encodings = [one for one in tokenizer.names() if one != "char" and not one.startswith("model:")]
    encodings += [f"char:{dataset}" for dataset in pickers.dataset_names()]  # its characters
    return [gr.update(choices=[NONE, *pickers.model_names()]), gr.update(choices=[NONE, *encodings])]


def places(view: View) -> Place:
    """Lay out the widgets that say where the model lies, and wire the search of the Hub."""
    quick = dict(api_visibility="private", show_progress="hidden", queue=False)
    kind = gr.Radio(sources(), value="files", label="From", elem_id="models-from")
    label = f"A .gguf, .safetensors or .pt file, or all files of a model's folder; at most {size(files.upload_limit())} each"
    uploaded = gr.File(
        label=label, file_count="multiple", type="filepath", height=150, elem_id="models-upload"
    )
    with gr.Column(visible=False) as from_hub:
        words = gr.Textbox(label="Search", placeholder="SmolLM2", max_lines=1, elem_id="models-hub-search")
        seek = gr.Button("Search the Hub", size="sm", elem_id="models-hub-go")
        results = gr.HTML(
            elem_id="models-hub-results", js_on_load=transfers.CLICKS, padding=False, apply_default_css=False
        )
        repo = gr.Textbox(
            label="Repository", placeholder="ORGANISATION/NAME", max_lines=1, elem_id="models-hub-id"
        )
        file = Choice([""], value="", label="Which of its files", visible=False, elem_id="models-hub-file")
        token = gr.Textbox(
            label="Your token, for gated or private models only (used once, not kept)", type="password", max_lines=1,
            elem_id="models-hub-token",
        )  # fmt: skip
    path = gr.Textbox(
        label="File or folder",
        placeholder="/home/me/models/SmolLM2-135M",
        max_lines=1,
        visible=False,
        elem_id="models-path",
    )
    with gr.Accordion("What some files lack", open=False, elem_classes="lab-quiet"):
        base = Choice(
            [NONE], value=NONE, label="Model that an adapter (LoRA) belongs to", elem_id="models-base"
        )
        gate(base, may_open)
        encoding = Choice(
            [NONE],
            value=NONE,
            label="Encoding, for a state dict or nanoGPT checkpoint",
            elem_id="models-encoding",
        )
        gate(encoding, pickers.may_encode)
        n_head = gr.Number(
            0, label="Attention heads, where the file does not say (0: it says)", precision=0, minimum=0, maximum=256,
            elem_id="models-heads",
        )  # fmt: skip
    kind.change(choose_place, kind, [uploaded, from_hub, path], **quick)
    gr.on([seek.click, words.submit], plain_errors(search), [words, token], results, api_visibility="private")
    results.click(plain_errors(pick), None, repo, **quick)
    view.keep("from", kind)
    view.keep("hub", repo)
    view.on_load(choose_place, [uploaded, from_hub, path], kind)
    view.on_load(lists, [base, encoding])
    view.on_select(lists, [base, encoding])
    return Place(kind, uploaded, repo, file, token, path, base, encoding, n_head)


def build(view: View, source: gr.Textbox) -> tuple[gr.HTML, gr.Textbox, gr.Radio]:
    """The room in which a model is brought in; returns the list of imports, the repository's box and the choice of places.

    `source` holds what was looked at, as an ImportConfig names it, "" while nothing may be imported.
    """
    quick = dict(api_visibility="private", show_progress="hidden", queue=False)
    with gr.Row(elem_classes="md-anatomy"):
        with gr.Column(scale=6, min_width=320):
            place = places(view)
            see = gr.Button("Look at it", variant="secondary", elem_id="models-look")
            name = gr.Textbox(label="Name that it gets here", max_lines=1, elem_id="models-import-name")
            go = gr.Button("Look at it first", variant="primary", interactive=False, elem_id="models-import")
            with gr.Accordion("The command that it runs", open=False, elem_classes="lab-quiet"):
                line = gr.Code(
                    language="shell", interactive=False, show_label=False, wrap_lines=True, lines=1,
                    elem_id="models-import-command",
                )  # fmt: skip
            halt = gr.Button("Stop fetching", size="sm", visible=False, elem_id="models-fetch-stop")
            told = gr.HTML(padding=False, elem_id="models-fetching")
            brought, clock = transfers.listed("import", "models-imports")
        with gr.Column(scale=7, min_width=320):
            seen = gr.HTML(
                figures.opened(IMPORTERS, tuple(families.FAMILIES)), padding=False, elem_id="models-found"
            )
    show_code("llm.convert.families:weight_rows", "llm.convert.families:to_ours", "llm.convert.source:Source")
    asked = [
        place.kind,
        place.uploaded,
        place.repo,
        place.file,
        place.token,
        place.path,
        place.base,
        place.encoding,
        place.n_head,
    ]
    gr.on(
        [see.click, place.repo.submit, place.path.submit, place.uploaded.upload], plain_errors(look), asked,
        [seen, source, name, place.file], api_visibility="private", show_progress="minimal", concurrency_id="looks",
        concurrency_limit=2,
    )  # fmt: skip
    form = [source, name, *place.lacks()]
    gr.on(
        [widget.change for widget in form],
        plain_errors(ready),
        form,
        [go, line],
        trigger_mode="always_last",
        **quick,
    )
    going = go.click(
        plain_errors(start), [source, name, place.token, *place.lacks()], [told, brought, clock], api_visibility="private",
        show_progress="hidden", concurrency_id="downloads", concurrency_limit=2,
    )  # fmt: skip
    going.success(lambda: ["", gr.Button(visible=False)], None, [source, halt], **quick)
    go.click(
        lambda source, token: gr.Button(visible=fetched_here(source, token)),
        [source, place.token],
        halt,
        **quick,
    )
    halt.click(
        lambda: [message("Stopped; what has come is kept, and the next try goes on from there."), gr.Button(visible=False)],
        None, [told, halt], cancels=going, api_visibility="private", queue=False,
    )  # fmt: skip
    clock.tick(follow, None, [brought, clock], **quick)
    brought.click(plain_errors(act), None, [brought, clock], **quick)
    view.on_load(follow, [brought, clock])
    return brought, place.repo, place.kind


def follow(request: gr.Request) -> tuple[str, gr.Timer]:
    """The visitor's imports, and the clock that asks again while one of them goes on."""
    return transfers.follow(request, "import")


def act(request: gr.Request, event: gr.EventData) -> tuple[str, gr.Timer]:
    """A click in the list of imports."""
    return transfers.act(request, "import", event)
