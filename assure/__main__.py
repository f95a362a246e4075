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

from assure import calls, load
from assure.lab import ROOT, Lab
from bench.report import machine

RESULTS, PAGE = ROOT / "docs" / "assurance.json", ROOT / "docs" / "assurance.md"
Check = Callable[[Lab, bool], dict[str, Any]]
CHECKS: dict[str, tuple[str, str, Check]] = {  # what is checked, the bar, how
    "LOAD-1": (
        "30 students for 60 s (10 min with --long) while two runs train: clicks, polls, texts", "click p95 150 ms, p99 500 ms, no error; over 10 min at most 1 MB/min",
        lambda lab, long: load.check(lab, 600 if long else 60),
    ),
    "FUZZ-2": (
        "10,000 raw calls of every event of the page with values that no widget sends", "no fault of ours, the server alive",
        lambda lab, long: calls.check(lab, 10_000),
    ),
}  # fmt: skip


def said(value: Any) -> str:
    """A figure for the table."""
    if isinstance(value, float):
        return f"{value:,.1f}"
    return ", ".join(f"{k}: {said(v)}" for k, v in value.items()) if isinstance(value, dict) else f"{value:,}"


def page(results: dict[str, dict[str, Any]]) -> str:
    """docs/assurance.md."""
    lines = ["# Assurance", "", "Written by `make assure`: each check starts a lab of its own and behaves as a class or a stranger would.", ""]  # fmt: skip
    lines += ["| id | check | bar | seen | held | when, commit |", "|---|---|---|---|---|---|"]
    for name, (what, bar, _) in CHECKS.items():
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
            lab = Lab(Path(folder) / "home")
            try:
                found = CHECKS[name][2](lab, given.long)
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
