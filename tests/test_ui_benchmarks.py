"""The benchmark room without a browser: the form is its command, runs are shown from their logs, a question as it was scored."""

import json
import math
from types import SimpleNamespace

import gradio as gr
import pytest

from llm import benchmarks, dispatch, harness_tasks
from llm.runs import Run
from ui import eval_benchmarks as room
from ui.figures import benchmarks as figures
from ui.owner import COOKIE, sign

FORM = ("story-gpt2", ["quiz"], "", 2, 6, "")
ASKED = {
    "prompt": "Q <b>?\nAnswer:", "choices": [" A", " B", " C", " D"], "target": 1, "right": True, "taken": 1,
    "logprobs": [-3.0, -1.0, -2.0, -4.0],
}  # fmt: skip


def visitor(name="me"):
    return SimpleNamespace(cookies={COOKIE: sign(name)}, query_params={})


@pytest.fixture
def here(monkeypatch):
    monkeypatch.setattr(harness_tasks, "is_here", lambda: True)
    monkeypatch.setattr(dispatch, "pump", lambda: [])


def finished(request=None):
    """A run of two tasks with their questions, as its process leaves them."""
    name = room.start(request or visitor(), *FORM)[0]["value"][0]
    run = Run.open(name)
    (run.path / "questions").mkdir()
    run.append("start", count=2, done=0, model="story-gpt2")
    for task, right in (("quiz_astronomy", 3), ("quiz_geography", 1)):
        (run.path / "questions" / f"{task}.jsonl").write_text(
            json.dumps(ASKED) + "\n" + json.dumps(ASKED) + "\n"
        )
        run.append(
            "task",
            task=task,
            **benchmarks.accuracy(right, 4),
            metrics={},
            fewshot=2,
            flags=[],
            cut=1,
            seconds=1,
        )
    run.append("end", reason="finished", step=2, message="Done.")
    return name


def test_the_form_is_its_command(here):
    remark, line, button = room.preview(*FORM)
    assert not remark and button.interactive
    assert line == "python -m llm.harness bench-story-gpt2 --model story-gpt2 --fewshot 2 --limit 6"
    _, line, _ = room.preview("story-gpt2", ["quiz_geography"], "mmlu, arc_easy", None, None, "")
    assert "--tasks quiz_geography mmlu arc_easy" in line or ("quiz_geography" in line and "arc_easy" in line)


@pytest.mark.parametrize(
    ("form", "sentence"),
    [
        (("", *FORM[1:]), "Choose a model"),
        (("story-gpt2", [], "", 2, 0, ""), "at least one task"),
        (("story-gpt2", ["quiz_fish"], "", 2, 0, ""), "no subject"),
        (("story-gpt2", ["quiz"], "", 500, 0, ""), "largest value is 100"),
    ],
)
def test_what_cannot_be_run_is_said(here, form, sentence):
    remark, line, button = room.preview(*form)
    assert sentence in remark and not line and not button.interactive
    with pytest.raises(gr.Error, match=sentence):
        room.start(visitor(), *form)


def test_without_the_harness_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(harness_tasks, "is_here", lambda: False)
    assert "pip install -r requirements-eval.txt" in room.preview(*FORM)[0]


def test_a_run_is_shown_from_its_log(here):
    assert "Nothing was run yet" in room.shown([], "", visitor())[1]
    name = finished()
    which, stands, chart, numbers, task, clock, _ = room.shown([], "", visitor())
    assert which["value"] == [name] and "2 of 2" in stands and not clock.active
    assert list(chart.data[0].x) == [0.75, 0.25] and list(chart.data[0].y) == ["astronomy", "geography"]
    error = math.sqrt(0.75 * 0.25 / 3)
    assert chart.data[0].error_x.array[0] == pytest.approx(1.959964 * error)
    assert (
        figures.percent(0.75, error) in numbers
        and "(micro)" in numbers
        and "longer than the model&#x27;s context: 2" in numbers
    )
    assert task["value"] == "quiz_astronomy"


def test_two_runs_stand_in_one_chart(here):
    names = [finished(), finished()]
    chart = room.shown(names, "", visitor())[2]
    assert len(chart.data) == 2 and len({scatter.marker.symbol for scatter in chart.data}) == 2


def test_a_question_is_opened_with_its_scores(here):
    name = finished()
    html, number = room.open_task([name], "quiz_astronomy", 99, visitor())
    assert "Question 2 of 2" in html and number["value"] == 2 and "&lt;b&gt;" in html
    mass = sum(math.exp(value) for value in ASKED["logprobs"])
    assert f"{mass:.2%}" in html and "right, taken" in html
    assert "has not finished" in room.open_task([name], "quiz_nothing", 1, visitor())[0]


def test_another_visitor_sees_none_of_it(here, monkeypatch):
    name = finished()
    monkeypatch.setenv("SPACE_ID", "someone/lab")
    assert "Nothing was run yet" in room.shown([name], "", visitor("you"))[1]
    assert room.open_task([name], "quiz_astronomy", 1, visitor("you"))[0] == ""
    with pytest.raises(gr.Error, match="one of your runs"):
        room.stop_or_go([name], "", visitor("you"))
    assert "at home only" in room.preview(*FORM[:5], "/etc")[0]
