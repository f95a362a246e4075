"""Config dataclasses as forms: one widget a knob, and the widgets' values back into the dataclass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import gradio as gr

from llm.config import Knob, knobs


@dataclass(frozen=True)
class Form:
    """The widgets of one config class, in the order of its knobs."""

    cls: type
    names: tuple[str, ...]
    widgets: tuple[gr.components.Component, ...]

    def __getitem__(self, name: str) -> gr.components.Component:
        return self.widgets[self.names.index(name)]

    def config(self, values: Sequence[Any], **others: Any) -> Any:
        """A `cls` from the widgets' values; `others` are fields without a widget. Raises ValueError with a sentence."""
        return read(self.cls, self.names, values, **others)

    def updates(self, config: Any) -> list[Any]:
        """One update a widget, so that the form shows `config`."""
        return [gr.update(value=shown(getattr(config, name))) for name in self.names]


def title(name: str) -> str:
    """The label of a knob: "learning_rate" -> "Learning rate", by the words of the field."""
    special = {
        "n_layer": "Layers (n_layer)",
        "n_head": "Heads (n_head)",
        "n_kv_head": "Key/value heads (n_kv_head)",
        "n_embd": "Width (n_embd)",
        "mlp": "MLP",
        "mlp_hidden": "MLP width",
        "qkv_bias": "q, k, v biases",
        "rope_theta": "RoPE base (theta)",
        "trained": "What learns",
        "last_blocks": "Last blocks that learn",
        "lora_rank": "Rank (r)",
        "lora_alpha": "Alpha",
        "lora_dropout": "LoRA dropout",
        "lora_scaling": "Scaling of B A",
        "lora_dora": "DoRA",
        "lora_modules": "Matrices with an adapter",
        "old_dataset": "Watch for forgetting",
        "questions": "Questions at each evaluation",
    }
    words = name.replace("_", " ").replace("grad ", "gradient ").replace("eval ", "evaluation ")
    return special.get(name) or words[:1].upper() + words[1:]


def shown(value: Any) -> Any:
    """A field's value as its widget holds it: several texts stand one a line."""
    return "\n".join(value) if isinstance(value, tuple) else value


def widget(knob: Knob, elem_id: str, default: Any) -> gr.components.Component:
    """The widget that fits a knob's kind and choices. Its range stands in the help, so that any number can be typed."""
    options = {"label": title(knob.name), "value": shown(default), "elem_id": elem_id, "interactive": True}
    if knob.choices:
        kind = gr.Radio if len(knob.choices) <= 2 else gr.Dropdown
        return kind(choices=list(knob.choices), info=knob.help, **options)
    if knob.kind is bool:
        return gr.Checkbox(info=knob.help, **options)
    if knob.kind in (int, float):
        return gr.Number(
            precision=0 if knob.kind is int else None,
            step=1 if knob.kind is int else None,
            info=knob.help,
            **options,
        )
    return gr.Textbox(info=knob.help, lines=2 if knob.kind is tuple else 1, **options)


def form(
    cls: type,
    prefix: str,
    names: Sequence[str] | None = None,
    advanced: bool | None = None,
    defaults: Any = None,
    columns: int = 2,
) -> Form:
    """Lay out the widgets of `cls` in rows of `columns`, inside the current Gradio block.

    `names` picks knobs and their order; `advanced` False or True takes only the simple or only the advanced ones.
    `defaults` is a config whose values the form opens with.
    """
    known = {knob.name: knob for knob in knobs(cls)}
    chosen = [known[name] for name in names] if names is not None else list(known.values())
    chosen = [knob for knob in chosen if advanced is None or knob.advanced == advanced]
    widgets = []
    for start in range(0, len(chosen), columns):
        with gr.Row(equal_height=True):
            for knob in chosen[start : start + columns]:
                default = knob.default if defaults is None else getattr(defaults, knob.name)
                widgets.append(widget(knob, f"{prefix}-{knob.name}", default))
    return Form(cls, tuple(knob.name for knob in chosen), tuple(widgets))


def merged(*forms: Form) -> Form:
    """Forms of one class laid out in several places (simple and advanced) as one."""
    (cls,) = {f.cls for f in forms}
    return Form(cls, sum((f.names for f in forms), ()), sum((f.widgets for f in forms), ()))


def read(cls: type, names: Sequence[str], values: Sequence[Any], **others: Any) -> Any:
    """A config from what widgets hold. Raises ValueError, naming the field, for what is empty or no number."""
    known = {knob.name: knob for knob in knobs(cls)}
    fields = {name: converted(known[name], value) for name, value in zip(names, values)}
    return cls(**{**fields, **others})


def converted(knob: Knob, value: Any) -> Any:
    """A widget's value as the knob's kind. Raises ValueError with one sentence."""
    name = title(knob.name)
    if knob.kind is bool:
        if not isinstance(value, bool):
            raise ValueError(f"{name} is a switch: on or off, not {str(value)[:40]!r}.")
        return value
    if knob.kind is tuple:
        return tuple(line for line in str(value or "").split("\n") if line.strip())
    if knob.kind is str:
        return str(value or "")
    if value is None or value == "":
        raise ValueError(f"{name} is empty: enter {wanted(knob)}.")
    if isinstance(value, (bool, list, dict)):
        raise ValueError(f"{name} needs {wanted(knob)}, not {str(value)[:40]!r}.")
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name} needs {wanted(knob)}, not {str(value)[:40]!r}.") from None
    if knob.kind is float:
        return number
    if number != number or number in (float("inf"), float("-inf")) or number != int(number):
        raise ValueError(f"{name} needs {wanted(knob)}, not {str(value)[:40]}.")
    return int(number)


def wanted(knob: Knob) -> str:
    """What a number field takes, in words: "a whole number from 1 to 256"."""
    kind = "a whole number" if knob.kind is int else "a number"
    if knob.low is not None and knob.high is not None:
        return f"{kind} from {knob.low:g} to {knob.high:g}"
    return f"{kind} from {knob.low:g}" if knob.low is not None else kind


def preset(cls: type, values: dict[str, Any]) -> Any:
    """The defaults of `cls` with `values` on top."""
    return replace(cls(), **values)
