"""Playground: a model continues a prompt or answers a message; every token can be opened, and another one taken instead."""

from __future__ import annotations

import json
import math
import shlex
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr

from llm import chat, engine, paths, tokenizer, tuned
from llm.config import SampleConfig, from_dict, knobs, to_dict, to_flags
from ui import afar, forms, pickers, weights
from ui.figures import playground as figures
from ui.figures.base import escape, message, utf16
from ui.parts import Choice, intro, plain_errors, section, show_code
from ui.view import View

SCRIPT = Path(__file__).resolve().parents[1] / "js" / "playground.js"
EXAMPLE = "Long ago, a proud badger named Willa"
QUESTION = "What is the capital of France?"  # the example of a chat
EXAMPLE_TOKENS = 120
LONGEST = 100_000  # characters of a prompt
MOST_TOKENS = 4000  # of a text on the page; a browser grows slow beyond
UPDATES = 12  # of the page a second, at most
LISTED = 14  # tokens in the table
SLIDERS = {  # range and step on the page; any value of the knob's own range can be typed in a link
    "temperature": (0, 2, 0.05),
    "top_p": (0, 1, 0.01),
    "min_p": (0, 1, 0.01),
    "repetition_penalty": (1, 2, 0.05),
}
EACH = (
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "repetition_penalty",
    "seed",
    "weights",
)  # A and B have their own
BOTH = ("max_new_tokens", "stop", "stop_at_eot")
SETTINGS = 2 * len(EACH) + len(
    BOTH
)  # values of the settings; after them the names of adapters and their dials
DIALS = 6  # adapters with a dial at once
LABELS = {
    "top_k": "Top-k",
    "top_p": "Top-p",
    "min_p": "Min-p",
    "max_new_tokens": "Maximum length",
    "stop": "Stop strings",
    "weights": "Weights",
}
HTML = """<div class="pg"><div class="pg-legend" aria-label="Colour scale: the model's own probability of each token">
<span>Probability</span><i class="pg-p0">below 1 %</i><i class="pg-p1">1–5 %</i><i class="pg-p2">5–25 %</i>
<i class="pg-p3">25–75 %</i><i class="pg-p4">above 75 %</i></div><div class="pg-panes"></div></div>"""
FORGOTTEN = " In a chat these are the beginning of the conversation, so the model no longer knows it: begin a new one."
KEYS = "<p class='pg-keys'><kbd>Ctrl</kbd> <kbd>Enter</kbd> generates, <kbd>Esc</kbd> stops.</p>"
OWN = "The model's own"
SPECIAL = "Read strings like <|endoftext|> as special tokens; else they are plain text"
ORDER = (
    "In this order: repetition penalty, temperature, top-k, top-p, min-p. Each filter sees what the one before left; then "
    "the kept probabilities are made to sum to 1 and one token is drawn. The penalty counts each token of the text once, "
    "the prompt's too."
)
SAMPLING = (
    "penalise", "at_temperature", "keep_top_k", "keep_top_p", "keep_min_p", "keep_largest", "probabilities", "draw",
)  # fmt: skip
CODE = (*(f"llm.generate:{name}" for name in SAMPLING), "llm.quantised:rounded")
TALK = 7  # the place of the conversation among what is asked; the browser holds it
WITH_TALK = f"(...values) => {{ values[{TALK}] = window.lab.playground?.talk() ?? '{{}}'; return values; }}"
WRITE_ANEW = "(chat) => { if (!chat) document.getElementById('playground-generate')?.click(); }"
WITH_WISH = "(...values) => [window.lab.playground.wish, ...values.slice(1)]"
TABLE_SCRIPT = """element.addEventListener('click', (event) => {
  const button = event.target.closest('.pg-go');
  if (button) trigger('submit', { id: +button.dataset.id });
});"""


# ---- What is asked ------------------------------------------------------------------------------------------------


def configs(compare: bool, values: tuple[Any, ...]) -> list[SampleConfig]:
    """The settings A, and B when two are compared, from the widgets' values. Raises ValueError with a sentence."""
    shared = dict(zip(BOTH, values[2 * len(EACH) : SETTINGS]))
    stop = unescaped(shared.pop("stop"))
    sides = [values[: len(EACH)], values[len(EACH) : 2 * len(EACH)]][: 1 + bool(compare)]
    if forms.read(SampleConfig, (*shared,), (*shared.values(),)).max_new_tokens > MOST_TOKENS:
        raise ValueError(
            f"The page shows texts of up to {MOST_TOKENS:,} tokens: lower the maximum length, or use the terminal."
        )
    return [
        forms.read(SampleConfig, (*EACH, *shared), (*side, *shared.values()), stop=stop) for side in sides
    ]


def strengths(values: tuple[Any, ...]) -> dict[str, float] | None:
    """How strong each adapter is dialled, from the widgets' values; None where the model has none. Raises ValueError."""
    names, dials = names_of(values[SETTINGS] if len(values) > SETTINGS else ""), values[SETTINGS + 1 :]
    return tuned.checked_strengths(dict(zip(names, dials))) if names else None


def names_of(text: object) -> list[str]:
    """The names in a line of them."""
    return text.split() if isinstance(text, str) else []


def unescaped(text: object) -> tuple[str, ...]:
    r"""Stop strings, one a line; \n, \t and \\ stand for a line break, a tab and a backslash."""
    signs = {"\\n": "\n", "\\t": "\t", "\\\\": "\\"}
    found = []
    for line in str(text or "").split("\n"):
        parts, i = [], 0
        while i < len(line):
            pair = line[i : i + 2]
            parts.append(signs.get(pair, line[i]))
            i += 2 if pair in signs else 1
        if parts:
            found.append("".join(parts))
    return tuple(found)


def checked(model: object, prompt: object) -> tuple[str, str]:
    """A model's name and a prompt. Raises ValueError when there is no model or the prompt is too long."""
    if not isinstance(model, str) or not model:
        raise ValueError("There is no model to ask yet: train one in the Train tab, then choose it here.")
    prompt = prompt if isinstance(prompt, str) else ""
    if len(prompt) > LONGEST:
        raise ValueError(f"The prompt has {len(prompt):,} characters; {LONGEST:,} are the most: shorten it.")
    return model, prompt


def asking(
    model: object,
    prompt: object,
    special: object,
    on: object,
    system: object,
    template: object,
    turns: object = (),
    adapters: dict[str, float] | None = None,
) -> dict[str, Any]:
    """What is asked of a model, as plain values: a text to continue, or a message in a chat. Raises ValueError."""
    model, prompt = checked(model, prompt)
    asked = dict(model=model, prompt=prompt, special=special is True, chat=None)
    if adapters is not None:
        asked["adapters"] = adapters
    if on is True:
        system, template = (value if isinstance(value, str) else "" for value in (system, template))
        turns = list(turns) if isinstance(turns, (list, tuple)) else []
        chat.conversation(system, turns, prompt)  # refuses what is no conversation
        turns = [{"role": turn["role"], "content": turn["content"]} for turn in turns]
        asked["chat"] = dict(system=system, template=template, turns=turns)
    return asked


def spoken(talk: object) -> dict[int, list]:
    """The turns of the conversations A and B, by row, as the browser sends them. Raises ValueError."""
    try:
        found = json.loads(talk or "{}") if isinstance(talk, str) and len(talk) <= 10 * LONGEST else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not all(isinstance(found.get(row, []), list) for row in "01"):
        raise ValueError("The conversation could not be read: begin a new one.")
    first = found.get("0", [])
    return {0: first, 1: found.get("1", first)}


class Reading(NamedTuple):
    """What the model reads: a text or its ids, and how it looks."""

    prompt: str | list[int]
    pieces: list[list[Any]]  # [text, id] of each part, id only for special tokens
    count: int | None  # tokens, where they are counted already
    stops: tuple[str, ...]


def reading(asked: dict[str, Any]) -> Reading:
    """The prompt as the model gets it: special tokens and all. Raises ValueError with a sentence."""
    if afar.is_far(asked["model"]):
        return Reading(asked["prompt"], [[asked["prompt"], None]], None, ())
    folder = paths.model_folder(asked["model"])
    if asked["chat"] is None:
        manners, prompt = chat.read(folder), asked["prompt"]
        begun = not manners.begins or (asked["special"] and prompt.startswith(manners.begins))
        front = [] if begun else [[manners.begins, manners.begin_id]]
        return Reading(prompt, [*front, [prompt, None]], None, ())
    encoding = tokenizer.get(f"model:{asked['model']}")
    talk = asked["chat"]
    messages = chat.conversation(talk["system"], talk["turns"], asked["prompt"])
    found = chat.prompt(folder, encoding, messages, talk["template"])
    pieces = [
        [piece.text, encoding.encode(piece.text, special=True)[0] if piece.special else None]
        for piece in found.pieces
    ]
    return Reading(found.ids, pieces, len(found.ids), found.stops)


def told(asked: dict[str, Any]) -> dict[str, float]:
    """The adapters that a terminal must be told of: those that speak; all, where a tuned model is dialled down to its base."""
    adapters = asked.get("adapters") or {}
    speaking = {name: strength for name, strength in adapters.items() if strength}
    return speaking or (adapters if adapters and tuned.below(asked["model"]) != asked["model"] else {})


def command(asked: dict[str, Any], config: SampleConfig, forced: list[int] | None = None) -> str:
    """The line for a terminal that writes the same text."""
    if afar.is_far(asked["model"]):
        return afar.command(asked, config)
    words = ["python", "-m", "llm.generate", "--model", asked["model"], f"--prompt={asked['prompt']}"]
    words += [f"--adapter={name}={strength:g}" for name, strength in told(asked).items()]
    words += to_flags(config)
    if talk := asked["chat"]:
        words += ["--chat"]
        words += [f"--system={talk['system']}"] if talk["system"] else []
        words += [f"--template={talk['template']}"] if talk["template"] else []
        words += [f"--history={json.dumps(talk['turns'], ensure_ascii=False)}"] if talk["turns"] else []
    elif asked["special"]:
        words += ["--special"]
    words += [f"--forced={','.join(map(str, forced))}"] if forced else []
    return shlex.join(words)


def commands(
    model: str,
    prompt: str,
    special: bool,
    compare: bool,
    on: bool,
    system: str,
    template: str,
    talk: str,
    *values: Any,
) -> str:
    """The command of each setting, or what is wrong with it as a shell comment.

    In a chat with nothing typed yet, it is the command of the answer on the screen.
    """
    try:
        model, prompt = checked(model, prompt)
        lines, turns = [], spoken(talk)
        for row, config in enumerate(configs(compare, values)):
            said, before = prompt, turns[row]
            if on and not prompt.strip() and len(before) > 1:
                said, before = before[-2].get("content", ""), before[:-2]
            asked = asking(model, said, special, on, system, template, before, strengths(values))
            lines.append(command(asked, config))
        return "\n".join(lines)
    except (ValueError, AttributeError) as error:
        return f"# {error}"


def hint(prompt: str) -> str:
    """What one should know of a prompt before it is continued, as HTML."""
    if isinstance(prompt, str) and prompt.endswith(" "):
        return message(
            "The prompt ends with a space. Most encodings put the space at the beginning of the next word, so the model "
            "has seldom seen a text end like this: remove it for a better continuation.",
            "warning",
        )
    return ""


# ---- Text as it comes -----------------------------------------------------------------------------------------------


def line(news: Any) -> str:
    """One piece of news for the browser; "<" is spelled so that it means nothing to an HTML parser on the way."""
    return json.dumps(news, separators=(",", ":")).replace("<", "\\u003c") + "\n"


def stream(
    asked: dict[int, dict[str, Any]], sides: list[SampleConfig], forced: list[int], sent: bool = False
) -> Iterator[str]:
    """The text that playground.js reads, longer with each yield: what was asked, tokens, notes, speed, the end.

    `asked` says which of the settings write now and what each is asked; the panes of the others stay as they are.
    `sent` says that a person sent a message, so that its box is emptied.
    """
    rows, read = list(asked), {row: reading(one) for row, one in asked.items()}
    begun = dict(
        rows=rows,
        forced=forced,
        configs=[to_dict(c) for c in sides],
        sent=sent,
        asked=asked,
        reads={row: dict(pieces=one.pieces, count=one.count) for row, one in read.items()},
    )
    told, shown = line({"born": time.time_ns() // 1000, "begin": begun}), dict.fromkeys(rows, 0)
    yield told
    if afar.is_far(asked[rows[0]]["model"]):
        yield from sent_from_afar(told, asked, sides)
        return
    began: dict[int, float] = {}
    made, last = dict.fromkeys(rows, 0), time.monotonic()
    first = asked[rows[0]]
    steps = engine.get().generate(
        first["model"],
        [read[row].prompt for row in rows],
        [replace(sides[row], stop=(*sides[row].stop, *read[row].stops)) for row in rows],
        special=first["special"],
        forced=forced,
        adapters=first.get("adapters"),
    )
    try:
        for batch in steps:
            now = time.monotonic()
            for step in batch:
                row = rows[step["row"]]
                began.setdefault(row, now)
                made[row] += 1
                shown[row] += utf16(step["text"])
                p, chance = (float(f"{share:.4g}") for share in (math.exp(step["logprob"]), step["chance"]))
                if step["note"]:
                    forgotten = FORGOTTEN if step["dropped"] and first["chat"] else ""
                    told += line({"note": step["note"] + forgotten, "row": row})
                told += line(
                    [
                        row,
                        step["id"],
                        step["piece"],
                        shown[row],
                        p,
                        chance,
                        step["finish"],
                        step["gone"],
                    ]
                )
                if step["finish"] and made[row] > 1:
                    told += line({"rate": (made[row] - 1) / max(now - began[row], 1e-9), "row": row})
            if now - last >= 1 / UPDATES:
                last = now
                yield told
    finally:
        steps.close()  # the place in the engine is free at once when the reader leaves or presses Stop
    yield told + line({"end": True})


def sent_from_afar(told: str, asked: dict[int, dict[str, Any]], sides: list[SampleConfig]) -> Iterator[str]:
    """What a server behind HTTP answers, one setting after the other, added to what was `told` so far."""
    last = time.monotonic()
    for row, one in asked.items():
        for news in afar.news(row, one, sides[row]):
            told += line(news)
            if time.monotonic() - last >= 1 / UPDATES:
                last = time.monotonic()
                yield told
    yield told + line({"end": True})


@plain_errors
def generate(
    model: str,
    prompt: str,
    special: bool,
    compare: bool,
    on: bool,
    system: str,
    template: str,
    talk: str,
    *values: Any,
) -> Iterator[str]:
    """Continue the prompt (in a chat: answer it) with setting A, and B beside it when two are compared."""
    yield from written(model, prompt, special, compare, on, system, template, talk, *values, sent=on is True)


def written(
    model, prompt, special, compare, on, system, template, talk, *values: Any, sent: bool = False
) -> Iterator[str]:
    """What `generate` tells the browser. Raises ValueError."""
    sides, turns, adapters = configs(compare, values), spoken(talk), strengths(values)
    asked = {
        row: asking(model, prompt, special, on, system, template, turns[row], adapters)
        for row in range(len(sides))
    }
    yield from stream(asked, sides, [], sent)


@plain_errors
def opening(model: str, *asked: Any) -> Iterator[str]:
    """The worked example: as `generate`, but with a sentence in its place when there is no model yet."""
    if not paths.model_names():
        yield line(
            {
                "message": "There is no model here yet. Train one in the Train tab: it appears in the list as soon as it is saved."
            }
        )
        return
    yield from written(model, *asked)


def continued(event: gr.EventData, place: dict, compare: bool, *values: Any) -> Iterator[str]:
    """Go on from another token at the opened place, with the settings as they stand now."""
    yield from go_on(dict(place or {}), event._data.get("id"), compare, *values)


@plain_errors
def go_on(place: dict, id: int, compare: bool, *values: Any) -> Iterator[str]:
    """The text of `place` up to its token, then token `id`, then what the model makes of it."""
    if not place:
        raise ValueError("Open a token first: click it in the text.")
    if afar.is_far((place.get("asked") or {}).get("model")):
        raise ValueError("A model behind HTTP goes its own way: another token cannot be given to it.")
    sides = configs(compare, values)
    row = min(place["row"], len(sides) - 1)
    forced = [*place["after"], ids([id])[0]]
    more = sides[row].max_new_tokens + len(forced)
    sides[row] = from_dict(SampleConfig, to_dict(sides[row]) | {"max_new_tokens": min(more, 100_000)})
    yield from stream({row: dialled(place["asked"], values)}, sides, forced)


def dialled(asked: dict[str, Any], values: tuple[Any, ...]) -> dict[str, Any]:
    """What was asked, with the dials as they stand now where they are those of the same adapters. Raises ValueError."""
    now = strengths(values)
    return asked | {"adapters": now} if now and now.keys() == (asked.get("adapters") or {}).keys() else asked


# ---- The next token as a table ----------------------------------------------------------------------------------------


def ids(values: object) -> list[int]:
    """Token ids that came from a browser. Raises ValueError when they are none."""
    if (
        not isinstance(values, list)
        or len(values) > LONGEST
        or not all(type(v) is int and 0 <= v < 2**31 for v in values)
    ):
        raise ValueError("These are no token ids.")
    return values


def placed(data: object) -> dict[str, Any]:
    """A place in a text from what the browser sends: what was asked and the ids before it. Raises ValueError."""
    data = data if isinstance(data, dict) else {}
    asked = data.get("asked") if isinstance(data.get("asked"), dict) else {}
    talk = asked.get("chat") if isinstance(asked.get("chat"), dict) else None
    told = (talk or {}).get
    chosen = data.get("chosen")
    return dict(
        asked=asking(
            asked.get("model"), asked.get("prompt"), asked.get("special"), talk is not None, told("system"), told("template"),
            told("turns"), None if asked.get("adapters") is None else tuned.checked_strengths(asked["adapters"]),
        ),
        row=1 if data.get("row") == 1 else 0, after=ids(data.get("after")), chosen=None if chosen is None else ids([chosen])[0],
        top=afar.told(data.get("top")),
    )  # fmt: skip


@plain_errors
def opened(wish: str, compare: bool, *values: Any) -> tuple[dict[str, Any], str]:
    """A token was clicked: its place, and the table of what could stand there.

    The browser names the place in `wish` when the question is sent, so that it is the last one clicked: Gradio repeats
    the data of the first of several events that come while an answer is on its way.
    """
    try:
        place = placed(json.loads(wish))
    except (TypeError, RecursionError, json.JSONDecodeError):
        raise ValueError("Open a token first: click it in the text.") from None
    return place, table(place, compare, *values)


def table(place: dict[str, Any], compare: bool, *values: Any) -> str:
    """The table of the opened place with the settings as they stand now; a sentence when they cannot be used."""
    if not place:
        return message("Click a token of the text: what could have stood in its place appears here.")
    if afar.is_far(place["asked"]["model"]):
        return figures.told_afar(place.get("top") or [])
    try:
        asked, sides = dialled(place["asked"], values), configs(compare, values)
        row = min(place["row"], len(sides) - 1)
        found = engine.get().explain(
            asked["model"], text=reading(asked).prompt, config=sides[row], special=asked["special"], after=place["after"],
            top=LISTED, also=[] if place["chosen"] is None else [place["chosen"]], adapters=asked.get("adapters"),
        )  # fmt: skip
    except ValueError as error:
        return message(str(error), "error")
    side = f", setting {'AB'[row]}" if compare else ""
    where = f"New token {len(place['after']) + 1}{side}: the table follows the settings as you move them."
    return figures.next_token(found, place["chosen"], where)


def next_tokens(
    model: str,
    prompt: str,
    temperature: float = 0.8,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    repetition_penalty: float = 1.0,
) -> dict:
    """The likeliest next tokens of a prompt, and what each step of sampling does to them.

    Args:
        model: name of a model
        prompt: the text so far
    Returns:
        rows with id, text, logit, penalty, temperature, softmax, top_k, top_p, min_p, probability; kept: tokens left after each step
    """
    model, prompt = checked(model, prompt)
    config = SampleConfig(
        temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, repetition_penalty=repetition_penalty
    )
    return engine.get().explain(model, text=prompt, config=config, top=LISTED)


def continuation(
    model: str, prompt: str, max_new_tokens: int = 100, temperature: float = 0.8, seed: int = 0
) -> str:
    """The text with which a model continues a prompt.

    Args:
        model: name of a model
        prompt: the text so far
    """
    model, prompt = checked(model, prompt)
    config = SampleConfig(max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)
    return "".join(step["text"] for steps in engine.get().generate(model, [prompt], config) for step in steps)


def answer(
    model: str,
    message: str,
    system: str = "",
    history: list | None = None,
    template: str = "",
    max_new_tokens: int = 200,
    temperature: float = 0.7,
    seed: int = 0,
) -> str:
    """A model's answer to a message, through its chat template.

    Args:
        model: name of a model
        message: what is said to it
        system: a system message
        history: the turns so far, each with role (user or assistant) and content
        template: plain, alpaca or chatml instead of the model's own template
    """
    asked = asking(model, message, False, True, system, template, history or [])
    read = reading(asked)
    config = SampleConfig(max_new_tokens=max_new_tokens, temperature=temperature, seed=seed, stop=read.stops)
    return "".join(
        step["text"] for steps in engine.get().generate(model, [read.prompt], config) for step in steps
    )


def surprise(model: str, text: str) -> dict:
    """How likely a model finds each token of a text, given those before it.

    Args:
        model: name of a model
        text: any text
    Returns:
        ids, texts, logprobs (natural logarithms; none for the first token), dropped (tokens beyond the context)
    """
    model, text = checked(model, text)
    return engine.get().score(model, text=text)


# ---- Layout -----------------------------------------------------------------------------------------------------------


def setting(view: View, name: str, side: str = "", value: Any = None) -> gr.components.Component:
    """The widget of one knob of SampleConfig, kept in the address bar."""
    knob = next(k for k in knobs(SampleConfig) if k.name == name)
    key = f"{side}{name}"
    options = dict(
        label=LABELS.get(name, forms.title(name)), info=knob.help, elem_id=f"{view.tab}-{key}", interactive=True,
        value=forms.shown(knob.default) if value is None else value,
    )  # fmt: skip
    if name in SLIDERS:
        low, high, step = SLIDERS[name]
        widget = gr.Slider(low, high, step=step, **options)
    elif knob.kind is bool:
        widget = gr.Checkbox(**options)
    elif knob.choices:
        widget = gr.Radio(list(knob.choices), **options)
    elif knob.kind is tuple:
        widget = gr.Textbox(
            lines=2, **options | {"info": r"Each line ends the text where it occurs; \n is a line break"}
        )
    else:
        widget = gr.Number(precision=0, step=1, **options)
    view.keep(key, widget)
    return widget


def settings(view: View, side: str = "", **values: Any) -> list[gr.components.Component]:
    """The widgets of one setting: its sliders, then the two numbers side by side."""
    found = {
        name: setting(view, name, side, values.get(name))
        for name in ("temperature", "top_p", "min_p", "repetition_penalty")
    }
    with gr.Row():
        found |= {name: setting(view, name, side, values.get(name)) for name in ("top_k", "seed")}
    found["weights"] = setting(view, "weights", side, values.get("weights"))
    return [found[name] for name in EACH]


def side_title(compare: bool) -> str:
    """The heading of the first settings."""
    return f"<p class='pg-side'>{'Setting A' if compare else 'Settings'}</p>"


# ---- Chat -------------------------------------------------------------------------------------------------------------


def has_template(model: object) -> bool:
    """Whether a model brings a chat template of its own; one behind HTTP answers messages in any case."""
    if afar.is_far(model):
        return True
    try:
        return bool(chat.read(paths.model_folder(model)).template)
    except (ValueError, TypeError):  # its files say what is wrong when it is asked
        return False


def templates(own: bool, chosen: object) -> dict:
    """The choice of chat templates for a model with or without its own."""
    choices = [(OWN, "")] * own + [(one.label, name) for name, one in chat.TEMPLATES.items()]
    values = [value for _, value in choices]
    return gr.update(choices=choices, value=chosen if chosen in values else values[0])


def without_template(model: object) -> str:
    """What is said of a chat with a model that has no chat template, as HTML."""
    return message(
        f"{model} has no chat template: it only completes texts. The template chosen here writes the conversation down for "
        "it to continue; it has not been taught to answer.",
        "warning",
    )


def talked(on: bool, model: str, template: str, prompt: str) -> list[Any]:
    """What Chat being switched, or another model, makes of the widgets that belong to it."""
    on, own = on is True, has_template(model)
    example = {EXAMPLE: QUESTION} if on else {QUESTION: EXAMPLE}
    changed = {"value": example[prompt]} if prompt in example else {}
    return [
        gr.update(visible=on),
        templates(own, template),
        gr.update(value="" if own or not model else without_template(model), visible=on and not own),
        gr.update(label="Message" if on else "Prompt", **changed),
        gr.update(value="Send" if on else "Generate"),
        gr.update(visible=on),
    ]


def at_opening(model: str, template: str, prompt: str, on: bool, request: gr.Request) -> list[Any]:
    """The chat's widgets as the page opens: on where the link says so, else where the model has a template."""
    if "playground.chat" not in dict(request.query_params):
        on = has_template(model)
    return [on, *talked(on, model, template, prompt), 1]


# ---- Adapters ---------------------------------------------------------------------------------------------------------


def dials(model: object, said: str = "") -> list[Any]:
    """The panel of a model's adapters: what it says, the names, one slider each.

    `said`: the strengths of a link, "one=0.5 other=2". Else the model's own adapter stands at 1, the others at 0.
    """
    try:
        found = tuned.dialled(model) if isinstance(model, str) and model else []
    except (ValueError, OSError):
        found = []
    try:
        begin = tuned.parsed(said.split()) if said else {}
    except ValueError:
        begin = {}
    names = [one.name for one in found[:DIALS]]
    if not set(begin) <= set(names):
        begin = {}
    own = {model: 1.0} if model in names else {}
    values = [(begin or own).get(name, 0.0) for name in names]
    sliders = [gr.update(visible=True, label=name, value=value) for name, value in zip(names, values)]
    hidden = [gr.update(visible=False, value=0)] * (DIALS - len(names))
    told = about_dials(model, tuned.below(model), len(found)) if names else ""
    return [gr.update(visible=bool(names)), told, " ".join(names), *sliders, *hidden]


def about_dials(model: str, base: str, n: int) -> str:
    """What the dials are, as HTML."""
    where = f"{model} is {base} with its adapter at 1." if base != model else f"Trained on {base}."
    several = " Several of them add up." if n > 1 else ""
    more = f" {n - DIALS} more are not shown: open one as the model to see its dial." if n > DIALS else ""
    return (
        f"<p class='pg-side'>{'Adapters' if n > 1 else 'Adapter'}</p><p class='pg-aside'>{escape(where)} 0 is the base alone, "
        f"2 twice what was learned; the weights stay where they are.{several}{escape(more)}</p>"
    )


def linked(names: str, *values: Any) -> str:
    """The strengths as a link holds them: "one=0.5 other=2"."""
    return " ".join(f"{name}={value:g}" for name, value in zip(names_of(names), values))


def followed(*given: Any) -> tuple[str, str, str]:
    """What follows every change of the form: the table of the opened place, the command, the strengths for the address bar.

    One handler for all three: each event of its own costs the browser as much again.
    """
    *asked, place = given
    values = asked[TALK + 1 :]
    names, *strong = values[SETTINGS:]
    return table(place, asked[3], *values), commands(*asked), linked(names, *strong) if names else gr.skip()


def build(view: View) -> None:
    """Lay out the tab and wire it."""
    intro(
        "How sure the model is of each token it writes: the deeper the colour, the less likely the token was.",
        "Click a token, then go on from another one. Or move the temperature and watch the table below.",
    )
    with gr.Row(elem_classes="pg-layout"):
        with gr.Column(scale=4, min_width=300):
            with gr.Column(elem_classes="pg-ask"):
                model = pickers.picker(view, "model", afar.names, "Model", pickers.FIRST_MODEL)
                on = gr.Checkbox(
                    False,
                    label="Chat",
                    info="The model answers a message through its chat template",
                    elem_id="playground-chat",
                )
                view.keep("chat", on)
                prompt = gr.Textbox(
                    EXAMPLE,
                    label="Prompt",
                    lines=4,
                    max_lines=12,
                    elem_id="playground-prompt",
                    interactive=True,
                )
                view.keep("prompt", prompt)
                hints = gr.HTML(hint(EXAMPLE), padding=False, elem_id="playground-hint")
                notice = gr.HTML("", padding=False, visible=False, elem_id="playground-notice")
                with gr.Row(elem_classes="pg-buttons"):
                    run = gr.Button(
                        "Generate", variant="primary", min_width=120, elem_id="playground-generate"
                    )
                    stop = gr.Button("Stop", min_width=120, elem_id="playground-stop")
                fresh = gr.Button("New conversation", size="sm", visible=False, elem_id="playground-fresh")
                gr.HTML(KEYS, padding=False)
            with gr.Column(elem_classes="pg-settings"):
                with gr.Column(visible=False, elem_classes="pg-chat") as talk_column:
                    system = gr.Textbox(
                        "",
                        label="System message",
                        info="Said before everything else; some templates refuse one",
                        lines=1,
                        max_lines=6,
                        elem_id="playground-system",
                        interactive=True,
                    )
                    view.keep("system", system)
                    template = Choice(
                        [(OWN, ""), *((one.label, name) for name, one in chat.TEMPLATES.items())],
                        value="",
                        label="Chat template",
                        info="How the conversation is written down for the model",
                        elem_id="playground-template",
                        interactive=True,
                    )
                    view.keep("template", template)
                with gr.Column(visible=False, elem_classes="pg-dials", elem_id="playground-dials") as panel:
                    told = gr.HTML("", padding=False)
                    sliders = [
                        gr.Slider(
                            0, tuned.STRONGEST, value=0, step=0.05, label=f"Adapter {i + 1}", visible=False, interactive=True,
                            elem_id=f"playground-dial-{i}",
                        )
                        for i in range(DIALS)
                    ]  # fmt: skip
                title = gr.HTML(side_title(False), padding=False)
                with gr.Group(elem_classes="pg-set"):
                    a = settings(view)
                length = setting(view, "max_new_tokens", value=EXAMPLE_TOKENS)
                compare = gr.Checkbox(
                    False,
                    label="Compare two settings",
                    info="B writes beside A, on the same prompt",
                    elem_id="playground-compare",
                )
                view.keep("compare", compare)
                with gr.Column(visible=False) as other:
                    gr.HTML("<p class='pg-side'>Setting B</p>", padding=False)
                    with gr.Group(elem_classes="pg-set"):
                        b = settings(view, "b_", temperature=0.2)
                with gr.Accordion("Where it ends, special tokens", open=False, elem_classes="lab-quiet"):
                    stops, at_eot = setting(view, "stop"), setting(view, "stop_at_eot")
                    special = gr.Checkbox(
                        False,
                        label="Special tokens in the prompt",
                        info=SPECIAL,
                        elem_id="playground-special",
                    )
                    view.keep("special", special)
        with gr.Column(scale=7, min_width=320):
            with gr.Column(elem_classes="pg-result"):
                out = gr.HTML(
                    "", html_template=HTML, js_on_load=SCRIPT.read_text(encoding="utf-8"), apply_default_css=False, elem_id="playground-out",
                )  # fmt: skip
            with gr.Column(elem_classes="pg-more"):
                costs = gr.HTML("", padding=False, visible=False, elem_id="playground-weights-costs")
                section("The next token, opened", ORDER)
                place = gr.State({})
                opened_table = gr.HTML(
                    table({}, False), js_on_load=TABLE_SCRIPT, apply_default_css=False, elem_id="playground-table",
                )  # fmt: skip
                section("The same in a terminal")
                line_out = gr.Code(
                    "", language="shell", lines=1, max_lines=8, interactive=False, show_label=False, wrap_lines=True, elem_id="playground-command",
                )  # fmt: skip
                show_code(*CODE)
    talk = gr.Textbox("{}", visible=False)  # the browser fills it in when something is asked: WITH_TALK
    names = gr.Textbox("", visible=False)  # of the adapters on the sliders, in their order
    link = gr.Textbox("", visible=False)  # the same with their strengths, for the address bar
    values = [*a, *b, length, stops, at_eot, names, *sliders]
    asked = [model, prompt, special, compare, on, system, template, talk, *values]
    assert asked.index(talk) == TALK
    start = gr.State(0)
    chatting = [talk_column, template, notice, prompt, run, fresh]
    wire_dials(view, model, on, link, [panel, told, names, *sliders])
    wire_chat(view, model, on, template, prompt, fresh, chatting, start)
    wire(view, asked, start, out, place, opened_table, line_out, link, run, stop, hints)
    wire_weights(view, [model, compare, a[-1], b[-1]], costs)
    compare.change(
        lambda on: (gr.update(visible=bool(on)), side_title(on)), compare, [other, title],
        queue=False, api_visibility="private", show_progress="hidden",
    )  # fmt: skip
    gr.api(continuation, api_name="playground_continue", api_visibility="public")
    gr.api(answer, api_name="playground_chat", api_visibility="public")
    gr.api(surprise, api_name="playground_score", api_visibility="public")
    gr.api(next_tokens, api_name="playground_next_tokens", api_visibility="public")


def wire_dials(view: View, model, on, link, panel) -> None:
    """Connect the dials: another model shows its own; one that is let go writes the text anew."""
    _, _, names, *sliders = panel
    quiet = dict(api_visibility="private", show_progress="hidden", queue=False)
    view.keep("adapters", link)
    view.on_load(dials, panel, [model, link])
    model.input(dials, model, panel, **quiet)
    view.on_select(refreshed_dials, panel, [model, link, names, *sliders])
    gr.on([slider.release for slider in sliders], None, on, None, js=WRITE_ANEW, api_visibility="private")


def refreshed_dials(model: object, link: str, names: str, *values: Any) -> list[Any]:
    """The dials when the tab is chosen again: an adapter that was trained meanwhile has one too."""
    return dials(model, linked(names, *values) or link)


def wire_weights(view: View, asked, costs) -> None:
    """Connect the choice of weights: what smaller ones cost is measured when one is chosen."""
    view.on_load(weights.told, costs, asked, slow=True)
    gr.on(
        [one.change for one in asked], weights.told, asked, costs,
        trigger_mode="always_last", api_visibility="private", show_progress="minimal",
    )  # fmt: skip


def wire_chat(view: View, model, on, template, prompt, fresh, chatting, start) -> None:
    """Connect what belongs to the chat; `start` goes to 1 when the page has opened and its first text may begin."""
    quiet = dict(api_visibility="private", show_progress="hidden")
    # slow, that is through the queue: only its answers tell the browser that a gr.State changed
    view.on_load(at_opening, [on, *chatting, start], [model, template, prompt, on], slow=True)
    on.input(talked, [on, model, template, prompt], chatting, queue=False, **quiet)
    model.input(
        lambda *values: [own := has_template(values[0]), *talked(own, *values)], [model, template, prompt], [on, *chatting],
        queue=False, **quiet,
    )  # fmt: skip
    fresh.click(None, None, None, js="() => { window.lab.playground.fresh(); }", **quiet)


def wire(view: View, asked, start, out, place, opened_table, line_out, link, run, stop, hints) -> None:
    """Connect the widgets. `asked` are model, prompt, special, compare, the chat and the values of the settings."""
    prompt, compare, values = asked[1], asked[3], asked[TALK + 1 :]
    quiet = dict(api_visibility="private", show_progress="hidden")
    streaming = dict(concurrency_id="stream", concurrency_limit=16, **quiet)
    wish = gr.Textbox("", visible=False)  # the browser fills it in when a token is clicked: WITH_WISH
    writing = [
        start.change(opening, asked, out, **streaming),
        run.click(generate, asked, out, js=WITH_TALK, **streaming),
        opened_table.submit(continued, [place, compare, *values], out, **streaming),
    ]
    stop.click(None, None, None, cancels=writing, **quiet)
    out.select(
        opened, [wish, compare, *values], [place, opened_table],
        js=WITH_WISH, trigger_mode="always_last", queue=False, **quiet,
    )  # fmt: skip
    gr.on(
        [one.change for one in asked], followed, [*asked, place], [opened_table, line_out, link],
        js=WITH_TALK, trigger_mode="always_last", queue=False, **quiet,
    )  # fmt: skip
    view.on_load(commands, line_out, asked)
    prompt.change(hint, prompt, hints, trigger_mode="always_last", queue=False, **quiet)
