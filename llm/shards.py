"""A text larger than a disk, read a shard at a time: NAME.shards in the datasets folder lists where its parts lie.

Each line is a file (relative to the list, or absolute) or an https address of plain text in UTF-8. A shard is fetched and made ids when
training comes to it, the one after it meanwhile; the ids longest unused are removed, so that no more than LLM_SHARDS_MB megabytes
(2,000) lie on the disk. The last shard is kept for validation. A pass takes the shards in an order drawn anew, and inside each
its windows: so a batch is a function of its number here too, and a run goes on exactly where it was.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from llm import data, files, paths
from llm.config import TrainConfig
from llm.tokenizer import Tokenizer

PATIENCE = 60.0  # seconds without a byte before a download is given up
TRIES = 3
PIECE = 1 << 20


def most_bytes() -> int:
    """How much of the shards' ids may lie on the disk: $LLM_SHARDS_MB megabytes, else 2,000."""
    return int(float(os.environ.get("LLM_SHARDS_MB", "2000")) * 1e6)


def names() -> list[str]:
    """The lists of shards in the datasets folder."""
    return sorted(path.stem for path in paths.datasets().glob("[!.]*.shards") if path.is_file())


def listed(name: str) -> list[str]:
    """Where the shards of a text lie. Raises ValueError when the list is missing, has fewer than two, or one of another kind."""
    file = paths.datasets() / f"{paths.checked_name(name, 'list of shards')}.shards"
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError):
        raise ValueError(f"There is no list of shards called {name!r} here.") from None
    found = [line for line in lines if line and not line.startswith("#")]
    if len(found) < 2:
        raise ValueError(
            f"{name}.shards lists {len(found)} shards: at least 2 are needed, the last one for validation."
        )
    for line in found:
        if "://" in line and not fetchable(line):
            raise ValueError(f"{name}.shards: {line[:100]!r} is neither a file nor an https address.")
    return [line if "://" in line else str((file.parent / line).resolve()) for line in found]


def fetchable(address: str) -> bool:
    """Whether it is an https address, or an http one of this very machine."""
    parts = urlsplit(address)
    return parts.scheme == "https" or (
        parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost")
    )


class Shards:
    """The batches of a text in shards, for one encoding and length of window."""

    def __init__(self, name: str, encoding: Tokenizer, context_length: int, config: TrainConfig):
        """Raises ValueError when the list cannot be used, or the last shard cannot be had."""
        self.name, self.encoding, self.T, self.config = name, encoding, context_length, config
        *self.addresses, last = listed(name)
        self.validation = self._windows(last)
        self.counts: dict[int, int] = {}  # whole batches of the shards that have come already
        self.ahead: tuple[str, Future] | None = None
        self.fetching = ThreadPoolExecutor(1)

    def batch(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Inputs and targets (B, T) of batch `step` (0, 1, 2, ... over all passes).

        Raises ValueError when a shard cannot be had, or none has a whole batch.
        """
        shard, epoch, number = self.place(step)
        windows = self._open(self.addresses[shard])
        batches = self._batches(len(windows), shard)
        found = windows.inputs_and_targets(batches.numbers(epoch * batches.per_epoch + number))
        self._look_ahead(shard, epoch)
        return found

    def place(self, step: int) -> tuple[int, int, int]:
        """(shard, pass, batch of it in this pass) of a batch."""
        epoch, before = 0, 0
        if len(self.counts) == len(self.addresses) and (a_pass := sum(self.counts.values())):
            epoch = step // a_pass
            before = epoch * a_pass
        while True:
            for shard in self.order(epoch):
                n = self.count(shard)
                if step < before + n:
                    return shard, epoch, step - before
                before += n
            if not before:
                raise ValueError(
                    f"No shard of {self.name} has a whole batch of {self.config.batch_size} windows of {self.T} tokens: use a "
                    "smaller batch, a shorter context or longer shards."
                )
            epoch += 1

    def order(self, epoch: int) -> list[int]:
        """The shards in the order of one pass."""
        n = len(self.addresses)
        drawn = (
            np.random.default_rng((self.config.seed, epoch, 1)).permutation(n)
            if self.config.shuffle
            else range(n)
        )
        return [int(shard) for shard in drawn]

    def count(self, shard: int) -> int:
        """Whole batches of a shard; it is fetched if nobody has counted it yet."""
        if shard in self.counts:
            return self.counts[shard]
        file = self._place(self.addresses[shard]).with_suffix(".count")
        try:
            windows = json.loads(file.read_text(encoding="utf-8"))[self._cut_as()]
        except (OSError, ValueError, KeyError):
            windows = len(self._windows(self.addresses[shard]))
            kept = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
            with paths.replacing(file) as temporary:
                temporary.write_text(json.dumps({**kept, self._cut_as(): windows}), encoding="utf-8")
        self.counts[shard] = self._batches(windows, shard).per_epoch
        return self.counts[shard]

    def _cut_as(self) -> str:
        return f"{self.T}-{self.config.stride}-{self.config.windows}"

    def _batches(self, n_windows: int, shard: int) -> data.Batches:
        seed = int.from_bytes(hashlib.sha256(f"{self.config.seed}-{shard}".encode()).digest()[:4], "big")
        return data.Batches(
            n_windows, self.config.batch_size, self.config.shuffle, seed, self.config.drop_last
        )

    def _look_ahead(self, shard: int, epoch: int) -> None:
        """Fetch the shard that comes next while this one is learned from."""
        order = [*self.order(epoch), *self.order(epoch + 1)[:1]]
        following = self.addresses[order[order.index(shard) + 1]]
        if self.ahead is None or self.ahead[0] != following:
            self.ahead = (following, self.fetching.submit(self._ids, following, self.addresses[shard]))

    @lru_cache(maxsize=2)  # noqa: B019  (one object a run, as long as the run)
    def _open(self, address: str) -> data.AnyWindows:
        return self._windows(address)

    def _windows(self, address: str) -> data.AnyWindows:
        ids = self._ids(address)
        return data.cut(ids, self.T, _whole(self.config), self.encoding)[0]

    def _place(self, address: str) -> Path:
        """Where a shard's ids lie while they are kept."""
        about = f"{address}|{data.fingerprint(self.encoding)}"
        return folder() / f"{hashlib.sha256(about.encode()).hexdigest()[:24]}.bin"

    def _ids(self, address: str, in_use: str = "") -> np.ndarray:
        """The ids of a shard, fetched if they are not here; others make room. Raises ValueError when it cannot be had."""
        place = self._place(address)
        dtype = np.dtype(np.uint16 if self.encoding.vocab_size <= 2**16 else np.uint32)
        with _alone(place):
            ids, _ = data.cached(place, dtype)
            if ids is None:
                with _fetched(address) as file:
                    data.keep(place, data.arrays(_text(file, address), self.encoding, dtype), ())
                ids, _ = data.cached(place, dtype)
            with contextlib.suppress(FileNotFoundError):
                os.utime(place)
        make_room({place.name, self._place(in_use).name} if in_use else {place.name})
        return ids


def _whole(config: TrainConfig) -> TrainConfig:
    """The settings by which a shard is cut: all of it is for training."""
    return replace(config, validation_fraction=0.0)


def folder() -> Path:
    """Where the ids of shards lie."""
    made = paths.cache() / "shards"
    made.mkdir(exist_ok=True)
    return made


def make_room(keep: set[str]) -> list[str]:
    """Remove the ids longest unused until no more than `most_bytes` are left; those named stay. What was removed."""
    found = []
    for file in folder().glob("*.bin"):
        with contextlib.suppress(FileNotFoundError):  # another process makes room too
            state = file.stat()
            found.append((state.st_mtime, state.st_size, file))
    size, gone = sum(size for _, size, _ in found), []
    for _, own, file in sorted(found):
        if size <= most_bytes() or file.name in keep:
            continue
        size -= own
        file.unlink(missing_ok=True)  # who has mapped it goes on reading
        file.with_suffix(".json").unlink(missing_ok=True)
        gone.append(file.name)
    return gone


@contextmanager
def _alone(place: Path) -> Iterator[None]:
    """Only one process fetches a shard."""
    with open(place.with_suffix(".lock"), "a") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        yield


@contextmanager
def _fetched(address: str) -> Iterator[Path]:
    """The shard as a file: where it lies, or downloaded and removed again afterwards. Raises ValueError with the reason."""
    if "://" not in address:
        if not Path(address).is_file():
            raise ValueError(f"The shard {address} is not there: on this machine nobody sees such a file.")
        yield Path(address)
        return
    handle, name = tempfile.mkstemp(dir=folder(), suffix=".part")
    os.close(handle)
    try:
        for attempt in range(1, TRIES + 1):
            try:
                with urllib.request.urlopen(address, timeout=PATIENCE) as answer, open(name, "wb") as f:
                    shutil.copyfileobj(answer, f, PIECE)
                    if (wanted := answer.headers.get("Content-Length")) and f.tell() != int(wanted):
                        raise OSError(f"it broke off after {f.tell():,} of {int(wanted):,} bytes")
                break
            except (OSError, urllib.error.URLError) as error:
                if attempt == TRIES:
                    raise ValueError(f"The shard {address} cannot be had: {error}.") from None
                time.sleep(attempt)
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def _text(file: Path, address: str) -> Iterator[str]:
    """Its text, a piece at a time. Raises ValueError where it is no plain UTF-8."""
    try:
        yield from files.pieces(file)
    except files.NotPlain:
        raise ValueError(
            f"The shard {address} is no plain text in UTF-8 with \\n line ends: write it anew."
        ) from None
