"""Configs: one place a setting is written, from which flags, forms and JSON follow."""

import argparse
from dataclasses import replace

import pytest

from llm.config import (
    PRESETS,
    BPEConfig,
    ModelConfig,
    RunConfig,
    SampleConfig,
    TrainConfig,
    add_flags,
    from_dict,
    from_flags,
    knobs,
    to_dict,
    to_flags,
)

GPT2 = ModelConfig(vocab_size=50257, **PRESETS["GPT-2 124M"])


def through_flags(config):
    parser = argparse.ArgumentParser()
    add_flags(parser, type(config))
    return from_flags(type(config), parser.parse_args(to_flags(config)))


@pytest.mark.parametrize(
    "config",
    [
        RunConfig(),
        RunConfig(
            dataset="verse", prompts=("-a dash first", "two  spaces"), model=ModelConfig(n_layer=2, bias=True)
        ),
        RunConfig(prompts=(), train=TrainConfig(shuffle=False, learning_rate=1e-4, min_learning_rate=1e-5)),
        SampleConfig(temperature=0.0, stop=("\n\n", "The end")),
        BPEConfig(vocab_size=2048),
    ],
)
def test_flags_and_json_give_the_same_config_back(config):
    assert through_flags(config) == config
    assert from_dict(type(config), to_dict(config)) == config


def test_flags_hold_only_what_differs():
    assert to_flags(RunConfig()) == []
    assert to_flags(RunConfig(model=replace(RunConfig().model, n_layer=2))) == ["--n_layer", "2"]


def test_false_on_the_command_line_is_false():
    parser = argparse.ArgumentParser()
    add_flags(parser, TrainConfig)
    assert from_flags(TrainConfig, parser.parse_args(["--no-shuffle"])).shuffle is False


def test_every_knob_says_what_it_is_for():
    for cls in (ModelConfig, TrainConfig, SampleConfig, RunConfig, BPEConfig):
        for k in knobs(cls):
            assert len(k.help) > 10 and k.kind in (int, float, str, bool, tuple), k


def test_gpt2_parameter_counts_are_the_published_ones():
    # with tied matrices and biases GPT-2 small has 124,439,808 weights
    counts = {
        (tie, bias): sum(replace(GPT2, tie_embeddings=tie, qkv_bias=bias).parameters().values())
        for tie in (True, False)
        for bias in (True, False)
    }
    assert counts == {
        (True, True): 124_439_808,
        (False, True): 163_037_184,
        (True, False): 124_412_160,
        (False, False): 163_009_536,
    }


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (dict(n_embd=100, n_head=7), ["7 heads", "100", "5 or 10", "98 or 105"]),
        (dict(n_embd=224, n_head=7, n_kv_head=2), ["2 key/value heads", "7 heads", "1 or 7"]),
        (dict(n_embd=30, n_head=2, position="rope"), ["even", "15"]),
        (dict(n_embd=0), ["n_embd is 0", "smallest value is 1"]),
        (dict(dropout=1.5), ["dropout is 1.5", "0.95"]),
        (dict(norm="batchnorm"), ["layernorm, rmsnorm", "batchnorm"]),
        (dict(n_layer="4"), ["n_layer", "int", "'4'"]),
        (dict(norm_eps=float("nan")), ["norm_eps", "finite"]),
    ],
)
def test_a_wrong_shape_is_refused_with_the_rule_and_values(settings, words):
    with pytest.raises(ValueError) as error:
        ModelConfig(**settings)
    for word in words:
        assert word in str(error.value)


def test_heads_that_fit_are_accepted():
    assert ModelConfig(n_embd=224, n_head=8, n_kv_head=2).head_dim == 28
    explicit = ModelConfig(n_embd=32, n_head=4, head_size=16)
    assert explicit.head_dim * explicit.n_head == 64


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (dict(warmup_steps=100, max_steps=100), ["warm-up", "100 of 100"]),
        (dict(learning_rate=1e-4, min_learning_rate=1e-3), ["0.001", "0.0001"]),
        (dict(batch_size=10, grad_accumulation=4), ["10", "2 or 5"]),
    ],
)
def test_contradictions_in_training_settings_are_refused(settings, words):
    with pytest.raises(ValueError) as error:
        TrainConfig(**settings)
    for word in words:
        assert word in str(error.value)


def test_an_unknown_setting_is_named():
    with pytest.raises(ValueError, match="colour"):
        from_dict(ModelConfig, {"colour": 1})
