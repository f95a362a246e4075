"""Bring a model of another tool in, as a run of its own: `python -m llm.convert.bring NAME --source FILE_OR_FOLDER_OR_HUB_ID`."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llm import check, convert, hub, inventory, job, paths, tokenizer
from llm.config import ImportConfig, from_dict
from llm.convert import describe
from llm.convert.source import Source
from llm.runs import Run

TELL_EVERY = 0.25  # seconds between two progress events
SPARE = 3 * 2**30  # bytes of addresses besides the weights: torch needs 0.75 GB to begin


class Stopped(Exception):
    """A person asked for it; nothing of the work stays but what was downloaded."""


class Teller:
    """Writes the progress of a run, not too often, and ends the work when a stop is asked for."""

    def __init__(self, run: Run):
        self.run, self.last, self.stage = run, 0.0, ""

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Say how far a stage is, in bytes or steps. Raises Stopped."""
        if self.run.stop_requested():
            raise Stopped
        if time.monotonic() - self.last > TELL_EVERY or stage != self.stage or done == total:
            self.last, self.stage = time.monotonic(), stage
            self.run.append("progress", stage=stage, done=done, total=total)


def bring(run: Run, tell: Callable[[str, int, int], None]) -> dict[str, Any]:
    """Do an import; the values of its result event. The model appears whole, or not at all.

    Raises ValueError when the name is taken, or when what the source names is no model that this lab can hold.
    """
    config = from_dict(ImportConfig, run.config)
    there = inventory.read_source(paths.models() / run.name)
    if there.get("run") == run.name and there["imported"] > run.meta["created"]:
        # it was killed between its last steps
        _tidy(config, run.meta["owner"])
        return _result(run.name)
    if run.name in paths.model_names() or (paths.models() / run.name).exists():
        raise ValueError(f"There is a model called {run.name!r} already: choose another name.")
    check.sweep()
    path = _fetched(config, run.meta["owner"], tell)
    tell("looking at it", 0, 1)
    # in a process that may end badly, before anything is done with it in this one
    found = check.look_at(path, config.base, config.encoding, config.n_head)
    hub.check_disk(found["bytes"], run.name)
    limit_memory(describe.size_of(path) + 4 * found["formula"] + SPARE)
    source = convert.look(path, config.base, config.encoding, config.n_head)
    tell("looking at it", 1, 1)
    building = paths.models() / f".new-{run.name}"
    shutil.rmtree(building, ignore_errors=True)
    whole = building / "whole"  # a level deeper, so that it is no model yet
    try:
        whole.mkdir(parents=True)
        write(whole, source, config, run, tell)
        whole.rename(paths.models() / run.name)
        paths.sync_directory(paths.models())
    finally:
        shutil.rmtree(building, ignore_errors=True)
    _tidy(config, run.meta["owner"])
    return _result(run.name)


def _fetched(config: ImportConfig, owner: str, tell: Callable[[str, int, int], None]) -> Path:
    """Where the source lies, downloaded first when it is on the Hub."""
    if config.source.startswith("hf:"):
        repo, revision = hub.parse(config.source)
        for name, done, total in hub.download(repo, revision, config.file, owner=owner):
            tell(f"downloading {name}", done, total)
    return check.allowed(config.source, config.file, owner)


def _tidy(config: ImportConfig, owner: str) -> None:
    """What was uploaded or downloaded for the import is not needed twice."""
    if config.source.startswith("upload:"):
        id = paths.checked_name(config.source.removeprefix("upload:"), "upload")
        shutil.rmtree(check.uploads() / id, ignore_errors=True)
    if config.source.startswith("hf:"):
        hub.forget(*hub.parse(config.source), config.file, owner)


def limit_memory(most: int) -> None:
    """No more addresses than `most` bytes for this process from now on (POSIX)."""
    import resource

    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    if hard == resource.RLIM_INFINITY or most < hard:
        resource.setrlimit(resource.RLIMIT_AS, (most, hard))


# ---- The model directory -----------------------------------------------------------------------------------------


def write(
    folder: Path,
    source: Source,
    config: ImportConfig,
    run: Run,
    tell: Callable[[str, int, int], None],
) -> None:
    """Write a model directory: the encoding, weights one tensor at a time, card, where it came from, config.json last.

    Raises ValueError when encoding and model do not fit, or the tensors are not those that were announced.
    """
    from llm import checkpoint

    for name, file in source.files.items():
        paths.checked_name(name, "file")
        (folder / name).write_bytes(file if isinstance(file, bytes) else file.read_bytes())
    if not (folder / "tokenizer.json").exists():
        if not config.encoding:
            raise ValueError(
                f"The {source.container} brings no encoding along: say which one the model was trained with (--encoding), "
                f"such as {', '.join(tokenizer.names()[:3])}."
            )
        tokenizer.get(config.encoding).save(folder)
    tell("checking the encoding", 0, 1)
    check.encoding_of(folder, source.config.vocab_size)
    checkpoint.write_tensors(
        folder / "model.safetensors",
        describe.formats(source),
        source.read(),
        lambda _, done, total: tell("converting the weights", done, total),
    )
    origin = _origin(config, source, run.meta["owner"])
    (folder / "README.md").write_text(card(run.name, source, origin), encoding="utf-8")
    stored = {
        "version": inventory.SOURCE_VERSION,
        "container": source.container,
        "family": source.family,
        "origin": origin,
        "run": run.name,
        "owner": run.meta["owner"],
        "imported": time.time(),
        "parameters": source.parameters(),
        "facts": source.facts,
        "notes": list(source.notes),
        "rows": [[row.theirs, row.ours, list(row.shape), row.dtype, row.how] for row in source.rows],
    }
    (folder / "source.json").write_text(json.dumps(stored, ensure_ascii=False) + "\n", encoding="utf-8")
    for file in folder.iterdir():
        with open(file, "rb") as f:
            os.fsync(f.fileno())
    checkpoint.write_config(folder, source.config)


def _origin(config: ImportConfig, source: Source, owner: str) -> str:
    """Where a model is from, without the paths of this machine."""
    if config.source.startswith("hf:"):
        repo, revision = hub.parse(config.source)
        commit = hub.commit(repo, revision, config.file, owner)
        return f"{hub.page(repo)} at {commit[:12] or revision}" + (f", {config.file}" if config.file else "")
    return str(source.facts.get("origin") or Path(config.source).name)


def card(name: str, source: Source, origin: str) -> str:
    """The model's card: where it comes from and what it is."""
    lines = [
        f"- origin: {origin}",
        f"- container: {source.container}",
        f"- family: {source.family}",
        f"- parameters: {sum(source.config.parameters().values()):,}",
        f"- brought in: {time.strftime('%Y-%m-%d')}",
        *(f"- {key}: {value}" for key, value in source.facts.items() if key != "origin"),
    ]
    lines = [" ".join(str(line).split())[:300] for line in lines]
    notes = [" ".join(note.split()) for note in source.notes]
    return "\n".join(
        [f"# {name}", "", "A model of another tool, opened by LLM Lab.", "", *lines, "", *notes, ""]
    )


def _result(name: str) -> dict[str, Any]:
    """What is said at the end, read from what lies on the disk."""
    folder = paths.models() / name
    stored = inventory.read_source(folder)
    rows = stored["rows"]
    return {
        "model": name,
        "container": stored["container"],
        "family": stored["family"],
        "parameters": stored["parameters"],
        "tensors": sum(bool(ours) for _, ours, *_ in rows),
        "left_out": sum(not ours for _, ours, *_ in rows),
        "bytes": sum(file.stat().st_size for file in folder.iterdir()),
        "notes": stored["notes"],
    }


# ---- The run -----------------------------------------------------------------------------------------------------


def work(run: Run) -> None:
    """Do an import's run, until it is done or a stop is asked for."""
    run.append("start", step=0, pid=os.getpid())
    try:
        result = bring(run, Teller(run))
    except Stopped:
        run.append(
            "end", reason="stopped", step=0, message="Stopped: no model was made. Resume begins where it can."
        )
        return
    run.append("result", **result)
    run.append(
        "end",
        reason="finished",
        step=0,
        message=f"The model {run.name} is here: {result['parameters']:,} parameters in {result['tensors']} tensors of the file.",
    )


def main(arguments: list[str] | None = None) -> int:
    """Create the run if there is none of this name, then do its import; one ended early begins again."""
    finished = "The run {name} is finished: its model is called {name}. Choose another name to bring it in once more."
    return job.do("import", work, __doc__, finished, arguments)


if __name__ == "__main__":
    sys.exit(main())
