"""What a vLLM host is judged by before anything is changed, asked of it.

`ask` is `host.get_fact` in a deploy, the doctor's, and `Target.fact` in a compliance check: all
decide alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from fleet.declare.fleet import FleetHost
from fleet.driver.facts import DrivenGpu, DrivenGpus, DriverState, DriverStateFact, GpuHardwareFact
from fleet.driver.paths import DRIVER_NOUVEAU
from fleet.driver.settings import Driver
from fleet.kit.errors import FleetError
from fleet.ollama.instances import bind_gpus
from fleet.ollama.servers import instances_of
from fleet.vllm.facts import GpuSizes, WeightsThere
from fleet.vllm.gpus import bind, refuse_ollamas
from fleet.vllm.memory import Judgement, Weights, contradictions, judge, shared_too_far
from fleet.vllm.servers import VllmInstance, vllm_instances, wants_gpus
from fleet.vllm.settings import Vllm

Ask = Callable[..., Any]


@dataclass(frozen=True)
class Verdict:
    """Why a host is refused, a line each, and what else is worth to be said."""

    refusals: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def gpus_of(me: FleetHost, ask: Ask) -> dict[str, tuple[str, ...]]:
    """Name of each server to the UUIDs of its GPUs.

    Raises:
        FleetError: one is not there, or not its alone.
    """
    items = vllm_instances(me)
    present: tuple[DrivenGpu, ...] = ask(DrivenGpus)
    bound = bind(items, present)
    others = instances_of(me)
    if others:
        ollamas = dict(bind_gpus(others, present, ask(GpuHardwareFact)))
        refuse_ollamas(items, bound, others, ollamas, present)
    return bound


def taken(me: FleetHost, ask: Ask) -> dict[str, float]:
    """UUID to the share of its memory that vLLM's servers take, of each GPU that they have.

    Raises:
        FleetError: a GPU is not there.
    """
    items = vllm_instances(me)
    shares: dict[str, float] = {}
    for name, uuids in bind(items, ask(DrivenGpus)).items() if items else ():
        [item] = [it for it in items if it.name == name]
        for uuid in uuids:
            shares[uuid] = shares.get(uuid, 0.0) + item.declared.memory_share
    return shares


def weights_of(item: VllmInstance, ask: Ask) -> Weights:
    """What is known of a server's weights: by the host's disk, else by their lock."""
    found: Weights = ask(WeightsThere, folder=item.folder)
    if found == Weights() and item.weights:
        return Weights(item.weights.bytes)
    return found


def judged(me: FleetHost, ask: Ask, *, final: bool) -> Verdict:
    """The host's driver, GPUs and memory, beside what its servers want.

    With `final` the driver is there, and so are the weights; before, what cannot be known is left.
    """
    refusals, notes = list(_driver(me, ask, final=final)), list[str]()
    if not refusals and _tells_of_gpus(ask, final=final):
        try:
            bound = gpus_of(me, ask)
        except FleetError as error:
            return Verdict((str(error),))
        refusals, notes = _memory(me, ask, bound)
    refusals += _without_weights(me, ask, final=final)
    return Verdict(tuple(refusals), tuple(notes))


def _tells_of_gpus(ask: Ask, *, final: bool) -> bool:
    """Whether the host can say by now which GPUs there are; before its reboot it cannot."""
    if ask(DrivenGpus) or not ask(GpuHardwareFact).gpus:
        return True
    state: DriverState = ask(DriverStateFact, nouveau_conf=DRIVER_NOUVEAU)
    return final and not state.needs_reboot


def _driver(me: FleetHost, ask: Ask, *, final: bool) -> Iterator[str]:
    """A driver that is older than the build wants, and that this deploy leaves as it is."""
    state: DriverState = ask(DriverStateFact, nouveau_conf=DRIVER_NOUVEAU)
    wanted, module = me[Vllm].driver_branch, state.installed or state.loaded
    if not wants_gpus(me) or module is None or module.branch >= wanted:
        return
    if final or me[Driver].source != "nvidia":
        yield (
            f"vllm_driver_branch = {wanted}: the host's driver is {module}, of branch "
            f"{module.branch}, and vLLM's build does not start with it; install a newer one "
            f"(driver_branch = {wanted}), or take a build for an older CUDA, with its "
            "vllm_driver_branch"
        )


def _memory(
    me: FleetHost, ask: Ask, bound: dict[str, tuple[str, ...]]
) -> tuple[list[str], list[str]]:
    sizes: dict[str, int] = ask(GpuSizes)
    refusals, notes = list[str](), list[str]()
    on_gpus = [
        (item, {uuid: sizes[uuid] for uuid in bound[item.name] if sizes.get(uuid)})
        for item in vllm_instances(me)
    ]
    refusals += shared_too_far(on_gpus)
    for item, gpus in on_gpus:
        weights = weights_of(item, ask)
        if weights.config:
            refusals += contradictions(item, len(bound[item.name]), weights.config)
        if not gpus:
            if bound[item.name]:
                notes.append(f"{item.name}: its GPUs do not tell their memory: it was not judged")
            continue
        judgement: Judgement = judge(item, gpus, weights)
        if judgement.refusal:
            refusals.append(judgement.refusal)
        else:
            notes.append(str(judgement))
    return refusals, notes


def _without_weights(me: FleetHost, ask: Ask, *, final: bool) -> Iterator[str]:
    """Weights that are not there; those of the deploy's own may come until it is final."""
    for item in vllm_instances(me):
        found: Weights = ask(WeightsThere, folder=item.folder)
        if item.weights and found.config is None:
            if not final:
                continue
            yield (
                f"vllm_servers: {item.name}: weights: {item.weights.name} are not there yet; "
                "deploy again when `fleet status` says that they are"
            )
        elif found.config is None or not found.bytes:
            lacks = (
                "no config.json that can be read" if found.config is None else "no *.safetensors"
            )
            yield (
                f"vllm_servers: {item.name}: weights: {item.folder} has {lacks}; put the model's "
                "files there, readable for everybody"
            )
