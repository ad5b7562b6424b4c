"""Archives that others may have made: what of one is refused, and what is left out."""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import tarfile
from pathlib import Path
from typing import Any

import pytest

import common
import dify_volumes
from common import ProgramError
from dify_archive import judge_tree, read_manifest, unpack_checked
from dify_volumes import replace_volumes, trees_of

Member = tuple[str, bytes, str, bytes]  # a name, a kind, where it links to, what is in it


def packed(path: Path, *members: Member, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, kind, link, content in members:
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.size = kind, link, len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def file(name: str, content: bytes = b"{}") -> Member:
    return name, tarfile.REGTYPE, "", content


def backup(path: Path, parts: dict[str, bytes], *more: Member, **manifest: Any) -> Path:
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in parts.items()}
    text = json.dumps({"version": "1.16.1", "files": sums} | manifest).encode()
    members = [file(f"./{name}", content) for name, content in parts.items()]
    return packed(path, file("./manifest.json", text), *members, *more)


@pytest.mark.parametrize(
    "manifest",
    [
        {"version": 1},
        {"version": "../../etc"},
        {"files": []},
        {"files": {"secrets.json": 1}},
        {"files": {"../../../etc/cron.d/x": "ab"}},
        {"files": {"database-../x.dump": "ab"}},
        {"files": {"named-../x.tar.gz": "ab"}},
        {"files": {"anything": "ab"}},
    ],
)
def test_manifest_of_another_form(tmp_path: Path, manifest: dict[str, Any]) -> None:
    archive = backup(tmp_path / "a.tar", {"secrets.json": b"{}"}, **manifest)
    with pytest.raises(ProgramError, match="no backup of Dify"):
        read_manifest(archive)


@pytest.mark.parametrize("text", [b"[]", b"null", b"{", b" " * (2 << 20)])
def test_manifest_that_is_none(tmp_path: Path, text: bytes) -> None:
    archive = packed(tmp_path / "a.tar", file("./manifest.json", text))
    with pytest.raises(ProgramError, match="no backup of Dify"):
        read_manifest(archive)
    link = ("./manifest.json", tarfile.SYMTYPE, "/etc/shadow", b"")
    with pytest.raises(ProgramError, match="no backup of Dify"):
        read_manifest(packed(tmp_path / "b.tar", link))


@pytest.mark.parametrize(
    "more",
    [
        file("./../x"),
        file("/etc/cron.d/x"),
        file("./extra.json"),
        ("./database-dify.dump", tarfile.SYMTYPE, "/etc/shadow", b""),
        ("./secrets.json", tarfile.LNKTYPE, "/etc/shadow", b""),
    ],
)
def test_only_the_parts_of_a_backup_are_taken_out(tmp_path: Path, more: Member) -> None:
    into = tmp_path / "into"
    into.mkdir()
    archive = backup(tmp_path / "a.tar", {"memory.json": b"{}"}, more)
    with pytest.raises(ProgramError, match="is no part of it; nothing was restored"):
        unpack_checked(archive, into)
    assert {path.name for path in into.iterdir()} <= {"memory.json"}


def test_part_that_is_missing_or_damaged(tmp_path: Path) -> None:
    known = {"files": {"secrets.json": "ab"}}
    for number, (parts, words) in enumerate([({}, "missing"), ({"secrets.json": b""}, "damaged")]):
        into = tmp_path / str(number)
        into.mkdir()
        with pytest.raises(ProgramError, match=f"secrets.json is {words}"):
            unpack_checked(backup(tmp_path / "a.tar", parts, **known), into)


@pytest.mark.parametrize(
    ("member", "words"),
    [
        (file("/etc/cron.d/x"), "leads out of the archive"),
        (file("./app/../../x"), "leads out of the archive"),
        (file("./link/x"), "lies behind a link"),
        (("./hard", tarfile.LNKTYPE, "/etc/shadow", b""), "leads out of the archive"),
        (("./hard", tarfile.LNKTYPE, "link/shadow", b""), "lies behind a link"),
    ],
)
def test_tree_whose_members_lie_elsewhere(tmp_path: Path, member: Member, words: str) -> None:
    link = ("./link", tarfile.SYMTYPE, "/etc", b"")
    archive = packed(tmp_path / "volumes.tar.gz", link, member, mode="w:gz")
    with pytest.raises(ProgramError, match=words):
        judge_tree(archive)


@pytest.mark.parametrize("content", [b"no archive", b""])
def test_tree_that_cannot_be_read(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "volumes.tar.gz").write_bytes(content)
    with pytest.raises(ProgramError, match="cannot be read"):
        judge_tree(tmp_path / "volumes.tar.gz")


def test_pipes_and_devices_are_not_brought_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a container left in its volume: the backup is good, and they are no data.

    Nor are they tried: the unit has no right to make a device.
    """
    stage = tmp_path / "stage"
    stage.mkdir()
    members = [
        ("./app", tarfile.DIRTYPE, "", b""),
        file("./app/kept", b"data"),
        ("./app/link", tarfile.SYMTYPE, "/etc/shadow", b""),
        ("./app/pipe", tarfile.FIFOTYPE, "", b""),
        ("./app/disk", tarfile.BLKTYPE, "", b""),
        ("./app/*\nd[i]sk", tarfile.CHRTYPE, "", b""),
        file("./disk", b""),
    ]
    packed(stage / "volumes.tar.gz", *members, mode="w:gz")
    trees = trees_of(stage, "dify")
    assert trees["volumes.tar.gz"].size == 4
    if os.geteuid():
        pytest.skip("only root unpacks owners and devices")
    less = ("setpriv", "--bounding-set=-mknod", "--inh-caps=-mknod", "--")
    monkeypatch.setattr(dify_volumes, "run", lambda *words: common.run(*less, *words))
    replace_volumes(tmp_path / "volumes", "dify", stage, None, trees)
    assert (tmp_path / "volumes/disk").exists()
    found = {path.name: path.lstat().st_mode for path in (tmp_path / "volumes/app").iterdir()}
    assert set(found) == {"kept", "link"}
    assert stat.S_ISLNK(found["link"])


def test_volume_of_somebody_else_is_not_replaced(tmp_path: Path) -> None:
    """It would be emptied first."""
    packed(tmp_path / "volumes.tar.gz", mode="w:gz")
    packed(tmp_path / "named-llm-fleet-webui.tar.gz", mode="w:gz")
    with pytest.raises(ProgramError, match="no volume of dify"):
        trees_of(tmp_path, "dify")
