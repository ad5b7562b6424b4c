"""Ollama's release: the stand-in built from ``lab/ollama``, or a given real one."""

import hashlib
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from lab.upstream import artifacts

SOURCES = Path(__file__).resolve().parent.parent / "ollama"
TARBALL = "ollama-linux-amd64.tar.zst"
VERSIONS = ("0.32.7", "0.32.8")
"""The stand-in's versions, alike but for the number: the default, and one to upgrade to."""


@dataclass(frozen=True)
class Release:
    """One release in the web root."""

    version: str
    sha256: str


def sources() -> list[Path]:
    """Return the files that the stand-in is built from."""
    return sorted([*SOURCES.glob("*.go"), SOURCES / "go.mod", SOURCES / "llama-server"])


def folder(root: Path, version: str) -> Path:
    """Return where a release lies below the web root, as on GitHub."""
    return root / "ollama" / "ollama" / "releases" / "download" / f"v{version}"


def publish(tarball: Path) -> str:
    """Write ``sha256sum.txt`` beside a tarball and return the sum.

    The real file comes from ``find . -type f | xargs sha256sum``: names start with ``./``.
    """
    with tarball.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    (tarball.parent / "sha256sum.txt").write_text(f"{digest}  ./{tarball.name}\n")
    return digest


def build(root: Path, libraries: Path, version: str, go_cache: Path) -> Release:
    """Build the stand-in's release *version* into the web root."""
    target = folder(root, version)
    target.mkdir(parents=True)
    with tempfile.TemporaryDirectory(dir=root.parent, prefix=".release-") as scratch:
        tree = Path(scratch)
        compile_ollama(tree / "ollama", version, go_cache)
        members = {
            "bin/ollama": tree / "ollama",
            "lib/ollama/llama-server": SOURCES / "llama-server",
        }
        for path in sorted(libraries.rglob("*")):
            if path.is_file():
                members[f"lib/ollama/{path.relative_to(libraries)}"] = path
        pack(members, target / TARBALL)
    return Release(version, publish(target / TARBALL))


def compile_ollama(target: Path, version: str, cache: Path) -> None:
    """Build a static binary that depends on the sources, the version and the compiler only."""
    link = f"-s -w -X main.Version={version}"
    run_go(["build", "-trimpath", "-ldflags", link, "-o", str(target), "."], SOURCES, cache)


def vet(sources: Path, cache: Path) -> None:
    """Judge a Go program's source.

    Raises ``RuntimeError`` with what gofmt or go vet finds.
    """
    run_go(["vet", *(path.name for path in sorted(sources.glob("*.go")))], sources, cache)
    done = subprocess.run(
        ["gofmt", "-l", "."], cwd=sources, capture_output=True, text=True, check=False
    )
    if done.returncode or done.stdout:
        raise RuntimeError(f"gofmt would write these otherwise:\n{done.stdout}{done.stderr}")


def run_go(arguments: list[str], sources: Path, cache: Path) -> None:
    """Run the Go compiler's program, which fetches nothing here."""
    go = artifacts.ensure_tool("go", "golang-go")
    environment = {**os.environ, "CGO_ENABLED": "0", "GOOS": "linux", "GOARCH": "amd64"}
    environment |= {
        "GOFLAGS": "-mod=mod -buildvcs=false",
        "GOPROXY": "off",
        "GO111MODULE": "on",
        "GOCACHE": str(cache),
    }
    done = subprocess.run(
        [go, *arguments], cwd=sources, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"go {arguments[0]} failed:\n{done.stderr}")


def pack(members: dict[str, Path], target: Path) -> None:
    """Write a tarball with the same bytes for the same content: owner 0:0, no dates, sorted."""
    zstd = artifacts.ensure_tool("zstd", "zstd")
    with tempfile.NamedTemporaryFile(dir=target.parent, suffix=".tar") as plain:
        with tarfile.open(fileobj=plain, mode="w", format=tarfile.GNU_FORMAT) as archive:
            for name in folders(members):
                entry = tarfile.TarInfo(name)
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(entry)
            for name, path in sorted(members.items()):
                entry = tarfile.TarInfo(name)
                entry.size = path.stat().st_size
                entry.mode = 0o755 if os.access(path, os.X_OK) else 0o644
                with path.open("rb") as file:
                    archive.addfile(entry, file)
        plain.flush()
        subprocess.run([zstd, "-q", "-3", "--single-thread", plain.name, "-o", target], check=True)
    target.chmod(0o644)


def folders(members: dict[str, Path]) -> list[str]:
    """Return every folder above the members, parents first."""
    found = {str(parent) for name in members for parent in Path(name).parents}
    return sorted(found - {"."})


def adopt(root: Path, tarball: Path) -> Release:
    """Put a given release tarball into the web root; its version is what its binary says.

    Raises ``RuntimeError`` when the tarball has no ``bin/ollama`` that tells a version.
    """
    artifacts.ensure_tool("zstd", "zstd")
    with tempfile.TemporaryDirectory(dir=root.parent, prefix=".release-") as scratch:
        tar = ["tar", "--zstd", "-x", "-f", str(tarball), "-C", scratch]
        for member in ("bin/ollama", "./bin/ollama"):
            subprocess.run([*tar, member], capture_output=True, check=False)
        version = client_version(Path(scratch, "bin", "ollama"))
    target = folder(root, version)
    target.mkdir(parents=True)
    try:
        (target / TARBALL).hardlink_to(tarball)
    except OSError:
        shutil.copyfile(tarball, target / TARBALL)
    return Release(version, publish(target / TARBALL))


def client_version(binary: Path) -> str:
    """Ask a binary for its version; no server is behind port 1."""
    if not binary.exists():
        raise RuntimeError("the release has no bin/ollama")
    environment = {**os.environ, "OLLAMA_HOST": "127.0.0.1:1", "HOME": str(binary.parent)}
    done = subprocess.run(
        [binary, "-v"], env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    found = re.search(r"client version is (\S+)", done.stdout + done.stderr)
    if not found:
        raise RuntimeError(f"{binary.name} -v told no version: {done.stdout}{done.stderr}")
    return found[1]
