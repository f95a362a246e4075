"""Models behind HTTP: stubs that speak as OpenAI's and Anthropic's published references say, and servers that misbehave."""

from __future__ import annotations

import json
import math
import os
import stat
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from llm import endpoints
from llm.config import SampleConfig
from llm.endpoints import Endpoint

pytest.importorskip("any_llm")
KEY = "sk-canary-8421"
ASKED = [{"role": "user", "content": "Greet me."}]
HOW = SampleConfig(max_new_tokens=20, temperature=0.5, seed=3)


def chunk(content=None, finish=None, logprobs=None, **more):
    choice = {
        "index": 0,
        "delta": {"content": content} if content is not None else {},
        "finish_reason": finish,
    }
    if logprobs:
        choice["logprobs"] = {"content": logprobs}
    return {
        "id": "c1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [choice],
        **more,
    }


def sse(*events) -> bytes:
    return b"".join(b"data: " + (e if isinstance(e, bytes) else json.dumps(e, ensure_ascii=False).encode()) + b"\n\n" for e in events)  # fmt: skip


def token(text, p, *others):
    top = [{"token": t, "logprob": math.log(q), "bytes": None} for t, q in [(text, p), *others]]
    return {"token": text, "logprob": math.log(p), "bytes": None, "top_logprobs": top}


HELLO = sse(
    chunk(""),
    chunk("Grüß", logprobs=[token("Grüß", 0.5, ("Hallo", 0.25))]),
    chunk(" dich 🦉"),
    chunk(finish="stop"),
    {**chunk(), "choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 4, "total_tokens": 11}},
    b"[DONE]",
)
CLAUDE = b"".join(
    f"event: {event['type']}\ndata: {json.dumps(event, ensure_ascii=False)}\n\n".encode()
    for event in [
        {"type": "message_start", "message": {"id": "msg_1", "type": "message", "role": "assistant", "content": [], "model": "m", "stop_reason": None, "stop_sequence": None, "usage": {"input_tokens": 9, "output_tokens": 1}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "ping"},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Good "}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "day ☀"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": {"output_tokens": 5}},
        {"type": "message_stop"},
    ]
)  # fmt: skip


class Stub(BaseHTTPRequestHandler):
    """Answers as its server's `plan` says, and keeps what it was asked."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.seen.append(("GET", self.path, {k.lower(): v for k, v in self.headers.items()}, None))
        if self.path.rstrip("/").endswith("/models"):
            return self.say(200, json.dumps({"object": "list", "data": [{"id": "m", "object": "model", "created": 1, "owned_by": "x"}, {"id": "n", "object": "model", "created": 1, "owned_by": "x"}]}).encode())  # fmt: skip
        self.say(404, b"{}")

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append(("POST", self.path, {k.lower(): v for k, v in self.headers.items()}, body))
        plan = self.server.plan
        (plan.pop(0) if isinstance(plan, list) else plan)(self, body)

    def say(self, status, body, kind="application/json", **headers):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def stream(self, data, size=7, pause=0.0, whole=True):
        """The events in pieces of `size` bytes, so that characters and events are cut anywhere."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for i in range(0, len(data), size):
            part = data[i : i + size]
            try:
                self.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
                self.wfile.flush()
            except OSError:
                self.server.left.set()
                return
            time.sleep(pause)
        if whole:
            self.wfile.write(b"0\r\n\r\n")
        else:
            self.close_connection = True
            self.connection.close()

    def log_message(self, *_):
        """Silent."""


@pytest.fixture
def stub():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Stub)
    server.daemon_threads = True
    server.seen, server.left = [], threading.Event()
    server.plan = lambda request, body: request.stream(HELLO)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def saved(stub, preset="other", key=KEY, path="/v1", **more):
    address = f"http://127.0.0.1:{stub.server_address[1]}{path}"
    return endpoints.save(Endpoint("mine", preset, address, "m", **more), key)


def said(endpoint, how=HOW, **more):
    pieces = list(endpoints.speak(endpoint, ASKED, how, **more))
    return "".join(piece.text for piece in pieces), pieces


def test_an_answer_streams_with_its_probabilities_and_usage(stub):
    text, pieces = said(saved(stub, price_in=2.0, price_out=10.0))
    assert text == "Grüß dich 🦉" and "\ufffd" not in text
    assert pieces[0].tokens[0]["probability"] == pytest.approx(0.5)
    assert pieces[0].tokens[0]["top"][1] == ["Hallo", pytest.approx(0.25)]
    assert pieces[-1].end == "stop"
    assert pieces[-1].usage == {"prompt_tokens": 7, "completion_tokens": 4, "cost": pytest.approx(54e-6)}
    _, path, headers, body = stub.seen[-1]
    assert path == "/v1/chat/completions" and headers["authorization"] == f"Bearer {KEY}"
    assert (
        body["messages"] == ASKED
        and body["max_tokens"] == 20
        and body["seed"] == 3
        and body["stream"] is True
    )


@pytest.mark.parametrize("path", ["", "/", "/v1", "/v1/", "/v1/chat/completions"])
def test_every_spelling_of_an_address_is_the_same_server(stub, path):
    assert said(saved(stub, path=path))[0] == "Grüß dich 🦉" and stub.seen[-1][1] == "/v1/chat/completions"


def test_anthropic_in_its_own_way(stub):
    stub.plan = lambda request, body: request.stream(CLAUDE)
    text, pieces = said(saved(stub, "anthropic"))
    assert text == "Good day ☀" and pieces[-1].end == "stop" and pieces[-1].usage["completion_tokens"] == 5
    _, path, headers, _ = stub.seen[-1]
    assert path.startswith("/v1/messages") and headers["x-api-key"] == KEY
    assert endpoints.unheard(endpoints.get("mine"), SampleConfig(seed=3, top_k=5)) == ["top_k", "seed"]


def test_litgpts_own_way(stub):
    stub.plan = lambda request, body: request.say(200, json.dumps({"output": f"{body['prompt']} Hello!"}).encode())  # fmt: skip
    assert (
        said(saved(stub, "litgpt", path="/predict"))[0] == "Greet me. Hello!"
        and stub.seen[-1][1] == "/predict"
    )


def test_a_server_without_probabilities_is_asked_again_without(stub):
    def picky(request, body):
        if "logprobs" in body:
            return request.say(400, b'{"error": {"message": "logprobs are not supported"}}')
        request.stream(HELLO)

    stub.plan = picky
    assert said(saved(stub))[0] == "Grüß dich 🦉"


def test_stopping_ends_the_connection(stub):
    stub.plan = lambda request, body: request.stream(sse(*[chunk("word ")] * 4000), size=150, pause=0.02)
    began, stop = time.monotonic(), threading.Event()
    pieces = endpoints.speak(saved(stub), ASKED, HOW, stop.is_set)
    assert next(pieces).text == "word "
    stop.set()
    assert [piece.end for piece in pieces][-1] == "stopped"
    assert stub.left.wait(5) and time.monotonic() - began < 5


WRONG = {
    "key": (lambda r, b: r.say(401, b'{"error": {"message": "Incorrect API key sk-canary-8421"}}'), "The key is wrong"),
    "model": (lambda r, b: r.say(404, b'{"error": {"message": "no"}}'), "knows no model 'm'"),
    "question": (lambda r, b: r.say(400, b'{"error": {"message": "bad"}}'), "does not accept the question"),
    "own": (lambda r, b: r.say(501, b"oops", "text/html"), "a problem of its own"),
    "html": (lambda r, b: r.say(200, b"<html>hello</html>", "text/html"), "no reply in its language|ended in the middle"),
    "json": (lambda r, b: r.stream(sse(b"{not json")), "no reply in its language"),
    "utf8": (lambda r, b: r.stream(b"data: \xff\xfe\xfa\n\n"), "no reply in its language"),
    "middle": (lambda r, b: r.stream(HELLO[:150], whole=False), "ended in the middle"),
    "silent end": (lambda r, b: r.stream(sse(chunk("Half"))), "ended in the middle"),
    "redirect": (lambda r, b: r.say(302, b"", Location="http://127.0.0.1:1/v1"), "sends on to another address"),
    "huge": (lambda r, b: r.stream(sse(chunk("x" * 100_000)) * 100, size=200_000), "longer than 8 MB"),
    "patience": (lambda r, b: r.say(429, b"{}", Retry_After="999999"), "asks to wait 12 days"),
    "nonsense": (lambda r, b: r.say(429, b"{}", Retry_After="soon"), "asks to wait for years"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_goes_wrong_is_one_sentence_without_the_key(stub, case):
    stub.plan, sentence = WRONG[case]
    began = time.monotonic()
    with pytest.raises(ValueError, match=sentence) as error:
        said(saved(stub))
    assert KEY not in str(error.value) and "\n" not in str(error.value)
    assert error.value.__cause__ is None and time.monotonic() - began < 15


def test_what_was_said_before_it_broke_is_not_lost(stub):
    stub.plan = lambda request, body: request.stream(sse(chunk("Half")), whole=False)
    got = []
    with pytest.raises(ValueError, match="ended in the middle"):
        for piece in endpoints.speak(saved(stub), ASKED, HOW):
            got.append(piece.text)
    assert "".join(got) == "Half" and len(stub.seen) == 1  # not asked again: half an answer would come twice


def test_a_short_wait_is_waited_for(stub):
    stub.plan = [lambda r, b: r.say(429, b"{}", Retry_After="1"), lambda r, b: r.stream(HELLO)]
    began = time.monotonic()
    assert said(saved(stub))[0] == "Grüß dich 🦉" and time.monotonic() - began >= 1


def test_a_server_that_says_nothing_is_given_up(stub, monkeypatch):
    monkeypatch.setattr(endpoints, "FIRST_SECONDS", 1)
    stub.plan = lambda request, body: time.sleep(4)
    with pytest.raises(ValueError, match=r"has said nothing for 1 seconds|says nothing"):
        said(saved(stub))
    monkeypatch.setattr(endpoints, "ALL_SECONDS", 2)
    stub.plan = lambda request, body: request.stream(sse(*[chunk("x")] * 1000), size=120, pause=0.05)
    with pytest.raises(ValueError, match="needs too long"):
        said(saved(stub))


def test_nothing_there(stub):
    endpoint = endpoints.save(Endpoint("gone", "ollama", "127.0.0.1:9", "m"))
    assert endpoint.address == "http://127.0.0.1:9/v1"
    with pytest.raises(ValueError, match=r"Nothing answers at .*not running.*ollama serve"):
        said(endpoint)
    with pytest.raises(ValueError, match="no host called"):
        said(endpoints.save(Endpoint("far", "other", "http://nowhere.invalid/v1", "m")))


def test_the_test_says_what_there_is(stub):
    assert endpoints.test(saved(stub))["models"] == ["m", "n"]
    with pytest.raises(ValueError, match="has no model 'q'; it has: m, n"):
        endpoints.test(Endpoint("mine", "other", f"127.0.0.1:{stub.server_address[1]}", "q"))
    with pytest.raises(ValueError, match="needs the name of a model; it has: m, n"):
        endpoints.test(Endpoint("mine", "other", f"127.0.0.1:{stub.server_address[1]}", ""))


# --- keys


def test_a_key_lies_apart_and_goes_to_its_host_only(stub, home):
    endpoint = saved(stub)
    folder = home / "endpoints"
    assert KEY not in (folder / "mine.json").read_text()
    assert stat.S_IMODE(os.stat(folder / "keys").st_mode) == 0o600
    assert endpoints.key_of(endpoint) == KEY
    moved = endpoints.save(Endpoint("mine", "other", "http://127.0.0.1:9/v1", "m"))
    assert endpoints.key_of(moved) == ""
    endpoints.delete("mine")
    assert KEY not in (folder / "keys").read_text() and endpoints.names() == []


@pytest.mark.parametrize("key", ["sk-one\nsk-two", "sk one", "sk-ünicode", "s" * 500])
def test_what_is_no_key(key):
    with pytest.raises(ValueError, match="This is no key") as error:
        endpoints.save(Endpoint("mine", "openai", "https://api.openai.com/v1", "m"), key)
    assert key not in str(error.value)


def test_a_key_may_stay_in_the_environment(stub, monkeypatch):
    monkeypatch.setenv("SCHOOL_KEY", KEY)
    assert endpoints.key_of(saved(stub, key="env:SCHOOL_KEY")) == KEY


@pytest.mark.parametrize(
    "address", ["", "ftp://x/v1", "http://", "http://u:p@x/v1", "http://x:99999999/v1", "http://a b/v1"]
)
def test_what_is_no_address(address):
    with pytest.raises(ValueError):
        endpoints.checked_address(address)


# --- on a shared page


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "10.1.2.3", "100.64.0.9", "169.254.169.254", "[::1]", "localhost"]
)
def test_a_shared_page_asks_no_private_address(monkeypatch, host):
    monkeypatch.setenv("SPACE_ID", "someone/lab")
    endpoint = endpoints.save(Endpoint("mine", "other", f"https://{host}/v1", "m", "me"), KEY)
    with pytest.raises(ValueError, match="inside a private network") as error:
        said(endpoint)
    assert KEY not in str(error.value)
    with pytest.raises(ValueError, match="only https"):
        endpoints.save(Endpoint("mine", "other", f"http://{host}/v1", "m", "me"))


def test_a_shared_page_keeps_keys_in_memory_and_visitors_apart(monkeypatch, home):
    monkeypatch.setenv("SPACE_ID", "someone/lab")
    endpoints.save(Endpoint("mine", "openai", "https://api.openai.com/v1", "m", "me"), KEY)
    assert not (home / "endpoints" / "keys").exists() and endpoints.names("me") == ["mine"]
    assert endpoints.names("you") == []
    for act in (lambda: endpoints.get("mine", "you"), lambda: endpoints.delete("mine", "you")):
        with pytest.raises(ValueError, match="no endpoint called"):
            act()
    with pytest.raises(ValueError, match="another name"):
        endpoints.save(Endpoint("mine", "openai", "https://api.openai.com/v1", "m", "you"))
    assert endpoints.key_of(endpoints.get("mine", "me")) == KEY
    endpoints.delete("mine", "me")
