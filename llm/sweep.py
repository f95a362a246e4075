"""Start a sweep: one training for every combination of settings, or for some drawn at random. `python -m llm.sweep NAME --vary ...`

python -m llm.sweep rates --vary learning_rate=1e-3,3e-3,1e-2 --vary n_layer=2,4 --max_steps 400
python -m llm.sweep wide --random 12 --vary learning_rate=1e-4..1e-1 --vary batch_size=4,8,16 --halving 3
"""

from __future__ import annotations

import argparse
import difflib
import itertools
import json
import math
import random
import sys
import time
import typing
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass, replace
from typing import Any, NamedTuple

from llm import dispatch, halving, paths
from llm.config import Knob, RunConfig, add_flags, from_flags, knobs, to_dict, to_flags
from llm.halving import Sweep, Trial
from llm.runs import Run

MOST_TRIALS = 64
LOG_FROM = 10.0  # a range whose ends are this many times apart is drawn on a logarithmic scale


class Range(NamedTuple):
    """Numbers from low to high, drawn evenly, or evenly on a logarithmic scale."""

    low: float
    high: float
    log: bool


def varied_knobs() -> dict[str, Knob]:
    """The settings of a training that a sweep can vary."""
    return {name: knob for name, (_, knob) in _places().items()}


def _places() -> dict[str, tuple[str, Knob]]:
    """Knob name -> (the config inside RunConfig that has it, "" for RunConfig itself; the knob)."""
    hints = typing.get_type_hints(RunConfig)
    parts = [("", RunConfig), *((name, kind) for name, kind in hints.items() if is_dataclass(kind))]
    return {k.name: (part, k) for part, cls in parts for k in knobs(cls) if k.kind is not tuple}


def asked(name: str, text: str) -> list[Any] | Range:
    """What a person wrote for a knob: "1e-3,3e-3" gives values, "1e-4..1e-2" a range. Raises ValueError."""
    known = varied_knobs()
    if name not in known:
        near = difflib.get_close_matches(name, known, 3, 0.5)
        raise ValueError(
            f"There is no setting called {name!r} to vary"
            + (f"; did you mean {' or '.join(near)}?" if near else ".")
        )
    knob, text = known[name], text.strip()
    if ".." in text:
        return _range(knob, *text.split("..", 1))
    values = [_value(knob, part.strip()) for part in text.split(",") if part.strip()]
    if not values:
        raise ValueError(
            f"{name} has no values: write some, separated by commas, or a range such as 1e-4..1e-2."
        )
    return list(dict.fromkeys(values))


def _value(knob: Knob, text: str) -> Any:
    try:
        if knob.kind is bool:
            return {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}[
                text.lower()
            ]
        return knob.kind(text)
    except (ValueError, KeyError):
        wanted = {int: "a whole number", float: "a number", bool: "true or false"}.get(knob.kind, "a word")
        raise ValueError(f"{knob.name} takes {wanted}, not {text!r}.") from None


def _range(knob: Knob, low: str, high: str) -> Range:
    if knob.kind not in (int, float):
        raise ValueError(f"{knob.name} has no range: name its values, separated by commas.")
    a, b = (float(_value(knob, end.strip())) for end in (low, high))
    if not (math.isfinite(a) and math.isfinite(b)) or a >= b:
        raise ValueError(
            f"The range {low}..{high} of {knob.name} is empty: the first number must be the smaller one."
        )
    return Range(a, b, a > 0 and b / a >= LOG_FROM)


def drawn(knob: Knob, what: list[Any] | Range, source: random.Random) -> Any:
    """One value of those asked for; from a logarithmic range, three digits of it."""
    if isinstance(what, list):
        return source.choice(what)
    if what.log:
        value = math.exp(source.uniform(math.log(what.low), math.log(what.high)))
        value = min(max(float(f"{value:.3g}"), what.low), what.high)
    else:
        value = source.uniform(what.low, what.high)
    return round(value) if knob.kind is int else value


def combinations(
    wanted: Mapping[str, list[Any] | Range], count: int = 0, seed: int = 0
) -> list[dict[str, Any]]:
    """Every combination of the values, or `count` drawn at random, no two alike. Raises ValueError."""
    if not wanted:
        raise ValueError("Choose at least one setting to vary.")
    if not count:
        for name, what in wanted.items():
            if isinstance(what, Range):
                raise ValueError(
                    f"{name} has a range, which has no end of values: name some, or draw at random."
                )
        n = math.prod(len(what) for what in wanted.values())
        if n > MOST_TRIALS:
            raise ValueError(
                f"These are {n:,} combinations; {MOST_TRIALS} at once are the most: vary less, or draw at random."
            )
        return [dict(zip(wanted, values)) for values in itertools.product(*wanted.values())]
    if count > MOST_TRIALS or count < 2:
        raise ValueError(f"{count} trials were asked for; a random search has 2 to {MOST_TRIALS}.")
    source, known = random.Random(seed), varied_knobs()
    found: list[dict[str, Any]] = []
    for _ in range(50 * count):
        one = {name: drawn(known[name], what, source) for name, what in wanted.items()}
        if one not in found:
            found.append(one)
        if len(found) == count:
            return found
    raise ValueError(
        f"There are fewer than {count} different combinations of these: draw {len(found)} at most, or try them all."
    )


def with_values(base: RunConfig, values: Mapping[str, Any]) -> RunConfig:
    """`base` with some knobs changed; the final learning rate keeps its share of the peak.

    Raises ValueError when they do not go together, with the values.
    """
    places, inner, own = _places(), {}, {}
    changed = dict(values)
    if "learning_rate" in values and base.train.learning_rate:
        share = base.train.min_learning_rate / base.train.learning_rate
        changed.setdefault("min_learning_rate", float(f"{share * values['learning_rate']:.3g}"))
    for name, value in changed.items():
        part, _ = places[name]
        (inner.setdefault(part, {}) if part else own)[name] = value
    try:
        return replace(
            base, **own, **{part: replace(getattr(base, part), **new) for part, new in inner.items()}
        )
    except ValueError as error:
        said = ", ".join(f"{name} {value}" for name, value in values.items())
        raise ValueError(f"The trial with {said} cannot be: {error}") from None


def rungs(eta: int, max_steps: int, eval_every: int, trials: int) -> tuple[int, ...]:
    """The steps at which trials wait for one another: each eta times the one before, and an evaluation at each.

    There are as many as leave one of `trials` at the end, as far as they fit into the run. Raises ValueError.
    """
    if not eta:
        return ()
    if eta < 2:
        raise ValueError(f"Halving keeps one of {eta}: choose 2 or more, or 0 for none.")
    wanted = max(1, math.ceil(math.log(trials) / math.log(eta) - 1e-9))
    found = []
    for k in range(wanted, 0, -1):
        step = math.ceil(max_steps / eta**k / eval_every) * eval_every
        if 0 < step < max_steps and step not in found:
            found.append(step)
    if not found:
        raise ValueError(
            f"With {max_steps} steps and an evaluation every {eval_every} there is none before the end at which trials could "
            "be compared: evaluate more often."
        )
    return tuple(found)


def plan(
    name: str,
    base: RunConfig,
    varied: Mapping[str, str],
    count: int = 0,
    eta: int = 0,
    seed: int = 0,
    owner: str = "",
) -> tuple[Sweep, list[RunConfig]]:
    """A sweep as it would be, and the settings of each trial; nothing is made yet. Raises ValueError."""
    paths.checked_name(name, "name of the sweep")
    if eta and (held := [k for k in ("max_steps", "eval_every") if k in varied]):
        raise ValueError(
            f"With halving all trials are compared at the same steps: do not vary {' and '.join(held)}."
        )
    wanted = {knob: asked(knob, text) for knob, text in varied.items()}
    values = combinations(wanted, count, seed)
    configs = [with_values(base, one) for one in values]
    digits = len(str(len(values)))
    trials = tuple(Trial(f"{name}-{i:0{digits}}", one) for i, one in enumerate(values, 1))
    taken = [
        trial.name
        for trial in trials
        if (paths.runs() / trial.name).exists() or paths.is_model(paths.shipped_models() / trial.name)
    ]
    if taken or (paths.sweeps() / name).exists():
        raise ValueError(
            f"There is a {'run' if taken else 'sweep'} called {(taken or [name])[0]!r} already: choose another name."
        )
    paths.checked_name(trials[-1].name, "run name")
    log = tuple(knob for knob, what in wanted.items() if isinstance(what, Range) and what.log)
    steps = base.train.max_steps
    found = rungs(eta, steps, base.train.eval_every, len(trials))
    return Sweep(name, owner, time.time(), dict(varied), log, trials, steps, eta, found), configs


def create(sweep: Sweep, configs: Sequence[RunConfig]) -> None:
    """Make a planned sweep and its trials, which wait for their turn; `dispatch.pump` starts them. Raises ValueError."""
    folder = paths.sweeps() / sweep.name
    try:
        folder.mkdir()
    except FileExistsError:
        raise ValueError(f"There is a sweep called {sweep.name!r} already: choose another name.") from None
    spec = {**vars(sweep), "version": halving.VERSION, "trials": [trial._asdict() for trial in sweep.trials]}
    del spec["name"]
    with paths.replacing(folder / "spec.json") as temporary:
        temporary.write_text(json.dumps(spec, indent=2) + "\n", encoding="utf-8")
    for trial, config in zip(sweep.trials, configs):
        Run.create("train", to_dict(config), sweep.owner, trial.name, sweep.rungs[0] if sweep.rungs else 0)


def command(
    name: str, base: RunConfig, varied: Mapping[str, str], count: int, eta: int, seed: int
) -> list[str]:
    """The command line that makes this sweep."""
    words = ["python", "-m", "llm.sweep", name, *(f"--vary={knob}={text}" for knob, text in varied.items())]
    words += ["--random", str(count), *(["--draws_seed", str(seed)] if seed else [])] if count else []
    words += ["--halving", str(eta)] if eta else []
    return [*words, *to_flags(base)]


# --- how its trials stand


def rows(sweep: Sweep) -> list[dict[str, Any]]:
    """Each trial: name, values, status, step, val_loss and bits_per_byte of its last evaluation, best (lowest so far), rank, note.

    Trials are ranked by how far halving let them come, then by the validation loss of their last evaluation.
    """
    found = []
    for trial in sweep.trials:
        run = halving.run_of(trial)
        seen = halving.looks(run) if run else ()
        last = seen[-1] if seen else halving.Look(0, None, None)
        step = (run.last_event() or {}).get("step", last.step) if run else 0
        found.append(
            {
                "name": trial.name, "values": trial.values, "status": run.status() if run else "deleted", "step": step or last.step,
                "val_loss": last.val_loss, "bits_per_byte": last.bits_per_byte, "note": halving.note(sweep, trial),
                "curve": [(look.step, look.val_loss) for look in seen], "rank": None,
            }
        )  # fmt: skip
    far = lambda row: sum(row["curve"][-1][0] > rung for rung in sweep.rungs)  # noqa: E731
    judged = [row for row in found if row["val_loss"] is not None and row["curve"][-1][0] > 0]
    for rank, row in enumerate(sorted(judged, key=lambda row: (-far(row), row["val_loss"], row["name"])), 1):
        row["rank"] = rank
    return found


# --- the terminal


def main(arguments: Sequence[str] | None = None) -> None:
    """Make a sweep and start its trials, one after the other as slots come free; this command ends when all have ended."""
    parser = argparse.ArgumentParser(
        prog="python -m llm.sweep", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name")
    parser.add_argument(
        "--vary",
        action="append",
        default=[],
        metavar="KNOB=VALUES",
        help="1e-3,3e-3 or 1e-4..1e-2; once for each knob",
    )
    parser.add_argument(
        "--random", type=int, default=0, metavar="N", help="draw N combinations instead of trying all"
    )
    parser.add_argument("--draws_seed", type=int, default=0, help="where the draws of --random start from")
    parser.add_argument(
        "--halving", type=int, default=0, metavar="ETA", help="let the best 1/ETA go on at each rung; 0: all"
    )
    add_flags(parser, RunConfig)
    given = parser.parse_args(arguments)
    try:
        varied = dict(_split(text) for text in given.vary)
        base = from_flags(RunConfig, given)
        sweep, configs = plan(
            given.name, base, varied, given.random, given.halving, given.draws_seed, "terminal"
        )
        create(sweep, configs)
    except ValueError as error:
        sys.exit(f"{error}")
    while True:
        dispatch.pump()
        found = rows(sweep)
        if all(
            row["status"] in ("finished", "stopped", "failed", "crashed", "deleted") for row in found
        ) and not any((run := halving.run_of(trial)) and halving.is_paused(run) for trial in sweep.trials):
            break
        time.sleep(0.5)
    for row in sorted(found, key=lambda row: row["rank"] or MOST_TRIALS + 1):
        said = ", ".join(f"{knob} {value}" for knob, value in row["values"].items())
        loss = "no loss" if row["val_loss"] is None else f"validation loss {row['val_loss']:.4f}"
        print(
            f"{row['rank'] or '-':>3}  {row['name']}  {said}: {loss} at step {row['curve'][-1][0] if row['curve'] else 0} ({row['status']})"
        )


def _split(text: str) -> tuple[str, str]:
    name, sign, values = text.partition("=")
    if not sign:
        raise ValueError(
            f"--vary {text!r} names no values: write KNOB=VALUES, such as learning_rate=1e-3,3e-3."
        )
    return name.strip(), values


if __name__ == "__main__":
    main()
