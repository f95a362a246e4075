"""The Evaluate tab's text room: models on a text, the surprise of every token, and what a text repeats of the training data."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

import gradio as gr

from llm import chat, corpora, engine, files, paths, tokenizer, tuned
from llm.config import SampleConfig
from ui import pickers
from ui.allowed import gate
from ui.figures import evaluate as figures
from ui.figures.base import message
from ui.owner import may_open
from ui.parts import Choice, plain_errors, section, show_code
from ui.view import View

FIRST = ["story-llama", "story-gpt2"]
MINE, PART = "a text of mine", "the validation part of a dataset"
MOST_MODELS = 6
LONGEST = 400_000  # characters of a text on the page
DRAWN = 2500  # tokens drawn in colour
EXAMPLE = (
    "Long ago, a gentle badger named Willa lived in a quiet house beside the mill. More than anything, Willa wanted a "
    'golden kite. She sang softly at the door, "A golden kite for Willa!"\n\nThe stock market fell by two percent on Monday.'
)
BEGINNING = "Long ago, a gentle badger named Willa"
POINTED = """
const told = () => element.querySelector('.ev-told');
const tell = (event) => {
  const token = event.target.closest('.ev-t');
  if (!token) return;
  told().textContent = token.title;
  if (event.type !== 'click') return;
  element.querySelector('.ev-on')?.classList.remove('ev-on');
  token.classList.add('ev-on');
};
for (const kind of ['click', 'mouseover']) element.addEventListener(kind, tell);
"""


def wanted(models: Any, source: str, text: str, dataset: str, most: Any) -> tuple[list[str], str]:
    """The models and the text that are asked for. Raises ValueError with what is missing."""
    names = [name for name in (models if isinstance(models, list) else [models]) if name]
    if not names:
        raise ValueError("Choose at least one model.")
    if len(names) > MOST_MODELS:
        raise ValueError(f"{len(names)} models are chosen; {MOST_MODELS} at a time are compared here.")
    if source == PART:
        most = int(most) if most else LONGEST
        text = part(dataset)[: min(max(most, 1), LONGEST)]
    text = tokenizer.clean(text or "")
    if not text:
        raise ValueError("There is no text: type or paste one.")
    if len(text) > LONGEST:
        raise ValueError(
            f"The text has {len(text):,} characters; the page scores {LONGEST:,} at most, the terminal any length."
        )
    return names, text


def part(dataset: str) -> str:
    """The validation part of a dataset. Raises ValueError when it is not here."""
    return files.validation_part(files.read_text(corpora.path(dataset)).text)


def whole(value: Any, name: str) -> int:
    """A number of tokens from a box that may be empty. Raises ValueError."""
    if value in (None, ""):
        return 0
    if int(value) != value or value < 0:
        raise ValueError(f"{name} must be a whole number, 0 or more, not {value}.")
    return int(value)


def command(models: Any, source: str, text: str, dataset: str, most: Any, window: Any, stride: Any) -> str:
    """The line for a terminal that prints the same numbers."""
    names = [name for name in (models if isinstance(models, list) else [models]) if name] or ["MODEL"]
    words = ["python", "-m", "llm.scoring", *names]
    if source == PART:
        words += [
            "--dataset",
            str(dataset),
            *(["--most", str(int(most))] if most else ["--most", str(LONGEST)]),
        ]
    else:
        words += ["--text", "FILE"]
    for flag, value in (("--window", window), ("--stride", stride)):
        words += [flag, str(int(value))] if value else []
    line = shlex.join(words)
    return line if source == PART else f"{line}  # FILE: the text above, saved"


@plain_errors
def score(
    models: Any, source: str, text: str, dataset: str, most: Any, window: Any, stride: Any, special: bool
) -> Iterator[list[Any]]:
    """Score the text under one model after the other: (table, chart, models to draw, the drawn text), as they come."""
    names, text = wanted(models, source, text, dataset, most)
    window, stride = whole(window, "The window"), whole(stride, "The stride")
    rows: list[dict[str, Any]] = []
    yield [message(f"Asking {names[0]} ..."), gr.skip(), gr.skip(), gr.skip()]
    for i, name in enumerate(names):
        first = not any("loss" in row for row in rows)
        try:
            found = asked(name, text, window, stride, special, DRAWN if first else 0)
        except ValueError as error:
            rows.append({"model": name, "problem": str(error)})
            found = None
        else:
            rows.append({"model": name, **found})
        told = figures.results(rows)
        if i + 1 < len(names):
            told += message(f"Asking {names[i + 1]} ...")
        done = [row["model"] for row in rows if "loss" in row]
        drawn = figures.surprise(name, found["drawn"], found["tokens"]) if found and first else gr.skip()
        choice = gr.update(choices=done, value=done[0]) if first and done else gr.update(choices=done)
        yield [told, figures.chart(rows) if done else gr.skip(), choice, drawn]


def asked(name: str, text: str, window: int, stride: int, special: bool, drawn: int) -> dict[str, Any]:
    """What the engine says of a text under a model. Raises ValueError."""
    return engine.get().text_score(
        name, text=text, window=window, stride=stride, special=special is True, drawn=drawn
    )


@plain_errors
def draw(
    model: str, source: str, text: str, dataset: str, most: Any, window: Any, stride: Any, special: bool
) -> str:
    """The text under another of the models."""
    (name,), text = wanted([model], source, text, dataset, most)
    found = asked(name, text, whole(window, "The window"), whole(stride, "The stride"), special, DRAWN)
    return figures.surprise(name, found["drawn"], found["tokens"])


# ---- Copied from the training data ----------------------------------------------------------------------------------


def data_of(model: str) -> Any:
    """The text that a model learned from, for the picker, where its card or its run names one that is here."""
    try:
        made = tuned.training(model)
    except ValueError:
        return gr.skip()
    return made.dataset if made and made.dataset in pickers.dataset_names() else gr.skip()


@plain_errors
def write(model: str, prompt: str, length: Any, temperature: Any, seed: Any) -> Iterator[str]:
    """A text of the model's own, from a beginning."""
    how = SampleConfig(
        max_new_tokens=whole(length, "The length"),
        temperature=float(temperature or 0),
        seed=whole(seed, "The seed"),
    )
    text = prompt or ""
    for steps in engine.get().generate(model, [text], [how]):
        if steps:
            text += "".join(step["text"] for step in steps)
            yield text


@plain_errors
def copied(model: str, text: str, dataset: str, n: Any) -> str:
    """What of a text stands in the training part of a dataset."""
    text = tokenizer.clean(text or "")
    if not text.strip():
        raise ValueError("There is no text to look for: let the model write one, or paste one.")
    n = whole(n, "The length of a stretch")
    found = engine.get().copied(model, text=text, dataset=dataset, n=n, name=model)
    encoding = tokenizer.get(f"model:{model}")
    begin = chat.read(paths.model_folder(model)).begin_id
    ids = encoding.encode(text)
    ids = ids if begin is None else [begin, *ids]
    return figures.copies(pieces(encoding, ids), found, dataset, n)


def pieces(encoding: tokenizer.Tokenizer, ids: list[int]) -> list[str]:
    """The text of each token; a character that several share stands with the last of them."""
    found, waiting = [], b""
    for id in ids:
        waiting += encoding.token_bytes(id)
        try:
            found.append(waiting.decode("utf-8"))
            waiting = b""
        except UnicodeDecodeError:
            found.append("")
    if waiting and found:
        found[-1] = waiting.decode("utf-8", "replace")
    return found


# ---- The page ---------------------------------------------------------------------------------------------------------


def models_picker(view: View) -> gr.Dropdown:
    """Several models at once, kept in the address bar."""

    def restored(text: str | None = None) -> dict:
        names = pickers.model_names()
        chosen = [name for name in (text or "").split() if name in names] or [n for n in FIRST if n in names]
        return gr.update(choices=names, value=chosen or names[:1])

    def refreshed(value: list[str] | None) -> dict:
        return gr.update(choices=pickers.model_names())

    names = pickers.model_names()
    chosen = [name for name in FIRST if name in names] or names[:1]
    box = Choice(
        names, value=chosen, multiselect=True, label="Models", max_choices=MOST_MODELS, elem_id="evaluate-models",
        interactive=True,
    )  # fmt: skip
    view.refresh(box, refreshed)
    return gate(box, may_open)


def build_copies(view: View) -> None:
    """What a text repeats of the training data."""
    section(
        "Does it repeat its training data?",
        "A text, and every stretch of n tokens or more of it that stands in the training part of a dataset.",
    )
    with gr.Row(elem_classes="ev-room"):
        with gr.Column(scale=4, min_width=320):
            with gr.Row(elem_classes="train-pair"):
                model = pickers.model_picker(view, "text.copies_model", min_width=140)
                dataset = pickers.dataset_picker(view, "text.copies_dataset", "Learned from", preferred="stories", min_width=140)  # fmt: skip
            with gr.Accordion("Let the model write", open=False, elem_classes="lab-quiet"):
                prompt = gr.Textbox(BEGINNING, label="Beginning", elem_id="evaluate-beginning")
                with gr.Row(elem_classes="train-pair"):
                    length = gr.Number(
                        120, label="Tokens", precision=0, minimum=1, maximum=2000, min_width=90
                    )
                    heat = gr.Number(0.7, label="Temperature", minimum=0, maximum=10, min_width=90)
                    seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=2**31 - 1, min_width=90)
                go = gr.Button("Write", size="sm", elem_id="evaluate-write")
            text = gr.Textbox(EXAMPLE, label="Text", lines=6, max_lines=14, elem_id="evaluate-copied-text")
            n = gr.Number(8, label="Tokens in a row that count as copied", precision=0, minimum=1, maximum=200, elem_id="evaluate-n")  # fmt: skip
            look = gr.Button("Look for copies", variant="primary", elem_id="evaluate-copies")
        with gr.Column(scale=7, min_width=320):
            found = gr.HTML(message("Nothing was looked for yet."), padding=False, elem_id="evaluate-copied")
    view.keep("text.n", n)
    quick = dict(api_visibility="private", show_progress="minimal")
    model.change(data_of, model, dataset, api_visibility="private", show_progress="hidden", queue=False)
    go.click(write, [model, prompt, length, heat, seed], text, **quick)
    gr.on([look.click, n.submit], copied, [model, text, dataset, n], found, **quick)
    show_code("llm.memory:copied", "llm.memory:places", "llm.memory:hashes")


def build(view: View) -> None:
    """Lay out the room and wire it."""
    with gr.Row(elem_classes="ev-room"):
        with gr.Column(scale=4, min_width=320):
            models = models_picker(view)
            source = gr.Radio([MINE, PART], value=MINE, label="On", elem_id="evaluate-source")
            text = gr.Textbox(EXAMPLE, label="Text", lines=7, max_lines=16, elem_id="evaluate-text")
            with gr.Row(visible=False, elem_classes="train-pair") as chosen:
                dataset = pickers.dataset_picker(view, "text.dataset", preferred="stories", min_width=140)
                most = gr.Number(20_000, label="Characters at most", precision=0, minimum=2, maximum=LONGEST, elem_id="evaluate-most", min_width=140)  # fmt: skip
            with gr.Row(elem_classes="train-pair"):
                window = gr.Number(0, label="Window (0: the model's context)", precision=0, minimum=0, maximum=200_000, elem_id="evaluate-window", min_width=140)  # fmt: skip
                stride = gr.Number(0, label="Stride (0: half a window)", precision=0, minimum=0, maximum=200_000, elem_id="evaluate-stride", min_width=140)  # fmt: skip
            special = gr.Checkbox(False, label="Read strings like <|endoftext|> as special tokens", elem_id="evaluate-special")  # fmt: skip
            go = gr.Button("Score", variant="primary", elem_id="evaluate-score")
            with gr.Accordion("The same in a terminal", open=False, elem_classes="lab-quiet"):
                line = gr.Code(language="shell", interactive=False, show_label=False, wrap_lines=True, lines=2, elem_id="evaluate-command")  # fmt: skip
        with gr.Column(scale=7, min_width=320):
            table = gr.HTML(padding=False, elem_id="evaluate-results")
            bars = gr.Plot(show_label=False, elem_id="evaluate-chart")
            under = gr.Radio([], label="Drawn under", elem_id="evaluate-under")
            drawn = gr.HTML(
                padding=False, js_on_load=POINTED, apply_default_css=False, elem_id="evaluate-drawn"
            )
            gr.HTML(f"<p class='pg-aside'>{figures.RULE}</p>", padding=False)
    for key, widget in dict(
        source=source, text=text, most=most, window=window, stride=stride, special=special
    ).items():
        view.keep(f"text.{key}", widget)
    form = [models, source, text, dataset, most, window, stride, special]
    outputs = [table, bars, under, drawn]
    private = dict(api_visibility="private", show_progress="minimal")
    quiet = dict(api_visibility="private", show_progress="hidden", queue=False)
    gr.on([go.click, window.submit, stride.submit], score, form, outputs, **private)
    under.input(draw, [under, *form[1:]], drawn, **private)
    source.change(
        lambda s: [gr.update(visible=s == MINE), gr.update(visible=s == PART)],
        source,
        [text, chosen],
        **quiet,
    )
    gr.on([w.change for w in form[:-1]], command, form[:-1], line, **quiet, trigger_mode="always_last")
    view.on_load(
        lambda s: [gr.update(visible=s == MINE), gr.update(visible=s == PART)], [text, chosen], source
    )
    view.on_load(command, line, form[:-1])
    view.on_load(score, outputs, form, slow=True)
    show_code("llm.scoring:windows", "llm.scoring:score_ids", "llm.scoring:totals")
    build_copies(view)
