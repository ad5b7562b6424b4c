"""The models directory: manifests and blobs as files, and which blobs were found right."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import log, sha256, write
from ollama_protocol import blob_name, manifest_path
from registry import Manifest

ORPHAN_AGE = 86400  # blobs that nothing names stay for a day: they may be a seed under way


class Store:
    """The models directory, and what was noted of it in the file `memory`."""

    def __init__(self, root: Path, memory: Path) -> None:
        self.root, self.memory_path = root, memory
        self.memory: dict[str, Any] = {"blobs": {}, "models": {}}
        with contextlib.suppress(FileNotFoundError, ValueError):
            self.memory |= json.loads(memory.read_text())

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
            return Manifest(self._manifest_path(name).read_bytes())
        except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
            return None

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
        temporary = path.parent.parent / f".{path.name}.new"
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
            stat = path.stat()
        except FileNotFoundError:
            return f"{path} is missing"
        if size is not None and stat.st_size != size:
            return f"{path} has {stat.st_size} bytes of {size}"
        known = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
        if self.memory["blobs"].get(path.name) == known:
            return ""
        if report is None:
            return f"{path} has not been hashed in this state"
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

    def named_blobs(self) -> set[str]:
        """Every digest that any manifest names. ValueError when one of them cannot be read."""
        named: set[str] = set()
        for path in (self.root / "manifests").glob("*/*/*/*"):
            if path.is_file() and not path.name.startswith("."):
                named |= set(Manifest(path.read_bytes()).blobs)
        return named

    def remove_blob(self, digest: str) -> None:
        """Delete a blob, and what is noted of it."""
        path = self.blob(digest)
        path.unlink(missing_ok=True)
        self.memory["blobs"].pop(path.name, None)

    def drop_unused(self, replaced: Manifest | None) -> None:
        """Remove what only the replaced manifest named."""
        if replaced:
            for digest in set(replaced.blobs) - self.named_blobs():
                self.remove_blob(digest)

    def sweep(self) -> None:
        """Remove blobs and partial downloads that nothing names, once they are a day old.

        Ollama would at each start, after an hour, and take partial downloads of declared models
        with them: OLLAMA_NOPRUNE keeps it from that, so it is done here. By the time of the last
        change of the file's status: `cp -p` and `rsync -a` keep older ones.
        """
        try:
            named = {blob_name(digest) for digest in self.named_blobs()}
        except (ValueError, KeyError, TypeError) as error:
            log(f"a manifest cannot be read, so no unused blob is removed: {error!r}")
            return
        old = time.time() - ORPHAN_AGE
        for path in [*(self.root / "blobs").glob("*"), *self.scratch("").glob("*.part")]:
            with contextlib.suppress(FileNotFoundError):
                if path.name not in named and path.stat().st_ctime < old:
                    log(f"{path}: no model uses it, removed")
                    path.unlink()
