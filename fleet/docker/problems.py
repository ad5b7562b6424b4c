"""What of Docker's settings would have no effect."""

from __future__ import annotations

from collections.abc import Iterator

from fleet.declare.fleet import Fleet, FleetHost
from fleet.docker.settings import Docker


def problems(host: FleetHost, _: Fleet) -> Iterator[str]:
    """Versions that are declared of a Docker that has one only."""
    if host[Docker].source == "distribution":
        unused = {"version", "containerd_version", "compose_version"}
        idle = sorted(f"docker_{name}" for name in host[Docker].model_fields_set & unused)
        if idle:
            yield (
                f"{host.name}: {', '.join(idle)}: the distribution has one version only; leave it "
                "out, or set docker_source = 'docker'"
            )
