"""The GPUs of a host that runs: on the bus, and in the driver."""

from __future__ import annotations

from collections.abc import Iterator

from pyinfra.api import StringCommand

from fleet.declare.fleet import Fleet, FleetHost
from fleet.declare.status import Look, Told
from fleet.driver.facts import DrivenGpus, GpuHardwareFact
from fleet.driver.settings import Driver


def looks(me: FleetHost, _: Fleet) -> Iterator[Look]:
    """How many GPUs there are, how many of them the driver has, and which driver that is."""
    yield Look(
        (
            StringCommand("cat /sys/module/nvidia/version"),
            GpuHardwareFact().command(),
            DrivenGpus().command(),
        ),
        lambda found: _tell(me, *found),
    )


def _tell(me: FleetHost, loaded: list[str], bus: list[str], smi: list[str]) -> Iterator[Told]:
    version = loaded[0].strip() if loaded else None
    on_bus, driven = len(GpuHardwareFact().process(bus).gpus), len(DrivenGpus().process(smi))
    declared = me[Driver].version or me[Driver].branch
    values = {
        "gpus_on_bus": on_bus,
        "gpus_in_driver": driven,
        "driver": version,
        "driver_declared": str(declared) if declared else None,
    }
    if not on_bus and not driven:
        yield Told("no GPU", values)
        return
    problem = ""
    if driven < on_bus:
        problem = (
            f"{driven} of {on_bus} GPUs answer the driver: see what nvidia-smi and the kernel say "
            "there (`journalctl -k -g NVRM`), and deploy again"
        )
    yield Told(f"GPUs {driven}/{on_bus}", values, problem)
    yield Told(f"driver {version}" if version else "no driver")
