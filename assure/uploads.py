"""FUZZ-1: files of every kind that the lab opens, changed at random, each opened in a child of a process that has imported everything.

Whatever comes in gives what it holds or one sentence of ours: no crash, no hang, no traceback that goes through our files.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import select
import shutil
import signal
import struct
import subprocess
import sys
import time
import traceback
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from assure.lab import ROOT, Lab

HANG = 5.0  # seconds
TEXT_KINDS = (".csv", ".json", ".jsonl", ".txt", ".tsv", ".md", ".gz", ".zip")
MODEL_KINDS = (".gguf", ".safetensors", ".pt", ".json")
VALUES = (2**63, 2**64 - 1, 2**31, 0, 1)
TOKENS = (
    b'"',
    b"{",
    b"]",
    b"-1",
    b"1e999",
    b"null",
    b"99999999999",
    b"\\u0000",
    b"\xff\xfe",
    b"\r\n",
    b",,,",
    b"NaN",
    b"\x00",
)


def seeds(folder: Path) -> None:
    """One good file of every kind that can be uploaded: rows, texts, archives, models, an encoding."""
    from llm import bpe, checkpoint, paths
    from llm.config import ModelConfig
    from llm.convert import folder as hf
    from llm.convert import gguf
    from llm.model import GPT

    rows = [{"instruction": f"Say {word}.", "response": f"{word}!", "label": "yes"} for word in ("kite", "Größe", "東京", "fox \"red\"")]  # fmt: skip
    (folder / "rows.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    (folder / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    (folder / "rows.csv").write_text('text,label\n"a, b",yes\n"c ""d""",no\n' * 5)
    (folder / "rows.tsv").write_text("text\tlabel\na b\tyes\nc\tno\n" * 5)
    (folder / "text.txt").write_text("A fox, a kite and Größe 東京 🙂.\n" * 40, encoding="utf-8")
    (folder / "lesson.md").write_text(
        (ROOT / "lessons" / "tokens.md").read_text(encoding="utf-8"), encoding="utf-8"
    )
    (folder / "text.txt.gz").write_bytes(gzip.compress((folder / "text.txt").read_bytes()))
    with zipfile.ZipFile(folder / "texts.zip", "w") as archive:
        archive.write(folder / "rows.csv", "rows.csv")
    encoding = bpe.learn(bpe.documents_of("the cat sat on the mat and that rat. " * 30), 280, "small")
    shape = dict(vocab_size=encoding.vocab_size, context_length=32, n_layer=2, n_head=2, n_kv_head=1, n_embd=16, mlp_hidden=24, tie_embeddings=True)  # fmt: skip
    checkpoint.save_model(paths.models() / "small", GPT(ModelConfig(**shape)), encoding, "# small\n")
    hf.save("small", folder / "hf")
    shutil.copytree(paths.models() / "small", folder / "own")
    gguf.save("small", folder / "small.gguf", "q8_0")


def mutant(data: bytes, draw: random.Random) -> bytes:
    """The bytes with one to twenty changes, most of them near the beginning."""
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 5, 20))):
        if not changed:
            break
        at = draw.randrange(max(1, min(draw.choice((16, 200, 3000, len(changed))), len(changed))))
        how = draw.randrange(7)
        if how == 0:
            changed[at : at + 1] = bytes([draw.randrange(256)])
        elif how == 1:
            changed[at : at + 8] = struct.pack("<Q", draw.choice(VALUES))
        elif how == 2:
            del changed[at : at + draw.choice((1, 8, 1000))]
        elif how == 3:
            changed[at:at] = changed[: draw.choice((1, 8, 100))]
        elif how == 4:
            del changed[at:]
        elif how == 5:
            changed[at : at + 1] = draw.choice(TOKENS)
        else:
            changed[at] ^= 1 << draw.randrange(8)
    return bytes(changed)


def opened(path: Path) -> str:
    """What the lab does with an upload, by the code that the page's processes run: "opened", or the sentence that refuses it."""
    from llm import files, lessons, rows, tables
    from llm.convert import describe

    def refused(work: Callable[[], Any]) -> str:
        try:
            work()
            return "opened"
        except ValueError as error:
            if traceback.extract_tb(error.__traceback__)[-1].filename.startswith(str(ROOT)):
                return str(error)
            raise  # a library's error is no sentence of ours

    if path.is_dir() or path.suffix in (".gguf", ".safetensors", ".pt"):
        found = describe.answer(path.name, lambda: describe.model(path, n_head=2))
        also = describe.answer(path.name, lambda: describe.encoding(path)) if path.is_dir() else found
        return next((one["error"] for one in (found, also) if "error" in one), "opened")
    if path.name == "lesson.md":
        return refused(lambda: lessons.parsed("lesson", lessons.text_of(path.read_bytes(), "lesson")))
    if path.name.startswith("rows"):
        return refused(lambda: rows.check(tables.read(path)))
    return refused(lambda: files.read_text(path))


def child(path: Path, answers: int) -> None:
    """Open one file in this forked process, within limits, and end."""
    import resource

    from llm.convert import describe

    describe.limit(30, 2**30)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        said = opened(path)
    except BaseException:
        said = "TRACEBACK " + traceback.format_exc()[-1500:]
    os.write(answers, said.encode("utf-8", "replace")[:4000])
    os._exit(0)


def tried(path: Path) -> tuple[str, float]:
    """(what was said, seconds) of a file, opened in a child."""
    reading, writing = os.pipe()
    began, pid = time.monotonic(), os.fork()
    if pid == 0:
        os.close(reading)
        child(path, writing)
    os.close(writing)
    ready = select.select([reading], [], [], HANG)[0]
    said = os.read(reading, 5000).decode("utf-8", "replace") if ready else ""
    if not ready:
        os.kill(pid, signal.SIGKILL)
        said = f"HANG over {HANG:g} s"
    os.close(reading)
    _, status = os.waitpid(pid, 0)
    took = time.monotonic() - began
    if status and ready and not said:
        said = f"CRASH with status {os.waitstatus_to_exitcode(status)}"
    return said, took


def fuzz(work: Path, count: int, seed: int) -> dict[str, Any]:
    """Change files and open them, `count` times."""
    draw, found, wrong = random.Random(seed), {"opened": 0, "refused": 0}, []
    base = work / "base"
    base.mkdir(parents=True)
    seeds(base)
    choices = [
        path
        for path in sorted(base.rglob("*"))
        if path.is_file() and path.suffix in (*TEXT_KINDS, *MODEL_KINDS)
    ]
    kinds: dict[str, int] = {}
    slowest = 0.0
    for i in range(count):
        file = draw.choice(choices)
        place = work / "case"
        shutil.rmtree(place, ignore_errors=True)
        if file.parent == base:
            place.mkdir()
            target = place / file.name
            target.write_bytes(mutant(file.read_bytes(), draw))
        else:
            shutil.copytree(file.parent, place)
            (place / file.name).write_bytes(mutant(file.read_bytes(), draw))
            target = place
        said, took = tried(target)
        slowest = max(slowest, took)
        kind = file.parent.name if file.parent != base else "".join(file.suffixes[-2:]).lstrip(".")
        kinds[kind] = kinds.get(kind, 0) + 1
        found["opened" if said == "opened" else "refused"] += 1
        odd = said.startswith(("TRACEBACK", "HANG", "CRASH")) or "nobody here thought of" in said
        if odd or not (said == "opened" or said.rstrip().endswith((".", ")", "?", ":", '"', "…"))):
            wrong.append(f"case {i} (seed {seed}), {file.relative_to(base)}: {said[:900]}")
    return {**found, "kinds": kinds, "slowest": slowest, "wrong": wrong}


def check(lab: Lab, count: int = 10_000, seed: int = 0) -> dict[str, Any]:
    """In two processes, each of which imports everything once and forks a child for every file."""
    code = "import json, sys; from pathlib import Path; from assure import uploads; print(json.dumps(uploads.fuzz(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))"  # fmt: skip
    found, processes = [], []
    with lab.log.open("ab") as log:
        for half in range(2):
            home = lab.home / f"fuzz-{half}"
            environment = os.environ | {
                "LLM_HOME": str(home),
                "OMP_NUM_THREADS": "1",
                "TOKENIZERS_PARALLELISM": "false",
            }
            words = [sys.executable, "-c", code, str(home / "work"), str(count // 2), str(2 * seed + half)]
            processes.append(
                subprocess.Popen(words, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=log)
            )
        for process in processes:
            said, _ = process.communicate()
            if process.returncode:
                raise RuntimeError(
                    f"The process that forks ended with status {process.returncode}; see {lab.log}."
                )
            found.append(json.loads(said.splitlines()[-1]))
    wrong = [one for half in found for one in half["wrong"]]
    slowest = max(half["slowest"] for half in found)
    kinds = {kind: sum(half["kinds"].get(kind, 0) for half in found) for kind in found[0]["kinds"]}
    figures = {
        "files": count // 2 * 2, "kinds": kinds, "opened": sum(half["opened"] for half in found),
        "refused in a sentence": sum(half["refused"] for half in found) - len(wrong), "slowest s": slowest,
        "crash, hang or traceback": len(wrong),
    }  # fmt: skip
    return {"figures": figures, "pass": not wrong and slowest < HANG, "what went wrong": wrong[:8]}
