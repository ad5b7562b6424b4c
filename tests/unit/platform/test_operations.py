"""What a host keeps of its deploys, written by its real programs."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import fleet.platform.operations as module


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(module, "ETC", str(tmp_path / "etc"))
    return tmp_path / "etc"


def _put(path: Path, line: str) -> subprocess.CompletedProcess[str]:
    command = module._put(str(path), line).get_raw_value()
    return subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)


def test_a_record_is_replaced(folder: Path) -> None:
    for line in ("{}", '{"who": "it\'s"}'):
        done = _put(folder / "deployed.json", line)
        assert (done.returncode, done.stdout + done.stderr) == (0, "")
        assert (folder / "deployed.json").read_text() == f"{line}\n"
    assert [path.name for path in folder.iterdir()] == ["deployed.json"]


def test_a_full_disk_is_told_and_nothing_is_left_half(folder: Path) -> None:
    """A shell's own words for it are: I/O error."""
    folder.mkdir()
    (folder / "deployed.json").write_text("before\n")
    (folder / "deployed.json.new").symlink_to("/dev/full")
    done = _put(folder / "deployed.json", "{}")
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert {path.name: path.read_text() for path in folder.iterdir()} == {
        "deployed.json": "before\n"
    }
