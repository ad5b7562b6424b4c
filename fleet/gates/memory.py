"""How much memory a model takes while it is loaded, and which setting would make it fit.

Bytes throughout. The parts, and where each is from:

- weights: the sizes of a manifest's layers that Ollama loads.
- KV cache: two vectors a token, layer and KV head. Layers with a sliding window keep the window of
  each request and one batch; the others keep the whole context of each (llama.cpp, llama-kv-cache
  and llama-kv-cache-iswa). gpt-oss:20b so takes 24576 bytes a token, gpt-oss:120b 36864.
- the batch: Ollama's scheduler reckons 768 MiB more from 1024 tokens on, and 2 GiB from 2048 on
  (generationBatchSurcharge). It takes large ones for long contexts, but lowers what nobody declared
  to 512 before anything leaves the GPU (automaticGenerationBatch): that is counted.
- a model that makes embeddings takes a batch of 2048 tokens, and keeps a number of four bytes for
  each token of it and each word of its vocabulary (seen: /api/ps has 2.45 GB of a 0.25 GB file with
  262144 words). A GGUF file tells by its `pooling_type` that it is one.
- a margin for CUDA's own context and the compute buffers: what llama.cpp leaves free of each GPU
  when it fits a model to it (LLAMA_ARG_FIT_TARGET, 1024 MiB).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from fleet.gates.gguf import Keys
from fleet.kit.on_host.outside import Form, judged

GIB = 1024**3
MIB = 1024**2

MARGIN = GIB
# Beside others, Ollama loads a model into this share of what they leave; else it unloads one
# (server/sched.go, llamaServerLoadHeadroomPercent).
HEADROOM = 0.8
# Tokens that are read at once when memory is short.
BATCH = 512
# ... and by a model that makes embeddings, whatever is short.
EMBEDDING_BATCH = 2_048
_LOGIT = 4  # bytes
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
# What is believed of a file's numbers; the largest models of today have a hundredth of each.
_LAYERS, _HEADS, _SIZE, _TOKENS = range(1, 4_097), range(65_537), range(1_048_577), range(2**31)
_VOCABULARY = range(1, 2**24)
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
    `vocabulary` are the words of a model that makes embeddings, and 0 of any other.
    """

    weights: int
    whole: int = 0
    windowed: int = 0
    window: int = 0
    trained: int = 0
    rough: int = 0
    vocabulary: int = 0


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


def shape_of(weights: int, keys: Keys) -> Shape:
    """The shape of a model of `weights` bytes whose GGUF file has these keys.

    Raises:
        ValueError: the keys do not tell how large its cache is, or tell what cannot be.
    """
    head = _Head(keys)
    layers = head.number("block_count", _LAYERS)
    heads = head.by_layer("attention.head_count", layers)
    if not max(heads):
        raise ValueError("its GGUF file tells of no attention heads")
    of_head = head.number("embedding_length", _SIZE, 0) // max(heads)
    sides = [head.number(f"attention.{side}_length", _SIZE, of_head) for side in _SIDES]
    narrow = [
        head.number(f"attention.{side}_length_swa", _SIZE, length)
        for side, length in zip(_SIDES, sides, strict=True)
    ]
    kv_heads = head.by_layer("attention.head_count_kv", layers, heads)
    window = head.number("attention.sliding_window", _TOKENS, 0)
    windowed = sum(
        count
        for count, has_window in zip(kv_heads, head.windows(layers), strict=True)
        if window and has_window
    )
    return Shape(
        weights,
        (sum(kv_heads) - windowed) * sum(sides),
        windowed * sum(narrow),
        window,
        head.number("context_length", _TOKENS, 0),
        2 * layers * min(kv_heads) * of_head,
        head.vocabulary() if head.makes_embeddings else 0,
    )


_SIDES = ("key", "value")


class _Head:
    """What a GGUF file tells of its architecture, as far as it can be."""

    def __init__(self, keys: Keys) -> None:
        self.keys = keys
        self.arch = judged(keys.values.get("general.architecture", ""), str, "its architecture")

    def value(self, key: str, form: Form, otherwise: Any = None) -> Any:
        value = self.keys.values.get(f"{self.arch}.{key}", otherwise)
        if value is None:
            name = self.arch or "its architecture"
            raise ValueError(f"its GGUF file does not tell {name}.{key}")
        return judged(value, form, f"{self.arch}.{key} of its GGUF file")

    def number(self, key: str, form: range, otherwise: int | None = None) -> int:
        return int(self.value(key, form, otherwise))

    def by_layer(self, key: str, layers: int, otherwise: list[int] | None = None) -> list[int]:
        """Heads: some models have another number in each layer."""
        value = self.value(key, (_HEADS, [_HEADS]), otherwise)
        return self._all(key, layers, value) if isinstance(value, list) else [value] * layers

    def windows(self, layers: int) -> list[bool]:
        """Which layers have the window: a flag for each, or of how many one has none."""
        key = "attention.sliding_window_pattern"
        value = self.value(
            key, ([(bool, range(2))], range(4_097)), _WHOLE_CONTEXT_EVERY.get(self.arch, 1)
        )
        if isinstance(value, list):
            return [*map(bool, value[:layers]), *[False] * (layers - len(value))]
        return [value > 0 and place % value != 0 for place in range(1, layers + 1)]

    @property
    def makes_embeddings(self) -> bool:
        return f"{self.arch}.pooling_type" in self.keys.values

    def vocabulary(self) -> int:
        """Words: of the tokenizer's list, which goes on far beyond the head."""
        count = self.keys.counts.get("tokenizer.ggml.tokens")
        if count is None:
            return self.number("vocab_size", _VOCABULARY)
        return int(judged(count, _VOCABULARY, "the vocabulary of its GGUF file"))

    def _all(self, key: str, layers: int, values: list[int]) -> list[int]:
        if len(values) != layers:
            raise ValueError(
                f"{self.arch}.{key} of its GGUF file tells of {len(values)} layers, and "
                f"block_count of {layers}"
            )
        return values


def default_context(gpus: Iterable[int]) -> int:
    """The context that Ollama takes when none is declared, by the memory of its GPUs, in tokens."""
    total = sum(gpus)
    return next(context for least, context in _CONTEXT_TIERS if total >= least)


def need(shape: Shape, load: Load, gpus: int = 0) -> Need:
    """The memory of a model with this shape, loaded in this way over `gpus` GPUs; 0 is the CPU."""
    context = min(load.context, shape.trained or load.context)
    tokens = context * load.parallel
    batch = max(load.batch, EMBEDDING_BATCH) if shape.vocabulary else load.batch
    windows = min(tokens, shape.window * load.parallel + batch)
    elements = shape.whole * tokens + shape.windowed * windows
    logits = _LOGIT * shape.vocabulary * batch
    overhead = logits + _surcharge(load.batch) + MARGIN * gpus
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
