"""Docker's packages: the repository's and the distribution's."""

from __future__ import annotations

from fleet.declare.fleet import FleetHost
from fleet.docker.settings import Docker
from fleet.kit.errors import FleetError
from fleet.kit.repositories import AptRepository

LEAST_COMPOSE = "2.24"
CE_PACKAGES = ("docker-ce", "docker-ce-cli", "containerd.io", "docker-compose-plugin")
# All that Docker's own packages and the distributions' cannot have beside each other.
CE_ONLY = [*CE_PACKAGES, "docker-buildx-plugin", "docker-ce-rootless-extras"]
DISTRIBUTION_ONLY = [
    "docker.io", "docker-cli", "docker-compose", "docker-compose-v2", "docker-buildx",
    "containerd", "runc",
]  # fmt: skip
# The package that has Compose 2. Debian 12 has none: its docker-compose is 1.29.
_COMPOSE = {("debian", "13"): "docker-compose"} | dict.fromkeys(
    [("ubuntu", release) for release in ("22.04", "24.04", "26.04")], "docker-compose-v2"
)


def repository(me: FleetHost, release: dict[str, str]) -> AptRepository:
    """Docker's own repository for a host whose os-release is `release`."""
    url = f"{me[Docker].repository_url}/{release['ID']}"
    return AptRepository(
        name="docker",
        url=url,
        suites=release.get("VERSION_CODENAME", ""),
        components="stable",
        key=f"{url}/gpg",
        fingerprint=me[Docker].repository_fingerprint,
        # What Docker's own instructions write, now and before.
        replaces=("docker.list", "docker.sources"),
    )


def versions(me: FleetHost) -> dict[str, str]:
    """Package to version; the rest of it names the distribution (`-1~debian.13~trixie`)."""
    return {
        "docker-ce": f"5:{me[Docker].version}-*",
        "docker-ce-cli": f"5:{me[Docker].version}-*",
        "containerd.io": f"{me[Docker].containerd_version}-*",
        "docker-compose-plugin": f"{me[Docker].compose_version}-*",
    }


def compose_package(me: FleetHost, release: dict[str, str]) -> str:
    """The distribution's package of Compose 2.

    Raises:
        FleetError: it has none.
    """
    system = (release["ID"], release["VERSION_ID"])
    if system not in _COMPOSE:
        raise FleetError(
            f"{me.name}: docker_source = 'distribution': {' '.join(system)} has no Compose of "
            f"version {LEAST_COMPOSE} or newer; set docker_source = 'docker' for this host"
        )
    return _COMPOSE[system]
