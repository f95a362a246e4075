"""The Tune room without a browser: what the form becomes, what Start says, what chart, monitor and pictures answer."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import shlex
from types import SimpleNamespace

import gradio as gr
import pytest
import torch

from llm import adapters, checkpoint, commands, dispatch, engine, job, lora, paths, tokenizer, train
from llm.config import ModelConfig, RunConfig, TrainConfig, TuneConfig, from_dict, knobs
from llm.model import GPT
from llm.runs import Run
from llm.tuning_defaults import DEFAULTS, defaults
from ui import live, monitor, plans, running, tuning
from ui.figures import train as train_figures
from ui.figures import tuning as figures
from ui.owner import COOKIE, sign

BYTE = tokenizer.get("byte")
TINY = dict(
    max_steps=4, warmup_steps=1, batch_size=4, eval_every=2, precision="fp32", threads=1, optimizer="adamw",
    learning_rate=1e-2, min_learning_rate=1e-3, validation_fraction=0.2, sample_tokens=3, matrix_learning_rate=0.01,
)  # fmt: skip


def visitor(name: str):
    """A request as Gradio hands it over, with the signed cookie of this visitor."""
    return SimpleNamespace(cookies={COOKIE: sign(name)}, query_params={})


@pytest.fixture(autouse=True)
def base(home):
    """A model of width 16 to start from."""
    torch.manual_seed(3)
    shape = ModelConfig(vocab_size=BYTE.vocab_size, n_layer=2, n_head=2, n_embd=16, context_length=48)
    checkpoint.save_model(paths.models() / "tiny", GPT(shape), BYTE, "")
    return "tiny"


@pytest.fixture
def queued(monkeypatch):
    """Runs only wait: no process is started."""
    monkeypatch.setattr(dispatch, "pump", lambda: [])


def dataset(name, rows):
    (paths.datasets() / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return name


def instructions(n=20):
    return dataset("asked", [{"instruction": f"say {i}", "output": f"{i}" * 2} for i in range(n)])


def pairs(n=20):
    return dataset(
        "pairs", [{"prompt": f"say {i}", "chosen": f"{i}", "rejected": f"not {i}"} for i in range(n)]
    )


def classes(n=20, labels=("glad", "sad")):
    rows = [{"text": f"{i} is {labels[i % len(labels)]}", "label": labels[i % len(labels)]} for i in range(n)]
    return dataset("classes", rows)


def form(
    objective="instruct", data=None, model="tiny", style="plain", mask=True, packing=False, most=0, **changes
):
    """The values of the whole form, tiny and with the changes."""
    data = data or {"instruct": instructions, "prefer": pairs, "classify": classes}[objective]()
    given = {name: tuning.value_of(defaults(objective), name) for name in tuning.FIELDS} | TINY | changes
    return [objective, model, data, style, mask, packing, most, *(given[name] for name in tuning.FIELDS)]


def label(*asked):
    """What the Start button says, and whether it can be pressed."""
    button = tuning.preview("", *asked)[3]
    return button["value"], button["interactive"]


# --- the form --------------------------------------------------------------------------------------------------------


def test_every_knob_stands_in_the_form_or_above_it():
    assert set(tuning.TRAIN_FIELDS) == {k.name for k in knobs(TrainConfig)}
    assert set(tuning.TUNE_FIELDS) | set(tuning.SHARED) == {k.name for k in knobs(TuneConfig)}


@pytest.mark.parametrize("objective", ["instruct", "classify", "prefer"])
@pytest.mark.parametrize("trained", ["all", "last", "lora"])
def test_the_command_shown_gives_the_run_that_start_makes(objective, trained, queued):
    asked = form(objective, trained=trained, lora_rank=4, lora_modules=["q", "up"])
    command = tuning.preview("mine", *asked)[2]
    tuning.start(visitor("me"), "mine", *asked)
    run = Run.open("mine")
    assert shlex.split(command) == commands.command(run)
    config = from_dict(RunConfig, run.config)
    assert (config.objective, config.start_from, config.tune.trained) == (objective, "tiny", trained)
    assert config.tune.lora_modules == (("q", "up") if trained == "lora" else ("all",))
    assert run.name in [r.name for r in tuning.ROOM.own_runs(visitor("me"))]


def test_what_does_not_matter_is_hidden_and_left_alone():
    values = dict(
        zip(tuning.FIELDS, form("instruct", lora_rank=999, label_smoothing=0.3, preference_loss="ipo")[7:])
    )
    used = tuning.matters("instruct", values)
    assert not used & {
        "lora_rank",
        "beta",
        "label_smoothing",
        "windows",
        "last_blocks",
        "matrix_learning_rate",
    }
    assert {"questions", "patience", "old_dataset"} <= used
    config = tuning.settings(*form("instruct", lora_rank=999, label_smoothing=0.3, preference_loss="ipo"))
    assert config.tune == TuneConfig(prompt_style="plain")
    assert "lora_rank" in tuning.matters("instruct", values | {"trained": "lora"})
    assert "label_smoothing" in tuning.matters("prefer", values | {"preference_loss": "dpo"})
    assert "label_smoothing" not in tuning.matters("prefer", values)
    updates = tuning.show_what_matters("prefer", *form("prefer", trained="lora")[7:])
    shown = {name for name, update in zip(tuning.CHANGING, updates) if update["visible"]}
    assert {"beta", "lora_alpha"} <= shown and "sample_tokens" in shown and "prompts" not in shown


@pytest.mark.parametrize("objective", DEFAULTS)
def test_an_objective_opens_with_its_row_of_the_table(objective):
    config = defaults(objective)
    given = dict(zip(tuning.FIELDS, tuning.choose_objective(objective, *[None] * len(tuning.FIELDS))))
    assert not [
        v for v in tuning.choose_objective(objective, *given.values()) if v != gr.skip()
    ]  # all the same already
    assert {name: given[name] for name in DEFAULTS[objective]["train"]} == DEFAULTS[objective]["train"]
    data = config.dataset
    asked = [
        objective,
        "story-llama",
        data,
        config.tune.prompt_style,
        config.tune.mask_prompt,
        config.tune.packing,
        0,
        *given.values(),
    ]
    assert tuning.settings(*asked) == config  # nothing is lost on the way through the form


def test_each_scaling_says_what_the_product_is_multiplied_by():
    given = dict(zip(tuning.FIELDS, form("instruct", trained="lora", lora_rank=16, lora_alpha=32.0)[7:]))
    html = tuning.effect(given)["value"]
    cells = re.findall(r"<td class=num>([\d.]+)</td>", html)
    assert [float(cell) for cell in cells] == pytest.approx([32 / 16, 32, 32 / math.sqrt(16)])
    assert not tuning.effect(given | {"trained": "all"})["visible"]
    assert not tuning.effect(given | {"lora_rank": None})["visible"]  # half typed


# --- what Start says -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (dict(model=None), "Choose a model to start from"),
        (dict(data=""), "Choose a dataset"),
        (dict(trained="lora", lora_rank=17), "A rank of 17 is above the model's width of 16"),
        (dict(trained="lora", lora_modules=[]), "Choose at least one matrix for the adapter"),
        (dict(trained="lora", lora_modules=["qkv", "q"]), "qkv is q, k and v together"),
        (dict(trained="last", last_blocks=3), "The last 3 blocks cannot learn: the model has 2."),
        (dict(old_dataset="nowhere"), "nowhere"),
        (dict(style="own"), "has no chat template"),
        (dict(learning_rate=None), "Learning rate is empty"),
        (dict(warmup_steps=9), "The warm-up takes 9 of 4 steps"),
        (dict(most=3), "no answer token is left"),
    ],
)
def test_the_page_refuses_what_the_run_would_refuse(changes, sentence, queued):
    if "data" in changes:
        changes["data"] = None
        asked = form()
        asked[2] = None
    else:
        asked = form(**changes)
    plan, remark, command, button = tuning.preview("", *asked)
    assert not button["interactive"] and not plan and not command
    assert sentence in remark.replace("&#x27;", "'") or sentence in button["value"]
    with pytest.raises(ValueError, match=re.escape(sentence)):
        tuning.start(visitor("me"), "", *asked)
    assert not tuning.ROOM.own_runs(visitor("me"))


def test_the_sentences_of_the_page_are_those_of_the_run():
    """The same configs, given to the loop itself, end with the same words."""
    for changes in (
        dict(trained="lora", lora_rank=17), dict(trained="last", last_blocks=3), dict(most=3),
        dict(trained="lora", lora_modules=["qkv", "q"]),
    ):  # fmt: skip
        asked = form(**changes)
        with pytest.raises(ValueError) as page:
            tuning.ready(*asked)
        with pytest.raises(ValueError) as run:
            train.work(made(tuning.settings(*asked)))
        assert str(page.value) == str(run.value)
    for labels, modules in ((("one",), ["all"]), (("glad", "sad"), ["all", "output"])):
        asked = form("classify", classes(20, labels), trained="lora", lora_rank=2, lora_modules=modules)
        with pytest.raises(ValueError) as page:
            tuning.ready(*asked)
        with pytest.raises(ValueError) as run:
            train.work(made(tuning.settings(*asked)))
        assert str(page.value) == str(run.value)


def made(config: RunConfig) -> Run:
    from llm.config import to_dict

    return Run.create("train", to_dict(config), owner="me")


def test_ten_rows_and_an_empty_validation_split_are_said_not_refused():
    few = form("instruct", instructions(10), batch_size=16)
    plan, _, _, button = tuning.preview("", *few)
    assert button == {"value": "Start tuning", "interactive": True, "__type__": "update"}
    left = re.search(r"Rows: (\d+) to learn from", plan)
    assert f"A batch will have all {left[1]} rows, not 16." in plan
    none = form("instruct", instructions(10), validation_fraction=0.0)
    assert "no validation loss, no best model and no early stop" in tuning.preview("", *none)[0]


def test_rows_left_out_are_counted_with_the_reason():
    rows = [{"instruction": f"say {i}", "output": f"{i}"} for i in range(12)] + [
        {"instruction": "say", "output": ""}
    ]
    plan = tuning.preview("", *form("instruct", dataset("holes", rows)))[0]
    assert "1 not used" in plan and "row 13" in plan


@pytest.mark.parametrize("trained", ["all", "last", "lora"])
@pytest.mark.parametrize("objective", ["instruct", "classify"])
def test_trainable_and_frozen_by_formula_are_those_of_the_run(trained, objective):
    asked = form(objective, trained=trained, lora_rank=2, max_steps=2, eval_every=2)
    config, full, about = tuning.ready(*asked)
    known = tuning.plan(full, about)
    run = made(config)
    assert job.guarded(run, train.work) == 0
    begun = next(e for e in run.events() if e["kind"] == "start")
    assert begun["trainable"] == known["trainable"]
    assert begun["parameters"] == known["trainable"] + known["frozen"]
    assert f"Rows: {begun['rows']['train']:,} to learn from" in tuning.preview("", *asked)[0]


def test_a_double_click_is_one_run(queued):
    first = tuning.start(visitor("me"), "", *form())[0]
    assert tuning.start(visitor("me"), "", *form())[0] == first
    assert tuning.start(visitor("me"), "", *form(seed=1))[0] != first


def test_train_and_tune_keep_their_runs_apart(queued):
    from ui.tabs import train as tab

    tuned_run = tuning.start(visitor("me"), "", *form())[0]
    plain = Run.create("train", {"dataset": "x", "train": {"max_steps": 1}}, owner="me", name="plain")
    assert [r.name for r in tuning.ROOM.own_runs(visitor("me"))] == [tuned_run]
    assert [r.name for r in tab.ROOM.own_runs(visitor("me"))] == [plain.name]


def test_the_worked_example_is_a_tuned_model(tmp_path, monkeypatch):
    for name, objective in (("a-base", "pretrain"), ("b-answers", "instruct")):
        folder = tmp_path / "shipped" / name
        folder.mkdir(parents=True)
        (folder / "events.jsonl").write_text(
            json.dumps({"kind": "start", "step": 0, "objective": objective}) + "\n"
        )
    monkeypatch.setattr(paths, "shipped_models", lambda: tmp_path / "shipped")
    assert tuning.ROOM.worked_example() == "model:b-answers"
    from ui.tabs import train as tab

    assert tab.ROOM.worked_example() == "model:a-base"


def test_on_a_space_another_visitors_run_is_out_of_reach(queued, monkeypatch):
    name = tuning.start(visitor("me"), "", *form())[0]
    monkeypatch.setenv("SPACE_ID", "me/lab")
    assert not tuning.ROOM.own_runs(visitor("you")) and tuning.seen(visitor("you"), name) == ""
    with pytest.raises(ValueError, match="There is no run called"):
        tuning.ROOM.stop(visitor("you"), name, "")


# --- measured --------------------------------------------------------------------------------------------------------


def test_the_forecast_is_measured_on_the_rows_and_stands_beside_what_the_run_held(monkeypatch):
    monkeypatch.setenv("LLM_ENGINE", "inline")
    monkeypatch.setattr(engine, "get", lambda: engine.Inline())
    asked = form("instruct", trained="lora", lora_rank=2, lora_modules=["all"])
    assert tuning.measure(*asked) == ""
    config, full, _ = tuning.ready(*asked)
    found = plans.measured(full, tuning=True)
    html = tuning.planned("", *asked)
    assert "LoRA (chosen)" in html and "Measured on these rows" in html
    assert found["ways"]["lora"]["gradients"] < found["ways"]["all"]["gradients"]
    run = made(config)
    assert job.guarded(run, train.work) == 0
    held = run.events()[-1]["memory"]
    for part in ("weights", "gradients"):
        assert held[part] == found["memory"][part]
    assert held["optimizer"] == pytest.approx(
        found["memory"]["optimizer"], rel=0.05
    )  # it counts its steps too
    assert held["process"] > held["weights"]
    after = tuning.seen(visitor("me"), run.name)
    assert "Measured at the end" in after and figures.size(held["weights"]) in after
    assert "LoRA of rank 2 on tiny" in after

    model, _ = checkpoint.load_model(paths.model_folder("tiny"))
    lora.load(model, run.path / "adapter", base="tiny")
    wanted = lora.singular_values(model)
    assert set(wanted) == {f"blocks.{i}.{m}" for i in (0, 1) for m in (
        "attention.qkv q", "attention.qkv k", "attention.qkv v", "attention.out", "mlp.gate", "mlp.up", "mlp.down")}  # fmt: skip
    change = model.get_submodule("blocks.0.mlp.up").pairs("default")[0].product()
    assert wanted["blocks.0.mlp.up"] == pytest.approx(torch.linalg.svdvals(change)[:2].tolist(), rel=1e-3)
    for number in wanted["blocks.0.mlp.up"]:
        assert figures.number(number, 3) in after
    counts = adapters.counts(full)
    assert f"{counts.trainable:,} of {counts.trainable + counts.frozen:,} numbers learn" in after


def test_an_adapter_whose_base_has_gone_or_is_another_says_so(monkeypatch):
    monkeypatch.setattr(engine, "get", lambda: engine.Inline())
    config = tuning.settings(*form("instruct", trained="lora", lora_rank=2, max_steps=2))
    run = made(config)
    assert job.guarded(run, train.work) == 0
    wide = ModelConfig(vocab_size=BYTE.vocab_size, n_layer=2, n_head=2, n_embd=32, context_length=48)
    checkpoint.save_model(paths.models() / "tiny", GPT(wide), BYTE, "")
    said = tuning.adapter_of(run.name)
    assert "lab-warning" in said and "made for another model" in said and "88" in said  # its MLP is that wide


# --- live ------------------------------------------------------------------------------------------------------------


def log(objective, events):
    """A run of this objective with these events."""
    config = {"dataset": "x", "start_from": "tiny", "objective": objective, "train": {"max_steps": 9}}
    run = Run.create("train", config, owner="me", name=objective)
    run.append("start", step=0, objective=objective, max_steps=9)
    for event in events:
        run.append(event.pop("kind"), **event)
    return run


def test_the_chart_gets_the_curves_of_every_objective_and_its_marks():
    log("prefer", [
        {"kind": "evaluate", "step": 0, "val_loss": 0.69, "reward_margin": 0.0, "reward_accuracy": 0.0, "best": True},
        {"kind": "step", "step": 1, "loss": 0.69, "reward_margin": 0.1, "reward_chosen": 0.2, "reward_rejected": 0.1},
        {"kind": "evaluate", "step": 2, "val_loss": 0.5, "reward_margin": 0.3, "reward_accuracy": 0.75, "best": True},
        {"kind": "evaluate", "step": 4, "val_loss": 0.6, "reward_margin": 0.2, "reward_accuracy": 0.5, "best": False},
        {"kind": "end", "step": 4, "reason": "finished", "message": "Stopped early at step 4 (patience 1): ..."},
    ])  # fmt: skip
    news = live.news("run:prefer", 0)
    assert news["curves"]["val_reward_margin"] == [[0, 2, 4], [0.0, 0.3, 0.2]]
    assert news["curves"]["reward_margin"] == [[1], [0.1]] and news["curves"]["reward_chosen"] == [[1], [0.2]]
    assert news["per_token"] is False and news["best"] == [2, 0.5] and news["early"] == 4
    assert "best" not in live.news("run:prefer", news["offset"])
    cards = monitor.standing("run:prefer")["html"]
    assert "Perplexity" not in cards and "Margin, held out" in cards and "step 2" in cards


def test_the_csv_keeps_training_and_validation_apart():
    log("classify", [
        {"kind": "step", "step": 2, "loss": 0.6, "accuracy": 0.5},
        {"kind": "evaluate", "step": 2, "val_loss": 0.7, "accuracy": 0.25, "old_loss": 3.5, "perplexity": None, "best": True},
    ])  # fmt: skip
    (row,) = csv.DictReader(io.StringIO(live.table(["run:classify"])))
    assert (row["accuracy"], row["val_accuracy"], row["old_loss"]) == ("0.5", "0.25", "3.5")
    assert (
        row["perplexity"] == "" and row["best"] == "True"
    )  # exp of a loss of classes is no perplexity of a text
    log("instruct", [{"kind": "evaluate", "step": 1, "val_loss": 2.0}])
    (row,) = csv.DictReader(io.StringIO(live.table(["run:instruct"])))
    assert float(row["perplexity"]) == pytest.approx(math.exp(2))


def test_an_answer_stands_beside_the_wanted_one():
    texts = [
        {"prompt": "Plural of <fox>?", "text": " foxes\n", "wanted": "foxes"},
        {"prompt": "Plural of cow?", "text": "", "wanted": "cows"},
        {"prompt": "Long ago", "text": ", a fox"},
    ]
    html = train_figures.samples(3, texts)
    first, second, third = re.split(r"(?=Plural of cow|<blockquote)", html)
    assert "as wanted" in first and "&lt;fox&gt;" in first
    assert (
        "another" in second
        and "(nothing)" in second
        and "<dd translate='no' tabindex='0'>cows</dd>" in second
    )
    assert "Wanted" not in third


def test_a_position_says_what_is_told_apart():
    worked = {
        "target": 1, "target_text": "sad", "logit": 1.0, "log_sum_exp": 3.0, "probability": math.exp(-2), "loss": 2.0,
        "context": "{a} text", "top": [{"id": 1, "text": "sad", "logit": 1.0, "probability": math.exp(-2)}],
    }  # fmt: skip
    log("classify", [{"kind": "evaluate", "step": 0, "val_loss": 1.0, "accuracy": 0.5, "position": worked}])
    said = monitor.watch("run:classify", 0)["position"]
    assert "has the label" in said and "{a} text" in said and "equally likely classes" in said
    assert "equally likely tokens" in train_figures.position(0, worked)


def test_nothing_shown_is_no_source():
    assert running.source_of(None) == "" and running.source_of("model:a") == "model:a"


# --- pictures --------------------------------------------------------------------------------------------------------


def test_bars_are_to_scale_and_numbers_stand_beside_them():
    html = figures.spectra(
        {"blocks.0.attention.qkv q": [2.0, 0.5], "blocks.1.mlp.up": [1.0, 0.0], "output": [4.0]}
    )
    heights = [float(h) for h in re.findall(r"height:([\d.]+)%", html)]
    assert heights == [50.0, 12.5, 25.0, 0.0, 100.0]
    assert "layer 0" in html and "layer 1" in html and ">output<" in html and ">q<" in html


def test_what_learns_is_a_share_of_all():
    html = figures.share(250, 750)
    assert "width:25.00%" in html and "250 of 1,000 numbers learn (25.0 %); 750 stand still." in html
