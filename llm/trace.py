"""One forward pass seen from inside: every named tensor, what can be read off it, and what changes when one is replaced.

Names are module path and tap: `blocks.3.attention.weights`, `blocks.0.mlp.after`, `final`, `logits`. Patterns may hold
`*`: `blocks.*.output`. Shapes: B batch, T tokens, C width, H heads, D head size, V vocabulary, L layers.

    found = trace(model, torch.tensor([ids]), wanted=("blocks.*.attention.weights",))
    found["blocks.3.attention.weights"][0, 2]      # layer 3, head 2: (T, T), rows sum to 1
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from llm.config import ModelConfig, to_dict
from llm.model import ACTIVATIONS, GPT, Attention, Tapped, rates_of, rope_angles, rope_rates, sinusoids
from llm.tokenizer import Tokenizer

Look = Callable[[str, Tensor], Tensor]
Trace = dict[str, Tensor]  # name -> tensor, detached
STAGES = ("scores", "scaled", "masked", "weights", "dropped")  # in the order attention goes through them
MAP_SIZE = 64  # a head's small picture has at most this many rows and columns
MAP_CELLS = 2_000_000  # of all small pictures together: a model of thousands of heads gets smaller ones
MOST_TOKENS = 1024  # of a text that is looked into; its attention alone is a million numbers a head
MANY_HEADS = 32  # a layer with more heads looks at shorter texts
MAX_BEYOND = 4  # loss by position is measured on texts up to this many context lengths
MOST_BEYOND = 8192  # tokens of such a text at most: it is read in one go


# --- looking in ------------------------------------------------------------------------------------------------------


@contextmanager
def watching(model: nn.Module, look: Look, names: Sequence[str] = ("*",)) -> Iterator[None]:
    """Inside the `with`, each tensor of the modules that `names` speak of passes `look(name, tensor) -> tensor`.

    What `look` returns is what the model goes on with. Every tap is put back at the end, after an error too.
    One thread at a time: the taps are attributes of the model.
    """
    modules = [n.rpartition(".")[0] for n in names if n != "*"]

    def spoken_of(path: str) -> bool:  # a module in a watched one goes its fast way on
        return any(fnmatchcase(path, m) and path.count(".") == m.count(".") for m in modules)

    watched = [
        (path, module)
        for path, module in model.named_modules()
        if isinstance(module, Tapped) and ("*" in names or spoken_of(path))
    ]
    before = [(module, module.__dict__.get("tap")) for _, module in watched]
    try:
        for path, module in watched:
            module.tap = partial(_at, path, look)
        yield
    finally:
        for module, tap in before:
            if tap is None:
                module.__dict__.pop("tap", None)
            else:
                module.tap = tap


def _at(path: str, look: Look, name: str, tensor: Tensor) -> Tensor:
    return look(f"{path}.{name}" if path else name, tensor)


@contextmanager
def mode(model: GPT, training: bool = False, dropout: float = 0.0, seed: int = 0) -> Iterator[None]:
    """Inside the `with`, the model evaluates (no dropout), or it drops as in training, the same way for the same seed.

    `dropout` is the share to drop instead of the model's own; 0 keeps its own. Each module's mode and share, and
    the state of torch's random numbers, are afterwards what they were.
    """
    modes = [(module, module.training) for module in model.modules()]
    shares = [
        (module, name, getattr(module, name))
        for module in model.modules()
        for kind, name in ((Attention, "dropout"), (nn.Dropout, "p"))
        if isinstance(module, kind)
    ]
    try:
        model.train(training)
        if training and dropout:
            for module, name, _ in shares:
                setattr(module, name, dropout)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            yield
    finally:
        for module, was in modes:
            module.training = was
        for module, name, share in shares:
            setattr(module, name, share)


def trace(
    model: GPT,
    idx: Tensor,
    wanted: Sequence[str] = ("*",),
    replace: Mapping[str, Callable[[Tensor], Tensor]] | None = None,
    training: bool = False,
    dropout: float = 0.0,
    seed: int = 0,
) -> Trace:
    """Run the model on idx (B, T) and keep the tensors whose names fit `wanted`.

    `replace` maps patterns to functions that change a tensor on its way (see `silence`). Evaluation mode, whatever
    mode the model is in, unless `training` asks for the dropout view. Raises ValueError for a change of shape.
    """
    found: Trace = {}
    replace = replace or {}

    def look(name: str, tensor: Tensor) -> Tensor:
        for pattern, change in replace.items():
            if fnmatchcase(name, pattern):
                changed = change(tensor)
                if changed.shape != tensor.shape:
                    raise ValueError(
                        f"{name} has the shape {tuple(tensor.shape)}; it cannot be replaced by {tuple(changed.shape)}."
                    )
                tensor = changed
        if any(fnmatchcase(name, pattern) for pattern in wanted):
            found[name] = tensor.detach()
        return tensor

    patterns = (*wanted, *replace)
    to_the_end = any(
        fnmatchcase("logits", pattern) for pattern in patterns
    )  # the output matrix may be the largest
    with torch.no_grad(), mode(model, training, dropout, seed), watching(model, look, patterns):
        (model if to_the_end else model.hidden)(idx)
    return found


def logits_at(model: GPT, found: Trace, position: int) -> Tensor:
    """The logits (V,) of one position, from a trace that holds "final": all positions' would be many numbers."""
    with torch.no_grad():
        return model.output(found["final"][0, position])


def silence(heads: Sequence[int]) -> Callable[[Tensor], Tensor]:
    """For `replace={"blocks.2.attention.heads": silence([0])}`: these heads give zeros to the output projection."""

    def change(y: Tensor) -> Tensor:  # (B, H, T, D)
        y = y.clone()
        y[:, list(heads)] = 0
        return y

    return change


# --- attention -------------------------------------------------------------------------------------------------------


def head_stages(found: Trace, layer: int, head: int) -> dict[str, Tensor]:
    """The pictures of one head, each (T, T): a row is the token that looks, a column the token it looks at.

    scores = q k^T; scaled = scores / sqrt(D), or what the model divides by instead; masked: -inf right of the diagonal and
    left of a sliding window; weights = softmax of each row;
    dropped: the share p zeroed, the others times 1 / (1 - p), in training only (Vaswani et al. 2017, eq. 1, 5.4).
    """
    at = f"blocks.{layer}.attention."
    return {stage: found[at + stage][0, head] for stage in STAGES}


def cell_steps(
    found: Trace, config: ModelConfig, layer: int, head: int, row: int, column: int
) -> dict[str, Any]:
    """Every number on the way to the weight with which token `row` looks at token `column`.

    q, k (D,) after RoPE where the model has it; their products, and in turn dot = sum(q * k), scaled = dot / sqrt(D) (or
    of config.score_size), exp(scaled - largest of the row), the row's sum of those, and weight = exp / sum. The row sees
    from token `first` on. Where q and k are normed, q_root and k_root are what they were divided by before.
    """
    at = f"blocks.{layer}.attention."
    turned = "_turned" if config.position == "rope" else ""
    group = config.n_head // config.kv_heads  # this many heads share a key and a value
    q = found[f"{at}q{turned}"][0, head, row]  # (D,)
    k = found[f"{at}k{turned}"][0, head // group, column]
    v = found[f"{at}v"][0, head // group, column]
    products = q * k
    dot = products.sum()
    scaled = dot / math.sqrt(config.score_size or config.head_dim)
    row_masked = found[at + "masked"][0, head, row]
    largest = row_masked.max()  # taken off before exp, which changes nothing and keeps exp from overflowing
    exps = torch.exp(row_masked - largest)[
        : row + 1 if config.causal else None
    ]  # 0 where a sliding window has moved on
    row_sum = exps.sum()
    first = int((row_masked > -torch.inf).nonzero()[0])
    roots = {}
    if config.qk_norm != "none":
        kv, each = head // group, config.qk_norm == "head"
        for name, place, own in (("q", row, head), ("k", column, kv)):
            square = found[f"{at}{name}_norm.mean_square"][
                0
            ]  # (H or K, T, 1), or (T, 1) over all heads at once
            roots[f"{name}_root"] = torch.sqrt((square[own] if each else square)[place, 0] + config.norm_eps)
    masked = bool(row_masked[column] == -torch.inf)
    exp = torch.zeros(()) if masked else torch.exp(scaled - largest)
    return {
        "q": q, "k": k, "v": v, "products": products, "dot": dot, "scaled": scaled, "masked": masked,
        "largest": largest, "exp": exp, "row_exps": exps, "row_sum": row_sum, "weight": exp / row_sum,
        "q_before": found[at + "q"][0, head, row], "k_before": found[at + "k"][0, head // group, column],
        "first": first, **roots,
    }  # fmt: skip


def entropy(weights: Tensor) -> Tensor:
    """How widely each row looks, in bits: -sum w log2 w. (..., T, S) -> (..., T).

    0: all on one token; log2(n): evenly on n tokens. Masked cells have weight 0 and add nothing.
    """
    return torch.special.entr(weights).sum(-1) / math.log(2)  # entr(w) = -w ln w, and 0 at w = 0


def spreads(scores: Tensor, seen: Tensor, config: ModelConfig) -> dict[str, float]:
    """Mean entropy in bits of a head's rows when its scores (T, T) are divided by 1, sqrt(D) or sqrt(C).

    D products of about variance 1 sum to a score of variance D, which sqrt(D) brings back to 1 (Vaswani et al. 2017,
    footnote 4). The width C has no part in the sum. `seen` (T, T) is True where the mask lets a token look; a model that
    divides by a size of its own has that as "own" too.
    """
    divisors = {"one": 1, "head size": config.head_dim, "width": config.n_embd}
    if config.score_size:
        divisors["own"] = config.score_size
    return {
        name: float(entropy(torch.softmax((scores / math.sqrt(n)).masked_fill(~seen, -torch.inf), -1)).mean())
        for name, n in divisors.items()
    }


def small_map(weights: Tensor, size: int = MAP_SIZE) -> Tensor:
    """(H, T, T) -> (H, S, S), S at most `size`: each cell is the largest weight of the square it stands for."""
    T = weights.shape[-1]
    step = math.ceil(T / size)
    room = math.ceil(T / step) * step - T
    return F.max_pool2d(F.pad(weights, (0, room, 0, room)), step) if step > 1 else weights


def map_size(config: ModelConfig) -> int:
    """Rows and columns of the small maps: fewer in a model with thousands of heads."""
    return max(4, min(MAP_SIZE, math.isqrt(MAP_CELLS // (config.n_layer * config.n_head))))


def head_parts(model: GPT, found: Trace, layer: int) -> Tensor:
    """What each head adds to the stream: (H, T, C). Their sum, plus the bias, is the output of the attention.

    concat(heads) W = sum over heads of head W_h, W_h being the rows of W that belong to the head.
    """
    out = model.blocks[layer].attention.out
    y = found[f"blocks.{layer}.attention.heads"][0]  # (H, T, D)
    by_head = out.weight.detach().unflatten(1, (y.shape[0], y.shape[2]))  # (C, H, D)
    return torch.einsum("htd,chd->htc", y, by_head)


# --- the next token and the way there --------------------------------------------------------------------------------


def likeliest(logits: Tensor, k: int = 12) -> tuple[Tensor, Tensor, Tensor]:
    """The k likeliest tokens of each row: ids, logits, p = exp(logit) / sum exp. (..., V) -> three (..., k)."""
    p = torch.softmax(logits.float(), dim=-1)
    top, ids = p.topk(min(k, logits.shape[-1]), dim=-1)
    return ids, logits.gather(-1, ids), top


def streams(found: Trace, config: ModelConfig) -> list[Tensor]:
    """The residual stream before the first block and after each one: L + 1 tensors (T, C)."""
    return [found["embedded"][0]] + [found[f"blocks.{i}.output"][0] for i in range(config.n_layer)]


def lens_logits(model: GPT, stream: Tensor) -> Tensor:
    """The logit lens: read the stream as if the model ended here. (T, C) -> (T, V).

    The final norm, then the output matrix (nostalgebraist 2020). A post-norm model has no final norm: its blocks end
    with one, so that only the stream before the first block is read as it is.
    """
    return model.output(model.norm(stream))


def attribution(model: GPT, found: Trace, position: int, token: int) -> tuple[list[str], Tensor]:
    """What each part of the model adds to one logit: names and (P,), which sum to it exactly.

    The stream is a sum of parts (each as it is added: after a norm of its own where the model has one there), and the
    final norm of a *given* stream is linear: (part - mean) / root * scale; then the row of the output matrix. Raises
    ValueError for a post-norm model, whose stream is normed again and again.
    """
    if model.config.norm_position == "post":
        raise ValueError(
            "A post-norm model norms its stream after every part: the logit is no sum of the parts."
        )
    names, parts = stream_parts(model, found, position)
    x, norm = torch.stack(parts), model.norm
    final = found[f"blocks.{model.config.n_layer - 1}.output"][0, position]
    if model.config.norm == "layernorm":
        x = x - x.mean(-1, keepdim=True)
        root = torch.sqrt(final.var(unbiased=False) + norm.eps)
    else:
        root = torch.sqrt(final.pow(2).mean() + norm.eps)
    unembed = model.output.weight[token].detach()
    added = x / root * norm.weight.detach() @ unembed
    if getattr(norm, "bias", None) is not None:
        names, added = (
            [*names, "norm's shift"],
            torch.cat((added, (norm.bias.detach() @ unembed)[None])),
        )
    return names, added


def stream_parts(model: GPT, found: Trace, position: int) -> tuple[list[str], list[Tensor]]:
    """The terms whose sum is the residual stream at one position (pre-norm, evaluation): names and (C,) each."""
    names, parts = ["token"], [found["token"][0, position]]
    if "position" in found:
        names, parts = [*names, "position"], [*parts, found["position"][0, position]]
    for i in range(model.config.n_layer):
        names += [f"attention {i}", f"MLP {i}"]
        parts += [found[f"blocks.{i}.added{part}"][0, position] for part in (1, 2)]
    return names, parts


# --- the rest of a block ---------------------------------------------------------------------------------------------


def norm_inputs(found: Trace, config: ModelConfig, layer: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Each norm of a block with the tensors before and after it, (T, C)."""
    at = f"blocks.{layer}."
    outward = {"norm1_out": ("attention.out", "added1"), "norm2_out": ("mlp.out", "added2")}
    if config.norm_position in ("pre", "sandwich"):
        pairs = {"norm1": ("input", "norm1"), "norm2": ("input" if config.parallel else "middle", "norm2")}
        pairs |= outward if config.norm_position == "sandwich" else {}
    elif config.norm_position == "output":
        pairs = dict(zip(("norm1", "norm2"), outward.values()))
    else:
        pairs = {"norm1": ("sum1", "middle"), "norm2": ("sum2", "output")}
    return {name: (found[at + a][0], found[at + b][0]) for name, (a, b) in pairs.items()}


def norm_statistics(x: Tensor) -> dict[str, Tensor]:
    """Of each token's C numbers: mean, standard deviation, root mean square. (T, C) -> (T,) each."""
    return {
        "mean": x.mean(-1),
        "deviation": x.std(-1, unbiased=False),
        "root mean square": x.pow(2).mean(-1).sqrt(),
    }


def activation_curve(mlp: str, low: float, high: float, points: int = 161) -> tuple[Tensor, Tensor]:
    """The MLP's curve from low to high: x and f(x)."""
    x = torch.linspace(low, high, points)
    return x, ACTIVATIONS[mlp](x)


def growth(found: Trace, config: ModelConfig) -> tuple[list[str], Tensor, Tensor]:
    """The stream through the layers: names of the 2 L + 1 stops, its length there, the length of what was just added.

    Lengths are Euclidean, (2 L + 1, T). Nothing is added at the first stop: its second row is the embedding's own.
    """
    names, stops, added = ["embedded"], [found["embedded"][0]], [found["embedded"][0]]
    for i in range(config.n_layer):
        names += [f"attention {i}", f"MLP {i}"]
        stops += [found[f"blocks.{i}.middle"][0], found[f"blocks.{i}.output"][0]]
        added += [found[f"blocks.{i}.{part}"][0] for part in _added(config)]
    return names, torch.stack(stops).norm(dim=-1), torch.stack(added).norm(dim=-1)


def _added(config: ModelConfig) -> tuple[str, str]:
    """The taps of what attention and MLP add to the stream (a post-norm block norms the sum, not the part)."""
    return ("attention.out", "mlp.out") if config.norm_position == "post" else ("added1", "added2")


def tied(model: GPT) -> bool:
    """Whether the output matrix is the token embedding: one storage, two uses (Press & Wolf 2017)."""
    return model.output.weight.data_ptr() == model.token_embedding.weight.data_ptr()


def nearest(matrix: Tensor, row: int, k: int = 8) -> tuple[Tensor, Tensor]:
    """The k rows that point most nearly where `row` points: ids and cosines. matrix (V, C)."""
    cosine = F.cosine_similarity(matrix, matrix[row][None], dim=-1)
    cosine[row] = -torch.inf
    values, ids = cosine.topk(min(k, len(matrix) - 1))
    return ids, values


# --- positions -------------------------------------------------------------------------------------------------------


def position_vectors(model: GPT, n: int) -> Tensor | None:
    """The vector added to the token at each of n places, (n, C): learned rows or sinusoids; None when none is added.

    A learned table ends at the context length: there is no row for a place beyond it, however large n is.
    """
    if model.position_embedding is not None:
        return model.position_embedding.weight.detach()[:n]
    return sinusoids(torch.arange(n), model.config.n_embd) if model.config.position == "sinusoidal" else None


def cosines(vectors: Tensor) -> Tensor:
    """Cosine similarity of every row with every row: (n, C) -> (n, n)."""
    unit = F.normalize(vectors, dim=-1)
    return unit @ unit.T


def rope_pairs(config: ModelConfig, sliding: bool = False) -> tuple[Tensor, Tensor]:
    """How fast RoPE turns each pair: radians a token, and tokens a full turn. (R/2,) each.

    theta^(-2i/R), slowed down where the model scales RoPE. `sliding`: of the layers with a sliding window.
    """
    speed = rates_of(config, sliding)
    return speed, 2 * math.pi / speed


def rope_by_distance(config: ModelConfig, distances: Tensor, rates: Tensor | None = None) -> Tensor:
    """What RoPE leaves of q . k at each distance when q = k is all ones: the mean over all D numbers.

    cos(distance * speed) for the R numbers that are turned, 1 for those that are not.
    """
    turned = rope_angles(distances, rates_of(config) if rates is None else rates).cos().mean(-1)
    share = config.rope_size / config.head_dim
    return share * turned + (1 - share)


def loss_by_position(model: GPT, ids: Sequence[int], length: int, windows: int) -> Tensor:
    """Mean -ln p of the token at each place 1 .. length - 1, over up to `windows` stretches of the text. (length - 1,).

    Raises ValueError when the text is shorter than one stretch, or when the model refuses the length.
    """
    V = model.config.vocab_size
    count = min(len(ids) // length, windows)
    if count == 0:
        raise ValueError(
            f"The text has {len(ids):,} tokens; one stretch needs {length:,}: take a longer text."
        )
    idx = torch.tensor(ids[: count * length], device=model.device).view(count, length)
    total = torch.zeros(length - 1, device=model.device)
    with torch.no_grad(), mode(model):
        for part in idx.split(max(1, min(4, 4096 // length))):
            hidden, at = model.hidden(part[:, :-1]), 0  # all logits at once would fill the memory: V is large
            for piece in hidden.split(max(1, 2**24 // V // len(part)), 1):
                logits, targets = model.output(piece).float(), part[:, 1 + at : 1 + at + piece.shape[1]]
                losses = F.cross_entropy(logits.transpose(1, 2), targets, reduction="none")
                total[at : at + piece.shape[1]] += losses.sum(0)
                at += piece.shape[1]
    return total / count


# --- what the page asks for: plain values and numpy arrays -----------------------------------------------------------


def read(
    model: GPT, encoding: Tokenizer, text: str | Sequence[int], special: bool = False
) -> tuple[list[int], int]:
    """Token ids of a text (or of its ids), as many of the first ones as are looked at, and how many it has.

    Raises ValueError for an empty one.
    """
    ids = encoding.encode(text, special=special) if isinstance(text, str) else list(text)
    if not ids:
        raise ValueError("There is no text to look at: type a word or two.")
    return ids[: most_tokens(model.config)], len(ids)


def most_tokens(config: ModelConfig) -> int:
    """Tokens of a text that are looked at: the model's context, but no more than their attention fits the memory."""
    room = int(MOST_TOKENS * min(1.0, math.sqrt(MANY_HEADS / config.n_head)))
    return min(config.context_length, room)


def _check(name: str, value: int, count: int) -> None:
    if not 0 <= value < count:
        raise ValueError(f"There is no {name} {value}: they are numbered 0 to {count - 1}.")


def _numpy(tensor: Tensor, dtype: torch.dtype = torch.float32) -> np.ndarray:
    return tensor.detach().to("cpu", dtype).numpy()


def _bytes(encoding: Tokenizer, id: int) -> bytes:
    """The bytes of a token; empty for a row of the model that no token uses."""
    try:
        return encoding.token_bytes(id)
    except ValueError:
        return b""


def _tokens(encoding: Tokenizer, ids: Sequence[int] | Tensor) -> list[tuple[int, bytes]]:
    return [(int(i), _bytes(encoding, int(i))) for i in ids]


def _silencing(
    muted_heads: Sequence[Sequence[int]], config: ModelConfig
) -> dict[str, Callable[[Tensor], Tensor]]:
    by_layer: dict[int, list[int]] = {}
    for layer, head in muted_heads:
        _check("layer", layer, config.n_layer)
        _check("head", head, config.n_head)
        by_layer.setdefault(layer, []).append(head)
    return {f"blocks.{layer}.attention.heads": silence(heads) for layer, heads in by_layer.items()}


def run(
    model: GPT,
    encoding: Tokenizer,
    text: str,
    special: bool = False,
    layer: int = 0,
    head: int = 0,
    dropout: float = 0.0,
    training: bool = False,
    seed: int = 0,
    muted: Sequence[Sequence[int]] = (),
    top: int = 12,
    maps: bool = True,
) -> dict[str, Any]:
    """All heads small, one head large and in stages, and the next token.

    maps (L, H, S, S) float16 (see `small_map`), entropy (L, H, T) (both left out without `maps`, which is faster), stages: name -> (T, T) float32 of `layer`, `head`;
    next: (id, bytes, logit, p) of the likeliest tokens after the text, and with heads `muted` ((layer, head) pairs)
    next_whole: the p of the same tokens with nothing muted. Raises ValueError with a sentence for the person.
    """
    config = model.config
    _check("layer", layer, config.n_layer)
    _check("head", head, config.n_head)
    ids, length = read(model, encoding, text, special)
    idx = torch.tensor([ids], device=model.device)
    small, entropies, size = [], [], map_size(config)

    def shrink(
        weights: Tensor,
    ) -> Tensor:  # a layer at a time, so that all heads of a long text fit in memory
        small.append(small_map(weights[0], size))
        entropies.append(entropy(weights[0]))
        return weights

    at = f"blocks.{layer}.attention."
    wanted = (*(at + stage for stage in STAGES), "final")
    silenced = _silencing(muted, config)
    shrinking = {"blocks.*.attention.weights": shrink} if maps else {}
    found = trace(model, idx, wanted, {**shrinking, **silenced}, training, dropout, seed)
    logits = logits_at(model, found, -1)
    best, values, p = likeliest(logits, top)
    stages = head_stages(found, layer, head)
    seen = stages["masked"] > -torch.inf
    result = {
        "config": to_dict(config), "head_dim": config.head_dim, "kv_heads": config.kv_heads,
        "parameters": sum(config.parameters().values()), "tokens": _tokens(encoding, ids), "length": length,
        "layer": layer, "head": head, "training": training, "dropout": (dropout or config.dropout) * training,
        "limit": most_tokens(config), "windows": [config.sliding_window * config.slides(i) for i in range(config.n_layer)],
        "divisor": math.sqrt(config.score_size or config.head_dim), "rope_size": config.rope_size,
        "stages": {name: _numpy(stage) for name, stage in stages.items()},
        "spreads": spreads(stages["scores"], seen, config),
        "zeroed": int((seen & (stages["dropped"] == 0)).sum()), "seen": int(seen.sum()),
        "row_sum": float(stages["dropped"].sum(-1).mean()),
        "next": _next(encoding, best, values, p), "muted": [list(pair) for pair in muted],
    }  # fmt: skip
    if maps:
        result |= {
            "maps": _numpy(torch.stack(small), torch.float16), "entropy": _numpy(torch.stack(entropies)),
        }  # fmt: skip
    if silenced:
        whole = logits_at(model, trace(model, idx, ("final",), None, training, dropout, seed), -1)
        result["next_whole"] = _numpy(torch.softmax(whole.float(), -1)[best]).tolist()
    return result


def _next(
    encoding: Tokenizer, ids: Tensor, logits: Tensor, p: Tensor
) -> list[tuple[int, bytes, float, float]]:
    return [
        (int(i), _bytes(encoding, int(i)), float(value), float(share))
        for i, value, share in zip(ids, logits, p)
    ]


def cell(
    model: GPT,
    encoding: Tokenizer,
    text: str,
    layer: int,
    head: int,
    row: int,
    column: int,
    special: bool = False,
    dropout: float = 0.0,
    training: bool = False,
    seed: int = 0,
    muted: Sequence[Sequence[int]] = (),
) -> dict[str, Any]:
    """`cell_steps` as plain numbers, and what dropout made of the weight. Raises ValueError with a sentence."""
    config = model.config
    ids, _ = read(model, encoding, text, special)
    for name, value, count in (
        ("layer", layer, config.n_layer), ("head", head, config.n_head), ("row", row, len(ids)), ("column", column, len(ids)),
    ):  # fmt: skip
        _check(name, value, count)
    found = trace(
        model, torch.tensor([ids], device=model.device), (f"blocks.{layer}.attention.*", f"blocks.{layer}.attention.*_norm.*"),
        _silencing(muted, config), training, dropout, seed,
    )  # fmt: skip
    steps = cell_steps(found, config, layer, head, row, column)
    plain = {
        name: _numpy(value).tolist() if isinstance(value, Tensor) else value for name, value in steps.items()
    }
    stages = head_stages(found, layer, head)
    share = (dropout or config.dropout) * training
    turning = {"angles": None}
    if config.position == "rope":
        rates = rates_of(config, config.slides(layer))
        angles = rope_angles(torch.tensor([row, column]), rates)
        turning = {"angles": _numpy(angles).tolist(), "rate": float(rates[0]), "rope_size": config.rope_size}
    return {
        **plain, "row": row, "column": column, "head_dim": config.head_dim, "layer": layer, "head": head,
        "kv_head": head // (config.n_head // config.kv_heads), "dropout": share,
        "model_weight": float(stages["weights"][row, column]), "dropped": float(stages["dropped"][row, column]),
        "divided_by": config.score_size or config.head_dim, **turning,
    }  # fmt: skip


def lens(
    model: GPT,
    encoding: Tokenizer,
    text: str,
    special: bool = False,
    position: int = -1,
    top: int = 5,
    muted: Sequence[Sequence[int]] = (),
    columns: int = 32,
) -> dict[str, Any]:
    """The logit lens of every layer, and the share of each part of the model in the final answer at one position.

    grid: for each of the L + 1 stops and each of `columns` tokens from `start` on (a stretch around `position`), (id,
    bytes, p) of the likeliest next token; layers: at `position` also the `top` likeliest, the entropy in bits, and the
    place of the final answer among all tokens. Raises ValueError with a sentence.
    """
    config = model.config
    ids, _ = read(model, encoding, text, special)
    T = len(ids)
    _check("token", position % T if -T <= position < T else position, T)
    position %= T
    names = ("token", "position", "embedded", "blocks.*.middle", "blocks.*.output", "blocks.*.added*", "final")  # fmt: skip
    found = trace(model, torch.tensor([ids], device=model.device), names, _silencing(muted, config))
    final = logits_at(model, found, position)
    answer = int(final.argmax())
    start = max(0, min(position - 3 * columns // 4, T - columns))
    rows, grid = [], []
    with torch.no_grad():
        for stream in streams(found, config):
            logits = lens_logits(model, stream[start : start + columns]).float()
            best, _, p = likeliest(logits, 1)
            grid.append(
                [
                    (*token, round(float(share), 4))
                    for token, share in zip(_tokens(encoding, best[:, 0]), p[:, 0])
                ]
            )
            here = logits[position - start]
            share = torch.softmax(here, -1)
            rows.append(
                {
                    "top": _next(encoding, *likeliest(here, top)),
                    "entropy": float(entropy(share)),
                    "answer_p": float(share[answer]),
                    "answer_place": int((here > here[answer]).sum()) + 1,
                }
            )
    result = {
        "position": position, "start": start, "tokens": _tokens(encoding, ids), "layers": rows, "grid": grid,
        "answer": (answer, _bytes(encoding, answer)), "answer_logit": float(final[answer]),
        "norm_position": config.norm_position,
    }  # fmt: skip
    if config.norm_position != "post":
        parts, added = attribution(model, found, position, answer)
        result["attribution"] = list(zip(parts, _numpy(added).tolist()))
    return result


def block(
    model: GPT,
    encoding: Tokenizer,
    text: str,
    layer: int = 0,
    position: int = -1,
    special: bool = False,
    muted: Sequence[Sequence[int]] = (),
) -> dict[str, Any]:
    """The rest of a block on this text: norms before and after, the MLP's curve and activations, heads, the stream."""
    config = model.config
    _check("layer", layer, config.n_layer)
    ids, _ = read(model, encoding, text, special)
    T = len(ids)
    _check("token", position % T if -T <= position < T else position, T)
    position %= T
    at = f"blocks.{layer}."
    wanted = ["embedded", "blocks.*.middle", "blocks.*.output", "blocks.*.added*"]
    wanted += [at + name for name in ("*", "attention.heads", "attention.out", "mlp.*")]
    if config.norm_position == "post":
        wanted += ["blocks.*.attention.out", "blocks.*.mlp.out"]
    found = trace(model, torch.tensor([ids], device=model.device), wanted, _silencing(muted, config))
    parts = model.blocks[layer]
    norms = {}
    for name, (before, after) in norm_inputs(found, config, layer).items():
        norm = getattr(parts, name)
        norms[name] = {
            "before": {k: _numpy(v) for k, v in norm_statistics(before).items()},
            "after": {k: _numpy(v) for k, v in norm_statistics(after).items()},
            "before_here": _numpy(before[position]), "after_here": _numpy(after[position]),
            "scale": _numpy(norm.weight), "shift": _numpy(norm.bias) if getattr(norm, "bias", None) is not None else None,
        }  # fmt: skip
    bent, curved = (
        found[f"blocks.{layer}.mlp.before"][0],
        found[f"blocks.{layer}.mlp.after"][0],
    )  # (T, hidden)
    low, high = min(float(bent.min()), -4.0), max(float(bent.max()), 4.0)
    x, y = activation_curve(config.mlp, low, high)
    counts = torch.histc(bent.cpu(), bins=60, min=low, max=high)
    gated = found.get(f"blocks.{layer}.mlp.gated")
    heads = found[at + "attention.heads"][0]  # (H, T, D)
    by_head = parts.attention.out.weight.detach().unflatten(1, (len(heads), -1))  # (C, H, D)
    lengths_by_head = torch.stack(
        [(y @ by_head[:, n].T).norm(dim=-1) for n, y in enumerate(heads)]
    )  # as head_parts
    names, lengths, added = growth(found, config)
    bias = parts.attention.out.bias
    ids_near, cosine = nearest(model.output.weight.detach(), ids[position])
    return {
        "layer": layer, "position": position, "tokens": _tokens(encoding, ids), "norms": norms, "norm": config.norm,
        "norm_position": config.norm_position, "norm_eps": config.norm_eps, "mlp": config.mlp, "hidden": config.hidden,
        "curve": (_numpy(x), _numpy(y)), "range": (low, high), "histogram": _numpy(counts),
        "before_here": _numpy(bent[position]), "after_here": _numpy(curved[position]),
        "up_here": _numpy(found[f"blocks.{layer}.mlp.up"][0, position]) if gated is not None else None,
        "gated_here": _numpy(gated[0, position]) if gated is not None else None,
        "below_zero": float((bent < 0).float().mean()), "nearly_off": float((curved.abs() < 0.05).float().mean()),
        "heads": _numpy(lengths_by_head), "attention_out": _numpy(found[at + "attention.out"][0].norm(dim=-1)),
        "attention_added": _numpy(found[at + "added1"][0].norm(dim=-1)) if config.norm_position in ("sandwich", "output") else None,
        "out_bias": _numpy(bias.norm()).item() if bias is not None else None,
        "stops": names, "lengths": _numpy(lengths), "added": _numpy(added),
        "tied": tied(model), "tie_embeddings": config.tie_embeddings, "vocab_size": config.vocab_size,
        "n_embd": config.n_embd,
        "near": [(*token, float(c)) for token, c in zip(_tokens(encoding, ids_near), cosine)],
    }  # fmt: skip


def positions(model: GPT, encoding: Tokenizer, text: str = "", size: int = 96) -> dict[str, Any]:
    """How this model knows the order of tokens: its table, sinusoids or turning speeds, and what stands beyond training."""
    config = model.config
    P = config.context_length
    result: dict[str, Any] = {
        "position": config.position,
        "context_length": P,
        "head_dim": config.head_dim,
    }
    if config.position in ("learned", "sinusoidal"):
        n = P if config.position == "learned" else 2 * P  # sinusoids go on beyond the context
        step = math.ceil(n / size)
        vectors = position_vectors(model, n)
        result |= {
            "step": step, "rows": n, "vectors": _numpy(vectors[::step]), "cosines": _numpy(cosines(vectors[::step])),
            "lengths": _numpy(vectors.norm(dim=-1)), "n_embd": config.n_embd,
        }  # fmt: skip
    if config.position == "rope":
        kinds = {"all": False} | (
            {"sliding": True} if config.rope_theta_local and config.sliding_window else {}
        )
        result |= {"layers": {name: rope_view(config, sliding) for name, sliding in kinds.items()}}
    return result | {"refusal": refusal(model), "most_beyond": MOST_BEYOND}


def rope_view(config: ModelConfig, sliding: bool) -> dict[str, Any]:
    """The turning speeds of the layers with a sliding window or of the others, and beside scaled ones the unscaled."""
    P = config.context_length
    speed, turn = rope_pairs(config, sliding)
    distances = torch.linspace(0, 2 * P - 1, min(2 * P, 1024)).round()
    view = {
        "theta": config.rope_theta_local if sliding else config.rope_theta, "size": config.rope_size,
        "speed": _numpy(speed), "turn": _numpy(turn), "distances": _numpy(distances),
        "by_distance": _numpy(rope_by_distance(config, distances, speed)),
        "unfinished": int((turn > P).sum()),  # pairs that never come full circle within the context
    }  # fmt: skip
    if config.rope_scaling != "none" and not sliding:
        unscaled = rope_rates(config.rope_size, config.rope_theta)
        view |= {
            "unscaled": _numpy(unscaled), "by_distance_unscaled": _numpy(rope_by_distance(config, distances, unscaled))
        }  # fmt: skip
    return view


def refusal(model: GPT) -> str:
    """What the model says to one token more than its context: its own sentence, or nothing when it reads it."""
    try:
        with torch.no_grad():
            one = torch.zeros((1, 1), dtype=torch.long, device=model.device)
            model.embed(one, one + model.config.context_length)
    except ValueError as error:
        return str(error)
    return ""


def beyond(
    model: GPT, encoding: Tokenizer, text: str, factor: int = 2, windows: int = 12, bins: int = 48
) -> dict[str, Any]:
    """Loss by position on a real text up to `factor` times the context the model was trained with.

    Raises ValueError when the text is too short for one stretch, or with the model's own words when it cannot.
    """
    if not 1 < factor <= MAX_BEYOND:
        raise ValueError(f"Choose 2 to {MAX_BEYOND} context lengths, not {factor}.")
    P = model.config.context_length
    if factor * P > MOST_BEYOND:
        raise ValueError(
            f"{factor} times this model's context is {factor * P:,} tokens, which it would take minutes to read here: "
            f"{MOST_BEYOND:,} are the most."
        )
    ids = encoding.encode(text, special=True)
    losses = loss_by_position(model, ids, factor * P + 1, windows)
    parts = losses.tensor_split(min(bins * factor // 2, len(losses)))
    starts = np.cumsum([0] + [len(part) for part in parts[:-1]]).tolist()
    return {
        "starts": starts, "losses": [float(part.mean()) for part in parts], "context_length": P, "length": factor * P,
        "stretches": min(len(ids) // (factor * P + 1), windows),
        "inside": float(losses[: P].mean()), "outside": float(losses[P:].mean()),
    }  # fmt: skip
