"""SPACE: the repository as a Space: a fresh read-only copy, a Space's variables, user, cores and memory; then what a stranger does."""

from __future__ import annotations

import io
import os
import resource
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from assure.kills import waited
from assure.lab import ROOT, Lab, Page, Visitor, free_port
from assure.owners import TINY
from llm.runs import Run

USER, CORES, MEMORY = 1000, 2, 16 * 2**30  # of the CPU basic hardware
SPACE, HOST = "assure/llm-lab", "assure-llm-lab.hf.space"
CURVES = '"curves"'  # in what the live chart is told of a run that one may see
READING = "+dac_read_search"  # a user who may read what only root may, and write nothing of it


def cloned(target: Path) -> int:
    """Copy what a clone would have (and what is new and not ignored) to `target`, read-only; how many files."""
    listed = subprocess.run(["git", "ls-files", "-coz", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True)  # fmt: skip
    names = [name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()]
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target / name)
    writable(target, False)
    return len(names)


def writable(folder: Path, yes: bool) -> None:
    """Let the owner write below a folder, or nobody."""
    for path in (folder, *folder.rglob("*")):
        mode = path.stat().st_mode
        path.chmod(mode | 0o200 if yes else (mode & ~0o222) | 0o444)


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """Every path below a folder: size and time of change."""
    return {str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*")}  # fmt: skip


def as_user(folder: Path) -> tuple[list[str], str]:
    """What goes before a command so that uid 1000 does it, and a sentence where that is not quite what is done."""
    if os.getuid():
        return [], f"Run as uid {os.getuid()}, which started the check."
    drop = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
    ways = (
        (drop, ""),
        ([*drop, f"--inh-caps={READING}", f"--ambient-caps={READING}"], "Python or the folder lies where only root may read: uid 1000 was lent the right to read, none to write."),
    )  # fmt: skip
    for words, sentence in ways:
        try:
            tried = subprocess.run([*words, sys.executable, "-c", f"import starlette; open({str(folder / 'app.py')!r})"], cwd=folder, capture_output=True, env=variables(folder, 1))  # fmt: skip
        except FileNotFoundError:
            break
        if tried.returncode == 0:
            return words, sentence
    return [], "uid 1000 cannot run this Python: run as root, for whom nothing is read-only."


def variables(folder: Path, port: int) -> dict[str, str]:
    """A Space's environment, and nothing of this process's but the search path."""
    author, name = SPACE.split("/")
    return {
        "PATH": os.environ.get("PATH", ""), "LANG": "C.UTF-8", "HOME": str(folder.parent / "user"), "TMPDIR": str(folder.parent / "tmp"),
        "SYSTEM": "spaces", "SPACE_ID": SPACE, "SPACE_HOST": HOST, "SPACE_AUTHOR_NAME": author, "SPACE_REPO_NAME": name,
        "CPU_CORES": str(CORES), "MEMORY": "16Gi", "GRADIO_SERVER_NAME": "0.0.0.0", "GRADIO_SERVER_PORT": str(port),
    }  # fmt: skip


def limited() -> None:
    """In the new process: two cores, and no process with more than 16 GB of addresses (a Space counts all of them together)."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


class Space(Lab):
    """`python app.py` as a Space starts it."""

    def __init__(self, package: Path):
        self.package, self.port = package, free_port()
        user, temporary = package.parent / "user", package.parent / "tmp"
        self.home, self.log = user / ".llm-lab", package.parent / "server.log"
        for folder in (user, temporary):
            folder.mkdir()
            folder.chmod(0o755)
        self.before, self.remark = as_user(package)
        if self.before:
            for folder in (user, temporary):
                os.chown(folder, USER, USER)
        self.url, self.environment = f"http://127.0.0.1:{self.port}", variables(package, self.port)
        self.start()

    def start(self) -> float:
        """Start it, or start it again; seconds until it answered."""
        began = time.monotonic()
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                [*self.before, sys.executable, "app.py"], cwd=self.package, env=self.environment, stdin=subprocess.DEVNULL, stdout=out,
                stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=limited,
            )  # fmt: skip
        return self.answers(began)

    def answers(self, began: float) -> float:
        """Wait for the first answer. Raises RuntimeError with the end of the log when there is none."""

        def here() -> bool:
            try:
                return httpx.get(self.url + "/health", timeout=5).status_code in (200, 503)
            except httpx.HTTPError:
                return self.process.poll() is not None

        if not waited(here, 90) or self.process.poll() is not None:
            raise RuntimeError(f"The Space did not start:\n{self.log.read_text(errors='replace')[-3000:]}")
        return time.monotonic() - began


class Stranger(Visitor):
    """A visitor of the Space: by its host name, with a cookie that a browser would send over HTTPS alone."""

    def __init__(self, lab: Lab):
        super().__init__(lab)
        self.http.headers["host"] = HOST
        given = self.http.get("/lab/hand-in").headers["set-cookie"]
        self.http.headers["cookie"] = given.partition(";")[0]
        self.cookie = given


@contextmanager
def started(folder: Path) -> Iterator[tuple[Space, int]]:
    """A Space in `folder`, and how many files it is made of."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    package = folder / "app"
    count = cloned(package)
    lab = None
    try:
        lab = Space(package)
        yield lab, count
    finally:
        if lab:
            lab.close()
        writable(package, True)  # so that it can be removed


def check(folder: Path) -> dict[str, Any]:
    """SPACE: it answers under its name alone, a stranger trains, samples and takes theirs away, and nothing is written beside the home."""
    wrong: list[str] = []

    def hold(true: Any, sentence: str) -> None:
        if not true:
            wrong.append(sentence)

    with started(folder) as (lab, count):
        before, root = stamps(lab.package), lab.process.pid
        status = Path(f"/proc/{root}/status").read_text()
        uid = int(status.partition("Uid:")[2].split()[0])
        for name, code in ((HOST, 200), ("evil.example", 421), ("other.hf.space", 421)):
            answer = httpx.get(lab.url + "/", headers={"host": name}, timeout=60)
            hold(
                answer.status_code == code,
                f"Asked as {name} the page answers {answer.status_code}, not {code}.",
            )
        said = str(lab.config()["components"])
        hold(
            "lost when this Space sleeps" in said or Path("/data").exists(),
            "The page does not say what is lost.",
        )
        hold(
            f"huggingface.co/spaces/{SPACE}?duplicate=true" in said,
            "There is no link to duplicate the Space.",
        )
        page, a, b = Page(lab), Stranger(lab), Stranger(lab)
        hold(
            "SameSite=None; Secure; Partitioned" in a.cookie,
            f"The cookie does not work in a frame: {a.cookie}",
        )

        began = time.monotonic()
        start = page.event("train.start")
        given = {
            "train_name": "a-run",
            "train_dataset": "verse",
            "train_encoding": "byte",
            "train_max_steps": 30,
            **TINY,
        }
        answer = a.call(start, page.values(start, **given))
        hold(answer.status_code == 200, f"Start was refused: {answer.text[:300]}")
        run = Run(lab.home / "runs" / "a-run")
        hold(
            waited(lambda: run.path.exists() and run.status() == "finished", 90),
            "The run did not come to its end.",
        )
        trained = time.monotonic() - began

        chart, writes = page.by_elem_id("train-chart"), page.event("playground.generate")
        texts = {}
        for who, one in (("a", a), ("b", b)):
            seen = one.served(chart, "lab_poll", {"run:a-run": 0}).text
            hold((CURVES in seen) == (who == "a"), f"The chart shows {who}: {seen[:200]}")
            for model in ("story-gpt2", "a-run"):
                values = page.values(
                    writes, playground_model=model, playground_prompt="Long ago", playground_max_new_tokens=8
                )
                last = list(one.stream(writes, values))[-1]
                texts[who, model] = (
                    last.get("success", False) and "error" not in str(last.get("output", {}))[:40]
                )
        for (who, model), good in texts.items():
            hold(
                good == (who == "a" or model != "a-run"),
                f"{who} asks {model} for a text: {'given' if good else 'refused'}.",
            )

        taken = a.http.get("/lab/take-away")
        others = held(b.http.get("/lab/take-away").content)
        hold(others == ["manifest.json"], f"Another visitor is given {others[:5]} to take away.")
        hold(
            taken.status_code == 200,
            f"The take-away is refused: {taken.text[:200] if taken.status_code != 200 else ''}",
        )
        if taken.status_code == 200:
            inside = held(taken.content)
            hold("runs/a-run/model/model.safetensors" in inside, f"The model is not among {inside[:5]}.")
            wrong += opens_at_home(folder, taken.content)
        peak = lab.memory()

        lab.end()
        again = lab.start()
        hold(run.status() == "finished", "After a restart the run is not what it was.")
        seen = a.served(chart, "lab_poll", {"run:a-run": 0}).text
        hold(CURVES in seen, f"After a restart the visitor does not find their run: {seen[:200]}")
        hold(stamps(lab.package) == before, "Something was written into the package directory.")
        wrong += lab.faults()
        figures = {
            "files": count, "uid": uid, "cores": len(os.sched_getaffinity(lab.process.pid)), "seconds to train": trained,
            "take-away bytes": len(taken.content), "server MB": peak, "seconds to start again": again,
        }  # fmt: skip
        remark = lab.remark
    return {"figures": figures, "pass": not wrong, "what went wrong": wrong, "remark": remark}


def held(data: bytes) -> list[str]:
    """The names in a .tar.gz file."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return tar.getnames()


def opens_at_home(folder: Path, data: bytes) -> list[str]:
    """What goes wrong where the file is brought into an empty home and its model is asked for a text."""
    file, home = folder / "taken.tar.gz", folder / "own"
    file.write_bytes(data)
    environment = {"PATH": os.environ.get("PATH", ""), "HOME": str(folder), "LLM_HOME": str(home)}
    for words in (
        ["llm.takeaway", str(file)],
        ["llm.generate", "--model", "a-run", "--prompt", "Long", "--max_new_tokens", "4"],
    ):
        done = subprocess.run([sys.executable, "-m", *words], cwd=ROOT, env=environment, capture_output=True, text=True)  # fmt: skip
        if done.returncode:
            return [f"At home {words[0]} fails: {done.stderr[-300:]}"]
    return []
