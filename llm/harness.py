"""Published benchmarks on the lab's models, through lm-evaluation-harness: `python -m llm.harness NAME --model MODEL`, as a run.

The harness brings the tasks, prompts and metrics; here are an adapter that lets it ask our models, and the shipped quiz as
tasks of its own. This is the one module that imports it, and only when a benchmark runs.
"""

from __future__ import annotations

import json
import logging
import math
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llm import benchmarks, chat, checkpoint, choices, job, paths, quiz
from llm.config import BenchmarkConfig, SampleConfig, from_dict
from llm.distributed import best_device
from llm.generate import generate
from llm.harness_tasks import MISSING, QUIZ, is_here, wanted
from llm.model import GPT
from llm.runs import Run
from llm.tokenizer import Tokenizer

FINISHED = "The run {name} is finished: its results stand in runs/{name}. Choose another name for a new one."
DESCRIPTION = "The following are multiple choice questions (with answers) about {subject}.\n\n"
PROMPT = "{{question.strip()}}\nA. {{choices[0]}}\nB. {{choices[1]}}\nC. {{choices[2]}}\nD. {{choices[3]}}\nAnswer:"
LONGEST_PROMPT = 20_000  # characters of a prompt that are kept with a question


def adapter(model: GPT, encoding: Tokenizer, begin_id: int | None = None, most: int = 128) -> Any:
    """Our model as the harness asks models: log-likelihoods of continuations, of whole texts, and written answers.

    Raises ValueError when the harness is not installed.
    """
    if not is_here():
        raise ValueError(MISSING)
    from lm_eval import utils
    from lm_eval.api.model import TemplateLM

    class LabModel(TemplateLM):
        backend = "causal"
        tokenizer_name = encoding.name
        max_length = model.config.context_length
        max_gen_toks = most
        cut = 0  # texts so far whose beginning the context had no room for

        @property
        def eot_token_id(self) -> int:
            return encoding.eot_id if encoding.eot_id is not None else 0

        @property
        def prefix_token_id(self) -> int:
            return self.eot_token_id if begin_id is None else begin_id

        def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
            ids = encoding.encode(string)
            return ids if begin_id is None or add_special_tokens is False else [begin_id, *ids]

        def _loglikelihood_tokens(self, requests: Sequence, **_: Any) -> list[tuple[float, bool]]:
            pairs = [(text, continuation) for _, text, continuation in requests]
            self.cut += len(
                {tuple(text) for text, goal in pairs if len(text) + len(goal) - 1 > self.max_length}
            )
            found = choices.continuations(model, pairs)
            return [(one.logprob, one.greedy) for one in found]

        def loglikelihood_rolling(self, requests: Sequence, **_: Any) -> list[float]:
            totals = []
            for request in requests:
                windows = utils.get_rolling_token_windows(self.tok_encode(request.args[0]), self.prefix_token_id, self.max_length, 1)  # fmt: skip
                pairs = [utils.make_disjoint_window(window) for window in windows]
                totals.append(sum(one.logprob for one in choices.continuations(model, pairs)))
            return totals

        def generate_until(self, requests: Sequence, **_: Any) -> list[str]:
            return [self.written(*request.args) for request in requests]

        def written(self, context: str, how: dict[str, Any]) -> str:
            stop = how.get("until") or []
            stop = [stop] if isinstance(stop, str) else list(stop)
            heat = float(how.get("temperature", 0) or 0) if how.get("do_sample") else 0.0
            length = int(how.get("max_gen_toks", most))
            config = SampleConfig(temperature=heat, max_new_tokens=length, stop=tuple(s for s in stop if s))
            ids = self.tok_encode(context)[-max(model.config.context_length - length, 1) :] or [
                self.prefix_token_id
            ]
            return "".join(step.text for step in generate(model, encoding, [ids], config))

    return LabModel()


# --- tasks


@contextmanager
def quiz_tasks(where: Path | None = None) -> Iterator[Path]:
    """A folder with the quiz as tasks of the harness, in the manner of its own MMLU: quiz_SUBJECT for each subject."""
    import yaml

    with tempfile.TemporaryDirectory() as folder:
        for subject in quiz.subjects(where):
            for part in quiz.PARTS:
                rows = [
                    {"question": one.text, "choices": list(one.choices), "answer": one.answer}
                    for one in quiz.read(subject, part, where)
                ]
                lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
                (Path(folder) / f"{subject}_{part}.jsonl").write_text(lines, encoding="utf-8")
            files = {part: str(Path(folder) / f"{subject}_{part}.jsonl") for part in quiz.PARTS}
            task = {
                "task": f"{QUIZ}_{subject}",
                "dataset_path": "json",
                "dataset_kwargs": {"data_files": files, "cache_dir": str(Path(folder) / "cache")},
                "test_split": "test",
                "fewshot_split": "dev",
                "fewshot_config": {"sampler": "first_n"},
                "output_type": "multiple_choice",
                "description": DESCRIPTION.format(subject=subject.replace("_", " ")),
                "doc_to_text": PROMPT,
                "doc_to_choice": ["A", "B", "C", "D"],
                "doc_to_target": "answer",
                "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
                "metadata": {"version": 1.0},
            }
            (Path(folder) / f"{subject}.yaml").write_text(
                yaml.safe_dump(task, sort_keys=False), encoding="utf-8"
            )
        yield Path(folder)


def manager(folder: Path, include: str, tasks: Sequence[str]) -> Any:
    """The harness's list of tasks: the quiz, a folder of one's own, and its published ones where one of them is asked for."""
    from lm_eval.tasks import TaskManager

    own = [str(folder), *([include] if include else [])]
    published = not include and any(not name.startswith(f"{QUIZ}_") for name in tasks)
    return TaskManager(include_path=own, include_defaults=published)


def evaluated(lm: Any, task: str, config: BenchmarkConfig, tasks: Any) -> dict[str, Any]:
    """What the harness makes of one task (or group of them): its results and samples. Raises ValueError in words."""
    from lm_eval import simple_evaluate

    try:
        return simple_evaluate(
            lm, tasks=[task], num_fewshot=None if config.fewshot < 0 else config.fewshot, limit=config.limit or None,
            task_manager=tasks, bootstrap_iters=0, log_samples=True,
        )  # fmt: skip
    except (KeyError, FileNotFoundError, ConnectionError, OSError) as error:
        raise ValueError(
            f"The task {task!r} could not be loaded ({str(error).splitlines()[0][:200]}): its data must be in the Hub's cache, or "
            "a folder of your own; without a network nothing is fetched."
        ) from None


def question(sample: dict[str, Any]) -> dict[str, Any]:
    """A sample of the harness as it is kept: what was asked, each choice's log-probability, the right one, the taken one."""
    responses = [one[0] if isinstance(one, list) else one for one in sample.get("filtered_resps") or []]
    arguments = [list(one) if isinstance(one, (list, tuple)) else [one] for one in _arguments(sample)]
    found = {
        "prompt": str(arguments[0][0])[-LONGEST_PROMPT:] if arguments else "",
        "choices": [str(one[1]) if len(one) > 1 else "" for one in arguments],
        "target": sample.get("target"),
        "right": None,
    }
    scores = [
        one[0] if isinstance(one, (list, tuple)) else None for one in sample.get("filtered_resps") or []
    ]
    if scores and all(isinstance(value, (int, float)) for value in scores):
        found |= {
            "logprobs": [float(value) for value in scores],
            "taken": max(range(len(scores)), key=scores.__getitem__),
        }
    else:
        found["answer"] = str(responses[0]) if responses else ""
    metric = next((sample[name] for name in ("acc", "exact_match") if name in sample), None)
    found["right"] = None if metric is None else bool(metric)
    return found


def _arguments(sample: dict[str, Any]) -> list[Any]:
    given = sample.get("arguments") or []
    return [tuple(one.values()) for one in given.values()] if isinstance(given, dict) else list(given)


# --- the run


def work(run: Run) -> None:
    """One task after the other; those that are finished are not run again. Ends with micro and macro averages."""
    if not is_here():
        raise ValueError(MISSING)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    config = from_dict(BenchmarkConfig, run.config)
    tasks = wanted(config.tasks)
    folder = paths.model_folder(config.model)
    model, encoding = checkpoint.load_model(folder)
    lm = adapter(model.to(best_device()).eval(), encoding, chat.read(folder).begin_id, config.max_new_tokens)
    (run.path / "questions").mkdir(exist_ok=True)
    done = {event["task"]: event for event in benchmarks.tasks_of(run)}
    run.append("start", count=len(tasks), done=len(done), model=config.model)
    with quiz_tasks() as own:
        known = manager(own, config.include, tasks)
        for name in tasks:
            if run.stop_requested():
                return run.append("end", reason="stopped", step=len(done), message=f"Stopped after {len(done)} of {len(tasks)} tasks.")  # fmt: skip
            if name in done or any(task.startswith(f"{name}_") for task in done):
                continue
            run.append("progress", task=name, done=len(done), total=len(tasks))
            began, lm.cut = time.monotonic(), 0
            for task, result in results(evaluated(lm, name, config, known), run.path / "questions"):
                done[task] = result
                run.append("task", task=task, **result, cut=lm.cut, seconds=time.monotonic() - began)
    total = benchmarks.overall(list(done.values()))
    run.append("result", **total)
    run.append("end", reason="finished", step=len(done), message=sentence(config, total))


def results(found: dict[str, Any], folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(task, its result) of everything the harness evaluated; the questions are written into `folder`."""
    for task, samples in found["samples"].items():
        asked = [question(sample) for sample in samples]
        with paths.replacing(folder / f"{task}.jsonl") as temporary:
            temporary.write_text(
                "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in asked), encoding="utf-8"
            )
        told = found["results"].get(task, {})
        judged = [one["right"] for one in asked if one["right"] is not None]
        metrics = {
            name: value for name, value in told.items() if isinstance(value, float) and math.isfinite(value)
        }
        shots = found.get("n-shot", {}).get(task)
        yield task, {
            **benchmarks.accuracy(sum(judged), len(judged)), "metrics": metrics, "fewshot": shots,
            "flags": benchmarks.flags(asked),
        }  # fmt: skip


def sentence(config: BenchmarkConfig, total: dict[str, Any]) -> str:
    """What came out, in one line."""
    if total["micro"] is None:
        return f"{config.model} was evaluated; its tasks have no accuracy: see their own metrics."
    return (
        f"{config.model}: {total['right']} of {total['of']} right; {total['micro']:.1%} over all questions (micro), "
        f"{total['macro']:.1%} over {total['tasks']} tasks (macro)."
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """See the module."""
    return job.do("benchmark", work, __doc__, FINISHED, arguments)


if __name__ == "__main__":
    sys.exit(main())
