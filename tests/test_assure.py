"""The checks of `make assure` in small: what they find counts here too."""

from types import SimpleNamespace

import pytest

from assure import browser, calls, kills, load, owners, texts, uploads
from assure.__main__ import SECRETS
from assure.lab import Lab


@pytest.fixture
def lab(tmp_path):
    running = Lab(tmp_path / "home")
    yield running
    running.close()


def test_raw_calls_of_every_kind_meet_no_fault_of_ours(lab):
    found = calls.check(lab, 600, seed=1)
    assert found["pass"], found
    assert found["figures"]["events"] > 250 and found["figures"]["statuses"]["200"] > 120


def test_a_fault_in_the_log_is_told_from_gradios_own(lab):
    since = lab.log.stat().st_size
    with lab.log.open("a") as log:
        log.write(
            'Traceback (most recent call last):\n  File "/x/site-packages/gradio/blocks.py", line 1, in f\nKeyError: 1\n'
        )
    assert lab.faults(since) == []
    with lab.log.open("a") as log:
        log.write(
            f'Traceback (most recent call last):\n  File "{load.ROOT}/ui/parts.py", line 1, in f\nKeyError: 1\nerror abc123 in f\n'
        )
    assert len(lab.faults(since)) == 2


@pytest.fixture
def place(home):
    """A home without a server, for checks that need none."""
    home.mkdir()
    return SimpleNamespace(home=home, log=home / "server.log")


def test_a_run_killed_anywhere_is_the_same_run_to_the_bit(place):
    found = kills.killed(place, 10, seed=3)
    assert found["pass"] and found["figures"]["kills"] >= 10, found


def test_a_disk_that_fails_is_named_and_costs_nothing(place):
    found = kills.failing_disk(place, 8, seed=5)
    assert found["pass"] and found["figures"]["said why"] >= 4, found


def test_uploads_changed_at_random_open_or_give_a_sentence(place):
    found = uploads.check(place, 200, seed=1)
    assert found["pass"] and found["figures"]["opened"] > 25, found
    assert len(found["figures"]["kinds"]) >= 10


def test_a_file_that_stalls_crashes_or_raises_is_found_out(tmp_path, monkeypatch):
    wrong = {
        "a": lambda: 1 / 0,
        "b": lambda: uploads.time.sleep(9),
        "c": lambda: uploads.os.kill(uploads.os.getpid(), 9),
    }
    monkeypatch.setattr(uploads, "HANG", 1.0)
    for name, begins in (("a", "TRACEBACK"), ("b", "HANG"), ("c", "CRASH")):
        monkeypatch.setattr(uploads, "opened", lambda path: wrong[path.name]())
        assert uploads.tried(tmp_path / name)[0].startswith(begins)


def test_keys_and_private_files_stay_where_they_are(tmp_path):
    lab = Lab(tmp_path / "home", "local", **SECRETS)
    try:
        found = owners.canaries(lab)
    finally:
        lab.close()
    assert found["pass"] and found["figures"]["with its key"] >= 2, found


def test_payloads_are_what_a_stranger_would_send():
    assert len(browser.PAYLOADS) == len(set(browser.PAYLOADS)) >= 60
    assert sum("window.fired(" in one or "canary.invalid" in one for one in browser.PAYLOADS) >= 60


@pytest.mark.slow
@pytest.mark.parametrize("check", [kills.server_killed, kills.little_memory, texts.check, browser.eight_tabs])
def test_the_lab_holds_its_bar_at_home(tmp_path, check):
    lab = Lab(tmp_path / "home", "local")
    try:
        found = check(lab)
    finally:
        lab.close()
    assert not found["what went wrong"], found


@pytest.mark.slow
@pytest.mark.parametrize("check", [owners.matrix, owners.two_tabs, browser.foreign_text])
def test_the_lab_holds_its_bar_in_a_class(lab, check):
    found = check(lab)
    assert not found["what went wrong"], found


@pytest.mark.slow
def test_a_class_is_answered_while_two_runs_train(lab):
    found = load.check(lab, 30)
    assert not found["figures"]["errors"] and found["figures"]["clicks"] > 200, found
