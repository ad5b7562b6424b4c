"""Manifests, as a registry sends them and as they lie on a disk."""

from __future__ import annotations

import hashlib
import urllib.request
from pathlib import Path

from outside import parsed, read_all, read_file
from registry import MANIFEST, MANIFEST_LIMIT, MANIFEST_TYPE


class Manifest:
    """A manifest as a registry sent it, or as it lies on a disk.

    `digest` is the manifest's own, without `sha256:`; `blobs` is digest to bytes.

    Raises:
        FormError: `content` is none.
    """

    def __init__(self, content: bytes) -> None:
        value = parsed(content, MANIFEST, "the manifest")
        self.content = content
        self.digest = hashlib.sha256(content).hexdigest()
        layers = [*value["layers"], *([value["config"]] if value.get("config") else [])]
        self.blobs: dict[str, int] = {layer["digest"]: layer["size"] for layer in layers}
        self._types = [(layer["digest"], layer["mediaType"]) for layer in value["layers"]]

    @property
    def size(self) -> int:
        """Bytes of all blobs."""
        return sum(self.blobs.values())

    def layers_of(self, media_type: str) -> set[str]:
        """Digests of the layers of one type."""
        return {digest for digest, kind in self._types if kind == media_type}


def read_manifest(path: Path) -> Manifest:
    """The manifest in the file `path`.

    Raises:
        FormError: it is none.
        OSError: it cannot be read.
    """
    return Manifest(read_file(path, MANIFEST_LIMIT))


def ask_manifest(url: str, timeout: float) -> Manifest:
    """The manifest at `url`; `timeout` in seconds, for each word and for the whole answer.

    Raises:
        urllib.error.HTTPError: the registry refuses; its `code` says why.
        OSError, http.client.HTTPException: there is no answer.
        FormError: the answer is no manifest.
    """
    request = urllib.request.Request(url, headers={"Accept": MANIFEST_TYPE})  # noqa: S310
    with urllib.request.urlopen(request, timeout=timeout) as answer:  # noqa: S310
        return Manifest(read_all(answer, MANIFEST_LIMIT, timeout))
