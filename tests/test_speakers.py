"""One way to ask everyone: a completion, a chat model, a step of a run, an adapter, a model behind HTTP."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from llm import chat, endpoints, engine, paths, speakers
from llm.config import SampleConfig

HOW = SampleConfig(max_new_tokens=12, temperature=0.0)


@pytest.fixture(autouse=True)
def inline(monkeypatch):
    monkeypatch.setenv("LLM_ENGINE", "inline")


def said(who, text, how=HOW, **more):
    return list(speakers.speak(who, [{"role": "user", "content": text}], how, **more))


def written(model, prompt, how=HOW, **more):
    return "".join(
        step["text"] for steps in engine.get().generate(model, [prompt], [how], **more) for step in steps
    )


def test_a_model_without_a_template_goes_on_from_the_prompt():
    pieces = said("story-llama", "Long ago, a", alternatives=3)
    assert "".join(piece.text for piece in pieces) == written("story-llama", "Long ago, a")
    assert pieces[-1].end == "length" and pieces[-1].usage["completion_tokens"] == 12
    token = pieces[0].tokens[0]
    assert 0 < token["probability"] <= 1 and token["top"][0][1] == pytest.approx(token["probability"]) and len(token["top"]) == 3  # fmt: skip


def test_a_vote_on_a_bare_completion_is_learned_from_the_very_text_that_was_asked():
    """Prompt and answer of a model without a template, as preference tuning writes them in the style "bare"."""
    from llm import prompts, tokenizer

    folder, encoding = paths.model_folder("story-llama"), tokenizer.get("model:story-llama")
    asked, stops = speakers.prompt_of("story-llama", [{"role": "user", "content": "Long ago, a"}])
    manner = prompts.manner("bare", folder, encoding)
    row = {"prompt": asked, "chosen": " fox lived by the lake.", "rejected": " fox."}
    (one,) = prompts.write(manner, encoding, [prompts.conversation(row, manner.joint, "chosen")])
    assert stops == () and encoding.decode(one.ids[:-1].tolist()) == "Long ago, a fox lived by the lake."
    assert one.ids[~one.answer].tolist() == encoding.encode("Long ago, a")


def test_a_model_with_a_template_is_asked_through_it():
    from llm import tokenizer

    messages = [{"role": "user", "content": "What is the opposite of hot?"}]
    found = chat.prompt(paths.model_folder("story-instruct"), tokenizer.get("model:story-instruct"), messages)
    pieces = said("story-instruct", messages[0]["content"])
    assert "".join(piece.text for piece in pieces) == written("story-instruct", found.ids, SampleConfig(max_new_tokens=12, temperature=0.0, stop=found.stops))  # fmt: skip
    assert pieces[-1].end == "stop"


def test_steps_and_adapters_have_names_of_their_own():
    names = speakers.names()
    assert "topic-classifier" not in names  # it tells classes and writes no text
    assert {"verse-char", "verse-char@0000000", "story-llama+story-prefer"} <= set(names)
    first, last = (speakers.answer(who, [{"role": "user", "content": "The "}], HOW)[0] for who in ("verse-char@0000000", "verse-char"))  # fmt: skip
    assert first != last
    text = speakers.answer("story-llama+story-prefer", [{"role": "user", "content": "Long ago, a"}], HOW)[0]
    assert text == written("story-llama", "Long ago, a", adapters={"story-prefer": 1.0})


def test_stopping_ends_it():
    pieces = said("story-llama", "Long ago, a", SampleConfig(max_new_tokens=500), stopped=lambda: True)
    assert [piece.end for piece in pieces] == ["stopped"]


@pytest.mark.parametrize(
    ("who", "text", "sentence"),
    [
        ("nobody", "Hi", "no model called 'nobody'"),
        ("story-llama+nothing", "Hi", "no adapter called"),
        ("endpoint:nothing", "Hi", "no endpoint called"),
        ("story-llama", "  ", "nothing to answer"),
    ],
)
def test_who_cannot_answer(who, text, sentence):
    with pytest.raises(ValueError, match=sentence):
        said(who, text)


def test_a_model_behind_http_is_asked_the_same_way(capsys):
    pytest.importorskip("any_llm")

    class Far(BaseHTTPRequestHandler):
        def do_POST(self):
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            words = asked["messages"][-1]["content"].upper()
            event = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [{"index": 0, "delta": {"content": words}, "finish_reason": "stop"}]}  # fmt: skip
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            self.wfile.write(b"data: " + json.dumps(event).encode() + b"\n\ndata: [DONE]\n\n")

        def log_message(self, *_):
            """Silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Far)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        endpoints.save(
            endpoints.Endpoint("loud", "other", f"http://127.0.0.1:{server.server_address[1]}", "m")
        )
        assert "endpoint:loud" in speakers.names()
        assert speakers.answer("endpoint:loud", [{"role": "user", "content": "hey"}], HOW) == ("HEY", "stop")
        speakers.main(["endpoint:loud", "--prompt", "you there"])
        assert capsys.readouterr().out.strip() == "YOU THERE"
    finally:
        server.shutdown()
        server.server_close()
