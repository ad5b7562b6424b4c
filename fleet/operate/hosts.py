"""The hosts that a command is asked of, by their names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from fleet.declare.fleet import Fleet, FleetHost
from fleet.kit.errors import FleetError


def chosen_hosts(fleet: Fleet, names: Iterable[str]) -> list[FleetHost]:
    """The hosts `names`, each once and in the inventory's order; all of them without a name.

    Raises:
        FleetError: the inventory has no such host.
    """
    wanted = set(names)
    known = {host.name: host for host in fleet}
    if unknown := sorted(wanted - known.keys()):
        near = difflib.get_close_matches(unknown[0], known, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
        raise FleetError(f"{', '.join(unknown)}: no such host in this inventory; {hint}")
    return [host for name, host in known.items() if not wanted or name in wanted]
