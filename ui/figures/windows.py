"""Pictures of a text cut into windows: the split, the text under its windows, one token's windows, a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ui.figures.base import escape, facts, message, number

LANES = (
    3  # windows over one token that can be told apart as bands; above that the shade says how many there are
)
COLUMNS = 20  # tokens of the picture of one token's windows
ROWS = 8  # windows of a list or a batch that are drawn
WIDTH = 34  # places of a batch that are drawn
SIGNS = {" ": "·", "\n": "⏎", "\t": "⇥", "\r": "␍"}


@dataclass(frozen=True)
class Part:
    """What became of the training or the validation part of a text."""

    n_tokens: int
    n_windows: int
    n_batches: int
    first: int  # place of its first token in the text


@dataclass(frozen=True)
class Mark:
    """One token of the text and the windows over it."""

    position: int  # in the whole text
    token: bytes
    windows: range  # windows that have it as an input, by their number in its part
    begins: int | None  # the window that starts with it
    never_input: bool
    never_target: bool
    validation: bool


@dataclass(frozen=True)
class Row:
    """One window of a batch: ids are not drawn, only what they stand for."""

    number: int
    first: int  # place of its first token in the text
    inputs: Sequence[bytes]
    targets: Sequence[bytes]


@dataclass(frozen=True)
class Batch:
    """One batch as it would be trained on."""

    step: int
    epoch: int
    place: int  # within its epoch
    per_epoch: int
    rows: Sequence[Row]
    n_rows: int  # of the whole batch; `rows` holds those that are drawn
    context_length: int


@dataclass(frozen=True)
class Ladder:
    """Windows around one token: which of the columns each holds."""

    columns: Sequence[tuple[int, bytes]]  # place in the text, token
    rows: Sequence[tuple[int, int, int]]  # window, place of its first input, place of its last target
    more: int = 0  # windows that are not drawn


@dataclass(frozen=True)
class Chosen:
    """The token that was clicked, and its two roles."""

    mark: Mark
    id: int
    n_context: int
    as_input: Sequence[tuple[int, int, bytes]]  # window, place in it, the target there
    as_target: Sequence[tuple[int, int, bytes]]  # window, place in it, the input it is the answer to
    n_input: int
    n_target: int
    ladder: Ladder = field(default_factory=lambda: Ladder((), ()))


def shown(token: bytes) -> str:
    """A token for reading: spaces and line ends as signs, bytes that are no whole character in hexadecimal."""
    try:
        text = token.decode("utf-8")
    except UnicodeDecodeError:
        return token.hex(" ")
    if not text.isprintable():
        text = "".join(c if c.isprintable() or c in SIGNS else f"U+{ord(c):04X}" for c in text)
    return "".join(SIGNS.get(c, c) for c in text)


def chip(token: bytes) -> str:
    """The same as HTML, its signs paler than letters."""
    if not token:
        return "<i>∅</i>"
    text = escape(shown(token))
    if not _is_text(token):
        return f"<i>{text}</i>"
    for sign in SIGNS.values():
        text = text.replace(sign, f"<i>{sign}</i>")
    return text


def _is_text(token: bytes) -> bool:
    try:
        token.decode("utf-8")
        return True
    except UnicodeDecodeError:
        return False


def summary(
    n_tokens: int, train: Part, validation: Part, never_input: int, never_target: int, dropped: int
) -> str:
    """The counts, then the split as a bar."""
    cards = facts(
        [
            ("tokens of the text", number(n_tokens)),
            ("training windows", number(train.n_windows)),
            ("batches a pass", number(train.n_batches)),
            ("never an input", number(never_input)),
            ("never a target", number(never_target)),
        ]
    )
    left = (
        f" In each pass, {_count(dropped, 'window')} {'is' if dropped == 1 else 'are'} left over: too few for one more batch."
        if dropped
        else ""
    )
    said = (
        f"Of the {_count(train.n_tokens, 'training token')}, {number(never_input)} {'is' if never_input == 1 else 'are'} never an input and "
        f"{number(never_target)} never a target.{left}"
    )
    return f"<div class='win-summary'>{cards}<p class='win-said'>{escape(said)}</p>{split_bar(train, validation)}</div>"


def _count(n: int, noun: str) -> str:
    return f"{number(n)} {noun}{'' if n == 1 else 's'}"


def split_bar(train: Part, validation: Part) -> str:
    """Training part | validation part, as wide as they have tokens, each with its counts."""
    total = max(train.n_tokens + validation.n_tokens, 1)
    cells, notes = [], []
    for part, name, kind in ((train, "Training", "train"), (validation, "Validation", "val")):
        share = part.n_tokens / total
        if part.n_tokens:
            cells.append(f"<span class='win-{kind}' style='flex:{max(share, 0.012):.4f}'></span>")
        batches = _count(part.n_batches, "batch" if part.n_batches == 1 else "batche")
        counts = f"{_count(part.n_tokens, 'token')}, {_count(part.n_windows, 'window')}, {batches}"
        notes.append(
            f"<div class='win-key' data-part='{kind}'><b><s class='win-{kind}'></s>{name} {share:.1%}</b>"
            f"<span>{escape(counts)}</span></div>"
        )
    label = f"{train.n_tokens} training tokens, then {validation.n_tokens} validation tokens"
    bar = f"<div class='win-bar' role='img' aria-label='{escape(label)}'>{''.join(cells)}</div>"
    return f"{bar}<div class='win-keys'>{''.join(notes)}</div>"


def laid(marks: Sequence[Mark], lanes: int, at: int, n_tokens: int, n_train: int, page: int) -> str:
    """An excerpt of the text, each token with the windows over it as bands below it."""
    if not marks:
        return message("There are no tokens to show.")
    lit = next((m for m in marks if m.position == at), None)
    body = []
    for mark in marks:
        if mark.position == n_train and mark.validation:
            body.append("<span class='win-border' translate='yes'>validation from here</span>")
        body.append(_token(mark, lanes, lit))
    first, last = marks[0].position, marks[-1].position
    return (
        f"<div class='win-text' translate='no' tabindex='0' role='group' data-at='{at}' data-n='{n_tokens}' data-lanes='{lanes if lanes <= LANES else 1}'"
        f" aria-label='Tokens {first} to {last} with their windows; arrow keys move'>{''.join(body)}</div>"
        f"{_legend(lanes)}{_pages(first, last, n_tokens, page)}"
    )


def _token(mark: Mark, lanes: int, lit: Mark | None) -> str:
    side = "v" if mark.validation else "t"
    names = ["wt"]
    if lanes <= LANES:
        names += [f"{'abc'[k % lanes]}{k % 4}" for k in mark.windows]
    elif mark.windows:
        names.append(f"h{min(4, -(-4 * len(mark.windows) // lanes))}")
    names += ["val"] if mark.validation else []
    names += ["ni"] if mark.never_input else []
    names += ["nt"] if mark.never_target else []
    if lit is not None and lit.validation == mark.validation and _meet(lit.windows, mark.windows):
        names.append("lit")
    if lit is not None and lit.position == mark.position:
        names += ["sel"]
    tag = ""
    if mark.begins is not None and lanes <= LANES:
        names.append("st")
        tag = f"<sup>{mark.begins}</sup>"
    windows = f"{side}{mark.windows.start}-{mark.windows.stop - 1}" if mark.windows else ""
    after = "<br>" if mark.token.endswith(b"\n") else ""
    return f"<span class='{' '.join(names)}' data-p='{mark.position}' data-w='{windows}'>{tag}{chip(mark.token)}</span>{after}"


def _meet(a: range, b: range) -> bool:
    return bool(a) and bool(b) and a.start < b.stop and b.start < a.stop


def _legend(lanes: int) -> str:
    if lanes <= LANES:
        bands = "a band is one window; the small number is where it starts"
        sample = "<span class='wt a0'>input</span>"
    else:
        bands = f"darker: in more windows, up to {lanes}"
        sample = "<span class='wt h1'>few</span><span class='wt h4'>many</span>"
    return (
        f"<p class='win-legend'><span>{sample} {bands}</span><span><span class='wt ni'>token</span> never an input</span>"
        "<span><span class='wt nt'>token</span> never a target</span>"
        "<span><span class='wt lit'>token</span> in a window of the chosen token</span></p>"
    )


def _pages(first: int, last: int, n_tokens: int, page: int) -> str:
    if n_tokens <= page:
        return ""
    back = "" if first == 0 else f"<button type='button' data-go='{first - page}'>← earlier</button>"
    on = "" if last + 1 >= n_tokens else f"<button type='button' data-go='{last + 1}'>later →</button>"
    return (
        f"<p class='win-pages'>{back}<span>tokens {number(first)} to {number(last)} of {number(n_tokens)}, counted from 0"
        f"</span>{on}</p>"
    )


def chosen(token: Chosen) -> str:
    """The clicked token: in which windows, in which role, and those windows over one another."""
    mark = token.mark
    part = "validation" if mark.validation else "training"
    head = (
        f"<p class='win-head'><span class='win-chip' translate='no'>{chip(mark.token)}</span> token {number(mark.position)}, "
        f"id {token.id}, {part} part</p>"
    )
    lines = "".join(
        f"<div><b>{title}</b>{_roles(roles, n, said, none)}</div>"
        for title, roles, n, said, none in (
            ("As an input", token.as_input, token.n_input, "its target is", "Never: no window holds it."),
            ("As a target", token.as_target, token.n_target, "it follows", "Never: no window asks for it."),
        )
    )
    return f"<div class='win-chosen'>{head}<div class='win-roles'>{lines}</div>{ladder(token.ladder, mark)}</div>"


def _roles(roles: Sequence[tuple[int, int, bytes]], n: int, said: str, none: str) -> str:
    if not roles:
        return f"<p>{none}</p>"
    items = "".join(
        f"<li data-window='{window}'>window {number(window)}, place {place}: {said} "
        f"<span class='win-chip' translate='no'>{chip(other)}</span></li>"
        for window, place, other in roles
    )
    more = (
        f"<li class='win-more'>and in {_count(n - len(roles), 'more window')}</li>" if n > len(roles) else ""
    )
    return f"<ul>{items}{more}</ul>"


def ladder(steps: Ladder, mark: Mark) -> str:
    """Windows over one another, each token in its own column: the shift from window to window is the stride."""
    if not steps.rows:
        return ""
    head = "".join(
        f"<th{' class=sel' if position == mark.position else ''}>{number(position)}</th>"
        for position, _ in steps.columns
    )
    body = []
    for window, first, last in steps.rows:
        cells = "".join(
            f"<td translate='no' class='{_role(position, first, last)}{' sel' if position == mark.position else ''}'>"
            f"{chip(token) if first <= position <= last else ''}</td>"
            for position, token in steps.columns
        )
        body.append(f"<tr><th scope='row'>window {number(window)}</th>{cells}</tr>")
    more = (
        f"<p class='win-more'>{_count(steps.more, 'more window')} around it not drawn.</p>"
        if steps.more
        else ""
    )
    key = (
        "<p class='win-legend'><span><s class='in'></s> input and, but for the first, target</span>"
        "<span><s class='ta'></s> only a target: the answer to the last input</span></p>"
    )
    table = f"<table class='win-ladder'><thead><tr><th></th>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"
    return f"<div class='lab-scroll' tabindex='0'>{table}</div>{more}{key}"


def _role(position: int, first: int, last: int) -> str:
    if position == last:
        return "ta"
    return "in" if first <= position < last else ""


def batch(of: Batch) -> str:
    """Input row over target row, shifted by one; hovering one shows its partner."""
    places = _places(of.context_length)
    head = "".join("<th class='gap'>⋯</th>" if i is None else f"<th>{i}</th>" for i in places)
    body = "".join(_pair(row, places) for row in of.rows)
    windows = ", ".join(number(row.number) for row in of.rows)
    more = f" and {of.n_rows - len(of.rows)} more" if of.n_rows > len(of.rows) else ""
    steps = (
        f"<button type='button' data-step='{of.step - 1}'{' disabled' if of.step == 0 else ''}>← previous</button>"
        f"<span><b>Batch {number(of.place)}</b> of {number(of.per_epoch)} in pass {number(of.epoch)} "
        f"(training step {number(of.step)}): {'window' if of.n_rows == 1 else 'windows'} {windows}{more}</span>"
        f"<button type='button' data-step='{of.step + 1}'>next →</button>"
    )
    said = "Point at a token: its target, and where the same token stands in the other row."
    table = f"<table class='win-batch'><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table>"
    return (
        f"<div class='win-steps'>{steps}</div><div class='lab-scroll' tabindex='0'>{table}</div>"
        f"<p class='win-link' aria-live='polite' data-said='{escape(said)}'>{escape(said)}</p>"
    )


def _places(context_length: int) -> list[int | None]:
    """Which columns of a batch are drawn; None is the gap."""
    if context_length <= WIDTH:
        return list(range(context_length))
    return [*range(WIDTH - 4), None, *range(context_length - 3, context_length)]


def _pair(row: Row, places: Sequence[int | None]) -> str:
    lines = []
    for kind, name, tokens in (("x", "input", row.inputs), ("y", "target", row.targets)):
        cells = "".join(
            "<td class='gap'>⋯</td>"
            if i is None
            else f"<td class='{kind}' data-c='{i}'><span class='win-chip' translate='no'>{chip(tokens[i])}</span></td>"
            for i in places
        )
        title = (
            f"<button type='button' data-go='{row.first}'>window {number(row.number)}</button>"
            if kind == "x"
            else ""
        )
        lines.append(
            f"<tr class='{kind}' data-r='{row.number}'><th scope='row'>{title}<em>{name}</em></th>{cells}</tr>"
        )
    return "".join(lines)
