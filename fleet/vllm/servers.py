"""The vLLM servers of a host: where they listen, and how each is started."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from ipaddress import ip_network

from fleet.declare.capability import Server, Service
from fleet.declare.fleet import Endpoint, Fleet, FleetHost
from fleet.kit.durations import seconds
from fleet.kit.places import Directory
from fleet.ollama.settings import Gpus
from fleet.platform.declared import endpoint
from fleet.platform.settings import Platform
from fleet.vllm.flags import words_of
from fleet.vllm.model import ModelConfig
from fleet.vllm.paths import VLLM_CACHE, VLLM_ROOT, VLLM_USER, server_container, server_unit
from fleet.vllm.settings import AUTO, NONE, OWN_ENVIRONMENT, Runtime, Vllm, VllmServer
from fleet.weights import declared as weights
from fleet.weights.declared import DeclaredWeights

# The APIs that vLLM speaks.
SURFACES = ("openai", "anthropic")
# Its own and another server's of before.
HELD_BY = (server_unit("*"), server_container("*"))
# Where the module is, the command `vllm` may be missing: it looks for a distribution of that name.
MODULE = "vllm.entrypoints.openai.api_server"
# gpt-oss calls tools in the form of its own, which vLLM reads by this parser.
_TOOL_PARSERS = {"GptOssForCausalLM": "openai"}


@dataclass(frozen=True)
class VllmInstance:
    """One vLLM server of a host; `declared` is as the inventory has it, `settings` the host's.

    `folder` is where its weights are, and `weights` those of the host that are meant, None where
    somebody else keeps them.
    """

    declared: VllmServer
    settings: Vllm
    endpoint: Endpoint
    folder: str
    weights: DeclaredWeights | None = None

    @property
    def name(self) -> str:
        """Its name, which no other server of the host has."""
        return self.declared.name

    @property
    def gpus(self) -> Gpus:
        """Its GPUs, as they are declared."""
        return self.declared.gpus

    @property
    def runtime(self) -> Runtime:
        """How it runs."""
        return self.settings.runtime

    @property
    def unit(self) -> str:
        """The systemd unit that runs it."""
        return server_unit(self.name)

    @property
    def container(self) -> str | None:
        """What Docker calls its container, where it has one."""
        return server_container(self.name) if self.runtime == "docker" else None

    @property
    def url(self) -> str:
        """Its API, asked on its own host."""
        return f"http://{self.endpoint}"

    @property
    def model(self) -> str:
        """What it is asked for when its answer is all that counts."""
        return self.declared.served_names[0]

    @property
    def cache(self) -> str:
        """What it may write; code that it has compiled is there."""
        return f"{VLLM_CACHE}/{self.name}"

    @cached_property
    def start_seconds(self) -> int:
        """How long it may take until it answers."""
        return round(seconds(self.settings.start_timeout))

    @cached_property
    def shutdown_seconds(self) -> int:
        """How long its answers may go on when it is stopped."""
        return round(seconds(self.settings.shutdown_timeout))

    def tensor_parallel(self, gpus: int) -> int:
        """GPUs that share each layer, where it has `gpus`; 1 on the CPU."""
        return self.declared.tensor_parallel or max(1, gpus // self.declared.multiplied)

    def arguments(self, gpus: int, config: ModelConfig | None) -> list[str]:
        """The server's words after the module's name; none of them is a secret.

        `gpus` is how many it was given, `config` what its weights are, where that is known.
        """
        it = self.declared
        # A container has addresses of its own; Docker publishes the port on the declared one.
        address = "0.0.0.0" if self.container else self.endpoint.address  # noqa: S104
        words = [
            "--model", self.folder, "--served-model-name", *it.served_names,
            "--host", address, "--port", str(it.port),
            "--tensor-parallel-size", str(self.tensor_parallel(gpus)),
            "--gpu-memory-utilization", str(it.memory_share),
            "--max-num-seqs", str(it.max_sequences),
            # It counts those that are answered, too, on all copies of the model.
            "--max-num-queued-reqs", str(it.copies * it.max_sequences + it.max_queued),
            "--kv-cache-dtype", it.kv_cache,
            "--shutdown-timeout", str(self.shutdown_seconds),
            "--enable-force-include-usage", "--disable-fastapi-docs",
        ]  # fmt: skip
        if it.context is not None:
            words += ["--max-model-len", str(it.context)]
        if parser := self.tool_parser(config):
            words += ["--enable-auto-tool-choice", "--tool-call-parser", parser]
        if it.reasoning_parser not in (AUTO, NONE):
            words += ["--reasoning-parser", it.reasoning_parser]
        return [*words, *words_of(it.flags)]

    def tool_parser(self, config: ModelConfig | None) -> str | None:
        """What reads calls of tools from its answers; None for nothing."""
        declared = self.declared.tool_parser
        if declared == AUTO:
            return _TOOL_PARSERS.get(config.architecture) if config else None
        return None if declared == NONE else declared

    def environment(self, uuids: Sequence[str]) -> dict[str, str]:
        """The server's whole environment when its GPUs are those with `uuids`.

        A container is shown its GPUs alone.
        """
        places = {
            "VLLM_MAX_N_SEQUENCES": str(self.declared.max_choices),
            "VLLM_CACHE_ROOT": self.cache,
            "HOME": self.cache,
            "HF_HOME": f"{self.cache}/hf",
            "XDG_CACHE_HOME": self.cache,
            "TRITON_CACHE_DIR": f"{self.cache}/triton",
            "TORCHINDUCTOR_CACHE_DIR": f"{self.cache}/inductor",
        }
        gpus = {"CUDA_VISIBLE_DEVICES": ",".join(uuids)} if uuids and not self.container else {}
        return {**OWN_ENVIRONMENT, **places, **gpus, **self.declared.env}


def vllm_instances(host: FleetHost) -> tuple[VllmInstance, ...]:
    """The vLLM servers of the host."""
    if not host.runs(Vllm):
        return ()
    declared, known = host[Vllm], weights.declared(host)

    def instance(item: VllmServer) -> VllmInstance:
        found = known.get(item.weights)
        folder = found.folder if found else item.weights
        where = endpoint(host, declared.listen, item.port)
        return VllmInstance(item, declared, where, folder, found)

    return tuple(map(instance, declared.servers))


def wants_gpus(host: FleetHost) -> bool:
    """Whether any server of the host is to have GPUs, where there are some."""
    return any(item.gpus != () for item in vllm_instances(host))


def services(host: FleetHost, fleet: Fleet) -> Iterator[Service]:
    """The API of each server; only gateways call it from outside."""
    private = host[Vllm].listen == "private"
    addresses = [item[Platform].private_address for item in fleet.callers(host)]
    callers = tuple(ip_network(item) for item in addresses if item is not None)
    for item in vllm_instances(host):
        yield Service(
            f"vllm_servers {item.name}",
            f"vllm {item.name}",
            (item.endpoint,),
            callers if private else (),
            "vllm, from the gateways",
            private="vllm_listen" if private else None,
            published=item.container is not None,
            held_by=HELD_BY,
        )


def servers(host: FleetHost) -> Iterator[Server]:
    """Each vLLM server, as a gateway sees it: it has its own model and no other."""
    for item in vllm_instances(host):
        yield Server(
            host, item.name, item.endpoint, SURFACES, item.declared.served_names, closed=True
        )


def caches(host: FleetHost) -> list[Directory]:
    """What each server may write."""
    return [Directory(item.cache, item.cache, VLLM_USER) for item in vllm_instances(host)]


def directories(host: FleetHost) -> Iterator[Directory]:
    """Those, and what is root's: the folder that they are in, and the virtual environments'."""
    yield Directory(VLLM_CACHE, VLLM_CACHE)
    yield from caches(host)
    yield Directory(VLLM_ROOT, VLLM_ROOT)
