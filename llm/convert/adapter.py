"""PEFT's LoRA adapters on a model of this lab: each changed matrix W becomes W + scale * B A (Hu et al. 2021, section 4.1).

With DoRA, the rows of the sum then get the lengths that the adapter holds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm import paths
from llm.config import ModelConfig
from llm.convert import families, folder
from llm.convert.source import MapRow, Source

if TYPE_CHECKING:
    from torch import Tensor

KEY = re.compile(
    r"base_model\.model\.(.+)\.(?:lora_([AB])(?:\.default)?\.weight|lora_(m)agnitude_vector(?:\.default)?(?:\.weight)?)"
)
HALVES = {"A": "lora_A", "B": "lora_B", "m": "lora_magnitude_vector"}
PLAIN = re.compile(r"\^?[\w.]+")  # a pattern of rank_pattern or alpha_pattern that is just a name
READ = {
    "peft_type",
    "r",
    "lora_alpha",
    "use_rslora",
    "use_dora",
    "rank_pattern",
    "alpha_pattern",
    "base_model_name_or_path",
}
IDLE = {  # settings that say how the adapter was made, and change nothing in what it computes
    "auto_mapping", "bias", "corda_config", "ensure_weight_tying", "eva_config", "exclude_modules", "fan_in_fan_out",
    "inference_mode", "init_lora_weights", "layers_pattern", "layers_to_transform", "loftq_config", "lora_dropout",
    "lora_ga_config", "megatron_core", "peft_version", "qalora_group_size", "revision", "runtime_config", "target_modules",
    "task_type",
}  # fmt: skip
BEGINNINGS = (True, False, None, "gaussian", "eva", "orthogonal", "lora_ga")  # that leave the base as it is


@dataclass(frozen=True)
class Pair:
    """The two matrices that change one of the base's: their names in the file, and what the product is multiplied by."""

    names: dict[str, str]  # A and B; with DoRA also m, the lengths of the rows
    rank: int
    scale: float
    place: families.Place


def look(path: Path, base: str) -> Source:
    """An adapter (its folder, or the adapter_model.safetensors in it) merged into the model `base`, not yet read.

    Raises ValueError with the setting, or with both numbers, when it does not belong to `base` or is no plain LoRA.
    """
    place = path.parent if path.is_file() else path
    said = settings(place)
    made_for = str(said.get("base_model_name_or_path") or "")[:120]
    if not base:
        of = f" ({made_for})" if made_for else ""
        raise ValueError(
            f"An adapter is only the change of a model: choose the one it was made for{of} as its base."
        )
    origin = paths.model_folder(base)
    config = _config(origin)
    theirs = families.their_config(config)
    header = folder.read_header(weights(place))
    known = families.places(families.family_of(theirs), families.model_config(theirs))
    found = pairs(said, header, known, base, config)
    changed: dict[str, list[Pair]] = {}
    for pair in found.values():
        changed.setdefault(pair.place.ours, []).append(pair)
    source = Source(
        container=f"PEFT adapter on {base}",
        family=theirs["model_type"],
        config=config,
        rows=(*_base_rows(origin, config, changed), *_rows(header, found)),
        read=lambda: _read(origin, weights(place), config, theirs, found),
        files={
            name: origin / name for name in ("tokenizer.json", *folder.EXTRAS) if (origin / name).is_file()
        },
        facts={"origin": place.name, "base model": base, **({"made for": made_for} if made_for else {})},
        notes=tuple(_notes(place, base, made_for, found)),
    )
    source.check()
    return source


def _config(origin: Path) -> ModelConfig:
    from llm import inventory

    return inventory.shape(origin)


def settings(place: Path) -> dict[str, Any]:
    """adapter_config.json. Raises ValueError when it is missing or says something that plain LoRA does not have."""
    said = folder.read_json(place / "adapter_config.json", folder.MOST_CONFIG)
    if said.get("peft_type") != "LORA":
        raise ValueError(
            f"peft_type is {str(said.get('peft_type'))[:40]!r}: the adapters opened here are LORA."
        )
    if said.get("bias", "none") != "none":
        raise ValueError(
            f"bias is {str(said['bias'])[:40]!r}: adapters that change biases too are not opened."
        )
    if (begin := said.get("init_lora_weights")) not in BEGINNINGS:
        raise ValueError(
            f"init_lora_weights is {str(begin)[:40]!r}, which changes the base model as well: save the adapter anew with PEFT's "
            "path_initial_model_for_weight_conversion, or merge it there."
        )
    other = [f"{name} = {str(said[name])[:40]}" for name in said if name not in READ | IDLE and said[name]]
    if other:
        raise ValueError(
            f"{'; '.join(other)[:200]}: only plain LoRA adapters are opened. Merge it with PEFT first."
        )
    numbers = {"r": said.get("r"), "lora_alpha": said.get("lora_alpha")}
    for name in ("rank_pattern", "alpha_pattern"):
        patterns = said.get(name) or {}
        if not isinstance(patterns, dict) or not all(PLAIN.fullmatch(key) for key in patterns):
            raise ValueError(
                f"{name} is {str(patterns)[:80]}: only names of modules are read in it, no search patterns."
            )
        numbers |= {f"{name} of {key[:80]}": value for key, value in patterns.items()}
    for name, value in numbers.items():
        whole = name == "r" or name.startswith("rank")
        if type(value) not in (int, float) or not 0 < value < 1e6 or (whole and value != int(value)):
            raise ValueError(f"{name} is {str(value)[:40]!r}: it should be a number above 0.")
    return said


def weights(place: Path) -> Path:
    """The file with the matrices. Raises ValueError when it is missing."""
    file = place / "adapter_model.safetensors"
    if not file.is_file():
        other = place / "adapter_model.bin"
        why = (
            " adapter_model.bin is a pickle and stays closed: save the adapter anew."
            if other.is_file()
            else ""
        )
        raise ValueError(f"{file.name} is missing in {place.name}.{why}")
    return file


def pairs(
    said: Mapping[str, Any],
    header: Mapping[str, tuple],
    known: Mapping[str, families.Place],
    base: str,
    config: ModelConfig,
) -> dict[str, Pair]:
    """Module of the base -> its pair. known: where each tensor of the base's family is in ours, by its name there.

    Raises ValueError when one does not fit the base, or lacks its other half.
    """
    found: dict[str, dict[str, str]] = {}
    for key in header:
        if not (match := KEY.fullmatch(key)):
            raise ValueError(
                f"The adapter has {key[:120]}, which is no part of a plain LoRA: it changes more than matrices."
            )
        found.setdefault(match[1], {})[match[2] or match[3]] = key
    if not found:
        raise ValueError("The adapter holds no LoRA matrices (lora_A, lora_B): it changes nothing.")
    pairs = {}
    for module, names in found.items():
        for half, what in HALVES.items():
            if half == "m" and not said.get("use_dora"):
                if half in names:
                    raise ValueError(
                        f"The adapter has a {what} of {module}, and use_dora is off: one of them is wrong."
                    )
            elif half not in names:
                raise ValueError(f"The adapter has no {what} of {module}: it is not whole.")
        place = known.get(families.bare(f"{module}.weight"))
        if place is None:
            raise ValueError(_stranger(module, base, config))
        rank = _by_pattern(said, "rank_pattern", module, said["r"])
        alpha = _by_pattern(said, "alpha_pattern", module, said["lora_alpha"])
        pairs[module] = Pair(
            names, rank, alpha / (math.sqrt(rank) if said.get("use_rslora") else rank), place
        )
        _check_shapes(module, header, pairs[module], base)
    return pairs


def _by_pattern(said: Mapping[str, Any], name: str, module: str, usual: float) -> Any:
    """The number of the first name that this module ends with, as PEFT looks it up; else the usual one."""
    for key, value in (said.get(name) or {}).items():
        if module == key.removeprefix("^") or (key[0] != "^" and module.endswith(f".{key}")):
            return value
    return usual


def _stranger(module: str, base: str, config: ModelConfig) -> str:
    """Why a module of the adapter is not in the base, in a sentence."""
    number = re.search(r"(?:layers|h)\.(\d+)\.", module)
    if number and int(number[1][:6]) >= config.n_layer:
        return (
            f"The adapter was made for another model: it changes layer {number[1][:6]} ({module[:80]}), and {base} has "
            f"{config.n_layer} layers, 0 to {config.n_layer - 1}."
        )
    if config.tie_embeddings and f"{module}.weight" in families.HEADS:
        return (
            f"The adapter changes {module}, which {base} shares with its token embedding: that is not opened."
        )
    return f"The adapter changes {module[:80]}, and {base} has no such matrix."


def _check_shapes(module: str, header: Mapping[str, tuple], pair: Pair, base: str) -> None:
    """Raise ValueError with both numbers when the matrices are not of the base's width, or not of the rank told."""
    rows, columns = pair.place.shape if pair.place.how != "transposed" else pair.place.shape[::-1]
    wanted = {"A": ((pair.rank, columns), 1), "B": ((rows, pair.rank), 0), "m": ((rows,), 0)}
    for half in pair.names:
        shape, axis = wanted[half]
        dtype, found = header[pair.names[half]][:2]
        if dtype not in folder.READ:
            raise ValueError(
                f"{HALVES[half]} of {module[:80]} is stored as {dtype}, not as {', '.join(folder.READ)}."
            )
        if len(found) == 2 and found[axis] != shape[axis]:
            what = "reads" if half == "A" else "gives"
            raise ValueError(
                f"The adapter was made for another model: its {module[:80]} {what} {found[axis]:,} numbers, and that of {base} "
                f"{shape[axis]:,}."
            )
        if found != shape:
            raise ValueError(
                f"{HALVES[half]} of {module[:80]} is {families.by(found)}, and by adapter_config.json {families.by(shape)}."
            )


def _base_rows(origin: Path, config: ModelConfig, changed: Mapping[str, list[Pair]]) -> Iterator[MapRow]:
    stored = folder.read_header(origin / "model.safetensors")
    for name, shape in families.our_shapes(config).items():
        parts = [
            p.place.how.removeprefix("rows of ") if p.place.rows else "all rows"
            for p in changed.get(name, ())
        ]
        dtype = stored[name][0] if name in stored else "missing"
        yield MapRow(name, name, shape, dtype, f"changed: {', '.join(parts)}" if parts else "same")


def _rows(header: Mapping[str, tuple], pairs: Mapping[str, Pair]) -> Iterator[MapRow]:
    halves = {name: (half, pair) for pair in pairs.values() for half, name in pair.names.items()}
    for name, (half, pair) in halves.items():
        dtype, shape = header[name][:2]
        how = f"{half} of {pair.scale:g} * B A, added to {pair.place.ours}"
        if half == "m":
            how = f"lengths of the rows of {pair.place.ours} after it"
        yield MapRow(
            name, "", shape, dtype, how + (f", {pair.place.how}" if pair.place.how != "same" else "")
        )


def _notes(place: Path, base: str, made_for: str, pairs: Mapping[str, Pair]) -> Iterator[str]:
    scales = sorted({f"{pair.scale:g}" for pair in pairs.values()})
    ranks = sorted({pair.rank for pair in pairs.values()})
    yield (
        f"{len(pairs)} matrices are changed, of rank {', '.join(map(str, ranks))} and scale {', '.join(scales)}."
    )
    if made_for and Path(made_for).name.lower() != base.lower():
        yield (
            f"The adapter says that it was made for {made_for}. Its shapes fit {base}; whether it is the same model they cannot "
            "tell."
        )
    if (place / "tokenizer.json").is_file():
        yield f"The adapter's folder has an encoding of its own: that of {base} is used."


def _read(
    origin: Path, file: Path, config: ModelConfig, theirs: Mapping[str, Any], pairs: Mapping[str, Pair]
) -> Iterator[tuple[str, Tensor]]:
    """Our tensors, one after the other: through the names of the family, so that each change meets its own rows."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from llm import checkpoint

    try:
        halves = load_file(file)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"The weights of the adapter cannot be read: {error}.") from None
    whole = families.model_config(theirs)
    changes = {families.bare(f"{module}.weight"): pair for module, pair in pairs.items()}
    stream = families.to_theirs(config, dict(checkpoint.read_weights(origin)))
    names = [
        families.family_name(name, families.family_of(theirs))
        for name in families.places(families.family_of(theirs), whole)
    ]

    def get(wanted: str) -> Tensor:
        name, weight = next(stream)
        assert name == wanted, (name, wanted)  # both go through the same table
        if (pair := changes.get(families.bare(name))) is None:
            return weight
        turned = pair.place.how == "transposed"
        parts = {half: halves[name].float() for half, name in pair.names.items()}
        merged = (weight.T if turned else weight).float() + pair.scale * (parts["B"] @ parts["A"])
        if "m" in parts:  # DoRA: rows of these lengths (Liu et al. 2024, eq. 5)
            merged = merged * (parts["m"] / merged.norm(dim=1))[:, None]
        return merged.T.contiguous() if turned else merged

    wanted = families.our_shapes(config)
    for name, tensor in families.to_ours(theirs, whole, get, names):
        if name in wanted:  # the family may have biases that this model lacks: they are zero
            yield name, tensor
