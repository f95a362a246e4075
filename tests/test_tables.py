"""Reading rows of any form: the same rows from each, and what cannot be read said with its line."""

from __future__ import annotations

import csv
import io
import json
import random
import re
import sys

import pytest

from llm import tables

ROWS = [
    {"instruction": "Add, please", "input": "", "output": 'He said "4"'},
    {"instruction": "Two\nlines", "input": "a\tb", "output": "größer 日本 🙂"},
    {"instruction": "Last", "input": "none; really", "output": "x|y"},
]
NAMES = tuple(ROWS[0])


def as_csv(rows: list[dict[str, str]], delimiter: str = ",") -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


FORMS = {
    "JSON": json.dumps(ROWS),
    "JSON, as people see it": json.dumps(ROWS, ensure_ascii=False, indent=2),
    "JSON, in an object": json.dumps({"version": 1, "data": ROWS}),
    "JSON lines": "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS) + "\n",
    "JSON lines with blank lines": "\n\n".join(json.dumps(row) for row in ROWS),
    "CSV": as_csv(ROWS),
    "TSV": as_csv(ROWS, "\t"),
    "CSV with semicolons": as_csv(ROWS, ";"),
}


# One content, many forms ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["", "rows.json", "rows.jsonl", "rows.txt"])
def test_the_content_decides_not_the_ending(form, name):
    if name.startswith("rows.json") and not form.startswith("JSON"):
        with pytest.raises(ValueError, match=r"rows\.jsonl?: The JSON breaks at line 1, column 1"):
            tables.read(FORMS[form], name)
        return
    table = tables.read(FORMS[form], name)
    assert table.rows == ROWS and table.columns == NAMES and table.numbers == [1, 2, 3] and table.unread == []
    assert form.startswith(table.form)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_every_encoding_gives_the_same_rows(form, codec, tmp_path):
    file = tmp_path / "rows.txt"
    file.write_bytes(FORMS[form].encode(codec))
    table = tables.read(file)
    assert table.rows == ROWS and table.columns == NAMES
    assert not any("\ufeff" in text for row in table.rows for text in (*row, *row.values()))


def test_a_mark_at_the_start_is_said():
    assert "byte order mark" in " ".join(tables.read(FORMS["CSV"].encode("utf-8-sig")).notes)
    assert "UTF-16" in " ".join(tables.read(FORMS["CSV"].encode("utf-16")).notes)


def test_parquet_gives_the_same_rows(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    file = tmp_path / "rows.parquet"
    columns = {name: [row[name] for row in ROWS] for name in NAMES}
    columns |= {"n": [1.5, None, 3.0], "turns": [[{"role": "user"}], [], None], "ok": [True, None, False]}
    parquet.write_table(pyarrow.table(columns), file)
    table = tables.read(file)
    assert (table.form, table.columns) == ("Parquet", (*NAMES, "n", "turns", "ok"))
    assert [{name: row[name] for name in NAMES} for row in table.rows] == ROWS
    assert [row["n"] for row in table.rows] == ["1.5", None, "3"]
    assert [row["turns"] for row in table.rows] == [[{"role": "user"}], [], None]
    assert [row["ok"] for row in table.rows] == ["true", None, "false"]
    with pytest.raises(ValueError, match="The Parquet file is damaged"):
        tables.read(file.read_bytes()[:-9], "rows.parquet")


def test_parquet_without_its_package_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match=r"^rows\.parquet: .*pyarrow.*pip install pyarrow"):
        tables.read(b"PAR1 and so on", "rows.parquet")


def test_random_tables_survive_csv_and_json():
    """Whatever the cells hold (quotes, delimiters, line ends, blanks), the reader gives what the writer was given."""
    rng = random.Random(4)
    for _ in range(150):
        width = rng.randint(2, 4)
        rows = [
            {f"name{i}": "".join(rng.choices('ab ",\n;\t|é0', k=rng.randint(0, 9))) for i in range(width)}
            for _ in range(rng.randint(2, 6))
        ]
        rows = [{**row, "name0": f"x{row['name0']}x"} for row in rows]  # a row of blanks is no row
        for delimiter, name in ((",", "t.csv"), ("\t", "t.tsv")):
            assert tables.read(as_csv(rows, delimiter), name).rows == rows
        assert tables.read(json.dumps(rows), "t.json").rows == rows
        assert tables.read("\n".join(map(json.dumps, rows)), "t.jsonl").rows == rows


# Values -------------------------------------------------------------------------------------------------------------------


def test_values_keep_their_text():
    (row,) = tables.read('[{"a": 1.50, "b": 007e1, "c": null, "d": true, "e": NaN, "f": [1], "g": {"h": false}}]'.replace("007e1", "7e1")).rows  # fmt: skip
    assert row == {
        "a": "1.50", "b": "7e1", "c": None, "d": "true", "e": None, "f": ["1"], "g": {"h": "false"}
    }  # fmt: skip
    table = tables.read("text,label\nNA,007\nnan,1.50\n,null\n", "t.csv")
    assert [(row["text"], row["label"]) for row in table.rows] == [
        ("NA", "007"),
        ("nan", "1.50"),
        ("", "null"),
    ]


def test_columns_come_in_the_order_of_their_first_row():
    table = tables.read('[{"b": "1"}, {"a": "2", "b": "3"}, {"c": "4"}]')
    assert table.columns == ("b", "a", "c") and table.rows[0] == {"b": "1"}


def test_plain_text_is_documents():
    table = tables.read("Once upon a time.\nIt rained.\n<|endoftext|>\nThen, well, it stopped.\n", "tale.txt")
    assert table.form == "text"
    assert [row["text"] for row in table.rows] == ["Once upon a time.\nIt rained.", "Then, well, it stopped."]


def test_a_pasted_path_is_a_text_not_a_file(tmp_path):
    secret = tmp_path / "secret.json"
    secret.write_text('[{"a": "b"}]')
    assert tables.read(str(secret)).rows == [{"text": str(secret)}]
    assert tables.read("https://example.org/rows.json").form == "text"


def test_separators_that_are_no_line_ends_stay_in_the_text():
    text = "a\u2028b\x0bc\u0085d"
    table = tables.read(f'{{"t": "{text}"}}\n{{"t": "e"}}'.replace("\x0b", "\\u000b"))
    assert [row["t"] for row in table.rows] == [text, "e"]


def test_one_object_and_lists_of_texts():
    table = tables.read('{"text": "alone", "label": "x"}')
    assert table.rows == [{"text": "alone", "label": "x"}] and "one object" in table.notes[0]
    assert tables.read('["first", "second"]').rows == [{"text": "first"}, {"text": "second"}]
    chat = '{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]}'
    assert len(tables.read(chat).rows) == 1  # a conversation is no list of rows
    table = tables.read('{"about": "x", "rows": [{"a": "1"}]}')
    assert table.rows == [{"a": "1"}] and "left out: about" in table.notes[0]


# What cannot be read --------------------------------------------------------------------------------------------------------


def test_a_broken_array_says_line_and_column():
    text = '[\n  {"a": "1", "b": "2"},\n  {"a": "1" "b": "2"}\n]'
    with pytest.raises(ValueError) as said:
        tables.read(text, "mine.json")
    assert str(said.value).startswith("mine.json: The JSON breaks at line 3, column 13: a comma")
    assert 'near: {"a": "1" "b": "2"}' in str(said.value)


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ('[{"a": "1"},\n{"a": "2"},\n]', 3, "a comma"),
        ('[{"a": "1"},\n\n{\'a\': "2"}]', 3, "double quotes"),
        ('[{"a": "1"},\n{"b": "open\n}]', 2, "quotation mark|line end"),
        ('[{"a": "1"},\n{"a": "2"', 2, "it ends before"),
        ('[{"a": "1"}]\n[{"a": "2"}]', 2, "more follows"),
        ('[{"a":\n"1\tx"}]', 2, "tab stands inside"),
        ('[{"a": "\\q"}]', 1, "backslash"),
        ('[{"a" "1"}]', 1, "colon is missing"),
        ('[{"a": yes}]', 1, "value is missing"),
    ],
)
def test_each_break_is_told_in_words(text, line, said):
    with pytest.raises(ValueError, match=rf"breaks at line {line}, column \d+: .*({said})"):
        tables.read(text, "x.json")


def test_a_broken_line_costs_only_its_row():
    lines = ['{"a": "1"}', '{"a": "2"}', '{"a": "3"', '{"a": "4"}', '"text"', "{}", '{"a": "7"}']
    table = tables.read("\n".join(lines), "x.jsonl")
    assert [row["a"] for row in table.rows] == ["1", "2", "4", "7"]
    assert table.numbers == [1, 2, 4, 7]
    reasons = dict(table.unread)
    assert set(reasons) == {3, 5, 6}
    assert (
        reasons[3].startswith("line 3, column") and "not an object" in reasons[5] and "without" in reasons[6]
    )


def test_blank_lines_count_for_the_line_but_not_for_the_row():
    table = tables.read('{"a": "1"}\n\n\n{"a" "2"}\n{"a": "3"}')
    assert table.numbers == [1, 3] and table.unread[0][0] == 2 and "line 4" in table.unread[0][1]


def test_a_name_twice_in_an_object_is_no_silent_choice():
    for text in ('[{"a": "1", "a": "2"}, {"a": "3"}]', '{"a": "1", "a": "2"}\n{"a": "3"}\n'):
        table = tables.read(text)
        assert table.numbers == [2] and "'a' stands in it twice" in table.unread[0][1]


def test_a_column_name_twice_in_a_header_is_said():
    table = tables.read("text,label,text\na,b,c\nd,e,f\n", "t.csv")
    assert table.columns == ("text", "label", "text (2)")
    assert "stands there twice" in table.notes[0] and table.rows[0]["text (2)"] == "c"


def test_too_many_and_too_few_cells():
    table = tables.read("text,label\na,b\nc,d,e\nf\ng,h,\n", "t.csv")
    assert table.rows == [{"text": "a", "label": "b"}, {"text": "f"}, {"text": "g", "label": "h"}]
    assert table.numbers == [1, 3, 4]
    assert table.unread[0][0] == 2 and "3 cells, 2 are expected" in table.unread[0][1]


def test_a_quotation_mark_that_is_never_closed_is_said_with_its_line():
    with pytest.raises(ValueError, match="begins on line 3 is not closed"):
        tables.read('text,label\na,b\n"c,d\ne,f\n', "t.csv")


def test_tsv_without_quoting_is_read_as_it_stands():
    table = tables.read('text\tlabel\n"inch" is a word\tx\nan "open one\tz\n', "t.tsv")
    assert [row["text"] for row in table.rows] == ['"inch" is a word', 'an "open one']
    assert any("Quotation marks" in note for note in table.notes)


def test_a_table_without_a_header_keeps_its_first_row():
    table = tables.read("ham,Good morning to all of you my friends\nspam,Win now\nham,See you\n", "t.csv")
    assert len(table.rows) == 3 and table.columns == ("column 1", "column 2")
    assert any("does not look like column names" in note for note in table.notes)


def test_half_a_character_in_a_paste_is_said_where():
    with pytest.raises(ValueError, match="Character 3 of the text is half of a pair"):
        tables.read("ab\ud83dcd")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty"), (b" \n\t\n", "no text"), (b"[]", "no rows"), (b"{}", r"No row of it|without values"), (b"a,b\n", "but no rows"),
        (b"[null, 3, []]", "No row of it can be read. Row 1: it is null"), (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "looks like"),
        (b"<|endoftext|>\n<|endoftext|>", "only separators"),
        (b'{"a": [{"x": 1}], "b": [{"x": 2}]}', "several lists of rows"), (b'{"text": ["a"], "label": ["b"]}', "for each column"),
    ],
)  # fmt: skip
def test_what_is_no_table_is_refused_in_words(data, said):
    name = "t.csv" if data.startswith(b"a,b") else "t.json" if b"null" in data else "t"
    with pytest.raises(ValueError, match=said):
        tables.read(data, name)


def test_limits_are_said_before_they_bite(tmp_path, monkeypatch):
    file = tmp_path / "big.json"
    file.write_text("[" + '{"a": "1"},' * 2000 + '{"a": "1"}]')
    with pytest.raises(ValueError, match=r"^big\.json: The text has 0\.0 MB"):
        tables.read(file, limit=1000)
    monkeypatch.setattr(tables, "MOST_ROWS", 100)
    with pytest.raises(ValueError, match=r"It has 2,001 rows; at most 100"):
        tables.read(file)
    monkeypatch.setattr(tables, "MOST_COLUMNS", 3)
    with pytest.raises(ValueError, match="It has 4 columns; at most 3"):
        tables.read('[{"a": "", "b": "", "c": "", "d": ""}]')
    with pytest.raises(ValueError, match=r"There is no file called 'gone\.json'"):
        tables.read(tmp_path / "gone.json")


def test_deep_nesting_ends_in_a_sentence():
    deep = '{"a": ' * 40 + "1" + "}" * 40
    table = tables.read(f'[{deep}, {{"a": "fine"}}]')
    assert table.numbers == [2] and "nested more than 16" in table.unread[0][1]
    with pytest.raises(ValueError):
        tables.read('[{"a":' + "[" * 100_000 + "]" * 100_000 + "}]", "bomb.json")


def test_any_bytes_give_a_table_or_a_sentence():
    """Good files with a byte changed, cut or doubled: never another exception, never an empty table."""
    rng = random.Random(8)
    read = 0
    for _ in range(600):
        data = bytearray(rng.choice(list(FORMS.values())).encode(rng.choice(["utf-8", "utf-16"])))
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(data))
            if rng.random() < 0.4:
                data[at] = rng.randrange(256)
            elif rng.random() < 0.5:
                del data[at : at + rng.randint(1, 30)]
            else:
                data[at:at] = data[at : at + rng.randint(1, 30)]
        try:
            table = tables.read(bytes(data), rng.choice(["", "a.json", "a.csv", "a.txt"]))
        except ValueError as error:
            assert re.fullmatch(r"(a\.\w+: )?[A-Z\d].*\.", str(error), re.DOTALL), error
        else:
            read += 1
            assert table.rows and len(table.rows) == len(table.numbers)
            numbers = [*table.numbers, *(number for number, _ in table.unread)]
            assert len(numbers) == len(set(numbers))
            assert all(set(row) <= set(table.columns) for row in table.rows)
    assert 100 < read < 590
