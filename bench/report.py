"""`make bench`: run the benchmarks one after the other and write docs/performance.md from their JSON.

    python -m bench.report [--only page train tune generate smol sample look evaluate open data growth losses]

Also what the benchmarks share: the machine in words, a median with its spread, and one way to print.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "performance.md"
RESULTS = ROOT / "docs" / "performance.json"
BENCHES = (
    "page",
    "train",
    "tune",
    "generate",
    "smol",
    "sample",
    "look",
    "evaluate",
    "open",
    "data",
    "growth",
    "losses",
)
FLAGS = (
    "avx2",
    "avx512f",
    "avx512_bf16",
    "avx512_vnni",
    "amx_bf16",
    "amx_int8",
)  # of a processor, that matter here
PACKAGES = ("torch", "gradio", "transformers", "peft", "lm_eval", "llms-from-scratch", "playwright")


DURATIONS = ("ms", "µs", "s", "MB", "times the file")  # units of which less is better


def spread(values: list[float]) -> dict[str, float]:
    """Median, least and most of repeated measurements."""
    return {"median": statistics.median(values), "least": min(values), "most": max(values), "n": len(values)}


def machine() -> dict[str, Any]:
    """Where and with what a measurement was made."""
    names = {}
    for name in PACKAGES:
        try:
            names[name] = version(name)
        except PackageNotFoundError:
            continue
    model, flags = platform.processor() or platform.machine(), []
    if (info := Path("/proc/cpuinfo")).exists():
        lines = info.read_text().splitlines()
        model = next((x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")), model)
        has = next((x.split() for x in lines if x.startswith("flags")), [])
        flags = [flag for flag in FLAGS if flag in has]
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "date": time.strftime("%Y-%m-%d"),
        "commit": commit(),
        "processor": model,
        "flags": flags,
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        "load_at_start": load,
        "packages": names,
    }


def commit() -> str:
    """The commit that is measured, with a + when files differ from it; "" outside a repository."""
    ask = ["git", "-C", str(ROOT)]
    head = subprocess.run([*ask, "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    if head.returncode:
        return ""
    changed = subprocess.run(
        [*ask, "status", "--porcelain", "llm", "ui", "bench"], capture_output=True, text=True
    )
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")


def print_json(result: dict[str, Any]) -> None:
    """One JSON object on standard output."""
    print(json.dumps(result, indent=1))


def number(value: float) -> str:
    """Three digits that matter, thousands separated."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def table(result: dict[str, Any]) -> list[str]:
    """Rows of one benchmark; where a row is called "ours", the others get the ratio to it."""
    lines = []
    for case, rows in result["results"].items():
        settings = ", ".join(f"{k} {v}" for k, v in result["cases"].get(case, {}).items())
        own = {name: v["median"] for name, v in rows.items() if name.startswith("ours")}
        best = next(iter(own.values()), None)
        lines += ["", f"**{case}**" + (f" ({settings})" if settings else ""), ""]
        bars = any("bar" in value for value in rows.values())
        unit = result.get("units", {}).get(case, result["unit"])
        head = ["", unit, "least", "most", "n"]
        head += ["bar", "within"] if bars else ["ours is"] if best else []
        lines += ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
        for name, value in rows.items():
            row = [name, *(number(value[k]) for k in ("median", "least", "most")), str(value["n"])]
            if bars:
                bar = value.get("bar")
                row += [number(bar), "yes" if value["median"] <= bar else "**no**"] if bar else ["", ""]
            elif best:
                same = own.get(
                    f"ours, {name.rpartition(', ')[2]}", best
                )  # in the same number format, where both name one
                times = same / value["median"] if unit not in DURATIONS else value["median"] / same
                row.append("" if name in own else f"{times:.2f}x")
            lines.append("| " + " | ".join(row) + " |")
    return lines


TITLES = {
    "page": "## The page",
    "train": "## Training, tokens a second",
    "tune": "## Fine-tuning: tokens a second, and the memory it takes at most",
    "generate": "## Generation, new tokens a second",
    "smol": "## A real model beside llama.cpp: new tokens a second, with the quality of each",
    "sample": "## One sampling step over 50,257 logits, microseconds",
    "look": "## Every attention map of a text, milliseconds",
    "evaluate": "## Scoring: questions or tokens a second",
    "data": "## From a text file to all batches of one pass: megabytes a second, and memory",
    "growth": "## Cost as work grows",
    "losses": "## The same losses",
    "open": "## Opening a real model: seconds, and the memory it takes at most",
}


def page(results: dict[str, dict[str, Any]]) -> str:
    """docs/performance.md from the results of the benchmarks."""
    lines = [
        "# Performance",
        "",
        "Written by `make bench`; every comparison is inside one run, all taking turns.",
    ]
    for name, result in results.items():
        where = result["machine"]
        packages = ", ".join(f"{k} {v}" for k, v in where["packages"].items())
        lines += ["", TITLES[name], ""]
        lines.append(
            f"{where['date']}{', commit ' + where['commit'] if where.get('commit') else ''}, {where['processor']} "
            f"({' '.join(where.get('flags', [])) or 'flags not kept'}), {where['cores']} cores, {where['system']}, Python "
            f"{where['python']}, {packages}; load before the start {where['load_at_start']:.1f}."
        )
        if note := result.get("note"):
            lines += ["", note]
        lines += table(result)
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run the chosen benchmarks, keep the others' last results, write both files."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=BENCHES, default=list(BENCHES))
    given = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in given.only:
        if name == "smol" and not os.environ.get("LLAMA_CPP_PYTHON"):
            print(
                "bench/smol.py is left out: LLAMA_CPP_PYTHON does not say where llama-cpp-python is installed."
            )
            continue
        print(f"bench/{name}.py ...", flush=True)
        done = subprocess.run(
            [sys.executable, "-m", f"bench.{name}"], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        if done.returncode:
            return done.returncode
        results[name] = json.loads(done.stdout)
        RESULTS.write_text(
            json.dumps(results, indent=1) + "\n"
        )  # what is measured is kept, whatever the next one does
    PAGE.write_text(page({name: results[name] for name in BENCHES if name in results}), encoding="utf-8")
    from bench import scale  # it reads what was just written

    scale.main()
    print(f"Wrote {PAGE.relative_to(ROOT)} and {scale.PAGE.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
