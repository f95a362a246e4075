"""The forecast of a tuning: memory by formula is what torch holds, on the run's own rows; refused where the run would be."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from llm import checkpoint, forecast, lora, paths, precision, tokenizer
from llm.config import ModelConfig, RunConfig, TrainConfig, TuneConfig, to_flags
from llm.model import GPT

BYTE = tokenizer.get("byte")
ROWS = {
    "instruct": [{"instruction": f"say {i}", "output": f"{i}"} for i in range(20)],
    "prefer": [{"prompt": f"say {i}", "chosen": f"{i}", "rejected": f"not {i}"} for i in range(20)],
    "classify": [{"text": f"number {i}", "label": "ab"[i % 2]} for i in range(20)],
}


def config(objective="instruct", trained="all", **more):
    """A tiny tuning."""
    torch.manual_seed(1)
    shape = ModelConfig(vocab_size=BYTE.vocab_size, n_layer=2, n_head=2, n_embd=16, context_length=48)
    checkpoint.save_model(paths.models() / "tiny", GPT(shape), BYTE, "")
    (paths.datasets() / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS[objective]))
    return RunConfig(
        dataset="rows", objective=objective, start_from="tiny",
        train=TrainConfig(max_steps=10, warmup_steps=1, batch_size=4, precision="fp32", **more),
        tune=TuneConfig(trained=trained, lora_rank=2, prompt_style="plain"),
    )  # fmt: skip


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(forecast, "PATIENCE", 0.05)


@pytest.mark.parametrize("objective", ROWS)
@pytest.mark.parametrize("trained", ["all", "last", "lora"])
def test_memory_by_part_for_each_way_to_learn(objective, trained):
    found = forecast.forecast(config(objective, trained), 1, tuning=True)
    assert set(found["ways"]) == {"all", "lora", trained}
    for way, parts in found["ways"].items():
        assert parts["gradients"] == 4 * parts["trainable"]
        assert parts["weights"] == 4 * (parts["trainable"] + parts["frozen"])
        assert parts["activations"] > 0
        if way == "lora":
            assert (
                parts["optimizer"] == 8 * parts["trainable"]
            )  # AdamW, whatever the matrices inside would get
    assert found["ways"]["lora"]["gradients"] < found["ways"]["all"]["gradients"] / 5
    assert found["memory"] == {part: found["ways"][trained][part] for part in found["memory"]}
    assert found["seconds"] == pytest.approx(10 * found["seconds_per_step"]) and found["seconds"] > 0


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("trained", ["all", "last", "lora"])
def test_the_formula_is_what_torch_holds_after_a_step(trained, optimizer):
    model = GPT(ModelConfig(vocab_size=40, n_layer=2, n_head=2, n_embd=16, context_length=8))
    lora.choose(model, TuneConfig(trained=trained, lora_rank=2))
    optimizers = forecast.optim.optimizers(model, TrainConfig(optimizer=optimizer))
    model(torch.randint(40, (2, 8))).sum().backward()
    for one in optimizers:
        one.step()
    tensors = [t for one in optimizers for state in one.state.values() for t in state.values()]
    averages = sum(
        4 * t.numel() for t in tensors if torch.is_tensor(t) and t.dim()
    )  # without the count of steps
    by_formula = forecast.held_by_formula(model, optimizer)
    assert by_formula["optimizer"] == averages
    assert by_formula["gradients"] == sum(
        4 * p.grad.numel() for p in model.parameters() if p.grad is not None
    )


def test_more_parts_of_a_batch_keep_less_for_the_backward_pass():
    whole = forecast.forecast(config(), 1, tuning=True)["memory"]["activations"]
    parts = forecast.forecast(config(grad_accumulation=4), 1, tuning=True)["memory"]["activations"]
    assert parts < whole / 2


def test_longer_rows_cost_more_than_the_context_says():
    short = forecast.forecast(config(), 1, tuning=True)
    ROWS["long"] = [{"instruction": f"say {i}", "output": f"{i}" * 12} for i in range(10, 30)]
    run = config()
    (paths.datasets() / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS.pop("long")))
    long = forecast.forecast(run, 1, tuning=True)
    assert long["tokens_per_step"] > short["tokens_per_step"]
    assert long["memory"]["activations"] > short["memory"]["activations"]


def test_what_the_run_would_refuse_is_refused(capsys):
    run = config(trained="lora")
    wide = replace(run, tune=replace(run.tune, lora_rank=17))
    with pytest.raises(ValueError, match="A rank of 17 is above the model's width of 16"):
        forecast.forecast(wide, 1, tuning=True)
    with pytest.raises(SystemExit):
        forecast.main(["--tuning", *to_flags(wide)])
    assert "A rank of 17" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        forecast.main(["--tuning"])
    assert "Say which model is tuned" in capsys.readouterr().err


def test_a_way_that_the_model_cannot_learn_is_left_out():
    run = config(trained="all")
    too_wide = replace(run, tune=replace(run.tune, lora_rank=17))
    assert set(forecast.forecast(too_wide, 1, tuning=True)["ways"]) == {"all"}


@pytest.mark.parametrize("number_format", ["fp32", "bf16"])
@pytest.mark.parametrize("rows", [1, 2, 8])
def test_the_memory_of_a_forward_pass_is_forecast_from_two_small_ones(number_format, rows):
    """What all windows share (in bf16 the weights' own copies) counts once, however many windows there are."""
    shape = ModelConfig(vocab_size=300, n_layer=2, n_head=2, n_embd=48, context_length=32)
    train = TrainConfig(batch_size=rows, precision=number_format)
    said = forecast.forecast(RunConfig(model=shape, train=train), threads=1)["memory"]["activations"]
    model = GPT(shape)
    precision.prepare(model, number_format)
    assert said == pytest.approx(forecast.saved_by(model, rows, number_format), rel=0.02)
