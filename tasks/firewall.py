"""The host's own walls: one nftables table, closed by default, open for what is declared."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network, IPv6Network, ip_network

from pyinfra import host
from pyinfra.api import deploy
from pyinfra.operations import files

from fleet.declare.load import Fleet, FleetHost
from fleet.dify import declared as dify
from fleet.firewall.facts import Login, OtherFirewalls, SshLogin
from fleet.firewall.operations import apply_ruleset, remove_ruleset
from fleet.kit import paths
from fleet.kit.commands import verify_unit
from fleet.kit.durations import seconds
from fleet.kit.errors import FleetError
from fleet.kit.files import ManagedFile, install_files
from fleet.kit.packages import install_packages
from fleet.kit.render import host_program, render
from fleet.kit.units import run_unit, stop_unit
from fleet.webui import declared as webui

Network = IPv4Network | IPv6Network

_OLLAMA = "ollama, from the gateways"
_CANNOT = {
    "ufw": "it does not see the ports that Docker publishes",
    "firewalld": "it lets through every port that Docker publishes",
}
_TURN_OFF = {
    "ufw": "`ufw disable`",
    "firewalld": "`systemctl disable --now firewalld`",
}


@deploy("Firewall")
def firewall(me: FleetHost, fleet: Fleet) -> None:
    """Close the host and its containers but for sshd and what is declared.

    Raises:
        FleetError: another firewall is in force, or the declared rules would shut out the machine
            that deploys.
    """
    if me.firewall.backend == "none":
        _remove()
        return
    refuse_other_firewalls(me, fleet, host.get_fact(OtherFirewalls))
    refuse_lockout(me, host.get_fact(SshLogin, _sudo=False))
    install_packages(name="Install nftables", packages=["nftables"])
    install_files(
        name="Install the guard that undoes rules nobody can log in under", files=[guard_file()]
    )
    apply_ruleset(
        name="Apply the ruleset, and keep it if a new login succeeds",
        ruleset=ruleset_file(me, fleet),
        table=paths.FIREWALL_TABLE,
        guard=paths.FIREWALL_GUARD,
        confirm_within=seconds(me.firewall.confirm_within),
    )
    unit, dropin = unit_files()
    install_files(
        name="Install the unit",
        files=[unit],
        check=verify_unit(unit.staged_name),
    )
    install_files(name="Install the drop-in that survives nftables.service", files=[dropin])
    # The ruleset is compared with the kernel's above, so the unit restarts for its own files only.
    run_unit(
        name="Load the ruleset at boot",
        unit=paths.FIREWALL_UNIT,
        files=[paths.FIREWALL_UNIT_FILE, paths.NFTABLES_DROPIN],
    )


def _remove() -> None:
    """Leave nothing of ours to those who filter elsewhere."""
    stop_unit(name="Stop the firewall unit", unit=paths.FIREWALL_UNIT)
    for path in (
        paths.NFTABLES_DROPIN,
        paths.FIREWALL_RULESET,
        paths.FIREWALL_UNIT_FILE,
        paths.FIREWALL_GUARD,
    ):
        files.file(name=f"Remove {path}", path=path, present=False)
    remove_ruleset(name="Remove our table", table=paths.FIREWALL_TABLE, path=paths.FIREWALL_RULESET)


def refuse_other_firewalls(me: FleetHost, fleet: Fleet, active: list[str]) -> None:
    """Refuse a host that somebody else's firewall closes: a packet would need the leave of both.

    docs/decisions/0006-firewall.md has the reasons why none is managed from here.

    Raises:
        FleetError: `active` names one.
    """
    for name in active:
        ports = ", ".join(
            sorted(
                {rule.split("dport ")[1].split()[0] for rule in accept_rules(me, fleet)}, key=int
            )
        )
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
    if login is None or login.port in me.firewall.open_tcp:
        return
    if login.port != me.host.ssh_port:
        raise FleetError(
            f"{me.name}: ssh_port = {me.host.ssh_port}, but sshd took this connection on port "
            f"{login.port}, which the firewall would close; set ssh_port to it, or behind a "
            f"port forwarding add it to firewall_open_tcp"
        )
    if not any(login.source in network for network in me.firewall.ssh_from):
        listed = [str(network) for network in me.firewall.ssh_from]
        raise FleetError(
            f"{me.name}: firewall_ssh_from = {listed} would shut out this machine, which the host "
            f'sees as {login.source}; add "{login.source}" or its network'
        )


def managed_files(me: FleetHost, fleet: Fleet) -> list[ManagedFile]:
    """Every file of the firewall: the ruleset, the unit, the drop-in and the guard."""
    return [ruleset_file(me, fleet), *unit_files(), guard_file()]


def ruleset_file(me: FleetHost, fleet: Fleet) -> ManagedFile:
    """The whole table, as it is loaded at boot."""
    ruleset = render(
        "firewall/firewall.nft.j2",
        table=paths.FIREWALL_TABLE,
        rules=list(accept_rules(me, fleet)),
        published_rules=list(published_rules(me, fleet)),
        container_interfaces=me.firewall.container_interfaces,
        log_drops=me.firewall.log_drops,
    )
    return ManagedFile(paths.FIREWALL_RULESET, ruleset, mode="600")


def guard_file() -> ManagedFile:
    """The program on the host that tries, keeps and undoes rulesets."""
    return ManagedFile(paths.FIREWALL_GUARD, host_program("firewall", "firewall-guard"), mode="755")


def unit_files() -> tuple[ManagedFile, ManagedFile]:
    """The unit that loads the ruleset at boot, and what ties it to Debian's nftables.service."""
    unit = render("firewall/llm-fleet-firewall.service.j2", guard=paths.FIREWALL_GUARD)
    dropin = render("firewall/nftables.dropin.conf.j2", guard=paths.FIREWALL_GUARD)
    return (
        ManagedFile(paths.FIREWALL_UNIT_FILE, unit),
        ManagedFile(paths.NFTABLES_DROPIN, dropin),
    )


def accept_rules(me: FleetHost, fleet: Fleet) -> Iterator[str]:
    """What may come in, as nft rules."""
    yield from _accept(me.host.ssh_port, me.firewall.ssh_from, "ssh")
    if me.is_gateway and me.gateway.listen != "loopback":
        yield from _accept(me.gateway.port, me.gateway.allow_from, "front door")
    for endpoint, sources in me.gateway_openings:
        yield from _accept(endpoint.port, sources, "gateway")
    for instance in me.instances:
        yield from _accept(instance.endpoint.port, _callers(me, fleet), _OLLAMA)
    if me.is_dify:
        # Over IPv6 Docker's own proxy has the published port, and that is input.
        yield from _accept(me.dify.port, me.dify.allow_from, "dify")
        yield from _from_dify(me, fleet, "tcp dport")
    if me.is_webui:
        yield from _accept(me.webui.port, me.webui.allow_from, "open webui")
        door = webui.door_of(me, fleet).local
        if door is not None:
            yield f'iifname "{webui.BRIDGE}" tcp dport {door.port} accept comment "open webui"'
    for port in me.firewall.open_tcp:
        yield f'tcp dport {port} accept comment "declared"'
    for port in me.firewall.open_to_containers:
        for name in me.firewall.container_interfaces:
            yield f'iifname "{name}" tcp dport {port} accept comment "containers"'


def published_rules(me: FleetHost, fleet: Fleet) -> Iterator[str]:
    """Which published ports of containers may be reached, as nft rules: by their original port."""
    published = "meta l4proto tcp ct original proto-dst"
    for instance in me.instances:
        if instance.runtime == "docker":
            yield from _accept(instance.endpoint.port, _callers(me, fleet), _OLLAMA, published)
    if me.is_dify:
        yield from _accept(me.dify.port, me.dify.allow_from, "dify", published)
        # An Ollama in a container of its own is a published port, too.
        if me.instances and me.instances[0].runtime == "docker":
            yield from _from_dify(me, fleet, published)
    if me.is_webui:
        yield from _accept(me.webui.port, me.webui.allow_from, "open webui", published)
    for port in me.firewall.open_tcp:
        yield f'{published} {port} accept comment "declared"'
    for port in me.firewall.open_to_containers:
        for name in me.firewall.container_interfaces:
            yield f'iifname "{name}" {published} {port} accept comment "containers"'


def _callers(me: FleetHost, fleet: Fleet) -> list[Network]:
    """Who may call the host's Ollama: the other hosts that are gateways."""
    if me.ollama.listen != "private":
        return []
    return [
        ip_network(gateway.host.private_address)
        for gateway in fleet.gateways
        if gateway.host.private_address is not None and gateway.name != me.name
    ]


def _from_dify(me: FleetHost, fleet: Fleet, match: str) -> Iterator[str]:
    """Ollama, or the door to it, for Dify's plugin daemon alone: nothing else of Dify calls it."""
    local = dify.ollama_access(me, fleet).local
    if local is not None:
        yield (
            f'iifname "{dify.BRIDGE}" ip saddr {dify.daemon_address(me.dify)} '
            f'{match} {local.port} accept comment "dify\'s plugin daemon"'
        )


def _accept(
    port: int, sources: Iterable[Network], comment: str, match: str = "tcp dport"
) -> Iterator[str]:
    for family, version in (("ip", 4), ("ip6", 6)):
        networks = [network for network in sources if network.version == version]
        if not networks:
            continue
        if any(network.prefixlen == 0 for network in networks):
            source = f"meta nfproto ipv{version}"
        else:
            listed = ", ".join(str(network) for network in sorted(set(networks)))
            source = f"{family} saddr {{ {listed} }}"
        yield f'{source} {match} {port} accept comment "{comment}"'
