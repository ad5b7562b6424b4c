"""What of a host's addresses cannot work."""

from __future__ import annotations

from collections.abc import Iterator

from fleet.declare.fleet import Fleet, FleetHost
from fleet.platform.declared import is_unusable
from fleet.platform.settings import Platform


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
