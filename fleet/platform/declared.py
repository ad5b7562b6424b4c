"""Where a host listens, and what addresses cannot work."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address

from fleet.declare.fleet import Endpoint, Fleet, FleetHost
from fleet.declare.types import Listen
from fleet.platform.settings import Platform


def endpoint(host: FleetHost, listen: Listen, port: int) -> Endpoint:
    """Where a service of `host` listens that is declared `loopback` or `private`."""
    private = host[Platform].private_address
    return Endpoint("127.0.0.1" if listen == "loopback" else str(private), port)


def is_unusable(address: IPv4Address | IPv6Address) -> bool:
    """Whether `address` cannot be a host's address inside the fleet."""
    return (
        address.is_global or address.is_unspecified or address.is_loopback or address.is_link_local
    )


def problems(host: FleetHost, fleet: Fleet) -> Iterator[str]:
    """A private address that is missing, public, or another host's, too."""
    address = host[Platform].private_address
    needed_by = [item.private for item in fleet.services(host) if item.private]
    if needed_by and address is None:
        yield (
            f"{host.name}: {needed_by[0]} = 'private' needs private_address; declare it for this "
            "host"
        )
    if address is not None and is_unusable(address):
        yield (
            f"{host.name}: private_address = '{address}': not a private address; "
            "declare the one that the fleet uses inside, or gateway_listen = 'any' to be public"
        )
    sharing = [item.name for item in fleet if item[Platform].private_address == address]
    if address is not None and len(sharing) > 1 and sharing[0] == host.name:
        names = ", ".join(sharing)
        yield f"{names}: private_address = '{address}' is declared for {len(sharing)} hosts"
