"""Pictures of the Models tab: what is present, a model's anatomy with its real shapes, memory, KV cache, weight map."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any
from urllib.parse import urlencode

import plotly.graph_objects as go

from llm import anatomy
from llm.anatomy import Part
from llm.config import ModelConfig
from llm.inventory import Present, Tensor
from ui.figures.base import SERIES, escape, facts, message, number, size, table

MOST_HEADS = 64  # heads drawn as squares; more are only counted
MOST_ROWS = 3000  # of a table of tensors
NUMBER_BYTES = {"fp32": 4, "bf16": 2, "int8": 1}  # number formats of a KV cache
TITLES = {
    "token embedding": "Token embedding",
    "position embedding": "Position embedding",
    "norm1": "Norm 1",
    "norm2": "Norm 2",
    "norm1_out": "Norm 1, after",
    "norm2_out": "Norm 2, after",
    "attention": "Attention",
    "mlp": "MLP",
    "final norm": "Final norm",
    "output": "Output",
}
DOES = {
    "token embedding": "looks up each token's vector",
    "position embedding": "adds the vector of its place",
    "norm1": "brings the numbers to one scale",
    "norm2": "brings the numbers to one scale",
    "norm1_out": "brings what is added to one scale",
    "norm2_out": "brings what is added to one scale",
    "attention": "each token looks back",
    "mlp": "each token by itself",
    "final norm": "brings the numbers to one scale",
    "output": "a score for every token that may come next",
}


# ---- What is present ---------------------------------------------------------------------------------------------


def button(action: str, name: str, text: str, label: str = "") -> str:
    """A quiet button; a click on it tells the page `action` and `name`."""
    label = label or f"{text} {name}"
    return (
        f"<button type='button' class='lab-link' data-action='{escape(action)}' data-name='{escape(name)}' "
        f"aria-label='{escape(label)}'>{escape(text)}</button>"
    )


def present(models: Sequence[Present], chosen: str, disk: int) -> str:
    """All models as a table, a button to choose each; `disk` are the bytes of everything made here."""
    rows = "".join(_present_row(model, model.name == chosen.partition("@")[0]) for model in models)
    head = (
        "<th>Model</th><th class=num>Parameters</th><th>Shape</th><th class=num>Context</th><th>Encoding</th>"
        "<th>Licence</th><th class=num>On disk</th>"
    )
    own = sum(model.kind != "built in" for model in models)
    told = f"{len(models)} models, {own} of them made or brought here. Runs and models take {size(disk)} of this disk."
    return (
        f"<div class='lab-scroll' tabindex='0'><table class='lab-table md-present'><thead><tr>{head}</tr></thead>"
        f"<tbody>{rows}</tbody></table></div><p class='lab-note' id='models-disk'>{escape(told)}</p>"
    )


def _present_row(model: Present, is_chosen: bool) -> str:
    config = model.config
    under = ", ".join(part for part in (model.origin or model.kind, made(model.made)) if part)
    shape = escape(anatomy.in_words(config)) if config else message(model.problem, "warning")
    mark = " class='lab-chosen' aria-current='true'" if is_chosen else ""
    kept = f"<span class='md-under'>and {len(model.kept)} steps on its way</span>" if model.kept else ""
    return (
        f"<tr{mark}><td translate='no'>{button('choose', model.name, model.name, 'choose ' + model.name)}"
        f"<span class='md-under' translate='yes'>{escape(under)}</span></td>"
        f"<td class=num>{number(model.parameters)}</td><td class='md-shape'>{shape}</td>"
        f"<td class=num>{number(config.context_length if config else None)}</td><td>{escape(model.encoding)}</td>"
        f"<td>{escape(model.licence)}</td><td class=num>{size(model.size)}{kept}</td></tr>"
    )


def made(seconds: float) -> str:
    """A moment as a date in local time: "25 Nov 2026"."""
    return time.strftime("%d %b %Y", time.localtime(seconds)).lstrip("0")


def chosen(model: Present, kept: Sequence[str], may_delete: bool) -> str:
    """The chosen model's name and what can be done with it; `kept` are the steps on its way that can be chosen too."""
    base = model.name.partition("@")[0]
    steps = [base, *(f"{base}@{step}" for step in kept)]
    places = {
        "Write with it": {"tab": "playground", "playground.model": model.name},
        "See its attention": {"tab": "attention", "attention.model": model.name},
    }
    if "@" not in model.name:
        places["Train from it"] = {"tab": "train", "train.start_from": model.name}
    links = "".join(
        f"<a class='md-go' href='?{escape(urlencode(query))}'>{escape(title)}</a>"
        for title, query in places.items()
    )
    delete = button("delete", model.name, "Delete it", f"delete {model.name}") if may_delete else ""
    row = ""
    if kept:
        chips = "".join(
            f"<button type='button' class='lab-chip' data-action='choose' data-name='{escape(step)}' "
            f"aria-pressed='{str(step == model.name).lower()}'>{escape(step.partition('@')[2] or 'last')}</button>"
            for step in steps
        )
        row = f"<div class='lab-chips' role='group' aria-label='steps that were kept'>{chips}</div>"
    return (
        f"<div class='md-chosen'><h3 translate='no'>{escape(model.name)}</h3>{links}"
        f"<span class='md-danger'>{delete}</span></div>{row}"
    )


# ---- Anatomy -----------------------------------------------------------------------------------------------------


def by(shape: Sequence[int]) -> str:
    """A shape for reading: "1,280 × 128"."""
    return " × ".join(f"{n:,}" for n in shape)


def share(part: int, total: int) -> str:
    """A part of a whole in percent."""
    value = 100 * part / total
    return "0 %" if not part else f"{value:.1f} %" if value >= 0.1 else "< 0.1 %"


def architecture(config: ModelConfig) -> str:
    """The whole model from ids to logits: each piece with its tensors, their shapes, parameters and share."""
    parts = anatomy.parts(config)
    total = anatomy.parameters(config)
    inside = {part.name: part for part in parts if part.in_block}
    rows = ["<li class='md-end'><span>token ids</span><code>(B, T)</code></li>"]
    drawn = False
    for part in parts:
        if not part.in_block:
            rows.append(piece(config, part, total))
        elif not drawn:
            drawn = True
            rows.append(block(config, inside, total))
    rows.append(f"<li class='md-end'><span>logits</span><code>(B, T, {config.vocab_size:,})</code></li>")
    return f"<ol class='md-flow' aria-label='architecture, from token ids to logits'>{''.join(rows)}</ol>"


def block(config: ModelConfig, parts: Mapping[str, Part], total: int) -> str:
    """The frame around one block, drawn once: what runs beside the stream, and where it is added to it."""
    each = sum(part.each for part in parts.values())
    whole = each * config.n_layer
    inner = []
    wiring = branches(config)
    for i, branch in enumerate(wiring):
        if branch in parts:  # a norm of the stream itself
            inner.append(piece(config, parts[branch], total))
            continue
        steps = "".join(piece(config, parts[name], total) for name in branch)
        inner.append(f"<li class='md-branch'><ol>{steps}</ol></li>")
        if not config.parallel:
            inner.append("<li class='md-add'><i>+</i> added to the stream</li>")
        elif i == len(wiring) - 1:
            inner.append("<li class='md-add'><i>+</i> both added to the stream that both have read</li>")
    sliding = anatomy.sliding_layers(config)
    window = (
        f"<span class='md-window'>{sliding} with a window of {config.sliding_window:,} tokens, "
        f"{config.n_layer - sliding} without</span>"
        if sliding
        else ""
    )
    times = f"{config.n_layer} × {number(each)} = {number(whole)} parameters, {share(whole, total)}"
    return (
        f"<li class='md-block'><header><b>Block × {config.n_layer}</b>{window}<span>{times}</span></header>"
        f"<ol>{''.join(inner)}</ol></li>"
    )


def branches(config: ModelConfig) -> list[Any]:
    """How a block is wired: tuples run beside the stream and are added to it; single names change the stream itself."""
    if config.parallel:
        return [("norm1", "attention"), ("norm2", "mlp")]
    return {
        "pre": [("norm1", "attention"), ("norm2", "mlp")],
        "post": [("attention",), "norm1", ("mlp",), "norm2"],
        "sandwich": [("norm1", "attention", "norm1_out"), ("norm2", "mlp", "norm2_out")],
        "output": [("attention", "norm1"), ("mlp", "norm2")],
    }[config.norm_position]


def piece(config: ModelConfig, part: Part, total: int) -> str:
    """One piece: its name, a small picture where it has one, its tensors, and how much of the model it is."""
    kind = part.name.split()[-1].rstrip("12").replace("_out", "").rstrip("12")
    picture = {"attention": heads, "mlp": widths}.get(part.name, lambda config: "")(config)
    tensors = "".join(
        f"<span><code>{escape(name.removeprefix(part.name + '.'))}</code> {by(shape)}</span>"
        for name, shape in part.tensors.items()
    )
    note = ""
    if part.name == "output" and config.tie_embeddings:
        tensors = f"<span><code>token_embedding.weight</code> {by((config.vocab_size, config.n_embd))}, used again</span>"
        note = "tied: no parameters of its own"
    if part.name == "token embedding" and config.position == "sinusoidal":
        note = "sinusoids of its place are added: no parameters"
    if part.name == "attention" and config.position == "rope":
        note = "RoPE turns q and k by the token's place: no parameters"
    much = f"{number(part.each)}" + (f" × {part.times}" if part.times > 1 else "")
    bar = f"<i style='width:{100 * part.parameters / total:.2f}%'></i>" if part.parameters else ""
    return (
        f"<li class='md-piece md-{escape(kind)}' data-part='{escape(part.name)}'>"
        f"<div class='md-what'><b>{TITLES[part.name]}</b> <span>{DOES[part.name]}</span>"
        f"<div class='md-tensors'>{tensors}</div>{picture}{f'<em>{escape(note)}</em>' if note else ''}</div>"
        f"<div class='md-much'><b>{much}</b><span>{share(part.parameters, total)}</span><div class='md-share'>{bar}</div></div></li>"
    )


def heads(config: ModelConfig) -> str:
    """The heads as squares, tinted by the key/value head they share, and which rows of the matrix are theirs."""
    H, K, D = config.n_head, config.kv_heads, config.head_dim
    words = f"{H} query head{'s' if H > 1 else ''} of {D} numbers" + (
        f", each {H // K} share one of {K} key/value head{'s' if K > 1 else ''}"
        if K != H
        else ", each with its own key and value"
    )
    rows = (
        f"rows: q 0–{H * D - 1:,}, k {H * D:,}–{(H + K) * D - 1:,}, v {(H + K) * D:,}–{(H + 2 * K) * D - 1:,}"
    )
    squares = ""
    if H <= MOST_HEADS:
        q = "".join(f"<i class='md-t{(h // (H // K)) % 6}'></i>" for h in range(H))
        kv = "".join(f"<i class='md-t{k % 6}'></i>" for k in range(K))
        squares = (
            f"<div class='md-heads' role='img' aria-label='{escape(words)}'>"
            f"<span>q</span><div>{q}</div><span>k</span><div>{kv}</div><span>v</span><div>{kv}</div></div>"
        )
    return f"<p>{escape(words)}; {escape(rows)}</p>{squares}"


def widths(config: ModelConfig) -> str:
    """How wide the MLP makes a token: bars in proportion."""
    C, hidden = config.n_embd, config.hidden
    most = max(C, hidden)

    def bar(n: int, name: str) -> str:
        return f"<div><span>{name}</span><i style='width:{100 * n / most:.1f}%'></i><b>{n:,}</b></div>"

    curve = anatomy.NAMES[config.mlp]
    middle = f"{curve}, times a gate" if config.gated else curve
    inner = bar(C, "in") + bar(hidden, "inside") + bar(C, "out")
    label = f"{C:,} numbers become {hidden:,} and {C:,} again"
    return f"<p>{escape(middle)}</p><div class='md-widths' role='img' aria-label='{label}'>{inner}</div>"


def totals(config: ModelConfig) -> str:
    """Parameters, memory in each number format and the cache of a token, as cards."""
    memory = anatomy.memory(config)
    cards = [("Parameters", number(anatomy.parameters(config)))]
    cards += [(f"Weights in {name}", size(n_bytes)) for name, n_bytes in memory.items()]
    cards.append(("KV cache a token (bf16)", size(anatomy.cache_bytes(config, 1))))
    return facts(cards)


def by_formula(config: ModelConfig) -> str:
    """The sum of all parts, written out."""
    rows = [
        [
            TITLES[part.name],
            number(part.each),
            part.times,
            number(part.parameters),
            share(part.parameters, anatomy.parameters(config)),
        ]
        for part in anatomy.parts(config)
    ]
    rows.append(["Sum", "", "", number(anatomy.parameters(config)), share(1, 1)])
    header = ["part", "parameters of one", "times", "parameters", "share"]
    scales = "8 and 4 bits keep scales on top: GGUF's Q8_0 takes 8.5 bits a weight, its Q4_0 4.5."
    weights = [
        [name, f"{bits} bits", f"{n:,}", size(n)]
        for (name, bits), n in zip(anatomy.PRECISIONS.items(), anatomy.memory(config).values())
    ]
    return table(header, rows, numeric=range(1, 5)) + table(
        ["format", "a weight", "bytes", ""],
        weights,
        caption=f"Memory of the weights alone. {scales}",
        numeric=(1, 2, 3),
    )


def behaviours(config: ModelConfig) -> str:
    """What the shapes do not tell, as a small table."""
    return table(["", ""], anatomy.behaviours(config)).replace(
        "<thead><tr><th></th><th></th></tr></thead>", ""
    )


# ---- KV cache ----------------------------------------------------------------------------------------------------


def cache_words(config: ModelConfig, number_format: str) -> str:
    """The formula with this model's numbers at its full context."""
    L, K, D, T = config.n_layer, config.kv_heads, config.head_dim, config.context_length
    n_bytes = NUMBER_BYTES[number_format]
    total = anatomy.cache_bytes(config, T, n_bytes)
    sliding = anatomy.sliding_layers(config)
    if not sliding or config.sliding_window >= T:
        sum_of = f"2 · L · K · D · T · bytes = 2 · {L} · {K} · {D} · {T:,} · {n_bytes}"
    else:
        window = config.sliding_window
        sum_of = (
            f"2 · K · D · bytes · (full layers · T + sliding layers · window) = 2 · {K} · {D} · {n_bytes} · "
            f"({L - sliding} · {T:,} + {sliding} · {window:,})"
        )
    return (
        f"<p class='md-formula'><code>{escape(sum_of)} = <b id='models-cache'>{total:,}</b> bytes</code> "
        f"({size(total)}) for one text of {T:,} tokens</p>"
    )


def cache(config: ModelConfig, number_format: str) -> go.Figure:
    """Bytes of the KV cache by context length; dashed what it would be if no layer had a window."""
    curve = anatomy.cache_curve(config, NUMBER_BYTES[number_format])
    x, y = [tokens for tokens, _ in curve], [n_bytes for _, n_bytes in curve]
    unit, letter = next(
        (u, w) for u, w in ((2**30, "GB"), (2**20, "MB"), (2**10, "KB"), (1, "bytes")) if max(y) >= u
    )
    figure = go.Figure()
    sliding = anatomy.sliding_layers(config)
    if sliding and config.sliding_window < config.context_length:
        full = [anatomy.cache_bytes(config, 1, NUMBER_BYTES[number_format]) * tokens / unit for tokens in x]
        figure.add_scatter(
            x=x, y=full, name="without windows", mode="lines", line={"color": SERIES[1], "dash": "dash", "width": 2},
            hovertemplate="%{y:.4~g} " + letter,
        )  # fmt: skip
    figure.add_scatter(
        x=x, y=[n_bytes / unit for n_bytes in y], name="KV cache", mode="lines+markers",
        line={"color": SERIES[0], "width": 2}, marker={"size": 6}, hovertemplate="%{y:.4~g} " + letter,
    )  # fmt: skip
    figure.update_layout(
        template=None, height=280, margin={"l": 10, "r": 16, "t": 28, "b": 46}, hovermode="x unified",
        showlegend=len(figure.data) > 1,
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "xanchor": "left"},
        xaxis={"title": {"text": "tokens in the context"}, "rangemode": "tozero", "zeroline": False, "tickformat": ","},
        yaxis={"title": {"text": letter}, "rangemode": "tozero", "automargin": True, "zeroline": False},
        paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)", hoverlabel={"align": "left"},
    )  # fmt: skip
    return figure


def cache_table(config: ModelConfig) -> str:
    """The numbers behind the curve in every number format."""
    tokens = [t for t, _ in anatomy.cache_curve(config)]
    rows = [
        [f"{t:,}", *(f"{anatomy.cache_bytes(config, t, b):,}" for b in NUMBER_BYTES.values())] for t in tokens
    ]
    header = ["tokens", *(f"bytes in {name}" for name in NUMBER_BYTES)]
    return table(header, rows, numeric=range(len(header)))


# ---- Tensors -----------------------------------------------------------------------------------------------------


def tensor_list(found: Sequence[Tensor], config: ModelConfig) -> str:
    """Every tensor in the file of one of our models, in the order of the model, with the sum of its numbers."""
    order = {name: i for i, (name, _) in enumerate(anatomy.tensors(config))}
    found = sorted(found, key=lambda tensor: (order.get(tensor.name, len(order)), tensor.name))
    numbers = sum(prod(tensor.shape) for tensor in found)
    rows = [[t.name, by(t.shape), t.dtype, number(prod(t.shape))] for t in found[:MOST_ROWS]]
    told = f"{len(found):,} tensors, {numbers:,} numbers in the file; the formula says {anatomy.parameters(config):,}."
    return f"<p class='lab-note'>{told}</p>" + tall(
        table(["tensor", "shape", "type", "numbers"], rows, numeric=(1, 3))
    )


def config_tensors(config: ModelConfig) -> str:
    """Every tensor that a model of this shape has."""
    rows = [[name, by(shape), number(prod(shape))] for name, shape in anatomy.tensors(config)]
    told = f"{len(rows):,} tensors, {anatomy.parameters(config):,} numbers."
    return f"<p class='lab-note'>{told}</p>" + tall(
        table(["tensor", "shape", "numbers"], rows[:MOST_ROWS], numeric=(1, 2))
    )


def weight_map(rows: Sequence[Sequence[Any]], expected: int) -> str:
    """Where each tensor of a foreign file went. A row: their name, ours, shape, type, how."""
    used = [row for row in rows if row[1]]
    lost = [row for row in rows if not row[1] and not row[4]]
    left = len(rows) - len(used) - len(lost)
    numbers = sum(prod(row[2]) for row in used)
    same = numbers == expected
    told = (
        f"{len(rows):,} tensors: {len(used):,} used, {left:,} not needed, {len(lost):,} not matched. "
        f"{numbers:,} parameters; the formula says {expected:,}."
    )
    drawn = "".join(_map_row(row) for row in rows[:MOST_ROWS])
    head = "<th>their name</th><th>our name</th><th class=num>shape</th><th>type</th><th>how</th>"
    inner = f"<div class='lab-scroll' tabindex='0'><table class='lab-table md-map'><thead><tr>{head}</tr></thead><tbody>{drawn}</tbody></table></div>"
    return message(told, "note" if same and not lost else "error") + tall(inner)


def _map_row(row: Sequence[Any]) -> str:
    theirs, ours, shape, dtype, how = row
    lost = " class='md-lost'" if not ours and not how else ""
    where = escape(ours) if ours else "<i>not needed</i>" if how else "<b>no place</b>"
    return (
        f"<tr{lost}><td><code>{escape(theirs)}</code></td><td><code>{where}</code></td><td class=num>{by(shape)}</td>"
        f"<td>{escape(dtype)}</td><td>{escape(how)}</td></tr>"
    )


def tall(inner: str) -> str:
    """A long table in a box that scrolls by itself."""
    return f"<div class='md-tall' tabindex='0' role='group' aria-label='table, scrolls'>{inner}</div>"
