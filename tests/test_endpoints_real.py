"""Real servers behind HTTP: llama.cpp's with SmolLM2, LitGPT's with a model made here, and this lab asking itself.

The first needs $LLAMA_CPP_PYTHON (an interpreter with llama-cpp-python and its server extra), the second an installed
litgpt with litserve; without them the tests say so and are skipped.
"""

from __future__ import annotations

import math
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import contextmanager

import pytest

from llm import endpoints, engine, speakers
from llm.config import SampleConfig
from llm.endpoints import Endpoint

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
HOW = SampleConfig(max_new_tokens=16, temperature=0.0)


@contextmanager
def running(command: list[str], path: str, seconds: float = 120, **more):
    """A server process on a free port ({port} in the command); ended afterwards."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryFile(
        "w+"
    ) as log:  # a pipe that nobody reads would fill up, and the server wait for ever
        process = subprocess.Popen(
            [part.format(port=port) for part in command],
            stdout=log,
            stderr=log,
            start_new_session=True,
            **more,
        )
        try:
            until = time.monotonic() + seconds
            while True:
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=2).read()
                    break
                except OSError:
                    log.seek(0)
                    assert process.poll() is None and time.monotonic() < until, log.read()[-2000:]
                    time.sleep(0.2)
            yield port
        finally:
            os.killpg(process.pid, 15)
            process.wait(20)


def test_llama_cpps_server_speaks_through_the_same_interface(smollm):
    python = os.environ.get("LLAMA_CPP_PYTHON", sys.executable)
    if subprocess.run([python, "-c", "import llama_cpp.server"], capture_output=True).returncode:
        pytest.skip("llama-cpp-python's server is not installed: name its interpreter in LLAMA_CPP_PYTHON")
    command = [python, "-m", "llama_cpp.server", "--model", str(smollm), "--port", "{port}", "--n_ctx", "512", "--model_alias", "smol"]  # fmt: skip
    with running(command, "/v1/models") as port:
        endpoint = endpoints.save(Endpoint("smol", "llamacpp", f"http://127.0.0.1:{port}", "smol"))
        found = endpoints.test(endpoint)
        assert "smol" in found["models"] and found["answer"].strip()
        ask = [{"role": "user", "content": "What is the capital of France? Answer in one word."}]
        pieces = list(speakers.speak("endpoint:smol", ask, HOW))
        text = "".join(piece.text for piece in pieces)
        print(f"SmolLM2 behind llama.cpp's server: {text!r}")
        assert "Paris" in text and pieces[-1].end in ("stop", "length")
        stopped = list(
            speakers.speak("endpoint:smol", ask, SampleConfig(max_new_tokens=400), stopped=lambda: True)
        )
        assert stopped[-1].end == "stopped"
        with pytest.raises(ValueError, match=r"has no model 'other'; it has: .*smol"):
            endpoints.test(Endpoint("other", "llamacpp", f"http://127.0.0.1:{port}", "other"))


def test_litgpts_own_server(home):
    pytest.importorskip("litgpt", reason="the package litgpt is not installed")
    pytest.importorskip("litserve", reason="the package litserve is not installed")
    export = [
        sys.executable,
        "-m",
        "llm.convert.export",
        "lit",
        "--model",
        "story-llama",
        "--format",
        "litgpt",
        "--dtype",
        "fp32",
    ]
    subprocess.run(export, check=True, capture_output=True, timeout=300)
    folder = next(path.parent for path in (home / "runs" / "lit").rglob("lit_model.pth"))
    command = [sys.executable, "-m", "litgpt", "serve", str(folder), "--port", "{port}", "--accelerator", "cpu", "--devices", "1", "--max_new_tokens", "16", "--top_k", "1"]  # fmt: skip
    prompt = "Long ago, a"
    expected = "".join(step["text"] for steps in engine.get().generate("story-llama", [prompt], [HOW]) for step in steps)  # fmt: skip
    with running(command, "/health") as port:
        endpoints.save(Endpoint("lit", "litgpt", f"http://127.0.0.1:{port}/predict", "story-llama"))
        text, end = speakers.answer("endpoint:lit", [{"role": "user", "content": prompt}], HOW)
        print(f"story-llama behind LitGPT: {text!r}; here: {expected!r}")
        assert end == "stop" and text.strip()[:20] in prompt + expected


def test_the_lab_asks_itself(tmp_path):
    """Text and probabilities that went round by /v1 are those of the engine."""
    with running([sys.executable, "app.py", "--no-browser", "--port", "{port}"], "/v1/models", env=os.environ | {"LLM_HOME": str(tmp_path / "other"), "LLM_TABS": "tokens"}) as port:  # fmt: skip
        endpoints.save(Endpoint("self", "lab", f"127.0.0.1:{port}", "story-instruct"))
        ask = [{"role": "user", "content": "What is the opposite of hot?"}]
        far = list(speakers.speak("endpoint:self", ask, HOW))
        near = list(speakers.speak("story-instruct", ask, HOW))
        assert "".join(p.text for p in far) == "".join(p.text for p in near)
        told = [math.log(t["probability"]) for p in far for t in p.tokens]
        own = [math.log(t["probability"]) for p in near for t in p.tokens]
        assert told == pytest.approx(own[: len(told)], abs=1e-3) and len(told) >= 2
