"""Behind a reverse proxy that gives the page a folder of its site: everything is asked for and answered in that folder."""

from __future__ import annotations

import http.client
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.browser.conftest import start_server, stop_server

PREFIX = "/class/llm"
TABS = "tokens playground models"
PER_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "host"}


class Proxy(BaseHTTPRequestHandler):
    """Takes the prefix off and passes everything on, piece by piece; what lies outside the prefix is not found."""

    def forward(self) -> None:
        answers: list[tuple[str, int]] = self.server.answers
        if self.path == "/favicon.ico":  # every browser asks the site for it by itself
            return self.send_response(204) or self.end_headers()
        if not self.path.startswith(PREFIX + "/"):
            answers.append((self.path, 404))
            return self.send_error(404)
        length = int(self.headers.get("Content-Length", 0))
        inner = http.client.HTTPConnection("127.0.0.1", self.server.inner, timeout=60)
        headers = {k: v for k, v in self.headers.items() if k.lower() not in PER_HOP}
        headers["Host"] = self.headers["Host"]
        inner.request(self.command, self.path[len(PREFIX) :], self.rfile.read(length), headers)
        answer = inner.getresponse()
        answers.append((self.path, answer.status))
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in PER_HOP:
                self.send_header(name, value)
        self.send_header("Connection", "close")
        self.end_headers()
        try:
            while piece := answer.read1(65536):
                self.wfile.write(piece)
                self.wfile.flush()
        except (BrokenPipeError, ConnectionResetError):
            pass  # the browser left, as it does from a stream
        inner.close()

    do_GET = do_POST = do_HEAD = do_DELETE = forward

    def log_message(self, *_) -> None:
        """Silent."""


@pytest.fixture(scope="module")
def proxy():
    """A proxy on a port of its own; `inner` is where it passes things on to, `answers` what it saw."""
    running = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    running.daemon_threads = True
    running.answers, running.inner = [], 0
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield running
    running.shutdown()
    running.server_close()


@pytest.fixture(scope="module")
def server(tmp_path_factory, port, proxy):
    """The page as the proxy shows it: what a test's browser asks for outside of its address is a problem of that test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_ROOT_PATH", PREFIX)
        running = start_server(tmp_path_factory.mktemp("proxied") / "home", port=port, tabs=TABS)
    proxy.inner = port
    yield replace(running, url=f"http://127.0.0.1:{proxy.server_address[1]}{PREFIX}")
    stop_server(running)


def test_streams_uploads_and_downloads_stay_in_the_folder(page, server, proxy, tmp_path):
    page.goto(f"{server.url}/?tab=tokens&tokens.encoding=byte")
    page.wait_for_selector("#tokens-view .tk-text")
    text = tmp_path / "own.txt"
    text.write_text("A text of my own: naïve.", encoding="utf-8")
    page.set_input_files("#tab-tokens input[type=file]", text)
    page.wait_for_function("document.querySelector('#tokens-count').textContent === '25'")

    page.click("#tab-playground-button")
    page.wait_for_selector("#playground-text-a .pg-new")
    page.fill("#playground-prompt textarea", "Long ago, a")
    page.keyboard.press("Control+Enter")
    page.wait_for_function(
        "document.querySelector('#playground-text-a').textContent.startsWith('Long ago, a')"
    )
    page.wait_for_function("document.querySelector('#playground-text-a .pg-new').textContent.length > 60")

    page.goto(f"{server.url}/?tab=models&models.room=take&models.model=verse-char&models.format=notebook")
    page.wait_for_selector("#models-export:enabled")
    page.click("#models-export")
    page.wait_for_selector(".tf-card .tf-fetch")
    with page.expect_download() as download:
        page.click(".tf-card .tf-fetch")
    assert download.value.suggested_filename.endswith(".ipynb")

    assert page.url.startswith(server.url + "/?")
    assert all(status < 400 for _, status in proxy.answers), proxy.answers
    seen = " ".join(path for path, _ in proxy.answers)
    assert all(part in seen for part in ("/queue/join", "/upload", "/lab/download/"))
