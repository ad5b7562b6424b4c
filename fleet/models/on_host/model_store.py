"""The models directory: manifests and blobs as files, and which blobs were found right."""

from __future__ import annotations

import contextlib
import json
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from common import log, sha256, write
from manifests import Manifest, read_manifest
from ollama_protocol import blob_name, manifest_path
from outside import FormError, parsed, read_file

ORPHAN_AGE = 86400  # blobs that nothing names stay for a day: they may be a seed under way
# Sizes and times of blobs, which may be from before 1970; notes of models.
_MEMORY = {"blobs": {...: [float]}, "models": {...: {...: (str, [str])}}}
_MEMORY_LIMIT = 64 << 20  # bytes
_NEW = ".new"  # a manifest that is not in its place yet


class Store:
    """The models directory, and what was noted of it in the file `memory`."""

    def __init__(self, root: Path, memory: Path) -> None:
        self.root, self.memory_path = root, memory
        self.memory: dict[str, Any] = {"blobs": {}, "models": {}}
        try:
            self.memory = parsed(read_file(memory, _MEMORY_LIMIT), _MEMORY, str(memory))
        except FileNotFoundError:
            pass
        except FormError as error:
            log(f"{error}: every blob is hashed again")

    def remember(self, name: str, **values: Any) -> None:
        """Note something of a model for later runs."""
        self.memory["models"].setdefault(name, {}).update(values)
        self.save()

    def recall(self, name: str, key: str) -> Any:
        """What `remember` noted, or None."""
        return self.memory["models"].get(name, {}).get(key)

    def save(self) -> None:
        """Write the memory."""
        write(self.memory_path, json.dumps(self.memory), 0o644)

    def manifest(self, name: str) -> Manifest | None:
        """The manifest of a model, or None; one that is no manifest counts as none."""
        try:
            return read_manifest(self._manifest_path(name))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as error:
            log(f"{name}: its manifest counts as none: {error}")
            return None

    def remove_what_is_no_manifest(self) -> None:
        """Remove what stands among the manifests and is no file.

        Ollama opens each of them whenever it lists its models, and would wait for a FIFO for ever.
        """
        for path in (self.root / "manifests").rglob("*"):
            if not path.is_file() and not path.is_dir():
                log(f"{path}: is no file, removed")
                path.unlink(missing_ok=True)

    def size(self, name: str) -> int:
        """Bytes of a model's blobs; 0 when it is not there."""
        manifest = self.manifest(name)
        return manifest.size if manifest else 0

    def put_manifest(self, name: str, manifest: Manifest | None) -> None:
        """Put back what a pull replaced."""
        path = self._manifest_path(name)
        if manifest is None:
            path.unlink(missing_ok=True)
            return
        temporary = path.parent.parent / f".{path.name}{_NEW}"
        temporary.write_bytes(manifest.content)
        temporary.replace(path)

    def _manifest_path(self, name: str) -> Path:
        return Path(manifest_path(str(self.root), name))

    def blob(self, digest: str) -> Path:
        """The file of a blob."""
        return self.root / "blobs" / blob_name(digest)

    def scratch(self, name: str) -> Path:
        """A file of our own in the models directory, which Ollama leaves alone."""
        return self.root / ".llm-fleet" / name

    def fault(self, digest: str, size: int | None, report: Callable[[int], None] | None) -> str:
        """What is wrong with a blob, or nothing.

        It is hashed unless the memory knows it in this very state. With `report` None it is not
        hashed, and one that is not known is a fault.
        """
        path = self.blob(digest)
        try:
            now = path.stat()
        except FileNotFoundError:
            return f"{path} is missing"
        if not stat.S_ISREG(now.st_mode):
            return f"{path} is no file"
        if size is not None and now.st_size != size:
            return f"{path} has {now.st_size} bytes of {size}"
        known = [now.st_size, now.st_mtime_ns, now.st_ctime_ns]
        if self.memory["blobs"].get(path.name) == known:
            return ""
        if report is None:
            return f"{path} has not been hashed in this state"
        return self._hash(path, digest, known, report)

    def _hash(
        self, path: Path, digest: str, known: list[int], report: Callable[[int], None]
    ) -> str:
        actual = sha256(path, report)
        if f"sha256:{actual}" != digest:
            return f"{path} has the SHA-256 {actual}"
        self.memory["blobs"][path.name] = known
        self.save()
        return ""

    def missing(self, manifest: Manifest) -> int:
        """Bytes that are still to be fetched of what `manifest` names."""
        blobs = {digest: size for digest, size in manifest.blobs.items()
                 if not self.blob(digest).exists()}  # fmt: skip
        return sum(blobs.values()) - sum(map(self._partial, blobs))

    def _partial(self, digest: str) -> int:
        """Bytes on disk of a download of this blob that was cut short."""
        try:
            return Path(f"{self.blob(digest)}-partial").stat().st_blocks * 512
        except FileNotFoundError:
            return 0

    def named_blobs(self) -> set[str] | None:
        """Every digest that any manifest names; None when one of them cannot be read."""
        named: set[str] = set()
        for path in (self.root / "manifests").glob("*/*/*/*"):
            if path.name.startswith("."):
                continue
            try:
                named |= set(read_manifest(path).blobs)
            except FileNotFoundError:  # deleted meanwhile
                continue
            except (OSError, ValueError) as error:
                log(f"{path} cannot be read, so no unused blob is removed: {error}")
                return None
        return named

    def remove_blob(self, digest: str) -> None:
        """Delete a blob, and what is noted of it."""
        path = self.blob(digest)
        path.unlink(missing_ok=True)
        self.memory["blobs"].pop(path.name, None)

    def drop_unused(self, digests: Iterable[str]) -> None:
        """Remove those of the blobs that no manifest names."""
        there = [digest for digest in digests if self.blob(digest).exists()]
        if there and (named := self.named_blobs()) is not None:
            for digest in set(there) - named:
                self.remove_blob(digest)

    def sweep(self) -> None:
        """Remove blobs and partial downloads that nothing names, once they are a day old.

        Ollama would at each start, after an hour, and take partial downloads of declared models
        with them: OLLAMA_NOPRUNE keeps it from that, so it is done here. By the time of the last
        change of the file's status: `cp -p` and `rsync -a` keep older ones.
        """
        for path in self.leftovers():
            try:
                path.unlink(missing_ok=True)
                log(f"{path}: no model uses it, removed")
            except OSError as error:
                log(f"{path}: no model uses it, and it cannot be removed: {error}")

    def leftovers(self) -> dict[Path, int]:
        """What `sweep` removes, with its bytes; nothing while a manifest cannot be read."""
        if (digests := self.named_blobs()) is None:
            return {}
        named = {blob_name(digest) for digest in digests}
        # One of the future is of a clock that was ahead.
        now = time.time()
        found = {}
        for path in self._files():
            with contextlib.suppress(FileNotFoundError):
                about = path.lstat()
                if path.name not in named and abs(now - about.st_ctime) > ORPHAN_AGE:
                    found[path] = about.st_size
        return found

    def _files(self) -> Iterator[Path]:
        """What may be left over: blobs, and what a run that was killed did not finish."""
        yield from (self.root / "blobs").glob("*")
        yield from self.scratch("").glob("*.part")
        yield from (self.root / "manifests").rglob(f".*{_NEW}")
        yield from self.memory_path.parent.glob(f".{self.memory_path.name}.*")
