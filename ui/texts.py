"""Every text that the source may show, read from the source: what a language's file is held against.

`python -m ui.texts es` prints the texts of the page that ui/languages/es.json has no entry for (some are never shown).
"""

from __future__ import annotations

import argparse
import ast
import html
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

from llm import config
from llm.config import knobs
from ui.forms import title
from ui.language import catalogue

CONFIGS = [cls for name, cls in vars(config).items() if name.endswith("Config")]
ROOT = Path(__file__).resolve().parent.parent
HOLE = "\x00"  # what an f-string or a template literal fills in
VARIANTS = 8  # of an f-string whose holes choose between words
TAG = re.compile(r"<(?:[^<>'\"]|'[^']*'|\"[^\"]*\")*>")
LED = re.compile(r"content: var\([^,]*, \"([^\"]+)\"\)")  # what a style sheet writes
SHOWN = re.compile(r"\b(?:title|aria-label|placeholder|alt|data-said)=(?:'([^']*)'|\"([^\"]*)\")")
WORD = re.compile(r"[A-Za-z]{2,}|\b[aA]\b")


def sources(root: Path = ROOT) -> list[Path]:
    """The files whose texts a page can show: app.py, llm/ and ui/, with scripts and style sheets."""
    python = [root / "app.py", *sorted((root / "llm").rglob("*.py")), *sorted((root / "ui").rglob("*.py"))]
    return [*python, *sorted((root / "ui/js").glob("*.js")), *sorted((root / "ui/css").glob("*.css"))]


def everything(root: Path = ROOT) -> set[str]:
    """All texts of all files, and what is derived from names: the labels of settings."""
    labels = {title(knob.name) for cls in CONFIGS for knob in knobs(cls)}
    return labels.union(*(texts(path) for path in sources(root)))


def texts(path: Path) -> list[str]:
    """The texts of one file in their order, HOLE where something is put in; markup is taken apart."""
    text = path.read_text(encoding="utf-8")
    whole = {".js": script_strings, ".css": LED.findall}.get(path.suffix, python_strings)(text)
    found = [piece for one in whole for piece in pieces(one)]
    return [one for one in dict.fromkeys(found) if WORD.search(one)]


def pieces(text: str) -> Iterator[str]:
    """What a reader sees of a text: with markup in it, what stands between tags and in attributes that are read out."""
    if not re.search(r"<[a-z/!]|=[\"']", text):
        yield plain(text)
        return
    for match in SHOWN.finditer(text):
        yield plain(match[1] or match[2] or "")
    for between in TAG.split(text):
        yield plain(between)


def plain(text: str) -> str:
    """A text as a browser shows it: entities written out, blanks made one, none at its ends."""
    return re.sub(r"\s+", " ", html.unescape(text)).strip()


# --- Python ---------------------------------------------------------------------------------------------------


def python_strings(source: str) -> Iterator[str]:
    """Every string of a module but its docstrings; of f-strings whose holes choose between words, each variant."""
    tree = ast.parse(source)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if id(node) in docstrings or id(node) in inside:
            continue
        if isinstance(node, (ast.JoinedStr, ast.BinOp)) or (
            isinstance(node, ast.Constant) and isinstance(node.value, str)
        ):
            yield from variants(node)


def variants(node: ast.AST) -> list[str]:
    """What an expression may become as a text; HOLE for what only its running tells."""
    if isinstance(node, ast.Constant):
        return [node.value if isinstance(node.value, str) else HOLE]
    if isinstance(node, ast.IfExp):
        return list(dict.fromkeys(variants(node.body) + variants(node.orelse)))
    if isinstance(node, ast.FormattedValue):
        return [HOLE] if node.format_spec else variants(node.value)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return joined([variants(node.left), variants(node.right)])
    if isinstance(node, ast.JoinedStr):
        return joined([variants(part) for part in node.values])
    return [HOLE]


def joined(parts: list[list[str]]) -> list[str]:
    """All ways to put one of each part together; where they are too many, the parts that vary most become holes."""
    while True:
        number = 1
        for part in parts:
            number *= len(part)
        if number <= VARIANTS:
            return ["".join(chosen) for chosen in itertools.product(*parts)]
        most = max(range(len(parts)), key=lambda i: len(parts[i]))
        parts = [[HOLE] if i == most else part for i, part in enumerate(parts)]


# --- JavaScript -----------------------------------------------------------------------------------------------

ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}


def script_strings(source: str) -> list[str]:
    """Every string and template literal of a script, those inside the holes of template literals too."""
    found: list[str] = []
    _read(source, 0, found, closing="")
    return found


def _read(source: str, at: int, found: list[str], closing: str) -> int:
    """Read code from `at` to the brace that closes a hole (or to the end); returns the place behind it."""
    depth, last = 0, ""
    while at < len(source):
        c = source[at]
        if source.startswith("//", at):
            at = (source.find("\n", at) + 1) or len(source)
            continue
        if source.startswith("/*", at):
            at = source.find("*/", at) + 2
            continue
        if c in "'\"":
            text, at = _quoted(source, at)
            found.append(text)
            last = c
            continue
        if c == "`":
            at = _template(source, at + 1, found)
            last = c
            continue
        if c == "/" and (not last or last in "(,=:[!&|?{};>"):
            at = _pattern(source, at + 1)
            last = "/"
            continue
        if closing and c == "}" and not depth:
            return at + 1
        depth += (c == "{") - (c == "}")
        if not c.isspace():
            last = c
        at += 1
    return at


def _quoted(source: str, at: int) -> tuple[str, int]:
    quote, text = source[at], ""
    at += 1
    while source[at] != quote:
        if source[at] == "\\":
            text, at = _escape(source, at, text)
        else:
            text, at = text + source[at], at + 1
    return text, at + 1


def _escape(source: str, at: int, text: str) -> tuple[str, int]:
    c = source[at + 1]
    if c == "u" and source[at + 2] != "{":
        return text + chr(int(source[at + 2 : at + 6], 16)), at + 6
    return text + ESCAPES.get(c, c), at + 2


def _template(source: str, at: int, found: list[str]) -> int:
    text = ""
    while source[at] != "`":
        if source[at] == "\\":
            text, at = _escape(source, at, text)
        elif source.startswith("${", at):
            text, at = text + HOLE, _read(source, at + 2, found, closing="}")
        else:
            text, at = text + source[at], at + 1
    found.append(text)
    return at + 1


def _pattern(source: str, at: int) -> int:
    in_class = False
    while in_class or source[at] != "/":
        if source[at] == "\\":
            at += 1
        elif source[at] in "[]":
            in_class = source[at] == "["
        at += 1
    return at + 1


def missing(code: str) -> list[str]:
    """The sentences and labels of the page that a language has no entry for, in the order of the files."""
    known = {re.sub(r"\{[*#]\}", "{}", key) for key in catalogue(code)}
    found = []
    for path in sources():
        if path.suffix != ".py" or "corpora" not in path.parts:  # the words of stories are data
            found += [text.replace(HOLE, "{}") for text in texts(path)]
    return [
        text
        for text in dict.fromkeys(found)
        if text not in known and len(text.split()) > 2 and text[0].isupper()
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Texts of the page that a language lacks.")
    parser.add_argument("language", help="its code, such as es: the file ui/languages/es.json")
    print(*missing(parser.parse_args().language), sep="\n")
