"""The host's own walls: one nftables table, closed by default, open for what is declared."""

from __future__ import annotations

from pyinfra import host
from pyinfra.api import deploy
from pyinfra.operations import files

from fleet.declare.fleet import Fleet, FleetHost
from fleet.firewall.facts import (
    Bridges,
    LoginCarrier,
    OtherFilters,
    OtherFirewalls,
    SshLogin,
    Uplinks,
)
from fleet.firewall.files import guard_file, ruleset_file, unit_files
from fleet.firewall.operations import apply_ruleset, remove_ruleset
from fleet.firewall.paths import (
    FIREWALL_GUARD,
    FIREWALL_RULESET,
    FIREWALL_TABLE,
    FIREWALL_UNIT,
    FIREWALL_UNIT_FILE,
    NFTABLES_DROPIN,
)
from fleet.firewall.preflight import (
    refuse_closed_by_others,
    refuse_closed_carrier,
    refuse_lockout,
    refuse_open_uplinks,
    refuse_other_firewalls,
    remarks,
)
from fleet.firewall.probes import bridges, probes
from fleet.firewall.settings import Firewall
from fleet.kit.commands import verify_unit
from fleet.kit.durations import seconds
from fleet.kit.files import install_files
from fleet.kit.packages import install_packages
from fleet.kit.paths import ETC
from fleet.kit.places import Directory, have_directory
from fleet.kit.units import run_unit, stop_unit


@deploy("Firewall")
def firewall(me: FleetHost, fleet: Fleet) -> None:
    """Close the host and its containers but for sshd and what is declared.

    Raises:
        FleetError: another firewall is in force, or the declared rules would shut out the machine
            that deploys.
    """
    if me[Firewall].backend == "none":
        _remove()
        return
    refuse_other_firewalls(me, fleet, host.get_fact(OtherFirewalls))
    login = host.get_fact(SshLogin, _sudo=False)
    refuse_lockout(me, login)
    if login is not None:
        carrier = host.get_fact(LoginCarrier, source=str(login.source))
        refuse_closed_carrier(me, login, carrier)
    refuse_open_uplinks(me, host.get_fact(Uplinks))
    needed = probes(me, fleet, login.source if login else None)
    found = host.get_fact(
        OtherFilters, probes=[str(probe) for probe in needed], bridges=bridges(me)
    )
    refuse_closed_by_others(me, needed, found)
    for line in remarks(me, needed, found, host.get_fact(Bridges)):
        host.log(line)
    install_packages(name="Install nftables", packages=["nftables"])
    install_files(
        name="Install the guard that undoes rules nobody can log in under", files=[guard_file()]
    )
    # Others read in it too, whose services are not root's.
    have_directory(
        name="Create the directory", directory=Directory(ETC, ETC), group="root", mode="755"
    )
    apply_ruleset(
        name="Apply the ruleset, and keep it if a new login succeeds",
        ruleset=ruleset_file(me, fleet),
        table=FIREWALL_TABLE,
        guard=FIREWALL_GUARD,
        confirm_within=seconds(me[Firewall].confirm_within),
        login_port=login.port if login else None,
    )
    unit, dropin = unit_files(me)
    install_files(
        name="Install the unit",
        files=[unit],
        check=verify_unit(unit.staged_name),
    )
    install_files(name="Install the drop-in that survives nftables.service", files=[dropin])
    # The ruleset is compared with the kernel's above, so the unit restarts for its own files only.
    run_unit(
        name="Load the ruleset at boot",
        unit=FIREWALL_UNIT,
        files=[FIREWALL_UNIT_FILE, NFTABLES_DROPIN],
    )


def _remove() -> None:
    """Leave nothing of ours to those who filter elsewhere."""
    stop_unit(name="Stop the firewall unit", unit=FIREWALL_UNIT)
    for path in (
        NFTABLES_DROPIN,
        FIREWALL_RULESET,
        FIREWALL_UNIT_FILE,
        FIREWALL_GUARD,
    ):
        files.file(name=f"Remove {path}", path=path, present=False)
    remove_ruleset(name="Remove our table", table=FIREWALL_TABLE, path=FIREWALL_RULESET)
