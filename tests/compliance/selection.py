"""Which hosts of an inventory are checked."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from fleet.declare.fleet import Fleet, FleetHost
from fleet.kit.errors import FleetError


def selected(fleet: Fleet, names: Sequence[str]) -> list[FleetHost]:
    """The hosts that are called so, or are in groups called so; all without any name.

    Raises:
        FleetError: there is neither such a host nor a host in such a group.
    """
    hosts = {host.name for host in fleet}
    groups = {group for host in fleet for group in host.groups}
    unknown = [name for name in names if name not in hosts | groups]
    if unknown:
        near = difflib.get_close_matches(unknown[0], hosts | groups, 1)
        guess = f"; did you mean {near[0]}?" if near else ""
        raise FleetError(
            f"{', '.join(unknown)}: neither a host of this inventory nor a group with hosts"
            f"{guess}; groups: {', '.join(sorted(groups))}; `fleet check` lists the hosts"
        )
    return [host for host in fleet if not names or {host.name, *host.groups} & set(names)]
