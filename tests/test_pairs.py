"""Preferences that a person gives: kept, taken away, refused, and read by training as rows of pairs."""

import threading

import pytest

from llm import corpora, pairs, paths, rows

PAIR = dict(prompt="Say hello.", chosen="Hello!", rejected="No.")


def test_a_choice_gives_a_pair_against_each_other_answer():
    found = pairs.of_choice(" Say hello. ", ["Hi", " Hello! ", "No.", "No. ", ""], 1)
    assert found == [PAIR | {"rejected": "Hi"}, PAIR]


@pytest.mark.parametrize(
    ("prompt", "answers", "best", "sentence"),
    [
        ("", ["a", "b"], 0, "no prompt"),
        ("x", ["a", "b"], 2, "1 to 2"),
        ("x", ["", "b"], 0, "Answer 1 is empty"),
        ("x", ["a", " a"], 0, "the same"),
        ("x", ["a", ""], 0, "the others are empty"),
    ],
)
def test_what_is_no_choice_is_said(prompt, answers, best, sentence):
    with pytest.raises(ValueError, match=sentence):
        pairs.of_choice(prompt, answers, best)


def test_pairs_grow_and_are_rows_that_training_reads(home):
    assert pairs.read("mine") == [] and pairs.append("mine", [PAIR]) == 1
    other = PAIR | {"rejected": "zwölf\nZeilen"}
    assert pairs.append("mine", [PAIR, other]) == 2  # what is there already is not added again
    with pytest.raises(ValueError, match="already"):
        pairs.append("mine", [PAIR])
    assert pairs.read("mine") == [PAIR, other] and "mine" in corpora.row_names()
    checked = rows.check(rows.read(corpora.row_path("mine")))
    assert checked.kind == "preference" and not checked.problems and not checked.rejected
    assert [row["rejected"] for row in checked.good] == ["No.", "zwölf\nZeilen"]
    assert pairs.remove("mine", 1) == 1 and pairs.read("mine") == [other]
    for number in (0, 2, -1):
        with pytest.raises(ValueError, match="there are 1"):
            pairs.remove("mine", number)
    assert pairs.remove("mine", 1) == 0 and pairs.read("mine") == []


def test_rows_of_others_are_left_alone(home):
    (paths.datasets() / "tasks.jsonl").write_text('{"instruction": "a", "output": "b"}\n')
    for name, sentence in (
        ("tasks", "no pairs"),
        ("preferences", "ships"),
        ("../x", "cannot be used"),
        ("", "cannot"),
    ):
        with pytest.raises(ValueError, match=sentence):
            pairs.append(name, [PAIR])
    assert (paths.datasets() / "tasks.jsonl").read_text() == '{"instruction": "a", "output": "b"}\n'


def test_other_fields_of_a_pair_stay(home):
    (paths.datasets() / "mine.jsonl").write_text(
        '{"prompt": "a", "chosen": "b", "rejected": "c", "why": "kind"}\n'
    )
    pairs.append("mine", [PAIR])
    assert pairs.read("mine")[0]["why"] == "kind"


def test_choices_at_the_same_moment_are_all_kept(home):
    threads = [
        threading.Thread(target=pairs.append, args=("mine", [PAIR | {"rejected": f"No {n}."}]))
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {pair["rejected"] for pair in pairs.read("mine")} == {f"No {n}." for n in range(8)}
