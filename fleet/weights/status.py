"""The weights of a host that runs: which are ready, and how far the others are."""

from __future__ import annotations

from collections.abc import Iterator

from fleet.declare.fleet import Fleet, FleetHost
from fleet.declare.loading_status import Loaded
from fleet.declare.status import Look
from fleet.weights.declared import declared, is_off
from fleet.weights.paths import WEIGHTS_STATE, WEIGHTS_UNIT


def looks(me: FleetHost, _: Fleet) -> Iterator[Look]:
    """What the loader has written down, and whether it is at work."""
    if not is_off(me):
        loader = Loaded("weights", WEIGHTS_UNIT, WEIGHTS_STATE, tuple(declared(me)))
        yield loader.look(lambda _: ())
