"""Write a model in the format of other tools, as a run of its own: `python -m llm.convert.export NAME --model M --format gguf`."""

from __future__ import annotations

import os
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llm import convert, hub, job, paths
from llm.config import ExportConfig, from_dict
from llm.convert.bring import Stopped, Teller
from llm.inventory import shape
from llm.runs import Run

BLOCK = 4 * 2**20  # bytes copied between two looks at the stop file


def export(run: Run, tell: Callable[[str, int, int], None]) -> dict[str, Any]:
    """Do an export into the run's folder `result`; the values of its result event.

    Raises ValueError with the setting in the way when the format cannot hold the model.
    """
    config = from_dict(ExportConfig, run.config)
    if not shape(paths.model_folder(config.model)).causal:
        raise ValueError(
            f"{config.model} was broken on purpose (causal is off): no other tool computes such a model."
        )
    about, module = convert.EXPORTERS[config.format], convert.exporter(config.format)
    told = convert.numbers(config.format, config.dtype)
    expected = module.size(config.model, *told)
    hub.check_disk(expected if about.suffix else 2 * expected, f"{config.model} as {about.title}")
    result = run.path / "result"
    shutil.rmtree(result, ignore_errors=True)  # of a try that was cut
    result.mkdir()
    made = result / (config.model.replace("@", "-") + about.suffix)

    def progress(_: str, done: int, total: int) -> None:
        tell("writing the weights", done, total)

    tell("writing the weights", 0, expected)
    notes = module.save(config.model, made, *told, progress=progress)
    packed = made if about.suffix else pack(made, tell)
    return {
        "format": config.format,
        "dtype": config.numbers,
        "file": packed.relative_to(run.path).as_posix(),
        "folder": "" if about.suffix else made.relative_to(run.path).as_posix(),
        "bytes": packed.stat().st_size,
        "files": [
            {"name": file.relative_to(result).as_posix(), "bytes": file.stat().st_size}
            for file in sorted(result.rglob("*"))
            if file.is_file()
        ],
        "notes": list(notes),
    }


def pack(folder: Path, tell: Callable[[str, int, int], None]) -> Path:
    """The folder as one file to download, beside it: weights do not shrink, so nothing is compressed."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    total, done = sum(file.stat().st_size for file in files), 0
    path = folder.with_name(f"{folder.name}.zip")
    with paths.replacing(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for file in files:
            name = f"{folder.name}/{file.relative_to(folder).as_posix()}"
            with open(file, "rb") as source, archive.open(name, "w", force_zip64=True) as target:
                while block := source.read(BLOCK):
                    target.write(block)
                    done += len(block)
                    tell("packing", done, total)
    return path


def work(run: Run) -> None:
    """Do an export's run, until it is done or a stop is asked for; what is not whole does not stay."""
    run.append("start", step=0, pid=os.getpid())
    try:
        result = export(run, Teller(run))
    except Stopped:
        shutil.rmtree(run.path / "result", ignore_errors=True)
        run.append("end", reason="stopped", step=0, message="Stopped: nothing was written.")
        return
    except BaseException:
        shutil.rmtree(run.path / "result", ignore_errors=True)
        raise
    run.append("result", **result)
    title = convert.EXPORTERS[result["format"]].title
    run.append(
        "end",
        reason="finished",
        step=0,
        message=f"{run.config['model']} as {title}: {result['bytes'] / 1e6:,.1f} MB in {Path(result['file']).name}.",
    )


def main(arguments: list[str] | None = None) -> int:
    """Create the run if there is none of this name, then do its export; one ended early begins again."""
    finished = "The run {name} is finished: what it wrote lies in its folder result."
    return job.do("export", work, __doc__, finished, arguments)


if __name__ == "__main__":
    sys.exit(main())
