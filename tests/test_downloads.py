"""Downloads against a local server that cuts, resumes, changes its mind and lies."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import http.server
import threading

import pytest

from llm import paths
from llm.corpora import downloads

BODY = bytes(range(256)) * 2000  # 512,000 bytes
SHA = hashlib.sha256(BODY).hexdigest()


class Server:
    """One file at /text; `cut` bytes are sent of the first answer, `ranges` says whether Range is obeyed."""

    def __init__(self):
        self.body, self.etag, self.cut, self.ranges, self.shift, self.asked = BODY, '"v1"', None, True, 0, []
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                owner.answer(self)

            def log_message(self, *_):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/text"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def answer(self, request) -> None:
        asked = request.headers.get("Range")
        self.asked.append(asked)
        if request.path != "/text":
            return request.send_error(404)
        start = (
            int(asked[6:-1]) if asked and self.ranges and request.headers.get("If-Range") == self.etag else 0
        )
        if start >= len(self.body):
            return request.send_error(416)
        request.send_response(206 if start else 200)
        if start:
            request.send_header(
                "Content-Range", f"bytes {start + self.shift}-{len(self.body) - 1}/{len(self.body)}"
            )
        request.send_header("Content-Length", str(len(self.body) - start))
        request.send_header("ETag", self.etag)
        request.end_headers()
        request.wfile.write(self.body[start : self.cut])
        self.cut = None


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setenv("LLM_HOME", str(tmp_path))
    server = Server()
    text = downloads.Download("A text", "for tests", server.url, len(BODY), "MIT", SHA, name="a-text")
    monkeypatch.setitem(downloads.DOWNLOADS, "a-text", text)
    monkeypatch.setitem(
        downloads.DOWNLOADS, "unpinned", dataclasses.replace(text, sha256=None, name="unpinned")
    )
    yield server
    server.http.shutdown()
    server.http.server_close()


def leftovers():
    return sorted(p.name for p in paths.datasets().iterdir() if "part" in p.name)


def test_whole_file_with_progress(server):
    seen = []
    path = downloads.fetch("a-text", progress=lambda done, total: seen.append((done, total)))
    assert path == paths.datasets() / "a-text.txt" and path.read_bytes() == BODY
    assert seen[0] == (0, len(BODY)) and seen[-1] == (len(BODY), len(BODY)) and len(seen) > 3
    assert leftovers() == []
    downloads.fetch("a-text")
    assert len(server.asked) == 1  # the second time it is here already


def test_a_cut_download_goes_on_where_it_stopped(server):
    server.cut = 200_000
    with pytest.raises(ValueError, match=r"cut after 200,000 of 512,000 bytes"):
        downloads.fetch("a-text")
    assert not (paths.datasets() / "a-text.txt").exists()
    seen = []
    assert downloads.fetch("a-text", progress=lambda done, total: seen.append(done)).read_bytes() == BODY
    assert server.asked == [None, "bytes=200000-"] and seen[0] == 200_000


@pytest.mark.parametrize("change", ["ignores Range", "has a new version"])
def test_a_server_that_sends_everything_again(server, change):
    server.cut = 200_000
    with pytest.raises(ValueError):
        downloads.fetch("unpinned")
    if change == "ignores Range":
        server.ranges = False
    else:
        server.body, server.etag = BODY[::-1], '"v2"'
    assert downloads.fetch("unpinned").read_bytes() == server.body


def test_a_server_that_sends_another_part(server):
    server.cut = 200_000
    with pytest.raises(ValueError):
        downloads.fetch("a-text")
    server.shift = 5
    with pytest.raises(ValueError, match="another part"):
        downloads.fetch("a-text")
    server.shift = 0
    assert downloads.fetch("a-text").read_bytes() == BODY


def test_without_a_mark_of_the_version_nothing_is_resumed(server):
    server.cut, server.etag = 200_000, ""
    with pytest.raises(ValueError):
        downloads.fetch("a-text")
    downloads.fetch("a-text")
    assert server.asked == [None, None]


@pytest.mark.parametrize("body", [BODY[:-1], BODY[:-1] + b"!"], ids=["size", "hash"])
def test_wrong_bytes_are_thrown_away(server, body):
    server.body = body
    with pytest.raises(ValueError, match="thrown away"):
        downloads.fetch("a-text")
    assert not (paths.datasets() / "a-text.txt").exists()
    server.body = BODY
    assert downloads.fetch("a-text").read_bytes() == BODY


def test_first_download_pins_and_a_later_one_must_agree(server):
    assert downloads.trust("a-text") == "verified by SHA-256" and downloads.trust("unpinned") == "unverified"
    path = downloads.fetch("unpinned")
    assert SHA[:12] in downloads.trust("unpinned")
    path.unlink()
    server.body = BODY[::-1]
    with pytest.raises(ValueError, match="SHA-256"):
        downloads.fetch("unpinned")


def test_stopped_by_the_person_then_resumed(server):
    steps = downloads.steps("a-text")
    while next(steps)[0] < 100_000:
        pass
    steps.close()
    have = (paths.datasets() / ".a-text.txt.part").stat().st_size
    with pytest.raises(downloads.Cancelled):
        downloads.fetch("a-text", cancelled=lambda: True)
    assert downloads.fetch("a-text").read_bytes() == BODY
    assert server.asked[1] == f"bytes={have}-" and have >= 100_000


@pytest.mark.parametrize(
    ("url", "said"),
    [("/missing", "does not have A text any more .404."), (None, "Is there a network")],
    ids=["404", "no network"],
)
def test_sentences(server, monkeypatch, url, said):
    text = downloads.DOWNLOADS["a-text"]
    where = server.url.replace("/text", url) if url else "http://127.0.0.1:9/text"
    monkeypatch.setitem(downloads.DOWNLOADS, "a-text", dataclasses.replace(text, url=where))
    with pytest.raises(ValueError, match=said):
        downloads.fetch("a-text")


def test_disk_full_says_so_and_leaves_no_text(server, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(downloads.os, "fsync", full)
    with pytest.raises(ValueError, match="disk is full: A text needs 512,000 bytes"):
        downloads.fetch("a-text")
    assert not (paths.datasets() / "a-text.txt").exists()


def test_unknown_name():
    with pytest.raises(ValueError, match="no download called 'nothing'"):
        downloads.fetch("nothing")


def test_table():
    for name, text in downloads.DOWNLOADS.items():
        assert (
            paths.checked_name(text.file)
            and text.url.startswith("https://")
            and text.licence
            and text.name == name
        )
    # Hashes are written down only for bytes that were hashed.
    assert {n for n, t in downloads.DOWNLOADS.items() if t.sha256} == {"tiny-shakespeare", "the-verdict"}
