"""Texts and rows are listed for those they belong to, and deleted by them alone."""

from __future__ import annotations

import pytest

from llm import modes, owned, paths
from llm.runs import Run
from ui import belongings
from ui.owner import Visitor


class Asks:
    """A request of nobody: who asks is set by the tests."""


@pytest.fixture
def in_class(home, monkeypatch):
    monkeypatch.setenv("LLM_MODE", "class")
    for name, whose in (
        ("hers.txt", ["ada"]),
        ("both.jsonl", ["ada", "bob"]),
        ("his.txt", ["bob"]),
        ("alls.txt", []),
    ):
        (paths.datasets() / name).write_text("once upon a time")
        for one in whose:
            owned.claim(name.partition(".")[0], one)
    return home


def teacher() -> Visitor:
    visitor = Visitor("t")
    visitor.teacher = True
    return visitor


def names(visitor: Visitor) -> list[str]:
    return [file.name for file in belongings.places(visitor)]


def test_everybody_sees_their_own_and_the_teacher_all(in_class):
    assert names(Visitor("ada")) == ["both.jsonl", "hers.txt"]
    assert names(Visitor("eve")) == []
    assert names(teacher()) == ["alls.txt", "both.jsonl", "hers.txt", "his.txt"]


def test_who_deletes_what_two_brought_leaves_it_to_the_other(in_class):
    belongings.delete("both", Visitor("ada"))
    assert (paths.datasets() / "both.jsonl").exists() and owned.owners("both") == {"bob"}
    belongings.delete("both", Visitor("bob"))
    assert not (paths.datasets() / "both.jsonl").exists() and owned.owners("both") == set()
    assert not (in_class / "owners" / "both").exists()  # the next who brings the name has no co-owner


@pytest.mark.parametrize("name", ["his", "alls", "none", "../secret", "stories", ""])
def test_nothing_of_others_is_deleted(in_class, name):
    before = sorted(paths.datasets().iterdir())
    with pytest.raises(ValueError, match="yours to delete"):
        belongings.delete(name, Visitor("ada"))
    assert sorted(paths.datasets().iterdir()) == before


def test_a_text_that_a_run_needs_stays_until_it_has_ended(in_class):
    run = Run.create("train", {"dataset": "hers"}, "ada", "poem")
    with pytest.raises(ValueError, match="The run poem needs hers"):
        belongings.delete("hers", Visitor("ada"))
    run.request_stop()
    belongings.delete("hers", Visitor("ada"))
    assert names(Visitor("ada")) == ["both.jsonl"]


def test_the_table_says_what_each_takes(in_class, monkeypatch):
    monkeypatch.setattr(belongings, "owner", lambda _: Visitor("ada"))
    modes.change(megabytes=3)
    Run.create("train", {"dataset": "hers"}, "ada", "poem").request_stop()
    html = belongings.listed(Asks())
    assert "also brought by 1 more" in html and ">16 bytes<" in html and "of 2.9 MB" in html
    assert (
        html.index("both") < html.index("hers")
        and "<td class=num>1</td>" in html
        and "his" not in html.replace("this", "")
    )
    monkeypatch.setattr(belongings, "owner", lambda _: Visitor("eve"))
    assert "Nothing was brought" in belongings.listed(Asks())


def test_at_home_all_is_yours(home):
    (paths.datasets() / "mine.txt").write_text("a")
    belongings.delete("mine", Visitor("local"))
    assert names(Visitor("local")) == []
