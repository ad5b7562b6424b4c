"""Back up Open WebUI's volume while it runs: `webui_backup.py CONFIG [--due]`.

CONFIG is JSON: `volume` (Docker's name of it), `directory` (where archives are), `keep` (how many),
`due` (seconds: with a younger archive `--due` does nothing). Databases are copied by SQLite
itself, each as of one moment; other files as they are. An archive has its name only when it is
whole, and its SHA-256 beside it.
"""

import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

# Models: the image has them, and fills an empty volume with them.
LEFT_OUT = {Path("cache/embedding"), Path("cache/whisper"), Path("cache/tiktoken")}
DATABASE = b"SQLite format 3\0"


def main(words: list[str]) -> int:
    """Do it; with `--due` only when it is."""
    os.umask(0o077)
    config = json.loads(Path(words[0]).read_text())
    directory = Path(config["directory"])
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    newest = max((path.stat().st_mtime for path in directory.glob("webui-*.tar")), default=0.0)
    if "--due" in words[1:] and time.time() - newest < config["due"]:
        print("not due")  # noqa: T201
        return 0
    archive = back_up(volume(config["volume"]), directory)
    prune(directory, config["keep"])
    print(f"{archive.name}: {archive.stat().st_size} bytes")  # noqa: T201
    return 0


def volume(name: str) -> Path:
    """Where a volume of Docker's is.

    Raises:
        CalledProcessError: there is none of this name.
    """
    command = ["docker", "volume", "inspect", "--format", "{{.Mountpoint}}", name]
    return Path(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())


def back_up(data: Path, directory: Path) -> Path:
    """Have what is in `data` as an archive in `directory`; the archive."""
    for left in directory.glob(".webui-*"):
        shutil.rmtree(left)
    with tempfile.TemporaryDirectory(dir=directory, prefix=".webui-") as scratch:
        part = Path(scratch) / "part"
        with tarfile.open(part, "w") as archive:
            for path in members(data):
                add(archive, path, path.relative_to(data), Path(scratch))
        name = f"webui-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}.tar"
        digest = hashlib.sha256()
        with part.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
            os.fsync(file.fileno())
        # First the sum: an archive without one would not be known to be whole.
        (directory / f"{name}.sha256").write_text(f"{digest.hexdigest()}  {name}\n")
        return part.rename(directory / name)


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
    for archive in sorted(directory.glob("webui-*.tar"))[:-keep]:
        archive.unlink()
    for record in directory.glob("webui-*.tar.sha256"):
        if not record.with_suffix("").exists():
            record.unlink()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
