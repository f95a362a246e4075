"""Benchmarks through lm-evaluation-harness: our adapter against its own Hugging Face backend on the same model and questions."""

from __future__ import annotations

import json

import pytest
import torch

pytest.importorskip("lm_eval", reason="lm_eval is not installed: pip install -r requirements-eval.txt")

from llm import benchmarks, checkpoint, harness, harness_tasks, paths, quiz, tokenizer
from llm.config import BenchmarkConfig, ModelConfig, to_dict
from llm.model import GPT
from llm.runs import Run


@pytest.fixture(autouse=True)
def offline(monkeypatch, home):
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("LLM_ENGINE", "inline")


@pytest.fixture
def small(tmp_path):
    """A quiz of two subjects in MMLU's format, with its few lines."""
    for part, n in (("dev", 3), ("test", 6)):
        (tmp_path / "quiz" / part).mkdir(parents=True)
        for subject in ("sums", "birds"):
            rows = [
                f'"{subject} {part} {i}: which, ""this""?",{i},{i + 1}.50,{i + 2},no {i},{"ABCD"[i % 4]}'
                for i in range(n)
            ]
            (tmp_path / "quiz" / part / f"{subject}_{part}.csv").write_text(
                "\n".join(rows) + "\n", encoding="utf-8"
            )
    return tmp_path / "quiz"


@pytest.fixture
def pair(tmp_path, home):
    """A tiny random model of ours with an encoding of GPT-2's kind, and the same as transformers opens it."""
    import transformers

    from llm.convert import export

    encoding = tokenizer.get("stories-1280")
    torch.manual_seed(1)
    model = GPT(
        ModelConfig(
            vocab_size=encoding.vocab_size, context_length=512, n_layer=2, n_head=4, n_kv_head=2, n_embd=32
        )
    )
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.15)
    checkpoint.save_model(paths.models() / "tiny", model.eval(), encoding, "# tiny\n")
    status = export.main(["out", "--model", "tiny", "--format", "hf", "--dtype", "fp32"])
    assert not status
    folder = next(path.parent for path in (home / "runs" / "out").rglob("model.safetensors"))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    kit = transformers.AutoTokenizer.from_pretrained(folder)
    ours, own = checkpoint.load_model(paths.models() / "tiny")
    return ours.eval(), own, theirs.eval(), kit


def both(pair, folder, shots, names):
    """The harness on our adapter, and on its own Hugging Face backend."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    ours, own, theirs, kit = pair
    found = []
    for lm in (
        harness.adapter(ours, own),
        HFLM(pretrained=theirs, tokenizer=kit, batch_size=4, device="cpu"),
    ):
        tasks = TaskManager(include_path=str(folder), include_defaults=False)
        found.append(simple_evaluate(lm, tasks=names, num_fewshot=shots, task_manager=tasks, bootstrap_iters=0, log_samples=True))  # fmt: skip
    return found


@pytest.mark.parametrize("shots", [0, 3])
def test_the_adapter_gives_the_numbers_of_the_hugging_face_backend(pair, small, shots):
    names = ["quiz_sums", "quiz_birds"]
    with harness.quiz_tasks(small) as folder:
        ours, theirs = both(pair, folder, shots, names)
    for name in names:
        assert ours["results"][name]["acc,none"] == theirs["results"][name]["acc,none"]
        for a, b in zip(ours["samples"][name], theirs["samples"][name], strict=True):
            assert a["arguments"] == b["arguments"]
            for (x, greedy), (y, greedy_too) in zip(a["filtered_resps"], b["filtered_resps"], strict=True):
                assert x == pytest.approx(y, abs=1e-4) and bool(greedy) == bool(greedy_too)


def test_whole_texts_and_written_answers_too(pair):
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    ours, own, theirs, kit = pair
    text = "Long ago, a fox named Felix lived by the lake. " * 30  # longer than the context
    asks = lambda kind, *args: [Instance(request_type=kind, doc={}, arguments=args, idx=0)]  # noqa: E731
    a, b = harness.adapter(ours, own), HFLM(pretrained=theirs, tokenizer=kit, batch_size=1, device="cpu")
    for one in ("A short text.", text):
        rolled = [lm.loglikelihood_rolling(asks("loglikelihood_rolling", one))[0] for lm in (a, b)]
        assert rolled[0] == pytest.approx(rolled[1], rel=1e-4)
    how = {"until": ["."], "max_gen_toks": 12, "do_sample": False}
    written = [lm.generate_until(asks("generate_until", "Long ago, a", how))[0] for lm in (a, b)]
    assert written[0] == written[1]


def test_letters_are_scored_with_their_blank():
    """GPT-2's ids of " A" to " D", and more tokens where an encoding has none for them."""
    gpt2, plain = tokenizer.get("gpt2"), tokenizer.get("byte")
    for encoding, expected in (
        (gpt2, [[317], [347], [327], [360]]),
        (plain, [[32, 65], [32, 66], [32, 67], [32, 68]]),
    ):
        torch.manual_seed(0)
        lm = harness.adapter(GPT(ModelConfig(vocab_size=encoding.vocab_size, context_length=16, n_layer=1, n_head=1, n_embd=8)), encoding)  # fmt: skip
        assert [lm._encode_pair("Answer:", f" {letter}")[1] for letter in "ABCD"] == expected


def test_the_prompt_has_the_solved_examples_and_one_open_question(pair, small):
    with harness.quiz_tasks(small) as folder:
        ours, _ = both(pair, folder, 3, ["quiz_sums"])
    for sample in ours["samples"]["quiz_sums"]:
        one = harness.question(sample)
        assert one["prompt"].count("Answer:") == 4 and one["prompt"].endswith("Answer:")
        assert one["prompt"].count("sums dev") == 3 and one["prompt"].count("sums test") == 1
        assert "1.50" in one["prompt"]  # a choice is text, not a number that loses its nought
        assert one["choices"] == [" A", " B", " C", " D"] and len(one["logprobs"]) == 4


CONFIG = BenchmarkConfig(model="story-gpt2", tasks=("quiz_sums", "quiz_birds"), fewshot=2, limit=4)


@pytest.fixture
def shipped(small, monkeypatch):
    monkeypatch.setattr(quiz, "folder", lambda: small)


def test_a_run_keeps_tasks_questions_and_both_averages(shipped, capsys):
    run = Run.create("benchmark", to_dict(CONFIG), name="one")
    harness.work(run)
    tasks = benchmarks.tasks_of(run)
    assert [task["task"] for task in tasks] == list(CONFIG.tasks) and all(task["of"] == 4 for task in tasks)
    assert all(task["fewshot"] == 2 and not task["flags"] for task in tasks)
    asked = benchmarks.questions(run, "quiz_sums")
    assert sum(one["right"] for one in asked) == tasks[0]["right"]
    assert all(one["right"] == (one["taken"] == one["target"]) for one in asked)
    result = next(event for event in run.events() if event["kind"] == "result")
    assert result["micro"] == sum(task["right"] for task in tasks) / 8
    assert run.status() == "finished" and "(micro)" in run.last_event()["message"]
    with pytest.raises(ValueError, match="has not finished a task called 'other'"):
        benchmarks.questions(run, "other")


def test_a_stopped_run_does_not_ask_again_what_it_knows(shipped, monkeypatch):
    run = Run.create("benchmark", to_dict(CONFIG), name="two")
    real, asked = harness.evaluated, []

    def once(lm, task, *rest):
        asked.append(task)
        run.request_stop()
        return real(lm, task, *rest)

    monkeypatch.setattr(harness, "evaluated", once)
    harness.work(run)
    assert run.status() == "stopped" and "1 of 2" in run.last_event()["message"]
    run.request_resume()
    harness.work(run)
    run.request_resume() if run.status() == "stopped" else None
    harness.work(run) if run.status() != "finished" else None
    assert run.status() == "finished" and asked == ["quiz_sums", "quiz_birds"]


def test_what_cannot_be_run(shipped, monkeypatch):
    with pytest.raises(ValueError, match="no subject 'fish'; it has birds, sums"):
        harness_tasks.wanted(["quiz_fish"])
    with pytest.raises(ValueError, match="at least one task"):
        harness_tasks.wanted([])
    run = Run.create(
        "benchmark",
        to_dict(BenchmarkConfig(model="story-gpt2", tasks=("mmlu_anatomy",), limit=2)),
        name="far",
    )
    with pytest.raises(ValueError, match="could not be loaded"):
        harness.work(run)
    monkeypatch.setattr(harness, "is_here", lambda: False)
    with pytest.raises(ValueError, match="requirements-eval"):
        harness.work(run)


def test_the_command_on_the_shipped_quiz(home, capsys):
    status = harness.main(
        ["real", "--model", "story-gpt2", "--tasks", "quiz_arithmetic", "--limit", "5", "--fewshot", "1"]
    )
    assert status == 0 and "5 right" in capsys.readouterr().out
    events = [json.loads(line) for line in (home / "runs" / "real" / "events.jsonl").read_text().splitlines()]
    assert events[-1]["reason"] == "finished"
