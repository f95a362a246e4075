"""Learn a byte-pair encoding from a text, as a run of its own: `python -m llm.bpe NAME --dataset stories --vocab_size 1024`."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from llm import corpora, data, files, job, paths, tokenizer
from llm.config import BPEConfig, from_dict
from llm.runs import Run

FIRST = 60  # merges that a run writes down, the most frequent pairs of the text
TELL_EVERY = 0.25  # seconds between two progress events
STAGES = {  # what the library calls a stage: what a person reads
    "Read": "reading the text",
    "Tokenize words": "cutting words into bytes",
    "Count pairs": "counting pairs of neighbours",
    "Compute merges": "merging the most frequent pair",
}
Progress = Callable[[str, int, int], None]  # stage, done, total


def learn(
    documents: Iterable[str], vocab_size: int, name: str, progress: Progress | None = None
) -> tokenizer.BPETokenizer:
    """A byte-level BPE of `vocab_size` ids: 256 bytes, then the merges, then `<|endoftext|>`.

    Words (pieces of GPT-2's split pattern) start as bytes; the pair of neighbours most frequent in the text becomes a
    new token, and so on (Sennrich et al. 2016). A pair must stand in the text twice, so a short text gives fewer ids.
    Raises ValueError when there is no text or `vocab_size` has no room for the bytes.
    """
    import tokenizers

    if vocab_size < 257:
        raise ValueError(
            f"A vocabulary of {vocab_size} is too small: 256 bytes and <|endoftext|> need 257 ids."
        )
    trained = tokenizers.Tokenizer(tokenizers.models.BPE())
    trained.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)  # GPT-2's pattern
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size - 1,
        min_frequency=2,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=progress is not None,
        progress_format="json" if progress else "silent",
    )
    with _library_progress(progress):
        trained.train_from_iterator(_checked(documents), trainer)
    ranks = tokenizer.ranks_of_vocab(trained.get_vocab())
    return tokenizer.BPETokenizer(name, ranks, tokenizer.GPT2_SPLIT, {tokenizer.EOT: len(ranks)})


def documents_of(text: str, progress: Progress | None = None) -> Iterator[str]:
    """The documents of a dataset in pieces of moderate size; the separator itself is never part of a merge."""
    done = 0
    for document in text.split(tokenizer.EOT):
        for part in data.chunks(document, 100_000):
            yield tokenizer.clean(part)
            done += len(part)
            if progress:
                progress("Read", done, len(text))
        done += len(tokenizer.EOT)


def _checked(documents: Iterable[str]) -> Iterator[str]:
    seen = False
    for document in documents:
        seen = seen or bool(document.strip())
        yield document
    if not seen:
        raise ValueError("There is no text to learn from.")


@contextmanager
def _library_progress(progress: Progress | None):
    """The `tokenizers` library tells its progress as JSON lines on the error stream: hand them to `progress`."""
    if progress is None:
        yield
        return
    sys.stderr.flush()
    saved = os.dup(2)
    reading, writing = os.pipe()
    os.dup2(writing, 2)
    os.close(writing)
    listener = threading.Thread(target=_listen, args=(reading, saved, progress), daemon=True)
    listener.start()
    try:
        yield
    finally:
        os.dup2(saved, 2)  # closes the last writing end, so the listener comes to its end
        listener.join()
        os.close(saved)


def _listen(reading: int, errors: int, progress: Progress) -> None:
    with os.fdopen(reading, "rb") as lines:
        for line in lines:
            try:
                told = json.loads(line)
                progress(told["stage"], told["current"], told["total"])
            except (ValueError, KeyError, TypeError):
                os.write(errors, line)  # not progress: a message of the library


def train(run: Run) -> None:
    """Learn the encoding that `run` describes and save it under the run's name.

    Raises ValueError when the dataset is unusable or the name is taken.
    """
    config = from_dict(BPEConfig, run.config)
    if run.name in tokenizer.names():
        raise ValueError(f"There is an encoding called {run.name!r} already: choose another name.")
    read = files.read_text(corpora.path(config.dataset))
    run.append("start", step=0, pid=os.getpid(), characters=len(read.text), notes=list(read.notes))
    last = [0.0, ""]

    def progress(stage: str, done: int, total: int) -> None:
        if time.monotonic() - last[0] > TELL_EVERY or stage != last[1] or done == total:
            last[:] = [time.monotonic(), stage]
            run.append("progress", stage=stage, done=done, total=total)

    made = learn(documents_of(read.text, progress), config.vocab_size, run.name, progress)
    save(made)
    run.append("merges", first=[[left.hex(), right.hex()] for left, right in made.merges()[:FIRST]])
    sample = read.text[:200_000]
    run.append(
        "result",
        vocab_size=made.vocab_size,
        bytes_per_token=tokenizer.bytes_per_token(sample, made.encode(sample, special=True)),
        measured_on=len(sample),
    )
    run.append("end", reason="finished", step=0, message=_message(made.vocab_size, config.vocab_size))


def _message(got: int, wanted: int) -> str:
    if got == wanted:
        return f"The encoding has {got:,} ids."
    return f"The encoding has {got:,} ids, not {wanted:,}: no further pair stands in the text twice."


def save(made: tokenizer.BPETokenizer) -> Path:
    """Put the encoding under its name in `paths.tokenizers()`; it appears there whole."""
    folder = paths.tokenizers() / paths.checked_name(made.name, "encoding")
    with tempfile.TemporaryDirectory(dir=paths.tokenizers(), prefix=".new-") as building:
        whole = Path(building) / "whole"
        whole.mkdir()
        made.save(whole)
        whole.rename(folder)
    return folder


def _watch(run: Run) -> None:
    """End this process when a stop is asked for: the library cannot be interrupted, and nothing is half written."""
    while not run.stop_requested():
        time.sleep(0.2)
    run.append("end", reason="stopped", step=0, message="Stopped: no encoding was saved.")
    os._exit(0)


def work(run: Run) -> None:
    """Do an encoding's run, until it is done or a stop is asked for."""
    threading.Thread(target=_watch, args=(run,), daemon=True).start()
    train(run)


def main(arguments: list[str] | None = None) -> int:
    """Create the run if there is none of this name, then learn its encoding; one ended early begins again."""
    finished = "The run {name} is finished: its encoding is called {name}."
    return job.do("tokenizer", work, __doc__, finished, arguments)


if __name__ == "__main__":
    sys.exit(main())
