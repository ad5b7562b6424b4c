"""Archives of backups: which is the newest, its checksum beside it, and Docker's volumes."""

from __future__ import annotations

import os
import time
from collections.abc import Collection
from pathlib import Path

from common import run, sha256, write


def by_age(directory: Path, pattern: str) -> list[Path]:
    """The archives like `pattern`, the oldest first.

    One that was made in the future was made while the clock was wrong: how old it is cannot be
    told, and it comes before all others.
    """
    now = time.time()
    known = {path: path.stat().st_mtime for path in directory.glob(pattern)}
    return sorted(known, key=lambda path: (known[path] <= now, known[path], path.name))


def is_due(directory: Path, pattern: str, age: float) -> bool:
    """Whether the newest archive, of those like `pattern`, is older than so many seconds."""
    newest = by_age(directory, pattern)[-1:]
    return not any(0 <= time.time() - path.stat().st_mtime <= age for path in newest)


def prune(directory: Path, pattern: str, keep: int, needed: Collection[Path]) -> None:
    """Delete the oldest archives beyond so many, and sums without one; none that is `needed`."""
    for archive in by_age(directory, pattern)[:-keep]:
        if archive not in needed:
            archive.unlink()
    for record in directory.glob(f"{pattern}.sha256"):
        if not record.with_suffix("").exists():
            record.unlink()


def sum_of(archive: Path) -> Path:
    """The file with an archive's SHA-256."""
    return archive.with_name(f"{archive.name}.sha256")


def seal(part: Path, archive: Path) -> None:
    """Give a whole archive its name, and its SHA-256 a file beside it."""
    sync(part)
    # First the sum: an archive without one would not be known to be whole.
    write(sum_of(archive), f"{sha256(part)}  {archive.name}\n")
    part.rename(archive)


def sync(path: Path) -> None:
    """Have a file on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def volume_path(name: str) -> Path:
    """Where the volume of Docker's that is called `name` lies.

    Raises:
        CommandError: there is none.
    """
    return Path(run("docker", "volume", "inspect", "--format", "{{.Mountpoint}}", name).strip())
