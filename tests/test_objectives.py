"""Instructions, classes and preferences in the one loop: against transformers, peft, trl and what may not change."""

import json
import math
import os
import random
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import tokenizers
import torch
import transformers
from safetensors.torch import load_file

from llm import (
    chat,
    checkpoint,
    data,
    evaluate,
    job,
    lora,
    losses,
    objectives,
    optim,
    pairs,
    paths,
    prompts,
    tokenizer,
    train,
)
from llm.config import ModelConfig, RunConfig, TrainConfig, TuneConfig, to_dict, to_flags
from llm.convert import families, folder
from llm.distributed import World
from llm.losses import IGNORED
from llm.model import GPT
from llm.objectives import OBJECTIVES
from llm.runs import Run

ONE = World(0, 1, torch.device("cpu"))
BYTE = tokenizer.get("byte")
GPT2 = dict(position="learned", norm="layernorm", mlp="gelu_tanh", bias=True, qkv_bias=True)
ALPHABET = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
WORDS = ["red", "owl", "fox", "tree", "boat", "old", "river", "small"]


def base(name="tiny", encoding=BYTE, **settings):
    """A small model on the disk to start from; its name."""
    torch.manual_seed(7)
    shape = dict(vocab_size=encoding.vocab_size, n_layer=2, n_head=2, n_embd=16, context_length=64)
    checkpoint.save_model(paths.models() / name, GPT(ModelConfig(**(shape | settings))), encoding, "")
    return name


def rows(kind, n=24, seed=2):
    """Rows of random words; the dataset's name."""
    draw = random.Random(seed)
    made = []
    for i in range(n):
        word, other = draw.sample(WORDS, 2)
        made.append({
            "instruction": {"instruction": f"say {word}", "output": word * (1 + i % 3)},
            "preference": {"prompt": f"say {word}", "chosen": word, "rejected": f"{other}, not {word}"},
            "classification": {"text": f"{word} {('glad', 'blue')[i % 2]}", "label": ("happy", "unhappy")[i % 2]},
        }[kind])  # fmt: skip
    (paths.datasets() / f"{kind}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made))
    return kind


KINDS = {"instruct": "instruction", "prefer": "preference", "classify": "classification"}


def config(objective="instruct", start_from="tiny", tune=None, n=24, **settings):
    """A run that is through in a moment."""
    usual = dict(
        max_steps=6, warmup_steps=1, batch_size=4, eval_every=3, checkpoint_every=2, precision="fp32", threads=1,
        optimizer="adamw", learning_rate=1e-2, min_learning_rate=1e-3, validation_fraction=0.2, eval_batches=0,
    )  # fmt: skip
    return RunConfig(
        dataset=rows(KINDS[objective], n), objective=objective, start_from=start_from, sample_tokens=4,
        train=TrainConfig(**(usual | settings)), tune=TuneConfig(**({"prompt_style": "plain"} | (tune or {}))),
    )  # fmt: skip


LORA = dict(trained="lora", lora_rank=4, lora_alpha=8.0)


def start(config, world=ONE):
    """State and objective before the first step, as a run makes them."""
    torch.manual_seed(config.train.seed)
    model, encoding = train.begin(config)
    objective = OBJECTIVES[config.objective](replace(config, model=model.config), encoding)
    train.choose(model, config.tune)
    objective.prepare(model, world, "fp32")
    model.train()
    return train.State(model, optim.optimizers(model, config.train)), objective


def trained(config, name="run"):
    """A run done in this process."""
    run = Run.create("train", to_dict(config), name=name)
    assert job.guarded(run, train.work) == 0, run.last_event()
    return run


def failed(config, *words):
    run = Run.create("train", to_dict(config), name=f"bad{random.random()}")
    assert job.guarded(run, train.work) == 1
    message = run.last_event()["message"]
    assert all(word in message for word in words), message


def seen(run, kind):
    drop = {"time", "seconds", "eval_seconds", "tokens_per_second", "pid"}
    return [{k: v for k, v in e.items() if k not in drop} for e in run.events() if e["kind"] == kind]


# --- against others --------------------------------------------------------------------------------------------------


def test_tuning_a_tiny_gpt2_follows_the_curve_of_transformers():
    base(**GPT2)
    run = config(max_steps=20, weight_decay=0.02)
    state, objective = start(run)
    theirs = families.their_config(state.model.config)
    oracle = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.for_model(**{**theirs, "bos_token_id": 0, "eos_token_id": 0})
    ).train()
    oracle.load_state_dict(
        dict(families.to_theirs(state.model.config, state.model.state_dict())), strict=False
    )
    oracle.tie_weights()
    settings = run.train
    groups = [
        {
            "params": [p for p in oracle.parameters() if (p.dim() >= 2) == decays],
            "weight_decay": 0.02 * decays,
        }
        for decays in (True, False)
    ]
    adamw = torch.optim.AdamW(groups, betas=(settings.beta1, settings.beta2))
    for step in range(20):
        inputs, targets = objective.batch(step)
        ids = torch.cat(
            (inputs, inputs[:, :1]), 1
        )  # transformers shifts the labels itself: one more token, never a target's source
        labels = torch.cat((torch.full((len(ids), 1), IGNORED), targets), 1)
        for group in adamw.param_groups:
            group["lr"] = optim.learning_rate(step + 1, settings)
        adamw.zero_grad()
        wanted = oracle(ids, labels=labels).loss
        wanted.backward()
        torch.nn.utils.clip_grad_norm_(oracle.parameters(), settings.grad_clip)
        adamw.step()
        assert train.update(state, objective, settings, ONE, "fp32")["loss"] == pytest.approx(
            wanted.item(), abs=1e-4
        )


def test_a_classifier_is_the_one_of_transformers():
    base(**GPT2)
    state, objective = start(config("classify"))
    model = state.model.eval()
    theirs = {
        **families.their_config(model.config),
        "architectures": None,
        "num_labels": 2,
        "pad_token_id": 256,
    }
    oracle = transformers.AutoModelForSequenceClassification.from_config(
        transformers.AutoConfig.for_model(**theirs)
    ).eval()
    weights = dict(families.to_theirs(model.config, model.state_dict())) | objective.head(model)
    oracle.load_state_dict({k: v for k, v in weights.items() if k in oracle.state_dict()}, strict=True)
    inputs, last, labels = objective.batch(0)
    found = objectives.class_logits(model, model.class_head, inputs, last)
    assert torch.allclose(found, oracle(inputs, attention_mask=(inputs != 256)).logits, atol=1e-5)
    tally = objective.tally(model, (inputs, last, labels))
    assert float(tally.total) / 4 == pytest.approx(
        float(torch.nn.functional.cross_entropy(found, labels)), abs=1e-6
    )


def oracle_of(model):
    """The same model in transformers."""
    theirs = {
        **families.their_config(model.config),
        "bos_token_id": 256,
        "eos_token_id": 256,
        "pad_token_id": 256,
    }
    found = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(**theirs))
    found.load_state_dict(dict(families.to_theirs(model.config, model.state_dict())), strict=False)
    found.tie_weights()
    return found


@pytest.mark.parametrize("kind", ["dpo", "ipo"])
def test_losses_and_rewards_of_pairs_are_those_of_trl(kind, tmp_path):
    trl = pytest.importorskip("trl", reason="the package trl is not installed: it is the oracle here")
    rows_of_trl = pytest.importorskip(
        "datasets", reason="the package datasets is not installed: trl needs it"
    )
    base(**GPT2)
    state, objective = start(config("prefer", tune=LORA | {"preference_loss": kind}))
    model = state.model.eval()
    reference = lora.merged(model)
    for layer in lora.layers(model).values():  # move the policy away from its reference
        for pair in layer.pairs("default"):
            pair.B.data.normal_(std=0.3)
    kit = tokenizers.Tokenizer(tokenizers.models.BPE({c: i for i, c in enumerate(ALPHABET)}, []))
    kit.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    kit.add_special_tokens(["<e>"])
    arguments = trl.DPOConfig(
        output_dir=str(tmp_path), beta=0.1, loss_type=["sigmoid" if kind == "dpo" else kind], report_to="none", bf16=False,
        use_cpu=True, per_device_train_batch_size=4, disable_tqdm=True,
    )  # fmt: skip
    pairs = [{"prompt": f"say {w}", "chosen": w, "rejected": f"not {w}"} for w in WORDS[:4]]
    trainer = trl.DPOTrainer(
        oracle_of(lora.merged(model)), oracle_of(reference), arguments, train_dataset=rows_of_trl.Dataset.from_list(pairs),
        processing_class=transformers.PreTrainedTokenizerFast(tokenizer_object=kit, eos_token="<e>", pad_token="<e>"),
    )  # fmt: skip
    batch = next(iter(trainer.get_train_dataloader()))
    wanted = float(trainer.compute_loss(trainer.model, batch))

    ids, learned = (
        batch[name].unflatten(0, (2, -1)).transpose(0, 1) for name in ("input_ids", "completion_mask")
    )
    targets = ids[..., 1:].masked_fill(learned[..., 1:] == 0, IGNORED)
    found = objective.tally(model, (ids[..., :-1].clone(), targets))
    assert float(found.total) / found.count == pytest.approx(wanted, rel=1e-4)
    said = trainer._metrics["train"]
    for ours, theirs in (
        ("chosen", "chosen"),
        ("rejected", "rejected"),
        ("margin", "margins"),
        ("accuracy", "accuracies"),
    ):
        value = float(found.sums[f"reward_{ours}"]) / found.count
        assert value == pytest.approx(said[f"rewards/{theirs}"][-1], abs=1e-4)
    assert abs(said["rewards/margins"][-1]) > 0.01


# --- what must not bend the curve ------------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", list(KINDS))
def test_neither_padding_nor_parts_nor_processes_change_a_loss_or_a_gradient(objective):
    base(dropout=0.0)
    state, found = start(config(objective, tune={"trained": "all"}))
    model = state.model
    examples = found.train[:6]
    whole = found.together(examples)

    def gradients(batches):
        model.zero_grad()
        tallies = [found.tally(model, batch) for batch in batches]
        total = sum(tally.total for tally in tallies) / sum(tally.count for tally in tallies)
        total.backward()
        return float(total), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    loss, gradient = gradients([whole])
    alone = [found.together([example]) for example in examples]  # each with its own padding, or none
    filled = [(torch.nn.functional.pad(t, (0, 9), value=v) if t.dim() > 1 and t.shape[-1] > 2 else t)
              for t, v in zip(whole, (5, IGNORED, 0))]  # fmt: skip
    parts = list(zip(*(t.chunk(3) for t in whole)))
    shares = [tuple(t[rank::4] for t in whole) for rank in range(4)]  # of four processes, two with one row
    for name, batches in (("alone", alone), ("filled", [filled]), ("parts", parts), ("processes", shares)):
        other, bent = gradients(batches)
        assert other == pytest.approx(loss, abs=1e-5), name
        assert torch.allclose(bent, gradient, atol=1e-5), name
    assert sum(found.count(batch) for batch in shares) == found.count(whole)


SHAPES = {
    "rope": dict(n_kv_head=1),
    "learned positions": GPT2,
    "sinusoids": dict(position="sinusoidal"),
    "a sliding window": dict(sliding_window=5, global_every=2),
    "norm after": dict(norm_position="post"),
}


def uneven(**settings):
    """A run on rows of which one is long, so that the others find room."""
    made = [{"instruction": f"say {word}", "output": word * (20 if i == 3 else 1 + i % 3)}
            for i, word in enumerate(WORDS * 3)]  # fmt: skip
    (paths.datasets() / "uneven.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made))
    return replace(config(batch_size=9, **settings), dataset="uneven")


@pytest.mark.parametrize("shape", SHAPES)
def test_packed_rows_have_the_loss_and_the_gradient_of_rows_apart(shape):
    base(dropout=0.0, context_length=128, **SHAPES[shape])
    found = start(uneven(tune={"mask_prompt": False}))[1]
    state, packing = start(uneven(tune={"packing": True, "mask_prompt": False}))
    numbers = packing.batches.numbers(1)
    apart, together = found.together([found.train[n] for n in numbers]), packing.batch(1)
    assert len(together[0]) < len(numbers) and together[0].numel() < apart[0].numel()
    assert packing.count(together) == found.count(apart)

    def gradients(batches):
        state.model.zero_grad()
        tallies = [found.tally(state.model, batch) for batch in batches]
        total = sum(tally.total for tally in tallies) / found.count(apart)
        total.backward()
        return float(total), torch.cat([p.grad.flatten() for p in state.model.parameters()])

    loss, gradient = gradients([apart])
    for batches in (
        [together],
        list(zip(*(t.chunk(2) for t in together))),
        [tuple(t[rank::2] for t in together) for rank in range(2)],
    ):
        other, bent = gradients(batches)
        assert other == pytest.approx(loss, abs=1e-5)
        assert torch.allclose(bent, gradient, atol=1e-5)
    with torch.no_grad():  # the very place worked out is of one row, though its line has more
        place = packing.position(state.model, together)
        line = int((together[2][0, 1:] == 0).nonzero()[0]) + 1
        alone = packing.position(state.model, (together[0][:1, :line], together[1][:1, :line]))
    assert place["loss"] == pytest.approx(alone["loss"]) and place["context"] == alone["context"]


def test_a_packed_run_follows_the_curve_of_rows_apart_and_says_when_it_cannot():
    base(dropout=0.0, context_length=128)
    apart, together = (
        trained(uneven(tune={"packing": on}, shuffle=False, max_steps=10), f"packing-{on}")
        for on in (False, True)
    )
    for kind, names in (("step", ("loss", "grad_norm")), ("evaluate", ("val_loss",))):
        for a, b in zip(seen(apart, kind), seen(together, kind), strict=True):
            assert [b[n] for n in names] == pytest.approx([a[n] for n in names], abs=1e-4)
    with pytest.raises(ValueError, match="objective prefer leave it off"):
        config("prefer", tune={"packing": True})


@pytest.mark.parametrize(("n", "drop_last"), [(50, True), (53, False), (3, True)])
def test_rows_of_like_length_share_a_batch_and_a_pass_still_has_each_row_once(n, drop_last):
    base()
    lengths = random.Random(4).choices(range(1, 30), k=n)
    made = [{"instruction": f"row {i}", "output": "x" * k, "split": "train"} for i, k in enumerate(lengths)]
    run = replace(
        config(), train=TrainConfig(batch_size=4, drop_last=drop_last), model=ModelConfig(context_length=64)
    )
    (paths.datasets() / f"{run.dataset}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made))
    found = OBJECTIVES["instruct"](run, BYTE)
    batches = found.batches.per_epoch
    for epoch in range(2):
        steps = range(epoch * batches, (epoch + 1) * batches)
        drawn = np.concatenate([found.batches.numbers(step) for step in steps])
        alike = [data.alike(found.batches, found.lengths, step) for step in steps]
        assert sorted(np.concatenate(alike)) == sorted(drawn) and len(set(drawn)) == len(drawn)
        filled = sum(found.batch(step)[0].numel() for step in steps)
        plain = [found.together([found.train[i] for i in found.batches.numbers(step)]) for step in steps]
        assert n == 3 or filled < 0.9 * sum(inputs.numel() for inputs, _ in plain)
    again = OBJECTIVES["instruct"](run, BYTE)
    assert all(
        np.array_equal(
            data.alike(again.batches, again.lengths, step), data.alike(found.batches, found.lengths, step)
        )
        for step in (0, 1, batches)
    )


@pytest.mark.parametrize("objective", list(KINDS))
def test_broken_off_and_resumed_is_the_same_run_to_the_bit(objective, monkeypatch):
    base(dropout=0.1)
    run_config = config(objective, tune=LORA | {"lora_dropout": 0.2}, max_steps=7)
    whole = trained(run_config, "whole")
    broken = Run.create("train", to_dict(run_config), name="broken")
    true_update = train.update

    def dies(state, *rest):
        if state.step == 5:
            raise RuntimeError("the lights went out")
        return true_update(state, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(train, "update", dies)
        assert job.guarded(broken, train.work) == 1
    broken.request_resume()
    assert job.guarded(broken, train.work) == 0
    for kind in ("step", "evaluate", "sample"):
        assert seen(whole, kind) == seen(broken, kind)
    assert len(seen(whole, "step")) == 7
    for file in ("model/model.safetensors", "adapter/adapter_model.safetensors"):
        one, other = (load_file(run.path / file) for run in (whole, broken))
        assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_more_processes_than_rows_add_nothing():
    base(dropout=0.0)
    run_config = config(batch_size=1)
    one, objective = start(run_config)
    train.update(one, objective, run_config.train, ONE, "fp32")
    idle, objective = start(run_config)
    gathered = []

    class Second(World):
        def sum(self, values):
            return values

        def sum_gradients(self, model):
            gathered.append([p.grad for p in model.parameters()])

    second = Second(1, 2, torch.device("cpu"))
    assert train.update(idle, objective, run_config.train, second, "fp32")["loss"] == 0.0
    assert all(g is not None and not g.any() for g in gathered[0])


# --- what stands still -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", list(KINDS))
@pytest.mark.parametrize("trained_part", ["lora", "last"])
def test_what_does_not_learn_stays_to_the_bit_and_out_of_optimizer_and_checkpoint(objective, trained_part):
    base(n_layer=3)
    state, found = start(config(objective, tune=LORA | {"trained": trained_part, "last_blocks": 2}))
    before = {name: p.clone() for name, p in state.model.state_dict().items()}
    for _ in range(3):
        train.update(state, found, found.config.train, ONE, "fp32")
    moved = {name for name, p in state.model.state_dict().items() if not torch.equal(p, before[name])}
    learns = {name for name, p in state.model.named_parameters() if p.requires_grad}
    if trained_part == "lora":
        assert learns - {"class_head.weight"} == {name for name in before if lora.in_adapter(name)}
    else:
        assert {n.split(".")[1] for n in learns if n.startswith("blocks.")} == {
            "1",
            "2",
        } and "norm.weight" in learns
    assert moved == learns == set(state.saved()["model"])
    held = {
        id(p) for optimizer in state.optimizers for group in optimizer.param_groups for p in group["params"]
    }
    assert held == {id(p) for p in state.model.parameters() if p.requires_grad}


def test_adapters_are_left_to_adamw():
    base()
    state, _ = start(config(tune=LORA, optimizer="muon"))
    assert [type(o).__name__ for o in state.optimizers] == ["AdamW"]


# --- whole runs ------------------------------------------------------------------------------------------------------


def test_a_run_with_lora_leaves_the_adapter_beside_a_model_that_any_tab_opens(tmp_path):
    peft = pytest.importorskip("peft", reason="the package peft is not installed: it is the oracle here")
    encoding = tokenizer.get("stories-1280")
    base("big", encoding, n_kv_head=1)
    run_config = replace(
        config(start_from="big", tune=LORA | {"prompt_style": "chatml"}, max_steps=8), sample_tokens=3
    )
    run = trained(run_config)
    begun, *_ = seen(run, "start")
    assert begun["trainable"] == lora.parameters(
        checkpoint.load_model(run.model_folder)[0].config, lora.settings(run_config.tune)
    )
    assert begun["rows"] == {"train": 18, "validation": 4, "test": 2} and begun["n_rejected"] == 0
    looks = seen(run, "evaluate")
    assert [e["step"] for e in looks] == [0, 3, 6, 8] and looks[-1]["val_loss"] < looks[0]["val_loss"]
    assert (
        looks[0]["perplexity"] == pytest.approx(math.exp(looks[0]["val_loss"]))
        and looks[0]["bits_per_byte"] > 0
    )
    texts = seen(run, "sample")[0]["texts"]
    assert len(texts) == 3 and all(text["prompt"].startswith("say ") and text["wanted"] for text in texts)

    model, _ = checkpoint.load_model(paths.model_folder(run.name))  # no trace of the adapter in its tensors
    first, _ = checkpoint.load_model(paths.model_folder("big"))
    assert lora.load(first, run.path / "adapter", base="big") == []
    idx = torch.randint(1280, (2, 9))
    assert torch.allclose(first(idx), model(idx), atol=1e-5)
    with lora.off(first):
        assert not torch.allclose(first(idx), model(idx), atol=1e-2)
    folder.save("big", tmp_path / "hf")
    exported = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf", dtype=torch.float32)
    opened = peft.PeftModel.from_pretrained(exported, run.path / "adapter").eval()
    assert torch.allclose(opened(idx).logits, model(idx), atol=1e-4)

    template = run.model_folder / "chat_template.jinja"
    assert template.read_text() == prompts.STYLES["chatml"].source
    asked = chat.prompt(run.model_folder, encoding, [{"role": "user", "content": "say owl"}])
    assert encoding.decode(asked.ids) == "<|im_start|>user\nsay owl<|im_end|>\n<|im_start|>assistant\n"


def test_questions_take_the_place_of_held_out_rows():
    base()
    run = trained(config(tune={"questions": ("say owl", "say fox")}, max_steps=1, warmup_steps=0))
    assert [text["prompt"] for text in seen(run, "sample")[0]["texts"]] == ["say owl", "say fox"]


def test_preferences_begin_at_ln_2_and_go_up():
    base()
    run = trained(config("prefer", tune=LORA | {"beta": 0.5}, max_steps=12, eval_every=6))
    first, *_, last = seen(run, "evaluate")
    assert first["val_loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert first["reward_margin"] == first["reward_chosen"] == first["reward_accuracy"] == 0
    assert last["val_loss"] < first["val_loss"] and last["reward_margin"] > 0 and last["perplexity"] is None
    steps = seen(run, "step")
    assert steps[0]["loss"] == pytest.approx(math.log(2), abs=1e-6) and steps[-1]["reward_margin"] > 0


def test_preferences_that_do_not_move_are_said_to_stand_still():
    base()
    run = trained(config("prefer", max_steps=2, learning_rate=0.0, min_learning_rate=0.0))
    assert "rewards are still 0" in run.last_event()["message"]


def test_preferences_without_validation_rows_are_not_said_to_stand_still():
    """Eight rows leave none to validate on, so the last look measured nothing."""
    base()
    rows = [dict(prompt="a fox", chosen=f"ran {i}", rejected=f"sat {i}") for i in range(8)]
    pairs.append("few", rows)
    run = trained(
        replace(config("prefer", max_steps=12, eval_every=6, validation_fraction=0.05), dataset="few")
    )
    assert seen(run, "evaluate")[-1]["val_loss"] is None and seen(run, "step")[-1]["reward_margin"] > 1e-3
    assert "rewards" not in run.last_event()["message"]


def test_the_silenced_adapter_is_the_reference_that_is_kept_without_one():
    base(dropout=0.0)
    silenced, found = start(config("prefer", tune=LORA))
    kept, other = start(config("prefer"))
    for layer in lora.layers(silenced.model).values():
        for pair in layer.pairs("default"):
            pair.B.data.normal_(std=0.1)
    moved = lora.merged(silenced.model)
    kept.model.load_state_dict(moved.state_dict())
    a, b = found.tally(silenced.model, found.batch(0)), other.tally(kept.model, other.batch(0))
    assert float(a.total) == pytest.approx(float(b.total), abs=1e-5)
    assert float(a.sums["reward_margin"]) == pytest.approx(float(b.sums["reward_margin"]), abs=1e-5)
    assert abs(float(a.sums["reward_margin"])) > 1e-3


def test_a_classifier_learns_and_its_probabilities_do_not_depend_on_padding():
    base(n_layer=1)
    run = trained(config("classify", max_steps=40, n=60, eval_every=20, tune={"trained": "last"}))
    first, *_, last = seen(run, "evaluate")
    assert last["accuracy"] > first["accuracy"] and last["accuracy"] >= 0.9 and last["perplexity"] is None
    assert last["position"]["target_text"] in ("happy", "unhappy")
    model, encoding = checkpoint.load_model(run.model_folder)
    texts = ["red owl glad", "boat blue", "tree"]

    def said(texts, **options):
        return objectives.class_probabilities(model, encoding, str(run.model_folder), texts, **options)

    alone = [said([text])["probabilities"][0] for text in texts]
    for others in (dict(), dict(pad_to=32), dict(pad_to=64), dict(rows=2)):
        found = said(texts, **others)
        assert found["labels"] == ["happy", "unhappy"] and found["notes"] == []
        assert all(a == pytest.approx(b, abs=1e-5) for a, b in zip(found["probabilities"], alone))
    long = said(["owl " * 50, "owl"])
    assert long["cut"] == [0] and "64 tokens" in long["notes"][0]
    with pytest.raises(ValueError, match="no classifier"):
        objectives.classifier(paths.model_folder("tiny"))
    table = evaluate.report(run.name, config("classify", n=60), part="test")
    assert sum(map(sum, table["matrix"])) == table["of"] == len(table["rows"]) == 6
    assert table["accuracy"] == sum(row["label"] == row["taken_for"] for row in table["rows"]) / 6


def test_a_classifier_with_lora_opens_in_transformers_and_peft(tmp_path):
    peft = pytest.importorskip("peft", reason="the package peft is not installed: it is the oracle here")
    base(**GPT2)
    run = trained(config("classify", tune=LORA))
    model, _ = checkpoint.load_model(paths.model_folder("tiny"))
    theirs = {
        **families.their_config(model.config),
        "architectures": None,
        "num_labels": 2,
        "pad_token_id": 256,
    }
    plain = transformers.AutoModelForSequenceClassification.from_config(
        transformers.AutoConfig.for_model(**theirs)
    )
    plain.load_state_dict(
        {k: v for k, v in families.to_theirs(model.config, model.state_dict()) if k != "lm_head.weight"},
        strict=False,
    )
    opened = peft.PeftModel.from_pretrained(plain, run.path / "adapter").eval()
    ids = BYTE.encode("red owl")
    tuned, _ = checkpoint.load_model(run.model_folder)
    found = objectives.class_probabilities(tuned, BYTE, str(run.model_folder), ["red owl"])["probabilities"][
        0
    ]
    assert opened(torch.tensor([ids])).logits.softmax(-1)[0].tolist() == pytest.approx(found, abs=1e-5)


def test_the_best_model_is_kept_and_patience_ends_the_run():
    base()
    run = trained(
        config(
            n=10,
            max_steps=200,
            eval_every=5,
            learning_rate=0.03,
            keep_best=True,
            tune={"trained": "all"},
            patience=3,
        )
    )
    looks, end = seen(run, "evaluate"), run.last_event()
    values = [e["val_loss"] for e in looks]
    best = values.index(min(values))
    assert end["step"] < 200 and end["reason"] == "finished" and "Stopped early" in end["message"]
    assert len(values) - 1 - best == 3 and f"step {looks[best]['step']}" in end["message"]
    assert [e["step"] for e in looks if e["best"]] == [
        e["step"] for i, e in enumerate(looks) if values[i] < min(values[:i], default=9e9)
    ]
    kept, found = start(replace(config(n=10), start_from=run.name))
    assert evaluate.held_out(kept.model, found, ONE, "fp32")["val_loss"] == pytest.approx(
        values[best], abs=1e-6
    )
    assert values[-1] > values[best]


def test_what_is_forgotten_is_measured_beside_what_is_learned():
    base()
    (paths.datasets() / "old.txt").write_text("an old text that the model is not to forget. " * 40)
    run = trained(config(tune={"old_dataset": "old"}))
    first, *_, last = seen(run, "evaluate")
    assert first["old_loss"] != last["old_loss"]
    state, _ = start(config(start_from=run.name, validation_fraction=0.2))
    settings = replace(config(), dataset="old", model=state.model.config)
    text = OBJECTIVES["pretrain"](settings, BYTE)
    assert last["old_loss"] == pytest.approx(
        evaluate.held_out(state.model, text, ONE, "fp32")["val_loss"], abs=1e-6
    )


def test_exact_answers_are_counted_by_family():
    base()
    made = [
        {"instruction": f"say {w}", "output": w, "family": "echo" if i % 2 else "other", "split": "test" if i > 3 else "train"}
        for i, w in enumerate(WORDS)
    ]  # fmt: skip
    settings = config(max_steps=150, eval_every=150, batch_size=8, learning_rate=0.02)
    (paths.datasets() / "instruction.jsonl").write_text(
        "".join(json.dumps({**row, "split": "train"}) + "\n" for row in made)
    )
    run = trained(settings)
    (paths.datasets() / "instruction.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made))
    found = evaluate.report(run.name, settings, part="test")
    assert (
        found["of"] == 4
        and sum(of for _, of in found["families"].values()) == 4
        and set(found["families"]) == {"echo", "other"}
    )
    for row in found["rows"]:
        assert row["right"] == (row["text"] == row["wanted"]) and row["prompt"] == f"say {row['wanted']}"
    assert found["right"] == sum(row["right"] for row in found["rows"]) >= 3


def test_from_a_terminal():
    base()
    run_config = config(tune=LORA, max_steps=2)
    command = [sys.executable, "-m", "llm.train", "typed", *to_flags(run_config)]
    assert command[command.index("--trained") :][:2] == ["--trained", "lora"]
    environment = os.environ | {"LLM_HOME": str(paths.home()), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=paths.ROOT, env=environment, capture_output=True, text=True, timeout=90
    )
    assert done.returncode == 0 and "All 2 steps done." in done.stdout, done.stderr
    assert "lora_A" in "".join(load_file(paths.runs() / "typed" / "adapter" / "adapter_model.safetensors"))


# --- what a person may get wrong -------------------------------------------------------------------------------------


def test_ten_rows_are_enough_and_a_smaller_batch_is_said():
    base()
    run = trained(config(n=10, batch_size=64, max_steps=2, warmup_steps=0))
    begun, *_ = seen(run, "start")
    assert begun["rows"] == {"train": 7, "validation": 2, "test": 1}
    assert any("only 7 rows" in note for note in begun["notes"])


def test_no_held_out_row_is_no_loss_of_zero():
    base()
    for objective in KINDS:
        run = trained(
            config(objective, validation_fraction=0.0, max_steps=1, warmup_steps=0), f"run-{objective}"
        )
        look = seen(run, "evaluate")[0]
        assert look["val_loss"] is None and look.get("accuracy") is None and look.get("reward_margin") is None


def test_lora_without_a_model_and_smoothing_without_dpo_are_refused():
    with pytest.raises(ValueError, match="name one to start from"):
        RunConfig(tune=TuneConfig(trained="lora"))
    with pytest.raises(ValueError, match="part of the dpo loss"):
        TuneConfig(preference_loss="ipo", label_smoothing=0.1)
    with pytest.raises(ValueError, match="there is no nose"):
        TuneConfig(lora_modules=("q", "nose"))


def test_what_a_model_lacks_is_said():
    base()
    failed(config(tune={"trained": "last", "last_blocks": 5}), "5 blocks", "has 2")
    failed(config(tune=LORA | {"lora_rank": 99}), "99", "16")
    failed(config(tune={"prompt_style": "own"}), "no chat template")
    failed(replace(config(), dataset="nowhere"), "nowhere")
    failed(config("classify", tune=LORA | {"lora_modules": ("q", "output")}), "output")


def test_a_base_that_has_changed_is_not_resumed():
    base()
    run = Run.create("train", to_dict(config(tune=LORA)), name="late")
    assert job.guarded(run, train.work) == 0
    run.append("end", reason="stopped", step=4)
    model, encoding = checkpoint.load_model(paths.model_folder("tiny"))
    with torch.no_grad():
        model.norm.weight.add_(1)
    checkpoint.save_model(paths.models() / "tiny", model, encoding, "")
    assert job.guarded(run, train.work) == 1
    assert "has changed since" in run.last_event()["message"]


def test_one_pair_token_by_token():
    base()
    state, found = start(config("prefer", tune=LORA))
    example = found.train[0]
    for side, text in enumerate(example.texts):
        each = objectives.seen_pair(state.model, text)
        assert len(each) == int(text.answer.sum()) and all(value < 0 for value in each)
        inputs, targets = found.pairs([example])
        whole = objectives.answer_logprobs(state.model.eval(), inputs, targets)[0, side]
        assert sum(each) == pytest.approx(float(whole), abs=1e-4)
    logits = state.model(inputs[:, 0])
    assert float(losses.sequence_logprobs(logits, targets[:, 0])) == pytest.approx(
        float(objectives.answer_logprobs(state.model, inputs, targets)[0, 0]), abs=1e-4
    )


@pytest.mark.slow
@pytest.mark.parametrize("objective", list(KINDS))
def test_two_processes_follow_the_curve_of_one(objective):
    base()
    tune = (
        LORA if objective == "instruct" else {"trained": "last"}
    )  # for preferences: a reference that is worked out once
    run_config = config(objective, tune=tune, max_steps=10, grad_accumulation=2)
    one = trained(run_config, "one")
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node=2",
        "--standalone",
        "-m",
        "llm.train",
        "two",
        *to_flags(run_config),
    ]
    environment = os.environ | {"LLM_HOME": str(paths.home()), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        torchrun, cwd=paths.ROOT, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    for kind in ("step", "evaluate"):
        mine, theirs = seen(one, kind), seen(Run.open("two"), kind)
        assert len(mine) == len(theirs)
        for a, b in zip(mine, theirs):
            numbers = [name for name, value in a.items() if isinstance(value, float)]
            assert {n: b[n] for n in numbers} == pytest.approx({n: a[n] for n in numbers}, abs=1e-4, rel=1e-5)
