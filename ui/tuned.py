"""Try it: a tuned model beside its base on the same prompts, before and after on held-out rows, a classifier, what to save."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from typing import Any

import gradio as gr

from llm import chat, convert, dispatch, engine, paths, prompts, tokenizer, tuned
from llm.config import ExportConfig, RunConfig, SampleConfig, to_dict, to_flags
from llm.prompts import Manner
from llm.runs import Run
from ui import pickers, transfers
from ui.figures import tuned as figures
from ui.figures.base import message
from ui.owner import owner
from ui.parts import plain_errors, section, show_code
from ui.view import View

UPDATES = 8  # of the page a second, at most
MOST_PROMPTS = 8
LONGEST = 20_000  # characters of all prompts
STORY = "Long ago, a proud badger"
EXAMPLES = {  # by what a model was tuned for
    "instruct": "Tell me where a horse lives.\n---\nRepeat this without the mistake: The children helps the farmer every day.",
    "prefer": STORY,
    "pretrain": STORY,
    "classify": STORY,
}
TABS = {
    "Open in the Playground": "playground",
    "See its attention": "attention",
    "What it is made of": "models",
}
NONE = "No model here was tuned from another one yet: train one in the room Tune, then try it here."
PARTS = {
    "test": "Test",
    "unseen": "Families it never saw",
    "validation": "Validation",
    "train": "What it learned from",
}
MEASURED = ("instruct", "classify", "prefer")


def checked(name: object) -> tuple[str, RunConfig]:
    """A tuned model and the settings of its training. Raises ValueError when there is none."""
    if not isinstance(name, str) or not name:
        raise ValueError(NONE)
    config = tuned.training(name)
    if config is None or not config.start_from:
        raise ValueError(f"{name} was not tuned from another model: choose one that was.")
    return name, config


def about(name: object) -> list[Any]:
    """Facts and links of a model; which of the columns it has use for; its adapter as a file."""
    hidden = [gr.update(visible=False)] * 4
    try:
        name, config = checked(name)
    except ValueError as error:
        return [message(str(error)), *hidden, gr.update(visible=False)]
    said = {
        "learned": figures.OBJECTIVES[config.objective],
        "from": config.start_from,
        "what learned": figures.LEARNED[config.tune.trained],
        "rows": config.dataset,
    }
    writes, tells = config.objective != "classify", config.objective == "classify"
    tabs = TABS if writes else {title: tab for title, tab in TABS.items() if tab != "playground"}
    shown = [writes, config.objective in MEASURED, tells, tells and n_classes(name) == 2]
    return [
        figures.about(name, said, tabs),
        *(gr.update(visible=value) for value in shown),
        adapter_file(name),
    ]


def example(name: object, text: object) -> str | dict:
    """The example that suits a model, where none but an example stands there."""
    try:
        _, config = checked(name)
    except ValueError:
        return gr.skip()
    return EXAMPLES[config.objective] if text in EXAMPLES.values() else gr.skip()


def n_classes(name: str) -> int:
    """How many classes a classifier tells apart; 0 for another model."""
    try:
        return len(json.loads((paths.model_folder(name) / "classifier.json").read_text())["labels"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


# ---- Side by side -------------------------------------------------------------------------------------------------------


def split_prompts(text: object) -> list[str]:
    """Prompts that a line of three dashes separates. Raises ValueError when there are none, or too many."""
    text = text if isinstance(text, str) else ""
    found = [
        part.strip() for part in re.split(r"^[ \t]*---[ \t]*$", text, flags=re.MULTILINE) if part.strip()
    ]
    if not found:
        raise ValueError("There is no prompt: type one, or take some from the held-out rows.")
    if len(found) > MOST_PROMPTS or len(text) > LONGEST:
        raise ValueError(
            f"{MOST_PROMPTS} prompts of {LONGEST:,} characters together are the most: shorten them."
        )
    return found


def manner_of(name: str, config: RunConfig) -> tuple[Manner, Any]:
    """How a tuned model is spoken to, and its encoding. Raises ValueError."""
    encoding = tokenizer.get(f"model:{name}")
    folder = paths.model_folder(name)
    style = config.tune.prompt_style
    if style == "own" and not chat.read(folder).template:
        raise ValueError(f"{name} has lost its chat template, so nothing says how it is spoken to.")
    return prompts.manner(style, folder, encoding), encoding


def written_for(name: str, config: RunConfig, asked: list[str]) -> tuple[list[list[int]], tuple[str, ...]]:
    """The ids of the prompts as the model was taught, and the texts that end an answer. Raises ValueError."""
    found, encoding = manner_of(name, config)
    if config.objective == "pretrain":
        begin = [] if found.begin_id is None else [found.begin_id]
        return [[*begin, *encoding.encode(text)] for text in asked], ()
    messages = [[{"role": "user", "content": text}] for text in asked]
    return [prompts.prompt_ids(found, encoding, one) for one in messages], found.stops


def same_encoding(one: str, other: str) -> bool:
    """Whether two models cut texts alike."""
    first, second = (paths.model_folder(name) / "tokenizer.json" for name in (one, other))
    return first.read_bytes() == second.read_bytes()


@plain_errors
def compare(name: str, text: str, most: float, temperature: float, seed: float) -> Iterator[str]:
    """Both models answer the same prompts with the same seed, side by side."""
    name, config = checked(name)
    base, asked = config.start_from, split_prompts(text)
    paths.model_folder(base)
    if not same_encoding(name, base):
        raise ValueError(
            f"{name} and {base} have other encodings now: the same prompt is not the same for both."
        )
    ids, stops = written_for(name, config, asked)
    how = sampling(most, temperature, seed, stops)
    texts = [[""] * len(asked), [""] * len(asked)]
    streams = {side: engine.get().generate(model, ids, how) for side, model in enumerate((base, name))}
    last = 0.0
    try:
        while streams:
            for side in list(streams):
                steps = next(streams[side], None)
                if steps is None:
                    del streams[side]
                for step in steps or ():
                    texts[side][step["row"]] += step["text"]
            if time.monotonic() - last > 1 / UPDATES:
                last = time.monotonic()
                yield figures.side_by_side((base, name), asked, texts, True)
    finally:
        for one in streams.values():
            one.close()
    yield figures.side_by_side((base, name), asked, texts, False)


def sampling(most: float, temperature: float, seed: float, stops: tuple[str, ...]) -> SampleConfig:
    """The settings of the form. Raises ValueError for a field that is empty or out of its range."""
    if most is None or temperature is None or seed is None:
        raise ValueError("Maximum length, temperature and seed each need a number.")
    if most > 1000:
        raise ValueError("1,000 tokens an answer are the most here: the Playground takes longer ones.")
    return SampleConfig(max_new_tokens=int(most), temperature=float(temperature), seed=int(seed), stop=stops)


@plain_errors
def from_rows(name: str, part: str, seed: float) -> str:
    """A few prompts of the rows that the model has not learned from; another seed takes others."""
    name, config = checked(name)
    if config.objective not in ("instruct", "prefer"):
        raise ValueError(f"{name} learned from a text, not from rows: type a beginning of your own.")
    encoding = tokenizer.get(f"model:{name}")
    found = prompts.examples(config, encoding, paths.model_folder(name), encoding_context(name))
    rows = found.parts.get(part) or []
    if not rows:
        known = ", ".join(f"{part} ({len(rows)})" for part, rows in found.parts.items())
        raise ValueError(f"The rows of {config.dataset} have nothing in the part {part}; there are {known}.")
    wanted = "chosen" if config.objective == "prefer" else "output"
    step = max(1, len(rows) // 4)
    picked = rows[int(seed or 0) % step :: step][:4]
    talks = [prompts.conversation(example.source, found.manner.joint, wanted) for example in picked]
    return "\n---\n".join(talk[-2]["content"].strip() for talk in talks)


def encoding_context(name: str) -> int:
    """The context of a model, from its config."""
    return json.loads((paths.model_folder(name) / "config.json").read_text())["context_length"]


# ---- Before and after ---------------------------------------------------------------------------------------------------


def evaluation(name: str, config: RunConfig, part: str) -> list[str]:
    """The command that measures a model on one part of the rows that `config` names."""
    words = ["python", "-m", "llm.evaluate", name, *to_flags(config), "--part", part]
    return words + (["--reference", config.start_from] if config.objective == "prefer" else [])


def commands(name: str, part: str) -> str:
    """Both commands, or what is wrong as a comment."""
    try:
        name, config = checked(name)
        if config.objective not in MEASURED:
            return "# Its losses are on its curve: there are no rows to measure it on."
        models = [name] if config.objective == "classify" else [config.start_from, name]
        return "\n".join(shlex.join(evaluation(model, config, part)) for model in models)
    except ValueError as error:
        return f"# {error}"


def report(name: str, config: RunConfig, part: str) -> Iterator[dict[str, Any] | float]:
    """Measure a model in a process of its own: seconds while it works, then its report. Raises ValueError in its words."""
    words = [sys.executable, *evaluation(name, config, part)[1:], "--rows"]
    environment = os.environ | {"LLM_HOME": str(paths.home())}
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as said:
        child = subprocess.Popen(
            words, cwd=paths.ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=said
        )
        began = time.monotonic()
        try:
            while child.poll() is None:
                yield time.monotonic() - began
                time.sleep(0.3)
        finally:
            child.kill()
            child.wait()
        out.seek(0), said.seek(0)
        if child.returncode:
            lines = said.read().decode("utf-8", "replace").strip().splitlines()
            if child.returncode == 1 and lines and not lines[0].startswith("Traceback"):
                raise ValueError(lines[-1])
            raise RuntimeError("\n".join(lines[-30:]))
        yield json.loads(out.read())


@plain_errors
def measure(name: str, part: str, threshold: float) -> Iterator[tuple[Any, str]]:
    """The base and the tuned model on the same held-out rows; a classifier alone, which its base is not."""
    name, config = checked(name)
    if config.objective not in MEASURED:
        raise ValueError(
            f"{name} learned from a text: its losses are on its curve, there are no rows to ask."
        )
    models = [name] if config.objective == "classify" else [config.start_from, name]
    found: dict[str, Any] = {}
    for model in models:
        with closing(report(model, config, part)) as steps:
            for said in steps:
                if isinstance(said, dict):
                    found[model] = said
                else:
                    yield gr.skip(), message(f"Measuring {model} on the {part} part: {said:.0f} s")
    if config.objective == "classify":
        kept = {key: found[name][key] for key in ("labels", "rows", "of")}
        yield kept, figures.verdicts(kept, threshold)
    else:
        yield None, figures.before_and_after(found)


def at_threshold(kept: dict[str, Any] | None, threshold: float) -> Any:
    """The classifier's table with another threshold."""
    return figures.verdicts(kept, threshold) if kept else gr.skip()


@plain_errors
def classify(name: str, text: str, threshold: float) -> str:
    """What a classifier says of one text."""
    name, _ = checked(name)
    if not isinstance(text, str) or not text.strip():
        raise ValueError("There is no text: type one to be told its class.")
    if len(text) > LONGEST:
        raise ValueError(f"The text has {len(text):,} characters; {LONGEST:,} are the most here.")
    found = engine.get().classify(name, folder=str(paths.model_folder(name)), texts=[text])
    return figures.chances(found["labels"], found["probabilities"][0], threshold, found["notes"])


# ---- What to keep -------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def scratch() -> tempfile.TemporaryDirectory:
    """Where archives of adapters lie until the page ends."""
    return tempfile.TemporaryDirectory(prefix="llm-lab-adapters-")


def adapter_file(name: str) -> dict:
    """The button that downloads a model's adapter, where it has one: PEFT's files in a zip."""
    try:
        found = tuned.adapter(name)
    except ValueError:
        return gr.update(visible=False)
    file = Path(scratch().name) / f"{name}-adapter.zip"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for part in sorted(found.folder.iterdir()):
            if part.is_file() and not part.name.startswith("."):
                archive.write(part, f"{name}-adapter/{part.name}")
    return gr.update(visible=True, value=str(file))


def export(request: gr.Request, name: str) -> tuple[str, gr.Timer]:
    """Write the model whole, adapter merged, as a Hugging Face folder: the export run of the Models tab."""
    name, _ = checked(name)
    config = ExportConfig(model=name, format="hf", dtype="fp32")
    convert.size(config.model, config.format, config.dtype)
    run_name = transfers.free_name(f"{name}-hf-fp32"[:76])
    Run.create("export", to_dict(config), owner(request), name=run_name)
    dispatch.pump()
    return transfers.follow(request, "export")


def follow(request: gr.Request) -> tuple[str, gr.Timer]:
    """The visitor's exports and how they stand."""
    return transfers.follow(request, "export")


def act(request: gr.Request, event: gr.EventData) -> tuple[str, gr.Timer]:
    """A click in the list of exports."""
    return transfers.act(request, "export", event)


# ---- The page -----------------------------------------------------------------------------------------------------------


def build(view: View, shared: Any) -> None:
    """The room in which a tuned model is tried."""
    which = pickers.picker(
        view, "tuned", tuned.models, "Tuned model", info="Made by a training that started from a model"
    )
    facts = gr.HTML(message(NONE), padding=False, elem_id="try-about")
    with gr.Column(visible=False, elem_classes="tn-room") as writes:
        section(
            "Side by side",
            "The same prompts, written as the tuned model was taught, with the same seed for both.",
        )
        text = gr.Textbox(
            STORY, label="Prompts", info="A line of --- between two of them", lines=4, max_lines=14,
            elem_id="try-prompts", interactive=True,
        )  # fmt: skip
        with gr.Row():
            most = gr.Number(
                80, label="Maximum length", precision=0, minimum=1, elem_id="try-most", min_width=120
            )
            temperature = gr.Number(
                0, label="Temperature", minimum=0, elem_id="try-temperature", min_width=120
            )
            seed = gr.Number(0, label="Seed", precision=0, minimum=0, elem_id="try-seed", min_width=120)
        with gr.Row():
            go = gr.Button("Answer with both", variant="primary", elem_id="try-compare", min_width=140)
            take = gr.Button("Take prompts from held-out rows", elem_id="try-take", min_width=140)
        both = gr.HTML(padding=False, elem_id="try-both")
    with gr.Column(visible=False, elem_classes="tn-room") as tells:
        section("One text", "The classes and how probable the model finds each.")
        one = gr.Textbox(label="Text", lines=2, max_lines=8, elem_id="try-text", interactive=True)
        tell = gr.Button("Tell its class", variant="primary", elem_id="try-classify")
        told = gr.HTML(padding=False, elem_id="try-class")
    with gr.Column(visible=False, elem_classes="tn-room") as measured:
        section(
            "Before and after",
            "On rows that the training did not learn from. Takes from seconds to a minute.",
        )
        part = gr.Radio(
            [(title, key) for key, title in PARTS.items()],
            value="test",
            label="Rows",
            elem_id="try-part",
        )
        with gr.Row():
            measure_it = gr.Button("Measure", variant="primary", elem_id="try-measure", min_width=140)
            halt = gr.Button("Stop", elem_id="try-measure-stop", min_width=140)
        threshold = gr.Slider(
            0, 1, value=0.5, step=0.01, label="Threshold", info="From this probability on a text is taken for the second class",
            visible=False, elem_id="try-threshold", interactive=True,
        )  # fmt: skip
        result = gr.HTML(padding=False, elem_id="try-report")
        line = gr.Code(
            language="shell",
            interactive=False,
            show_label=False,
            wrap_lines=True,
            lines=1,
            elem_id="try-evaluate",
        )
        show_code("llm.evaluate:exact", "llm.evaluate:held_out", "llm.evaluate:confusion")
    section("Keep it", "The adapter alone fits on its base in PEFT; merged it is a model like any other.")
    with gr.Row():
        adapter = gr.DownloadButton("Download the adapter (PEFT)", visible=False, elem_id="try-adapter")
        merged = gr.Button("Write it merged, as a Hugging Face folder", elem_id="try-merged")
    exports, clock = transfers.listed("export", "try-exports")
    kept = gr.State(None)
    outputs = [facts, writes, measured, tells, threshold, adapter]
    quick = dict(api_visibility="private", show_progress="hidden", queue=False)
    slow = dict(api_visibility="private", show_progress="hidden", concurrency_limit=4)
    view.on_load(about, outputs, which)
    view.on_load(example, text, [which, text])
    view.on_load(commands, line, [which, part])
    view.on_load(follow, [exports, clock])
    which.change(about, which, outputs, **quick)
    which.change(example, [which, text], text, **quick)
    which.change(
        lambda: ("", "", "", None), None, [both, told, result, kept], **(slow | {"concurrency_limit": None})
    )
    gr.on([which.change, part.change], commands, [which, part], line, **quick)
    writing = go.click(
        compare,
        [which, text, most, temperature, seed],
        both,
        concurrency_id="stream",
        **quick | {"queue": True},
    )
    take.click(from_rows, [which, part, seed], text, **slow)
    gr.on([tell.click, one.submit], classify, [which, one, threshold], told, **slow)
    running = measure_it.click(
        measure, [which, part, threshold], [kept, result], concurrency_id="measure", **slow
    )
    halt.click(lambda: message("Stopped."), None, result, cancels=[running], **quick)
    threshold.change(at_threshold, [kept, threshold], result, trigger_mode="always_last", **quick)
    merged.click(plain_errors(export), which, [exports, clock], **quick)
    clock.tick(follow, None, [exports, clock], **quick)
    exports.click(plain_errors(act), None, [exports, clock], **quick)
    which.change(None, None, None, cancels=[writing, running], api_visibility="private")
