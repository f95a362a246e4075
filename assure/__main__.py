"""Check the lab against its bar, and write down what was seen.

    python -m assure [--only LOAD-1 FUZZ-2] [--long]

Writes docs/assurance.json and the table in docs/assurance.md: figures, whether the bar is held, commit, date and machine.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from assure import browser, calls, kills, load, owners, space, texts, uploads
from assure.lab import ROOT, Lab
from bench.report import machine

RESULTS, PAGE = ROOT / "docs" / "assurance.json", ROOT / "docs" / "assurance.md"
Check = Callable[[Lab, bool], dict[str, Any]]
CHECKS: dict[str, tuple[str, str, str, Check]] = {  # what is checked, the bar, the lab's mode, how
    "REL-1": (
        "a run's process is killed at 100 seeded points of its work on files and of time, inside the writing of checkpoints too",
        "every run ends in the bits of an uninterrupted one", "local", lambda lab, long: kills.killed(lab, 400 if long else 100),
    ),
    "REL-2": (
        "the server is killed (KILL, TERM, Ctrl-C) while a run trains, and started again",
        "the run goes on, no step lost or doubled, the page back within 10 s", "local", lambda lab, long: kills.server_killed(lab),
    ),
    "REL-3": (
        "single opens, syncs and renames fail (disk full, input/output error), or files cannot grow",
        "the last checkpoint opens, the run says why, and goes on to the same bits", "local",
        lambda lab, long: kills.failing_disk(lab, 240 if long else 60),
    ),
    "REL-4": (
        "trainings of 0.3 and 3 billion parameters and of a huge batch under limits of 0.75 to 3 GB; two more from the page under 10 GB",
        "a sentence says what is needed; the server answers", "local", lambda lab, long: kills.little_memory(lab),
    ),
    "REL-5": (
        "eight tabs of one visitor press Start, Stop, Resume and Delete at the same instant", "one run a click, one end, none deleted while it runs",
        "class", lambda lab, long: owners.two_tabs(lab),
    ),
    "LOAD-1": (
        "30 students for 60 s (10 min with --long) while two runs train: clicks, polls, texts",
        "click p95 150 ms, p99 500 ms, no error; over 10 min at most 1 MB/min", "class",
        lambda lab, long: load.check(lab, 600 if long else 60),
    ),
    "LOAD-2": (
        "30 students while an encoding is trained on 50 MB, beside the same without it", "click p95 at most twice as long", "class",
        lambda lab, long: load.beside_an_encoding(lab, 60 if long else 30),
    ),
    "FUZZ-1": (
        "10,000 uploads changed at random (csv json jsonl tsv txt md gz zip gguf, Hugging Face and own folders, encodings)",
        "no crash, no hang over 5 s, no traceback through our files", "local", lambda lab, long: uploads.check(lab, 10_000),
    ),
    "FUZZ-2": (
        "10,000 raw calls of every event of the page with values that no widget sends", "no fault of ours, the server alive", "class",
        lambda lab, long: calls.check(lab, 10_000),
    ),
    "FUZZ-3": (
        "odd texts through tokenise, windows, attention, score, sample, train", "a round trip or a stated loss; no fault of ours", "local",
        lambda lab, long: texts.check(lab),
    ),
    "SEC-1": (
        "keys in the environment, a key typed in, private files: looked for in all that the lab keeps, says and starts",
        "seen nowhere but in the requests to the one endpoint", "local", lambda lab, long: owners.canaries(lab),
    ),
    "SEC-2": (
        "another visitor's names in every input and click of every event, every route, every server function",
        "nothing is shown, nothing changes", "class", lambda lab, long: owners.matrix(lab),
    ),
    "SEC-3": (
        f"{len(browser.PAYLOADS)} payloads in every place that shows a foreign text, in Chromium", "none fires, nothing is asked of another site",
        "class", lambda lab, long: browser.foreign_text(lab),
    ),
    "SPACE": (
        "started as a Space: its variables, a fresh copy that is only read, two cores, 16 GB of addresses; trained, sampled, taken away",
        "all of it works, each visitor apart, nothing written beside the code", "local",
        lambda lab, long: space.check(lab.home.parent / "space"),
    ),
    "UI-1": (
        "eight tabs of one browser, each watching a run", "all answer within 2 s", "local", lambda lab, long: browser.eight_tabs(lab),
    ),
}  # fmt: skip
SECRETS = {"OPENAI_API_KEY": owners.CANARY, "HF_TOKEN": owners.CANARY}  # what SEC-1 looks for


def said(value: Any) -> str:
    """A figure for the table."""
    if isinstance(value, float):
        return f"{value:,.1f}"
    return ", ".join(f"{k}: {said(v)}" for k, v in value.items()) if isinstance(value, dict) else f"{value:,}"


def page(results: dict[str, dict[str, Any]]) -> str:
    """docs/assurance.md."""
    lines = ["# Assurance", "", "Written by `make assure`: each check starts a lab of its own and behaves as a class or a stranger would.", ""]  # fmt: skip
    lines += ["| id | check | bar | seen | held | when, commit |", "|---|---|---|---|---|---|"]
    for name, (what, bar, _, _) in CHECKS.items():
        if one := results.get(name):
            seen = "; ".join(f"{key} {said(value)}" for key, value in one["figures"].items())
            held = "yes" if one["pass"] else "**no**"
            lines.append(f"| {name} | {what} | {bar} | {seen} | {held} | {one['machine']['date']}, {one['machine'].get('commit', '')} |")  # fmt: skip
        else:
            lines.append(f"| {name} | {what} | {bar} | not run yet | | |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run the chosen checks; the exit status is 1 when one does not hold its bar."""
    parser = argparse.ArgumentParser(prog="python -m assure", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--only", nargs="+", choices=CHECKS, default=list(CHECKS))
    parser.add_argument("--long", action="store_true", help="ten minutes of a class instead of one")
    given = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    good = True
    for name in given.only:
        about, began = machine(), time.monotonic()
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            _, _, mode, check = CHECKS[name]
            lab = Lab(Path(folder) / "home", mode, **(SECRETS if name == "SEC-1" else {}))
            try:
                found = check(lab, given.long)
            finally:
                lab.close()
        results[name] = {**found, "seconds": round(time.monotonic() - began), "machine": about}
        good = good and found["pass"]
        print(
            f"{name}: {'held' if found['pass'] else 'NOT held'}; {json.dumps(found['figures'])}", flush=True
        )
        for line in found["what went wrong"]:
            print(f"  {line}")
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
        PAGE.write_text(page(results), encoding="utf-8")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
