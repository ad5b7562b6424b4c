"""The Ollama servers of a host."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_network

from fleet.declare.capability import Server, Service
from fleet.declare.fleet import Endpoint, Fleet, FleetHost
from fleet.ollama.paths import OLLAMA_UNIT, ollama_container, ollama_instance_unit
from fleet.ollama.settings import ALL_GPUS, Gpus, Ollama, Runtime, ollama_environment
from fleet.platform.declared import endpoint
from fleet.platform.settings import Platform

# The APIs that Ollama speaks.
SURFACES = ("ollama", "openai", "anthropic")
# Its own and another instance's of before; units of that name that are not ours are refused.
HELD_BY = (OLLAMA_UNIT, ollama_instance_unit("*"), ollama_container("*"))


@dataclass(frozen=True)
class Instance:
    """One Ollama server of a host: the only one, or one of `ollama_instances`.

    `name` is None for the only one. `settings` are the host's, with what the instance has
    otherwise. `gpus` are as they are declared; the only server sees whatever the host has. `env` is
    its environment but for the GPUs, whose UUIDs the host alone knows: see `environment`.
    """

    name: str | None
    endpoint: Endpoint
    settings: Ollama
    gpus: Gpus
    shared_gpus: bool
    runtime: Runtime
    env: Mapping[str, str]

    @property
    def unit(self) -> str:
        """The systemd unit that runs it."""
        return ollama_instance_unit(self.name) if self.name else OLLAMA_UNIT

    @property
    def container(self) -> str | None:
        """What Docker calls its container, where it has one."""
        return ollama_container(self.name) if self.name and self.runtime == "docker" else None

    @property
    def url(self) -> str:
        """Its API, asked on its own host."""
        return f"http://{self.endpoint}"

    def environment(self, uuids: Iterable[str]) -> dict[str, str]:
        """The server's whole environment when its GPUs are those with `uuids`.

        CUDA takes -1 for no GPU at all. Where there is nothing to choose from, nothing is said.
        """
        if not self.name:
            return dict(self.env)
        visible = ",".join(uuids) or ("" if self.gpus == ALL_GPUS else "-1")
        return {**self.env, **({"CUDA_VISIBLE_DEVICES": visible} if visible else {})}


def instances_of(host: FleetHost) -> tuple[Instance, ...]:
    """The Ollama servers of the host: one without a name, or those of `ollama_instances`."""
    if not host.runs(Ollama):
        return ()
    declared = host[Ollama]
    if not declared.instances:
        return (_instance(host, None, declared, ALL_GPUS, False, "systemd"),)
    return tuple(
        _instance(host, item.name, declared.of(item), item.gpus, item.shared_gpus, item.runtime)
        for item in declared.instances
    )


def wants_gpus(host: FleetHost) -> bool:
    """Whether any server of the host is to have GPUs, where there are some."""
    return any(item.gpus != () for item in instances_of(host))


def _instance(  # noqa: PLR0913, PLR0917 - a field each
    host: FleetHost, name: str | None, settings: Ollama, gpus: Gpus, shared: bool, runtime: Runtime
) -> Instance:
    where = endpoint(host, settings.listen, settings.port)
    # A container has addresses of its own; Docker publishes the port on the declared one.
    address = where.address if runtime == "systemd" else "0.0.0.0"  # noqa: S104
    env = ollama_environment(settings, address)
    return Instance(name, where, settings, gpus, shared, runtime, env)


def ollama_endpoint(host: FleetHost) -> Endpoint:
    """Where Ollama's API listens: the first instance's, for what all of them share."""
    return instances_of(host)[0].endpoint


def services(host: FleetHost, fleet: Fleet) -> Iterator[Service]:
    """The API of each server; it has no authentication, so only gateways call it from outside."""
    private = host[Ollama].listen == "private"
    addresses = [item[Platform].private_address for item in fleet.callers(host)]
    callers = tuple(ip_network(item) for item in addresses if item is not None)
    for item in instances_of(host):
        yield Service(
            f"ollama_instances {item.name}" if item.name else "ollama_port",
            f"ollama {item.name}" if item.name else "ollama",
            (item.endpoint,),
            callers if private else (),
            "ollama, from the gateways",
            private="ollama_listen" if private else None,
            published=item.runtime == "docker",
            held_by=HELD_BY,
        )


def servers(host: FleetHost) -> Iterator[Server]:
    """Each Ollama server, as a gateway sees it."""
    for item in instances_of(host):
        # Instances have one disk, and so all models of the host.
        closed = item.settings.models != host[Ollama].models
        yield Server(host, item.name, item.endpoint, SURFACES, item.settings.model_names, closed)
