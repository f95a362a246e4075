"""The sweep under the Train tab's form: what it says before Start, how its trials are shown, whose it is."""

from __future__ import annotations

import gradio as gr
import pytest

from llm import dispatch, halving, paths, sweep
from llm.runs import Run, all_runs
from tests.test_sweep import TINY, arrives, made
from ui import sweeps
from ui.figures import sweeps as figures


class Visitor:
    """A request of one browser."""

    def __init__(self, name="me"):
        self.scope, self.headers, self.cookies = {"type": "http"}, {}, {}
        self.name = name


@pytest.fixture(autouse=True)
def visitors(monkeypatch):
    monkeypatch.setattr(sweeps, "owner", lambda request: request.name if request else "me")
    monkeypatch.setattr(dispatch, "pump", lambda: [])


def ready(*form):
    return TINY, TINY, 1000


def wish(kind=sweeps.GRID, count=5, eta=0, **varied):
    pairs = [part for pair in varied.items() for part in pair]
    return [kind, count, eta, *pairs, *[""] * (6 - len(pairs))]


def test_the_plan_counts_runs_rungs_and_steps():
    found, configs, command, seconds = sweeps.planned(
        ready, "me", "s", wish(eta=2, learning_rate="1e-4,1e-3,1e-2,1e-1"), []
    )
    assert len(configs) == 4 and found.rungs == (2, 4) and seconds is None
    assert sweeps.work_of(found) == ([2, 1], 4 * 2 + 2 * 2 + 4)
    assert "--vary=learning_rate=1e-4,1e-3,1e-2,1e-1 --halving 2" in command and "--max_steps 8" in command
    html = figures.planned(4, found.rungs, [2, 1], 16, 90.0)
    assert (
        "4 runs, 16 steps in all: at step 2 the best 2 go on; at step 4 the best goes on." in html
        and "1 min 30 s" in html
    )
    drawn, *_ = sweeps.planned(ready, "me", "s", wish(sweeps.RANDOM, learning_rate="1e-4..1e-1"), [])
    assert len(drawn.trials) == 5 and drawn.log == ("learning_rate",)
    with pytest.raises(ValueError, match="same setting was chosen twice"):
        sweeps.planned(ready, "me", "s", [sweeps.GRID, 0, 0, "seed", "1", "seed", "2", "", ""], [])


def test_the_command_of_the_page_makes_the_same_sweep(monkeypatch):
    import shlex

    _, configs, command, _ = sweeps.planned(
        ready, "me", "s", wish(sweeps.RANDOM, 6, 2, learning_rate="1e-4..1e-1", n_layer="1,2"), []
    )
    words = shlex.split(command)
    assert words[:3] == ["python", "-m", "llm.sweep"]
    made = []
    monkeypatch.setattr(
        sweep,
        "create",
        lambda found, configs: made.extend(configs) or (_ for _ in ()).throw(ValueError("enough")),
    )
    with pytest.raises(SystemExit, match="enough"):
        sweep.main(words[3:])
    assert made == configs


def test_trials_are_shown_best_first_and_only_when_something_changed():
    found = made(4, 2, (10,))
    arrives("s-1", 10, 2.0)
    arrives("s-2", 10, 1.0)
    which, table, lines, losses, mark, clock, *_ = sweeps.shown("", "", "", None)
    assert (
        which["value"] == "s"
        and clock.active
        and table.index("s-2") < table.index("s-1") < table.index("s-3")
    )
    assert table.count("<b>best</b>") == 1 and "Waits at step 10" in table
    assert len(lines["value"].data[0].dimensions) == 2 and list(
        lines["value"].data[0].dimensions[-1]["values"]
    ) == [2.0, 1.0]
    assert (
        len(losses["value"].data) == 4
        and losses["value"].data[-1].name == "s-2"
        and losses["value"].data[-1].line.width == 3
    )
    assert sweeps.shown("s", mark, "", None)[1] == gr.skip()
    arrives("s-3", 10, 0.5)
    again = sweeps.shown("s", mark, "", None)
    assert again[1].index("s-3") < again[1].index("s-2")
    assert found.trials[0].values == {"seed": 1}


def test_axes():
    rows = [
        {"name": f"t{i}", "rank": i + 1, "val_loss": 1.0 + i, "values": {"learning_rate": 10.0 ** -(4 - i), "norm": "rmsnorm" if i else "layernorm", "n_layer": i + 1}}
        for i in range(3)
    ]  # fmt: skip
    rate, norm, layers, loss = (
        figures.coordinates(rows, ["learning_rate", "norm", "n_layer"], ["learning_rate"]).data[0].dimensions
    )
    assert list(rate["values"]) == pytest.approx([-4, -3, -2]) and list(rate["ticktext"]) == [
        "0.0001",
        "0.001",
        "0.01",
    ]
    assert list(norm["ticktext"]) == ["layernorm", "rmsnorm"] and list(norm["values"]) == [0, 1, 1]
    assert list(layers["values"]) == [1, 2, 3] and list(loss["values"]) == [1.0, 2.0, 3.0]


def test_stop_go_on_and_delete_are_the_owners(monkeypatch):
    monkeypatch.setenv("SPACE_ID", "someone/lab")
    sweep.create(*sweep.plan("mine", TINY, {"seed": "1,2,3"}, eta=2, owner="me"))
    arrives("mine-1", 2, 1.0)
    for act in (sweeps.stop, sweeps.go_on, sweeps.delete):
        with pytest.raises(gr.Error, match=r"no sweep called .*mine"):
            act("mine", "", Visitor("you"))
    assert sweeps.shown("mine", "", "", Visitor("you"))[1] == ""
    sweeps.stop("mine", "", Visitor())
    assert {Run.open(f"mine-{i}").status() for i in (1, 2, 3)} == {"stopped"}
    halving.advance()
    assert not dispatch.waiting()  # nobody goes on behind the back of the one who stopped it
    sweeps.go_on("mine", "", Visitor())
    assert len(dispatch.waiting()) == 3 and not any(run.pause_at() for run in all_runs("train"))
    sweeps.delete("", "", Visitor())
    assert len(all_runs("train")) == 3
    sweeps.delete("mine", "", Visitor())
    assert not all_runs("train") and not any(paths.sweeps().iterdir())


def test_a_trial_that_does_not_fit_the_text_is_named():
    found, configs, *_ = sweeps.planned(ready, "me", "s", wish(context_length="16,100000"), [])
    with pytest.raises(
        ValueError, match="The trial with context_length 100000 cannot be: The training part of the text"
    ):
        sweeps.fits(configs, found.trials)
