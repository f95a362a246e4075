"""Averages and errors of benchmarks by hand, and what looks wrong with scores."""

import math

import pytest

from llm import benchmarks


def test_micro_and_macro_are_two_numbers():
    tasks = [benchmarks.accuracy(50, 100), benchmarks.accuracy(10, 10), benchmarks.accuracy(0, 0)]
    found = benchmarks.overall(tasks)
    assert found["micro"] == pytest.approx(60 / 110) and found["macro"] == 0.75 and found["tasks"] == 2
    assert found["micro_stderr"] == pytest.approx(math.sqrt(60 / 110 * 50 / 110 / 109))
    assert found["macro_stderr"] == pytest.approx(math.sqrt(0.25 / 99) / 2)
    assert benchmarks.overall([])["micro"] is None


def test_the_error_is_the_samples():
    """sqrt of the sample variance over n, as for any mean."""
    values = [1] * 7 + [0] * 5
    mean = sum(values) / 12
    expected = math.sqrt(sum((v - mean) ** 2 for v in values) / 11 / 12)
    assert benchmarks.accuracy(7, 12)["stderr"] == pytest.approx(expected)
    assert benchmarks.accuracy(1, 1)["stderr"] is None


@pytest.mark.parametrize(
    ("logprobs", "sentence"),
    [([[0.0] * 4, [-1.0, -2, -3, -4]], "0: nothing was scored"), ([[-2.0] * 4] * 3, "does not see them"), ([[-1.0, 0.5]], "above 0"), ([[-1.0, math.nan]], "no number")],
)  # fmt: skip
def test_suspicious_scores_are_said(logprobs, sentence):
    assert any(sentence in told for told in benchmarks.flags([{"logprobs": values} for values in logprobs]))
    assert benchmarks.flags([{"logprobs": [-1.0, -2.0]}, {"answer": "x"}]) == []
