"""What follows from Docker's settings."""

from __future__ import annotations

from collections.abc import Iterator

from fleet.declare.fleet import FleetHost
from fleet.docker.paths import DOCKER_ROOT
from fleet.docker.settings import Docker
from fleet.kit.places import Directory


def directories(host: FleetHost) -> Iterator[Directory]:
    """Where images, containers and volumes are."""
    declared = host[Docker].data_root
    yield Directory("docker_data_root" if declared else DOCKER_ROOT, declared or DOCKER_ROOT)
