"""Windows: how a text becomes rows of inputs and targets, the split, the batches; by the functions that train."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import gradio as gr

from llm.config import ModelConfig, TrainConfig
from ui import pickers
from ui.figures import windows as figures
from ui.figures.base import message
from ui.owner import brought, refuse_full
from ui.parts import intro, plain_errors, section, show_code
from ui.view import View

PASTED, DATASET = "Pasted text", "Dataset"
EXAMPLE = (
    "The fox found a red kite in the tall grass. She ran up the hill and let the wind take it.\n"
    'Up and up it flew, and the fox laughed. "Come back when you are tired," she said. The kite did, at tea time.\n'
)
PAGE = 320  # tokens of the text on screen at once
LONGEST_PASTE = 50_000  # characters: what is encoded anew at every change
SCRIPT = Path(__file__).parent.parent / "js" / "windows.js"
FIRST = dict(context=8, stride=8, batch=2, share=0.35)  # the worked example, small enough to see whole


@dataclass(frozen=True)
class Look:
    """A text as training would cut it: the settings checked, the ids, both parts, the batches."""

    encoding: Any  # llm.tokenizer.Tokenizer
    text: Any  # llm.data.Text
    train: Any  # llm.data.AnyWindows
    validation: Any  # llm.data.AnyWindows
    begin: str
    batches: Any  # llm.data.Batches
    validation_batches: Any  # llm.data.Batches

    def part_of(self, position: int) -> tuple[Any, int]:
        """The windows of the part that the token at `position` is in, and where that part begins."""
        n = len(self.train.ids)
        return (self.train, 0) if position < n else (self.validation, n)


def look(
    source: str,
    text: str,
    dataset: str,
    encoding: str,
    context: int,
    stride: int,
    batch: int,
    shuffle: bool,
    seed: int,
    drop_last: bool,
    share: float,
    begin: str = "stride",
) -> Look:
    """Read and cut the text. Raises ValueError with a sentence for a setting or a text that cannot be used."""
    from llm import data

    context, stride, batch, seed = (
        _whole(value, name)
        for value, name in (
            (context, "context length"),
            (stride, "stride"),
            (batch, "batch size"),
            (seed, "seed"),
        )
    )
    if stride < 1:
        raise ValueError(
            f"A stride of {stride} never moves forward: choose 1 or more. {context} cuts the text into windows side by side."
        )
    if share is None:
        raise ValueError("Fill in the validation share: 0 keeps nothing for validation.")
    settings = TrainConfig(
        batch_size=batch,
        windows=begin,
        stride=0 if begin == "documents" else stride,
        validation_fraction=share,
        shuffle=bool(shuffle),
        seed=seed,
        drop_last=bool(drop_last),
    )
    context = ModelConfig(context_length=context).context_length
    found = _read(source, text, dataset, encoding)
    train, validation = data.cut(found.text.ids, context, settings, found.encoding)
    return Look(
        found.encoding,
        found.text,
        train,
        validation,
        begin,
        data.Batches(len(train), batch, settings.shuffle, settings.seed, settings.drop_last),
        data.Batches(len(validation), batch, shuffle=False, drop_last=False),
    )


@dataclass(frozen=True)
class Found:
    """A text and the encoding that its ids are of."""

    encoding: Any
    text: Any


def _read(source: str, text: str, dataset: str, encoding: str) -> Found:
    import numpy as np

    from llm import data, tokenizer

    if source == DATASET:
        if not dataset:
            raise ValueError("Choose a dataset, or paste a text.")
        chosen = data.encoding_of(dataset, encoding)
        return Found(chosen, data.load(dataset, chosen))
    text = tokenizer.clean(text or "")
    if not text:
        raise ValueError("The text is empty: type or paste some words, or choose a dataset.")
    if len(text) > LONGEST_PASTE:
        raise ValueError(
            f"The text has {len(text):,} characters; up to {LONGEST_PASTE:,} can be looked at here. "
            "Keep it as a dataset (below the settings) or upload it as a file: those may be larger."
        )
    chosen = tokenizer.get(encoding, text)
    ids = np.fromiter(chain.from_iterable(data.encoded(text, chosen)), np.int64)
    return Found(chosen, data.Text("pasted", chosen.name, ids))


def _whole(value: float | None, name: str) -> int:
    if value is None:
        raise ValueError(f"Fill in the {name}.")
    if isinstance(value, bool) or not math.isfinite(value) or value != int(value):
        raise ValueError(f"The {name} must be a whole number, not {value}.")
    return int(value)


def facts(
    source: str,
    text: str,
    dataset: str,
    encoding: str,
    context_length: int,
    stride: int,
    batch_size: int,
    shuffle: bool,
    seed: int,
    drop_last: bool,
    validation_fraction: float,
    windows: str = "stride",
) -> dict:
    """How a text is cut into windows: tokens, windows and batches of both parts, and how many tokens are never used.

    `source` is "Pasted text" (then `text` counts) or "Dataset" (then the name `dataset`); `windows` is "stride" or
    "documents" (they begin where documents do, and `stride` is not used).
    """
    from llm import data

    found = look(
        source,
        text,
        dataset,
        encoding,
        context_length,
        stride,
        batch_size,
        shuffle,
        seed,
        drop_last,
        validation_fraction,
        windows,
    )
    train, validation = _parts(found)
    unused = train.n_tokens - data.n_used(found.train)
    return {
        "tokens": len(found.text.ids),
        "train": {"tokens": train.n_tokens, "windows": train.n_windows, "batches_per_epoch": train.n_batches},
        "validation": {
            "tokens": validation.n_tokens,
            "windows": validation.n_windows,
            "batches": validation.n_batches,
        },
        "never_inputs": unused,
        "never_targets": unused,
    }


def _parts(found: Look) -> tuple[figures.Part, figures.Part]:
    n = len(found.train.ids)
    return (
        figures.Part(n, len(found.train), found.batches.per_epoch, 0),
        figures.Part(len(found.validation.ids), len(found.validation), found.validation_batches.per_epoch, n),
    )


def remarks(found: Look) -> Iterator[str]:
    """What stands out: a text too short, no whole batch, no validation, what reading changed, document marks."""
    from llm import data

    train, validation = _parts(found)
    T, batch = found.train.context_length, found.batches.batch_size
    if not train.n_windows:
        yield (
            f"The training part has {train.n_tokens} tokens; one window of {T} needs {T + 1}. "
            "Use a longer text, a shorter context or a smaller validation share."
        )
    elif not train.n_batches:
        yield (
            f"There is no whole batch: {train.n_windows} windows and a batch of {batch}. Use a smaller batch, a "
            "shorter context or a longer text, or keep the last, smaller batch."
        )
    if not validation.n_windows:
        why = (
            "no tokens are kept for it"
            if not validation.n_tokens
            else f"{validation.n_tokens} {'token' if validation.n_tokens == 1 else 'tokens'}, and one window needs {T + 1}"
        )
        yield f"Validation loss and perplexity: n/a – no validation batch ({why})."
    elif validation.n_windows % batch:
        whole, rest = divmod(validation.n_windows, batch)
        yield (
            f"Validation has {whole} whole {'batch' if whole == 1 else 'batches'} of {batch} and one smaller of {rest}, "
            "which is kept: training leaves out its own last batch at most."
        )
    by_stride = isinstance(found.train, data.Windows)
    if by_stride and found.begin == "documents":
        yield (
            f"This text is one document: there is no <|endoftext|> in its training part, so its windows begin "
            f"every {T} tokens."
        )
    if by_stride and found.train.step > T:
        yield (
            f"The stride of {found.train.step} is longer than a window of {T}: between two windows, "
            f"{found.train.step - T} {'token is' if found.train.step - T == 1 else 'tokens are'} skipped."
        )
    yield from found.text.notes


def draw(*values: Any) -> tuple[str, str, str, str, str]:
    """All pictures: (message, summary, text, chosen token, batch) as HTML. `values` are look's, then token and step."""
    *settings, at, step = values
    try:
        found = look(*settings)
        at = _position(found, at)
        notes = "".join(
            message(note, "warning" if "n/a" in note or "needs" in note or "no whole" in note else "note")
            for note in remarks(found)
        )
        return notes, _summary(found), _laid(found, at), _chosen(found, at), _batch(found, step)
    except ValueError as error:  # shown in place of the pictures, whose numbers would be of other settings
        return message(str(error), "error"), "", "", "", ""


def _position(found: Look, at: float | None) -> int:
    n = len(found.text.ids)
    if not n:
        raise ValueError("The text has no tokens in this encoding: choose another text or encoding.")
    return min(max(int(at or 0), 0), n - 1)


def _summary(found: Look) -> str:
    from llm import data

    train, validation = _parts(found)
    unused = train.n_tokens - data.n_used(found.train)
    dropped = max(train.n_windows - train.n_batches * found.batches.batch_size, 0)
    return figures.summary(len(found.text.ids), train, validation, unused, unused, dropped)


def marks(found: Look, start: int, end: int) -> list[figures.Mark]:
    """The tokens from `start` to before `end` of the text, each with the windows over it."""
    from llm import data

    made = []
    for windows, offset in (found.part_of(0), (found.validation, len(found.train.ids))):
        low, high = max(start - offset, 0), min(end - offset, len(windows.ids))
        inputs, targets = (
            set(data.never_inputs(windows, low, high)),
            set(data.never_targets(windows, low, high)),
        )
        for p in range(low, high):
            over = data.holding(windows, p)
            begins = over[-1] if over and windows.start_of(over[-1]) == p else None
            token = found.encoding.token_bytes(int(windows.ids[p]))
            made.append(
                figures.Mark(
                    p + offset, token, over, begins, p in inputs, p in targets, windows is found.validation
                )
            )
    return made


def _laid(found: Look, at: int) -> str:
    from llm import data

    n, page = len(found.text.ids), at // PAGE * PAGE
    lanes = data.overlap(found.train)
    shown = marks(found, page, min(page + PAGE, n))
    return figures.laid(shown, lanes, at, n, len(found.train.ids), PAGE)


def _chosen(found: Look, at: int) -> str:
    from llm import data

    windows, offset = found.part_of(at)
    mark = marks(found, at, at + 1)[0]
    p = at - offset
    before = data.holding(windows, p - 1) if p else range(0)

    def token(q: int) -> bytes:
        return found.encoding.token_bytes(int(windows.ids[q]))

    return figures.chosen(
        figures.Chosen(
            mark,
            int(windows.ids[p]),
            windows.context_length,
            [(k, p - int(windows.start_of(k)), token(p + 1)) for k in mark.windows[: figures.ROWS]],
            [(k, p - 1 - int(windows.start_of(k)), token(p - 1)) for k in before[: figures.ROWS]],
            len(mark.windows),
            len(before),
            _ladder(windows, offset, p, token),
        )
    )


def _ladder(windows: Any, offset: int, p: int, token: Any) -> figures.Ladder:
    """The windows that reach into the columns around token `p` of a part."""
    from llm import data

    n, T = len(windows.ids), windows.context_length
    low = max(min(p - figures.COLUMNS // 2, n - figures.COLUMNS), 0)
    high = min(low + figures.COLUMNS, n)
    first, last = data.holding(windows, max(low - 1, 0)).start, int(windows.last_at(high - 1))
    near = {k: int(windows.start_of(k)) for k in range(first, last + 1)}
    near = {k: start for k, start in near.items() if start + T >= low}
    middle = int(windows.last_at(p)) - len(data.holding(windows, p)) // 2
    rows = sorted(sorted(near, key=lambda k: abs(k - middle))[: figures.ROWS])
    return figures.Ladder(
        [(q + offset, token(q)) for q in range(low, high)],
        [(k, near[k] + offset, near[k] + T + offset) for k in rows],
        len(near) - len(rows),
    )


def _batch(found: Look, step: float | None) -> str:
    if not found.batches.per_epoch:
        return ""
    step = max(int(step or 0), 0)
    numbers = found.batches.numbers(step)
    drawn = numbers[: figures.ROWS]
    inputs, targets = found.train.inputs_and_targets(drawn)
    epoch, place = divmod(step, found.batches.per_epoch)

    def tokens(row: Any) -> list[bytes]:
        return [found.encoding.token_bytes(int(i)) for i in row]

    rows = [
        figures.Row(int(k), int(found.train.start_of(k)), tokens(x), tokens(y))
        for k, x, y in zip(drawn, inputs, targets)
    ]
    return figures.batch(
        figures.Batch(
            step, epoch, place, found.batches.per_epoch, rows, len(numbers), found.train.context_length
        )
    )


def choose(event: gr.EventData, *values: Any) -> tuple[Any, ...]:
    """A token or a batch was chosen in a picture: (token, step, text, chosen token, batch), unchanged ones skipped."""
    *settings, at, step = values
    asked = event._data or {}
    found = look(*settings)
    if "step" in asked:
        step = max(int(asked["step"]), 0)
        return gr.skip(), step, gr.skip(), gr.skip(), _batch(found, step)
    new = _position(found, asked.get("index"))
    same_page = new // PAGE == _position(found, at) // PAGE
    return (
        new,
        gr.skip(),
        gr.skip() if same_page and not asked.get("redraw") else _laid(found, new),
        _chosen(found, new),
        gr.skip(),
    )


def keep_upload(path: str | None) -> tuple[Any, Any]:
    """An uploaded file becomes a dataset and is chosen: (source, dataset)."""
    from llm import files

    if not path:
        return gr.skip(), gr.skip()
    refuse_full(Path(path).stat().st_size)
    return _selected(brought(files.save_upload(Path(path), Path(path).name)))


def keep_paste(text: str, name: str) -> tuple[Any, Any]:
    """The pasted text becomes a dataset of that name and is chosen: (source, dataset)."""
    from llm import files

    refuse_full(len(text or ""))
    return _selected(brought(files.save_upload(text or "", name or "pasted")))


def _selected(name: str) -> tuple[Any, Any]:
    return DATASET, gr.Dropdown(choices=pickers.dataset_names(), value=name)


def shipped_stories() -> tuple[Any, ...]:
    """The settings that the Train tab opens with: (source, dataset, then those of `cut` in build_settings)."""
    from llm.config import RunConfig

    run = RunConfig()
    datasets, encodings = pickers.dataset_names(), pickers.encoding_names()
    if run.dataset not in datasets:
        raise ValueError(f"The dataset {run.dataset!r} is not here: choose another one from the list.")
    context = run.model.context_length
    return (
        DATASET,
        gr.Dropdown(choices=datasets, value=run.dataset),
        gr.Dropdown(choices=encodings, value=run.tokenizer if run.tokenizer in encodings else "gpt2"),
        context,
        run.train.stride or context,
        run.train.batch_size,
        run.train.validation_fraction,
        run.train.shuffle,
        run.train.windows,
    )


def worked_example() -> tuple[Any, ...]:
    """Back to the first example: (source, text, then those of `cut` in build_settings)."""
    return PASTED, EXAMPLE, "gpt2", *FIRST.values(), False, "stride"


def which(source: str) -> tuple[Any, Any]:
    """The widgets of the chosen source are there, those of the other one are out of sight."""
    return (
        gr.update(visible=True if source == PASTED else "hidden"),
        gr.update(visible=True if source == DATASET else "hidden"),
    )


# ---- Layout ----------------------------------------------------------------------------------------------------


def build(view: View) -> None:
    """Lay out the tab and wire it."""
    intro(
        "Training reads a text through windows. Each asks for the token after every one of its tokens.",
        "Click a token to see which windows hold it, then halve the stride and look again.",
    )
    with gr.Row(elem_classes="win-bench"):
        with gr.Column(scale=4, min_width=300):
            source, text, dataset, settings = build_settings(view)
        with gr.Column(scale=8, min_width=320):
            said = gr.HTML(padding=False, elem_id="windows-said")
            counts = gr.HTML(padding=False, elem_id="windows-summary")
            laid = _picture("windows-laid")
            chosen = _picture("windows-chosen")
            show_code(
                "llm.data:cut",
                "llm.data:Windows",
                "llm.data:DocumentWindows",
                "llm.data:document_begins",
                "llm.data:never_inputs",
                "llm.data:never_targets",
            )
    section(
        "A batch, as training gets it",
        "Each target row is its input row moved on by one token: at every place the model is asked for the next token.",
    )
    batch = _picture("windows-batch")
    show_code("llm.data:Batches", "llm.data:order", "llm.data:Cut.inputs_and_targets")

    at = gr.Number(0, visible="hidden", minimum=0, maximum=2**53, elem_id="windows-at")
    step = gr.Number(0, visible="hidden", minimum=0, maximum=2**53, elem_id="windows-step")
    view.keep("at", at)
    view.keep("step", step)
    inputs, pictures = [source, text, dataset, *settings, at, step], [said, counts, laid, chosen, batch]
    answer = plain_errors(draw)
    gr.on(
        [widget.change for widget in inputs[:-2]],
        answer,
        inputs,
        pictures,
        queue=False,
        show_progress="hidden",
        trigger_mode="always_last",
        api_visibility="private",
    )
    for picture in (laid, batch):
        picture.select(
            plain_errors(choose),
            inputs,
            [at, step, laid, chosen, batch],
            queue=False,
            show_progress="hidden",
            trigger_mode="always_last",
            api_visibility="private",
        )
    view.on_load(answer, pictures, inputs)
    gr.api(plain_errors(facts), api_name="windows")


def _picture(name: str) -> gr.HTML:
    """A picture whose tokens and buttons answer to a click."""
    return gr.HTML(
        "",
        js_on_load=SCRIPT.read_text(encoding="utf-8"),
        apply_default_css=False,
        padding=False,
        elem_id=name,
    )


def build_settings(view: View) -> tuple[gr.Radio, gr.Textbox, gr.Dropdown, list[Any]]:
    """The widgets: (source, text, dataset, the settings in the order of `look`)."""
    source = gr.Radio([PASTED, DATASET], value=PASTED, label="Text from", elem_id="windows-source")
    text = gr.Textbox(EXAMPLE, label="Text", lines=4, max_lines=10, elem_id="windows-text")
    dataset = pickers.dataset_picker(view, visible="hidden")
    with gr.Row(elem_classes="win-actions"):
        stories = gr.Button("Shipped stories", size="sm", min_width=90, elem_id="windows-stories")
        upload = gr.UploadButton("Open a text file", size="sm", min_width=90, elem_id="windows-file")
        again = gr.Button("Example", size="sm", min_width=70, elem_id="windows-example")
    encoding = pickers.encoding_picker(view, preferred="gpt2")
    with gr.Row(elem_classes="win-numbers"):
        context = gr.Number(FIRST["context"], label="Context length", min_width=80, elem_id="windows-context")
        stride = gr.Number(FIRST["stride"], label="Stride", min_width=80, elem_id="windows-stride")
    with gr.Row(elem_classes="win-numbers"):
        size = gr.Number(FIRST["batch"], label="Batch size", min_width=80, elem_id="windows-batch-size")
        seed = gr.Number(0, label="Seed", min_width=80, elem_id="windows-seed")
    with gr.Row(elem_classes="win-numbers"):
        shuffle = gr.Checkbox(False, label="Shuffle", min_width=80, elem_id="windows-shuffle")
        drop_last = gr.Checkbox(True, label="Drop last", min_width=80, elem_id="windows-drop-last")
    begin = gr.Radio(
        [("every stride", "stride"), ("each document", "documents")],
        value="stride",
        label="A window begins at",
        info="Train's setting is each document: a model then practises to begin with nothing before it.",
        elem_id="windows-begin",
    )
    share = gr.Slider(
        0, 0.9, FIRST["share"], step=0.01, label="Validation share, at the end", elem_id="windows-share"
    )
    with gr.Accordion("Keep the text as a dataset", open=False, elem_classes="lab-quiet"):
        name = gr.Textbox("pasted", label="Name", max_lines=1, elem_id="windows-name")
        keep = gr.Button("Keep it", size="sm", elem_id="windows-keep")
    for key, widget in dict(
        source=source, text=text, context=context, stride=stride, batch=size, share=share, shuffle=shuffle,
        seed=seed, drop_last=drop_last, begin=begin,
    ).items():  # fmt: skip
        view.keep(key, widget)
    private = {"api_visibility": "private", "show_progress": "hidden"}
    source.change(which, source, [text, dataset], queue=False, **private)
    chosen = [source, dataset]  # what a kept text sets
    upload.upload(plain_errors(keep_upload), upload, chosen, **private)
    keep.click(plain_errors(keep_paste), [text, name], chosen, **private)
    cut = [encoding, context, stride, size, share, shuffle, begin]
    stories.click(plain_errors(shipped_stories), None, [source, dataset, *cut], queue=False, **private)
    again.click(worked_example, None, [source, text, *cut], queue=False, **private)
    begin.change(
        lambda chosen: gr.update(interactive=chosen == "stride"), begin, stride, queue=False, **private
    )
    return source, text, dataset, [encoding, context, stride, size, shuffle, seed, drop_last, share, begin]
