"""What follows from the container toolkit's settings."""

from __future__ import annotations

from fleet.container_toolkit.settings import ContainerToolkit
from fleet.declare.fleet import FleetHost
from fleet.docker.settings import Docker


def is_off(me: FleetHost) -> bool:
    """Whether `me` is to have no toolkit, whatever GPUs it has."""
    return not me[ContainerToolkit].enabled or not me.runs(Docker)
