"""Prompt styles: rows and conversations as the ids a model reads, and which of them it is to learn. No torch here.

    found = manner("alpaca", folder, encoding)
    (row,) = write(found, encoding, [conversation({"instruction": "Name a colour.", "output": "Red."}, found.joint)])
    row.ids, row.answer

A prompt is written exactly as it will be when the model is asked later, and the answer is encoded apart from it, as the
model will find it: token by token after the last token of the prompt.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from llm import chat, corpora, rows
from llm.chat import Message, Piece
from llm.config import RunConfig
from llm.tokenizer import Tokenizer

IGNORED = -100  # a target that does not count
CHUNK = 400  # conversations that are handed to a foreign template at once
MOST_REFUSED = 20  # rows that a foreign template may refuse before it is taken as unfit
LARGEST = 2**31  # bytes of a file of rows


@dataclass(frozen=True)
class Style:
    """A way to write instructions down."""

    label: str
    source: str  # Jinja, as chat templates are
    stops: tuple[str, ...]  # where an answer ends when the model has no token for it
    joint: str  # what stands between an instruction and its input


BARE = "bare"  # no words around the text: what a model is asked with that has no chat template
STYLES = {
    "alpaca": Style(
        chat.TEMPLATES["alpaca"].label, chat.TEMPLATES["alpaca"].source, chat.TEMPLATES["alpaca"].stops, "\n\n### Input:\n"
    ),
    "phi3": Style(
        "Phi-3: <|user|> … <|end|>",
        "{% for message in messages %}{{ '<|' + message.role + '|>\n' + message.content + '<|end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}",
        ("<|end|>", "<|user|>"),
        "\n",
    ),
    "chatml": Style(
        chat.TEMPLATES["chatml"].label, chat.TEMPLATES["chatml"].source, chat.TEMPLATES["chatml"].stops, "\n"
    ),
    "plain": Style(chat.TEMPLATES["plain"].label, chat.TEMPLATES["plain"].source, chat.TEMPLATES["plain"].stops, "\n"),
    BARE: Style(
        "bare: the answer goes straight on", "{% for message in messages %}{{ message.content }}{% endfor %}", (), "\n"
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Manner:
    """A style as one model takes it: with the special tokens that its encoding has."""

    name: str  # of the model
    folder: Path | None  # its directory; None for one that has none yet
    source: str
    foreign: bool  # the template is the model's own: a program of somebody else's
    words: tuple[tuple[str, str], ...]
    specials: tuple[str, ...]  # tokens that nobody can type
    stops: tuple[str, ...]
    joint: str
    ends: frozenset[int]  # ids that end an answer
    begin_id: int | None  # what stands before every plain text


def manner(style: str, folder: Path | None, encoding: Tokenizer) -> Manner:
    """The style called `style`, or with "own" the model's chat template. Raises ValueError when there is none."""
    known = chat.read(folder) if folder else chat.Manners("this model", "", (), (), "", None, ())
    if style == "own":
        source, stops = chat.chosen(known)
        joint = "\n"
    elif style in STYLES:
        source, stops, joint = STYLES[style].source, STYLES[style].stops, STYLES[style].joint
        if style == BARE:  # a plain text, which begins as the model's texts do
            source = known.begins + source
    else:
        raise ValueError(
            f"There is no prompt style called {style!r}: choose one of {', '.join(STYLES)} or own."
        )
    ends = frozenset(known.end_ids) | ({encoding.eot_id} - {None})
    specials = tuple(chat.markers(known, encoding, source))
    return Manner(
        known.name, folder, source, style == "own", known.words, specials, stops, joint, ends, known.begin_id
    )


# --- from a row to a conversation


def question(row: Mapping[str, Any], joint: str) -> list[Message]:
    """What is said before the answer: earlier messages, then the instruction (or prompt) with its input."""
    asked = row["prompt"] if "prompt" in row else row["instruction"]
    if row.get("input"):
        asked += joint + row["input"]
    return [*row.get("history", ()), {"role": "user", "content": asked}]


def conversation(row: Mapping[str, Any], joint: str, answer: str = "output") -> list[Message]:
    """A row of an instruction, a conversation, or one answer of a preference ("chosen" or "rejected") as messages."""
    if "messages" in row:
        return list(row["messages"])
    return [*question(row, joint), {"role": "assistant", "content": row[answer]}]


# --- from a conversation to ids


@dataclass(frozen=True)
class Written:
    """A text for training. Position i of `answer` says whether token i is part of an answer or ends one."""

    ids: np.ndarray  # (n,)
    answer: np.ndarray  # (n,) bool

    def __len__(self) -> int:
        return len(self.ids)


def write(
    manner: Manner, encoding: Tokenizer, conversations: Sequence[Sequence[Message]]
) -> list[Written | str]:
    """Each conversation as ids; where one cannot be written, the reason in words instead.

    After the last answer comes the token that ends it: the one of the template, else the encoding's end-of-text.
    Raises ValueError when a model's own template refuses more than MOST_REFUSED of them.
    """
    found: list[Written | str] = []
    refused = 0
    for start in range(0, len(conversations), CHUNK):
        for messages, texts in zip(
            conversations[start : start + CHUNK], _texts(manner, conversations[start : start + CHUNK])
        ):
            try:
                if isinstance(texts, str):
                    refused += 1
                    raise ValueError(texts)
                found.append(_put(encoding, manner, _cut(manner, encoding, messages, *texts)))
            except ValueError as error:
                found.append(str(error).rstrip("."))
        if refused > MOST_REFUSED:
            raise ValueError(f"{refused} of the first {len(found)} rows cannot be written: {found[-1]}.")
    return found


Texts = tuple[list[str], str, str]  # the prompt before each answer; all of it; all of it with marks


def _texts(manner: Manner, conversations: Sequence[Sequence[Message]]) -> list[Texts | str]:
    """What the template makes of each conversation; where it refuses, what it says."""
    asked: list[list[Message]] = []
    for messages in conversations:
        prompts = [list(messages[:i]) for i, message in enumerate(messages) if message["role"] == "assistant"]
        asked += [*prompts, list(messages), _marked(manner, messages)]
    try:
        texts = iter(_rendered(manner, asked))
    except ValueError as error:
        if len(conversations) == 1:
            return [str(error)]
        half = len(conversations) // 2
        return _texts(manner, conversations[:half]) + _texts(manner, conversations[half:])
    counts = [sum(message["role"] == "assistant" for message in messages) for messages in conversations]
    return [([next(texts) for _ in range(count)], next(texts), next(texts)) for count in counts]


def _marked(manner: Manner, messages: Sequence[Message]) -> list[Message]:
    return [{**message, "content": chat.mark(message["content"], manner.specials)} for message in messages]


def _rendered(manner: Manner, conversations: Sequence[Sequence[Message]]) -> list[str]:
    """A foreign template runs in a process of its own, one of ours right here."""
    if manner.foreign:
        return chat.render(manner.name, manner.source, manner.words, *conversations)
    return chat.run(_sandbox(), manner.source, dict(manner.words), conversations)


@functools.lru_cache(maxsize=1)
def _sandbox() -> Any:
    return chat.sandbox()


Group = tuple[list[Piece], bool]  # pieces that follow one another, whether they are to be learned


def _cut(
    manner: Manner,
    encoding: Tokenizer,
    messages: Sequence[Message],
    prompts: list[str],
    plain: str,
    marked: str,
) -> list[Group]:
    """The text as prompt, answer, its end, more prompt, ... Raises ValueError when an answer is not to be found."""
    pieces = chat.cut(plain, marked, manner.specials)
    text = "".join(piece.text for piece in pieces)
    answers = [message["content"].strip() for message in messages if message["role"] == "assistant"]
    if not answers or not all(answers):
        raise ValueError("there is no answer to learn")
    groups: list[Group] = []
    done = 0
    for number, (prompt, answer) in enumerate(zip(prompts, answers), 1):
        begin = len(prompt)
        at = text.find(answer, begin)
        if not text.startswith(prompt) or begin < done or at < 0:
            raise ValueError(
                f"the chat template changes the conversation around answer {number}: it is not where its prompt ends"
            )
        end = at + len(answer)
        groups += [(_between(pieces, done, begin), False), (_between(pieces, begin, end), True)]
        if closing := _closing(manner, encoding, _between(pieces, end, len(text))):
            groups.append((closing, True))
            end += sum(len(piece.text) for piece in closing)
        done = end
    return groups


def _between(pieces: Sequence[Piece], start: int, end: int) -> list[Piece]:
    """The pieces from character `start` to before `end`, those at the edges cut."""
    found, at = [], 0
    for piece in pieces:
        part = piece.text[max(start - at, 0) : max(end - at, 0)]
        if part:
            found.append(piece._replace(text=part))
        at += len(piece.text)
    return found


def _closing(manner: Manner, encoding: Tokenizer, after: Sequence[Piece]) -> list[Piece]:
    """What ends an answer in the template: a token that ends answers, with the blanks before it; [] where it has none."""
    for number, piece in enumerate(after[:2]):
        if piece.special:
            ids = encoding.encode(piece.text, special=True)
            return list(after[: number + 1]) if len(ids) == 1 and ids[0] in manner.ends else []
        if piece.text.strip():
            break
    return []


def _put(encoding: Tokenizer, manner: Manner, groups: Sequence[Group]) -> Written:
    """Groups of pieces as ids, each encoded by itself; an end-of-text where the last answer has no end of its own."""
    ids: list[int] = []
    answer: list[bool] = []
    before: list[Piece] = []
    for pieces, learned in groups:
        more = _encoded(manner, encoding, before, pieces)
        ids += more
        answer += [learned] * len(more)
        before = pieces or before
    if encoding.eot_id is not None and (ids[-1] not in manner.ends or not before[-1].special):
        ids.append(encoding.eot_id)
        answer.append(True)
    return Written(np.array(ids, dtype=np.int64), np.array(answer, dtype=bool))


def _encoded(
    manner: Manner, encoding: Tokenizer, before: Sequence[Piece], pieces: Sequence[Piece]
) -> list[int]:
    """The ids of `pieces` where they follow `before`: some encodings put a space at the start of a text only."""
    if not pieces:
        return []
    if not before or not encoding.prefix_space:
        return chat.encode(manner.folder, encoding, list(pieces), manner.specials)
    head = before[-1]._replace(typed=not pieces[0].typed)  # so that it is encoded apart
    alone = chat.encode(manner.folder, encoding, [head], manner.specials)
    return chat.encode(manner.folder, encoding, [head, *pieces], manner.specials)[len(alone) :]


def prompt_ids(manner: Manner, encoding: Tokenizer, messages: Sequence[Message]) -> list[int]:
    """What the model reads when it is to answer `messages`. Raises ValueError, in the template's words."""
    plain, marked = _rendered(manner, [list(messages), _marked(manner, messages)])
    pieces = chat.cut(plain, marked, manner.specials)
    return chat.encode(manner.folder, encoding, pieces, manner.specials)


# --- for people to look at


def coloured(manner: Manner, encoding: Tokenizer, messages: Sequence[Message]) -> list[tuple[str, str, bool]]:
    """Every token of a conversation that ends with an answer: its text, whose it is, whether it is learned.

    Whose: system, user, assistant, end (of an answer) or template. Raises ValueError when it cannot be written.
    """
    (texts,) = _texts(manner, [messages])
    if isinstance(texts, str):
        raise ValueError(texts)
    groups = _cut(manner, encoding, messages, *texts)
    said = [m for m in messages if m["role"] != "assistant"]
    found: list[tuple[str, str, bool]] = []
    before: list[Piece] = []
    for pieces, learned in groups:
        text = "".join(piece.text for piece in pieces)
        roles = ["template"] * len(text)
        if learned:
            roles = ["end" if pieces[-1].special else "assistant"] * len(text)
        at = 0
        while said and not learned and (at := text.find(said[0]["content"].strip(), at)) >= 0:
            length = len(said[0]["content"].strip())
            roles[at : at + length] = [said.pop(0)["role"]] * length
            at += length
        owners = [role for character, role in zip(text, roles) for _ in character.encode("utf-8", "replace")]
        place = 0
        for id in _encoded(manner, encoding, before, pieces):
            token = encoding.token_bytes(id)
            owner = owners[min(place + len(token) - 1, len(owners) - 1)]
            found.append((token.decode("utf-8", "backslashreplace"), owner, learned))
            place += len(token)
        before = pieces or before
    ids = _put(encoding, manner, groups).ids
    if len(ids) > len(found):
        found.append((encoding.token_bytes(int(ids[-1])).decode("utf-8", "backslashreplace"), "end", True))
    return found


# --- from a dataset to what training reads


@dataclass(frozen=True)
class Example:
    """One row as training takes it: one text, or the chosen and the rejected one; a class in classification."""

    row: int  # its number in the file
    texts: tuple[Written, ...]
    label: int = -1
    source: Mapping[str, Any] = field(default_factory=dict)  # the row as it was


@dataclass(frozen=True)
class Examples:
    """A dataset as one run takes it, and all that was done to it."""

    parts: dict[str, list[Example]]  # train, validation, test, and others that the file names
    rejected: list[tuple[int, str]]  # row number, why it cannot be used
    truncated: list[int]  # rows whose end is cut off
    notes: list[str]
    labels: list[str]  # the classes, in classification
    manner: Manner
    most: int  # tokens that the model reads of a row at most


KINDS = {
    "instruct": ("instruction", "conversation"),
    "classify": ("classification",),
    "prefer": ("preference",),
}


def examples(config: RunConfig, encoding: Tokenizer, folder: Path | None, context_length: int) -> Examples:
    """The rows of `config.dataset` as the objective of a run takes them.

    folder: the directory of the model that is started from. A row longer than the context, or than `max_length`, is cut
    at its end; one that has nothing left to learn is rejected. Raises ValueError when the rows are of another kind, or
    none is left to train on.
    """
    table = rows.read(corpora.row_path(config.dataset), limit=LARGEST)
    kinds = KINDS[config.objective]
    kind = rows.kind_of(table)
    checked = rows.check(table, kind if kind in kinds else kinds[0])
    if checked.problems:
        raise ValueError(" ".join(checked.problems))
    most = min(config.tune.max_length or context_length, context_length)
    labels = rows.labels(checked.good) if config.objective == "classify" else []
    good = _with_family(table, checked.good)
    found = manner(config.tune.prompt_style, folder, encoding)
    made, rejected, truncated = READERS[config.objective](good, found, encoding, most, labels)
    share = config.train.validation_fraction
    test = min(0.1, (1 - share) / 2)
    shares = {"train": 1 - share - test, "validation": share, "test": test}
    split = rows.split(checked.good, shares)  # before any is left out: the same for every style and length
    by_row = {example.row: example for example in made}
    parts = {
        name: [by_row[row["row"]] for row in part if row["row"] in by_row]
        for name, part in split.parts.items()
    }
    rejected = sorted([*checked.rejected, *rejected])
    if not parts["train"]:
        why = f" Row {rejected[0][0]}: {rejected[0][1]}." if rejected else ""
        raise ValueError(
            f"None of the {len(table.rows):,} rows of {config.dataset} is left to train on.{why}"
        )
    notes = [
        *checked.notes,
        *split.notes,
        *_about_style(found, folder, config),
        *_remarks(rejected, truncated, most, encoding, config),
    ]
    return Examples(parts, rejected, truncated, notes, labels, found, most)


def check_labels(examples: Examples) -> None:
    """Raise ValueError for a class of which no row is left to learn from."""
    known = {example.label for example in examples.parts["train"]}
    if unseen := [label for number, label in enumerate(examples.labels) if number not in known]:
        raise ValueError(
            f"No row to learn from has the label {', '.join(unseen[:5])}: bring more rows of it, or leave it out."
        )


def _with_family(table: rows.Table, good: list) -> list:
    """Each row with its "family", where the file says which kind of task it is."""
    families = {number: row.get("family") for number, row in zip(table.numbers, table.rows)}
    return [{**row, "family": f} if isinstance(f := families[row["row"]], str) else row for row in good]


def _about_style(manner: Manner, folder: Path | None, config: RunConfig) -> list[str]:
    own = chat.read(folder).template if folder else ""
    if not own or own == manner.source or config.objective == "classify":
        return []
    return [
        f"{manner.name} has a chat template of its own, and here it is spoken to in another style ({config.tune.prompt_style})."
    ]


def _remarks(
    rejected: list, truncated: list[int], most: int, encoding: Tokenizer, config: RunConfig
) -> list[str]:
    notes = []
    if rejected:
        notes.append(f"{len(rejected):,} rows are not used; row {rejected[0][0]}: {rejected[0][1]}.")
    if truncated:
        shown = ", ".join(map(str, truncated[:8])) + (", ..." if len(truncated) > 8 else "")
        notes.append(f"{len(truncated):,} rows are longer than {most:,} tokens and were cut: row {shown}.")
    if config.objective != "classify" and encoding.eot_id is None:
        notes.append("This encoding has no end-of-text: the model does not learn where an answer ends.")
    return notes


def _shortened(written: Written, most: int) -> tuple[Written, bool]:
    """At most `most` inputs, so one token more. Raises ValueError when nothing to learn is left."""
    short = Written(written.ids[: most + 1], written.answer[: most + 1])
    if not short.answer[1:].any():
        begin = int(written.answer.argmax())
        raise ValueError(
            f"no answer token is left: the prompt alone has {begin:,} tokens and a row may have {most:,}"
        )
    return short, len(short) < len(written)


Read = tuple[list[Example], list[tuple[int, str]], list[int]]  # made, rejected, truncated


def _instructions(good: list, manner: Manner, encoding: Tokenizer, most: int, labels: list[str]) -> Read:
    written = write(manner, encoding, [conversation(row, manner.joint) for row in good])
    return _kept(good, [(one,) for one in written], most)


def _preferences(good: list, manner: Manner, encoding: Tokenizer, most: int, labels: list[str]) -> Read:
    sides = [
        write(manner, encoding, [conversation(row, manner.joint, side) for row in good])
        for side in ("chosen", "rejected")
    ]
    return _kept(good, list(zip(*sides)), most)


def _kept(good: list, written: list[tuple[Written | str, ...]], most: int) -> Read:
    """Rows that could be written and still have something to learn when they are cut."""
    made, rejected, truncated = [], [], []
    for row, texts in zip(good, written):
        try:
            if problem := next((text for text in texts if isinstance(text, str)), ""):
                raise ValueError(problem)
            short = [_shortened(text, most) for text in texts]
            if len(short) == 2 and np.array_equal(short[0][0].ids, short[1][0].ids):
                where = " in the tokens that fit" if any(cut for _, cut in short) else ""
                raise ValueError(f"chosen and rejected are the same{where}: there is nothing to prefer")
        except ValueError as error:
            rejected.append((row["row"], str(error)))
            continue
        made.append(Example(row["row"], tuple(text for text, _ in short), source=row))
        if any(cut for _, cut in short):
            truncated.append(row["row"])
    return made, rejected, truncated


def _classes(good: list, manner: Manner, encoding: Tokenizer, most: int, labels: list[str]) -> Read:
    made, rejected, truncated = [], [], []
    number_of = {label: number for number, label in enumerate(labels)}
    for row in good:
        try:
            ids, cut = text_ids(row["text"], encoding, most, manner.begin_id)
        except ValueError as error:
            rejected.append((row["row"], str(error).rstrip(".")))
            continue
        text = Written(np.array(ids, dtype=np.int64), np.zeros(len(ids), dtype=bool))
        made.append(Example(row["row"], (text,), number_of[row["label"]], row))
        if cut:
            truncated.append(row["row"])
    return made, rejected, truncated


READERS = {"instruct": _instructions, "prefer": _preferences, "classify": _classes}


def text_ids(
    text: str, encoding: Tokenizer, most: int, begin_id: int | None = None
) -> tuple[list[int], bool]:
    """The first `most` ids of a text to classify, and whether some were cut off. Raises ValueError for an empty one."""
    ids = encoding.encode(text)
    if not ids:
        raise ValueError("the text is empty")
    ids = ids if begin_id is None or ids[:1] == [begin_id] else [begin_id, *ids]
    return ids[:most], len(ids) > most


def lines(lengths: Sequence[int], most: int) -> list[list[int]]:
    """Which texts share a line of `most` tokens, their numbers line by line: the longest first, each in the first line
    that has room for it (first-fit decreasing, Johnson 1973: at most 11/9 of the fewest possible lines, and one)."""
    found: list[list[int]] = []
    room: list[int] = []
    for number in sorted(range(len(lengths)), key=lambda n: -lengths[n]):
        line = next((i for i, left in enumerate(room) if left >= lengths[number]), len(room))
        if line == len(room):
            found.append([])
            room.append(most)
        found[line].append(number)
        room[line] -= lengths[number]
    return found


def shared_lines(texts: Sequence[Written], most: int = 0) -> list[list[int]]:
    """`lines` of that width, of sixteen from the longest text to `most` tokens, which leaves least to fill up."""
    lengths = [len(text) - 1 for text in texts]
    longest = max(lengths)
    widths = sorted({int(width) for width in np.linspace(longest, max(most, longest), 16)})
    return min((lines(lengths, T) for T in widths), key=lambda found: len(found) * _width(found, lengths))


def _width(found: list[list[int]], lengths: Sequence[int]) -> int:
    return max(sum(lengths[number] for number in line) for line in found)


def packed(
    texts: Sequence[Written], pad_id: int, mask_prompt: bool = True, most: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Texts end to end in `shared_lines`: inputs, targets and positions (L, T).

    The same targets as in `padded`. Positions begin at 0 with each text, and are 0 where a line is filled up.
    """
    found = shared_lines(texts, most)
    shape = len(found), _width(found, [len(text) - 1 for text in texts])
    inputs, targets = np.full(shape, pad_id), np.full(shape, IGNORED)
    positions = np.zeros(shape, dtype=np.int64)
    for line, numbers in enumerate(found):
        at = 0
        for number in numbers:
            ids, wanted = (t[0] for t in padded([texts[number]], pad_id, mask_prompt))
            part = slice(at, at := at + len(ids))
            inputs[line, part], targets[line, part], positions[line, part] = ids, wanted, np.arange(len(ids))
    return inputs, targets, positions


def padded(texts: Sequence[Written], pad_id: int, mask_prompt: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Texts side by side: inputs (B, T) and, shifted by one, targets (B, T), T the longest less one.

    Shorter texts are filled up on the right: `pad_id` as inputs, IGNORED as targets, so that the first end-of-text stays a
    target and what follows it counts for nothing. With `mask_prompt` the targets of prompts are IGNORED too.
    """
    T = max(len(text) for text in texts) - 1
    inputs = np.full((len(texts), T), pad_id, dtype=np.int64)
    targets = np.full((len(texts), T), IGNORED, dtype=np.int64)
    for i, text in enumerate(texts):
        n = len(text) - 1
        inputs[i, :n] = text.ids[:-1]
        targets[i, :n] = np.where(text.answer[1:] | (not mask_prompt), text.ids[1:], IGNORED)
    return inputs, targets
