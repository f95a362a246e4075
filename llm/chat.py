"""A conversation as the ids a model was taught to expect: its own chat template, with markers that nobody can type.

A chat template is a program of somebody else's (Jinja), so it is run in a process of its own, in a sandbox, with limits
on time, memory and output. No torch here: the page renders conversations itself.

    manners = read(folder)
    found = prompt(folder, encoding, conversation("Be brief.", [], "Hello"))
    found.ids, found.pieces, found.stops
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from llm import paths
from llm.tokenizer import EOT, HFTokenizer, Tokenizer

Message = dict[str, str]  # role (system, user or assistant) and content
ROLES = ("system", "user", "assistant")
TURN_ENDS = ("<|im_end|>", "<end_of_turn>", "<|eot_id|>", "<|eom_id|>", "<|end|>")  # where models have them
LONGEST_TEMPLATE = 200_000  # characters; the longest in use are near 15,000
LONGEST_CHAT = 400_000  # characters of all messages
LONGEST_TEXT = 2_000_000  # characters that a template may write
SECONDS = 2  # of processor time that a template may take
WAIT_SECONDS = 15  # by the clock, on a machine that has others to serve
MEMORY = 512 * 2**20  # bytes of address space, of which the interpreter itself takes some 40 million
# Two code points that no text holds (Unicode keeps them free for such use): they mark what a person typed.
OPENS, CLOSES = "\ufdd0", "\ufdd1"


@dataclass(frozen=True)
class Template:
    """A way to write a conversation down that a person can choose for a model without one of its own."""

    label: str
    source: str
    stops: tuple[str, ...]  # where an answer ends when the model has no token for it


TEMPLATES = {
    "plain": Template(
        "plain: User: … Assistant: …",
        "{% for message in messages %}{% if message.role == 'system' %}{{ message.content + '\n\n' }}{% else %}"
        "{{ message.role.capitalize() + ': ' + message.content.strip() + '\n' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}",
        ("\nUser:",),
    ),
    "alpaca": Template(
        "Alpaca: ### Instruction, ### Response",
        "{% if messages[0].role != 'system' %}{{ 'Below is an instruction that describes a task. Write a response that "
        "appropriately completes the request.\n\n' }}{% endif %}{% for message in messages %}"
        "{% if message.role == 'system' %}{{ message.content + '\n\n' }}"
        "{% elif message.role == 'user' %}{{ '### Instruction:\n' + message.content.strip() + '\n\n' }}"
        "{% else %}{{ '### Response:\n' + message.content.strip() + '\n\n' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '### Response:\n' }}{% endif %}",
        ("\n### Instruction:",),
    ),
    "chatml": Template(
        "ChatML: <|im_start|>user … <|im_end|>",
        "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
        ("<|im_end|>", "<|im_start|>"),
    ),
}


# --- what the files of a model directory say


@dataclass(frozen=True)
class Manners:
    """How a model is spoken to, as the files in its directory say."""

    name: str
    template: str  # Jinja source; "" when it has none
    words: tuple[tuple[str, str], ...]  # bos_token, eos_token, ...: text by name, for the template
    added: tuple[tuple[str, int, bool], ...]  # tokens beside the vocabulary: text, id, whether special
    begins: str  # the token that stands before every plain text ("<s>"); "" when none does
    begin_id: int | None
    end_ids: tuple[int, ...]  # each of them ends an answer


def read(folder: Path) -> Manners:
    """The manners of a model directory, read again when a file of it changes.

    From tokenizer.json (post-processor, added tokens), tokenizer_config.json (tokens, template, whether a text begins
    with one), chat_template.jinja, which comes before the other template, and generation_config.json (ids that end a
    text). Where tokenizer.json itself puts a token before a text, it is right, as for transformers. Raises ValueError for
    a broken file.
    """
    names = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")
    return _read(Path(folder), tuple(_stamp(Path(folder) / name) for name in names))


def _stamp(file: Path) -> tuple[int, int]:
    with suppress(OSError):
        state = file.stat()
        return state.st_mtime_ns, state.st_size
    return 0, 0


@functools.lru_cache(maxsize=64)
def _read(folder: Path, stamps: tuple) -> Manners:
    document, settings, generation = (
        _object(folder / name)
        for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json")
    )
    words = {
        key: text for key, value in settings.items() if key.endswith("_token") and (text := _text(value))
    }
    added = [
        (token["content"], token["id"], bool(token.get("special")))
        for token in document.get("added_tokens") or []
        if isinstance(token, dict) and isinstance(token.get("content"), str) and type(token.get("id")) is int
    ]
    ids = _vocabulary(document) | {text: id for text, id, _ in added}
    begins = _first_token(document.get("post_processor"))
    if not begins and settings.get("add_bos_token") is True:
        begins = words.get("bos_token", "")
    ends = [ids[text] for text in (words.get("eos_token", ""), *TURN_ENDS) if text in ids]
    eos = generation.get("eos_token_id")
    ends += [id for id in (eos if isinstance(eos, list) else [eos]) if type(id) is int and id >= 0]
    return Manners(
        paths.called(folder), _template(folder, settings), tuple(words.items()), tuple(added), begins if begins in ids else "",
        ids.get(begins), tuple(dict.fromkeys(ends)),
    )  # fmt: skip


def _object(file: Path) -> dict[str, Any]:
    """A JSON object; empty when there is no such file."""
    if not file.is_file():
        return {}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise ValueError(
            f"The {file.name} of {file.parent.name} is not valid JSON: the file is damaged."
        ) from None
    if not isinstance(found, dict):
        raise ValueError(
            f"The {file.name} of {file.parent.name} holds a {type(found).__name__}, no settings."
        )
    return found


def _text(value: Any) -> str:
    """A token's text, written as a string or as {"content": ...}."""
    text = value.get("content") if isinstance(value, dict) else value
    return text if isinstance(text, str) else ""


def _vocabulary(document: Mapping[str, Any]) -> dict[str, int]:
    model = document.get("model")
    vocab = model.get("vocab") if isinstance(model, dict) else None
    return vocab if isinstance(vocab, dict) else {}


def _first_token(post_processor: Any) -> str:
    """The special token that a tokenizer.json puts before every text; "" when it puts none."""
    if not isinstance(post_processor, dict):
        return ""
    for part in post_processor.get("processors") or [post_processor]:
        single = part.get("single") if isinstance(part, dict) else None
        if (
            isinstance(single, list)
            and single
            and isinstance(single[0], dict)
            and "SpecialToken" in single[0]
        ):
            return str(single[0]["SpecialToken"].get("id", ""))
    return ""


def _template(folder: Path, settings: Mapping[str, Any]) -> str:
    """The model's template: of several named ones that called default, else the first."""
    file, found = folder / "chat_template.jinja", settings.get("chat_template")
    if file.is_file():
        found = file.read_text(encoding="utf-8", errors="replace")
    elif isinstance(found, list):
        named = {one.get("name"): one.get("template") for one in found if isinstance(one, dict)}
        found = named.get("default", next(iter(named.values()), ""))
    if not isinstance(found, str):
        return ""
    if len(found) > LONGEST_TEMPLATE:
        raise ValueError(
            f"The chat template of {paths.called(folder)} has {len(found):,} characters; {LONGEST_TEMPLATE:,} are the most."
        )
    return found


# --- from a conversation to ids


class Piece(NamedTuple):
    """A part of what the model reads."""

    text: str
    special: bool  # a token of its own that the template wrote
    typed: bool  # plain text in which somebody wrote characters that look like such a token


class Prompt(NamedTuple):
    """A conversation, ready for the model."""

    ids: list[int]
    pieces: list[Piece]
    stops: tuple[str, ...]  # texts that end the answer, for a chosen template

    @property
    def text(self) -> str:
        """What the template wrote, letter by letter."""
        return "".join(piece.text for piece in self.pieces)


def conversation(system: str, turns: Sequence[Mapping[str, Any]], message: str) -> list[Message]:
    """System message (when there is one), the turns so far, and what is said now. Raises ValueError, in words."""
    found = [{"role": "system", "content": system}] if system.strip() else []
    for turn in turns:
        if (
            not isinstance(turn, Mapping)
            or turn.get("role") not in ROLES
            or not isinstance(turn.get("content"), str)
        ):
            raise ValueError(
                "Each turn of a conversation has a role (user or assistant) and a content, which is text; "
                f"this one has not: {str(turn)[:80]}."
            )
        found.append({"role": turn["role"], "content": turn["content"]})
    if not message.strip():
        raise ValueError("There is no message to answer: type one.")
    found.append({"role": "user", "content": message})
    if (length := sum(len(one["content"]) for one in found)) > LONGEST_CHAT:
        raise ValueError(
            f"The conversation has {length:,} characters; {LONGEST_CHAT:,} are the most: begin a new one."
        )
    return found


def prompt(folder: Path, encoding: Tokenizer, messages: Sequence[Message], template: str = "") -> Prompt:
    """What the model in `folder` reads when it is to answer `messages`: ids, and the text in pieces.

    `template` names one of TEMPLATES; "" takes the model's own. Special tokens are what the template writes; the same
    characters in a message stay plain text. Nothing is put before it: a template that wants a beginning token writes it.
    Raises ValueError when there is no template, or when it refuses the conversation.
    """
    manners = read(folder)
    source, stops = chosen(manners, template)
    specials = markers(manners, encoding, source)
    messages = [dict(message) for message in messages]
    marked = [message | {"content": mark(message["content"], specials)} for message in messages]
    plain, marked = render(manners.name, source, manners.words, messages, marked)
    pieces = cut(plain, marked, specials)
    return Prompt(encode(folder, encoding, pieces, specials), pieces, stops)


def chosen(manners: Manners, template: str = "") -> tuple[str, tuple[str, ...]]:
    """(Jinja source, stop strings) of the model's own template or of one of TEMPLATES. Raises ValueError."""
    if template in TEMPLATES:
        return TEMPLATES[template].source, TEMPLATES[template].stops
    if template:
        raise ValueError(f"There is no chat template called {template!r}; there are {', '.join(TEMPLATES)}.")
    if not manners.template:
        raise ValueError(
            f"{manners.name} has no chat template: it only completes texts. Choose a template "
            f"({', '.join(TEMPLATES)}) or do without chat."
        )
    return manners.template, ()


def markers(manners: Manners, encoding: Tokenizer, source: str) -> list[str]:
    """The tokens nobody may type: all special ones, and those beside the vocabulary that the template's source names."""
    named = [text for text, _, _ in manners.added if not text.isspace() and text in source]
    return [*dict.fromkeys([*encoding.special_tokens, EOT, *named])]


def mark(text: str, specials: Sequence[str]) -> str:
    """`text` with OPENS and CLOSES around each special token in it, and at an end that could be completed to one."""
    text = text.replace(OPENS, "").replace(CLOSES, "")
    bare = text.strip()
    head = any(bare.startswith(word[i:]) for word in specials for i in range(1, len(word)))
    tail = any(bare.endswith(word[:i]) for word in specials for i in range(1, len(word)))
    body = _finder(text, specials).sub(f"{OPENS}\\g<0>{CLOSES}", bare)
    body = (OPENS + CLOSES) * head + body + (OPENS + CLOSES) * tail
    before = text[: len(text) - len(text.lstrip())]
    return before + body + text[len(before) + len(bare) :]


def _finder(text: str, specials: Sequence[str]) -> re.Pattern[str]:
    """A pattern for the specials that occur in `text`, the longest first (some vocabularies have thousands)."""
    present = sorted((word for word in specials if word in text), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, present)) or "(?!)")


def cut(plain: str, marked: str, specials: Sequence[str]) -> list[Piece]:
    """What was rendered, cut at the special tokens that the template wrote. All pieces joined are the text.

    `marked` was rendered from messages that `mark` had changed: there, a special token between OPENS and CLOSES was
    typed. When both hold the same special tokens in the same order, `plain` is cut; else `marked` without its marks
    (a template that counts or compares characters can make a difference).
    """
    finder = _finder(plain + marked, specials)
    wrapped = re.compile(f"{OPENS}({finder.pattern}){CLOSES}|{finder.pattern}")
    found = [(match.group(1) or match.group(), bool(match.group(1))) for match in wrapped.finditer(marked)]
    if [text for text, _ in found] == finder.findall(plain):
        typed = iter([typed for _, typed in found])
        parts = _split(plain, finder, lambda match: next(typed))
    else:
        parts = _split(marked, wrapped, lambda match: bool(match.group(1)))
    pieces: list[Piece] = []
    for special, run in itertools.groupby(parts, key=lambda part: part[1] == "special"):
        run = list(run)
        if special:
            pieces += [Piece(text, True, False) for text, _ in run]
            continue
        text = "".join(text for text, _ in run)
        typed_here = OPENS in text or any(kind == "typed" for _, kind in run)
        text = text.replace(OPENS, "").replace(CLOSES, "")
        # blanks stay beside the special tokens: some of those take the blanks around them along
        bare = text.strip() if typed_here else text
        at = text.index(bare)
        parts_here = ((text[:at], False), (bare, typed_here), (text[at + len(bare) :], False))
        pieces += [Piece(part, False, typed) for part, typed in parts_here if part]
    return pieces


def _split(text: str, finder: re.Pattern[str], typed: Any) -> list[tuple[str, str]]:
    """[(part, "text", "typed" or "special")] of a text."""
    parts, at = [], 0
    for match in finder.finditer(text):
        is_typed = typed(match)
        parts += [(text[at : match.start()], "text"), (match.group(), "typed" if is_typed else "special")]
        at = match.end()
    return [(part, kind) for part, kind in [*parts, (text[at:], "text")] if part]


def encode(folder: Path, encoding: Tokenizer, pieces: Sequence[Piece], specials: Sequence[str]) -> list[int]:
    """The ids of all pieces: special tokens as themselves, what somebody typed as plain text."""
    ids: list[int] = []
    before: Piece | None = None
    for typed, run in itertools.groupby(pieces, key=lambda piece: piece.typed):
        run = list(run)
        text = "".join(piece.text for piece in run)
        own = _without(folder, encoding, text, specials) if typed else encoding
        if before is None or not encoding.prefix_space or (before.special and _spaced(encoding, before.text)):
            ids += own.encode(text, not typed)
        else:  # in the middle of a text, where no space is added: after a line break, which is then taken away
            line, both = own.encode("\n"), own.encode("\n" + text, not typed)
            ids += both[len(line) :] if both[: len(line)] == line else own.encode(text, not typed)
        before = run[-1]
    return ids


def _spaced(encoding: Tokenizer, special: str) -> bool:
    """Whether this encoding puts its space before what follows a special token too, not just before a text."""
    return encoding.encode(special + "x", True)[1:] == encoding.encode("x")


def _without(folder: Path, encoding: Tokenizer, text: str, specials: Sequence[str]) -> Tokenizer:
    """An encoding that reads the `specials` in `text` as letters, also those its file does not call special."""
    others = frozenset(word for word in specials if word in text) - {*encoding.special_tokens, EOT}
    return _lettered(folder, _stamp(folder / "tokenizer.json"), others) if others else encoding


@functools.lru_cache(maxsize=4)
def _lettered(folder: Path, stamp: tuple[int, int], words: frozenset[str]) -> Tokenizer:
    document = _object(folder / "tokenizer.json")
    added = [
        token | {"special": token["special"] or token["content"] in words}
        for token in document["added_tokens"]
    ]
    return HFTokenizer(paths.called(folder), document | {"added_tokens": added})


# --- running a template


def render(
    name: str, source: str, words: Sequence[tuple[str, str]], *conversations: Sequence[Message]
) -> list[str]:
    """What the template `source` of the model `name` makes of each conversation, ready for an answer.

    Runs in a process of its own that ends within WAIT_SECONDS. Raises ValueError with what the template says.
    """
    asked = dict(source=source, words=dict(words), conversations=conversations)
    return list(_rendered(name, json.dumps(asked)))


@functools.lru_cache(maxsize=128)
def _rendered(name: str, asked: str) -> tuple[str, ...]:
    kept = ("PATH", "PYTHONPATH", "SYSTEMROOT", "LANG", "LC_ALL", "TZ")  # nothing secret goes along
    try:
        done = subprocess.run(
            [sys.executable, "-c", "from llm.chat import main; main()"],
            input=asked.encode("ascii"), capture_output=True, timeout=WAIT_SECONDS, cwd=paths.ROOT,
            env={key: os.environ[key] for key in kept if key in os.environ},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise ValueError(_too_long(name)) from None
    try:
        answer = json.loads(done.stdout)
    except ValueError:  # it was ended before it could answer
        raise ValueError(_too_long(name)) from None
    if "error" in answer:
        raise ValueError(f"The chat template of {name} {answer['error']}")
    return tuple(answer["texts"])


def _too_long(name: str) -> str:
    return (
        f"The chat template of {name} was stopped: it took more than {SECONDS} seconds or more than "
        f"{MEMORY // 2**20} MB of memory. Choose another template."
    )


def main() -> None:
    """The process in which a template runs: JSON in, JSON out."""
    asked = json.load(sys.stdin)
    environment = sandbox()  # before the limits: what is imported counts too
    _limit()
    try:
        answer = {"texts": run(environment, **asked)}
    except Exception as error:  # whatever a foreign program can raise
        answer = {"error": _sentence(error)}
    print(json.dumps(answer))


def _limit() -> None:
    """Processor time, memory and files of this process; where there are no such limits, the parent's clock is one."""
    try:
        import resource
    except ImportError:
        return
    limits = ((resource.RLIMIT_CPU, SECONDS), (resource.RLIMIT_AS, MEMORY), (resource.RLIMIT_FSIZE, 0))
    for kind, most in limits:
        with suppress(ValueError, OSError):
            resource.setrlimit(kind, (most, most))


class Refusal(Exception):
    """What a template says with raise_exception."""


def sandbox() -> Any:
    """The Jinja that chat templates are written for: blanks of tags trimmed, loops that can break, a few functions."""
    from datetime import datetime

    import jinja2
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """{% generation %} marks the answers in training; the text is the same without it."""

        tags = {"generation"}  # noqa: RUF012 - Jinja's interface

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return jinja2.nodes.Scope(body).set_lineno(line)

    class Names(jinja2.utils.Namespace):
        """A namespace without names that lead into Python."""

        def __setitem__(self, name: str, value: Any) -> None:
            if name.startswith("_"):
                raise jinja2.exceptions.SecurityError(f"a namespace has no {name!r}")
            super().__setitem__(name, value)

    def refuse(message: Any) -> None:
        raise Refusal(str(message))

    def to_json(value: Any, ensure_ascii=False, indent=None, separators=None, sort_keys=False) -> str:
        return json.dumps(
            value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
        )

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = to_json  # Jinja's own writes HTML
    environment.globals |= {
        "raise_exception": refuse,
        "strftime_now": lambda form: datetime.now().strftime(form),
        "namespace": Names,
    }
    return environment


def run(
    environment: Any, source: str, words: Mapping[str, str], conversations: Sequence[Sequence[Message]]
) -> list[str]:
    """The text of each conversation. Raises what the template raises, and Refusal when it writes too much."""
    template = environment.from_string(source)
    texts = []
    for messages in conversations:
        parts, length = [], 0
        for part in template.generate(
            messages=messages, tools=None, documents=None, add_generation_prompt=True, **words
        ):
            length += len(part)
            if length > LONGEST_TEXT:
                raise Refusal(f"it writes more than {LONGEST_TEXT:,} characters")
            parts.append(part)
        texts.append("".join(parts))
    return texts


def _sentence(error: Exception) -> str:
    """What went wrong in a template, to follow its name."""
    from jinja2 import TemplateSyntaxError

    said = " ".join(str(error).split())[:300].rstrip(".")
    if isinstance(error, Refusal):
        return f"refuses this conversation: {said}."
    if isinstance(error, TemplateSyntaxError):
        return f"has a mistake in line {error.lineno}: {said}."
    if isinstance(error, MemoryError):
        return f"needs more than {MEMORY // 2**20} MB of memory. Choose another template."
    return f"cannot write this conversation ({type(error).__name__}: {said}). Choose another template."


if __name__ == "__main__":
    main()
