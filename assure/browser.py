"""SEC-3 and UI-1, in a real Chromium: foreign text is shown as text, and eight tabs of one browser are all answered."""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from assure.kills import waited
from assure.lab import Lab, Page, Visitor
from assure.stub import answering
from llm import lessons
from llm.runs import Run

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]  # fmt: skip
PATIENCE = 6  # seconds in which a foreign text comes into the page
FAR = "http://canary.invalid"
F = "window.fired(%d)"
TEMPLATES = (
    "<script>F</script>", "<img src=x onerror=F>", "<svg onload=F>", "<svg/onload=F>", "<body onload=F>", "<iframe src=javascript:F></iframe>",
    "<iframe srcdoc='<script>parent.F</script>'></iframe>", "<details open ontoggle=F>x</details>", "<video><source onerror=F></video>", "<audio src=x onerror=F>",
    "<input autofocus onfocus=F>", "<select autofocus onfocus=F></select>", "<textarea autofocus onfocus=F></textarea>", "<marquee onstart=F>x</marquee>",
    "<object data=javascript:F></object>", "<embed src=javascript:F>", "<a href=javascript:F>x</a>", f"<form action={FAR}/N><button>x</button></form>",
    "<math><mtext><script>F</script></mtext></math>", f"<style>@import '{FAR}/N.css'</style>", f"<link rel=stylesheet href={FAR}/N.css>", f"<img src={FAR}/N.png>",
    f"<base href={FAR}/>", f"<div style='background:url({FAR}/N)'>x</div>", "\"><img src=x onerror=F>", "'><img src=x onerror=F>", "</textarea><img src=x onerror=F>",
    "</title><img src=x onerror=F>", "</script><script>F</script>", "</style><img src=x onerror=F>", "--><img src=x onerror=F>", "]]><img src=x onerror=F>", "{{F}}", "${F}",
    "{{constructor.constructor('F')()}}", "[x](javascript:F)", f"![x]({FAR}/N.png)", f"<{FAR}/N>", "$\\href{javascript:F}{x}$", f"$\\includegraphics{{{FAR}/N}}$",
    "\\u003cimg src=x onerror=F\\u003e", "&lt;img src=x onerror=F&gt;", "&#60;img src=x onerror=F&#62;", "%3Cimg src=x onerror=F%3E", "<scr<script>ipt>F</scr</script>ipt>",
    "<img src=x onerror\n=F>", "<IMG SRC=x OnErRoR=F>", "<img/src=x/onerror=F>", "<a onmouseover=F>x</a>", "<p onclick=F style='position:fixed;inset:0'>x</p>",
    "<noscript><p title='</noscript><img src=x onerror=F>'></noscript>", "<xmp><img src=x onerror=F></xmp>", "javascript:F//", "data:text/html,<script>F</script>",
    "<svg><animate onbegin=F attributeName=x dur=1s></svg>", "<svg><script>F</script></svg>", "`-F-`", "';F;//", '";F;//', "\\x3cimg src=x onerror=F\\x3e",
)  # fmt: skip
PAYLOADS = [re.sub(r"\bF\b", F % i, one).replace("/N", f"/{i}") for i, one in enumerate(TEMPLATES)]
# A lesson may link to other sites; nothing of theirs is loaded.
LOOK = """() => {
  const bad = [...document.querySelectorAll('*')].filter((one) => [...one.attributes].some((a) =>
    (/^on/i.test(a.name) && a.value.includes('fired')) || (!(one.matches('.ls-text a') && /^http/i.test(a.value)) && /^(href|src|action|data)$/i.test(a.name) && /^\\s*(javascript:|http:..canary)/i.test(a.value))));
  const scripts = [...document.scripts].filter((one) => one.textContent.includes('window.fired('));
  const words = document.body.textContent + [...document.querySelectorAll('textarea, input')].map((one) => one.value).join(' ');
  return [window.hits, [...bad, ...scripts].map((one) => one.outerHTML.slice(0, 200)), words.includes('window.fired(')];
}"""


@contextmanager
def chromium() -> Iterator[Any]:
    """Chromium without a window."""
    from playwright.sync_api import sync_playwright

    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        raise SystemExit(f"No Chromium here (looked for {', '.join(BROWSERS)} and $CHROMIUM).")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


def gguf(file: Path, text: str) -> None:
    """A GGUF header whose name, author and licence are the text."""

    def string(value: str) -> bytes:
        data = value.encode()
        return struct.pack("<Q", len(data)) + data

    pairs = [
        ("general.architecture", "llama"),
        ("general.name", text),
        ("general.author", text),
        ("general.license", text),
    ]
    body = b"".join(string(key) + struct.pack("<I", 8) + string(value) for key, value in pairs)
    tensor = (
        string(text[:60])
        + struct.pack("<I", 1)
        + struct.pack("<Q", 8)
        + struct.pack("<I", 0)
        + struct.pack("<Q", 0)
    )
    file.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 1, len(pairs)) + body + tensor + b"\0" * 256)


def foreign_text(lab: Lab, every: int = 1) -> dict[str, Any]:
    """SEC-3: all payloads in every place that shows a text of somebody else's. None fires, nothing is fetched from elsewhere."""
    os.environ["LLM_HOME"] = str(lab.home)
    payloads = PAYLOADS[::every]
    text = "\n".join(payloads)
    wrong, away, places, shown, visited = [], [], [], set(), 0
    layout, maker = Page(lab), Visitor(lab)

    def call(name: str, **values: Any) -> Any:
        event = layout.event(name)
        return maker.call(event, layout.values(event, **values))

    rows = json.dumps([{"instruction": one, "response": f"{one} {i}"} for i, one in enumerate(payloads)])
    labels = json.dumps([{"text": f"{one} {i}", "label": one[:60]} for i, one in enumerate(payloads)])
    with answering(text) as stub, chromium() as browser:
        context = browser.new_context()
        context.add_init_script(
            "window.hits = []; window.fired = (n) => window.hits.push(n); window.alert = window.fired;"
        )
        token = next(iter(maker.http.cookies.jar)).value
        context.add_cookies([{"name": "lab_owner", "value": token, "url": lab.url}])
        page = context.new_page()
        page.set_default_timeout(60_000)

        own: tuple[str, ...] = (lab.url,)

        def asked(request: Any) -> None:
            if not request.url.startswith((*own, "data:", "blob:", "about:")):
                away.append(request.url)

        page.on("request", asked)
        page.on("dialog", lambda dialog: (away.append(f"dialog {dialog.message}"), dialog.dismiss()))

        def looked(place: str, wait: float = 0.7) -> None:
            page.wait_for_timeout(1000 * wait)
            hits, bad, seen = page.evaluate(LOOK)
            until = time.monotonic() + PATIENCE
            while (
                not seen and time.monotonic() < until
            ):  # a slow machine; in some places it is refused, and never seen
                page.wait_for_timeout(500)
                hits, bad, seen = page.evaluate(LOOK)
            places.append(place)
            if seen:
                shown.add(place)
            if hits or bad or away:
                wrong.append(f"{place}: fired {hits}, in the page {bad[:2]}, asked elsewhere {away[:2]}")
            away.clear()

        def drawn(tab: str) -> None:
            page.wait_for_function(f"window.lab?.drawn.has('{tab}')")

        def at(query: dict[str, Any], place: str, wait: float = 1.2) -> None:
            nonlocal visited
            visited += 1
            page.goto(f"{lab.url}/?{urllib.parse.urlencode(query)}")
            drawn(query["tab"])
            looked(place, wait)

        page.goto(f"{lab.url}/teacher/{lab.environment['LLM_TEACHER']}")
        page.wait_for_selector("#lab-follow:not([hidden])")
        # what others bring: names, answers, texts, rows, endpoints, lessons
        for i, one in enumerate(payloads):
            student = Visitor(lab)
            student.room("name", name=one)
            student.room("now", tab="tokens", lesson=one[:80], step=1, error=one)
            if i < 8:
                maker.room("teach", do="ask", ask=text[:480], choices=[], model="story-gpt2", prompt=one)
        call("train.add_text", train_paste=text * 3, train_text_name="foreign")
        call(
            "tune_rows.keep",
            rows_name="foreign-rows",
            rows_from="paste",
            rows_paste=rows,
            finetune_objective="instruct",
        )
        call(
            "tune_rows.keep",
            rows_name="foreign-labels",
            rows_from="paste",
            rows_paste=labels,
            finetune_objective="classify",
        )
        lesson = f"---\ntitle: {json.dumps(text[:150])}\nsummary: {json.dumps(text[:200])}\nsteps:\n  - tab: tokens\n    ask: {json.dumps(text[:300])}\n    choices: [{json.dumps(payloads[1])}, b]\n    answer: 1\n    look: {json.dumps(text[:300])}\n---\n## {payloads[0]}\n{text}\n"  # fmt: skip
        (lab.home / "lessons").mkdir(exist_ok=True)
        (lab.home / "lessons" / "foreign.md").write_text(lesson, encoding="utf-8")
        lessons.read(lab.home / "lessons" / "foreign.md")  # one that is refused would be looked at in vain
        gguf(lab.home / "foreign.gguf", text)
        # a text in the address, in every tab that takes one
        for tab, key in (("tokens", "tokens.text"), ("windows", "windows.text"), ("attention", "attention.text"), ("playground", "playground.prompt"), ("evaluate", "evaluate.text"), ("arena", "arena.prompt"), ("train", "train.run"), ("train", "train.dataset"), ("models", "models.of"), ("playground", "playground.model")):  # fmt: skip
            for i in range(0, len(payloads), 30):
                at({"tab": tab, key: "\n".join(payloads[i : i + 30])}, f"{key} in the address")
        at({"tab": "tokens", "hide": text[:3000]}, "what a link hides")
        at({"tab": "tokens", "lesson": "foreign", "step": 1}, "a lesson")
        page.click("#lab-lessons")
        looked("the list of lessons")
        at({"tab": "class"}, "the wall", 3)
        at({"tab": "windows", "windows.source": "file", "windows.dataset": "foreign"}, "windows of a text")
        at({"tab": "train", "train.dataset": "foreign"}, "a text to train on")
        for rows_name, objective in (("foreign-rows", "instruct"), ("foreign-labels", "classify")):
            at(
                {"tab": "finetune", "finetune.objective": objective, "finetune.dataset": rows_name},
                f"{rows_name} to tune on",
                3,
            )
        at({"tab": "evaluate"}, "evaluate")
        page.fill("#evaluate-text textarea", text[:3000])
        page.click("#evaluate-score")
        looked("a text that is scored", 4)
        at({"tab": "playground", "playground.prompt": text[:300]}, "a prompt")
        page.click("#playground-generate")
        looked("a text that a model goes on with", 3)
        # at home: what another server answers, a model's own words about itself
        home = Lab(lab.home.parent / "alone", "local")
        try:
            own = (lab.url, home.url)
            endpoint = {"preset": "other", "address": f"http://127.0.0.1:{stub.server_address[1]}/v1", "model": text[:190].replace("\n", " ")}  # fmt: skip
            (home.home / "endpoints").mkdir(exist_ok=True)
            (home.home / "endpoints" / "stub.json").write_text(json.dumps({"name": "stub", **endpoint}))
            page.goto(f"{home.url}/?tab=playground&playground.model=endpoint:stub&playground.prompt=x")
            drawn("playground")
            page.click("#playground-generate")
            looked("the answer of another server", 3)
            page.goto(f"{home.url}/?tab=arena&arena.a=endpoint:stub&arena.b=story-gpt2&arena.prompt=x")
            drawn("arena")
            page.click("#arena-go")
            looked("two answers in the arena", 4)
            page.goto(f"{home.url}/?tab=models")
            drawn("models")
            page.click("#models-room label:has-text('Endpoints')")
            looked("the list of endpoints", 2)
            page.click("#models-room label:has-text('Bring')")
            page.click("#models-from label:has-text('this machine')")
            page.fill("#models-path textarea, #models-path input", str(lab.home / "foreign.gguf"))
            page.click("#models-look")
            looked("what a model's file says of itself", 6)
        finally:
            home.close()
    figures = {
        "payloads": len(payloads),
        "places": len(set(places)),
        "where it is seen as text": len(shown),
        "pages opened": visited,
        "fired or fetched": len(wrong),
    }
    return {
        "figures": figures,
        "pass": not wrong and len(shown) > len(set(places)) / 2,
        "what went wrong": wrong[:8],
        "not seen": sorted(set(places) - shown),
    }


def eight_tabs(lab: Lab, tabs: int = 8) -> dict[str, Any]:
    """UI-1: eight tabs of one browser watch a run; each changes a setting in turn, and all are answered."""
    os.environ["LLM_HOME"] = str(lab.home)
    layout, maker = Page(lab), Visitor(lab)
    start = layout.event("train.start")
    maker.call(start, layout.values(start, train_name="watched", train_max_steps=1_000_000, train_n_layer=1, train_n_embd=16, train_n_head=2))  # fmt: skip
    run = Run.open("watched")
    waited(lambda: (run.last_event() or {}).get("step", 0) > 0, 60)
    answers, watching = [], []
    with chromium() as browser:
        context = browser.new_context()
        context.add_cookies(
            [{"name": "lab_owner", "value": next(iter(maker.http.cookies.jar)).value, "url": lab.url}]
        )
        pages = []
        for _ in range(tabs):
            page = context.new_page()
            page.goto(f"{lab.url}/?tab=train&train.run=watched", timeout=60_000)
            page.wait_for_function("() => /step/i.test(document.querySelector('#train-monitor')?.textContent || '')", timeout=60_000)  # fmt: skip
            pages.append(page)
        for number, page in enumerate(pages):
            page.bring_to_front()
            said = page.text_content("#train-monitor")
            began = time.monotonic()
            page.wait_for_function("(said) => document.querySelector('#train-monitor').textContent !== said", arg=said, timeout=30_000)  # fmt: skip
            watching.append(time.monotonic() - began)
            began = time.monotonic()
            page.evaluate("() => { const box = document.querySelector('#train-max_steps input[type=number]'); window.before = document.querySelector('#train-plan').textContent; }")  # fmt: skip
            page.fill("#train-max_steps input[type=number]", str(500 + number))
            page.wait_for_function(
                "() => document.querySelector('#train-plan').textContent !== window.before", timeout=30_000
            )
            answers.append(time.monotonic() - began)
    run.request_stop()
    figures = {"tabs": tabs, "slowest answer s": max(answers), "slowest look at the run s": max(watching)}
    return {"figures": figures, "pass": max(answers) <= 2 and max(watching) <= 4, "what went wrong": []}
