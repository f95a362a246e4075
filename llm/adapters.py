"""What learns, and how large it is, before there is a model: where adapters sit, how loud they are, what a model lacks. No torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from llm.config import LORA_MODULES, ModelConfig, RunConfig, TuneConfig
from llm.convert import families

SCALINGS: dict[str, Callable[[float, int], float]] = {
    "alpha/r": lambda alpha, r: alpha / r,  # Hu et al. 2021; PEFT: a larger rank does not speak louder
    "alpha": lambda alpha, r: alpha,  # as some books teach it: a larger rank does
    "alpha/sqrt(r)": lambda alpha, r: (
        alpha / math.sqrt(r)
    ),  # Kalajdzievski 2023: large ranks learn as fast as small
}
PLACES = {  # what a person calls them: our matrix, which of its rows
    "q": ("attention.qkv", "q"),
    "k": ("attention.qkv", "k"),
    "v": ("attention.qkv", "v"),
    "qkv": ("attention.qkv", "all"),
    "out": ("attention.out", "all"),
    "gate": ("mlp.gate", "all"),
    "up": ("mlp.up", "all"),
    "down": ("mlp.down", "all"),
}


@dataclass(frozen=True)
class Settings:
    """One adapter: how large, how loud, where."""

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    scaling: str = "alpha/r"
    dora: bool = False
    modules: tuple[str, ...] = ("all",)

    @property
    def scale(self) -> float:
        """What B A is multiplied by."""
        return SCALINGS[self.scaling](self.alpha, self.rank)


def settings(tune: TuneConfig) -> Settings:
    """The adapter that a run's knobs describe."""
    return Settings(
        tune.lora_rank,
        tune.lora_alpha,
        tune.lora_dropout,
        tune.lora_scaling,
        tune.lora_dora,
        tune.lora_modules,
    )


# --- where


def rows_of(config: ModelConfig) -> dict[str, tuple[int, int]]:
    """Where the rows of q, k and v lie in the matrix they share."""
    q, kv = config.n_head * config.head_dim, config.kv_heads * config.head_dim
    return {"q": (0, q), "k": (q, q + kv), "v": (q + kv, q + 2 * kv)}


def fused(config: ModelConfig) -> bool:
    """Whether the Hugging Face family of such a model keeps q, k and v in one matrix, as GPT-2 does."""
    try:
        return not isinstance(families.family_of(families.their_config(config)).names["attention.qkv"], tuple)
    except ValueError:  # no family can hold it: then they are apart
        return False


def chosen(config: ModelConfig, modules: tuple[str, ...]) -> list[tuple[str, str]]:
    """[(matrix, rows of it)] that `modules` name, for instance ("blocks.0.attention.qkv", "q").

    "all" is every matrix inside the blocks, q, k and v apart or together as the model's family has them. Raises
    ValueError for a name that does not exist, that this model lacks, or that another one contains.
    """
    names = list(dict.fromkeys(modules))
    if unknown := [name for name in names if name not in LORA_MODULES]:
        raise ValueError(f"Adapters sit on {', '.join(LORA_MODULES)}; there is no {', '.join(unknown)}.")
    if "all" in names:
        inside = ["qkv"] if fused(config) else ["q", "k", "v"]
        inside += ["out", *(["gate"] if config.gated else []), "up", "down"]
        names = [*inside, *(["output"] if "output" in names else [])]
    if "qkv" in names and {"q", "k", "v"} & set(names):
        raise ValueError("qkv is q, k and v together: choose either qkv, or some of q, k and v.")
    if "gate" in names and not config.gated:
        raise ValueError(f"The MLP of this model ({config.mlp}) has no gate: leave it out of the modules.")
    found = [
        (f"blocks.{layer}.{PLACES[name][0]}", PLACES[name][1])
        for layer in range(config.n_layer)
        for name in names
        if name != "output"
    ]
    return [*found, *([("output", "all")] if "output" in names else [])]


# --- what a model lacks


def check_rank(rank: int, n_embd: int) -> None:
    """Raise ValueError for a rank above a model's width."""
    if rank > n_embd:
        raise ValueError(
            f"A rank of {rank} is above the model's width of {n_embd}: B A could then be any "
            "matrix, and LoRA would save nothing. Choose a smaller rank."
        )


def check_last(wanted: int, n_layer: int) -> None:
    """Raise ValueError for more last blocks than a model has."""
    if wanted > n_layer:
        raise ValueError(f"The last {wanted} blocks cannot learn: the model has {n_layer}.")


def check_head(tune: TuneConfig) -> None:
    """Raise ValueError for a classifier with an adapter where it reads nothing."""
    if "output" in tune.lora_modules and tune.trained == "lora":
        raise ValueError("A classifier does not use the output matrix: leave output out of lora_modules.")


def check(config: RunConfig) -> None:
    """Raise ValueError when the model of `config` lacks what is to learn: what the run itself would say."""
    tune, model = config.tune, config.model
    if tune.trained == "lora":
        check_rank(tune.lora_rank, model.n_embd)
        chosen(model, tune.lora_modules)
    if tune.trained == "last":
        check_last(tune.last_blocks, model.n_layer)
    if config.objective == "classify":
        check_head(tune)


# --- how large


def parameters(config: ModelConfig, settings: Settings) -> int:
    """Numbers of such an adapter on such a model: r (I + R) a matrix, R more with DoRA. Raises ValueError as `chosen`."""
    shapes = {**families.our_shapes(config), "output.weight": (config.vocab_size, config.n_embd)}
    total = 0
    for path, part in chosen(config, settings.modules):
        rows, columns = shapes[f"{path}.weight"]
        if part != "all":
            first, last = rows_of(config)[part]
            rows = last - first
        total += settings.rank * (rows + columns) + settings.dora * rows
    return total


@dataclass(frozen=True)
class Counts:
    """Numbers of a model that learn, and those that stand still."""

    trainable: int
    frozen: int


def in_blocks(model: ModelConfig) -> tuple[int, int]:
    """Numbers in the matrices of one block, and in its norms."""
    parts = model.parameters()
    final = (
        0
        if model.norm_position == "post"
        else model.n_embd * (2 if model.norm == "layernorm" and model.bias else 1)
    )
    return (parts["attention"] + parts["mlp"]) // model.n_layer, (parts["norms"] - final) // model.n_layer


def counts(config: RunConfig, n_labels: int = 0) -> Counts:
    """What learns and what stands still, by formula. n_labels: classes, each of which has a row of a classifier's head."""
    model, tune = config.model, config.tune
    parts = model.parameters()
    whole, head = sum(parts.values()), n_labels * model.n_embd
    if tune.trained == "lora":
        return Counts(parameters(model, settings(tune)) + head, whole)
    learns = whole - (parts["output"] if config.objective == "classify" else 0)
    if tune.trained == "last":
        matrices, norms = in_blocks(model)
        final = parts["norms"] - model.n_layer * norms
        learns = tune.last_blocks * (matrices + norms) + final
    return Counts(learns + head, whole - learns)
