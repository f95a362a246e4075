"""A loaded model with adapters beside it: each is put on once, then only its strength is turned."""

from __future__ import annotations

from collections.abc import Mapping

from llm import lora, tuned
from llm.model import GPT


def put(model: GPT, base: str, name: str, label: str) -> None:
    """Put the adapter called `name` on the model `base`, silent at first, under `label`.

    Raises ValueError, and leaves the model as it was, when there is none or it belongs to another model.
    """
    adapter = tuned.adapter(name)
    if adapter.classifier:
        raise ValueError(f"The adapter {name} is a classifier's: it tells classes apart and writes no text.")
    try:
        remarks = lora.load(model, adapter.folder, label, base)
    except ValueError as error:
        raise ValueError(f"The adapter {name} cannot be put on {base}. {error}") from None
    lora.set_strength(model, label, 0.0)
    if remarks:
        lora.remove(model, label)
        raise ValueError(
            f"The adapter {name} was made on {adapter.base or 'another model'}, and {base} has other weights: open "
            f"{adapter.base or 'that model'}, or choose an adapter of {base}."
        )


def dialled(model: GPT, base: str, strengths: Mapping[str, float]) -> GPT:
    """The model `base` with these adapters on it, each as strong as said. It shares its weights with `model`.

    Raises ValueError when one does not belong to it, or a strength is outside 0 to 2.
    """
    twin = lora.merged(model)
    for name in strengths:
        put(twin, base, name, name)
    lora.mix(twin, strengths)
    return twin
