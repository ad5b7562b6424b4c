"""The GPUs of a host that runs: on the bus, in the driver, and how many there are to be."""

from __future__ import annotations

from collections.abc import Iterator

from fleet.declare.fleet import Fleet, FleetHost
from fleet.declare.status import Look, Told
from fleet.driver.facts import DrivenGpus, GpuHardwareFact
from fleet.driver.settings import Driver
from fleet.gpu.asked import TRACES
from fleet.gpu.facts import GpuNoteFact
from fleet.gpu.presence import Found, missing_in_driver, missing_on_bus, warnings
from fleet.gpu.settings import Gpus


def looks(me: FleetHost, _: Fleet) -> Iterator[Look]:
    """What there is, by the judgement of a deploy and of the checks."""
    yield Look(
        (
            GpuHardwareFact().command(),
            DrivenGpus().command(),
            GpuNoteFact().command(traces=TRACES),
        ),
        lambda found: _tell(me, *found),
    )


def _tell(me: FleetHost, bus: list[str], smi: list[str], note: list[str]) -> Iterator[Told]:
    found = Found(
        GpuHardwareFact().process(bus), DrivenGpus().process(smi), GpuNoteFact().process(note)
    )
    declared = me[Gpus]
    there, driven = len(found.hardware.gpus), len(found.driven)
    wanted = declared.declared
    if wanted is None and found.note.seen:
        wanted = len(found.note.seen)
    values = {"on_bus": there, "in_driver": driven, "expected": wanted}
    problem = missing_on_bus(declared, found)
    # A driver that is somebody else's, and that nobody needs, may be missing.
    if problem is None and (driven or me[Driver].source != "none"):
        problem = missing_in_driver(declared, found)
    text = (
        "no GPU"
        if not (there or wanted)
        else f"GPUs {driven}/{there if wanted is None else wanted}"
    )
    yield Told(text, values, problem or "")
    for line in warnings(declared, found):
        yield Told(problem=line)
