"""Who may import whom: the table of levels, held against the source of llm/, ui/ and app.py."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# A module imports only from a smaller level. "x.*" stands for every module below the package x.
LEVELS = {
    "llm": 0,
    "llm.config": 0,
    "llm.paths": 0,
    "llm.machine": 0,
    "llm.versions": 0.1,
    "llm.disk": 0.7,
    "llm.modes": 0.5,
    "llm.database": 0.5,
    "llm.fast": 0,
    "llm.muon": 0,
    "llm.tokenizer": 1,
    "llm.model": 1,
    "llm.losses": 1,
    "llm.runs": 1,
    "llm.backup": 1,
    "llm.distributed": 1,
    "llm.files": 1,
    "llm.corpora": 1,
    "llm.corpora.*": 1,
    "llm.hub": 1,
    "llm.duplicates": 0,
    "llm.anatomy": 1,
    "llm.tables": 2,
    "llm.chat": 2,
    "llm.inventory": 1.5,
    "llm.trace": 2,
    "llm.checkpoint": 2.5,
    "llm.convert.source": 1,
    "llm.convert.torch_file": 1,
    "llm.convert.gguf_header": 1,
    "llm.convert.gguf_tokenizer": 2,
    "llm.convert.families": 2,
    "llm.catalogue": 3,
    "llm.rows": 3,
    "llm.pairs": 3.5,
    "llm.convert.folder": 3,
    "llm.precision": 2,
    "llm.quantised": 2,
    "llm.decode": 2.5,
    "llm.recorded": 2.7,
    "llm.data": 3,
    "llm.shards": 3.5,
    "llm.convert": 4,
    "llm.convert.*": 4,
    "llm.convert.describe": 5,
    "llm.check": 5.5,
    "llm.convert.bring": 6,
    "llm.convert.export": 6.5,
    "llm.prompts": 4,
    "llm.adapters": 3,
    "llm.tuning_defaults": 1,
    "llm.lora": 4.3,
    "llm.tuned": 2,
    "llm.dial": 4.4,
    "llm.generate": 4.5,
    "llm.optim": 4.6,
    "llm.objectives": 4.6,
    "llm.evaluate": 5,
    "llm.scoring": 4.8,
    "llm.memory": 3.5,
    "llm.ratings": 1,
    "llm.arena": 1,
    "llm.endpoints": 2,
    "llm.logbook": 2.5,
    "llm.speakers": 6.5,
    "llm.verdicts": 1,
    "llm.quiz": 1,
    "llm.choices": 4.8,
    "llm.benchmarks": 2,
    "llm.harness": 6,
    "llm.harness_tasks": 2,
    "llm.judge": 6.8,
    "llm.openai_api": 6.5,
    "llm.forecast": 5,
    "llm.worker": 5,
    "llm.state": 4.6,
    "llm.sharding": 4.5,
    "llm.train": 6,
    "llm.engine": 6,
    "llm.zero": 6.5,
    "llm.halving": 1.5,
    "llm.takeaway": 2,
    "llm.turns": 1.55,
    "llm.janitor": 1.6,
    "llm.owned": 0.6,
    "llm.classroom": 1,
    "llm.logins": 1.5,
    "llm.lessons": 1,
    "llm.race": 2,
    "llm.handin": 2,
    "llm.commands": 1.6,
    "llm.on_ray": 1.8,
    "llm.dispatch": 2,
    "llm.sweep": 3,
    "llm.job": 3,
    "llm.bpe": 6,
    "ui": 7,
    "ui.figures": 7,
    "ui.figures.*": 7,
    "ui.forms": 7,
    "ui.live": 7.1,
    "ui.parts": 7,
    "ui.view": 7,
    "ui.theme": 7,
    "ui.texts": 7.2,
    "ui.language": 7.1,
    "ui.owner": 7.2,
    "ui.allowed": 7.4,
    "ui.guard": 7,
    "ui.recipes": 6,
    "ui.pickers": 8,
    "ui.shelf": 8.5,
    "ui.transfers": 8.5,
    "ui.monitor": 9,
    "ui.plans": 8,
    "ui.running": 9.5,
    "ui.sweeps": 9.7,
    "ui.tuning": 9.7,
    "ui.tune_rows": 9.8,
    "ui.imports": 9,
    "ui.serve": 8.5,
    "ui.lesson_bar": 7.5,
    "ui.room": 9.5,
    "ui.login": 7.5,
    "ui.keeping": 7.5,
    "ui.health": 8.5,
    "ui.endpoints": 9,
    "ui.belongings": 9,
    "ui.afar": 9,
    "ui.weights": 9.5,
    "ui.eval_text": 9.8,
    "ui.eval_judge": 9.9,
    "ui.eval_benchmarks": 9.8,
    "ui.exports": 9,
    "ui.tuned": 9.5,
    "ui.choosing": 9.5,
    "ui.tabs": 10,
    "ui.tabs.*": 10,
    "app": 11,
}

# Imports within one level, each with its reason; none may close a circle.
WITHIN_A_LEVEL = {
    ("llm.corpora.*", "llm.corpora.*"): "a corpus is made of parts",
    ("llm.corpora", "llm.corpora.*"): "the list of corpora names them",
    ("llm.corpora.*", "llm.corpora"): "parts share the list's card",
    ("llm.train", "llm.dispatch"): "a run that ends lets the next one start",
    ("llm.bpe", "llm.dispatch"): "a run that ends lets the next one start",
    (
        "llm.convert.*",
        "llm.convert.*",
    ): "containers share the reading of state dicts and the writing of folders",
    ("ui.figures.*", "ui.figures.*"): "pictures share escape, colours and tables",
    ("ui.figures.*", "ui.figures"): "pictures share escape, colours and tables",
    ("ui.parts", "ui.figures.*"): "the pieces of a page escape foreign text as pictures do",
    ("ui.tabs.*", "ui.tabs"): "the package itself is empty",
}

TORCH_FREE = [
    "llm.config", "llm.paths", "llm.runs", "llm.commands", "llm.dispatch", "llm.tokenizer", "llm.inventory", "llm.chat",
    "llm.convert.families", "llm.convert.folder", "llm.engine", "llm.zero", "llm.openai_api", "llm.speakers", "llm.endpoints",
    "llm.arena", "llm.ratings", "llm.quiz", "llm.benchmarks",
    "llm.harness_tasks", "app",
]  # fmt: skip
HEAVY = ("torch", "transformers", "peft", "lm_eval", "any_llm", "datasets", "ray", "spaces")


def module_name(path: Path) -> str:
    """ui/tabs/tokens.py -> ui.tabs.tokens; a package's __init__.py is the package."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = [ROOT / "app.py", *sorted((ROOT / "llm").rglob("*.py")), *sorted((ROOT / "ui").rglob("*.py"))]
SOURCES = {module_name(path): path for path in FILES if path.exists()}


def row(module: str) -> str | None:
    """The key of LEVELS that stands for `module`."""
    if module in LEVELS:
        return module
    return next((key for key in LEVELS if key.endswith(".*") and module.startswith(key[:-1])), None)


def imports(
    module: str, source: str, is_package: bool = False, known: frozenset[str] = frozenset()
) -> set[str]:
    """Every module that `source` imports, inside functions too; `from llm import paths` counts as llm.paths."""
    found: set[str] = set()
    package = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *(node.module.split(".") if node.module else [])])
            for alias in node.names:
                inner = f"{origin}.{alias.name}"
                found.add(inner if inner in known else origin)
    return found


def complaints(module: str, imported: set[str]) -> list[str]:
    """What is wrong with the imports of one module, each in a sentence."""
    own = row(module)
    if own is None:
        return [f"{module} is not in the table: add a row to LEVELS in tests/test_architecture.py."]
    found = []
    for other in sorted(imported):
        top = other.split(".")[0]
        banned = {
            "llm": {"gradio", "gradio_client", "plotly", "ui", "app", "transformers", "peft"},
            "ui": {"torch", "transformers", "peft", "app"},
            "app": {"torch", "transformers", "peft"},
        }[module.split(".")[0]] | ({"gradio"} if own.startswith("ui.figures") else set())
        if top in banned:
            found.append(f"{module} imports {other}: it must do without {top}.")
        elif other == "llm.train":
            found.append(f"{module} imports llm.train: only `python -m llm.train` and tests do.")
        elif top in ("llm", "ui", "app") and other != module:
            theirs = row(other)
            if theirs is None:
                found.append(f"{module} imports {other}, which is not in the table: add a row to LEVELS.")
            elif LEVELS[theirs] > LEVELS[own] or (
                LEVELS[theirs] == LEVELS[own] and (own, theirs) not in WITHIN_A_LEVEL
            ):
                found.append(f"{module} (level {LEVELS[own]}) imports {other} (level {LEVELS[theirs]}).")
    return found


GRAPH = {
    name: imports(name, path.read_text(encoding="utf-8"), path.name == "__init__.py", frozenset(SOURCES))
    for name, path in SOURCES.items()
}


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_imports_come_from_smaller_levels(module):
    assert not (found := complaints(module, GRAPH[module])), "\n".join(found)


def test_no_circle():
    """Kahn's algorithm: taking away modules that need nothing more leaves nothing."""
    left = {
        name: {other for other in needs if other in SOURCES and other != name}
        for name, needs in GRAPH.items()
    }
    while free := {name for name, needs in left.items() if not needs}:
        left = {name: needs - free for name, needs in left.items() if name not in free}
    # a package's __init__ may name its parts, and a part the package: Python bears that
    left = {name: needs - {name.rpartition(".")[0]} for name, needs in left.items()}
    while free := {name for name, needs in left.items() if not needs & left.keys()}:
        left = {name: needs for name, needs in left.items() if name not in free}
    assert not left, f"modules that import each other: {sorted(left)}"


@pytest.mark.parametrize(
    ("module", "source", "sentence"),
    [
        ("llm.paths", "from llm import model", "llm.paths (level 0) imports llm.model (level 1)."),
        ("llm.losses", "def f():\n    import llm.runs", "llm.losses (level 1) imports llm.runs (level 1)."),
        ("llm.trace", "import gradio as gr", "llm.trace imports gradio: it must do without gradio."),
        ("llm.trace", "from plotly.graph_objects import Figure", "it must do without plotly."),
        ("llm.checkpoint", "from transformers import AutoModel", "it must do without transformers."),
        ("ui.parts", "def f():\n    import torch", "ui.parts imports torch: it must do without torch."),
        ("ui.figures.base", "import gradio", "it must do without gradio."),
        (
            "ui.tabs.tokens",
            "from ui.tabs import windows",
            "ui.tabs.tokens (level 10) imports ui.tabs.windows",
        ),
        ("ui.tabs.train", "from llm.train import fit", "only `python -m llm.train` and tests do."),
        ("llm.data", "from . import train", "only `python -m llm.train` and tests do."),
        ("llm.nowhere", "", "llm.nowhere is not in the table: add a row"),
        ("app", "from ui import nowhere", "ui.nowhere, which is not in the table: add a row"),
    ],
)
def test_the_checker_sees(module, source, sentence):
    known = frozenset(SOURCES) | {"llm.model", "llm.optim", "llm.train", "ui.tabs.windows", "ui.nowhere"}
    assert any(sentence in found for found in complaints(module, imports(module, source, known=known)))


@pytest.mark.parametrize("module", TORCH_FREE)
def test_starts_without_the_heavy_libraries(module):
    """Imported in a fresh interpreter, none of these may bring torch along: the page must open fast."""
    code = f"import sys, {module}; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_peers_are_imported_by_tests_and_bench_only():
    for path in ROOT.rglob("*.py"):
        place = path.relative_to(ROOT).parts
        if place[0] in ("tests", "bench") or any(part.startswith(".") for part in place):
            continue
        tops = {name.split(".")[0] for name in imports(".".join(place), path.read_text(encoding="utf-8"))}
        assert not tops & {"transformers", "peft", "llms_from_scratch"}, path


def test_datasets_holds_data_only():
    """Python in datasets/ would shadow, or be shadowed by, Hugging Face's package of that name."""
    assert (ROOT / "datasets").is_dir()
    assert not list((ROOT / "datasets").rglob("*.py"))
