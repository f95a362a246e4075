"""Text to token ids and back: bytes, characters, byte-level BPE and the tokenizer.json of other models."""

from __future__ import annotations

import base64
import codecs
import functools
import json
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm import paths, versions

VERSION = 1  # of a tokenizer.json of bytes or characters
EOT = "<|endoftext|>"
MOST_IDS = (
    4_000_000  # a damaged file may name ids that would fill the memory; real vocabularies end far below
)
LONGEST_BLANK = 100_000  # whitespace characters in a row; the split patterns overflow somewhere above
GPT2_SPLIT = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
CL100K_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
O200K_SPLIT = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# The published encodings: a rank table in datasets/encodings/, the pattern that cuts a text into pieces, the specials.
ENCODINGS = {
    "gpt2": ("r50k_base.tiktoken", GPT2_SPLIT, {EOT: 50256}),
    "cl100k_base": (
        "cl100k_base.tiktoken",
        CL100K_SPLIT,
        {
            EOT: 100257,
            "<|fim_prefix|>": 100258,
            "<|fim_middle|>": 100259,
            "<|fim_suffix|>": 100260,
            "<|endofprompt|>": 100276,
        },
    ),
    "o200k_base": ("o200k_base.tiktoken", O200K_SPLIT, {EOT: 199999, "<|endofprompt|>": 200018}),
}
CONTINUATION = bytes(range(0x80, 0xC0))  # 10xxxxxx: a UTF-8 byte that is not the first of its character


@dataclass(frozen=True)
class Token:
    """One token of a text: characters `start` to `end` of it; partial when it shares a character with a neighbour."""

    id: int
    bytes: bytes
    start: int
    end: int
    partial: bool


@dataclass(frozen=True)
class MergeStep:
    """One merge: parts `at` and `at + 1` of `before` become one part of `after`, by the rule of priority `rank`."""

    before: tuple[bytes, ...]
    at: int
    rank: int
    after: tuple[bytes, ...]

    @property
    def pair(self) -> tuple[bytes, bytes]:
        """The two parts that were joined."""
        return self.before[self.at], self.before[self.at + 1]


class Tokenizer:
    """What every encoding can do. `_table` holds the bytes of each id, None where an id has no token."""

    kind = "bytes"
    prefix_space = False  # True: a space is put before the first word, and taken away when decoding

    def __init__(self, name: str, tokens: dict[int, bytes], special_tokens: dict[str, int]):
        self.name = name
        self.special_tokens = dict(special_tokens)
        tokens = tokens | {id: text.encode("utf-8") for text, id in special_tokens.items()}
        if "" in special_tokens:
            raise ValueError(
                f"The encoding {name} has a special token without a text: it would be found everywhere."
            )
        low, high = min(tokens), max(tokens)
        if low < 0 or high >= MOST_IDS:
            raise ValueError(
                f"The encoding {name} has ids from {low} to {high}: ids go from 0 to {MOST_IDS - 1} here."
            )
        self._table: list[bytes | None] = [tokens.get(id) for id in range(high + 1)]

    @property
    def vocab_size(self) -> int:
        """Highest id + 1: the rows an embedding needs."""
        return len(self._table)

    @property
    def eot_id(self) -> int | None:
        """The id of `<|endoftext|>`, the separator of documents; None where the encoding has none."""
        return self.special_tokens.get(EOT)

    def encode(self, text: str, special: bool = False) -> list[int]:
        """The ids of `text`. Strings like `<|endoftext|>` are plain text unless `special`.

        Raises ValueError when the text cannot be written in this encoding.
        """
        text = clean(text)
        if not special or not self.special_tokens:
            return self._encode_plain(text)
        ids: list[int] = []
        for part in split_specials(text, self.special_tokens):
            ids += [self.special_tokens[part]] if part in self.special_tokens else self._encode_plain(part)
        return ids

    def encode_whole(self, text: str) -> Sequence[int]:
        """The ids of a text with its special strings, as an array where the library makes one: for texts of megabytes."""
        return self.encode(text, special=True)

    def _encode_plain(self, text: str) -> list[int]:
        raise NotImplementedError

    def token_bytes(self, id: int) -> bytes:
        """The bytes of one token (of a special: its text in UTF-8). Raises ValueError for an unknown id."""
        if not 0 <= id < len(self._table) or (found := self._table[id]) is None:
            raise ValueError(
                f"The encoding {self.name} has no token {id}: its ids go from 0 to {self.vocab_size - 1}."
            )
        return found

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of all tokens joined. Raises ValueError for an unknown id."""
        return b"".join([self.token_bytes(id) for id in ids])

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`; bytes that are not UTF-8 become U+FFFD."""
        text = self.decode_bytes(ids).decode("utf-8", errors="replace")
        return text[1:] if self.prefix_space and text.startswith(" ") else text

    def save(self, folder: Path) -> None:
        """Write `folder/tokenizer.json`, atomically."""
        _write_json(Path(folder) / "tokenizer.json", self._as_json())

    def _as_json(self) -> dict:
        raise NotImplementedError


class ByteTokenizer(Tokenizer):
    """Each byte of the UTF-8 text is a token: 256 of them, and `<|endoftext|>`."""

    kind = "byte"

    def __init__(self, name: str = "byte"):
        super().__init__(name, {b: bytes([b]) for b in range(256)}, {EOT: 256})

    def _encode_plain(self, text: str) -> list[int]:
        return list(text.encode("utf-8"))

    def _as_json(self) -> dict:
        return {"lab": {"kind": "byte", "version": VERSION}}


class CharTokenizer(Tokenizer):
    """Each character is a token; the vocabulary is the sorted characters of the text it was built from.

    `<|endoftext|>` gets an id (the last one) only where that text contains it, so that the vocabulary of a text
    without documents is exactly its characters.
    """

    kind = "char"

    def __init__(self, characters: str, name: str = "char", eot: bool = False):
        self._ids = {character: id for id, character in enumerate(characters)}
        if not characters or len(self._ids) != len(characters):
            raise ValueError("A character vocabulary needs at least one character and each of them once.")
        tokens = {id: character.encode("utf-8") for character, id in self._ids.items()}
        super().__init__(name, tokens, {EOT: len(characters)} if eot else {})

    @classmethod
    def train(cls, text: str, name: str = "char") -> CharTokenizer:
        """The vocabulary of `text`. Raises ValueError when the text is empty."""
        text = clean(text)
        eot = EOT in text
        characters = "".join(sorted(set(text.replace(EOT, ""))))
        if not characters:
            raise ValueError("The text is empty: a character vocabulary needs at least one character.")
        return cls(characters, name, eot)

    def _encode_plain(self, text: str) -> list[int]:
        try:
            return [self._ids[character] for character in text]
        except KeyError:
            missing = sorted(set(text) - self._ids.keys())
            shown = " ".join(repr(character) for character in missing[:20])
            more = f" and {len(missing) - 20} more" if len(missing) > 20 else ""
            raise ValueError(f"Not in the character vocabulary of {self.name}: {shown}{more}.") from None

    def _as_json(self) -> dict:
        characters = "".join(self._ids)
        eot = self.eot_id is not None
        return {"lab": {"kind": "char", "version": VERSION, "characters": characters, "eot": eot}}


class BPETokenizer(Tokenizer):
    """Byte-level BPE, encoded by tiktoken: a piece starts as bytes, then the pair of lowest rank is merged, again
    and again (Sennrich et al. 2016; on bytes: Radford et al. 2019). A token's id is its rank."""

    kind = "bpe"

    def __init__(self, name: str, ranks: dict[bytes, int], pattern: str, special_tokens: dict[str, int]):
        import tiktoken

        self.ranks = ranks
        self.pattern = pattern
        super().__init__(name, {rank: token for token, rank in ranks.items()}, special_tokens)
        self._encoding = tiktoken.Encoding(
            name, pat_str=pattern, mergeable_ranks=ranks, special_tokens=special_tokens
        )

    def encode(self, text: str, special: bool = False) -> list[int]:
        text = clean(text)
        _refuse_long_blanks(text)
        if special:
            return self._encoding.encode(text, allowed_special="all")
        return self._encoding.encode_ordinary(text)

    def encode_whole(self, text: str) -> Sequence[int]:
        text = clean(text)
        _refuse_long_blanks(text)
        return self._encoding.encode_to_numpy(text, allowed_special="all")

    def pieces(self, text: str) -> list[str]:
        """The text cut by the split pattern: merges never cross from one piece to the next."""
        text = clean(text)
        _refuse_long_blanks(text)
        return _split(self.pattern)(text)

    def merge_steps(self, word: str | bytes) -> list[MergeStep]:
        """The merges of one piece in the order they are applied. The parts left at the end are its tokens."""
        return merge_steps(word, lambda left, right: self.ranks.get(left + right))

    def merges(self, first: int | None = None) -> list[tuple[bytes, bytes]]:
        """The tokens of two bytes or more in rank order (the `first` of them), each as the parts its merge joins."""
        found: list[tuple[bytes, bytes]] = []
        for token, rank in sorted(self.ranks.items(), key=lambda item: item[1]):
            if len(found) == first:
                break
            earlier = merge_steps(
                token, lambda left, right, rank=rank: _below(self.ranks.get(left + right), rank)
            )
            parts = earlier[-1].after if earlier else tuple(token[i : i + 1] for i in range(len(token)))
            if len(parts) == 2:
                found.append((parts[0], parts[1]))
        return found

    def _as_json(self) -> dict:
        """The file format of Hugging Face. Its merges name every pair of tokens that makes a token, in rank order,
        because a rank table merges any such pair; then both libraries give the same ids for every text."""
        vocab = {
            _visible(token): rank for token, rank in sorted(self.ranks.items(), key=lambda item: item[1])
        }
        vocab |= self.special_tokens  # else that library numbers them on its own
        merges = [[_visible(left), _visible(right)] for left, right in _all_pairs(self.ranks)]
        byte_level = {
            "type": "ByteLevel",
            "add_prefix_space": False,
            "trim_offsets": False,
            "use_regex": True,
        }
        split: dict = byte_level
        if self.pattern != GPT2_SPLIT:  # use_regex means just that pattern
            cut = {
                "type": "Split",
                "pattern": {"Regex": self.pattern},
                "behavior": "Isolated",
                "invert": False,
            }
            split = {"type": "Sequence", "pretokenizers": [cut, byte_level | {"use_regex": False}]}
        return {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [_added_token(text, id) for text, id in self.special_tokens.items()],
            "normalizer": None,
            "pre_tokenizer": split,
            "post_processor": None,
            "decoder": byte_level,
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "continuing_subword_prefix": None,
                "end_of_word_suffix": None,
                "fuse_unk": False,
                "byte_fallback": False,
                "ignore_merges": True,  # as in tiktoken: a piece that is itself a token is taken whole
                "vocab": vocab,
                "merges": merges,
            },
        }


class HFTokenizer(Tokenizer):
    """Any tokenizer.json, encoded by the `tokenizers` library that wrote it, so ids are those of its model."""

    kind = "hf"

    def __init__(self, name: str, document: dict, eos: str | None = None):
        self._document = document
        self._plain = _hf_tokenizer(name, document)
        self._plain.encode_special_tokens = True  # strings of specials are cut up like any other text
        vocab = self._plain.get_vocab(with_added_tokens=True)
        if not vocab:
            raise ValueError(f"The tokenizer.json of {name} holds no tokens.")
        added = {token["content"]: token["id"] for token in document.get("added_tokens") or []}
        specials = {
            token["content"]: token["id"] for token in document.get("added_tokens") or [] if token["special"]
        }
        to_bytes = _piece_to_bytes(document)
        tokens = {
            id: piece.encode("utf-8") if piece in added else to_bytes(piece) for piece, id in vocab.items()
        }
        super().__init__(name, tokens, specials)
        self.prefix_space = _adds_space(document)
        self._eos = eos

    @functools.cached_property
    def _special(self):
        """The same with special tokens read as such. Made when it is first asked for: a large one takes a second."""
        return _hf_tokenizer(self.name, self._document)

    @property
    def eot_id(self) -> int | None:
        """The id of `<|endoftext|>`, else of the end-of-text that tokenizer_config.json names, else None."""
        return self.special_tokens.get(EOT, self.special_tokens.get(self._eos or ""))

    def encode(self, text: str, special: bool = False) -> list[int]:
        return [id for _, ids, _ in self._runs(clean(text), special) for id in ids]

    def spans(self, text: str, special: bool = False) -> list[Token]:
        """The tokens of `text` with the places that the library itself reports."""
        found = [
            (id, start + offset, end + offset)
            for offset, ids, places in self._runs(clean(text), special)
            for id, (start, end) in zip(ids, places)
        ]
        tokens = []
        for i, (id, start, end) in enumerate(found):
            shares = (i > 0 and found[i - 1][2] > start) or (i + 1 < len(found) and found[i + 1][1] < end)
            tokens.append(Token(id, self.token_bytes(id), start, end, shares))
        return tokens

    def _runs(self, text: str, special: bool) -> list[tuple[int, list[int], list[tuple[int, int]]]]:
        """(place, ids, places of the tokens counted from there) of each document in `text`.

        With `special`, `<|endoftext|>` gives the model's own end-of-text, however the model spells it.
        """
        if not special or self.eot_id is None:
            found = self._run(self._special if special else self._plain, text)
            return [(0, found.ids, found.offsets)]
        runs: list[tuple[int, list[int], list[tuple[int, int]]]] = []
        place = 0
        for document in text.split(EOT):
            if place:
                runs.append((place - len(EOT), [self.eot_id], [(0, len(EOT))]))
            if document:
                found = self._run(self._special, document)
                runs.append((place, found.ids, found.offsets))
            place += len(document) + len(EOT)
        return runs

    def _run(self, tokenizer, text: str):
        _refuse_long_blanks(text)
        try:
            return tokenizer.encode(text, add_special_tokens=False)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # the library panics with a class that is no Exception
            raise ValueError(
                f"The tokenizer {self.name} cannot read this text: {str(error)[:200]}"
            ) from error

    @property
    def byte_level(self) -> bool:
        """True for byte-level BPE, whose merges can be followed."""
        return self._document["model"].get("type") == "BPE" and "ByteLevel" in _types(
            self._document["decoder"]
        )

    def pieces(self, text: str) -> list[str]:
        """The text cut as the tokenizer cuts it before merging. Raises ValueError when it is not byte-level BPE."""
        if not self.byte_level:
            raise ValueError(
                f"{self.name} is not a byte-level BPE, so its merges cannot be followed byte by byte."
            )
        text = clean(text)
        if self._plain.normalizer is not None:
            text = self._plain.normalizer.normalize_str(text)
        return [text[start:end] for _, (start, end) in self._plain.pre_tokenizer.pre_tokenize_str(text)]

    def merge_steps(self, word: str | bytes) -> list[MergeStep]:
        """The merges of one piece in the order they are applied, by the file's own list of merges."""
        ranks = self._merge_ranks
        return merge_steps(word, lambda left, right: ranks.get((left, right)))

    @functools.cached_property
    def _merge_ranks(self) -> dict[tuple[bytes, bytes], int]:
        if not self.byte_level:
            raise ValueError(
                f"{self.name} is not a byte-level BPE, so its merges cannot be followed byte by byte."
            )
        pairs = _merge_pairs(self._document)
        return {(_raw(left), _raw(right)): rank for rank, (left, right) in enumerate(pairs)}

    def _as_json(self) -> dict:
        return self._document


class StreamDecoder:
    """Ids in, text out, only whole characters: bytes of a character not yet complete are held back.

    The pushed texts and `finish()` joined equal `decode` of all ids. The rule for a cut-off tail: `finish` gives one
    U+FFFD for it, as `decode` does. Bytes that can never become a character give their U+FFFD at once.
    `continues` says that the ids go on from a prompt, so that a leading space is part of the text.
    """

    def __init__(self, tokenizer: Tokenizer, continues: bool = False):
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._drop_space = tokenizer.prefix_space and not continues

    def push(self, id: int) -> str:
        """The text that became complete with this id, often ''. Raises ValueError for an unknown id."""
        return self._first(self._decoder.decode(self._tokenizer.token_bytes(id)))

    def finish(self) -> str:
        """What is still held back, as U+FFFD; '' when the text ended with a whole character."""
        return self._first(self._decoder.decode(b"", final=True))

    def _first(self, text: str) -> str:
        if text and self._drop_space:
            self._drop_space = False
            return text[1:] if text.startswith(" ") else text
        return text


def clean(text: str) -> str:
    """`text` as UTF-8 can hold it: surrogate pairs become their character, a lone surrogate becomes U+FFFD."""
    try:
        text.encode("utf-8")
        return text
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def split_specials(text: str, specials: Iterable[str]) -> list[str]:
    """The text cut at every special string, the longest first where several begin; the specials are parts too."""
    import re

    longest_first = sorted(specials, key=len, reverse=True)
    return [part for part in re.split("(" + "|".join(map(re.escape, longest_first)) + ")", text) if part]


def spans(text: str, tokenizer: Tokenizer, special: bool = False) -> list[Token]:
    """The tokens of `text` with the characters of `clean(text)` that each of them covers.

    Tokens that share a character (its bytes are divided among them) cover it both, and are marked partial.
    """
    ids = tokenizer.encode(text, special)
    pieces = [(id, tokenizer.token_bytes(id)) for id in ids]
    if isinstance(tokenizer, HFTokenizer) and b"".join(data for _, data in pieces) != clean(text).encode(
        "utf-8"
    ):
        return tokenizer.spans(text, special)  # it changes the text before it cuts it
    tokens = []
    before = 0  # characters that began before this token
    for i, (id, data) in enumerate(pieces):
        begins = len(data.translate(None, CONTINUATION))  # characters that begin in it
        tail = data[:1] in _CONTINUES
        cut = i + 1 < len(pieces) and pieces[i + 1][1][:1] in _CONTINUES
        tokens.append(Token(id, data, before - tail, before + begins, tail or cut))
        before += begins
    return tokens


_CONTINUES = frozenset(bytes([b]) for b in CONTINUATION)


def merge_steps(word: str | bytes, rank_of: Callable[[bytes, bytes], int | None]) -> list[MergeStep]:
    """BPE by hand: of all neighbours that may be merged, the pair of lowest rank is, the leftmost first."""
    data = word.encode("utf-8") if isinstance(word, str) else word
    parts = tuple(data[i : i + 1] for i in range(len(data)))
    steps = []
    while True:
        ranked = [(rank_of(parts[i], parts[i + 1]), i) for i in range(len(parts) - 1)]
        possible = [(rank, i) for rank, i in ranked if rank is not None]
        if not possible:
            return steps
        rank, at = min(possible)
        after = (*parts[:at], parts[at] + parts[at + 1], *parts[at + 2 :])
        steps.append(MergeStep(parts, at, rank, after))
        parts = after


def bytes_per_token(text: str, ids: Sequence[int]) -> float:
    """UTF-8 bytes of the text over its number of tokens. Raises ValueError when there are none."""
    if not ids:
        raise ValueError("There are no tokens: bytes per token needs at least one.")
    return len(clean(text).encode("utf-8")) / len(ids)


def load(folder: Path) -> Tokenizer:
    """The tokenizer in `folder/tokenizer.json`, of whatever kind. Raises ValueError, in words, when it is unusable."""
    folder = Path(folder)
    document = _read_json(folder / "tokenizer.json")
    name = paths.called(folder)
    try:
        if "lab" in document:
            versions.check(document["lab"].get("version"), VERSION, folder / "tokenizer.json")
            return _load_lab(name, document["lab"])
        if not isinstance(document.get("model"), dict):
            raise ValueError(f"The tokenizer.json of {name} has no model in it: it is not a tokenizer.")
        if found := _ranks_of(document):
            ranks, pattern = found
            specials = {token["content"]: token["id"] for token in document.get("added_tokens") or []}
            return BPETokenizer(name, ranks, pattern, specials)
        return HFTokenizer(name, document, _eos_of(folder))
    except (KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
        raise ValueError(f"The tokenizer.json of {name} has an unknown form ({error!r}).") from error


def read_once(maxsize: int) -> Callable[[Callable], Callable]:
    """functools.lru_cache for what takes long to read: of callers that come at once, one reads and the others wait for it."""

    def around(fn: Callable) -> Callable:
        kept, one_at_a_time = functools.lru_cache(maxsize)(fn), threading.Lock()

        @functools.wraps(fn)
        def read(*given: Any) -> Any:
            with one_at_a_time:
                return kept(*given)

        return read

    return around


def get(name: str, text: str | None = None) -> Tokenizer:
    """The tokenizer of that name: one of `names()`. "char" is built from `text`, its characters.

    Raises ValueError when there is none of that name.
    """
    if name == "char":
        if text is None:
            raise ValueError(
                "A character vocabulary belongs to a text: choose the text (or dataset) to build it from."
            )
        return CharTokenizer.train(text)
    if name == "byte":
        return ByteTokenizer()
    if name in ENCODINGS:
        return _published(name)
    if isinstance(name, str) and name.startswith("model:"):
        folder = paths.model_folder(name[6:])
    else:
        folder = paths.find(name, paths.tokenizers(), _shipped(), what="encoding")
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise ValueError(f"There is no tokenizer.json in {name}: choose another encoding.")
    state = file.stat()
    return _loaded(folder, name, state.st_mtime_ns, state.st_size)


def names() -> list[str]:
    """All encodings there are: built in, trained here, and (as "model:NAME") those of the models present.

    All but "char" can be given to `get` as they are; "char" needs a text as well.
    """
    found = ["byte", "char", *_with_tokenizer(_shipped()), *ENCODINGS]
    found += [name for name in _with_tokenizer(paths.tokenizers()) if name not in found]
    return found + [f"model:{name}" for name in paths.model_names()]


def _shipped() -> Path:
    return paths.shipped_datasets() / "encodings"


def _with_tokenizer(folder: Path) -> list[str]:
    return sorted(file.parent.name for file in folder.glob("*/tokenizer.json"))


@read_once(maxsize=8)
def _published(name: str) -> BPETokenizer:
    file, pattern, specials = ENCODINGS[name]
    return BPETokenizer(name, read_ranks(_shipped() / file), pattern, specials)


@read_once(maxsize=16)
def _loaded(folder: Path, name: str, modified: int, size: int) -> Tokenizer:
    tokenizer = load(folder)
    tokenizer.name = name
    return tokenizer


def read_ranks(path: Path) -> dict[bytes, int]:
    """A .tiktoken file: on each line a token in base64 and its rank."""
    lines = (line.split() for line in path.read_bytes().splitlines() if line)
    return {base64.b64decode(token): int(rank) for token, rank in lines}


def _load_lab(name: str, lab: dict) -> Tokenizer:
    if lab["kind"] == "byte":
        return ByteTokenizer(name)
    if lab["kind"] == "char":
        return CharTokenizer(lab["characters"], name, lab["eot"])
    raise ValueError(f"The tokenizer.json of {name} is of the unknown kind {lab['kind']!r}.")


def _read_json(file: Path) -> dict:
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"There is no tokenizer.json in {file.parent.name}.") from None
    except (ValueError, RecursionError):  # half written, not JSON, not UTF-8
        raise ValueError(
            f"The tokenizer.json of {file.parent.name} is broken or only half written: put a whole one there."
        ) from None
    if not isinstance(document, dict):
        raise ValueError(
            f"The tokenizer.json of {file.parent.name} holds a {type(document).__name__}, no tokenizer."
        )
    return document


def _write_json(file: Path, document: dict) -> None:
    with paths.replacing(file) as temporary:
        temporary.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")


def _eos_of(folder: Path) -> str | None:
    """The end-of-text string that tokenizer_config.json names, if it is there."""
    file = folder / "tokenizer_config.json"
    eos = _read_json(file).get("eos_token") if file.is_file() else None
    return eos.get("content") if isinstance(eos, dict) else eos


@functools.lru_cache(maxsize=32)
def _split(pattern: str) -> Callable[[str], list[str]]:
    import regex  # as tiktoken itself needs it: `re` does not know \p{L}

    return regex.compile(pattern).findall


def _refuse_long_blanks(text: str) -> None:
    """Raises ValueError for more than LONGEST_BLANK whitespace characters in a row."""
    half = LONGEST_BLANK // 2
    for start in range(0, len(text), half):  # a longer run covers at least one of these blocks wholly
        if text[start : start + half].isspace():
            begin = len(text[:start].rstrip())
            end = len(text) - len(text[start:].lstrip())
            if end - begin > LONGEST_BLANK:
                raise ValueError(
                    f"The text has {end - begin:,} whitespace characters in a row (from character {begin:,} on); "
                    f"at most {LONGEST_BLANK:,} can be encoded. Shorten that run."
                )


def _below(rank: int | None, limit: int) -> int | None:
    return rank if rank is not None and rank < limit else None


# ---- The file format of Hugging Face ----------------------------------------------------------------------------


@functools.lru_cache(maxsize=1)
def _byte_signs() -> dict[int, str]:
    """How byte-level files write each byte as one visible character (Radford et al. 2019, encoder.py).

    Printable bytes of Latin-1 stand for themselves; the others, in order, are U+0100, U+0101, ...
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in printable]
    return {b: chr(b) for b in printable} | {b: chr(0x100 + n) for n, b in enumerate(others)}


@functools.lru_cache(maxsize=1)
def _sign_bytes() -> dict[str, int]:
    return {sign: b for b, sign in _byte_signs().items()}


def _visible(token: bytes) -> str:
    signs = _byte_signs()
    return "".join([signs[b] for b in token])


def _raw(piece: str) -> bytes:
    """The bytes that a byte-level piece stands for; a piece with other characters stands for its own text."""
    signs = _sign_bytes()
    try:
        return bytes([signs[sign] for sign in piece])
    except KeyError:
        return piece.encode("utf-8")


def ranks_of_vocab(vocab: dict[str, int]) -> dict[bytes, int]:
    """A vocabulary of byte-level pieces as ranks: the bytes of each token and its id."""
    return {_raw(piece): id for piece, id in vocab.items()}


def _all_pairs(ranks: dict[bytes, int]) -> list[tuple[bytes, bytes]]:
    """Every pair of tokens that joined is a token, in the order of that token's rank."""
    pairs = []
    for token, _ in sorted(ranks.items(), key=lambda item: item[1]):
        for cut in range(1, len(token)):
            if token[:cut] in ranks and token[cut:] in ranks:
                pairs.append((token[:cut], token[cut:]))
    return pairs


def _ranks_of(document: dict) -> tuple[dict[bytes, int], str] | None:
    """(ranks, pattern) when tiktoken gives the ids of this file for every text, else None.

    That is so when the file is byte-level BPE without a normalizer, its ids are in the order of its merges, and its
    merges are all pairs of tokens that make a token.
    """
    model = document["model"]
    pattern = _byte_level_pattern(document.get("pre_tokenizer"))
    plain = not any(
        model.get(key)
        for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback")
    )
    if model.get("type") != "BPE" or pattern is None or document.get("normalizer") or not plain:
        return None
    if not model.get("ignore_merges") or not all(
        t.get("special") for t in document.get("added_tokens") or []
    ):
        return None
    specials = {token["content"] for token in document.get("added_tokens") or []}
    ranks = ranks_of_vocab({piece: id for piece, id in model["vocab"].items() if piece not in specials})
    whole = all(bytes([b]) in ranks for b in range(256)) and b"" not in ranks
    if not whole or len(ranks) != len(set(ranks.values())):
        return None
    merges = [(_raw(left), _raw(right)) for left, right in _merge_pairs(document)]
    order = [ranks.get(left + right, -1) for left, right in merges]
    if order != sorted(order) or set(merges) != set(_all_pairs(ranks)):
        return None
    return ranks, pattern


def _merge_pairs(document: dict) -> list[tuple[str, str]]:
    """The merges of a file, which writes each as ["a", "b"] or, in older files, as "a b"."""
    merges = document["model"]["merges"]
    return [tuple(m.split(" ", 1)) if isinstance(m, str) else (m[0], m[1]) for m in merges]


def _byte_level_pattern(pre: dict | None) -> str | None:
    """The split pattern of a byte-level pre-tokenizer, None for any other."""
    parts = [pre] if not pre or pre["type"] != "Sequence" else pre["pretokenizers"]
    if not parts[-1] or parts[-1]["type"] != "ByteLevel" or parts[-1].get("add_prefix_space"):
        return None
    if len(parts) == 1:
        return GPT2_SPLIT if parts[0].get("use_regex", True) else None
    cut = parts[0]
    whole = cut["type"] == "Split" and cut["behavior"] == "Isolated" and not cut["invert"]
    if len(parts) > 2 or not whole or parts[1].get("use_regex", True):
        return None
    return cut["pattern"].get("Regex")


def _added_token(text: str, id: int) -> dict:
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": id, "content": text, **plain, "special": True}


def _hf_tokenizer(name: str, document: dict):
    import tokenizers

    model = document["model"]
    prefix = model.get("continuing_subword_prefix") if model.get("type") == "BPE" else None
    if prefix and not all(right.startswith(prefix) for _, right in _merge_pairs(document)):
        raise ValueError(  # the library would end the whole process
            f"The tokenizer.json of {name} is damaged: a merge goes on without the prefix {prefix!r}."
        )
    try:
        return tokenizers.Tokenizer.from_str(json.dumps(document))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the library panics with a class that is no Exception
        raise ValueError(f"The tokenizer.json of {name} cannot be used: {str(error)[:200]}.") from error


def _types(part: object) -> set[str]:
    """All "type" names in a part of a file, however deep."""
    if isinstance(part, list):
        return set().union(*map(_types, part))
    if isinstance(part, dict):
        own = {part["type"]} if isinstance(part.get("type"), str) else set()
        return own.union(*map(_types, part.values()))
    return set()


def _piece_to_bytes(document: dict) -> Callable[[str], bytes]:
    """How the pieces of this file become bytes, as its decoder says."""
    decoder = _types(document.get("decoder"))
    fallback = bool(document["model"].get("byte_fallback"))
    if "ByteLevel" in decoder:
        return _raw
    if "WordPiece" in decoder:
        prefix = document["model"].get("continuing_subword_prefix") or "##"
        return lambda piece: (piece[len(prefix) :] if piece.startswith(prefix) else " " + piece).encode(
            "utf-8"
        )
    marked = "Metaspace" in decoder or "▁" in json.dumps(document.get("decoder"), ensure_ascii=False)

    def to_bytes(piece: str) -> bytes:
        if fallback and len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
            return bytes([int(piece[3:5], 16)])
        return (piece.replace("▁", " ") if marked else piece).encode("utf-8")

    return to_bytes


def _adds_space(document: dict) -> bool:
    """True when the file puts a space before the first word (so that decoding takes it away)."""
    if "WordPiece" in _types(document.get("decoder")):
        return True
    for part in _parts(document.get("pre_tokenizer")) + _parts(document.get("normalizer")):
        if part["type"] == "Prepend":
            return True
        if part["type"] == "Metaspace" and part.get("prepend_scheme", "always") != "never":
            return part.get("add_prefix_space", True)
        if part["type"] == "ByteLevel" and part.get("add_prefix_space"):
            return True
    return False


def _parts(part: dict | None) -> list[dict]:
    if not part:
        return []
    inner = part.get("pretokenizers") or part.get("normalizers")
    return [leaf for child in inner for leaf in _parts(child)] if inner else [part]
