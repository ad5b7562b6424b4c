"""Docker Engine and Compose, at pinned versions or the distribution's, with our keys merged in."""

from __future__ import annotations

from pyinfra import host
from pyinfra.api import deploy
from pyinfra.facts.server import LinuxDistribution

from fleet.declare.load import FleetHost
from fleet.declare.types import docker_configuration
from fleet.docker.operations import install_daemon_config, keep_containers, set_members
from fleet.kit import paths
from fleet.kit.apt import (
    AptRepository,
    forget_repository,
    install_at_least,
    install_versions,
    trust_repository,
)
from fleet.kit.errors import FleetError
from fleet.kit.packages import install_packages
from fleet.kit.units import run_unit, unmask_unit

LEAST_COMPOSE = "2.24"
CE_PACKAGES = ("docker-ce", "docker-ce-cli", "containerd.io", "docker-compose-plugin")
# All that Docker's own packages and the distributions' cannot have beside each other.
_CE_ONLY = [*CE_PACKAGES, "docker-buildx-plugin", "docker-ce-rootless-extras"]
_DISTRIBUTION_ONLY = [
    "docker.io", "docker-cli", "docker-compose", "docker-compose-v2", "docker-buildx",
    "containerd", "runc",
]  # fmt: skip
# The package that has Compose 2. Debian 12 has none: its docker-compose is 1.29.
_COMPOSE = {"debian 13": "docker-compose"} | dict.fromkeys(
    ("ubuntu 22.04", "ubuntu 24.04", "ubuntu 26.04"), "docker-compose-v2"
)


@deploy("Docker")
def docker(me: FleetHost) -> None:
    """Run Docker as declared; containers go on through every restart.

    Raises:
        FleetError: the distribution's own Compose is too old.
    """
    release = host.get_fact(LinuxDistribution)["release_meta"]
    if me.docker.source == "docker":
        _install_from_docker(me, release)
    else:
        _install_from_distribution(me, release)
    # Of a masked unit nobody knows the command line, which judges the configuration.
    unmask_unit(name="Take a mask away that was left", unit=paths.DOCKER_UNIT)
    install_daemon_config(name="Merge the configuration", declared=docker_configuration(me.docker))
    if me.docker.live_restore:
        keep_containers(name="Keep containers through the restart")
    run_unit(
        name="Run Docker as declared",
        unit=paths.DOCKER_UNIT,
        files=[paths.DOCKER_CONFIG, *paths.DOCKER_BINARIES],
        # Docker's unit allows three starts a minute.
        uncounted=True,
    )
    set_members(name="Set the group's members", group="docker", users=list(me.docker.users))


def _install_from_docker(me: FleetHost, release: dict[str, str]) -> None:
    install_packages(name="Install tools", packages=["ca-certificates", "gpg"])
    trust_repository(name="Trust Docker's repository", repository=repository(me, release))
    # Masked: the first start is with our configuration, and a later one is ours to time.
    install_versions(
        name=f"Install Docker {me.docker.version}",
        versions=versions(me),
        instead_of=_DISTRIBUTION_ONLY,
        masked_unit=paths.DOCKER_UNIT,
    )


def _install_from_distribution(me: FleetHost, release: dict[str, str]) -> None:
    compose = compose_package(me, release)
    forget_repository(name="Forget Docker's repository", repository=repository(me, release))
    install_at_least(
        name="Install the distribution's Docker",
        package=compose,
        least=LEAST_COMPOSE,
        also=["docker.io", *(["docker-cli"] if compose == "docker-compose" else [])],
        instead_of=_CE_ONLY,
        masked_unit=paths.DOCKER_UNIT,
    )


def repository(me: FleetHost, release: dict[str, str]) -> AptRepository:
    """Docker's own repository for a host whose os-release is `release`."""
    url = f"{me.docker.repository_url}/{release['ID']}"
    return AptRepository(
        name="docker",
        url=url,
        suites=release.get("VERSION_CODENAME", ""),
        components="stable",
        key=f"{url}/gpg",
        fingerprint=me.docker.repository_fingerprint,
        # What Docker's own instructions write, now and before.
        replaces=("docker.list", "docker.sources"),
    )


def versions(me: FleetHost) -> dict[str, str]:
    """Package to version; the rest of it names the distribution (`-1~debian.13~trixie`)."""
    return {
        "docker-ce": f"5:{me.docker.version}-*",
        "docker-ce-cli": f"5:{me.docker.version}-*",
        "containerd.io": f"{me.docker.containerd_version}-*",
        "docker-compose-plugin": f"{me.docker.compose_version}-*",
    }


def compose_package(me: FleetHost, release: dict[str, str]) -> str:
    """The distribution's package of Compose 2.

    Raises:
        FleetError: it has none.
    """
    name = f"{release['ID']} {release['VERSION_ID']}"
    if name not in _COMPOSE:
        raise FleetError(
            f"{me.name}: docker_source = 'distribution': {name} has no Compose of version "
            f"{LEAST_COMPOSE} or newer; set docker_source = 'docker' for this host"
        )
    return _COMPOSE[name]
