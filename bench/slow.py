"""`make test-slow`: the long tests, with what came out kept in docs/slow-tests.md."""

from __future__ import annotations

import platform
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "slow-tests.md"


def outcome(case: ET.Element) -> str:
    """passed, or what else JUnit's XML says of one test, with its reason."""
    for kind in ("failure", "error", "skipped"):
        if (found := case.find(kind)) is not None:
            reason = (found.get("message") or "").splitlines() or [""]
            return f"{'failed' if kind == 'failure' else kind}: {reason[0][:120]}".replace("|", "\\|")
    return "passed"


def page(cases: list[ET.Element]) -> str:
    """docs/slow-tests.md: the machine, then a row for each test with its result, seconds and what it printed."""
    lines = [
        "# The slow tests: last results",
        "",
        f"Written by `make test-slow` on {time.strftime('%Y-%m-%d')}: {platform.system()} {platform.machine()}, "
        f"Python {platform.python_version()}, torch {version('torch')}, gradio {version('gradio')}.",
        "",
        "| test | result | seconds |",
        "|---|---|---|",
    ]
    notes = []
    for case in cases:
        name = f"{case.get('classname', '').removeprefix('tests.')}::{case.get('name')}"
        lines.append(f"| `{name}` | {outcome(case)} | {float(case.get('time', 0)):.0f} |")
        printed = (case.findtext("system-out") or "").splitlines()
        if printed := "\n".join(line for line in printed if not line.startswith("-----")).strip():
            notes += ["", f"`{name}` printed:", "", "```", printed, "```"]
    return "\n".join(lines + notes) + "\n"


def main(arguments: list[str]) -> int:
    """Run `pytest -m slow`, write the page, and answer with pytest's exit code (0 too when there is no slow test)."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-m",
            "slow",
            f"--junitxml={report}",
            "-o",
            "junit_logging=system-out",
        ]
        code = subprocess.run([*command, *arguments], cwd=ROOT).returncode
        if code in (0, 1):
            cases = list(ET.parse(report).iter("testcase"))
            PAGE.write_text(page(cases), encoding="utf-8")
            for case in cases:
                if (found := outcome(case)).startswith("skipped"):
                    print(f"Not run: {case.get('name')} ({found.removeprefix('skipped: ')})")
            print(f"Wrote {PAGE.relative_to(ROOT)}")
    return 0 if code == 5 else code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
