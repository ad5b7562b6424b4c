"""A host's Ollama servers as units, and which of its GPUs each of them is given.

The deploy and the compliance checks both ask here, so what is checked is what was made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fleet.driver.facts import DrivenGpu, GpuHardware
from fleet.kit.errors import FleetError
from fleet.ollama.servers import Instance
from fleet.ollama.settings import ALL_GPUS

# A registry that the host knows by a name or an authority of its own is known in the container too.
SHOWN_TO_CONTAINERS = ("/etc/hosts", "/etc/ssl/certs/ca-certificates.crt")

Bound = Mapping[str | None, tuple[str, ...]]


def bind_gpus(
    instances: Sequence[Instance], present: Sequence[DrivenGpu], hardware: GpuHardware
) -> Bound:
    """Name of each instance to the UUIDs of its GPUs, in the declared order.

    `present` is what the driver tells of, `hardware` what is on the bus. The only server of a host
    is given nothing in particular.

    Raises:
        FleetError: a GPU that is not there, or of which two say so in different words; with what
            there is.
    """
    if hardware.gpus and not present and any(item.name and item.gpus for item in instances):
        raise FleetError(
            "nvidia-smi does not tell of the GPUs on the bus, so ollama_instances cannot be given "
            "theirs; mend the driver (`make verify` says what is wrong with it)"
        )
    bound = {item.name: _uuids(item, present) for item in instances}
    for place, item in enumerate(instances):
        for other in instances[:place]:
            both = set(bound[item.name]) & set(bound[other.name])
            if both and not (item.shared_gpus and other.shared_gpus):
                raise FleetError(
                    f"ollama_instances: {other.name} and {item.name} both have "
                    f"{', '.join(sorted(both))}; give each its own, or shared_gpus = True to both. "
                    f"The host has {_listed(present)}"
                )
    return bound


def refuse_missing_gpus(
    instances: Sequence[Instance], present: Sequence[DrivenGpu], hardware: GpuHardware
) -> None:
    """Refuse what can be known to be missing before anything is changed.

    Raises:
        FleetError: a GPU that the bus has no room for, or that a driver which works does not have.
    """
    if present or not hardware.gpus:
        bind_gpus(instances, present, hardware)
        return
    for item in instances:
        for gpu in item.gpus if item.gpus != ALL_GPUS else ():
            if isinstance(gpu, int) and gpu >= len(hardware.gpus):
                raise _missing(item, gpu, "; ".join(map(str, hardware.gpus)))


def _uuids(instance: Instance, present: Sequence[DrivenGpu]) -> tuple[str, ...]:
    if not instance.name:
        return ()
    if instance.gpus == ALL_GPUS:
        return tuple(gpu.uuid for gpu in present)
    known: dict[int | str, str] = {gpu.uuid: gpu.uuid for gpu in present}
    known |= {gpu.index: gpu.uuid for gpu in present}
    for gpu in instance.gpus:
        if gpu not in known:
            raise _missing(instance, gpu, _listed(present))
    uuids = [known[gpu] for gpu in instance.gpus]
    if len(set(uuids)) != len(uuids):
        raise FleetError(
            f"ollama_instances: {instance.name}: gpus = {list(instance.gpus)!r} names a GPU twice, "
            f"by index and by UUID; name each once. The host has {_listed(present)}"
        )
    return tuple(uuids)


def _missing(instance: Instance, gpu: int | str, listed: str) -> FleetError:
    return FleetError(
        f"ollama_instances: {instance.name}: gpus = {list(instance.gpus)!r}: the host has no "
        f"{gpu}; it has {listed}. Correct gpus, or declare [] for the CPU alone"
    )


def _listed(present: Sequence[DrivenGpu]) -> str:
    return "; ".join(map(str, present)) or "no NVIDIA GPU"
