"""How fast the page opens and answers: the real `python app.py` in a process of its own, seen through Chromium.

    python -m bench.page [--starts 3] [--answers 15]

Times are the browser's own: from the moment a value changes in a widget until the new picture stands in the page,
everything between included (waiting for the typing to end, the way to the server and back, drawing).
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from bench.report import machine, print_json, spread
from tests.browser.conftest import BROWSERS, FLAGS, start_server, stop_server

START_BAR, TAB_BAR = 6000, 3000  # ms
# Set a widget's value as typing does; resolve with the ms until `sign()` gives something new and two frames are drawn.
ASK = """([selector, value, sign, patience]) => new Promise((resolve, reject) => {
  const read = new Function('return (' + sign + ')'), before = read();
  const box = document.querySelector(selector);
  const set = Object.getOwnPropertyDescriptor(Object.getPrototypeOf(box), 'value').set;
  const began = performance.now();
  const end = (answer) => { observer.disconnect(); clearTimeout(timer); answer(); };
  const look = () => {
    const now = read();
    if (now && now !== before) end(() => requestAnimationFrame(() => setTimeout(() => resolve(performance.now() - began))));
  };
  const observer = new MutationObserver(look);
  const timer = setTimeout(() => end(() => reject(new Error('no answer; still ' + before))), patience);
  observer.observe(document.body, { subtree: true, childList: true, characterData: true, attributes: true });
  set.call(box, value);
  box.dispatchEvent(new Event('input', { bubbles: true }));
})"""


@dataclass(frozen=True)
class Probe:
    """One question to the page: which widget changes, to what in turn, and the sign that the answer stands there."""

    tab: str
    widget: str  # selector of an input or textarea
    values: tuple[str, ...]
    sign: str  # JavaScript: something that differs between the answers to different values, "" while there is none
    bar: float  # ms


FOX = "Long ago, a little fox named Pip lived near the mill and wanted a red kite. The fox asked the bear. "


def probes() -> dict[str, Probe]:
    """What is asked of each tab. Two texts in turn, so that every answer differs from the one before."""
    from llm import paths, tokenizer

    encoding = tokenizer.get(f"model:{paths.model_names()[0]}")  # the model that the tab opens with
    ids = encoding.encode(FOX * 8)
    return {
        "tokens: another text": Probe(
            "tokens",
            "#tokens-text textarea",
            (FOX * 3, FOX * 2 + "Numbers like 3.14159 and words unbelievable. "),
            "document.querySelector('#tokens-count')?.textContent",
            150,
        ),
        "windows: another text": Probe(
            "windows",
            "#windows-text textarea",
            (FOX * 3, FOX * 2),
            "document.querySelector('.win-summary')?.textContent",
            150,
        ),
        "attention: 64 tokens": Probe(
            "attention",
            "#attention-text textarea",
            (encoding.decode(ids[:64]), encoding.decode(ids[:63])),
            "document.querySelector('#attention-board .att-facts')?.textContent",
            400,
        ),
        "playground: an adapter dialled": Probe(
            "playground",
            "#playground-dial-0 input[type=number]",
            ("1", "1.9"),
            "document.querySelector('#playground-table tbody')?.textContent",
            200,
        ),
    }


def open_page(page: Page, url: str, tab: str, sign: str) -> float:
    """Open a tab; the ms until its worked example stands there."""
    began = time.perf_counter()
    page.goto(f"{url}/?tab={tab}", wait_until="commit")
    page.wait_for_function(sign, timeout=60_000, polling="raf")
    return (time.perf_counter() - began) * 1000


def ask(page: Page, probe: Probe, answers: int) -> list[float]:
    """The ms of each answer; the first of all is left out (the engine loads the model then)."""
    times = []
    for i in range(answers + 1):
        value = probe.values[i % len(probe.values)]
        times.append(page.evaluate(ASK, [probe.widget, value, probe.sign, 30_000]))
        page.wait_for_timeout(200)
    return times[1:]


def main() -> None:
    """Print the result as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--starts", type=int, default=3)
    parser.add_argument("--answers", type=int, default=15)
    given = parser.parse_args()
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    asked, starts, tabs, rows = probes(), [], [], {}
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        for i in range(given.starts):
            began = time.perf_counter()
            server = start_server(Path(folder) / str(i))
            starts.append((time.perf_counter() - began) * 1000)
            try:
                page = browser.new_context().new_page()
                tabs.append(open_page(page, server.url, "tokens", asked["tokens: another text"].sign))
                page.context.close()
                if i == given.starts - 1:
                    for name, probe in asked.items():
                        page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
                        open_page(page, server.url, probe.tab, probe.sign)
                        rows[name] = spread(ask(page, probe, given.answers)) | {"bar": probe.bar}
                        page.context.close()
            finally:
                stop_server(server)
        browser.close()
    opening = {
        "`python app.py` to first answer": spread(starts) | {"bar": START_BAR},
        "first tab, its example drawn": spread(tabs) | {"bar": TAB_BAR},
    }
    print_json(
        {
            "bench": "page", "unit": "ms", "machine": machine(), "cases": {},
            "results": {"opening": opening, "answers": rows},
        }
    )  # fmt: skip


if __name__ == "__main__":
    main()
