"""Whose run is next: first come at home, a fair ratio where several wait, waits from forecasts, limits of visitors."""

import os
import time

import pytest

from llm import commands, dispatch, modes, paths, turns
from llm.runs import Run

CONFIG = {"dataset": "stories"}


@pytest.fixture
def in_class(monkeypatch, home):
    monkeypatch.setenv("LLM_MODE", "class")
    monkeypatch.setenv("LLM_SLOTS", "2")
    monkeypatch.setattr(dispatch.Local, "start", lambda self, run: False)  # nothing is started here
    return home


def queued(name, owner, expected, waited):
    """A run that has waited so many seconds."""
    run = Run.create("train", CONFIG, owner, name, expected=expected)
    run.append("queued", since=time.time() - waited)
    return run


def working(name, owner, expected, since):
    """A run that goes on since so many seconds: it is locked, as by its process."""
    run = Run.create("train", CONFIG, owner, name, expected=expected).next_attempt()
    os.utime(run.attempt_path, (time.time() - since,) * 2)
    run.append("start")
    return run, run.lock()


def names(runs):
    return [run.name for run in runs]


def test_at_home_the_longest_waiting_goes_first(home, monkeypatch):
    monkeypatch.setattr(dispatch.Local, "start", lambda self, run: False)
    queued("short", "a", 5, waited=1)
    queued("long", "b", 900, waited=2)
    assert names(dispatch.waiting()) == ["long", "short"]


def test_short_runs_pass_long_ones_but_none_waits_for_ever(in_class):
    queued("long", "a", 600, waited=100)
    queued("short", "b", 20, waited=60)
    assert names(dispatch.waiting()) == ["short", "long"]  # (60+20)/20 = 4 against (100+600)/600 = 1.17
    queued("old", "c", 600, waited=3000)
    assert names(dispatch.waiting())[0] == "old"  # (3000+600)/600 = 6


def test_who_used_much_waits_longer(in_class):
    run, lock = working("done", "greedy", 500, since=500)
    run.append("end", reason="finished", step=1)
    os.close(lock)
    queued("of-greedy", "greedy", 60, waited=30)
    queued("of-modest", "modest", 60, waited=10)
    look = turns.seen()
    assert look.used["greedy"] == pytest.approx(500, abs=2)
    assert names(turns.order(look)) == ["of-modest", "of-greedy"]


def test_a_visitor_has_one_run_at_a_time_while_others_wait(in_class):
    _, lock = working("first", "a", 60, since=1)
    queued("second", "a", 5, waited=500)
    queued("other", "b", 300, waited=1)
    assert names(dispatch.waiting()) == ["other", "second"]
    os.close(lock)


def test_the_wait_follows_from_what_goes_on(in_class):
    _, one = working("one", "a", 100, since=40)  # 60 left
    _, two = working("two", "b", 100, since=10)  # 90 left
    queued("next", "c", 50, waited=5)
    queued("last", "d", 500, waited=1)
    place, wait = dispatch.outlook(Run.open("next"))
    assert place == 0 and wait == pytest.approx(60, abs=2)
    place, wait = dispatch.outlook(Run.open("last"))
    assert place == 1 and wait == pytest.approx(90, abs=2)
    os.close(one), os.close(two)
    with pytest.raises(ValueError, match="does not wait"):
        dispatch.outlook(Run.open("one"))


def test_nothing_is_said_of_a_wait_that_nobody_knows(in_class, monkeypatch):
    monkeypatch.setenv("LLM_SLOTS", "1")
    _, lock = working("unknown", "a", 0, since=10)
    queued("next", "b", 50, waited=5)
    assert dispatch.outlook(Run.open("next")) == (0, None)
    os.close(lock)


def test_a_kind_without_a_forecast_takes_what_it_took_before(in_class):
    run, lock = working("before", "a", 0, since=30)
    run.append("end", reason="finished", step=1)
    os.close(lock)
    assert turns.seen().expected(queued("again", "b", 0, waited=1)) == pytest.approx(30, abs=2)


def test_a_held_queue_starts_nothing_and_says_so(in_class, monkeypatch):
    started = []
    monkeypatch.setattr(dispatch.Local, "start", lambda self, run: started.append(run.name) or True)
    dispatch.pause()
    queued("one", "a", 5, waited=1)
    assert dispatch.pump() == [] and dispatch.outlook(Run.open("one")) == (0, None)
    dispatch.pause(False)
    assert started == ["one"]


def test_a_run_beyond_its_minutes_is_stopped_with_the_reason(in_class):
    modes.change(minutes=1)
    run, lock = working("slow", "a", 600, since=61)
    own, own_lock = working("mine", "terminal", 600, since=61)
    dispatch.stop_overdue()
    assert run.stop_requested() and not own.stop_requested()
    run.append("end", reason="stopped", step=3, message="Stopped at step 3.")
    assert run.last_event()["message"] == "A run may take 1 minutes on this page. Stopped at step 3."
    os.close(lock), os.close(own_lock)


def test_the_queue_of_a_visitor_has_an_end(in_class):
    for number in range(8):
        Run.create("train", CONFIG, "a", f"run-{number}")
    with pytest.raises(ValueError, match="8 runs in the queue and 1 more would be above the 8"):
        Run.create("train", CONFIG, "a", "one-more")
    Run.create("train", CONFIG, "b", "of-another")
    Run.create("train", CONFIG, "terminal", "of-a-terminal")


def test_modes_and_their_limits(monkeypatch, home):
    assert modes.mode() == "local" and not modes.is_shared() and modes.limits() == modes.Limits()
    monkeypatch.setenv("SPACE_ID", "me/lab")
    assert modes.mode() == "space" and commands.slots() == max(1, commands.cores() // 2)
    monkeypatch.setenv("LLM_MODE", "class")
    assert modes.mode() == "class" and commands.slots() == commands.cores()
    assert modes.change(waiting=9).waiting == 9 and modes.limits().waiting == 9
    for bad in ({"waiting": -1}, {"waiting": 1.5}, {"waiting": True}, {"waiting": 10**13}, {"everything": 1}):
        with pytest.raises(ValueError):
            modes.change(**bad)
    (home / "limits.json").write_text('{"waiting": "many", "minutes": 3}')
    assert (modes.limits().waiting, modes.limits().minutes) == (8, 3)
    monkeypatch.setenv("LLM_MODE", "party")
    with pytest.raises(ValueError, match="the modes are local, class, space"):
        modes.mode()


def test_what_is_too_large_for_a_visitor_is_refused_with_the_numbers(monkeypatch, home):
    modes.refuse_large(10**12, 64, 1e9)  # at home anything goes
    monkeypatch.setenv("LLM_MODE", "class")
    modes.refuse_large(1_000_000, 1, 60.0)
    with pytest.raises(ValueError, match="31,000,000 parameters; on this page at most 30,000,000"):
        modes.refuse_large(31_000_000, 1, None)
    with pytest.raises(ValueError, match="2 processes are more than the 1"):
        modes.refuse_large(1, 2, None)
    with pytest.raises(ValueError, match="about 50 minutes; on this page a run may take 20"):
        modes.refuse_large(1, 1, 3000.0)


def test_the_readme_tells_the_limits_of_each_mode(home):
    readme = (paths.ROOT / "README.md").read_text(encoding="utf-8")
    for name, said in modes.SAID.items():
        limits = [getattr(one, name) for one in modes.LIMITS.values()]
        values = [f"{limit:,}" if limit else "any" for limit in limits]
        line = next(line for line in readme.splitlines() if line.startswith(f"| {said}"))
        assert [cell.strip() for cell in line.split("|")[2:-1]] == values, said
