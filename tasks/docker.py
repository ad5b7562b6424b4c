"""Docker Engine and Compose, at pinned versions or the distribution's, with our keys merged in."""

from __future__ import annotations

from pyinfra import host
from pyinfra.api import deploy
from pyinfra.facts.server import LinuxDistribution

from fleet.declare.fleet import Fleet, FleetHost
from fleet.docker.operations import install_daemon_config, keep_containers, set_members
from fleet.docker.packages import (
    CE_ONLY,
    DISTRIBUTION_ONLY,
    LEAST_COMPOSE,
    compose_package,
    repository,
    versions,
)
from fleet.docker.paths import DOCKER_BINARIES, DOCKER_CONFIG, DOCKER_UNIT
from fleet.docker.preflight import UNIT_PATTERNS, refuse_snap
from fleet.docker.settings import Docker, docker_configuration
from fleet.kit.facts.foreign import ForeignFiles
from fleet.kit.packages import install_at_least, install_packages, install_versions
from fleet.kit.repositories import forget_repository, trust_repository
from fleet.kit.units import run_unit, unmask_unit
from fleet.serving.operations import roll_docker


@deploy("Docker")
def docker(me: FleetHost, fleet: Fleet) -> None:
    """Run Docker as declared; containers go on through every restart.

    Raises:
        FleetError: there is a snap of Docker, or the distribution's own Compose is too old.
    """
    refuse_snap(me, host.get_fact(ForeignFiles, patterns=UNIT_PATTERNS))
    release = host.get_fact(LinuxDistribution)["release_meta"]
    if me[Docker].source == "docker":
        _install_from_docker(me, release)
    else:
        _install_from_distribution(me, release)
    # Of a masked unit nobody knows the command line, which judges the configuration.
    unmask_unit(name="Take a mask away that was left", unit=DOCKER_UNIT)
    install_daemon_config(name="Merge the configuration", declared=docker_configuration(me[Docker]))
    if me[Docker].live_restore:
        keep_containers(name="Keep containers through the restart")
    roll_docker(name="Restart Docker in turn, where it has servers", me=me, fleet=fleet)
    run_unit(
        name="Run Docker as declared",
        unit=DOCKER_UNIT,
        files=[DOCKER_CONFIG, *DOCKER_BINARIES],
    )
    set_members(name="Set the group's members", group="docker", users=list(me[Docker].users))


def _install_from_docker(me: FleetHost, release: dict[str, str]) -> None:
    install_packages(name="Install tools", packages=["ca-certificates", "gpg"])
    trust_repository(name="Trust Docker's repository", repository=repository(me, release))
    # Masked: the first start is with our configuration, and a later one is ours to time.
    install_versions(
        name=f"Install Docker {me[Docker].version}",
        versions=versions(me),
        instead_of=DISTRIBUTION_ONLY,
        masked_unit=DOCKER_UNIT,
    )


def _install_from_distribution(me: FleetHost, release: dict[str, str]) -> None:
    compose = compose_package(me, release)
    forget_repository(name="Forget Docker's repository", repository=repository(me, release))
    install_at_least(
        name="Install the distribution's Docker",
        package=compose,
        least=LEAST_COMPOSE,
        also=["docker.io", *(["docker-cli"] if compose == "docker-compose" else [])],
        instead_of=CE_ONLY,
        masked_unit=DOCKER_UNIT,
    )
