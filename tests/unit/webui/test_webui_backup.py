"""What Open WebUI's backups hold."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import tarfile
from contextlib import closing
from pathlib import Path

import pytest

import webui_backup as backup


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """A volume: a database that is written to, an upload, and the image's models."""
    data = tmp_path / "data"
    for folder in ("uploads", "cache/embedding/models", "cache/image"):
        (data / folder).mkdir(parents=True)
    (data / "uploads" / "notes-wal").write_text("somebody's file, of an unlucky name")
    (data / "cache/embedding/models/weights").write_text("large")
    (data / "cache/image/cat.png").write_text("cat")
    with closing(sqlite3.connect(data / "webui.db")) as database:
        database.executescript("PRAGMA journal_mode = WAL; CREATE TABLE chat (text);")
    return data


def unpacked(archive: Path, into: Path) -> Path:
    with tarfile.open(archive) as file:
        file.extractall(into, filter="data")
    return into


def test_backup_holds_what_was_written_a_moment_ago(volume: Path, tmp_path: Path) -> None:
    """... though it is in the log beside the database, and another change is under way."""
    with closing(sqlite3.connect(volume / "webui.db")) as open_still:
        open_still.execute("INSERT INTO chat VALUES ('said')")
        open_still.commit()
        open_still.execute("INSERT INTO chat VALUES ('being said')")
        assert (volume / "webui.db-wal").stat().st_size > 0
        (tmp_path / "backups").mkdir()
        archive = backup.back_up(volume, tmp_path / "backups")
    found = unpacked(archive, tmp_path / "found")
    with closing(sqlite3.connect(found / "webui.db")) as database:
        assert database.execute("SELECT text FROM chat").fetchall() == [("said",)]
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    files = {str(path.relative_to(found)) for path in found.rglob("*") if path.is_file()}
    assert files - {"webui.db-shm", "webui.db-wal"} == {
        "webui.db", "uploads/notes-wal", "cache/image/cat.png"
    }  # fmt: skip


def test_sum_is_the_archives(volume: Path, tmp_path: Path) -> None:
    archive = backup.back_up(volume, tmp_path)
    check = ["sha256sum", "--check", "--strict", "--quiet", f"{archive.name}.sha256"]
    assert subprocess.run(check, cwd=tmp_path, check=False).returncode == 0
    archive.write_bytes(archive.read_bytes() + b"x")
    done = subprocess.run(check, cwd=tmp_path, check=False, capture_output=True)
    assert done.returncode == 1


def test_what_a_killed_backup_left_is_cleared(volume: Path, tmp_path: Path) -> None:
    backups = tmp_path / "backups"
    (backups / ".webui-dead").mkdir(parents=True)
    (backups / ".webui-dead" / "part").write_text("half")
    (backups / ".webui-1.tar.sha256.x").write_text("half of a sum")
    archive = backup.back_up(volume, backups)
    assert sorted(path.name for path in backups.iterdir()) == [
        archive.name, f"{archive.name}.sha256"
    ]  # fmt: skip


def test_oldest_are_deleted_with_their_sums(tmp_path: Path) -> None:
    names = [f"webui-2026010{day}T000000Z.tar" for day in range(1, 5)]
    for name in names:
        (tmp_path / name).touch()
        (tmp_path / f"{name}.sha256").touch()
    (tmp_path / "somebody-else").touch()
    backup.prune(tmp_path, 2)
    kept = {name + end for name in names[2:] for end in ("", ".sha256")}
    assert {path.name for path in tmp_path.iterdir()} == {*kept, "somebody-else"}


def test_not_due_does_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, volume: Path
) -> None:
    monkeypatch.setattr(backup, "volume_path", lambda name: volume)
    config = tmp_path / "config.json"
    backups = tmp_path / "backups"
    config.write_text(
        json.dumps({"volume": "v", "directory": str(backups), "keep": 3, "due": 3600})
    )
    assert backup.main([str(config), "--due"]) == 0
    made = list(backups.glob("*.tar"))
    assert len(made) == 1
    assert backup.main([str(config), "--due"]) == 0
    assert list(backups.glob("*.tar")) == made
    assert backups.stat().st_mode & 0o777 == 0o700
    assert made[0].stat().st_mode & 0o777 == 0o600


def test_missing_volume_is_a_sentence_and_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    docker = tmp_path / "bin" / "docker"
    docker.parent.mkdir()
    docker.write_text("#!/bin/sh\necho 'no such volume: llm-fleet-webui' >&2\nexit 1\n")
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", str(docker.parent), prepend=":")
    config = {"volume": "llm-fleet-webui", "directory": str(tmp_path / "b"), "keep": 1, "due": 0}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert backup.main([str(tmp_path / "config.json")]) == 1
    assert "no such volume: llm-fleet-webui" in capsys.readouterr().err
    assert list((tmp_path / "b").glob("*.tar")) == []
