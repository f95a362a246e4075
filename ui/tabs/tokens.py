"""Tokens: a text as the pieces a model sees, the merges that made them, an encoding of your own, all encodings compared."""

from __future__ import annotations

import json
from pathlib import Path

import gradio as gr

from llm import commands, dispatch, files, paths, tokenizer
from llm.config import BPEConfig, to_dict
from llm.runs import Run
from ui import pickers
from ui.figures import tokens as figures
from ui.owner import owner
from ui.parts import intro, plain_errors, section, show_code
from ui.view import View

SHOWN = 1000  # tokens drawn in colour; counts, ids and the table are of the whole text
LONGEST = 1_000_000  # characters of a text that is shown here
LONGEST_WORD = 120  # bytes of a word whose merges are shown
SIZES = [300, 512, 1024, 2048, 4096, 8192, 16384]
EXAMPLE_ENCODING, EXAMPLE_MERGES = "stories-1280", 48  # shown until an encoding is learnt
AS_TEXT, AS_SPECIAL = "plain text", "special tokens"
EXAMPLE = (
    "Tokens are pieces of text: unbelievable, isn't it? 🙂\n"
    "漢字 and naïve spellings cost more.\n"
    "\tfor i in range(10): print(3.14159)\n"
    "<|endoftext|>"
)
ASIDE = (
    "The rank says how early a merge was learnt; in tables like GPT-2's it is also the id of the token made. "
    "The encoding is the one chosen above."
)
HTML = """<div class="tk">
<dl class="tk-facts lab-facts"></dl><div class="tk-notes"></div>
<div class="tk-label">Text <span>tinted by token</span></div>
<div class="tk-text" translate="no" tabindex="0" role="group" aria-label="The text as tokens; arrow keys move"></div>
<p class="tk-told" aria-live="polite"></p>
<div class="tk-label">Ids <span class="tk-actions"><button type="button" class="tk-copy" id="tokens-copy">Copy ids</button>
<button type="button" class="tk-csv" id="tokens-csv">Save CSV</button></span></div>
<div class="tk-ids" tabindex="0" role="group" aria-label="The ids of the tokens; arrow keys move"></div>
<details class="tk-details"><summary class="tk-summary">Table of all tokens</summary>
<div class="lab-scroll" tabindex="0"><table class="lab-table"><thead><tr><th class="num">#</th><th class="num">id</th><th>token</th>
<th>bytes (hex)</th><th class="num">length</th></tr></thead><tbody class="tk-rows" translate="no" id="tokens-rows"></tbody></table></div>
<div class="tk-pager"><button type="button" class="tk-first" aria-label="first page">«</button>
<button type="button" class="tk-previous" aria-label="previous page">‹</button><span class="tk-page"></span>
<button type="button" class="tk-next" aria-label="next page">›</button>
<button type="button" class="tk-last" aria-label="last page">»</button></div></details></div>"""
SCRIPT = Path(__file__).resolve().parent.parent / "js" / "tokens.js"


# ---- A text as tokens ------------------------------------------------------------------------------------------


def tokenize(text: str, encoding: str = "gpt2", special: bool = False) -> dict:
    """The token ids of a text.

    Args:
        text: any text
        encoding: byte, char, gpt2, cl100k_base, o200k_base, one trained here, or model:NAME
        special: whether strings like <|endoftext|> are special tokens (else they are plain text)
    Returns:
        ids, the bytes of each token in hex, bytes_per_token (0 for an empty text), and how specials were read
    """
    text = checked(text)
    found = encoding_of(encoding, text, special)
    ids = found.encode(text, special)
    return {
        "encoding": found.name,
        "special": AS_SPECIAL if special else AS_TEXT,
        "ids": ids,
        "tokens_hex": [found.token_bytes(id).hex() for id in ids],
        "bytes_per_token": tokenizer.bytes_per_token(text, ids) if ids else 0.0,
    }


def checked(text: object) -> str:
    """`text` if it can be shown. Raises ValueError with its length when it is too long."""
    if not isinstance(text, str):
        return ""
    if len(text) > LONGEST:
        raise ValueError(
            f"The text has {len(text):,} characters; up to {LONGEST:,} are shown here. Cut it down."
        )
    return tokenizer.clean(text)


def encoding_of(name: str, text: str, special: bool = False) -> tokenizer.Tokenizer:
    """The encoding of that name; "char" has the characters of this very text, and `<|endoftext|>` if `special`."""
    if name != "char":
        return tokenizer.get(name)
    eot = special and tokenizer.EOT in text
    characters = set(text.replace(tokenizer.EOT, "") if eot else text)
    return tokenizer.CharTokenizer("".join(sorted(characters)) or " ", eot=eot)


def show(text: str, encoding: str, specials: str) -> str:
    """All that the token view draws, as JSON: ids and bytes of the whole text, groups of the first SHOWN tokens."""
    text = checked(text)
    special = specials == AS_SPECIAL
    found = encoding_of(encoding, text, special)
    tokens = tokenizer.spans(text, found, special)
    ids = [token.id for token in tokens]
    payload = {
        "encoding": encoding,
        "ids": ids,
        "vocab": {id: found.token_bytes(id).hex() for id in set(ids)},
        "specials": sorted(set(found.special_tokens.values()) & set(ids)),
        "shown": min(len(ids), SHOWN),
        "groups": groups(text, tokens[:SHOWN]),
        "facts": [
            ("Tokens", f"{len(ids):,}", "count"),
            ("Characters", f"{len(text):,}", "characters"),
            ("Bytes (UTF-8)", f"{len(text.encode('utf-8')):,}", "bytes"),
            ("Bytes per token", f"{tokenizer.bytes_per_token(text, ids):.2f}" if ids else "–", "ratio"),
            ("Vocabulary", f"{found.vocab_size:,}", "vocabulary"),
            ("Special strings", f"as {specials}", "mode"),
        ],
        "notes": notes(text, found, special, ids),
        "mergeable": merges_bytes(found),
        "drawn": f"{encoding} {specials} {len(ids)}",
    }
    return _sent(payload)


def draw(text: str, encoding: str, specials: str) -> str:
    """`show`, with a refusal as a sentence in the view's own place instead of tokens."""
    try:
        return show(text, encoding, specials)
    except ValueError as error:
        refused = {
            "encoding": encoding,
            "ids": [],
            "vocab": {},
            "specials": [],
            "shown": 0,
            "groups": [],
            "facts": [],
        }
        return _sent(refused | {"notes": [("error", str(error))], "drawn": "refused"})


def _sent(payload: dict) -> str:
    return json.dumps(payload, separators=(",", ":")).replace("<", "\\u003c")


def groups(text: str, tokens: list[tokenizer.Token]) -> list[tuple[str, int, int]]:
    """(characters, first token, last token) of the tokens in a row, those that share a character in one group."""
    found: list[tuple[str, int, int]] = []
    i = 0
    while i < len(tokens):
        last, end = i, tokens[i].end
        while last + 1 < len(tokens) and tokens[last].partial and tokens[last + 1].start < end:
            last += 1
            end = max(end, tokens[last].end)
        found.append((text[tokens[i].start : end] if last > i else "", i, last))
        i = last + 1
    return found


def notes(text: str, found: tokenizer.Tokenizer, special: bool, ids: list[int]) -> list[tuple[str, str]]:
    """What one should know of this text in this encoding: (kind of message, sentence)."""
    told = []
    if not text:
        told.append(("note", "Type or paste a text: its tokens appear here at once."))
    standing = [name for name in {**found.special_tokens, tokenizer.EOT: 0} if name in text]
    if standing:
        names = ", ".join(standing)
        if special and all(name in found.special_tokens for name in standing):
            told.append(
                (
                    "note",
                    f"{names} in this text is read as a special token, one id. Typed into a prompt it is plain text.",
                )
            )
        elif special:
            told.append(("note", f"{found.name} has no special token {names}: it is read as plain text."))
        else:
            told.append(
                (
                    "note",
                    f"{names} in this text is read as plain text. Datasets are read with special tokens.",
                )
            )
    if text.endswith(" ") and found.kind in ("bpe", "hf"):
        last = (
            f"its own token ({ids[-1]})"
            if found.token_bytes(ids[-1]) == b" "
            else f"in the last token ({ids[-1]})"
        )
        told.append(
            (
                "warning",
                f"The text ends with a space, {last}. A prompt is better without it: words begin with their space here.",
            )
        )
    if returns := text.count("\r"):
        told.append(
            (
                "warning",
                f"The text has {returns:,} carriage returns (\\r), as Windows and old Macs end lines. They count as they are; files are read with \\n.",
            )
        )
    if "\ufffd" in text:
        told.append(("warning", "The text has U+FFFD: a character was lost before it came here."))
    if found.kind == "char":
        told.append(
            (
                "note",
                f"The vocabulary is the {found.vocab_size:,} different characters of this very text, sorted.",
            )
        )
    if len(ids) > SHOWN:
        told.append(
            (
                "note",
                f"The first {SHOWN:,} of {len(ids):,} tokens are drawn. Counts, ids, table and CSV are of the whole text.",
            )
        )
    return told


def open_file(path: str | None) -> tuple[str, str]:
    """The text of an uploaded file, and what was changed in reading it."""
    if not path:
        return gr.skip(), gr.skip()
    read = files.read_text(path, limit=4 * LONGEST)
    checked(read.text)
    return read.text, figures.message(" ".join(read.notes))


# ---- Merges ----------------------------------------------------------------------------------------------------


def merges(word: str, encoding: str) -> str:
    """The merges of a word, step by step, as HTML; a sentence where the encoding has none."""
    word = tokenizer.clean(word or "")
    if not word:
        return figures.message("Type a word: its bytes are merged here one pair at a time.")
    if len(word.encode("utf-8")) > LONGEST_WORD:
        return figures.message(f"That has more than {LONGEST_WORD} bytes: type a single word.", "warning")
    try:
        found = encoding_of(encoding, word)
    except ValueError as error:
        return figures.message(str(error), "error")
    if found.kind in ("byte", "char"):
        return figures.message(
            f"{encoding} does not merge: each {'byte' if found.kind == 'byte' else 'character'} is a token."
        )
    if not merges_bytes(found):
        return figures.message(f"{encoding} is no byte-level BPE, so it has no merges of bytes to show.")
    return figures.merge_ladder([ladder(found, piece) for piece in found.pieces(word)])


def merges_bytes(found: tokenizer.Tokenizer) -> bool:
    """Whether this encoding is made of merges of bytes, which can be followed one by one."""
    return found.kind == "bpe" or (isinstance(found, tokenizer.HFTokenizer) and found.byte_level)


def ladder(
    found: tokenizer.BPETokenizer | tokenizer.HFTokenizer, piece: str
) -> tuple[str, list[dict], list[int]]:
    """One piece for `figures.merge_ladder`."""
    steps = [
        {"before": step.before, "at": step.at, "rank": step.rank, "after": step.after}
        for step in found.merge_steps(piece)
    ]
    return piece, steps, found.encode(piece)


# ---- Learning an encoding --------------------------------------------------------------------------------------


def bpe_config(dataset: str, vocab_size: float) -> BPEConfig:
    """The settings of a run that learns an encoding. Raises ValueError for those it refuses."""
    if not dataset:
        raise ValueError("Choose a text to learn from.")
    if not isinstance(vocab_size, (int, float)):
        raise ValueError("Choose how many ids the encoding shall have.")
    return BPEConfig(dataset=dataset, vocab_size=int(vocab_size))


def missing(name: str, dataset: str) -> str:
    """What the Start button waits for; '' when nothing is missing."""
    if not dataset:
        return "Choose a text first"
    if not name:
        return "Name the encoding first"
    try:
        paths.checked_name(name, "encoding name")
    except ValueError:
        return "Name: letters, digits, dots, dashes"
    if name in tokenizer.names() or (paths.runs() / name).exists():
        return "That name is taken"
    return ""


def ready(name: str, dataset: str, vocab_size: float) -> tuple[gr.Button, str]:
    """The Start button, whose label names what is missing, and the command that it will run."""
    lacking = missing(name, dataset)
    line = (
        commands.command_line("tokenizer", name or "NAME", bpe_config(dataset, vocab_size)) if dataset else ""
    )
    return gr.Button(lacking or "Learn the merges", interactive=not lacking), line


def start(name: str, dataset: str, vocab_size: float, request: gr.Request) -> str:
    """Start a run that learns the encoding; returns the run's name."""
    if lacking := missing(name, dataset):
        raise ValueError(f"{lacking}.")
    run = Run.create("tokenizer", to_dict(bpe_config(dataset, vocab_size)), owner=owner(request), name=name)
    dispatch.pump()
    return run.name


def stop(name: str, request: gr.Request) -> None:
    """Ask the visitor's own run to stop. Raises ValueError when it is another's."""
    run = Run.open(name)
    if run.meta["owner"] != owner(request):
        raise ValueError(f"The run {name} belongs to someone else: only they can stop it.")
    run.request_stop()


def follow(name: str) -> tuple[str, gr.Timer, gr.Button, gr.Button]:
    """How the run stands: (HTML, the timer on while it lives, the Stop button, the button that uses the result)."""
    from llm.bpe import STAGES

    off = gr.Timer(active=False), gr.Button(visible=False), gr.Button(visible=False)
    if not name:
        return example_merges(), *off
    try:
        run = Run.open(name)
    except ValueError as error:
        return figures.message(str(error), "warning"), *off
    status = run.status()
    place = dispatch.outlook(run)[0] if status == "waiting" else None
    live = status in ("waiting", "running")
    html = figures.progress(status, run.events(), STAGES, place)
    done = status == "finished" and name in tokenizer.names()
    return html, gr.Timer(active=live), gr.Button(visible=live), gr.Button(f"Use {name} above", visible=done)


def example_merges() -> str:
    """What learning gives, before anything is learnt here: the first merges of an encoding that is there."""
    name = next(name for name in (EXAMPLE_ENCODING, "gpt2") if name in tokenizer.names())
    pairs = [(left.hex(), right.hex()) for left, right in tokenizer.get(name).merges(EXAMPLE_MERGES)]
    return figures.first_merges(pairs, f"The first {len(pairs)} merges of {name}")


# ---- The duel --------------------------------------------------------------------------------------------------


def duel_texts() -> list[dict]:
    """The texts of the duel: name, text, and whether it is the tale that is told in every language."""
    return json.loads((paths.shipped_datasets() / "encodings" / "duel.json").read_text(encoding="utf-8"))


def duel_counts(texts: list[str]) -> dict[str, list[int]]:
    """Tokens of each text in every encoding; those that always agree share one entry, and unusable ones have none."""
    counts: dict[tuple[int, ...], list[str]] = {}
    for name in tokenizer.names():
        try:
            found = [len(encoding_of(name, text).encode(text)) for text in texts]
        except ValueError:
            continue  # a broken tokenizer.json, or a char vocabulary that lacks a character
        counts.setdefault(tuple(found), []).append(name)
    return {_shared(names): list(found) for found, names in counts.items()}


def _shared(names: list[str]) -> str:
    """One name for encodings that agree: short enough for a legend."""
    return names[0] if len(names) == 1 else f"{names[0]} (and {len(names) - 1} alike)"


def duel(measure: str, own: str):
    """The chart and the table of all encodings on all texts; `own` is the text on screen, a row of its own."""
    told = [entry for entry in duel_texts() if entry["tale"] or measure == "bytes per token"]
    if measure == "bytes per token" and checked(own).strip():
        told.append({"name": "Your text", "text": checked(own)})
    names, texts = [entry["name"] for entry in told], [entry["text"] for entry in told]
    counts = duel_counts(texts)
    sizes = [len(text.encode("utf-8")) for text in texts]
    return figures.duel(names, counts, sizes, measure), figures.duel_table(names, counts, sizes, measure)


# ---- Layout ----------------------------------------------------------------------------------------------------


def build(view: View) -> None:
    """Lay out the tab and wire it."""
    intro(
        "A model never sees letters: it sees these tinted pieces, each a number.",
        "Type your name with and without a space before it, then switch the encoding.",
    )
    with gr.Row(elem_classes="tk-bench"):
        with gr.Column(scale=4, min_width=300):
            text = gr.Textbox(EXAMPLE, label="Text", lines=7, max_lines=14, elem_id="tokens-text")
            with gr.Row():
                upload = gr.UploadButton(
                    "Open a text file", size="sm", min_width=100, elem_id="tokens-file", file_count="single"
                )
                clear = gr.Button("Clear", size="sm", min_width=100, elem_id="tokens-clear")
            changed = gr.HTML(padding=False, elem_id="tokens-changed")
            encoding = pickers.encoding_picker(view, preferred="gpt2")
            specials = gr.Radio(
                [AS_TEXT, AS_SPECIAL],
                value=AS_TEXT,
                label="Strings like <|endoftext|> are",
                elem_id="tokens-specials",
            )
        with gr.Column(scale=8, min_width=320):
            picture = gr.HTML(
                html_template=HTML, js_on_load=SCRIPT.read_text(encoding="utf-8"), apply_default_css=False,
                elem_id="tokens-view", value="",
            )  # fmt: skip
    view.keep("text", text)
    view.keep("specials", specials)
    answer = plain_errors(draw)
    quick = {
        "queue": False,
        "show_progress": "hidden",
        "trigger_mode": "always_last",
        "api_visibility": "private",
    }
    gr.on(
        [text.change, encoding.change, specials.change], answer, [text, encoding, specials], picture, **quick
    )
    upload.upload(
        plain_errors(open_file), upload, [text, changed], api_visibility="private", show_progress="hidden"
    )
    clear.click(lambda: ("", ""), None, [text, changed], queue=False, api_visibility="private")
    gr.api(plain_errors(tokenize), api_name="tokenize")
    show_code("llm.tokenizer:spans", "llm.tokenizer:BPETokenizer.encode", "llm.tokenizer:StreamDecoder")

    view.on_load(answer, picture, [text, encoding, specials])  # the first thing that is drawn
    build_merges(view, encoding)
    build_learning(view, encoding)
    build_duel(view, text)


def build_merges(view: View, encoding: gr.Dropdown) -> None:
    """The merges of one word."""
    section(
        "Merges of a word",
        "A piece starts as bytes. The pair of neighbours with the lowest rank is joined, again and again, until no pair is left that has a rank.",
    )
    with gr.Row(elem_classes="tk-bench"):
        with gr.Column(scale=4, min_width=300):
            word = gr.Textbox(
                " unbelievable", label="Word (a space before it counts)", max_lines=1, elem_id="tokens-word"
            )
            gr.HTML(f"<p class='tk-aside'>{ASIDE}</p>", padding=False)
        with gr.Column(scale=8, min_width=320):
            steps = gr.HTML(padding=False, elem_id="tokens-merges")
    view.keep("word", word)
    draw = plain_errors(merges)
    quick = {
        "queue": False,
        "show_progress": "hidden",
        "trigger_mode": "always_last",
        "api_visibility": "private",
    }
    gr.on([word.change, encoding.change], draw, [word, encoding], steps, **quick)
    view.on_load(draw, steps, [word, encoding])
    show_code("llm.tokenizer:merge_steps")


def build_learning(view: View, encoding: gr.Dropdown) -> None:
    """Learn an encoding from a dataset, as a run."""
    section(
        "An encoding of your own",
        "Learn merges from any text: the most frequent pair of neighbours becomes a new token, until the vocabulary is full. Train can use the result.",
    )
    with gr.Row(elem_classes="tk-bench"):
        with gr.Column(scale=4, min_width=300):
            dataset = pickers.dataset_picker(view)
            size = gr.Dropdown(
                SIZES, value=1024, label="Vocabulary size", allow_custom_value=False, elem_id="tokens-size"
            )
            name = gr.Textbox(
                label="Name of the encoding",
                placeholder="for example my-1024",
                max_lines=1,
                elem_id="tokens-name",
            )
            go = gr.Button(
                "Name the encoding first", variant="primary", interactive=False, elem_id="tokens-learn"
            )
            line = gr.Code(
                language="shell",
                label="The command that it runs",
                interactive=False,
                lines=1,
                max_lines=3,
                wrap_lines=True,
                show_line_numbers=False,
                elem_id="tokens-command",
            )
        with gr.Column(scale=8, min_width=320):
            standing = gr.HTML(padding=False, elem_id="tokens-progress")
            with gr.Row():
                halt = gr.Button("Stop", size="sm", visible=False, elem_id="tokens-stop")
                use = gr.Button("Use it above", size="sm", visible=False, elem_id="tokens-use")
    run = gr.Textbox(visible=False)
    timer = gr.Timer(0.5, active=False)
    view.keep("size", size)
    view.keep("run", run)
    private = {"api_visibility": "private", "show_progress": "hidden"}
    gr.on(
        [name.change, dataset.change, size.change],
        plain_errors(ready),
        [name, dataset, size],
        [go, line],
        queue=False,
        **private,
    )
    seen = [standing, timer, halt, use]
    go.click(plain_errors(start), [name, dataset, size], run, **private).success(
        plain_errors(follow), run, seen, queue=False, **private
    ).success(plain_errors(ready), [name, dataset, size], [go, line], queue=False, **private)
    timer.tick(plain_errors(follow), run, seen, queue=False, **private)
    halt.click(plain_errors(stop), run, None, **private)
    use.click(
        lambda name: gr.Dropdown(choices=pickers.encoding_names(), value=name),
        run,
        encoding,
        queue=False,
        **private,
    )
    view.on_load(plain_errors(ready), [go, line], [name, dataset, size])
    view.on_load(plain_errors(follow), seen, run)
    show_code("llm.bpe:learn")


def build_duel(view: View, text: gr.Textbox) -> None:
    """All encodings against each other."""
    section(
        "Duel of the encodings",
        "One tale in thirteen languages, then code, numbers and emoji. The more bytes a token holds, the less a model has to read.",
    )
    with gr.Row(elem_classes="tk-duel"):
        measure = gr.Radio(
            list(figures.MEASURES),
            value="bytes per token",
            label="Compare",
            show_label=False,
            container=False,
            elem_id="tokens-measure",
            scale=3,
        )
        again = gr.Button("Compare my text as well", size="sm", elem_id="tokens-duel-again", scale=1)
    chart = gr.Plot(show_label=False, elem_id="tokens-duel")
    with gr.Accordion("The numbers", open=False):
        numbers = gr.HTML(padding=False, elem_id="tokens-duel-table")
    view.keep("measure", measure)
    private = {"api_visibility": "private", "show_progress": "hidden"}
    gr.on([measure.change, again.click], plain_errors(duel), [measure, text], [chart, numbers], **private)
    view.on_load(plain_errors(duel), [chart, numbers], [measure, text])
