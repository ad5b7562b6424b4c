"""What of vLLM's settings cannot work."""

from __future__ import annotations

from collections.abc import Iterator

from fleet.container_toolkit.settings import ContainerToolkit
from fleet.declare.fleet import Fleet, FleetHost
from fleet.docker.settings import Docker
from fleet.driver.settings import Driver, branch_in
from fleet.kit.durations import seconds
from fleet.ollama.models import full_name
from fleet.ollama.servers import instances_of
from fleet.ollama.settings import ALL_GPUS, Ollama
from fleet.vllm.servers import VllmInstance, vllm_instances
from fleet.vllm.settings import Vllm
from fleet.weights import declared as weights


def problems(host: FleetHost, _: Fleet) -> Iterator[str]:
    """What of vLLM on `host` cannot work."""
    settings = host[Vllm]
    if not settings.servers:
        yield f"{host.name}: vllm_servers is empty, and the host is in group vllm; declare a server"
    yield from _runtime_problems(host, settings)
    yield from _driver_problems(host, settings)
    for item in vllm_instances(host):
        if not item.folder.startswith("/"):
            yield (
                f"{host.name}: vllm_servers: {item.name}: weights = {item.folder!r}: there are no "
                f"weights of that name; {_known(host)}, or give the directory that holds them"
            )
        yield from _beside_ollama(host, item)
    if seconds(settings.watch_timeout) < seconds(settings.watch_every):
        yield (
            f"{host.name}: vllm_watch_timeout = {settings.watch_timeout!r}: shorter than "
            f"vllm_watch_every = {settings.watch_every!r}; make it at least as long"
        )


def stored_problems(host: FleetHost, fleet: Fleet) -> Iterator[str]:
    """What of the operator's files is missing, or no lock."""
    settings = host[Vllm]
    if settings.runtime != "venv" or settings.lock is None:
        return
    path = fleet.root / settings.lock
    said = f"{host.name}: vllm_lock = {settings.lock!r}"
    if not path.is_file():
        yield f"{said}: no such file; paths are relative to {fleet.root}"
    elif "--hash=sha256:" not in path.read_text():
        yield f"{said}: has no hashes; write it by `uv pip compile --generate-hashes`"


def _runtime_problems(host: FleetHost, settings: Vllm) -> Iterator[str]:
    if settings.runtime == "docker":
        if settings.image is None:
            yield (
                f"{host.name}: vllm_image is missing; set it to "
                "'vllm/vllm-openai:<version>@sha256:<digest>', with the digest that `docker buildx "
                "imagetools inspect vllm/vllm-openai:<version>` shows"
            )
        if not host.runs(Docker):
            yield (
                f"{host.name}: vllm_runtime = 'docker' needs Docker on this host; set "
                "docker_enabled = True, or vllm_runtime = 'venv'"
            )
        if any(item.gpus for item in settings.servers) and not host[ContainerToolkit].enabled:
            yield (
                f"{host.name}: toolkit_enabled = False: vLLM's containers could not see a GPU; "
                "leave it out, or set vllm_runtime = 'venv'"
            )
        return
    if settings.lock is None:
        yield (
            f"{host.name}: vllm_lock is missing; set it to a file of the project that `uv pip "
            "compile --generate-hashes` wrote for vLLM and the host's Python"
        )


def _driver_problems(host: FleetHost, settings: Vllm) -> Iterator[str]:
    """A declared driver that is older than the build wants; what runs is judged on the host."""
    driver = host[Driver]
    branch = branch_in(driver.version) if driver.version else driver.branch
    wants_gpus = any(item.gpus != () for item in settings.servers)
    if wants_gpus and branch is not None and branch < settings.driver_branch:
        name = "driver_version" if driver.version else "driver_branch"
        yield (
            f"{host.name}: {name} = {driver.version or branch!r}: vLLM's build needs branch "
            f"{settings.driver_branch} or newer (vllm_driver_branch); declare that, or a build "
            "for an older CUDA with its vllm_driver_branch"
        )


def _known(host: FleetHost) -> str:
    names = ", ".join(weights.declared(host))
    return f"there are {names}" if names else "declare some by that name"


def _beside_ollama(host: FleetHost, item: VllmInstance) -> Iterator[str]:
    """What the Ollama servers of the same host make impossible."""
    for other in instances_of(host):
        if other.name == item.name:
            yield (
                f"{host.name}: vllm_servers: {item.name!r} is the name of one of ollama_instances, "
                f"and a gateway would call both {host.name}/{item.name}; rename one"
            )
        everything = other.name is None or ALL_GPUS in (other.gpus, item.gpus)
        shared = everything or bool(set(other.gpus) & set(item.gpus))
        if shared and item.gpus and other.gpus and not item.declared.shared_gpus:
            yield (
                f"{host.name}: vllm_servers: {item.name} has GPUs that {other.unit} uses too; give "
                "each its own by ollama_instances and gpus, or shared_gpus = True to the server"
            )
    both = {full_name(name) for name in item.declared.served_names} & {
        full_name(name) for name in (host[Ollama].model_names if host.runs(Ollama) else ())
    }
    if both:
        yield (
            f"{host.name}: vllm_servers: {item.name}: served_names: {', '.join(sorted(both))} is "
            "one of ollama_models of the same host, which would have its weights twice; take it "
            "from one of them"
        )
