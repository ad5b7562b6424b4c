"""What of a host is refused before anything is changed on it; pure over what was asked."""

from __future__ import annotations

from collections.abc import Mapping

from fleet.declare.fleet import Fleet, FleetHost
from fleet.kit.errors import FleetError
from fleet.kit.facts.files import FileState
from fleet.platform.facts import Clock
from fleet.platform.files import secrets_note
from fleet.platform.settings import Platform

# Seconds: more than what a question of a deploy's beginning may be old.
_WRONG_CLOCK = 300
SUPPORTED: dict[str, tuple[str, ...]] = {
    "debian": ("12", "13"),
    "ubuntu": ("22.04", "24.04", "26.04"),
}


def refuse_distribution(me: FleetHost, release: Mapping[str, str]) -> None:
    """Refuse a host whose os-release is `release`.

    Raises:
        FleetError: the distribution or its release is not supported.
    """
    name, version = release.get("ID", "unknown"), release.get("VERSION_ID", "unknown")
    if version not in SUPPORTED.get(name, ()):
        known = "; ".join(f"{key} {', '.join(value)}" for key, value in SUPPORTED.items())
        raise FleetError(f"{me.name}: {name} {version} is not supported, only {known}")


def refuse_other_init(me: FleetHost, *, has_systemd: bool) -> None:
    """Refuse a host that systemd does not run.

    Raises:
        FleetError: it does not.
    """
    if not has_systemd:
        raise FleetError(
            f"{me.name}: systemd is not the init system here, but this project needs it"
        )


def refuse_wrong_clock(me: FleetHost, clock: Clock, now: float) -> float:
    """Refuse a host whose time is not `now`, within minutes; by how many seconds it is ahead.

    Raises:
        FleetError: it is not.
    """
    off = clock.time - now
    if abs(off) > _WRONG_CLOCK:
        raise FleetError(
            f"{me.name}: its clock is {off:+.0f} s from this machine's, so certificates and "
            "package lists are refused; set the clock that is wrong, and run a time service there, "
            "such as systemd-timesyncd"
        )
    return off


def refuse_missing_address(me: FleetHost, present: list[str]) -> None:
    """Refuse a host whose addresses are `present`, when the declared one is none of them.

    Raises:
        FleetError: it is none.
    """
    address = me[Platform].private_address
    if address is not None and str(address) not in present:
        raise FleetError(
            f"{me.name}: private_address = '{address}': the host has no such address, only "
            f"{', '.join(present)}; correct the inventory, or bring the interface up"
        )


def refuse_other_store(me: FleetHost, fleet: Fleet, present: FileState | None) -> None:
    """Refuse a host whose note of the store that its secrets are from is `present`.

    A store that was left behind is made anew: every client would need another key at once.

    Raises:
        FleetError: it names another store.
    """
    note = secrets_note(fleet)
    if present is not None and present.sha256 != note.state.sha256:
        raise FleetError(
            f"{me.name}: its keys and passwords come from another secrets store than "
            f"{fleet.secrets.root}, and would all change; bring that store here from the machine "
            f"that deployed last (an inventory's store has its file's path), or, to have all made "
            f"anew, remove {note.path} on the host"
        )
