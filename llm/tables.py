"""From a file of rows (JSON, JSON lines, CSV, TSV, Parquet, plain text) to a table, with everything unreadable said in words."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm import files

MOST_ROWS = 200_000
MOST_COLUMNS = 1_000
DEEPEST = 16  # levels of lists and objects in one row; a conversation has 3
DELIMITERS = ",\t;|"
SAMPLE = 20  # records by which a table's delimiter is told
SEPARATOR = "<|endoftext|>"  # between the documents of a plain text
JSON_ENDINGS = (".json", ".jsonl", ".ndjson")
TEXT_ENDINGS = (".csv", ".tsv", ".txt", ".text", ".md")
JSON_START = re.compile(r"""\[\s*[\[{"'\]]|\{\s*["'}]""")
DOUBLED = object()  # in a JSON object: the name that it has twice
MISSING = {"NaN": None, "Infinity": "Infinity", "-Infinity": "-Infinity"}  # what is no JSON but often written

# What Python's reader says of broken JSON: what a person is told. {3} is the place.
BROKEN = {
    "Expecting ',' delimiter": "a comma (or the closing bracket) is missing",
    "Expecting ':' delimiter": "a colon is missing between a name and its value",
    "Expecting property name enclosed in double quotes": "a name in double quotes is missing (single quotes do not "
    "count, and no comma may stand before a closing brace)",
    "Expecting value": "a value is missing (a comma too many, or a text without double quotes)",
    "Unterminated string starting at": "the text that begins here has no closing quotation mark",
    "Invalid control character at": "a line end or tab stands inside a text: write it as \\n or \\t",
    "Invalid \\escape": "a backslash must be followed by one of n t r b f u / \\ or a quotation mark",
    "Invalid \\uXXXX escape": "\\u must be followed by four hexadecimal digits",
    "Extra data": "more follows after the end: put all rows into one [ ... ] with commas between them, or one on each line",
    "Illegal trailing comma": "no comma may stand before a closing brace or bracket",
}  # fmt: skip


@dataclass(frozen=True)
class Table:
    """Rows of a file as they stand there; numbers are kept as their text, so that 1.50 stays 1.50."""

    name: str
    form: str  # JSON, JSON lines, CSV, TSV, Parquet or text
    columns: tuple[str, ...]  # in the order in which the file has them
    rows: list[
        dict[str, Any]
    ]  # a value is a text, None (null, NaN), or a list or object as JSON and Parquet have
    numbers: list[int]  # of each row: its number in the file, from 1, a header not counted
    unread: list[tuple[int, str]]  # rows that could not be read: number and reason
    notes: tuple[str, ...] = ()  # what reading it changed, a sentence each


def read(source: Path | bytes | str, name: str = "", limit: int | None = None) -> Table:
    """The table in a file (a Path), in an upload's bytes, or in a pasted text (a str: never a path or an address).

    The content decides what it is; `name` only helps where that leaves a doubt. `limit` is the largest size in bytes,
    `files.upload_limit()` when None. Raises ValueError for what is empty, too large or broken, with line and column.
    """
    name = Path(name or (source.name if isinstance(source, Path) else "")).name
    try:
        data = _bytes(source, files.upload_limit() if limit is None else limit)
        if data.startswith(b"PAR1"):
            return _parquet(data, name)
        text = files.text_of(data)
        return _table(text.text, name, text.notes)
    except RecursionError:
        raise ValueError(_said(name, "Lists or objects are nested too deeply in it.")) from None
    except ValueError as error:
        raise ValueError(_said(name, str(error))) from None


def _said(name: str, sentence: str) -> str:
    return f"{name}: {sentence}" if name and not sentence.startswith(name) else sentence


def _bytes(source: Path | bytes | str, limit: int) -> bytes:
    if isinstance(source, Path):
        if not source.is_file():
            raise ValueError(f"There is no file called {source.name!r} here.")
        files.check_size(source.stat().st_size, limit)
        return source.read_bytes()
    if isinstance(source, str):
        try:
            source = source.encode("utf-8")
        except UnicodeEncodeError as error:
            raise ValueError(
                f"Character {error.start + 1:,} of the text is half of a pair: delete it and try again."
            ) from None
    files.check_size(len(source), limit)
    return source


def _table(text: str, name: str, notes: tuple[str, ...]) -> Table:
    """What the text's first character and the file's ending say it is."""
    ending = Path(name).suffix.lower()
    start = len(text) - len(text.lstrip())
    if ending in JSON_ENDINGS or JSON_START.match(text, start):
        if text[start] not in "[{":
            raise ValueError(_where(text, start, "a row begins with { and a list of rows with ["))
        try:
            return _json_table(text, name, notes)
        except ValueError:
            if ending not in TEXT_ENDINGS:
                raise
    if ending in (".csv", ".tsv"):
        return _csv_table(text, name, "\t" if ending == ".tsv" else _delimiter(text) or ",", notes)
    delimiter = _delimiter(text) if ending != ".md" else ""
    if delimiter and _is_surely_a_table(text, delimiter):
        return _csv_table(text, name, delimiter, notes)
    documents = [part.strip("\n") for part in text.split(SEPARATOR) if part.strip()]
    if not documents:
        raise ValueError("There is no text in it, only separators.")
    return _finished(name, "text", [(i, {"text": part}) for i, part in enumerate(documents, 1)], [], [*notes])


def _finished(
    name: str,
    form: str,
    rows: Iterable[tuple[int, dict[str, Any]]],
    unread: list[tuple[int, str]],
    notes: list[str],
) -> Table:
    """The table of numbered rows. Raises ValueError when there are too many, or none could be read."""
    rows = list(rows)
    if len(rows) + len(unread) > MOST_ROWS:
        raise ValueError(
            f"It has {len(rows) + len(unread):,} rows; at most {MOST_ROWS:,} are taken here: cut it into smaller files."
        )
    if not rows:
        number, reason = unread[0] if unread else (0, "")
        raise ValueError(
            f"No row of it can be read. Row {number}: {reason}." if number else "It has no rows."
        )
    columns = tuple(dict.fromkeys(column for _, row in rows for column in row))
    if len(columns) > MOST_COLUMNS:
        raise ValueError(f"It has {len(columns):,} columns; at most {MOST_COLUMNS:,} are taken here.")
    return Table(
        name, form, columns, [row for _, row in rows], [n for n, _ in rows], sorted(unread), tuple(notes)
    )


# --- JSON


def _json_table(text: str, name: str, notes: tuple[str, ...]) -> Table:
    try:
        value = _value(text)
    except json.JSONDecodeError as error:
        if lines := _lines(text):
            return _finished(name, "JSON lines", *lines, [*notes])
        raise ValueError(_where(text, error.pos, _reason(error))) from None
    if isinstance(value, dict):
        value, more = _rows_in(value)
        notes = (*notes, *more)
    if value and all(isinstance(item, str) for item in value):
        value = [{"text": item} for item in value]
    rows, unread = [], []
    for number, item in enumerate(value, 1):
        try:
            rows.append((number, _row(item)))
        except ValueError as error:
            unread.append((number, str(error)))
    return _finished(name, "JSON", rows, unread, [*notes])


def _value(text: str) -> Any:
    """A JSON value; numbers stay texts, NaN is null, and what an object says twice is remembered under DOUBLED."""
    return json.loads(
        text, object_pairs_hook=_object, parse_int=str, parse_float=str, parse_constant=MISSING.get
    )


def _object(pairs: list[tuple[str, Any]]) -> dict[Any, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        found[DOUBLED] = next(name for name in names if names.count(name) > 1)
    return found


def _lines(text: str) -> tuple[list[tuple[int, dict[str, Any]]], list[tuple[int, str]]] | None:
    """Rows and broken rows of JSON lines; None when fewer than half of the lines are objects: then it is something else.

    Lines end at line feeds only: a text may hold U+2028 and other characters that str.splitlines() cuts at.
    """
    rows: list[tuple[int, dict[str, Any]]] = []
    unread: list[tuple[int, str]] = []
    filled = [(at, line) for at, line in enumerate(text.split("\n"), 1) if line.strip()]
    objects = 0
    for number, (at, line) in enumerate(filled, 1):
        try:
            value = _value(line)
            objects += isinstance(value, dict)
            rows.append((number, _row(value)))
        except json.JSONDecodeError as error:
            unread.append(
                (number, f"line {at}, column {error.colno}: {_reason(error)}{_excerpt(line, error.pos)}")
            )
        except ValueError as error:
            unread.append((number, f"line {at}: {error}"))
    return (rows, unread) if objects * 2 >= len(filled) else None


def _rows_in(value: dict[Any, Any]) -> tuple[list[Any], list[str]]:
    """The one list of rows in an object, else the object as the only row; and a note where something is left out."""
    lists = {name: item for name, item in value.items() if isinstance(item, list) and _is_rows(item)}
    if len(lists) == 1 and DOUBLED not in value:
        name, found = next(iter(lists.items()))
        others = _listed(other for other in value if other != name)
        return found, [f"The rows are those of {name!r}; left out: {others}."] if others else []
    if lists:
        raise ValueError(
            f"It has several lists of rows ({_listed(lists)}): save one of them as a file of its own."
        )
    parts = list(value.values())
    if len(parts) > 1 and all(isinstance(item, (list, dict)) and not _is_messages(item) for item in parts):
        raise ValueError(
            f"It has a list or object for each column ({_listed(value)}): save it as a list of rows, [{{...}}, {{...}}] "
            "(pandas: orient='records')."
        )
    return [value], [
        "It is one object, so it was read as one row; several rows stand in a list: [{...}, {...}]."
    ]


def _is_rows(items: list[Any]) -> bool:
    """Whether a list is one of rows: objects that are no chat messages."""
    return bool(items) and all(isinstance(item, dict) for item in items) and not _is_messages(items)


def _is_messages(items: Any) -> bool:
    """Whether it is a chat message or a list of them."""
    messages = items if isinstance(items, list) else [items]
    return bool(messages) and all(isinstance(m, dict) and ("role" in m or "from" in m) for m in messages)


def _row(item: Any) -> dict[str, Any]:
    """A row's values, tidied. Raises ValueError with the reason when it is no row."""
    if not isinstance(item, dict):
        raise ValueError(f"it is {_kind(item)}, not an object with named values")
    if not item:
        raise ValueError("it is an object without values")
    doubled: list[str] = []
    found = _tidy(item, doubled, DEEPEST)
    if doubled:
        raise ValueError(f"the name {doubled[0]!r} stands in it twice: which value counts?")
    return found


def _tidy(value: Any, doubled: list[str], levels: int) -> Any:
    """true and false as texts; DOUBLED moved from the objects into the list `doubled`."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (dict, list)) and not levels:
        raise ValueError(f"lists or objects are nested more than {DEEPEST} levels deep in it")
    if isinstance(value, list):
        return [_tidy(item, doubled, levels - 1) for item in value]
    if isinstance(value, dict):
        if DOUBLED in value:
            doubled.append(value.pop(DOUBLED))
        return {name: _tidy(item, doubled, levels - 1) for name, item in value.items()}
    return value


def _kind(value: Any) -> str:
    names = {
        str: "a text or number",
        list: "a list",
        dict: "an object",
        type(None): "null",
        bool: "true or false",
    }
    return names.get(type(value), f"a {type(value).__name__}")


def _reason(error: json.JSONDecodeError) -> str:
    if error.pos >= len(error.doc.rstrip()):
        return "it ends before everything that was opened is closed"
    return next((said for start, said in BROKEN.items() if error.msg.startswith(start)), error.msg)


def _where(text: str, position: int, reason: str) -> str:
    """A sentence with line, column and the text around the place."""
    line = text.count("\n", 0, position) + 1
    start = text.rfind("\n", 0, position) + 1
    end = text.find("\n", position)
    shown = _excerpt(text[start : end if end >= 0 else None], position - start)
    return f"The JSON breaks at line {line}, column {position - start + 1}: {reason}{shown}."


def _excerpt(line: str, at: int) -> str:
    shown = line[max(at - 25, 0) : at + 25].strip()
    return f" (near: {shown})" if shown else ""


def _listed(names: Iterable[Any], most: int = 8) -> str:
    """Names with commas; the rest only counted."""
    names = [str(name)[:40] for name in names if name is not DOUBLED]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


# --- tables of text: CSV and TSV


def _delimiter(text: str) -> str:
    """What separates cells: the character that cuts the most first records into as many cells as the first; "" for none."""
    scores = {}
    for delimiter in DELIMITERS:
        widths = [len(record) for record in _sample(text, delimiter)]
        alike = sum(width == widths[0] for width in widths)
        scores[delimiter] = (alike / len(widths), widths[0]) if widths and widths[0] > 1 else (0, 0)
    found = max(scores, key=scores.get)
    return found if scores[found][0] else ""


def _sample(text: str, delimiter: str) -> list[list[str]]:
    """The first records; fewer when the quotation marks go wrong."""
    found: list[list[str]] = []
    try:
        for record in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter):
            if record:
                found.append(record)
            if len(found) == SAMPLE:
                break
    except csv.Error:
        pass
    return found


def _is_surely_a_table(text: str, delimiter: str) -> bool:
    """Whether a text whose name says nothing is a table: equal widths, and short column names or tabs."""
    records = _sample(text, delimiter)
    alike = len(records) > 1 and all(len(record) == len(records[0]) for record in records)
    names = re.compile(r"[\w .-]{1,30}")
    return alike and (
        delimiter == "\t" or (_has_header(records) and all(names.fullmatch(cell) for cell in records[0]))
    )


def _has_header(records: list[list[str]]) -> bool:
    """Whether the first record names the columns: short, different cells, no numbers, none again in its own column."""
    first = [cell.strip() for cell in records[0]]
    filled = [cell for cell in first if cell]
    return bool(filled) and not any(
        len(cell) > 40
        or re.fullmatch(r"[-+]?[\d.]+", cell)
        or any(cell in record[i : i + 1] for record in records[1:])
        for i, cell in enumerate(first)
        if cell
    )


def _csv_table(text: str, name: str, delimiter: str, notes: tuple[str, ...]) -> Table:
    form = "TSV" if delimiter == "\t" else "CSV"
    notes = list(notes)
    records, unread = _records(text, delimiter, csv.QUOTE_MINIMAL)
    if unread and form == "TSV":  # many such files have no quoting at all
        records, unread = _records(text, delimiter, csv.QUOTE_NONE)
        notes.append(
            "Quotation marks were taken as they stand: they do not pair up as those around cells do."
        )
    if not records:
        raise ValueError(f"No line of it can be read. {unread[0][1]}." if unread else "It has no rows.")
    if delimiter not in ",\t":
        notes.append(f"Its cells are separated by {delimiter!r}.")
    (header_number, header), rows = records[0], records[1:]
    if _has_header([record for _, record in records]):
        names = _names(header, notes)
        rows = [(number - header_number, record) for number, record in rows]
        unread = [(number - header_number, reason) for number, reason in unread]
        if not rows and not unread:
            raise ValueError(f"It has column names ({_listed(names)}) but no rows.")
    else:
        names, rows = [f"column {i}" for i in range(1, len(header) + 1)], records
        notes.append("Its first line does not look like column names, so it was read as a row.")
    kept = []
    for number, record in rows:
        if len(record) > len(names) and any(cell.strip() for cell in record[len(names) :]):
            unread.append((
                number, f"it has {len(record)} cells, {len(names)} are expected: put a cell that holds "
                f"{'a tab' if form == 'TSV' else repr(delimiter)} between quotation marks",
            ))  # fmt: skip
        else:
            kept.append((number, dict(zip(names, record))))
    return _finished(name, form, kept, unread, notes)


def _names(header: list[str], notes: list[str]) -> list[str]:
    """Column names, each different."""
    names: list[str] = []
    for i, cell in enumerate(header, 1):
        wanted = name = cell.strip() or f"column {i}"
        while name in names:
            name = f"{wanted} ({names.count(wanted) + sum(other.startswith(f'{wanted} (') for other in names) + 1})"
        if name != wanted:
            notes.append(
                f"The column name {wanted!r} stands there twice; the later column is called {name!r}."
            )
        names.append(name)
    return names


def _records(
    text: str, delimiter: str, quoting: int
) -> tuple[list[tuple[int, list[str]]], list[tuple[int, str]]]:
    """Numbered records and numbered reasons. Raises ValueError when a quotation mark swallows the rest of the file."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting, strict=True)
    records: list[tuple[int, list[str]]] = []
    unread: list[tuple[int, str]] = []
    number = 0
    while True:
        line = reader.line_num + 1
        try:
            record = next(reader)
        except StopIteration:
            return records, unread
        except csv.Error as error:
            number += 1
            swallowed = "end of data" in str(error) or "field larger" in str(error)
            if swallowed and delimiter != "\t":
                raise ValueError(
                    f"A quotation mark opened in the row that begins on line {line} is not closed"
                    f"{' within 131,072 characters' if 'field larger' in str(error) else ''}: close it, or write it twice "
                    "when it belongs to the text."
                ) from None
            unread.append((
                number, f"line {line}: a quotation mark ends a cell too early; inside a cell it is written twice",
            ))  # fmt: skip
            continue
        if any(cell.strip() for cell in record):
            number += 1
            records.append((number, record))


# --- Parquet


def _parquet(data: bytes, name: str) -> Table:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise ValueError(
            "Reading Parquet needs the package pyarrow, which is not installed here: pip install pyarrow, or save the "
            "table as JSON lines or CSV."
        ) from None
    try:
        file = parquet.ParquetFile(io.BytesIO(data))
        about = file.metadata
        if about.num_rows > MOST_ROWS or about.num_columns > MOST_COLUMNS:
            raise ValueError(
                f"It has {about.num_rows:,} rows and {about.num_columns:,} columns; at most {MOST_ROWS:,} and "
                f"{MOST_COLUMNS:,} are taken here."
            )
        files.check_size(
            sum(about.row_group(i).total_byte_size for i in range(about.num_row_groups)),
            files.upload_limit() * 10,
        )
        found = [row for batch in file.iter_batches(1000) for row in batch.to_pylist()]
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"The Parquet file is damaged: {str(error).splitlines()[0][:200]}.") from None
    rows, unread = [], []
    for number, row in enumerate(found, 1):
        try:
            rows.append((number, _row({column: _cell(value) for column, value in row.items()})))
        except ValueError as error:
            unread.append((number, str(error)))
    return _finished(name, "Parquet", rows, unread, [])


def _cell(value: Any) -> Any:
    """A value of a Parquet table as JSON would have it; times and the like become their text, bytes stay bytes."""
    if isinstance(value, float):
        return None if math.isnan(value) else str(int(value)) if value.is_integer() else repr(value)
    if isinstance(value, list):
        return [_cell(item) for item in value]
    if isinstance(value, dict):
        return {str(name): _cell(item) for name, item in value.items()}
    return value if value is None or isinstance(value, (str, bool, bytes)) else str(value)
