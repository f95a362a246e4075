"""`python -m llm.corpora stories|verse|instructions|...|check FILE|fetch NAME`: make, judge and fetch what is trained on."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

from llm import corpora, paths
from llm.corpora import classification, downloads, instructions, preferences, stories, story_check, verse

MAKERS = {"stories": stories, "verse": verse}
ROW_MAKERS = {"instructions": instructions, "classification": classification, "preferences": preferences}


def make(arguments: argparse.Namespace) -> None:
    """Write a shipped text and print what was measured on it."""
    maker = MAKERS[arguments.command]
    text, measured = maker.make(
        arguments.count or maker.COUNT, maker.SEED if arguments.seed is None else arguments.seed
    )
    out = arguments.out or paths.shipped_datasets() / corpora.TEXTS[arguments.command]["file"]
    out.write_text(text, encoding="utf-8", newline="\n")
    print(f"{out}: {len(text.encode()):,} bytes")
    for name, value in measured.items():
        print(f"{name}: {value}")


def make_rows(arguments: argparse.Namespace) -> None:
    """Write shipped rows, one file or more, and print what was measured on each."""
    maker = ROW_MAKERS[arguments.command]
    folder = arguments.out or paths.shipped_datasets()
    for name, (text, measured) in maker.make(
        maker.SEED if arguments.seed is None else arguments.seed
    ).items():
        out = folder / corpora.ROWS[name]["file"]
        out.write_text(text, encoding="utf-8", newline="\n")
        print(f"{out}: {len(text.encode()):,} bytes")
        for what, value in measured.items():
            print(f"{what}: {value}")


def judge(arguments: argparse.Namespace) -> None:
    """Print the share of the stories in a file that keep the grammar's rules, and what the others break."""
    text = sys.stdin.read() if str(arguments.file) == "-" else arguments.file.read_text(encoding="utf-8")
    told = [part.strip() for part in text.split(stories.SEPARATOR) if part.strip()]
    if not told:
        raise ValueError(f"There is no story in {arguments.file}.")
    reasons: Counter[str] = Counter()
    passed = 0
    for number, story in enumerate(told, 1):
        verdict = story_check.check(story)
        passed += verdict.ok
        reasons.update(verdict.failures)
        if arguments.each:
            print(f"story {number}: " + ("good" if verdict.ok else " ".join(verdict.failures)))
    print(f"{passed} of {len(told)} stories keep every rule ({passed / len(told):.1%}).")
    for reason, count in reasons.most_common(20):
        print(f"{count:6} {reason}")


def fetch(arguments: argparse.Namespace) -> None:
    """Download a public text, or list them all when no name is given."""
    if not arguments.name:
        for name, text in downloads.DOWNLOADS.items():
            print(f"{name:18} {text.title}: {text.size:,} bytes, {text.licence}, {downloads.trust(name)}")
        return

    def show(done: int, total: int) -> None:
        print(f"\r{done:,} of {total:,} bytes", end="", file=sys.stderr, flush=True)

    path = downloads.fetch(arguments.name, progress=show)
    print(file=sys.stderr)
    print(f"{path}: {path.stat().st_size:,} bytes, {downloads.trust(arguments.name)}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m llm.corpora", description=corpora.__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, maker in MAKERS.items():
        command = commands.add_parser(name, help=f"make datasets/{corpora.TEXTS[name]['file']}")
        command.add_argument("--count", type=int, help=f"how many (default: {maker.COUNT})")
        command.add_argument("--seed", type=int, help=f"of the random choices (default: {maker.SEED})")
        command.add_argument("--out", type=Path, help="file to write (default: the shipped one)")
        command.set_defaults(work=make)
    for name, maker in ROW_MAKERS.items():
        files = " and ".join(rows["file"] for rows in corpora.ROWS.values() if rows["made_by"] == name)
        command = commands.add_parser(name, help=f"make datasets/{files}")
        command.add_argument("--seed", type=int, help=f"of the random choices (default: {maker.SEED})")
        command.add_argument("--out", type=Path, help="folder to write to (default: the shipped one)")
        command.set_defaults(work=make_rows)
    command = commands.add_parser("check", help="judge the stories in a file")
    command.add_argument(
        "file", type=Path, help=f"stories with {stories.SEPARATOR} between them; - is the keyboard"
    )
    command.add_argument("--each", action="store_true", help="the verdict on every story")
    command.set_defaults(work=judge)
    command = commands.add_parser("fetch", help="download a public text")
    command.add_argument("name", nargs="?", help="one of the list; none prints the list")
    command.set_defaults(work=fetch)
    arguments = parser.parse_args()
    try:
        arguments.work(arguments)
    except (ValueError, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
