"""What `make run` does before the page opens: say how much will be downloaded, then install, into this very interpreter.

    .venv/bin/python bench/install.py requirements.txt [requirements-dev.txt ...]

Every version is held to constraints.txt. On Linux, PyPI's own torch is a CUDA build of several GB; a machine without
an NVIDIA GPU takes PyTorch's CPU build instead. TORCH_INDEX=URL names another index, TORCH_INDEX= (empty) none.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
PATIENCE = 5  # seconds for one look at an index or a file's size


def pip(*arguments: str, **options) -> subprocess.CompletedProcess:
    """Run this interpreter's pip."""
    return subprocess.run([sys.executable, "-m", "pip", *arguments], stdin=subprocess.DEVNULL, **options)


def plan(arguments: list[str]) -> list[dict]:
    """What pip would install, as its report lists it (metadata only, no file is fetched); [] when it cannot tell."""
    found = pip("install", "-qq", "--dry-run", "--report", "-", *arguments, capture_output=True, text=True)
    return json.loads(found.stdout)["install"] if found.returncode == 0 else []


def size(url: str) -> int | None:
    """Bytes that fetching `url` takes: 0 for a file of this disk, None when its server does not say."""
    if url.startswith("file:"):
        return 0
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=PATIENCE) as answer:
            return int(answer.headers["Content-Length"])
    except (OSError, TypeError, ValueError):
        return None


def announce(install: list[dict]) -> None:
    """Print how many packages and MB `install` takes, and the largest ones."""
    urls = [item["download_info"]["url"] for item in install]
    with ThreadPoolExecutor(16) as pool:
        sizes = list(pool.map(size, urls))
    known = [(bytes_, item["metadata"]["name"]) for bytes_, item in zip(sizes, install) if bytes_]
    total = sum(bytes_ for bytes_, _ in known)
    largest = ", ".join(f"{name} {bytes_ / 1e6:,.0f} MB" for bytes_, name in sorted(known, reverse=True)[:4])
    text = f"This will download {total / 1e6:,.0f} MB"
    if unknown := sizes.count(None):
        text += f" and {unknown} file(s) whose size the server does not tell"
    if on_disk := sizes.count(0):
        text += f"; {on_disk} of the {len(install)} packages lie on this disk already"
    print(f"{text}. Largest: {largest}." if largest else f"{text}.", flush=True)


def torch_index(constraints: list[str]) -> str:
    """The extra index to look for torch in, or "": a CPU build is enough where there is no NVIDIA GPU."""
    if "TORCH_INDEX" in os.environ:
        return os.environ["TORCH_INDEX"]
    if not sys.platform.startswith("linux") or shutil.which("nvidia-smi"):
        return ""
    torch = plan(["--no-deps", *constraints, "torch"])
    if not torch or torch[0]["download_info"]["url"].startswith("file:"):
        return ""  # already installed, or a wheel of this disk: nothing to choose
    try:
        urllib.request.urlopen(f"{CPU_INDEX}/torch/", timeout=PATIENCE).close()
    except (OSError, urllib.error.URLError) as reason:
        print(
            f"PyTorch's CPU packages ({CPU_INDEX}) cannot be reached ({reason}); taking torch from the usual index, "
            "which on Linux brings CUDA along (several GB). Ctrl-C stops; TORCH_INDEX=URL names another index.",
            flush=True,
        )
        return ""
    return CPU_INDEX


def main(requirements: list[str]) -> int:
    """Install the given requirement files; the exit code is pip's."""
    major, minor = (
        int(part)
        for part in pip("--version", capture_output=True, text=True).stdout.split()[1].split(".")[:2]
    )
    if (major, minor) < (23, 2):  # older ones fetch whole wheels only to plan
        print("Updating pip first (2 MB), so that it can tell sizes before it fetches anything.", flush=True)
        pip("install", "-q", "--upgrade", "pip", check=True)
    constraints = ["-c", str(ROOT / "constraints.txt")]
    arguments = [*constraints, *(part for name in requirements for part in ("-r", name))]
    if index := torch_index(constraints):
        arguments += ["--extra-index-url", index]
    print("Asking the package index what is missing ...", flush=True)
    if install := plan(arguments):
        announce(install)
    return pip("install", "--progress-bar", "on" if sys.stdout.isatty() else "off", *arguments).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
