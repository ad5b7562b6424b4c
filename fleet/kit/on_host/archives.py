"""Archives of backups: whether one is due, its checksum beside it, and Docker's volumes."""

from __future__ import annotations

import os
import time
from pathlib import Path

from common import run, sha256, write


def is_due(directory: Path, pattern: str, age: float) -> bool:
    """Whether the newest archive, of those like `pattern`, is older than so many seconds."""
    newest = max((path.stat().st_mtime for path in directory.glob(pattern)), default=0.0)
    return time.time() - newest > age


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
