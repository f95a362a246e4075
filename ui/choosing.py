"""Choose answers: the model answers twice, a person picks the better one, the pair becomes a row that trains; one pair seen."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import gradio as gr

from llm import corpora, engine, pairs, paths, prompts, rows, tokenizer, tuned
from llm.config import SampleConfig, TuneConfig
from llm.prompts import Written
from ui import pickers
from ui.figures import tuned as figures
from ui.figures.base import message
from ui.owner import brought, may_read, own_rows
from ui.parts import plain_errors, section, show_code
from ui.view import View

UPDATES = 8  # of the page a second, at most
LONGEST = 20_000  # characters of a prompt
FEW = 10  # below so many pairs a training has hardly anything to go by
NAME = "my-preferences"
CLICKS = """element.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-best], button[data-look], button[data-remove]');
  if (button && !button.disabled) trigger('click', { ...button.dataset });
});"""


# ---- Answers to choose from ---------------------------------------------------------------------------------------------


def style_of(model: str, style: str) -> str:
    """How a model is spoken to: as it was tuned, else in the style that the form names."""
    config = tuned.training(model)
    return (
        config.tune.prompt_style
        if config and config.objective in ("instruct", "prefer")
        else style or "plain"
    )


@plain_errors
def write(
    model: str, style: str, prompt: str, n: float, temperature: float, most: float, seed: float
) -> Iterator[tuple]:
    """Several answers to one prompt as they come: what is kept of them (JSON), their cards."""
    if not model:
        raise ValueError("There is no model to ask: train one, or choose one above.")
    prompt = prompt.strip() if isinstance(prompt, str) else ""
    if not prompt:
        raise ValueError("There is no prompt: type one, then let the model answer it.")
    if len(prompt) > LONGEST:
        raise ValueError(f"The prompt has {len(prompt):,} characters; {LONGEST:,} are the most here.")
    if None in (n, temperature, most, seed) or not 1 <= most <= 500:
        raise ValueError("Temperature, length (1 to 500 tokens) and seed each need a number.")
    encoding = tokenizer.get(f"model:{model}")
    manner = prompts.manner(style_of(model, style), paths.model_folder(model), encoding)
    ids = prompts.prompt_ids(manner, encoding, [{"role": "user", "content": prompt}])
    how = SampleConfig(
        temperature=float(temperature), max_new_tokens=int(most), seed=int(seed), stop=manner.stops
    )
    texts = [""] * int(n)
    last = 0.0
    steps = engine.get().generate(model, [ids] * len(texts), how)
    try:
        for batch in steps:
            for step in batch:
                texts[step["row"]] += step["text"]
            if time.monotonic() - last > 1 / UPDATES:
                last = time.monotonic()
                yield "", figures.answers(prompt, texts, True)
    finally:
        steps.close()
    yield json.dumps(dict(prompt=prompt, answers=texts)), figures.answers(prompt, texts, False)


def picked(event: gr.EventData, name: str, written: str, seed: float) -> list[Any]:
    """An answer was chosen: its pairs are kept."""
    return choose(name, written, event._data.get("best"), seed)


@plain_errors
def choose(name: str, written: str, best: object, seed: float) -> list[Any]:
    """Keep the pairs of one choice: the cards make room for a sentence, the list grows, the seed moves on."""
    try:
        said, best = json.loads(written), int(best)
        prompt, texts = str(said["prompt"]), [str(text) for text in said["answers"]]
    except (TypeError, ValueError, KeyError):
        raise ValueError("Write answers first, then choose one of them.") from None
    found = pairs.of_choice(prompt, texts, best)
    n = pairs.append(own_rows(name), found)
    brought(name)
    added = "One pair was" if len(found) == 1 else f"{len(found)} pairs were"
    told = message(
        f"{added} added: {name} has {n:,} now. Type the next prompt, or write other answers to this one."
    )
    return ["", told, listed(name), int(seed or 0) + len(texts)]


# ---- The pairs so far ---------------------------------------------------------------------------------------------------


def listed(name: str) -> str:
    """The pairs kept under a name, or why there can be none."""
    try:
        return figures.pairs(name, pairs.read(name))
    except ValueError as error:
        return message(str(error), "error")


def clicked(event: gr.EventData, name: str) -> list[Any]:
    """A button in the list: take a pair away, or look at it below."""
    if number := event._data.get("remove"):
        return [take_away(name, number), gr.skip(), gr.skip()]
    number = int(event._data.get("look") or 1)
    return [gr.skip(), gr.update(value=name, choices=preferences()), number]


@plain_errors
def take_away(name: str, number: object) -> str:
    """The list without pair `number`."""
    try:
        number = int(number)
    except (TypeError, ValueError):
        raise ValueError("There is no such pair.") from None
    pairs.remove(name, number)
    return listed(name)


@plain_errors
def train_on(name: str) -> tuple[dict, str]:
    """The pairs as the rows of the form above; and what one should know of them."""
    n = len(pairs.read(name))
    if not n:
        raise ValueError(f"{name} has no pair yet: choose some answers first.")
    told = f"The form is set to preferences on {name}. Go to Tune to start."
    if n < FEW:
        told += f" {n} pair{'s' if n > 1 else ''} will teach little: some dozens are a beginning."
    choices = [
        *pickers.row_names(),
        *pickers.dataset_names(),
    ]  # all, so that what stood there is no foreign value on the way
    return gr.update(value=name, choices=choices), message(told)


def preferences() -> list[str]:
    """Rows of pairs: those shipped and a person's own."""
    return [name for name in pickers.row_names() if _is_preference(name)]


def _is_preference(name: str) -> bool:
    if name in corpora.ROWS:
        return corpora.ROWS[name]["kind"] == "preference"
    try:
        with corpora.row_path(name).open(encoding="utf-8") as f:
            return rows.kind_of(rows.read(f.readline(), "first.jsonl")) == "preference"
    except (OSError, ValueError):
        return False


# ---- One pair, token by token -------------------------------------------------------------------------------------------


def pair_of(dataset: str, number: int) -> dict[str, Any]:
    """Row `number` of rows of pairs. Raises ValueError when it is none."""
    checked = rows.check(rows.read(corpora.row_path(dataset)), "preference")
    if found := next((row for row in checked.good if row["row"] == number), None):
        return found
    why = dict(checked.rejected).get(number)
    raise ValueError(
        f"Row {number} of {dataset} cannot be used: {why}."
        if why
        else f"{dataset} has no row {number}: there are {len(checked.good)}."
    )


@plain_errors
def draw(dataset: str, number: float, policy: str, reference: str, style: str, beta: float) -> str:
    """The log-probability of each token of a pair under policy and reference, and the loss they make."""
    if not dataset:
        raise ValueError("There are no pairs to look at yet: choose some answers first.")
    if number is None or beta is None or not 0 < beta <= 100:
        raise ValueError("The row needs its number, and beta a number above 0 and up to 100.")
    for name in (policy, reference):
        paths.model_folder(name)
    encoding, folder = tokenizer.get(f"model:{policy}"), paths.model_folder(policy)
    if (folder / "tokenizer.json").read_bytes() != (
        paths.model_folder(reference) / "tokenizer.json"
    ).read_bytes():
        raise ValueError(f"{policy} and {reference} cut texts differently: their tokens cannot be compared.")
    row = pair_of(dataset, int(number))
    manner = prompts.manner(style_of(policy, style), folder, encoding)
    context = engine.get().info(policy)["config"]["context_length"]
    tokens, seen = {}, {}
    for side in ("chosen", "rejected"):
        text = written(
            prompts.write(manner, encoding, [prompts.conversation(row, manner.joint, side)])[0], context
        )
        tokens[side] = [
            encoding.token_bytes(int(id)).decode("utf-8", "backslashreplace")
            for id in text.ids[1:][text.answer[1:]]
        ]
        seen[side] = {
            who: engine.get().seen_pair(model, text=text)
            for who, model in (("policy", policy), ("reference", reference))
        }
    asked = prompts.question(row, "\n")[-1]["content"]
    return figures.pair(asked, tokens, seen, float(beta), policy, reference)


def written(text: Written | str, context: int) -> Written:
    """At most a context of a text. Raises ValueError when nothing of the answer is left, or it could not be written."""
    if isinstance(text, str):
        raise ValueError(f"The pair cannot be written: {text}.")
    short = Written(text.ids[: context + 1], text.answer[: context + 1])
    if not short.answer[1:].any():
        raise ValueError(
            f"The prompt alone fills the context of {context:,} tokens: there is no answer to look at."
        )
    return short


def compared(model: object) -> list[Any]:
    """For a policy: the reference it began from, and the beta it was trained with."""
    config = tuned.training(model) if isinstance(model, str) and model else None
    if config and config.start_from in pickers.model_names():
        return [config.start_from, config.tune.beta]
    return [model, TuneConfig().beta]


# ---- The page -----------------------------------------------------------------------------------------------------------


def build(view: View, shared: Any) -> None:
    """The room in which answers are chosen and one choice is looked at."""
    section("Answers to choose from", "The model chosen above answers; you say which answer is better.")
    with gr.Row():
        name = gr.Textbox(
            NAME,
            label="Kept as",
            info="Rows of this name grow with each choice",
            max_lines=1,
            elem_id="choose-name",
            interactive=True,
        )
        n = gr.Slider(2, 4, value=2, step=1, label="Answers", elem_id="choose-n", interactive=True)
    prompt = gr.Textbox(
        "Write a sentence about a fox.",
        label="Prompt",
        lines=2,
        max_lines=8,
        elem_id="choose-prompt",
        interactive=True,
    )
    with gr.Row():
        temperature = gr.Number(
            0.9, label="Temperature", minimum=0, elem_id="choose-temperature", min_width=110
        )
        most = gr.Number(
            60, label="Maximum length", precision=0, minimum=1, elem_id="choose-most", min_width=110
        )
        seed = gr.Number(0, label="Seed", precision=0, minimum=0, elem_id="choose-seed", min_width=110)
    go = gr.Button("Write answers", variant="primary", elem_id="choose-write")
    cards = gr.HTML(padding=False, elem_id="choose-answers", js_on_load=CLICKS, apply_default_css=False)
    section("The pairs so far")
    table = gr.HTML(padding=False, elem_id="choose-pairs", js_on_load=CLICKS, apply_default_css=False)
    train = gr.Button("Train on these", elem_id="choose-train")
    told = gr.HTML(padding=False, elem_id="choose-told")
    section(
        "One pair, seen by the loss",
        "The loss rewards what the policy finds likelier than the reference does: beta times the difference of the sums of log p, "
        "the chosen answer's less the rejected one's.",
    )
    with gr.Row():
        dataset = pickers.picker(view, "pairs", preferences, "Rows", rule=may_read, min_width=160)
        row = gr.Number(1, label="Row", precision=0, minimum=1, elem_id="choose-row", min_width=90)
        beta = gr.Number(TuneConfig().beta, label="Beta", minimum=0, elem_id="choose-beta", min_width=90)
    with gr.Row():
        policy = pickers.model_picker(view, "policy", "Policy", info="The model that is trained")
        reference = pickers.model_picker(view, "reference", "Reference", info="The model it began from")
    look = gr.Button("Look at the pair", elem_id="choose-look")
    drawn = gr.HTML(padding=False, elem_id="choose-pair")
    show_code("llm.objectives:seen_pair", "llm.losses:preference", "llm.losses:dpo")
    wire(view, shared, dict(
        name=name, n=n, prompt=prompt, temperature=temperature, most=most, seed=seed, go=go, cards=cards, table=table, train=train,
        told=told, dataset=dataset, row=row, beta=beta, policy=policy, reference=reference, look=look, drawn=drawn,
    ))  # fmt: skip


def wire(view: View, shared: Any, ui: dict[str, Any]) -> None:
    """Connect the widgets of the room, by their names in `build`."""
    kept = gr.Textbox("", visible=False)  # prompt and answers that are on the screen
    quick = dict(api_visibility="private", show_progress="hidden", queue=False)
    slow = dict(api_visibility="private", show_progress="hidden", concurrency_limit=8)
    asked = [shared.model, shared.style, *(ui[key] for key in ("prompt", "n", "temperature", "most", "seed"))]
    ui["go"].click(write, asked, [kept, ui["cards"]], concurrency_id="stream", **slow)
    ui["cards"].click(
        picked, [ui["name"], kept, ui["seed"]], [kept, ui["cards"], ui["table"], ui["seed"]], **quick
    )
    ui["name"].change(listed, ui["name"], ui["table"], trigger_mode="always_last", **quick)
    shown = [ui["dataset"], ui["row"], ui["policy"], ui["reference"], shared.style, ui["beta"]]
    ui["table"].click(clicked, ui["name"], [ui["table"], ui["dataset"], ui["row"]], **quick).then(
        draw, shown, ui["drawn"], **slow
    )
    ui["train"].click(train_on, ui["name"], [shared.dataset, ui["told"]], **quick).success(
        lambda: "prefer", None, shared.objective, **quick
    )  # after the rows: what follows the objective keeps rows that fit it
    ui["policy"].input(compared, ui["policy"], [ui["reference"], ui["beta"]], **quick)
    ui["look"].click(draw, shown, ui["drawn"], **slow)
    view.keep("pairs-name", ui["name"])
    view.on_load(listed, ui["table"], ui["name"])
