"""LitGPT directories in and out: lit_model.pth, model_config.yaml and the files of the encoding.

LitGPT builds its models from behaviours as this lab does, so its settings are ours under other names.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm import inventory, paths, tokenizer
from llm.config import FORMATS, ModelConfig
from llm.convert import families, folder, state_dict, target
from llm.convert.source import Source

if TYPE_CHECKING:
    from torch import Tensor

MOST_YAML = 64 * 2**10  # bytes of model_config.yaml; LitGPT's own have under two thousand
BLOCK = "transformer.h.{}."
NAMES = {  # our part: theirs
    "token_embedding": "transformer.wte",
    "norm": "transformer.ln_f",
    "output": "lm_head",
    "norm1": f"{BLOCK}norm_1",
    "norm2": f"{BLOCK}norm_2",
    "norm1_out": f"{BLOCK}post_attention_norm",
    "norm2_out": f"{BLOCK}post_mlp_norm",
    "attention.qkv": f"{BLOCK}attn.qkv",
    "attention.out": f"{BLOCK}attn.proj",
    "attention.q_norm": f"{BLOCK}attn.norm_q",
    "attention.k_norm": f"{BLOCK}attn.norm_k",
    "mlp.up": f"{BLOCK}mlp.fc",
    "mlp.down": f"{BLOCK}mlp.proj",
}
GATED = {"mlp.gate": f"{BLOCK}mlp.fc_1", "mlp.up": f"{BLOCK}mlp.fc_2"}
AFTER = {
    "norm1": NAMES["norm1_out"],
    "norm2": NAMES["norm2_out"],
}  # where a block has norms after its parts only
LEGACY = f"{BLOCK}attn.attn"  # its older name, under which q, k, v of each group of heads take turns

ABSENT = {  # what LitGPT's Config takes for a setting that the file leaves out
    "name": "", "block_size": 4096, "n_layer": 16, "n_embd": 4096, "vocab_size": 50_254, "padding_multiple": 512,
    "padded_vocab_size": None, "norm_class_name": "LayerNorm", "norm_eps": 1e-5, "norm_qk": False,
    "norm_qk_type": "default", "post_attention_norm": False, "post_mlp_norm": False, "parallel_residual": True,
    "n_head": 32, "head_size": None, "n_query_groups": None, "attn_bias": False, "attention_scores_scalar": None,
    "sliding_window_size": None, "sliding_window_indices": None, "rope_base": 10_000, "rotary_percentage": 0.25,
    "rope_condense_ratio": 1, "rope_adjustments": None, "rope_local_base_freq": None, "rope_indices": None,
    "intermediate_size": None, "bias": True, "mlp_class_name": "GptNeoxMLP", "gelu_approximate": "none",
    "scale_embeddings": False, "norm_1": True, "norm_2": True,
}  # fmt: skip
MUST = {  # settings that are read with these values only, the first of them when the file leaves it out
    "shared_attention_norm": (False,), "attention_logit_softcapping": (None,), "final_logit_softcapping": (None,),
    "rope_interleave": (False,), "n_expert": (0,), "lm_head_bias": (False,), "latent_attention": (None,),
}  # fmt: skip
IDLE = {  # settings that change nothing in the models that are read
    "hf_config", "rope_n_elem", "n_expert_per_token", "moe_intermediate_size", "n_shared_expert", "n_expert_groups",
    "n_topk_groups", "n_topk_scores_per_group", "first_k_dense_replace", "routed_scaling_factor", "norm_topk_prob", "org",
}  # fmt: skip
NORMS = {"RMSNorm": "rmsnorm", "LayerNorm": "layernorm"}
MLPS = {  # their class and its curve: ours
    ("LLaMAMLP", None): "swiglu",
    ("GemmaMLP", "tanh"): "geglu",
    ("GptNeoxMLP", "none"): "gelu",
    ("GptNeoxMLP", "tanh"): "gelu_tanh",
}
PLACES = {  # norm_1, norm_2, post_attention_norm, post_mlp_norm: ours
    (True, True, False, False): "pre",
    (True, True, True, True): "sandwich",
    (False, False, True, True): "output",
}
QK_NORMS = {"default": "head", "olmo2": "width"}


# ---- In -----------------------------------------------------------------------------------------------------------


def look(path: Path) -> Source:
    """A LitGPT directory (or its lit_model.pth) before any weight is read.

    Raises ValueError, with the file or the setting in the way, for what is missing, damaged or unknown here.
    """
    place = path.parent if path.is_file() else path
    for name in ("model_config.yaml", "lit_model.pth"):
        if not (place / name).is_file():
            raise ValueError(f"{name} is missing in {place.name}: take the whole LitGPT directory.")
    said = _settings(place / "model_config.yaml")
    held = state_dict.look(place / "lit_model.pth")
    tied = state_dict.tied(held, "transformer.wte.weight", "lm_head.weight")
    try:
        config = replace(model_config(said), tie_embeddings=tied)
    except OverflowError:
        raise ValueError(f"The model_config.yaml of {place.name} has a number that is too large.") from None
    legacy = f"{LEGACY.format(0)}.weight" in held.tensors
    table = _table(config, less_one=_gemma(said), legacy=legacy)
    files = {name: place / name for name in folder.EXTRAS if (place / name).is_file()}
    notes = []
    if (place / "tokenizer.json").is_file():
        more, notes = state_dict.encoding("", config.vocab_size, place, "")
        files |= more
    else:
        notes.append("The directory has no tokenizer.json, so texts cannot become tokens.")
    if said["block_size"] > config.context_length:
        notes.append(
            f"Made for {said['block_size']:,} tokens at once; here it reads {config.context_length:,}, the longest context of "
            "this lab."
        )
    if legacy:
        notes.append(
            "q, k and v take turns by groups of heads, as older versions of LitGPT stored them: put in order."
        )
    return state_dict.source(
        held,
        config,
        table,
        lambda name: name,
        {r"lm_head\.weight": "the token embedding once more"},
        lambda place, tensor: _taken_in(place, tensor, config, legacy),
        container="LitGPT directory",
        family=str(said["name"])[:80] or "litgpt",
        files=files,
        facts={"origin": str(said["name"])[:80] or place.name},
        notes=tuple(notes),
    )


def _settings(path: Path) -> dict[str, Any]:
    """model_config.yaml, with LitGPT's defaults for what it leaves out. Raises ValueError when it is damaged."""
    import yaml

    if path.stat().st_size > MOST_YAML:
        raise ValueError(f"{path.name} has {path.stat().st_size:,} bytes; at most {MOST_YAML:,} are read.")
    try:
        said = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError):
        raise ValueError(f"{path.name} is damaged: it is no whole YAML file.") from None
    if not isinstance(said, dict):
        raise ValueError(f"{path.name} holds a {type(said).__name__}, no settings.")
    said = {**ABSENT, **said}
    for name, allowed in MUST.items():
        if name in said and said[name] not in allowed:
            raise ValueError(
                f"{name} is {_short(said[name])} in {path.name}: only {allowed[0]} is read here."
            )
    if unknown := [str(name) for name in said if name not in (*ABSENT, *MUST, *IDLE) and said[name]]:
        raise ValueError(f"{path.name} has settings unknown here: {', '.join(unknown[:5])[:200]}.")
    return said


def _short(value: object) -> str:
    return repr(value)[:40]


def _gemma(said: Mapping[str, Any]) -> bool:
    """Whether norm scales are stored less one: LitGPT decides it by the model's name."""
    return "Gemma" in str(said["name"]) and said["norm_class_name"] == "RMSNorm"


def model_config(said: Mapping[str, Any]) -> ModelConfig:
    """The settings of a model_config.yaml as ours, with two embedding matrices. Raises ValueError with the one in the way."""
    whole = ("block_size", "n_layer", "n_embd", "n_head", "vocab_size")
    optional = (
        "head_size",
        "n_query_groups",
        "intermediate_size",
        "sliding_window_size",
        "padded_vocab_size",
    )
    for name in (*whole, *optional):
        if type(said[name]) is not int and not (name in optional and said[name] is None):
            raise ValueError(f"{name} is {_short(said[name])}: it should be a whole number.")
    if said["n_layer"] > families.MOST_LAYERS:  # before anything is done for every layer
        raise ValueError(
            f"n_layer is {_short(said['n_layer'])}; the largest value is {families.MOST_LAYERS}."
        )
    norm = NORMS.get(said["norm_class_name"]) if isinstance(said["norm_class_name"], str) else None
    if norm is None or (norm == "layernorm" and "OLMo" in str(said["name"])):
        raise ValueError(
            f"norm_class_name is {_short(said['norm_class_name'])} and the name {_short(said['name'])}: models here normalise "
            "by RMSNorm, or by LayerNorm with a learned scale."
        )
    bias = bool(said["bias"])
    if norm == "layernorm" and not bias:
        raise ValueError(
            "bias is false and norm_class_name LayerNorm: LitGPT's LayerNorm has a bias all the same, and models here have "
            "biases in all parts or in none."
        )
    places = tuple(bool(said[name]) for name in ("norm_1", "norm_2", "post_attention_norm", "post_mlp_norm"))
    if places not in PLACES:
        raise ValueError(
            f"norm_1, norm_2, post_attention_norm and post_mlp_norm are {', '.join(map(str, places))}: norms stand before each "
            "part, before and after it, or after it."
        )
    padded = said["padded_vocab_size"] or _filled(said["vocab_size"], said["padding_multiple"])
    return ModelConfig(
        vocab_size=padded,
        context_length=min(said["block_size"], families.LONGEST),
        n_layer=said["n_layer"],
        n_head=said["n_head"],
        n_kv_head=said["n_query_groups"] or 0,
        head_size=said["head_size"] or 0,
        n_embd=said["n_embd"],
        qk_norm=_qk_norm(said, norm),
        score_size=said["attention_scores_scalar"] or 0.0,
        embedding_scale=bool(said["scale_embeddings"]),
        parallel=bool(said["parallel_residual"]),
        norm=norm,
        norm_position=PLACES[places],
        norm_eps=said["norm_eps"],
        mlp=_mlp(said),
        mlp_hidden=said["intermediate_size"] or 4 * said["n_embd"],
        bias=bias,
        qkv_bias=bias or bool(said["attn_bias"]),
        tie_embeddings=False,
        **_windows(said),
        **_rope(said),
    )


def _filled(vocab_size: int, multiple: object) -> int:
    if type(multiple) is not int or multiple < 1:
        raise ValueError(f"padding_multiple is {_short(multiple)}: it should be a whole number from 1 on.")
    return -(-vocab_size // multiple) * multiple


def _mlp(said: Mapping[str, Any]) -> str:
    kind = said["mlp_class_name"]
    curve = None if kind == "LLaMAMLP" else said["gelu_approximate"]
    known = {(str(a), str(b)): mlp for (a, b), mlp in MLPS.items()}
    if (str(kind), str(curve)) not in known:
        raise ValueError(
            f"mlp_class_name is {_short(kind)} with gelu_approximate {_short(said['gelu_approximate'])}: those known here are "
            "LLaMAMLP, GemmaMLP with tanh, GptNeoxMLP with none or tanh."
        )
    return known[str(kind), str(curve)]


def _qk_norm(said: Mapping[str, Any], norm: str) -> str:
    if not said["norm_qk"]:
        return "none"
    if norm != "rmsnorm" or said["norm_qk_type"] not in QK_NORMS:
        raise ValueError(
            f"norm_qk is on with norm_class_name {said['norm_class_name']} and norm_qk_type {_short(said['norm_qk_type'])}: q and "
            "k are normalised by RMSNorm here, of each head (default) or over all (olmo2)."
        )
    return QK_NORMS[said["norm_qk_type"]]


def _windows(said: Mapping[str, Any]) -> dict[str, int]:
    """Our sliding_window and global_every. Raises ValueError when the layers take turns in another way."""
    n_layer, size = said["n_layer"], said["sliding_window_size"]
    if size is None:
        return {}
    slides = _indices(said, "sliding_window_indices")
    if not any(slides):
        return {}
    for every in (0, *range(2, n_layer + 1)):
        if slides == [not (every and (layer + 1) % every == 0) for layer in range(n_layer)]:
            return {"sliding_window": size, "global_every": every}
    raise ValueError(
        f"sliding_window_indices is {_short(said['sliding_window_indices'])}: layers with and without a sliding window follow one "
        "another in a way this lab's models do not have (every n-th sees all)."
    )


def _indices(said: Mapping[str, Any], name: str) -> list[bool]:
    """A list of 0 and 1 by layer; none means 1 in all."""
    given = said[name]
    if given is None:
        return [True] * min(said["n_layer"], families.MOST_LAYERS)
    if not isinstance(given, list) or len(given) < said["n_layer"] or any(x not in (0, 1) for x in given):
        raise ValueError(f"{name} should have a 0 or a 1 for each of the {said['n_layer']} layers.")
    return [bool(x) for x in given[: said["n_layer"]]]


def _rope(said: Mapping[str, Any]) -> dict[str, Any]:
    """RoPE's settings in our words. Raises ValueError for a kind of scaling that models here do not have."""
    if said["rotary_percentage"] == 0:
        return {"position": "none"}
    found = {"rope_theta": said["rope_base"], "rope_share": said["rotary_percentage"]}
    adjusted, condense = said["rope_adjustments"] or {}, said["rope_condense_ratio"]
    if not isinstance(adjusted, dict):
        raise ValueError(f"rope_adjustments is {_short(adjusted)}, no group of settings.")
    if yarn := [name for name in adjusted if str(name).startswith("beta_")]:
        raise ValueError(
            f"rope_adjustments has {yarn[0]} (YaRN): the kinds known here are linear and llama3."
        )
    if adjusted and condense != 1:
        raise ValueError(
            f"rope_condense_ratio is {_short(condense)} beside rope_adjustments: one kind of scaling is read."
        )
    if condense != 1:
        found |= {"rope_scaling": "linear", "rope_factor": condense}
    elif "low_freq_factor" in adjusted or "high_freq_factor" in adjusted:
        names = {
            "rope_factor": "factor", "rope_low": "low_freq_factor", "rope_high": "high_freq_factor",
            "rope_original": "original_max_seq_len",
        }  # fmt: skip
        if missing := [theirs for theirs in names.values() if theirs not in adjusted]:
            raise ValueError(f"rope_adjustments has no {missing[0]}: it is not whole.")
        found |= {"rope_scaling": "llama3", **{ours: adjusted[theirs] for ours, theirs in names.items()}}
    elif "factor" in adjusted:
        found |= {"rope_scaling": "linear", "rope_factor": adjusted["factor"]}
    if (local := said["rope_local_base_freq"]) is not None:
        slides = _indices(said, "sliding_window_indices") if said["sliding_window_size"] is not None else []
        if _indices(said, "rope_indices") != slides or condense != 1:
            raise ValueError(
                "rope_local_base_freq is set for other layers than those with a sliding window, or with rope_condense_ratio: "
                "models here turn slower or faster in just those layers."
            )
        found["rope_theta_local"] = local
    return found


def _table(config: ModelConfig, less_one: bool = False, legacy: bool = False) -> families.Family:
    """LitGPT's names for a model of this shape."""
    names: dict[str, Any] = {**NAMES, **(GATED if config.gated else {})}
    if config.norm_position == "output":
        names |= AFTER
    if legacy:
        names["attention.qkv"] = LEGACY
    return replace(families.FAMILIES["llama"], names=names, less_one=less_one)


def _taken_in(place: families.Place, tensor: Tensor, config: ModelConfig, legacy: bool) -> Tensor:
    import torch

    if place.how == "plus one":
        return tensor.float() + 1
    if legacy and ".attention.qkv." in place.ours:
        group = (
            config.n_head // config.kv_heads
        )  # rows: group of heads; its q, its k, its v; numbers of a head
        heads = tensor.unflatten(0, (config.kv_heads, group + 2, config.head_dim))
        return torch.cat([part.flatten(0, 2) for part in heads.split((group, 1, 1), dim=1)])
    return tensor


# ---- Out ----------------------------------------------------------------------------------------------------------


def size(name: str, dtype: str = "fp32") -> int:
    """Bytes that `save` will write, within a few thousand. Raises ValueError when the model cannot be written so."""
    origin, config = _checked(name, dtype)
    shapes = _their_shapes(config)
    if config.tie_embeddings:
        shapes.pop("lm_head.weight")  # stored once, under two names
    weights = sum(prod(shape) for shape in shapes.values()) * (4 if dtype == "fp32" else 2)
    return weights + 300 * len(shapes) + (origin / "tokenizer.json").stat().st_size + 5000


def save(
    name: str, destination: Path, dtype: str = "fp32", progress: target.Progress | None = None
) -> list[str]:
    """Write the model `name` as a LitGPT directory; returns notes. The directory appears when it is whole.

    Raises ValueError with the setting in the way when LitGPT cannot express the model, when its encoding has no file
    of that format, or when something lies at `destination` already; OSError from the disk.
    """
    import yaml

    origin, config = _checked(name, dtype)
    with target.whole(destination) as temporary:
        _write_weights(origin, temporary / "lit_model.pth", config, dtype, progress)
        written = their_config(config, name, tokenizer.load(origin).vocab_size)
        (temporary / "model_config.yaml").write_text(yaml.safe_dump(written), encoding="utf-8")
        target.write_encoding(origin, temporary, config)
    notes = []
    if written["name"] != name:
        notes.append(
            f"Named {written['name']} inside: LitGPT calculates differently where a name holds Gemma or OLMo."
        )
    if len(_their_shapes(config)) > len(families.our_shapes(replace(config, tie_embeddings=False))):
        notes.append("Biases that LitGPT has and this model has not are zeros, which changes nothing.")
    return notes


def _checked(name: str, dtype: str) -> tuple[Path, ModelConfig]:
    """The folder and the shape of a model that can be written so. Raises ValueError when it cannot."""
    if dtype not in FORMATS["litgpt"]:
        raise ValueError(
            f"{dtype!r} is no number format of a LitGPT directory: choose {', '.join(FORMATS['litgpt'])}."
        )
    origin = paths.model_folder(name)
    config = inventory.shape(origin)
    in_the_way = {
        f"position is {config.position}": config.position in ("learned", "sinusoidal"),
        f"norm_position is {config.norm_position}": config.norm_position == "post",
        f"mlp is {config.mlp}": config.mlp == "relu",
        f"qk_norm is {config.qk_norm} with {config.norm}": config.qk_norm != "none"
        and config.norm != "rmsnorm",
    }
    if found := [what for what, wrong in in_the_way.items() if wrong]:
        raise ValueError(f"LitGPT cannot express this model: {'; '.join(found)}.")
    target.refuse_own_encoding(origin)
    return origin, config


def their_config(config: ModelConfig, name: str, tokens: int) -> dict[str, Any]:
    """The model_config.yaml of a model of ours; tokens: ids of its encoding."""
    slides = [config.slides(layer) for layer in range(config.n_layer)]
    places = {ours: theirs for theirs, ours in PLACES.items()}[config.norm_position]
    kind, curve = {ours: theirs for theirs, ours in MLPS.items()}[config.mlp]
    found = {
        "name": re.sub("Gemma|OLMo", "model", name),
        "hf_config": {},
        "block_size": config.context_length,
        "n_layer": config.n_layer,
        "n_embd": config.n_embd,
        "vocab_size": min(tokens, config.vocab_size),
        "padded_vocab_size": config.vocab_size,
        "n_head": config.n_head,
        "n_query_groups": config.kv_heads,
        "head_size": config.head_dim,
        "norm_class_name": {ours: theirs for theirs, ours in NORMS.items()}[config.norm],
        "norm_eps": config.norm_eps,
        "norm_qk": config.qk_norm != "none",
        "norm_qk_type": {ours: theirs for theirs, ours in QK_NORMS.items()}.get(config.qk_norm, "default"),
        **dict(zip(("norm_1", "norm_2", "post_attention_norm", "post_mlp_norm"), places)),
        "parallel_residual": config.parallel,
        "shared_attention_norm": False,
        "bias": config.bias,
        "attn_bias": config.qkv_bias,
        "attention_scores_scalar": _whole(config.score_size) if config.score_size else None,
        "scale_embeddings": config.embedding_scale,
        "mlp_class_name": kind,
        "gelu_approximate": curve or "none",
        "intermediate_size": config.hidden,
        "lm_head_bias": False,
    }
    if any(slides):
        found |= {
            "sliding_window_size": config.sliding_window,
            "sliding_window_indices": [int(s) for s in slides],
        }
    return {**found, **_their_rope(config, slides)}


def _their_rope(config: ModelConfig, slides: list[bool]) -> dict[str, Any]:
    if config.position == "none":
        return {"rotary_percentage": 0.0}
    share = config.rope_size / config.head_dim
    if int(share * config.head_dim) != config.rope_size:  # LitGPT cuts off what the division left too small
        share = math.nextafter(share, 1)
    found: dict[str, Any] = {"rope_base": _whole(config.rope_theta), "rotary_percentage": share}
    if config.rope_scaling != "none":
        found["rope_adjustments"] = {"factor": config.rope_factor}
    if config.rope_scaling == "llama3":
        found["rope_adjustments"] |= {
            "low_freq_factor": config.rope_low,
            "high_freq_factor": config.rope_high,
            "original_max_seq_len": config.rope_original,
        }
    if config.rope_theta_local and any(slides):
        found |= {
            "rope_local_base_freq": _whole(config.rope_theta_local),
            "rope_indices": [int(s) for s in slides],
        }
    return found


def _whole(number: float) -> float | int:
    """Whole numbers as such, as LitGPT writes them."""
    return int(number) if number == int(number) else number


def _their_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Every tensor of LitGPT's model of this shape. Its qkv has a bias where any part has, its LayerNorm always."""
    whole = _with_their_biases(config)
    shapes = {name: place.shape for name, place in families.places(_table(config), whole).items()}
    if config.norm == "layernorm" and not config.bias:
        norms = [
            name for name, place in families.places(_table(config), whole).items() if "norm" in place.ours
        ]
        shapes |= {name.removesuffix("weight") + "bias": shapes[name] for name in norms}
    return shapes


def _with_their_biases(config: ModelConfig) -> ModelConfig:
    return replace(config, tie_embeddings=False, qkv_bias=config.bias or config.qkv_bias)


def _write_weights(
    origin: Path, file: Path, config: ModelConfig, dtype: str, progress: target.Progress | None
) -> None:
    """lit_model.pth: a state dict, the one matrix of a tied model under both its names."""
    import torch

    from llm import checkpoint

    ours = dict(checkpoint.read_weights(origin))
    if config.tie_embeddings:
        ours["output.weight"] = ours["token_embedding.weight"]
    places = families.places(_table(config), _with_their_biases(config))
    converted: dict[str, Tensor] = {}
    for name, place in places.items():
        if place.ours in ours and place.ours not in converted:
            converted[place.ours] = ours[place.ours].to(checkpoint.DTYPES[dtype])
            if dtype == "fp16" and converted[place.ours].isinf().any():
                raise ValueError(f"{name} has numbers beyond 65,504, the largest of fp16: choose bf16.")
    if config.tie_embeddings:
        converted["output.weight"] = converted["token_embedding.weight"]
    weights = {
        name: converted[places[name].ours]
        if name in places and places[name].ours in converted
        else torch.zeros(shape, dtype=checkpoint.DTYPES[dtype])
        for name, shape in _their_shapes(config).items()
    }
    total = sum({t.data_ptr(): t.nbytes for t in weights.values()}.values())
    with open(file, "wb") as f:
        told = target.Told(f, total, progress)
        try:
            torch.save(weights, told)
        except RuntimeError as error:
            raise told.stopped or error from None
