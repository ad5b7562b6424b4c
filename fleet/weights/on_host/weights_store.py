"""Weights on a disk: complete folders, what is on its way beside them, and what was hashed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import log, make_directory, sha256, write
from outside import FormError, parsed, read_file

_MEMORY = {"files": {...: {"sha256": str, "seen": [float]}}}
_MEMORY_LIMIT = 64 << 20  # bytes
_PART = ".part"
_OURS = ".llm-fleet"  # in the folder of a name: it is no operator's
_HEX = frozenset("0123456789abcdef")


@dataclass(frozen=True)
class File:
    """A file of a lock: its path in the repository, bytes, and SHA-256."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Weights:
    """What is declared: the files of a revision."""

    name: str
    revision: str
    files: tuple[File, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


class Store:
    """The directory `root`: `<name>/<revision>` is complete, `<name>/<revision>.part` is not.

    What was hashed is noted with its size and times: whatever changed since is hashed again.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.lock = root / ".llm-fleet-weights.lock"
        self._memory_path = root / ".llm-fleet-weights.json"
        self._hashed: dict[str, dict[str, Any]] = {}
        try:
            text = read_file(self._memory_path, _MEMORY_LIMIT)
            self._hashed = parsed(text, _MEMORY, str(self._memory_path))["files"]
        except FileNotFoundError:
            pass
        except FormError as error:
            log(f"{error}: every file is hashed again")

    def folder(self, weights: Weights) -> Path:
        """Where complete weights are."""
        return self.root / weights.name / weights.revision

    def part(self, weights: Weights) -> Path:
        """Where whole files are until the last one is there."""
        return Path(f"{self.folder(weights)}{_PART}") / "files"

    def incomplete(self, weights: Weights, file: File) -> Path:
        """Where a file is while it comes."""
        return Path(f"{self.folder(weights)}{_PART}") / "incomplete" / file.sha256

    def begin(self, weights: Weights) -> Path:
        """Have the folder of whole files; it."""
        part = self.part(weights)
        make_directory(part)
        (part.parents[1] / _OURS).touch()
        return part

    def lacks(self, weights: Weights) -> str:
        """Why the folder is not what is declared, or nothing; without hashing anything."""
        folder = self.folder(weights)
        if not is_folder(folder):
            return "is not there"
        if surplus := self.surplus(weights, folder):
            return f"has what its lock has not: {_few(surplus)}"
        if missing := self.missing(weights, folder):
            changed = [file.path for file in missing if (folder / file.path).exists()]
            if changed:
                return f"has files that changed since they were hashed: {_few(changed)}"
            return f"lacks files: {_few([file.path for file in missing])}"
        return ""

    def missing(self, weights: Weights, folder: Path) -> list[File]:
        """The files that are not in `folder` as they were hashed, by their times."""
        return [
            file for file in weights.files if not self._is_hashed(folder / file.path, file.sha256)
        ]

    def surplus(self, weights: Weights, folder: Path) -> list[str]:
        """What is in `folder` and in no lock."""
        known = {file.path for file in weights.files}
        folders = {str(parent) for path in known for parent in Path(path).parents}
        return [
            str(path.relative_to(folder))
            for path in sorted(_walk(folder))
            if str(path.relative_to(folder)) not in (folders if is_folder(path) else known)
        ]

    def to_fetch(self, weights: Weights) -> int:
        """Bytes that are still to come."""
        if not self.lacks(weights):
            return 0
        there = self.folder(weights) if is_folder(self.folder(weights)) else self.part(weights)
        return sum(
            max(file.size - _size(self.incomplete(weights, file)), 0)
            for file in self.missing(weights, there)
            if not self.elsewhere(file)
        )

    def check(self, path: Path, file: File, report: Callable[[int], None]) -> str:
        """What is wrong with `path`, which is to be `file`, by its bytes; noted when it is right.

        It is made readable by everybody.
        """
        try:
            about = path.lstat()
            if not stat.S_ISREG(about.st_mode):
                return "is no file"
            if about.st_size != file.size:
                return f"has {about.st_size} bytes, the lock says {file.size}"
            path.chmod(0o644)
            before = _seen(path)
            actual = sha256(path, report)
        except FileNotFoundError:
            return "is not there"
        if actual != file.sha256:
            return f"has the SHA-256 {actual}, the lock says {file.sha256}"
        if _seen(path) != before:
            return "changed while it was hashed"
        self._note(path, file.sha256, before)
        return ""

    def place(self, weights: Weights, file: File, checked: Path) -> None:
        """Put a file that was found right among the whole ones."""
        target = self.part(weights) / file.path
        make_directory(target.parent)
        checked.replace(target)
        self._hashed.pop(self._key(checked), None)
        # The new name has changed one of its times, and nothing else.
        self._note(target, file.sha256, _seen(target))
        self.save()

    def elsewhere(self, file: File) -> Path | None:
        """The same content among other weights, as it was hashed."""
        for key, entry in self._hashed.items():
            path = self.root / key
            if entry["sha256"] == file.sha256 and self._is_hashed(path, file.sha256):
                return path
        return None

    def share(self, weights: Weights, file: File, other: Path) -> None:
        """Have `other`, which is the same, under this name too, without a byte more."""
        target = self.part(weights) / file.path
        make_directory(target.parent)
        target.unlink(missing_ok=True)
        with self._links_change():
            os.link(other, target)
        self._note(target, file.sha256, _seen(target))
        self.save()

    def demote(self, weights: Weights) -> None:
        """Take the name of complete weights from a folder that is not."""
        files = self.part(weights)
        remove(files)
        make_directory(files.parent)
        self._move(self.folder(weights), files)

    def promote(self, weights: Weights) -> None:
        """Give whole files the name under which they are used."""
        os.sync()
        self._move(self.part(weights), self.folder(weights))
        self.remove(self.part(weights).parent)

    def leftovers(self, declared: list[Weights]) -> list[Path]:
        """What is on its way to nowhere: of complete weights, or of none that is declared."""
        wanted = {self.part(item).parent for item in declared if not is_folder(self.folder(item))}
        return [path for path in self._revisions(_PART) if path not in wanted]

    def undeclared(self, declared: list[Weights]) -> dict[str, int]:
        """Complete weights that nobody declares: `name/revision` to bytes."""
        wanted = {self.folder(item) for item in declared}
        return {
            str(path.relative_to(self.root)): sum(_size(item) for item in _walk(path))
            for path in self._revisions("")
            if path not in wanted
        }

    def remove(self, path: Path) -> None:
        """Delete weights, or a part of some, and the folder of their name with the last of it."""
        with self._links_change():
            remove(path)
        if path.parent.parent == self.root and {*path.parent.iterdir()} <= {path.parent / _OURS}:
            shutil.rmtree(path.parent)
        self.save()

    def save(self) -> None:
        """Write down what was hashed, of what is there still."""
        self._hashed = {
            key: entry for key, entry in self._hashed.items() if (self.root / key).exists()
        }
        write(self._memory_path, json.dumps({"files": self._hashed}), 0o644)

    @contextlib.contextmanager
    def _links_change(self) -> Iterator[None]:
        """A file that gets or loses a name has another time of its status, and the same content."""
        paths = {self.root / key: entry["sha256"] for key, entry in self._hashed.items()}
        before = {path: _seen(path) for path, sha in paths.items() if self._is_hashed(path, sha)}
        yield
        for path, (size, changed, _, mode) in before.items():
            if not path.exists():
                continue
            now = _seen(path)
            if (now[0], now[1], now[3]) == (size, changed, mode):
                self._note(path, paths[path], now)

    def _revisions(self, suffix: str) -> list[Path]:
        """Folders of revisions: what somebody else has put beside them has no such name."""
        return [
            path
            for path in sorted(self.root.glob(f"[a-z0-9]*/*{suffix}"))
            if _is_revision(path.name.removesuffix(suffix)) and is_folder(path)
        ]

    def _move(self, source: Path, target: Path) -> None:
        source.rename(target)
        old, new = f"{self._key(source)}/", f"{self._key(target)}/"
        self._hashed = {
            (new + key[len(old) :] if key.startswith(old) else key): entry
            for key, entry in self._hashed.items()
        }
        self.save()

    def _is_hashed(self, path: Path, wanted: str) -> bool:
        entry = self._hashed.get(self._key(path))
        try:
            return bool(entry and entry["sha256"] == wanted and entry["seen"] == _seen(path))
        except (FileNotFoundError, NotADirectoryError):
            return False

    def _note(self, path: Path, digest: str, seen: list[int]) -> None:
        self._hashed[self._key(path)] = {"sha256": digest, "seen": seen}

    def _key(self, path: Path) -> str:
        return str(path.relative_to(self.root))


def remove(path: Path) -> None:
    """Delete a file, a link or a tree; what is not there is gone already."""
    if is_folder(path):
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _walk(folder: Path) -> Iterator[Path]:
    """All that is in a folder, without following links."""
    for path in folder.iterdir():
        yield path
        if is_folder(path):
            yield from _walk(path)


def is_folder(path: Path) -> bool:
    """Whether it is a directory, and no link to one."""
    return path.is_dir() and not path.is_symlink()


def _is_revision(name: str) -> bool:
    return len(name) == 40 and set(name) <= _HEX


def _seen(path: Path) -> list[int]:
    """What tells that a file is the one that was hashed: size, times, kind and mode."""
    about = path.lstat()
    return [about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_mode]


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return 0


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
