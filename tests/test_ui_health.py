"""GET /health: well or not, why, and nothing that is nobody's business."""

import json
import os

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from llm import dispatch, paths
from llm.runs import Run
from ui import health


@pytest.fixture
def client():
    return TestClient(Starlette(routes=health.ROUTES))


def test_a_lab_that_is_well_says_what_runs(client):
    Run.create("train", {"dataset": "stories"}, owner="secret-owner", name="hush")
    answer = client.get("/health")
    assert answer.status_code == 200 and answer.headers["cache-control"] == "no-store"
    found = answer.json()
    assert (
        found["status"] == "ok" and found["problems"] == [] and (found["running"], found["waiting"]) == (0, 1)
    )
    assert found["disk_free"] > 0 and "hush" not in answer.text and "secret-owner" not in answer.text
    assert list(paths.home().glob(".health")) == []


def test_a_full_disk_and_a_silent_cluster_are_said(client, monkeypatch):
    monkeypatch.setattr(health, "LEAST_FREE", 10**18)
    dispatch.note_trouble("The Ray cluster at 10.0.0.9:6379 does not answer: start it.")
    answer = client.get("/health")
    assert answer.status_code == 503
    first, second = answer.json()["problems"]
    assert "10.0.0.9" in first and "MB are free" in second


def test_a_home_that_cannot_be_written_is_said(client, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LLM_HOME", os.fspath(tmp_path / "file"))  # no folder: nothing can be written below it
    answer = client.get("/health")
    assert answer.status_code == 503 and "cannot be written to" in json.dumps(answer.json())
