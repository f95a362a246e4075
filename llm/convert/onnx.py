"""ONNX: the model as a graph of named operations, for onnxruntime, and for transformers.js in the browser.

The graph is written down here operation by operation: an exporter that follows the model while it computes took six
minutes and five times the memory of a model of 135 million parameters, and this takes five seconds. Shapes as in llm.model;
G heads share one key/value head.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm import inventory, paths
from llm.config import ModelConfig
from llm.convert import families, target

if TYPE_CHECKING:
    from torch import Tensor

OPSET = 17  # the set of operations: the first with LayerNormalization; everything since 2022 runs it
MOST = 2**31 - 1  # bytes of an ONNX file that holds its weights
FLOAT, INT64, BOOL = 1, 7, 9  # the format's numbers for float32, int64 and bool
Rates = Callable[[bool], Sequence[float]]


@dataclass
class Graph:
    """A graph under way. Every method that adds something returns its name, to be used further on."""

    nodes: list[Any] = field(default_factory=list)
    constants: dict[tuple, Any] = field(default_factory=dict)
    weights: dict[str, tuple[int, ...]] = field(default_factory=dict)  # ours: its shape in the graph
    turned: set[str] = field(default_factory=set)  # those that stand (in, out) in the graph
    inputs: list[Any] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)
    place: str = ""  # part of the model that is being written

    def op(self, kind: str, *inputs: str, n: int = 1, **attributes: Any) -> Any:
        """One operation with `n` outputs: its name, or the list of them."""
        from onnx import helper

        stem = f"{self.place}{kind.lower()}_{len(self.nodes)}"
        names = [stem if n == 1 else f"{stem}.{i}" for i in range(n)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, name=stem, **attributes))
        return names[0] if n == 1 else names

    def number(self, value: float | Sequence[float], kind: int = FLOAT) -> str:
        """A constant: one number, or a list of them."""
        from onnx import helper

        values = [value] if isinstance(value, (int, float)) else list(value)
        shape = [] if isinstance(value, (int, float)) else [len(values)]
        key = (kind, *shape, *values)
        if key not in self.constants:
            name = f"{'int' if kind == INT64 else 'float'}_{len(self.constants)}"
            self.constants[key] = helper.make_tensor(name, kind, shape, values)
        return self.constants[key].name

    def weight(self, name: str, shape: tuple[int, ...], turned: bool = False) -> str:
        """A tensor of the model; with `turned`, a matrix is stored with rows and columns exchanged."""
        self.weights[name] = shape[::-1] if turned else shape
        if turned:
            self.turned.add(name)
        return name

    def input(self, name: str, kind: int, shape: Sequence[str | int]) -> str:
        from onnx import helper

        self.inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def output(self, name: str, result: str, shape: Sequence[str | int]) -> None:
        from onnx import helper

        self.nodes.append(helper.make_node("Identity", [result], [name], name=name))
        self.outputs.append(helper.make_tensor_value_info(name, FLOAT, shape))


# ---- The model, operation by operation -----------------------------------------------------------------------------


def graph_of(config: ModelConfig, cached: bool, rates: Rates) -> Graph:
    """input_ids (B, T) -> logits (B, T, V); `cached`: also attention_mask (B, S), position_ids (B, T) and the keys and
    values (B, K, S - T, D) of the tokens before, in the names and shapes that transformers.js uses.

    rates: those of RoPE, of layers without (False) and with a sliding window (True): llm.model.rates_of.
    """
    g, C, V = Graph(), config.n_embd, config.vocab_size
    shapes = families.our_shapes(config)
    ids = g.input("input_ids", INT64, ["batch", "sequence"])
    length = _axis(g, ids, 1)
    if cached:
        mask = g.input("attention_mask", INT64, ["batch", "total"])
        positions = g.input("position_ids", INT64, ["batch", "sequence"])
        total = _axis(g, mask, 1)
        kept = g.op("Unsqueeze", g.op("Cast", mask, to=BOOL), g.number([1, 2], INT64))  # (B, 1, 1, S)
    else:
        total, kept = length, ""
        zero, one = g.number(0, INT64), g.number(1, INT64)
        positions = g.op("Unsqueeze", g.op("Range", zero, length, one), g.number([0], INT64))  # (1, T)
    seen = {window: _seen(g, length, total, kept, window) for window in _windows(config)}
    turns = _turns(g, config, positions, rates)
    table = g.weight("token_embedding.weight", shapes["token_embedding.weight"])
    x = _embedded(g, config, table, ids, positions)
    presents = []
    for layer in range(config.n_layer):
        past = ("", "")
        if cached:
            shape = ["batch", config.kv_heads, "past", config.head_dim]
            past = tuple(
                g.input(f"past_key_values.{layer}.{part}", FLOAT, shape) for part in ("key", "value")
            )

        def attention(x: str, layer: int = layer, past: tuple[str, str] = past) -> str:
            window = config.sliding_window if config.slides(layer) else 0
            y, k, v = _attention(g, config, x, layer, seen[window], turns.get(config.slides(layer)), past)
            presents.append((k, v))
            return y

        x = _block(g, config, x, layer, attention)
    g.place = ""
    if config.norm_position != "post":
        x = _norm(g, config, "norm", x)
    head = (
        g.op("Transpose", table, perm=[1, 0])
        if config.tie_embeddings
        else g.weight("output.weight", (V, C), True)
    )
    g.output("logits", g.op("MatMul", x, head), ["batch", "sequence", V])
    if cached:
        shape = ["batch", config.kv_heads, "total", config.head_dim]
        for layer, (k, v) in enumerate(presents):
            g.output(f"present.{layer}.key", k, shape)
            g.output(f"present.{layer}.value", v, shape)
    return g


def _axis(g: Graph, x: str, axis: int) -> str:
    """The length of x along an axis, as a single number."""
    return g.op("Gather", g.op("Shape", x), g.number(axis, INT64), axis=0)


def _windows(config: ModelConfig) -> set[int]:
    return {config.sliding_window if config.slides(layer) else 0 for layer in range(config.n_layer)}


def _seen(g: Graph, length: str, total: str, kept: str, window: int) -> str:
    """Where a token may look, (T, S) or (B, 1, T, S): at itself, at what came before, at most `window` tokens back."""
    one = g.number(1, INT64)
    keys = g.op("Range", g.number(0, INT64), total, one)  # (S,)
    queries = g.op("Range", g.op("Sub", total, length), total, one)  # (T,): the last of them
    queries = g.op("Unsqueeze", queries, g.number([1], INT64))
    seen = g.op("LessOrEqual", keys, queries)
    if window:
        near = g.op("Less", g.op("Sub", queries, keys), g.number(window, INT64))
        seen = g.op("And", seen, near)
    return g.op("And", seen, kept) if kept else seen


def _turns(g: Graph, config: ModelConfig, positions: str, rates: Rates) -> dict[bool, tuple[str, str]]:
    """RoPE's cosines and sines (B, 1, T, R/2), of layers without a sliding window (False) and with one (True)."""
    if config.position != "rope":
        return {}
    numbers = g.op("Cast", g.op("Unsqueeze", positions, g.number([1, 3], INT64)), to=FLOAT)  # (B, 1, T, 1)
    found = {}
    for sliding in {config.slides(layer) for layer in range(config.n_layer)}:
        angles = g.op("Mul", numbers, g.number(rates(sliding)))
        found[sliding] = (g.op("Cos", angles), g.op("Sin", angles))
    return found


def _embedded(g: Graph, config: ModelConfig, table: str, ids: str, positions: str) -> str:
    """(B, T) -> (B, T, C): the token's vector plus, for some models, its place's."""
    C = config.n_embd
    x = g.op("Gather", table, ids)
    if config.embedding_scale:
        x = g.op("Mul", x, g.number(math.sqrt(C)))
    if config.position == "learned":
        places = g.weight("position_embedding.weight", (config.context_length, C))
        return g.op("Add", x, g.op("Gather", places, positions))
    if config.position == "sinusoidal":
        rates = g.number([10_000.0 ** (-i / C) for i in range(0, C, 2)])
        numbers = g.op("Cast", g.op("Unsqueeze", positions, g.number([2], INT64)), to=FLOAT)
        angles = g.op("Mul", numbers, rates)
        pairs = [g.op("Unsqueeze", g.op(kind, angles), g.number([3], INT64)) for kind in ("Sin", "Cos")]
        waves = g.op("Reshape", g.op("Concat", *pairs, axis=3), g.number([0, 0, -1], INT64))
        ends = [g.number([n], INT64) for n in (0, C, 2)]
        return g.op("Add", x, g.op("Slice", waves, *ends))  # an odd width has one sine more
    return x


def _block(g: Graph, config: ModelConfig, x: str, layer: int, attention: Callable[[str], str]) -> str:
    """Attention and MLP, each added to the stream, with the norms where this model has them: see llm.model.Block."""
    stem, where = f"blocks.{layer}.", config.norm_position

    def norm(name: str, x: str) -> str:
        g.place = f"{stem}{name}/"
        return _norm(g, config, f"{stem}{name}", x)

    def added(part: int, f: Callable[[str], str], source: str) -> str:
        y = f(norm(f"norm{part}", source) if where in ("pre", "sandwich") else source)
        after = {"sandwich": f"norm{part}_out", "output": f"norm{part}"}.get(where)
        return norm(after, y) if after else y

    def mlp(x: str) -> str:
        return _mlp(g, config, x, layer)

    middle = g.op("Add", x, added(1, attention, x))
    if where == "post":
        middle = norm("norm1", middle)
        return norm("norm2", g.op("Add", middle, added(2, mlp, middle)))
    return g.op("Add", middle, added(2, mlp, x if config.parallel else middle))


def _norm(g: Graph, config: ModelConfig, name: str, x: str) -> str:
    """LayerNorm or RMSNorm over the last axis, with the weights of that name."""
    shapes = families.our_shapes(config)
    weight = g.weight(f"{name}.weight", shapes[f"{name}.weight"])
    if config.norm == "layernorm" and "_norm" not in name:
        biased = f"{name}.bias" in shapes
        bias = (g.weight(f"{name}.bias", shapes[f"{name}.bias"]),) if biased else ()
        return g.op("LayerNormalization", x, weight, *bias, axis=-1, epsilon=config.norm_eps)
    mean_square = g.op("ReduceMean", g.op("Mul", x, x), axes=[-1], keepdims=1)
    root = g.op("Sqrt", g.op("Add", mean_square, g.number(config.norm_eps)))
    return g.op("Mul", g.op("Div", x, root), weight)


def _linear(g: Graph, config: ModelConfig, name: str, x: str) -> str:
    shapes = families.our_shapes(config)
    y = g.op("MatMul", x, g.weight(f"{name}.weight", shapes[f"{name}.weight"], turned=True))
    if f"{name}.bias" in shapes:
        y = g.op("Add", y, g.weight(f"{name}.bias", shapes[f"{name}.bias"]))
    return y


def _attention(
    g: Graph,
    config: ModelConfig,
    x: str,
    layer: int,
    seen: str,
    turn: tuple[str, str] | None,
    past: tuple[str, str],
) -> tuple[str, str, str]:
    """x (B, T, C) -> (B, T, C), and all keys and values (B, K, S, D)."""
    stem = f"blocks.{layer}.attention"
    g.place = f"{stem}/"
    H, K, D = config.n_head, config.kv_heads, config.head_dim
    sizes = g.number([H * D, K * D, K * D], INT64)
    parts = g.op("Split", _linear(g, config, f"{stem}.qkv", x), sizes, n=3, axis=-1)
    heads = []
    for letter, part in zip("qkv", parts):
        normed = letter != "v" and config.qk_norm
        if normed == "width":
            part = _norm(g, config, f"{stem}.{letter}_norm", part)
        part = g.op("Reshape", part, g.number([0, 0, -1, D], INT64))
        if normed == "head":
            part = _norm(g, config, f"{stem}.{letter}_norm", part)
        part = g.op("Transpose", part, perm=[0, 2, 1, 3])  # (B, H or K, T, D)
        heads.append(_turned(g, config, part, turn) if turn and letter != "v" else part)
    q, k, v = heads
    if past[0]:
        k, v = (g.op("Concat", before, now, axis=2) for before, now in zip(past, (k, v)))
    q = g.op("Reshape", q, g.number([0, K, H // K, -1, D], INT64))  # (B, K, G, T, D)
    axis = g.number([2], INT64)
    shared_k = g.op("Transpose", g.op("Unsqueeze", k, axis), perm=[0, 1, 2, 4, 3])  # (B, K, 1, D, S)
    scores = g.op("Mul", g.op("MatMul", q, shared_k), g.number(1 / math.sqrt(config.score_size or D)))
    if past[0]:
        seen = g.op("Unsqueeze", seen, g.number([1], INT64))  # (B, 1, 1, T, S)
    masked = g.op("Where", seen, scores, g.number(-3.4028234663852886e38))
    weights = g.op("Softmax", masked, axis=-1)
    y = g.op("MatMul", weights, g.op("Unsqueeze", v, axis))  # (B, K, G, T, D)
    y = g.op("Reshape", y, g.number([0, H, -1, D], INT64))
    y = g.op("Reshape", g.op("Transpose", y, perm=[0, 2, 1, 3]), g.number([0, 0, H * D], INT64))
    return _linear(g, config, f"{stem}.out", y), k, v


def _turned(g: Graph, config: ModelConfig, x: str, turn: tuple[str, str]) -> str:
    """The pairs (x_i, x_{i + R/2}) of the first R numbers turned by their angle; the rest stays: llm.model.rotate."""
    half, rest = config.rope_size // 2, config.head_dim - config.rope_size
    sizes = [half, half, rest] if rest else [half, half]
    first, second, *stays = g.op("Split", x, g.number(sizes, INT64), n=len(sizes), axis=-1)
    cos, sin = turn
    left = g.op("Sub", g.op("Mul", first, cos), g.op("Mul", second, sin))
    right = g.op("Add", g.op("Mul", second, cos), g.op("Mul", first, sin))
    return g.op("Concat", left, right, *stays, axis=-1)


def _mlp(g: Graph, config: ModelConfig, x: str, layer: int) -> str:
    """x (B, T, C) -> (B, T, C)."""
    stem = f"blocks.{layer}.mlp"
    g.place = f"{stem}/"
    after = CURVES[config.mlp](g, _linear(g, config, f"{stem}.{'gate' if config.gated else 'up'}", x))
    if config.gated:
        after = g.op("Mul", after, _linear(g, config, f"{stem}.up", x))
    return _linear(g, config, f"{stem}.down", after)


def _silu(g: Graph, x: str) -> str:
    return g.op("Mul", x, g.op("Sigmoid", x))


def _gelu(g: Graph, x: str) -> str:
    """x * Phi(x), by the error function."""
    bent = g.op("Erf", g.op("Mul", x, g.number(math.sqrt(0.5))))
    return g.op("Mul", g.op("Mul", x, g.number(0.5)), g.op("Add", bent, g.number(1.0)))


def _gelu_tanh(g: Graph, x: str) -> str:
    cube = g.op("Mul", g.op("Mul", g.op("Mul", x, x), x), g.number(0.044715))
    bent = g.op("Tanh", g.op("Mul", g.op("Add", x, cube), g.number(math.sqrt(2 / math.pi))))
    return g.op("Mul", g.op("Mul", x, g.number(0.5)), g.op("Add", bent, g.number(1.0)))


CURVES: dict[str, Callable[[Graph, str], str]] = {
    "swiglu": _silu,
    "geglu": _gelu_tanh,
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "relu": lambda g, x: g.op("Relu", x),
}


# ---- The file ------------------------------------------------------------------------------------------------------


def _head(g: Graph) -> bytes:
    """The GraphProto without the weights."""
    from onnx import helper

    graph = helper.make_graph(g.nodes, "model", g.inputs, g.outputs, list(g.constants.values()))
    return graph.SerializeToString()


def _tensor_head(name: str, shape: tuple[int, ...]) -> bytes:
    from onnx import TensorProto

    return TensorProto(name=name, dims=shape, data_type=FLOAT).SerializeToString()


def _field(number: int, length: int) -> bytes:
    """What stands before `length` bytes of a protobuf field: its number and the length, seven bits a byte."""
    rest, found = length, bytearray([number << 3 | 2])
    while rest > 127:
        found.append(rest & 127 | 128)
        rest >>= 7
    return bytes([*found, rest])


def _pieces(g: Graph) -> Iterator[bytes | str]:
    """The bytes of the file in order, with the name of a weight where its numbers belong.

    The onnx library builds a file in memory before it writes it. Protobuf's rule that the parts of a message follow one
    another lets the weights pass one by one instead.
    """
    from onnx import ModelProto, helper

    heads = {name: _tensor_head(name, shape) for name, shape in g.weights.items()}
    tensors = []
    for name, shape in g.weights.items():
        numbers = _field(9, 4 * prod(shape))  # TensorProto.raw_data
        whole = len(heads[name]) + len(numbers) + 4 * prod(shape)
        tensors.append(
            (name, _field(5, whole) + heads[name] + numbers, 4 * prod(shape))
        )  # GraphProto.initializer
    graph = _head(g)
    length = len(graph) + sum(len(start) + size for _, start, size in tensors)
    model = ModelProto(ir_version=8, producer_name="LLM Lab", opset_import=[helper.make_opsetid("", OPSET)])
    yield model.SerializeToString() + _field(7, length) + graph  # ModelProto.graph
    for name, start, _ in tensors:
        yield start
        yield name


def _bytes(g: Graph) -> int:
    """Length of the file."""
    return sum(4 * prod(g.weights[piece]) if isinstance(piece, str) else len(piece) for piece in _pieces(g))


def _write(file: Path, g: Graph, weights: dict[str, Tensor], tell: Callable[[str, int], None]) -> None:
    import torch

    with open(file, "wb") as f:
        for piece in _pieces(g):
            if isinstance(piece, str):
                tensor = weights[piece].T if piece in g.turned else weights[piece]
                numbers = memoryview(tensor.float().contiguous().view(-1).view(torch.uint8).numpy())
                f.write(numbers)
                tell(piece, len(numbers))
            else:
                f.write(piece)


# ---- The export ----------------------------------------------------------------------------------------------------


def size(name: str) -> int:
    """Bytes that `save` will write, within a few thousand. Raises ValueError when it could not."""
    origin = paths.model_folder(name)
    config = inventory.shape(origin)
    files, _ = _plan(
        origin, config, lambda sliding: [0.0] * (config.rope_size // 2)
    )  # their number is what counts
    return sum(map(_bytes, files.values())) + (origin / "tokenizer.json").stat().st_size + 5000


def save(name: str, destination: Path, progress: target.Progress | None = None) -> list[str]:
    """Write the model `name` as a folder; returns notes. The folder appears when it is whole.

    model.onnx: input_ids -> logits, for onnxruntime. onnx/model.onnx with config.json, tokenizer.json and what belongs
    to them: the same with a KV cache, as transformers.js opens it. Numbers are fp32. Raises ValueError when the onnx
    package is missing, the model is too large for one file, or something lies at `destination` already; OSError from the
    disk.
    """
    from llm import checkpoint
    from llm.model import rates_of

    origin = paths.model_folder(name)
    config = inventory.shape(origin)
    files, notes = _plan(origin, config, lambda sliding: rates_of(config, sliding).tolist())
    done, total = 0, sum(4 * prod(shape) for g in files.values() for shape in g.weights.values())

    def tell(what: str, written: int) -> None:
        nonlocal done
        done += written
        if progress:
            progress(what, done, total)

    with target.whole(destination) as temporary:
        weights = dict(checkpoint.read_weights(origin))
        for place, g in files.items():
            (temporary / place).parent.mkdir(exist_ok=True)
            _write(temporary / place, g, weights, tell)
        if len(files) > 1:
            target.write_encoding(origin, temporary, config)
            ids = json.loads((temporary / "generation_config.json").read_text(encoding="utf-8"))
            theirs = {**families.their_config(config), **ids, "dtype": "float32", "torch_dtype": "float32"}
            (temporary / "config.json").write_text(json.dumps(theirs, indent=2) + "\n", encoding="utf-8")
    return notes


def _plan(origin: Path, config: ModelConfig, rates: Rates) -> tuple[dict[str, Graph], list[str]]:
    """The files to write, by their place, and notes. Raises ValueError when not even the first can be."""
    try:
        import onnx  # noqa: F401
    except ImportError:
        raise ValueError(
            "ONNX files need the package onnx, which is not installed: pip install -r requirements-export.txt"
        ) from None
    files = {"model.onnx": graph_of(config, False, rates)}
    if _bytes(files["model.onnx"]) > MOST:
        raise ValueError(
            f"{paths.called(origin)} would take {_bytes(files['model.onnx']) / 1e9:.1f} GB, and an ONNX file holds at most "
            f"{MOST / 1e9:.1f} GB."
        )
    try:
        families.their_config(config)
        target.refuse_own_encoding(origin)
    except ValueError as error:
        return files, [f"The part for transformers.js is left out: {error}"]
    return files | {"onnx/model.onnx": graph_of(config, True, rates)}, []
