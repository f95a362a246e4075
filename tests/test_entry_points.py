"""What a person types or a Space reads: the commands answer, the header is valid, the README's tree is true."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = {
    # what a person types: what it asks for besides flags
    "-m llm.train": ["a-run"],
    "-m llm.corpora": ["stories"],
    "-m llm.generate": ["--model", "a-model"],
    "-m llm.bpe": ["a-run"],
    "-m llm.judge": ["a-run"],
    "-m llm.convert.bring": ["a-run"],
    "-m llm.convert.export": ["a-run"],
    "-m llm.convert.describe": ["a-path"],
    "app.py": [],
}


def python(command: str, *arguments: str) -> subprocess.CompletedProcess:
    """`python COMMAND ARGUMENTS` from the root, as a person would type it."""
    whole = [sys.executable, *command.split(), *arguments]
    return subprocess.run(whole, cwd=ROOT, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("command", COMMANDS)
def test_help(command):
    done = python(command, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.lower().startswith("usage:")


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_flag_is_refused(command):
    done = python(command, *COMMANDS[command], "--no-such-flag")
    assert done.returncode == 2
    assert "--no-such-flag" in done.stderr and "Traceback" not in done.stderr


def test_readme_begins_with_the_header_of_a_space():
    header = yaml.safe_load(re.match(r"---\n(.*?)\n---\n", README, re.DOTALL)[1])
    assert header["sdk"] == "gradio"
    assert (ROOT / header["app_file"]).is_file()
    assert header["license"] == "mit"
    assert header["python_version"] in ("3.10", "3.11", "3.12", "3.13")
    assert len(header["short_description"]) <= 60  # the hub refuses longer ones
    colours = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
    assert {header["colorFrom"], header["colorTo"]} <= colours
    assert header["title"] and header["emoji"] and header["tags"]
    pinned = re.search(r"^gradio==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)[1]
    assert header["sdk_version"] == pinned


def tree_paths(text: str) -> list[str]:
    """Paths of the README's tree: the first word of each line, below the directories it is indented under."""
    block = re.search(r"## The tree\n.*?```\n(.*?)```", text, re.DOTALL)[1]
    found, above = [], []
    for line in block.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        name = line.split()[0]
        above = [*above[:depth], name]
        found.append("".join(above))
    return found


def test_the_tree_names_what_exists():
    paths = tree_paths(README)
    assert "app.py" in paths and "llm/model.py" in paths and "ui/tabs/tokens.py" in paths
    assert not [path for path in paths if not (ROOT / path).exists()]


def test_the_tree_is_complete():
    """A module that the README does not name cannot be found by a reader."""
    named = set(tree_paths(README))
    for folder in ("llm", "ui", "ui/tabs", "bench"):
        for path in (ROOT / folder).glob("*.py"):
            if path.name != "__init__.py":
                assert path.relative_to(ROOT).as_posix() in named, f"the README's tree lacks {path.name}"


def test_the_python_of_the_readme_runs(tmp_path):
    """Copied as it stands, from the root, with only what ships."""
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    env = os.environ | {"LLM_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", block], cwd=ROOT, env=env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "b'The'" in done.stdout and "b' fox'" in done.stdout


def test_local_links_of_the_readme_exist():
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", README):
        if "://" not in target:
            assert (ROOT / target).exists(), target


def test_ci_runs():
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    subprocess.run(["bash", "-n", ".ci/run"], cwd=ROOT, check=True)


def test_constraints_pin_every_requirement():
    pinned = {
        re.split(r"==", line)[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line and not line.startswith("#")
    }
    for name in ("requirements.txt", "requirements-dev.txt"):
        for line in (ROOT / name).read_text().splitlines():
            if line and not line.startswith("#"):
                assert re.split(r"[<>=;\[ ]", line)[0].lower().replace("_", "-") in pinned, line
