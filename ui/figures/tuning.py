"""Pictures of tuning: what learns against what stands still, memory by part, how loud an adapter is, what it holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ui.figures.base import count, duration, escape, facts, number, size, table

PARTS = ("weights", "gradients", "optimizer", "activations")
WAYS = {"all": "Everything", "last": "Last blocks", "lora": "LoRA"}
EFFECTS = {  # scaling: what it does, in a sentence
    "alpha/r": "a larger rank does not speak louder (the paper, PEFT)",
    "alpha": "every further rank adds at full strength (some books): lower the learning rate with it",
    "alpha/sqrt(r)": "large ranks learn as fast as small ones (rank-stabilised)",
}


def share(trainable: int, frozen: int) -> str:
    """What learns against what stands still, as a bar and in words."""
    whole = trainable + frozen
    part = 100 * trainable / whole if whole else 0.0
    said = f"{trainable:,} of {whole:,} numbers learn ({number(part, 3)} %); {frozen:,} stand still."
    return (
        f"<div class='tune-share' role='img' aria-label='{escape(said)}'><i style='width:{part:.2f}%'></i></div>"
        f"<p class='lab-note'>{escape(said)}</p>"
    )


def scalings(rank: int, alpha: float, factors: Mapping[str, float], chosen: str) -> str:
    """What B A is multiplied by under each scaling at this rank, the chosen one marked."""
    rows = "".join(
        f"<tr{' class=lab-target' if name == chosen else ''}><td>{escape(name)}{' ← chosen' if name == chosen else ''}</td>"
        f"<td class=num>{number(float(factor))}</td><td>{escape(EFFECTS[name])}</td></tr>"
        for name, factor in factors.items()
    )
    return (
        f"<p class='lab-note'>A frozen matrix W answers as W + s·B A. With rank {rank} and alpha {number(float(alpha))}, "
        "s is:</p><div class='lab-scroll' tabindex='0'><table class='lab-table tune-scalings'><thead><tr><th>Scaling</th>"
        f"<th class=num>s</th><th>Effect</th></tr></thead><tbody>{rows}</tbody></table></div>"
    )


def rows_left(parts: Mapping[str, int], n_rejected: int, n_cut: int) -> str:
    """The rows of a dataset in a sentence: by what they are for, left out, cut."""
    named = {"train": "to learn from", "validation": "to validate on", "test": "to test on"}
    said = [f"{n:,} {named.get(part, part)}" for part, n in parts.items() if n or part in named]
    left_out = f"{n_rejected:,} not used" if n_rejected else "none left out"
    return f"Rows: {', '.join(said)}; {left_out}{f'; {n_cut:,} cut at their end' if n_cut else ''}."


def plan(values: dict[str, Any]) -> str:
    """What Start will do, in numbers; what is still being measured is shown as absent.

    Known at once: trainable, frozen, learned (rows, or tokens of a text, in words), passes, notes. Measured: seconds,
    threads, precision, ways (memory by part for each way to learn), way (the chosen one); `remark` says why they are not.
    """
    seconds, ways, way = values.get("seconds"), values.get("ways"), values["way"]
    held = sum(ways[way][part] for part in PARTS) if ways else None
    cards = facts(
        [
            ("Learns", count(values["trainable"])),
            ("Passes", number(values["passes"], 3)),
            ("Memory", size(held) if held is not None else "…"),
            ("Time here", duration(seconds) if seconds is not None else "…"),
        ]
    )
    if seconds is not None:
        note = (
            f"Measured on these rows with {values['threads']} thread{'s' if values['threads'] > 1 else ''} in "
            f"{values['precision']}; the looks at the model come on top."
        )
    else:
        note = values.get("remark") or "Making a few steps on these rows to measure memory and time …"
    notes = "".join(f"<li>{escape(text)}</li>" for text in values["notes"])
    return (
        f"{cards}{share(values['trainable'], values['frozen'])}<p class='lab-note'>{escape(values['learned'])}</p>"
        f"{f'<ul class=tune-notes>{notes}</ul>' if notes else ''}"
        f"{memory(ways, way) if ways else ''}<p class='lab-note'>{escape(note)}</p>"
    )


def memory(ways: Mapping[str, Mapping[str, int]], chosen: str) -> str:
    """Memory by part, one way to learn beside the other."""
    order = [name for name in WAYS if name in ways]
    header = ["Memory", *(WAYS[name] + (" (chosen)" if name == chosen else "") for name in order)]
    rows = [[part, *(size(ways[name][part]) for name in order)] for part in PARTS]
    rows.append(["together", *(size(sum(ways[name][part] for part in PARTS)) for name in order)])
    return f"<div class='tune-memory'>{table(header, rows, numeric=range(1, len(header)))}</div>"


def memory_after(forecast: Mapping[str, int] | None, found: Mapping[str, int]) -> str:
    """Memory by part as it was forecast and as the run held it at its end."""
    rows = [
        [part, size(forecast[part]) if forecast else "–", size(found[part])]
        for part in PARTS
        if part in found
    ]
    note = (
        f"The whole process held {size(found['process'])} at most, the libraries included."
        if "process" in found
        else ""
    )
    shown = table(["Memory", "Forecast", "Measured at the end"], rows, numeric=(1, 2))
    return f"<div class='tune-memory'>{shown}</div><p class='lab-note'>{escape(note)}</p>"


# --- what an adapter holds


def spectra(values: Mapping[str, Sequence[float]]) -> str:
    """Singular values of s·B A: a small chart for each matrix of each layer, all on one scale, and the numbers.

    `values`: "blocks.0.attention.qkv q" and such -> r singular values, the largest first.
    """
    placed = {_place(name): found for name, found in values.items()}
    layers = sorted({layer for layer, _ in placed}, key=lambda layer: (layer is None, layer))
    matrices = list(dict.fromkeys(matrix for _, matrix in placed))
    highest = max((found[0] for found in placed.values() if len(found)), default=0.0) or 1.0
    head = "".join(
        f"<th scope='col'>{'output' if layer is None else f'layer {layer}'}</th>" for layer in layers
    )
    body = "".join(
        f"<tr><th scope='row'>{escape(matrix)}</th>"
        + "".join(_bars(placed.get((layer, matrix)), highest) for layer in layers)
        + "</tr>"
        for matrix in matrices
    )
    numbers = table(
        ["Matrix", "Singular values of s·B A, the largest first"],
        [[name, "  ".join(number(float(v), 3) for v in found)] for name, found in values.items()],
    )
    return (
        f"<div class='lab-scroll' tabindex='0'><table class='tune-spectra'><thead><tr><td></td>{head}</tr></thead><tbody>{body}</tbody>"
        f"</table></div><p class='lab-note'>Each bar is one singular value of s·B A; the tallest is {number(float(highest))}. "
        "Few tall bars: the change uses few directions, and a smaller rank would do. All alike: the rank is used up.</p>"
        f"<details class='lab-details'><summary>The numbers behind the bars</summary>{numbers}</details>"
    )


def _place(name: str) -> tuple[int | None, str]:
    """ "blocks.2.attention.qkv q" -> (2, "q"); "blocks.0.mlp.up" -> (0, "up"); "output" -> (None, "output")."""
    path, _, part = name.partition(" ")
    words = path.split(".")
    return (int(words[1]) if words[0] == "blocks" else None), part or words[-1]


def _bars(found: Sequence[float] | None, highest: float) -> str:
    if found is None:
        return "<td></td>"
    said = ", ".join(number(float(v), 3) for v in found)
    bars = "".join(f"<i style='height:{100 * v / highest:.1f}%'></i>" for v in found[:64])
    return f"<td><div class='tune-bars' role='img' title='{escape(said)}' aria-label='{escape(said)}'>{bars}</div></td>"


def adapter(name: str, base: str, found: dict[str, Any]) -> str:
    """What the adapter of a run holds: `found` as llm.lora.seen gives it."""
    said = (
        f"{name}: {'DoRA' if found['dora'] else 'LoRA'} of rank {found['rank']} on {base}, "
        f"B A multiplied by s = {number(float(found['scale']))}."
    )
    notes = "".join(f"<p class='lab-note'>{escape(note)}</p>" for note in found["notes"])
    return (
        f"<p class='tune-about'>{escape(said)}</p>{share(found['trainable'], found['frozen'])}{notes}"
        f"{spectra(found['singular_values'])}"
    )
