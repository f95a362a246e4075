"""A person's rows as training takes them: their kind, which column is what, what is wrong with which row, duplicates, the split.

table = read(Path("data.json"))
checked = check(table)
checked.good, checked.rejected, checked.notes, checked.problems
split(checked.good, {"train": 0.85, "validation": 0.05, "test": 0.1}).parts
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from llm import corpora, duplicates, files, paths
from llm.tables import Table, read

__all__ = ["KINDS", "Table", "check", "guess", "keep", "kind_of", "labels", "leaks", "read", "rejected_lines", "repeats",
           "split", "without_repeats"]  # fmt: skip

Row = dict[str, Any]
MOST_COMPARED = 10_000  # rows among which near duplicates are looked for: seconds
MOST_SPLITS = 6  # different words in a column for it to be a split
FRACTIONS = {"train": 0.85, "validation": 0.05, "test": 0.1}
PARTS = {
    # what a split is called: our name of it
    "train": "train", "training": "train", "validation": "validation", "valid": "validation", "val": "validation",
    "dev": "validation", "eval": "validation", "test": "test", "testing": "test", "holdout": "test", "heldout": "test",
}  # fmt: skip
ROLES = {
    # what a speaker is called: our name of the role
    "system": "system", "developer": "system", "user": "user", "human": "user", "prompter": "user",
    "assistant": "assistant", "gpt": "assistant", "bot": "assistant", "model": "assistant", "chatgpt": "assistant",
}  # fmt: skip
HALF = re.compile("[\ud800-\udfff]")  # half of a character pair: no text that can be stored has one


@dataclass(frozen=True)
class Field:
    """What a kind of row is made of: the column names it is recognised by, the commonest first, and what it is for."""

    about: str
    spellings: tuple[str, ...]
    required: bool = True


@dataclass(frozen=True)
class Kind:
    """A kind of rows: its title and its fields."""

    title: str
    fields: dict[str, Field]

    @property
    def required(self) -> list[str]:
        return [name for name, field in self.fields.items() if field.required]


def _field(about: str, spellings: str, required: bool = True) -> Field:
    return Field(about, tuple(spellings.split()), required)


INPUT = _field(
    "text the instruction works on", "input context passage inputs source_text document", required=False
)
SYSTEM = _field("what the assistant is told first", "system system_prompt system_message", required=False)
HISTORY = _field("turns before: messages, or pairs of question and answer", "history", required=False)
SPLIT = _field("train, validation or test", "split subset partition fold set", required=False)
KINDS = {
    "preference": Kind(
        "Preferences: two answers, one of them chosen",
        {
            "prompt": _field("what is answered", "prompt instruction question query input_text messages conversations conversation", required=False),
            "input": INPUT,
            "chosen": _field("the better answer", "chosen preferred better accepted winner response_chosen chosen_response output_chosen"),
            "rejected": _field("the other answer", "rejected dispreferred worse loser response_rejected rejected_response output_rejected"),
            "system": SYSTEM, "history": HISTORY, "split": SPLIT,
        },
    ),
    "conversation": Kind(
        "Conversations: messages of user and assistant in turn",
        {
            "messages": _field("a list of messages with role and content (or from and value)", "messages conversations conversation dialogue dialog chat turns"),
            "system": SYSTEM, "split": SPLIT,
        },
    ),
    "instruction": Kind(
        "Instructions: what is asked, and the answer",
        {
            "instruction": _field("what is asked", "instruction prompt question query instructions task user problem request"),
            "input": INPUT,
            "output": _field("the answer to learn", "output response answer completion outputs responses answers target assistant solution reply chosen"),
            "system": SYSTEM, "history": HISTORY, "split": SPLIT,
        },
    ),
    "classification": Kind(
        "Classes: a text and its label",
        {
            "text": _field("the text to classify", "text message sentence review content comment sms body tweet document title question input"),
            "label": _field("its class", "label class category topic sentiment intent labels target tag genre label_text"),
            "split": SPLIT,
        },
    ),
    "text": Kind(
        "Plain text: documents to go on learning from",
        {"text": _field("the document", "text content document body story article passage"), "split": SPLIT},
    ),
}  # fmt: skip


class Checked(NamedTuple):
    """What is in a table, ready to train, and what is not."""

    kind: str
    columns: dict[str, str]  # field: column
    good: list[Row]
    rejected: list[tuple[int, str]]  # row number in the file, reason
    notes: list[str]  # what a person should know
    problems: list[str]  # why nothing can be trained with it


class Repeats(NamedTuple):
    """Rows that say the same, by their row numbers."""

    exact: list[tuple[int, int]]  # a row, the first one that is equal but for case and blanks
    near: list[
        tuple[int, int, float]
    ]  # a row, the most similar one, their similarity (`duplicates.similarity`)
    contradictions: list[tuple[int, int]]  # a row, an earlier one with the same question and another answer
    compared: int  # rows among which near ones were looked for


class Split(NamedTuple):
    """Rows by what they are for; train, validation and test are always there."""

    parts: dict[str, list[Row]]
    notes: list[str]

    @property
    def counts(self) -> dict[str, int]:
        return {name: len(part) for name, part in self.parts.items()}


# --- which kind, which columns


def kind_of(table: Table) -> str:
    """The kind whose required columns the table has under a common name, looked for in the order of KINDS; "" for none."""
    for kind in KINDS:
        columns = guess(table, kind)
        if all(field in columns for field in KINDS[kind].required) and (
            kind != "conversation" or _has_messages(table, columns["messages"])
        ):
            return kind
    return ""


def _has_messages(table: Table, column: str) -> bool:
    """Whether the first filled cell is a list of messages, or the text of one."""
    value = next((row[column] for row in table.rows if row.get(column)), None)
    return isinstance(value, list) or (isinstance(value, str) and value.lstrip().startswith("[{"))


def guess(table: Table, kind: str) -> dict[str, str]:
    """Field -> column, by the common spellings; each column is used once, fields without one are left out."""
    simple = {
        re.sub(r"[^a-z0-9]+", "_", name.casefold()).strip("_"): name for name in reversed(table.columns)
    }
    found: dict[str, str] = {}
    for field, about in _kind(kind).fields.items():
        for spelling in about.spellings:
            if spelling in simple and simple[spelling] not in found.values():
                found[field] = simple[spelling]
                break
    return found


def _kind(kind: str) -> Kind:
    if kind not in KINDS:
        raise ValueError(f"There is no kind of rows called {kind!r}: choose one of {', '.join(KINDS)}.")
    return KINDS[kind]


def _columns(table: Table, kind: str, chosen: Mapping[str, str]) -> dict[str, str]:
    """The guess, with a person's choices over it. Raises ValueError when a required field has no column."""
    fields = _kind(kind).fields
    for field, column in chosen.items():
        if field not in fields:
            raise ValueError(f"Rows of the kind {kind!r} have no field {field!r}, but {', '.join(fields)}.")
        if column and column not in table.columns:
            raise ValueError(f"There is no column {column!r}; there are: {_listed(table.columns)}.")
    taken = set(chosen.values())
    guessed = {field: column for field, column in guess(table, kind).items() if column not in taken}
    columns = {field: column for field, column in (guessed | dict(chosen)).items() if column}
    missing = [field for field in KINDS[kind].required if field not in columns]
    if missing:
        raise ValueError(
            f"No column was found for {' and '.join(missing)}: choose one of {_listed(table.columns)}."
        )
    return columns


def _listed(names: Sequence[str], most: int = 12) -> str:
    return ", ".join(str(name)[:40] for name in names[:most]) + (
        f" and {len(names) - most} more" if len(names) > most else ""
    )


# --- checking


def check(table: Table, kind: str = "", columns: Mapping[str, str] | None = None) -> Checked:
    """Every row of the table, either as training takes it or with the reason why not.

    `kind` is recognised when empty; `columns` (field -> column, "" for none) goes before the guess. Good rows have
    "row" (the number in the file), their fields and, where the file has a usable split column, "split". A null or blank
    input or system text counts as none. Raises ValueError when the kind or a required column is not to be found.
    """
    kind = kind or kind_of(table)
    if not kind:
        raise ValueError(
            f"These columns are of no known kind: {_listed(table.columns)}. Known are "
            + "; ".join(f"{' and '.join(k.required)} ({name})" for name, k in KINDS.items())
            + ". Choose a kind and its columns."
        )
    columns = _columns(table, kind, columns or {})
    good: list[Row] = []
    rejected = list(table.unread)
    for number, row in zip(table.numbers, table.rows):
        try:
            cells = {field: row.get(column) for field, column in columns.items()}
            good.append({"row": number, **MAKERS[kind](cells, columns)})
        except ValueError as error:
            rejected.append((number, str(error)))
    notes = [*table.notes, *_column_notes(table, columns)]
    if "split" in columns:
        good, without, note = _with_split(table, columns["split"], good)
        rejected += without
        notes += note
    if kind == "classification":
        notes += _label_notes(good)
    return Checked(kind, columns, good, sorted(rejected), notes, _problems(kind, good, rejected))


def _column_notes(table: Table, columns: Mapping[str, str]) -> list[str]:
    """One notice of the columns not used, and the null inputs that count as none."""
    notes = []
    if unused := [name for name in table.columns if name not in columns.values()]:
        notes.append(f"Columns not used: {_listed(unused)}.")
    if column := columns.get("input"):
        nulls = sum(column in row and row[column] is None for row in table.rows)
        words = sum(row.get(column) in NO_INPUT for row in table.rows)
        if nulls + words:
            count = nulls + words
            notes.append(
                f"The {column} is null in {count:,} row{'s' * (count > 1)}: taken as row{'s' * (count > 1)} without one."
            )
    return notes


NOT_A_NUMBER = ("NaN", "nan")  # what pandas writes for a missing cell when it is made a text
NO_INPUT = (*NOT_A_NUMBER, "None", "null", "NULL", "<NA>", "N/A")  # "None" may be an answer, but is no input


def _text(value: Any, name: str, required: bool = True) -> str:
    """A cell as a text, exactly as it stands; "" for a missing or blank one that is not required."""
    if value is None or value in NOT_A_NUMBER or (not required and value in NO_INPUT):
        if required:
            raise ValueError(f"{name} is missing" + (f" ({value})" if value else ""))
        return ""
    if not isinstance(value, str):
        raise ValueError(f"{name} is {_what(value)}, not a text")
    if not value.strip():
        if required:
            raise ValueError(f"{name} is empty" + (", only blanks" if value else ""))
        return ""
    if half := HALF.search(value):
        raise ValueError(f"{name} holds half of a character pair (U+{ord(half[0]):04X}), which is no text")
    return value


def _what(value: Any) -> str:
    return {list: "a list", dict: "an object", bytes: "bytes"}.get(type(value), f"a {type(value).__name__}")


def _instruction(cells: Row, columns: Mapping[str, str]) -> Row:
    return {
        "instruction": _text(cells["instruction"], columns["instruction"]),
        "input": _text(cells.get("input"), columns.get("input", ""), required=False),
        "output": _text(cells["output"], columns["output"]),
        "history": _history(cells, columns),
    }


def _conversation(cells: Row, columns: Mapping[str, str]) -> Row:
    found = _messages(cells["messages"], columns["messages"])
    system = _text(cells.get("system"), columns.get("system", ""), required=False)
    if system and found[0]["role"] != "system":
        found.insert(0, {"role": "system", "content": system})
    _refuse_disorder(found, columns["messages"])
    if found[-1]["role"] != "assistant":
        raise ValueError(
            f"{columns['messages']} ends with a message of the {found[-1]['role']}: there is no answer to learn"
        )
    return {"messages": found}


def _classification(cells: Row, columns: Mapping[str, str]) -> Row:
    return {
        "text": _text(cells["text"], columns["text"]),
        "label": _text(cells["label"], columns["label"]).strip(),
    }


def _plain(cells: Row, columns: Mapping[str, str]) -> Row:
    return {"text": _text(cells["text"], columns["text"])}


def _preference(cells: Row, columns: Mapping[str, str]) -> Row:
    """Two answers to one prompt, written as texts or as conversations that have their beginning in common."""
    prompt, answers = cells.get("prompt"), {}
    if isinstance(prompt, str) and prompt.lstrip().startswith("[{"):
        prompt = _messages(prompt, columns["prompt"])
    before = _history(cells, columns)
    if isinstance(prompt, (list, dict)):
        before += _messages(prompt, columns["prompt"])
    elif "prompt" in columns and (prompt is not None or not _is_conversation(cells["chosen"])):
        before.append({"role": "user", "content": _text(prompt, columns["prompt"])})
    for side in ("chosen", "rejected"):
        answers[side] = _turns(cells[side], columns[side])
    begun, chosen, rejected = _fork(answers["chosen"], answers["rejected"])
    if len(chosen) != 1 or len(rejected) != 1 or {chosen[0]["role"], rejected[0]["role"]} != {"assistant"}:
        raise ValueError(
            f"{columns['chosen']} and {columns['rejected']} do not differ in exactly one last message of the assistant"
        )
    if begun and (not before or begun[-1]["content"].strip() == before[-1]["content"].strip()):
        before = [m for m in before if m["role"] == "system" and begun[0]["role"] != "system"] + begun
    elif begun:
        before += begun
    if not before or before[-1]["role"] != "user":
        raise ValueError("there is no prompt: no column has it, and the answers have no question in common")
    _refuse_disorder([*before, *chosen], columns.get("prompt", columns["chosen"]))
    return {
        "prompt": before[-1]["content"],
        "input": _text(cells.get("input"), columns.get("input", ""), required=False),
        "chosen": chosen[0]["content"],
        "rejected": rejected[0]["content"],
        "history": before[:-1],
    }


MAKERS: dict[str, Callable[[Row, Mapping[str, str]], Row]] = {
    "preference": _preference,
    "conversation": _conversation,
    "instruction": _instruction,
    "classification": _classification,
    "text": _plain,
}


def _is_conversation(value: Any) -> bool:
    return isinstance(value, (list, dict)) or (isinstance(value, str) and "\n\nHuman:" in value)


def _turns(value: Any, name: str) -> list[dict[str, str]]:
    """An answer as messages: a plain text is one of the assistant; "Human: ... Assistant: ..." is told apart by its marks."""
    if not _is_conversation(value):
        return [{"role": "assistant", "content": _text(value, name)}]
    if isinstance(value, str):
        parts = re.split(r"\n\n(Human|Assistant):", _text(value, name))
        roles = ["user" if who == "Human" else "assistant" for who in parts[1::2]]
        value = [{"role": role, "content": said.strip()} for role, said in zip(roles, parts[2::2])]
    return _messages(value, name)


def _fork(chosen: list[dict[str, str]], rejected: list[dict[str, str]]) -> tuple[list, list, list]:
    """The messages that both begin with, then the rest of each, which is never empty."""
    n = 0
    while n < min(len(chosen), len(rejected)) - 1 and chosen[n] == rejected[n]:
        n += 1
    if chosen == rejected or chosen[n:][0]["content"].strip() == rejected[n:][0]["content"].strip():
        raise ValueError("chosen and rejected are the same answer")
    return chosen[:n], chosen[n:], rejected[n:]


def _history(cells: Row, columns: Mapping[str, str]) -> list[dict[str, str]]:
    """What was said before: a system text, then messages or pairs of question and answer."""
    found = []
    if system := _text(cells.get("system"), columns.get("system", ""), required=False):
        found.append({"role": "system", "content": system})
    turns = cells.get("history") or []
    if turns and isinstance(turns, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in turns):
        turns = [
            {"role": role, "content": text}
            for pair in turns
            for role, text in zip(("user", "assistant"), pair)
        ]
    return found + (_messages(turns, columns["history"]) if turns else [])


def _messages(value: Any, name: str) -> list[dict[str, str]]:
    """Messages as role and content. Raises ValueError that names the message and what is wrong with it."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise ValueError(f"{name} is a text that is no list of messages") from None
    value = [value] if isinstance(value, dict) else value
    if not isinstance(value, list) or not value:
        raise ValueError(
            f"{name} is {'empty' if value in ([], '') else 'missing' if value is None else 'no list of messages'}"
        )
    found = []
    for i, message in enumerate(value, 1):
        if not isinstance(message, dict):
            raise ValueError(
                f"message {i} of {name} is {_what(message)}, not an object with role and content"
            )
        said = message.get("role", message.get("from"))
        role = ROLES.get(said.strip().casefold()) if isinstance(said, str) else None
        if role is None:
            raise ValueError(
                f"message {i} of {name} has {'the role ' + repr(said) if said else 'no role'}: known are "
                "system, user and assistant (also human and gpt)"
            )
        content = _parts(message.get("content", message.get("value")), f"message {i} of {name}")
        if content or role != "system":
            found.append({"role": role, "content": _text(content, f"message {i} of {name}")})
    return found


def _parts(content: Any, name: str) -> Any:
    """The text of a content that is given as parts; whatever else it is, unchanged."""
    if not isinstance(content, list):
        return content
    if not all(
        isinstance(p, dict) and p.get("type") == "text" and isinstance(p.get("text"), str) for p in content
    ):
        raise ValueError(f"{name} holds something else than text (a picture or a sound)")
    return "\n".join(part["text"] for part in content)


def _refuse_disorder(messages: list[dict[str, str]], name: str) -> None:
    """Raise ValueError unless user and assistant take turns, the user first, with a system message only at the start."""
    roles = [message["role"] for message in messages]
    turns = roles[1:] if roles[:1] == ["system"] else roles
    for i, role in enumerate(turns):
        expected = ("user", "assistant")[i % 2]
        if role != expected:
            number = i + 1 + len(roles) - len(turns)
            raise ValueError(
                f"message {number} of {name} is by the {role} where one of the {expected} is expected: user and assistant "
                "take turns, the user first"
            )


def _with_split(
    table: Table, column: str, good: list[Row]
) -> tuple[list[Row], list[tuple[int, str]], list[str]]:
    """The rows with their "split", the rows that lack one, and a note when the column is none."""
    cells = {number: row.get(column) for number, row in zip(table.numbers, table.rows)}
    names = {number: _part(cell) for number, cell in cells.items()}
    different = {name for name in names.values() if name}
    if "train" not in different or len(different) > MOST_SPLITS:
        return good, [], [f"The column {column!r} was not taken as a split: it does not say train and test."]
    without = [
        (row["row"], f"{column} is empty: it must say train, validation or test")
        for row in good
        if not names[row["row"]]
    ]
    return [row | {"split": names[row["row"]]} for row in good if names[row["row"]]], without, []


def _part(cell: Any) -> str:
    """The name of a part as rows have it; "" when the cell says none."""
    name = re.sub(r"[^a-z0-9]+", "_", cell.casefold()).strip("_") if isinstance(cell, str) else ""
    return PARTS.get(name.replace("_", ""), name)


def labels(good: Sequence[Row]) -> list[str]:
    """The classes, in the order of their names; whole numbers by value."""
    found = {row["label"] for row in good}
    if all(re.fullmatch(r"-?\d{1,18}", label) for label in found):
        return sorted(found, key=int)
    return sorted(found)


def _label_notes(good: Sequence[Row]) -> list[str]:
    alike: dict[str, set[str]] = {}
    for label in labels(good):
        alike.setdefault(duplicates.normal(label), set()).add(label)
    notes = [
        f"The labels {' and '.join(repr(name) for name in sorted(names))} differ only in case or blanks and are counted apart."
        for names in alike.values()
        if len(names) > 1
    ]
    once = [label for label, count in Counter(row["label"] for row in good).items() if count == 1]
    if once and len(alike) > 1:
        notes.append(
            f"Only one row has the label {_listed(sorted(once), 5)}: it cannot be both learned and tested."
        )
    return notes


def _problems(kind: str, good: Sequence[Row], rejected: Sequence[tuple[int, str]]) -> list[str]:
    if not good:
        return [
            f"None of the {len(rejected):,} rows can be used. Row {min(rejected)[0]}: {min(rejected)[1]}."
        ]
    if kind != "classification":
        return []
    found = labels(good)
    if len(found) == 1:
        return [
            f"All {len(good):,} rows have the label {found[0]!r}: a classifier needs at least two classes."
        ]
    if len(found) > max(20, len(good) // 2):
        return [
            f"There are {len(found):,} different labels in {len(good):,} rows: that column is hardly a class."
        ]
    return []


def rejected_lines(table: Table, rejected: Sequence[tuple[int, str]]) -> str:
    """The rejected rows as JSON lines, each with its number and the reason, to be mended and brought again."""
    rows = dict(zip(table.numbers, table.rows))
    lines = [
        json.dumps({"row": number, "reason": reason, **rows.get(number, {})}, ensure_ascii=True, default=repr)
        for number, reason in rejected
    ]
    return "".join(f"{line}\n" for line in lines)


# --- duplicates


ANSWERS = ("output", "label", "chosen", "rejected")  # the rest of a row is what is asked


def _flat(value: Any) -> str:
    return value if isinstance(value, str) else "\n".join(f"{m['role']}: {m['content']}" for m in value)


def _said(row: Row, without: Sequence[str] = ()) -> str:
    """What a row says, as one text."""
    return "\n".join(
        _flat(row[field]) for field in row if field not in ("row", "split", *without) and row[field]
    )


def repeats(good: Sequence[Row]) -> Repeats:
    """Rows that are equal but for case and blanks, nearly equal (see `duplicates.near`), or contradict each other.

    Near ones are looked for among the first MOST_COMPARED rows.
    """
    numbers = [row["row"] for row in good]
    whole = [_said(row) for row in good]
    same = duplicates.exact(whole)
    again = {i for i, _ in same}
    asked = (
        duplicates.exact([_said(row, ANSWERS) for row in good]) if good and ANSWERED & set(good[0]) else []
    )
    compared = min(len(good), MOST_COMPARED)
    return Repeats(
        [(numbers[i], numbers[j]) for i, j in same],
        [(numbers[i], numbers[j], shared) for i, j, shared in duplicates.near(whole[:compared])],
        [(numbers[i], numbers[j]) for i, j in asked if i not in again],
        compared,
    )


ANSWERED = {"output", "label"}  # two preferences for one prompt are no contradiction


def without_repeats(good: Sequence[Row]) -> list[Row]:
    """The first of the rows that are equal but for case and blanks."""
    again = {i for i, _ in duplicates.exact([_said(row) for row in good])}
    return [row for i, row in enumerate(good) if i not in again]


# --- the split


def split(good: Sequence[Row], fractions: Mapping[str, float] = FRACTIONS, seed: int = 0) -> Split:
    """The rows for training, validation and test, in the order of the file.

    Rows that carry a split keep it, also one of another name. Else they are drawn: the same rows for the same seed and
    number of rows on every machine; validation and test have floor(n fraction) rows, training the rest. Raises ValueError
    when the fractions are no parts of a whole.
    """
    parts: dict[str, list[Row]] = {name: [] for name in FRACTIONS}
    if any("split" in row for row in good):
        for row in good:
            parts.setdefault(row["split"], []).append(row)
        empty = [name for name in FRACTIONS if not parts[name]]
        return Split(parts, [f"The split column has no row for {name}." for name in empty])
    if set(fractions) != set(FRACTIONS) or any(not 0 <= share <= 1 for share in fractions.values()):
        raise ValueError(
            f"A split needs shares from 0 to 1 for train, validation and test, not {dict(fractions)}."
        )
    if abs(sum(fractions.values()) - 1) > 1e-6 or not fractions["train"]:
        raise ValueError(
            f"The shares {', '.join(f'{name} {share:g}' for name, share in fractions.items())} must add up to 1, with "
            "some for train."
        )
    n = len(good)
    order = sorted(range(n), key=lambda i: hashlib.sha256(f"{seed} {i}".encode()).digest())
    sizes = {name: math.floor(round(n * fractions[name], 6)) for name in ("validation", "test")}
    drawn = {
        "validation": order[: sizes["validation"]],
        "test": order[sizes["validation"] : sum(sizes.values())],
    }
    drawn["train"] = order[sum(sizes.values()) :]
    for name, chosen in drawn.items():
        parts[name] = [good[i] for i in sorted(chosen)]
    notes = [
        f"The {name} part is empty: {fractions[name]:.1%} of {n:,} rows is less than one row."
        for name in sizes
        if fractions[name] and not sizes[name]
    ]
    return Split(parts, notes)


def leaks(parts: Mapping[str, Sequence[Row]]) -> dict[str, int]:
    """How many rows of each part other than train stand in train too, but for case and blanks."""
    known = {duplicates.normal(_said(row)) for row in parts["train"]}
    return {
        name: sum(duplicates.normal(_said(row)) in known for row in part)
        for name, part in parts.items()
        if name != "train"
    }


# --- keeping


def keep(good: Sequence[Row], name: str) -> str:
    """Store rows as $LLM_HOME/datasets/NAME.jsonl and return the name, which `corpora.row_path` finds again.

    `name` is a wish: made safe, and told apart by a few letters of the content when other rows have it already.
    """
    data = "".join(
        json.dumps(
            {field: value for field, value in row.items() if field != "row" and value != []},
            ensure_ascii=False,
        )
        + "\n"
        for row in good
    ).encode()
    stem = files.safe_name(
        re.sub(r"\.(json|jsonl|ndjson|csv|tsv|parquet)$", "", Path(name).name, flags=re.IGNORECASE)
    )
    for candidate in (stem, f"{stem}-{hashlib.sha256(data).hexdigest()[:8]}"):
        target = paths.datasets() / f"{candidate}.jsonl"
        if (
            candidate in corpora.ROWS
            or candidate in corpora.TEXTS
            or files.has_another_kind(candidate, ".jsonl")
        ):
            continue
        if target.exists() and target.read_bytes() != data:
            continue
        if not target.exists():
            with paths.replacing(target) as temporary:
                temporary.write_bytes(data)
        return candidate
    raise ValueError(f"The name {stem!r} is taken: choose another one.")
