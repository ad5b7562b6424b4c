"""What of Ollama's settings cannot work."""

from __future__ import annotations

from collections.abc import Iterator

from fleet import pins
from fleet.container_toolkit.settings import ContainerToolkit
from fleet.declare.fleet import Fleet, FleetHost
from fleet.docker.settings import Docker
from fleet.ollama.servers import instances_of
from fleet.ollama.settings import Ollama


def problems(host: FleetHost, _: Fleet) -> Iterator[str]:
    """What of Ollama on `host` cannot work."""
    yield from _release_problems(host)
    yield from _instance_problems(host)


def _release_problems(host: FleetHost) -> Iterator[str]:
    pinned = {arch for version, arch in pins.OLLAMA_SHA256 if version == host[Ollama].version}
    if host[Ollama].sha256 is None and not pinned:
        versions = ", ".join(sorted({version for version, _ in pins.OLLAMA_SHA256}))
        yield (
            f"{host.name}: ollama_version = {host[Ollama].version!r}: no checksum; set "
            f"ollama_sha256 to the one in the release's sha256sum.txt, or use a pinned version "
            f"({versions})"
        )


def _instance_problems(host: FleetHost) -> Iterator[str]:
    if host[Ollama].instances and "port" in host[Ollama].model_fields_set:
        yield (
            f"{host.name}: ollama_port = {host[Ollama].port}: has no effect beside "
            "ollama_instances, whose own ports count; leave it out"
        )
    for item in instances_of(host):
        if item.runtime != "docker":
            continue
        if not host.runs(Docker):
            yield (
                f"{host.name}: ollama_instances: {item.name}: runtime = 'docker' needs Docker on "
                "this host; set docker_enabled = True"
            )
        if item.gpus and not host[ContainerToolkit].enabled:
            yield (
                f"{host.name}: toolkit_enabled = False: the container of {item.name} could not see "
                "a GPU; leave it out, or declare gpus = [] for that instance"
            )
