"""The shipped quiz: MMLU's format, no answer to be had by habit, nothing asked twice, the card tells the truth."""

import hashlib
import re
from collections import Counter

import pytest

from llm import quiz


def test_ten_subjects_with_more_than_300_questions():
    assert len(quiz.subjects()) == 10
    assert quiz.measured()["of"] == sum(len(quiz.read(subject)) for subject in quiz.subjects()) >= 300
    assert all(len(quiz.read(subject, "dev")) == 5 for subject in quiz.subjects())


def test_no_habit_answers_it():
    found = quiz.measured()
    assert all(0.22 <= share <= 0.28 for share in found["letters"].values())
    assert found["longest"] <= 0.30 and found["shortest"] <= 0.30
    for subject in quiz.subjects():
        letters = Counter(question.answer for question in quiz.read(subject))
        assert all(0.15 <= letters[i] / len(quiz.read(subject)) <= 0.35 for i in range(4)), subject


def test_nothing_is_asked_twice_and_no_choice_stands_twice():
    asked = [
        question
        for part in quiz.PARTS
        for subject in quiz.subjects()
        for question in quiz.read(subject, part)
    ]
    assert [text for text, n in Counter(question.text for question in asked).items() if n > 1] == []
    assert all(len({choice.strip().lower() for choice in question.choices}) == 4 for question in asked)


def number(text):
    found = re.fullmatch(r"(?:about )?(minus )?(-?[\d,]+(?:\.\d+)?)(?:/(\d+))?(?: (?:km|euros))?", text)
    value = float(found[2].replace(",", "")) / float(found[3] or 1)
    return -value if found[1] else value


@pytest.mark.parametrize(
    ("asked", "value"),
    [
        ("What is 7 times 8?", 7 * 8), ("What is 144 divided by 12?", 144 / 12), ("What is 15 % of 200?", 0.15 * 200),
        ("What is the sum of 38 and 47?", 38 + 47), ("What is 100 minus 37?", 100 - 37), ("What is 2 to the power of 6?", 2**6),
        ("What is three quarters of 80?", 60), ("What is 25 times 4?", 100), ("What is 9 squared?", 81), ("What is 1000 minus 256?", 1000 - 256),
        ("What is 5 factorial?", 120), ("What is minus 3 plus 8?", 5), ("What is 12 times 12?", 144), ("What is 7/10 as a decimal?", 0.7),
        ("What is 6 times 7 minus 2?", 40), ("What is 3.2 plus 1.9?", 5.1), ("What is one third of 72?", 24), ("What is 84 divided by 7?", 12),
        ("What is the remainder when 29 is divided by 6?", 29 % 6), ("What is 2.4 times 5?", 12), ("What is 20 % of 45?", 9),
        ("How many seconds are there in a quarter of an hour?", 900), ("How many minutes are there in 3 hours and 20 minutes?", 200),
        ("How many grams are there in 2.5 kilograms?", 2500), ("If 3 pens cost 4.50, what do 5 pens cost?", 7.5), ("Which fraction is the largest?", 3 / 4),
        ("A train goes 60 km an hour. How far does it go in 2.5 hours?", 150), ("A shirt of 40 euros is sold for 25 % less. What does it cost?", 30),
        ("What is 2 to the power of 10?", 1024), ("What is the result of 7 modulo 3?", 7 % 3),
    ],
)  # fmt: skip
def test_what_can_be_computed_is_right(asked, value):
    found = [
        q
        for part in quiz.PARTS
        for subject in quiz.subjects()
        for q in quiz.read(subject, part)
        if q.text == asked
    ]
    (question,) = found
    values = [number(choice) for choice in question.choices]
    assert values[question.answer] == pytest.approx(value)
    assert sum(v == pytest.approx(value) for v in values) == 1


def test_a_broken_row_is_named_with_its_line(tmp_path):
    (tmp_path / "test").mkdir()
    file = tmp_path / "test" / "odd_test.csv"
    file.write_text('Good?,a,b,c,d,A\n"Bad?",a,b,c,D\n', encoding="utf-8")
    with pytest.raises(ValueError, match=r"odd_test\.csv, line 2"):
        quiz.read("odd", where=tmp_path)
    file.write_text("Good?,a,b,c,d,E\n", encoding="utf-8")
    with pytest.raises(ValueError, match="line 1"):
        quiz.read("odd", where=tmp_path)
    with pytest.raises(ValueError, match=r"no file dev/odd_dev\.csv"):
        quiz.read("odd", "dev", tmp_path)
    with pytest.raises(ValueError, match="holds no quiz"):
        quiz.subjects(tmp_path / "test")


def test_the_card_says_what_is_measured():
    card = (quiz.folder() / "README.md").read_text(encoding="utf-8")
    found = quiz.measured()
    files = sorted(quiz.folder().glob("*/*.csv"))
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    assert f"{found['of']} questions" in card and digest in card
    assert ", ".join(f"{letter} {share:.1%}" for letter, share in found["letters"].items()) in card
    assert f"the longest choice {found['longest']:.1%}, the shortest {found['shortest']:.1%}" in card
