"""Build the upstream's web root into a cache: once, whole, or not at all."""

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from lab.upstream import apt, artifacts, dify, driver, models, release, toolkit

STATE = "upstream.json"
DRIVER_KEY = "driver-key"
TOOLKIT_KEY = "toolkit-key"
UNUSED = 7 * 24 * 3600
"""Seconds after which an unused web root goes; each costs 30 MB beside the shared model."""


@dataclass(frozen=True)
class Upstream:
    """A built web root and the release in it that hosts install by default."""

    root: Path
    ollama_version: str
    ollama_sha256: str


def prepare(cache: Path, release: Path | None = None) -> Upstream:
    """Build the upstream into *cache*, or find it there, and return it.

    With *release* that tarball (Ollama's real one, say) is served in place of the stand-in. Needs
    root once, to install the Go compiler and zstd when they are missing. Two callers at once build
    once; a killed one leaves nothing that a later one would take for whole.

    Raises ``RuntimeError`` when something cannot be fetched or built.
    """
    store = cache / "upstream"
    store.mkdir(parents=True, exist_ok=True)
    given = release.resolve(strict=True) if release else None
    packages = store / f"artifacts-{key(artifacts.LOCK, Path(artifacts.__file__))}"
    web = store / f"web-{web_key(packages, given)}"
    if not (web / STATE).exists():
        with locked(store / "lock"):
            once(packages, artifacts.build)
            once(store / DRIVER_KEY, driver.key)
            once(store / TOOLKIT_KEY, toolkit.key)
            once(web, lambda root: build(root, packages, given))
            forget(store)
    os.utime(web)
    state = json.loads((web / STATE).read_text())
    return Upstream(web / "root", state["version"], state["sha256"])


def build(into: Path, packages: Path, given: Path | None) -> None:
    """Fill the web root and write which release is the default one."""
    root = into / "root"
    root.mkdir()
    models.build(root, packages / artifacts.GGUF, artifacts.GGUF_SHA256)
    driver.build(root, into.parent / DRIVER_KEY)
    toolkit.build(root, into.parent / TOOLKIT_KEY)
    dify.build(root)
    if given:
        default = release.adopt(root, given)
    else:
        libraries = packages / artifacts.LIBRARIES
        go_cache = into.parent / "go-cache"
        default, *_ = [release.build(root, libraries, v, go_cache) for v in release.VERSIONS]
    (into / STATE).write_text(json.dumps(asdict(default)))


def key(*files: Path, extra: str = "") -> str:
    """Return a short name for the contents of files."""
    digest = hashlib.sha256(extra.encode())
    for file in files:
        content = file.read_bytes()
        digest.update(f"{file.name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:16]


def web_key(packages: Path, given: Path | None) -> str:
    """Name the web root by what goes into it; a given tarball by its place, size and date."""
    modules = (apt, dify, driver, models, release, toolkit)
    code = [Path(m.__file__ or "") for m in modules] + [Path(__file__)]
    code += [*sorted(driver.SOURCES.iterdir()), *sorted(toolkit.SOURCES.iterdir())]
    code += dify.sources()
    if given is None:
        return key(*code, *release.sources(), extra=packages.name)
    stat = given.stat()
    return key(*code, extra=f"{packages.name} {given} {stat.st_size} {stat.st_mtime_ns}")


def once(target: Path, fill: Callable[[Path], None]) -> None:
    """Make a folder by filling another one and renaming it; leftovers of killed builds go first."""
    if target.exists():
        return
    for stale in target.parent.glob(".build-*"):
        shutil.rmtree(stale)
    scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=".build-"))
    scratch.chmod(0o755)
    try:
        fill(scratch)
        scratch.rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def forget(store: Path) -> None:
    """Remove web roots that no ``prepare`` has asked for in a long time."""
    for root in store.glob("web-*"):
        if time.time() - root.stat().st_mtime > UNUSED:
            shutil.rmtree(root)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a file lock; the kernel lets go of it when the process dies."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
