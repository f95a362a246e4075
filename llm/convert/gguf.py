"""A GGUF file, the format of llama.cpp and Ollama, in and out; numbers are packed and unpacked by the gguf library."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from llm import inventory, paths
from llm.config import ModelConfig
from llm.convert import families, gguf_tokenizer
from llm.convert.gguf_header import Header, Stored, read_header
from llm.convert.source import MapRow, Source

if TYPE_CHECKING:
    import numpy
    from torch import Tensor

Progress = Callable[[str, int, int], None]  # what, bytes done, bytes in all; may raise to stop

WRITTEN = {"f32": "F32", "f16": "F16", "bf16": "BF16", "q8_0": "Q8_0", "q4_0": "Q4_0"}
FILE_TYPES = {"f32": 0, "f16": 1, "bf16": 32, "q8_0": 7, "q4_0": 2}  # llama.cpp's numbers for the whole file
BLOCK = 32  # numbers that share a scale in Q8_0 and Q4_0
PIECE = 2**18  # numbers turned into floats at a time: they stay in the processor's cache
LARGEST_F16 = 65504.0
CARD = {
    "general.license": "(?:license|- licence)",
    "general.organization": "- organisation",
}  # how a card's line begins


# ---- Architectures ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Architecture:
    """How llama.cpp calls and keeps one family of models."""

    family: str  # Hugging Face's name of it
    curves: tuple[str, ...] = ("swiglu",)  # our mlp: what llama.cpp can compute
    names: Mapping[str, str] = field(default_factory=dict)  # tensors called otherwise than in PARTS
    joined: bool = False  # q, k and v in one matrix
    turned: bool = False  # RoPE turns neighbours: rows of q and k are (0, D/2, 1, D/2 + 1, ...)
    square: bool = False  # all heads together are as wide as the stream
    head: bool = False  # the output matrix must be there, even when it is the token embedding
    keys: tuple[str, ...] = ()  # settings that are read, besides those of all


PARTS = {  # ours: theirs
    "token_embedding": "token_embd", "position_embedding": "position_embd", "norm": "output_norm", "output": "output",
    "norm1": "attn_norm", "norm2": "ffn_norm", "norm1_out": "post_attention_norm", "norm2_out": "post_ffw_norm",
    "attention.out": "attn_output", "attention.q_norm": "attn_q_norm", "attention.k_norm": "attn_k_norm",
    "mlp.gate": "ffn_gate", "mlp.up": "ffn_up", "mlp.down": "ffn_down",
}  # fmt: skip
ARCHITECTURES: dict[str, Architecture] = {
    "llama": Architecture("llama", turned=True, keys=("attention.sliding_window",)),
    "qwen2": Architecture("qwen2", square=True),
    "qwen3": Architecture("qwen3"),
    "gemma3": Architecture(
        "gemma3_text",
        curves=("geglu",),
        keys=("attention.sliding_window", "attention.sliding_window_pattern", "rope.freq_base_swa"),
    ),
    "olmo2": Architecture(
        "olmo2", names={"norm1": "post_attention_norm", "norm2": "post_ffw_norm"}, square=True, head=True
    ),
    "gpt2": Architecture(
        "gpt2", curves=("gelu_tanh", "gelu"), joined=True, square=True, keys=("activation_function",)
    ),
    "gptneox": Architecture(
        "gpt_neox",
        curves=("gelu", "gelu_tanh"),
        joined=True,
        square=True,
        head=True,
        keys=("use_parallel_residual", "activation_function"),
    ),
}
NUMBERS_OF = {  # our setting: theirs, without the architecture's name before it
    "context_length": "context_length", "n_embd": "embedding_length", "n_layer": "block_count",
    "mlp_hidden": "feed_forward_length", "n_head": "attention.head_count", "n_kv_head": "attention.head_count_kv",
    "head_size": "attention.key_length",
}  # fmt: skip
EPSILON = {"rmsnorm": "attention.layer_norm_rms_epsilon", "layernorm": "attention.layer_norm_epsilon"}
ROPE = (
    "rope.dimension_count", "rope.freq_base", "rope.scaling.type", "rope.scaling.factor", "rope.scale_linear",
    "rope.scaling.original_context_length", "rope.scaling.low_freq_factor", "rope.scaling.high_freq_factor",
    "rope.scaling.finetuned",
)  # fmt: skip
SCALES = ("rope.scaling.attn_factor", "logit_scale", "residual_scale", "embedding_scale")  # 1 changes nothing
HARMLESS = ("vocab_size", "attention.value_length", "attention.causal", "tensor_data_layout", "pooling_type")
FACTORS = "rope_freqs.weight"  # how many times slower each pair turns, in the files of Llama 3


@dataclass(frozen=True)
class Part:
    """One tensor of a GGUF and its place in one of ours."""

    theirs: str
    ours: str
    shape: tuple[int, ...]
    rows: tuple[int, int] | None = None  # of ours; None: all
    heads: int = 0  # its rows are in the order of neighbours, head by head; 0: they are not
    how: str = "same"


def parts(arch: Architecture, config: ModelConfig) -> list[Part]:
    """Every tensor that a GGUF of this architecture and shape has."""
    found = []
    q, kv = config.n_head * config.head_dim, config.kv_heads * config.head_dim
    for ours, shape in families.our_shapes(config).items():
        layer, part, kind = families.OUR_NAME.fullmatch(ours).groups()
        place = f"blk.{layer}." if layer else ""
        if part != "attention.qkv":
            found.append(Part(f"{place}{arch.names.get(part, PARTS[part])}.{kind}", ours, shape))
        elif arch.joined:
            found.append(Part(f"{place}attn_qkv.{kind}", ours, shape))
        else:
            for letter, begin, end in (("q", 0, q), ("k", q, q + kv), ("v", q + kv, q + 2 * kv)):
                heads = 0 if letter == "v" or not arch.turned else (end - begin) // config.head_dim
                how = f"rows of {letter}" + (", RoPE's pairs put apart head by head" if heads else "")
                size = (end - begin, *shape[1:])
                found.append(Part(f"{place}attn_{letter}.{kind}", ours, size, (begin, end), heads, how))
    return found


def halves(rows: Tensor, heads: int) -> Tensor:
    """Rows of q or k, head by head, from pairs of neighbours (2i, 2i + 1) to pairs (i, i + D/2), as our RoPE turns them."""
    return rows.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2)


def neighbours(rows: Tensor, heads: int) -> Tensor:
    """The inverse of `halves`."""
    return rows.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)


# ---- In -----------------------------------------------------------------------------------------------------------


def look(path: Path) -> Source:
    """A GGUF file before any weight is read. Raises ValueError with what is damaged, missing or unknown here."""
    path = Path(path)
    header = read_header(path)
    name, arch = _architecture(header)
    theirs = _hugging_face(path, header, name, arch)
    config = families.model_config(theirs)
    wanted = parts(arch, config)
    _check_shapes(header, wanted)
    files, notes = gguf_tokenizer.files_of(header.settings, config.vocab_size)
    return Source(
        container="GGUF",
        family=name,
        config=config,
        rows=tuple(_rows(header, config, wanted)),
        read=lambda: _read(path, header, wanted),
        files=dict(files),
        facts=_facts(header),
        notes=(*notes, *_notes(header, config, theirs)),
    )


def _architecture(header: Header) -> tuple[str, Architecture]:
    """The row of the table. Raises ValueError for one that is not in it, and for files that are no whole model."""
    settings = header.settings
    if (kind := settings.get("general.type", "model")) != "model":
        raise ValueError(f"This GGUF file is no model but of the kind {str(kind)[:40]!r}.")
    if settings.get("split.count", 0) not in (0, 1):
        raise ValueError(
            f"This GGUF file is one of {settings['split.count']} parts of a model: join them first with "
            "`llama-gguf-split --merge`, which comes with llama.cpp."
        )
    name = settings.get("general.architecture")
    if not isinstance(name, str) or name not in ARCHITECTURES:
        raise ValueError(
            f"This model is of llama.cpp's architecture {str(name)[:40]!r}; those opened here are {', '.join(ARCHITECTURES)}."
        )
    return name, ARCHITECTURES[name]


def _hugging_face(path: Path, header: Header, name: str, arch: Architecture) -> dict[str, Any]:
    """The settings of a GGUF as Hugging Face's config.json of the same model."""
    own = {
        key[len(name) + 1 :]: value for key, value in header.settings.items() if key.startswith(f"{name}.")
    }
    _refuse_unknown(own, name, arch)
    family = families.FAMILIES[arch.family]
    numbers = _numbers(own, name)
    if "token_embd.weight" not in header.tensors:
        raise ValueError("The tensor token_embd.weight is missing: the file is no whole model.")
    numbers["vocab_size"] = header.tensors["token_embd.weight"].shape[0]
    norm = family.always["norm"]
    numbers["norm_eps"] = _needed(own, name, EPSILON[norm], (float, int))
    theirs = {key: numbers[ours] for ours, key in family.fields.items() if ours in numbers}
    theirs |= {"model_type": arch.family, "tie_word_embeddings": _tied(path, header)}
    if family.rope:
        theirs |= _rope(path, header, own, name, numbers)
    biases = {part: f"blk.0.{part}.bias" in header.tensors for part in ("attn_q", "attn_output", "ffn_up")}
    if arch.family == "llama" and biases["attn_q"] and not biases["attn_output"] and not biases["ffn_up"]:
        # a Llama with biases on q, k and v only
        theirs |= {"model_type": "qwen2", "use_sliding_window": False}
    elif arch.family == "llama":
        theirs |= {"attention_bias": biases["attn_output"], "mlp_bias": biases["ffn_up"]}
        if 0 < (window := _optional(own, name, "attention.sliding_window", 0)) < numbers["context_length"]:
            theirs |= {"model_type": "mistral", "sliding_window": window}
    if arch.family == "gemma3_text":
        theirs |= _windows(own, name, numbers)
        whole = numbers["n_layer"] == 62  # Gemma 3 27B: llama.cpp knows it by its layers, no setting says so
        size = numbers["n_embd"] // numbers["n_head"] if whole else numbers["head_size"]
        theirs["query_pre_attn_scalar"] = size
    if arch.joined:
        curve = "gelu_new" if arch.family == "gpt2" else "gelu"
        theirs[family.activation] = own.get("activation_function", curve)
    if "parallel" in family.fields:
        theirs[family.fields["parallel"]] = own.get("use_parallel_residual", True)
    return theirs


def _refuse_unknown(own: Mapping[str, Any], name: str, arch: Architecture) -> None:
    """Raise ValueError for a setting that may change what the model computes and that is not read here."""
    known = {*NUMBERS_OF.values(), *EPSILON.values(), *ROPE, *HARMLESS, *arch.keys}
    for key, value in own.items():
        idle = not value or (key in SCALES and value == 1)
        if (key not in known and not idle) or (key == "attention.causal" and not value):
            raise ValueError(
                f"The file sets {name}.{key} to {str(value)[:40]}, which this lab's models cannot follow."
            )


def _needed(own: Mapping[str, Any], name: str, key: str, kinds: tuple[type, ...]) -> Any:
    if (value := own.get(key)) is None:
        raise ValueError(f"The file does not say {name}.{key}: it is no whole model.")
    if isinstance(value, list) and value and all(one == value[0] for one in value):
        value = value[0]  # the same for every layer
    if type(value) not in kinds:
        raise ValueError(f"{name}.{key} is {str(value)[:40]}, not one number for all layers.")
    return value


def _optional(own: Mapping[str, Any], name: str, key: str, absent: float) -> Any:
    """A number that a file may leave out."""
    return _needed(own, name, key, (int, float)) if own.get(key) is not None else absent


def _numbers(own: Mapping[str, Any], name: str) -> dict[str, int]:
    """The sizes of the model by our names, those worked out that a file may leave out."""
    optional = ("n_kv_head", "head_size")
    found = {
        ours: _needed(own, name, key, (int,)) for ours, key in NUMBERS_OF.items() if ours not in optional
    }
    if min(found.values()) < 1:
        raise ValueError(f"The file is damaged: one of its sizes is {min(found.values())}.")
    absent = {"n_kv_head": found["n_head"], "head_size": found["n_embd"] // found["n_head"]}
    for ours in optional:
        found[ours] = _optional(own, name, NUMBERS_OF[ours], absent[ours])
    if (values := _optional(own, name, "attention.value_length", found["head_size"])) != found["head_size"]:
        raise ValueError(
            f"Values have {values} numbers a head and keys {found['head_size']}: this lab's models have as "
            "many of both."
        )
    return found


def _rope(
    path: Path, header: Header, own: Mapping[str, Any], name: str, numbers: Mapping[str, int]
) -> dict[str, Any]:
    """RoPE's settings as Hugging Face writes them."""
    size = numbers["head_size"]
    turned = _optional(own, name, "rope.dimension_count", size)
    if not 0 < turned <= size:
        raise ValueError(f"RoPE turns {turned} of a head's {size} numbers: the file is damaged.")
    base = _optional(own, name, "rope.freq_base", 10_000.0)
    found: dict[str, Any] = {"rope_theta": base, "rope_scaling": None}
    found["rotary_pct" if name == "gptneox" else "partial_rotary_factor"] = turned / size
    if name == "gptneox":
        found["rotary_emb_base"] = base
    if name == "gemma3":
        found["rope_local_base_freq"] = _optional(own, name, "rope.freq_base_swa", 10_000.0)
    older = _optional(own, name, "rope.scale_linear", 1.0)
    factor = _optional(own, name, "rope.scaling.factor", older) or 1.0
    kind = own.get("rope.scaling.type", "linear")
    if kind != "none" and (factor != 1.0 or kind != "linear"):
        found["rope_scaling"] = {"rope_type": kind, "factor": factor}
    if FACTORS in header.tensors:
        if found["rope_scaling"]:
            raise ValueError(
                f"The file has both RoPE scaling {kind} and {FACTORS}: one of them is known here."
            )
        found["rope_scaling"] = _llama3(path, header.tensors[FACTORS], own, name, base, size)
    return found


def _llama3(
    path: Path, stored: Stored, own: Mapping[str, Any], name: str, base: float, size: int
) -> dict[str, Any] | None:
    """The settings of Llama 3's RoPE scaling that give just these factors. Raises ValueError when none known here do."""
    import numpy

    if stored.shape != (size // 2,) or stored.kind != "F32":
        raise ValueError(
            f"{FACTORS} holds {prod(stored.shape)} numbers in {stored.kind}, not {size // 2} in F32."
        )
    with open(path, "rb") as file:
        file.seek(stored.begin)
        factors = numpy.frombuffer(file.read(stored.size), "<f4").astype(float)
    if (factors == 1).all():
        return None
    rates = float(base) ** (-numpy.arange(0, size, 2) / size)
    keys = ("low_freq_factor", "high_freq_factor", "original_context_length")
    said = tuple(_optional(own, name, f"rope.scaling.{key}", 0) for key in keys)
    for low, high, original in (said, (1.0, 4.0, 8192)):  # Llama 3's own, which its files leave out
        if not low or not high or not original or high <= low:
            continue
        turns = original * rates / (2 * numpy.pi)
        kept = ((turns - low) / (high - low)).clip(0, 1)
        factor = float(str(numpy.float32(factors.max())))
        if numpy.allclose(factors, 1 / (kept + (1 - kept) / factor), rtol=1e-3):
            scaling = {
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": low,
                "high_freq_factor": high,
            }
            return {**scaling, "original_max_position_embeddings": int(original)}
    raise ValueError(
        f"The file slows RoPE down pair by pair ({FACTORS}), in another way than Llama 3 does (low 1, high 4, first context "
        "8,192), and does not say which."
    )


def _windows(own: Mapping[str, Any], name: str, numbers: Mapping[str, int]) -> dict[str, Any]:
    """Which of Gemma 3's layers have a sliding window: every sixth has none, unless the file says otherwise."""
    key, window = "attention.sliding_window_pattern", _optional(own, name, "attention.sliding_window", 0)
    if isinstance(own.get(key), list):
        slides = own[key]
    else:
        every = max(int(_optional(own, name, key, 6)), 1)
        slides = [bool((n + 1) % every) for n in range(min(numbers["n_layer"], families.MOST_LAYERS))]
    kinds = ["sliding_attention" if window and one else "full_attention" for one in slides]
    return {"sliding_window": window or numbers["context_length"], "layer_types": kinds}


def _tied(path: Path, header: Header) -> bool:
    """Whether the output matrix is the token embedding: it is not there, or byte for byte the same."""
    head, embedding = header.tensors.get("output.weight"), header.tensors.get("token_embd.weight")
    if head is None or embedding is None:
        return True
    if (head.kind, head.shape) != (embedding.kind, embedding.shape):
        return False
    with open(path, "rb") as one, open(path, "rb") as other:
        one.seek(head.begin)
        other.seek(embedding.begin)
        left = head.size
        while left:
            piece = min(left, 4 * 2**20)
            if one.read(piece) != other.read(piece):
                return False
            left -= piece
    return True


def _check_shapes(header: Header, wanted: list[Part]) -> None:
    """Raise ValueError when a tensor is missing or has another shape than the settings say."""
    if missing := [part.theirs for part in wanted if part.theirs not in header.tensors]:
        more = f" and {len(missing) - 4} more" if len(missing) > 4 else ""
        raise ValueError(f"{len(missing)} tensors are missing: {', '.join(missing[:4])}{more}.")
    for part in wanted:
        if (shape := header.tensors[part.theirs].shape) != part.shape:
            here, there = (" x ".join(map(str, one)) for one in (shape, part.shape))
            raise ValueError(
                f"{part.theirs} has the shape {here} and the file's settings say {there}: it is damaged."
            )


def _rows(header: Header, config: ModelConfig, wanted: list[Part]) -> Iterator[MapRow]:
    places = {part.theirs: part for part in wanted}
    left_out = {FACTORS: "RoPE's factors: read into the config"}
    if config.tie_embeddings:
        left_out["output.weight"] = "the token embedding once more"
    for name, stored in header.tensors.items():
        part = places.get(name)
        how = part.how if part else left_out.get(name, "")
        yield MapRow(name, part.ours if part else "", stored.shape, stored.kind, how)


def _facts(header: Header) -> dict[str, str]:
    """Where the model is from, as far as the file says."""
    said = {
        "name": "general.name", "organisation": "general.organization", "licence": "general.license",
        "origin": "general.source.repo_url", "base model": "general.base_model.0.name",
    }  # fmt: skip
    found = {fact: header.settings.get(key) for fact, key in said.items()}
    if not found["origin"]:
        found["origin"] = header.settings.get("general.source.url") or header.settings.get("general.repo_url")
    facts = {fact: value[:200] for fact, value in found.items() if isinstance(value, str) and value}
    return facts | {"number format": ", ".join(_formats(header))}


def _formats(header: Header) -> dict[str, int]:
    """How many tensors are stored in each number format, the most frequent first."""
    kinds = [stored.kind for stored in header.tensors.values()]
    return {kind: kinds.count(kind) for kind in sorted(set(kinds), key=kinds.count, reverse=True)}


def _notes(header: Header, config: ModelConfig, theirs: Mapping[str, Any]) -> list[str]:
    notes = []
    packed = {kind: count for kind, count in _formats(header).items() if kind.startswith("Q")}
    if packed:
        listed = ", ".join(f"{count} in {kind}" for kind, count in packed.items())
        notes.append(
            f"The file is quantised ({listed}): its weights become fp32 here and keep the loss made when they were packed."
        )
    said = header.settings.get(f"{header.settings['general.architecture']}.context_length")
    if isinstance(said, int) and said > config.context_length:
        notes.append(
            f"Its context of {said:,} tokens is cut to {config.context_length:,}, the longest of this lab."
        )
    if theirs["model_type"] == "mistral":
        notes.append(
            f"Its layers see {config.sliding_window:,} tokens back, as the file says; llama.cpp itself lets them see all."
        )
    return notes


def _read(path: Path, header: Header, wanted: list[Part]) -> Iterator[tuple[str, Tensor]]:
    """Our tensors one after the other: F16 and BF16 as they are, all else in fp32."""
    import torch

    joined: dict[str, list[Part]] = {}
    for part in wanted:
        joined.setdefault(part.ours, []).append(part)
    with open(path, "rb") as file:
        for ours, pieces in joined.items():
            kinds = {header.tensors[part.theirs].kind for part in pieces}
            kind = kinds.pop() if len(kinds) == 1 else ""
            dtype = {"F16": torch.float16, "BF16": torch.bfloat16}.get(kind, torch.float32)
            rows = sum(part.shape[0] for part in pieces)
            out = torch.empty((rows, *pieces[0].shape[1:]), dtype=dtype)
            for part in pieces:
                view = out if part.rows is None else out[slice(*part.rows)]
                _fill(file, header.tensors[part.theirs], view)
                if part.heads:
                    view.copy_(halves(view, part.heads))
            yield ours, out


def _fill(file: BinaryIO, stored: Stored, out: Tensor) -> None:
    """Read one tensor into `out`, contiguous, of its shape. Raises ValueError when the file has become shorter."""
    import gguf
    import numpy
    import torch

    file.seek(stored.begin)
    plain = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}.get(stored.kind)
    if plain is not None:
        target = out if out.dtype == plain else torch.empty(stored.shape, dtype=plain)
        if file.readinto(target.view(torch.uint8).numpy().reshape(-1)) != stored.size:
            raise ValueError(f"The file ends before its tensor {stored.name} does.")
        if target is not out:
            out.copy_(target)
        return
    kind = gguf.GGMLQuantizationType[stored.kind]
    block, bytes_a_block = gguf.GGML_QUANT_SIZES[kind]
    flat, piece = out.view(-1).numpy(), PIECE // block * bytes_a_block
    with numpy.errstate(all="ignore"):  # damaged scales give NaN, which the model will show
        for begin in range(0, stored.size, piece):
            raw = file.read(min(piece, stored.size - begin))
            if len(raw) < min(piece, stored.size - begin):
                raise ValueError(f"The file ends before its tensor {stored.name} does.")
            values = gguf.quants.dequantize(numpy.frombuffer(raw, numpy.uint8)[None], kind)
            first = begin // bytes_a_block * block
            flat[first : first + values.size] = values[0]


# ---- Out ----------------------------------------------------------------------------------------------------------


def plan(config: ModelConfig) -> tuple[str, ModelConfig, list[str]]:
    """The architecture of llama.cpp that computes this model, the shape it has there, and notes.

    Raises ValueError with the setting in the way.
    """
    if config.sliding_window >= config.context_length:
        config = replace(config, sliding_window=0, global_every=0)  # it never cuts anything off
    try:
        theirs = families.their_config(config)
    except ValueError as error:
        raise ValueError(f"llama.cpp has no architecture for this model. {error}") from None
    whole = families.model_config(theirs)
    square = whole.n_head * whole.head_dim == whole.n_embd
    family = theirs["model_type"]
    name = next((name for name, arch in ARCHITECTURES.items() if arch.family == family), "llama")
    if name == "qwen2" and not square:
        name = "llama"  # which takes biases on q, k and v as well
    if reason := _in_the_way(name, ARCHITECTURES[name], whole):
        raise ValueError(f"llama.cpp's {name} cannot compute this model: {reason}.")
    notes = []
    if whole.mlp == "gelu":
        notes.append(
            "llama.cpp computes GELU by its tanh approximation and this model uses the exact curve: they differ by less than "
            "0.0005, so the last decimals will too."
        )
    if (whole.bias, whole.qkv_bias) != (config.bias, config.qkv_bias):
        notes.append(f"llama.cpp's {name} has biases where this model has none: they are written as zeros.")
    return name, whole, notes


def _in_the_way(name: str, arch: Architecture, config: ModelConfig) -> str:
    """The setting that an architecture of llama.cpp does not have, in words; "" when there is none."""
    together = config.n_head * config.head_dim
    if config.mlp not in arch.curves:
        return f"mlp is {config.mlp}, and it has only {' and '.join(arch.curves)}"
    if arch.square and together != config.n_embd:
        return f"head_size is {config.head_dim}, and its {config.n_head} heads must be {config.n_embd} wide together"
    if name == "gemma3":
        divisor = config.n_embd // config.n_head if config.n_layer == 62 else config.head_dim
        if (config.score_size or config.head_dim) != divisor:
            return f"score_size is {config.score_size or config.head_dim:g}, and it takes {divisor}"
    elif any(config.slides(layer) for layer in range(config.n_layer)):
        return f"sliding_window is {config.sliding_window}, and its layers see all"
    return ""


def size(name: str, kind: str = "f16") -> int:
    """Bytes of the GGUF file that `save` would write, within a few percent. Raises ValueError as `save` does."""
    folder = paths.model_folder(name)
    arch, config, _ = _checked(folder, kind)
    weights = sum(_bytes(part.shape, _number_format(part, kind)) for part in _written(arch, config))
    return weights + (folder / "tokenizer.json").stat().st_size


def _checked(folder: Path, kind: str) -> tuple[str, ModelConfig, list[str]]:
    if kind not in WRITTEN:
        raise ValueError(f"{kind!r} is no number format that is written here: choose {', '.join(WRITTEN)}.")
    arch, config, notes = plan(inventory.shape(folder))
    gguf_tokenizer.check(folder)
    return arch, config, notes


def _written(name: str, config: ModelConfig) -> list[Part]:
    """The tensors of a file to be written, the extra ones too: an output matrix where there must be one, RoPE's factors."""
    found = parts(ARCHITECTURES[name], config)
    if ARCHITECTURES[name].head and config.tie_embeddings:
        found.append(Part("output.weight", "token_embedding.weight", (config.vocab_size, config.n_embd)))
    if config.rope_scaling == "llama3":
        found.append(Part(FACTORS, "", (config.rope_size // 2,)))
    return found


def _number_format(part: Part, kind: str) -> str:
    """How a tensor is stored in a file of this kind, as llama.cpp's own tools do it.

    Norms, biases and learned positions stay F32; in Q4_0 files the embedding and the output matrix are Q8_0; rows that
    are no whole number of blocks are F16.
    """
    if len(part.shape) == 1 or part.theirs == "position_embd.weight":
        return "F32"
    if _uneven(part, kind):
        return "F16"
    if kind == "q4_0" and part.theirs in ("token_embd.weight", "output.weight"):
        return "Q8_0"
    return WRITTEN[kind]


def _uneven(part: Part, kind: str) -> bool:
    """Whether the rows of a matrix cannot be divided into the blocks of this kind of file."""
    return len(part.shape) > 1 and kind in ("q8_0", "q4_0") and part.shape[-1] % BLOCK > 0


def _bytes(shape: tuple[int, ...], number_format: str) -> int:
    a_block = {"F32": 4 * BLOCK, "F16": 2 * BLOCK, "BF16": 2 * BLOCK, "Q8_0": 34, "Q4_0": 18}[number_format]
    return prod(shape) * a_block // BLOCK


def settings_of(name: str, config: ModelConfig) -> dict[str, Any]:
    """The shape of a model as the settings of one of llama.cpp's architectures."""
    arch, family = ARCHITECTURES[name], families.FAMILIES[ARCHITECTURES[name].family]
    ours = {"n_kv_head": config.kv_heads, "head_size": config.head_dim, "mlp_hidden": config.hidden}
    found: dict[str, Any] = {key: {**vars(config), **ours}[setting] for setting, key in NUMBERS_OF.items()}
    found |= {"attention.value_length": config.head_dim, "vocab_size": config.vocab_size}
    found[EPSILON[config.norm]] = config.norm_eps
    if config.position == "rope":
        found |= {"rope.dimension_count": config.rope_size, "rope.freq_base": config.rope_theta}
    if config.rope_scaling == "linear":
        found |= {"rope.scaling.type": "linear", "rope.scaling.factor": config.rope_factor}
    if config.rope_scaling == "llama3":
        found["rope.scaling.original_context_length"] = config.rope_original
        found["rope.scaling.low_freq_factor"] = config.rope_low
        found["rope.scaling.high_freq_factor"] = config.rope_high
    slides = [config.slides(layer) for layer in range(config.n_layer)]
    if any(slides):
        found["attention.sliding_window"] = config.sliding_window
        found["attention.sliding_window_pattern"] = slides
        found["rope.freq_base_swa"] = config.rope_theta_local or config.rope_theta
    if arch.joined:
        curves = {ours: theirs for theirs, ours in reversed(family.acts.items())}
        found["activation_function"] = curves[config.mlp]
    if "use_parallel_residual" in arch.keys:
        found["use_parallel_residual"] = config.parallel
    return {f"{name}.{key}": value for key, value in found.items()}


def save(name: str, file: Path, kind: str = "f16", progress: Progress | None = None) -> list[str]:
    """Write the model `name` as a GGUF file, and a Modelfile for Ollama beside it; returns notes for a person.

    kind: f32, f16, bf16, q8_0 or q4_0. The file appears when it is whole. Raises ValueError with the setting in the way
    when llama.cpp cannot compute the model or has no such tokenizer; OSError from the disk.
    """
    folder, file = paths.model_folder(name), Path(file)
    arch, config, notes = _checked(folder, kind)
    tokens, more = gguf_tokenizer.settings_of(folder, config.vocab_size)
    settings = {**_general(name, folder, kind), **settings_of(arch, config), **tokens}
    file.parent.mkdir(parents=True, exist_ok=True)
    with paths.replacing(file) as temporary:
        _write(temporary, folder, arch, config, settings, kind, progress)
    with paths.replacing(modelfile := file.with_suffix(".Modelfile")) as temporary:
        temporary.write_text(_modelfile(file, config, tokens), encoding="utf-8")
    uneven = [part.theirs for part in _written(arch, config) if _uneven(part, kind)]
    if uneven:
        shown = ", ".join(uneven[:3]) + (f" and {len(uneven) - 3} more" if len(uneven) > 3 else "")
        notes.append(f"In F16, since their rows are no whole number of blocks of {BLOCK}: {shown}.")
    return [*notes, *more, f"For Ollama: ollama create {file.stem.lower()} -f {modelfile.name}"]


def _general(name: str, folder: Path, kind: str) -> dict[str, Any]:
    """What a file says of itself: its name, whose it is and under which licence as far as the card says, how it is packed."""
    card = folder / "README.md"
    text = card.read_text(encoding="utf-8") if card.is_file() else ""
    found = {"general.type": "model", "general.name": name, "general.file_type": FILE_TYPES[kind]}
    for key, line in CARD.items():
        if said := re.search(rf"^{line}:[ \t]*(\S.*?)[ \t]*$", text, re.MULTILINE):
            found[key] = said[1][:200]
    return {**found, "general.quantization_version": 2}


def _write(
    path: Path,
    folder: Path,
    name: str,
    config: ModelConfig,
    settings: Mapping[str, Any],
    kind: str,
    progress: Progress | None,
) -> None:
    import gguf
    from safetensors import SafetensorError, safe_open

    writer = gguf.GGUFWriter(path, name)
    adds = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
    for key, value in settings.items():
        (writer.add_array if isinstance(value, list) else adds[type(value)])(key, value)
    written = [(part, _number_format(part, kind)) for part in _written(name, config)]
    for part, number_format in written:
        length = _bytes(part.shape, number_format)
        known = gguf.GGMLQuantizationType[number_format]
        writer.add_tensor_info(part.theirs, part.shape, None, length, raw_dtype=known)
    total, done = sum(_bytes(part.shape, number_format) for part, number_format in written), 0
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        with safe_open(folder / "model.safetensors", framework="pt") as weights:
            _check_whole(folder, set(weights.keys()))
            for part, number_format in written:
                values = _values(part, config, weights)
                writer.write_tensor_data(_packed(values, number_format, part.theirs))
                done += _bytes(part.shape, number_format)
                if progress:
                    progress(part.theirs, done, total)
    except SafetensorError as error:
        raise ValueError(f"The weights of {paths.called(folder)} cannot be read: {error}.") from None
    finally:
        writer.close()


def _check_whole(folder: Path, names: set[str]) -> None:
    if missing := sorted(set(families.our_shapes(inventory.shape(folder))) - names):
        raise ValueError(f"The weights of {paths.called(folder)} are not whole: {missing[0]} is missing.")


def _values(part: Part, config: ModelConfig, weights: Any) -> numpy.ndarray:
    """The numbers of one tensor in fp32, its rows in the order of the file. weights: an open safetensors file."""
    import torch

    from llm.model import rates_of, rope_rates

    if part.theirs == FACTORS:
        return (rope_rates(config.rope_size, config.rope_theta) / rates_of(config)).float().numpy()
    if part.ours not in weights.keys():  # noqa: SIM118 - not a dict
        return torch.zeros(part.shape).numpy()  # a bias that only theirs has
    tensor = weights.get_slice(part.ours)
    rows = tensor[slice(*part.rows)] if part.rows else tensor[:]
    rows = neighbours(rows, part.heads) if part.heads else rows
    return rows.float().contiguous().numpy()


def _packed(values: numpy.ndarray, number_format: str, name: str) -> numpy.ndarray:
    """Numbers in a format of GGUF: (rows, numbers) of floats, or (rows, bytes)."""
    import gguf
    import numpy

    if number_format == "F32":
        return values
    if number_format == "F16" and numpy.abs(values).max() > LARGEST_F16:
        raise ValueError(
            f"{name} holds numbers up to {numpy.abs(values).max():,.0f}, too large for F16: choose bf16 or f32."
        )
    kind = gguf.GGMLQuantizationType[number_format]
    flat = values.reshape(-1)
    pieces = [gguf.quants.quantize(flat[a : a + PIECE][None], kind)[0] for a in range(0, flat.size, PIECE)]
    return numpy.concatenate(pieces).reshape(len(values), -1)


def _modelfile(file: Path, config: ModelConfig, tokens: Mapping[str, Any]) -> str:
    """How Ollama takes the file. A chat template is in the file itself; without one the text goes in as it is."""
    lines = [f"FROM ./{file.name}", f"PARAMETER num_ctx {config.context_length}"]
    end = tokens["tokenizer.ggml.tokens"][tokens["tokenizer.ggml.eos_token_id"]]
    lines.append(f"PARAMETER stop {json.dumps(end, ensure_ascii=False)}")
    if "tokenizer.chat_template" not in tokens:
        lines.append('TEMPLATE "{{ .Prompt }}"')
    return "\n".join(lines) + "\n"
