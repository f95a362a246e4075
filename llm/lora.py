"""LoRA: beside a frozen matrix W a small product B A learns; several such adapters on one model, dialled while it runs.

y = W x + strength * scale * B (A x), with A (r, in), B (out, r) and r small (Hu et al. 2021, section 4.1). B begins as
zero, so a new adapter changes nothing. q, k and v are rows of one matrix here: an adapter sits on the rows of each, as
PEFT's q_proj, k_proj and v_proj on Llama, or on all of them, as its c_attn on GPT-2.

Shapes: r rank, R rows that an adapter changes, I numbers that its matrix reads.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from llm import checkpoint, fast, paths
from llm.adapters import (
    Counts,
    Settings,
    check_last,
    check_rank,
    chosen,
    rows_of,
    settings,
)
from llm.adapters import parameters as parameters  # of an adapter by formula
from llm.config import LORA_MODULES, ModelConfig, TuneConfig
from llm.convert import adapter as peft_files
from llm.convert import families
from llm.convert.folder import read_header
from llm.model import GPT
from llm.tuned import STRONGEST

# --- the layer


class Pair(nn.Module):
    """The two small matrices that change some rows of a large one; with DoRA also how long each row is."""

    def __init__(
        self, weight: Tensor, first: int, last: int, rank: int, scale: float, dropout: float, dora: bool
    ):
        """For rows `first` to before `last` of `weight` (out, I). A is random, B zero: nothing is changed yet."""
        super().__init__()
        self.first, self.last, self.scale, self.dropout = first, last, scale, dropout
        like = dict(dtype=torch.float32, device=weight.device)
        self.A = nn.Parameter(torch.empty(rank, weight.shape[1], **like))
        self.B = nn.Parameter(torch.zeros(last - first, rank, **like))
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))  # from -1/sqrt(I) to 1/sqrt(I)
        self.length = nn.Parameter(self.lengths(weight).clone()) if dora else None

    def thinned(self, x: Tensor) -> Tensor:
        """The input with a share of its numbers zeroed while training."""
        return F.dropout(x, self.dropout, self.training and self.dropout > 0)

    def product(self) -> Tensor:
        """(R, I): scale * B A."""
        return self.scale * (self.B @ self.A)

    def lengths(self, weight: Tensor) -> Tensor:
        """(R,): the length of each row of W + scale * B A, without a gradient (Liu et al. 2024, section 4.3)."""
        with torch.no_grad():
            return torch.linalg.vector_norm(weight[self.first : self.last] + self.product(), dim=1)

    def dora(self, x: Tensor, y: Tensor, linear: LoRALinear) -> Tensor:
        """(..., R): what DoRA adds to these rows of y = W x + b (Liu et al. 2024, eq. 5, less W x)."""
        if self.training and self.dropout:
            x = self.thinned(x)
            plain = F.linear(x, linear.weight[self.first : self.last])
        else:
            plain = y[..., self.first : self.last]
            plain = plain if linear.bias is None else plain - linear.bias[self.first : self.last]
        ratio = self.length / self.lengths(linear.weight)
        return (ratio - 1) * plain + ratio * self.scale * F.linear(F.linear(x, self.A), self.B)

    def change(self, weight: Tensor) -> Tensor:
        """(R, I): what these rows of W gain: scale B A; with DoRA length (W + scale B A) / |W + scale B A| - W."""
        if self.length is None:
            return self.product()
        rows = weight[self.first : self.last]
        return (self.length / self.lengths(weight))[:, None] * (rows + self.product()) - rows


class LoRALinear(nn.Linear):
    """A linear layer whose own weight stands still while the pairs beside it learn."""

    def __init__(self, linear: nn.Linear, dials: dict[str, float]):
        """Takes over the weight of `linear`, no copy. `dials`: how strongly each adapter speaks, one dict a model."""
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight = linear.weight
        self.register_parameter("bias", linear.bias)
        self.dials = dials
        self.own: list[nn.Parameter] = []  # the weight as it was, while the adapters are merged into it
        self.train(linear.training)

    def pairs(self, name: str) -> list[Pair]:
        """What the adapter `name` has here, in the order of the rows; [] where it is not."""
        return list(self._modules.get(key(name), ()))

    def put(self, name: str, pair: Pair) -> None:
        """One more pair of the adapter `name`."""
        pairs = sorted([*self.pairs(name), pair.train(self.training)], key=lambda pair: pair.first)
        self.add_module(key(name), nn.ModuleList(pairs))

    def forward(self, x: Tensor) -> Tensor:  # (..., I) -> (..., out)
        y = fast.linear(x, self.weight, self.bias)
        if not self.own:
            for name, strength in self.dials.items():
                if strength and (pairs := self.pairs(name)):
                    y = y + self.added(x, y, pairs, strength)
        return y

    def added(self, x: Tensor, y: Tensor, pairs: list[Pair], strength: float) -> Tensor:
        """strength * scale * B A x of all pairs as one product: their A x side by side, their B along a diagonal."""
        if pairs[0].length is not None:
            ends = [(pair.first, self.out_features - pair.last) for pair in pairs]
            return sum(F.pad(strength * pair.dora(x, y, self), end) for pair, end in zip(pairs, ends))
        narrow = [(strength * pair.scale) * F.linear(pair.thinned(x), pair.A) for pair in pairs]
        return F.linear(torch.cat(narrow, -1), self.diagonal(pairs))

    def diagonal(self, pairs: list[Pair]) -> Tensor:
        """(out, sum of ranks): each B on its own rows and columns, 0 elsewhere."""
        if len(pairs) == 1 and len(pairs[0].B) == self.out_features:
            return pairs[0].B
        blocks, row = [], 0
        for pair in pairs:
            blocks += [pair.B.new_zeros(pair.first - row, 0), pair.B]
            row = pair.last
        return torch.block_diag(*blocks, pairs[0].B.new_zeros(self.out_features - row, 0))

    def changed(self) -> Tensor:
        """(out, I): the weight with every adapter in it, each as strong as its dial says."""
        weight = self.weight.detach().float().clone()
        with torch.no_grad():
            for name, strength in self.dials.items():
                for pair in self.pairs(name) if strength else ():
                    weight[pair.first : pair.last] += strength * pair.change(self.weight)
        return weight


def key(name: str) -> str:
    """What an adapter is called among the parts of a layer, where names have no dots."""
    return "lora_" + name.replace(".", ",")


def in_adapter(parameter: str) -> bool:
    """Whether a parameter of this name belongs to an adapter."""
    return ".lora_" in parameter


# --- what learns


def choose(model: GPT, tune: TuneConfig) -> None:
    """Say which weights learn: TRAINED. Raises ValueError when the model has no such part."""
    TRAINED[tune.trained](model, tune)


def train_last(model: GPT, tune: TuneConfig) -> None:
    """The last blocks and the final norm learn, the rest stands still. Raises ValueError when there are not as many."""
    check_last(tune.last_blocks, len(model.blocks))
    model.requires_grad_(False)
    for part in (*model.blocks[-tune.last_blocks :], model.norm):
        part.requires_grad_(True)


TRAINED: dict[str, Callable[[GPT, TuneConfig], None]] = {
    "all": lambda model, tune: None,
    "last": train_last,
    "lora": lambda model, tune: add(model, settings(tune)),
}


# --- adapters on a model


@dataclass
class Shelf:
    """The adapters of one model."""

    settings: dict[str, Settings]
    dials: dict[str, float]  # how strongly each speaks; every LoRALinear reads it


def _shelf(model: GPT) -> Shelf:
    if "shelf" not in model.__dict__:
        model.shelf = Shelf({}, {})
    return model.shelf


def layers(model: GPT) -> dict[str, LoRALinear]:
    """The layers that adapters sit on, by their place in the model."""
    return {path: module for path, module in model.named_modules() if isinstance(module, LoRALinear)}


def add(model: GPT, settings: Settings, name: str = "default") -> None:
    """Put a new adapter on a model, which it does not change yet. All that is no adapter stands still from now on.

    Raises ValueError for a name that is taken, modules that the model lacks, and a rank above its width.
    """
    _refuse(model, name)
    check_rank(settings.rank, model.config.n_embd)
    for path, part in chosen(model.config, settings.modules):
        linear = _layer(model, path)
        first, last = (0, linear.out_features) if part == "all" else rows_of(model.config)[part]
        linear.put(
            name,
            Pair(linear.weight, first, last, settings.rank, settings.scale, settings.dropout, settings.dora),
        )
    _enter(model, name, settings)


def _refuse(model: GPT, name: str) -> None:
    paths.checked_name(name, "name of an adapter")
    if name in _shelf(model).settings:
        raise ValueError(f"There is an adapter called {name!r} on this model already: choose another name.")
    if is_merged(model):
        raise ValueError(
            "The adapters are merged into the weights: unmerge them before another one is added."
        )


def _layer(model: GPT, path: str) -> LoRALinear:
    """The layer at `path`, made one that adapters can sit on."""
    linear = model.get_submodule(path)
    if not isinstance(linear, LoRALinear):
        linear = LoRALinear(linear, _shelf(model).dials)
        parent, _, last = path.rpartition(".")
        setattr(model.get_submodule(parent), last, linear)
    return linear


def _enter(model: GPT, name: str, settings: Settings) -> None:
    shelf = _shelf(model)
    shelf.settings[name], shelf.dials[name] = settings, 1.0
    for parameter, values in model.named_parameters():
        values.requires_grad_(in_adapter(parameter))


def adapters(model: GPT) -> dict[str, Settings]:
    """The adapters on a model by name."""
    return dict(_shelf(model).settings)


def remove(model: GPT, name: str) -> None:
    """Take an adapter off a model. Raises ValueError when it is not there or merged."""
    _known(model, name)
    if is_merged(model):
        raise ValueError("The adapters are merged into the weights: unmerge them before one is taken off.")
    for layer in layers(model).values():
        layer._modules.pop(key(name), None)
    del model.shelf.settings[name], model.shelf.dials[name]


def _known(model: GPT, name: str) -> None:
    if name not in (known := _shelf(model).settings):
        raise ValueError(
            f"There is no adapter called {name!r} on this model; it has {', '.join(known) or 'none'}."
        )


def strengths(model: GPT) -> dict[str, float]:
    """How strongly each adapter speaks: 0 not at all, 1 as it was trained, 2 twice as much."""
    return dict(_shelf(model).dials)


def set_strength(model: GPT, name: str, strength: float) -> None:
    """Turn the dial of one adapter. At once: no weight is touched. Raises ValueError outside 0 to 2, or when merged."""
    _known(model, name)
    if not 0 <= strength <= STRONGEST:
        raise ValueError(f"The strength of an adapter goes from 0 to {STRONGEST:g}, not {strength}.")
    if is_merged(model):
        raise ValueError("The adapters are merged into the weights: unmerge them, then turn the dial.")
    model.shelf.dials[name] = float(strength)


def mix(model: GPT, weights: Mapping[str, float]) -> None:
    """Give each adapter its share; those that are not named fall silent. Raises ValueError as `set_strength`."""
    for name, weight in {**dict.fromkeys(adapters(model), 0.0), **weights}.items():
        set_strength(model, name, weight)


@contextmanager
def off(model: GPT) -> Iterator[None]:
    """Inside, the model is its base: every adapter is silent."""
    assert not is_merged(model), "merged adapters cannot be silenced"
    dials = _shelf(model).dials
    before = dict(dials)
    dials.update(dict.fromkeys(dials, 0.0))
    try:
        yield
    finally:
        dials.update(before)


# --- into the weights and out of them


def is_merged(model: GPT) -> bool:
    """Whether the adapters are in the weights now."""
    return any(layer.own for layer in layers(model).values())


def merge(model: GPT) -> None:
    """W becomes W + strength * scale * B A; a tied output matrix becomes one of its own. Raises ValueError if done already."""
    if is_merged(model):
        raise ValueError("The adapters are merged into the weights already: once is enough.")
    for layer in layers(model).values():
        layer.own = [layer.weight]
        layer.weight = nn.Parameter(layer.changed(), requires_grad=False)
    if model.config.tie_embeddings and model.output.weight is not model.token_embedding.weight:
        model.config = replace(model.config, tie_embeddings=False)


def unmerge(model: GPT) -> None:
    """The weights as they were before `merge`, to the bit. Raises ValueError when nothing is merged."""
    if not is_merged(model):
        raise ValueError("The adapters are not merged into the weights.")
    tied = any(layer.own[0] is model.token_embedding.weight for layer in layers(model).values())
    for layer in layers(model).values():
        layer.weight = layer.own.pop()
    model.config = replace(model.config, tie_embeddings=tied or model.config.tie_embeddings)


def merged(model: GPT) -> GPT:
    """A plain model that answers as this one does now. Weights that no adapter changes are shared, not copied."""
    weights = {name: p.detach() for name, p in model.named_parameters() if not in_adapter(name)}
    config = model.config
    for path, layer in layers(model).items():
        if not layer.own and any(strength and layer.pairs(name) for name, strength in layer.dials.items()):
            weights[f"{path}.weight"] = layer.changed()
            config = replace(config, tie_embeddings=config.tie_embeddings and path != "output")
    plain = checkpoint.empty_model(config)
    wanted = plain.state_dict().keys()
    plain.load_state_dict({n: w for n, w in weights.items() if n in wanted}, strict=False, assign=True)
    if config.tie_embeddings:
        plain.output.weight = plain.token_embedding.weight
    return plain.eval()


# --- how large they are, and what they hold


def counts(model: nn.Module) -> Counts:
    """Parameters by whether they learn, each once however many uses it has."""
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return Counts(trainable, sum(p.numel() for p in model.parameters()) - trainable)


def singular_values(model: GPT, name: str = "default") -> dict[str, list[float]]:
    """Of each matrix the r singular values of scale * B A, the largest first: how many directions an adapter uses.

    From two QR factors: B A = Q (R_b R_a^T) Q', and the small product in the middle has the same singular values.
    """
    _known(model, name)
    parts = {rows: part for part, rows in rows_of(model.config).items()}
    found = {}
    with torch.no_grad():
        for path, layer in layers(model).items():
            for pair in layer.pairs(name):
                middle = torch.linalg.qr(pair.B).R @ torch.linalg.qr(pair.A.T).R.T
                part = parts.get((pair.first, pair.last), "") if path.endswith("qkv") else ""
                found[f"{path} {part}".strip()] = (pair.scale * torch.linalg.svdvals(middle)).tolist()
    return found


def seen(model: GPT, encoding: object, folder: str, base: str) -> dict[str, object]:
    """What a saved adapter holds: its settings, `singular_values`, how many numbers it has and the model under it.

    folder: the directory of the adapter; base: what the model is called. Raises ValueError as `load`.
    """
    twin = merged(model)
    notes = load(twin, Path(folder), "seen", base)
    found, size = adapters(twin)["seen"], counts(twin)
    return {
        "rank": found.rank,
        "scale": found.scale,
        "dora": found.dora,
        "singular_values": singular_values(twin, "seen"),
        "trainable": size.trainable,
        "frozen": size.frozen,
        "notes": notes,
    }


def fingerprint(model: nn.Module) -> str:
    """Of all weights that stand still but the adapters': tells whether an adapter meets the model it was made on."""
    known = hashlib.sha256()
    for name, values in model.named_parameters():
        if not values.requires_grad and not in_adapter(name):
            known.update(f"{name} {zlib.crc32(values.detach().cpu().contiguous().numpy())} ".encode())
    return known.hexdigest()[:16]


# --- PEFT's files

MATRIX = re.compile(r"blocks\.\d+\.(attention\.(qkv|out)|mlp\.(gate|up|down))\.weight|output\.weight")


def places(config: ModelConfig) -> tuple[dict[str, families.Place], families.Family | None]:
    """Every matrix that can have an adapter, by the name PEFT has for it, and where it is in ours.

    Names such as "model.layers.0.self_attn.q_proj", of the Hugging Face family that can hold such a model; names of this
    lab, and None, where there is none.
    """
    try:
        theirs = families.their_config(config)
    except ValueError:
        return _own_places(config), None
    family = families.family_of(theirs)
    found = families.places(family, families.model_config(theirs))
    head = f"{family.names['output']}.weight"
    if config.tie_embeddings:
        shape = (config.vocab_size, config.n_embd)
        found[head] = families.Place("output.weight", None, shape, "same")
    return {
        families.family_name(name, family).removesuffix(".weight"): place
        for name, place in found.items()
        if MATRIX.fullmatch(place.ours)
    }, family


def _own_places(config: ModelConfig) -> dict[str, families.Place]:
    shapes = {**families.our_shapes(config), "output.weight": (config.vocab_size, config.n_embd)}
    found = {}
    for ours, shape in shapes.items():
        if ours.endswith("qkv.weight"):
            for part, (first, last) in rows_of(config).items():
                name = ours.replace("qkv.weight", part)
                found[name] = families.Place(ours, (first, last), (last - first, shape[1]), f"rows of {part}")
        elif MATRIX.fullmatch(ours):
            found[ours.removesuffix(".weight")] = families.Place(ours, None, shape, "same")
    return found


def save(
    model: GPT,
    folder: Path,
    name: str = "default",
    base: str = "",
    head: Mapping[str, Tensor] | None = None,
    made_on: str = "",
) -> None:
    """Write one adapter as PEFT does: adapter_model.safetensors, a card, then adapter_config.json.

    base: what the model it belongs to is called; made_on: its fingerprint, worked out when "". head: further tensors by
    PEFT's names, those of a classifier. Where q, k and v are apart in PEFT and together here, or the other way round, the
    matrices are written so that the product is the same. Raises OSError when the disk refuses.
    """
    _known(model, name)
    assert not is_merged(model), "adapters are saved beside their base, not merged into it"
    settings = adapters(model)[name]
    known, family = places(model.config)
    found = {theirs: one for theirs, place in known.items() if (one := _written(model, name, place))}
    tensors = {
        f"base_model.model.{theirs}.{part}": value
        for theirs, (values, _) in found.items()
        for part, value in values.items()
    }
    tensors |= {f"base_model.model.{part}": value for part, value in (head or {}).items()}
    stored = _config(settings, found, list(known), bool(family and family.transposed))
    stored |= {"base_model_name_or_path": base}
    if head:
        stored |= {"task_type": "SEQ_CLS", "modules_to_save": ["classifier", "score"]}
    folder.mkdir(parents=True, exist_ok=True)
    about = {"format": "pt", "base": made_on or fingerprint(model)}
    with paths.replacing(folder / "adapter_model.safetensors") as temporary:
        save_file({n: t.detach().cpu().contiguous() for n, t in tensors.items()}, temporary, metadata=about)
    with paths.replacing(folder / "README.md") as temporary:
        temporary.write_text(_card(base, settings, family), encoding="utf-8")
    with paths.replacing(folder / "adapter_config.json") as temporary:
        temporary.write_text(json.dumps(stored, indent=2) + "\n", encoding="utf-8")


def _config(
    settings: Settings,
    found: Mapping[str, tuple[dict[str, Tensor], float]],
    known: list[str],
    transposed: bool,
) -> dict[str, object]:
    """What PEFT is told of an adapter. found: its modules there, with their tensors and scale; known: all there are."""
    rank, alpha = settings.rank, _plain(settings.scale, settings.rank, settings)
    ranks = {theirs: len(values["lora_A.weight"]) for theirs, (values, _) in found.items()}
    alphas = {theirs: _plain(scale, ranks[theirs], settings) for theirs, (_, scale) in found.items()}
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "",
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": settings.dropout,
        "target_modules": _suffixes(list(found), known),
        "modules_to_save": None,
        "use_rslora": settings.scaling == "alpha/sqrt(r)",
        "use_dora": settings.dora,
        "rank_pattern": {theirs: own for theirs, own in ranks.items() if own != rank},
        "alpha_pattern": {theirs: own for theirs, own in alphas.items() if own != alpha},
        "bias": "none",
        "fan_in_fan_out": transposed,
        "init_lora_weights": True,
        "inference_mode": True,
    }


def _plain(scale: float, rank: int, settings: Settings) -> float:
    """The alpha with which PEFT comes to this scale."""
    alpha = round(scale * (math.sqrt(rank) if settings.scaling == "alpha/sqrt(r)" else rank), 9)
    return int(alpha) if alpha == int(alpha) else alpha


def _written(model: GPT, name: str, place: families.Place) -> tuple[dict[str, Tensor], float] | None:
    """The tensors of one of PEFT's modules and their scale; None where the adapter does not touch it."""
    layer = model.get_submodule(place.ours.removesuffix(".weight"))
    first, last = place.rows or (0, layer.out_features)
    pairs = (
        [p for p in layer.pairs(name) if p.first < last and first < p.last]
        if isinstance(layer, LoRALinear)
        else []
    )
    if not pairs:
        return None
    with torch.no_grad():
        A = torch.cat([pair.A for pair in pairs])
        B = torch.zeros(last - first, len(A), device=A.device)
        lengths = torch.linalg.vector_norm(layer.weight[first:last], dim=1)  # of rows that no pair changes
        column = 0
        for pair in pairs:
            a, b = max(first, pair.first), min(last, pair.last)
            share = pair.scale / pairs[0].scale
            B[a - first : b - first, column : column + len(pair.A)] = (
                share * pair.B[a - pair.first : b - pair.first]
            )
            if pair.length is not None:
                lengths[a - first : b - first] = pair.length[a - pair.first : b - pair.first]
            column += len(pair.A)
        tensors = {"lora_A.weight": A, "lora_B.weight": _rows_out(place, B, model.config)}
        if pairs[0].length is not None:
            tensors["lora_magnitude_vector"] = _rows_out(place, lengths, model.config)
    return tensors, pairs[0].scale


def _rows_out(place: families.Place, rows: Tensor, config: ModelConfig) -> Tensor:
    """Rows of ours in the order of theirs: GPT-NeoX has q, k and v take turns head by head."""
    return families._taken_out(place.how, rows, config) if place.how.startswith("q, k, v") else rows


def _rows_in(place: families.Place, rows: Tensor, config: ModelConfig) -> Tensor:
    return families._taken_in(place.how, rows, config) if place.how.startswith("q, k, v") else rows


def _suffixes(changed: list[str], known: list[str]) -> list[str]:
    """The shortest endings that name the changed modules and no other, as PEFT's target_modules wants them."""
    found = set()
    for module in changed:
        words = module.split(".")
        for n in range(1, len(words) + 1):
            ending = ".".join(words[-n:])
            if all(m in changed for m in known if m == ending or m.endswith(f".{ending}")):
                found.add(ending)
                break
    return sorted(found)


def _card(base: str, settings: Settings, family: families.Family | None) -> str:
    where = (
        "the Hugging Face export of that model"
        if family
        else "LLM Lab (no Hugging Face family can hold its model)"
    )
    return (
        f"# An adapter of {base or 'a model'}\n\nLoRA{' with DoRA' if settings.dora else ''}, rank {settings.rank}, alpha "
        f"{settings.alpha:g}, scaling {settings.scaling}, made by LLM Lab. In PEFT's layout: it opens on {where}.\n"
    )


def load(model: GPT, folder: Path, name: str = "default", base: str = "this model") -> list[str]:
    """Put a saved adapter on a model, as strong as it was trained; returns what a person should know.

    `folder` may be the adapter_model.safetensors in it. Raises ValueError, and changes nothing, when a file is missing or
    damaged, the adapter is no LoRA, or a tensor does not fit this model: the sentence names it with both shapes.
    """
    _refuse(model, name)
    folder = folder.parent if folder.is_file() else folder
    said, file = peft_files.settings(folder), peft_files.weights(folder)
    known, _ = places(model.config)
    bare = {families.bare(f"{module}.weight"): place for module, place in known.items()}
    found = peft_files.pairs(said, read_header(file), bare, base, model.config)
    try:
        tensors = load_file(file)
        with safe_open(file, framework="pt") as opened:
            made_on = (opened.metadata() or {}).get("base", "")
    except (OSError, SafetensorError) as error:
        raise ValueError(f"The weights of the adapter {folder.name} cannot be read: {error}.") from None
    dropout = float(said.get("lora_dropout") or 0)
    for pair in found.values():
        linear = _layer(model, pair.place.ours.removesuffix(".weight"))
        first, last = pair.place.rows or (0, linear.out_features)
        made = Pair(linear.weight, first, last, pair.rank, pair.scale, dropout, "m" in pair.names)
        with torch.no_grad():
            made.A.copy_(tensors[pair.names["A"]])
            made.B.copy_(_rows_in(pair.place, tensors[pair.names["B"]].float(), model.config))
            if made.length is not None:
                made.length.copy_(_rows_in(pair.place, tensors[pair.names["m"]].float(), model.config))
        linear.put(name, made)
    scaling = "alpha/sqrt(r)" if said.get("use_rslora") else "alpha/r"
    modules = _modules_of([pair.place for pair in found.values()])
    _enter(
        model,
        name,
        Settings(
            int(said["r"]), float(said["lora_alpha"]), dropout, scaling, bool(said.get("use_dora")), modules
        ),
    )
    return _remarks(str(said.get("base_model_name_or_path") or "")[:120], made_on, fingerprint(model), base)


def _remarks(made_for: str, made_on: str, here: str, base: str) -> list[str]:
    """What to say when an adapter may be another model's: told by the weights themselves if it knows them, else by name."""
    if made_on and made_on != here:
        return [
            f"This adapter was made on other weights ({made_for or 'unnamed'}) than those of {base}: its shapes fit, its "
            "effect may be another."
        ]
    if not made_on and made_for and Path(made_for).name.lower() != base.lower():
        return [
            f"The adapter says that it was made for {made_for}. Its shapes fit {base}; whether it is the same model they "
            "cannot tell."
        ]
    return []


def _modules_of(found: list[families.Place]) -> tuple[str, ...]:
    """Which of LORA_MODULES an adapter sits on."""
    names = set()
    for place in found:
        path = place.ours.removesuffix(".weight")
        short = path.split(".")[-1]
        names.add(place.how.removeprefix("rows of ") if place.rows else short)
    return tuple(name for name in LORA_MODULES if name in names)
