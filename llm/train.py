"""Training: one loop for everything that learns, and the run directory around it. `python -m llm.train RUN --flags`."""

from __future__ import annotations

import argparse
import math
import os
import platform
import shlex
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch

from llm import (
    checkpoint,
    commands,
    data,
    evaluate,
    forecast,
    generate,
    inventory,
    job,
    lora,
    machine,
    objectives,
    optim,
    paths,
    precision,
    tokenizer,
)
from llm.config import RunConfig, SampleConfig, TrainConfig, from_dict, to_flags
from llm.distributed import World, world
from llm.generate import evaluating
from llm.lora import choose
from llm.model import GPT
from llm.objectives import Pretrain
from llm.runs import Run, taken_back
from llm.state import InShares, OneFile, State, fingerprint

MEASURES = (
    "bits_per_byte", "old_loss", "accuracy", "reward_chosen", "reward_rejected", "reward_margin", "reward_accuracy"
)  # fmt: skip
KEPT_STEPS = {0, *(round(base * 10**power) for base in (1, 3) for power in range(7))}


def update(
    state: State, objective: Pretrain, config: TrainConfig, here: World, number_format: str
) -> dict[str, Any]:
    """One step of learning: the loss of a batch, its gradients, and a small move of every weight against them.

    Each process works on its own rows, and each of `grad_accumulation` parts on its own of those; sums and counts are
    divided once, so neither changes the result. Raises FloatingPointError when the loss is not a finite number.
    """
    rate = optim.set_rate(state.optimizers, state.step + 1, config)
    batch = objective.batch(state.step)
    count = objective.count(batch)  # of the whole batch
    total = torch.zeros((), device=here.device)
    more = {name: torch.zeros((), device=here.device) for name in objective.measures}
    state.model.zero_grad(set_to_none=True)
    gain = here.size if here.spread else 1  # in shares torch takes the mean over processes: we want the sum
    for part, weight in here.parts(batch, config.grad_accumulation):
        with precision.arithmetic(number_format, here.device):
            tally = here.tally(objective, state.model, part)
        (tally.total * (weight * gain) / count).backward()
        total += weight * tally.total.detach()
        for name, value in tally.sums.items():
            more[name] += weight * value
    here.sum_gradients(state.model)
    loss = float(here.sum(total)) / count
    norm = optim.clip(state.model, config.grad_clip)
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise FloatingPointError(
            f"the loss of update {state.step + 1} is {loss} and its gradient's length {norm}"
        )
    for optimizer in state.optimizers:
        optimizer.step()
    state.step += 1
    state.tokens += batch[0].numel()
    means = {name: float(here.sum(value)) / count for name, value in more.items()}
    return {"step": state.step, "loss": loss, "learning_rate": rate, "grad_norm": norm, **means}


def fit(
    state: State, objective: Pretrain, config: TrainConfig, here: World, number_format: str
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Train to the last step; yields ("evaluate", ...) when a look is due and ("step", ...) after each update.

    Knows neither disk nor page: whoever drives it may stop, save or sample between two yields without changing
    anything that comes after.
    """
    state.model.train()
    while True:
        if state.step % config.eval_every == 0 or state.step == config.max_steps:
            yield "evaluate", {"step": state.step}
        if state.step >= config.max_steps:
            return
        began, before = time.perf_counter(), state.tokens
        event = update(state, objective, config, here, number_format)
        spent = time.perf_counter() - began
        state.seconds += spent
        read = state.tokens - before
        yield "step", {**event, "seconds": state.seconds, "tokens_per_second": read / spent}


# --- the run directory around the loop ------------------------------------------------------------------------------


def train(run: Run, here: World, threads: int = 0) -> None:
    """Do a run, from its last checkpoint if it has one, until it is finished, stopped or fails; log it all.

    Raises ValueError when the run cannot begin: no such dataset, a text too short, a model of another encoding.
    """
    config = from_dict(RunConfig, run.config)
    if config.train.processes > most_processes():
        raise ValueError(
            f"{config.train.processes} processes are too many for this machine: it has {commands.cores()} cores, and at most "
            f"{most_processes()} processes can share them. Start the run again with fewer."
        )
    threads = threads_of(run, threads or config.train.threads)
    torch.set_num_threads(threads)
    torch.manual_seed(config.train.seed)
    with here.together():
        model, encoding = begin(config)
        config = replace(config, model=model.config)
        objective, old = objectives.made(config, encoding), old_text(config, encoding)
        model.to(here.device)
        number_format = precision.choose(config.train.precision, here.device)
        precision.prepare(model, number_format)
        choose(model, config.tune)
        if config.train.compile:
            precision.compile_blocks(model)
    objective.prepare(model, here, number_format)
    frozen = fingerprint(model)
    if config.train.sharding == "full":
        from llm import sharding  # torch's part for it takes a second to import

        here = sharding.shard(model, here)
    state = State(model, optim.optimizers(model, config.train, number_format), frozen=frozen)
    log = Log(run, here, config, encoding, objective, state, number_format, old=old)
    if here.agree(run.can_go_on()):
        with here.together():
            log.resume()
    elif any(event["kind"] == "start" for event in run.events()):
        log.add("resume", step=0)  # broken off before the first checkpoint
    log.start(threads)
    rung = run.pause_at()
    for kind, event in fit(state, objective, config.train, here, number_format):
        if kind == "evaluate":
            log.evaluation(event["step"])
            if 0 < rung == event["step"] < config.train.max_steps:
                log.end(
                    "stopped",
                    f"Waits at step {rung} until the other trials of its sweep have come so far.",
                    paused=True,
                )
                return
            if log.out_of_patience():
                log.end("finished", log.stopped_early())
                return
        else:
            log.add("step", **event)
        if kind == "step" or state.step == 0:
            log.keep_a_copy()
        if here.agree(run.stop_requested()):
            log.end("stopped", f"Stopped at step {state.step}; the model and its checkpoint are kept.")
            return
        if kind == "step" and state.step % config.train.checkpoint_every == 0:
            log.save()
    log.end("finished", f"All {config.train.max_steps} steps done. {objective.verdict(log.last)}".strip())


def begin(config: RunConfig) -> tuple[GPT, tokenizer.Tokenizer]:
    """The model to train and its encoding: random weights, or those of `start_from`.

    Raises ValueError when the machine has not the memory for it.
    """
    if config.start_from:
        folder = paths.model_folder(config.start_from)
        machine.refuse_memory(forecast.at_least(inventory.shape(folder), config), "This training")
        return checkpoint.load_model(folder)
    encoding = data.encoding_of(config.dataset, config.tokenizer)
    vocab_size = config.model.vocab_size or encoding.vocab_size
    model_config = replace(config.model, vocab_size=vocab_size)
    checkpoint.check_pair(model_config, encoding, "this run")
    machine.refuse_memory(forecast.at_least(model_config, config), "This training")
    return GPT(model_config), encoding


def old_text(config: RunConfig, encoding: tokenizer.Tokenizer) -> Pretrain | None:
    """The text whose loss is watched beside what is learnt. Raises ValueError when it is missing or too short."""
    if not config.tune.old_dataset:
        return None
    train = replace(config.train, drop_last=False)
    return Pretrain(replace(config, dataset=config.tune.old_dataset, train=train), encoding)


def threads_of(run: Run, wanted: int) -> int:
    """Processor threads: those the run began with (sums in another order give other last bits), else its share."""
    for event in run.events():
        if event["kind"] == "start":
            return event["threads"]
    return wanted or max(1, commands.threads() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


@dataclass
class Log:
    """What a run writes: events, checkpoints and its model. Only the leading process does."""

    run: Run
    here: World
    config: RunConfig
    encoding: tokenizer.Tokenizer
    objective: Pretrain
    state: State
    number_format: str
    last: dict[str, float] = field(default_factory=dict)  # the latest losses, for the model's card
    looks: list[tuple[int, float]] = field(
        default_factory=list
    )  # step and validation loss of each evaluation
    old: Pretrain | None = None  # a text that is watched for what is forgotten

    def add(self, kind: str, **values: Any) -> None:
        if self.here.leads:
            self.run.append(kind, **values)
            self.note(values)

    def note(self, event: dict[str, Any]) -> None:
        """Remember the losses of an event."""
        self.last |= {k: event[k] for k in ("loss", "val_loss", *MEASURES) if k in event}
        if event.get("val_loss") is not None:
            before = [look for look in self.looks if look[0] < event["step"]]
            self.looks = [*before, (event["step"], event["val_loss"])]

    def best(self) -> tuple[int, float] | None:
        """The step and the loss of the best evaluation so far, the first of equals; None before there is one."""
        return min(self.looks, key=lambda look: look[1], default=None)

    def waited(self) -> int:
        """Evaluations since the best one."""
        best = self.best()
        return sum(step > best[0] for step, _ in self.looks) if best else 0

    def out_of_patience(self) -> bool:
        """Whether the validation loss has not fallen for too long."""
        train = self.config.train
        return 0 < train.patience <= self.waited() and self.state.step < train.max_steps

    def stopped_early(self) -> str:
        """Why, in a sentence."""
        step, loss = self.best()
        kept = "of then" if self.config.train.keep_best else "of now"
        return (
            f"Stopped early at step {self.state.step} (patience {self.config.train.patience}): the validation loss was lowest "
            f"at step {step}, {loss:.4f}; the model {kept} is kept."
        )

    def start(self, threads: int) -> None:
        facts, train = self.objective.facts(), self.config.train
        if (train.patience or train.keep_best) and next(self.objective.validation(), None) is None:
            facts["notes"].append(
                "There is nothing to validate on, so no model is the best one and none stops early."
            )
        self.add(
            "start",
            step=self.state.step,
            pid=os.getpid(),
            host=os.environ.get("LLM_NODE") or platform.node(),
            attempt=self.run.attempt,
            threads=threads,
            processes=self.here.size,
            device=self.here.device.type,
            precision=self.number_format,
            torch=torch.__version__,
            parameters=sum(p.numel() for p in self.state.model.parameters()),
            trainable=lora.counts(self.state.model).trainable,
            objective=self.config.objective,
            trained=self.config.tune.trained,
            max_steps=train.max_steps,
            **facts,
        )

    def resume(self) -> None:
        """Load the last checkpoint; steps after it will be done again and replace what the log says of them."""
        self.checkpoint.load(self.state, self.here)
        self.add("resume", step=self.state.step)
        for event in self.run.events():
            if not taken_back(event, self.state.step):  # what came after will be done again
                self.note(event)

    @cached_property
    def checkpoint(self) -> OneFile | InShares:
        """How the run is kept: as its settings say, on any number of processes."""
        return InShares(self.run) if self.config.train.sharding == "full" else OneFile(self.run)

    def whole(self) -> GPT | None:
        """The model as a plain one on the leading process; all processes must ask at once."""
        return self.here.spread.whole() if self.here.spread else self.state.model

    def evaluation(self, step: int) -> None:
        """Validation loss, one position worked out, and an answer to each prompt; the model, when it is the best so far."""
        began = time.perf_counter()
        model = self.state.model
        values = evaluate.held_out(model, self.objective, self.here, self.number_format)
        if self.old:
            values["old_loss"] = evaluate.held_out(model, self.old, self.here, self.number_format)["val_loss"]
        self.note({"step": step, **values})  # on every process: all of them must come to the same end
        if (train := self.config.train).patience or train.keep_best:
            values["best"] = bool(self.best()) and self.best()[0] == step
        model = self.whole()
        if self.here.leads:
            batch = next(self.objective.validation(), None) or self.objective.batch(step)
            with evaluating(model), torch.inference_mode():
                position = self.objective.position(model, batch)
            seconds = time.perf_counter() - began
            self.add("evaluate", step=step, **values, position=position, eval_seconds=seconds)
            self.samples(model, step)
        if train.keep_best and values["best"]:
            self.keep("")

    def keep_a_copy(self) -> None:
        """With `keep_checkpoints`, the model as it is at steps 0, 1, 3, 10, 30, ... and at the last."""
        step = self.state.step
        if self.config.train.keep_checkpoints and (step in KEPT_STEPS or step == self.config.train.max_steps):
            self.keep(f"steps/{step:07d}")

    @cached_property
    def questions(self) -> list[tuple[str, list[int], str]]:
        """What is asked at every evaluation."""
        return self.objective.questions() if self.config.sample_tokens else []

    def samples(self, model: GPT, step: int) -> None:
        if not self.questions:
            return
        how = SampleConfig(
            max_new_tokens=self.config.sample_tokens,
            seed=self.config.train.seed,
            temperature=self.objective.temperature,
        )
        prompts, ends = [ids for _, ids, _ in self.questions], self.objective.answer_ends()
        texts = [
            {"prompt": shown, "text": "", **({"wanted": w} if w else {})} for shown, _, w in self.questions
        ]
        for made in generate.generate(model, self.encoding, prompts, how, ends=ends):
            texts[made.row]["text"] += made.text
        self.add("sample", step=step, texts=texts)

    def save(self) -> None:
        """A checkpoint to go on from and the model to use, each whole or not at all."""
        if self.here.leads:
            self.run.still_mine()  # who was given up must not replace what another has written since
        self.checkpoint.save(self.state, self.here)
        if not (self.config.train.keep_best and self.looks):  # else the best one is there already
            self.keep("")
        self.add("checkpoint", step=self.state.step)

    def keep(self, place: str) -> None:
        """The model as any other can be opened, adapters merged into it; the adapter by itself beside it."""
        model, objective = self.whole(), self.objective
        if not self.here.leads:
            return
        plain = lora.merged(model)
        folder = self.run.model_folder / place
        checkpoint.save_model(folder, plain, self.encoding, self.card(), extras=objective.files(model))
        for name in [] if place else lora.adapters(model):
            folder, head = self.run.path / "adapter", objective.head(model)
            lora.save(model, folder, name, self.config.start_from, head, self.state.frozen)

    def card(self) -> str:
        """The model's card: data, command, seed, losses."""
        lines = [
            f"# {self.run.name}",
            "",
            f"Made by LLM Lab at step {self.state.step} of {self.config.train.max_steps}.",
            "",
        ]
        if self.config.start_from:
            learned = {"all": "all of it", "last": "its last blocks", "lora": "an adapter (LoRA), merged"}
            lines.append(
                f"- made from: {self.config.start_from}; what learned: {learned[self.config.tune.trained]}"
            )
        lines += [
            f"- data: {self.config.dataset}",
            f"- encoding: {self.encoding.name}",
            f"- seed: {self.config.train.seed}",
        ]
        lines += [
            f"- {name.replace('_', ' ')}: {value:.4f}"
            for name, value in self.last.items()
            if value is not None
        ]
        command = shlex.join(
            ["python", "-m", "llm.train", self.run.name, *to_flags(from_dict(RunConfig, self.run.config))]
        )
        return "\n".join([*lines, "", "```", command, "```", ""])

    def end(self, reason: str, message: str, **values: Any) -> None:
        self.save()
        if self.here.leads and not self.here.spread:
            state, config = self.state, self.config.train
            batch = self.objective.batch(state.step)
            values["memory"] = forecast.held(
                state.model, state.optimizers, self.objective, batch, config, self.number_format
            )
        self.add("end", reason=reason, step=self.state.step, message=message, **values)


def work(run: Run) -> None:
    """Do a training run on this process, or with the others that torchrun has started.

    Raises ValueError when they cannot begin, on all of them.
    """
    with world() as here:
        train(run, here)


def most_processes() -> int:
    """How many may share this machine: more than a few for each core would only be in each other's way."""
    return 4 * commands.cores()


def several(arguments: list[str] | None) -> None:
    """With --processes above 1, become torchrun, which starts this command as many times; nothing under it or without."""
    asked = argparse.ArgumentParser(add_help=False)
    asked.add_argument("--processes", type=int, default=1)
    processes = asked.parse_known_args(arguments)[0].processes
    if 1 < processes <= most_processes() and "WORLD_SIZE" not in os.environ:
        words = sys.argv[1:] if arguments is None else arguments
        torchrun = [
            "torch.distributed.run",
            "--standalone",
            f"--nproc_per_node={processes}",
            "-m",
            "llm.train",
        ]
        os.execv(sys.executable, [sys.executable, "-m", *torchrun, *words])


def main(arguments: list[str] | None = None) -> int:
    """Create the run if there is none of this name, then train it; resume it when it was ended early."""
    several(arguments)
    finished = "The run {name} is finished; start a new one from its model with --start_from."
    return job.do("train", work, __doc__, finished, arguments)


if __name__ == "__main__":
    sys.exit(main())
