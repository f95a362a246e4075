"""How good a model is on what it has not learned from: losses, accuracy, rewards, and the answers it gives."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from llm import checkpoint, paths, precision, prompts
from llm.config import RunConfig, SampleConfig, add_flags, from_flags
from llm.distributed import World, best_device
from llm.generate import evaluating, generate
from llm.model import GPT
from llm.objectives import (
    OBJECTIVES,
    Classify,
    Instruct,
    Prefer,
    Pretrain,
    answer_logprobs,
    class_probabilities,
)
from llm.prompts import Example
from llm.runs import perplexity
from llm.tokenizer import Tokenizer


def held_out(model: GPT, objective: Pretrain, world: World, number_format: str) -> dict[str, Any]:
    """Mean loss in nats a token over the validation batches, its exponential, and bits a byte of text.

    bits per byte = sum of losses / ln 2 / bytes: unlike the loss a token, it can be compared between encodings. Both are
    None where the loss is none of tokens. Objectives add means of their own, such as accuracy. All are None when the
    validation part is empty or too short for a window. Every process works on its share.
    """
    total, count, size = 0.0, 0, 0
    more: dict[str, float] = {}
    # A model in shares makes tensors here that training uses again: they may not be those of inference mode.
    apart = torch.no_grad() if world.spread else torch.inference_mode()
    with evaluating(model), apart, precision.arithmetic(number_format, world.device):
        for batch, counts in world.share(objective.validation()):
            tally = world.tally(objective, model, batch)
            if not counts:
                continue
            total, count = total + float(tally.total), count + tally.count
            size += objective.bytes_of(batch)
            more = {name: more.get(name, 0.0) + float(value) for name, value in tally.sums.items()}
    names = objective.measures
    sums = [total, count, size, *(more.get(name, 0.0) for name in names)]
    total, count, size, *others = world.sum(torch.tensor(sums, dtype=torch.float64)).tolist()
    if not count:
        return {
            "val_loss": None,
            "perplexity": None,
            "bits_per_byte": None,
            "val_tokens": 0,
            **dict.fromkeys(names),
        }
    return {
        "val_loss": total / count,
        "perplexity": perplexity(total / count) if objective.per_token else None,
        "bits_per_byte": total / math.log(2) / size if size and objective.per_token else None,
        "val_tokens": int(count),
        **{name: value / count for name, value in zip(names, others)},
    }


# --- on the rows that a model has not learned from


def answers(
    model: GPT, encoding: Tokenizer, asked: Sequence[Sequence[int]], ends: frozenset[int], most: int = 80
) -> list[str]:
    """The likeliest answer to each prompt (ids), at most `most` tokens of it."""
    texts = [""] * len(asked)
    how = SampleConfig(temperature=0.0, max_new_tokens=most)
    for step in generate(model, encoding, asked, how, ends=ends):
        texts[step.row] += step.text
    return texts


def exact(model: GPT, objective: Instruct, examples: Sequence[Example], most: int = 80) -> dict[str, Any]:
    """How many answers are, letter for letter, the wanted ones (blanks at the ends aside): in all, and by family of rows.

    {"right", "of", "families": {name: [right, of]}, "rows": [{row, prompt, wanted, text, right}]}
    """
    manner, encoding = objective.examples.manner, objective.encoding
    talks = [prompts.conversation(example.source, manner.joint, objective.wanted) for example in examples]
    asked = [prompts.prompt_ids(manner, encoding, talk[:-1]) for talk in talks]
    texts = answers(model, encoding, asked, manner.ends, most)
    rows = []
    families: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for example, talk, text in zip(examples, talks, texts):
        wanted = talk[-1]["content"]
        right = text.strip() == wanted.strip()
        rows.append(
            dict(row=example.row, prompt=talk[-2]["content"], wanted=wanted, text=text.strip(), right=right)
        )
        if family := example.source.get("family"):
            families[family][0] += right
            families[family][1] += 1
    return dict(right=sum(row["right"] for row in rows), of=len(rows), families=dict(families), rows=rows)


def confusion(
    model: GPT, encoding: Tokenizer, folder: str, examples: Sequence[Example], labels: Sequence[str]
) -> dict[str, Any]:
    """A classifier on rows whose class is known: {"accuracy", "of", "labels", "matrix", "rows"}.

    matrix[i][j]: rows of class i that were taken for j. rows: [{row, text, label, taken_for, probabilities}].
    Raises ValueError when the model's classes are others than those of the rows.
    """
    said = class_probabilities(model, encoding, folder, [example.source["text"] for example in examples])
    if said["labels"] != list(labels):
        raise ValueError(
            f"The model tells {', '.join(said['labels'])} apart, and the rows have {', '.join(labels)}: choose other rows."
        )
    matrix = [[0] * len(labels) for _ in labels]
    rows = []
    for example, chances in zip(examples, said["probabilities"]):
        taken = max(range(len(labels)), key=chances.__getitem__)
        matrix[example.label][taken] += 1
        rows.append(
            dict(
                row=example.row,
                text=example.source["text"],
                label=labels[example.label],
                taken_for=labels[taken],
                probabilities=chances,
            )
        )
    right = sum(matrix[i][i] for i in range(len(labels)))
    return dict(accuracy=right / len(rows), of=len(rows), labels=list(labels), matrix=matrix, rows=rows)


def report(name: str, config: RunConfig, part: str = "test", reference: str = "") -> dict[str, Any]:
    """The model `name` on one part of the rows of `config.dataset`, as its objective is measured.

    instruct: the loss and exact answers; classify: accuracy and the confusion matrix; prefer: loss and rewards, measured
    from the model `reference`, and the share of pairs whose chosen answer is the likelier one under each. Raises ValueError
    when there is no such part, or the model cannot do it.
    """
    folder = paths.model_folder(name)
    model, encoding = checkpoint.load_model(folder)
    here = World(0, 1, best_device())
    model.to(here.device)
    config = replace(config, start_from=name, model=model.config, train=replace(config.train, eval_batches=0))
    objective = OBJECTIVES[config.objective](config, encoding)
    if not isinstance(objective, Instruct):
        raise ValueError("Choose what is measured: --objective instruct, classify or prefer.")
    parts = objective.examples.parts
    if not parts.get(part):
        known = ", ".join(f"{name} ({len(rows)})" for name, rows in parts.items())
        raise ValueError(
            f"The rows of {config.dataset} have no part {part!r} with anything in it; there are {known}."
        )
    objective.held_out = parts[part]
    about = dict(
        model=name,
        dataset=config.dataset,
        part=part,
        objective=config.objective,
        notes=objective.examples.notes,
    )
    return about | REPORTS[config.objective](model, objective, here, reference)


def _instruct(model: GPT, objective: Instruct, here: World, reference: str) -> dict[str, Any]:
    return held_out(model, objective, here, "fp32") | exact(model, objective, objective.held_out)


def _classify(model: GPT, objective: Classify, here: World, reference: str) -> dict[str, Any]:
    folder = str(paths.model_folder(objective.config.start_from))
    return confusion(model, objective.encoding, folder, objective.held_out, objective.labels)


def _prefer(model: GPT, objective: Prefer, here: World, reference: str) -> dict[str, Any]:
    if not reference:
        raise ValueError(
            "Rewards are measured from the model that the training began with: name it with --reference."
        )
    first, _ = checkpoint.load_model(paths.model_folder(reference))
    objective.silenced, objective.train = False, []
    objective.prepare(first.to(here.device), here, "fp32")
    policy = []
    with torch.inference_mode():
        for inputs, targets, _ in objective.validation():
            policy.append(answer_logprobs(model, inputs.to(here.device), targets.to(here.device)).cpu())
    before = torch.stack([objective.kept[id(example)] for example in objective.held_out])
    likelier = {"reference": _chosen_likelier(before), "model": _chosen_likelier(torch.cat(policy))}
    return held_out(model, objective, here, "fp32") | {"chosen_likelier": likelier}


def _chosen_likelier(logprobs: torch.Tensor) -> float:
    """The share of pairs whose chosen answer is, as a whole, the likelier one. logprobs (N, 2)."""
    return float((logprobs[:, 0] > logprobs[:, 1]).float().mean())


REPORTS: dict[str, Callable[..., dict[str, Any]]] = {
    "instruct": _instruct,
    "classify": _classify,
    "prefer": _prefer,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """`python -m llm.evaluate MODEL --objective instruct --dataset NAME`: how good it is on held-out rows, as JSON."""
    parser = argparse.ArgumentParser(prog="python -m llm.evaluate", description=main.__doc__)
    parser.add_argument("name", help="a model")
    parser.add_argument(
        "--part", default="test", help="part of the rows: train, validation, test, ... (default: test)"
    )
    parser.add_argument("--reference", default="", help="prefer: the model that rewards are measured from")
    parser.add_argument("--rows", action="store_true", help="list every row with its answer")
    add_flags(parser, RunConfig)
    given = parser.parse_args(arguments)
    try:
        found = report(given.name, from_flags(RunConfig, given), given.part, given.reference)
    except ValueError as error:
        sys.exit(f"{error}")
    if not given.rows:
        found.pop("rows", None)
    print(json.dumps(found, ensure_ascii=False, indent=2))


if __name__ == "__main__":
    main()
