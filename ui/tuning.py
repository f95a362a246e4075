"""Tune: what learns of a model and from which rows, what that will cost, and how it goes while it runs."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import gradio as gr

from llm import adapters, commands, corpora, paths, prompts, tokenizer, tuned
from llm.config import LORA_MODULES, Knob, RunConfig, TrainConfig, TuneConfig, from_dict, knobs
from llm.runs import Run, new_name
from llm.tuning_defaults import DEFAULTS, defaults
from ui import forms, pickers, plans, running
from ui.allowed import gate
from ui.figures import tuning as figures
from ui.figures.base import message
from ui.owner import may_read
from ui.parts import Choice, intro, plain_errors, section, show_code
from ui.plans import NotReady
from ui.view import View

FIRST = "instruct"  # the objective that the form opens with
SHARED = (
    "prompt_style",
    "mask_prompt",
    "packing",
    "max_length",
)  # knobs of TuneConfig that stand above the rooms
TRAIN_FIELDS = tuple(k.name for k in knobs(TrainConfig))
TUNE_FIELDS = tuple(k.name for k in knobs(TuneConfig) if k.name not in SHARED)
RUN_FIELDS = ("prompts", "sample_tokens")
FIELDS = (*TRAIN_FIELDS, *TUNE_FIELDS, *RUN_FIELDS)  # the order in which handlers take the widgets
LEARNS = [("Everything", "all"), ("The last blocks", "last"), ("An adapter (LoRA)", "lora")]
LORA = tuple(name for name in TUNE_FIELDS if name.startswith("lora_"))
PANELS = ("loss", "perplexity", "accuracy", "reward_margin", "rewards", "reward_accuracy", "old_loss")
ROOM = running.Room(
    belongs=lambda config: bool(config.get("start_from")) or running.is_tuning(config),
    exemplary=lambda start: running.is_tuning(start) or start.get("trained", "all") != "all",
)


# --- what the form says


def hides(objective: str, values: dict[str, Any]) -> dict[str, bool]:
    """Each field that some choice makes meaningless, and whether these do."""
    lora, answers = values["trained"] == "lora", objective in ("instruct", "prefer")
    return {
        "last_blocks": values["trained"] != "last",
        **dict.fromkeys(LORA, not lora),
        **dict.fromkeys(("preference_loss", "beta"), objective != "prefer"),
        "label_smoothing": objective != "prefer" or values["preference_loss"] != "dpo",
        "questions": not answers,
        "prompts": objective != "pretrain",
        "sample_tokens": objective == "classify",
        "windows": objective != "pretrain",
        "stride": objective != "pretrain",
        "matrix_learning_rate": lora or values["optimizer"] != "muon",
        "min_learning_rate": values["schedule"] == "constant",
    }


def matters(objective: str, values: dict[str, Any]) -> set[str]:
    """The fields that change anything for this objective and these choices: the others are hidden and left alone."""
    hidden = hides(objective, values)
    return {name for name in FIELDS if not hidden.get(name)}


def settings(
    objective: str | None, model: str | None, dataset: str | None, style: str, mask_prompt: bool, packing: bool,
    max_length: Any,     *values: Any,
) -> RunConfig:  # fmt: skip
    """The run that shared controls and form describe. Raises NotReady or ValueError.

    `values` hold the widgets of FIELDS. What does not matter takes its default, whatever a hidden widget holds.
    """
    if objective not in DEFAULTS:
        raise NotReady("Choose what is to be learnt")
    if not model:
        raise NotReady("Choose a model to start from")
    if not dataset:
        raise NotReady("Choose a dataset")
    given = dict(zip(FIELDS, values, strict=True))
    given["lora_modules"] = "\n".join(given["lora_modules"] or ())
    used = matters(objective, given)
    if "lora_modules" in used and not given["lora_modules"]:
        raise NotReady("Choose at least one matrix for the adapter")

    def read(cls: type, fields: Sequence[str], **others: Any) -> Any:
        names = [name for name in fields if name in used]
        return forms.read(cls, names, [given[name] for name in names], **others)

    others: dict[str, Any] = {}
    if objective in ("instruct", "prefer"):
        others["prompt_style"] = str(style or "")
    if objective == "instruct":
        others |= {"mask_prompt": bool(mask_prompt), "packing": bool(packing)}
    if objective != "pretrain":
        length = next(knob for knob in knobs(TuneConfig) if knob.name == "max_length")
        others["max_length"] = forms.converted(length, 0 if max_length in (None, "") else max_length)
    return read(
        RunConfig, RUN_FIELDS, objective=objective, start_from=model, dataset=dataset,
        train=read(TrainConfig, TRAIN_FIELDS), tune=read(TuneConfig, TUNE_FIELDS, **others),
    )  # fmt: skip


@functools.lru_cache(maxsize=16)
def _examples(
    dataset: str, modified: int, changed: int, objective: str, model: str, style: str, most: int, share: float
) -> prompts.Examples:
    """The rows of a dataset as a run takes them; `modified` and `changed` tell one state of dataset and model from another."""
    folder = paths.model_folder(model)
    config = RunConfig(dataset=dataset, objective=objective, start_from=model)
    config = replace(
        config,
        train=replace(config.train, validation_fraction=share),
        tune=replace(config.tune, prompt_style=style, max_length=most),
    )
    context = plans.shape_of(model).context_length
    return prompts.examples(config, tokenizer.load(folder), folder, context)


def examples_of(config: RunConfig) -> prompts.Examples:
    """The rows of `config` as its run will take them. Raises ValueError as the run does."""
    tune, folder = config.tune, paths.model_folder(config.start_from)
    modified = corpora.row_path(config.dataset).stat().st_mtime_ns
    changed = (folder / "config.json").stat().st_mtime_ns
    return _examples(
        config.dataset, modified, changed, config.objective, config.start_from, tune.prompt_style, tune.max_length,
        config.train.validation_fraction,
    )  # fmt: skip


def ready(*form: Any) -> tuple[RunConfig, RunConfig, dict[str, Any]]:
    """The form's run as it will be stored, the same with its model's shape, and what is known of its rows.

    Raises ValueError with what the run itself would refuse, in its words.
    """
    config = settings(*form)
    full = plans.resolved(config)
    adapters.check(full)
    if config.objective == "pretrain":
        tokens = plans.token_count(full)
        plans.check_text(full)
        about = {
            "learned": f"Text: about {tokens:,} tokens, {config.train.validation_fraction:.0%} of them to validate on.",
            "amount": tokens * (1 - config.train.validation_fraction) / full.model.context_length,
            "notes": [],
            "labels": 0,
        }
    else:
        about = about_rows(full)
    if old := config.tune.old_dataset:
        watch = replace(full, dataset=old, train=replace(full.train, drop_last=False))
        try:
            plans.check_text(watch)
        except NotReady as error:
            raise NotReady(error.label, f"The old text {old} cannot be watched. {error}") from None
    return config, full, about


def about_rows(config: RunConfig) -> dict[str, Any]:
    """What is known of a run's rows: said in a sentence, how many learn, notes, classes. Raises ValueError."""
    found = examples_of(config)
    if config.objective == "classify":
        prompts.check_labels(found)
    parts = {name: len(part) for name, part in found.parts.items()}
    notes = list(found.notes)
    if parts["train"] < config.train.batch_size:
        notes.append(f"A batch will have all {parts['train']:,} rows, not {config.train.batch_size:,}.")
    if not parts["validation"]:
        notes.append(
            "No row is left to validate on: there will be no validation loss, no best model and no early stop."
        )
    if found.labels:
        shown = ", ".join(found.labels[:8]) + (", …" if len(found.labels) > 8 else "")
        notes.append(f"{len(found.labels)} classes: {shown}.")
    return {
        "learned": figures.rows_left(parts, len(found.rejected), len(found.truncated)),
        "amount": parts["train"],
        "notes": notes,
        "labels": len(found.labels),
    }


CHANGING = tuple(hides(FIRST, dict.fromkeys(FIELDS, "")))


# --- what Start will do


def preview(name: str, *form: Any) -> list[Any]:
    """The plan, the remark, the command and the Start button for what the form holds now."""
    try:
        config, full, about = ready(*form)
        if name:
            running.free_name(name)
    except ValueError as error:
        return plans.refused(error)
    command = commands.command_line("train", name or new_name(config.dataset), config)
    return [figures.plan(plan(full, about)), "", command, gr.update(value="Start tuning", interactive=True)]


def plan(config: RunConfig, about: dict[str, Any]) -> dict[str, Any]:
    """What is known of a run before it starts: formulas at once, measured values when they have been taken."""
    size = adapters.counts(config, about["labels"])
    known = {
        "trainable": size.trainable,
        "frozen": size.frozen,
        "passes": config.train.max_steps
        * min(config.train.batch_size, about["amount"])
        / max(about["amount"], 1),
        "learned": about["learned"],
        "notes": about["notes"],
        "way": config.tune.trained,
    }
    if found := plans.measured(config, tuning=True):
        known |= {name: found[name] for name in ("ways", "threads", "precision")}
        known["seconds"] = found["seconds_per_step"] * config.train.max_steps
    return known


def measure(*form: Any) -> str:
    """Make a few steps of such a tuning in a process of its own and keep what they cost; "" or what failed."""
    try:
        _, config, _ = ready(*form)
    except ValueError:
        return ""
    return plans.measure(config, tuning=True)


def planned(failed: str, *form: Any) -> Any:
    """The plan of what the form holds now, which may be another run than the one that was just measured."""
    try:
        _, config, about = ready(*form)
    except ValueError:
        return gr.skip()
    known = plan(config, about)
    if failed and failed == plans.measurement_path(config, tuning=True).name:
        known["remark"] = "This tuning could not be measured on this machine."
    return figures.plan(known)


def start(request: gr.Request, name: str, *form: Any) -> list[Any]:
    """Start the run that the form describes. A double click is one run.

    Raises ValueError with one sentence when the form is not ready.
    """
    config, _, _ = ready(*form)
    return ROOM.begin(request, name, config)


def choose_objective(objective: str, *values: Any) -> list[Any]:
    """The form's values for this objective, by the table of defaults; what is the same already is left alone."""
    config = defaults(objective if objective in DEFAULTS else FIRST)
    wanted = [value_of(config, name) for name in FIELDS]
    return [gr.skip() if value == now else value for value, now in zip(wanted, values, strict=True)]


def value_of(config: RunConfig, name: str) -> Any:
    """A field's value as its widget holds it."""
    part = config.train if name in TRAIN_FIELDS else config.tune if name in TUNE_FIELDS else config
    value = getattr(part, name)
    return list(value) if name == "lora_modules" else forms.shown(value)


def show_what_matters(objective: str, *values: Any) -> list[Any]:
    """Hide every widget that changes nothing, and say what the adapter's product is multiplied by."""
    given = dict(zip(FIELDS, values, strict=True))
    return [*(gr.update(visible=not hidden) for hidden in hides(objective, given).values()), effect(given)]


def effect(given: dict[str, Any]) -> Any:
    """What B A is multiplied by under each scaling, for the rank and alpha that the form holds; hidden without LoRA."""
    try:
        rank, alpha = int(given["lora_rank"]), float(given["lora_alpha"])
        factors = {name: factor(alpha, rank) for name, factor in adapters.SCALINGS.items()}
    except (TypeError, ValueError, ZeroDivisionError):  # half typed
        factors, rank, alpha = {}, 0, 0.0
    shown = given["trained"] == "lora" and bool(factors)
    html = figures.scalings(rank, alpha, factors, given["lora_scaling"]) if shown else ""
    return gr.update(value=html, visible=shown)


# --- what a run has made


def seen(request: gr.Request, shown: str) -> str:
    """What the shown run's adapter holds, and the memory it took: forecast and measured. "" where there is nothing yet."""
    source = running.source_of(shown or "")
    if not source or not running.visible_to(source, request):
        return ""
    name = shown.removeprefix("model:")
    return memory_of(name, source) + adapter_of(name)


def adapter_of(name: str) -> str:
    """The picture of the adapter of a run or a built-in model; "" when it has none, a sentence when it cannot be put on its base."""
    from llm import engine

    try:
        found = tuned.adapter(name)
    except ValueError:
        return ""
    try:
        values = engine.get().call("adapter", found.base, folder=str(found.folder), base=found.base)
    except ValueError as error:
        return message(str(error), "warning")
    return figures.adapter(name, found.base, values)


def memory_of(name: str, source: str) -> str:
    """Memory by part of an ended run, beside what was forecast of it when that was measured here."""
    from ui import monitor
    from ui.live import log_of

    try:
        log = log_of(source)
        end = monitor.newest(monitor.tail(log), "end")
    except (ValueError, OSError):
        return ""
    if not end or not end.get("memory"):
        return ""
    forecast = None
    if source.startswith("run:"):
        try:
            full = plans.resolved(from_dict(RunConfig, Run.open(name).config))
            forecast = (plans.measured(full, tuning=True) or {}).get("memory")
        except ValueError:  # the model it started from has gone
            pass
    return figures.memory_after(forecast, end["memory"])


# --- the page


class Shared(Protocol):
    """The controls above all rooms of the tab."""

    objective: gr.Radio
    form: list[gr.components.Component]  # objective, model, dataset, style, mask_prompt, packing, max_length


@dataclass(frozen=True)
class Controls:
    """The widgets of the left column: those that make a run, and what shows what it will be."""

    name: gr.Textbox
    form: list[gr.components.Component]  # the shared ones, then FIELDS
    scalings: gr.HTML
    plan: gr.HTML
    remark: gr.HTML
    command: gr.Code
    start: gr.Button
    failed: gr.State  # the measurement that could not be made

    @property
    def fields(self) -> list[gr.components.Component]:
        """The widgets of FIELDS."""
        return self.form[-len(FIELDS) :]

    @property
    def changing(self) -> list[gr.components.Component]:
        """The outputs of `show_what_matters`: the widgets that come and go, what an adapter's product is multiplied by."""
        return [*(self.fields[FIELDS.index(name)] for name in CHANGING), self.scalings]


KNOBS: dict[str, Knob] = {k.name: k for cls in (TrainConfig, TuneConfig, RunConfig) for k in knobs(cls)}
INFO = {  # where a field's own help speaks of something else than tuning
    "batch_size": "Rows a step; of a plain text, windows",
    "trained": "All weights; the last blocks and the final norm; or small matrices beside frozen ones",
    "lora_modules": "all: every matrix inside the blocks",
    "lora_scaling": "What B A is multiplied by",
}
SIMPLE = ("max_steps", "batch_size", "learning_rate", "matrix_learning_rate", "eval_every", "seed")


def widget(name: str, opening: RunConfig) -> gr.components.Component:
    """The widget of one field: by its knob, but where a list of what there is says more."""
    knob, value = KNOBS[name], value_of(opening, name)
    options = {
        "label": forms.title(name),
        "info": INFO.get(name, knob.help),
        "value": value,
        "elem_id": f"tune-{name}",
        "visible": name in matters(opening.objective, {n: value_of(opening, n) for n in FIELDS}),
        "interactive": True,
    }
    if name == "trained":
        return gr.Radio(LEARNS, **options)
    if name == "lora_modules":
        return gr.Dropdown(list(LORA_MODULES), multiselect=True, **options)
    if name == "old_dataset":
        return gate(Choice([("nothing", ""), *pickers.dataset_names()], **options), may_read)
    made = forms.widget(knob, f"tune-{name}", value)
    made.info, made.visible = options["info"], options["visible"]
    return made


def lay(names: Sequence[str], opening: RunConfig, columns: int = 2) -> dict[str, gr.components.Component]:
    """Widgets in rows."""
    made = {}
    for first in range(0, len(names), columns):
        with gr.Row(equal_height=True):
            for name in names[first : first + columns]:
                made[name] = widget(name, opening)
    return made


def controls(view: View, shared: Shared) -> Controls:
    """Lay out the left column and wire what happens before Start."""
    opening = defaults(FIRST)
    made = lay(("trained",), opening, 1)
    made |= lay(("last_blocks",), opening)
    made |= lay(("lora_rank", "lora_alpha"), opening)
    scalings = gr.HTML(padding=False, visible=False, elem_id="tune-scalings")
    made |= lay(("lora_modules",), opening, 1)
    made |= lay(("lora_scaling", "lora_dropout"), opening)
    made |= lay(("lora_dora",), opening)
    made |= lay(("preference_loss", "beta", "label_smoothing"), opening)
    made |= lay(SIMPLE, opening)
    made |= lay(("patience", "keep_best"), opening)
    made |= lay(("old_dataset",), opening, 1)
    with gr.Accordion("More settings", open=False, elem_classes="lab-quiet"):
        made |= lay([name for name in FIELDS if name not in made], opening)
        name = gr.Textbox(label="Name of the run (optional)", max_lines=1, elem_id="tune-name")
    fields = [made[field] for field in FIELDS]
    for field, box in zip(FIELDS, fields):
        view.keep(field, box)
    plan_box = gr.HTML(padding=False, elem_id="tune-plan")
    remark = gr.HTML(padding=False, elem_id="tune-remark")
    button = running.start_button("tune")
    with gr.Accordion("The command that Start runs", open=False, elem_classes="lab-quiet"):
        command = gr.Code(
            language="shell",
            interactive=False,
            show_label=False,
            wrap_lines=True,
            lines=2,
            elem_id="tune-command",
        )
    form = [*shared.form, *fields]
    found = Controls(name, form, scalings, plan_box, remark, command, button, gr.State(""))
    quiet = dict(api_visibility="private", show_progress="hidden", queue=False)
    asked = [shared.objective, *fields]
    shared.objective.input(choose_objective, asked, fields, **quiet)
    choices = (
        "trained",
        "schedule",
        "preference_loss",
        "optimizer",
        "lora_rank",
        "lora_alpha",
        "lora_scaling",
    )
    gr.on(
        [shared.objective.change, *(made[choice].change for choice in choices)],
        show_what_matters, asked, found.changing, trigger_mode="always_last", **quiet,
    )  # fmt: skip
    foresee(found)
    return found


def foresee(made: Controls) -> None:
    """Redraw the plan whenever a setting changes, then measure what is not measured yet."""
    changed = gr.on(
        [widget.change for widget in (made.name, *made.form)],
        preview, [made.name, *made.form], [made.plan, made.remark, made.command, made.start],
        api_visibility="private", show_progress="hidden", queue=False, trigger_mode="always_last",
    )  # fmt: skip
    changed.then(
        measure, made.form, made.failed, api_visibility="private", show_progress="hidden", concurrency_id="forecast",
        concurrency_limit=1, trigger_mode="always_last",
    ).then(
        planned, [made.failed, *made.form], made.plan, api_visibility="private", show_progress="hidden", queue=False
    )  # fmt: skip


def build(view: View, shared: Shared) -> None:
    """Lay out the room and wire it."""
    intro(
        "What learns, out of how much, and what that does to the answers on rows that the model has not seen.",
        "Start the form as it stands, then the same with an adapter (LoRA), and lay one over the other.",
    )
    shown, others = running.names(view, "tune")
    with gr.Row(elem_classes="train-room"):
        with gr.Column(scale=4, min_width=320, elem_classes="train-form"):
            made = controls(view, shared)
        with gr.Column(scale=7, min_width=320):
            watched = running.watched(shown, others, "tune", PANELS)
            section(
                "What the run has made",
                "The memory it took by part, and what its adapter holds when it has one.",
            )
            held = gr.HTML(padding=False, apply_default_css=False, elem_id="tune-seen", min_height=40)
    show_code(
        "llm.lora:Pair",
        "llm.lora:LoRALinear.forward",
        "llm.lora:singular_values",
        label="Show the code: LoRA",
    )
    show_code(
        "llm.losses:next_token",
        "llm.losses:classes",
        "llm.losses:preference",
        label="Show the code: the losses",
    )
    show_code(
        "llm.prompts:padded", "llm.prompts:packed", "llm.model:packed_mask", "llm.prompts:write",
        label="Show the code: what is masked",
    )  # fmt: skip

    running.wire(view, ROOM, watched)
    asked = [made.name, *made.form]
    view.on_load(show_what_matters, made.changing, [shared.objective, *made.fields])
    view.on_load(preview, [made.plan, made.remark, made.command, made.start], asked)
    view.on_load(measure, made.failed, made.form, slow=True)
    view.on_load(planned, made.plan, [made.failed, *made.form])
    made.start.click(
        plain_errors(start), asked, [shown, others, *watched.views], api_visibility="private",
        show_progress="hidden", queue=False,
    )  # fmt: skip
    gr.on(
        [shown.change, watched.monitor.input],
        seen,
        shown,
        held,
        api_visibility="private",
        show_progress="minimal",
    )
