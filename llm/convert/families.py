"""Families of models, one row of a table each: Hugging Face's config and tensor names, and what they are in ours.

GPT-2's matrices stand transposed in its files, GPT-NeoX mixes q, k and v head by head, Gemma stores its norm scales less
one: the tables say so, and `to_ours` and `to_theirs` do it. A Hugging Face config is called `theirs` here, as a dict.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llm.config import ModelConfig, knobs
from llm.convert.source import MapRow

if TYPE_CHECKING:
    from torch import Tensor

LONGEST = next(int(k.high) for k in knobs(ModelConfig) if k.name == "context_length")
MOST_LAYERS = next(int(k.high) for k in knobs(ModelConfig) if k.name == "n_layer")

GATED = {"silu": "swiglu", "swish": "swiglu", "gelu_pytorch_tanh": "geglu", "gelu_new": "geglu"}
PLAIN = {
    "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu_fast": "gelu_tanh", "gelu": "gelu", "relu": "relu",
}  # fmt: skip


@dataclass(frozen=True)
class Family:
    """How one kind of model is written by Hugging Face. Names have {} for the number of the layer."""

    architecture: str  # the class that opens it in transformers
    prefix: str  # stands before every tensor's name but the output matrix's
    fields: Mapping[str, str]  # our setting: theirs
    activation: str  # their setting of the MLP's curve
    names: Mapping[str, str | tuple[str, str, str]]  # our part: theirs; three where q, k and v are apart
    always: Mapping[str, Any]  # our settings that every model of the family has
    absent: Mapping[str, Any]  # what a setting is that a config.json leaves out
    must: Mapping[str, tuple] = field(
        default_factory=dict
    )  # their settings that we read with these values only
    acts: Mapping[str, str] = field(default_factory=lambda: GATED)  # their curve: our mlp
    rope: Mapping[str, tuple[str, float]] = field(
        default_factory=dict
    )  # theta, local, share: their key, else this
    windows: str = ""  # "" none; all: in every layer; switch: only if use_sliding_window; pattern: by layer
    transposed: bool = False  # matrices inside the layers stand (in, out)
    by_head: bool = False  # rows of q, k, v take turns head by head
    less_one: bool = False  # norm scales are stored less one
    dropouts: tuple[str, ...] = ("attention_dropout",)  # read nowhere: only training asks for them


LLAMA_FIELDS = {
    "vocab_size": "vocab_size", "context_length": "max_position_embeddings", "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads", "n_kv_head": "num_key_value_heads", "head_size": "head_dim", "n_embd": "hidden_size",
    "mlp_hidden": "intermediate_size", "norm_eps": "rms_norm_eps",
}  # fmt: skip
LLAMA_NAMES = {
    "token_embedding": "embed_tokens",
    "norm": "norm",
    "output": "lm_head",
    "norm1": "layers.{}.input_layernorm",
    "norm2": "layers.{}.post_attention_layernorm",
    "attention.qkv": tuple(f"layers.{{}}.self_attn.{letter}_proj" for letter in "qkv"),
    "attention.out": "layers.{}.self_attn.o_proj",
    "attention.q_norm": "layers.{}.self_attn.q_norm",
    "attention.k_norm": "layers.{}.self_attn.k_norm",
    "mlp.gate": "layers.{}.mlp.gate_proj",
    "mlp.up": "layers.{}.mlp.up_proj",
    "mlp.down": "layers.{}.mlp.down_proj",
}
LLAMA_ALWAYS = {"position": "rope", "norm": "rmsnorm"}
LLAMA_ABSENT = {
    "num_key_value_heads": None, "head_dim": None, "hidden_act": "silu", "rms_norm_eps": 1e-6, "attention_bias": False,
    "mlp_bias": False, "tie_word_embeddings": False,
}  # fmt: skip
THETA = {"theta": ("rope_theta", 10_000.0)}
SWITCH = {"use_sliding_window": False, "sliding_window": 4096, "max_window_layers": 28}
NO_BIAS = {"attention_bias": (False,)}

FAMILIES: dict[str, Family] = {
    "llama": Family(  # Llama 1 to 3, SmolLM2, TinyLlama
        architecture="LlamaForCausalLM",
        prefix="model.",
        fields={**LLAMA_FIELDS, "qkv_bias": "attention_bias", "bias": "mlp_bias"},
        activation="hidden_act",
        names=LLAMA_NAMES,
        always=LLAMA_ALWAYS,
        absent=LLAMA_ABSENT,
        rope=THETA,
    ),
    "qwen2": Family(  # Qwen 2 and 2.5
        architecture="Qwen2ForCausalLM",
        prefix="model.",
        fields=LLAMA_FIELDS,
        activation="hidden_act",
        names=LLAMA_NAMES,
        always={**LLAMA_ALWAYS, "qkv_bias": True},
        absent={**LLAMA_ABSENT, **SWITCH},
        rope=THETA,
        windows="switch",
    ),
    "qwen3": Family(
        architecture="Qwen3ForCausalLM",
        prefix="model.",
        fields=LLAMA_FIELDS,
        activation="hidden_act",
        names=LLAMA_NAMES,
        always={**LLAMA_ALWAYS, "qk_norm": "head"},
        absent={**LLAMA_ABSENT, **SWITCH, "head_dim": 128},
        must=NO_BIAS,
        rope=THETA,
        windows="switch",
    ),
    "mistral": Family(
        architecture="MistralForCausalLM",
        prefix="model.",
        fields=LLAMA_FIELDS,
        activation="hidden_act",
        names=LLAMA_NAMES,
        always=LLAMA_ALWAYS,
        absent={**LLAMA_ABSENT, "num_key_value_heads": 8, "sliding_window": 4096},
        rope=THETA,
        windows="all",
    ),
    "gemma3_text": Family(  # Gemma 3, the part that reads text
        architecture="Gemma3ForCausalLM",
        prefix="model.",
        fields={**LLAMA_FIELDS, "score_size": "query_pre_attn_scalar"},
        activation="hidden_activation",
        names={
            **LLAMA_NAMES,
            "norm1_out": "layers.{}.post_attention_layernorm",
            "norm2": "layers.{}.pre_feedforward_layernorm",
            "norm2_out": "layers.{}.post_feedforward_layernorm",
        },
        always={**LLAMA_ALWAYS, "norm_position": "sandwich", "qk_norm": "head", "embedding_scale": True},
        absent={
            "vocab_size": 262_208, "max_position_embeddings": 131_072, "num_hidden_layers": 26, "num_attention_heads": 8,
            "num_key_value_heads": 4, "head_dim": 256, "hidden_size": 2304, "intermediate_size": 9216, "rms_norm_eps": 1e-6,
            "query_pre_attn_scalar": 256, "hidden_activation": "gelu_pytorch_tanh", "attention_bias": False,
            "sliding_window": 4096, "sliding_window_pattern": 6, "tie_word_embeddings": True,
        },
        must={
            **NO_BIAS,
            "attn_logit_softcapping": (None,),
            "final_logit_softcapping": (None,),
            "use_bidirectional_attention": (None, False),
        },
        rope={"theta": ("rope_theta", 1_000_000.0), "local": ("rope_local_base_freq", 10_000.0)},
        windows="pattern",
        less_one=True,
    ),
    "olmo2": Family(
        architecture="Olmo2ForCausalLM",
        prefix="model.",
        fields=LLAMA_FIELDS,
        activation="hidden_act",
        names={
            **LLAMA_NAMES,
            "norm1": "layers.{}.post_attention_layernorm",
            "norm2": "layers.{}.post_feedforward_layernorm",
        },
        always={**LLAMA_ALWAYS, "norm_position": "output", "qk_norm": "width"},
        absent={**LLAMA_ABSENT, "rms_norm_eps": 1e-5},
        must=NO_BIAS,
        rope=THETA,
    ),
    "gpt2": Family(
        architecture="GPT2LMHeadModel",
        prefix="transformer.",
        fields={
            "vocab_size": "vocab_size", "context_length": "n_positions", "n_layer": "n_layer", "n_head": "n_head",
            "n_embd": "n_embd", "mlp_hidden": "n_inner", "norm_eps": "layer_norm_epsilon",
        },
        activation="activation_function",
        names={
            "token_embedding": "wte",
            "position_embedding": "wpe",
            "norm": "ln_f",
            "output": "lm_head",
            "norm1": "h.{}.ln_1",
            "norm2": "h.{}.ln_2",
            "attention.qkv": "h.{}.attn.c_attn",
            "attention.out": "h.{}.attn.c_proj",
            "mlp.up": "h.{}.mlp.c_fc",
            "mlp.down": "h.{}.mlp.c_proj",
        },
        always={"position": "learned", "norm": "layernorm", "bias": True, "qkv_bias": True},
        absent={
            "n_inner": None, "layer_norm_epsilon": 1e-5, "activation_function": "gelu_new", "scale_attn_weights": True,
            "scale_attn_by_inverse_layer_idx": False, "tie_word_embeddings": True,
        },
        must={"scale_attn_weights": (True,), "scale_attn_by_inverse_layer_idx": (False,)},
        acts=PLAIN,
        transposed=True,
        dropouts=("resid_pdrop", "embd_pdrop", "attn_pdrop"),
    ),
    "gpt_neox": Family(  # Pythia
        architecture="GPTNeoXForCausalLM",
        prefix="gpt_neox.",
        fields={
            "vocab_size": "vocab_size", "context_length": "max_position_embeddings", "n_layer": "num_hidden_layers",
            "n_head": "num_attention_heads", "n_embd": "hidden_size", "mlp_hidden": "intermediate_size",
            "norm_eps": "layer_norm_eps", "parallel": "use_parallel_residual",
        },
        activation="hidden_act",
        names={
            "token_embedding": "embed_in",
            "norm": "final_layer_norm",
            "output": "embed_out",
            "norm1": "layers.{}.input_layernorm",
            "norm2": "layers.{}.post_attention_layernorm",
            "attention.qkv": "layers.{}.attention.query_key_value",
            "attention.out": "layers.{}.attention.dense",
            "mlp.up": "layers.{}.mlp.dense_h_to_4h",
            "mlp.down": "layers.{}.mlp.dense_4h_to_h",
        },
        always={"position": "rope", "norm": "layernorm", "bias": True, "qkv_bias": True},
        absent={
            "layer_norm_eps": 1e-5, "use_parallel_residual": True, "hidden_act": "gelu", "attention_bias": True,
            "tie_word_embeddings": False,
        },
        must={"attention_bias": (True,)},
        acts=PLAIN,
        rope={"theta": ("rotary_emb_base", 10_000.0), "share": ("rotary_pct", 0.25)},
        by_head=True,
        dropouts=("attention_dropout", "hidden_dropout"),
    ),
}  # fmt: skip

HEADS = ("lm_head.weight", "embed_out.weight")  # transformers 5 calls GPT-NeoX's like all others
PREFIXES = (  # a tensor's name begins with one of these, or with none: what saved it decides
    "model.language_model.", "language_model.model.", "language_model.", "transformer.", "gpt_neox.", "model.",
)  # fmt: skip
LEFT_OUT = {  # what a name looks like: why it is not needed
    r"h\.\d+\.attn\.(masked_)?bias|layers\.\d+\.attention\.(masked_)?bias": "the causal mask: made anew here",
    r"(layers\.\d+\.(self_attn|attention)\.)?rotary_emb\.inv_freq": "RoPE's rates: worked out from the config",
    r"(vision_tower|multi_modal_projector|vision_model)\..*": "sees pictures: only the part that reads text is opened",
}


def text_part(theirs: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the language model: those of `theirs`, or of its text_config where it also sees pictures.

    Raises ValueError for a family that is not in the table.
    """
    theirs = dict(theirs)
    if theirs.get("model_type") == "gemma3" and isinstance(theirs.get("text_config"), dict):
        outer = {k: theirs[k] for k in ("tie_word_embeddings", "quantization_config") if k in theirs}
        theirs = {**theirs["text_config"], **outer, "model_type": "gemma3_text"}
    kind = theirs.get("model_type")
    if kind is None and isinstance(theirs.get("architectures"), list):  # files of 2019 name only the class
        by_class = {family.architecture: name for name, family in FAMILIES.items()}
        kind = next((by_class[str(c)] for c in theirs["architectures"] if str(c) in by_class), None)
    if not isinstance(kind, str) or kind not in FAMILIES:
        said = f"is of the family {str(kind)[:40]!r}" if kind else "does not say its family (model_type)"
        raise ValueError(f"This model {said}; the families opened here are {', '.join(FAMILIES)}.")
    return {**theirs, "model_type": kind}


def family_of(theirs: Mapping[str, Any]) -> Family:
    """The row of the table. Raises ValueError for a family that is not in it."""
    return FAMILIES[text_part(theirs)["model_type"]]


# ---- Settings -----------------------------------------------------------------------------------------------------


def model_config(theirs: Mapping[str, Any]) -> ModelConfig:
    """A Hugging Face config as ours; both spellings of RoPE's settings are read (transformers 5's, and the older one).

    A RoPE context above our longest is cut to it. Raises ValueError with the field that this lab cannot express.
    """
    try:
        return _model_config(text_part(theirs))
    except OverflowError:  # JSON's whole numbers have no end
        raise ValueError("The config.json has a number that is too large.") from None


def _model_config(theirs: Mapping[str, Any]) -> ModelConfig:
    family = FAMILIES[theirs["model_type"]]
    _refuse(theirs, family)
    values = {ours: _setting(theirs, family, key) for ours, key in family.fields.items()}
    for ours in ("n_kv_head", "head_size"):
        values[ours] = values.get(ours) or 0  # null means "derived" there as 0 does here
    if "n_inner" in family.absent:
        values["mlp_hidden"] = values["mlp_hidden"] or 0
    curve = _setting(theirs, family, family.activation)
    if not isinstance(curve, str) or curve not in family.acts:
        raise ValueError(
            f"{family.activation} is {str(curve)[:40]!r}: the curves known here for this family are {', '.join(family.acts)}."
        )
    values["mlp"] = family.acts[curve]
    values["tie_embeddings"] = bool(_setting(theirs, family, "tie_word_embeddings"))
    if family.rope:
        values |= _rope(theirs, family, values)
        if isinstance(values["context_length"], int):
            values["context_length"] = min(values["context_length"], LONGEST)
    config = ModelConfig(**{**family.always, **values})
    if config.position == "rope" and int(config.head_dim * config.rope_share) != config.rope_size:
        raise ValueError(
            f"RoPE would turn {config.rope_share:g} of a head's {config.head_dim} numbers, which is no whole number of pairs."
        )
    sliding = _windows(theirs, family, config.n_layer)
    return ModelConfig(**{**family.always, **values, **sliding})


def _setting(theirs: Mapping[str, Any], family: Family, key: str) -> Any:
    if key not in theirs and key not in family.absent:
        raise ValueError(f"The config.json has no {key}: it is not whole.")
    return theirs.get(key, family.absent.get(key))


def _refuse(theirs: Mapping[str, Any], family: Family) -> None:
    """Raise ValueError for a setting that changes what the model computes and that ours cannot follow."""
    if theirs.get("quantization_config") is not None:
        raise ValueError(
            "The config has a quantization_config: its weights are packed in a way only their own tool reads. Take the "
            "unquantised model, or a GGUF file of it."
        )
    for key, allowed in family.must.items():
        if (value := theirs.get(key, family.absent.get(key))) not in allowed:
            wanted = " or ".join(str(a) for a in allowed)
            raise ValueError(f"{key} is {value!r}; models are opened here only where it is {wanted}.")
    if "mlp_bias" in family.fields.values():
        flags = [bool(_setting(theirs, family, key)) for key in ("attention_bias", "mlp_bias")]
        if flags[0] != flags[1]:
            raise ValueError(
                f"attention_bias is {flags[0]} and mlp_bias {flags[1]}: this lab's models of this family have both or neither."
            )


def _dict(values: Mapping[str, Any], key: str) -> dict[str, Any]:
    found = values.get(key)
    if found is not None and not isinstance(found, dict):
        raise ValueError(f"{key} is {str(found)[:40]!r}, not a group of settings.")
    return dict(found or {})


def _rope(theirs: Mapping[str, Any], family: Family, values: Mapping[str, Any]) -> dict[str, Any]:
    """RoPE's settings in our words. Raises ValueError for a kind of scaling that the model does not have."""
    groups, scaling = _dict(theirs, "rope_parameters"), _dict(theirs, "rope_scaling")
    found: dict[str, Any] = {}
    if "local" in family.rope:
        key, absent = family.rope["local"]
        local, full = _dict(groups, "sliding_attention"), {**_dict(groups, "full_attention"), **scaling}
        found["rope_theta_local"] = local.get("rope_theta", theirs.get(key, absent))
        if (kind := local.get("rope_type", "default")) != "default":
            raise ValueError(
                f"rope_type is {kind!r} in the layers with a sliding window: only default is known there."
            )
    else:
        full = scaling or groups
    if any(isinstance(value, dict) for value in full.values()):
        raise ValueError(
            "rope_parameters differ from layer to layer: this family is opened only where they do not."
        )
    key, absent = family.rope["theta"]
    found["rope_theta"] = full.get("rope_theta", theirs.get(key, absent))
    key, absent = family.rope.get("share", ("partial_rotary_factor", 1.0))
    share = full.get("partial_rotary_factor", theirs.get("partial_rotary_factor", theirs.get(key, absent)))
    if "share" in family.rope:
        found["rope_share"] = share
    elif share != 1.0:
        raise ValueError(f"partial_rotary_factor is {share!r}: models of this family turn whole heads (1).")
    kind = full.get("rope_type", full.get("type", "default"))
    if kind in ("default", "none", None):
        return found
    if kind not in ("linear", "llama3"):
        raise ValueError(
            f"rope_type is {str(kind)[:40]!r}: the kinds of RoPE known here are default, linear and llama3."
        )
    found |= {"rope_scaling": kind, "rope_factor": _of_rope(full, "factor")}
    if kind == "llama3":
        first = theirs.get("original_max_position_embeddings", full.get("original_max_position_embeddings"))
        found |= {
            "rope_low": _of_rope(full, "low_freq_factor"),
            "rope_high": _of_rope(full, "high_freq_factor"),
            "rope_original": first or values["context_length"],
        }
    return found


def _of_rope(group: Mapping[str, Any], key: str) -> Any:
    if key not in group:
        raise ValueError(f"The config's RoPE scaling has no {key}: it is not whole.")
    return group[key]


def _windows(theirs: Mapping[str, Any], family: Family, n_layer: int) -> dict[str, int]:
    """Our sliding_window and global_every. Raises ValueError when the layers take turns in another way."""
    if not family.windows:
        return {}
    window = theirs.get("sliding_window", family.absent.get("sliding_window")) or 0
    if family.windows == "switch" and not _setting(theirs, family, "use_sliding_window"):
        window = 0
    if family.windows == "all" or not window:
        return {"sliding_window": window, "global_every": 0}
    slides = _sliding_layers(theirs, family, n_layer)
    if not any(slides):
        return {"sliding_window": 0, "global_every": 0}
    for every in (0, *range(2, n_layer + 1)):
        if slides == [not (every and (layer + 1) % every == 0) for layer in range(n_layer)]:
            return {"sliding_window": window, "global_every": every}
    raise ValueError(
        "layer_types: the layers with and without a sliding window follow one another in a way this lab's models do not "
        "have (every n-th sees all)."
    )


def _sliding_layers(theirs: Mapping[str, Any], family: Family, n_layer: int) -> list[bool]:
    """Which layers have a sliding window."""
    if (kinds := theirs.get("layer_types")) is not None:
        known = ("sliding_attention", "full_attention")
        if not isinstance(kinds, list) or len(kinds) != n_layer or not all(kind in known for kind in kinds):
            raise ValueError(f"layer_types must name {n_layer} layers, each {' or '.join(known)}.")
        return [kind == "sliding_attention" for kind in kinds]
    key = "max_window_layers" if family.windows == "switch" else "sliding_window_pattern"
    number = theirs.get(key, theirs.get(f"_{key}", family.absent[key]))
    if type(number) is not int or number < (key == "sliding_window_pattern"):
        raise ValueError(f"{key} must be a whole number, not {number!r}.")
    if family.windows == "switch":
        return [layer >= number for layer in range(n_layer)]
    return [bool((layer + 1) % number) for layer in range(n_layer)]


def their_config(config: ModelConfig) -> dict[str, Any]:
    """The config.json of the Hugging Face family that computes what `config` says, to the last setting.

    Written in the spelling that transformers 4 and 5 both read. Biases that ours lacks and the family has become zeros.
    Raises ValueError with the settings that stand in the way in the family that comes nearest.
    """
    found = {kind: _compared(config, kind) for kind in FAMILIES}
    for theirs, different, zeros in found.values():
        if not different and not zeros:
            return theirs
    for theirs, different, _ in found.values():
        if not different:
            return theirs
    kind, (_, different, _) = min(found.items(), key=lambda item: len(item[1][1]))
    listed = "; ".join(f"{name} {why}".strip() for name, why in different.items())
    raise ValueError(
        f"No Hugging Face family can hold this model; the nearest is {kind}, and this stands in the way: {listed.rstrip('.')}."
    )


def _compared(config: ModelConfig, kind: str) -> tuple[dict[str, Any], dict[str, str], bool]:
    """The nearest config.json of a family, the settings it cannot take over, and whether it adds biases of zero."""
    theirs = _written(kind, FAMILIES[kind], config)
    try:
        there = model_config(theirs)
    except ValueError as error:
        return theirs, {"": str(error)}, False
    different = _differences(config, there)
    return theirs, different, (there.bias, there.qkv_bias) != (config.bias, config.qkv_bias)


def _written(kind: str, family: Family, config: ModelConfig) -> dict[str, Any]:
    """The config.json that comes closest to `config` in this family."""
    ours = {
        **vars(config),
        "n_kv_head": config.kv_heads,
        "head_size": config.head_dim,
        "mlp_hidden": config.hidden,
    }
    ours["score_size"] = config.score_size or config.head_dim
    if ours["score_size"] == int(ours["score_size"]):
        ours["score_size"] = int(ours["score_size"])  # transformers takes no other here
    theirs: dict[str, Any] = {"architectures": [family.architecture], "model_type": kind}
    theirs |= {key: ours[name] for name, key in family.fields.items()}
    if "mlp_bias" in theirs:
        theirs["attention_bias"] = config.bias
    theirs |= {key: allowed[0] for key, allowed in family.must.items() if allowed[0] is not None}
    curves = {mlp: curve for curve, mlp in reversed(family.acts.items())}
    theirs[family.activation] = curves.get(config.mlp, next(iter(family.acts)))
    theirs["tie_word_embeddings"] = config.tie_embeddings
    theirs |= dict.fromkeys(family.dropouts, config.dropout)
    if family.rope:
        theirs |= _written_rope(family, config)
    slides = [config.slides(layer) for layer in range(config.n_layer)]
    kinds = ["sliding_attention" if s else "full_attention" for s in slides]
    if family.windows == "all":
        theirs["sliding_window"] = config.sliding_window if all(slides) else None
    elif family.windows == "switch":
        theirs |= {
            "use_sliding_window": any(slides),
            "sliding_window": config.sliding_window if any(slides) else None,
        }
        theirs |= {"max_window_layers": 0 if any(slides) else config.n_layer, "layer_types": kinds}
    elif family.windows == "pattern":
        theirs |= {"sliding_window": config.sliding_window or config.context_length, "layer_types": kinds}
        theirs["sliding_window_pattern"] = config.global_every or (config.n_layer + 1 if any(slides) else 1)
    return theirs


def _written_rope(family: Family, config: ModelConfig) -> dict[str, Any]:
    theirs: dict[str, Any] = {family.rope["theta"][0]: config.rope_theta, "rope_scaling": None}
    if "share" in family.rope:
        theirs[family.rope["share"][0]] = config.rope_share
    if "local" in family.rope:
        theirs[family.rope["local"][0]] = config.rope_theta_local or config.rope_theta
    if config.rope_scaling != "none":
        theirs["rope_scaling"] = {"rope_type": config.rope_scaling, "factor": config.rope_factor}
    if config.rope_scaling == "llama3":
        theirs["rope_scaling"] |= {
            "low_freq_factor": config.rope_low,
            "high_freq_factor": config.rope_high,
            "original_max_position_embeddings": config.rope_original,
        }
    return theirs


def _effect(config: ModelConfig) -> dict[str, Any]:
    """The settings that change what the model computes, with derived ones worked out and idle ones left out."""
    found = {k: v for k, v in vars(config).items() if not k.startswith("rope_") and k != "dropout"}
    found |= {"n_kv_head": config.kv_heads, "head_size": config.head_dim, "mlp_hidden": config.hidden}
    found["score_size"] = config.score_size or config.head_dim
    slides = [config.slides(layer) for layer in range(config.n_layer)]
    found["sliding_window"] = config.sliding_window if any(slides) else 0
    found["global_every"] = [layer + 1 for layer, s in enumerate(slides) if not s] if any(slides) else []
    if config.position == "rope":
        scaling = {"none": (), "linear": ("rope_factor",)}.get(
            config.rope_scaling, ("rope_factor", "rope_low", "rope_high", "rope_original")
        )
        found |= {name: getattr(config, name) for name in ("rope_theta", "rope_scaling", *scaling)}
        found["rope_share"] = config.rope_size / config.head_dim
        same = config.rope_scaling == "none" and config.rope_theta_local == config.rope_theta
        found["rope_theta_local"] = config.rope_theta_local if any(slides) and not same else 0.0
    return found


def _differences(ours: ModelConfig, theirs: ModelConfig) -> dict[str, str]:
    """Setting: "is x here and y there". A bias that only theirs has is none: it can be zero."""
    here, there = _effect(ours), _effect(theirs)
    return {
        name: f"is {here.get(name)} here and {there.get(name)} there"
        for name in {**here, **there}
        if here.get(name) != there.get(name)
        and not (name in ("bias", "qkv_bias") and there[name] and not here[name])
    }


# ---- Tensors ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """Where one of their tensors belongs: in which of ours, in which rows of it, and what is done on the way."""

    ours: str
    rows: tuple[int, int] | None  # None: all
    shape: tuple[int, ...]  # as it stands in their file
    how: str


def our_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Every tensor that a model directory stores: our name and shape, in the order of the model."""
    C, D, H = config.n_embd, config.head_dim, config.hidden
    q, kv = config.n_head * D, config.kv_heads * D
    norms, biased = ["norm1", "norm2"], config.bias and config.norm == "layernorm"
    if config.norm_position == "sandwich":
        norms += ["norm1_out", "norm2_out"]
    shapes = {"token_embedding.weight": (config.vocab_size, C)}
    if config.position == "learned":
        shapes["position_embedding.weight"] = (config.context_length, C)

    def add(name: str, shape: tuple[int, ...], bias: bool) -> None:
        shapes[f"{name}.weight"] = shape
        if bias:
            shapes[f"{name}.bias"] = shape[:1]

    for block in (f"blocks.{layer}." for layer in range(config.n_layer)):
        for norm in norms:
            add(f"{block}{norm}", (C,), biased)
        add(f"{block}attention.qkv", (q + 2 * kv, C), config.qkv_bias)
        add(f"{block}attention.out", (C, q), config.bias)
        if config.qk_norm != "none":
            whole = config.qk_norm == "width"
            add(f"{block}attention.q_norm", (q if whole else D,), False)
            add(f"{block}attention.k_norm", (kv if whole else D,), False)
        for part in ("gate", "up") if config.gated else ("up",):
            add(f"{block}mlp.{part}", (H, C), config.bias)
        add(f"{block}mlp.down", (C, H), config.bias)
    if config.norm_position != "post":
        add("norm", (C,), biased)
    if not config.tie_embeddings:
        shapes["output.weight"] = (config.vocab_size, C)
    return shapes


OUR_NAME = re.compile(r"(?:blocks\.(\d+)\.)?(.+)\.(weight|bias)")


def places(family: Family, config: ModelConfig) -> dict[str, Place]:
    """Every tensor that a file of this family and shape has: its name there, without a prefix, and where it belongs."""
    found = {}
    q, kv = config.n_head * config.head_dim, config.kv_heads * config.head_dim
    for ours, shape in our_shapes(config).items():
        layer, part, kind = OUR_NAME.fullmatch(ours).groups()
        theirs = family.names[part]
        if isinstance(theirs, tuple):
            starts = (0, q, q + kv, q + 2 * kv)
            for i, letter in enumerate("qkv"):
                rows = (starts[i], starts[i + 1])
                place = Place(ours, rows, (rows[1] - rows[0], *shape[1:]), f"rows of {letter}")
                found[f"{theirs[i].format(layer)}.{kind}"] = place
            continue
        how = "same"
        if family.by_head and part == "attention.qkv":
            how = "q, k, v of each head put apart"
        elif family.transposed and layer and len(shape) == 2:
            how, shape = "transposed", shape[::-1]
        elif family.less_one and "norm" in part:
            how = "plus one"
        found[f"{theirs.format(layer)}.{kind}"] = Place(ours, None, shape, how)
    return found


def bare(name: str) -> str:
    """A tensor's name without what stands before it in some files: model.norm.weight -> norm.weight."""
    return next((name[len(prefix) :] for prefix in PREFIXES if name.startswith(prefix)), name)


def head_name(names: Collection[str]) -> str | None:
    """The output matrix among the names of a file, if it has one."""
    return next((name for name in names if bare(name) in HEADS), None)


def embedding_name(theirs: Mapping[str, Any], names: Collection[str]) -> str | None:
    """The token embedding among the names of a file, if it has one."""
    wanted = f"{family_of(theirs).names['token_embedding']}.weight"
    return next((name for name in names if bare(name) == wanted), None)


def settle_tie(
    theirs: Mapping[str, Any], names: Collection[str], equal: Callable[[str, str], bool]
) -> tuple[dict[str, Any], str]:
    """The config with tie_word_embeddings as the tensors have it, and a note where the flag said otherwise.

    equal(a, b) compares two tensors of the file; it is asked only when the flag cannot be trusted. Raises ValueError
    when the flag says that there is an output matrix and there is none.
    """
    theirs = text_part(theirs)
    family = FAMILIES[theirs["model_type"]]
    said = theirs.get("tie_word_embeddings")
    flag = bool(_setting(theirs, family, "tie_word_embeddings"))
    head, embedding = head_name(names), embedding_name(theirs, names)
    if head is None:
        if said is not None and not flag:
            raise ValueError(
                "The output matrix is missing: the config says that it is another one than the token embedding "
                "(tie_word_embeddings is false), and the file has no lm_head.weight. Take the whole model, or set "
                "tie_word_embeddings to true if it was trained with one matrix for both."
            )
        note = "" if flag else "The file has no output matrix: the token embedding serves as one."
        return {**theirs, "tie_word_embeddings": True}, note
    if not flag or embedding is None or equal(head, embedding):
        return {**theirs, "tie_word_embeddings": flag}, ""
    note = "tie_word_embeddings is true, yet the output matrix is another one than the token embedding: it is kept."
    return {**theirs, "tie_word_embeddings": False}, note


def weight_rows(
    theirs: Mapping[str, Any], tensors: Mapping[str, tuple[str, tuple[int, ...]]]
) -> list[MapRow]:
    """What becomes of each tensor of a file. tensors: name -> (number format, shape)."""
    config, family = model_config(theirs), family_of(theirs)
    known = places(family, config)
    rows = []
    taken: set[str] = set()
    for theirs_name, (dtype, shape) in tensors.items():
        name = _known_as(theirs_name, family)
        ours, how = "", ""
        if name in known and name not in taken:
            ours, how = known[name].ours, known[name].how
            taken.add(name)
        elif bare(theirs_name) in HEADS and config.tie_embeddings:
            how = "the token embedding once more"
        else:
            how = next((why for form, why in LEFT_OUT.items() if re.fullmatch(form, bare(theirs_name))), "")
        rows.append(MapRow(theirs_name, ours, tuple(shape), dtype, how))
    return rows


def _known_as(name: str, family: Family) -> str:
    """The name under which the table of the family knows a tensor of the file."""
    return f"{family.names['output']}.weight" if bare(name) in HEADS else bare(name)


def check_tensors(theirs: Mapping[str, Any], tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> None:
    """Raise ValueError with the names when tensors are missing, or have other shapes than the config says."""
    config, family = model_config(theirs), family_of(theirs)
    found = {_known_as(name, family): (name, shape) for name, (_, shape) in tensors.items()}
    wanted = places(family, config)
    if missing := [family_name(name, family) for name in wanted if name not in found]:
        more = f" and {len(missing) - 4} more" if len(missing) > 4 else ""
        raise ValueError(f"{len(missing)} tensors are missing: {', '.join(missing[:4])}{more}.")
    for name, place in wanted.items():
        theirs_name, shape = found[name]
        if tuple(shape) != place.shape:
            raise ValueError(
                f"{theirs_name} has the shape {by(shape)} and the config says {by(place.shape)}: the file and its config "
                "do not belong together."
            )


def by(shape: tuple[int, ...]) -> str:
    """A shape in words: 12 x 4."""
    return " x ".join(map(str, shape)) or "of a single number"


def family_name(name: str, family: Family) -> str:
    """The full name that transformers gives a tensor: with the prefix, but for the output matrix."""
    return name if name in HEADS else family.prefix + name


def to_ours(
    theirs: Mapping[str, Any], config: ModelConfig, get: Callable[[str], Tensor], names: Collection[str]
) -> Iterator[tuple[str, Tensor]]:
    """Our tensors, one after the other, in the number format of the file. get(name) reads one tensor of the file.

    Raises ValueError when one of `names` is missing.
    """
    import torch

    family = family_of(theirs)
    full = {_known_as(name, family): name for name in names}
    parts: list[Tensor] = []
    wanted = places(family, config)
    for name, place in wanted.items():
        if name not in full:
            raise ValueError(f"The tensor {family_name(name, family)} is missing.")
        tensor = get(full[name])
        if tuple(tensor.shape) != place.shape:
            raise ValueError(f"{full[name]} has the shape {by(tuple(tensor.shape))}, not {by(place.shape)}.")
        if place.rows is None:
            yield place.ours, _taken_in(place.how, tensor, config)
            continue
        parts.append(tensor)
        if len(parts) == 3:
            yield place.ours, torch.cat(parts)
            parts = []


def _taken_in(how: str, tensor: Tensor, config: ModelConfig) -> Tensor:
    if how == "transposed":
        return tensor.T.contiguous()
    if how == "plus one":
        return tensor.float() + 1
    if how.startswith("q, k, v"):  # rows: head, then q k v, then the numbers of the head
        return (
            tensor.unflatten(0, (config.n_head, 3, config.head_dim))
            .transpose(0, 1)
            .flatten(0, 2)
            .contiguous()
        )
    return tensor


def _taken_out(how: str, tensor: Tensor, config: ModelConfig) -> Tensor:
    """The inverse of `_taken_in`."""
    if how == "plus one":
        return tensor.float() - 1
    if how.startswith("q, k, v"):
        return (
            tensor.unflatten(0, (3, config.n_head, config.head_dim))
            .transpose(0, 1)
            .flatten(0, 2)
            .contiguous()
        )
    return tensor.T.contiguous() if how == "transposed" else tensor


def to_theirs(config: ModelConfig, weights: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """The tensors of the family of `their_config(config)`, one after the other, under the names of transformers.

    weights: a model directory's tensors (any mapping that gives them one at a time). Raises ValueError as `their_config`.
    """
    import torch

    theirs = their_config(config)
    family, whole = family_of(theirs), model_config(theirs)
    for name, place in places(family, whole).items():
        if place.ours in weights:
            tensor = weights[place.ours]
            rows = tensor[slice(*place.rows)] if place.rows else tensor
            yield family_name(name, family), _taken_out(place.how, rows, config).contiguous()
        else:
            assert name.endswith(".bias"), name  # ours has none: it is zero
            yield family_name(name, family), torch.zeros(place.shape)


def their_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Every tensor that `to_theirs` gives: its name and shape. Raises ValueError as `their_config`."""
    theirs = their_config(config)
    family = family_of(theirs)
    found = places(family, model_config(theirs))
    return {family_name(name, family): place.shape for name, place in found.items()}
