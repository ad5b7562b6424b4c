"""Container images made and pushed without an engine: layers, configurations, manifests.

The same files give the same digests: members are sorted, and no time is later than `BUILT`.
"""

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

BUILT = 1784073600
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"
LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


@dataclass(frozen=True)
class Layer:
    """A compressed layer in a file, by its digest and by that of what is in it."""

    path: Path
    digest: str
    diff_id: str

    @property
    def size(self) -> int:
        """Bytes, compressed."""
        return self.path.stat().st_size


def layer_of_tree(root: Path, target: Path) -> Layer:
    """Pack a folder, with owners and modes, as a layer."""
    return _layer(target, ((path, str(path.relative_to(root))) for path in _walk(root)))


def layer_of_files(
    files: Mapping[str, tuple[Path | bytes, int]], folders: Mapping[str, int], target: Path
) -> Layer:
    """Pack single files and empty folders.

    `files` are paths in the image to contents and modes; `folders` are paths to owners.
    """
    with tarfile.open(target, "w") as archive:
        for name, owner in sorted(folders.items()):
            member = tarfile.TarInfo(name)
            member.type, member.mode, member.mtime = tarfile.DIRTYPE, 0o755, BUILT
            member.uid = member.gid = owner
            archive.addfile(member)
        for name, (source, mode) in sorted(files.items()):
            content = source if isinstance(source, bytes) else source.read_bytes()
            member = tarfile.TarInfo(name.lstrip("/"))
            member.size, member.mode, member.mtime = len(content), mode, BUILT
            archive.addfile(member, io.BytesIO(content))
    return _compressed(target)


def _walk(root: Path) -> Iterator[Path]:
    for path in sorted(root.iterdir()):
        yield path
        if path.is_dir() and not path.is_symlink():
            yield from _walk(path)


def _layer(target: Path, members: Iterator[tuple[Path, str]]) -> Layer:
    with tarfile.open(target, "w") as archive:
        for path, name in members:
            member = archive.gettarinfo(path, name)
            if member is None:  # a socket
                continue
            member.mtime = min(int(member.mtime), BUILT)
            member.uname = member.gname = ""
            if member.isreg():
                with path.open("rb") as content:
                    archive.addfile(member, content)
            else:
                archive.addfile(member)
    return _compressed(target)


def _compressed(target: Path) -> Layer:
    plain = target.with_name(target.name + ".tar")
    target.rename(plain)
    with plain.open("rb") as source:
        diff = hashlib.file_digest(source, "sha256").hexdigest()
        source.seek(0)
        with target.open("wb") as out, gzip.GzipFile("", "wb", 5, out, mtime=0) as packed:
            while block := source.read(1 << 20):
                packed.write(block)
    plain.unlink()
    return Layer(target, _digest_of(target), f"sha256:{diff}")


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def push(registry: str, name: str, layers: Sequence[Layer], config: Mapping[str, Any]) -> str:
    """Push an image to http://`registry` as `name` (``repository:tag``); its manifest's digest.

    Raises:
        requests.HTTPError: the registry does not take it.
    """
    repository, _, tag = name.rpartition(":")
    url = f"http://{registry}/v2/{repository}"
    for layer in layers:
        with layer.path.open("rb") as content:
            _push_blob(url, layer.digest, content)
    described = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "created": "2026-07-15T00:00:00Z",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
            "history": [{"created": "2026-07-15T00:00:00Z", "created_by": "lab"} for _ in layers],
        },
        sort_keys=True,
    ).encode()
    digest = f"sha256:{hashlib.sha256(described).hexdigest()}"
    _push_blob(url, digest, io.BytesIO(described))
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "size": len(described), "digest": digest},
        "layers": [
            {"mediaType": LAYER, "size": layer.size, "digest": layer.digest} for layer in layers
        ],
    }
    answer = requests.put(
        f"{url}/manifests/{tag}",
        data=json.dumps(manifest),
        headers={"Content-Type": MANIFEST},
        timeout=60,
    )
    answer.raise_for_status()
    return answer.headers["Docker-Content-Digest"]


def _push_blob(url: str, digest: str, content: Any) -> None:
    """Upload a blob; one that the registry has elsewhere is linked by its own knowledge of it."""
    if requests.head(f"{url}/blobs/{digest}", timeout=60).status_code == 200:
        return
    begun = requests.post(f"{url}/blobs/uploads/", timeout=60)
    begun.raise_for_status()
    place = begun.headers["Location"]
    answer = requests.put(
        place,
        params={"digest": digest},
        data=content,
        headers={"Content-Type": "application/octet-stream"},
        timeout=300,
    )
    answer.raise_for_status()
