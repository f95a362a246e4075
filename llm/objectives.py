"""What a run learns: an objective gives batches and their loss; the loop around it is always the same."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as safetensors_bytes
from torch import Tensor, nn

from llm import adapters, chat, checkpoint, data, lora, losses, paths, precision, prompts, shards, versions
from llm.config import RunConfig, SampleConfig
from llm.distributed import World
from llm.generate import evaluating, shown
from llm.losses import IGNORED, Tally
from llm.model import GPT
from llm.prompts import Example, Written
from llm.tokenizer import Tokenizer

Batch = tuple[Tensor, ...]  # of every tensor the first dimension is the rows of the batch
CLASSIFIER_VERSION = 1  # of classifier.json
LISTED = 50  # rejected or cut rows that a run's log names


class Pretrain:
    """Predict the next token of a text, window by window."""

    per_token = True  # the loss is one a token: perplexity and bits per byte mean something
    measures: tuple[str, ...] = ()  # further means that its tally has sums for
    temperature = SampleConfig().temperature  # of what the model says at evaluations

    def __init__(self, config: RunConfig, encoding: Tokenizer):
        """Raises ValueError when the text is too short for one window or for one whole batch."""
        train, T = config.train, config.model.context_length
        self.config, self.encoding = config, encoding
        self.text = data.load(config.dataset, encoding)
        self.windows, self.validation_windows = data.cut(self.text.ids, T, train, encoding)
        data.refuse_short(self.windows)
        self.batches = data.Batches(
            len(self.windows), train.batch_size, train.shuffle, train.seed, train.drop_last
        )
        self.batches.numbers(0)  # says now, not at the first step, when there is no whole batch
        self.validation_batch_size = train.batch_size
        self.validation_batches = train.eval_batches
        self.token_lengths = data.token_lengths(encoding)

    def facts(self) -> dict[str, Any]:
        """What the page shows of the data: tokens, windows, batches a pass."""
        return {
            "train_tokens": len(self.windows.ids),
            "validation_tokens": len(self.validation_windows.ids),
            "windows": len(self.windows),
            "validation_windows": len(self.validation_windows),
            "batches_per_epoch": self.batches.per_epoch,
            "notes": list(self.text.notes),
        }

    def prepare(self, model: GPT, world: World, number_format: str) -> None:
        """Whatever must happen to the model before the first step, while it is still as it was started from."""

    def batch(self, step: int) -> Batch:
        """Batch number `step` (0, 1, 2, ...), the same on every process and after every resume."""
        return self.shifted(*self.windows.inputs_and_targets(self.batches.numbers(step)))

    def shifted(self, inputs: np.ndarray, targets: np.ndarray) -> Batch:
        """A batch as it is learnt: where a run is broken on purpose (`shift` 0), each token is its own target."""
        return _tensors(inputs, targets if self.config.train.shift else inputs)

    def validation(self) -> Iterator[Batch]:
        """Validation windows in order, in batches; the first `eval_batches` of them, or all when that is 0."""
        for numbers in self._looked_at(len(self.validation_windows)):
            yield self.shifted(*self.validation_windows.inputs_and_targets(numbers))

    def _looked_at(self, n: int) -> Iterator[np.ndarray]:
        """The numbers of the first `eval_batches` batches of n, in order; of all when that is 0."""
        B = self.validation_batch_size
        last = n if not self.validation_batches else min(n, B * self.validation_batches)
        for start in range(0, last, B):
            yield np.arange(start, min(start + B, last))

    def count(self, batch: Batch) -> int:
        """How many targets a batch has: what the sum of its losses is divided by."""
        return int((batch[1] != IGNORED).sum())

    def tally(self, model: GPT, batch: Batch) -> Tally:
        """Sum of the losses of a batch and how many targets it has."""
        inputs, targets = batch
        return losses.next_token(model(inputs), targets)

    def bytes_of(self, batch: Batch) -> int:
        """Bytes of text that the targets of a batch stand for."""
        targets = batch[1]
        return int(self.token_lengths[targets[targets != IGNORED].cpu().numpy()].sum())

    def position(self, model: GPT, batch: Batch) -> dict[str, Any] | None:
        """The loss of the middle position of the batch's first row, in single steps, with the text before it."""
        inputs, targets = batch[0][:1], batch[1][:1]
        counted = (targets[0] != IGNORED).nonzero()[:, 0]
        return _position(model, self.encoding, inputs, targets, int(counted[len(counted) // 2]))

    def questions(self) -> list[tuple[str, list[int], str]]:
        """What the model is asked at each evaluation: as shown, as ids, and the answer that is wanted ("" for none)."""
        return [(prompt, self.encoding.encode(prompt), "") for prompt in self.config.prompts]

    def answer_ends(self) -> frozenset[int]:
        """Ids that end such an answer, beside the encoding's end-of-text."""
        return frozenset()

    def verdict(self, last: dict[str, float]) -> str:
        """What its last losses say, where a person could misread them; "" else."""
        return ""

    def files(self, model: GPT) -> dict[str, bytes | Path]:
        """What belongs beside the model that is saved: how it is spoken to, a classifier's head."""
        folder = _folder(self.config)
        return checkpoint.extras_of(folder) if folder else {}

    def head(self, model: GPT) -> dict[str, Tensor]:
        """Tensors that are saved beside an adapter, by PEFT's names."""
        return {}


class Streamed(Pretrain):
    """Predict the next token of a text that lies in shards, which come and go (see `llm.shards`)."""

    def __init__(self, config: RunConfig, encoding: Tokenizer):
        """Raises ValueError when the shards cannot be used."""
        train, T = config.train, config.model.context_length
        self.config, self.encoding = config, encoding
        self.shards = shards.Shards(config.dataset, encoding, T, train)
        self.validation_windows = self.shards.validation
        self.shards.place(0)  # says now when there is no whole batch
        self.validation_batch_size, self.validation_batches = train.batch_size, train.eval_batches
        self.token_lengths = data.token_lengths(encoding)

    def facts(self) -> dict[str, Any]:
        """What is known before the shards have come: how many there are, and what the last one holds for validation."""
        n = len(self.shards.addresses)
        note = f"The text comes in {n} shards, of which no more than {shards.most_bytes() / 1e6:,.0f} MB lie here at once; one more is for validation."  # fmt: skip
        return {
            "shards": n,
            "validation_tokens": len(self.validation_windows.ids),
            "validation_windows": len(self.validation_windows),
            "notes": [note],
        }

    def batch(self, step: int) -> Batch:
        """Batch number `step`."""
        return _tensors(*self.shards.batch(step))


def made(config: RunConfig, encoding: Tokenizer) -> Pretrain:
    """What a run learns, by its settings. Raises ValueError when its data cannot be used."""
    if config.objective == "pretrain" and config.dataset in shards.names():
        return Streamed(config, encoding)
    return OBJECTIVES[config.objective](config, encoding)


def _folder(config: RunConfig) -> Path | None:
    """The directory of the model that a run starts from."""
    return paths.model_folder(config.start_from) if config.start_from else None


class Instruct(Pretrain):
    """Predict the tokens of answers, given the prompts before them (Ouyang et al. 2022, section 3.1)."""

    temperature = 0.0
    wanted = "output"  # the field of a row that holds the answer

    def __init__(self, config: RunConfig, encoding: Tokenizer):
        """Raises ValueError when the rows cannot be used: of another kind, or none left with anything to learn."""
        self.config, self.encoding = config, encoding
        self.examples = prompts.examples(config, encoding, _folder(config), config.model.context_length)
        self.train, self.held_out = (self.examples.parts[name] for name in ("train", "validation"))
        train = config.train
        self.batch_size = min(train.batch_size, len(self.train))
        self.lengths = [max(map(len, example.texts)) for example in self.train]
        self.batches = data.Batches(
            len(self.train), self.batch_size, train.shuffle, train.seed, train.drop_last
        )
        self.validation_batch_size = train.batch_size
        self.validation_batches = train.eval_batches
        self.token_lengths = data.token_lengths(encoding)
        self.pad_id = encoding.eot_id or 0  # any id would do: nothing looks at what comes after it

    def facts(self) -> dict[str, Any]:
        """What the page shows of the data: rows by what they are for, those left out and why, those cut."""
        found = self.examples
        notes = list(found.notes)
        if self.batch_size < self.config.train.batch_size:
            notes.append(
                f"There are only {len(self.train)} rows to learn from: a batch has {self.batch_size}, not "
                f"{self.config.train.batch_size}."
            )
        return {
            "rows": {name: len(part) for name, part in found.parts.items()},
            "rejected": [{"row": row, "reason": reason} for row, reason in found.rejected[:LISTED]],
            "n_rejected": len(found.rejected),
            "truncated": found.truncated[:LISTED],
            "n_truncated": len(found.truncated),
            "labels": found.labels,
            "max_length": found.most,
            "batches_per_epoch": self.batches.per_epoch,
            "notes": notes,
        }

    def batch(self, step: int) -> Batch:
        """The rows of batch `step`: those of like length, filled up to the longest of them; or any rows, packed.

        A packed line has room for the longest of all rows, so that short ones find some.
        """
        if not self.config.tune.packing:
            return self.together([self.train[n] for n in data.alike(self.batches, self.lengths, step)])
        texts = [self.train[number].texts[0] for number in self.batches.numbers(step)]
        return _tensors(
            *prompts.packed(texts, self.pad_id, self.config.tune.mask_prompt, max(self.lengths) - 1)
        )

    def validation(self) -> Iterator[Batch]:
        """Rows that are not learned from, in order, in batches."""
        for numbers in self._looked_at(len(self.held_out)):
            yield self.together([self.held_out[number] for number in numbers])

    def together(self, examples: Sequence[Example]) -> Batch:
        """Rows side by side: inputs (B, T), targets (B, T)."""
        texts = [example.texts[0] for example in examples]
        return _tensors(*prompts.padded(texts, self.pad_id, self.config.tune.mask_prompt))

    def tally(self, model: GPT, batch: Batch) -> Tally:
        """Sum of the losses of the answers' tokens and how many there are. Logits are made only where one is learned."""
        inputs, targets, *positions = batch
        learned = targets != IGNORED
        logits = model.output(model.hidden(inputs, None, *positions)[learned])
        return losses.next_token(logits[None], targets[learned][None])

    def position(self, model: GPT, batch: Batch) -> dict[str, Any] | None:
        """A position of the first row."""
        inputs, targets, *positions = batch
        if positions:  # the first line may hold more rows
            begins = (positions[0][0] == 0).nonzero()[:, 0].tolist()
            inputs, targets = (t[:, : (*begins, t.shape[1])[1]] for t in (inputs, targets))
        return super().position(model, (inputs, targets))

    def questions(self) -> list[tuple[str, list[int], str]]:
        """The instructions of the knobs, else the first rows of three that are not learned from."""
        manner, asked = self.examples.manner, []
        for text in self.config.tune.questions:
            asked.append((text, [{"role": "user", "content": text}], ""))
        if not asked:
            for example in _spread(self.held_out, 3):
                *before, last = prompts.conversation(example.source, manner.joint, self.wanted)
                asked.append((before[-1]["content"], before, last["content"]))
        return [(shown, prompts.prompt_ids(manner, self.encoding, m), wanted) for shown, m, wanted in asked]

    def answer_ends(self) -> frozenset[int]:
        """What ends an answer in the prompt style."""
        return self.examples.manner.ends

    def files(self, model: GPT) -> dict[str, bytes | Path]:
        """The prompt style becomes the model's chat template: it is asked as it was taught. The bare style needs none."""
        manner, bare = self.examples.manner, self.config.tune.prompt_style == prompts.BARE
        return super().files(model) | (
            {} if manner.foreign or bare else {"chat_template.jinja": manner.source.encode()}
        )


def _spread(examples: Sequence[Example], n: int) -> list[Example]:
    """n of the examples, from the first to the last."""
    step = max(1, len(examples) // n)
    return list(examples[::step][:n])


class Prefer(Instruct):
    """Make chosen answers likelier than rejected ones, measured from where the model began (Rafailov et al. 2023).

    The reference is the model as it was started from: with LoRA the same weights with the adapter silenced, else its
    log-probabilities of every pair, worked out once before the first step.
    """

    per_token = False
    measures = ("reward_chosen", "reward_rejected", "reward_margin", "reward_accuracy")
    wanted = "chosen"

    def __init__(self, config: RunConfig, encoding: Tokenizer):
        super().__init__(config, encoding)
        self.silenced = config.tune.trained == "lora"
        self.kept: dict[int, Tensor] = {}  # row -> (2,), the reference's log-probabilities

    def prepare(self, model: GPT, world: World, number_format: str) -> None:
        """Work out what the reference says of every pair; each process does its share."""
        if self.silenced:
            return
        examples = [*self.train, *self.held_out]
        found = torch.zeros(len(examples), 2, device=world.device)
        B = self.validation_batch_size
        with evaluating(model), torch.no_grad(), precision.arithmetic(number_format, world.device):
            for number, start in enumerate(range(0, len(examples), B)):
                if number % world.size == world.rank:
                    inputs, targets = self.pairs(examples[start : start + B])
                    found[start : start + B] = answer_logprobs(
                        model, inputs.to(world.device), targets.to(world.device)
                    )
        found = world.sum(found).cpu()
        self.kept = {id(example): row for example, row in zip(examples, found)}

    def pairs(self, examples: Sequence[Example]) -> Batch:
        """Chosen and rejected answers together: inputs (B, 2, T), targets (B, 2, T)."""
        texts = [text for example in examples for text in example.texts]
        return tuple(
            t.unflatten(0, (-1, 2)) for t in _tensors(*prompts.padded(texts, self.pad_id, mask_prompt=True))
        )

    def together(self, examples: Sequence[Example]) -> Batch:
        """`pairs`, and where the reference is not at hand what it said of them, (B, 2)."""
        kept = () if self.silenced else (torch.stack([self.kept[id(example)] for example in examples]),)
        return (*self.pairs(examples), *kept)

    def count(self, batch: Batch) -> int:
        """How many pairs."""
        return len(batch[0])

    def tally(self, model: GPT, batch: Batch) -> Tally:
        """The loss of the pairs, all answers in one forward pass."""
        inputs, targets = batch[:2]
        policy = answer_logprobs(model, inputs, targets)
        if self.silenced:
            with lora.off(model), evaluating(model), torch.no_grad():
                reference = answer_logprobs(model, inputs, targets)
        else:
            reference = batch[2]
        tune, lengths = self.config.tune, (targets != IGNORED).sum(-1)
        return losses.preference(
            policy, reference, lengths, tune.beta, tune.preference_loss, tune.label_smoothing
        )

    def bytes_of(self, batch: Batch) -> int:
        """0: the loss is none of a text."""
        return 0

    def verdict(self, last: dict[str, float]) -> str:
        """Says when the model prefers nothing yet; nothing where no validation rows measured it."""
        margin = last.get("reward_margin")
        if margin is None or abs(margin) > 1e-3:
            return ""
        return "The rewards are still 0: the model prefers no answer more than it did at the start (a dpo loss of ln 2, 0.6931)."

    def position(self, model: GPT, batch: Batch) -> dict[str, Any] | None:
        """A position of the first chosen answer."""
        return super().position(model, (batch[0][:, 0], batch[1][:, 0]))


def answer_logprobs(model: GPT, inputs: Tensor, targets: Tensor) -> Tensor:
    """log pi(answer | prompt) of many answers in one forward pass. inputs, targets (..., T) -> (...), in nats."""
    flat, wanted = inputs.flatten(0, -2), targets.flatten(0, -2)
    learned = wanted != IGNORED
    logprobs = losses.token_logprobs(model.output(model.hidden(flat)[learned]), wanted[learned])
    rows = learned.nonzero()[:, 0]
    return torch.zeros(len(flat), device=flat.device).index_add(0, rows, logprobs).view(targets.shape[:-1])


HEAD = "class_head"  # what the head is called among a model's parts while it is trained


class Classify(Instruct):
    """Tell texts apart: a new matrix turns what the model makes of the last token into one score a class."""

    per_token = False
    measures = ("accuracy",)

    def __init__(self, config: RunConfig, encoding: Tokenizer):
        super().__init__(config, encoding)
        self.labels = self.examples.labels
        prompts.check_labels(self.examples)

    def prepare(self, model: GPT, world: World, number_format: str) -> None:
        """Give the model its head: (K, C), small random numbers, no bias. The output matrix is not used and stands still.

        Raises ValueError for an adapter on the output matrix.
        """
        adapters.check_head(self.config.tune)
        if not model.config.tie_embeddings:
            model.output.requires_grad_(False)
        head = nn.Linear(model.config.n_embd, len(self.labels), bias=False, device=world.device)
        nn.init.normal_(head.weight, std=0.02)
        model.add_module(HEAD, head)

    def together(self, examples: Sequence[Example]) -> Batch:
        """Rows side by side: inputs (B, T), the place of each one's last token (B,), labels (B,)."""
        inputs, last = stacked([example.texts[0].ids for example in examples], self.pad_id)
        return inputs, last, torch.tensor([example.label for example in examples])

    def count(self, batch: Batch) -> int:
        """How many rows."""
        return len(batch[0])

    def tally(self, model: GPT, batch: Batch) -> Tally:
        """Cross-entropy of the classes; how many were right."""
        inputs, last, labels = batch
        return losses.classes(class_logits(model, model.get_submodule(HEAD), inputs, last), labels)

    def bytes_of(self, batch: Batch) -> int:
        """0: the loss is none of a text."""
        return 0

    def position(self, model: GPT, batch: Batch) -> dict[str, Any] | None:
        """The first row's classes in single steps, with the text they were made of."""
        inputs, last, labels = (t[:1].to(model.device) for t in batch)
        logits = class_logits(model, model.get_submodule(HEAD), inputs, last)[0].cpu()
        found = losses.worked_out(logits, int(labels[0]))
        found["context"] = self.encoding.decode(inputs[0, : int(last[0]) + 1].tolist())
        found["target_text"] = self.labels[found["target"]]
        for row in found["top"]:
            row["text"] = self.labels[row["id"]]
        return found

    def questions(self) -> list[tuple[str, list[int], str]]:
        """None: a classifier says nothing."""
        return []

    def files(self, model: GPT) -> dict[str, bytes | Path]:
        """The head and what its rows stand for."""
        about = {"version": CLASSIFIER_VERSION, "labels": self.labels, "max_length": self.examples.most}
        weight = model.get_submodule(HEAD).weight.detach().cpu().contiguous()
        return {
            **Pretrain.files(self, model),
            "classifier.json": json.dumps(about, indent=2).encode(),
            "classifier.safetensors": safetensors_bytes({"weight": weight}, metadata={"format": "pt"}),
        }

    def head(self, model: GPT) -> dict[str, Tensor]:
        """The head under the name it has in transformers' classifiers."""
        return {"score.weight": model.get_submodule(HEAD).weight}


def stacked(texts: Sequence[Sequence[int]], pad_id: int, length: int = 0) -> tuple[Tensor, Tensor]:
    """Texts side by side, filled up on the right to the longest (or `length`): idx (B, T), places of the last tokens (B,)."""
    idx = torch.full((len(texts), max(length, *(len(ids) for ids in texts))), pad_id)
    for i, ids in enumerate(texts):
        idx[i, : len(ids)] = torch.as_tensor(ids)
    return idx, torch.tensor([len(ids) - 1 for ids in texts])


def class_logits(model: GPT, head: nn.Module, idx: Tensor, last: Tensor) -> Tensor:
    """The scores of the classes, made of each text's last token. idx (B, T), last (B,) -> (B, K)."""
    return head(model.hidden(idx)[torch.arange(len(idx), device=idx.device), last])


def classifier(folder: Path) -> tuple[list[str], Tensor, int]:
    """The labels of a classifier's model directory, its head (K, C), and how many tokens it reads at most.

    Raises ValueError when the model has none, or it is damaged.
    """
    if not (folder / "classifier.json").is_file():
        raise ValueError(f"{paths.called(folder)} is no classifier: train one with the objective classify.")
    try:
        about = json.loads((folder / "classifier.json").read_text(encoding="utf-8"))
        versions.check(about.get("version"), CLASSIFIER_VERSION, folder / "classifier.json")
        labels, weight = list(about["labels"]), load_file(folder / "classifier.safetensors")["weight"]
        most = int(about["max_length"])
    except versions.Unknown:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise ValueError(f"The classifier of {paths.called(folder)} is damaged: {error}.") from None
    return labels, weight.float(), most


def class_probabilities(
    model: GPT, encoding: Tokenizer, folder: str, texts: Sequence[str], pad_to: int = 0, rows: int = 32
) -> dict[str, Any]:
    """What a classifier says of texts: {"labels": [...], "probabilities": [[...]] a text, "cut": [...], "notes": [...]}.

    folder: its model directory. A text longer than it reads is cut, and a note says so. `pad_to` fills shorter ones up,
    which changes nothing. Raises ValueError for a text without tokens.
    """
    labels, weight, most = classifier(Path(folder))
    head = nn.Linear(*weight.shape[::-1], bias=False, device=model.device)
    head.weight = nn.Parameter(weight.to(model.device))
    begin = chat.read(Path(folder)).begin_id
    made = [prompts.text_ids(text, encoding, most, begin) for text in texts]
    found: list[list[float]] = []
    with torch.inference_mode(), evaluating(model):
        for start in range(0, len(made), rows):
            idx, last = stacked(
                [ids for ids, _ in made[start : start + rows]], encoding.eot_id or 0, min(pad_to, most)
            )
            logits = class_logits(model, head, idx.to(model.device), last.to(model.device))
            found += logits.float().softmax(-1).tolist()
    cut = [i for i, (_, was_cut) in enumerate(made) if was_cut]
    notes = [
        f"{len(cut)} of {len(made)} texts are longer than {most:,} tokens: only their beginning was read."
    ]
    return {"labels": labels, "probabilities": found, "cut": cut, "notes": notes if cut else []}


def seen_pair(model: GPT, text: Written) -> list[float]:
    """The log-probability of each token of an answer, in nats, for one text of a pair."""
    inputs, targets = (t.to(model.device) for t in _tensors(*prompts.padded([text], 0)))
    with torch.inference_mode(), evaluating(model):
        logprobs = losses.token_logprobs(model(inputs), targets)[0]
    return logprobs[targets[0] != IGNORED].tolist()


OBJECTIVES: dict[str, type[Pretrain]] = {
    "pretrain": Pretrain,
    "instruct": Instruct,
    "classify": Classify,
    "prefer": Prefer,
}


def _tensors(*arrays: np.ndarray) -> tuple[Tensor, ...]:
    return tuple(torch.from_numpy(array) for array in arrays)


def _position(model: GPT, encoding: Tokenizer, inputs: Tensor, targets: Tensor, place: int) -> dict[str, Any]:
    """The loss at one place of inputs (1, T) in single steps, with the text before it."""
    logits = model(inputs[:, : place + 1].to(model.device))[0, -1]
    result = losses.worked_out(logits, int(targets[0, place]))
    result["context"] = encoding.decode(inputs[0, max(0, place - 24) : place + 1].tolist())
    result["target_text"] = shown(encoding, result["target"])
    for row in result["top"]:
        row["text"] = shown(encoding, row["id"]) if row["id"] < encoding.vocab_size else "(unused)"
    return result
