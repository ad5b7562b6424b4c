"""Where a release of Ollama is fetched."""

from __future__ import annotations

from fleet.declare.fleet import FleetHost
from fleet.kit.errors import FleetError
from fleet.ollama.settings import Architecture, Ollama

_ARCHITECTURES: dict[str, Architecture] = {"x86_64": "amd64", "aarch64": "arm64"}


def release_source(me: FleetHost, machine: str) -> tuple[str, str]:
    """URL and SHA-256 of the release tarball for a host whose `uname -m` is `machine`.

    Raises:
        FleetError: no release, or no checksum, for this architecture.
    """
    arch = _ARCHITECTURES.get(machine)
    sha256 = me[Ollama].tarball_sha256(arch) if arch else None
    if sha256 is None:
        raise FleetError(
            f"{me.name}: no checksum for Ollama {me[Ollama].version} on {machine}; set "
            "ollama_sha256 for this host, or use an x86_64 or aarch64 host with a pinned version"
        )
    return f"{me[Ollama].release_url}/v{me[Ollama].version}/ollama-linux-{arch}.tar.zst", sha256
