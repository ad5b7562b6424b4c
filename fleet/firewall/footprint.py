"""What the firewall puts on a host."""

from __future__ import annotations

from collections.abc import Iterator

from fleet.declare.fleet import FleetHost
from fleet.firewall.paths import (
    FIREWALL_GUARD,
    FIREWALL_RULESET,
    FIREWALL_TABLE,
    FIREWALL_UNIT,
    NFTABLES_DROPIN,
)
from fleet.kit.footprint import Part, Trace, dropins, files, packages, units


def footprint(_: FleetHost) -> Iterator[Trace]:
    """The table and what loads it; nobody else's rules."""
    yield Trace(
        f"the kernel's nftables table `{FIREWALL_TABLE}`",
        "closes the host but for sshd and what is declared; nobody else's rules are touched. With "
        f"its ruleset, `{FIREWALL_UNIT}` and a drop-in for `nftables.service`",
        (
            # A trial that nobody ended would put its table back.
            Part("unit", "llm-fleet-firewall-rollback.timer"),
            *units(FIREWALL_UNIT),
            *dropins(NFTABLES_DROPIN),
            *files(FIREWALL_RULESET, FIREWALL_GUARD),
            Part("tree", "/run/llm-fleet-firewall"),
            Part("table", FIREWALL_TABLE),
        ),
    )
    yield Trace(
        "package `nftables`",
        "on every host",
        packages("nftables"),
        "stays",
        "other rules may be loaded by it",
    )
