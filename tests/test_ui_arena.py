"""The Arena without a browser: rounds stream without names, votes are answered with them, votes become rows."""

from types import SimpleNamespace

import gradio as gr
import pytest

from llm import arena, pairs, speakers
from ui.owner import COOKIE, sign
from ui.tabs import arena as tab


def visitor(name="me"):
    return SimpleNamespace(cookies={COOKIE: sign(name)}, query_params={})


@pytest.fixture
def speaks(monkeypatch):
    """`left` and `right` speak, `broken` cannot."""

    def speak(who, messages, how, stopped=lambda: False, owner=None, alternatives=0):
        if who == "broken":
            raise ValueError("broken is not there.")
        for word in (f"{'good' if who == 'left' else 'poor'} ", "words"):
            yield speakers.Piece(word)
        yield speakers.Piece(end="stop")

    monkeypatch.setattr(speakers, "speak", speak)
    monkeypatch.setattr(speakers, "names", lambda owner=None: ["left", "right", "broken"])


def played(who=("left", "right"), prompt="Say.", name="me", topic=""):
    return list(tab.play(list(who), prompt, topic, "", 20, 0.5, visitor(name)))


def test_a_round_streams_both_without_their_names(speaks):
    steps = played()
    id, last = steps[0][0], steps[-1]
    assert "good words" in str(last) and "poor words" in str(last)
    assert "left" not in str(steps) and "right" not in str(steps)
    found = arena.get(id)
    assert {found.text_a, found.text_b} == {"good words", "poor words"} and {found.a, found.b} == {
        "left",
        "right",
    }


def test_a_vote_tells_the_names_and_moves_the_ratings(speaks):
    id = played()[0][0]
    best = "a" if arena.get(id).a == "left" else "b"
    html = tab.vote(id, best, "main", "me")
    assert "left" in html and "right" in html and "+" in html and "−" in html
    board, matrix, counts, _, mark = tab.standing("", "", tab.ALL, "", visitor())
    assert board.index("left") < board.index("right") and "1 of 1" in matrix and "1 vote," in counts
    assert all(part == gr.skip() for part in tab.standing("", "", tab.ALL, mark, visitor()))
    assert "Nobody has been voted on" in tab.standing("", "", tab.MINE, "", visitor("you"))[0]
    with pytest.raises(ValueError, match="has its vote already"):
        tab.vote(id, "b", "main", "me")
    with pytest.raises(ValueError, match="not yours"):
        tab.vote(played()[0][0], "a", "main", "you")


def test_names_before_the_vote_make_the_round_void(speaks):
    id = played()[0][0]
    with pytest.raises(gr.Error, match="Start a round first"):
        tab.reveal(id, "", visitor("you"))
    assert "does not count" in tab.reveal(id, "", visitor())
    with pytest.raises(ValueError, match="names were shown"):
        tab.vote(id, "a", "main", "me")


def test_one_who_cannot_answer_makes_the_round_void_and_stays_unnamed(speaks):
    steps = played(("left", "broken"))
    assert (
        "could not answer" in str(steps[-1]) and "broken" not in str(steps) and "good words" in str(steps[-1])
    )
    with pytest.raises(ValueError, match="does not count"):
        tab.vote(steps[0][0], "a", "main", "me")


@pytest.mark.parametrize(
    ("who", "prompt", "sentence"),
    [([], "Say.", "at least two"), (["left"], "Say.", "at least two"), (["left", "gone"], "Say.", "at least two"), (["left", "right"], " ", "prompt is empty")],
)  # fmt: skip
def test_rounds_that_cannot_begin(speaks, who, prompt, sentence):
    with pytest.raises(gr.Error, match=sentence):
        played(who, prompt)


def test_the_pair_known_least_comes_next(speaks, monkeypatch):
    for _ in range(20):
        arena.vote(arena.begin("x", "left", "right", "me"), "a", "me")
    pairs_ = [set(tab.next_pair(["left", "right", "broken"], "main")) for _ in range(20)]
    assert all("broken" in pair for pair in pairs_)


def test_votes_become_rows_that_finetune_opens(speaks):
    with pytest.raises(gr.Error, match="No vote gives a row yet"):
        tab.make_rows("", "", tab.ALL, "", visitor())
    for choice in ("a", "tie"):
        id = played(prompt=f"Say {choice}.")[0][0]
        tab.vote(id, ("a" if arena.get(id).a == "left" else "b") if choice == "a" else choice, "main", "me")
    html = tab.make_rows("", "", tab.ALL, "class", visitor())
    assert "class has 1 row now; left out: 1 tie" in html and "finetune.dataset=class" in html
    assert pairs.read("class") == [{"prompt": "Say a.", "chosen": "good words", "rejected": "poor words"}]


def test_the_link_writes_the_rows_as_the_model_was_asked():
    by = lambda a, b: {"chosen_by": a, "rejected_by": b}  # noqa: E731
    base = tab.training_on(
        "rows", [by("story-prefer", "x"), by("story-llama", "y"), by("story-llama", "story-prefer")]
    )
    assert (base["model"], base["style"]) == ("story-llama", "bare")
    chat = tab.training_on("rows", [by("story-prefer", "story-llama")])
    assert (chat["model"], chat["style"]) == ("story-prefer", "own")
    far = tab.training_on("rows", [by("endpoint:x", "story-llama"), by("verse-char@0000000", "story-llama")])
    assert "model" not in far and far["dataset"] == "rows"


def test_a_model_comes_with_its_kin():
    found = tab.family("story-llama")
    assert {"story-llama", "story-instruct", "story-prefer"} <= set(found) and "topic-classifier" not in found
    steps = tab.family("verse-char")
    assert steps[0] == "verse-char@0000000" and steps[-1] == "verse-char" and len(steps) == tab.STEPS + 1
    assert {"story-llama", "story-instruct"} <= set(tab.family("story-prefer"))
    with pytest.raises(gr.Error, match="no kin here"):
        tab.invite("story-gpt2", visitor())


def test_a_board_of_its_own(speaks):
    steps = list(tab.play(["left", "right"], "Say.", "", "class-7", 20, 0.5, visitor()))
    tab.vote(steps[0][0], "a", "class-7", "me")
    assert arena.tally(name="class-7").votes == 1 and arena.tally().votes == 0
    assert "board" in tab.standing("../x", "", tab.ALL, "", visitor())[0]
