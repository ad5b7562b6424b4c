"""The driver of a host that runs."""

from __future__ import annotations

from collections.abc import Iterator

from pyinfra.api import StringCommand

from fleet.declare.fleet import Fleet, FleetHost
from fleet.declare.status import Look, Told
from fleet.driver.settings import Driver


def looks(me: FleetHost, _: Fleet) -> Iterator[Look]:
    """Which one is loaded."""
    version = StringCommand("cat /sys/module/nvidia/version")
    yield Look((version,), lambda found: _tell(me, *found))


def _tell(me: FleetHost, loaded: list[str]) -> Iterator[Told]:
    version = loaded[0].strip() if loaded else None
    declared = me[Driver].version or me[Driver].branch
    values = {"loaded": version, "declared": str(declared) if declared else None}
    yield Told(f"driver {version}" if version else "", values)
