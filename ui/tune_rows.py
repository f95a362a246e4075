"""Data: rows of one's own, what is wrong with them, how one of them is written for a model, and a batch as training gets it."""

from __future__ import annotations

import functools
import hashlib
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from llm import chat, corpora, data, files, hub, paths, prompts, rows, tables, tokenizer
from llm.config import RunConfig
from llm.tuning_defaults import DEFAULTS, defaults
from ui import pickers, tuning
from ui.figures import tune_rows as figures
from ui.figures.base import message, size
from ui.guard import BODY_LIMIT
from ui.owner import brought, owner, refuse_full
from ui.parts import Choice, intro, plain_errors, section, show_code
from ui.view import View

ABOVE, FILE, PASTE, HUB = "above", "file", "paste", "hub"
ORIGINS = {ABOVE: "The dataset above", FILE: "A file", PASTE: "A pasted text", HUB: "The Hugging Face Hub"}
OBJECTIVE = {  # of a kind of rows
    "instruction": "instruct", "conversation": "instruct", "classification": "classify", "preference": "prefer",
    "text": "pretrain",
}  # fmt: skip
FIELDS = max(len(kind.fields) for kind in rows.KINDS.values())  # dropdowns that say which column is what
DRAWN = 4  # texts of a batch that are drawn
WHOLE = 10**9  # tokens: more than any row has
LONGEST_SHOWN = 2_000  # tokens of one row that are drawn
PASTED = """[
  {"instruction": "Name the opposite.", "input": "cold", "output": "hot"},
  {"instruction": "Name the opposite.", "input": null, "output": "Which word do you mean?"},
  {"instruction": "Name the opposite.", "input": "early"}
]"""
NO_PICTURE = "A plain text has no prompts: it is cut into windows, and every token is learnt. The Windows tab draws that."


# ---- Where rows come from ----------------------------------------------------------------------------------------


def kind_of_rows(name: str) -> str:
    """The kind (of `rows.KINDS`) of kept or shipped rows, told by their first line; "" when it is none."""
    if name in corpora.ROWS:
        return corpora.ROWS[name]["kind"]
    path = corpora.row_path(name)
    return _kind_of_file(path, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _kind_of_file(path: Path, modified: int) -> str:
    """`modified` tells one state of the file from another."""
    try:
        with path.open(encoding="utf-8") as f:
            first = json.loads(f.readline(10_000_000))
        return rows.kind_of(rows.Table(path.name, "JSON lines", tuple(first), [first], [1], []))
    except (OSError, ValueError, TypeError):
        return ""


@dataclass(frozen=True)
class Source:
    """Where a table is read from; equal as long as it would give the same table."""

    origin: str
    title: str
    place: str  # a path, or the pasted text itself
    modified: int = 0

    @property
    def own(self) -> bool:
        """Whether these rows were brought, and are not the dataset above."""
        return self.origin != ABOVE


def found(request: gr.Request | None, origin: str, objective: str, dataset: str | None, uploaded: str | None,
          pasted: str, fetched: str) -> Source:  # fmt: skip
    """The chosen source. Raises ValueError that says what is missing."""
    if origin == PASTE:
        if not (pasted or "").strip():
            raise ValueError(
                "Paste rows first: JSON, JSON lines, CSV or TSV with column names, or plain text."
            )
        return Source(PASTE, "the pasted text", pasted)
    if origin == FILE:
        if not uploaded:
            raise ValueError("Drop a file first: JSON, JSON lines, CSV, TSV, Parquet or plain text.")
        path = Path(uploaded)
    elif origin == HUB:
        try:
            said = json.loads(fetched or "")
            repo, revision, file = str(said["repo"]), str(said["revision"]), str(said["file"])
        except (ValueError, KeyError, TypeError):
            raise ValueError(
                "Enter the id of a dataset of the Hub, look at its files and fetch one."
            ) from None
        path = hub.present(hub.DATASETS + hub.checked_repo(repo), revision, file, owner(request))
    else:
        if not dataset:
            raise ValueError("There is no dataset for this objective yet: bring rows of your own.")
        path = corpora.path(dataset) if objective == "pretrain" else corpora.row_path(dataset)
    if not path.is_file():
        raise ValueError("The file is no longer there: choose it again.")
    title = dataset if origin not in (FILE, HUB) else path.name
    return Source(origin, str(title), str(path), path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=4)
def table(source: Source) -> rows.Table:
    """The table of a source. Raises ValueError with the place where it breaks."""
    if source.origin == PASTE:
        return rows.read(source.place)
    limit = prompts.LARGEST if source.origin == ABOVE else None
    return rows.read(Path(source.place), name=Path(source.place).name if source.own else "", limit=limit)


@functools.lru_cache(maxsize=8)
def checked(source: Source, kind: str, columns: tuple[tuple[str, str], ...]) -> rows.Checked:
    """Its rows as training takes them, of this kind ("" for the recognised one) and from these columns."""
    return rows.check(table(source), kind, dict(columns))


def looked_at(
    source: Source, objective: str, kind: str | None, columns: Sequence[str | None]
) -> rows.Checked:
    """The checked rows of a source: of the dataset above as a run takes them, of one's own as the page says."""
    if source.own:
        chosen = kind or rows.kind_of(table(source))
        named = list(rows.KINDS[chosen].fields) if chosen in rows.KINDS else []
        fits = all(not column or column in table(source).columns for column in columns)
        mapped = tuple(zip(named, ((column or "") for column in columns))) if kind and fits else ()
        return checked(source, chosen, mapped)
    if objective == "pretrain":
        return checked(source, "text", ())
    kinds, own = prompts.KINDS[objective], rows.kind_of(table(source))
    return checked(source, own if own in kinds else kinds[0], ())


def settled(seen: rows.Checked) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Kind and columns that `checked` is to be asked with for the same rows; nothing of it is guessed again."""
    return seen.kind, tuple((field, seen.columns.get(field, "")) for field in rows.KINDS[seen.kind].fields)


# ---- What is in them ---------------------------------------------------------------------------------------------


def opened(request: gr.Request, *source: Any) -> list[Any]:
    """The kind that is recognised in a source, and which column is what: for the dropdowns."""
    try:
        place = found(request, *source)
        kind = rows.kind_of(table(place)) if place.own else ""
    except ValueError:
        return mapping(None, "", {}, False)
    return mapping(table(place), kind, rows.guess(table(place), kind) if kind else {}, place.own)


def mapping(read: rows.Table | None, kind: str, columns: dict[str, str], shown: bool) -> list[Any]:
    """The dropdown of the kind and those of its fields, for a table."""
    choices = [("not used", ""), *((name, name) for name in (read.columns if read else ()))]
    fields = list(rows.KINDS[kind].fields.items()) if kind else []
    boxes: list[Any] = []
    for place in range(FIELDS):
        if place >= len(fields) or not shown:
            boxes.append(gr.update(visible=False, value="", choices=choices))
            continue
        name, field = fields[place]
        label = f"{name}: {field.about}" + ("" if field.required else " (optional)")
        boxes.append(gr.update(visible=True, label=label, choices=choices, value=columns.get(name, "")))
    return [gr.update(value=kind, visible=shown and read is not None), *boxes]


def remapped(request: gr.Request, kind: str, *source: Any) -> list[Any]:
    """The dropdowns of the fields when a person says of which kind the rows are."""
    try:
        read = table(found(request, *source))
    except ValueError:
        return mapping(None, "", {}, False)[1:]
    kind = kind if kind in rows.KINDS else ""
    return mapping(read, kind, rows.guess(read, kind) if kind else {}, True)[1:]


def drawn(request: gr.Request, *asked: Any) -> list[Any]:
    """What is in the rows: summary, remarks, split, rows left out, their download, and the button that keeps the rows."""
    source, (kind, drop, validation, test, *columns) = asked[:6], asked[6:]
    try:
        place = found(request, *source)
        seen = looked_at(place, source[1], kind, columns)
        read = table(place)
        good = kept_rows(seen, place, drop)
        whole = seen.kind == "text" and not place.own  # a text is cut by tokens, not by documents
        parts, notes = ({}, []) if whole else split_of(place, seen.kind, good, validation, test)
    except ValueError as error:
        note = "note" if not ready_to_read(source) else "error"
        return [message(str(error), note), "", "", "", gr.update(visible=False), gr.update(interactive=False)]
    dropped = len(seen.good) - len(good)
    title = rows.KINDS[seen.kind].title
    remarks = [*seen.notes, *notes, *([f"{dropped:,} repeated rows are left out."] if dropped else [])]
    sizes = {name: len(part) for name, part in parts.items()}
    return [
        figures.summary(place.title, read.form, title, len(good), len(seen.rejected), seen.columns),
        figures.said(remarks, seen.problems),
        figures.split(sizes, rows.leaks(parts)) if parts else "",
        figures.rejected(seen.rejected),
        gr.update(visible=bool(seen.rejected), value=rejected_file(read, seen) if seen.rejected else None),
        gr.update(interactive=place.own and not seen.problems),
    ]


def ready_to_read(source: Sequence[Any]) -> bool:
    """Whether there is anything to read: an empty box is no error."""
    origin, _, _, uploaded, pasted, fetched = source
    return {FILE: bool(uploaded), PASTE: bool((pasted or "").strip()), HUB: bool(fetched)}.get(origin, True)


def kept_rows(seen: rows.Checked, place: Source, drop: bool) -> list[dict[str, Any]]:
    """The good rows, without those that were said before where that is wished."""
    return rows.without_repeats(seen.good) if drop and place.own else seen.good


def split_of(
    place: Source, kind: str, good: list[dict[str, Any]], validation: Any, test: Any
) -> tuple[dict[str, list[dict[str, Any]]], list[str]]:
    """The parts of the rows, and remarks: of one's own by the shares, of the dataset above as a run cuts it."""
    if place.own:
        shares = {"validation": _share(validation, "Validation"), "test": _share(test, "Test")}
    else:
        share = defaults(OBJECTIVE[kind]).train.validation_fraction
        shares = {"validation": share, "test": min(0.1, (1 - share) / 2)}
    made = rows.split(good, {"train": 1 - sum(shares.values()), **shares})
    return made.parts, made.notes


def _share(value: Any, name: str) -> float:
    """A share from 0 to 0.5. Raises ValueError with one sentence."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 0.5:
        raise ValueError(f"{name} is a share of the rows from 0 to 0.49, not {str(value)[:20]}.")
    return float(value)


def rejected_file(read: rows.Table, seen: rows.Checked) -> str:
    """The path of a file with the rows left out; the same content is the same file."""
    text = rows.rejected_lines(read, seen.rejected)
    place = Path(tempfile.gettempdir()) / f"llm-lab-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    place.mkdir(exist_ok=True)
    path = place / "rejected-rows.jsonl"
    with paths.replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return str(path)


def repeated(request: gr.Request, *asked: Any) -> str:
    """Duplicates, near ones and contradictions among the good rows."""
    source, (kind, *columns) = asked[:6], asked[6:]
    try:
        place = found(request, *source)
        if not place.own and source[1] == "pretrain":
            return ""
        again, total = _repeats(place, *settled(looked_at(place, source[1], kind, columns)))
    except ValueError:
        return ""
    return figures.repeats(again.exact, again.near, again.contradictions, again.compared, total)


@functools.lru_cache(maxsize=8)
def _repeats(place: Source, kind: str, columns: tuple[tuple[str, str], ...]) -> tuple[rows.Repeats, int]:
    """`rows.repeats`, and of how many rows."""
    good = checked(place, kind, columns).good
    return rows.repeats(good), len(good)


# ---- How long they are for a model -------------------------------------------------------------------------------


def run_of(
    objective: str, model: str | None, dataset: str | None, style: str, mask: bool, packing: bool, length: Any
) -> RunConfig:
    """A run with what stands above the rooms, all else as the objective is best begun. Raises ValueError."""
    if not model:
        raise ValueError("Choose a model to start from.")
    opening = defaults(objective if objective in DEFAULTS else "instruct")
    most = int(length) if isinstance(length, (int, float)) and not isinstance(length, bool) else 0
    tune = replace(
        opening.tune, prompt_style=style or "plain", mask_prompt=bool(mask), max_length=max(most, 0),
        packing=bool(packing) and objective == "instruct",
    )  # fmt: skip
    return replace(opening, start_from=model, dataset=dataset or "", tune=tune)


def limits(config: RunConfig) -> tuple[int, int]:
    """Tokens that are read of a row at most, and the model's context."""
    context = tuning.plans.shape_of(config.start_from).context_length
    return min(config.tune.max_length or context, context), context


def written_whole(place: Source, seen: rows.Checked, config: RunConfig) -> tuple[prompts.Manner, list[Any]]:
    """Every good row as `prompts` writes it for the model, nothing cut; rows that cannot be written are missing."""
    folder = paths.model_folder(config.start_from)
    changed = (folder / "config.json").stat().st_mtime_ns
    return _whole(
        place, *settled(seen), OBJECTIVE[seen.kind], config.start_from, changed, config.tune.prompt_style
    )


@functools.lru_cache(maxsize=4)
def _whole(
    place: Source, kind: str, columns: tuple[tuple[str, str], ...], objective: str, model: str, changed: int, style: str
) -> tuple[prompts.Manner, list[Any]]:  # fmt: skip
    folder = paths.model_folder(model)
    encoding = tokenizer.load(folder)
    manner = prompts.manner(style, folder, encoding)
    good = checked(place, kind, columns).good
    labels = rows.labels(good) if objective == "classify" else []
    made, _, _ = prompts.READERS[objective](good, manner, encoding, WHOLE, labels)
    return manner, made


def tokens_read(example: Any) -> int:
    """Inputs that a row has: in classification all of its tokens, else all but the last, which is only a target."""
    longest = max(map(len, example.texts))
    return longest if example.label >= 0 else longest - 1


def measured(request: gr.Request, model: str, style: str, length: Any, *asked: Any) -> list[str]:
    """Lengths of the rows against the context, and what the limit does to which rows."""
    source, (kind, *columns) = asked[:6], asked[6:]
    try:
        place = found(request, *source)
        seen = looked_at(place, source[1], kind, columns)
    except ValueError:  # said above, where the rows are summed up
        return ["", ""]
    if seen.kind == "text":
        return [message(NO_PICTURE), ""]
    try:
        config = run_of(source[1], model, source[2], style, True, False, length)
        most, context = limits(config)
        _, made = written_whole(place, seen, config)
    except ValueError as error:
        return [message(str(error), "warning"), ""]
    long = {example.row: n for example in made if (n := tokens_read(example)) > most}
    nothing_left = {
        example.row: f"its prompt alone fills the {most:,} tokens: no token of the answer is left"
        for example in made
        if example.label < 0 and any(not text.answer[1 : most + 1].any() for text in example.texts)
    }
    cut = [(row, n, most) for row, n in long.items() if row not in nothing_left]
    return [
        figures.lengths([tokens_read(example) for example in made], most, context),
        figures.truncated(cut, len(cut), most, list(nothing_left.items())),
    ]


# ---- One row -----------------------------------------------------------------------------------------------------


def row_drawn(request: gr.Request, model: str, style: str, length: Any, number: Any, *asked: Any) -> str:
    """The row of this number, token by token, as the model will read it; or why it is left out."""
    source, (kind, *columns) = asked[:6], asked[6:]
    try:
        seen = looked_at(found(request, *source), source[1], kind, columns)
    except ValueError:  # said above, where the rows are summed up
        return ""
    try:
        number = int(number or 1)
        row = next((row for row in seen.good if row["row"] == number), None)
        if row is None:
            reasons = dict(seen.rejected)
            last = max([0, *reasons, *(row["row"] for row in seen.good)])
            why = (
                f"is left out: {reasons[number]}"
                if number in reasons
                else f"is not there: rows end at {last:,}"
            )
            return message(f"Row {number:,} {why}.", "warning")
        config = run_of(source[1], model, source[2], style, True, False, length)
        return _row_picture(row, seen, config)
    except ValueError as error:
        return message(str(error), "warning")


def _row_picture(row: dict[str, Any], seen: rows.Checked, config: RunConfig) -> str:
    folder = paths.model_folder(config.start_from)
    encoding = tokenizer.load(folder)
    most, _ = limits(config)
    title = f"Row {row['row']:,}"
    if seen.kind in ("classification", "text"):
        begin = chat.read(folder).begin_id
        ids, _ = prompts.text_ids(row["text"], encoding, WHOLE, begin)
        read = min(len(ids), most) - 1 if seen.kind == "classification" else -1
        tokens = [
            (_shown(encoding, id), "read" if place == read else "user", False)
            for place, id in enumerate(ids[:LONGEST_SHOWN])
        ]
        if seen.kind == "text":
            return message(NO_PICTURE) + figures.written(title, tokens)
        return figures.legend(("user", "read")) + figures.written(f"{title}: {row['label']}", tokens, most)
    manner = prompts.manner(config.tune.prompt_style, folder, encoding)
    sides = ("chosen", "rejected") if seen.kind == "preference" else ("output",)
    pictures = [
        figures.written(
            title if side == "output" else f"{title}, {side}",
            prompts.coloured(manner, encoding, prompts.conversation(row, manner.joint, side))[:LONGEST_SHOWN],
            most + 1,
        )
        for side in sides
    ]
    return figures.legend() + f"<div class='ft-sides'>{''.join(pictures)}</div>"


def _shown(encoding: tokenizer.Tokenizer, id: int) -> str:
    return encoding.token_bytes(id).decode("utf-8", "backslashreplace")


def stepped(request: gr.Request, by: int, number: Any, *asked: Any) -> int:
    """The number of the next row that is there, forwards or backwards; around at the ends."""
    source, (kind, *columns) = asked[:6], asked[6:]
    seen = looked_at(found(request, *source), source[1], kind, columns)
    numbers = sorted([row["row"] for row in seen.good] + [row for row, _ in seen.rejected])
    number = int(number or 1)
    later = [n for n in numbers if n > number] or numbers[:1]
    earlier = [n for n in numbers if n < number] or numbers[-1:]
    return later[0] if by > 0 else earlier[-1]


def one_back(request: gr.Request, number: Any, *asked: Any) -> int:
    """The row before."""
    return stepped(request, -1, number, *asked)


def one_on(request: gr.Request, number: Any, *asked: Any) -> int:
    """The row after."""
    return stepped(request, 1, number, *asked)


# ---- A batch -----------------------------------------------------------------------------------------------------


def batch_drawn(
    objective: str, model: str, dataset: str, style: str, mask: bool, packing: bool, length: Any, number: Any
) -> str:
    """A batch of the dataset above as the run's first steps get it: ids, targets, masks and filling."""
    if objective == "pretrain":
        return message(NO_PICTURE)
    try:
        config = run_of(objective, model, dataset, style, mask, packing, length)
        if not dataset:
            raise ValueError("Choose a dataset above.")
        examples = tuning.examples_of(config)
        return _batch_picture(config, examples, int(number or 1))
    except ValueError as error:
        return message(str(error), "warning")


def picked(config: RunConfig, examples: prompts.Examples, step: int) -> list[Any]:
    """The rows of batch `step`, as a run of these settings picks them."""
    learned, train = examples.parts["train"], config.train
    batches = data.Batches(
        len(learned), min(train.batch_size, len(learned)), train.shuffle, train.seed, train.drop_last
    )
    longest = [max(map(len, example.texts)) for example in learned]
    drawn = batches.numbers(step) if config.tune.packing else data.alike(batches, longest, step)
    return [learned[place] for place in drawn]


def _batch_picture(config: RunConfig, examples: prompts.Examples, number: int) -> str:
    encoding = tokenizer.load(paths.model_folder(config.start_from))
    chosen = picked(config, examples, max(number, 1) - 1)
    pad_id = encoding.eot_id or 0
    if config.objective == "classify":
        lines, n_texts, said = _class_lines(chosen, examples.labels, pad_id)
    elif config.tune.packing:
        most = max(len(example.texts[0]) for example in examples.parts["train"]) - 1
        lines, n_texts, said = _packed_lines(config, chosen, pad_id, most)
    else:
        lines, n_texts, said = _answer_lines(config, chosen, pad_id)
    ids = {int(id) for line in lines for id in (*line.inputs, *line.targets)} - {prompts.IGNORED}
    texts = {id: _shown(encoding, id) for id in ids}
    listed = ", ".join(f"{example.row:,}" for example in chosen)
    return figures.batch(
        lines, texts, n_texts, f"Batch {max(number, 1):,} is rows {listed}. {said}", encoding.eot_id
    )


def _answer_lines(config: RunConfig, chosen: list[Any], pad_id: int) -> tuple[list[figures.Line], int, str]:
    """Texts of answers with their targets: one a row, or the chosen and the rejected one."""
    texts = [text for example in chosen for text in example.texts]
    pairs = config.objective == "prefer"
    names = [
        f"Row {example.row:,}" + (f", {side}" if pairs else "")
        for example in chosen
        for side in (("chosen", "rejected") if pairs else ("",))
    ]
    inputs, targets = prompts.padded(texts, pad_id, pairs or config.tune.mask_prompt)
    lines = [
        figures.Line(name, x.tolist(), y.tolist(), len(text) - 1)
        for name, x, y, text in zip(names[:DRAWN], inputs, targets, texts)
    ]
    return lines, len(texts), _counted(targets, texts)


def _counted(targets: np.ndarray, texts: list[Any]) -> str:
    """What the places of a batch are for."""
    learned, filled = int((targets != prompts.IGNORED).sum()), targets.size - sum(len(t) - 1 for t in texts)
    return (
        f"Of {targets.size:,} places {learned:,} count for the loss, {filled:,} are filled up and the other "
        f"{targets.size - learned - filled:,} belong to prompts: there the target is {prompts.IGNORED}."
    )


def _packed_lines(
    config: RunConfig, chosen: list[Any], pad_id: int, most: int
) -> tuple[list[figures.Line], int, str]:
    """Rows end to end; where one begins nothing before it is seen, and its positions count from 0."""
    texts = [example.texts[0] for example in chosen]
    inputs, targets, _ = prompts.packed(texts, pad_id, config.tune.mask_prompt, most)
    apart, lines = prompts.padded(texts, pad_id)[0].size, []
    for line, numbers in enumerate(prompts.shared_lines(texts, most)):
        ends = np.cumsum([len(texts[number]) - 1 for number in numbers]).tolist()
        title = "Rows " + ", ".join(f"{chosen[number].row:,}" for number in numbers)
        lines.append(
            figures.Line(
                title, inputs[line].tolist(), targets[line].tolist(), ends[-1], begins=(0, *ends[:-1])
            )
        )
    said = (
        f"They lie in {len(lines)} lines, each row seeing only itself from where it begins (position 0, a bar at its left); "
        f"apart they would take {apart:,} places. {_counted(targets, texts)}"
    )
    return lines[:DRAWN], len(lines), said


def _class_lines(chosen: list[Any], labels: list[str], pad_id: int) -> tuple[list[figures.Line], int, str]:
    """Texts to classify, filled up to the longest; the head reads the vector of each one's last token."""
    width = max(len(example.texts[0]) for example in chosen)
    lines = []
    for example in chosen[:DRAWN]:
        ids, n = np.full(width, pad_id), len(example.texts[0])
        ids[:n] = example.texts[0].ids
        asked = f"The head reads place {n - 1}, the last token before it is filled up, and is to say {labels[example.label]}."
        lines.append(figures.Line(f"Row {example.row:,}", ids.tolist(), (), n, asked))
    filled = sum(width - len(example.texts[0]) for example in chosen)
    return (
        lines,
        len(chosen),
        f"{filled:,} of {width * len(chosen):,} places are filled up; nothing reads them.",
    )


# ---- Bringing and keeping ----------------------------------------------------------------------------------------


def places(origin: str) -> list[Any]:
    """Show what belongs to the chosen origin: file, paste, Hub, and what is said of one's own rows."""
    return [gr.update(visible=origin == one) for one in (FILE, PASTE, HUB)] + [
        gr.update(visible=origin != ABOVE)
    ]


def listed_on_hub(repo: str, token: str) -> list[Any]:
    """The files of a dataset of the Hub: choices, and what is said of it."""
    try:
        name, revision = hub.parse(hub.rows_id(repo or ""))
        about = hub.rows_info(name, revision, token or "")
    except ValueError as error:
        return [gr.update(visible=False), message(str(error), "error"), gr.update(interactive=False)]
    choices = [(f"{file['name']} ({size(file['size'])})", file["name"]) for file in about["files"]]
    gate = " It is gated: a token of an account that accepted its terms is needed." if about["gated"] else ""
    licence = f" Licence: {about['licence']}." if about["licence"] else " It names no licence."
    told = f"{about['id']} has {len(choices)} files that can be read here.{licence}{gate}"
    return [
        gr.update(choices=choices, value=choices[0][1], visible=True),
        message(told),
        gr.update(interactive=True),
    ]


@plain_errors
def fetch(request: gr.Request, repo: str, file: str, token: str) -> Iterator[list[Any]]:
    """Fetch one file of a dataset of the Hub; yields what is told meanwhile, then where it is. Raises ValueError."""
    name, revision = hub.parse(hub.rows_id(repo or ""))
    last = 0.0
    for what, done, total in hub.download_rows(
        name, str(file), revision, token or "", owner(request), files.upload_limit()
    ):
        if time.monotonic() - last > 0.3:
            last = time.monotonic()
            yield [message(f"{what}: {size(done)} of {size(total)}"), gr.skip()]
    yield [message(f"{file} is here."), json.dumps({"repo": name, "revision": revision, "file": str(file)})]


def keep(request: gr.Request, name: str, *asked: Any) -> list[Any]:
    """Store the rows with the split that is shown, and choose them above: objective, dataset, origin, what is told.

    Raises ValueError when there are none, or they cannot be trained on.
    """
    source, (kind, drop, validation, test, *columns) = asked[:6], asked[6:]
    place = found(request, *source)
    if not place.own:
        raise ValueError(
            "These rows are kept already: choose a file, paste rows, or fetch some from the Hub."
        )
    seen = looked_at(place, source[1], kind, columns)
    if seen.problems:
        raise ValueError(seen.problems[0])
    refuse_full()
    good = kept_rows(seen, place, drop)
    wish = name.strip() or Path(place.title).stem
    if seen.kind == "text":
        kept = brought(files.save_upload(f"\n{tables.SEPARATOR}\n".join(row["text"] for row in good), wish))
        choices = pickers.dataset_names()
    else:
        parts, _ = split_of(place, seen.kind, good, validation, test)
        part_of = {row["row"]: part for part, members in parts.items() for row in members}
        kept = brought(rows.keep([{**row, "split": part_of[row["row"]]} for row in good], wish))
        choices = [
            one for one in pickers.row_names() if OBJECTIVE.get(kind_of_rows(one)) == OBJECTIVE[seen.kind]
        ]
    told = f"{len(good):,} rows are kept as {kept} and chosen above" + (
        f"; the {len(seen.rejected):,} left out are in the download below." if seen.rejected else "."
    )
    return [OBJECTIVE[seen.kind], gr.update(value=kept, choices=choices), message(told)]


# ---- The page ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bench:
    """The widgets of the left column."""

    origin: gr.Radio
    uploaded: gr.File
    pasted: gr.Textbox
    fetched: gr.Textbox
    kind: gr.Dropdown
    columns: list[gr.Dropdown]
    drop: gr.Checkbox
    validation: gr.Number
    test: gr.Number
    name: gr.Textbox
    keep: gr.Button
    told: gr.HTML

    @property
    def mapped(self) -> list[gr.components.Component]:
        return [self.kind, *self.columns]

    @property
    def choices(self) -> list[gr.components.Component]:
        return [self.kind, self.drop, self.validation, self.test, *self.columns]


QUIET: dict[str, Any] = dict(api_visibility="private", show_progress="hidden", queue=False)


def column_box(place: int) -> gr.Dropdown:
    """The dropdown that says which column is the field at this place of the chosen kind."""
    return Choice(
        [("not used", "")], value="", label="-", visible=False, interactive=True, allow_custom_value=True, min_width=130,
        elem_id=f"rows-column-{place}",
    )  # fmt: skip


def build_hub(view: View, limit: str) -> tuple[gr.Column, gr.Textbox]:
    """The widgets that bring a file of the Hub, and wire them: their column, and the box that says what was fetched."""
    with gr.Column(visible=False) as column:
        repo = gr.Textbox(
            label="Dataset of the Hub", placeholder="ORGANISATION/NAME", max_lines=1, elem_id="rows-hub"
        )
        token = gr.Textbox(
            label="Your token, for gated or private ones only (used once, not kept)", type="password", max_lines=1,
            elem_id="rows-hub-token",
        )  # fmt: skip
        see = gr.Button("Look at its files", size="sm", elem_id="rows-hub-look")
        file = Choice(
            [], label=f"Which file; {limit}", visible=False, allow_custom_value=True, interactive=True,
            elem_id="rows-hub-file",
        )  # fmt: skip
        get = gr.Button("Fetch it", size="sm", interactive=False, elem_id="rows-hub-fetch")
        state = gr.HTML(padding=False, elem_id="rows-hub-told")
        fetched = gr.Textbox(
            label="What was fetched", elem_id="rows-fetched"
        )  # out of sight by the style sheet
    view.keep("rows-hub", repo)
    gr.on(
        [see.click, repo.submit], listed_on_hub, [repo, token], [file, state, get], api_visibility="private",
        show_progress="hidden", concurrency_id="looks",
    )  # fmt: skip
    get.click(
        fetch, [repo, file, token], [state, fetched], api_visibility="private", show_progress="hidden",
        concurrency_id="downloads", concurrency_limit=2,
    )  # fmt: skip
    return column, fetched


def build_mapping() -> tuple[gr.Dropdown, list[gr.Dropdown]]:
    """The dropdowns of the kind and of its fields."""
    kind = Choice(
        [("not recognised: choose one", ""), *((kind.title, name) for name, kind in rows.KINDS.items())], value="",
        label="Kind of rows", visible=False, interactive=True, elem_id="rows-kind",
    )  # fmt: skip
    columns: list[gr.Dropdown] = []
    for first in range(0, FIELDS, 2):
        with gr.Row():
            columns += [column_box(place) for place in range(first, min(first + 2, FIELDS))]
    return kind, columns


def build_source(view: View) -> Bench:
    """Lay out where rows come from, which column is what, and how they are kept."""
    limit = f"at most {size(files.upload_limit())} and {tables.MOST_ROWS:,} rows"
    origin = gr.Radio(
        [(title, name) for name, title in ORIGINS.items()],
        value=ABOVE,
        label="Rows from",
        elem_id="rows-from",
    )
    uploaded = gr.File(
        label=f"JSON, JSON lines, CSV, TSV, Parquet or plain text; {limit}", type="filepath", height=130, visible=False,
        elem_id="rows-file",
    )  # fmt: skip
    pasted = gr.Textbox(
        PASTED, label=f"Rows; at most {size(BODY_LIMIT)}, more as a file", lines=8, max_lines=16, visible=False,
        elem_id="rows-paste",
    )  # fmt: skip
    from_hub, fetched = build_hub(view, limit)
    kind, columns = build_mapping()
    with gr.Column(visible=False) as own:
        drop = gr.Checkbox(
            False, label="Leave out repeated rows", info="Equal but for case and blanks; the first stays.",
            elem_id="rows-drop",
        )  # fmt: skip
        with gr.Row():
            validation = gr.Number(
                0.05, label="Validation share", step=0.01, min_width=100, elem_id="rows-validation"
            )
            test = gr.Number(0.1, label="Test share", step=0.01, min_width=100, elem_id="rows-test")
        name = gr.Textbox("my-rows", label="Name", max_lines=1, elem_id="rows-name")
        kept = gr.Button("Keep these rows and choose them above", variant="primary", elem_id="rows-keep")
    told = gr.HTML(padding=False, elem_id="rows-told")
    shown = [uploaded, pasted, from_hub, own]
    origin.change(places, origin, shown, **QUIET)
    view.keep("rows-from", origin)
    view.on_load(places, shown, origin)
    return Bench(origin, uploaded, pasted, fetched, kind, columns, drop, validation, test, name, kept, told)


@dataclass(frozen=True)
class Seen:
    """What shows the rows as a whole: summary, remarks, split, lengths, repeats, those left out and their download."""

    summary: gr.HTML
    remarks: gr.HTML
    split: gr.HTML
    lengths: gr.HTML
    again: gr.HTML
    out: gr.HTML
    download: gr.DownloadButton


def build_seen() -> Seen:
    """Lay out what shows the rows as a whole."""
    summary = gr.HTML(padding=False, elem_id="rows-summary")
    remarks = gr.HTML(padding=False, elem_id="rows-remarks")
    parts = gr.HTML(padding=False, elem_id="rows-split")
    lengths = gr.HTML(padding=False, elem_id="rows-lengths", min_height=60)
    with gr.Accordion("Rows that say the same", open=False, elem_classes="lab-quiet"):
        again = gr.HTML(padding=False, elem_id="rows-repeats")
    with gr.Accordion("Rows left out", open=False, elem_classes="lab-quiet"):
        out = gr.HTML(padding=False, elem_id="rows-rejected")
        download = gr.DownloadButton(
            "Download them with the reasons (JSON lines)", visible=False, size="sm", elem_id="rows-download"
        )
    show_code(
        "llm.rows:kind_of", "llm.rows:guess", "llm.rows:check", "llm.rows:split", "llm.rows:leaks", "llm.duplicates:near"
    )  # fmt: skip
    return Seen(summary, remarks, parts, lengths, again, out, download)


def stepper(name: str, noun: str) -> tuple[gr.Button, gr.Number, gr.Button]:
    """A number with a button on either side: (back, number, on)."""
    with gr.Row(elem_classes="ft-step"):
        back = gr.Button(f"{noun} before", size="sm", min_width=90, elem_id=f"{name}-back")
        number = gr.Number(
            1, label=noun, show_label=False, container=False, precision=0, minimum=1, min_width=80, elem_id=f"{name}-number"
        )  # fmt: skip
        on = gr.Button(f"Next {noun.lower()}", size="sm", min_width=90, elem_id=f"{name}-on")
    return back, number, on


def build_row(view: View, shared: Any, source: list[Any], mapped: list[Any]) -> None:
    """Lay out the picture of one row and wire it."""
    section("One row, as the model reads it", "Every token coloured by whose words it is.")
    back, number, on = stepper("rows-row", "Row")
    picture = gr.HTML(padding=False, elem_id="rows-one")
    show_code("llm.prompts:conversation", "llm.prompts:_cut", "llm.prompts:_put", "llm.prompts:coloured")
    view.keep("rows-row", number)
    asked = [*source, *mapped]
    seen = [shared.model, shared.style, shared.max_length, number, *asked]
    gr.on([box.change for box in seen], row_drawn, seen, picture, trigger_mode="always_last", **QUIET)
    back.click(plain_errors(one_back), [number, *asked], number, **QUIET)
    on.click(plain_errors(one_on), [number, *asked], number, **QUIET)
    view.on_load(row_drawn, picture, seen)


def build_batch(view: View, shared: Any) -> gr.HTML:
    """Lay out the picture of a batch and wire it; returns the place that says what the limit cuts off."""
    section(
        "A batch, as training gets it",
        "Of the dataset above. Under each token stands what the model is asked for there: -100 where nothing is.",
    )
    back, number, on = stepper("rows-batch", "Batch")
    picture = gr.HTML(padding=False, elem_id="rows-batch", min_height=60)
    with gr.Accordion("What the limit cuts off", open=False, elem_classes="lab-quiet"):
        cut = gr.HTML(padding=False, elem_id="rows-cut")
    show_code(
        "llm.prompts:padded", "llm.prompts:packed", "llm.prompts:shared_lines", "llm.prompts:lines", "llm.prompts:_shortened",
        "llm.data:alike", "llm.data:Batches",
    )  # fmt: skip
    view.keep("rows-batch", number)
    asked = [*shared.form, number]
    gr.on([box.change for box in asked], batch_drawn, asked, picture, trigger_mode="always_last", **QUIET)
    back.click(lambda n: max(int(n or 1) - 1, 1), number, number, **QUIET)
    on.click(lambda n: int(n or 0) + 1, number, number, **QUIET)
    view.on_load(batch_drawn, picture, asked)
    return cut


def build(view: View, shared: Any) -> None:
    """Lay out the room and wire it."""
    intro(
        "Rows of questions and answers, how a model reads them, and which of their tokens it learns.",
        "Take another prompt style and watch the row below; then let it learn the prompts too and look at the batch.",
    )
    with gr.Row(elem_classes="ft-bench"):
        with gr.Column(scale=4, min_width=300):
            bench = build_source(view)
        with gr.Column(scale=7, min_width=320):
            seen = build_seen()
    source = [bench.origin, shared.objective, shared.dataset, bench.uploaded, bench.pasted, bench.fetched]
    about = [*source, *bench.choices]
    sums = [seen.summary, seen.remarks, seen.split, seen.out, seen.download, bench.keep]
    view.on_load(opened, bench.mapped, source)
    view.on_load(drawn, sums, about)
    build_row(view, shared, source, bench.mapped)
    cut = build_batch(view, shared)
    wire(view, shared, bench, source, sums, [seen.lengths, cut], seen.again)
    bench.keep.click(
        plain_errors(keep), [bench.name, *about], [shared.objective, shared.dataset, bench.told], **QUIET
    ).success(lambda: ABOVE, None, bench.origin, **QUIET)


def wire(
    view: View, shared: Any, bench: Bench, source: list[Any], sums: list[Any], lengths: list[Any], again: gr.HTML
) -> None:  # fmt: skip
    """Draw what is in the rows when their source or the mapping changes; what takes seconds comes after."""
    latest = dict(trigger_mode="always_last", **QUIET)
    slow = dict(api_visibility="private", show_progress="hidden", concurrency_id="rows", concurrency_limit=2)
    about, asked = [*source, *bench.choices], [*source, *bench.mapped]
    sized = [shared.model, shared.style, shared.max_length, *asked]
    changed = gr.on([box.change for box in source], opened, source, bench.mapped, **latest)
    kind = bench.kind.input(remapped, [bench.kind, *source], bench.columns, **QUIET)
    edits = [box.input for box in (*bench.columns, bench.drop, bench.validation, bench.test)]
    for summed in (
        changed.then(drawn, about, sums, **QUIET),
        kind.then(drawn, about, sums, **QUIET),
        gr.on(edits, drawn, about, sums, **latest),
    ):
        summed.then(measured, sized, lengths, **slow).then(repeated, asked, again, **slow)
    gr.on(
        [shared.model.change, shared.style.change, shared.max_length.change], measured, sized, lengths,
        trigger_mode="always_last", **slow,
    )  # fmt: skip
    view.on_load(measured, lengths, sized, slow=True)
    view.on_load(repeated, again, asked, slow=True)
