"""Whether a host has the GPUs that it must have; pure over what was asked of it.

What it must have is what is declared, and without a declaration what a deploy has seen there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fleet.driver.facts import DrivenGpu, GpuHardware
from fleet.gpu.facts import GpuNote, SeenGpu
from fleet.gpu.paths import GPU_NOTE
from fleet.gpu.settings import Gpus

NEVER_SEEN = (
    "no GPU was ever seen here, and nobody declared that there is none: models are served from the "
    "CPU. Declare gpu_count = 0 if that is meant, else how many there are to be"
)
_LOOK_AT_THE_BUS = (
    "See `dmesg` (NVRM, Xid, pcie) and the machine's own log (BMC); reseat the card, or "
    "power-cycle the machine"
)
_LOOK_AT_THE_DRIVER = "See `nvidia-smi` and `dmesg | grep NVRM` (Xid), and reboot the host"
_NO_NOTE = GpuNote()


@dataclass(frozen=True)
class Found:
    """What there is on a host: its bus, what its driver tells of, and what a deploy noted."""

    hardware: GpuHardware
    driven: tuple[DrivenGpu, ...] = ()
    note: GpuNote = _NO_NOTE

    @property
    def addresses(self) -> set[str]:
        """The PCI addresses of the GPUs on the bus."""
        return {gpu.address for gpu in self.hardware.gpus}

    @property
    def seen(self) -> tuple[SeenGpu, ...]:
        """The GPUs on the bus, each with the UUID that its driver tells, or once told."""
        uuids = {gpu.address: gpu.uuid for gpu in self.note.seen or ()}
        uuids |= {gpu.address: gpu.uuid for gpu in self.driven}
        return tuple(SeenGpu(gpu.address, uuids.get(gpu.address)) for gpu in self.hardware.gpus)


def missing_on_bus(declared: Gpus, found: Found) -> str | None:
    """Which GPUs are not on the bus, and what to do; None when all are."""
    if found.note.spoilt and declared.declared is None:
        return (
            f"{GPU_NOTE}, which says what GPUs were here, cannot be read ({found.note.spoilt}); "
            "declare gpu_count, or remove the file if no GPU is missing"
        )
    there, wanted = len(found.hardware.gpus), _wanted(declared, found)
    if declared.on_cpu and there:
        return (
            f"gpu_count = 0, and on the bus there is {_listed(found.seen)}; declare gpu_count = "
            f"{there}. Servers that are to leave GPUs alone have gpus = [] in ollama_instances"
        )
    gone = _gone_from_bus(declared, found)
    if there < wanted or any(":" in name for name in declared.gpus or () if name in gone):
        which = [gone[name] for name in gone]
        return _fewer(declared, f"{there} of {wanted} GPUs on the bus", which, _LOOK_AT_THE_BUS)
    if not there and declared.declared is None and found.note.traces:
        return (
            "no GPU is on the bus, and a driver was installed here for one "
            f"({', '.join(found.note.traces)}). {_LOOK_AT_THE_BUS}; without GPUs from now on, "
            "declare gpu_count = 0"
        )
    return None


def missing_in_driver(declared: Gpus, found: Found) -> str | None:
    """Which GPUs the driver does not tell of, and what to do; None when it tells of all.

    Without a declaration all that are on the bus are meant.
    """
    wanted = _wanted(declared, found)
    addresses = {gpu.address for gpu in found.driven}
    if declared.declared is None:
        wanted = max(wanted, len(found.hardware.gpus))
    if declared.gpus is not None:
        names = addresses | {gpu.uuid for gpu in found.driven}
        gone = [_described(name, found) for name in declared.gpus if name not in names]
    else:
        gone = [str(gpu) for gpu in found.seen if gpu.address not in addresses]
    there = len(found.driven)
    if there >= wanted and not (declared.gpus and gone):
        return None
    return _fewer(declared, f"{there} of {wanted} GPUs in the driver", gone, _LOOK_AT_THE_DRIVER)


def lost_by_driver(declared: Gpus, found: Found) -> str | None:
    """What `missing_in_driver` says, where no deploy would mend it.

    The driver works, and a GPU that it once drove is on the bus and not in it.
    """
    driven = {gpu.address for gpu in found.driven}
    once = {gpu.address for gpu in found.note.seen or () if gpu.uuid} & found.addresses
    return missing_in_driver(declared, found) if driven and once - driven else None


def warnings(declared: Gpus, found: Found) -> Iterator[str]:
    """What is no failure, and should be declared."""
    there = len(found.driven) or len(found.hardware.gpus)
    if declared.declared is None and not there:
        yield NEVER_SEEN
    elif declared.declared and there > declared.declared:
        yield (
            f"there are {there} GPUs and {declared} is declared, so that the loss of one would not "
            f"be noticed; declare gpu_count = {there}"
        )


def _wanted(declared: Gpus, found: Found) -> int:
    return len(found.note.seen or ()) if declared.declared is None else declared.declared


def _gone_from_bus(declared: Gpus, found: Found) -> dict[str, str]:
    """Each GPU whose address is known and not on the bus, to how it is shown.

    Where a number is declared, of those that were seen; which they are is not known of a host that
    was never deployed to.
    """
    places = {gpu.uuid: gpu.address for gpu in (*(found.note.seen or ()), *found.seen) if gpu.uuid}
    names = declared.gpus or [gpu.address for gpu in found.note.seen or ()]
    return {
        name: _described(name, found)
        for name in names
        if (place := name if ":" in name else places.get(name)) and place not in found.addresses
    }


def _described(name: str, found: Found) -> str:
    """A GPU that is named by address or UUID, with both where both are known."""
    known = (*found.seen, *(found.note.seen or ()))
    return str(next((gpu for gpu in known if name in {gpu.address, gpu.uuid}), name))


def _fewer(declared: Gpus, count: str, gone: list[str], look: str) -> str:
    why = str(declared) if declared.declared is not None else f"{GPU_NOTE}: so many were seen here"
    which = f"; missing: {', '.join(gone)}" if gone else ""
    return (
        f"{count} ({why}){which}. {look}. If it was taken out for good, declare what is left, by "
        "gpu_count or gpus (gpu_count = 0 for the CPU alone)"
    )


def _listed(gpus: tuple[SeenGpu, ...]) -> str:
    return ", ".join(map(str, gpus))
