"""How much memory a model takes while it is loaded, and which setting would make it fit.

Bytes throughout. The parts, and where each is from:

- weights: the sizes of a manifest's layers that Ollama loads.
- KV cache: two vectors a token, layer and KV head. Layers with a sliding window keep the window of
  each request and one batch; the others keep the whole context of each (llama.cpp, llama-kv-cache
  and llama-kv-cache-iswa). gpt-oss:20b so takes 24576 bytes a token, gpt-oss:120b 36864.
- the batch: Ollama's scheduler reckons 768 MiB more from 1024 tokens on, and 2 GiB from 2048 on
  (generationBatchSurcharge). It takes large ones for long contexts, but lowers what nobody declared
  to 512 before anything leaves the GPU (automaticGenerationBatch): that is counted.
- a margin for CUDA's own context and the compute buffers: what llama.cpp leaves free of each GPU
  when it fits a model to it (LLAMA_ARG_FIT_TARGET, 1024 MiB).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

GIB = 1024**3
MIB = 1024**2

MARGIN = GIB
# Beside others, Ollama loads a model into this share of what they leave; else it unloads one
# (server/sched.go, llamaServerLoadHeadroomPercent).
HEADROOM = 0.8
# Tokens that are read at once when memory is short.
BATCH = 512
# What the rest of a host without a GPU needs of its memory.
HOST_RESERVE = GIB

# Bytes of an element of the cache: blocks of 32 with a scale of two bytes (ggml, block_q8_0, q4_0).
ELEMENT = {"f16": 2.0, "q8_0": 34 / 32, "q4_0": 18 / 32}
# Of how many layers one keeps the whole context, where the others have a window and the file does
# not tell which; an architecture that is not named here counts as if every layer kept it
# (llama.cpp, set_swa_pattern).
_WHOLE_CONTEXT_EVERY = {
    "gptoss": 2, "gpt-oss": 2, "gemma2": 2, "gemma3": 6, "gemma3n": 5, "cohere2": 4,
}  # fmt: skip
# Layers of a manifest that are loaded; templates and licenses are not.
_LOADED_LAYERS = tuple(
    f"application/vnd.ollama.image.{kind}" for kind in ("model", "projector", "adapter")
)
# Ollama's default context by the memory of all GPUs that it sees (envconfig and server/routes.go).
_CONTEXT_TIERS = ((47 * GIB, 262_144), (23 * GIB, 32_768), (0, 4_096))
_CONTEXTS = (131_072, 65_536, 32_768, 16_384, 8_192, 4_096, 2_048)


@dataclass(frozen=True)
class Shape:
    """What of a model decides its memory.

    `whole` and `windowed` are elements of the cache a token, summed over the layers that keep the
    whole context and those that keep `window` tokens. `trained` is the longest context, in tokens.
    `rough` are the elements a token by which Ollama's scheduler goes: see `prediction`.
    """

    weights: int
    whole: int = 0
    windowed: int = 0
    window: int = 0
    trained: int = 0
    rough: int = 0


@dataclass(frozen=True)
class Load:
    """How a model is loaded: context a request in tokens, requests at once, type of the cache.

    `batch` are the tokens read at once, as declared, else as few as Ollama comes down to.
    """

    context: int
    parallel: int = 1
    cache: str = "f16"
    batch: int = BATCH


@dataclass(frozen=True)
class Need:
    """A loaded model's memory in bytes."""

    weights: int
    cache: int
    overhead: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.cache + self.overhead

    def __str__(self) -> str:
        """`14.0 GiB (weights 12.8, cache 0.1, overhead 1.0)`."""
        return (
            f"{gib(self.total)} (weights {self.weights / GIB:.1f}, cache "
            f"{self.cache / GIB:.1f}, overhead {self.overhead / GIB:.1f})"
        )


# As published; for when neither the host's disk nor the registry tells.
PUBLISHED = {
    "gpt-oss:20b": Shape(13_793_422_144, 12_288, 12_288, 128, 131_072, 17_280),
    "gpt-oss:120b": Shape(65_369_818_941, 18_432, 18_432, 128, 131_072, 25_920),
}


def gib(count: float) -> str:
    """A number of bytes as `12.8 GiB`."""
    return f"{count / GIB:.1f} GiB"


def weights_of(manifest: Mapping[str, Any]) -> int:
    """Bytes of a manifest's layers that are loaded into memory."""
    layers = manifest["layers"]
    return sum(layer["size"] for layer in layers if layer["mediaType"] in _LOADED_LAYERS)


def shape_of(weights: int, keys: Mapping[str, Any]) -> Shape:
    """The shape of a model of `weights` bytes whose GGUF file has these keys.

    Raises:
        ValueError: the keys do not tell how large its cache is.
    """
    arch = keys.get("general.architecture", "")

    def number(key: str, otherwise: int | None = None) -> Any:
        value = keys.get(f"{arch}.{key}", otherwise)
        if value is None:
            raise ValueError(f"its GGUF file does not tell {arch or 'its architecture'}.{key}")
        return value

    layers, heads = number("block_count"), number("attention.head_count")
    of_head = number("embedding_length", 0) // (max(heads) if isinstance(heads, list) else heads)
    sides = [number(f"attention.{side}_length", of_head) for side in ("key", "value")]
    narrow = [
        number(f"attention.{side}_length_swa", length)
        for side, length in zip(("key", "value"), sides, strict=True)
    ]
    kv_heads = number("attention.head_count_kv", heads)
    # Some models have another number in each layer.
    by_layer = kv_heads if isinstance(kv_heads, list) else [kv_heads] * layers
    window = number("attention.sliding_window", 0)
    # Which layers have the window: a flag for each, or of how many one has none.
    pattern = number("attention.sliding_window_pattern", _WHOLE_CONTEXT_EVERY.get(arch, 1))
    if not isinstance(pattern, list):
        pattern = [pattern > 0 and place % pattern != 0 for place in range(1, layers + 1)]
    whole = sum(
        count
        for place, count in enumerate(by_layer)
        if not (window and place < len(pattern) and pattern[place])
    )
    return Shape(
        weights,
        whole * sum(sides),
        (sum(by_layer) - whole) * sum(narrow),
        window,
        number("context_length", 0),
        2 * layers * min(by_layer) * of_head,
    )


def default_context(gpus: Iterable[int]) -> int:
    """The context that Ollama takes when none is declared, by the memory of its GPUs, in tokens."""
    total = sum(gpus)
    return next(context for least, context in _CONTEXT_TIERS if total >= least)


def need(shape: Shape, load: Load, gpus: int = 0) -> Need:
    """The memory of a model with this shape, loaded in this way over `gpus` GPUs; 0 is the CPU."""
    context = min(load.context, shape.trained or load.context)
    tokens = context * load.parallel
    windows = min(tokens, shape.window * load.parallel + load.batch)
    elements = shape.whole * tokens + shape.windowed * windows
    overhead = _surcharge(load.batch) + MARGIN * gpus
    return Need(shape.weights, round(elements * ELEMENT[load.cache]), overhead)


def prediction(shape: Shape, load: Load) -> int:
    """Bytes that Ollama's scheduler expects of a load (llm/llama_server.go, PredictServerVRAM).

    It knows no windows, takes heads of one size, and two bytes an element whatever the cache is.
    """
    context = min(load.context, shape.trained or load.context)
    return shape.weights + 2 * shape.rough * context * load.parallel + _surcharge(load.batch)


def _surcharge(batch: int) -> int:
    return 2 * GIB if batch >= 2_048 else 768 * MIB if batch >= 1_024 else 0


def ways_to_fit(shape: Shape, load: Load, budget: int, gpus: int) -> Iterator[Load]:
    """Loads that differ in one thing from `load` and take at most `budget` bytes, nearest first.

    Requests at once, then the type of the cache, then the context; of each the largest that fits.
    """
    effective = min(load.context, shape.trained or load.context)
    halves = [load.parallel // 2**n for n in range(1, load.parallel.bit_length())]
    kinds = [kind for kind, size in ELEMENT.items() if size < ELEMENT[load.cache]]
    contexts = [context for context in _CONTEXTS if context < effective]
    for changes in (
        [replace(load, parallel=parallel) for parallel in halves],
        [replace(load, cache=kind) for kind in kinds],
        [replace(load, context=context) for context in contexts],
    ):
        yield from [way for way in changes if need(shape, way, gpus).total <= budget][:1]
