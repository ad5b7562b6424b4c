"""Everything that is fetched, pinned by version and checksum; a bump touches this file only."""

from __future__ import annotations

OLLAMA_VERSION = "0.32.7"

# (version, architecture) -> SHA-256 of ollama-linux-<architecture>.tar.zst.
OLLAMA_SHA256: dict[tuple[str, str], str] = {
    ("0.32.7", "amd64"): "ed1e39fe8fea90bd7f4c723bd949a2cea3153e111220ec0a183ea5b8dc8b2cae",
    ("0.32.7", "arm64"): "413cb50f2fd201b65e17e563c082607bc0ade60d700132c563c7a1c0cd529fde",
}

# Distribution's folder in NVIDIA's repository -> fingerprint of the key that signs its index.
# debian13 and ubuntu2604 have a key each, "Kitmaker (Ubuntu 26.04) <kitmaker@nvidia.com>" the
# latter (as four public repositories state it). The rest share that of cudatools@nvidia.com.
NVIDIA_FINGERPRINTS: dict[str, str] = {
    "ubuntu2204": "EB693B3035CD5710E231E123A4B469963BF863CC",
    "ubuntu2404": "EB693B3035CD5710E231E123A4B469963BF863CC",
    "ubuntu2604": "14BAFBC7562AD710CA04E69905FBB6DA60DF8A40",
    "debian12": "EB693B3035CD5710E231E123A4B469963BF863CC",
    "debian13": "02182E60104FCDC26EAE1B8597A5D4CB8793F200",
}
# The key is published as <end of the fingerprint>.pub; here in capitals.
NVIDIA_UPPER_CASE_KEYS = frozenset({"debian13", "ubuntu2604"})

# One set that others run together; on Debian 12 and 13, Ubuntu 22.04, 24.04 and 26.04.
DOCKER_VERSION = "29.7.2"
CONTAINERD_VERSION = "2.3.3"
COMPOSE_VERSION = "5.5.0"
# Docker Release (CE deb) <docker@docker.com>
DOCKER_KEY = "9DC858229FC7DD38854AE2D88D81803C0EBFCD88"

TOOLKIT_VERSION = "1.20.0-1"
# NVIDIA CORPORATION (Open Source Projects) <cudatools@nvidia.com>
TOOLKIT_KEY = "C95B321B61E88C1809C4F759DDCAE044F796ECB0"

# The release whose compose file this project was written against. Its tarball's checksum is
# declared with it: the operator takes it from where they trust it.
DIFY_VERSION = "1.16.1"
