"""Pictures of what tuning changed: answers side by side, before and after, a classifier's table, one pair token by token."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from ui.figures.base import escape, facts, message, number, table

OBJECTIVES = {
    "instruct": "answers to instructions",
    "classify": "classes of texts",
    "prefer": "which answer people chose",
    "pretrain": "a text",
}
LEARNED = {"all": "all of it", "last": "its last blocks", "lora": "an adapter (LoRA)"}
MEASURES = {  # of a report: what it is called, whether less is better
    "val_loss": ("loss", True),
    "perplexity": ("perplexity", True),
    "bits_per_byte": ("bits per byte", True),
    "reward_accuracy": ("pairs whose chosen answer has the larger reward", False),
    "reward_margin": ("reward margin", False),
    "reward_chosen": ("reward of the chosen", False),
    "reward_rejected": ("reward of the rejected", False),
}
MOST_ROWS = 60  # rows with their answers that are listed


def percent(share: float | None) -> str:
    """A share for reading: 0.123 -> "12.3 %"."""
    return "–" if share is None else f"{100 * share:.1f} %"


def _foreign(text: str) -> str:
    """The mark of a text that no translation may touch; a text that is empty is told in words of ours."""
    return " translate='no'" if text.strip() else ""


def about(name: str, said: Mapping[str, str], tabs: Mapping[str, str]) -> str:
    """The facts of a tuned model and links to the tabs that can open it. tabs: title -> the tab's name."""
    links = "".join(
        f"<a class='tn-go' href='?{escape(urlencode({'tab': tab, f'{tab}.model': name}))}'>{escape(title)}</a>"
        for title, tab in tabs.items()
    )
    return f"{facts(said.items())}<p class='tn-links'>{links}</p>"


# ---- Side by side -------------------------------------------------------------------------------------------------------


def side_by_side(
    names: Sequence[str], prompts: Sequence[str], texts: Sequence[Sequence[str]], writing: bool
) -> str:
    """Each prompt with the answers of both models. texts[side][prompt]; the first side is the base."""
    cards = []
    for i, prompt in enumerate(prompts):
        answers = "".join(
            f"<div class='tn-answer'><h4 translate='no'>{escape(name)}</h4><p{_foreign(texts[side][i])}>{escape(texts[side][i].strip()) or ('<i>…</i>' if writing else '<i>nothing: it ended at once</i>')}</p></div>"
            for side, name in enumerate(names)
        )
        cards.append(
            f"<article class='tn-card'><p class='tn-asked' translate='no'>{escape(prompt)}</p><div class='tn-two'>{answers}</div></article>"
        )
    return f"<div class='tn-cards' data-state='{'running' if writing else 'still'}'>{''.join(cards)}</div>"


# ---- Before and after ---------------------------------------------------------------------------------------------------


def change(before: float | None, after: float | None, share: bool = False) -> str:
    """What was gained, with its sign; a share in points of a hundred."""
    if before is None or after is None:
        return "–"
    gained = after - before
    text = f"{abs(100 * gained):.1f} points" if share else number(abs(gained), 3)
    return ("+" if gained >= 0 else "−") + text


def before_and_after(reports: Mapping[str, Mapping[str, Any]]) -> str:
    """Both models on the same rows: {name of the base: its report, name of the tuned: its report} as llm.evaluate gives them."""
    (base, before), (tuned, after) = reports.items()
    lines = []
    if "right" in after:
        shares = [one["right"] / one["of"] for one in (before, after)]
        told = [
            f"{percent(share)} ({one['right']:,} of {one['of']:,})"
            for share, one in zip(shares, (before, after))
        ]
        lines.append(["exact answers", *told, change(*shares, share=True)])
    for key, (title, _) in MEASURES.items():
        if after.get(key) is not None:
            share = key == "reward_accuracy"
            shown = [percent(one.get(key)) if share else number(one.get(key)) for one in (before, after)]
            lines.append([title, *shown, change(before.get(key), after[key], share)])
    html = table(["on the same rows", base, tuned, "change"], lines, numeric=(1, 2, 3))
    if families := after.get("families"):
        html += table(
            ["family of tasks", base, tuned, "change"],
            [
                [
                    family, f"{before['families'][family][0]} of {of}", f"{right} of {of}",
                    change(before["families"][family][0] / of, right / of, share=True),
                ]
                for family, (right, of) in sorted(families.items())
            ],
            "Exact answers by family", (1, 2, 3),
        )  # fmt: skip
    return html + _answers(before, after, base, tuned)


def _answers(before: Mapping[str, Any], after: Mapping[str, Any], base: str, tuned: str) -> str:
    if not after.get("rows"):
        return ""
    pairs = list(zip(before["rows"], after["rows"]))
    pairs.sort(key=lambda pair: (pair[0]["right"] == pair[1]["right"], pair[1]["right"]))
    listed = [
        [one["row"], one["prompt"], one["wanted"], _marked(old), _marked(one)]
        for old, one in pairs[:MOST_ROWS]
    ]
    rest = f", {MOST_ROWS} of {len(pairs):,}" if len(pairs) > MOST_ROWS else ""
    return (
        f"<details class='tn-more'><summary>The answers{rest}; first those that changed</summary>"
        + table(["row", "asked", "wanted", base, tuned], listed, numeric=(0,))
        + "</details>"
    )


def _marked(row: Mapping[str, Any]) -> str:
    return ("✓ " if row["right"] else "✗ ") + row["text"]


# ---- A classifier -------------------------------------------------------------------------------------------------------


def chances(
    labels: Sequence[str], probabilities: Sequence[float], threshold: float, notes: Sequence[str] = ()
) -> str:
    """The classes of one text, the likeliest first, as bars; with two classes the threshold decides."""
    taken = decided(probabilities, threshold)
    order = sorted(range(len(labels)), key=lambda i: -probabilities[i])
    bars = "".join(
        f"<div class='tn-class{' tn-taken' if i == taken else ''}'><span translate='no'>{escape(labels[i])}</span>"
        f"<i style='--share:{100 * probabilities[i]:.2f}%'></i><b>{percent(probabilities[i])}</b></div>"
        for i in order
    )
    return f"<div class='tn-classes' data-label='{escape(labels[taken])}'>{bars}</div>" + "".join(
        map(message, notes)
    )


def decided(probabilities: Sequence[float], threshold: float) -> int:
    """The class that is taken: of two the second from `threshold` on, of more the likeliest."""
    if len(probabilities) == 2:
        return int(probabilities[1] >= threshold)
    return max(range(len(probabilities)), key=probabilities.__getitem__)


def verdicts(report: Mapping[str, Any], threshold: float = 0.5) -> str:
    """A classifier on rows whose class is known: accuracy, the confusion matrix, precision and recall, the wrong rows."""
    labels, rows = report["labels"], report["rows"]
    matrix = [[0] * len(labels) for _ in labels]
    wrong = []
    for row in rows:
        taken, true = decided(row["probabilities"], threshold), labels.index(row["label"])
        matrix[true][taken] += 1
        if taken != true:
            wrong.append((row, taken))
    right = sum(matrix[i][i] for i in range(len(labels)))
    commonest = max(map(sum, matrix))
    cards = [
        ("accuracy", f"{percent(right / len(rows))} ({right:,} of {len(rows):,})"),
        ("always the commonest class", percent(commonest / len(rows))),
    ]
    if len(labels) == 2:
        cards += [
            (f"precision of {labels[1]}", percent(_share(matrix[1][1], matrix[0][1] + matrix[1][1]))),
            (f"recall of {labels[1]}", percent(_share(matrix[1][1], sum(matrix[1])))),
        ]
    wrong.sort(key=lambda pair: -pair[0]["probabilities"][pair[1]])
    listed = [
        [row["row"], row["text"], row["label"], labels[taken], percent(row["probabilities"][taken])]
        for row, taken in wrong[:MOST_ROWS]
    ]
    told = (
        f"Wrong: {len(wrong):,} {'row' if len(wrong) == 1 else 'rows'}, the surest first"
        if wrong
        else "No row is wrong."
    )
    return (
        facts(cards) + confusion(labels, matrix)
        + (table(["row", "text", "is", "taken for", "with"], listed, told, (0, 4)) if wrong else f"<p class='tn-told'>{told}</p>")
    )  # fmt: skip


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def confusion(labels: Sequence[str], matrix: Sequence[Sequence[int]]) -> str:
    """matrix[i][j] rows of class i that were taken for j, as a table; the deeper, the larger the share of the row."""
    head = "".join(f"<th class='num' scope='col' translate='no'>{escape(label)}</th>" for label in labels)
    body = ""
    for i, counts in enumerate(matrix):
        cells = "".join(
            f"<td class='num{' tn-right' if i == j else ' tn-wrong' if n else ''}' style='--share:{100 * n / max(sum(counts), 1):.0f}%'>{n:,}</td>"
            for j, n in enumerate(counts)
        )
        body += f"<tr><th scope='row' translate='no'>{escape(labels[i])}</th>{cells}</tr>"
    return (
        "<div class='lab-scroll' tabindex='0'><table class='lab-table tn-matrix'><caption>Rows: what a text is. Columns: what it was taken for.</caption>"
        f"<thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


# ---- Preferences --------------------------------------------------------------------------------------------------------


def answers(prompt: str, texts: Sequence[str], writing: bool) -> str:
    """The answers to choose from; each with its button once all are written."""
    cards = "".join(
        f"<article class='tn-card'><h4>Answer {i + 1}</h4><p class='tn-said'{_foreign(text)}>{escape(text.strip()) or ('<i>…</i>' if writing else '<i>nothing: it ended at once</i>')}</p>"
        f"<button type='button' class='tn-pick' data-best='{i}'{' disabled' if writing else ''}>This one is best</button></article>"
        for i, text in enumerate(texts)
    )
    return (
        f"<p class='tn-asked' translate='no'>{escape(prompt)}</p><div class='tn-cards tn-choice' data-state='{'running' if writing else 'still'}'>"
        f"{cards}</div>"
    )


def pairs(name: str, found: Sequence[Mapping[str, str]], most: int = 30) -> str:
    """The pairs so far, the newest first, each with a button to look at it and one to take it away."""
    if not found:
        return message(f"{name} has no pair yet: write answers above, then choose one.")
    rows = "".join(
        f"<tr><td class='num'>{number}</td><td translate='no'>{escape(pair['prompt'])}</td><td class='tn-chosen' translate='no'>{escape(pair['chosen'])}</td>"
        f"<td translate='no'>{escape(pair['rejected'])}</td><td><button type='button' class='tn-link' data-look='{number}' aria-label='Look at pair {number}'>look</button> "
        f"<button type='button' class='tn-link' data-remove='{number}' aria-label='Remove pair {number}'>remove</button></td></tr>"
        for number, pair in list(enumerate(found, 1))[::-1][:most]
    )
    count = f"{len(found):,} pair{'s' if len(found) > 1 else ''} in {escape(name)}"
    return (
        f"<div class='lab-scroll' tabindex='0'><table class='lab-table tn-pairs'><caption>{count}</caption><thead><tr><th></th><th>asked</th><th>chosen</th>"
        f"<th>rejected</th><th></th></tr></thead><tbody>{rows}</tbody></table></div>"
    )


def margin(seen: Mapping[str, Mapping[str, Sequence[float]]], beta: float) -> dict[str, float]:
    """What the preference loss makes of a pair. seen[side][model]: log-probabilities of its tokens, in nats.

    {"chosen", "rejected": beta times (policy - reference), "margin": their difference, "loss": -log sigmoid of it}.
    """
    rewards = {
        side: beta * (math.fsum(by["policy"]) - math.fsum(by["reference"])) for side, by in seen.items()
    }
    m = rewards["chosen"] - rewards["rejected"]
    return rewards | {"margin": m, "loss": math.log1p(math.exp(-m)) if m > -30 else -m}


def pair(
    asked: str,
    tokens: Mapping[str, Sequence[str]],
    seen: Mapping[str, Mapping[str, Sequence[float]]],
    beta: float,
    policy: str,
    reference: str,
) -> str:
    """One pair token by token, then the way from the sums to the loss."""
    found = margin(seen, beta)
    sides = "".join(_side(side, tokens[side], seen[side]) for side in ("chosen", "rejected"))
    lines = []
    for side in ("chosen", "rejected"):
        sums = [math.fsum(seen[side][model]) for model in ("policy", "reference")]
        lines.append(
            [side, len(tokens[side]), *map(number, sums), number(sums[0] - sums[1]), number(found[side])]
        )
    formula = (
        f"<ol class='tn-steps'><li><span>margin = {number(found['chosen'])} − ({number(found['rejected'])})</span><b>{number(found['margin'])}</b></li>"
        f"<li><span>sigmoid(margin): how sure that the chosen one is better</span><b>{number(math.exp(-found['loss']))}</b></li>"
        f"<li><span>loss = −log sigmoid(margin)</span><b>{number(found['loss'])}</b></li></ol>"
    )
    same = message(
        f"{policy} is the reference itself: both say the same, the margin is 0 and the loss ln 2 = 0.6931, where every "
        "preference training begins."
    ) if policy == reference else ""  # fmt: skip
    return (
        f"<p class='tn-asked' translate='no'>{escape(asked)}</p><div class='tn-two'>{sides}</div>"
        "<p class='tn-legend'><span class='tn-less'>less likely</span> and <span class='tn-more-likely'>more likely</span> under the policy "
        "than under the reference; point at a token for its numbers.</p>"
        + "<div class='tn-sums'>"
        + table(
            ["answer", "tokens", f"log p, {policy}", f"log p, {reference}", "difference", f"reward = {beta:g} × difference"],
            lines, "Sums over the tokens, in nats", (1, 2, 3, 4, 5),
        )
        + "</div>" + formula + same
    )  # fmt: skip


def _side(side: str, tokens: Sequence[str], seen: Mapping[str, Sequence[float]]) -> str:
    chips = "".join(
        f"<span translate='no' class='tn-token {tint(p - r)}' title='log p: policy {p:.3f}, reference {r:.3f}, difference {p - r:+.3f}'>{escape(text)}</span>"
        for text, p, r in zip(tokens, seen["policy"], seen["reference"])
    )
    return f"<div class='tn-answer tn-{side}'><h4>{side}</h4><p class='tn-tokens'>{chips}</p></div>"


def tint(difference: float) -> str:
    """The class of a colour: tn-up3 for a token that became much likelier, tn-down1 for one a little less likely."""
    for strength, edge in ((3, 1.0), (2, 0.3), (1, 0.05)):
        if abs(difference) >= edge:
            return f"tn-{'up' if difference > 0 else 'down'}{strength}"
    return ""
