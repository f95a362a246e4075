"""Lessons: Markdown files with front matter that say what is on screen at each step, what to look at, and what to ask.

The front matter holds `title`, `order`, `minutes`, `summary` and `steps`; each step says which `tab` is open, what its widgets
are `set` to, what is hidden (`hide`), what to `look` at, and may `ask` a question: with `choices` (and `answer`, the number of
the right one from 1), or answered in words. `at` names the widget to which the bar leads. `predict` lets the class commit to the next token of a text before a model shows its own.
`reveal` is said after the answer. The Markdown below has one `## heading` for each step, in the same order.
"""

from __future__ import annotations

import functools
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import yaml

from llm import paths

LARGEST = 200_000  # bytes of a lesson
KEYS = {"tab", "set", "hide", "at", "look", "ask", "choices", "answer", "reveal", "predict"}


@dataclass(frozen=True)
class Step:
    """One screen of a lesson."""

    title: str
    text: str  # Markdown
    tab: str
    values: dict[str, str]  # key of the address bar -> value
    hide: tuple[str, ...]
    look: str
    at: str  # key of a widget: where to look
    ask: str
    choices: tuple[str, ...]
    answer: int  # which of the choices is right, from 1; 0 where none is
    reveal: str
    predict: dict[str, str]  # model, text: the next token of it is guessed first


@dataclass(frozen=True)
class Lesson:
    """A file of steps."""

    name: str
    title: str
    order: float
    minutes: int
    summary: str
    steps: tuple[Step, ...]

    def link(self, number: int) -> str:
        """The query string that opens step `number` (from 1)."""
        step = self.steps[number - 1]
        query = {"lesson": self.name, "step": str(number), "tab": step.tab, **step.values}
        return "?" + urlencode(query | ({"hide": ",".join(step.hide)} if step.hide else {}))


def shipped() -> Path:
    """The lessons of the project."""
    return paths.ROOT / "lessons"


def own() -> Path:
    """Where a teacher drops lessons: $LLM_HOME/lessons."""
    return paths.home() / "lessons"


def names() -> list[str]:
    """All lessons that can be read, in the order of the course; one of a teacher's goes before a shipped one of its name."""
    found: dict[str, Lesson] = {}
    for folder in (own(), shipped()):
        for file in sorted(folder.glob("[!.]*.md")) if folder.is_dir() else ():
            if file.stem not in found and paths.NAME.fullmatch(file.stem):
                try:
                    found[file.stem] = read(file)
                except (ValueError, OSError):  # `refused` says why
                    continue
    return sorted(found, key=lambda name: (found[name].order, name))


def refused() -> dict[str, str]:
    """The teacher's files that are no lessons, and what is wrong in each."""
    found = {}
    for file in sorted(own().glob("[!.]*.md")) if own().is_dir() else ():
        try:
            paths.checked_name(file.stem, "lesson")
            read(file)
        except (ValueError, OSError) as error:
            found[file.name] = str(error)
    return found


def get(name: str) -> Lesson:
    """The lesson of this name; a shipped one where a teacher's is damaged. Raises ValueError when there is none, or with what is wrong in it."""
    paths.checked_name(name, "lesson")
    wrong = None
    for folder in (own(), shipped()):
        if (file := folder / f"{name}.md").is_file():
            try:
                return read(file)
            except ValueError as error:
                wrong = wrong or error
    raise wrong or ValueError(f"There is no lesson called {name!r} here.")


def keep(name: str, data: bytes) -> Lesson:
    """Store a teacher's file as a lesson. Raises ValueError with what is wrong in it."""
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", Path(name).stem).strip("-_")[:60] or "lesson"
    lesson = parsed(stem, text_of(data, name))
    own().mkdir(parents=True, exist_ok=True)
    with paths.replacing(own() / f"{stem}.md") as temporary:
        temporary.write_bytes(data)
    return lesson


def read(file: Path) -> Lesson:
    """The lesson in a file, read again when it has changed. Raises ValueError with what is wrong in it."""
    state = file.stat()
    return _read(file, state.st_mtime_ns, state.st_size)


@functools.lru_cache(maxsize=64)
def _read(file: Path, modified: int, size: int) -> Lesson:
    with open(file, "rb") as f:
        data = f.read(LARGEST + 1)
    return parsed(file.stem, text_of(data, file.name))


def text_of(data: bytes, name: str) -> str:
    """The text of a lesson's file. Raises ValueError when it is too large or no UTF-8."""
    if len(data) > LARGEST:
        raise ValueError(f"{name} is larger than {LARGEST:,} bytes: a lesson is a short text.")
    try:
        return data.decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is not UTF-8 (byte {error.start + 1:,}): save it as UTF-8.") from None


def parsed(name: str, text: str) -> Lesson:
    """The lesson in a text. Raises ValueError with the place and what is wrong there."""
    match = re.match(r"---\n(.*?)\n---\n(.*)", text, re.DOTALL)
    if not match:
        raise ValueError(f"{name}: the file begins with front matter between two lines of three dashes.")
    try:
        front = yaml.safe_load(match[1])
    except yaml.YAMLError as error:
        line = f" (line {error.problem_mark.line + 2})" if getattr(error, "problem_mark", None) else ""
        raise ValueError(
            f"{name}: the front matter is no YAML{line}; a text with a colon in it stands in quotes."
        ) from None
    if not isinstance(front, dict) or not isinstance(front.get("steps"), list) or not front["steps"]:
        raise ValueError(f"{name}: the front matter needs a list called steps.")
    parts = re.split(r"^## +(.+)$", match[2], flags=re.MULTILINE)[1:]
    titles, texts = parts[::2], parts[1::2]
    if len(titles) != len(front["steps"]):
        raise ValueError(
            f"{name}: the front matter has {len(front['steps'])} steps and the text {len(titles)} headings (## ...): one for each."
        )
    steps = [
        _step(f"{name}, step {number}", one, title.strip(), body.strip())
        for number, (one, title, body) in enumerate(zip(front["steps"], titles, texts), 1)
    ]
    order, minutes = front.get("order", 1000), front.get("minutes", 10)
    if not isinstance(order, (int, float)) or not isinstance(minutes, int):
        raise ValueError(f"{name}: order is a number and minutes a whole one.")
    return Lesson(
        name, str(front.get("title", name)), order, minutes, str(front.get("summary", "")), tuple(steps)
    )


def _step(where: str, given: Any, title: str, text: str) -> Step:
    if not isinstance(given, dict) or not isinstance(given.get("tab"), str):
        raise ValueError(f"{where}: a step says at least which tab is open (tab: tokens).")
    if unknown := set(given) - KEYS:
        raise ValueError(
            f"{where}: {', '.join(sorted(map(str, unknown)))} is not known; a step has {', '.join(sorted(KEYS))}."
        )
    values, hide, choices = given.get("set") or {}, given.get("hide") or [], given.get("choices") or []
    if not isinstance(values, dict) or not isinstance(hide, list) or not isinstance(choices, list):
        raise ValueError(f"{where}: set is a mapping, hide and choices are lists.")
    answer, predict = given.get("answer", 0), given.get("predict") or {}
    if not isinstance(answer, int) or not 0 <= answer <= len(choices):
        raise ValueError(
            f"{where}: answer is the number of the right choice, 1 to {len(choices)}; 0 where none is."
        )
    if predict and (not isinstance(predict, dict) or set(predict) != {"model", "text"}):
        raise ValueError(f"{where}: predict names a model and a text.")
    if (choices or predict) and not given.get("ask"):
        raise ValueError(f"{where}: choices and predictions belong to a question (ask).")
    return Step(
        title, text, given["tab"], {str(key): spelled(value) for key, value in values.items()}, tuple(map(str, hide)),
        str(given.get("look", "")), str(given.get("at", "")), str(given.get("ask", "")), tuple(map(str, choices)), answer, str(given.get("reveal", "")),
        {key: str(value) for key, value in predict.items()},
    )  # fmt: skip


def spelled(value: Any) -> str:
    """A value as the address bar spells it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
