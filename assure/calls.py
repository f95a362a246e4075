"""FUZZ-2: every event of the page, called with what no widget would send. No fault of ours, no answer beyond a sentence."""

from __future__ import annotations

import random
from typing import Any

import httpx

from assure.lab import Lab, Page, Visitor

ODD: list[Any] = [
    None, True, False, 0, -1, 1, 2**53, -1e308, 1e-320, 0.5, "", " ", "0", "x", "\x00", "\ud83d", "‮abc", "👩‍👩‍👧", "../../etc/passwd", "/etc/passwd",
    "<img src=x onerror=alert(1)>", "$\\frac{1}{0}$", "=1+1", "a" * 5000, "{}", "[]", '{"a": [1, {"b": null}]}', "null", "story-llama", "stories",
    "gpt2", "run:x", "model:story-gpt2", "hf:a/b", "upload:x", [], [[]], ["x", 1, None], {}, {"a": 1}, {"path": "/etc/passwd"},
    {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}, {"path": "x", "url": "http://169.254.169.254/"}, [1] * 500,
]  # fmt: skip
EVENTS = [
    None,
    {},
    [],
    "x",
    7,
    ("action", "name"),
    ("id",),
    ("index", "value"),
    ("remove", "look", "best"),
]  # names: odd values under them
SLOW = (
    "measure",
    "start",
    "generate",
    "compare",
    "classify",
    "duel",
    "heads",
)  # called rarely: each is real work


def check(lab: Lab, count: int = 10_000, seed: int = 0) -> dict[str, Any]:
    """Call events at random: mostly right values with one or two odd ones, sometimes all of them odd."""
    draw, page, visitor = random.Random(seed), Page(lab), Visitor(lab)
    ids = [id for id in page.names if id in page.events]
    quick = [id for id in ids if not any(word in page.names[id] for word in SLOW)]
    since, statuses, bad, cut = lab.log.stat().st_size, {}, [], 0
    served = [(id, fn) for id, one in page.components.items() for fn in one["props"].get("server_fns") or ()]
    for i in range(count):
        if served and i % 20 == 0:  # the functions behind our own scripts
            component, fn = draw.choice(served)
            value = draw.choice(ODD)
            asked = (
                {draw.choice(("source", "offset", "model", "text", "layer", "run:x")): value}
                if draw.random() < 0.5
                else value
            )
            answer = visitor.served(component, fn, asked)
            if answer.status_code != 200:
                bad.append(f"{fn}({asked!r:.100}): status {answer.status_code}")
            continue
        id = draw.choice(quick if draw.random() < 0.97 else ids)
        values = page.values(id)
        some = draw.sample(range(len(values)), min(len(values), draw.randint(1, 2)))
        for place in range(len(values)) if draw.random() < 0.2 else some:
            values[place] = draw.choice(ODD)
        if draw.random() < 0.03:
            values = values[: draw.randint(0, len(values))]
        event = draw.choice(EVENTS)
        about = {key: draw.choice(ODD) for key in event} if isinstance(event, tuple) else event
        try:
            answer = visitor.call(id, values, about)
            statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1
        except httpx.TimeoutException:
            bad.append(f"no answer within a minute: {page.modules[id]}.{page.names[id]} {values!r:.300}")
        except httpx.HTTPError:
            cut += 1  # a sentence of Gradio's own with half of a character in it cannot be sent: the connection ends
        if lab.process.poll() is not None:
            bad.append(
                f"the lab is gone (status {lab.process.returncode}) after {page.modules[id]}.{page.names[id]}"
            )
            break
    faults = lab.faults(since)
    figures = {
        "calls": count, "events": len(ids), "statuses": {str(k): v for k, v in sorted(statuses.items())},
        "connections that Gradio ended": cut, "faults of ours": len(faults),
    }  # fmt: skip
    return {"figures": figures, "pass": not faults and not bad, "what went wrong": (bad + faults)[:8]}
