"""The Evaluate tab's text room without a browser: its tables say what the engine says, its command what the page does."""

import json
import math
import shlex
from types import SimpleNamespace

import gradio as gr
import pytest

from llm import engine, scoring
from ui import eval_judge, eval_text
from ui.figures import evaluate as figures
from ui.owner import COOKIE, sign

TEXT = "Long ago, a shy otter named Otto lived by the lake."


@pytest.fixture(autouse=True)
def inline(monkeypatch):
    monkeypatch.setenv("LLM_ENGINE", "inline")


def scored(
    models, text=TEXT, source=eval_text.MINE, dataset="stories", most=2000, window=0, stride=0, special=False
):
    return list(eval_text.score(models, source, text, dataset, most, window, stride, special))


def test_results_come_model_by_model_and_are_the_engines():
    steps = scored(["story-llama", "story-gpt2"])
    assert "Asking story-llama" in steps[0][0] and "Asking story-gpt2" in steps[1][0]
    table, chart, under, drawn = steps[-1]
    for name in ("story-llama", "story-gpt2"):
        found = engine.get().text_score(name, text=TEXT)
        assert (
            figures.number(found["perplexity"]) in table and figures.number(found["bits_per_byte"]) in table
        )
    assert [round(x, 6) for x in chart.data[0].x] == [
        round(engine.get().text_score(name, text=TEXT)["bits_per_byte"], 6)
        for name in ("story-llama", "story-gpt2")
    ]
    assert under["choices"] == ["story-llama", "story-gpt2"] and drawn == gr.skip()
    first = steps[1][3]
    logprobs = [one[1] for one in engine.get().text_score("story-llama", text=TEXT, drawn=99)["drawn"]]
    assert first.count("class='ev-t ") == len(logprobs) and first.count("ev-none") == 1
    assert first.count("pg-p0'") - 1 == sum(
        p is not None and math.exp(p) < 0.01 for p in logprobs
    )  # one is the legend


def test_the_command_prints_the_same(capsys):
    line = eval_text.command(["story-llama"], eval_text.PART, "", "stories", 3000, 128, 32)
    words = shlex.split(line)
    assert words[:3] == ["python", "-m", "llm.scoring"]
    scoring.main(words[3:])
    told = json.loads(capsys.readouterr().out)[0]
    table = scored(["story-llama"], source=eval_text.PART, most=3000, window=128, stride=32)[-1][0]
    for name in ("perplexity", "bits_per_byte", "loss"):
        assert figures.number(told[name]) in table
    assert "FILE" in eval_text.command(["story-llama"], eval_text.MINE, TEXT, "", None, 0, 0)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (dict(models=[]), "Choose at least one model"),
        (dict(models=["story-llama"] * 7), "6 at a time"),
        (dict(models=["story-llama"], text=""), "no text"),
        (dict(models=["story-llama"], text="x" * 400_001), "400,001 characters"),
        (dict(models=["story-llama"], source=eval_text.PART, dataset="nothing"), "nothing"),
        (dict(models=["story-llama"], window=-1), "whole number, 0 or more"),
        (dict(models=["story-llama"], stride=1.5), "whole number"),
    ],
)
def test_what_is_missing_is_said(changes, sentence):
    with pytest.raises(gr.Error, match=sentence):
        scored(**changes)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [(dict(text="a"), "at least 2 are needed"), (dict(window=9999), "sees 256 at once"), (dict(window=8, stride=9), "from 1 to the window"), (dict(models=["gone", "story-llama"]), "no model called")],
)  # fmt: skip
def test_a_model_that_cannot_stands_beside_those_that_can(changes, sentence):
    asked = {"models": ["story-llama"], **changes}
    table = scored(**asked)[-1][0]
    assert sentence in table
    if "models" in changes:
        assert figures.number(engine.get().text_score("story-llama", text=TEXT)["perplexity"]) in table


def test_another_model_draws_the_text():
    html = eval_text.draw("story-gpt2", eval_text.MINE, TEXT, "", None, 0, 0, False)
    assert "story-gpt2" in html and "rank" in html


def test_foreign_text_is_escaped():
    table, _, _, _ = scored(["story-llama"], text="<b>Hi</b> there, fox")[-1]
    drawn = eval_text.draw("story-llama", eval_text.MINE, "<b>Hi</b> there", "", None, 0, 0, False)
    assert "<b>Hi" not in drawn and "<b>Hi" not in table
    copied = eval_text.copied(
        "story-llama", "<script>x</script> Long ago, a gentle mouse named Pip lived at", "stories", 4
    )
    assert "<script>" not in copied


def test_copies_are_marked_and_placed():
    text = "Zebra violins! Long ago, a gentle mouse named Pip lived at the edge of the leafy park."
    html = eval_text.copied("story-llama", text, "stories", 6)
    assert "<mark" in html and "document 1," in html and "window 0" in html
    assert "No stretch of 50 tokens" in eval_text.copied("story-llama", "Zebra violins!", "stories", 50)
    with pytest.raises(gr.Error, match="no text to look for"):
        eval_text.copied("story-llama", "  ", "stories", 6)
    assert eval_text.data_of("verse-char") == "verse"


def test_the_model_writes_what_is_looked_at():
    texts = list(eval_text.write("story-llama", "Long ago, a", 6, 0, 0))
    assert texts[-1].startswith("Long ago, a ") and len(texts[-1]) > len(texts[0])


# --- the judge's room


def visitor(name="me"):
    return SimpleNamespace(cookies={COOKIE: sign(name)}, query_params={})


FORM = (
    "story-instruct",
    "story-llama",
    "story-gpt2",
    "instructions",
    "test",
    3,
    True,
    8,
    0,
    eval_judge.JUDGE_PROMPT,
)


def test_the_form_of_a_judging_is_its_command():
    remark, line, button = eval_judge.preview(None, *FORM)
    assert (
        not remark
        and button.interactive
        and line.startswith("python -m llm.judge judge-story-instruct-story-llama")
    )
    remark, _, _ = eval_judge.preview(None, "story-instruct", "story-llama", "story-llama", *FORM[3:])
    assert "one of the two" in remark
    remark, line, button = eval_judge.preview(None, "", *FORM[1:])
    assert "Choose A first" in remark and not line and not button.interactive


def test_a_judging_is_shown_from_its_log(monkeypatch):
    from llm import dispatch
    from llm.runs import Run

    monkeypatch.setattr(dispatch, "pump", lambda: [])
    assert "Nothing was judged yet" in eval_judge.shown("", visitor())[1]
    name = eval_judge.start(visitor(), *FORM)[0]["value"]
    run = Run.open(name)
    run.append("start", count=3, done=0)
    verdict = dict(
        instruction="<i>Do.</i>",
        text_a="one",
        text_b="two",
        said="[[A]]",
        first="a",
        said_swapped="[[A]]",
        second="b",
    )
    for _ in range(3):
        run.append("verdict", **verdict)
    run.append("end", reason="finished", step=3, message="Done.")
    which, stands, result, told, clock, _stop = eval_judge.shown(name, visitor())
    assert (
        which["value"] == name
        and "3 of 3" in stands
        and "3 of 3" in result
        and "by the place of the answer" in result
    )
    assert "&lt;i&gt;Do." in told and "other order B" in told and not clock.active
    monkeypatch.setenv("SPACE_ID", "someone/lab")
    assert "Nothing was judged yet" in eval_judge.shown(name, visitor("you"))[1]
    with pytest.raises(gr.Error, match="one of your judgings"):
        eval_judge.stop_or_go(name, visitor("you"))
