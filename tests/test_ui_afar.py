"""The Playground with a model behind HTTP: its tokens as the browser reads them, its command, and what is refused."""

import json
import shlex

import gradio as gr
import pytest

from llm import endpoints, speakers
from llm.config import SampleConfig
from llm.endpoints import Endpoint, Piece
from ui import afar
from ui.tabs import playground as tab

FAR = "endpoint:mine"


@pytest.fixture
def far(monkeypatch):
    """A saved endpoint whose answer the test writes."""
    endpoints.save(Endpoint("mine", "other", "127.0.0.1:9", "m"))
    said = {"pieces": [], "asked": []}

    def speak(who, messages, how, *_, **__):
        said["asked"].append((who, list(messages), how))
        yield from said["pieces"]

    monkeypatch.setattr(speakers, "speak", speak)
    return said


def form(**changes):
    """The values of the form's settings, A then B."""
    own = (
        dict(temperature=0.5, top_k=0, top_p=1.0, min_p=0.0, repetition_penalty=1.0, seed=3, weights="fp32")
        | changes
    )
    return [*own.values(), *own.values(), 20, "", True, "", *[0] * tab.DIALS]


def told(model=FAR, prompt="Hi", compare=False, on=False, system="", talk="{}", **changes):
    texts = list(tab.generate(model, prompt, False, compare, on, system, "", talk, *form(**changes)))
    return [json.loads(line) for line in texts[-1].splitlines()]


def test_tokens_come_with_their_probabilities_and_the_last_says_how_it_ended(far):
    top = [["Hel", 0.5], ["Hi", 0.25]]
    far["pieces"] = [
        Piece("Hel", ({"text": "Hel", "probability": 0.5, "top": top},)),
        Piece(
            "lo 🦉",
            ({"text": "lo", "probability": 0.9, "top": []}, {"text": " 🦉", "probability": 0.1, "top": []}),
        ),
        Piece(end="stop", usage={"prompt_tokens": 3, "completion_tokens": 4, "cost": 0.00025}),
    ]
    news = told()
    tokens = [line for line in news if isinstance(line, list)]
    assert [line[2] for line in tokens] == ["Hel", "lo", " 🦉"] and [line[3] for line in tokens] == [3, 5, 8]
    assert (
        tokens[0][4] == 0.5 and tokens[0][8] == top and [line[6] for line in tokens] == [None, None, "stop"]
    )
    assert any("3 tokens read, 4 tokens written; 0.000250 dollars" in str(line) for line in news)
    assert news[-1] == {"end": True}
    who, messages, how = far["asked"][0]
    assert who == FAR and messages == [{"role": "user", "content": "Hi"}] and how.seed == 3


def test_without_probabilities_its_pieces_are_shown_bare(far):
    broken = (
        {"text": "\\xf0", "probability": 0.5, "top": []},
    )  # a part of a character does not make the text
    far["pieces"] = [Piece("Hello "), Piece("you", broken), Piece(end="length")]
    tokens = [line for line in told() if isinstance(line, list)]
    assert [(line[2], line[4], line[8]) for line in tokens] == [("Hello ", None, None), ("you", None, None)]
    assert tokens[-1][6] == "length"


def test_a_chat_sends_its_turns_and_two_settings_are_both_asked(far):
    far["pieces"] = [Piece("Yes."), Piece(end="stop")]
    turns = [{"role": "user", "content": "A?"}, {"role": "assistant", "content": "B."}]
    news = told(on=True, system="Be brief.", compare=True, talk=json.dumps({"0": turns}))
    assert [line[0] for line in news if isinstance(line, list)] == [0, 1]
    assert [m["content"] for m in far["asked"][0][1]] == ["Be brief.", "A?", "B.", "Hi"]


def test_what_the_server_does_not_know_is_said(far):
    far["pieces"] = [Piece("x", end="stop")]
    assert any("does not know top_k and min_p" in str(line) for line in told(top_k=5, min_p=0.1))


def test_the_command_asks_the_same(far):
    turns = [{"role": "user", "content": "A?"}, {"role": "assistant", "content": "B."}]
    line = tab.commands(FAR, "Hi", False, False, True, "Be brief.", "", json.dumps({"0": turns}), *form())
    words = shlex.split(line)
    assert words[:4] == ["python", "-m", "llm.speakers", FAR]
    far["pieces"] = [Piece("x", end="stop")]
    speakers.main(words[3:])
    assert [m["content"] for m in far["asked"][-1][1]] == ["Be brief.", "A?", "B.", "Hi"]
    assert far["asked"][-1][2] == SampleConfig(temperature=0.5, max_new_tokens=20, seed=3)


def test_an_opened_token_shows_what_the_server_told(far):
    asked = dict(model=FAR, prompt="Hi", special=False, chat=None)
    wish = dict(asked=asked, row=0, after=[], chosen=0, top=[["Hel", 0.5], ["<b>", 0.25], ["bad"], ["x", 9]])
    place, html = tab.opened(json.dumps(wish), False, *form())
    assert "50.00%" in html and "&lt;b&gt;" in html and "bad" not in html
    assert "tells no probabilities" in tab.table(place | {"top": []}, False, *form())
    with pytest.raises(gr.Error, match="goes its own way"):
        list(tab.go_on(place, 1, False, *form()))


def test_the_picker_lists_them_at_home_and_a_shared_page_does_not(far, monkeypatch):
    assert FAR in afar.names()
    monkeypatch.setenv("SPACE_ID", "someone/lab")
    assert FAR not in afar.names()
    with pytest.raises(gr.Error, match="On a shared page"):
        told()


def test_a_server_that_is_down_is_one_sentence():
    pytest.importorskip("any_llm")
    endpoints.save(Endpoint("mine", "other", "127.0.0.1:9", "m"))
    with pytest.raises(gr.Error, match="Nothing answers at"):
        told()
