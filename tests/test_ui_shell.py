"""The shell: who may ask, who a visitor is, what stands in the address bar, how errors are said."""

from __future__ import annotations

import asyncio
import math
import stat

import gradio as gr
import pytest

import app
from ui import owner, pickers
from ui.figures import base
from ui.guard import BODY_LIMIT, Guard, allowed_hosts, host_name
from ui.parts import plain_errors, source
from ui.view import Kept, View, parse


def ask(app, path="/", headers=(), body=b"", chunks=None):
    """One request through an ASGI app: (status, headers, body)."""
    sent = []
    parts = list(chunks if chunks is not None else [body])

    async def receive():
        part = parts.pop(0) if parts else b""
        return {"type": "http.request", "body": part, "more_body": bool(parts)}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "path": path, "headers": [(k.encode(), v.encode()) for k, v in headers]}
    asyncio.run(app(scope, receive, send))
    start = sent[0]
    found = [(name.decode(), value.decode()) for name, value in start["headers"]]
    return start["status"], found, b"".join(m.get("body", b"") for m in sent[1:])


async def echo(scope, receive, send):
    """Reads the whole body and answers with its length and the cookie it saw."""
    length, more = 0, True
    while more:
        message = await receive()
        length, more = length + len(message.get("body", b"")), message.get("more_body", False)
    cookie = dict(scope["headers"]).get(b"cookie", b"")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(length).encode() + b" " + cookie})


@pytest.mark.parametrize(
    ("header", "name"),
    [("localhost:7860", "localhost"), ("[::1]:7860", "::1"), ("LAB.local", "lab.local"), ("", "")],
)
def test_host_name(header, name):
    assert host_name(header) == name


def test_a_foreign_host_is_refused_and_known_ones_answer(monkeypatch):
    monkeypatch.setenv("SPACE_HOST", "me-lab.hf.space")
    monkeypatch.setenv("LLM_ALLOWED_HOSTS", "lab.school.org, other")
    guard = Guard(echo, hosts=allowed_hosts())
    for host in ("127.0.0.1:7860", "localhost", "[::1]:1", "me-lab.hf.space", "LAB.school.org:80"):
        assert ask(guard, headers=[("host", host)])[0] == 200
    for host in ("rebind.example.com", "127.0.0.1.example.com", "", "192.168.1.5"):
        assert ask(guard, headers=[("host", host)])[0] == 421
    in_a_lan = Guard(echo, hosts=allowed_hosts("0.0.0.0"), any_address=True)
    assert ask(in_a_lan, headers=[("host", "192.168.1.5:7860")])[0] == 200
    assert ask(in_a_lan, headers=[("host", "rebind.example.com")])[0] == 421


def test_large_bodies_are_refused_with_and_without_a_stated_length_but_uploads_pass():
    guard, host = Guard(echo), ("host", "localhost")
    length = ("content-length", str(BODY_LIMIT + 1))
    assert ask(guard, headers=[host, length])[0] == 413
    assert ask(guard, headers=[host, ("content-length", "many")])[0] == 413
    half = b"x" * (BODY_LIMIT // 2 + 1)
    assert ask(guard, headers=[host], chunks=[half, half])[0] == 413
    assert ask(guard, headers=[host], chunks=[half, b"x"])[0] == 200
    upload = ("content-type", "multipart/form-data; boundary=b")
    status, _, body = ask(guard, headers=[host, length, upload], chunks=[half, half])
    assert status == 200 and body.split()[0] == str(2 * len(half)).encode()


def test_every_answer_has_the_security_headers_and_files_of_other_sites_are_refused():
    for hosted, frames in ((False, "'self'"), (True, "https://huggingface.co")):
        guard = Guard(echo, hosted=hosted)
        for path, expected in (("/", 200), ("/gradio_api/file=https://example.com/x", 403)):
            status, headers, _ = ask(guard, path, [("host", "localhost")])
            assert status == expected
            assert dict(headers)["x-content-type-options"] == "nosniff"
            assert frames in dict(headers)["content-security-policy"]


def test_only_sites_that_are_named_may_show_the_page_in_a_frame(monkeypatch):
    monkeypatch.setenv("LLM_EMBED_IN", "https://school.org, http://wiki.local:8080 'unsafe;script x")
    _, headers, _ = ask(Guard(echo), headers=[("host", "localhost")])
    assert (
        dict(headers)["content-security-policy"]
        == "frame-ancestors 'self' https://school.org http://wiki.local:8080"
    )


def test_a_visitor_gets_a_cookie_once_and_keeps_the_identity(home):
    app = owner.OwnerCookie(echo)
    _, headers, body = ask(app)
    line = dict(headers)["set-cookie"]
    assert "HttpOnly" in line and "SameSite=Lax" in line
    value = line.split(";")[0].partition("=")[2]
    assert value in body.decode()  # the request that brought none sees it already
    identity = owner.verified(value)
    assert identity and len(identity) == 32
    _, headers, _ = ask(app, headers=[("cookie", f"a=b; {owner.COOKIE}={value}")])
    assert "set-cookie" not in dict(headers)
    assert stat.S_IMODE((home / "secret").stat().st_mode) == 0o600
    assert "SameSite=None; Secure" in dict(ask(owner.OwnerCookie(echo, hosted=True))[1])["set-cookie"]


@pytest.mark.parametrize("forged", ["", "abc", "abc.", "abc.0" * 3, "a.b.c", "ü.x", "' or 1=1.x"])
def test_a_forged_cookie_is_nobody(forged):
    assert owner.verified(forged) is None


def test_another_secret_does_not_verify(home):
    value = owner.sign("someone")
    assert owner.verified(value) == "someone"
    (home / "secret").write_bytes(b"other" * 8)
    assert owner.verified(value) is None


def test_on_a_space_runs_belong_to_one_visitor(monkeypatch):
    assert owner.may_use("a", "b")
    monkeypatch.setenv("SPACE_ID", "me/lab")
    assert owner.may_use("a", "a") and not owner.may_use("a", "b")


def component(kind, **options):
    with gr.Blocks():
        return kind(**options)


@pytest.mark.parametrize(
    ("kind", "options", "text", "value"),
    [
        (gr.Textbox, {}, "a & b", "a & b"),
        (gr.Checkbox, {}, "true", True),
        (gr.Slider, dict(minimum=0, maximum=9), "7", 7),
        (gr.Number, {}, "0.5", 0.5),
        (gr.Dropdown, dict(choices=["x", "y"]), "y", "y"),
        (gr.CheckboxGroup, dict(choices=["x", "y"]), '["y"]', ["y"]),
    ],
)
def test_values_come_back_from_a_link(kind, options, text, value):
    assert parse(text, component(kind, **options)) == value


@pytest.mark.parametrize(
    ("kind", "options", "text"),
    [
        (gr.Checkbox, {}, "yes"),
        (gr.Slider, dict(minimum=0, maximum=9), "10"),
        (gr.Number, {}, "NaN"),
        (gr.Number, {}, "[1]"),
        (gr.Number, {}, "true"),
        (gr.Dropdown, dict(choices=["x", "y"]), "z"),
        (gr.CheckboxGroup, dict(choices=["x", "y"]), '["z"]'),
        (gr.Textbox, {}, "x" * 2000),
    ],
)
def test_an_old_or_edited_link_leaves_the_default(kind, options, text):
    box = component(kind, **options)
    with pytest.raises(ValueError):
        parse(text, box)
    assert Kept("tab.key", box, None).update(text) == gr.skip()


def test_a_picker_reads_the_disk_again_without_sending_a_valid_value_back():
    names = ["fox", "owl"]
    with gr.Blocks():
        view = View("train", gr.Tab("Train"))
        pickers.picker(view, "model", lambda: names, "Model", preferred="owl")
    (kept,), ((_, reread),) = view.kept, view.refreshed
    assert kept.update("fox")["value"] == "fox" and kept.update("bear")["value"] == "owl"
    assert "value" not in reread("fox")  # what a link has set meanwhile stays
    names[:] = ["hen"]
    assert reread("fox")["value"] == "hen" and reread("fox")["choices"] == ["hen"]


def test_few_tabs_by_name(monkeypatch):
    assert list(app.chosen_tabs("")) == list(app.TABS)
    assert list(app.chosen_tabs("playground, tokens")) == ["tokens", "playground"]
    with pytest.raises(SystemExit, match="LLM_TABS names token; the tabs are tokens windows"):
        app.chosen_tabs("token")
    monkeypatch.setenv("LLM_TABS", "windows")
    built = [block.elem_id for block in app.build().blocks.values() if isinstance(block, gr.Tab)]
    assert built == ["tab-windows"]


def test_only_our_own_sentences_reach_the_browser(caplog):
    @plain_errors
    def short(text):
        raise ValueError(f"{text} is too short: 3 tokens, <b>9</b> needed.")

    @plain_errors
    def broken():
        return {}["/secret/path"]

    @plain_errors
    def stream():
        yield 1
        raise ValueError("No more.")

    with pytest.raises(gr.Error, match="It is too short: 3 tokens, &lt;b&gt;9") as found:
        short("It")
    assert not found.value.print_exception
    with pytest.raises(gr.Error) as found:
        broken()
    assert "secret" not in str(found.value) and "secret" in caplog.text
    answers = stream()
    assert next(answers) == 1
    with pytest.raises(gr.Error, match=r"No more\."):
        next(answers)


def test_show_code_shows_what_runs():
    assert source("ui.figures.base:escape").startswith("def escape(text: object) -> str:")


@pytest.mark.parametrize(
    ("value", "text"),
    [(124_439_808, "124,439,808"), (3.14159, "3.142"), (0.0, "0.000"), (0.04007, "0.04007"), (5e-05, "5.000e−05"), (None, "–"),
     (math.inf, "∞"), (-2.5, "−2.500"), (8.2e307, "8.200e+307")],
)  # fmt: skip
def test_numbers_read_well(value, text):
    assert base.number(value) == text


def test_sizes_and_times_read_well():
    assert base.count(124_439_808) == "124 M" and base.size(1536) == "1.5 KB"
    assert [base.duration(s) for s in (0.42, 75, 3 * 3600 + 60, None)] == [
        "0.4 s",
        "1 min 15 s",
        "3 h 1 min",
        "–",
    ]


def test_tables_escape_foreign_text():
    html = base.table(["<i>"], [["<script>alert(1)</script>"]], caption='"quoted"')
    assert "<script>" not in html and "<i>" not in html and "&lt;script&gt;" in html


def test_every_picture_names_code_that_is_there():
    """The names given to "Show the code" and to the boards' code buttons, wherever they stand in ui/."""
    import re
    from pathlib import Path

    named = {name for file in Path(app.UI).rglob("*.py") for name in re.findall(r'"((?:llm|ui)\.[a-z_.]+:[A-Za-z_.]+)"', file.read_text())}  # fmt: skip
    assert len(named) > 40
    for name in named:
        assert source(name), name
