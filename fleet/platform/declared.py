"""Where a host listens, and what addresses cannot work."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address

from fleet.declare.fleet import Endpoint, FleetHost
from fleet.declare.types import Listen
from fleet.kit.paths import ETC
from fleet.kit.places import Directory
from fleet.platform.settings import Platform


def endpoint(host: FleetHost, listen: Listen, port: int) -> Endpoint:
    """Where a service of `host` listens that is declared `loopback` or `private`."""
    private = host[Platform].private_address
    return Endpoint("127.0.0.1" if listen == "loopback" else str(private), port)


def is_unusable(address: IPv4Address | IPv6Address) -> bool:
    """Whether `address` cannot be a host's address inside the fleet."""
    return (
        address.is_global
        or address.is_unspecified
        or address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_reserved
    )


def directories(_: FleetHost) -> Iterator[Directory]:
    """Where every capability keeps its settings."""
    yield Directory(ETC, ETC)
