"""Arena: two answer without their names, a person votes, and the votes become ratings, and rows that train."""

from __future__ import annotations

import json
import queue
import random
import secrets
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

import gradio as gr

from llm import arena, pairs, paths, prompts, ratings, speakers, tuned
from llm.config import SampleConfig
from ui import pickers
from ui.allowed import gate
from ui.figures import arena as figures
from ui.figures.base import escape, message
from ui.owner import brought, may_open, own_rows, owner
from ui.parts import Choice, intro, plain_errors, section, show_code
from ui.view import View

FIRST = ["story-llama", "story-gpt2", "story-prefer"]
PROMPTS = (
    "Long ago, a shy otter named Otto", "Once upon a time, a brave mouse named Pip", "In June, when this story begins, Mia",
    "A clever fox called Felix lived", "This is the story of Clara, a sleepy", "There was once a patient bear named Bruno",
)  # fmt: skip
MAIN = "main"  # the board where no other is named
ALL, MINE = "everybody's votes", "my votes"
UPDATES = 8  # of the page a second, at most
POLL_SECONDS = 3
MOST = 12  # who take part at once
STEPS = 4  # kept steps of a run that take part at once
NAME = "arena-votes"
KEYS = """
const keys = { 1: 'a', 2: 'b', 3: 'tie', 4: 'bad' };
document.addEventListener('keydown', (event) => {
  if (event.target.closest('input, textarea, [contenteditable]') || event.ctrlKey || event.metaKey || event.altKey) return;
  const button = document.getElementById('arena-vote-' + keys[event.key]);
  if (button && button.offsetParent && !button.disabled) button.click();
});
"""


# ---- A round --------------------------------------------------------------------------------------------------------------


def present(request: gr.Request | None) -> list[str]:
    """Everyone the visitor can let take part."""
    return pickers.speaker_names(owner(request))


def lettable(request: gr.Request) -> Any:
    """The picker of those who take part, with what the visitor may choose."""
    return gr.update(choices=present(request))


def linked(text: str | None) -> list[str]:
    """The names in a link; none where it holds no list of names."""
    try:
        found = json.loads(text or "[]")
    except ValueError:
        return []
    return [one for one in found if isinstance(one, str)] if isinstance(found, list) else []


def taking_part(who: Any, request: gr.Request | None) -> list[str]:
    """Who was chosen, and can speak. Raises ValueError with what is missing."""
    known = set(present(request))
    names = [name for name in (who if isinstance(who, list) else []) if name in known]
    if len(names) < 2:
        raise ValueError("Choose at least two who take part: a round has an A and a B.")
    if len(names) > MOST:
        raise ValueError(f"{len(names)} take part; {MOST} at once are the most.")
    return names


def next_pair(names: list[str], board: str) -> tuple[str, str]:
    """Two of `names` whose difference is known least, by chance among the few least known, in either order."""
    counted = arena.tally(also=names, name=board)
    place = [counted.names.index(name) for name in names]
    found = ratings.fit(counted.wins[place][:, place])
    best = ratings.widest(found, counted.games[place][:, place])[: max(len(names) // 2, 1)]
    pair = [names[i] for i in random.choice(best)]
    random.shuffle(pair)
    return pair[0], pair[1]


def said(
    who: str,
    prompt: str,
    how: SampleConfig,
    visitor: str,
    side: str,
    news: queue.Queue,
    gone: threading.Event,
):
    """Ask one of the two, in a thread of its own; its news are (side, kind, text)."""
    try:
        for piece in speakers.speak(who, [{"role": "user", "content": prompt}], how, gone.is_set, visitor):
            if piece.text:
                news.put((side, "text", piece.text))
        news.put((side, "end", ""))
    except ValueError as error:
        # the sentence may name the model, and nobody shall know it before the vote
        news.put((side, "problem", str(error)))
    except Exception:  # the boundary of a thread: somebody waits for its end
        news.put((side, "problem", "Something went wrong in the lab."))
        raise


@plain_errors
def play(
    who: Any, prompt: str, topic: str, board: str, length: Any, heat: Any, request: gr.Request
) -> Iterator[list[Any]]:
    """A new round: (round, pane A, pane B, the sentence below), as both write."""
    visitor, board = owner(request), board or MAIN
    names = taking_part(who, request)
    seed = secrets.randbelow(2**31 - 1)
    how = SampleConfig(max_new_tokens=int(length or 0), temperature=float(heat or 0), seed=seed)
    other = replace(
        how, seed=seed + 1
    )  # with the same draws two models of one encoding write nearly the same
    a, b = next_pair(names, board)
    id = arena.begin(prompt, a, b, visitor, topic or "", seed, board)
    news, gone = queue.Queue(), threading.Event()
    for side, name, drawn in (("a", a, how), ("b", b, other)):
        threading.Thread(
            target=said, args=(name, prompt, drawn, visitor, side, news, gone), daemon=True
        ).start()
    texts, states = {"a": "", "b": ""}, {"a": "writing", "b": "writing"}
    told, problem = message("Vote when you know: keys 1 to 4 do it too."), ""
    panes = lambda: [figures.pane(side.upper(), texts[side], states[side]) for side in "ab"]  # noqa: E731
    yield [id, *panes(), told]
    last = time.monotonic()
    try:
        while "writing" in states.values():
            with suppress(queue.Empty):
                side, kind, text = news.get(timeout=1 / UPDATES)
                if kind == "text":
                    texts[side] += text
                else:
                    states[side] = "done"
                    problem = problem or (f"{side.upper()} could not answer." if kind == "problem" else "")
                    detail = f"{side.upper()} could not answer: {text}" if kind == "problem" else ""
                    arena.answered(id, side, texts[side], detail, board)
            if time.monotonic() - last >= 1 / UPDATES or "writing" not in states.values():
                last = time.monotonic()
                yield [gr.skip(), *panes(), message(f"{problem} This round does not count: start the next one.", "error") if problem else gr.skip()]  # fmt: skip
    finally:
        gone.set()


def voted(choice: str):
    """The handler of one vote button."""

    def handler(id: str, board: str, request: gr.Request) -> str:
        return vote(id, choice, board or MAIN, owner(request))

    return plain_errors(handler)


def vote(id: str, choice: str, board: str, visitor: str) -> str:
    """Add a vote; who the two were, and what it did to their ratings. Raises ValueError as `arena.vote`."""
    if not id:
        raise ValueError("Start a round first: then there is something to vote on.")
    before = points(board)
    found = arena.vote(id, choice, visitor, board)
    after = points(board)
    moves = [f"{side} {after.get(name, 1000) - before.get(name, 1000):+.0f}" for side, name in (("A", found.a), ("B", found.b))]  # fmt: skip
    sentence = f"{arena.CHOICES[choice]}. Ratings: {', '.join(moves)} points." if choice != "bad" else "Both bad: no rating moves."  # fmt: skip
    return figures.names(found.a, found.b, sentence.replace("-", "−"))


def points(board: str) -> dict[str, float]:
    """The rating of everyone on a board."""
    counted = arena.tally(name=board)
    return dict(zip(counted.names, ratings.fit(counted.wins).points()))


@plain_errors
def reveal(id: str, board: str, request: gr.Request) -> str:
    """The names without a vote: the round is void from then on. Raises ValueError when it is not the visitor's."""
    found = arena.get(id, board or MAIN) if id else None
    if found is None or found.voter != owner(request):
        raise ValueError("Start a round first.")
    arena.reveal(id, board or MAIN)
    sentence = "Voted already; nothing changes." if found.choice else "Shown before a vote: this round does not count."  # fmt: skip
    return figures.names(found.a, found.b, sentence)


# ---- The board ------------------------------------------------------------------------------------------------------------


def standing(board: str, topic: str, whose: str, seen: str, request: gr.Request) -> list[Any]:
    """(board, win matrix, counts, topics, mark): nothing is sent where nothing has changed since the mark `seen`."""
    board, topic = board or MAIN, topic or ""
    try:
        counted = arena.tally(topic, owner(request) if whose == MINE else "", name=board)
    except ValueError as error:
        return [message(str(error), "error"), "", "", gr.skip(), ""]
    mark = f"{board}|{topic}|{whose}|{counted.votes}|{counted.bad}|{hash(counted.wins.tobytes())}"
    if mark == seen:
        return [gr.skip()] * 5
    found = ratings.fit(counted.wins)
    told = (
        f"{counted.votes:,} vote{'s' * (counted.votes != 1)}, {counted.ties:,} of them ties; in {counted.bad:,} more both "
        "were bad, which says nothing about who is better."
        if counted.bad
        else f"{counted.votes:,} vote{'s' * (counted.votes != 1)}, {counted.ties:,} of them ties."
    )
    return [
        figures.board(
            counted.names, found.points(), found.margins(), counted.wins, counted.games, found.open
        ),
        figures.matrix(counted.names, counted.wins, counted.games),
        f"<p class='ar-remark'>{escape(told)}</p>",
        gr.update(choices=["", *arena.topics(board)]),
        mark,
    ]


def again(board: str, topic: str, whose: str, request: gr.Request) -> list[Any]:
    """`standing`, sent in any case."""
    return standing(board, topic, whose, "", request)


# ---- What the votes are good for --------------------------------------------------------------------------------------------


@plain_errors
def make_rows(board: str, topic: str, whose: str, name: str, request: gr.Request) -> str:
    """Votes as rows that Finetune trains on; what was left out is counted."""
    rounds = arena.voted(topic or "", owner(request) if whose == MINE else "", board or MAIN)
    rows, left = arena.preferences(rounds)
    out = ", ".join(f"{count} {reason}" for reason, count in left.items())
    if not rows:
        raise ValueError(
            f"No vote gives a row yet ({out or 'there are no votes'}): vote for A or for B first."
        )
    name = (name or "").strip() or NAME
    total = pairs.append(own_rows(name), [{field: row[field] for field in pairs.FIELDS} for row in rows])
    brought(name)
    link = "?" + urlencode(
        {f"finetune.{key}": value for key, value in training_on(name, rows).items()} | {"tab": "finetune"}
    )
    return (
        f"<div class='lab-message lab-note' role='note'>{escape(name)} has {total:,} row{'s' * (total != 1)} now"
        f"{escape(f'; left out: {out}' if out else '')}. <a href='{escape(link)}'>Train on them in Finetune</a></div>"
    )


def training_on(dataset: str, rows: list[dict[str, Any]]) -> dict[str, str]:
    """The settings of Finetune for rows of votes: the model preferred most often, written there as it was asked here."""
    form = {"objective": "prefer", "dataset": dataset, "room": "tune"}
    liked = Counter(row["chosen_by"] for row in rows).most_common()
    here = [one for one, _ in liked if one in paths.model_names()]
    if not here:  # steps, adapters and models behind HTTP: a model to start from is to be chosen
        return form
    return form | {"model": here[0], "style": "own" if speakers.has_template(here[0]) else prompts.BARE}


def family(name: str, request: gr.Request | None = None) -> list[str]:
    """A model with its kin: what it was made from, steps it kept on its way, what was tuned from it.

    Raises ValueError when there is no such model.
    """
    known = present(request)
    base = tuned.training(name)
    kept = [one for one in known if one.startswith(f"{name}@")]
    spread = (
        [kept[round(i * (len(kept) - 1) / (STEPS - 1))] for i in range(STEPS)] if len(kept) > STEPS else kept
    )
    children = [one for one in tuned.models() if (made := tuned.training(one)) and made.start_from == name]
    parent = [base.start_from] if base and base.start_from else []
    sisters = [one for one in tuned.models() if parent and (made := tuned.training(one)) and made.start_from == parent[0]]  # fmt: skip
    found = [one for one in dict.fromkeys([*spread, *parent, name, *children, *sisters]) if one in known]
    return found[:MOST]


@plain_errors
def invite(name: str, request: gr.Request) -> Any:
    """Let a model and its kin take part."""
    if not name:
        raise ValueError("Choose a model first.")
    found = family(name, request)
    if len(found) < 2:
        raise ValueError(
            f"{name} has no kin here: nothing was tuned from it, and it kept no steps (Train can: keep_checkpoints)."
        )
    return gr.update(choices=present(request), value=found)


# ---- The page ---------------------------------------------------------------------------------------------------------------


def build(view: View) -> None:
    """Lay out the tab and wire it."""
    intro(
        "Which of two is better is easier to say than how good one is: many such votes make a ranking with error bars.",
        "Vote ten times, then see whose interval is still wide: the next pair is chosen there.",
    )
    with gr.Row(elem_classes="ev-room"):
        with gr.Column(scale=4, min_width=320):
            who = Choice(FIRST, value=FIRST, multiselect=True, label="Who takes part", elem_id="arena-who", interactive=True)  # fmt: skip
            gate(who, may_open)
            prompt = gr.Textbox(PROMPTS[0], label="Prompt", lines=3, max_lines=8, elem_id="arena-prompt")
            with gr.Row(elem_classes="train-pair"):
                other = gr.Button("Another prompt", size="sm", elem_id="arena-other")
            with gr.Accordion("Settings", open=False, elem_classes="lab-quiet"):
                topic = gr.Textbox(
                    "", label="Topic of the round (optional)", max_lines=1, elem_id="arena-topic"
                )
                with gr.Row(elem_classes="train-pair"):
                    length = gr.Number(100, label="Tokens at most", precision=0, minimum=1, maximum=2000, elem_id="arena-length", min_width=120)  # fmt: skip
                    heat = gr.Number(0.7, label="Temperature", minimum=0, maximum=10, elem_id="arena-heat", min_width=120)  # fmt: skip
                board = gr.Textbox(MAIN, label="Board: all who open a link with the same name vote on one", max_lines=1, elem_id="arena-board")  # fmt: skip
            go = gr.Button("New round", variant="primary", elem_id="arena-go")
            with gr.Accordion("Bring a model and its kin", open=False, elem_classes="lab-quiet"):
                kin = Choice(pickers.model_names(), value=None, label="Model or run", elem_id="arena-kin", interactive=True)  # fmt: skip
                gate(kin, may_open)
                bring = gr.Button("Steps, base and tuned children", size="sm", elem_id="arena-bring")
        with gr.Column(scale=7, min_width=320):
            with gr.Row(elem_classes="ar-two"):
                pane_a = gr.HTML(figures.pane("A", "", "empty"), padding=False, elem_id="arena-a")
                pane_b = gr.HTML(figures.pane("B", "", "empty"), padding=False, elem_id="arena-b")
            with gr.Row(elem_classes="ar-votes"):
                votes = {
                    choice: gr.Button(label, size="sm", elem_id=f"arena-vote-{choice}", min_width=110)
                    for choice, label in arena.CHOICES.items()
                }
                show = gr.Button("Show the names", size="sm", elem_id="arena-reveal", min_width=110)
            told = gr.HTML(message("Start a round: two of those chosen answer, without their names."), padding=False, js_on_load=KEYS, elem_id="arena-told")  # fmt: skip
    section("The board", "Bradley-Terry ratings with 95 % intervals: 120 points are odds of two to one, in whatever order the votes came.")  # fmt: skip
    with gr.Row(elem_classes="train-pair"):
        of_topic = Choice([""], value="", label="Topic", info="Empty: all", elem_id="arena-of-topic", allow_custom_value=True, interactive=True, min_width=160)  # fmt: skip
        whose = gr.Radio([ALL, MINE], value=ALL, label="Counted", elem_id="arena-whose")
    counts = gr.HTML(padding=False, elem_id="arena-counts")
    ranking = gr.HTML(padding=False, elem_id="arena-ranking")
    with gr.Accordion("Who beat whom", open=False, elem_classes="lab-quiet"):
        beaten = gr.HTML(padding=False, elem_id="arena-matrix")
    with gr.Accordion("Make rows of the votes, and train on them", open=False, elem_classes="lab-quiet"):
        with gr.Row(elem_classes="train-pair"):
            name = gr.Textbox(
                NAME, label="Name of the rows", max_lines=1, elem_id="arena-rows-name", min_width=160
            )
            make = gr.Button("Make rows", size="sm", elem_id="arena-rows")
        made = gr.HTML(padding=False, elem_id="arena-made")
    show_code("llm.ratings:fit", "llm.ratings:connected", "llm.ratings:widest", "llm.arena:tally")
    id, mark = gr.Textbox(visible="hidden", elem_classes="lab-hidden"), gr.Textbox(visible="hidden", elem_classes="lab-hidden")  # fmt: skip
    for key, widget in dict(prompt=prompt, board=board, length=length, heat=heat, counted=whose).items():
        view.keep(key, widget)

    def restored(text: str | None = None) -> dict:
        known = pickers.speaker_names("")
        chosen = [one for one in linked(text) if one in known] or [one for one in FIRST if one in known]
        return gr.update(choices=known, value=chosen)

    quiet = dict(api_visibility="private", show_progress="hidden", queue=False)
    view.keep("topic", of_topic, restore=lambda text: gr.update(value=text or ""))
    view.keep("who", who, restore=restored)
    view.on_select(lettable, who)
    view.refresh(kin, lambda value: gr.update(choices=paths.model_names()))
    table = [ranking, beaten, counts, of_topic, mark]
    asked = [board, of_topic, whose]
    gr.on(
        [go.click, prompt.submit], play, [who, prompt, topic, board, length, heat], [id, pane_a, pane_b, told],
        api_visibility="private", show_progress="hidden", concurrency_id="arena", concurrency_limit=40,
    )  # fmt: skip
    other.click(lambda now: random.choice([p for p in PROMPTS if p != now]), prompt, prompt, **quiet)
    for choice, button in votes.items():
        button.click(voted(choice), [id, board], told, **quiet).success(again, asked, table, **quiet)
    show.click(reveal, [id, board], told, **quiet)
    gr.on(
        [of_topic.change, whose.change, board.change],
        again,
        asked,
        table,
        **quiet,
        trigger_mode="always_last",
    )
    bring.click(invite, kin, who, **quiet)
    make.click(make_rows, [board, of_topic, whose, name], made, **quiet)
    timer = gr.Timer(POLL_SECONDS, active=False)
    timer.tick(standing, [*asked, mark], table, **quiet)
    view.on_load(lettable, who)
    view.on_load(again, table, asked)
    view.on_load(lambda: gr.Timer(active=True), timer)
    view.on_select(again, table, asked)
