"""The lab as checks meet it: a server of its own, visitors with cookies, events called as the browser calls them."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from llm.runs import Run

ROOT = Path(__file__).resolve().parents[1]
START_SECONDS = 60
NAMES = """
import json, app
print(json.dumps({id: (one.fn.__module__, one.fn.__qualname__) for id, one in app.demo.fns.items() if one.fn is not None}))
"""


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Lab:
    """`python app.py` on a free port of this machine, with a home of its own."""

    def __init__(self, home: Path, mode: str = "class", **environment: str):
        self.home, self.port, self.log = home, free_port(), home / "server.log"
        home.mkdir(parents=True, exist_ok=True)
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment = os.environ | {
            "LLM_HOME": str(home), "LLM_MODE": mode, "LLM_TEACHER": "token-for-checks", "GRADIO_ANALYTICS_ENABLED": "False",
            **environment,
        }  # fmt: skip
        self.start()

    def start(self) -> float:
        """Start it, or start it again; seconds until it answered."""
        began = time.monotonic()
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "app.py", "--no-browser", "--host", "127.0.0.1", "--port", str(self.port)], cwd=ROOT,
                env=self.environment, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        while True:
            try:
                if httpx.get(self.url + "/health", timeout=5).status_code in (200, 503):
                    return time.monotonic() - began
            except httpx.HTTPError:
                pass
            if self.process.poll() is not None or time.monotonic() - began > START_SECONDS:
                raise RuntimeError(f"The lab did not start:\n{self.log.read_text(errors='replace')[-3000:]}")
            time.sleep(0.05)

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End the server process."""
        self.process.send_signal(how)
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(15)

    def close(self) -> None:
        """End the server and whatever runs it has started."""
        self.end()
        below = [path for path in (self.home / "runs").glob("[!.]*") if path.is_dir()]
        for path in below:
            (path / "stop").touch()
        until = time.monotonic() + 30
        while any(Run(path).locked() for path in below) and time.monotonic() < until:
            time.sleep(0.1)

    def memory(self) -> float:
        """Resident megabytes of the server process (without its engine and runs)."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024

    def config(self) -> dict[str, Any]:
        return httpx.get(self.url + "/config", timeout=30).json()

    def faults(self, since: int = 0) -> list[str]:
        """Errors of ours in the server's log after byte `since`: logged ones, and tracebacks that go through our files.

        What Gradio prints of itself is told apart by the frames.
        """
        text = self.log.read_bytes()[since:].decode(errors="replace")
        # the gate and the cookie stand around every request and are in the frames of whatever happens inside
        ours = re.compile(
            rf'File "{re.escape(str(ROOT))}/(?:app\.py|llm/|ui/(?!guard\.py|owner\.py|login\.py))'
        )
        blocks = re.split(r"(?m)^(?=Traceback )", text)[1:]
        found = [block.strip()[-1500:] for block in blocks if ours.search(block)]
        return found + re.findall(r"(?m)^.*error [0-9a-f]{6} in .*$", text)


class Visitor:
    """A browser without a screen: cookies, a session, events by their number."""

    def __init__(self, lab: Lab):
        self.lab, self.session = lab, secrets.token_hex(6)
        self.http = httpx.Client(base_url=lab.url, timeout=60, verify=False)
        self.http.get("/lab/hand-in")  # brings the cookie

    def call(self, id: int, data: list[Any], event_data: Any = None) -> httpx.Response:
        """An event outside the queue, as a click is."""
        return self.post("run/predict", self.body(id, data, event_data))

    def body(self, id: int, data: list[Any], event_data: Any = None) -> dict[str, Any]:
        about = {"fn_index": id, "session_hash": self.session, "event_data": event_data, "trigger_id": None}
        return {"data": data, **about}

    def post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        """A request as the page's script sends it; half surrogates go as they are."""
        headers = {"content-type": "application/json"}
        return self.http.post(f"/gradio_api/{path}", content=json.dumps(body), headers=headers)

    def stream(self, id: int, data: list[Any]) -> Iterator[dict[str, Any]]:
        """An event through the queue: what the server says of it, message by message."""
        joined = self.post("queue/join", self.body(id, data))
        if joined.status_code != 200:
            raise httpx.HTTPStatusError(f"{joined.status_code}", request=joined.request, response=joined)
        with self.http.stream(
            "GET", "/gradio_api/queue/data", params={"session_hash": self.session}
        ) as answer:
            for line in answer.iter_lines():
                if line.startswith("data:"):
                    message = json.loads(line[5:])
                    yield message
                    if message["msg"] in ("process_completed", "close_stream", "unexpected_error"):
                        return

    def served(self, component: int, name: str, data: Any) -> httpx.Response:
        """A server function of a component of ours, as its script calls it."""
        about = {"component_id": component, "fn_name": name, "session_hash": self.session}
        return self.post("component_server", {"data": data, **about})

    def room(self, path: str, **body: Any) -> httpx.Response:
        """A route of the class."""
        return self.http.post(f"/lab/{path}", json=body)


class Page:
    """The page's events and widgets by name: the server's numbering, with the names of the handlers from the same build."""

    def __init__(self, lab: Lab):
        self.config = lab.config()
        self.components = {one["id"]: one for one in self.config["components"]}
        self.events = {one["id"]: one for one in self.config["dependencies"]}
        listed = subprocess.run(
            [sys.executable, "-c", NAMES], cwd=ROOT, env=lab.environment, capture_output=True, check=True
        )
        handlers = {int(id): both for id, both in json.loads(listed.stdout.splitlines()[-1]).items()}
        self.names = {id: name for id, (_, name) in handlers.items()}
        self.modules = {id: module for id, (module, _) in handlers.items()}

    def event(self, name: str) -> int:
        """The number of the handler `module.function`."""
        return next(
            id for id, own in self.names.items() if f"{self.modules[id].split('.')[-1]}.{own}" == name
        )

    def by_elem_id(self, elem_id: str) -> int:
        return next(id for id, one in self.components.items() if one["props"].get("elem_id") == elem_id)

    def values(self, event: int, **changed: Any) -> list[Any]:
        """What the widgets of an event hold as the page opens; `changed` by elem_id with _ for -."""
        found = []
        for id in self.events[event]["inputs"]:
            props = self.components.get(id, {"props": {}})["props"]
            key = str(props.get("elem_id") or "").replace("-", "_")
            found.append(changed.get(key, props.get("value")))
        return found
