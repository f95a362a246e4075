"""Look at a model or an encoding that came from outside and print what it is as one line of JSON, within limits.

`python -m llm.convert.describe PATH` is the disposable process behind `llm.check`: what it opens may be made to fill the
memory, to stall or to crash a library, and then only this process ends. By hand it shows the traceback too.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import traceback
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

from llm import convert, paths, tokenizer
from llm.config import to_dict
from llm.convert import families
from llm.convert.source import Source

MEMORY = 2 * 2**30  # bytes of its own that looking may take; the file itself is mapped and counts apart
SPACE = 4 * 2**30  # addresses besides those of mapped files: libraries reserve more than they use
OUTPUT = 32 * 2**20  # bytes of the answer
WIDTHS = {"fp32": 4, "bf16": 2, "fp16": 2}  # bytes of a number
KEPT_AS = {"F32": "fp32", "F64": "fp32", "BF16": "bf16", "F16": "fp16"}  # quantised ones become fp32
SAMPLE = "The quick brown fox, 12 naïve 漢字 🙂\n\tdef f(x): return x"


def limit(seconds: int, mapped: int) -> None:
    """No more processor time, memory and output than this, for this process and for good (POSIX)."""
    import resource

    wanted = {
        resource.RLIMIT_AS: SPACE + mapped,
        resource.RLIMIT_DATA: MEMORY,
        resource.RLIMIT_CPU: seconds,
        resource.RLIMIT_FSIZE: OUTPUT,
        resource.RLIMIT_CORE: 0,
    }
    for kind, most in wanted.items():
        hard = resource.getrlimit(kind)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        last = (
            most + 1 if kind == resource.RLIMIT_CPU and most != hard else most
        )  # first a signal with a name
        try:
            resource.setrlimit(kind, (most, last))
        except (ValueError, OSError):  # a system without this one (macOS has no limit of addresses)
            continue


def size_of(path: Path) -> int:
    """Bytes of a file, or of the files directly in a folder."""
    files = [path] if path.is_file() else path.iterdir()
    return sum(file.stat().st_size for file in files if file.is_file())


# ---- What an import will make of it --------------------------------------------------------------------------------


def formats(source: Source) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Each of our tensors: the number format that loses nothing of what the file has, and its shape."""
    found: dict[str, set[str]] = {}
    for row in source.rows:
        if row.ours:
            exact = KEPT_AS.get(row.dtype, "fp32") if "plus" not in row.how else "fp32"
            found.setdefault(row.ours, set()).add(exact)
    shapes = families.our_shapes(source.config)
    return {
        name: (kinds.pop() if len(kinds := found.get(name, {"fp32"})) == 1 else "fp32", shape)
        for name, shape in shapes.items()
    }


def directory_bytes(source: Source) -> int:
    """What the model directory will take on the disk, about."""
    weights = sum(WIDTHS[dtype] * prod(shape) for dtype, shape in formats(source).values())
    beside = [len(file) if isinstance(file, bytes) else file.stat().st_size for file in source.files.values()]
    return weights + sum(beside) + 300 * len(source.rows) + 10_000


# ---- What it is ----------------------------------------------------------------------------------------------------


def model(path: Path, base: str = "", encoding: str = "", n_head: int = 0) -> dict[str, Any]:
    """A model as plain values: container, family, config, rows, notes, facts, parameters, ... Raises ValueError."""
    source = convert.look(path, base, encoding, n_head)
    return {
        "container": source.container,
        "family": source.family,
        "config": to_dict(source.config),
        "rows": [[row.theirs, row.ours, list(row.shape), row.dtype, row.how] for row in source.rows],
        "notes": list(source.notes),
        "facts": source.facts,
        "parameters": source.parameters(),
        "formula": sum(source.config.parameters().values()),
        "unmatched": source.unmatched(),
        "tokenizer": "tokenizer.json" in source.files,
        "bytes": directory_bytes(source),
    }


def encoding(folder: Path) -> dict[str, Any]:
    """What the tokenizer.json of a folder is, tried on a text. Raises ValueError."""
    found = tokenizer.load(folder)
    ids = [] if found.kind == "char" else found.encode(SAMPLE)  # one of characters knows only its own
    found.decode(ids)
    return {"kind": found.kind, "vocab_size": found.vocab_size, "highest": max(ids, default=0)}


def answer(name: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """{"found": values} or {"error": a sentence}: the boundary at which whatever a strange file sets off becomes words."""
    try:
        return {"found": work()}
    except (KeyboardInterrupt, SystemExit):
        raise
    except MemoryError:
        return {
            "error": f"{name} needs more memory to be looked at than the {MEMORY / 2**30:g} GB that it may take."
        }
    except BaseException as error:  # the `tokenizers` library panics with a class that is no Exception
        if isinstance(error, ValueError) and not isinstance(error, UnicodeError) and _ours(error):
            return {"error": " ".join(str(error).split())}
        traceback.print_exc()
        return {
            "error": f"{name} cannot be read: it is damaged, or of a kind that nobody here thought of ({_kind(error)})."
        }


def _ours(error: BaseException) -> bool:
    """Whether an error was raised by this lab's code, in words for people, and not by a library."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and Path(frames[-1].filename).is_relative_to(paths.ROOT / "llm")


def _kind(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"


def main(arguments: list[str] | None = None) -> int:
    """Print the JSON; the exit status is 2 when it is an error."""
    parser = argparse.ArgumentParser(
        prog="python -m llm.convert.describe", description=__doc__.split("\n")[0]
    )
    parser.add_argument("path", type=Path, help="a file or folder")
    parser.add_argument("--what", choices=("model", "encoding"), default="model", help="what is looked at")
    parser.add_argument("--base", default="", help="model that an adapter belongs to")
    parser.add_argument("--encoding", default="", help="encoding of a model whose file has none")
    parser.add_argument(
        "--n_head", type=int, default=0, help="attention heads of a model whose file does not say"
    )
    parser.add_argument("--seconds", type=int, default=60, help="processor time it may take")
    given = parser.parse_args(arguments)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    limit(given.seconds, size_of(given.path) if given.path.exists() else 0)
    work = {
        "model": lambda: model(given.path, given.base, given.encoding, given.n_head),
        "encoding": lambda: encoding(given.path),
    }[given.what]
    said = answer(given.path.name, work)
    print(json.dumps(said, ensure_ascii=True, allow_nan=False), flush=True)
    return 0 if "found" in said else 2


if __name__ == "__main__":
    sys.exit(main())
