"""hosting/nginx.conf in a real nginx before a real lab: what a browser and a program ask for below /llm/."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from assure.lab import Lab, Page, Visitor, free_port
from llm import files, tokenizer
from tests.test_hosting import healthcheck

CONF = Path(__file__).resolve().parent.parent / "hosting" / "nginx.conf"
NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
NAME = "lab.example.org"  # as in hosting/
# What a server block needs around it; all that nginx writes lies in the folder of the test.
AROUND = """
{user}
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{}}
http {{
    access_log {folder}/access.log;
    log_not_found off;  # one test asks for what is not there
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/llm-lab.conf;
}}
"""


@pytest.fixture(scope="module", autouse=True)
def nginx_is_there():
    if NGINX is None:
        said = "nginx is not installed: apt install nginx-light"
        pytest.fail(said) if os.environ.get("CI") else pytest.skip(said)


@pytest.fixture(scope="module")
def lab(nginx_is_there, tmp_path_factory):
    """The lab as hosting/llm-lab.service sets it, in a home of its own."""
    running = Lab(
        tmp_path_factory.mktemp("hosted") / "home", mode="class", GRADIO_ROOT_PATH="/llm", LLM_ALLOWED_HOSTS=NAME, LLM_SERVE="1",
        GRADIO_TEMP_DIR=str(tmp_path_factory.mktemp("uploads")),
    )  # fmt: skip
    yield running
    running.close()


def replaced(text: str, old: str, new: str) -> str:
    """`text` with the one `old` in it replaced: a configuration that no longer says it is not the one tested here."""
    assert text.count(old) == 1, f"hosting/nginx.conf says {old!r} {text.count(old)} times"
    return text.replace(old, new)


@pytest.fixture(scope="module")
def site(lab, tmp_path_factory):
    """Where nginx shows the lab: http://127.0.0.1:PORT. Only the two ports of hosting/nginx.conf are others."""
    folder, port = tmp_path_factory.mktemp("nginx"), free_port()
    conf = replaced(CONF.read_text(encoding="utf-8"), "listen 80;", f"listen 127.0.0.1:{port};")
    conf = replaced(conf, "http://127.0.0.1:7860/;", f"http://127.0.0.1:{lab.port}/;")
    (folder / "llm-lab.conf").write_text(conf, encoding="utf-8")
    # started by root it would work as somebody who may not enter the folder of the test
    around = AROUND.format(user="user root;" if os.geteuid() == 0 else "", folder=folder)
    (folder / "nginx.conf").write_text(around, encoding="utf-8")
    command = [NGINX, "-p", str(folder), "-e", f"{folder}/error.log", "-c", f"{folder}/nginx.conf"]
    checked = subprocess.run([*command, "-t"], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 10
        while True:
            try:
                httpx.get(f"http://127.0.0.1:{port}/", timeout=5)
                break
            except httpx.HTTPError:
                assert process.poll() is None and time.monotonic() < until, (folder / "error.log").read_text()
                time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()  # the workers end with it
        process.wait(10)
    assert not re.search(r"\[(emerg|alert|crit|error)\]", (folder / "error.log").read_text())


@pytest.fixture
def visitor(site):
    """A browser that knows the lab by the site's name and folder."""
    one = Visitor(SimpleNamespace(url=f"{site}/llm"))
    one.http.headers["Host"] = NAME
    yield one
    one.http.close()


@pytest.fixture(scope="module")
def page(lab):
    return Page(lab)


def test_the_page_and_what_it_loads_stay_in_the_folder(visitor):
    for said in ("", "?tab=tokens"):
        moved = visitor.http.get(f"{str(visitor.http.base_url).rstrip('/')}{said}", follow_redirects=False)
        assert moved.status_code == 301 and moved.headers["location"] == f"/llm/{said}"
    page = visitor.http.get("/")
    assert page.status_code == 200 and "LLM Lab" in page.text
    assert json.loads(visitor.http.get("/config").text)["root"] == f"http://{NAME}/llm"
    assets = re.findall(r'(?:src|href)="\./(assets/[^"]+)"', page.text)
    assert {Path(asset).suffix for asset in assets} == {".js", ".css"}
    for path in [*assets, "theme.css"]:
        answer = visitor.http.get(f"/{path}")
        assert answer.status_code == 200 and len(answer.content) > 1000, path
    assert visitor.http.get("/health").json()["status"] == "ok"


def test_outside_of_the_folder_is_not_the_lab(site, visitor):
    assert httpx.get(f"{site}/health", headers={"Host": NAME}).status_code == 404
    refused = visitor.http.get(
        "/", headers={"Host": "elsewhere.example"}
    )  # the name in the address reaches the lab
    assert refused.status_code == 421 and "LLM_ALLOWED_HOSTS" in refused.text


def test_a_visitor_keeps_one_cookie_for_the_folder_alone(site):
    with httpx.Client(base_url=f"{site}/llm", headers={"Host": NAME}) as browser:
        given = browser.get("/health").headers["set-cookie"]
        assert given.startswith("lab_owner=") and "; Path=/llm/;" in given
        named = browser.post("/lab/name", json={"name": "Ada"})
        assert named.status_code == 200, named.text
        assert "set-cookie" not in named.headers  # it came back and was known
        now = browser.post("/lab/now", json={"tab": "train", "step": 1})
        assert now.status_code == 200 and now.json()["name"] == "Ada" and not now.json()["teacher"]
        taught = browser.get("/teacher/token-for-checks")
        assert taught.status_code == 303 and taught.headers["location"] == "/llm/?tab=class"
        assert browser.post("/lab/now", json={"tab": "class"}).json()["teacher"]


def test_a_click(visitor, page):
    draw = page.event("tokens.draw")
    answer = visitor.call(draw, page.values(draw, tokens_text="Behind nginx."))
    assert answer.status_code == 200, answer.text
    assert json.loads(answer.json()["data"][0])["ids"] == tokenizer.get("gpt2").encode("Behind nginx.")


def test_a_text_is_streamed_while_it_is_made(visitor, page):
    """A proxy that fills a buffer of 4 KB first shows the first two pieces at once; they are made 0.08 s apart."""
    generate = page.event("playground.generate")
    list(visitor.stream(generate, page.values(generate, playground_prompt="Long ago, a")))  # loads the model
    long = dict(
        playground_prompt="Once upon a time", playground_max_new_tokens=400, playground_stop_at_eot=False
    )
    came, last = [], {}
    for last in visitor.stream(generate, page.values(generate, **long)):
        if last["msg"] == "process_generating":
            came.append(time.monotonic())
    ended = time.monotonic()
    assert last["msg"] == "process_completed" and last["success"], last
    assert len(came) >= 5 and came[1] - came[0] > 0.03 and ended - came[0] > 0.2, came


def test_v1_is_streamed(visitor):
    body = {"model": "story-llama", "prompt": "Long ago, a", "max_tokens": 200, "seed": 1, "stream": True}
    with visitor.http.stream("POST", "/v1/completions", json=body) as answer:
        assert answer.status_code == 200, answer.read()
        chunks = list(answer.iter_raw())  # as nginx passed them on
    events = [line[6:] for line in b"".join(chunks).decode().splitlines() if line.startswith("data: ")]
    assert events.pop() == "[DONE]" and len(events) > 50
    assert len(chunks) > len(events) / 8  # a buffer of 4 KB would hold 20 of them
    text = "".join(json.loads(event)["choices"][0]["text"] for event in events)
    whole = visitor.http.post("/v1/completions", json={**body, "stream": False})
    assert whole.json()["choices"][0]["text"] == text


def test_a_file_of_20_mb_comes_in_and_back(visitor):
    """nginx's own limit is 1 MB. The odd name is one that must be escaped in an address and unescaped again."""
    name, content = "naïve & 100%25 +1.txt", secrets.token_bytes(2**20) * 20
    sent = visitor.http.post("/gradio_api/upload", files={"files": (name, content)})
    assert sent.status_code == 200, sent.text[:300]
    (path,) = sent.json()
    assert Path(path).read_bytes() == content
    back = visitor.http.get(f"/gradio_api/file={path.replace('%', '%25')}")
    assert back.status_code == 200 and back.content == content


def test_the_lab_and_not_nginx_says_that_a_file_is_too_large():
    """A model is several files in one request, each as large as a file may be."""
    size, unit = re.search(r"client_max_body_size (\d+)([mg]);", CONF.read_text(encoding="utf-8")).groups()
    assert int(size) * {"m": 2**20, "g": 2**30}[unit] > 5 * files.upload_limit()


def test_the_containers_health_check_tells_a_lab_that_answers(lab):
    assert subprocess.run(healthcheck(lab.port), capture_output=True, timeout=30).returncode == 0
    assert subprocess.run(healthcheck(free_port()), capture_output=True, timeout=30).returncode != 0
