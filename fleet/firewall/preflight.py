"""Hosts whose packets somebody else filters, or whom our rules would shut out."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator

from fleet.declare.fleet import Fleet, FleetHost
from fleet.firewall.facts import Carrier, Filters, Login
from fleet.firewall.probes import Probe
from fleet.firewall.rules import accept_rules
from fleet.firewall.settings import Firewall
from fleet.kit.errors import FleetError
from fleet.platform.settings import Platform

_CANNOT = {
    "ufw": "it does not see the ports that Docker publishes",
    "firewalld": "it lets through every port that Docker publishes",
}
_TURN_OFF = {
    "ufw": "`ufw disable`",
    "firewalld": "`systemctl disable --now firewalld`",
}
# Kind of interface to the protocol that carries it; others are carried by UDP or TCP.
_CARRIED_BY = {
    "gre": "gre", "gretap": "gre", "erspan": "gre", "ip6gre": "gre", "ip6gretap": "gre",
    "ipip": "ipip", "sit": "6in4", "ip6tnl": "6in4", "vti": "esp", "vti6": "esp", "xfrm": "esp",
}  # fmt: skip


def refuse_other_firewalls(me: FleetHost, fleet: Fleet, active: list[str]) -> None:
    """Refuse a host that somebody else's firewall closes: a packet would need the leave of both.

    docs/decisions/0006-firewall.md has the reasons why none is managed from here.

    Raises:
        FleetError: `active` names one.
    """
    for name in active:
        rules = accept_rules(me, fleet)
        ports = ", ".join(str(port) for port in sorted({rule.port for rule in rules}))
        raise FleetError(
            f"{me.name}: {name} is in force here, and {_CANNOT[name]}; {_TURN_OFF[name]} to have "
            f"this project's own table instead, or keep it with firewall_backend = 'none' and open "
            f"TCP {ports} in it yourself"
        )


def refuse_lockout(me: FleetHost, login: Login | None) -> None:
    """Refuse rules that obviously exclude the connection that would apply them.

    What this cannot see, such as address translation on the way, the guard on the host undoes.

    Raises:
        FleetError: `login` would not be let in.
    """
    if login is None or login.port in me[Firewall].open_tcp:
        return
    if login.port != me[Platform].ssh_port:
        raise FleetError(
            f"{me.name}: ssh_port = {me[Platform].ssh_port}, but sshd took this connection on port "
            f"{login.port}, which the firewall would close; set ssh_port to it, or behind a "
            f"port forwarding add it to firewall_open_tcp"
        )
    if not any(login.source in network for network in me[Firewall].ssh_from):
        listed = [str(network) for network in me[Firewall].ssh_from]
        raise FleetError(
            f"{me.name}: firewall_ssh_from = {listed} would shut out this machine, which the host "
            f'sees as {login.source}; add "{login.source}" or its network'
        )


def refuse_closed_carrier(me: FleetHost, login: Login, carrier: Carrier | None) -> None:
    """Refuse rules that would close the tunnel through which `login` came.

    A tunnel whose ports are not known is left to the trial, under which it is closed at once.

    Raises:
        FleetError: what carries `carrier` is not open.
    """
    if carrier is None:
        return
    way = f"this login from {login.source} comes through {carrier.interface} ({carrier.kind})"
    protocol = _CARRIED_BY.get(carrier.kind)
    if protocol and protocol not in me[Firewall].open_protocols:
        raise FleetError(
            f"{me.name}: firewall_open_protocols = {list(me[Firewall].open_protocols)} would close "
            f'what {way} on; add "{protocol}"'
        )
    if carrier.ports and not set(carrier.ports) & set(me[Firewall].open_udp):
        port = carrier.ports[0]
        raise FleetError(
            f"{me.name}: firewall_open_udp = {list(me[Firewall].open_udp)} would close UDP {port}, "
            f"on which {way}: it would stay open until the next boot, and then be gone; add {port}"
        )


def refuse_open_uplinks(me: FleetHost, uplinks: list[str]) -> None:
    """Refuse patterns of container interfaces that match one that leads out of the host.

    Raises:
        FleetError: one does: the neighbours would be taken for containers.
    """
    for pattern in me[Firewall].container_interfaces:
        for name in uplinks:
            if fnmatch.fnmatchcase(name, pattern):
                raise FleetError(
                    f"{me.name}: firewall_container_interfaces holds '{pattern}', which {name} "
                    "matches, and that leads out of this host: its neighbours would be taken for "
                    "containers; list the exact names of the containers' interfaces instead"
                )


def refuse_closed_by_others(me: FleetHost, probes: Iterable[Probe], found: Filters) -> None:
    """Refuse a host where another packet filter closes a service of the fleet's.

    Raises:
        FleetError: one does.
    """
    if ours := closed_by_others(probes, found)[0]:
        raise FleetError(
            f"{me.name}: another packet filter here closes what is declared: {'; '.join(ours)}; "
            "remove the rule (and from where it is loaded at boot, such as /etc/iptables or "
            "/etc/nftables.conf), or let these callers through in it"
        )


def remarks(
    me: FleetHost, probes: Iterable[Probe], found: Filters, bridges: list[str]
) -> Iterator[str]:
    """What no host is refused for, and whoever deploys should know."""
    # Who may call what is not ours, another filter may well decide.
    for line in closed_by_others(probes, found)[1]:
        yield f"another packet filter closes {line}"
    for line in found.unknown:
        yield f"another packet filter could not be judged: {line}"
    ends = {name for way in me[Firewall].forward for name in (way.incoming, way.outgoing)} - {"*"}
    known = (*me[Firewall].container_interfaces, *ends)
    for name in bridges:
        if not any(fnmatch.fnmatchcase(name, pattern) for pattern in known):
            yield (
                f"{name} is a bridge that nobody declared: what is behind it reaches nobody else, "
                "and nobody reaches it; firewall_container_interfaces and firewall_forward are for "
                "such"
            )


def closed_by_others(probes: Iterable[Probe], found: Filters) -> tuple[list[str], list[str]]:
    """A line for each probe that is closed, with the rule: of the fleet's services, and others."""
    by_text = {str(probe): probe for probe in probes}
    lines: dict[bool, list[str]] = {True: [], False: []}
    for item in found.closed:
        probe = by_text[item.probe]
        lines[probe.ours].append(
            f"{probe.setting} = {probe.port} for {probe.source} by `{item.rule}`"
        )
    return lines[True], lines[False]
