"""What of Open WebUI's volume goes into an archive, and what of an archive into the volume."""

from __future__ import annotations

import io
import os
import shutil
import socket
import sqlite3
import tarfile
from contextlib import closing
from pathlib import Path

import pytest

import webui_copy as copy
from fleet.webui.declared import DATABASES

LOOKS_LIKE_ONE = b"SQLite format 3\0 and then not"


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """A volume: a database that is written to, uploads, and the image's models."""
    data = tmp_path / "data"
    for folder in ("uploads", "cache/embedding/models", "cache/image", "vector_db"):
        (data / folder).mkdir(parents=True)
    (data / "uploads" / "notes-wal").write_text("somebody's file, of an unlucky name")
    (data / "cache/embedding/models/weights").write_text("large")
    (data / "cache/image/cat.png").write_text("cat")
    for name in DATABASES:
        with closing(sqlite3.connect(data / name)) as database:
            database.executescript("PRAGMA journal_mode = WAL; CREATE TABLE chat (text);")
    return data


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    (tmp_path / "scratch").mkdir()
    return tmp_path / "scratch"


def pack(volume: Path, scratch: Path) -> Path:
    copy.pack(volume, scratch, list(DATABASES))
    return scratch / "part"


def names(archive: Path) -> set[str]:
    with tarfile.open(archive) as opened:
        return set(opened.getnames())


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


def test_backup_holds_what_was_written_a_moment_ago(volume: Path, scratch: Path) -> None:
    """... though it is in the log beside the database, and another change is under way."""
    with closing(sqlite3.connect(volume / "webui.db")) as open_still:
        open_still.execute("INSERT INTO chat VALUES ('said')")
        open_still.commit()
        open_still.execute("INSERT INTO chat VALUES ('being said')")
        assert (volume / "webui.db-wal").stat().st_size > 0
        archive = pack(volume, scratch)
    found = scratch / "found"
    found.mkdir()
    copy.unpack(found, archive)
    assert set(files(found)) == {*DATABASES, "uploads/notes-wal", "cache/image/cat.png"}
    with closing(sqlite3.connect(found / "webui.db")) as database:
        assert database.execute("SELECT text FROM chat").fetchall() == [("said",)]
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_what_an_upload_begins_with_decides_nothing(volume: Path, scratch: Path) -> None:
    uploads = volume / "uploads"
    (uploads / "a.db").write_bytes(LOOKS_LIKE_ONE)
    (uploads / "a.db-wal").write_text("beside it")
    shutil.copyfile(volume / "webui.db", uploads / "real.db")
    (uploads / "real.db-journal").write_text("beside it, too")
    before = files(uploads)
    found = scratch / "found"
    found.mkdir()
    copy.unpack(found, pack(volume, scratch))
    assert files(found / "uploads") == before


def test_links_are_kept_as_links_and_pipes_not_at_all(volume: Path, scratch: Path) -> None:
    """Nothing behind a link is in the archive, and nothing waits for who writes into a pipe."""
    secret = scratch.parent / "secret"
    secret.mkdir()
    (secret / "key").write_text("of the host")
    (volume / "uploads/folder").symlink_to(secret)
    (volume / "uploads/file").symlink_to(secret / "key")
    (volume / "uploads/nowhere").symlink_to("/nowhere")
    (volume / "uploads/hard").hardlink_to(volume / "uploads/notes-wal")
    os.mkfifo(volume / "uploads/pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(volume / "uploads/socket"))
        archive = pack(volume, scratch)
    assert not {"uploads/pipe", "uploads/socket", "uploads/folder/key"} & names(archive)
    assert b"of the host" not in archive.read_bytes()
    copy.judge(archive)
    found = scratch / "found"
    found.mkdir()
    copy.unpack(found, archive)
    assert (found / "uploads/file").readlink() == secret / "key"
    assert (found / "uploads/hard").read_bytes() == (found / "uploads/notes-wal").read_bytes()


@pytest.mark.parametrize("what", ["other", "link", "folder"])
def test_database_that_is_none_is_named(volume: Path, scratch: Path, what: str) -> None:
    database = volume / DATABASES[1]
    for path in database.parent.glob(f"{database.name}*"):
        path.unlink()
    if what == "other":
        database.write_bytes(LOOKS_LIKE_ONE)
    elif what == "link":
        database.symlink_to(volume / "webui.db")
    else:
        database.mkdir()
    with pytest.raises(copy.CopyError, match=r"vector_db/chroma\.sqlite3: .*database"):
        pack(volume, scratch)


def test_one_that_is_not_there_is_no_fault(volume: Path, scratch: Path) -> None:
    shutil.rmtree(volume / "vector_db")
    assert "webui.db" in names(pack(volume, scratch))


def test_file_that_is_cut_meanwhile_spoils_nothing(
    volume: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (volume / "uploads/log").write_bytes(b"x" * 10)
    read = copy._Steady.read

    def cut(steady: copy._Steady, size: int) -> bytes:
        if os.fstat(steady._file.fileno()).st_size == 10:
            os.truncate(volume / "uploads/log", 4)
        return read(steady, size)

    monkeypatch.setattr(copy._Steady, "read", cut)
    found = scratch / "found"
    found.mkdir()
    copy.unpack(found, pack(volume, scratch))
    assert len((found / "uploads/log").read_bytes()) == 10


def test_no_room_is_told_before_anything_is_written(
    volume: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (volume / "uploads/large").open("wb") as file:
        file.truncate(3_000_000_000)
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2_067_108_864))
    with pytest.raises(copy.CopyError, match=r"it may take 3\.00 GB, and 2\.00 GB are free"):
        pack(volume, scratch)
    assert list(scratch.iterdir()) == []


def archive_of(path: Path, *members: tuple[str, bytes, str]) -> Path:
    """An archive of members: a name, a type, and where it links to."""
    with tarfile.open(path, "w") as archive:
        for name, kind, link in members:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, link
            archive.addfile(member, io.BytesIO())
    return path


@pytest.mark.parametrize(
    ("member", "words"),
    [
        (("/etc/cron.d/x", tarfile.REGTYPE, ""), "leads out of it"),
        (("uploads/../../x", tarfile.REGTYPE, ""), "leads out of it"),
        (("uploads/link/x", tarfile.REGTYPE, ""), "lies behind a link"),
        (("disk", tarfile.BLKTYPE, ""), "is no file, folder or link"),
        (("pipe", tarfile.FIFOTYPE, ""), "is no file, folder or link"),
        (("hard", tarfile.LNKTYPE, "/etc/shadow"), "is no file, folder or link"),
    ],
)
def test_archive_of_another_form_is_refused(
    tmp_path: Path, member: tuple[str, bytes, str], words: str
) -> None:
    link = ("uploads/link", tarfile.SYMTYPE, "/etc")
    archive = archive_of(tmp_path / "a.tar", ("uploads", tarfile.DIRTYPE, ""), link, member)
    with pytest.raises(copy.CopyError, match=words):
        copy.judge(archive)


def test_archive_that_is_cut_is_refused(volume: Path, scratch: Path) -> None:
    archive = pack(volume, scratch)
    os.truncate(archive, archive.stat().st_size // 2 + 100)
    with pytest.raises(copy.CopyError, match="cannot be read"):
        copy.judge(archive)


def test_restored_is_what_was_and_the_images_models_stay(volume: Path, scratch: Path) -> None:
    before = files(volume)
    archive = pack(volume, scratch)
    (volume / "uploads/later").write_text("came later")
    (volume / "cache/image/cat.png").write_text("dog")
    (volume / "webui.db").unlink()
    copy.unpack(volume, archive)
    after = files(volume)
    assert set(after) == {name for name in before if not name.endswith(("-shm", "db-wal"))}
    for name in ("uploads/notes-wal", "cache/image/cat.png", "cache/embedding/models/weights"):
        assert after[name] == before[name]
