"""Hosts that have another installer's Docker."""

from __future__ import annotations

from fleet.declare.fleet import FleetHost
from fleet.kit.errors import FleetError
from fleet.kit.paths import SNAP_UNITS

UNIT_PATTERNS = [SNAP_UNITS.format("docker")]


def refuse_snap(me: FleetHost, found: list[str]) -> None:
    """Refuse a host on which `found` are files of `UNIT_PATTERNS`.

    Its daemon has the same socket, and containers that ours would not know of.

    Raises:
        FleetError: there are some.
    """
    if found:
        raise FleetError(
            f"{me.name}: Docker was installed here as a snap, whose daemon has the socket that "
            "ours needs, and does not see most of the host's directories; run there: snap remove "
            "docker (its containers, images and volumes go with it), or declare docker_enabled = "
            "False"
        )
