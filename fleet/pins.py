"""Everything that is fetched, pinned by version and checksum; a bump touches this file only."""

from __future__ import annotations

OLLAMA_VERSION = "0.32.7"

# (version, architecture) -> SHA-256 of ollama-linux-<architecture>.tar.zst.
OLLAMA_SHA256: dict[tuple[str, str], str] = {
    ("0.32.7", "amd64"): "ed1e39fe8fea90bd7f4c723bd949a2cea3153e111220ec0a183ea5b8dc8b2cae",
    ("0.32.7", "arm64"): "413cb50f2fd201b65e17e563c082607bc0ade60d700132c563c7a1c0cd529fde",
}
