"""The lock of weights: which files a revision has, how large they are, and their SHA-256.

It is committed with the inventory, and what is fetched is judged by it alone: whoever can change
what a hub serves cannot change what a host takes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationError, model_validator

from fleet.declare.settings import Declared
from fleet.declare.types import Sha256
from fleet.kit.errors import FleetError
from fleet.kit.on_host.outside import read_file
from fleet.weights.settings import RepositoryName, Revision, Source, WeightsDeclaration

_LIMIT = 32 << 20  # bytes of a lock


def _check_path(value: str) -> str:
    parts = value.split("/")
    if not value.isprintable() or "\\" in value or {"", ".", ".."} & set(parts):
        raise ValueError("not a path of a repository's file")
    if len(value) > 1000 or any(len(part.encode()) > 255 for part in parts):
        raise ValueError("a path that no file system takes")
    return value


class LockedFile(Declared):
    """A file of a repository: its size in bytes, and the SHA-256 of its content."""

    path: Annotated[str, AfterValidator(_check_path)]
    size: Annotated[int, Field(ge=0, lt=2**63)]
    sha256: Sha256


class Lock(Declared):
    """All files of a revision that `include` and not `exclude` match, in the order of paths."""

    source: Source
    repository: RepositoryName
    revision: Revision
    include: tuple[str, ...] = Field(strict=False)
    exclude: tuple[str, ...] = Field(strict=False)
    files: Annotated[tuple[LockedFile, ...], Field(min_length=1)] = Field(strict=False)

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(file.size for file in self.files)

    @model_validator(mode="after")
    def _fits_together(self) -> Lock:
        paths = [file.path for file in self.files]
        chosen, _ = select(paths, self.include, self.exclude)
        if chosen != paths:
            raise ValueError("files: not those that its patterns match, in order, each once")
        folders = {parent for path in paths for parent in _folders(path)}
        if both := folders & set(paths):
            raise ValueError(f"files: {min(both)} is a file and a folder")
        return self


def _folders(path: str) -> Iterator[str]:
    parts = path.split("/")
    return ("/".join(parts[:count]) for count in range(1, len(parts)))


def select(
    paths: Iterable[str], include: Iterable[str], exclude: Iterable[str]
) -> tuple[list[str], list[str]]:
    """The paths that are chosen, in order, and the patterns that match none of `paths`."""
    every = sorted(set(paths))
    idle = [
        pattern
        for pattern in (*include, *exclude)
        if not any(_matches(path, pattern) for path in every)
    ]
    chosen = [
        path
        for path in every
        if any(_matches(path, pattern) for pattern in include)
        and not any(_matches(path, pattern) for pattern in exclude)
    ]
    return chosen, idle


def _matches(path: str, pattern: str) -> bool:
    """As Hugging Face's own client matches: a folder's name with a slash is all that is in it."""
    return fnmatchcase(path, f"{pattern}*" if pattern.endswith("/") else pattern)


def read_lock(path: Path) -> Lock:
    """The lock in the file `path`.

    Raises:
        FleetError: it is not there, or is no lock; what is wrong with it is said.
    """
    try:
        found = json.loads(read_file(path, _LIMIT))
    except OSError as error:
        raise FleetError(f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise FleetError(f"{path}: no lock: {error}") from None
    try:
        return Lock.model_validate(found)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        at = ".".join(map(str, first["loc"]))
        raise FleetError(f"{path}: no lock: {at}{': ' if at else ''}{first['msg']}") from None


def lock_text(lock: Lock) -> str:
    """`lock` as its file has it: a line for each file, for whoever reads a diff."""
    head = lock.model_dump(mode="json", exclude={"files"})
    rows = [json.dumps(file.model_dump(), ensure_ascii=False) for file in lock.files]
    start = json.dumps(head, indent=2, ensure_ascii=False).removesuffix("\n}")
    return start + ',\n  "files": [\n    ' + ",\n    ".join(rows) + "\n  ]\n}\n"


def differs(lock: Lock, declared: WeightsDeclaration) -> str | None:
    """What of `declared` the lock was not made for; None when it was made for all of it."""
    for key in ("source", "repository", "revision", "include", "exclude"):
        if getattr(lock, key) != getattr(declared, key):
            return f"{key} = {_shown(getattr(lock, key))}"
    return None


def _shown(value: str | tuple[str, ...]) -> str:
    return repr(value if isinstance(value, str) else list(value))
