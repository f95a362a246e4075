"""A hand-in: a visitor's answers and runs in one file, and the teacher's check of it against what the lab itself has kept.

python -m llm.handin FILE ... [--csv TABLE]
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llm import classroom, lessons, versions
from llm.runs import Run, all_runs

VERSION = 1
LARGEST = 5_000_000  # bytes of a hand-in
FIGURES = ("step", "loss", "val_loss", "bits_per_byte", "accuracy")


def mark(person: str) -> str:
    """Stands for a visitor in a file that others may read: their identity itself stays here."""
    return hashlib.sha256(f"hand-in {person}".encode()).hexdigest()[:16]


def made(person: str) -> dict[str, Any]:
    """The hand-in of a visitor: answers, and runs with settings, seeds, figures and the hash of their log."""
    name = next((one["name"] for one in classroom.people() if one["id"] == person), "")
    runs = [run for run in all_runs() if run.meta["owner"] == person]
    return {
        "version": VERSION, "kind": "hand-in", "person": mark(person), "name": name, "time": time.time(),
        "file": re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-").lower() or "mine",
        "answers": [told(one) for one in classroom.answers(person)], "runs": [of_run(run) for run in runs],
    }  # fmt: skip


def told(one: dict[str, Any]) -> dict[str, Any]:
    """An answer with its question, and whether it is right (None where no answer is)."""
    found = {key: one[key] for key in ("lesson", "step", "answer", "time")} | {"question": "", "right": None}
    try:
        step = lessons.get(one["lesson"]).steps[one["step"] - 1]
    except (ValueError, IndexError):  # a lesson that has gone
        return found
    right = one["answer"] == step.choices[step.answer - 1] if step.answer else None
    return found | {"question": step.ask, "right": right}


def of_run(run: Run) -> dict[str, Any]:
    """A run with what its log says at this moment."""
    log = (run.path / "events.jsonl").read_bytes()
    config = run.config
    seed = (
        config.get("train", {}).get("seed") if isinstance(config.get("train"), dict) else config.get("seed")
    )
    return {
        "name": run.name, "kind": run.meta["kind"], "status": run.status(), "seed": seed, "config": config, "figures": figures(run),
        "bytes": len(log), "sha256": hashlib.sha256(log).hexdigest(),
    }  # fmt: skip


def figures(run: Run) -> dict[str, Any]:
    """The last value of each of FIGURES in a run's log."""
    found: dict[str, Any] = {}
    for event in run.events():
        if event["kind"] in ("step", "evaluate"):
            found |= {key: event[key] for key in FIGURES if event.get(key) is not None}
    return found


# --- the teacher's check


def read(file: Path) -> dict[str, Any]:
    """A hand-in. Raises ValueError when the file is none."""
    try:
        if file.stat().st_size > LARGEST:
            raise ValueError(f"{file.name} is larger than {LARGEST:,} bytes: it is no hand-in.")
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{file.name} cannot be read as a hand-in ({type(error).__name__}).") from None
    if not isinstance(found, dict) or found.get("kind") != "hand-in":
        raise ValueError(f"{file.name} is no hand-in of this lab.")
    versions.check(found.get("version"), VERSION, file.name)
    return found


def checked(found: dict[str, Any]) -> list[dict[str, Any]]:
    """One row for each answer and each run of a hand-in, with `check`: "as kept here", or what differs."""
    kept = {}
    for one in classroom.answers():
        kept[mark(one["person"]), one["lesson"], one["step"]] = one["answer"]
    who = {"name": str(found.get("name", "")), "person": str(found.get("person", ""))}
    rows = []
    for one in _listed(found, "answers"):
        own = kept.get((who["person"], one.get("lesson"), one.get("step")))
        check = (
            "as kept here"
            if own == one.get("answer")
            else "not here"
            if own is None
            else f"here it is {own!r}"
        )
        rows.append({**who, "what": "answer", "of": f"{one.get('lesson')} {one.get('step')}", "value": one.get("answer"),
                     "right": told({**one, "time": 0})["right"] if own is not None else None, "check": check})  # fmt: skip
    for one in _listed(found, "runs"):
        said = one.get("figures") if isinstance(one.get("figures"), dict) else {}
        rows.append({**who, "what": "run", "of": str(one.get("name")), "value": json.dumps(said), "right": None,
                     "check": _of_log(one, said, who["person"])})  # fmt: skip
    return rows


def _listed(found: dict[str, Any], key: str) -> list[dict[str, Any]]:
    value = found.get(key)
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _of_log(one: dict[str, Any], said: dict[str, Any], person: str) -> str:
    try:
        run = Run.open(str(one.get("name")))
        log = (run.path / "events.jsonl").read_bytes()
    except (ValueError, OSError):
        return "not here"
    if mark(run.meta["owner"]) != person:
        return "the run is somebody else's"
    length = one.get("bytes")
    if not isinstance(length, int) or hashlib.sha256(log[:length]).hexdigest() != one.get("sha256"):
        return "its log is another one"
    if one.get("config") != run.config:
        return "its settings are others"
    if length == len(log) and said != figures(run):
        return f"its log says {json.dumps(figures(run))}"
    return "as kept here"


def main(arguments: Sequence[str] | None = None) -> None:
    """`python -m llm.handin FILE ... --csv TABLE`: check hand-ins against the logs of this lab, and write them as one table."""
    parser = argparse.ArgumentParser(prog="python -m llm.handin", description=main.__doc__)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--csv", type=Path, metavar="TABLE")
    given = parser.parse_args(arguments)
    rows, bad = [], False
    for file in given.files:
        try:
            found = checked(read(file))
        except ValueError as error:
            print(error, file=sys.stderr)
            bad = True
            continue
        wrong = [row for row in found if row["check"] != "as kept here"]
        bad = bad or bool(wrong)
        print(f"{file.name}: {len(found)} answers and runs, {len(wrong)} not as kept here")
        for row in wrong:
            print(f"  {row['what']} {row['of']}: {row['check']}")
        rows += [{"file": file.name, **row} for row in found]
    if given.csv:
        with open(given.csv, "w", newline="", encoding="utf-8") as out:
            table = csv.DictWriter(out, ["file", "name", "person", "what", "of", "value", "right", "check"])
            table.writeheader()
            table.writerows({key: _safe(value) for key, value in row.items()} for row in rows)
    sys.exit(int(bad))


def _safe(value: Any) -> Any:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


if __name__ == "__main__":
    main()
