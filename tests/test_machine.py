"""What cannot fit into memory is refused with both figures, before anything is built."""

from __future__ import annotations

import pytest

from llm import forecast, machine, train
from llm.config import ModelConfig, RunConfig, TrainConfig


def test_the_least_of_all_limits_counts(monkeypatch):
    monkeypatch.setattr(machine, "_machine", lambda: 8 * 2**30)
    monkeypatch.setattr(machine, "_group", lambda: 3 * 2**30)
    monkeypatch.setattr(machine, "_own", lambda: None)
    assert machine.free_memory() == 3 * 2**30
    machine.refuse_memory(2 * 2**30, "This")
    with pytest.raises(ValueError, match=r"This needs at least 3\.2 GB of memory, and 3\.0 GB are free"):
        machine.refuse_memory(3 * 2**30, "This")
    monkeypatch.setattr(machine, "_group", lambda: -5)
    assert machine.free_memory() == 0


def test_where_nothing_can_be_read_nothing_is_refused(monkeypatch):
    for name in ("_machine", "_group", "_own"):
        monkeypatch.setattr(machine, name, lambda: None)
    machine.refuse_memory(10**15, "This")


def test_this_machine_has_some():
    assert 10**8 < machine.free_memory() < 10**15


def test_a_training_of_adamw_takes_sixteen_bytes_a_weight_and_lora_four():
    shape = ModelConfig(vocab_size=100, n_layer=2, n_embd=64, n_head=2)
    count = sum(shape.parameters().values())
    config = RunConfig(train=TrainConfig(optimizer="adamw"))
    assert forecast.at_least(shape, config) == 16 * count
    config.tune.__dict__["trained"] = "lora"
    assert forecast.at_least(shape, config) == 4 * count


def test_a_model_that_cannot_fit_is_refused_before_it_is_built(monkeypatch):
    monkeypatch.setattr(machine, "free_memory", lambda: 2**30)
    config = RunConfig(
        dataset="stories", tokenizer="byte", model=ModelConfig(n_layer=48, n_embd=2048, n_head=16)
    )
    for begin in (train.begin, forecast.forecast):
        with pytest.raises(ValueError, match=r"at least [\d.]+ GB of memory, and 1\.0 GB are free"):
            begin(config)
