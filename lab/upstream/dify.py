"""Dify's releases as GitHub serves a tag's tarball, and the Ollama plugin as its marketplace does.

It stands for github.com/langgenius/dify and marketplace.dify.ai. Three releases: one, one to
upgrade to, and one that migrates the database and then never comes up.
"""

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path

from lab.dify import package

SOURCES = Path(__file__).resolve().parent.parent / "dify" / "release"
VERSIONS = ("1.16.1", "1.17.1", "1.17.2")
PLUGINS = ("1.0.0", "1.1.0")
RELEASES = Path("langgenius/dify/archive/refs/tags")
MARKETPLACE = Path("marketplace/api/v1")
RECORD = "dify.json"
_NEWER = "#>=1.17"
_BUILT = 1784073600  # one moment for all files: a tarball depends on its contents only


def build(root: Path) -> None:
    """Fill the web root, and say in ``dify.json`` what is there."""
    (root / RELEASES).mkdir(parents=True)
    releases = {}
    for version in VERSIONS:
        content = tarball(version)
        (root / RELEASES / f"{version}.tar.gz").write_bytes(content)
        releases[version] = hashlib.sha256(content).hexdigest()
    plugins = {version: _publish(root, version) for version in PLUGINS}
    newest = package.read(package.make(PLUGINS[-1]))
    listed = {
        "org": newest.manifest["author"],
        "name": newest.manifest["name"],
        "latest_version": newest.manifest["version"],
        "latest_package_identifier": newest.identifier,
    }
    listing = root / MARKETPLACE / "dist/plugins/manifest.json"
    listing.parent.mkdir(parents=True)
    listing.write_text(json.dumps({"plugins": [listed]}))
    index = root / "pypi/simple/dify-plugin/index.html"
    index.parent.mkdir(parents=True)
    index.write_text("<!doctype html>\n")
    record = {"releases": releases, "plugins": plugins}
    (root / RECORD).write_text(json.dumps(record, indent=2) + "\n")


def sources() -> list[Path]:
    """The files that the releases and the packages are made of."""
    files = sorted(path for path in SOURCES.rglob("*") if path.is_file())
    return [*files, Path(package.__file__)]


def tarball(version: str) -> bytes:
    """What GitHub packs of the tag: one folder, with ``docker/`` in it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for path in sorted(SOURCES.rglob("*")):
            name = f"dify-{version}/docker/{path.relative_to(SOURCES)}"
            member = tarfile.TarInfo(name)
            member.mtime = _BUILT
            if path.is_dir():
                member.type, member.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(member)
                continue
            content = _of_version(path.read_text(), version).encode()
            member.size, member.mode = len(content), 0o755 if path.suffix == ".sh" else 0o644
            archive.addfile(member, io.BytesIO(content))
    return gzip.compress(out.getvalue(), mtime=0)


def _of_version(text: str, version: str) -> str:
    newer = tuple(map(int, version.split("."))) >= (1, 17)
    lines = [line for line in text.splitlines() if newer or not line.endswith(_NEWER)]
    lines = [line.removesuffix(_NEWER).rstrip() for line in lines]
    return "\n".join(lines).replace("@VERSION@", version) + "\n"


def _publish(root: Path, version: str) -> dict[str, str]:
    """Serve a package under its own name, and as the marketplace does under its identifier."""
    content = package.make(version)
    identifier = package.read(content).identifier
    name = f"langgenius-ollama_{version}.difypkg"
    (root / "langgenius" / name).write_bytes(content)
    target = root / MARKETPLACE / "plugins/download" / identifier
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)
    return {
        "path": f"langgenius/{name}",
        "sha256": hashlib.sha256(content).hexdigest(),
        "identifier": identifier,
    }
