"""Sweeps: which trials there are, who goes on by halving, and that a trial that waited is the one that never did."""

from __future__ import annotations

import math
import random

import pytest
import torch

from llm import dispatch, halving, paths, sweep
from llm.config import ModelConfig, RunConfig, TrainConfig
from llm.halving import Sweep, Trial
from llm.runs import Run
from llm.train import main as train

TINY = RunConfig(
    dataset="verse", tokenizer="byte", sample_tokens=0,
    model=ModelConfig(context_length=16, n_layer=1, n_head=2, n_embd=16),
    train=TrainConfig(max_steps=8, batch_size=4, eval_every=2, eval_batches=1, checkpoint_every=100, threads=1, precision="fp32", warmup_steps=1),
)  # fmt: skip


# --- what is asked for


def test_a_grid_is_every_combination():
    wanted = {
        name: sweep.asked(name, text)
        for name, text in {"learning_rate": "1e-3, 3e-3", "n_layer": "1,2,4"}.items()
    }
    found = sweep.combinations(wanted)
    assert (
        len(found) == 6
        and found[0] == {"learning_rate": 1e-3, "n_layer": 1}
        and found[-1] == {"learning_rate": 3e-3, "n_layer": 4}
    )
    assert sweep.asked("tie_embeddings", "true,no") == [True, False]


def test_a_random_search_is_spread_over_the_scale_and_repeats():
    wanted = {
        "learning_rate": sweep.asked("learning_rate", "1e-4..1e-1"),
        "batch_size": sweep.asked("batch_size", "4..9"),
    }
    assert wanted["learning_rate"].log and not wanted["batch_size"].log
    found = sweep.combinations(wanted, 40, seed=3)
    assert found == sweep.combinations(wanted, 40, seed=3) != sweep.combinations(wanted, 40, seed=4)
    rates = [one["learning_rate"] for one in found]
    assert all(1e-4 <= rate <= 1e-1 for rate in rates) and {one["batch_size"] for one in found} == set(
        range(4, 10)
    )
    decades = [math.floor(math.log10(rate)) for rate in rates]
    assert all(6 <= decades.count(decade) <= 22 for decade in (-4, -3, -2))  # a third in each, give or take


@pytest.mark.parametrize(
    ("varied", "more", "sentence"),
    [
        ({"learnin_rate": "1"}, {}, "no setting called 'learnin_rate' to vary; did you mean learning_rate"),
        ({"learning_rate": "fast"}, {}, "learning_rate takes a number, not 'fast'"),
        ({"learning_rate": " , "}, {}, "learning_rate has no values"),
        ({"learning_rate": "1e-2..1e-3"}, {"count": 3}, "the first number must be the smaller one"),
        ({"learning_rate": "1e-3..1e-2"}, {}, "learning_rate has a range"),
        ({"norm": "a..b"}, {"count": 3}, "norm has no range"),
        ({"n_embd": "16,18"}, {}, "The trial with n_embd 18 cannot be"),
        ({"learning_rate": "-1"}, {}, "The trial with learning_rate -1.0 cannot be: .*smallest value is 0"),
        ({"seed": ",".join(map(str, range(65)))}, {}, "65 combinations; 64 at once are the most"),
        ({"seed": "1,2"}, {"count": 3}, "fewer than 3 different combinations"),
        ({"seed": "1,2"}, {"count": 1}, "a random search has 2 to 64"),
        ({}, {}, "at least one setting"),
        ({"seed": "1,2"}, {"eta": 1}, "choose 2 or more"),
        ({"max_steps": "4,8"}, {"eta": 2}, "do not vary max_steps"),
        ({"prompts": "a"}, {}, "no setting called 'prompts'"),
    ],
)  # fmt: skip
def test_what_cannot_be_swept(varied, more, sentence):
    base = RunConfig(model=ModelConfig(n_head=4, n_embd=16, n_kv_head=0))
    with pytest.raises(ValueError, match=sentence):
        sweep.plan("s", base, varied, **more)
    assert not any(paths.runs().iterdir()) and not any(paths.sweeps().iterdir())


def test_names_that_are_taken():
    Run.create("train", {}, name="s-1")
    with pytest.raises(ValueError, match="run called 's-1' already"):
        sweep.plan("s", TINY, {"seed": "1,2"})
    sweep.create(*sweep.plan("t", TINY, {"seed": "1,2"}))
    with pytest.raises(ValueError, match="'t-1' already"):
        sweep.plan("t", TINY, {"seed": "1,2"})
    with pytest.raises(ValueError, match="cannot be used"):
        sweep.plan("../x", TINY, {"seed": "1,2"})


def test_the_final_learning_rate_keeps_its_share():
    low = sweep.with_values(RunConfig(), {"learning_rate": 1e-5})
    assert low.train.min_learning_rate == pytest.approx(
        1e-5 * RunConfig().train.min_learning_rate / RunConfig().train.learning_rate
    )
    assert (
        sweep.with_values(
            RunConfig(), {"learning_rate": 1e-3, "min_learning_rate": 0.0}
        ).train.min_learning_rate
        == 0
    )


@pytest.mark.parametrize(
    ("eta", "steps", "every", "trials", "expected"),
    [(2, 800, 100, 8, (100, 200, 400)), (3, 900, 100, 9, (100, 300)), (4, 1000, 200, 6, (200, 400)), (2, 8, 2, 4, (2, 4)), (0, 8, 2, 4, ())],
)  # fmt: skip
def test_rungs(eta, steps, every, trials, expected):
    assert sweep.rungs(eta, steps, every, trials) == expected


def test_no_rung_without_an_evaluation():
    with pytest.raises(ValueError, match="evaluate more often"):
        sweep.rungs(2, 100, 100, 4)


# --- who goes on


def made(n=9, eta=3, steps=(10, 30)):
    """A sweep of n trials that nothing has run yet."""
    trials = tuple(Trial(f"s-{i}", {"seed": i}) for i in range(1, n + 1))
    found = Sweep("s", "", 0.0, {"seed": "..."}, (), trials, 90, eta, tuple(steps))
    sweep.create(found, [TINY] * n)
    return found


def arrives(name, step, loss, end="stopped", paused=True):
    run = Run.open(name)
    run.append("start")
    run.append("evaluate", step=step, val_loss=loss)
    run.append("end", reason=end, step=step, message="", **({"paused": True} if paused else {}))


def test_the_best_third_goes_on_in_whatever_order_they_arrive():
    losses = {
        "s-1": 3.0,
        "s-2": 1.0,
        "s-3": 2.5,
        "s-4": math.inf,
        "s-5": 2.0,
        "s-6": 2.0,
        "s-7": 4.0,
        "s-8": 5.0,
        "s-9": None,
    }
    for seed in range(3):
        found = made()
        order = list(losses)
        random.Random(seed).shuffle(order)
        for name in order[:-1]:
            arrives(name, 10, losses[name])
            halving.advance()
            assert not dispatch.waiting() or {r.name for r in dispatch.waiting()} <= set(
                order[order.index(name) + 1 :]
            )
        arrives(order[-1], 10, losses[order[-1]])
        halving.advance()
        halving.advance()  # again changes nothing
        assert {run.name for run in dispatch.waiting()} == {"s-2", "s-5", "s-6"}
        assert {Run.open(name).pause_at() for name in ("s-2", "s-5", "s-6")} == {30}
        assert Run.open("s-1").pause_at() == 0 and "only the best 3 go on" in halving.note(
            found, found.trials[0]
        )
        for name, loss in (("s-2", 0.9), ("s-5", 0.8), ("s-6", 1.5)):
            arrives(name, 30, loss)
        halving.advance()
        assert [run.name for run in dispatch.waiting()] == ["s-5"] and Run.open("s-5").pause_at() == 0
        ranks = {row["name"]: row["rank"] for row in sweep.rows(found)}
        assert ranks["s-5"] == 1 and ranks["s-2"] == 2 and ranks["s-6"] == 3 and ranks["s-3"] == 4
        assert ranks["s-4"] is None  # its loss is no number
        for run in (Run.open(name) for name in losses):
            run.delete()
        (paths.sweeps() / "s" / "spec.json").unlink()
        (paths.sweeps() / "s").rmdir()


def test_who_failed_or_was_stopped_or_deleted_holds_nobody_up():
    found = made(4, 2, (10,))
    arrives("s-1", 10, 2.0)
    arrives("s-2", 5, 1.0, end="failed", paused=False)
    arrives("s-3", 5, 1.0, paused=False)  # a person stopped it
    halving.advance()
    assert [run.name for run in dispatch.waiting()] == ["s-4"]  # which has not begun
    Run.open("s-4").delete()
    halving.advance()
    assert [run.name for run in dispatch.waiting()] == ["s-1"]
    assert {row["name"]: row["status"] for row in sweep.rows(found)}["s-4"] == "deleted"
    assert halving.note(found, found.trials[1]) == ""


def test_a_crash_between_two_promotions_loses_nobody():
    """One of two survivors was let on and has come to the next rung; the other still waits at the first."""
    found = made(4, 2, (10, 20))
    for i, loss in enumerate((1.0, 2.0, 3.0, 4.0), 1):
        arrives(f"s-{i}", 10, loss)
    Run.open("s-1").pause(20)
    Run.open("s-1").request_resume()
    arrives("s-1", 20, 0.5)
    assert halving.standing(found) == (1, ["s-1", "s-2"])
    halving.advance()
    assert [run.name for run in dispatch.waiting()] == ["s-2"] and Run.open("s-2").pause_at() == 20


# --- real trainings


def weights(name):
    return torch.load(paths.runs() / name / "checkpoint" / "state.pt", weights_only=True)


def test_a_trial_that_waited_has_the_bits_of_one_that_did_not(monkeypatch):
    from llm.config import to_dict, to_flags

    monkeypatch.setattr(dispatch, "pump", lambda: [])
    Run.create("train", to_dict(TINY), name="waited", pause=4)
    assert train(["waited", *to_flags(TINY)]) == 0
    run = Run.open("waited")
    assert run.status() == "stopped" and run.last_event()["paused"] and run.last_event()["step"] == 4
    run.pause(0)
    assert train(["waited", *to_flags(TINY)]) == 0 and run.status() == "finished"
    assert train(["never", *to_flags(TINY)]) == 0
    a, b = weights("waited"), weights("never")
    assert all(torch.equal(a["model"][name], b["model"][name]) for name in b["model"])
    losses = [
        [e["loss"] for e in Run.open(name).events() if e["kind"] == "step"] for name in ("waited", "never")
    ]
    assert losses[0] == losses[1] and len(losses[0]) == 8


@pytest.mark.slow
def test_the_command_halves_a_real_sweep(home, capsys):
    """Four learning rates in processes of their own: two wait at step 4 for good, one at step 8, the best is finished."""
    sweep.main(
        ["rates", "--vary", "learning_rate=1e-5,1e-4,1e-3,1e-2", "--halving", "2", "--dataset", "verse", "--tokenizer", "byte",
         "--n_layer", "1", "--n_head", "2", "--n_kv_head", "0", "--n_embd", "16", "--context_length", "16", "--max_steps", "16",
         "--eval_every", "4", "--eval_batches", "1", "--sample_tokens", "0", "--optimizer", "adamw", "--batch_size", "4", "--warmup_steps", "2"]
    )  # fmt: skip
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and "rates-4" in lines[0] and "(finished)" in lines[0]
    found = {row["name"]: row for row in sweep.rows(halving.read("rates"))}
    assert sorted(row["step"] for row in found.values()) == [4, 4, 8, 16]
    ends = [sum(e["kind"] == "end" for e in Run.open(name).read()[0]) for name in found]
    assert sorted(ends) == [1, 1, 2, 3]  # one for each rung, and the last
