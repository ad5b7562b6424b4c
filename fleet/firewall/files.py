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
from fleet.firewall.rules import accept_rules, published_rules
from fleet.firewall.settings import Firewall
from fleet.kit.files import ManagedFile
from fleet.kit.render import host_program, render


def managed_files(me: FleetHost, fleet: Fleet) -> list[ManagedFile]:
    """Every file of the firewall: the ruleset, the unit, the drop-in and the guard."""
    return [ruleset_file(me, fleet), *unit_files(), guard_file()]


def ruleset_file(me: FleetHost, fleet: Fleet) -> ManagedFile:
    """The whole table, as it is loaded at boot."""
    ruleset = render(
        "firewall/firewall.nft.j2",
        table=FIREWALL_TABLE,
        rules=list(accept_rules(me, fleet)),
        published_rules=list(published_rules(me, fleet)),
        container_interfaces=me[Firewall].container_interfaces,
        log_drops=me[Firewall].log_drops,
    )
    return ManagedFile(FIREWALL_RULESET, ruleset, mode="600")


def guard_file() -> ManagedFile:
    """The program on the host that tries, keeps and undoes rulesets."""
    return ManagedFile(FIREWALL_GUARD, host_program("firewall", "firewall-guard"), mode="755")


def unit_files() -> tuple[ManagedFile, ManagedFile]:
    """The unit that loads the ruleset at boot, and what ties it to Debian's nftables.service."""
    unit = render("firewall/llm-fleet-firewall.service.j2", guard=FIREWALL_GUARD)
    dropin = render("firewall/nftables.dropin.conf.j2", guard=FIREWALL_GUARD)
    return (
        ManagedFile(FIREWALL_UNIT_FILE, unit),
        ManagedFile(NFTABLES_DROPIN, dropin),
    )
