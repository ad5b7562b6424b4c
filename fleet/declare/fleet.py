"""The hosts of an inventory, with the settings that are declared for each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from fleet.declare.settings import Settings
from fleet.kit.footprint import Trace, without
from fleet.kit.secrets import SecretStore

if TYPE_CHECKING:
    from fleet.declare.capability import Capability, Grant, Server, Service
    from fleet.kit.places import Directory

# Where the product's files are, in a checkout or installed; `project.py` tells the operator's.
PRODUCT_ROOT = Path(__file__).resolve().parents[2]

_Settings = TypeVar("_Settings", bound=Settings)


@dataclass(frozen=True)
class Endpoint:
    """A TCP address of a service."""

    address: str
    port: int

    @property
    def host(self) -> str:
        """The address as a URL has it: with brackets around IPv6."""
        return f"[{self.address}]" if ":" in self.address else self.address

    def __str__(self) -> str:
        """`address:port`, with brackets around IPv6."""
        return f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Url:
    """Where a service is asked; paths follow."""

    scheme: Literal["http", "https"]
    endpoint: Endpoint

    def __str__(self) -> str:
        """`https://address:port`, without a slash at the end."""
        return f"{self.scheme}://{self.endpoint}"


class FleetHost:
    """One host and what is declared for it.

    `host[Gateway].port` is a setting: settings are found by their class. `outside_address` is where
    the machine that deploys reaches the host. Files that its settings name are relative to `root`,
    its fleet's.
    """

    root = PRODUCT_ROOT

    def __init__(
        self,
        name: str,
        groups: frozenset[str],
        outside_address: str,
        settings: Iterable[Settings],
        runs: frozenset[type[Settings]],
    ) -> None:
        self.name = name
        self.groups = groups
        self.outside_address = outside_address
        self._settings: Mapping[type[Settings], Settings] = {type(item): item for item in settings}
        self._runs = runs

    def __getitem__(self, kind: type[_Settings]) -> _Settings:
        """The host's settings of one capability; KeyError when `kind` is no capability's."""
        found = self._settings[kind]
        assert isinstance(found, kind)
        return found

    def runs(self, kind: type[Settings]) -> bool:
        """Whether the host has the capability whose settings are `kind`."""
        return kind in self._runs


class Fleet:
    """Every host of an inventory; iterates over `FleetHost`.

    Files that settings name are relative to `root`.
    """

    def __init__(
        self,
        hosts: Iterable[FleetHost],
        capabilities: tuple[Capability, ...],
        secrets: SecretStore,
        root: Path,
    ) -> None:
        self._hosts = {host.name: host for host in hosts}
        self.capabilities = capabilities
        self.secrets = secrets
        self.root = root
        for host in self:
            host.root = root

    def __iter__(self) -> Iterator[FleetHost]:
        """Iterate in the inventory's order."""
        return iter(self._hosts.values())

    def __getitem__(self, name: str) -> FleetHost:
        """The host `name`; KeyError when the inventory has no such host."""
        return self._hosts[name]

    def running(self, kind: type[Settings]) -> tuple[FleetHost, ...]:
        """The hosts that have the capability whose settings are `kind`."""
        return tuple(host for host in self if host.runs(kind))

    def capabilities_of(self, host: FleetHost) -> tuple[Capability, ...]:
        """What `host` has, in the order of the list."""
        return tuple(item for item in self.capabilities if host.runs(item.settings))

    @cached_property
    def _calling(self) -> tuple[FleetHost, ...]:
        """The hosts that send requests to servers: each host asks for them, and they are few."""
        return tuple(
            host for host in self if any(item.calls_servers for item in self.capabilities_of(host))
        )

    def keeps_secrets(self, host: FleetHost) -> bool:
        """Whether `host` holds secrets of the store."""
        return any(item.keeps_secrets for item in self.capabilities_of(host))

    def services(self, host: FleetHost) -> tuple[Service, ...]:
        """Every port that `host` answers on."""
        return tuple(
            service for item in self.capabilities_of(host) for service in item.services(host, self)
        )

    def grants(self, host: FleetHost) -> tuple[Grant, ...]:
        """Every call that containers of `host` may make to the host itself."""
        return tuple(
            grant for item in self.capabilities_of(host) for grant in item.grants(host, self)
        )

    def directories(self, host: FleetHost) -> tuple[Directory, ...]:
        """Where everything on `host` keeps its data."""
        return tuple(
            directory for item in self.capabilities_of(host) for directory in item.directories(host)
        )

    def urls(self, host: FleetHost) -> tuple[tuple[str, str], ...]:
        """What people open or call on `host`: what it is, and its URL."""
        return tuple(url for item in self.capabilities_of(host) for url in item.urls(host, self))

    def footprints(self, host: FleetHost) -> list[tuple[Trace, ...]]:
        """All that a deploy may have put on `host`, by capability, what came last first."""
        return [tuple(item.footprint(host)) for item in reversed(self.capabilities)]

    def forgone(self, host: FleetHost) -> list[tuple[Trace, ...]]:
        """What is of capabilities that `host` has not, or switched off, and of no other."""
        has = [item for item in self.capabilities_of(host) if not item.is_off(host)]
        kept = [trace for item in has for trace in item.footprint(host)]
        return [
            without(item.footprint(host), kept)
            for item in reversed(self.capabilities)
            if item not in has
        ]

    def servers(self) -> tuple[Server, ...]:
        """Every inference server, in the inventory's order."""
        found = (
            server
            for host in self
            for item in self.capabilities_of(host)
            for server in item.servers(host)
        )
        # What is not ours is told by each host that calls it.
        return tuple({server.name: server for server in found}.values())

    def callers(self, host: FleetHost) -> tuple[FleetHost, ...]:
        """The other hosts that send requests to the inference servers of `host`."""
        return tuple(other for other in self._calling if other.name != host.name)
