"""Training: one loop whose curve neither batches, processes, kills nor looks can bend."""

import argparse
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch

from assure import kills
from llm import checkpoint, data, job, optim, paths, tokenizer, train
from llm.config import ModelConfig, RunConfig, TrainConfig, add_flags, to_dict, to_flags
from llm.distributed import World
from llm.model import GPT
from llm.objectives import Pretrain
from llm.runs import Run

ONE = World(0, 1, torch.device("cpu"))
WORDS = [
    "the",
    "old",
    "fox",
    "and",
    "a",
    "small",
    "owl",
    "went",
    "down",
    "to",
    "river",
    "look",
    "for",
    "their",
    "red",
    "boat",
]


def corpus(name="fable", words=3000, seed=1):
    """A text of random words, enough to learn something from; the dataset's name."""
    chosen = random.Random(seed)
    (paths.datasets() / f"{name}.txt").write_text(" ".join(chosen.choice(WORDS) for _ in range(words)) + "\n")
    return name


def small(model=None, **settings):
    """A config that trains in a moment."""
    shape = dict(n_layer=2, n_head=2, n_embd=32, context_length=32) | (model or {})
    defaults = dict(
        max_steps=12,
        warmup_steps=2,
        batch_size=8,
        eval_every=5,
        checkpoint_every=4,
        precision="fp32",
        threads=1,
    )
    return RunConfig(
        dataset=corpus(),
        tokenizer="byte",
        prompts=("the old",),
        sample_tokens=6,
        model=ModelConfig(**shape),
        train=TrainConfig(**(defaults | settings)),
    )


def run_of(config, name="run"):
    return Run.create("train", to_dict(config), name=name)


def trained(config, name="run"):
    """A run done in this process."""
    run = run_of(config, name)
    assert job.guarded(run, train.work) == 0, run.last_event()
    return run


def losses(run):
    return [(e["step"], e["loss"], e["grad_norm"]) for e in run.events() if e["kind"] == "step"]


def start(config):
    """A state before its first step, as a run makes it."""
    torch.manual_seed(config.train.seed)
    model, encoding = train.begin(config)
    objective = Pretrain(replace(config, model=model.config), encoding)
    return train.State(model, optim.optimizers(model, config.train)), objective


# --- a whole run ----------------------------------------------------------------------------------------------------


def test_a_run_learns_and_leaves_a_model_that_opens():
    run = trained(small(max_steps=60, learning_rate=1e-2, min_learning_rate=1e-3, eval_every=20))
    assert run.status() == "finished"
    events = run.events()
    first, *_, last = [e for e in events if e["kind"] == "evaluate"]
    assert first["step"] == 0 and first["val_loss"] == pytest.approx(
        math.log(257), abs=0.2
    )  # it knows nothing yet
    assert last["step"] == 60 and last["val_loss"] < first["val_loss"] - 1
    assert last["perplexity"] == pytest.approx(math.exp(last["val_loss"]))
    assert last["bits_per_byte"] == pytest.approx(last["val_loss"] / math.log(2))  # one byte a token
    shown = last["position"]
    assert shown["loss"] == pytest.approx(-math.log(shown["probability"]), abs=1e-4)
    samples = [e for e in events if e["kind"] == "sample"]
    assert [e["step"] for e in samples] == [0, 20, 40, 60]
    model, encoding = checkpoint.load_model(paths.model_folder(run.name))
    assert encoding.kind == "byte" and not model.training
    card = (run.model_folder / "README.md").read_text()
    assert "python -m llm.train run --dataset fable" in card and "seed: 0" in card


def test_the_log_is_strict_json():
    run = trained(small())
    for line in (run.path / "events.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=lambda word: pytest.fail(f"{word} in the log"))


def test_a_run_of_one_step_has_points_to_draw():
    run = trained(small(max_steps=1, warmup_steps=0))
    assert len(losses(run)) == 1 and [e["step"] for e in run.events() if e["kind"] == "evaluate"] == [0, 1]


def test_going_on_from_a_model_starts_where_it_ended():
    first = trained(small(max_steps=40, learning_rate=1e-2, eval_every=40), "first")
    second = trained(
        replace(small(max_steps=1, warmup_steps=0), start_from="first", tokenizer="gpt2"), "second"
    )
    ended = [e for e in first.events() if e["kind"] == "evaluate"][-1]["val_loss"]
    assert next(e for e in second.events() if e["kind"] == "evaluate")["val_loss"] == pytest.approx(
        ended, abs=1e-6
    )


def test_kept_checkpoints_are_models_of_their_step():
    run = trained(small(max_steps=10, keep_checkpoints=True, eval_every=7, warmup_steps=0))
    names = [n for n in paths.model_names(steps=True) if n.startswith("run@")]
    assert names == [f"run@{step:07d}" for step in (0, 1, 3, 10)]
    last = checkpoint.load_model(paths.model_folder(names[-1]))[0].state_dict()
    final = checkpoint.load_model(run.model_folder)[0].state_dict()
    assert all(torch.equal(last[name], final[name]) for name in final)


# --- what must not bend the curve -----------------------------------------------------------------------------------


def curve(config, steps):
    state, objective = start(config)
    values = [train.update(state, objective, config.train, ONE, "fp32") for _ in range(steps)]
    return values, state.model.state_dict()


def test_accumulation_equals_one_big_batch():
    config = small()
    whole, weights = curve(config, 10)
    parts, again = curve(replace(config, train=replace(config.train, grad_accumulation=8)), 10)
    for a, b in zip(whole, parts):
        assert b["loss"] == pytest.approx(a["loss"], rel=1e-4)
        assert b["grad_norm"] == pytest.approx(a["grad_norm"], rel=1e-4)
    assert all(torch.allclose(weights[n], again[n], atol=1e-4) for n in weights)


def test_looking_at_the_model_changes_nothing():
    config = small(model=dict(dropout=0.3), eval_every=1)
    looked, unseen = trained(config, "looked"), replace(config, train=replace(config.train, eval_every=12))
    assert losses(looked) == losses(trained(replace(unseen, sample_tokens=0), "unseen"))


def test_dropout_works_in_training_and_sleeps_in_evaluation():
    from llm import evaluate

    config = small(model=dict(dropout=0.5))
    state, objective = start(config)
    state.model.train()
    inputs, _ = objective.batch(0)
    assert not torch.equal(state.model(inputs), state.model(inputs))
    first = evaluate.held_out(state.model, objective, ONE, "fp32")
    assert evaluate.held_out(state.model, objective, ONE, "fp32") == first
    assert state.model.training
    assert not torch.equal(state.model(inputs), state.model(inputs))


def test_the_validation_loss_is_a_sum_over_tokens_divided_once():
    from llm import evaluate

    state, objective = start(small(eval_batches=0, batch_size=7))  # the last batch is smaller
    result = evaluate.held_out(state.model, objective, ONE, "fp32")
    windows = objective.validation_windows
    assert len(windows) % 7
    with torch.no_grad():
        by_hand = [
            torch.nn.functional.cross_entropy(
                state.model(torch.tensor(i))[0], torch.tensor(t)[0], reduction="none"
            )
            for i, t in (windows.inputs_and_targets([n]) for n in range(len(windows)))
        ]
    assert result["val_loss"] == pytest.approx(float(torch.cat(by_hand).mean()), abs=1e-5)
    assert result["val_tokens"] == len(windows) * 32


def test_no_validation_window_is_no_loss_of_zero():
    run = trained(small(validation_fraction=0.001))
    evaluations = [e for e in run.events() if e["kind"] == "evaluate"]
    assert evaluations and all(e["val_loss"] is None and e["perplexity"] is None for e in evaluations)
    assert all(math.isfinite(loss) for _, loss, _ in losses(run))


def test_bf16_arithmetic_follows_fp32():
    config = small(max_steps=30)
    exact, _ = curve(config, 30)
    state, objective = start(config)
    from llm import precision

    precision.prepare(state.model, "bf16")
    rough = [train.update(state, objective, config.train, ONE, "bf16") for _ in range(30)]
    assert max(abs(a["loss"] - b["loss"]) for a, b in zip(exact, rough)) < 0.05


@pytest.mark.slow
@pytest.mark.skipif(
    not shutil.which("g++"), reason="torch compiles for a processor with g++, and there is none"
)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_compiled_blocks_learn_the_same(precision):
    """The same curve, the same names in the checkpoint, and the model opens as any other."""
    plain = trained(small(precision=precision), "plain")
    compiled = trained(small(precision=precision, compile=True), "compiled")
    for (_, a, _), (_, b, _) in zip(losses(plain), losses(compiled), strict=True):
        assert b == pytest.approx(a, abs=1e-5 if precision == "fp32" else 0.02)
    assert weights(plain)["model"].keys() == weights(compiled)["model"].keys()
    model, _ = checkpoint.load_model(compiled.model_folder)
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_without_a_compiler_it_says_what_to_install(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    failed(small(compile=True), "install g++", "--compile")


# --- kills, processes, the command line -----------------------------------------------------------------------------


def command(run, config, *extra):
    return [sys.executable, "-m", "llm.train", run, *to_flags(config), *extra]


def launched(*words):
    environment = os.environ | {"LLM_HOME": str(paths.home()), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        words[0], cwd=paths.ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def finish(process, limit=90):
    _, said = process.communicate(timeout=limit)
    return process.returncode, said.decode()


def weights(run):
    return torch.load(run.path / "checkpoint" / "state.pt", weights_only=True)


def killed_and_resumed(config, name, kills, seed):
    """The run done by processes that are killed at random moments until it is through."""
    chance = random.Random(seed)
    for _ in range(kills):
        process = launched(command(name, config))
        reached = chance.randrange(1, config.train.max_steps)
        deadline = time.time() + 60
        while process.poll() is None and time.time() < deadline:
            time.sleep(0.005)
            run = Run(paths.runs() / name)
            last = run.last_event() if (run.path / "events.jsonl").exists() else None
            if last and last.get("step", 0) >= reached:
                time.sleep(chance.random() * 0.05)
                break
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if Run.open(name).status() == "finished":
            break
        assert Run.open(name).status() == "crashed"
    if Run.open(name).status() != "finished":
        status, said = finish(launched(command(name, config)))
        assert status == 0, said
    return Run.open(name)


def assert_same_run(a, b):
    assert not kills.differs(b, a)


def test_killed_and_resumed_is_the_same_run_to_the_bit():
    config = small(model=dict(dropout=0.2), max_steps=60, eval_every=7, checkpoint_every=5)
    whole = trained(config, "whole")
    assert_same_run(whole, killed_and_resumed(config, "killed", kills=2, seed=3))


def test_stop_keeps_the_model_and_resume_goes_on_exactly():
    config = small(max_steps=200, eval_every=50, checkpoint_every=1000)
    process = launched(command("stopped", config))
    deadline = time.time() + 60
    while time.time() < deadline and not (paths.runs() / "stopped" / "events.jsonl").exists():
        time.sleep(0.02)
    run = Run.open("stopped")
    while time.time() < deadline and not losses(run):
        time.sleep(0.02)
    run.request_stop()
    assert finish(process)[0] == 0
    stopped_at = run.last_event()
    assert run.status() == "stopped" and 1 <= stopped_at["step"] < 200
    assert "run" not in paths.model_names() and "stopped" in paths.model_names()
    assert finish(launched(command("stopped", config)))[0] == 0
    assert_same_run(trained(config, "whole"), Run.open("stopped"))


def on_several(name, config, processes, *options):
    """The command that trains a run on several processes of this machine."""
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        f"--nproc_per_node={processes}",
        "--standalone",
        *options,
    ]
    return [*torchrun, "-m", "llm.train", name, *to_flags(config)]


@pytest.mark.parametrize(
    ("processes", "batch_size"),
    [(2, 8), pytest.param(4, 8, marks=pytest.mark.slow), pytest.param(4, 6, marks=pytest.mark.slow)],
)  # fmt: skip
def test_several_processes_follow_the_curve_of_one(processes, batch_size):
    """Also where the rows of a batch cannot be shared out evenly."""
    config = small(max_steps=20, eval_every=10, batch_size=batch_size, grad_accumulation=2)
    one = trained(config, "one")
    status, said = finish(launched(on_several("many", config, processes)))
    assert status == 0, said
    many = Run.open("many")
    assert len(losses(many)) == 20
    for (_, a, x), (_, b, y) in zip(losses(one), losses(many)):
        assert b == pytest.approx(a, abs=1e-5) and y == pytest.approx(x, abs=1e-4)
    for a, b in zip(*([e for e in r.events() if e["kind"] == "evaluate"] for r in (one, many))):
        assert b["val_loss"] == pytest.approx(a["val_loss"], abs=1e-5)


@pytest.mark.slow
def test_a_lost_process_costs_no_more_than_the_steps_since_the_checkpoint(worker):
    """One of two workers is killed; torchrun starts both again, and the run goes on from its last checkpoint to the same bits."""
    config = small(max_steps=300, eval_every=100, checkpoint_every=20)
    assert finish(launched(on_several("whole", config, 2)))[0] == 0
    process = launched(on_several("lost", config, 2, "--max_restarts=3"))
    until = time.time() + 90
    while time.time() < until and not (
        (paths.runs() / "lost" / "checkpoint" / "state.pt").is_file() and len(losses(Run.open("lost"))) > 30
    ):
        time.sleep(0.02)
    os.kill(worker(process.pid, rank=1), signal.SIGKILL)
    status, said = finish(process)
    assert status == 0, said
    lost = Run.open("lost")
    raw = lost.read()[0]
    assert sum(e["kind"] == "resume" for e in raw) == 1 and lost.last_event()["reason"] == "finished"
    assert losses(lost) == losses(Run.open("whole")) and len(losses(lost)) == 300


def test_of_processes_that_make_one_run_at_once_the_second_joins_it(monkeypatch):
    config = small()
    flags = argparse.ArgumentParser()
    flags.add_argument("run")
    add_flags(flags, RunConfig)
    given = flags.parse_args(["together", *to_flags(config)])
    really = Run.open
    first = run_of(config, "together")
    looks = iter([ValueError("not there yet")])

    def looked_too_early(name):
        if error := next(looks, None):
            raise error
        return really(name)

    monkeypatch.setattr(Run, "open", looked_too_early)
    assert job.find_or_create("train", RunConfig, given, "").path == first.path


# --- what a person may get wrong ------------------------------------------------------------------------------------


def failed(config, *words):
    run = run_of(config, f"bad{len(list(paths.runs().iterdir()))}")
    assert job.guarded(run, train.work) == 1
    last = run.last_event()
    assert last["kind"] == "end" and last["reason"] == "failed"
    for word in words:
        assert word in last["message"], last["message"]
    return run


def test_a_text_too_short_says_what_it_has_and_needs():
    config = small()
    (paths.datasets() / "short.txt").write_text("only nineteen bytes")
    failed(replace(config, dataset="short"), "18 tokens", "33")


def test_a_missing_dataset_is_named():
    failed(replace(small(), dataset="nowhere"), "nowhere")


def test_a_batch_larger_than_the_text_is_refused():
    failed(small(batch_size=4096), "4096", "batch")


def test_a_loss_that_runs_away_stops_the_run_and_keeps_the_last_good_checkpoint(monkeypatch):
    config = small(max_steps=30, checkpoint_every=2)
    run = run_of(config)
    true_update = train.update

    def poisoned(state, *rest):
        if state.step == 5:
            with torch.no_grad():
                state.model.token_embedding.weight.mul_(float("inf"))
        return true_update(state, *rest)

    monkeypatch.setattr(train, "update", poisoned)
    assert job.guarded(run, train.work) == 1
    assert "update 6" in run.last_event()["message"] and "learning rate" in run.last_event()["message"]
    assert weights(run)["step"] == 4
    model, _ = checkpoint.load_model(run.model_folder)
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_a_full_disk_is_said_and_the_run_goes_on_later(monkeypatch):
    config = small(max_steps=12, checkpoint_every=4)
    whole, run = trained(config, "whole"), run_of(config, "full")
    true_save, calls = torch.save, []

    def full(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        return true_save(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(torch, "save", full)
        assert job.guarded(run, train.work) == 1
    assert "disk is full" in run.last_event()["message"] and weights(run)["step"] == 4
    run.request_resume()
    assert job.guarded(run, train.work) == 0
    assert_same_run(whole, run)


def test_a_damaged_checkpoint_is_said():
    run = trained(small())
    (run.path / "checkpoint" / "state.pt").write_bytes(b"PK not really")
    run.append("end", reason="failed", step=3)
    assert job.guarded(run, train.work) == 1
    assert "damaged" in run.last_event()["message"]


def test_a_character_outside_the_models_alphabet_is_named():
    config = replace(small(max_steps=2, warmup_steps=0), tokenizer="char")
    trained(config, "letters")
    (paths.datasets() / "other.txt").write_text("Zebra? " * 200)
    failed(replace(config, dataset="other", start_from="letters"), "Z", "?")


def test_the_command_line_refuses_in_one_sentence():
    config = small()
    trained(config, "done")
    other = replace(config, train=replace(config.train, max_steps=13))
    for settings, word in ((config, "finished"), (other, "other settings")):
        status, said = finish(launched(command("done", settings)))
        assert status == 2 and word in said and "Traceback" not in said


def test_two_processes_cannot_have_one_run():
    config = small(max_steps=2000, eval_every=1000)
    first = launched(command("mine", config))
    deadline = time.time() + 60
    while time.time() < deadline and not (paths.runs() / "mine" / "lock").exists():
        time.sleep(0.02)
    status, said = finish(launched(command("mine", config)))
    assert status == 2 and "already running" in said
    Run.open("mine").request_stop()
    assert finish(first)[0] == 0


def test_a_start_from_a_model_of_another_encoding_is_refused():
    model = GPT(ModelConfig(vocab_size=5000, n_layer=1, n_head=2, n_embd=16))
    checkpoint.save_model(paths.models() / "odd", model, tokenizer.get("byte"), "")
    failed(replace(small(), start_from="odd"), "257", "5,000")


def test_batches_are_the_same_windows_the_page_draws():
    _, objective = start(small())
    inputs, targets = objective.batch(3)
    numbers = objective.batches.numbers(3)
    train_ids, _ = data.split(objective.text.ids, 0.05)
    expected = data.Windows(train_ids, 32).inputs_and_targets(numbers)
    assert (inputs.numpy() == expected[0]).all() and (targets.numpy() == expected[1]).all()
    assert torch.equal(inputs[:, 1:], targets[:, :-1])
