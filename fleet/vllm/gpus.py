"""Which of a host's GPUs each vLLM server is given; pure over what was asked of the host."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from fleet.driver.facts import DrivenGpu
from fleet.kit.errors import FleetError
from fleet.ollama.servers import Instance
from fleet.ollama.settings import ALL_GPUS
from fleet.vllm.servers import VllmInstance


def bind(items: Sequence[VllmInstance], present: Sequence[DrivenGpu]) -> dict[str, tuple[str, ...]]:
    """Name of each server to the UUIDs of its GPUs, in the declared order.

    Raises:
        FleetError: a GPU that is not there, a number that does not go with the declared
            parallelism, or one that two have.
    """
    bound = {item.name: _uuids(item, present) for item in items}
    for place, item in enumerate(items):
        for other in items[:place]:
            both = set(bound[item.name]) & set(bound[other.name])
            if both and not (item.declared.shared_gpus and other.declared.shared_gpus):
                raise FleetError(
                    f"vllm_servers: {other.name} and {item.name} both have "
                    f"{', '.join(sorted(both))}; give each its own, or shared_gpus = True to both. "
                    f"The host has {_listed(present)}"
                )
    return bound


def refuse_ollamas(
    items: Sequence[VllmInstance],
    bound: dict[str, tuple[str, ...]],
    ollama: Sequence[Instance],
    ollamas: dict[str | None, tuple[str, ...]],
    present: Sequence[DrivenGpu],
) -> None:
    """Refuse GPUs that Ollama uses too: each takes what it finds free, whoever comes first.

    `ollamas` has what instances are given; the only server of a host sees all GPUs.

    Raises:
        FleetError: there are some.
    """
    everything = tuple(gpu.uuid for gpu in present)
    for other in ollama:
        seen = ollamas[other.name] if other.name else everything
        for item in items:
            if (both := set(bound[item.name]) & set(seen)) and not item.declared.shared_gpus:
                raise FleetError(
                    f"vllm_servers: {item.name} has {', '.join(sorted(both))}, which "
                    f"{other.unit} uses too; give each its own by ollama_instances and gpus, or "
                    "shared_gpus = True to the server, whose memory_share Ollama then does without"
                )


def _uuids(item: VllmInstance, present: Sequence[DrivenGpu]) -> tuple[str, ...]:
    known: dict[int | str, str] = {gpu.uuid: gpu.uuid for gpu in present}
    known |= {gpu.index: gpu.uuid for gpu in present}
    wanted: Collection[int | str] = item.gpus
    if item.gpus == ALL_GPUS:
        wanted = [gpu.uuid for gpu in present]
    if missing := [gpu for gpu in wanted if gpu not in known]:
        raise FleetError(
            f"vllm_servers: {item.name}: gpus: the host has no {missing[0]}; it has "
            f"{_listed(present)}. Correct gpus"
        )
    uuids = tuple(known[gpu] for gpu in wanted)
    if not uuids and item.gpus != ():
        raise FleetError(
            f"vllm_servers: {item.name}: the host has no GPU that its driver tells of; mend the "
            "driver, or declare gpus = [] for a build that runs on the CPU"
        )
    if len(set(uuids)) != len(uuids):
        raise FleetError(
            f"vllm_servers: {item.name}: gpus names a GPU twice, by index and by UUID; name each "
            f"once. The host has {_listed(present)}"
        )
    wants = item.declared.parallel or item.declared.multiplied
    if uuids and (len(uuids) % wants or item.declared.parallel not in (None, len(uuids))):
        raise FleetError(
            f"vllm_servers: {item.name}: tensor_parallel and the parallel flags take {wants} GPUs, "
            f"and it has {len(uuids)}; make them the same. The host has {_listed(present)}"
        )
    return uuids


def _listed(present: Sequence[DrivenGpu]) -> str:
    return "; ".join(map(str, present)) or "no NVIDIA GPU"
