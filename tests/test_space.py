"""The repository started as a Space starts it, and used by strangers."""

import os

from assure import space


def test_the_space_runs_and_keeps_to_its_place(tmp_path):
    found = space.check(tmp_path / "space")
    assert found["pass"], found
    assert found["figures"]["cores"] <= 2 and found["figures"]["take-away bytes"] > 10_000
    assert found["figures"]["uid"] == (os.getuid() or 1000) or "root" in found["remark"]


def test_a_file_in_the_package_is_seen(tmp_path):
    (tmp_path / "a.py").write_text("1")
    before = space.stamps(tmp_path)
    (tmp_path / "__pycache__").mkdir()
    assert space.stamps(tmp_path) != before
    space.writable(tmp_path, False)
    assert not any(path.stat().st_mode & 0o222 for path in (tmp_path, *tmp_path.rglob("*")))
    space.writable(tmp_path, True)
    assert all(path.stat().st_mode & 0o200 for path in (tmp_path, *tmp_path.rglob("*")))
