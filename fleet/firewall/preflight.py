"""Hosts whose packets somebody else filters, or whom our rules would shut out."""

from __future__ import annotations

from fleet.declare.fleet import Fleet, FleetHost
from fleet.firewall.facts import Login
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
