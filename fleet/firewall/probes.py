"""Who has to reach what of a host, by way of example: what other packet filters are judged by."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Literal

from fleet.declare.capability import Service
from fleet.declare.fleet import Endpoint, Fleet, FleetHost
from fleet.declare.types import AnyNetwork
from fleet.firewall.settings import Firewall

# Of a service's callers so many networks are tried: each is a caller of its own.
_MOST_CALLERS = 8
# Somebody in the world; nothing is sent there.
_ANYBODY = {4: ip_address("1.1.1.1"), 6: ip_address("2606:4700:4700::1111")}
_EVERYBODY = (ip_network("0.0.0.0/0"), ip_network("::/0"))


@dataclass(frozen=True)
class Probe:
    """A connection that is declared to be possible.

    `setting` opens it, for a service of the fleet's where it is `ours`. Without `address`, it is
    whichever of the host's `source` would call. What a container has published is reached on
    another `way` than what the host itself listens on.
    """

    setting: str
    source: IPv4Address | IPv6Address
    address: str
    port: int
    way: Literal["input", "forward"] = "input"
    ours: bool = True

    def __str__(self) -> str:
        """As the program on the host takes it."""
        return f"{self.source},{self.address},{self.port},{self.way}"


def probes(
    me: FleetHost, fleet: Fleet, login: IPv4Address | IPv6Address | None
) -> tuple[Probe, ...]:
    """What has to be possible; `login` is a caller that there surely is."""
    found = [probe for service in fleet.services(me) for probe in _of_service(service, login)]
    found += [
        Probe("firewall_open_tcp", _caller(network, login), "", port, ours=False)
        for port in me[Firewall].open_tcp
        for network in _EVERYBODY
    ]
    return tuple(dict.fromkeys(found))


def bridges(me: FleetHost) -> list[str]:
    """Names of interfaces with containers behind them, one for each that is declared."""
    return [name.replace("*", "llm") for name in me[Firewall].container_interfaces]


def _of_service(service: Service, login: IPv4Address | IPv6Address | None) -> Iterator[Probe]:
    for endpoint in service.endpoints:
        address = _address(service, endpoint)
        for network in service.callers[:_MOST_CALLERS]:
            if address and ip_address(address).version != network.version:
                continue
            if service.published and network.version == 6:
                continue  # Docker's own proxy has them, or its networks have addresses of their own
            yield Probe(
                service.setting,
                _caller(network, login),
                address,
                service.port,
                "forward" if service.published else "input",
            )


def _address(service: Service, endpoint: Endpoint) -> str:
    """The very address that is listened on; empty for any, and for what is not ours to know."""
    if not service.ours or ip_address(endpoint.address).is_unspecified:
        return ""
    return endpoint.address


def _caller(
    network: AnyNetwork, login: IPv4Address | IPv6Address | None
) -> IPv4Address | IPv6Address:
    if login is not None and login in network:
        return login
    if network.prefixlen == 0:
        return _ANYBODY[network.version]
    return network[1] if network.num_addresses > 1 else network[0]
