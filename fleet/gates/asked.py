"""What the gates before and after a load are decided by, asked of a host.

`ask` is `host.get_fact` in a deploy and `Target.fact` in a compliance check: both decide alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from fleet.declare.fleet import FleetHost
from fleet.declare.types import is_http
from fleet.driver.facts import DrivenGpus, GpuHardwareFact
from fleet.gates.facts import (
    FileHead,
    FileSize,
    GpuMemories,
    ModelManifest,
    PlacementState,
    SurroundingsState,
)
from fleet.gates.fit import Budget, Candidate
from fleet.gates.gguf import read_keys
from fleet.gates.memory import HOST_RESERVE, PUBLISHED, Shape, shape_of, weights_of
from fleet.gates.placement import Placement, Surroundings, explain, obstacle, problems
from fleet.gpu.settings import Gpus
from fleet.kit.errors import FleetError
from fleet.kit.on_host.registry import blob_url, manifest_url
from fleet.kit.proxy import proxy_environment
from fleet.models.choice import choose, resolve, resolve_model
from fleet.models.facts import HostMemory
from fleet.models.on_host.ollama_protocol import (
    WEIGHTS_TYPE,
    blob_name,
    manifest_path,
    split_name,
)
from fleet.models.settings import Models
from fleet.ollama.instances import bind_gpus
from fleet.ollama.models import AUTO, ModelDeclaration, full_name, pull_name, with_bases
from fleet.ollama.servers import Instance, instances_of
from fleet.ollama.settings import Ollama
from fleet.vllm.asked import taken

Ask = Callable[..., Any]

CPU_BY_DECLARATION = "CPU by declaration"
CPU_UNDECLARED = "on the CPU, and nobody declared that"


class UnknownMemoryError(FleetError):
    """The GPUs on the bus do not tell how much memory they have."""


def on_gpu(me: FleetHost, ask: Ask) -> list[Instance]:
    """The instances whose models belong on GPUs: the bus decides, and `gpus = []` takes one off.

    What the driver says is not asked: a host whose GPUs do not work is none without GPUs.
    """
    if not ask(GpuHardwareFact).gpus:
        return []
    return [item for item in instances_of(me) if item.gpus != ()]


def why_on_cpu(me: FleetHost, item: Instance) -> str:
    """Why the models of an instance that is not `on_gpu` are on the CPU."""
    return CPU_BY_DECLARATION if me[Gpus].on_cpu or item.gpus == () else CPU_UNDECLARED


def budgets(me: FleetHost, ask: Ask) -> list[Budget]:
    """Each instance with the memory that it may fill.

    Raises:
        UnknownMemoryError: the driver does not tell of the GPUs, or not of all that are declared.
    """
    ram = ask(HostMemory).ram
    wanting = on_gpu(me, ask)
    # A GPU without memory of its own uses the host's, which is what Ollama then counts.
    shared = ram - HOST_RESERVE
    memories = {item.uuid: item.total or shared for item in ask(GpuMemories)} if wanting else {}
    # What a vLLM server takes of a GPU that both have, it takes whether or not it is asked.
    memories = _without_vllms(me, memories, ask) if memories else memories
    if wanting and not memories:
        raise UnknownMemoryError("nvidia-smi does not tell of the GPUs on the bus")
    try:
        bound = (
            bind_gpus(instances_of(me), ask(DrivenGpus), ask(GpuHardwareFact)) if wanting else {}
        )
    except FleetError as error:
        raise UnknownMemoryError(str(error)) from None
    return [
        Budget(item, tuple((uuid, memories[uuid]) for uuid in bound[item.name] or memories), ram)
        if item in wanting
        else Budget(item, (), ram)
        for item in instances_of(me)
    ]


def _without_vllms(me: FleetHost, memories: dict[str, int], ask: Ask) -> dict[str, int]:
    try:
        shares = taken(me, ask)
    except FleetError as error:
        raise UnknownMemoryError(str(error)) from None
    return {
        uuid: round(memory * max(0.0, 1 - shares.get(uuid, 0.0)))
        for uuid, memory in memories.items()
    }


def candidates(me: FleetHost, ask: Ask) -> list[Candidate]:
    """Every declared model and base with its shape: by the host's disk, else by the registry."""
    choice = choose(ask(HostMemory))
    declared = with_bases(me[Ollama].models)
    sources = {model.full_name: model for model in declared}
    shapes: dict[str, tuple[Shape | None, str | None]] = {}
    found = []
    for model in declared:
        named = resolve_model(model, choice)
        if named is None:
            found.append(Candidate(model, None, "the GPUs do not tell what `auto` is", model.name))
            continue
        if named.root not in shapes and not named.memory:
            shapes[named.root] = _shape(me, sources.get(named.root, named), named.root, ask)
        shape, unknown = shapes.get(named.root, (None, None))
        found.append(Candidate(named, shape, unknown, model.name))
    return found


def declared_models(declared: Ollama, ask: Ask) -> list[ModelDeclaration]:
    """The models of a host, or of one of its servers; `auto` by its choice, where that is made."""
    choice = choose(ask(HostMemory))
    return [named for model in declared.models if (named := resolve_model(model, choice))]


def offloaded(me: FleetHost, ask: Ask) -> set[str]:
    """Full names of the models that may be partly on the CPU, with those that share their weights.

    Ollama lists a process that models share by the name of the one that loaded it.
    """
    models = declared_models(me[Ollama], ask)
    choice = choose(ask(HostMemory))
    named = {resolve(name, choice) or full_name(name) for name in me[Models].cpu_offload}
    roots = {model.root for model in models if model.full_name in named}
    sharing = {model.full_name for model in models if model.root in named | roots}
    if choice and choice.model in named | roots | sharing:
        # What the host calls its choice, too.
        sharing.add(full_name(AUTO))
    return named | roots | sharing


def misplaced(
    me: FleetHost, ask: Ask, running: Iterable[tuple[Instance, Placement]] = ()
) -> list[str]:
    """What is silently on the CPU, a text for each instance with its evidence.

    `running` is what was seen of the instances; without it, each is looked at now.
    """
    wanting = on_gpu(me, ask)
    seen = list(running) or [
        (item, ask(PlacementState, url=item.url, unit=item.unit)) for item in wanting
    ]
    allowed = offloaded(me, ask)
    off = {model.full_name for model in me[Ollama].models if model.parameters.num_gpu == 0}
    texts = []
    for item, placement in seen:
        if item not in wanting:
            continue
        gpus = gpu_count(item, ask)
        found = list(problems(placement, gpus, allowed, off & allowed))
        if found:
            texts.append(explain(placement, found, item.unit, _around(item, ask), gpus))
    return texts


def too_early(me: FleetHost, ask: Ask) -> list[Instance]:
    """The instances that started before GPUs which nothing keeps them from now."""
    found = []
    for item in on_gpu(me, ask):
        placement = ask(PlacementState, url=item.url, unit=item.unit)
        gpus = gpu_count(item, ask)
        if not placement.found or len(placement.devices) >= gpus:
            continue
        if obstacle(_around(item, ask), item.unit, gpus) is None:
            found.append(item)
    return found


def _around(item: Instance, ask: Ask) -> Surroundings:
    around: Surroundings = ask(
        SurroundingsState,
        unit=item.unit,
        sandboxed=item.runtime == "systemd",
        has_switches=ask(GpuHardwareFact).nvswitches > 0,
    )
    return around


def gpu_count(instance: Instance, ask: Ask) -> int:
    """GPUs that an instance was given; all of them are those on the bus."""
    everything = len(ask(GpuHardwareFact).gpus)
    return everything if isinstance(instance.gpus, str) else len(instance.gpus)


def _shape(
    me: FleetHost, model: ModelDeclaration, root: str, ask: Ask
) -> tuple[Shape | None, str | None]:
    """The shape of the weights called `root`, and what of it is not known."""
    environment = proxy_environment(me[Ollama].https_proxy, me[Ollama].no_proxy)
    source = pull_name(root, me[Models].registry)
    insecure = me[Models].registry_insecure and source != root
    registry, repository, tag = split_name(source)
    url = None if model.gguf else manifest_url(registry, repository, tag, insecure=insecure)
    path = manifest_path(me[Ollama].models_dir, root)
    answer = ask(ModelManifest, path=path, url=url, digest=model.digest, environment=environment)
    if answer.manifest is None and model.gguf:
        return _gguf_shape(model.gguf, environment, ask)
    if answer.manifest is None:
        published = PUBLISHED.get(root)
        return published, None if published else answer.reason
    weights = weights_of(answer.manifest)
    digest = next(
        (
            layer["digest"]
            for layer in answer.manifest["layers"]
            if layer["mediaType"] == WEIGHTS_TYPE
        ),
        None,
    )
    if digest is None:
        return _of_head(weights, b"")
    head = ask(
        FileHead,
        path=f"{me[Ollama].models_dir}/blobs/{blob_name(digest)}",
        url=None if model.gguf else blob_url(registry, repository, digest, insecure=insecure),
        environment=environment,
    )
    return _of_head(weights, head)


def _gguf_shape(
    place: str, environment: dict[str, str], ask: Ask
) -> tuple[Shape | None, str | None]:
    size = ask(FileSize, place=place, environment=environment)
    if not size:
        return None, f"{place} does not tell its size"
    path, url = (None, place) if is_http(place) else (place, None)
    return _of_head(size, ask(FileHead, path=path, url=url, environment=environment))


def _of_head(weights: int, head: bytes) -> tuple[Shape, str | None]:
    try:
        return shape_of(weights, read_keys(head)), None
    except ValueError as error:
        return Shape(weights), f"{error}; its weights alone were judged"
