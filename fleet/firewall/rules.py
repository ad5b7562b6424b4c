"""What is declared, as nft rules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from fleet.declare.capability import Grant
from fleet.declare.fleet import Fleet, FleetHost
from fleet.declare.types import AnyNetwork
from fleet.firewall.settings import Firewall


@dataclass(frozen=True)
class Rule:
    """A port that may be reached; its text is nft's.

    `source` is nft's match of who may; empty is everybody. A `published` port is a container's,
    known by the port that was asked for.
    """

    port: int
    comment: str
    source: str = ""
    published: bool = False

    def __str__(self) -> str:
        """The rule in nft's language."""
        match = "meta l4proto tcp ct original proto-dst" if self.published else "tcp dport"
        return f'{self.source} {match} {self.port} accept comment "{self.comment}"'.lstrip()


def accept_rules(me: FleetHost, fleet: Fleet) -> Iterator[Rule]:
    """What may come in.

    Published ports are among it: over IPv6 Docker's own proxy has them, and that is input.
    """
    for service in fleet.services(me):
        yield from _from_networks(service.port, service.comment, service.callers)
    for grant in fleet.grants(me):
        yield _granted(grant)
    yield from _declared(me)


def published_rules(me: FleetHost, fleet: Fleet) -> Iterator[Rule]:
    """Which published ports of containers may be reached."""
    for service in fleet.services(me):
        if service.published:
            yield from _from_networks(service.port, service.comment, service.callers, True)
    for grant in fleet.grants(me):
        if grant.published:
            yield _granted(grant, published=True)
    yield from _declared(me, published=True)


def open_ports(me: FleetHost, fleet: Fleet) -> set[int]:
    """The ports that others than the host's own containers may reach."""
    told = {service.port for service in fleet.services(me) if service.callers}
    return told | set(me[Firewall].open_tcp)


def _declared(me: FleetHost, *, published: bool = False) -> Iterator[Rule]:
    for port in me[Firewall].open_tcp:
        yield Rule(port, "declared", published=published)
    for port in me[Firewall].open_to_containers:
        for name in me[Firewall].container_interfaces:
            yield Rule(port, "containers", f'iifname "{name}"', published)


def _granted(grant: Grant, *, published: bool = False) -> Rule:
    source = f" ip saddr {grant.source}" if grant.source else ""
    return Rule(grant.port, grant.comment, f'iifname "{grant.bridge}"{source}', published)


def _from_networks(
    port: int, comment: str, sources: Iterable[AnyNetwork], published: bool = False
) -> Iterator[Rule]:
    for family, version in (("ip", 4), ("ip6", 6)):
        networks = [network for network in sources if network.version == version]
        if not networks:
            continue
        if any(network.prefixlen == 0 for network in networks):
            source = f"meta nfproto ipv{version}"
        else:
            listed = ", ".join(str(network) for network in sorted(set(networks)))
            source = f"{family} saddr {{ {listed} }}"
        yield Rule(port, comment, source, published)
