"""The Endpoints room without a browser: presets, a test that says what is wrong, keys that leave the page."""

from types import SimpleNamespace

import gradio as gr
import pytest

from llm import endpoints
from ui import endpoints as room
from ui.owner import COOKIE, sign

KEY = "sk-canary-77"


def visitor(name="me"):
    return SimpleNamespace(cookies={COOKIE: sign(name)}, query_params={})


def form(name="mine", address="127.0.0.1:9", model="m", preset="other"):
    return (preset, name, address, model, None, None)


def test_a_preset_brings_its_address_and_how_it_starts():
    address, hint = room.choose("ollama")
    assert address == "http://127.0.0.1:11434/v1" and "ollama serve" in hint
    assert "needs a key" in room.choose("anthropic")[1] and room.choose("nothing") == ["", ""]
    for name, preset in endpoints.PRESETS.items():
        assert (
            not preset.address or endpoints.checked_address(preset.address, preset.kind) == preset.address
        ), name


def test_saving_lists_it_and_takes_the_key_off_the_page():
    html, told, key = room.save(*form(), KEY, visitor())
    assert "mine" in html and "saved" in html and KEY not in html + told and key == ""
    assert "endpoint:mine" in told and endpoints.key_of(endpoints.get("mine")) == KEY
    back = room.act("edit", "mine", visitor())
    assert back[1:5] == ["other", "mine", "http://127.0.0.1:9/v1", "m"] and KEY not in str(back)
    assert "No endpoint is saved" in room.act("delete", "mine", visitor())[0]
    with pytest.raises(gr.Error, match="no endpoint called"):
        room.act("edit", "mine", visitor())


def test_a_test_says_what_is_wrong_and_saves_nothing():
    pytest.importorskip("any_llm")
    said = list(room.test(*form(), KEY, visitor()))
    assert (
        "Asking http://127.0.0.1:9/v1" in said[0]
        and "Nothing answers at" in said[-1]
        and KEY not in str(said)
    )
    assert endpoints.names() == []


@pytest.mark.parametrize(
    ("values", "key", "sentence"),
    [
        (form(preset="nothing"), "", "Choose a kind of server"),
        (form(address=""), "", "Enter the server"),
        (form(address="ftp://x"), "", "no web address"),
        (form(name="../x"), "", "cannot be used"),
        ((*form()[:4], "cheap", ""), "", "no number of dollars"),
        ((*form()[:4], "nan", ""), "", "no number of dollars"),
        (form(), "two\nlines", "This is no key"),
    ],
)
def test_what_cannot_be_saved(values, key, sentence):
    with pytest.raises(gr.Error, match=sentence):
        room.save(*values, key, visitor())


def test_on_a_shared_page_each_sees_their_own(monkeypatch):
    monkeypatch.setenv("SPACE_ID", "someone/lab")
    room.save(*form(address="https://api.example.com/v1"), KEY, visitor("me"))
    assert "mine" in room.listed(visitor("me")) and "No endpoint" in room.listed(visitor("you"))
    with pytest.raises(gr.Error, match="no endpoint called"):
        room.act("delete", "mine", visitor("you"))
    room.act("delete", "mine", visitor("me"))
