"""ZeroGPU: what is asked in a forked process answers as the plain way does; what the GPU refuses, the processor answers."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import pickle
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import gradio as gr
import numpy as np
import pytest
import torch

from llm import engine, paths, zero
from llm.checkpoint import save_model
from llm.config import ModelConfig, SampleConfig
from llm.model import GPT
from llm.tokenizer import ByteTokenizer
from ui import keeping
from ui.tabs import finetune, train
from ui.view import View

ROOT = Path(__file__).resolve().parent.parent
TEXT = "the owl and the fox went down to look for a red boat. "
LONG = SampleConfig(max_new_tokens=12, temperature=0.8, top_k=20, seed=3, stop_at_eot=False)
ASKED = {
    "score": dict(text=TEXT),
    "explain": dict(text=TEXT, config=SampleConfig()),
    "trace": dict(text=TEXT, layer=1, training=True, dropout=0.2, seed=5),
    "cell": dict(text=TEXT, layer=1, head=2, row=5, column=3),
    "lens": dict(text=TEXT),
    "block": dict(text=TEXT, layer=1),
    "beyond": dict(text=TEXT * 8),
    "text_score": dict(text=TEXT * 4, drawn=9),
}


@pytest.fixture
def tiny(home):
    """A model of rotary positions, so that it can be asked beyond its context."""
    torch.manual_seed(0)
    shape = dict(vocab_size=257, context_length=64, n_layer=2, n_head=4, n_kv_head=2, n_embd=32)
    model = GPT(ModelConfig(**shape))
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.15)
    save_model(paths.models() / "tiny", model.eval(), ByteTokenizer(), "# tiny\n")
    return "tiny"


@pytest.fixture
def every_model(monkeypatch):
    monkeypatch.setenv("LLM_GPU_FROM_MB", "0")


@pytest.fixture
def made():
    """Engines made with this are closed."""
    kept = []

    def make(work=zero.work) -> zero.Lent:
        kept.append(zero.Lent(work))
        return kept[-1]

    yield make
    for one in kept:
        one.close()


def same(a, b) -> bool:
    """Equal but for the time it took; numbers to rounding."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a if key != "seconds")
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b))
    if isinstance(a, (float, np.ndarray)):
        return np.allclose(a, b, atol=1e-5, equal_nan=True)
    return a == b


def plainly() -> dict:
    """What all requests of ASKED and a text give in this process."""
    inline = engine.Inline()
    answers = {op: inline.call(op, "tiny", **plain) for op, plain in ASKED.items()}
    return answers | {
        "text": [step for steps in inline.generate("tiny", ["a", "the "], LONG) for step in steps]
    }


# --- in a process of its own, as on such a Space: a page that never computes, and a function that runs in a fork of it

FORKED = """
import multiprocessing, sys, types

fork = multiprocessing.get_context("fork")

class Once:  # one process for all calls, as a Space keeps it while nobody else wants the GPU
    process = None

def serve(task, asked, said):
    while True:
        arguments = asked.get()
        for value in task(*arguments):
            said.put((True, value))
        said.put((False, None))

def GPU(duration):
    def marked(task):
        asked, said = fork.SimpleQueue(), fork.SimpleQueue()
        def call(*arguments):
            assert 0 < duration(*arguments) <= 60
            if Once.process is None:
                Once.process = fork.Process(target=serve, args=(task, asked, said), daemon=True)
                Once.process.start()
            asked.put(arguments)
            more, value = said.get()
            try:
                while more:
                    yield value
                    more, value = said.get()
            finally:  # a text that nobody reads on is read to its end
                while more:
                    more, value = said.get()
        return call
    return marked

sys.modules["spaces"] = types.SimpleNamespace(GPU=GPU)
"""
# PyTorch's CPU build lacks what the package touches while it is imported; moving tensors to a GPU is left out
REAL = """
import sys, torch

def _is_in_bad_fork():
    return False

torch.version.cuda, torch._C._cuda_init, torch.cuda._is_in_bad_fork = "12.8", lambda: None, _is_in_bad_fork
import gradio, spaces
from spaces.zero import torch as lent
lent.init, lent.move = lambda uuid: None, lambda callback=None: None
"""
ASK = """
import fcntl, pickle, sys
from llm import engine, paths, zero

with open(sys.argv[1], "rb") as f:
    ASKED, LONG = pickle.load(f)
held = open(paths.home() / "lock", "w")  # by the page, at the moment of the fork
fcntl.flock(held, fcntl.LOCK_EX)
assert zero.is_here()
zero.install()
asked = engine.get()
assert isinstance(asked, zero.Lent)
answers = {op: asked.call(op, "tiny", **plain) for op, plain in ASKED.items()}
held.close()
with open(paths.home() / "lock") as again:
    fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises where the fork holds it still
answers["text"] = [step for steps in asked.generate("tiny", ["a", "the "], LONG) for step in steps]
left = asked.generate("tiny", ["a"], LONG)
next(left)
left.close()
try:
    asked.trace("tiny", text="a", layer=7)
except ValueError as error:
    answers["refused"] = str(error)
answers["computed here"] = zero.models.cache_info().currsize
answers["the worker was asked"] = asked.processor.child is not None
with open(sys.argv[2], "wb") as f:
    pickle.dump(answers, f)
"""


def apart(folder: Path, way: str, **variables: str) -> dict:
    """What ASK is answered in a fresh process in which `way` has put the package `spaces`."""
    env = os.environ | {
        "SPACES_ZERO_GPU": "true",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        **variables,
    }
    env.pop("LLM_ENGINE", None)
    (folder / "asked").write_bytes(pickle.dumps((ASKED, LONG)))
    done = subprocess.run(
        [sys.executable, "-c", way + ASK, str(folder / "asked"), str(folder / "answers")], cwd=ROOT, env=env, capture_output=True,
        text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return pickle.loads((folder / "answers").read_bytes())


def held_against_the_plain_way(answers: dict) -> None:
    assert answers.pop("computed here") == 0 and answers.pop("the worker was asked") is False
    assert "layer" in answers.pop("refused")
    expected = plainly()
    assert answers.keys() == expected.keys()
    for op, value in expected.items():
        assert same(answers[op], value), op


def test_a_forked_process_answers_as_the_plain_way_does(tiny, every_model, tmp_path):
    held_against_the_plain_way(apart(tmp_path, FORKED))


class Lender(BaseHTTPRequestHandler):
    """The Space's service that lends GPUs, as the package `spaces` asks it."""

    def do_POST(self) -> None:
        path = self.path.partition("?")[0]
        self.server.asked.append(path)
        lent = {"idle": True, "nvidiaIndex": 0, "nvidiaUUID": "none", "allowToken": "x"}
        body = json.dumps(lent if path == "/schedule" else {}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_) -> None:
        """Silent."""


@pytest.mark.skipif(
    importlib.util.find_spec("spaces") is None,
    reason="spaces is not installed (a Space on ZeroGPU brings it): pip install spaces",
)
def test_the_package_itself_answers_as_the_plain_way_does(tiny, every_model, tmp_path):
    """Its scheduling, forking, pickling and streaming are the package's own; only the GPU is not there."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Lender)
    server.asked = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    group = tmp_path / "cgroup"
    group.write_text("12:devices:/a/b\n0::/a\n")
    try:
        answers = apart(
            tmp_path, REAL, SPACES_ZERO_DEVICE_API_URL=f"http://127.0.0.1:{server.server_address[1]}",
            ZEROGPU_PROC_SELF_CGROUP_PATH=str(group), no_proxy="127.0.0.1",
        )  # fmt: skip
    finally:
        server.shutdown()
        server.server_close()
    assert server.asked.count("/schedule") == server.asked.count("/release") == len(ASKED) + 3
    assert server.asked.count("/allow") == 1  # one process, kept
    held_against_the_plain_way(answers)


# --- what is asked where


def test_only_large_models_in_full_precision_are_asked_where_the_gpu_is(tiny, made, monkeypatch):
    one, plain = made(), dict(text=TEXT)
    assert not one.is_for_gpu("score", tiny, plain)
    size = (paths.model_folder(tiny) / "model.safetensors").stat().st_size / 1e6
    monkeypatch.setenv("LLM_GPU_FROM_MB", str(size + 0.001))
    assert not one.is_for_gpu("score", tiny, plain)
    monkeypatch.setenv("LLM_GPU_FROM_MB", str(size - 0.001))
    assert one.is_for_gpu("score", tiny, plain) and one.is_for_gpu("generate", tiny, dict(config=LONG))
    assert not one.is_for_gpu("info", tiny, {}) and not one.is_for_gpu("score", "nobody", plain)
    small = [SampleConfig(), SampleConfig(weights="int8")]
    assert not one.is_for_gpu("generate", tiny, dict(config=small))


def test_the_time_asked_for_grows_with_the_text_and_has_an_end():
    short, long, endless = (dict(config=[SampleConfig(max_new_tokens=n)]) for n in (0, 400, 100_000))
    assert zero.seconds("generate", "m", short) == zero.seconds("score", "m", {}) == 20
    assert zero.seconds("generate", "m", long) == 40 and zero.seconds("generate", "m", endless) == 60


# --- what goes wrong


def refuses(op, model, plain):
    """As `spaces` does it when a visitor's time is used up: with an error of Gradio's."""
    raise gr.Error("You have exceeded your quota")
    yield


def fails(op, model, plain):
    yield "failed", "RuntimeError: CUDA error"


@pytest.mark.parametrize(("work", "said"), [(refuses, "exceeded your quota"), (fails, "CUDA error")])
def test_what_the_gpu_does_not_answer_the_processor_does(tiny, every_model, made, caplog, work, said):
    one, inline = made(work), engine.Inline()
    with caplog.at_level(logging.WARNING, "llm-lab"):
        assert same(one.score(tiny, text=TEXT), inline.score(tiny, text=TEXT))
        steps = [step for steps in one.generate(tiny, ["a"], LONG) for step in steps]
    assert same(steps, [step for steps in inline.generate(tiny, ["a"], LONG) for step in steps])
    assert caplog.text.count(said) == 2


def test_a_gpu_taken_back_in_the_middle_is_a_sentence(tiny, every_model, made):
    def cut(op, model, plain):
        yield "steps", [{"text": "a"}]
        raise gr.Error("GPU task aborted")

    stream = made(cut).generate(tiny, ["a"], LONG)
    assert next(stream) == [{"text": "a"}]
    with pytest.raises(ValueError, match="taken back"):
        next(stream)


def test_what_the_model_refuses_is_not_asked_again(tiny, every_model, made):
    one = made()
    with pytest.raises(ValueError, match="layer"):
        one.trace(tiny, text="a", layer=7)
    assert one.processor.child is None


def test_leaving_a_text_gives_the_gpu_back(tiny, every_model, made):
    closed = []

    def endless(op, model, plain):
        try:
            while True:
                yield "steps", []
        finally:
            closed.append(model)

    stream = made(endless).generate(tiny, ["a"], LONG)
    next(stream)
    stream.close()
    assert closed == [tiny]


# --- the page


@pytest.fixture
def no_engine(monkeypatch):
    """What is given to `engine.use` is forgotten again."""
    monkeypatch.delenv("LLM_ENGINE", raising=False)
    monkeypatch.setattr(engine, "_engines", {})


def test_without_the_package_the_processor_answers(no_engine, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "spaces", None)
    with caplog.at_level(logging.WARNING, "llm-lab"):
        zero.install()
    assert "`spaces` is missing" in caplog.text and isinstance(engine.get(), engine.Remote)


def test_with_it_the_page_asks_the_marked_function(no_engine, monkeypatch):
    marked, package = [], ModuleType("spaces")
    package.GPU = lambda duration: lambda task: marked.append((task, duration)) or task
    monkeypatch.setitem(sys.modules, "spaces", package)
    zero.install()
    assert marked == [(zero.work, zero.seconds)] and isinstance(engine.get(), zero.Lent)
    monkeypatch.setenv("LLM_ENGINE", "inline")
    assert isinstance(engine.get(), engine.Inline)


@pytest.mark.parametrize("tab", [train, finetune])
def test_where_models_are_trained_the_page_says_that_no_gpu_does_it(home, monkeypatch, tab):
    def shown() -> list[str]:
        with gr.Blocks() as page, gr.Tab("a") as item:
            tab.build(View("a", item))
        return [one.value for one in page.blocks.values() if isinstance(one, gr.HTML)]

    assert keeping.where_trained() == "" and "processor of this Space" not in str(shown())
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    assert "Trainings run on the processor of this Space" in keeping.where_trained()
    assert keeping.where_trained() in shown()
