"""The texts of the lab: those that ship in datasets/, each made by a seeded generator here, and public ones to download."""

from __future__ import annotations

from pathlib import Path

from llm import paths

# name -> what a picker shows; the file is datasets/<file>, its generator is `python -m llm.corpora <name>`.
TEXTS = {
    "stories": dict(
        file="stories.txt",
        title="Stories",
        about="Short children's stories in plain English: somebody wishes for a thing, something is in the way.",
        licence="MIT",
        language="English",
        unit="story",
    ),
    "verse": dict(
        file="verse.txt",
        title="Verse",
        about="Rhymed verse with a small alphabet, for character-level models.",
        licence="MIT",
        language="English",
        unit="poem",
    ),
}

# name -> rows for fine-tuning (read by llm/rows.py); the file is datasets/<file>, made by `python -m llm.corpora <made_by>`.
ROWS = {
    "instructions": dict(
        file="instructions.json",
        title="Instructions",
        about="Short tasks in plain English with their answers: opposites, plurals, sorting, questions about a story, ...",
        licence="MIT",
        language="English",
        unit="row",
        kind="instruction",
        made_by="instructions",
    ),
    "classification-two": dict(
        file="classification-two.csv",
        title="Asking or telling",
        about="Chat messages in two classes: the sender wants something done, or tells what was or will be.",
        licence="MIT",
        language="English",
        unit="row",
        kind="classification",
        made_by="classification",
    ),
    "classification-five": dict(
        file="classification-five.csv",
        title="Topics",
        about="Short texts in five classes: weather, food, animals, travel, school.",
        licence="MIT",
        language="English",
        unit="row",
        kind="classification",
        made_by="classification",
    ),
    "preferences": dict(
        file="preferences.jsonl",
        title="Preferences",
        about="How a story begins and two endings: the kinder, more fitting or finished one is chosen.",
        licence="MIT",
        language="English",
        unit="row",
        kind="preference",
        made_by="preferences",
    ),
}


def names() -> list[str]:
    """The shipped texts that are here, then the texts downloaded or uploaded: names without ".txt"."""
    shipped = [name for name, text in TEXTS.items() if (paths.shipped_datasets() / text["file"]).exists()]
    own = sorted(p.stem for p in paths.datasets().glob("[!.]*.txt") if p.is_file())
    return shipped + [name for name in own if name not in TEXTS]


def path(name: str) -> Path:
    """The file of a shipped text, or of one in $LLM_HOME/datasets. Raises ValueError when there is none."""
    if name in TEXTS:
        return paths.find(TEXTS[name]["file"], paths.shipped_datasets(), what="text")
    paths.checked_name(name, "text")
    file = paths.datasets() / f"{name}.txt"
    if not file.is_file():
        raise ValueError(f"There is no text called {name!r} here.")
    return file


def row_names() -> list[str]:
    """The shipped rows for fine-tuning that are here, then a person's own: names without an ending."""
    shipped = [name for name, rows in ROWS.items() if (paths.shipped_datasets() / rows["file"]).exists()]
    own = sorted(p.stem for p in paths.datasets().glob("[!.]*.jsonl") if p.is_file())
    return shipped + [name for name in own if name not in ROWS]


def row_path(name: str) -> Path:
    """The file of shipped rows, or of rows in $LLM_HOME/datasets. Raises ValueError when there are none."""
    if name in ROWS:
        return paths.find(ROWS[name]["file"], paths.shipped_datasets(), what="file of rows")
    paths.checked_name(name, "file of rows")
    file = paths.datasets() / f"{name}.jsonl"
    if not file.is_file():
        raise ValueError(f"There are no rows called {name!r} here.")
    return file


def card(name: str) -> dict[str, str]:
    """What is known of a text: title, about, licence, language, unit, and its size in bytes.

    Shipped texts and downloads have their table's entries; of a person's own file only the size is known.
    """
    from llm.corpora import downloads

    size = f"{path(name).stat().st_size:,} bytes"
    if name in TEXTS:
        return {**TEXTS[name], "size": size}
    known = next((d for d in downloads.DOWNLOADS.values() if Path(d.file).stem == name), None)
    if known:
        return dict(title=known.title, about=known.about, licence=known.licence, source=known.url, size=size)
    return dict(title=name, size=size)
