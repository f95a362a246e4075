"""The judge: verdicts are read and never guessed, both orders, win rates by hand and by brute force, as a run that resumes."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from llm import arena, endpoints, judge, speakers, verdicts
from llm.config import JudgeConfig, from_dict, to_dict
from llm.runs import Run


@pytest.mark.parametrize(
    ("said", "verdict"),
    [
        ("[[A]]", "a"), ("Both are fine, but [[B]].", "b"), ("[[tie]]", "tie"), ("[[C]]", "tie"), ("[[ a ]] [[A]]", "a"),
        ("A", "a"), (" b. ", "b"), ("Tie", "tie"), ("Answer: B", "b"), ("**A**", "a"), ("Verdict: tie", "tie"),
        ("[[A]] or rather [[B]]", ""), ("A fox came by.", ""), ("Long ago, a bear", ""), ("", ""), ("c", ""), ("Answer A is better", ""),
    ],
)  # fmt: skip
def test_a_verdict_is_read_or_not_there(said, verdict):
    assert verdicts.read(said) == verdict


@pytest.mark.parametrize(
    ("first", "second", "score", "flipped"),
    [
        ("a", "a", 1.0, False), ("b", "b", 0.0, False), ("tie", "tie", 0.5, False), ("a", "b", 0.5, True), ("b", "a", 0.5, True),
        ("a", "tie", 0.5, False), ("", "a", None, False), ("a", "", None, False), ("a", None, 1.0, False), ("", None, None, False),
    ],
)  # fmt: skip
def test_both_orders_are_one_outcome(first, second, score, flipped):
    assert verdicts.outcome(first, second) == (score, flipped)


def row(first, second=None, a="xx", b="yy", instruction="Do."):
    return dict(first=first, second=second, text_a=a, text_b=b, instruction=instruction)


def test_the_summary_by_hand():
    rows = [
        row("a", "a"),
        row("a", "a"),
        row("b", "b"),
        row("a", "b"),
        row("tie", "tie"),
        row("", "a"),
        row("a", ""),
    ]
    found = verdicts.summary(rows)
    assert (found["of"], found["judged"], found["nonsense"]) == (7, 5, 2)
    assert (found["wins"], found["losses"], found["ties"], found["flips"]) == (2, 1, 2, 1)
    assert found["win_rate"] == pytest.approx(0.6) and found["interval"][0] <= 0.6 <= found["interval"][1]
    assert verdicts.summary([row("")])["win_rate"] is None


def test_a_judge_that_always_says_a():
    swapped = verdicts.summary([row("a", verdicts.turned("a")) for _ in range(10)])
    assert (swapped["flips"], swapped["ties"], swapped["win_rate"], swapped["swapped"]) == (10, 10, 0.5, True)
    once = verdicts.summary([row("a") for _ in range(10)])
    assert once["win_rate"] == 1.0 and not once["swapped"]


def test_the_interval_is_that_of_the_mean():
    """For a mean of independent values the bootstrap gives mean +- 1.96 standard errors, but for its own noise."""
    scores = np.random.default_rng(0).choice([0, 0.5, 1], 400, p=[0.3, 0.2, 0.5])
    low, high = verdicts.interval(scores, lambda s: float(s.mean()), 1)
    error = 1.959964 * scores.std() / math.sqrt(400)
    assert low == pytest.approx(scores.mean() - error, abs=0.006)
    assert high == pytest.approx(scores.mean() + error, abs=0.006)


def test_at_equal_length_is_the_fit_by_brute_force():
    random = np.random.default_rng(4)
    lengths = random.normal(40, 60, 60)
    scores = (random.random(60) < 1 / (1 + np.exp(-(0.4 + lengths / 50)))).astype(float)
    x = lengths / np.sqrt((lengths**2).mean())
    t, w = np.meshgrid(np.linspace(-3, 3, 601), np.linspace(-1, 8, 901), indexing="ij")
    loss = sum(
        np.logaddexp(0, -(t + w * xi)) * s + np.logaddexp(0, t + w * xi) * (1 - s) for xi, s in zip(x, scores)
    )
    best = t[np.unravel_index((loss + verdicts.RIDGE / 2 * (t**2 + w**2)).argmin(), loss.shape)]
    assert verdicts.at_equal_length(scores, lengths) == pytest.approx(1 / (1 + math.exp(-best)), abs=0.003)
    assert verdicts.at_equal_length(scores, lengths) < scores.mean()  # a won partly by length
    assert verdicts.at_equal_length(np.array([1.0, 1, 0, 0]), np.zeros(4)) == pytest.approx(0.5)


def test_agreement_with_votes():
    def voted(prompt, a, b, choice):
        id = arena.begin(prompt, a, b, "me")
        arena.vote(id, choice, "me")

    voted("One.", "x", "y", "a")
    voted("One.", "y", "x", "b")  # again for x
    voted("Two.", "x", "y", "b")
    voted("Three.", "x", "y", "tie")
    voted("Four.", "x", "z", "a")
    rows = [row("a", "a", instruction=f"{name}.") for name in ("One", "Two", "Three", "Four")]
    assert verdicts.agreement(rows, "x", "y", arena.voted()) == (1, 2)


# --- the run


@pytest.fixture
def speaks(monkeypatch):
    """Three who speak by rule: `wordy` says much, `brief` little, `fair` prefers the text with "good" in it."""
    asked = []

    def speak(who, messages, how, stopped=lambda: False, owner=None, alternatives=0):
        text = messages[-1]["content"]
        asked.append((who, text))
        if who == "wordy":
            said = f"good answer to {text}, at length"
        elif who == "brief":
            said = "no"
        else:
            said = "[[A]]" if "good" in text.split("Answer B:")[0].split("Answer A:")[1] else "[[B]]"
        yield speakers.Piece(said, end="stop")

    monkeypatch.setattr(speakers, "speak", speak)
    monkeypatch.setattr(speakers, "names", lambda owner=None: ["wordy", "brief", "fair"])
    return asked


CONFIG = JudgeConfig(a="wordy", b="brief", judge="fair", count=4)


def test_a_run_judges_in_both_orders_and_says_what_came_out(speaks):
    run = Run.create("judge", to_dict(CONFIG), name="one")
    judge.work(run)
    found = [event for event in run.events() if event["kind"] == "verdict"]
    assert len(found) == 4 and all((one["first"], one["second"]) == ("a", "a") for one in found)
    assert found[0]["said"] == "[[A]]" and found[0]["said_swapped"] == "[[B]]"
    end = run.last_event()
    assert end["reason"] == "finished" and "wordy won 100.0% against brief" in end["message"]
    assert len(speaks) == 4 * 4


def test_a_stopped_run_goes_on_where_it_was(speaks, monkeypatch):
    run = Run.create("judge", to_dict(CONFIG), name="two")
    real, count = judge.judged, []

    def stopping(*args):
        count.append(1)
        found = real(*args)
        if len(count) == 2:
            run.request_stop()
        return found

    monkeypatch.setattr(judge, "judged", stopping)
    judge.work(run)
    assert run.status() == "stopped"
    kept = [event["instruction"] for event in run.events() if event["kind"] == "verdict"]
    assert len(kept) == 1  # the second was broken off
    run.request_resume()
    monkeypatch.setattr(judge, "judged", real)
    judge.work(run)
    all_of_them = [event["instruction"] for event in run.events() if event["kind"] == "verdict"]
    assert (
        run.status() == "finished" and all_of_them == judge.instructions(CONFIG) and all_of_them[:1] == kept
    )


def test_nonsense_is_counted(speaks, monkeypatch):
    monkeypatch.setattr(verdicts, "read", lambda text: "")
    run = Run.create("judge", to_dict(CONFIG), name="three")
    judge.work(run)
    assert "no verdict that can be read on any of 4" in run.last_event()["message"]


def test_a_texts_own_braces_are_left_alone():
    text = judge.asked(CONFIG, "Use {a}.", "I say {b}.", "I say {instruction}.")
    assert "Use {a}." in text and "I say {b}." in text and "I say {instruction}." in text


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (dict(a=""), "Choose A first"),
        (dict(judge="nobody"), "'nobody' cannot be asked"),
        (dict(b="wordy"), "cannot be compared with itself"),
        (dict(dataset="nothing"), "nothing"),
        (dict(part="evening"), "no part 'evening'; there are"),
    ],
)
def test_what_cannot_be_judged(speaks, changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        judge.check(from_dict(JudgeConfig, to_dict(CONFIG) | changes))


def test_on_a_shared_page_nobody_asks_the_endpoint_of_somebody_else(monkeypatch):
    monkeypatch.setenv("SPACE_ID", "someone/lab")
    endpoints.save(endpoints.Endpoint("mine", "openai", "https://api.openai.com/v1", "m", "anna"))
    config = JudgeConfig(a="story-instruct", b="story-llama", judge="endpoint:mine")
    assert judge.check(config, "anna")
    with pytest.raises(ValueError, match="'endpoint:mine' cannot be asked"):
        judge.check(config, "ben")
    endpoints.save(
        endpoints.Endpoint("keyed", "openai", "https://api.openai.com/v1", "m", "anna"), "sk-of-anna"
    )
    with pytest.raises(
        ValueError, match="endpoint:keyed needs a key, which this shared page keeps in its memory only"
    ):
        judge.check(replace(config, judge="endpoint:keyed"), "anna")


def test_intervals_are_made_once():
    rows = [row("a", "a"), row("b", "b", a="x"), row("a", "b")]
    verdicts.intervals.cache_clear()
    assert verdicts.summary(rows) == verdicts.summary(rows)
    assert verdicts.intervals.cache_info()[:2] == (1, 1)


def test_a_prompt_without_the_answers_is_refused():
    with pytest.raises(ValueError, match=r"must hold \{a\}"):
        JudgeConfig(prompt="{instruction} {b}")


def test_the_command_on_real_models(home, capsys, monkeypatch):
    """Tiny models judge badly, and that is what it says."""
    monkeypatch.setenv("LLM_ENGINE", "inline")
    status = judge.main(["real", "--a", "story-instruct", "--b", "story-llama", "--judge", "story-gpt2", "--count", "2", "--max_new_tokens", "8"])  # fmt: skip
    assert status == 0 and "verdict" in capsys.readouterr().out
    events = [json.loads(line) for line in (home / "runs" / "real" / "events.jsonl").read_text().splitlines()]
    assert [event["kind"] for event in events].count("verdict") == 2
