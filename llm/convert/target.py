"""What exports share: a folder that appears when it is whole, a file that tells its progress, the files of the encoding."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from llm import paths
from llm.config import ModelConfig
from llm.convert import folder as hugging_face

Progress = Callable[[str, int, int], None]  # what, bytes done, bytes in all; may raise to stop


@contextmanager
def whole(folder: Path) -> Iterator[Path]:
    """Write a folder that is there whole or not at all: yields one beside it, which is synced and renamed at the end.

    Raises ValueError when something lies at `folder` already.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(
            f"There is something called {folder.name} already: choose another place or remove it."
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                with open(file, "rb") as f:
                    os.fsync(f.fileno())
            else:
                paths.sync_directory(file)
        paths.sync_directory(temporary)
        os.chmod(temporary, 0o755)  # mkdtemp makes private ones
        if folder.is_dir():
            folder.rmdir()
        os.replace(temporary, folder)
        paths.sync_directory(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


class Told:
    """A file that says how much of it is written. What `progress` or the disk raised is kept: some libraries hide it."""

    def __init__(self, file: BinaryIO, total: int, progress: Progress | None):
        self.file, self.total, self.progress = file, total, progress
        self.done = 0
        self.stopped: BaseException | None = None

    def write(self, data: bytes) -> int:
        self.done += len(data)
        try:
            if self.progress:
                self.progress("weights", min(self.done, self.total), self.total)
            return self.file.write(data)
        except BaseException as error:
            self.stopped = error
            raise

    def flush(self) -> None:
        self.file.flush()


def refuse_own_encoding(origin: Path) -> None:
    """Raise ValueError when the encoding of a model directory has no form that other tools read."""
    document = hugging_face.read_json(origin / "tokenizer.json", hugging_face.MOST_TOKENIZER)
    if "lab" in document:
        raise ValueError(
            f"The encoding of {paths.called(origin)} cuts texts into {document['lab'].get('kind', 'own')}s, and other tools have no "
            "file for that: train the model with a byte-level BPE encoding, such as stories-1280."
        )


def write_encoding(origin: Path, folder: Path, config: ModelConfig) -> None:
    """tokenizer.json and what other tools read beside it: the names and ids of special tokens, the chat template."""
    known = {
        name: hugging_face.read_json(origin / name, hugging_face.MOST_CONFIG)
        for name in ("tokenizer_config.json", "generation_config.json")
        if (origin / name).is_file()
    }
    settings = hugging_face.tokenizer_config(origin, config, known.get("tokenizer_config.json", {}))
    ids = known.get("generation_config.json") or hugging_face.special_ids(origin, settings)
    for name, values in (("tokenizer_config.json", settings), ("generation_config.json", ids)):
        (folder / name).write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    for name in ("tokenizer.json", "chat_template.jinja"):
        if (origin / name).is_file():
            shutil.copyfile(origin / name, folder / name)
