"""What `fleet doctor` looks at before the container toolkit is installed."""

from __future__ import annotations

from collections.abc import Iterator

from pyinfra.facts.server import Arch

from fleet.container_toolkit.declared import is_off
from fleet.container_toolkit.files import repository
from fleet.declare.fleet import Fleet, FleetHost
from fleet.declare.preflight import Ask, Line, Verdict, judged, reached
from fleet.driver.facts import GpuHardwareFact


def checks(me: FleetHost, _: Fleet, ask: Ask) -> Iterator[Line]:
    """Where it is from, on a host with GPUs and containers."""
    if is_off(me):
        return
    what = "container toolkit"
    key = judged(what, lambda: repository(me, ask(Arch)).key if ask(GpuHardwareFact).gpus else None)
    if key.verdict is not Verdict.OK:
        yield key
    elif key.text:
        yield reached(ask, what, key.text, {})
