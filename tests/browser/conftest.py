"""The page as a student meets it: the real `python app.py` in a process of its own, seen through Chromium."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
START_SECONDS = 120  # a cold, busy machine; how fast the page really starts is bench/page.py's business
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",  # nothing leaves this machine
]


def pytest_collection_modifyitems(items) -> None:
    """Whatever lies in this folder is a browser test, and is tried once more when it fails: two pages, two browsers and a
    training share two cores. What passed only the second time is counted as "rerun" in the last line; look at it."""
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.flaky(reruns=1))


@dataclass
class Server:
    """The running page: where it answers, where its runs and models lie, and what it printed."""

    url: str
    home: Path
    log: Path
    process: subprocess.Popen


def too_early(message) -> bool:
    """Whether Gradio's own client called off an event to which the server had given no number yet."""
    address = message.location.get("url", "")
    return "422" in message.text and address.endswith(("/gradio_api/cancel", "/gradio_api/reset"))


CUT_OFF = ("AbortError", "Connection errored out", "Failed to fetch")


def forget_cut_off(problems: list[str]) -> None:
    """Take out what Gradio prints about requests that leaving a page cut off: that is no fault."""
    problems[:] = [problem for problem in problems if not any(word in problem for word in CUT_OFF)]


def free_port() -> int:
    """A port nobody listens on at this moment."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def answers(url: str) -> bool:
    """Whether the page answers with status 200."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status == 200
    except (OSError, urllib.error.URLError):
        return False


def start_server(home: Path, *arguments: str, port: int | None = None, tabs: str = "") -> Server:
    """`python app.py` with `tabs` (all by default) on a free port of this machine; returns when the page answers."""
    port = port or free_port()
    home.mkdir(parents=True, exist_ok=True)
    log = home / "server.log"
    env = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    env |= {
        "LLM_HOME": str(home),
        "LLM_TABS": tabs,
        "LLM_NICE": "0",
    }  # a test waits for its run: nothing else is to go before it
    with log.open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "app.py", "--no-browser", "--port", str(port), *arguments],
            cwd=ROOT,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = Server(f"http://127.0.0.1:{port}", home, log, process)
    deadline = time.monotonic() + START_SECONDS
    while not answers(server.url):
        if process.poll() is not None or time.monotonic() > deadline:
            stop_server(server)
            raise RuntimeError(f"The page did not start:\n{log.read_text(errors='replace')[-4000:]}")
        time.sleep(0.05)
    return server


def descendants(pid: int) -> list[int]:
    """Process ids below `pid`, children first (Linux; elsewhere none)."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            child, parent = int(stat.parent.name), int(stat.read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            continue
        if parent == pid:
            found += [child, *descendants(child)]
    return found


def stop_server(server: Server) -> None:
    """End the page, its engine and the runs it started (those live in sessions of their own)."""
    for run in (server.home / "runs").glob("*/"):
        (run / "stop").touch()
    below = descendants(server.process.pid)
    server.process.terminate()
    try:
        server.process.wait(10)
    except subprocess.TimeoutExpired:
        server.process.kill()
        server.process.wait(10)
    for pid in below:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


@pytest.fixture(scope="session")
def port():
    """The port of all pages of this process, one after the other: the browser keeps their scripts by address."""
    return free_port()


@pytest.fixture(scope="module")
def server(request, tmp_path_factory, port):
    """The page for the browser tests of one file, with a home of its own and the tabs that the file's TABS names.

    Every test opens the page anew, and a page of one tab opens in half the time of the whole.
    """
    home = tmp_path_factory.mktemp("page") / "home"
    running = start_server(home, port=port, tabs=getattr(request.module, "TABS", ""))
    yield running
    stop_server(running)


@pytest.fixture(scope="session")
def browser():
    """Chromium without a window. Missing: a failure in CI, a skip with its reason elsewhere."""
    playwright = pytest.importorskip("playwright.sync_api")
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        reason = (
            "No Chromium here (looked for "
            + ", ".join(BROWSERS)
            + " and $CHROMIUM): browser tests did not run."
        )
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    with playwright.sync_playwright() as p:
        chromium = p.chromium.launch(executable_path=path, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def warm(browser, port):
    """A browser context that keeps the page's scripts from test to test, as a student's browser does."""
    return browser.new_context(base_url=f"http://127.0.0.1:{port}", accept_downloads=True)


def emptied(context, url: str):
    """The same context without cookies and stored values."""
    context.clear_cookies()
    page = context.new_page()
    storage = context.new_cdp_session(page)
    storage.send("Storage.clearDataForOrigin", {"origin": url, "storageTypes": "local_storage,indexeddb"})
    page.close()
    return context


def stop_runs(server: Server) -> None:
    """Ask what a test left running to stop: the next test's run would wait for it."""
    for run in (server.home / "runs").glob("[!.]*/"):
        events = (run / "events.jsonl").read_text().splitlines()
        if not events or json.loads(events[-1])["kind"] != "end":
            (run / "stop").touch()


@pytest.fixture
def new_page(browser, server, warm):
    """A function that opens a fresh page (own cookies, own storage): `new_page(width=390, dark=True)`.

    Its `problems` list gathers console errors, uncaught exceptions and requests to anywhere but the page's own server;
    what is still in it when the test ends fails the test.
    """
    opened = []

    def make(width: int = 1280, height: int = 900, dark: bool = False):
        if opened:  # the second browser of a test
            context = browser.new_context(base_url=server.url, accept_downloads=True)
        else:
            context = emptied(warm, server.url)
        context.set_default_timeout(60_000)
        page = context.new_page()
        page.set_viewport_size({"width": width, "height": height})
        page.emulate_media(color_scheme="dark" if dark else "light")
        page.problems = []

        def on_request(request) -> None:
            address = urllib.parse.urlsplit(request.url)
            if address.scheme in ("http", "https", "ws", "wss") and not request.url.startswith(
                (server.url, server.url.replace("http", "ws", 1))
            ):
                page.problems.append(f"request to another place: {request.url}")

        page.on("request", on_request)
        page.on("domcontentloaded", lambda: forget_cut_off(page.problems))  # another page, or this one again
        page.on("pageerror", lambda error: page.problems.append(f"uncaught: {error}"))
        page.on(
            "console",
            lambda message: (
                page.problems.append(f"console: {message.text} ({message.location.get('url', '')})")
                if message.type == "error" and not too_early(message)
                else None
            ),
        )
        opened.append((context, page))
        return page

    yield make
    problems = [problem for _, page in opened for problem in page.problems]
    for context, page in opened:
        page.close() if context is warm else context.close()
    stop_runs(server)
    assert not problems, "\n".join(problems)


@pytest.fixture
def page(new_page):
    """A fresh page at 1280x900; `page.goto("/?tab=tokens")` works."""
    return new_page()


@pytest.fixture
def open_tab(page):
    """`open_tab("tokens", **{"tokens.text": "hi"})`: the page at that tab with those values; waits until it is drawn."""

    def go(tab: str, **query: str):
        page.goto("/?" + urllib.parse.urlencode({"tab": tab, **query}))
        page.wait_for_selector("button[role=tab][aria-selected=true]")
        return page

    return go
