"""From a dataset's name to the batches that train: token ids, the train/validation split, sliding windows.

Plain numpy, so the page draws its windows with the very functions that training uses. Shapes: N tokens of a text,
T tokens of a window (the context length), W windows, B windows of a batch.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from llm import commands, corpora, files, paths, tokenizer
from llm.config import TrainConfig

LARGE = 32_000_000  # bytes of a file above which it is not read whole
CHUNK = 1_000_000  # characters encoded at once, so that a large file needs little memory
# Places where the published patterns cut a text whatever comes before and after: before a space that ends a word,
# and between a letter or digit and a line end or an East Asian stop.
SAFE_CUT = re.compile(r"\S(?= )|[^\W_](?=[\n。、，])")
DOCUMENT_CUT = re.compile(r"(?=<\|endoftext\|>)")
PATTERNS = (tokenizer.GPT2_SPLIT, tokenizer.CL100K_SPLIT, tokenizer.O200K_SPLIT)


@dataclass(frozen=True)
class Text:
    """A dataset as token ids."""

    name: str
    encoding: str
    ids: np.ndarray  # (N,)
    notes: tuple[
        str, ...
    ] = ()  # what reading it changed: line ends, byte order marks, an older character set


def load(dataset: str, encoding: tokenizer.Tokenizer) -> Text:
    """The whole dataset in this encoding, `<|endoftext|>` read as the document separator where the encoding has it.

    Ids of a text are kept on the disk and mapped into memory, so a second look costs nothing.
    Raises ValueError when the dataset is missing or unreadable, or has a character that the encoding lacks.
    """
    path = corpora.path(dataset)
    place = _place(path, encoding)
    dtype = np.dtype(np.uint16 if encoding.vocab_size <= 2**16 else np.uint32)
    ids, notes = cached(place, dtype)
    if ids is None:
        try:
            ids, notes = _encoded_file(path, encoding, place, dtype)
        except OSError:  # the disk is full or read-only: the ids stay in memory only
            read = files.read_text(path)
            ids, notes = np.concatenate([*arrays([read.text], encoding, dtype)]), read.notes
    return Text(dataset, encoding.name, ids, tuple(notes))


def _encoded_file(
    path: Path, encoding: tokenizer.Tokenizer, place: Path, dtype: np.dtype
) -> tuple[np.ndarray, tuple[str, ...]]:
    """The ids of a file, written to `place` and mapped from there; a large one is read and encoded a piece at a time."""
    if path.stat().st_size > LARGE:
        try:
            keep(place, arrays(files.pieces(path), encoding, dtype), ())
            return cached(place, dtype)
        except files.NotPlain:
            pass
    read = files.read_text(path)
    keep(place, arrays([read.text], encoding, dtype), read.notes)
    return cached(place, dtype)


def arrays(texts: Iterable[str], encoding: tokenizer.Tokenizer, dtype: np.dtype) -> Iterator[np.ndarray]:
    """The ids of a text that comes in pieces, cut anywhere; encoded by as many threads as this process has cores.

    Joined they are the ids of the whole. Never more than a few pieces are held at once.
    """
    threads = commands.threads()

    def ids_of(part: str) -> np.ndarray:
        return np.asarray(encoding.encode_whole(part)).astype(dtype)

    with ThreadPoolExecutor(threads) as pool:
        under_way: deque[Future] = deque()
        for part in safe_parts(texts, encoding):
            under_way.append(pool.submit(ids_of, part))
            if len(under_way) > 2 * threads:
                yield under_way.popleft().result()
        for one in under_way:
            yield one.result()


def safe_parts(texts: Iterable[str], encoding: tokenizer.Tokenizer) -> Iterator[str]:
    """The text that comes in pieces, cut where the ids stay what they were."""
    cut = cut_of(encoding)
    left = ""
    for text in texts:
        left += text
        if cut and len(left) > CHUNK:
            *whole, left = chunks(left, CHUNK, cut)
            yield from whole
    if left:
        yield left


def encoding_of(dataset: str, name: str) -> tokenizer.Tokenizer:
    """The encoding called `name`; "char" is made of the characters of this dataset. Raises ValueError for unknown ones."""
    if name != "char":
        return tokenizer.get(name)
    path = corpora.path(dataset)
    state = path.stat()
    return _characters_of(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=8)
def _characters_of(path: Path, size: int, mtime_ns: int) -> tokenizer.Tokenizer:
    return tokenizer.get("char", files.read_text(path).text)


def _place(path: Path, encoding: tokenizer.Tokenizer) -> Path:
    """Where the ids of this file are kept: another place when its content or the encoding changes."""
    state = path.stat()
    about = f"{path.resolve()}|{state.st_size}|{state.st_mtime_ns}|{fingerprint(encoding)}"
    return paths.cache() / f"ids-{hashlib.sha256(about.encode()).hexdigest()[:24]}.bin"


def keep(place: Path, parts: Iterator[np.ndarray], notes: Sequence[str]) -> None:
    """Write the ids one after another, then the file that says how many there are: without it nothing counts."""
    total = 0
    with paths.replacing(place) as temporary, open(temporary, "wb") as f:
        for part in parts:
            f.write(part.tobytes())
            total += len(part)
        f.flush()
    with paths.replacing(place.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps({"tokens": total, "notes": list(notes)}), encoding="utf-8")


def cached(place: Path, dtype: np.dtype) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """The ids kept at `place` (mapped, not read) and the notes, or None when they are not there whole."""
    try:
        about = json.loads(place.with_suffix(".json").read_text(encoding="utf-8"))
        n, notes = int(about["tokens"]), tuple(about["notes"])
        if place.stat().st_size != n * dtype.itemsize:
            return None, ()
        ids = np.memmap(place, dtype, "r", shape=(n,)) if n else np.empty(0, dtype)
    except (OSError, ValueError, KeyError, TypeError):
        return None, ()
    return np.asarray(ids), notes


@lru_cache(maxsize=16)
def fingerprint(encoding: tokenizer.Tokenizer) -> str:
    """Differs between encodings that give different ids, also when they carry the same name."""
    known = hashlib.sha256()
    for i in range(encoding.vocab_size):
        token = _bytes_of(encoding, i)
        known.update(len(token).to_bytes(4, "little") + token)
    known.update(
        json.dumps([getattr(encoding, "pattern", ""), sorted(encoding.special_tokens.items())]).encode()
    )
    if encoding.kind == "hf":  # there the vocabulary says little of how a text is cut: the whole file counts
        with tempfile.TemporaryDirectory() as folder:
            encoding.save(Path(folder))
            known.update((Path(folder) / "tokenizer.json").read_bytes())
    return f"{encoding.kind}-{encoding.vocab_size}-{known.hexdigest()[:16]}"


def _bytes_of(encoding: tokenizer.Tokenizer, i: int) -> bytes:
    try:
        return encoding.token_bytes(i)
    except ValueError:  # some encodings leave ids unused
        return b""


def token_lengths(encoding: tokenizer.Tokenizer) -> np.ndarray:
    """(V,): how many bytes of text each id stands for; the sum over targets makes bits per byte."""
    return np.array([len(_bytes_of(encoding, i)) for i in range(encoding.vocab_size)])


def cut_of(encoding: tokenizer.Tokenizer) -> re.Pattern[str] | None:
    """Where a text may be cut before it is encoded without another id coming out; None: nowhere."""
    if encoding.kind in ("byte", "char") or getattr(encoding, "pattern", "") in PATTERNS:
        return SAFE_CUT
    return DOCUMENT_CUT if encoding.kind == "hf" or tokenizer.EOT in encoding.special_tokens else None


def encoded(text: str, encoding: tokenizer.Tokenizer, size: int = CHUNK) -> Iterator[list[int]]:
    """The ids of a text, a piece of it at a time; joined they are `encoding.encode(text, special=True)`."""
    cut = cut_of(encoding)
    for part in chunks(text, size, cut) if cut else [text]:
        yield encoding.encode(part, special=True)


def chunks(text: str, size: int = CHUNK, cut: re.Pattern[str] = SAFE_CUT) -> Iterator[str]:
    """The text in pieces of about `size` characters, cut only where `cut` matches: there the ids stay what they were."""
    start = 0
    while len(text) - start > size:
        found = cut.search(text, start + size)
        if found is None:
            break
        yield text[start : found.end()]
        start = found.end()
    if start < len(text):
        yield text[start:]


def split(ids: np.ndarray, validation_fraction: float) -> tuple[np.ndarray, np.ndarray]:
    """The first part of the text for training, the rest for validation. (N,) -> (n,), (N - n,), n rounded down."""
    if not 0 <= validation_fraction < 1:
        raise ValueError(f"The validation share must be from 0 to below 1, not {validation_fraction}.")
    n = math.floor(round(len(ids) * (1 - validation_fraction), 6))  # 10 * (1 - 0.9) is 0.9999999999999998
    return ids[:n], ids[n:]


class Cut:
    """What windows of either kind give: rows of T + 1 tokens from where they begin."""

    ids: np.ndarray
    context_length: int

    def start_of(self, numbers: np.ndarray) -> np.ndarray:
        """The place in the text where each window begins."""
        raise NotImplementedError

    def inputs_and_targets(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Window numbers (B,) -> inputs (B, T) and, shifted by one, targets (B, T)."""
        rows = self.stretches[self.start_of(numbers)].astype(np.int64)
        return rows[:, :-1], rows[:, 1:]

    @cached_property
    def stretches(self) -> np.ndarray:
        """(max(0, N - T), T + 1): the T + 1 tokens from every place on, a view that holds no memory of its own."""
        if len(self.ids) <= self.context_length:
            return np.empty((0, self.context_length + 1), self.ids.dtype)
        return sliding_window_view(self.ids, self.context_length + 1)


@dataclass(frozen=True)
class Windows(Cut):
    """A text seen through windows of T tokens, each starting `stride` tokens after the one before.

    The target of each token is the token after it, so a window needs T + 1 tokens:
    W = max(0, ceil((N - T) / stride)).
    """

    ids: np.ndarray  # (N,)
    context_length: int
    stride: int = 0  # 0: as long as a window, so that every token is an input once

    def __post_init__(self) -> None:
        if self.context_length < 1:
            raise ValueError(f"A window needs at least 1 token, not {self.context_length}.")
        if self.stride < 0:
            raise ValueError(
                f"A stride of {self.stride} would not move forward: choose 1 or more (an overlap below the window's length)."
            )

    @property
    def step(self) -> int:
        return self.stride or self.context_length

    def __len__(self) -> int:
        return max(0, math.ceil((len(self.ids) - self.context_length) / self.step))

    def start_of(self, numbers: np.ndarray) -> np.ndarray:
        """The place in the text where each window begins: window k at k * stride."""
        return np.asarray(numbers, dtype=np.int64) * self.step

    def last_at(self, positions: np.ndarray) -> np.ndarray:
        """The last window that begins at or before each position; -1 where none does."""
        return np.minimum(np.asarray(positions) // self.step, len(self) - 1)


@dataclass(frozen=True)
class DocumentWindows(Cut):
    """A text of many documents seen through windows that begin where documents do.

    A document longer than a window gets more of them, T tokens apart; a shorter one is followed by the next. So a model
    practises what it is asked for later: to begin with nothing before it.
    """

    ids: np.ndarray  # (N,)
    context_length: int
    begins: np.ndarray  # the places where documents begin, ascending

    @cached_property
    def starts(self) -> np.ndarray:
        """(W,): the place in the text where each window begins; every one has its T + 1 tokens."""
        ends = np.append(self.begins[1:], len(self.ids))
        starts = [np.arange(a, b, self.context_length) for a, b in zip(self.begins, ends)]
        found = np.concatenate(starts) if len(self.ids) else np.empty(0, np.int64)
        return found[found + self.context_length < len(self.ids)].astype(np.int64)

    def __len__(self) -> int:
        return len(self.starts)

    def start_of(self, numbers: np.ndarray) -> np.ndarray:
        """The place in the text where each window begins."""
        return self.starts[np.asarray(numbers, dtype=np.int64)]

    def last_at(self, positions: np.ndarray) -> np.ndarray:
        """The last window that begins at or before each position; -1 where none does."""
        return np.searchsorted(self.starts, positions, side="right") - 1


AnyWindows = Windows | DocumentWindows


def document_begins(ids: np.ndarray, encoding: tokenizer.Tokenizer) -> np.ndarray:
    """Where the windows of documents begin: in turn at a document's `<|endoftext|>` and at the first word after it.

    A model is asked for both later: to begin from nothing, which is an end-of-text, and to go on from somebody's first
    words with no end-of-text before them. At a place that it has never seen a word in, it writes anything.
    """
    marks = np.flatnonzero(ids == encoding.eot_id)
    words = marks + 1
    follows = words[words < len(ids)]
    blank = [id for id in np.unique(ids[follows]) if not encoding.token_bytes(int(id)).strip()]
    words[: len(follows)] += np.isin(ids[follows], blank)  # the line end of a mark on a line of its own
    begins = np.where(np.arange(len(marks)) % 2, words, marks)
    return np.union1d([0], begins[begins < len(ids)]).astype(np.int64)


def cut(
    ids: np.ndarray, context_length: int, config: TrainConfig, encoding: tokenizer.Tokenizer
) -> tuple[AnyWindows, AnyWindows]:
    """A text as training cuts it: the windows of the training part and, never overlapping, of the validation part.

    They begin where documents do when `config.windows` says so, no stride is set and the training part has several.
    """
    train, validation = split(ids, config.validation_fraction)
    several = encoding.eot_id is not None and (train == encoding.eot_id).any()
    if config.windows == "documents" and not config.stride and several:
        return (
            DocumentWindows(train, context_length, document_begins(train, encoding)),
            DocumentWindows(validation, context_length, document_begins(validation, encoding)),
        )
    return Windows(train, context_length, config.stride), Windows(validation, context_length)


def holding(windows: AnyWindows, position: int) -> range:
    """The windows that have the token at `position` (0, 1, ... of the text) among their inputs.

    A window of T tokens that begins at s holds it when s <= position < s + T.
    """
    first, last = windows.last_at(np.array([position - windows.context_length, position])) + 1
    return range(max(first, 0), max(first, last, 0))


def overlap(windows: AnyWindows) -> int:
    """The most windows that hold one token."""
    if isinstance(windows, Windows):
        return min(-(-windows.context_length // windows.step), max(len(windows), 1))
    reached = windows.last_at(windows.starts + windows.context_length - 1)
    return int((reached - np.arange(len(windows))).max(initial=0)) + 1


def n_used(windows: AnyWindows) -> int:
    """How many tokens are an input of some window; as many are a target."""
    if not len(windows):
        return 0
    if isinstance(windows, Windows):
        return (len(windows) - 1) * min(windows.step, windows.context_length) + windows.context_length
    return int(np.minimum(np.diff(windows.starts), windows.context_length).sum()) + windows.context_length


def never_inputs(windows: AnyWindows, start: int = 0, end: int | None = None) -> np.ndarray:
    """Positions from `start` to before `end` whose token no window has as an input: gaps of a long stride, the text's end.

    Of the windows that start at or before a position the last one reaches furthest.
    """
    n = len(windows.ids)
    positions = np.arange(max(start, 0), n if end is None else min(end, n))
    last = windows.last_at(positions)
    reached = last >= 0
    reached[reached] = positions[reached] < windows.start_of(last[reached]) + windows.context_length
    return positions[~reached]


def never_targets(windows: AnyWindows, start: int = 0, end: int | None = None) -> np.ndarray:
    """Positions from `start` to before `end` whose token the model is never asked for.

    A token is the target of the token before it: the first token of a text never is one.
    """
    n = len(windows.ids)
    end = n if end is None else min(end, n)
    first = [0] if start <= 0 < end else []
    return np.array([*first, *(never_inputs(windows, start - 1, end - 1) + 1)], dtype=np.int64)


@dataclass(frozen=True)
class Batches:
    """In which order windows are drawn. A pure function of the step, so a run can go on exactly where it was."""

    n_windows: int
    batch_size: int
    shuffle: bool = True
    seed: int = 0
    drop_last: bool = True  # leave out the last, smaller batch of each pass

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"A batch needs at least 1 window, not {self.batch_size}.")

    @property
    def per_epoch(self) -> int:
        """Batches of one pass over the windows."""
        whole, rest = divmod(self.n_windows, self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def numbers(self, step: int) -> np.ndarray:
        """The window numbers of batch `step` (0, 1, 2, ... over all passes): (B,). Raises ValueError without windows."""
        if not self.per_epoch:
            raise ValueError(
                f"There is no whole batch: {self.n_windows} windows and a batch of {self.batch_size}. Use a smaller "
                "batch, a shorter context or a longer text."
            )
        epoch, place = divmod(step, self.per_epoch)
        return order(self.n_windows, epoch, self.seed, self.shuffle)[
            place * self.batch_size : (place + 1) * self.batch_size
        ]


ALIKE = 8  # batches whose rows are dealt out by length among one another


def alike(batches: Batches, lengths: Sequence[int], step: int) -> np.ndarray:
    """Row numbers of batch `step`, rows of ALIKE batches dealt out by their lengths, so that little is filled up: (B,).

    A pass still has every row once, and the batches of the group come in a random order, not the shortest first.
    """
    if not batches.shuffle:
        return batches.numbers(step)
    place = step % batches.per_epoch
    first = step - place % ALIKE
    n = min(ALIKE, batches.per_epoch - (place - place % ALIKE))
    drawn = np.concatenate([batches.numbers(other) for other in range(first, first + n)])
    turn = np.random.default_rng((batches.seed, first)).permutation(n)[step - first]
    by_length = drawn[np.argsort([lengths[number] for number in drawn], kind="stable")]
    return by_length[turn * batches.batch_size : (turn + 1) * batches.batch_size]


@lru_cache(maxsize=2)
def order(n_windows: int, epoch: int, seed: int, shuffle: bool) -> np.ndarray:
    """The windows in the order of one pass: (W,), read only."""
    drawn = np.arange(n_windows, dtype=np.int32 if n_windows < 2**31 else np.int64)
    if shuffle:
        np.random.default_rng((seed, epoch)).shuffle(drawn)
    drawn.setflags(write=False)
    return drawn


def refuse_short(windows: AnyWindows) -> None:
    """Raises ValueError when a text has no window; it says how many tokens are missing for the first one."""
    if not len(windows):
        T = windows.context_length
        raise ValueError(
            f"The text has {len(windows.ids)} tokens; one window of {T} needs {T + 1}. "
            "Use a longer text or a shorter context."
        )
