"""What a backup of Dify says of itself; read on hosts, and where the backup is handed over."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

MANIFEST = "manifest.json"
LONGEST = 1 << 20  # bytes of it, or of another text in a backup
_PART = re.compile(
    r"(?:secrets|memory|app-keys)\.json|(?:volumes|release)\.tar\.gz"
    r"|database-\w{1,63}\.dump|named-[A-Za-z0-9][A-Za-z0-9_.-]*\.tar\.gz",
    re.ASCII,
)
_VERSION = re.compile(r"\d+\.\d+\.\d+", re.ASCII)


@dataclass(frozen=True)
class Manifest:
    """Which release a backup is of, and the SHA-256 of each part of it by its name."""

    version: str
    files: dict[str, str]


def manifest_of(value: Any) -> Manifest:
    """A manifest from its JSON. Raises ValueError when it has not its form."""
    version = value.get("version") if isinstance(value, dict) else None
    files = value.get("files") if isinstance(value, dict) else None
    if not isinstance(version, str) or not _VERSION.fullmatch(version):
        raise ValueError(f"{MANIFEST} names no version")
    if not isinstance(files, dict) or not all(isinstance(known, str) for known in files.values()):
        raise ValueError(f"{MANIFEST} has no sums")
    if strange := next((name for name in files if not _PART.fullmatch(name)), None):
        raise ValueError(f"{strange!r} is no part of one")
    return Manifest(version, files)
