"""The lab as a server: the official openai client talks to it, and gets what the engine says."""

from __future__ import annotations

import json
import threading
import time

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from llm import engine, openai_api, paths
from llm.config import SampleConfig
from ui import serve

GREEDY = dict(temperature=0, max_tokens=12)


@pytest.fixture(autouse=True)
def inline(monkeypatch):
    monkeypatch.setenv("LLM_ENGINE", "inline")


@pytest.fixture
def web():
    return TestClient(Starlette(routes=serve.ROUTES))


@pytest.fixture(scope="module")
def client():
    """The official client, and a real server on this machine."""
    openai = pytest.importorskip("openai")
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(Starlette(routes=serve.ROUTES), port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0)
    server.should_exit = True
    thread.join()


def written(model, prompt, how):
    steps = [
        step for batch in engine.get().generate(model, [prompt], [how], alternatives=3) for step in batch
    ]
    return "".join(step["text"] for step in steps), steps


def test_models(client):
    names = [model.id for model in client.models.list()]
    assert names == paths.model_names(steps=True) and "verse-char@0000000" in names
    assert client.models.retrieve("story-llama").owned_by == "llm-lab"


def test_a_completion_is_what_the_engine_writes(client):
    text, steps = written("story-llama", "Long ago, a", SampleConfig(temperature=0.0, max_new_tokens=12))
    found = client.completions.create(model="story-llama", prompt="Long ago, a", logprobs=3, **GREEDY)
    choice = found.choices[0]
    assert choice.text == text and choice.finish_reason == "length"
    assert choice.logprobs.token_logprobs == pytest.approx([step["logprob"] for step in steps], abs=1e-4)
    assert choice.logprobs.tokens == [step["piece"] for step in steps]
    assert "".join(choice.logprobs.tokens) == text and choice.logprobs.text_offset[1] == len(
        steps[0]["piece"]
    )
    told = engine.get().score("story-llama", text="Long ago, a" + text)
    assert choice.logprobs.token_logprobs[:5] == pytest.approx(told["logprobs"][-12:][:5], abs=1e-3)
    assert found.usage.completion_tokens == 12 and found.usage.prompt_tokens == len(told["ids"]) - 12


def test_what_streams_is_what_does_not(client):
    asked = dict(model="story-gpt2", prompt="The fox", temperature=0.9, seed=4, max_tokens=30)
    whole = client.completions.create(**asked).choices[0]
    parts = list(client.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert "".join(c.text for part in parts for c in part.choices) == whole.text
    assert parts[-1].choices == [] and parts[-1].usage.completion_tokens == 30
    assert [c.finish_reason for part in parts for c in part.choices][-1] == whole.finish_reason


def test_a_chat_goes_through_the_models_template(client):
    messages = [{"role": "user", "content": "What is the opposite of hot?"}]
    found = client.chat.completions.create(model="story-instruct", messages=messages, temperature=0, logprobs=True, top_logprobs=2)  # fmt: skip
    choice = found.choices[0]
    ids, stops = openai_api.chat_ids("story-instruct", messages)
    text, steps = written(
        "story-instruct", ids, SampleConfig(temperature=0.0, max_new_tokens=512, stop=stops)
    )
    assert (
        choice.message.content == text
        and choice.finish_reason == "stop"
        and found.usage.prompt_tokens == len(ids)
    )
    assert [t.logprob for t in choice.logprobs.content] == pytest.approx(
        [s["logprob"] for s in steps], abs=1e-4
    )
    assert len(choice.logprobs.content[0].top_logprobs) == 2
    stream = client.chat.completions.create(
        model="story-instruct", messages=messages, temperature=0, stream=True
    )
    assert "".join(c.choices[0].delta.content or "" for c in stream if c.choices) == text


def test_a_model_without_a_template_chats_in_the_plain_style(client):
    found = client.chat.completions.create(model="story-llama", messages=[{"role": "user", "content": "Hello"}], **GREEDY)  # fmt: skip
    text, _ = written("story-llama", "User: Hello\nAssistant:", SampleConfig(temperature=0.0, max_new_tokens=12, stop=("\nUser:",)))  # fmt: skip
    assert found.choices[0].message.content == text


def test_several_texts_and_stop_strings(client):
    found = client.completions.create(model="story-llama", prompt=["Long ago, a", "The fox"], n=2, temperature=1, seed=1, max_tokens=8)  # fmt: skip
    assert [choice.index for choice in found.choices] == [0, 1, 2, 3] and len(
        {c.text for c in found.choices}
    ) > 2
    text, _ = written("story-llama", "Long ago, a", SampleConfig(temperature=0.0, max_new_tokens=40))
    word = text.split()[3]
    cut = client.completions.create(
        model="story-llama", prompt="Long ago, a", temperature=0, max_tokens=40, stop=word
    )
    assert cut.choices[0].text == text[: text.index(word)] and cut.choices[0].finish_reason == "stop"


def test_a_reader_who_leaves_ends_the_work(client, monkeypatch):
    ended = threading.Event()
    real = engine.Inline.generate

    def watched(*args, **more):
        try:
            yield from real(*args, **more)
        finally:
            ended.set()

    monkeypatch.setattr(engine.Inline, "generate", watched)
    stream = client.completions.create(
        model="story-llama", prompt="Long ago, a", max_tokens=4000, stream=True
    )
    next(iter(stream))
    stream.close()
    assert ended.wait(10)


@pytest.mark.parametrize(
    ("path", "body", "status", "sentence"),
    [
        ("completions", dict(model="nobody", prompt="x"), 404, "There is no model 'nobody' here; there are: "),
        ("completions", dict(model="story-llama", prompt="x", temperature=-1), 400, "temperature is -1"),
        ("completions", dict(model="story-llama", prompt="x", temperature="hot"), 400, "temperature must be"),
        ("completions", dict(model="story-llama", prompt="x", n=99), 400, "8 texts at most"),
        ("completions", dict(model="story-llama", prompt="x", echo=True), 400, "echo is not something"),
        ("completions", dict(model="story-llama", prompt={"a": 1}), 400, "must be text, or ids"),
        ("completions", dict(model="story-llama", prompt=[99999]), 400, "must be text, or ids"),
        ("completions", dict(model="story-llama", prompt=[]), 400, "list of prompts is empty"),
        ("completions", dict(model="story-llama", prompt="x", stop=[1]), 400, "stop is a text"),
        ("completions", dict(model="story-llama", prompt="x", logprobs=500), 400, "from 0 to 20"),
        ("chat/completions", dict(model="story-instruct", messages=[]), 400, "at least one message"),
        ("chat/completions", dict(model="story-instruct", messages=[dict(role="wizard", content="x")]), 400, "not 'wizard'"),
        ("chat/completions", dict(model="story-instruct", messages=[dict(role="user", content=[dict(type="image_url")])]), 400, "must be text"),
        ("chat/completions", dict(model="story-instruct", messages=[dict(role="user", content="x")], tools=[{}]), 400, "tools is not something"),
        ("completions", [1], 400, "must be a JSON object"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_said_in_their_shape(web, path, body, status, sentence):
    answer = web.post(f"/v1/{path}", json=body)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert sentence in error["message"] and error["type"] == "invalid_request_error"


def test_only_json_is_read(web):
    for kind, status in (
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("application/json", 400),
    ):
        answer = web.post("/v1/completions", content=b"{not json", headers={"content-type": kind})
        assert answer.status_code == status and answer.json()["error"]["message"]
    assert web.get("/v1/models/nobody").status_code == 404


def test_a_shared_page_serves_nothing_until_it_is_switched_on(web, monkeypatch):
    monkeypatch.setenv("SPACE_ID", "someone/lab")
    for answer in (
        web.get("/v1/models"),
        web.post("/v1/completions", json=dict(model="story-llama", prompt="x")),
    ):
        assert answer.status_code == 403 and "LLM_SERVE=1" in answer.json()["error"]["message"]
    monkeypatch.setenv("LLM_SERVE", "1")
    assert "story-llama" in [row["id"] for row in web.get("/v1/models").json()["data"]]
    monkeypatch.delenv("SPACE_ID")
    monkeypatch.setenv("LLM_SERVE", "0")
    assert web.get("/v1/models").status_code == 403


def test_errors_after_the_first_piece_are_the_last_event(web, monkeypatch):
    def broken(*_, **__):
        yield []
        raise ValueError("The model fell over.")

    monkeypatch.setattr(engine.Inline, "generate", broken)
    with web.stream(
        "POST", "/v1/completions", json=dict(model="story-llama", prompt="x", stream=True)
    ) as answer:
        lines = [line for line in answer.iter_lines() if line]
    assert json.loads(lines[-1].removeprefix("data: "))["error"]["message"] == "The model fell over."
