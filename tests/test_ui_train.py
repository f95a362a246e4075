"""The Train tab without a browser: what the form becomes, what Start says, what chart and monitor answer."""

from __future__ import annotations

import csv
import functools
import hashlib
import http.server
import io
import json
import math
import shlex
import threading
from types import SimpleNamespace

import gradio as gr
import pytest

from llm import commands, corpora, dispatch, paths
from llm.config import ModelConfig, RunConfig, TrainConfig, from_dict, knobs, to_dict
from llm.corpora import downloads
from llm.runs import Run
from ui import forms, live, monitor, running
from ui.figures import train as figures
from ui.owner import COOKIE, sign
from ui.tabs import train as tab

TEXT = "the quick brown fox jumps over the lazy dog. " * 40  # 1,800 bytes


def visitor(name: str):
    """A request as Gradio hands it over, with the signed cookie of this visitor."""
    return SimpleNamespace(cookies={COOKIE: sign(name)}, query_params={})


@pytest.fixture
def text(home):
    (paths.datasets() / "fox.txt").write_text(TEXT, encoding="utf-8")
    return "fox"


@pytest.fixture
def queued(monkeypatch):
    """Runs only wait: no process is started."""
    monkeypatch.setattr(dispatch, "pump", lambda: [])


def form(dataset="fox", encoding="byte", start_from=tab.SCRATCH, **changes):
    """The values of the whole form: a tiny model and the changes."""
    tiny = dict(
        n_layer=1,
        n_head=2,
        n_embd=16,
        context_length=8,
        max_steps=20,
        warmup_steps=2,
        batch_size=4,
        eval_every=10,
    )
    values = []
    for cls, names in (
        (ModelConfig, tab.MODEL_FIELDS),
        (TrainConfig, tab.TRAIN_FIELDS),
        (RunConfig, tab.RUN_FIELDS),
    ):
        defaults = {k.name: k.default for k in knobs(cls)} | tiny | changes
        values += [forms.shown(defaults[name]) for name in names]
    return [dataset, encoding, start_from, *values]


def log(name="a", events=(), max_steps=100):
    """A run with this log."""
    config = {"dataset": "fox", "train": {"max_steps": max_steps}}
    run = Run.create("train", config, owner="me", name=name)
    for event in events:
        run.append(event.pop("kind"), **event)
    return run


def steps(first, last, **more):
    return [
        {"kind": "step", "step": i, "loss": 5 / i, "learning_rate": 1e-3, "grad_norm": 1.0, "tokens_per_second": 100.0, "seconds": i / 10} | more
        for i in range(first, last + 1)
    ]  # fmt: skip


# --- the form --------------------------------------------------------------------------------------------------------


def test_the_form_covers_every_knob():
    assert set(tab.MODEL_FIELDS) == {k.name for k in knobs(ModelConfig)}
    assert set(tab.TRAIN_FIELDS) == {k.name for k in knobs(TrainConfig)}


def test_the_command_shown_gives_the_run_that_start_makes(text, queued):
    command = tab.preview("mine", *form(learning_rate=0.01))[2]
    tab.start(visitor("me"), "mine", *form(learning_rate=0.01))
    run = Run.open("mine")
    assert shlex.split(command) == commands.command(run)
    config = from_dict(RunConfig, run.config)
    assert config.train.learning_rate == 0.01 and config.model.n_embd == 16 and config.tokenizer == "byte"
    assert run.meta["owner"] == "me"


@pytest.mark.parametrize(
    ("changes", "label"),
    [
        (dict(dataset=None), "Choose a dataset"),
        (dict(encoding=None), "Choose an encoding"),
        (dict(context_length=2000, batch_size=1), "Text too short: 1,710 tokens, 2,001 needed"),
        (dict(context_length=1000, batch_size=4), "Text too short: 1 windows, 4 needed"),
        (dict(n_head=3), "Change a setting first: see the remark"),
        (dict(max_steps=None), "Max steps is empty: enter a whole number from 1 to 1e+07"),
    ],
)
def test_the_label_of_start_names_what_is_missing(text, changes, label):
    plan, remark, command, button = tab.preview("", *form(**changes))
    assert button["value"] == label and button["interactive"] is False
    assert remark and not plan and not command


def test_eight_tokens_are_one_too_few_for_a_window_of_eight(home):
    (paths.datasets() / "short.txt").write_text("abcdefgh", encoding="utf-8")
    few = form("short", validation_fraction=0.0, context_length=8, batch_size=1)
    assert tab.preview("", *few)[3]["value"] == "Text too short: 8 tokens, 9 needed"
    (paths.datasets() / "enough.txt").write_text("abcdefghi", encoding="utf-8")
    enough = form("enough", validation_fraction=0.0, context_length=8, batch_size=1)
    assert tab.preview("", *enough)[3]["value"] == "Start training"


def test_start_refuses_what_the_button_would_not_allow(text, queued):
    with pytest.raises(ValueError, match="3 heads do not divide a width of 16"):
        tab.start(visitor("me"), "", *form(n_head=3))
    assert not tab.ROOM.own_runs(visitor("me"))


def test_a_run_may_not_take_the_name_of_a_built_in_model(text, queued):
    refused = tab.preview("story-llama", *form())
    assert (
        "There is a built-in model called" in refused[1]
        and tab.preview("my-llama", *form())[3]["interactive"]
    )
    with pytest.raises(ValueError, match="choose another name for the run"):
        tab.start(visitor("me"), "story-llama", *form())
    assert not tab.ROOM.own_runs(visitor("me"))


def test_the_plan_counts_by_formula(text):
    config, full, tokens = tab.ready(*form())
    plan = tab.plan(full, tokens)
    assert config.model.vocab_size == 0 and full.model.vocab_size == 257
    assert plan["parameters"] == sum(full.model.parameters().values())
    assert plan["tokens_per_step"] == 32 and tokens == len(TEXT)
    assert plan["passes"] == pytest.approx(32 * 20 / (0.95 * len(TEXT)))
    assert "memory" not in plan and "…" in figures.plan(plan)


def test_a_double_click_is_one_run_and_a_later_click_another(text, queued, monkeypatch):
    first = tab.start(visitor("me"), "", *form())[0]
    assert tab.start(visitor("me"), "", *form())[0] == first
    assert tab.start(visitor("me"), "", *form(seed=1))[0] != first
    monkeypatch.setattr(running, "DOUBLE_CLICK", 0.0)
    tab.start(visitor("me"), "", *form(seed=1))
    assert len(tab.ROOM.own_runs(visitor("me"))) == 3


def test_a_preset_fills_the_shape():
    values = dict(zip(tab.MODEL_FIELDS, tab.choose_size("GPT-2 124M")))
    shape = ModelConfig(**values | {"vocab_size": 50_257})
    assert sum(shape.parameters().values()) == 124_439_808  # GPT-2 small, tied, with biases


def test_pasted_text_becomes_a_chosen_dataset(home):
    picked, said, _, _ = tab.add_text(None, "Some text to learn.", "my <own> text")
    assert picked["value"] in picked["choices"] and picked["value"] in said
    with pytest.raises(ValueError, match="There is no text yet"):
        tab.add_text(None, "  ", "")


# --- runs of other visitors ------------------------------------------------------------------------------------------


def test_on_a_space_another_visitors_run_is_out_of_reach(text, queued, monkeypatch):
    name = tab.start(visitor("me"), "", *form())[0]
    assert running.visible_to(f"run:{name}", visitor("you"))  # at home every browser is yours
    monkeypatch.setenv("SPACE_ID", "me/lab")
    assert running.visible_to(f"run:{name}", visitor("me")) and not running.visible_to(
        f"run:{name}", visitor("you")
    )
    for action in (tab.ROOM.stop, tab.ROOM.resume):
        with pytest.raises(ValueError, match="There is no run called"):
            action(visitor("you"), name, "")
    with pytest.raises(ValueError, match="There is no run called"):
        tab.ROOM.act(visitor("you"), name, "", SimpleNamespace(_data={"action": "delete", "name": name}))
    assert not tab.ROOM.own_runs(visitor("you")) and Run.open(name).status() == "waiting"


def test_stop_resume_and_delete(text, queued):
    me = visitor("me")
    name = tab.start(me, "", *form())[0]
    tab.ROOM.stop(me, name, "")
    assert Run.open(name).status() == "stopped"
    tab.ROOM.resume(me, name, "")
    assert Run.open(name).status() == "waiting"
    shown, *_ = tab.ROOM.act(me, name, "", SimpleNamespace(_data={"action": "delete", "name": name}))
    assert shown == tab.ROOM.worked_example() and not tab.ROOM.own_runs(me)


def test_history_clicks_change_what_is_shown(home, queued):
    for name in "abc":
        log(name)

    def act(action, name, shown, over):
        return tab.ROOM.act(None, shown, over, SimpleNamespace(_data=dict(action=action, name=name)))

    assert act("show", "b", "a", "b,c")[:2] == ["b", "c"]
    shown, over, chart, *_ = act("overlay", "b", "a", "")
    assert (shown, over) == ("a", "b") and json.loads(chart) == ["run:a", "run:b"]
    assert act("overlay", "b", "a", "b")[1] == ""


def test_the_tab_opens_with_the_linked_run_else_the_last_else_the_worked_example(home, tmp_path, monkeypatch):
    built_in = tmp_path / "models" / "tiny"
    built_in.mkdir(parents=True)
    (built_in / "events.jsonl").write_text(json.dumps({"kind": "step", "step": 1, "loss": 2.0}) + "\n")
    monkeypatch.setattr(paths, "shipped_models", lambda: tmp_path / "models")
    assert tab.ROOM.opened(None, "", "")[0] == "model:tiny"
    assert live.news("model:tiny", 0)["curves"]["loss"] == [[1], [2.0]]
    log("a")
    log("b")
    assert tab.ROOM.opened(None, "", "")[0] == "b"
    assert tab.ROOM.opened(None, "a", "")[0] == "a"
    assert tab.ROOM.opened(None, "../../etc", "")[0] == "b"


# --- chart and monitor -----------------------------------------------------------------------------------------------


def test_the_chart_gets_all_points_and_then_only_new_ones(home):
    run = log(events=[{"kind": "evaluate", "step": 0, "val_loss": 5.5, "bits_per_byte": 4.0}, *steps(1, 3)])
    first = live.poll({"run:a": 0})["run:a"]
    assert first["fresh"] and first["curves"]["loss"] == [[1, 2, 3], [5.0, 2.5, 5 / 3]]
    assert first["curves"]["val_loss"] == [[0], [5.5]]  # the chart begins at step 0
    run.append("step", step=4, loss=1.0)
    again = live.poll({"run:a": first["offset"]})["run:a"]
    assert not again["fresh"] and again["curves"] == {"loss": [[4], [1.0]]}
    assert live.poll({"run:a": again["offset"]})["run:a"]["curves"] == {}
    assert live.poll({"run:nowhere": 0, "nonsense": 0, "run:../../x": 0}) == {
        k: {"gone": True} for k in ("run:nowhere", "nonsense", "run:../../x")
    }


def test_a_resume_takes_steps_back_and_the_chart_starts_afresh(home):
    run = log(events=steps(1, 6))
    offset = live.news("run:a", 0)["offset"]
    run.append("resume", step=4)
    for event in steps(5, 5, loss=0.5):
        run.append(event.pop("kind"), **event)
    answer = live.news("run:a", offset)
    assert answer["fresh"] and answer["curves"]["loss"][0] == [1, 2, 3, 4, 5]
    assert answer["curves"]["loss"][1][-1] == 0.5


def test_long_curves_keep_their_peaks(home):
    x = list(range(10_000))
    y = [math.sin(i / 50) for i in x]
    y[4321] = 99.0
    thin_x, thin_y = live.thinned(x, y)
    assert len(thin_x) <= live.POINTS and thin_x == sorted(thin_x)
    assert (thin_x[0], thin_x[-1]) == (0, 9_999)
    assert thin_y[thin_x.index(4321)] == 99.0
    assert live.thinned([1], [2.0]) == [[1], [2.0]]


def test_the_csv_has_every_step_and_infinite_perplexity(home):
    log(
        events=[
            {"kind": "evaluate", "step": 0, "val_loss": 800.0},
            *steps(1, 3),
            {"kind": "evaluate", "step": 3, "val_loss": 709.0},
        ]
    )
    rows = list(csv.DictReader(io.StringIO(live.table(["run:a"]))))
    assert [row["step"] for row in rows] == ["0", "1", "2", "3"]
    assert rows[0]["perplexity"] == "inf" and rows[0]["val_loss"] == "800.0"
    assert float(rows[3]["perplexity"]) == pytest.approx(math.exp(709.0))
    assert rows[1]["val_loss"] == "" and float(rows[2]["loss"]) == 2.5


def test_the_monitor_shows_samples_as_text_and_works_out_a_position(home):
    worked = {
        "target": 7, "target_text": "<b>", "logit": 1.0, "log_sum_exp": 3.0, "probability": math.exp(-2), "loss": 2.0,
        "context": "<script>x</script>", "top": [{"id": 1, "text": " ", "logit": 2.0, "probability": math.exp(-1)}],
    }  # fmt: skip
    sample = {
        "kind": "sample",
        "step": 0,
        "texts": [{"prompt": "Once", "text": "</div><img src=x onerror=alert(1)>"}],
    }
    log(events=[{"kind": "evaluate", "step": 0, "val_loss": 2.0, "position": worked}, sample, *steps(1, 4)])
    answer = monitor.watch("run:a", 0)
    assert answer["step"] == 4 and answer["max_steps"] == 100
    assert "<script>" not in answer["position"] and "&lt;script&gt;" in answer["position"]
    assert "7.389" in answer["position"]  # exp(2)
    assert "<img" not in answer["samples"][0]["html"] and "&lt;img" in answer["samples"][0]["html"]
    assert monitor.watch("run:a", answer["offset"])["samples"] == []


def test_a_run_says_where_it_stands(home, monkeypatch):
    monkeypatch.setenv("LLM_SLOTS", "1")
    log("first")
    log("second")
    assert "it is the next one" in monitor.standing("run:first")["html"]
    assert "1 waiting before it" in monitor.standing("run:second")["html"]
    broken = log("broken", steps(1, 3))
    assert monitor.standing("run:broken")["status"] == "crashed"
    broken.append("end", reason="failed", step=3, message="The numbers ran away: <lower> the rate.")
    html = monitor.standing("run:broken")["html"]
    assert "Failed" in html and "&lt;lower&gt;" in html


def test_the_pace_counts_only_since_the_process_began():
    events = [
        {"kind": "step", "step": 1, "time": 0.0}, {"kind": "start", "time": 1000.0},
        {"kind": "step", "step": 2, "time": 1001.0}, {"kind": "step", "step": 6, "time": 1003.0},
    ]  # fmt: skip
    assert monitor.seconds_a_step(events) == 0.5
    assert monitor.seconds_a_step(events[:3]) is None


def test_the_history_escapes_and_offers_only_what_works(home):
    row = dict(name="a", status="running", step=3, max_steps=9, val_loss=1.5, created="<now>")
    html = figures.history([row], "tiny", "a", set())
    assert "&lt;now&gt;" in html and "data-action='delete'" not in html
    assert "data-name='model:tiny'" in html
    assert gr.HTML(html).value == html


def test_the_forecast_is_measured_once_and_kept(text):
    small = form(max_steps=50)
    assert tab.measure(*small) == ""
    html = tab.planned("", *small)
    _, full, tokens = tab.ready(*small)
    kept = json.loads(tab.measurement_path(full).read_text())
    assert kept["seconds_per_step"] > 0 and kept["flops_per_step"] > 0
    assert kept["parameters"] == tab.plan(full, tokens)["parameters"]
    assert "Measured on this machine" in html
    other = tab.ready(*form(optimizer="adamw"))[1]
    assert tab.measurement_path(other) != tab.measurement_path(full)  # it takes other memory and time
    now = tab.planned(
        tab.measurement_path(full).name, *form(optimizer="adamw")
    )  # the form has changed meanwhile
    assert "Running a few steps" in now
    assert "could not be measured" in tab.planned(tab.measurement_path(other).name, *form(optimizer="adamw"))
    longer = tab.ready(*form(max_steps=100))[1]
    assert tab.plan(longer, tokens)["seconds"] == pytest.approx(2 * tab.plan(full, tokens)["seconds"])


def test_a_known_text_is_fetched_with_its_progress_and_chosen(monkeypatch, tmp_path):
    body = b"To be, or not to be. " * 5000
    (tmp_path / "text").write_bytes(body)
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    known = downloads.Download(
        "Ours", "for this test", f"http://127.0.0.1:{server.server_port}/text", len(body), "MIT",
        hashlib.sha256(body).hexdigest(), name="ours",
    )  # fmt: skip
    monkeypatch.setitem(downloads.DOWNLOADS, "ours", known)
    try:
        first, *_, (dataset, said) = tab.fetch_known("ours")
    finally:
        server.shutdown()
    assert "<progress" in first[1] and figures.size(len(body)) in first[1]
    assert dataset["value"] == "ours" and "verified by SHA-256" in said
    assert corpora.path("ours").read_bytes() == body
    assert any(
        label.startswith("Tiny Shakespeare") and "public domain" in label for label, _ in tab.known_texts()
    )


def test_a_text_that_cannot_be_fetched_says_so(monkeypatch):
    monkeypatch.setitem(
        downloads.DOWNLOADS,
        "gone",
        downloads.Download("Gone", "", "http://127.0.0.1:9/x", 10, "MIT", name="gone"),
    )
    with pytest.raises(ValueError, match="Gone"):
        list(tab.fetch_known("gone"))


def test_the_card_says_how_and_where_a_run_is_done():
    run = Run.create("train", to_dict(RunConfig()), owner="me", name="far")
    run = run.next_attempt().next_attempt()
    run.append(
        "start", step=0, attempt=2, host="node7 (abcd)", processes=4, threads=1, device="cpu", precision="bf16", max_steps=9
    )  # fmt: skip
    run.append("step", step=1, loss=5.0, seconds=1.0, tokens_per_second=10.0)
    run.beat("node7 (abcd)")
    html = monitor.standing("run:far")["html"]
    for said in (
        "bf16 on cpu, 1 thread",
        "node7 (abcd)",
        "<dt>Processes</dt><dd>4</dd>",
        "<dt>Attempt</dt><dd>2</dd>",
    ):
        assert said in html
    for step in range(2, 1500):  # the start lies far back in the log now
        run.append("step", step=step, loss=4.0, seconds=2.0, tokens_per_second=10.0)
    assert "bf16 on cpu" in monitor.standing("run:far")["html"]


def test_a_run_that_waits_for_a_cluster_that_does_not_answer_says_so():
    Run.create("train", to_dict(RunConfig()), owner="me", name="waits")
    dispatch.note_trouble("The Ray cluster at 10.0.0.9:6379 does not answer: start it.")
    assert "10.0.0.9:6379 does not answer" in monitor.standing("run:waits")["html"]
    dispatch.note_trouble("")
    assert "it is the next one" in monitor.standing("run:waits")["html"]
