"""hosting/: what the container copies is enough, commands have the page's flags, and systemd can read the unit."""

from __future__ import annotations

import configparser
import fnmatch
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from llm import paths

ROOT = Path(__file__).resolve().parent.parent
HOSTING = ROOT / "hosting"
UNIT = HOSTING / "llm-lab.service"
ANALYZE = shutil.which("systemd-analyze")


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions: ("COPY", "llm llm"); continued lines are one."""
    text = (HOSTING / "Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [tuple(line.split(maxsplit=1)) for line in joined.splitlines() if line.strip()]


def said(name: str) -> str:
    """What the one instruction `name` says."""
    (value,) = [value for key, value in instructions() if key == name]
    return value


def copied() -> dict[str, str]:
    """Path in the project -> path in the image, relative to its working directory."""
    found = {}
    for key, value in instructions():
        if key == "COPY":
            *sources, target = value.split()
            for source in sources:
                found[source] = os.path.normpath(f"{target}/{source}" if target.endswith("/") else target)
    return found


def command() -> list[str]:
    """What the container runs."""
    return json.loads(said("CMD"))


def healthcheck(port: int) -> list[str]:
    """The container's health check, with this Python and of this port."""
    python, *rest = json.loads(said("HEALTHCHECK").partition("CMD")[2])
    assert python == "python" and f":{exposed()}/" in rest[-1]
    return [sys.executable, *(part.replace(f":{exposed()}/", f":{port}/") for part in rest)]


def exposed() -> str:
    return said("EXPOSE")


def unit() -> configparser.RawConfigParser:
    """The unit's sections; of a key that is given several times the last value."""
    found = configparser.RawConfigParser(
        strict=False, interpolation=None, delimiters="=", comment_prefixes="#"
    )
    found.optionxform = str
    found.read(UNIT, encoding="utf-8")
    return found


def environment() -> dict[str, str]:
    """What the unit sets."""
    lines = re.findall(r"^Environment=(\w+)=(.*)$", UNIT.read_text(encoding="utf-8"), re.MULTILINE)
    return dict(lines)


def follows(folder: Path, words: list[str]) -> str:
    """What `app.py` in `folder` says of a command: its flags and their values are read, and the help is shown."""
    python, script, *flags = words
    assert Path(python).name == "python" and script == "app.py"
    env = {k: v for k, v in os.environ.items() if not k.startswith(("LLM_MODE", "PYTHONPATH"))}
    done = subprocess.run(
        [sys.executable, script, *flags, "--help"], cwd=folder, env=env, capture_output=True, text=True, timeout=120
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    known = set(re.findall(r"--[a-z-]+", done.stdout))
    assert {flag for flag in flags if flag.startswith("--")} <= known
    return done.stdout


# --- the container


def test_what_the_container_copies_is_enough_to_build_the_page(tmp_path):
    """The page is built on import, tabs and all, before its flags are read."""
    for source, target in copied().items():
        place = tmp_path / target
        place.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, place, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / source, place)
    follows(tmp_path, command())


def test_the_container_copies_all_that_is_shipped_beside_the_code():
    for folder in (paths.shipped_models(), paths.shipped_datasets(), ROOT / "lessons"):
        assert copied()[folder.name] == folder.name
    installed = next(value for key, value in instructions() if key == "RUN" and "pip install" in value)
    assert "-r requirements.txt" in installed and "-c constraints.txt" in installed


def test_what_is_copied_is_not_ignored():
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    for source in copied():
        assert not any(fnmatch.fnmatch(source, pattern) for pattern in ignored), source
    for made in (".git", ".venv", ".pytest_cache", ".ruff_cache", "home"):
        assert made in ignored


def test_the_container_runs_as_a_user_who_owns_the_volume_alone():
    made = next(value for key, value in instructions() if key == "RUN" and "useradd" in value)
    assert "--uid 1000" in made and f"-o {said('USER')} " in made and made.endswith(said("VOLUME"))
    env = dict(re.findall(r"(\w+)=(\S+)", said("ENV")))
    assert env["LLM_HOME"] == said("VOLUME") and env["LLM_MODE"] == "class"
    keys = [key for key, _ in instructions()]
    assert keys.index("USER") > max(i for i, key in enumerate(keys) if key in ("COPY", "RUN"))
    words = command()
    assert words[words.index("--port") + 1] == exposed() and words[words.index("--host") + 1] == "0.0.0.0"


# --- the unit


@pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed: apt install systemd")
def test_systemd_reads_the_unit(tmp_path):
    """As it stands but for the interpreter, which is elsewhere here; a setting that systemd does not know is a complaint."""
    text = UNIT.read_text(encoding="utf-8")
    here = tmp_path / UNIT.name
    here.write_text(text.replace("/opt/llm-lab/.venv/bin/python", sys.executable), encoding="utf-8")

    def verified() -> subprocess.CompletedProcess:
        return subprocess.run(
            [ANALYZE, "verify", "--man=no", str(here)], capture_output=True, text=True, timeout=60
        )

    done = verified()
    own = [line for line in done.stderr.splitlines() if UNIT.name in line]
    assert done.returncode == 0 and not own, done.stderr
    here.write_text(here.read_text(encoding="utf-8").replace("KillMode=process", "KillMode=nobody"))
    assert "KillMode" in verified().stderr or "kill mode" in verified().stderr.lower()


def test_the_units_command_is_the_pages():
    service = unit()["Service"]
    words = shlex.split(service["ExecStart"])
    assert Path(words[0]).is_relative_to(service["WorkingDirectory"])
    follows(ROOT, words)


def test_trainings_outlive_the_page_and_all_else_is_only_read():
    service = unit()["Service"]
    assert service["KillMode"] == "process" and service["Restart"] == "on-failure"
    assert service["ProtectSystem"] == "strict" and service["NoNewPrivileges"] == "yes"
    assert "DynamicUser" not in service  # its number is free again while trainings still run
    env = environment()
    assert env["LLM_HOME"] == f"/var/lib/{service['StateDirectory']}"
    assert env["GRADIO_TEMP_DIR"].startswith(f"/var/cache/{service['CacheDirectory']}/")


def test_unit_and_nginx_agree():
    """On the folder, the site's name and the port."""
    conf = (HOSTING / "nginx.conf").read_text(encoding="utf-8")
    env, words = environment(), shlex.split(unit()["Service"]["ExecStart"])
    assert f"location {env['GRADIO_ROOT_PATH']}/ {{" in conf
    assert f"server_name {env['LLM_ALLOWED_HOSTS']};" in conf
    assert f"proxy_pass http://127.0.0.1:{words[words.index('--port') + 1]}/;" in conf
