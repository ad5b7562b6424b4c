"""Backups of Open WebUI on a host: when, by whom, how many, and the way back.

Docker is a program that runs what it is told on the folders that it is told to mount.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import webui_backup as backup
from fleet.webui.declared import DATABASES

PROGRAMS = Path(backup.__file__).parent
DOCKER = """#!/usr/bin/env python3
import json, os, subprocess, sys
words = sys.argv[1:]
with open(os.environ["CALLS"], "a") as calls:
    print(*words[:2], file=calls)
if words[:2] == ["volume", "inspect"]:
    if not os.path.isdir(os.environ["VOLUME"]):
        sys.exit("no such volume: " + words[-1])
    print(os.environ["VOLUME"])
elif words[0] == "run":
    mounts = [words[i + 1] for i, word in enumerate(words) if word == "--mount"]
    held = [dict(part.partition("=")[::2] for part in mount.split(",")) for mount in mounts]
    real = {one["target"]: one["source"] for one in held if one["type"] == "bind"}
    real |= {one["target"]: os.environ["VOLUME"] for one in held if one["type"] == "volume"}
    *_, isolated, program, what, given = words
    given = {key: real.get(value, value) if isinstance(value, str) else value
             for key, value in json.loads(given).items()}
    folder, name = os.path.split(program)
    script = os.path.join(real[folder], name)
    sys.exit(subprocess.run([sys.executable, isolated, script, what, json.dumps(given)]).returncode)
"""


class Host:
    """A host with a volume, a Docker and a systemd that note what they are asked."""

    def __init__(self, folder: Path) -> None:
        self.volume, self.backups, self.calls = (
            folder / "data",
            folder / "backups",
            folder / "calls",
        )
        (self.volume / "uploads").mkdir(parents=True)
        (self.volume / "uploads/note").write_text("mine")
        with closing(sqlite3.connect(self.volume / "webui.db")) as database:
            database.executescript("PRAGMA journal_mode = WAL; CREATE TABLE chat (text);")
        self.config = folder / "config.json"
        values = {"volume": "v", "image": "open-webui@sha256:ab", "unit": "webui.service",
                  "programs": str(PROGRAMS), "databases": DATABASES,
                  "directory": str(self.backups), "keep": 2, "due": 3600}  # fmt: skip
        self.config.write_text(json.dumps(values))

    def __call__(self, *words: Any) -> int:
        return backup.main([str(self.config), *map(str, words)])

    @property
    def archives(self) -> list[Path]:
        """Those that were made."""
        return sorted(self.backups.glob("*.tar"))

    @property
    def asked(self) -> list[str]:
        """What Docker and systemd were asked for."""
        return self.calls.read_text().splitlines()


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    host = Host(tmp_path)
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "docker").write_text(DOCKER)
    (programs / "systemctl").write_text('#!/bin/sh\necho systemctl "$1" >> "$CALLS"\n')
    for program in programs.iterdir():
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    monkeypatch.setenv("VOLUME", str(host.volume))
    monkeypatch.setenv("CALLS", str(host.calls))
    return host


def test_sum_is_the_archives(host: Host) -> None:
    assert host() == 0
    [archive] = host.archives
    assert archive.stat().st_mode & 0o777 == 0o600
    assert host.backups.stat().st_mode & 0o777 == 0o700
    check = ["sha256sum", "--check", "--strict", "--quiet", f"{archive.name}.sha256"]
    assert subprocess.run(check, cwd=host.backups, check=False).returncode == 0
    archive.write_bytes(archive.read_bytes() + b"x")
    done = subprocess.run(check, cwd=host.backups, check=False, capture_output=True)
    assert done.returncode == 1


def test_volume_is_read_in_a_container_without_any_right(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, seen = subprocess.run, list[list[str]]()

    def watch(words: list[str], **more: Any) -> Any:
        seen.append(words)
        return run(words, **more)

    monkeypatch.setattr(subprocess, "run", watch)
    assert host() == 0
    [asked] = [words for words in seen if words[:2] == ["docker", "run"]]
    text = " ".join(asked)
    for option in ("--cap-drop ALL", "--network none", "--read-only", "--pull never",
                   "--security-opt no-new-privileges"):  # fmt: skip
        assert option in text
    assert text.count("type=bind") == 2


def test_upload_that_looks_like_a_database_stops_no_backup(host: Host) -> None:
    (host.volume / "uploads/a").write_bytes(b"SQLite format 3\0 and then not")
    assert host() == 0
    assert len(host.archives) == 1


def test_what_a_killed_backup_left_is_cleared(host: Host) -> None:
    (host.backups / ".webui-dead").mkdir(parents=True)
    (host.backups / ".webui-dead" / "part").write_text("half")
    (host.backups / ".webui-1.tar.sha256.x").write_text("half of a sum")
    assert host() == 0
    [archive] = host.archives
    names = sorted(path.name for path in host.backups.iterdir())
    assert names == [archive.name, f"{archive.name}.sha256"]
    assert host.asked.index("rm --force") < host.asked.index("run --rm")


def test_oldest_are_deleted_with_their_sums(host: Host) -> None:
    host.backups.mkdir()
    for day in range(1, 5):
        path = host.backups / f"webui-2026010{day}T000000Z.tar"
        for file in (path, path.with_name(f"{path.name}.sha256")):
            file.touch()
            os.utime(file, (day, day))
    (host.backups / "somebody-else").touch()
    assert host() == 0
    [kept, made] = host.archives
    assert kept.name == "webui-20260104T000000Z.tar"
    sums = {f"{archive.name}.sha256" for archive in (kept, made)}
    assert {path.name for path in host.backups.glob("*.sha256")} == sums
    assert (host.backups / "somebody-else").exists()


def test_not_due_does_nothing(host: Host) -> None:
    assert host("--due") == 0
    [made] = host.archives
    assert host("--due") == 0
    assert host.archives == [made]


def test_archives_of_a_wrong_clock_count_for_nothing(host: Host) -> None:
    """Or none would be made until that time comes, and each that is would be deleted at once."""
    host.backups.mkdir()
    for day in range(1, 4):
        path = host.backups / f"webui-2099010{day}T000000Z.tar"
        path.touch()
        os.utime(path, (4e9 + day, 4e9 + day))
    assert host("--due") == 0
    [made, _] = host.archives
    assert not made.name.startswith("webui-2099")


def test_missing_volume_is_a_sentence_and_no_traceback(
    host: Host, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VOLUME", "/nowhere")
    assert host() == 1
    assert "no such volume: v" in capsys.readouterr().err
    assert host.archives == []


def test_backup_is_put_back(host: Host) -> None:
    assert host() == 0
    [archive] = host.archives
    (host.volume / "uploads/note").write_text("changed")
    (host.volume / "uploads/later").write_text("came later")
    assert host("--restore", archive) == 0
    assert [path.name for path in (host.volume / "uploads").iterdir()] == ["note"]
    assert (host.volume / "uploads/note").read_text() == "mine"
    assert [call for call in host.asked if call.startswith("systemctl")] == [
        "systemctl stop", "systemctl start"
    ]  # fmt: skip


def test_damaged_one_stops_nothing(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    assert host() == 0
    [archive] = host.archives
    archive.write_bytes(archive.read_bytes() + b"x")
    assert host("--restore", archive) == 1
    assert "not what" in capsys.readouterr().err
    assert not [call for call in host.asked if call.startswith("systemctl")]
    assert (host.volume / "uploads/note").exists()
