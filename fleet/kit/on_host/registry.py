"""Where container registries keep manifests and blobs; Ollama's and its mirrors speak the same.

A manifest names blobs by their digests, `sha256:` and 64 hexadecimal digits. Product code reads it
too: see `common.py`.
"""

from __future__ import annotations

import re
from typing import Any

MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
MANIFEST_LIMIT = 4 << 20  # bytes; registries take none that is larger

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_LAYER = {"digest": DIGEST, "size": int, "mediaType": str}
MANIFEST: dict[str, Any] = {"layers": [_LAYER], "config?": _LAYER}  # a form of `outside.py`


def manifest_url(host: str, repository: str, tag: str, *, insecure: bool) -> str:
    """Where the registry at `host` keeps the manifest of `repository:tag`."""
    return f"http{'' if insecure else 's'}://{host}/v2/{repository}/manifests/{tag}"


def blob_url(host: str, repository: str, digest: str, *, insecure: bool) -> str:
    """Where the registry at `host` keeps the blob `digest` of `repository`."""
    return f"http{'' if insecure else 's'}://{host}/v2/{repository}/blobs/{digest}"
