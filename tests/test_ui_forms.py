"""Forms: one widget a knob, and values back into the config with sentences for what does not fit."""

from __future__ import annotations

import gradio as gr
import pytest

from llm.config import PRESETS, ModelConfig, RunConfig, TrainConfig, knobs
from ui import forms


def build(cls, **options):
    with gr.Blocks():
        return forms.form(cls, "t", **options)


@pytest.mark.parametrize("cls", [ModelConfig, TrainConfig, RunConfig])
def test_a_form_opens_with_the_defaults_and_gives_them_back(cls):
    made = build(cls)
    assert made.names == tuple(k.name for k in knobs(cls))
    assert made.config([widget.value for widget in made.widgets]) == cls()


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_pass_through_the_form(preset):
    config = ModelConfig(**PRESETS[preset])
    made = build(ModelConfig, defaults=config)
    assert made.config([widget.value for widget in made.widgets]) == config
    assert [u["value"] for u in made.updates(config)] == [w.value for w in made.widgets]


def test_simple_and_advanced_together_are_the_whole():
    with gr.Blocks():
        whole = forms.merged(
            forms.form(TrainConfig, "t", advanced=False), forms.form(TrainConfig, "t", advanced=True)
        )
    assert sorted(whole.names) == sorted(k.name for k in knobs(TrainConfig))
    assert whole["max_steps"].label == "Max steps"


def test_every_choice_of_a_knob_is_offered_and_help_stands_beside_it():
    made = build(ModelConfig)
    assert [value for _, value in made["position"].choices] == ["learned", "sinusoidal", "rope", "none"]
    assert all(made[k.name].info == k.help for k in knobs(ModelConfig))


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("max_steps", None, "Max steps is empty: enter a whole number from 1 to 1e+07."),
        ("max_steps", 2.5, "Max steps needs a whole number from 1 to 1e+07, not 2.5."),
        ("max_steps", [3], r"Max steps needs a whole number from 1 to 1e\+07, not '\[3\]'."),
        ("max_steps", "many", "Max steps needs a whole number"),
        ("max_steps", float("inf"), "Max steps needs a whole number"),
        ("max_steps", 0, "max_steps is 0; the smallest value is 1."),
        ("learning_rate", "", "Learning rate is empty: enter a number from 0 to 10."),
        ("shuffle", "yes", "Shuffle is a switch: on or off, not 'yes'."),
        ("schedule", "square", "schedule must be one of cosine, linear, constant, not 'square'."),
    ],
)
def test_what_does_not_fit_is_said_in_a_sentence(name, value, sentence):
    with pytest.raises(ValueError, match=sentence.replace("1e+07", r"1e\+07")):
        forms.read(TrainConfig, [name], [value])


def test_several_texts_stand_one_a_line():
    assert forms.read(RunConfig, ["prompts"], ["Once\n\nThere was"]).prompts == ("Once", "There was")
    assert forms.shown(("a", "b")) == "a\nb"


def test_heads_that_do_not_divide_name_the_nearest_that_do():
    with pytest.raises(ValueError, match="9 heads do not divide a width of 60: choose 6 or 10 heads"):
        forms.read(ModelConfig, ["n_head", "n_embd"], [9, 60])
