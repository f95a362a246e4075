"""LOAD-1: thirty students at once while two runs train. Clicks, polls, streams; latencies, errors, memory."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import threading
import time
from typing import Any

import numpy as np

from assure.lab import ROOT, Lab, Page, Visitor

TEXTS = ("The fox found a red kite.", "Once upon a time there was an owl who", "Größe 東京 🙂 <b>", "a" * 300)


def percentile(values: list[float], share: float) -> float:
    """Milliseconds."""
    return 1000 * float(np.percentile(values, share)) if values else float("nan")


def student(
    one: Visitor, page: Page, seed: int, until: float, found: dict[str, list], lock: threading.Lock
) -> None:
    """One student: thinks a second or two, clicks, asks the class's route, now and then lets the model write."""
    draw = random.Random(seed)
    lab = one.lab
    with lock:
        found["memory"].append((time.monotonic(), lab.memory()))
    tokens, generate = page.event("tokens.draw"), page.event("playground.generate")
    chart, seen = page.by_elem_id("train-chart"), {"model:story-gpt2": 0}

    def poll() -> Any:
        answer = one.served(chart, "lab_poll", seen)
        for source, news in answer.json().items():
            seen[source] = news["offset"]  # the next time only what is new is asked for
        return answer

    def timed(kind: str, act: Any) -> None:
        began = time.monotonic()
        try:
            answer = act()
            good = answer.status_code == 200
        except Exception as error:
            good, answer = False, error
        with lock:
            found["click"].append(time.monotonic() - began)
            found[kind].append((began, time.monotonic() - began))
            if not good:
                found["errors"].append(f"{kind}: {getattr(answer, 'text', answer)!s:.200}")

    one.room("name", name=f"student {seed}")
    while time.monotonic() < until:
        time.sleep(draw.uniform(0.5, 2.5))
        what = draw.random()
        if what < 0.35:
            timed("tokens", lambda: one.call(tokens, page.values(tokens, tokens_text=draw.choice(TEXTS))))
        elif what < 0.6:
            timed("class", lambda: one.room("now", tab="train", step=1))
        elif what < 0.85:
            timed("chart", poll)
        else:
            began, first = time.monotonic(), None
            try:
                for message in one.stream(generate, page.values(generate, playground_prompt=draw.choice(TEXTS[:2]), playground_max_new_tokens=30)):  # fmt: skip
                    if first is None and message["msg"] == "process_generating":
                        first = time.monotonic() - began
                    if message["msg"] == "process_completed" and not message.get("success", True):
                        raise RuntimeError(str(message.get("output"))[:200])
                with lock:
                    found["first token"].append(first if first is not None else time.monotonic() - began)
            except Exception as error:
                with lock:
                    found["errors"].append(f"stream: {error!s:.200}")
        with lock:
            found["memory"].append((time.monotonic(), lab.memory()))


def opened(visitors: list[Visitor], page: Page) -> list[float]:
    """All open the lab at the same moment: seconds of each one's first event, for which the server makes a session."""
    first, took = page.event("tokens.draw"), []

    def open_it(one: Visitor) -> None:
        began = time.monotonic()
        one.call(first, page.values(first))
        took.append(time.monotonic() - began)

    threads = [threading.Thread(target=open_it, args=(one,)) for one in visitors]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return took


TRAINING = [["llm.train", f"load-{i}", "--max_steps", "1000000", "--schedule", "constant"] for i in range(2)]
ENCODING = [["llm.bpe", "large-encoding", "--dataset", "large", "--vocab_size", "8192"]]


def check(
    lab: Lab, seconds: float = 60, students: int = 30, beside: list[list[str]] = TRAINING
) -> dict[str, Any]:
    """Figures of the bar, and whether it is held: click p95 150 ms, p99 500 ms, no error, memory slope 1 MB a minute.

    `beside`: the commands that go on meanwhile, with the threads and the niceness that the page gives them.
    """
    page = Page(lab)
    environment = os.environ | {
        "LLM_HOME": str(lab.home),
        "OMP_NUM_THREADS": "1",
        "RAYON_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "LLM_NICE": "10",
    }
    runs = [
        subprocess.Popen(
            [sys.executable, "-m", *words], cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for words in beside
    ]  # fmt: skip
    try:
        warm = Visitor(lab)
        generate = page.event("playground.generate")
        list(
            warm.stream(generate, page.values(generate, playground_max_new_tokens=5))
        )  # the engine loads its model
        time.sleep(8)  # the runs have begun
        since = lab.log.stat().st_size
        found: dict[str, list] = {
            "click": [],
            "tokens": [],
            "class": [],
            "chart": [],
            "first token": [],
            "errors": [],
            "memory": [],
        }
        visitors = [Visitor(lab) for _ in range(students)]
        opening = opened(visitors, page)
        lock, until = threading.Lock(), time.monotonic() + seconds
        threads = [
            threading.Thread(target=student, args=(one, page, i, until, found, lock))
            for i, one in enumerate(visitors)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        alive = sum(run.poll() is None for run in runs)
    finally:
        for run in runs:
            run.terminate()
        for run in runs:
            run.wait(30)
    at = np.array([one[0] for one in found["memory"]])
    held = np.array([one[1] for one in found["memory"]])
    later = at > at[0] + (at[-1] - at[0]) / 2
    slope = float(np.polyfit((at[later] - at[0]) / 60, held[later], 1)[0])
    faults = lab.faults(since)
    figures = {
        "students": students, "seconds": seconds, "runs": alive, "clicks": len(found["click"]), "streams": len(found["first token"]),
        "all open at once, slowest ms": percentile(opening, 100),
        "click p50 ms": percentile(found["click"], 50), "click p95 ms": percentile(found["click"], 95),
        "click p99 ms": percentile(found["click"], 99), "first token p95 ms": percentile(found["first token"], 95),
        "errors": len(found["errors"]) + len(faults), "memory MB at the end": float(held[-1]), "memory slope MB/min": slope,
    }  # fmt: skip
    good = (
        figures["click p95 ms"] <= 150 and figures["click p99 ms"] <= 500 and not figures["errors"] and alive == len(runs)
        and (seconds < 300 or slope <= 1)
    )  # fmt: skip
    return {"figures": figures, "pass": bool(good), "what went wrong": (found["errors"] + faults)[:5]}


def beside_an_encoding(lab: Lab, seconds: float = 30) -> dict[str, Any]:
    """LOAD-2: the same class without anything beside it, then while an encoding is trained on 50 MB."""
    text = (ROOT / "datasets" / "stories.txt").read_text(encoding="utf-8")
    (lab.home / "datasets").mkdir(exist_ok=True)
    with (lab.home / "datasets" / "large.txt").open("w", encoding="utf-8") as large:
        for i in range(50_000_000 // len(text) + 1):
            large.write(
                re.sub(r"\b(\w{5,})\b", lambda word, i=i: f"{word[1]}{i % 7}", text) if i % 3 == 0 else text
            )
    alone = check(lab, seconds, beside=[])["figures"]
    found = check(lab, seconds, beside=ENCODING)
    p95 = "click p95 ms"
    figures = {"p95 ms without": alone[p95], "p95 ms meanwhile": found["figures"][p95], "clicks": found["figures"]["clicks"], "errors": found["figures"]["errors"], "still training at the end": found["figures"]["runs"]}  # fmt: skip
    good = found["figures"][p95] <= 2 * alone[p95] and not figures["errors"]
    return {"figures": figures, "pass": bool(good), "what went wrong": found["what went wrong"]}
