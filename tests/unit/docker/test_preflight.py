"""Hosts that have another installer's Docker."""

from __future__ import annotations

import pytest

from fleet.declare.fleet import Fleet
from fleet.docker.preflight import UNIT_PATTERNS, refuse_snap
from fleet.kit.errors import FleetError


def test_snap_is_refused_with_the_way_out(fleet: Fleet) -> None:
    assert UNIT_PATTERNS == ["/etc/systemd/system/snap.docker.*.service"]
    refuse_snap(fleet["gpu1"], [])
    with pytest.raises(FleetError, match=r"gpu1: Docker .* as a snap.* snap remove docker"):
        refuse_snap(fleet["gpu1"], ["/etc/systemd/system/snap.docker.dockerd.service"])
