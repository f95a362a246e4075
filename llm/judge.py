"""Two answer the same instructions, a third judges: `python -m llm.judge NAME --a X --b Y --judge Z`, as a run."""

from __future__ import annotations

import random
import re
import sys
import time
from collections.abc import Sequence
from typing import Any

from llm import arena, corpora, endpoints, job, prompts, rows, speakers, tables, verdicts
from llm.config import JudgeConfig, SampleConfig, from_dict
from llm.runs import Run

FINISHED = "The run {name} is finished: its verdicts stand in runs/{name}/events.jsonl. Choose another name for a new one."
MOST_OF_A_VERDICT = 400  # tokens that a judge may write


def instructions(config: JudgeConfig) -> list[str]:
    """The instructions to answer, in a mixed order that `seed` decides. Raises ValueError when there are none."""
    good = rows.check(tables.read(corpora.row_path(config.dataset)), "instruction").good
    part = [row for row in good if config.part in ("all", row.get("split", "all"))]
    if not any("split" in row for row in good) and config.part != "all":
        part = rows.split(good, seed=0).parts.get(config.part, [])
    if not part:
        known = ", ".join(sorted({str(row.get("split")) for row in good if row.get("split")})) or "all"
        raise ValueError(f"The rows of {config.dataset} have no part {config.part!r}; there are {known}.")
    texts = list(dict.fromkeys(prompts.question(row, "\n")[-1]["content"] for row in part))
    random.Random(config.seed).shuffle(texts)
    return texts[: config.count]


def asked(config: JudgeConfig, instruction: str, a: str, b: str) -> str:
    """What the judge reads."""
    words = {"instruction": instruction, "a": a, "b": b}
    return re.sub(r"\{(instruction|a|b)\}", lambda found: words[found[1]], config.prompt)


def judged(config: JudgeConfig, instruction: str, stopped, owner: str | None = None) -> dict[str, Any]:
    """One instruction: both answers, what the judge said in one order or both, and how it was read. Raises ValueError."""
    how = SampleConfig(max_new_tokens=config.max_new_tokens, temperature=config.temperature, seed=config.seed)
    ask = [{"role": "user", "content": instruction}]
    a, b = (speakers.answer(who, ask, how, stopped, owner)[0].strip() for who in (config.a, config.b))
    calm = SampleConfig(max_new_tokens=MOST_OF_A_VERDICT, temperature=0.0)

    def verdict(first: str, second: str) -> str:
        text = asked(config, instruction, first, second)
        return speakers.answer(config.judge, [{"role": "user", "content": text}], calm, stopped, owner)[0]

    said = verdict(a, b)
    found = {"instruction": instruction, "text_a": a, "text_b": b, "said": said, "first": verdicts.read(said), "second": None}  # fmt: skip
    if config.swap:
        said = verdict(b, a)
        found |= {"said_swapped": said, "second": verdicts.turned(verdicts.read(said))}
    return found


def check(config: JudgeConfig, owner: str | None = None) -> list[str]:
    """The instructions, once all that can be known before has been looked at, for `owner`. Raises ValueError."""
    for what, who in (("A", config.a), ("B", config.b), ("the judge", config.judge)):
        if not who:
            raise ValueError(f"Choose {what} first.")
        if who not in speakers.names(owner):
            raise ValueError(f"{who!r} cannot be asked here; see python -m llm.speakers --help.")
        if (
            speakers.is_far(who)
            and endpoints.hosted()
            and endpoints.key_of(endpoints.get(who.removeprefix(speakers.FAR)))
        ):
            raise ValueError(
                f"{who} needs a key, which this shared page keeps in its memory only; a judging is a process of its own and "
                "gets none. Judge with a local model, or in a lab of your own."
            )
    if config.a == config.b:
        raise ValueError(f"{config.a} cannot be compared with itself: choose two different ones.")
    return instructions(config)


def work(run: Run) -> None:
    """Judge what is not judged yet, one instruction after the other; a stopped run goes on where it was."""
    config = from_dict(JudgeConfig, run.config)
    owner = (
        run.meta["owner"] if run.meta["owner"] != "terminal" else None
    )  # whose machine it is may ask everyone
    texts = check(config, owner)
    done = [event for event in run.events() if event["kind"] == "verdict"]
    known = {event["instruction"] for event in done}
    run.append("start", count=len(texts), done=len(done), a=config.a, b=config.b, judge=config.judge)
    for text in texts:
        if text in known:
            continue
        if run.stop_requested():
            return run.append("end", reason="stopped", step=len(done), message=f"Stopped after {len(done)} of {len(texts)}.")  # fmt: skip
        began = time.monotonic()
        found = judged(config, text, run.stop_requested, owner)
        if run.stop_requested():
            continue  # broken off in the middle of an answer: it is asked again when the run goes on
        run.append("verdict", **found, seconds=time.monotonic() - began)
        done.append(found)
    result = verdicts.summary(done, config.seed)
    agree, compared = verdicts.agreement(done, config.a, config.b, arena.voted(between=(config.a, config.b)))
    run.append("result", **result, agree=agree, compared=compared)
    run.append("end", reason="finished", step=len(done), message=sentence(config, result))


def sentence(config: JudgeConfig, result: dict[str, Any]) -> str:
    """What came out, in one line."""
    if result["win_rate"] is None:
        return f"{config.judge} gave no verdict that can be read on any of {result['of']} instructions."
    low, high = result["interval"]
    told = (
        f"{config.a} won {result['win_rate']:.1%} against {config.b} ({low:.1%} to {high:.1%}, 95 %) over "
        f"{result['judged']} instructions; at equal length {result['equal_length']:.1%}."
    )
    if result["nonsense"]:
        told += f" {result['nonsense']} more had no readable verdict."
    if not result["swapped"]:
        told += " The answers were shown in one order only: a judge that likes the first one would not be noticed."
    return told


def main(arguments: Sequence[str] | None = None) -> int:
    """See the module."""
    return job.do("judge", work, __doc__, FINISHED, arguments)


if __name__ == "__main__":
    sys.exit(main())
