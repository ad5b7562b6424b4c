"""What of the container toolkit's settings would have no effect."""

from __future__ import annotations

from collections.abc import Iterator

from fleet.container_toolkit.settings import ContainerToolkit
from fleet.declare.fleet import Fleet, FleetHost
from fleet.docker.settings import Docker


def problems(host: FleetHost, _: Fleet) -> Iterator[str]:
    """A runtime for a Docker that is not there."""
    if host[ContainerToolkit].runtime and not host.runs(Docker):
        yield (
            f"{host.name}: toolkit_runtime = True: there is no Docker to register it with; set "
            "docker_enabled = True"
        )
