"""REL-1 to REL-4: runs and servers are killed, disks fail, memory ends. What was done is kept, and the run says what happened."""

from __future__ import annotations

import errno
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from assure.attempts import Attempts
from assure.lab import ROOT, Lab, Page, Visitor
from llm import checkpoint, paths
from llm.runs import Run

SMALL = [
    "--n_layer", "1", "--n_head", "2", "--n_embd", "16", "--context_length", "16", "--batch_size", "4", "--max_steps", "24",
    "--warmup_steps", "2", "--eval_every", "5", "--checkpoint_every", "4", "--dropout", "0.1", "--dataset", "fable",
    "--tokenizer", "byte", "--sample_tokens", "4",
]  # fmt: skip
NOT_THE_RUN = {"time", "seconds", "eval_seconds", "tokens_per_second"}  # how long it took
GB = 2**30
HUGE = {
    "300 million parameters": ["--n_layer", "24", "--n_embd", "1024", "--n_head", "16"],
    "3 billion parameters": ["--n_layer", "32", "--n_embd", "2816", "--n_head", "22"],
    "a batch of 512 windows": [
        "--n_layer", "4", "--n_embd", "256", "--n_head", "4", "--batch_size", "512", "--context_length", "256", "--dataset", "stories",
    ],
}  # fmt: skip


def fable(home: Path) -> None:
    """A small text to learn from."""
    draw = random.Random(1)
    words = [
        "the",
        "old",
        "fox",
        "and",
        "a",
        "small",
        "owl",
        "went",
        "down",
        "to",
        "look",
        "for",
        "their",
        "red",
        "boat",
    ]
    folder = home / "datasets"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "fable.txt").write_text(" ".join(draw.choice(words) for _ in range(900)))


def same(a: Any, b: Any) -> bool:
    """Equal to the bit, all the way down; seconds do not count."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a if key != "seconds")
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b))
    return a == b


def differs(run: Run, other: Run) -> str:
    """What of two runs is not the same to the bit: "" when weights, optimizer and log are."""
    if run.status() != "finished":
        return f"{run.name} is {run.status()}: {run.last_event()}"
    one, two = (torch.load(each.state_path, weights_only=True) for each in (run, other))
    if not same(one, two):
        return f"{run.name}: the checkpoint differs"
    for kind in ("step", "evaluate", "sample"):
        mine, theirs = (
            [{k: v for k, v in e.items() if k not in NOT_THE_RUN} for e in each.events() if e["kind"] == kind]
            for each in (run, other)
        )
        if mine != theirs:
            return f"{run.name}: its events of kind {kind} differ"
    return ""


def killed(lab: Lab, points: int = 100, seed: int = 0) -> dict[str, Any]:
    """REL-1: at seeded points of its work on files, and at seeded moments, a run's process is killed; others go on with it."""
    fable(lab.home)
    attempts, draw, wrong, done, landed, names = (
        Attempts(lab.home, lab.log),
        random.Random(seed),
        [],
        0,
        0,
        [],
    )
    os.environ["LLM_HOME"] = str(lab.home)
    try:
        began = time.monotonic()
        most = attempts(["whole", *SMALL])["operations"]
        took = time.monotonic() - began
        while landed < points and done < 4 * points:
            names.append(f"killed-{len(names)}")
            for _ in range(draw.randint(3, 10)):
                if done % 2:
                    said = attempts([names[-1], *SMALL], how="kill", after=draw.uniform(0.05, 0.5) * took)
                else:
                    said = attempts([names[-1], *SMALL], how="kill", at=draw.randint(3, most // 3))
                done, landed = done + 1, landed + (said["status"] == -signal.SIGKILL)
                if said["status"] == 0:
                    break
            if Run.open(names[-1]).status() != "finished":
                attempts([names[-1], *SMALL])
            if trouble := differs(Run.open(names[-1]), Run.open("whole")):
                wrong.append(trouble)
    finally:
        attempts.close()
    figures = {"kills": landed, "runs": len(names), "the same to the bit": len(names) - len(wrong)}  # fmt: skip
    return {"figures": figures, "pass": not wrong and landed >= points, "what went wrong": wrong[:5]}


def failing_disk(lab: Lab, points: int = 60, seed: int = 0) -> dict[str, Any]:
    """REL-3: single operations on files fail, or files cannot grow. The last checkpoint opens, the run says why, and goes on."""
    fable(lab.home)
    attempts, draw, wrong, failed, said_why, kept = (
        Attempts(lab.home, lab.log),
        random.Random(seed),
        [],
        0,
        0,
        0,
    )
    os.environ["LLM_HOME"] = str(lab.home)
    try:
        most = attempts(["whole", *SMALL])["operations"]
        size = Run.open("whole").state_path.stat().st_size
        for i in range(points):
            name = f"disk-{i}"
            if i % 4 == 3:
                strike: dict[str, Any] = {"how": "large", "most": draw.randint(2000, size)}
            else:
                code = draw.choice((errno.ENOSPC, errno.EIO))
                strike = {"how": "fail", "at": draw.randint(8, most), "errno": code}
            before = lab.log.stat().st_size
            said = attempts([name, *SMALL], **strike)
            run = Run.open(name)
            if said["status"] != 0:
                failed += 1
                told = (run.last_event() or {}).get("message", "")
                if run.status() == "waiting":  # it had not even begun: the terminal was told
                    told = lab.log.read_bytes()[before:].decode(errors="replace")
                if "disk" in told:
                    said_why += 1
                else:
                    wrong.append(f"{name} {strike}: {run.status()}, {run.last_event()}")
                if run.state_path.is_file():
                    kept += 1
                    torch.load(run.state_path, weights_only=True)
                if paths.is_model(run.model_folder):
                    checkpoint.load_model(run.model_folder)
                attempts([name, *SMALL])
            if trouble := differs(run, Run.open("whole")):
                wrong.append(f"{strike}: {trouble}")
    except Exception as error:
        wrong.append(f"{name} {strike}: the checkpoint does not open: {error}")
    finally:
        attempts.close()
    figures = {"operations failed": points, "runs that ended by it": failed, "said why": said_why, "with a checkpoint, which opened": kept, "then the same to the bit": points - len(wrong)}  # fmt: skip
    return {"figures": figures, "pass": not wrong and failed > points / 4, "what went wrong": wrong[:5]}


def server_killed(lab: Lab) -> dict[str, Any]:
    """REL-2: the server is killed three ways while a run trains. The run goes on, no step lost or doubled; the page is back soon."""
    visitor, page = Visitor(lab), Page(lab)
    start = page.event("train.start")
    steps, wrong, back = 600, [], []
    answer = visitor.call(
        start, page.values(start, train_name="outlives", train_max_steps=steps, train_size="tiny")
    )
    os.environ["LLM_HOME"] = str(lab.home)
    run = Run.open("outlives") if answer.status_code == 200 else None
    if run is None:
        return {"figures": {}, "pass": False, "what went wrong": [answer.text[:500]]}
    for how in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
        waited(lambda: run.locked() and (run.last_event() or {}).get("step", 0) > 3, 60)
        before = (run.last_event() or {}).get("step", 0)
        lab.end(how)
        if not run.locked():
            wrong.append(f"{how.name}: the run went down with the server")
        back.append(lab.start())
        waited(lambda: (run.last_event() or {}).get("step", 0) > before, 30)  # noqa: B023
        if httpx_status(lab) != 200:
            wrong.append(f"{how.name}: the page does not answer")
    waited(lambda: run.status() != "running", 240)
    found = [event["step"] for event in run.read()[0] if event["kind"] == "step"]
    logged = sorted({*found})
    if run.status() != "finished" or len(found) != len(logged) or run.attempts() != 1:
        wrong.append(f"{run.status()}, {len(found)} step events of {len(logged)} steps, {run.attempts()} attempts: {run.last_event()}")  # fmt: skip
    figures = {"kills": 3, "page back after s": {"KILL": back[0], "TERM": back[1], "INT": back[2]}, "attempts of the run": run.attempts(), "steps twice": len(found) - len(logged)}  # fmt: skip
    return {"figures": figures, "pass": not wrong and max(back) <= 10, "what went wrong": wrong}


def httpx_status(lab: Lab) -> int:
    return Visitor(lab).http.get("/").status_code


def waited(true: Any, seconds: float) -> bool:
    """Wait until something is true; whether it became so."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if true():
            return True
        time.sleep(0.05)
    return False


def little_memory(lab: Lab) -> dict[str, Any]:
    """REL-4: trainings that need more memory than there is: under limits, in a terminal and from the page. A sentence, and nothing else dies."""
    fable(lab.home)
    os.environ["LLM_HOME"] = str(lab.home)
    wrong, told, sentences = [], 0, {}
    cases = [(limit, about) for limit in (0.75, 1.0, 1.5, 2.0, 3.0) for about in HUGE]
    for limit, about in cases:
        name = f"memory-{limit}-{about.split()[0]}-{about.split()[-1]}"
        done = subprocess.run(
            [sys.executable, "-m", "llm.train", name, *SMALL, *HUGE[about]], cwd=ROOT, capture_output=True, text=True, timeout=120,
            env=os.environ | {"LLM_HOME": str(lab.home), "OMP_NUM_THREADS": "1"},
            preexec_fn=lambda most=int(limit * GB): resource.setrlimit(resource.RLIMIT_AS, (most, most)),
        )  # fmt: skip
        try:
            said = (Run.open(name).last_event() or {}).get("message", "")
        except ValueError:  # it had not even begun
            said = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else ""
        sentences[f"{limit} GB, {about}"] = said
        if "memory" in said.lower() and done.returncode:
            told += 1
        else:
            wrong.append(f"{limit} GB, {about}: status {done.returncode}, {said or done.stderr[-300:]!r}")
    # the same from the page: whatever the server starts inherits its limit
    resource.prlimit(lab.process.pid, resource.RLIMIT_AS, (10 * GB, 10 * GB))
    visitor, page = Visitor(lab), Page(lab)
    start = page.event("train.start")
    for name, wide in (("huge-1", 4096), ("huge-2", 8192)):
        values = page.values(start, train_name=name, train_n_layer=24, train_n_embd=wide, train_n_head=16, train_max_steps=10, train_warmup_steps=2)  # fmt: skip
        answer = visitor.call(start, values)
        if answer.status_code != 200:
            said = answer.text
        else:
            run = Run.open(name)
            waited(lambda run=run: run.status() not in ("running", "waiting"), 120)
            said = (run.last_event() or {}).get("message", "")
        sentences[f"from the page, width {wide}"] = said[:300]
        if "memory" in said.lower():
            told += 1
        else:
            wrong.append(f"{name}: {said[:300]!r}")
        if lab.process.poll() is not None or httpx_status(lab) != 200:
            wrong.append(f"{name}: the server does not answer any more")
            break
    figures = {"trainings": len(cases) + 2, "told why": told, "server alive": int(lab.process.poll() is None)}
    return {"figures": figures, "pass": not wrong, "what went wrong": wrong[:5], "sentences": sentences}
