"""The lab behind OpenAI's interface, asked by OpenAI's own client: the same texts and numbers as the engine's, plain refusals."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import httpx
import openai
import pytest
import torch
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.testclient import TestClient

from llm import chat, engine, generate, openai_api, paths, prompts, tokenizer
from llm.checkpoint import load_model, save_model
from llm.config import ModelConfig, RunConfig, SampleConfig, TuneConfig, to_dict, to_flags
from llm.model import GPT
from llm.runs import Run
from llm.tokenizer import ByteTokenizer, CharTokenizer, Tokenizer
from ui import exports, recipes, serve
from ui.guard import BODY_LIMIT, Guard

ROOT = Path(__file__).resolve().parent.parent
BYTE = ByteTokenizer()
STORY, CHATTY = "story-llama", "story-instruct"
ASKED = {"role": "user", "content": "Tell me a story about an otter."}


def made(
    name: str, folder: Path | None = None, card: str = "# made\n", encoding: Tokenizer = BYTE, **fields
) -> None:
    """A small model with random weights, on bytes."""
    torch.manual_seed(3)
    shape = dict(
        vocab_size=encoding.vocab_size, context_length=64, n_layer=2, n_head=4, n_kv_head=2, n_embd=32
    )
    model = GPT(ModelConfig(**{**shape, **fields}))
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.15)
    save_model(folder or paths.models() / name, model.eval(), encoding, card)


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory):
    """A model on bytes, and `long`, with much context and no end-of-text; the engine lives in this process."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLM_HOME", str(home))
        patch.setenv("LLM_ENGINE", "inline")
        made("bytes")
        made("long", context_length=8192, encoding=CharTokenizer("abcdefgh"))
        yield home


@pytest.fixture
def client():
    return TestClient(Starlette(routes=serve.routes()))


@contextlib.contextmanager
def served():
    """A real server on this machine, with the page's gate in front; gives its address."""
    app = Starlette(routes=serve.routes(), middleware=[Middleware(Guard)])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(20)


@pytest.fixture(scope="module")
def address(home):
    with served() as address:
        yield address


@pytest.fixture(scope="module")
def official(address):
    """OpenAI's own client."""
    with openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0, timeout=60) as client:
        yield client


def until(true, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.01)


def expected(model: str, prompt: str, config: SampleConfig) -> str:
    loaded, encoding = load_model(paths.model_folder(model))
    return generate.complete(loaded, encoding, [prompt], config)[0]


def refusal(response, status: int) -> dict:
    """The error in a response, in the shape that OpenAI's reference gives."""
    assert response.status_code == status, response.text
    found = response.json()["error"]
    assert set(found) == {"message", "type", "param", "code"} and found["message"].endswith(".")
    return found


# --- what is answered


def test_the_official_client_lists_the_models(official):
    names = [one.id for one in official.models.list()]
    assert names == paths.model_names(steps=True) and {"bytes", STORY} <= set(names)
    one = official.models.retrieve("bytes")
    assert (one.id, one.object) == ("bytes", "model") and abs(one.created - time.time()) < 600
    kept = next(name for name in names if "@" in name)  # a step that a training kept
    assert official.models.retrieve(kept).id == kept


@pytest.mark.parametrize("temperature", [0, 0.8])
def test_a_completion_is_the_text_of_the_terminal(official, temperature):
    found = official.completions.create(
        model=STORY, prompt="Long ago, a", max_tokens=30, temperature=temperature, top_p=0.9, seed=5
    )
    config = SampleConfig(temperature=temperature, top_p=0.9, max_new_tokens=30, seed=5)
    assert found.choices[0].text == expected(STORY, "Long ago, a", config)
    ids = tokenizer.get(f"model:{STORY}").encode("Long ago, a")
    assert found.usage.prompt_tokens == len(ids) and found.object == "text_completion"
    assert found.usage.total_tokens == len(ids) + found.usage.completion_tokens


def test_without_a_length_a_completion_has_sixteen_tokens(official):
    found = official.completions.create(model="bytes", prompt="a", seed=1)
    assert found.usage.completion_tokens == 16 and found.choices[0].finish_reason == "length"


def test_several_prompts_and_texts_are_numbered_in_their_order(official):
    found = official.completions.create(model=STORY, prompt=["Long", "Once"], n=2, max_tokens=6, seed=7)
    asked = [("Long", 7), ("Long", 8), ("Once", 9), ("Once", 10)]  # choice i draws with seed + i
    texts = [expected(STORY, p, SampleConfig(temperature=1, max_new_tokens=6, seed=s)) for p, s in asked]
    assert [(one.index, one.text) for one in found.choices] == list(enumerate(texts))
    encoding = tokenizer.get(f"model:{STORY}")
    ids = [encoding.encode(prompt) for prompt in ("Long", "Once")]
    again = official.completions.create(model=STORY, prompt=ids, n=2, max_tokens=6, seed=7)
    assert [one.text for one in again.choices] == texts
    assert again.usage.prompt_tokens == sum(map(len, ids))


def test_without_a_seed_texts_differ_and_with_one_they_do_not(official):
    def text(**more):
        return official.completions.create(model="bytes", prompt="a", max_tokens=20, **more).choices[0].text

    assert text() != text()
    assert text(seed=2**40 + 3) == text(seed=2**40 + 3) == text(seed=(2**40 + 3) % 2**31)


@pytest.mark.parametrize("kind", ["completion", "chat"])
def test_streamed_and_not_streamed_are_the_same(official, kind):
    """Random bytes are full of characters that are cut, and the stop strings of beginnings that come to nothing."""
    with_stop = 0
    for seed in range(8):
        asked = dict(model="bytes", seed=seed, n=3, stop=["e", "ab"], temperature=1.3, max_tokens=30)
        if kind == "chat":
            ask = official.chat.completions.create
            asked |= dict(messages=[{"role": "user", "content": "x"}], logprobs=True, top_logprobs=2)
        else:
            ask = official.completions.create
            asked |= dict(prompt="x", logprobs=2)
        whole = ask(**asked)
        texts, told, ends = [""] * 3, [[] for _ in range(3)], [None] * 3
        for chunk in ask(**asked, stream=True, stream_options={"include_usage": True}):
            if not chunk.choices:
                assert chunk.usage == whole.usage
                continue
            (one,) = chunk.choices
            assert ends[one.index] is None, "something came after the end"
            texts[one.index] += (one.delta.content if kind == "chat" else one.text) or ""
            if one.logprobs:
                told[one.index] += one.logprobs.content if kind == "chat" else one.logprobs.tokens
            ends[one.index] = one.finish_reason
        assert texts == [one.message.content if kind == "chat" else one.text for one in whole.choices]
        assert ends == [one.finish_reason for one in whole.choices]
        logprobs = [one.logprobs for one in whole.choices]
        assert told == [one.content if kind == "chat" else one.tokens for one in logprobs]
        with_stop += ends.count("stop")
    assert 0 < with_stop < 24  # both ways to end were seen


def test_the_tokens_of_an_answer_are_its_text_byte_by_byte(official):
    """The bytes of all tokens together are the text; only a character that the end cuts off is not shown."""
    several = 0
    for seed in range(6):
        found = official.chat.completions.create(
            model="bytes", messages=[ASKED | {"content": "é"}], seed=seed, max_tokens=40, logprobs=True
        ).choices[0]
        data = b"".join(bytes(token.bytes) for token in found.logprobs.content)
        text = data.decode("utf-8", "replace")
        assert text in (found.message.content, found.message.content + "\ufffd")
        several += any(
            len(token.token) > 1 for token in found.logprobs.content
        )  # \xNN: a part of a character
    assert several


def test_a_token_is_told_with_its_text_and_those_of_a_stop_string_never():
    """The stop string is "ab": "é" comes in two bytes, then "a" is held back; "x" frees it, or "b" makes it vanish."""

    def told(*steps):
        row, found = openai_api.Growing(0), []
        for id, piece, text, finish in steps:
            piece = row.take(dict(id=id, piece=piece, text=text, finish=finish, logprob=-1.0, top=()))
            found.append((piece.text, [(token.id, token.start) for token in piece.tokens], piece.finish))
        return found

    begun = [(0xC3, "", "", None), (0xA9, "é", "é", None), (97, "a", "", None)]
    so_far = [("", [], None), ("é", [(0xC3, 0), (0xA9, 0)], None), ("", [], None)]
    assert told(*begun, (98, "b", "", "stop")) == [*so_far, ("", [], "stop")]
    assert told(*begun, (120, "x", "ax", None)) == [*so_far, ("ax", [(97, 1), (120, 2)], None)]
    assert told(*begun, (256, "", "a", "eot")) == [*so_far, ("a", [(97, 1)], "stop")]
    assert told(*begun, (0xC3, "", "a", "length")) == [*so_far, ("a", [(97, 1), (0xC3, 2)], "length")]


def test_a_text_ends_for_the_reasons_it_says(official):
    def end(**more):
        found = official.completions.create(model=STORY, prompt="Long ago, a", seed=1, **more).choices[0]
        return found.text, found.finish_reason

    assert end(max_tokens=3)[1] == "length"
    text, finish = end(max_tokens=60, stop=".")
    assert finish == "stop" and text and "." not in text
    whole = expected(STORY, "Long ago, a", SampleConfig(temperature=1, seed=1, max_new_tokens=60))
    assert text == whole.partition(".")[0]
    said = official.chat.completions.create(model=CHATTY, messages=[ASKED], temperature=0)
    assert said.choices[0].finish_reason == "stop"  # it was taught where an answer ends


def test_a_text_ends_where_the_context_is_full(official):
    found = official.completions.create(model="bytes", prompt="x" * 60, max_tokens=500, seed=1, logprobs=0)
    assert found.usage.completion_tokens == 5  # the 64th token read gives one more
    assert found.choices[0].finish_reason == "length"
    with pytest.raises(openai.BadRequestError, match="65 tokens; this model's context has 64") as caught:
        official.completions.create(model="bytes", prompt="x" * 65)
    assert caught.value.code == "context_length_exceeded"


# --- log-probabilities


def score(model: str, ids: list[int]) -> list[float | None]:
    return engine.get().score(model, text=ids)["logprobs"]


@pytest.mark.parametrize("top", [0, 4])
def test_logprobs_of_a_completion_are_those_of_score(official, top):
    found = official.completions.create(model="bytes", prompt="Hello", max_tokens=20, seed=4, logprobs=top)
    told = found.choices[0].logprobs
    made_ids = [ids_of(text) for text in told.tokens]
    ids = [*BYTE.encode("Hello"), *made_ids]
    assert told.token_logprobs == pytest.approx(score("bytes", ids)[5:], abs=1e-4)
    model, _ = load_model(paths.model_folder("bytes"))
    with torch.inference_mode():
        logprobs = model(torch.tensor([ids]))[0, 4:-1].log_softmax(-1)
    for place, likeliest, own in zip(logprobs, told.top_logprobs, told.token_logprobs):
        values = sorted(likeliest.values(), reverse=True)
        assert values[:top] == pytest.approx(place.topk(top).values.tolist(), abs=1e-4)
        assert own in values and len(values) in (max(top, 1), top + 1)


def ids_of(shown: str) -> int:
    """The id of a token of `bytes` as it is shown: a character, or \\xNN."""
    return int(shown[2:], 16) if len(shown) == 4 and shown.startswith("\\x") else BYTE.encode(shown)[0]


def test_logprobs_of_a_chat_are_those_of_score(official):
    found = official.chat.completions.create(
        model=CHATTY, messages=[ASKED], max_tokens=20, seed=4, logprobs=True, top_logprobs=3
    )
    told = found.choices[0].logprobs.content
    encoding, folder = tokenizer.get(f"model:{CHATTY}"), paths.model_folder(CHATTY)
    read = chat.prompt(folder, encoding, [ASKED]).ids
    assert found.usage.prompt_tokens == len(read)
    by_bytes = {encoding.token_bytes(id): id for id in reversed(range(encoding.vocab_size))}
    ids = [by_bytes[bytes(token.bytes)] for token in told]
    logprobs = [token.logprob for token in told]
    assert logprobs == pytest.approx(score(CHATTY, [*read, *ids])[len(read) :], abs=1e-4)
    assert all(len(token.top_logprobs) == 3 for token in told)
    for token in told:
        best = [one.logprob for one in token.top_logprobs]
        assert best == sorted(best, reverse=True) and token.logprob <= best[0] + 1e-6


@pytest.mark.parametrize("top", [0, 2])
def test_an_echo_scores_the_prompt(official, top):
    """What evaluation harnesses ask for: the prompt's own log-probabilities, nothing added."""
    text = "Long ago, a proud badger"
    found = official.completions.create(model=STORY, prompt=text, echo=True, max_tokens=0, logprobs=top)
    one, encoding = found.choices[0], tokenizer.get(f"model:{STORY}")
    ids = encoding.encode(text)
    assert one.text == text and one.finish_reason == "length" and found.usage.completion_tokens == 0
    assert one.logprobs.token_logprobs[0] is None and one.logprobs.top_logprobs[0] is None
    assert one.logprobs.token_logprobs[1:] == pytest.approx(score(STORY, ids)[1:], abs=1e-4)
    assert "".join(one.logprobs.tokens) == text
    starts = [len(encoding.decode(ids[:i])) for i in range(len(ids))]
    assert one.logprobs.text_offset == starts


def test_an_echo_goes_before_the_text(official):
    asked = dict(model=STORY, max_tokens=5, seed=3, logprobs=1)
    both = official.completions.create(prompt=["Long ago", "Once"], echo=True, n=2, **asked)
    alone = official.completions.create(prompt=["Long ago", "Once"], n=2, **asked)
    for with_prompt, without, prompt in zip(both.choices, alone.choices, ["Long ago"] * 2 + ["Once"] * 2):
        assert with_prompt.text == prompt + without.text
        n = len(without.logprobs.tokens)
        assert with_prompt.logprobs.tokens[-n:] == without.logprobs.tokens
        assert with_prompt.logprobs.text_offset[-n] == len(prompt)


# --- how a conversation is written


def test_a_chat_goes_through_the_models_own_template(official):
    found = official.chat.completions.with_raw_response.create(
        model=CHATTY, messages=[ASKED], max_tokens=8, seed=2, temperature=0.5
    )
    assert found.headers[serve.STYLE_HEADER] == "own"
    encoding, folder = tokenizer.get(f"model:{CHATTY}"), paths.model_folder(CHATTY)
    ids = chat.prompt(folder, encoding, [ASKED]).ids
    config = SampleConfig(temperature=0.5, max_new_tokens=8, seed=2)
    steps = [step for batch in engine.get().generate(CHATTY, [ids], config) for step in batch]
    assert found.parse().choices[0].message.content == "".join(step["text"] for step in steps)


def test_a_model_without_a_template_is_spoken_to_plainly_and_says_so(client):
    asked = dict(model=STORY, messages=[ASKED], max_tokens=4)
    assert client.post("/v1/chat/completions", json=asked).headers[serve.STYLE_HEADER] == "plain"
    found = openai_api.chat_completion(asked)
    text = "User: Tell me a story about an otter.\nAssistant:"
    assert found.encoding.decode(found.prompts[0]) == text and "\nUser:" in found.configs[0].stop


def test_a_tuned_model_is_spoken_to_as_it_was_tuned():
    config = RunConfig(
        dataset="story-instructions",
        objective="instruct",
        start_from=STORY,
        tune=TuneConfig(prompt_style="alpaca"),
    )
    made(
        "tuned",
        context_length=256,
        card=f"# tuned\n\n    python -m llm.train tuned {shlex.join(to_flags(config))}\n",
    )
    found = openai_api.chat_completion(dict(model="tuned", messages=[ASKED | {"content": "Hi"}]))
    manner = prompts.manner("alpaca", paths.model_folder("tuned"), BYTE)
    assert found.style == "alpaca"
    assert list(found.prompts[0]) == prompts.prompt_ids(manner, BYTE, [ASKED | {"content": "Hi"}])


def test_parts_of_text_and_a_developer_are_understood():
    parts = [{"type": "text", "text": "Tell me "}, {"type": "text", "text": "a story."}]
    said = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": parts}]
    asked = openai_api.chat_completion(dict(model=STORY, messages=said))
    assert asked.encoding.decode(asked.prompts[0]) == "Be brief.\n\nUser: Tell me a story.\nAssistant:"


def test_what_a_person_typed_is_never_a_special_token():
    encoding = tokenizer.get(f"model:{CHATTY}")
    assert encoding.special_tokens
    for word in encoding.special_tokens:
        ids = openai_api.completion(dict(model=CHATTY, prompt=f"a {word} b")).prompts[0]
        assert not set(ids) & set(encoding.special_tokens.values())


# --- what is refused


BAD = [  # what is added to a good request, which parameter is named, a part of the sentence
    ({"temperature": 3}, "temperature", "from 0 to 2, not 3"),
    ({"temperature": -0.1}, "temperature", "from 0 to 2"),
    ({"temperature": "hot"}, "temperature", 'not "hot"'),
    ({"temperature": True}, "temperature", "not true"),
    ({"top_p": 1.5}, "top_p", "from 0 to 1"),
    ({"max_tokens": 2.5}, "max_tokens", "whole number"),
    ({"max_tokens": -1}, "max_tokens", "not -1"),
    ({"n": 0}, "n", "from 1"),
    ({"n": 1000}, "n", "from 1 to 128"),
    ({"seed": "x"}, "seed", "whole number"),
    ({"stop": ["a", "b", "c", "d", "e"]}, "stop", "up to 4"),
    ({"stop": [""]}, "stop", "1 to 500"),
    ({"stop": 7}, "stop", "a text or a list"),
    ({"stream": "yes"}, "stream", "true or false"),
    ({"stream_options": {"include_usage": True}}, "stream_options", "needs stream"),
    ({"frequency_penalty": 0.5}, "frequency_penalty", "not supported"),
    ({"logit_bias": {"5": 1}}, "logit_bias", "not supported"),
    ({"tools": [{"type": "function"}]}, "tools", "not supported"),
    ({"response_format": {"type": "json_object"}}, "response_format", "not supported"),
    ({"flavour": "mild"}, "flavour", "not known"),
    ({"model": ""}, "model", "Say which model"),
]
BAD_COMPLETION = [
    ({"prompt": 5}, "prompt", "a text, a list"),
    ({"prompt": []}, "prompt", "a text, a list"),
    ({"prompt": ["a", [1]]}, "prompt", "a text, a list"),
    ({"prompt": [9999]}, "prompt", "9999"),
    ({"prompt": ["a"] * 100, "n": 2}, "n", "128 are the most"),
    ({"logprobs": 21}, "logprobs", "from 0 to 20"),
    ({"logprobs": True}, "logprobs", "whole number"),
    ({"best_of": 3}, "best_of", "not supported"),
    ({"suffix": "end"}, "suffix", "not supported"),
    ({"messages": [ASKED]}, "messages", "not known"),
]
BAD_CHAT = [
    ({"messages": []}, "messages", "at least one"),
    ({"messages": "hi"}, "messages", "at least one"),
    ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0]", "not 'robot'"),
    ({"messages": [{"role": "user", "content": None}]}, "messages[0]", "is text"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0]", "nothing else"),
    ({"top_logprobs": 2}, "top_logprobs", "needs logprobs"),
    ({"logprobs": 3}, "logprobs", "true or false"),
    ({"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens", "differ: give one"),
    ({"prompt": "x"}, "prompt", "not known"),
]


@pytest.mark.parametrize(
    ("path", "more", "param", "sentence"),
    [("completions", *row) for row in BAD + BAD_COMPLETION]
    + [("chat/completions", *row) for row in BAD + BAD_CHAT],
)
def test_a_bad_value_is_refused_with_a_sentence(client, path, more, param, sentence):
    good = {"model": "bytes", "max_tokens": 4} | (
        {"prompt": "a"} if path == "completions" else {"messages": [ASKED | {"content": "a"}]}
    )
    assert client.post(f"/v1/{path}", json=good).status_code == 200
    found = refusal(client.post(f"/v1/{path}", json=good | more), 400)
    assert found["param"] == param and sentence in found["message"]
    assert found["type"] == "invalid_request_error"


def test_what_an_encoding_or_a_template_refuses_is_refused_in_their_words(client):
    found = refusal(client.post("/v1/completions", json={"model": "verse-char", "prompt": "a 海"}), 400)
    assert "海" in found["message"] and found["param"] == "prompt"
    made("picky")
    template = (
        "{{ raise_exception('only one message, please') if messages|length > 1 }}{{ messages[0].content }}"
    )
    (paths.models() / "picky" / "chat_template.jinja").write_text(template)
    asked = {"model": "picky", "messages": [ASKED | {"content": "a"}], "max_tokens": 3}
    assert client.post("/v1/chat/completions", json=asked).json()["usage"]["prompt_tokens"] == 1
    asked["messages"] *= 2
    found = refusal(client.post("/v1/chat/completions", json=asked), 400)
    assert "only one message, please" in found["message"] and found["param"] == "messages"


def test_null_and_what_never_changes_a_text_are_taken(client):
    asked = dict(model="bytes", prompt="a", seed=1, max_tokens=5)
    plain = client.post("/v1/completions", json=asked).json()["choices"]
    more = dict.fromkeys([*openai_api.SAMPLING[:-2], *openai_api.NEUTRAL, "echo", "stream"])
    for name in ("seed", "n"):
        more.pop(name, None)
    more |= dict.fromkeys(openai_api.IGNORED, "x") | {"frequency_penalty": 0, "logit_bias": {}}
    assert client.post("/v1/completions", json=asked | more).json()["choices"] == plain


def test_no_such_model_names_those_there_are(official):
    with pytest.raises(
        openai.NotFoundError, match=r"'gpt-9' does not exist here; there are .*bytes"
    ) as caught:
        official.chat.completions.create(model="gpt-9", messages=[ASKED])
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    for name in ("../secret", "bytes@9", "x" * 500, "%00"):
        with pytest.raises(openai.NotFoundError):
            official.models.retrieve(name)


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "no JSON"), (b"{", "no JSON"), (b"[1]", "one JSON object"), (b"\xff\xfe", "no JSON"),
        (b'{"model": "bytes", "temperature": NaN}', "NaN is not a number"), (b"[" * 200_000, "no JSON"),
        (b'{"model": "bytes", "temperature": 1e999}', "from 0 to 2"),
    ],
)  # fmt: skip
def test_a_body_that_is_no_request(client, body, sentence):
    response = client.post("/v1/completions", content=body, headers={"content-type": "application/json"})
    assert sentence in refusal(response, 400)["message"]


def test_half_a_character_of_utf16_neither_breaks_the_text_nor_the_error(client):
    headers = {"content-type": "application/json"}
    body = b'{"model": "bytes", "prompt": "a\\ud83d", "echo": true, "max_tokens": 1}'
    text = client.post("/v1/completions", content=body, headers=headers).json()["choices"][0]["text"]
    assert text.startswith("a\ufffd")
    refusal(client.post("/v1/completions", content=b'{"model": "\\ud83d"}', headers=headers), 404)


def test_only_json_is_read_so_that_pages_of_other_sites_cannot_ask(client):
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        body = json.dumps({"model": "bytes", "prompt": "a"})
        found = refusal(client.post("/v1/completions", content=body, headers={"content-type": kind}), 415)
        assert "Content-Type: application/json" in found["message"]


def test_what_is_too_large(client, address):
    large = {"model": "bytes", "prompt": "x" * (serve.BODY_LIMIT + 1)}
    assert "2 MB" in refusal(client.post("/v1/completions", json=large), 413)["message"]
    refusal(client.post("/v1/completions", json={"model": "bytes", "prompt": "x" * 1_000_001}), 413)
    parts = (b" " * 2**18 for _ in range(12))  # no length is said before
    refusal(client.post("/v1/completions", content=parts, headers={"content-type": "application/json"}), 413)
    long = [{"role": "user", "content": "x" * (chat.LONGEST_CHAT + 1)}]
    refusal(client.post("/v1/chat/completions", json={"model": "bytes", "messages": long}), 413)
    beyond = {"model": "bytes", "prompt": "x" * BODY_LIMIT}  # the page's gate refuses it before it is read
    assert "5 MB" in refusal(httpx.post(f"{address}/v1/completions", json=beyond), 413)["message"]


def test_other_addresses_and_methods(client, address):
    assert "/v1/embeddings" in refusal(client.post("/v1/embeddings", json={}), 404)["message"]
    refusal(client.get("/v1/completions"), 405)
    refusal(client.delete("/v1/models"), 405)
    behind = TestClient(Starlette(routes=serve.routes()), root_path="/class/llm")  # a proxy's folder
    assert behind.post("/v1/completions", json={"model": "bytes", "prompt": "a"}).status_code == 200
    refusal(behind.get("/v1/completions"), 405)
    foreign = httpx.get(f"{address}/v1/models", headers={"host": "evil.example"})
    assert "LLM_ALLOWED_HOSTS" in refusal(foreign, 421)["message"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_damaged_model_is_an_error_of_the_server(client, stream):
    model, _ = load_model(paths.model_folder("bytes"))
    with torch.no_grad():
        model.token_embedding.weight[:] = torch.nan
    save_model(paths.models() / "damaged", model, BYTE, "# damaged\n")
    asked = dict(model="damaged", prompt="a", stream=stream)
    found = refusal(client.post("/v1/completions", json=asked), 500)
    assert found["type"] == "server_error" and "not finite numbers" in found["message"]


def test_an_error_on_the_way_is_the_last_event(official, monkeypatch):
    """The worker's failure reaches a client that has read a part already."""
    step, count = generate.Batch.step, iter(range(100))

    def breaking(self):
        if next(count) >= 3:
            raise ValueError("The process that holds the models stopped.")
        return step(self)

    monkeypatch.setattr(generate.Batch, "step", breaking)
    text = ""
    with pytest.raises(openai.APIError, match="holds the models stopped"):
        for chunk in official.completions.create(
            model="bytes", prompt="a", max_tokens=50, stream=True, seed=1
        ):
            text += chunk.choices[0].text
    assert text


# --- who is served


def test_off_when_hosted_unless_switched_on(client, monkeypatch):
    assert client.get("/v1/models").status_code == 200
    monkeypatch.setenv("SPACE_ID", "someone/lab")
    assert "LLM_SERVE=1" in refusal(client.get("/v1/models"), 403)["message"]
    refusal(client.post("/v1/completions", json={"model": "bytes", "prompt": "a"}), 403)
    monkeypatch.setenv("LLM_SERVE", "1")
    assert client.get("/v1/models").status_code == 200
    monkeypatch.setenv("LLM_SERVE", "0")
    assert "LLM_SERVE=0" in refusal(client.get("/v1/models"), 403)["message"]
    monkeypatch.delenv("SPACE_ID")
    refusal(client.get("/v1/models"), 403)


def test_a_visitors_run_is_not_served_when_hosted(client, monkeypatch):
    run = Run.create("train", to_dict(RunConfig()), "a-visitor", name="private")
    made("private", run.path / "model")
    made("private", run.path / "model" / "steps" / "5")

    def names():
        return {one["id"] for one in client.get("/v1/models").json()["data"]}

    assert {"private", "private@5", STORY} <= names()
    monkeypatch.setenv("SPACE_ID", "someone/lab")
    monkeypatch.setenv("LLM_SERVE", "1")
    assert STORY in names() and not {"private", "private@5"} & names()
    for name in ("private", "private@5"):
        found = refusal(client.post("/v1/completions", json={"model": name, "prompt": "a"}), 404)
        assert "there are" in found["message"] and "private," not in found["message"]
        refusal(client.get(f"/v1/models/{name}"), 404)
        refusal(client.post("/v1/chat/completions", json={"model": name, "messages": [ASKED]}), 404)


# --- many at a time, and those who leave


@pytest.fixture
def turns(monkeypatch):
    """How many texts each step of the engine made."""
    step, found = generate.Batch.step, []

    def counted(self):
        made = step(self)
        found.append(len(made))
        return made

    monkeypatch.setattr(generate.Batch, "step", counted)
    return found


LONG = dict(model="long", prompt="a", max_tokens=8000, seed=1, logit_bias={})


@pytest.mark.parametrize("stream", [True, False])
def test_a_closed_connection_ends_the_generation(address, turns, stream):
    body = {**LONG, "stream": stream}
    if stream:
        with httpx.stream("POST", f"{address}/v1/completions", json=body, timeout=30) as response:
            next(response.iter_bytes())
    else:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{address}/v1/completions", json=body, timeout=httpx.Timeout(30, read=0.5))
    left, seen = time.monotonic(), len(turns)
    until(lambda: not engine.get().worker.busy)
    assert time.monotonic() - left < 3
    assert 0 < seen <= len(turns) < 6000  # of 8,000


def test_a_closed_connection_ends_the_generation_in_the_worker(monkeypatch):
    monkeypatch.setenv("LLM_ENGINE", "worker")
    remote = engine.get()
    try:
        with served() as address:
            with httpx.stream("POST", f"{address}/v1/completions", json={**LONG, "stream": True}) as response:
                first = next(response.iter_bytes())
                assert remote.child.waiting, first
            left = time.monotonic()
            until(lambda: not remote.child.waiting)
            assert time.monotonic() - left < 2
            begun = time.monotonic()  # the worker has let go of it too: nothing else keeps it from answering
            assert remote.info("long")["parameters"] and time.monotonic() - begun < 2
    finally:
        remote.close()


def test_requests_are_decoded_together_and_nobody_waits_for_the_event_loop(address, official, turns):
    streams = [official.completions.create(**LONG, stream=True) for _ in range(3)]
    try:
        for one in streams:
            next(iter(one))
        begun = time.monotonic()
        assert httpx.get(f"{address}/v1/models", timeout=10).status_code == 200
        assert time.monotonic() - begun < 2
        until(lambda: 3 in turns)
        assert engine.get().worker.busy
    finally:
        for one in streams:
            one.close()
    until(lambda: not engine.get().worker.busy)


def test_more_than_can_be_answered_are_told_to_come_again(monkeypatch):
    monkeypatch.setattr(serve, "MOST_AT_ONCE", 1)
    with served() as address:
        with httpx.stream("POST", f"{address}/v1/completions", json={**LONG, "stream": True}) as first:
            events = first.iter_bytes()  # held: an iterator that is let go closes the connection
            next(events)
            response = httpx.post(f"{address}/v1/completions", json={"model": "bytes", "prompt": "a"})
            assert refusal(response, 429)["type"] == "rate_limit_error"
            assert response.headers["retry-after"] == "1"
        ok = {"model": "bytes", "prompt": "a"}
        until(lambda: httpx.post(f"{address}/v1/completions", json=ok).status_code == 200)


# --- the page, and the real thing


@pytest.mark.parametrize("chats", [False, True])
def test_the_commands_on_the_page_do_what_they_say(address, chats):
    name = CHATTY if chats else STORY
    by_tool = {one.tool: one.text for one in recipes.over_http(address, name, "It's an otter: 海", chats)}
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(by_tool["openai"], {})
    assert out.getvalue().strip()
    assert len(by_tool["openai"].replace("\n\n", "\n").splitlines()) <= 4
    if not shutil.which("curl"):
        pytest.skip("curl is not installed")
    done = subprocess.run(["sh", "-c", by_tool["curl"]], capture_output=True, text=True, timeout=60)
    assert json.loads(done.stdout)["choices"][0]["finish_reason"] in ("stop", "length"), done.stdout


def visit(referer: str = "") -> SimpleNamespace:
    """A request as Gradio hands it over."""
    inner = SimpleNamespace(base_url="http://127.0.0.1:7861/")
    return SimpleNamespace(cookies={}, headers={"referer": referer} if referer else {}, request=inner)


def test_the_page_names_its_own_address_as_the_browser_knows_it(monkeypatch):
    page = exports.http(visit("https://school.org/class/llm/?tab=models#x"), STORY)
    assert "https://school.org/class/llm/v1/completions" in page and "7861" not in page
    assert "http://127.0.0.1:7861/v1/chat/completions" in exports.http(visit(), CHATTY)
    assert "javascript:" not in exports.http(visit("javascript:alert(1)"), STORY)
    monkeypatch.setenv("SPACE_ID", "someone/lab")
    assert "LLM_SERVE=1" in exports.http(visit(), STORY) and "curl" not in exports.http(visit(), STORY)


def test_a_real_lab_answers(tmp_path):
    """`python app.py` as a person starts it: behind its gate and all of Gradio's, with the models in a worker."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    base = f"http://127.0.0.1:{port}"
    env = {name: value for name, value in os.environ.items() if name != "LLM_ENGINE"}
    env |= {"LLM_HOME": str(tmp_path), "LLM_TABS": "tokens"}
    command = [sys.executable, "app.py", "--no-browser", "--port", str(port)]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=log)
    try:
        until(lambda: answers(f"{base}/v1/models"), 90)
        client = openai.OpenAI(base_url=f"{base}/v1", api_key="none", timeout=90, max_retries=0)
        assert [one.id for one in client.models.list()] == paths_of_the_shipped()
        asked = dict(model=STORY, prompt="Long ago, a", max_tokens=40, seed=5, temperature=0.8)
        text = client.completions.create(**asked).choices[0].text
        config = SampleConfig(temperature=0.8, max_new_tokens=40, seed=5)
        assert text == expected(STORY, "Long ago, a", config)
        assert "".join(c.choices[0].text for c in client.completions.create(**asked, stream=True)) == text
        with httpx.stream("POST", f"{base}/v1/completions", json=asked | {"stream": True}) as response:
            parts = list(response.iter_raw())
        assert response.headers["content-type"].startswith("text/event-stream") and len(parts) > 3
        foreign = httpx.get(f"{base}/v1/models", headers={"host": "evil.example"})
        refusal(foreign, 421)
        refusal(
            httpx.post(f"{base}/v1/completions", content=b"{}", headers={"content-type": "text/plain"}), 415
        )
        refusal(httpx.post(f"{base}/v1/completions", json={"prompt": "x" * BODY_LIMIT}), 413)
        refusal(httpx.get(f"{base}/v1/elsewhere"), 404)
        assert "LLM Lab" in httpx.get(base).text  # the page is where it was
        with pytest.raises(httpx.ReadTimeout):  # someone who left is forgotten, and the next is answered
            httpx.post(f"{base}/v1/completions", json=asked | {"n": 100, "max_tokens": 250}, timeout=0.3)
        assert client.completions.create(**asked).choices[0].text == text
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    assert "Traceback" not in (tmp_path / "log").read_text().replace("KeyboardInterrupt", "")


def answers(url: str) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(url, timeout=5).status_code == 200
    return False


def paths_of_the_shipped() -> list[str]:
    """Built-in models with the steps they kept: all that a lab with a new home has."""
    return [
        name
        for name in paths.model_names(steps=True)
        if paths.shipped_models() in paths.model_folder(name).parents
    ]
