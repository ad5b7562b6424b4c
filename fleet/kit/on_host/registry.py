"""Manifests as container registries serve them; Ollama's registry and its mirrors speak the same.

A manifest names blobs by their digests, `sha256:` and 64 hexadecimal digits.
"""

from __future__ import annotations

import hashlib
import json
import urllib.request

MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"


class Manifest:
    """A manifest as a registry sent it, or as it lies on a disk.

    `digest` is the manifest's own, without `sha256:`; `blobs` is digest to bytes.

    Raises:
        ValueError, KeyError, TypeError: `content` is none.
    """

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.digest = hashlib.sha256(content).hexdigest()
        value = json.loads(content)
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


def manifest_url(host: str, repository: str, tag: str, *, insecure: bool) -> str:
    """Where the registry at `host` keeps the manifest of `repository:tag`."""
    return f"http{'' if insecure else 's'}://{host}/v2/{repository}/manifests/{tag}"


def blob_url(host: str, repository: str, digest: str, *, insecure: bool) -> str:
    """Where the registry at `host` keeps the blob `digest` of `repository`."""
    return f"http{'' if insecure else 's'}://{host}/v2/{repository}/blobs/{digest}"


def ask_manifest(url: str, timeout: float) -> Manifest:
    """The manifest at `url`; `timeout` in seconds.

    Raises:
        urllib.error.HTTPError: the registry refuses; its `code` says why.
        urllib.error.URLError, TimeoutError: there is no answer.
        ValueError, KeyError, TypeError: the answer is no manifest.
    """
    request = urllib.request.Request(url, headers={"Accept": MANIFEST_TYPE})  # noqa: S310
    with urllib.request.urlopen(request, timeout=timeout) as answer:  # noqa: S310
        return Manifest(answer.read())
