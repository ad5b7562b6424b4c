"""Copy Open WebUI's data into an archive, or out of one; in a container, which sees nothing else.

usage: webui_copy.py pack|judge|unpack JSON

JSON is {"data": the folder of the volume, "scratch": an empty folder for the copy, "archive": the
archive to read, "databases": [path in `data`, ...]}. `pack` writes `part` in `scratch`; `judge`
refuses an archive that `unpack` would not take; `unpack` replaces what is in `data` by it.

Whatever lies in the volume was written by the server, or by whoever got hold of it: links that lead
anywhere, files of any content. So this runs without a right of the host's, from the image itself,
and imports nothing. Which files are databases is told, and never guessed from what is in them.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import stat
import sys
import tarfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import IO, Any

# Models: the image has them, and fills an empty volume with them.
LEFT_OUT = frozenset({"cache/embedding", "cache/whisper", "cache/tiktoken"})
_BESIDE = ("-wal", "-shm", "-journal")
_SPARE = 64 << 20  # bytes that the disk keeps


class CopyError(Exception):
    """What went wrong, worded for the operator."""


def pack(data: Path, scratch: Path, databases: list[str]) -> None:
    """Have what is in `data` as the archive `part` in `scratch`; databases as SQLite copies them.

    Raises:
        CopyError: there is no room for it, or one of `databases` is none.
    """
    found = list(members(data))
    _need_room(data, scratch, found, databases)
    beside = {name + end for name in databases for end in _BESIDE}
    with tarfile.open(scratch / "part", "w") as archive:
        for name in found:
            if name in beside:
                continue
            # Somebody may have deleted it since it was listed.
            with contextlib.suppress(FileNotFoundError):
                if name in databases:
                    _add_database(archive, data / name, name, scratch / "copy")
                else:
                    _add(archive, data / name, name)


def members(data: Path, under: str = "") -> Iterator[str]:
    """Names of all there is to keep, folders before what is in them; pipes and sockets are not."""
    for entry in sorted(os.scandir(data / under), key=lambda item: item.name):
        name = f"{under}/{entry.name}" if under else entry.name
        if name in LEFT_OUT:
            continue
        folder = entry.is_dir(follow_symlinks=False)
        if folder or entry.is_symlink() or entry.is_file(follow_symlinks=False):
            yield name
        if folder:
            yield from members(data, name)


def _need_room(data: Path, scratch: Path, found: list[str], databases: list[str]) -> None:
    sizes = {}
    for name in found:
        with contextlib.suppress(FileNotFoundError):
            sizes[name] = (data / name).lstat().st_size
    # A database is copied, and then the copy into the archive.
    needed = sum(sizes.values()) + max((sizes.get(name, 0) for name in databases), default=0)
    free = shutil.disk_usage(scratch).free - _SPARE
    if free < needed:
        raise CopyError(
            f"no room: it may take {needed / 1e9:.2f} GB, and {max(free, 0) / 1e9:.2f} GB are "
            "free: make room, or declare another webui_backup_dir"
        )


def _add(archive: tarfile.TarFile, path: Path, name: str) -> None:
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode):
        archive.add(path, name, recursive=False)
        return
    with _opened(path) as file:
        member = archive.gettarinfo(arcname=name, fileobj=file)
        # Each of a file's names as a file: tarfile would make a link of the second.
        member.type, member.linkname = tarfile.REGTYPE, ""
        member.size = os.fstat(file.fileno()).st_size
        archive.addfile(member, _Steady(file))


def _opened(path: Path) -> IO[bytes]:
    """A file, and what has taken its place since it was looked at is not opened."""
    return os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")


class _Steady:
    """A file that has as many bytes as it had: one that is cut meanwhile ends in zeros."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int = -1, /) -> bytes:
        """So many bytes."""
        return self._file.read(size).ljust(size, b"\0")


def _add_database(archive: tarfile.TarFile, path: Path, name: str, copy: Path) -> None:
    if not stat.S_ISREG(path.lstat().st_mode):
        raise CopyError(f"{name}: no file, but Open WebUI keeps a database there")
    try:
        with (
            closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as source,
            closing(sqlite3.connect(copy)) as target,
        ):
            source.backup(target)
    except sqlite3.Error as error:
        raise CopyError(f"{name}: Open WebUI's database cannot be read: {error}") from error
    shutil.copystat(path, copy)
    archive.add(copy, name)
    copy.unlink()


def judge(archive: Path) -> None:
    """Look at every member of an archive. Raises CopyError when one may not be unpacked."""
    links: set[str] = set()
    try:
        with tarfile.open(archive) as opened:
            for member in opened:
                if problem := _problem(member, links):
                    raise CopyError(f"{member.name!r} in the archive {problem}: no backup of ours")
                if member.issym():
                    links.add(member.name)
    except (tarfile.TarError, EOFError) as error:
        raise CopyError(f"the archive cannot be read: {error}") from error


def _problem(member: tarfile.TarInfo, links: set[str]) -> str | None:
    place = PurePosixPath(member.name)
    if place.is_absolute() or ".." in place.parts:
        return "leads out of it"
    if not (member.isreg() or member.isdir() or member.issym()):
        return "is no file, folder or link"
    if links & {str(parent) for parent in place.parents}:
        return "lies behind a link"
    return None


def unpack(data: Path, archive: Path) -> None:
    """Have in `data` what is in a judged archive, and nothing else but the image's models."""
    _empty(data)
    with tarfile.open(archive) as opened:
        for member in opened:
            path = data / member.name
            path.parent.mkdir(parents=True, exist_ok=True)
            if member.isdir():
                path.mkdir(exist_ok=True)
            elif member.issym():
                path.symlink_to(member.linkname)
            else:
                source = opened.extractfile(member)
                assert source is not None
                with path.open("xb") as target:
                    shutil.copyfileobj(source, target)
                os.utime(path, (member.mtime, member.mtime))
            if not member.issym():
                path.chmod(member.mode & 0o777)


def _empty(data: Path, under: str = "") -> bool:
    """Delete what is in a folder; whether nothing of it is left."""
    gone = True
    for entry in list(os.scandir(data / under)):
        name = f"{under}/{entry.name}" if under else entry.name
        if name in LEFT_OUT:
            gone = False
        elif not entry.is_dir(follow_symlinks=False):
            Path(entry).unlink()
        elif _empty(data, name):
            Path(entry).rmdir()
        else:
            gone = False
    return gone


def main(words: list[str]) -> int:
    """Do it; the exit status."""
    os.umask(0o077)
    given: dict[str, Any] = json.loads(words[1])
    data, scratch = Path(given["data"]), Path(given["scratch"])
    try:
        if words[0] == "pack":
            pack(data, scratch, given["databases"])
        elif words[0] == "judge":
            judge(Path(given["archive"]))
        else:
            unpack(data, Path(given["archive"]))
    except (CopyError, OSError) as error:
        print(error, file=sys.stderr)  # noqa: T201 - the backup's program reads it
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
