"""What is declared, as nft rules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Literal

from fleet.declare.capability import Grant
from fleet.declare.fleet import Endpoint, Fleet, FleetHost
from fleet.declare.types import AnyNetwork
from fleet.firewall.settings import PROTOCOLS, Firewall

# Accounts of the distribution and of packages: what people log in as begins behind them.
_LAST_SYSTEM_ACCOUNT = 999


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
    transport: Literal["tcp", "udp"] = "tcp"

    def __str__(self) -> str:
        """The rule in nft's language."""
        match = f"{self.transport} dport"
        if self.published:
            match = f"meta l4proto {self.transport} ct original proto-dst"
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


def protocol_rules(me: FleetHost) -> Iterator[str]:
    """What may come in beside TCP and UDP, in nft's language."""
    for name in me[Firewall].open_protocols:
        yield f'meta l4proto {PROTOCOLS[name]} accept comment "declared {name}"'


def forward_rules(me: FleetHost) -> Iterator[str]:
    """Which ways through the host are declared, in nft's language."""
    for way in me[Firewall].forward:
        names = (("iifname", way.incoming), ("oifname", way.outgoing))
        match = [f'{word} "{name}"' for word, name in names if name != "*"]
        yield " ".join([*match, 'accept comment "declared way"'])


@dataclass(frozen=True)
class Reserved:
    """An inference server that a gateway's host may call, and the accounts there that may.

    `accounts` is nft's set of user IDs or names. `own` is a server of this very host.
    """

    endpoint: Endpoint
    accounts: str
    own: bool

    @property
    def destination(self) -> str:
        """nft's match of the server, by what was asked for: Docker translates its own."""
        family = f"ip{ip_address(self.endpoint.address).version}".removesuffix("4")
        return (
            f"meta l4proto tcp ct original {family} daddr {self.endpoint.address} "
            f"ct original proto-dst {self.endpoint.port}"
        )


def reserved(me: FleetHost, fleet: Fleet) -> list[Reserved]:
    """The inference servers that only whoever is declared to call them from `me` may call.

    They have no authentication and trust a gateway's address, which every process there has. The
    host's own servers are called by its packages' accounts, too: the server's own and the loader's.
    """
    callers = [item.calls_servers for item in fleet.capabilities_of(me) if item.calls_servers]
    if not callers:
        return []
    own, others = f"0-{_LAST_SYSTEM_ACCOUNT}", f"{{ {', '.join(['root', *callers])} }}"
    return [
        Reserved(item.endpoint, own if item.host is me else others, item.host is me)
        for item in fleet.servers()
        # What is not ours has a key of its own.
        if item.ours and (item.host is me or not ip_address(item.endpoint.address).is_loopback)
    ]


def _declared(me: FleetHost, *, published: bool = False) -> Iterator[Rule]:
    for port in me[Firewall].open_tcp:
        yield Rule(port, "declared", published=published)
    for port in me[Firewall].open_udp:
        yield Rule(port, "declared", published=published, transport="udp")
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
