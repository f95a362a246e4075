"""What a class shares: who is here, what each has answered, what the teacher shows, asks and races.

One SQLite file (write-ahead log) under $LLM_HOME, so that a restart of the server loses nothing. Visitors are known by their
identity; names are what they call themselves.
"""

from __future__ import annotations

import json
import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llm import database, paths

VERSION = 1  # of class.sqlite
HERE = 15.0  # seconds after which somebody who was not heard of is away
LONGEST = 2_000  # characters of an answer
SCHEMA = """
create table if not exists people (id text primary key, name text, seen real, tab text, lesson text, step integer, error text);
create table if not exists answers (person text, lesson text, step integer, answer text, time real,
  primary key (person, lesson, step));
create table if not exists polls (id integer primary key, ask text, choices text, model text, prompt text, opened real,
  revealed real, closed real, truth text);
create table if not exists guesses (poll integer, person text, answer text, time real, primary key (poll, person));
create table if not exists said (name text primary key, value text, number integer);
"""


@contextmanager
def book() -> Iterator[sqlite3.Connection]:
    """The database, committed at the end."""
    with database.opened(paths.home() / "class.sqlite", SCHEMA, VERSION) as db:
        db.row_factory = sqlite3.Row
        yield db


# --- who is here


def called(name: str) -> str:
    """A name as it is kept: one line of at most 40 characters. Raises ValueError for an empty one."""
    clean = re.sub(r"\s+", " ", "".join(c for c in str(name) if c.isprintable())).strip()[:40]
    if not clean:
        raise ValueError("Type a name first: at least one letter.")
    return clean


def rename(person: str, name: str) -> str:
    """Call a visitor something else; the name as it is kept. Raises ValueError for an empty name or one that somebody here has."""
    clean = called(name)
    with book() as db:
        db.execute("begin immediate")
        row = db.execute(
            "select id from people where lower(name) = lower(?) and id <> ?", (clean, person)
        ).fetchone()
        if row:
            raise ValueError(f"Somebody here is called {clean!r} already: choose another name.")
        db.execute(
            "insert into people values (?, ?, ?, '', '', 0, '') on conflict (id) do update set name = excluded.name",
            (person, clean, time.time()),
        )
    return clean


def heard(person: str, tab: str = "", lesson: str = "", step: int = 0, error: str = "") -> str:
    """Note where a visitor is; the name they have."""
    with book() as db:
        db.execute(
            "insert into people values (?, ?, ?, ?, ?, ?, ?) on conflict (id) do update set seen = excluded.seen, "
            "tab = excluded.tab, lesson = excluded.lesson, step = excluded.step, "
            "error = case when excluded.error > '' then excluded.error else error end",
            (person, f"guest {person[:4]}", time.time(), tab[:40], lesson[:80], step, error[:300]),
        )
        return db.execute("select name from people where id = ?", (person,)).fetchone()["name"]


def people() -> list[dict[str, Any]]:
    """Everyone who was here, by name: id, name, away (seconds since the last word), tab, lesson, step, error."""
    with book() as db:
        rows = db.execute("select * from people order by lower(name)").fetchall()
    return [{**dict(row), "away": time.time() - row["seen"]} for row in rows]


def forget_all() -> None:
    """Clear the room: names, answers, polls and what was shown."""
    with book() as db:
        for table in ("people", "answers", "polls", "guesses", "said"):
            db.execute(f"delete from {table}")


# --- what the teacher says to all


def say(name: str, value: Any) -> int:
    """Keep something for all (`follow`: the view that is shown; `race`); None takes it back. Its number, one more each time."""
    with book() as db:
        db.execute("begin immediate")
        row = db.execute("select number from said where name = ?", (name,)).fetchone()
        number = (row["number"] if row else 0) + 1
        db.execute("insert or replace into said values (?, ?, ?)", (name, json.dumps(value), number))
    return number


def told(name: str) -> tuple[Any, int]:
    """What was said last under a name, and its number; (None, 0) before anything."""
    with book() as db:
        row = db.execute("select value, number from said where name = ?", (name,)).fetchone()
    return (json.loads(row["value"]), row["number"]) if row else (None, 0)


# --- answers to the questions of lessons


def answer(person: str, lesson: str, step: int, text: str) -> None:
    """Keep a visitor's answer; another one to the same question takes its place. Raises ValueError for an empty or too long one."""
    text = str(text).strip()
    if not text:
        raise ValueError("The answer is empty: write something first.")
    if len(text) > LONGEST:
        raise ValueError(f"The answer has {len(text):,} characters; {LONGEST:,} are the most: shorten it.")
    with book() as db:
        db.execute(
            "insert or replace into answers values (?, ?, ?, ?, ?)", (person, lesson, step, text, time.time())
        )


def answers(person: str = "") -> list[dict[str, Any]]:
    """All answers, or one visitor's, in the order they were given."""
    with book() as db:
        rows = db.execute("select * from answers where ? in ('', person) order by time", (person,)).fetchall()
    return [dict(row) for row in rows]


# --- predict, then reveal


def ask(question: str, choices: list[str], model: str = "", prompt: str = "") -> int:
    """Open a question to the class; the one before is closed. Raises ValueError for an empty question.

    With a model and a prompt the next token is guessed, and the model's own distribution stands beside the guesses later.
    """
    if not question.strip():
        raise ValueError("The question is empty: write what the class shall guess.")
    with book() as db:
        db.execute("begin immediate")
        db.execute("update polls set closed = ? where closed is null", (time.time(),))
        row = (
            question.strip()[:500],
            json.dumps([c[:100] for c in choices[:12]]),
            model,
            prompt[:2000],
            time.time(),
        )
        made = db.execute(
            "insert into polls (ask, choices, model, prompt, opened) values (?, ?, ?, ?, ?)", row
        )
        return int(made.lastrowid)


def poll() -> dict[str, Any] | None:
    """The open question: id, ask, choices, model, prompt, revealed (bool), truth (after the reveal), guesses {answer: count}, given."""
    with book() as db:
        row = db.execute("select * from polls where closed is null order by id desc").fetchone()
        if row is None:
            return None
        counted = db.execute("select answer, count(*) as n from guesses where poll = ? group by answer", (row["id"],)).fetchall()  # fmt: skip
    counts = {one["answer"]: one["n"] for one in counted}
    return {
        "id": row["id"], "ask": row["ask"], "choices": json.loads(row["choices"]), "model": row["model"], "prompt": row["prompt"],
        "revealed": row["revealed"] is not None, "truth": json.loads(row["truth"] or "null"), "guesses": counts,
        "given": sum(counts.values()),
    }  # fmt: skip


def guess(person: str, id: int, text: str) -> None:
    """Commit to an answer, once. Raises ValueError when the question is over, was answered already, or the answer is empty or too long."""
    text = str(text)
    if not text or len(text) > 100:
        raise ValueError("A guess has 1 to 100 characters.")
    with book() as db:
        db.execute("begin immediate")
        row = db.execute("select * from polls where id = ?", (id,)).fetchone()
        if row is None or row["closed"] is not None or row["revealed"] is not None:
            raise ValueError("This question is over: the answer is shown already.")
        if (choices := json.loads(row["choices"])) and text not in choices:
            raise ValueError("Choose one of the answers.")
        try:
            db.execute("insert into guesses values (?, ?, ?, ?)", (id, person, text, time.time()))
        except sqlite3.IntegrityError:
            raise ValueError("You have committed to an answer already.") from None


def guessed(person: str, id: int) -> str | None:
    """What a visitor has committed to; None before."""
    with book() as db:
        row = db.execute("select answer from guesses where poll = ? and person = ?", (id, person)).fetchone()
    return row["answer"] if row else None


def reveal(id: int, truth: Any) -> None:
    """Show the guesses and the truth; nobody can guess any more."""
    with book() as db:
        db.execute("update polls set revealed = ?, truth = ? where id = ? and revealed is null", (time.time(), json.dumps(truth), id))  # fmt: skip


def close(id: int) -> None:
    """Take a question away."""
    with book() as db:
        db.execute("update polls set closed = ? where id = ?", (time.time(), id))
