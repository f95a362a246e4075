"""Rounds between two who answer without their names, and the votes on them: facts in a database, only ever added.

Each board is a file of its own under $LLM_HOME (SQLite, write-ahead log), so that thirty browsers can vote at once. A
round without a vote counts nothing; a vote is one line that nobody changes; a round whose names were seen first is void.
"""

from __future__ import annotations

import secrets
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from llm import database, paths

VERSION = 1  # of a board
CHOICES = {"a": "A is better", "b": "B is better", "tie": "Tie", "bad": "Both are bad"}
LONGEST = 20_000  # characters of a prompt
SCHEMA = """
create table if not exists rounds (id text primary key, time real, voter text, topic text, prompt text, a text, b text,
  seed integer);
create table if not exists answers (round text, side text, text text, problem text, time real, primary key (round, side));
create table if not exists seen (round text primary key, time real);
create table if not exists votes (round text primary key, choice text, voter text, time real);
"""


@dataclass(frozen=True)
class Round:
    """One prompt for two: who they are, what they said, and how it was judged ("" while nobody has)."""

    id: str
    time: float
    voter: str
    topic: str
    prompt: str
    a: str
    b: str
    seed: int  # of A; B draws with the next one
    text_a: str
    text_b: str
    problem: str  # why the round cannot be voted on; "" when it can
    choice: str


@contextmanager
def board(name: str = "main") -> Iterator[sqlite3.Connection]:
    """The database of one board, committed at the end. Raises ValueError for an unsafe name."""
    file = paths.home() / "arena" / f"{paths.checked_name(name, 'board')}.sqlite"
    with database.opened(file, SCHEMA, VERSION) as db:
        yield db


def begin(prompt: str, a: str, b: str, voter: str, topic: str = "", seed: int = 0, name: str = "main") -> str:
    """A new round; its id. Raises ValueError for an empty or too long prompt, or one who would meet themselves."""
    if not isinstance(prompt, str) or not prompt.strip():
        raise ValueError("The prompt is empty: write what both shall answer.")
    if len(prompt) > LONGEST:
        raise ValueError(f"The prompt has {len(prompt):,} characters; {LONGEST:,} are the most: shorten it.")
    if a == b:
        raise ValueError(f"{a} cannot meet itself: choose two different models.")
    id = secrets.token_hex(8)
    with board(name) as db:
        row = (id, time.time(), voter, topic.strip()[:60], prompt, a, b, seed)
        db.execute("insert into rounds values (?, ?, ?, ?, ?, ?, ?, ?)", row)
    return id


def answered(id: str, side: str, text: str, problem: str = "", name: str = "main") -> None:
    """Keep what one side said; `problem` is why it could not, which makes the round void."""
    with board(name) as db:
        db.execute("insert or ignore into answers values (?, ?, ?, ?, ?)", (id, side, text, problem, time.time()))  # fmt: skip


def reveal(id: str, name: str = "main") -> None:
    """Note that the names of a round were seen. Before a vote that makes it void."""
    with board(name) as db:
        db.execute("insert or ignore into seen values (?, ?)", (id, time.time()))


def vote(id: str, choice: str, voter: str, name: str = "main") -> Round:
    """Add the vote of a round, and give the round with its names.

    Raises ValueError for an unknown round or choice, somebody else's round, a void one, and one that has its vote.
    """
    if choice not in CHOICES:
        raise ValueError(f"{choice!r} is no vote; a vote is one of {', '.join(CHOICES)}.")
    with board(name) as db:
        db.execute("begin immediate")
        found = one(db, id)
        if found is None or found.voter != voter:
            raise ValueError("This round is not yours to vote on: start one of your own.")
        if found.problem:
            raise ValueError(f"This round does not count: {found.problem}")
        if found.choice:
            raise ValueError(
                f"This round has its vote already ({CHOICES[found.choice].lower()}): start the next one."
            )
        db.execute("insert into votes values (?, ?, ?, ?)", (id, choice, voter, time.time()))
        return one(db, id)


ROUND = """
select r.id, r.time, r.voter, r.topic, r.prompt, r.a, r.b, r.seed, coalesce(x.text, ''), coalesce(y.text, ''),
  case when x.problem > '' then x.problem when y.problem > '' then y.problem
    when s.round is not null and (v.round is null or s.time < v.time) then 'the names were shown before the vote.'
    else '' end, coalesce(v.choice, '')
from rounds r left join answers x on x.round = r.id and x.side = 'a' left join answers y on y.round = r.id and y.side = 'b'
  left join seen s on s.round = r.id left join votes v on v.round = r.id
"""

# a vote may come before an answer breaks off: the round is void all the same
WHOLE = "not exists (select 1 from answers broken where broken.round = r.id and broken.problem > '')"


def one(db: sqlite3.Connection, id: str) -> Round | None:
    """The round of this id."""
    row = db.execute(ROUND + " where r.id = ?", (id,)).fetchone()
    return Round(*row) if row else None


def get(id: str, name: str = "main") -> Round | None:
    """The round of this id on a board."""
    with board(name) as db:
        return one(db, id)


def voted(
    topic: str = "", voter: str = "", name: str = "main", between: tuple[str, str] | None = None
) -> list[Round]:
    """All rounds whose vote counts, the oldest first; of one topic or voter, or `between` two, where they are named."""
    a, b = between or ("", "")
    with board(name) as db:
        rows = db.execute(
            ROUND + f" where v.round is not null and {WHOLE} and (? = '' or r.topic = ?) and (? = '' or r.voter = ?) "
            "and (? = '' or (r.a = ? and r.b = ?) or (r.a = ? and r.b = ?)) order by v.time",
            (topic, topic, voter, voter, a, a, b, b, a),
        ).fetchall()  # fmt: skip
    return [Round(*row) for row in rows]


def topics(name: str = "main") -> list[str]:
    """The topics that have votes."""
    query = (
        "select distinct topic from rounds join votes on votes.round = rounds.id where topic > '' order by 1"
    )
    with board(name) as db:
        return [row[0] for row in db.execute(query)]


@dataclass(frozen=True)
class Tally:
    """The votes of a board, counted: wins[i, j] is how often names[i] beat names[j], a tie half for each."""

    names: tuple[str, ...]
    wins: np.ndarray  # (n, n)
    games: np.ndarray  # (n, n), rounds with a vote between two, "both are bad" left out
    ties: int
    bad: int  # rounds in which both were bad: they say nothing about who is better
    votes: int


def tally(topic: str = "", voter: str = "", also: Sequence[str] = (), name: str = "main") -> Tally:
    """Count the votes of a board, of one topic or voter where they are named; `also` are names with a row in any case."""
    query = (
        "select r.a, r.b, v.choice, count(*) from votes v join rounds r on r.id = v.round "
        f"where {WHOLE} and (? = '' or r.topic = ?) and (? = '' or r.voter = ?) group by 1, 2, 3"
    )
    with board(name) as db:
        rows = db.execute(query, (topic, topic, voter, voter)).fetchall()
    names = tuple(sorted({who for a, b, *_ in rows for who in (a, b)} | set(also)))
    place = {who: i for i, who in enumerate(names)}
    wins, games = np.zeros((2, len(names), len(names)))
    counts = dict.fromkeys(CHOICES, 0)
    for a, b, choice, count in rows:
        counts[choice] += count
        i, j = place[a], place[b]
        if choice == "bad":
            continue
        wins[i, j] += count * {"a": 1, "tie": 0.5, "b": 0}[choice]
        wins[j, i] += count * {"a": 0, "tie": 0.5, "b": 1}[choice]
        games[i, j] += count
        games[j, i] += count
    return Tally(names, wins, games, counts["tie"], counts["bad"], sum(counts.values()))


def preferences(rounds: Sequence[Round]) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Votes as rows that a preference tuning learns from, and how many votes gave none, by reason.

    Each row has prompt, chosen and rejected, and who said what.
    """
    rows, left = [], {"tie": 0, "both bad": 0, "equal texts": 0, "not finished": 0}
    for one in rounds:
        if one.choice in ("tie", "bad"):
            left["tie" if one.choice == "tie" else "both bad"] += 1
        elif not one.text_a or not one.text_b:
            left["not finished"] += 1
        elif one.text_a.strip() == one.text_b.strip():
            left["equal texts"] += 1
        else:
            won, lost = ("a", "b") if one.choice == "a" else ("b", "a")
            rows.append(
                {
                    "prompt": one.prompt,
                    "chosen": getattr(one, f"text_{won}"),
                    "rejected": getattr(one, f"text_{lost}"),
                    "chosen_by": getattr(one, won),
                    "rejected_by": getattr(one, lost),
                }
            )
    return rows, {reason: count for reason, count in left.items() if count}
