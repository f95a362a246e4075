"""Pictures of training beside the curves: how a run stands, one position worked out, samples, the plan, the history."""

from __future__ import annotations

import math
from typing import Any
from urllib.parse import urlencode

from ui.figures.base import count, duration, escape, facts, number, size

WORDS = {  # status: (what the page says, its colour class)
    "waiting": ("Waiting", "wait"),
    "running": ("Running", "run"),
    "finished": ("Finished", "good"),
    "stopped": ("Stopped", "rest"),
    "failed": ("Failed", "bad"),
    "crashed": ("Broken off", "bad"),
    "gone": ("Deleted", "rest"),
}


def pill(status: str) -> str:
    """A status as a word with a mark; never by colour alone."""
    word, kind = WORDS.get(status, (status, "rest"))
    return f"<span class='lab-pill lab-pill-{kind}'>{escape(word)}</span>"


def progress(
    name: str,
    status: str,
    step: int,
    max_steps: int,
    note: str,
    values: list[tuple[str, str]],
    playable: bool = False,
) -> str:
    """Status, a bar of steps, one sentence, and the newest values; with a way to the Playground when it is `playable`."""
    share = min(step / max_steps, 1.0) if max_steps else 0.0
    bar = (
        f"<div class='lab-bar' role='progressbar' aria-valuemin='0' aria-valuemax='{max_steps}' aria-valuenow='{step}' "
        f"aria-label='steps done'><i style='width:{100 * share:.2f}%'></i></div>"
    )
    link = f"?{urlencode({'tab': 'playground', 'playground.model': name})}"
    play = f" <a href='{escape(link)}'>Write with this model in the Playground</a>" if playable else ""
    return (
        f"<div class='lab-progress'><div class='lab-progress-head'>{pill(status)}<b translate='no'>{escape(name)}</b>"
        f"<span class='lab-progress-step'>step {step:,} of {max_steps:,}</span></div>{bar}"
        f"<p class='lab-progress-note'>{escape(note)}{play}</p>{facts(values) if values else ''}</div>"
    )


def visible(text: str) -> str:
    """A token for a table: blanks and line ends made visible, escaped."""
    marks = {" ": "␣", "\n": "↵", "\t": "⇥"}
    return f"<span class='lab-token' translate='no'>{escape(''.join(marks.get(c, c) for c in text)) or '(empty)'}</span>"


TASKS = {  # what is told apart at a position: how it is said, the heading of the table, what the curves show
    "token": (
        "After <q>…{context}</q> the text goes on with {target}.", "Next token",
        "A perplexity of {perplexity} means: as unsure as a choice between that many equally likely tokens. The curves show "
        "the mean of this loss over all targets.",
    ),
    "pair": (
        "After <q>…{context}</q> the chosen answer goes on with {target}.", "Next token",
        "The log-probability of an answer is the sum of such logs over its tokens. The curves show the loss of pairs, which "
        "asks how far chosen and rejected answers have moved apart since the start.",
    ),
    "class": (
        "<q>{context}</q> has the label {target}.", "Class",
        "A perplexity of {perplexity} means: as unsure as a choice between that many equally likely classes. The curves "
        "show the mean of this loss over all rows.",
    ),
}  # fmt: skip


def position(step: int, worked: dict[str, Any], task: str = "token") -> str:
    """Cross-entropy of one position in single steps: logits, softmax, minus the log of the target's probability.

    `worked` is the "position" of an evaluate event: context, target_text, logit, log_sum_exp, probability, loss, top.
    `task` is one of TASKS.
    """
    said, heading, meaning = TASKS[task]
    rows = list(worked["top"])
    if all(row["id"] != worked["target"] for row in rows):
        rows.append(
            {k: worked[k] for k in ("logit", "probability")}
            | {"id": worked["target"], "text": worked["target_text"]}
        )
    cells = []
    for row in rows:
        is_target = row["id"] == worked["target"]
        share = 100 * (row["probability"] or 0)
        cells.append(
            f"<tr{' class=lab-target' if is_target else ''}><td>{visible(row['text'])}{' ← target' if is_target else ''}</td>"
            f"<td class=num>{number(row['logit'])}</td><td class=num>{number(row['probability'])}</td>"
            f"<td class='lab-share'><i style='width:{share:.2f}%'></i></td></tr>"
        )
    logit, log_sum, p, loss = (worked[k] for k in ("logit", "log_sum_exp", "probability", "loss"))
    perplexity = math.exp(loss) if loss is not None and loss < 709.7827 else math.inf
    said = said.format(context=escape(worked["context"]), target=visible(worked["target_text"]))
    return f"""<div class='lab-position'>
<p class='lab-context'>{said} At step {step:,} the model gives:</p>
<div class='lab-scroll' tabindex='0'><table class='lab-table'><thead><tr><th>{heading}</th><th class=num>Logit</th><th class=num>Probability</th><th></th></tr></thead>
<tbody>{"".join(cells)}</tbody></table></div>
<ol class='lab-steps'>
<li><span>log Σ exp(all logits)</span><b>{number(log_sum)}</b></li>
<li><span>p(target) = exp({number(logit)} − {number(log_sum)})</span><b>{number(p)}</b></li>
<li><span>loss = −log p(target)</span><b>{number(loss)} nats</b></li>
<li><span>perplexity = exp(loss)</span><b>{number(perplexity)}</b></li></ol>
<p class='lab-context'>{meaning.format(perplexity=number(perplexity, 3))}</p></div>"""


def samples(step: int, texts: list[dict[str, str]]) -> str:
    """What the model wrote at one evaluation: each prompt and its continuation, with the wanted answer beside it if known."""

    def answer(t: dict[str, str]) -> str:
        if not t.get("wanted"):
            return f"<blockquote translate='no'><span class='lab-prompt'>{escape(t['prompt'])}</span>{escape(t['text'])}</blockquote>"
        same = t["text"].strip() == t["wanted"].strip()
        mark = "<b class='lab-same'>as wanted</b>" if same else "<b class='lab-other'>another</b>"
        said = escape(t["text"].strip()) or "<i translate='yes'>(nothing)</i>"
        return (
            f"<div class='lab-answer'><p class='lab-prompt' translate='no'>{escape(t['prompt'])}</p><dl><div><dt>Answer {mark}</dt>"
            f"<dd translate='no' tabindex='0'>{said}</dd></div><div><dt>Wanted</dt><dd translate='no' tabindex='0'>{escape(t['wanted'].strip())}</dd></div></dl></div>"
        )

    items = "".join(answer(t) for t in texts)
    return f"<article class='lab-sample' data-step='{step}'><h4>Step {step:,}</h4>{items}</article>"


def plan(values: dict[str, Any]) -> str:
    """What Start will do, in numbers; what is still being measured is shown as absent.

    parameters, tokens_per_step, passes are known at once; memory (bytes), flops, seconds, threads, precision once
    measured; `remark` says why they are not.
    """
    seconds, parameters = values.get("seconds"), values["parameters"]
    cards = facts(
        [
            ("Parameters", f"{parameters:,}"),
            ("Tokens a step", f"{values['tokens_per_step']:,}"),
            ("Passes over the text", number(values["passes"], 2)),
            ("Memory", size(values["memory"]) if "memory" in values else "…"),
            ("Arithmetic", f"{count(values['flops'])}FLOP" if "flops" in values else "…"),
            ("Time here", duration(seconds) if seconds is not None else "…"),
        ]
    )
    if seconds is not None:
        note = (
            f"Measured on this machine with {values['threads']} thread{'s' if values['threads'] > 1 else ''} in "
            f"{values['precision']}; the looks at the model come on top."
        )
    else:
        note = values.get("remark") or "Running a few steps to measure memory and time …"
    return f"{cards}<p class='lab-note'>{escape(note)}</p>"


def history(rows: list[dict[str, Any]], example: str, shown: str, over: set[str]) -> str:
    """The runs as a table with a button to show each, one to lay it over, one to delete it.

    `rows` come from `ui.monitor.summary`; `example` is the name of the built-in model with a log, or "". Where a page has
    several visitors a row says whether it is theirs (`mine`), and whether all may see it (`shared`).
    """

    def button(action: str, name: str, text: str, pressed: bool | None = None, label: str = "") -> str:
        state = "" if pressed is None else f" aria-pressed='{str(pressed).lower()}'"
        return (
            f"<button type='button' class='lab-link' data-action='{action}' data-name='{escape(name)}'{state} "
            f"aria-label='{escape(label or text + ' ' + name)}'>{escape(text)}</button>"
        )

    def row(source: str, title: str, cells: list[str], can_go: bool, shared: bool | None = None) -> str:
        chosen = source == shown
        tools = (
            ""
            if chosen
            else button("overlay", source, "laid over" if source in over else "lay over", source in over)
        )
        if shared is not None:
            tools += button("share", source, "shared with all" if shared else "share with all", shared)
        tools += button("delete", source, "delete") if can_go else ""
        inner = "".join(
            f"<td class='{kind}'>{cell}</td>" for kind, cell in zip(("", "num", "num", "lab-when"), cells)
        )
        mark = " class='lab-chosen' aria-current='true'" if chosen else ""
        return f"<tr{mark}><td translate='no'>{button('show', source, title, label='show ' + title)}</td>{inner}<td class='lab-row-tools'>{tools}</td></tr>"

    body = [
        row(
            r["name"],
            r["name"],
            [
                pill(r["status"]),
                f"{r['step']:,} / {r['max_steps']:,}",
                number(r["val_loss"]),
                escape(r["created"]),
            ],
            r["status"] != "running" and r.get("mine", True),
            r.get("shared") if r.get("mine") else None,
        )
        for r in rows
    ]
    if example:
        body.append(row(f"model:{example}", example, [pill("finished"), "", "", "built in"], False))
    if not body:
        return "<p class='lab-note'>No runs yet. The first one you start will stand here.</p>"
    head = "<th>Run</th><th>Status</th><th class=num>Step</th><th class=num>Validation loss</th><th>Started</th><th></th>"
    return f"<div class='lab-scroll' tabindex='0'><table class='lab-table lab-runs'><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"


def download(done: int, total: int) -> str:
    """How far a download is, in bytes; `total` 0 when the server did not say."""
    share = f"{100 * done / total:.0f} %" if total else ""
    bar = f"<progress max='{total}' value='{done}' aria-label='download'></progress>" if total else ""
    of = f" of {size(total)}" if total else ""
    return f"<div class='train-download'>{bar}<span>{size(done)}{of} {share}</span></div>"
