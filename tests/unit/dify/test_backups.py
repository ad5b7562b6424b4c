"""Archives of Dify, read on the machine that deploys."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from fleet.dify.backups import disk_problem, read_backup
from fleet.kit.errors import FleetError


def backup(path: Path, **members: Any) -> Path:
    """An archive as `dify_stack.py` makes one."""
    texts = {name.replace("_json", ".json"): json.dumps(value) for name, value in members.items()}
    texts = {name.replace("_", "-"): text for name, text in texts.items()}
    files = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()}
    texts["manifest.json"] = json.dumps({"version": "1.16.1", "files": files})
    with tarfile.open(path, "w") as tar:
        for name, text in texts.items():
            info = tarfile.TarInfo(f"./{name}")
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    return path


class TestBackup:
    def test_secrets_and_keys_come_with_it(self, tmp_path: Path) -> None:
        path = backup(
            tmp_path / "a.tar", secrets_json={"db_password": "x"}, app_keys_json={"chat": "app-1"}
        )
        manifest, kept = read_backup(path)
        assert manifest.version == "1.16.1"
        assert kept == {"db_password": "x", "app_chat": "app-1"}

    @pytest.mark.parametrize(
        "members",
        [
            {"secrets_json": {"../../x": "y"}},
            {"secrets_json": {"db_password": "a\nb"}},
            {"secrets_json": {"db_password": 1}},
            {"secrets_json": ["db_password"]},
            {"secrets_json": {}, "app_keys_json": {"../x": "y"}},
            {"secrets_json": {}, "app_keys_json": {"chat": None}},
            {"memory_json": {}},
        ],
    )
    def test_what_is_no_secret_of_ours_does_not_reach_the_store(
        self, tmp_path: Path, members: dict[str, Any]
    ) -> None:
        """Its name would be that of a file."""
        with pytest.raises(FleetError, match=r"secret|no list of names"):
            read_backup(backup(tmp_path / "a.tar", **members))

    def test_endless_text(self, tmp_path: Path) -> None:
        path = backup(tmp_path / "a.tar", secrets_json={"db_password": "x" * (2 << 20)})
        with pytest.raises(FleetError, match=r"secrets\.json is too long"):
            read_backup(path)

    def test_damage_is_noticed(self, tmp_path: Path) -> None:
        path = backup(tmp_path / "a.tar", secrets_json={}, memory_json={"a": "b" * 600})
        path.write_bytes(path.read_bytes().replace(b"b" * 600, b"c" * 600))
        with pytest.raises(FleetError, match=r"a\.tar: memory\.json is damaged"):
            read_backup(path)
        path.with_name("a.tar.sha256").write_text("0" * 64 + "  a.tar\n")
        with pytest.raises(FleetError, match=r"not what a\.tar\.sha256 says"):
            read_backup(path)

    def test_what_is_none(self, tmp_path: Path) -> None:
        (tmp_path / "a.tar").write_text("no archive")
        with pytest.raises(FleetError, match="no backup of Dify"):
            read_backup(tmp_path / "a.tar")
        with pytest.raises(FleetError, match="no such file"):
            read_backup(tmp_path / "b.tar")


DF = ["Filesystem 1024-blocks Used Available Capacity Mounted on"]
ONE = [*DF, "/dev/sda1 100 50 2000000 50% /", "/dev/sda1 100 50 2000000 50% /"]
TWO = [*DF, "overlay 100 50 2000000 50% /", "tank/a b 100 50 900000 50% /var/lib/dify"]


@pytest.mark.parametrize(
    ("lines", "size", "words"),
    [
        (ONE, 1_000_000_000, None),
        (ONE, 1_100_000_000, "2.20 GB are needed on /dev/sda1, and 2.05 GB are free"),
        (TWO, 900_000_000, None),
        (TWO, 1_000_000_000, "1.00 GB are needed on tank/a b, and 0.92 GB are free"),
    ],
)
def test_room_on_its_way(lines: list[str], size: int, words: str | None) -> None:
    assert disk_problem(lines, size) == words
