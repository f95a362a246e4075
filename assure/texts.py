"""FUZZ-3: odd texts through tokenise, windows, attention, train, sample: each comes back as it was, or a sentence says what is lost."""

from __future__ import annotations

import json
import os
from typing import Any

from assure.attempts import Attempts
from assure.lab import Lab, Page, Visitor
from llm import files, tokenizer
from llm.runs import Run

TEXTS = {
    "NUL": "a\x00b", "controls": "a\x01\x02\x1b[31mred\x7f", "line ends": "a\r\nb\rc\u2028d\u2029e\x85f", "half a pair": "a\ud83d b", "the other half": "\udc4d",
    "right to left": "‮abc‬ שלום مرحبا", "joined": "👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽", "combining": "e\u0301 Z" + "\u0335" * 200, "zero width": "a\u200bb\u200dc\ufeffd", "not normal": "ﬁ Å Å ①",
    "HTML": "<b>bold</b><!-- x --><script>1</script>&amp;&#x3c;", "Markdown": "# h\n* [x](y) `c` **b** | t |", "LaTeX": "$\\frac{1}{0}$ \\input{/etc/passwd} $$x$$",
    "formulas": "=1+1\n+cmd|' /C calc'!A0\n@SUM(A1)", "templates": "{{7*7}} ${7*7} {% for %} %s %(x)s {0}", "specials": "<|endoftext|><|im_start|>system<s></s>[INST]",
    "blank": " \t\n ", "long word": "a" * 20_000, "long line": "word " * 20_000, "many lines": "\n" * 5_000, "CJK": "東京特許許可局 한국어", "private use": "\ue000\U0010ffff\ufffe",
    "path": "../../etc/passwd", "quotes": "'\"`\\'\\\"", "JSON": '{"a": [1, {"b": null}]}', "numbers": "1e999 -0 NaN Infinity 0x1F", "ANSI": "\x1b]0;title\x07", "SQL": "'; DROP TABLE runs; --",
    "shell": "$(touch /tmp/x) `id` ; rm -rf ~ #", "empty": "",
}  # fmt: skip
EVENTS = (
    ("tokens.draw", "tokens_text"), ("windows.draw", "windows_text"), ("playground.next_tokens", "playground_prompt"),
    ("eval_text.score", "evaluate_text"), ("train.add_text", "train_paste"),
)  # fmt: skip


def check(lab: Lab) -> dict[str, Any]:
    """Python's own round trip for every encoding, the page's events, and a training on each text that can be one."""
    os.environ["LLM_HOME"] = str(lab.home)
    wrong, whole, stated, lost, shown = [], 0, 0, 0, 0
    for about, text in TEXTS.items():
        for name in ("gpt2", "byte", "stories-1280", "cl100k_base", "char"):
            try:
                encoding = tokenizer.get(name, text + " a") if name == "char" else tokenizer.get(name)
                back = encoding.decode(encoding.encode(text))
            except ValueError as error:
                lost += 1
                if len(str(error)) < 15:
                    wrong.append(f"{about} under {name}: {error!r}")
                continue
            if back == text:
                whole += 1
            elif back == tokenizer.clean(text):  # half of a pair, which the page refuses and no file can hold
                stated += 1
            else:
                wrong.append(f"{about} under {name} comes back as {back[:80]!r} without a word")
    page, visitor = Page(lab), Visitor(lab)
    board = page.by_elem_id("attention-board")
    for about, text in TEXTS.items():
        for name, box in EVENTS:
            event = page.event(name)
            answer = visitor.call(event, page.values(event, **{box: text}))
            shown += 1
            try:
                said = answer.json()
            except ValueError:
                wrong.append(f"{about} in {name}: no JSON comes back")
                continue
            if answer.status_code != 200 and not str(said.get("error") or "").strip():
                wrong.append(f"{about} in {name}: status {answer.status_code} without a sentence")
        looked = visitor.served(board, "look", {"model": "story-gpt2", "text": text[:2000]})
        shown += 1
        if looked.status_code != 200 or not (
            looked.json().get("begins") is not None or looked.json().get("error")
        ):
            wrong.append(f"{about} in Attention: status {looked.status_code}, {looked.text[:100]}")
        event = page.event("playground.generate")
        try:
            messages = list(
                visitor.stream(event, page.values(event, playground_prompt=text, playground_max_new_tokens=3))
            )
            if not messages or messages[-1]["msg"] != "process_completed":
                wrong.append(f"{about}: the playground does not end")
        except Exception as error:
            wrong.append(f"{about}: the playground says {error!s:.200}")
    trained = refused = 0
    attempts = Attempts(lab.home, lab.log)
    shape = ["--n_layer", "1", "--n_head", "2", "--n_embd", "16", "--context_length", "8", "--batch_size", "4", "--max_steps", "3", "--warmup_steps", "1", "--tokenizer", "byte", "--sample_tokens", "3"]  # fmt: skip
    try:
        for i, (about, text) in enumerate(TEXTS.items()):
            try:
                name = files.save_upload((text + "\n") * max(1, 400 // max(1, len(text))), f"odd-{i}")
            except ValueError:
                refused += 1
                continue
            attempts([f"on-{i}", "--dataset", name, *shape])
            run = Run.open(f"on-{i}")
            for line in (run.path / "events.jsonl").read_bytes().splitlines():
                json.loads(line.decode())
            message = (run.last_event() or {}).get("message", "")
            if run.status() == "finished":
                trained += 1
            elif run.status() == "failed" and message and "unexpected" not in message:
                refused += 1
            else:
                wrong.append(f"training on {about}: {run.status()}, {message}")
    finally:
        attempts.close()
    faults = lab.faults()
    figures = {"texts": len(TEXTS), "round trips": whole, "halves of pairs as U+FFFD": stated, "refused in a sentence": lost, "events": shown, "trained on": trained, "training refused": refused, "wrong": len(wrong), "faults of ours": len(faults)}  # fmt: skip
    return {"figures": figures, "pass": not wrong and not faults, "what went wrong": (wrong + faults)[:8]}
