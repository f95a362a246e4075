"""The checks of `make assure` in small: what they find counts here too."""

import pytest

from assure import calls, load
from assure.lab import Lab


@pytest.fixture
def lab(tmp_path):
    running = Lab(tmp_path / "home")
    yield running
    running.close()


def test_a_thousand_raw_calls_meet_no_fault_of_ours(lab):
    found = calls.check(lab, 1000, seed=1)
    assert found["pass"], found
    assert found["figures"]["events"] > 250 and found["figures"]["statuses"]["200"] > 200


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


@pytest.mark.slow
def test_a_class_is_answered_while_two_runs_train(lab):
    found = load.check(lab, 30)
    assert not found["figures"]["errors"] and found["figures"]["clicks"] > 200, found
