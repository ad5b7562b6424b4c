"""How much of each GPU a vLLM server needs, and how many requests its caches then hold.

vLLM takes `memory_share` of each GPU when it starts. Of that go, on each GPU:

- the weights, shared out over the GPUs of tensor and pipeline parallelism.
- what the largest batch needs while it is computed, and CUDA's own: 2 GiB are counted; vLLM
  measures it when it starts.
- CUDA graphs: 1 GiB, and nothing with `enforce-eager`.
- the rest is the cache. vLLM does not start where that holds less than one request of the whole
  context; where it holds fewer than `max_sequences` of them, requests wait. A token takes its
  elements in every layer; layers with a window keep the window, and what one batch adds to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from fleet.vllm.model import ModelConfig
from fleet.vllm.servers import VllmInstance

GIB = 1024**3
_OVERHEAD, _GRAPHS = 2 * GIB, GIB
_BATCH = 8_192  # tokens that are computed at once by default


@dataclass(frozen=True)
class Weights:
    """What of a server's weights is known: bytes, and their configuration.

    `bytes` is 0 and `config` None while they are not there.
    """

    bytes: int = 0
    config: ModelConfig | None = None


@dataclass(frozen=True)
class Judgement:
    """A server on its GPUs, by the smallest of them; bytes. None is not known."""

    item: VllmInstance
    share: int
    weights: int
    overhead: int
    request: int | None = None

    @property
    def left(self) -> int:
        """What is left for caches."""
        return self.share - self.weights - self.overhead

    @property
    def requests(self) -> int | None:
        """How many requests of the whole context its caches hold."""
        return None if not self.request else max(0, self.left) // self.request

    @property
    def refusal(self) -> str:
        """Why it cannot start, with the fix; empty when it can."""
        needed = self.overhead + (self.request or 0)
        if self.left >= (self.request or 1):
            return ""
        fixes = "lower its context, raise memory_share, or give it more GPUs"
        if self.left <= 0:
            fixes = "raise memory_share, or give it more GPUs with a higher tensor_parallel"
        cache = f", cache of one request {_gib(self.request)}" if self.request else ""
        return (
            f"vllm_servers: {self.item.name}: needs {_gib(self.weights + needed)} of each GPU "
            f"(weights {_gib(self.weights)}{cache}, overhead {_gib(self.overhead)}), and "
            f"memory_share = {self.item.declared.memory_share} of it is {_gib(self.share)}; {fixes}"
        )

    def __str__(self) -> str:
        """It in a few words."""
        if self.requests is None:
            return f"{self.item.name}: {_gib(max(0, self.left))} of each GPU for caches"
        return (
            f"{self.item.name}: {_gib(max(0, self.left))} of each GPU for caches, which hold "
            f"{self.requests} requests of the whole context at once "
            f"(max_sequences = {self.item.declared.max_sequences})"
        )


def judge(item: VllmInstance, gpus: Mapping[str, int], weights: Weights) -> Judgement:
    """The server on its `gpus`, UUID to bytes; on the CPU nothing is judged."""
    parallel = item.tensor_parallel(len(gpus))
    stages = int(item.declared.flags.get("pipeline-parallel-size", 1))
    graphs = 0 if item.declared.flags.get("enforce-eager") is True else _GRAPHS
    return Judgement(
        item,
        share=round(min(gpus.values()) * item.declared.memory_share),
        weights=weights.bytes // (parallel * stages),
        overhead=_OVERHEAD + graphs,
        request=_request(item, weights.config, parallel, stages),
    )


def _request(
    item: VllmInstance, config: ModelConfig | None, parallel: int, stages: int
) -> int | None:
    """Bytes that one request of the whole context takes on each GPU."""
    elements = config.elements(parallel) if config else None
    context = item.declared.context or (config.context if config else None)
    if config is None or elements is None or context is None:
        return None
    whole, windowed = elements
    batch = int(item.declared.flags.get("max-num-batched-tokens", _BATCH))
    window = min(context, config.window + batch)
    size = 2 if item.declared.kv_cache == "auto" else 1
    return size * (whole * context + windowed * window) // stages


def contradictions(item: VllmInstance, gpus: int, config: ModelConfig) -> Iterator[str]:
    """What of a server contradicts its model, where it has so many GPUs."""
    it = item.declared
    if it.context and config.context and it.context > config.context:
        yield (
            f"vllm_servers: {it.name}: context = {it.context}: the model was made for "
            f"{config.context}; lower it, or leave it out"
        )
    parallel = item.tensor_parallel(gpus)
    if config.heads and config.heads % parallel:
        yield (
            f"vllm_servers: {it.name}: tensor_parallel = {parallel}: does not divide the model's "
            f"{config.heads} attention heads; give it another number of GPUs"
        )


def shared_too_far(
    items: Iterable[tuple[VllmInstance, Iterable[str]]],
) -> Iterator[str]:
    """GPUs of which servers take more than there is, together; each server with its GPUs."""
    taken: dict[str, list[VllmInstance]] = {}
    for item, gpus in items:
        for uuid in gpus:
            taken.setdefault(uuid, []).append(item)
    for uuid, sharing in taken.items():
        total = sum(item.declared.memory_share for item in sharing)
        if len(sharing) > 1 and total > 1:
            names = ", ".join(f"{item.name} {item.declared.memory_share}" for item in sharing)
            yield (
                f"vllm_servers: {uuid} is shared by {names}, which is {total:.2f} of its memory; "
                "lower their memory_share to 1 together"
            )


def _gib(count: int | None) -> str:
    return f"{(count or 0) / GIB:.1f} GiB"
