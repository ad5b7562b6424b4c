"""What of Ollama's settings cannot work."""

from __future__ import annotations

from collections.abc import Iterator

from fleet import pins
from fleet.container_toolkit.settings import ContainerToolkit
from fleet.declare.fleet import Fleet, FleetHost
from fleet.docker.settings import Docker
from fleet.ollama.models import full_name
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
    yield from _shared_out(host)
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


def _shared_out(host: FleetHost) -> Iterator[str]:
    """Models that an instance serves and the host does not have, and those that none serves."""
    declared = host[Ollama].model_names
    for item in host[Ollama].instances:
        names = [full_name(name) for name in item.models or ()]
        for place, name in enumerate(item.models or ()):
            if full_name(name) not in map(full_name, declared):
                yield (
                    f"{host.name}: ollama_instances: {item.name}: models: {name!r} is none of "
                    f"ollama_models; there are {', '.join(declared)}"
                )
            elif full_name(name) in names[:place]:
                yield (
                    f"{host.name}: ollama_instances: {item.name}: models: {name!r} is there twice; "
                    "keep one"
                )
    for model in host[Ollama].models if host[Ollama].instances else ():
        if not any(item.serves(model) for item in host[Ollama].instances):
            yield (
                f"{host.name}: ollama_models: {model.name!r} is served by none of "
                "ollama_instances, which all have `models` without it; add it to one, or leave it "
                "out (the base of another is pulled without being declared)"
            )
