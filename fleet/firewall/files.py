"""Every file of the firewall."""

from __future__ import annotations

from fleet.declare.fleet import Fleet, FleetHost
from fleet.firewall.paths import (
    FIREWALL_GUARD,
    FIREWALL_RULESET,
    FIREWALL_TABLE,
    FIREWALL_UNIT_FILE,
    NFTABLES_DROPIN,
)
from fleet.firewall.rules import (
    accept_rules,
    forward_rules,
    protocol_rules,
    published_rules,
    reserved,
)
from fleet.firewall.settings import PROTOCOLS, Firewall
from fleet.kit.files import ManagedFile
from fleet.kit.render import host_program, render
from fleet.platform.settings import Platform


def managed_files(me: FleetHost, fleet: Fleet) -> list[ManagedFile]:
    """Every file of the firewall: the ruleset, the unit, the drop-in and the guard."""
    return [ruleset_file(me, fleet), *unit_files(me), guard_file()]


def ruleset_file(me: FleetHost, fleet: Fleet) -> ManagedFile:
    """The whole table, as it is loaded at boot."""
    ruleset = render(
        "firewall/firewall.nft.j2",
        table=FIREWALL_TABLE,
        rules=[*accept_rules(me, fleet), *protocol_rules(me)],
        published_rules=list(published_rules(me, fleet)),
        forward_rules=list(forward_rules(me)),
        reserved=reserved(me, fleet),
        container_interfaces=me[Firewall].container_interfaces,
        log_drops=me[Firewall].log_drops,
    )
    return ManagedFile(FIREWALL_RULESET, ruleset, mode="600")


def guard_file() -> ManagedFile:
    """The program on the host that tries, keeps and undoes rulesets."""
    return ManagedFile(FIREWALL_GUARD, host_program("firewall", "firewall-guard"), mode="755")


def unit_files(me: FleetHost) -> tuple[ManagedFile, ManagedFile]:
    """The unit that loads the ruleset at boot, and what ties it to Debian's nftables.service."""
    unit = render("firewall/llm-fleet-firewall.service.j2", load=_load(me))
    dropin = render("firewall/nftables.dropin.conf.j2", load=_load(me))
    return (
        ManagedFile(FIREWALL_UNIT_FILE, unit),
        ManagedFile(NFTABLES_DROPIN, dropin),
    )


def _load(me: FleetHost) -> str:
    """The command that loads the ruleset, with what a login needs when there is none to load."""
    declared = me[Firewall]
    needed = [f"tcp/{me[Platform].ssh_port}"]
    needed += [f"udp/{port}" for port in declared.open_udp]
    needed += [f"protocol/{PROTOCOLS[name]}" for name in declared.open_protocols]
    return " ".join([FIREWALL_GUARD, "load", *needed])
