"""SEC-1, SEC-2 and REL-5: keys and private files stay where they are, visitors apart, and two tabs of one visitor agree."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from pathlib import Path
from typing import Any

from assure.kills import waited
from assure.lab import Lab, Page, Visitor
from assure.stub import answering
from llm import owned
from llm.runs import Run, all_runs

CANARY = "canary-4d1f-not-to-be-seen"
KEY = "sk-canary-77aa-not-to-be-seen"
TINY = {
    "train_n_layer": 1, "train_n_embd": 16, "train_n_head": 2, "train_context_length": 16, "train_batch_size": 4, "train_warmup_steps": 2,
}  # fmt: skip
ROWS = json.dumps([{"instruction": f"Say {CANARY} {i}.", "response": f"{CANARY} {i}"} for i in range(12)])


class Possessions:
    """What visitor A has, made through the page as a student makes it; and whether all of it is still as it was."""

    def __init__(self, lab: Lab, page: Page):
        self.lab, self.page, self.a = lab, page, Visitor(lab)
        a, call = self.a, self.call
        a.room("name", name=f"A {CANARY}")
        a.room("now", tab="train", lesson="tokens", step=1, error="")
        a.room("answer", lesson="tokens", step=1, text="1")
        self.refused: list[str] = []
        call("train.add_text", train_paste=f"{CANARY} is a secret text. " * 200, train_text_name="a-text")
        call(
            "train.start",
            train_name="a-run",
            train_dataset="a-text",
            train_encoding="byte",
            train_max_steps=30,
            **TINY,
        )
        if self.refused:
            raise RuntimeError(f"A could not make what is to be protected: {self.refused}")
        waited(lambda: Run.open("a-run").status() == "finished", 120)
        call("train.start", train_name="a-long", train_dataset="a-text", train_encoding="byte", train_max_steps=1_000_000, **TINY)  # fmt: skip
        call(
            "tune_rows.keep",
            rows_name="a-rows",
            rows_from="paste",
            rows_paste=ROWS,
            finetune_objective="instruct",
        )
        waited(lambda: Run.open("a-long").locked(), 60)
        self.names = [
            "a-run",
            "a-long",
            "a-text",
            "a-rows",
            "run:a-run",
            "model:a-run",
            "a-run@10",
            "train/a-run",
        ]
        self.state = self.seen()

    def call(self, name: str, **values: Any) -> Any:
        event = self.page.event(name)
        answer = self.a.call(event, self.page.values(event, **values))
        if answer.status_code != 200:
            self.refused.append(f"{name}: {answer.text[:300]}")
        return answer

    def seen(self) -> dict[str, Any]:
        """What must not change by anything that another visitor does."""
        home, owner = self.lab.home, Run.open("a-run").meta["owner"]
        runs = sorted(run.name for run in all_runs() if run.meta["owner"] == owner)
        files = [home / "datasets" / "a-text.txt", home / "datasets" / "a-rows.jsonl"]
        return {
            "runs": runs,
            "shared": [Run.open(name).shared() for name in runs],
            "stops": [Run.open(name).stop_requested() for name in runs],
            "files": [(file.name, file.read_bytes()) for file in files if file.is_file()],
            "owners": [owned.owners(name) for name in ("a-text", "a-rows")],
        }


def matrix(lab: Lab) -> dict[str, Any]:
    """SEC-2: visitor B sends every name of A's into every input and every click of every event. Nothing of A's is shown or changes."""
    os.environ["LLM_HOME"] = str(lab.home)
    page = Page(lab)
    theirs, b = Possessions(lab, page), Visitor(lab)
    wrong, calls, refused = [*theirs.refused], 0, 0
    clicks = [{"action": action, "name": name, "id": name, "value": name, "index": 0, "look": name} for name in theirs.names[:2] for action in ("delete", "share", "show", "overlay", "stop", "resume", "use", "best")]  # fmt: skip

    def look(what: str, answer: Any) -> None:
        nonlocal calls, refused
        calls, refused = calls + 1, refused + (answer.status_code != 200)
        if CANARY in answer.text or "canary" in answer.text:
            wrong.append(f"{what} shows what is A's: {answer.text[:200]}")

    quick = [id for id in page.events if id in page.names]
    for id in quick:
        what = f"{page.modules[id]}.{page.names[id]}"
        inputs = page.events[id]["inputs"]
        base = page.values(id)
        for name in theirs.names[:5]:
            for place, value in enumerate(base):
                if isinstance(value, bool) or (isinstance(value, (int, float)) and value is not None):
                    continue
                changed = [*base]
                changed[place] = [name] if isinstance(value, list) else name
                look(f"{what}({place}={name})", b.call(id, changed))
        if (
            any(target[1] in ("click", "select", "input") for target in page.events[id]["targets"])
            and inputs is not None
        ):
            for about in clicks:
                look(f"{what} {about['action']}", b.call(id, base, about))
        if (now := theirs.seen()) != theirs.state:
            wrong.append(
                f"{what} changed what is A's: {[key for key in now if now[key] != theirs.state[key]]}"
            )
            theirs.state = now
    for component in (one for one in page.components if page.components[one]["props"].get("server_fns")):
        for name in ("run:a-run", "run:a-long", "model:a-run", "a-run"):
            for fn in page.components[component]["props"]["server_fns"]:
                look(f"{fn}({name})", b.served(component, fn, {name: 0}))
                look(f"{fn}({name})", b.served(component, fn, [name, 0]))
    for path in ("lab/download/a-run", "lab/hand-in", "v1/models", "v1/models/a-run", "health"):
        look(path, b.http.get(f"/{path}"))
    for path in ("now", "lessons", "board", "wall", "teach"):
        look(path, b.room(path, do="stop", run="a-long"))
    forged = Visitor(lab)
    forged.http.cookies.set("lab_owner", Run.open("a-run").meta["owner"] + ".0" * 32)
    look("a forged cookie", forged.http.get("/lab/hand-in"))
    if theirs.seen() != theirs.state:
        wrong.append("a route changed what is A's")
    Run.open("a-long").request_stop()
    faults = lab.faults()
    figures = {
        "calls": calls,
        "refused": refused,
        "shown or changed": len(wrong),
        "faults of ours": len(faults),
    }
    return {"figures": figures, "pass": not wrong and not faults, "what went wrong": (wrong + faults)[:8]}


def canaries(lab: Lab) -> dict[str, Any]:
    """SEC-1: keys in the environment, a key that is typed in, and private files: afterwards looked for in all that the lab keeps and says."""
    os.environ["LLM_HOME"] = str(lab.home)
    page, a, said, wrong = Page(lab), Visitor(lab), [], []
    with answering() as stub:
        address = f"http://127.0.0.1:{stub.server_address[1]}/v1"

        def call(name: str, **values: Any) -> None:
            event = page.event(name)
            said.append(a.call(event, page.values(event, **values)).text)

        def stream(name: str, **values: Any) -> None:
            event = page.event(name)
            said.append(json.dumps(list(a.stream(event, page.values(event, **values)))))

        form = dict(endpoints_preset="other", endpoints_name="stub", endpoints_address=address, endpoints_model="m", endpoints_key=KEY)  # fmt: skip
        stream("endpoints.test", **form)
        call("endpoints.save", **form)
        stream("playground.generate", playground_model="endpoint:stub", playground_prompt="Hello there")
        call("endpoints.test", **{**form, "endpoints_address": "http://127.0.0.1:9/v1"})  # nobody is there
        call("train.start", train_name="watched", train_max_steps=200, **TINY)
        run = Run.open("watched")
        waited(lambda: run.locked() and (run.last_event() or {}).get("step", 0) > 0, 60)
        started = [pid for pid in Path("/proc").glob("[0-9]*") if f"LLM_HOME={lab.home}".encode() in read(pid / "environ") and int(pid.name) != lab.process.pid]  # fmt: skip
        for pid in started:
            if CANARY.encode() in read(pid / "environ") + read(pid / "cmdline"):
                wrong.append(f"a key of the environment is handed to {read(pid / 'cmdline')[:80]!r}")
        waited(lambda: run.status() == "finished", 120)
        asked = [KEY in json.dumps(headers) for _, headers, _ in stub.seen]
        bodies = [
            KEY in body or CANARY in body or CANARY in json.dumps(headers) for _, headers, body in stub.seen
        ]
    private = [lab.home / "secret", lab.home / "teacher", lab.home / "keys" / "x", Path("/etc/passwd"), lab.home / "runs" / "watched" / "config.json"]  # fmt: skip
    tried = 0
    for file in private:
        for path in (f"gradio_api/file={file}", f"file={file}", f"gradio_api/file=..{file}", f"gradio_api/file=/proc/self/cwd/..{file}", f"lab/download/..%2f..{file}", f"gradio_api/proxy=http://127.0.0.1{file}", f"static/..{file}", f"gradio_api/deep_link?x={file}"):  # fmt: skip
            answer = a.http.get(f"/{path}")
            tried += 1
            if answer.status_code == 200 and file.is_file() and answer.content == file.read_bytes():
                wrong.append(f"/{path} gives the file away")
    said += [
        a.http.get("/").text,
        a.http.get("/config").text,
        a.http.get("/lab/hand-in").text,
        a.http.get("/v1/models").text,
    ]
    for text in said:
        if CANARY in text or KEY in text:
            wrong.append(f"an answer holds a key: {re.sub(r'sk-[a-z0-9-]+', '...', text)[:200]}")
    kept = [path for path in lab.home.rglob("*") if path.is_file() and (KEY.encode() in read(path) or CANARY.encode() in read(path))]  # fmt: skip
    for path in kept:
        if path.parent.name != "keys" and path.name != "keys":
            wrong.append(f"{path.relative_to(lab.home)} holds a key")
        elif path.stat().st_mode & 0o077:
            wrong.append(f"{path.relative_to(lab.home)} can be read by others")
    if not any(asked) or any(bodies):
        wrong.append(f"the endpoint was sent its key {sum(asked)} times, others' {sum(bodies)} times")
    figures = {"requests to the endpoint": len(asked), "with its key": sum(asked), "processes started": len(started), "answers looked through": len(said), "addresses of files tried": tried, "files that hold a key": len(kept), "seen elsewhere": len(wrong)}  # fmt: skip
    return {"figures": figures, "pass": not wrong and len(started) >= 2, "what went wrong": wrong[:8]}


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def two_tabs(lab: Lab) -> dict[str, Any]:
    """REL-5: the same visitor in eight tabs presses Start, Stop, Resume and Delete at the same instant, again and again."""
    os.environ["LLM_HOME"] = str(lab.home)
    page, first, wrong = Page(lab), Visitor(lab), []
    start = page.event("train.start")
    stop, resume, act = (page.event(f"running.Room.{name}") for name in ("stop", "resume", "act"))
    tabs = []
    for _ in range(8):
        tab = Visitor(lab)
        tab.http.cookies = first.http.cookies
        tabs.append(tab)

    def at_once(event: int, values: list[Any], about: Any = None) -> list[int]:
        gate, statuses = threading.Barrier(len(tabs)), []

        def press(tab: Visitor) -> None:
            gate.wait()
            statuses.append(tab.call(event, values, about).status_code)

        threads = [threading.Thread(target=press, args=(tab,)) for tab in tabs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return statuses

    clicks = 0
    for turn in range(4):
        before = {run.name for run in all_runs()}
        at_once(start, page.values(start, train_max_steps=5000, train_seed=turn, **TINY))
        made = sorted({run.name for run in all_runs()} - before)
        clicks += 1
        if len(made) != 1:
            wrong.append(f"one moment's clicks on Start made {len(made)} runs: {made}")
        if not made:
            continue
        run = Run.open(made[0])
        waited(lambda run=run: run.locked() and (run.last_event() or {}).get("step", 0) > 0, 60)
        at_once(stop, [run.name, ""])
        waited(lambda run=run: run.status() == "stopped", 60)
        ends = [event for event in run.read()[0] if event["kind"] == "end"]
        if len(ends) != 1:
            wrong.append(f"{run.name}: {len(ends)} ends after one moment's clicks on Stop")
        at_once(resume, [run.name, ""])
        waited(lambda run=run: run.locked(), 30)
        time.sleep(0.5)
        if run.attempts() != 2:
            wrong.append(f"{run.name}: {run.attempts()} attempts after one moment's clicks on Resume")
        at_once(act, [run.name, ""], {"action": "delete", "name": run.name})
        if not run.path.exists():
            wrong.append(f"{run.name}: deleted while it ran")
        at_once(stop, [run.name, ""])
        waited(lambda run=run: run.status() in ("stopped", "finished"), 60)
        at_once(act, [run.name, ""], {"action": "delete", "name": run.name})
        if run.path.exists():
            wrong.append(f"{run.name}: still there after Delete")
        clicks += 5
    left = [path.name for path in (lab.home / "runs").iterdir() if path.name.startswith(".")]
    if left:
        wrong.append(f"left behind: {left}")
    faults = lab.faults()
    figures = {"tabs": len(tabs), "moments of clicks": clicks, "invariants broken": len(wrong), "faults of ours": len(faults)}  # fmt: skip
    return {"figures": figures, "pass": not wrong and not faults, "what went wrong": (wrong + faults)[:8]}
