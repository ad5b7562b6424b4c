"""What `fleet doctor` looks at of the GPUs that a host is to have."""

from __future__ import annotations

from collections.abc import Iterator

from fleet.declare.fleet import Fleet, FleetHost
from fleet.declare.preflight import Ask, Line, judged, warn
from fleet.gpu.asked import find
from fleet.gpu.presence import Found, lost_by_driver, missing_on_bus, warnings
from fleet.gpu.settings import Gpus
from fleet.kit.errors import FleetError


def checks(me: FleetHost, _: Fleet, ask: Ask) -> Iterator[Line]:
    """Whether all that are declared, or were once seen, are there."""
    what, said = "number of GPUs", list[str]()

    def look() -> str:
        found: Found = find(ask)
        if problem := missing_on_bus(me[Gpus], found) or lost_by_driver(me[Gpus], found):
            raise FleetError(f"{me.name}: {problem}")
        said.extend(warnings(me[Gpus], found))
        return f"{len(found.hardware.gpus)}"

    line = judged(what, look)
    yield from [warn(what, text) for text in said] or [line]
