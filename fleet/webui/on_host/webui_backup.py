"""Back up Open WebUI's volume while it runs: `webui_backup.py CONFIG [--due]`.

CONFIG is JSON: `volume` (Docker's name of it), `directory` (where archives are), `keep` (how many),
`due` (seconds: with a younger archive `--due` does nothing). Databases are copied by SQLite
itself, each as of one moment; other files as they are. An archive has its name only when it is
whole, and its SHA-256 beside it.
"""

import json
import os
import shutil
import sqlite3
import sys
import tarfile
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from archives import is_due, seal, volume_path
from common import ProgramError, log, make_directory, say

# Models: the image has them, and fills an empty volume with them.
LEFT_OUT = {Path("cache/embedding"), Path("cache/whisper"), Path("cache/tiktoken")}
ARCHIVES = "webui-*.tar"
DATABASE = b"SQLite format 3\0"


def main(words: list[str]) -> int:
    """Do it; with `--due` only when it is."""
    os.umask(0o077)
    config = json.loads(Path(words[0]).read_text())
    directory = Path(config["directory"])
    make_directory(directory, 0o700)
    if "--due" in words[1:] and not is_due(directory, ARCHIVES, config["due"]):
        say("not due")
        return 0
    try:
        archive = back_up(volume_path(config["volume"]), directory)
    except ProgramError as error:
        log(str(error))
        return 1
    prune(directory, config["keep"])
    say(f"{archive.name}: {archive.stat().st_size} bytes")
    return 0


def back_up(data: Path, directory: Path) -> Path:
    """Have what is in `data` as an archive in `directory`; the archive."""
    for left in directory.glob(".webui-*"):
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    with tempfile.TemporaryDirectory(dir=directory, prefix=".webui-") as scratch:
        part = Path(scratch) / "part"
        with tarfile.open(part, "w") as archive:
            for path in members(data):
                add(archive, path, path.relative_to(data), Path(scratch))
        name = f"webui-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}.tar"
        seal(part, directory / name)
    return directory / name


def members(folder: Path, under: Path = Path()) -> list[Path]:
    """Everything to keep, folders before what is in them."""
    found = []
    for path in sorted(folder.iterdir()):
        place = under / path.name
        if place in LEFT_OUT:
            continue
        found.append(path)
        if path.is_dir() and not path.is_symlink():
            found += members(path, place)
    return found


def add(archive: tarfile.TarFile, path: Path, place: Path, scratch: Path) -> None:
    """Add a file; a database as SQLite copies it, and without the files it has beside it."""
    try:
        if path.name.endswith(("-wal", "-shm", "-journal")) and is_database(
            path.with_name(path.name.rpartition("-")[0])
        ):
            return
        if not is_database(path):
            archive.add(path, str(place), recursive=False)
            return
        copy = scratch / "copy"
        with (
            closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as source,
            closing(sqlite3.connect(copy)) as target,
        ):
            source.backup(target)
        shutil.copystat(path, copy)
        archive.add(copy, str(place), filter=owned_as(path))
        copy.unlink()
    except FileNotFoundError:
        # Somebody has deleted it since it was listed.
        return


def owned_as(path: Path) -> Any:
    """What gives a member the owner of `path`."""
    status = path.stat()

    def owned(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid, member.gid = status.st_uid, status.st_gid
        return member

    return owned


def is_database(path: Path) -> bool:
    """Whether a file is one of SQLite's."""
    if not path.is_file() or path.is_symlink():
        return False
    with path.open("rb") as file:
        return file.read(len(DATABASE)) == DATABASE


def prune(directory: Path, keep: int) -> None:
    """Delete the oldest archives beyond so many, and sums whose archive is no more."""
    for archive in sorted(directory.glob(ARCHIVES))[:-keep]:
        archive.unlink()
    for record in directory.glob(f"{ARCHIVES}.sha256"):
        if not record.with_suffix("").exists():
            record.unlink()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
