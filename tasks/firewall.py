"""The host's own walls: one nftables table, closed by default, open for what is declared."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network, IPv6Network, ip_network

from pyinfra.api import StringCommand, deploy
from pyinfra.operations import files

from fleet import paths
from fleet.inventory import Fleet, FleetHost
from fleet.operations.commands import verify_unit
from fleet.operations.files import ManagedFile, install_files
from fleet.operations.firewall import apply_ruleset, remove_ruleset
from fleet.operations.packages import install_packages
from fleet.operations.units import run_unit, stop_unit
from fleet.render import render

Network = IPv4Network | IPv6Network


@deploy("Firewall")
def firewall(me: FleetHost, fleet: Fleet) -> None:
    """Close the host but for sshd, the front door and, from the gateways, Ollama."""
    if not me.firewall.enabled:
        stop_unit(name="Stop the firewall unit", unit=paths.FIREWALL_UNIT)
        remove_ruleset(
            name="Remove our table", table=paths.FIREWALL_TABLE, path=paths.FIREWALL_RULESET
        )
        files.file(name="Remove the ruleset", path=paths.FIREWALL_RULESET, present=False)
        files.file(name="Remove the unit", path=paths.FIREWALL_UNIT_FILE, present=False)
        return
    install_packages(name="Install nftables", packages=["nftables"])
    ruleset, unit = managed_files(me, fleet)
    install_files(
        name="Install the ruleset",
        files=[ruleset],
        check=StringCommand("nft -c -f", ruleset.staged_name),
    )
    install_files(
        name="Install the unit",
        files=[unit],
        check=verify_unit(unit.staged_name),
    )
    # The ruleset is compared with the kernel's below, so the unit restarts for its own file only.
    run_unit(
        name="Load the ruleset now and at boot",
        unit=paths.FIREWALL_UNIT,
        files=[paths.FIREWALL_UNIT_FILE],
    )
    apply_ruleset(
        name="Apply the ruleset",
        table=paths.FIREWALL_TABLE,
        path=paths.FIREWALL_RULESET,
        unit=paths.FIREWALL_UNIT,
    )


def managed_files(me: FleetHost, fleet: Fleet) -> tuple[ManagedFile, ManagedFile]:
    """The ruleset and the unit that loads it."""
    ruleset = render(
        "firewall/firewall.nft.j2", table=paths.FIREWALL_TABLE, rules=list(accept_rules(me, fleet))
    )
    unit = render("firewall/llm-fleet-firewall.service.j2", ruleset=paths.FIREWALL_RULESET)
    return (
        ManagedFile(paths.FIREWALL_RULESET, ruleset, mode="600"),
        ManagedFile(paths.FIREWALL_UNIT_FILE, unit),
    )


def accept_rules(me: FleetHost, fleet: Fleet) -> Iterator[str]:
    """What may come in, as nft rules."""
    yield from _accept(me.host.ssh_port, me.firewall.ssh_from, "ssh")
    if me.is_gateway and me.gateway.listen != "loopback":
        yield from _accept(me.gateway.port, me.gateway.allow_from, "front door")
    for endpoint, sources in me.gateway_openings:
        yield from _accept(endpoint.port, sources, "gateway")
    if me.is_gpu and me.ollama.listen == "private":
        addresses = [
            ip_network(gateway.host.private_address)
            for gateway in fleet.gateways
            if gateway.host.private_address is not None and gateway.name != me.name
        ]
        yield from _accept(me.ollama.port, addresses, "ollama, from the gateways")
    for port in me.firewall.open_tcp:
        yield f'tcp dport {port} accept comment "declared"'


def _accept(port: int, sources: Iterable[Network], comment: str) -> Iterator[str]:
    for family, version in (("ip", 4), ("ip6", 6)):
        networks = [network for network in sources if network.version == version]
        if not networks:
            continue
        if any(network.prefixlen == 0 for network in networks):
            source = f"meta nfproto ipv{version}"
        else:
            listed = ", ".join(str(network) for network in sorted(set(networks)))
            source = f"{family} saddr {{ {listed} }}"
        yield f'{source} tcp dport {port} accept comment "{comment}"'
