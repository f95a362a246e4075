"""Rows as training takes them: kinds and columns, every bad row with its reason, repeats, splits, and what is kept."""

from __future__ import annotations

import json
import random

import pytest

from llm import corpora, duplicates, paths, rows


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("LLM_HOME", str(tmp_path))


def checked(found: list, kind: str = "", columns: dict[str, str] | None = None) -> rows.Checked:
    return rows.check(rows.read(json.dumps(found)), kind, columns)


def reason(found: dict, kind: str = "") -> str:
    """Why a row is refused; a good row of the same columns stands before it, so that the kind is known."""
    result = checked([found], kind or rows.kind_of(rows.read(json.dumps([found]))))
    assert not result.good and result.problems
    return result.rejected[0][1]


def chat(*said: str) -> list[dict[str, str]]:
    """Messages of user and assistant in turn."""
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(said)]


# Kinds and columns ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "kind", "found"),
    [
        ("instruction input output", "instruction", "instruction input output"),
        ("Prompt Completion", "instruction", "instruction:Prompt output:Completion"),
        ("question context answer id", "instruction", "instruction:question input:context output:answer"),
        ("system prompt response", "instruction", "instruction:prompt system output:response"),
        ("prompt chosen rejected", "preference", "prompt chosen rejected"),
        ("instruction output chosen rejected", "preference", "prompt:instruction chosen rejected"),
        ("text label", "classification", "text label"),
        ("Label Text", "classification", "text:Text label:Label"),
        ("message category split", "classification", "text:message label:category split"),
        ("text", "text", "text"),
        ("content source", "text", "text:content"),
        ("a b", "", ""),
    ],
)
def test_kinds_are_recognised_by_their_columns(columns, kind, found):
    table = rows.read(json.dumps([dict.fromkeys(columns.split(), "some text")]))
    assert rows.kind_of(table) == kind
    if kind:
        want = dict((part.split(":") * 2)[:2] for part in found.split())
        assert rows.guess(table, kind) == want


def test_conversations_are_told_by_their_messages():
    assert checked([{"messages": chat("a", "b")}]).kind == "conversation"
    assert checked([{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}]).good == [
        {"row": 1, "messages": chat("a", "b")}
    ]  # fmt: skip
    assert rows.kind_of(rows.read('[{"messages": "only a text"}]')) == ""


def test_columns_can_be_mapped_by_hand():
    found = [{"q": "Two and two?", "a": "Four.", "text": "x"}]
    columns = {"instruction": "q", "output": "a"}
    (row,) = checked(found, "instruction", columns).good
    assert row == {"row": 1, "instruction": "Two and two?", "input": "", "output": "Four.", "history": []}
    guessed = [{"prompt": "P", "input": "I", "output": "O"}]
    assert checked(guessed, "instruction", {"input": ""}).good[0]["input"] == ""
    assert checked(guessed, "instruction", {"output": "input"}).good[0]["output"] == "I"


def test_what_cannot_be_mapped_is_said():
    found = [{"a": "1", "b": "2"}]
    for kind, columns, said in (
        ("", None, "no known kind: a, b"),
        ("poem", None, "no kind of rows called 'poem'"),
        ("instruction", None, "No column was found for instruction and output"),
        ("instruction", {"instruction": "c"}, "no column 'c'; there are: a, b"),
        ("instruction", {"label": "a"}, "have no field 'label'"),
        ("classification", {"text": "a"}, "found for label"),
    ):
        with pytest.raises(ValueError, match=said):
            checked(found, kind, columns)


# Good rows, and what is left out ------------------------------------------------------------------------------------------


def test_an_input_that_is_absent_empty_or_null_is_the_same():
    base = {"instruction": "Name a tree.", "output": "An oak."}
    variants = [base, base | {"input": ""}, base | {"input": None}, base | {"input": " \n"}, base | {"input": float("nan")},
                base | {"input": "None"}, base | {"input": "leaves", "source": "x", "tags": ["y"]}]  # fmt: skip
    result = checked(variants)
    assert not result.rejected
    assert [row["input"] for row in result.good] == [""] * 6 + ["leaves"]
    assert len({json.dumps({**row, "row": 0}) for row in result.good[:6]}) == 1
    assert "Columns not used: source, tags." in result.notes
    assert any(note.startswith("The input is null in 3 rows") for note in result.notes)


def test_texts_stay_as_they_are():
    said = "  Ends with blanks \n\n\tand É🙂 "
    (row,) = checked([{"instruction": said, "output": said, "input": said}]).good
    assert row["instruction"] == row["output"] == row["input"] == said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"output": None}, "output is missing"), ({"output": ""}, "output is empty"), ({"output": " \n "}, "output is empty, only blanks"),
        ({"instruction": ""}, "instruction is empty"), ({"instruction": float("nan")}, "instruction is missing"), ({"output": "NaN"}, "output is missing (NaN)"),
        ({"output": ["a"]}, "output is a list, not a text"), ({"output": {"a": "b"}}, "output is an object, not a text"),
        ({"instruction": "ab\ud800cd"}, "half of a character pair (U+D800)"), ({"output": "\udfff"}, "U+DFFF"), ({"input": "x\ud83d"}, "input holds half"),
    ],
)  # fmt: skip
def test_a_bad_instruction_row_is_named(change, said):
    good = {"instruction": "Say a.", "input": "", "output": "a"}
    result = checked([good, good | change, good])
    assert [row["row"] for row in result.good] == [1, 3] and result.problems == []
    ((number, why),) = result.rejected
    assert number == 2 and said in why


def test_a_key_that_is_not_there_is_missing():
    result = checked([{"instruction": "Say a.", "output": "a"}, {"instruction": "Say b."}])
    assert result.rejected == [(2, "output is missing")]


def test_an_answer_none_is_an_answer():
    assert checked([{"instruction": "How many are left?", "output": "None"}]).good[0]["output"] == "None"


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([{"role": "narrator", "content": "x"}], "message 1 of messages has the role 'narrator': known are system, user and assistant"),
        ([{"content": "x"}], "message 1 of messages has no role"),
        ([*chat("a", "b"), {"role": 7, "content": "x"}], "message 3 of messages has the role"),
        (chat("a"), "ends with a message of the user: there is no answer"),
        (chat("a", ""), "message 2 of messages is empty"),
        ([{"role": "user", "content": None}, chat("a", "b")[1]], "message 1 of messages is missing"),
        (chat("a", "b")[1:], "message 1 of messages is by the assistant where one of the user is expected"),
        ([chat("a")[0], *chat("b", "c")], "message 2 of messages is by the user where one of the assistant is expected"),
        ([*chat("a", "b"), {"role": "system", "content": "x"}], "message 3 of messages is by the system"),
        ([], "messages is empty"), ([["user", "x"]], "message 1 of messages is a list"), ("[{oops", "no list of messages"), (None, "messages is missing"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": "u"}]}, chat("a", "b")[1]], "something else than text"),
    ],
)  # fmt: skip
def test_a_bad_conversation_is_named(messages, said):
    result = checked([{"messages": chat("a", "b")}, {"messages": messages}], "conversation")
    assert [row["row"] for row in result.good] == [1]
    assert result.rejected[0][0] == 2 and said in result.rejected[0][1]


def test_roles_and_forms_of_messages():
    forms = [
        [{"role": "Human", "content": "a"}, {"role": "GPT", "content": "b"}],
        [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}],
        json.dumps(chat("a", "b")),
        [{"role": "user", "content": [{"type": "text", "text": "a"}]}, {"role": "model", "content": "b"}],
        [{"role": "system", "content": ""}, *chat("a", "b")],
    ]
    result = checked([{"messages": form} for form in forms], "conversation")
    assert [row["messages"] for row in result.good] == [chat("a", "b")] * 5
    (row,) = checked([{"system": "Be brief.", "messages": chat("a", "b")}], "conversation").good
    assert row["messages"] == [{"role": "system", "content": "Be brief."}, *chat("a", "b")]


def test_histories_of_instructions():
    base = {"instruction": "c", "output": "d", "system": "S"}
    (row,) = checked([base | {"history": [["a", "b"]]}], "instruction").good
    assert row["history"] == [{"role": "system", "content": "S"}, *chat("a", "b")]
    (row,) = checked([base | {"history": chat("a", "b"), "system": None}], "instruction").good
    assert row["history"] == chat("a", "b")


# Preferences ----------------------------------------------------------------------------------------------------------------


def test_every_form_of_a_preference_is_the_same_row():
    whole = {"chosen": chat("Q", "good"), "rejected": chat("Q", "bad")}
    forms = [
        {"prompt": "Q", "chosen": "good", "rejected": "bad"},
        {"prompt": chat("Q"), "chosen": "good", "rejected": "bad"},
        {"prompt": "Q", "chosen": chat("x", "good")[1:], "rejected": chat("x", "bad")[1:]},
        {"prompt": "Q", **whole},
        whole,
        {"chosen": "\n\nHuman: Q\n\nAssistant: good", "rejected": "\n\nHuman: Q\n\nAssistant: bad"},
    ]
    for form in forms:
        (row,) = checked([form], "preference").good
        assert row == {"row": 1, "prompt": "Q", "input": "", "chosen": "good", "rejected": "bad", "history": []}  # fmt: skip


def test_earlier_turns_become_history():
    found = {"chosen": chat("a", "b", "Q", "good"), "rejected": chat("a", "b", "Q", "bad"), "system": "S"}
    (row,) = checked([found], "preference").good
    assert row["prompt"] == "Q" and row["history"] == [{"role": "system", "content": "S"}, *chat("a", "b")]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rejected": "good"}, "chosen and rejected are the same answer"),
        ({"rejected": " good\n"}, "chosen and rejected are the same answer"),
        ({"rejected": None}, "rejected is missing"),
        ({"chosen": ""}, "chosen is empty"),
        ({"prompt": None}, "prompt is missing"),
        ({"prompt": "  "}, "prompt is empty, only blanks"),
        ({"chosen": chat("Q", "x", "more", "good"), "rejected": chat("Q", "y", "else", "bad")}, "do not differ in exactly one last message"),
    ],
)  # fmt: skip
def test_a_bad_preference_is_named(change, said):
    good = {"prompt": "Q", "chosen": "good", "rejected": "bad"}
    result = checked([good, good | change])
    assert [row["row"] for row in result.good] == [1] and result.rejected[0][0] == 2
    assert said in result.rejected[0][1]


# Classes ---------------------------------------------------------------------------------------------------------------------


def test_labels_are_sorted_and_keep_their_text():
    result = checked([{"text": f"t{i}", "label": label} for i, label in enumerate([10, 9, 10, "-1 "])])
    assert rows.labels(result.good) == ["-1", "9", "10"]
    result = checked([{"text": f"t{i}", "label": label} for i, label in enumerate([True, False])])
    assert rows.labels(result.good) == ["false", "true"]


def test_labels_of_one_class_cannot_be_trained():
    result = checked([{"text": f"text {i}", "label": "ham"} for i in range(5)])
    assert result.problems == ["All 5 rows have the label 'ham': a classifier needs at least two classes."]


def test_a_column_of_all_different_labels_is_hardly_one():
    result = checked([{"text": f"text {i}", "label": f"number {i}"} for i in range(30)])
    assert "30 different labels in 30 rows" in result.problems[0]


def test_labels_that_look_alike_are_noted():
    labels = ["ham", "Ham", "spam", "spam", "rare"]
    result = checked([{"text": f"text {i}", "label": label} for i, label in enumerate(labels)])
    assert any("'Ham' and 'ham' differ only in case" in note for note in result.notes)
    assert any("Only one row has the label" in note and "rare" in note for note in result.notes)


def test_cells_of_a_csv_are_exact_and_never_nan():
    text = 'text,label\n"Come, now!",x\n"She said ""no"" twice",y\n"one\ntwo",y\nplain,x\n,y\nnan,x\n'
    result = rows.check(rows.read(text, "t.csv"))
    assert [row["text"] for row in result.good] == [
        "Come, now!",
        'She said "no" twice',
        "one\ntwo",
        "plain",
    ]
    assert result.rejected == [(5, "text is empty"), (6, "text is missing (nan)")]


def test_no_good_row_is_a_problem_and_names_the_first():
    result = checked([{"instruction": "a", "output": ""}, {"instruction": "b", "output": None}])
    assert result.problems == ["None of the 2 rows can be used. Row 1: output is empty."]


# Nothing is lost -----------------------------------------------------------------------------------------------------------


def test_every_row_of_the_file_is_good_or_rejected():
    """Random good and bad lines: no number is missing and none stands twice; the download holds what was refused."""
    rng = random.Random(2)
    kinds = [
        '{"instruction": "Say %d.", "output": "yes"}', '{"instruction": "Say %d.", "output": ""}', '{"instruction": "Say %d.", ', "%d",
        '{"instruction": "Say %d.", "output": null}', '{"instruction": "%d", "instruction": "b", "output": "c"}', '{"output": "%d"}',
    ]  # fmt: skip
    for _ in range(40):
        chosen = [0, 0, 0, *(rng.choice([0, 0, 0, 1, 2, 3, 4, 5, 6]) for _ in range(rng.randint(1, 9)))]
        lines = [kinds[k] % i for i, k in enumerate(chosen)]
        if sum(k in (2, 3) for k in chosen) * 2 > len(lines):
            continue
        table = rows.read("\n".join(lines), "x.jsonl")
        result = rows.check(table)
        numbers = [row["row"] for row in result.good] + [number for number, _ in result.rejected]
        assert sorted(numbers) == list(range(1, len(lines) + 1))
        assert [row["row"] for row in result.good] == [i for i, k in enumerate(chosen, 1) if k == 0]
        told = [json.loads(line) for line in rows.rejected_lines(table, result.rejected).splitlines()]
        assert [row["row"] for row in told] == [number for number, _ in result.rejected]
        assert all(row["reason"] for row in told)


def test_the_download_can_hold_half_characters():
    table = rows.read('[{"instruction": "a\\ud800", "output": "b"}]')
    line = rows.rejected_lines(table, rows.check(table).rejected)
    line.encode("ascii")
    assert json.loads(line)["instruction"] == "a\ud800"


# Repeats --------------------------------------------------------------------------------------------------------------------


def test_repeats_by_hand():
    found = [
        ("Name a river.", "The Rhine."),
        ("name a  river.", "the rhine."),
        ("Name a river.", "The Danube."),
        ("Write a long sentence about the sea at night and the ships.", "x"),
        ("Write a long sentence about the sea at night and the ship.", "x"),
        ("Something else entirely", "y"),
    ]
    good = checked([{"instruction": a, "output": b} for a, b in found]).good
    result = rows.repeats(good)
    assert result.exact == [(2, 1)] and result.contradictions == [(3, 1)] and result.compared == 6
    ((late, early, shared),) = result.near
    assert (late, early) == (5, 4) and 0.8 <= shared < 1
    assert [row["row"] for row in rows.without_repeats(good)] == [1, 3, 4, 5, 6]


def test_two_preferences_for_one_prompt_are_no_contradiction():
    found = [{"prompt": "Q", "chosen": "a", "rejected": r} for r in ("b", "c")]
    assert rows.repeats(checked(found).good).contradictions == []


def test_copies_are_counted_and_do_not_leak_once_they_are_gone():
    """A hundred rows of which every fourth is a copy of an earlier one in other letters."""
    found = []
    for i in range(100):
        label = "asking" if i % 3 else "telling"
        found.append({"text": f"message number {i * 7919 % 1000}, {i}", "label": label})
        if i % 4 == 3:
            found[-1] = {k: v.upper() if k == "text" else v for k, v in found[i - 2].items()}
    good = checked(found).good
    assert len(rows.repeats(good).exact) == 25
    share = {"train": 0.7, "validation": 0.1, "test": 0.2}
    raw = rows.split(good, share, 3)
    assert raw.counts == {"train": 70, "validation": 10, "test": 20}
    train = {duplicates.normal(row["text"]) for row in raw.parts["train"]}
    want = {part: sum(duplicates.normal(r["text"]) in train for r in raw.parts[part]) for part in ("validation", "test")}  # fmt: skip
    assert rows.leaks(raw.parts) == want and sum(want.values()) > 0
    clean = rows.split(rows.without_repeats(good), share, 3)
    assert sum(clean.counts.values()) == 75 and not any(rows.leaks(clean.parts).values())


# The split ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 9, 10, 11, 100, 1000])
@pytest.mark.parametrize("shares", [(0.85, 0.05, 0.1), (0.7, 0.1, 0.2), (1, 0, 0), (0.5, 0.25, 0.25)])
def test_a_split_is_a_partition_of_the_right_sizes(n, shares):
    good = [{"row": i, "text": str(i)} for i in range(1, n + 1)]
    fractions = dict(zip(("train", "validation", "test"), shares))
    found = rows.split(good, fractions, 5)
    assert sorted(row["row"] for part in found.parts.values() for row in part) == list(range(1, n + 1))
    assert found.counts["validation"] == int(n * shares[1] + 1e-9) and found.counts["test"] == int(n * shares[2] + 1e-9)  # fmt: skip
    assert all(part == sorted(part, key=lambda row: row["row"]) for part in found.parts.values())
    assert rows.split(good, fractions, 5) == found
    if n == 1000 and shares[0] < 1:
        assert rows.split(good, fractions, 6) != found


def test_ten_rows_have_an_empty_validation_part_and_it_is_said():
    good = checked([{"instruction": f"Say {i}.", "output": str(i)} for i in range(10)]).good
    found = rows.split(good)
    assert found.counts == {"train": 9, "validation": 0, "test": 1}
    assert found.notes == ["The validation part is empty: 5.0% of 10 rows is less than one row."]


@pytest.mark.parametrize("shares", [(0.5, 0.5, 0.5), (0, 0.5, 0.5), (1.2, -0.2, 0), (float("nan"), 0.5, 0.5)])
def test_shares_that_are_no_parts_of_a_whole_are_refused(shares):
    with pytest.raises(ValueError, match="share"):
        rows.split(
            [{"row": 1, "text": "a"}], dict(zip(("train", "validation", "test"), shares))
        )  # fmt: skip
    with pytest.raises(ValueError, match="train, validation and test"):
        rows.split([{"row": 1, "text": "a"}], {"train": 1.0})


def test_a_split_column_is_kept_under_its_common_names():
    names = ["Train", "training", "dev", "VAL", "test", "unseen", "train", None]
    found = [{"text": f"text {i}", "label": "ab"[i % 2], "split": name} for i, name in enumerate(names)]
    result = checked(found)
    assert result.rejected == [(8, "split is empty: it must say train, validation or test")]
    parts = rows.split(result.good).parts
    assert {name: [row["row"] for row in part] for name, part in parts.items()} == {
        "train": [1, 2, 7], "validation": [3, 4], "test": [5], "unseen": [6]
    }  # fmt: skip


def test_a_split_column_that_is_none_is_said_and_one_without_a_part_too():
    base = [{"text": f"text {i}", "label": "ab"[i % 2]} for i in range(8)]
    other = checked([row | {"split": f"fold {i}"} for i, row in enumerate(base)])
    assert len(other.good) == 8 and "split" not in other.good[0]
    assert any("was not taken as a split" in note for note in other.notes)
    only = rows.split(checked([row | {"split": "train"} for row in base]).good)
    assert only.notes == [
        "The split column has no row for validation.",
        "The split column has no row for test.",
    ]


# Keeping ----------------------------------------------------------------------------------------------------------------------


def test_what_is_kept_is_read_again_as_it_was():
    found = [
        {"prompt": "Q", "input": "I\u2028x", "chosen": "good 🙂", "rejected": "bad", "split": "train", "system": "S"},
        {"prompt": "R", "chosen": "good", "rejected": "bad", "split": "test"},
    ]  # fmt: skip
    result = checked(found)
    name = rows.keep(result.good, "my pairs.json")
    again = rows.check(rows.read(corpora.row_path(name)))
    assert again.kind == "preference" and again.good == result.good and name in corpora.row_names()
    for kind, row in (("conversation", {"messages": chat("a", "b")}), ("classification", {"text": "t", "label": "7"}),
                      ("text", {"text": "t"}), ("instruction", {"instruction": "a", "output": "b", "history": [["c", "d"]]})):  # fmt: skip
        good = checked([row], kind).good
        again = rows.check(rows.read(corpora.row_path(rows.keep(good, kind))))
        assert (again.kind, again.good) == (kind, good)


def test_names_are_safe_and_told_apart():
    one, two = ([{"row": 1, "text": text}] for text in ("a", "b"))
    assert rows.keep(one, "mine.csv") == rows.keep(one, "mine") == "mine"
    other = rows.keep(two, "mine")
    assert other.startswith("mine-") and corpora.row_path(other).read_text() == '{"text": "b"}\n'
    assert rows.keep(one, "instructions") != "instructions"  # a shipped name is never shadowed
    for wild in ("../../etc/passwd", "/abs/path.json", "..", "a/b\\c"):
        name = rows.keep(one, wild)
        assert corpora.row_path(name).parent == paths.datasets()
