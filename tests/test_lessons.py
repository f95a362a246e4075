"""Lessons: what a file says, what is wrong in a bad one, and that every shipped one fits the page."""

import pytest

from llm import lessons, paths

GOOD = """---
title: Two steps
order: 3
steps:
  - tab: tokens
    set: {tokens.text: "a b", tokens.specials: true}
    hide: [header]
    ask: How many?
    choices: ["1", "2"]
    answer: 2
    reveal: Two of them.
  - tab: train
---
Words before the first step.

## One

Look *here*.

## Two
"""


def test_a_file_says_what_is_on_screen():
    lesson = lessons.parsed("two", GOOD)
    assert (lesson.title, lesson.order, len(lesson.steps)) == ("Two steps", 3, 2)
    one = lesson.steps[0]
    assert one.values == {"tokens.text": "a b", "tokens.specials": "true"} and one.text == "Look *here*."
    assert lesson.link(1) == "?lesson=two&step=1&tab=tokens&tokens.text=a+b&tokens.specials=true&hide=header"


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("---\ntitle", "title", "begins with front matter"),
        ("order: 3", "order: [", "no YAML"),
        ("## Two\n", "", "2 steps and the text 1 headings"),
        ("answer: 2", "answer: 3", "two, step 1: answer is the number"),
        ("  - tab: train\n", "  - look: nothing\n", "two, step 2: a step says at least which tab"),
        ("    hide: [header]\n", "    hides: [header]\n", "two, step 1: hides is not known"),
        ("    ask: How many?\n", "", "belong to a question"),
        ("    set: {", "    set: 3\n    predict: {", "set is a mapping"),
        ("steps:", "parts:", "a list called steps"),
        ("order: 3", "order: first", "order is a number"),
    ],
)
def test_a_bad_file_says_what_is_wrong(old, new, sentence):
    assert old in GOOD
    with pytest.raises(ValueError, match=sentence):
        lessons.parsed("two", GOOD.replace(old, new, 1))


def test_a_teacher_drops_in_a_lesson_of_their_own(home):
    made = lessons.keep("My Lesson.md", GOOD.encode())
    assert made.name == "My-Lesson" and lessons.get("My-Lesson") == made
    assert "My-Lesson" in lessons.names()
    for bad, sentence in (
        (b"\xff\xfe", "not UTF-8"),
        (b"x" * (lessons.LARGEST + 1), "larger than"),
        (b"hello", "front matter"),
    ):
        with pytest.raises(ValueError, match=sentence):
            lessons.keep("bad.md", bad)
    with pytest.raises(ValueError, match="no lesson called"):
        lessons.get("bad")
    with pytest.raises(ValueError, match="cannot be used"):
        lessons.get("../secret")
    (lessons.own() / "tokens.md").write_text(GOOD)  # goes before the shipped one of that name
    assert lessons.get("tokens").title == "Two steps"


def test_a_file_that_is_no_lesson_is_told_of_and_hides_none(home):
    lessons.own().mkdir(parents=True)
    (lessons.own() / "tokens.md").write_text("hello")  # the shipped one of that name stays
    (lessons.own() / "two words.md").write_text(GOOD)
    (lessons.own() / "mine.md").write_bytes(b"\xff\xfe")
    assert lessons.get("tokens").steps and "tokens" in lessons.names() and "mine" not in lessons.names()
    said = lessons.refused()
    assert list(said) == ["mine.md", "tokens.md", "two words.md"]
    assert (
        "not UTF-8" in said["mine.md"]
        and "front matter" in said["tokens.md"]
        and "'two words'" in said["two words.md"]
    )
    with pytest.raises(ValueError, match="not UTF-8"):
        lessons.get("mine")


def test_nine_lessons_ship_and_cover_the_course(home):
    assert lessons.names() == [
        "tokens", "windows", "attention", "positions", "training", "sampling", "instructions", "preferences", "break-it",
    ]  # fmt: skip
    for name in lessons.names():
        lesson = lessons.get(name)
        assert lesson.summary and all(step.ask and (step.look or step.text) for step in lesson.steps), name


def test_models_that_lessons_ask_are_there(home):
    for name in lessons.names():
        for step in lessons.get(name).steps:
            for key, value in (*step.values.items(), ("x.model", step.predict.get("model", "story-llama"))):
                if key.endswith(".model"):
                    paths.model_folder(value)
