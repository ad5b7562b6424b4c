"""The arithmetic of memory, against published and observed figures."""

from __future__ import annotations

from typing import Any

import pytest

from fleet.gates import memory
from fleet.gates.gguf import Keys
from fleet.gates.memory import (
    GIB,
    MIB,
    PUBLISHED,
    Load,
    Shape,
    default_context,
    need,
    prediction,
    ways_to_fit,
    weights_of,
)
from tests.gguf import GPT_OSS


def shape_of(weights: int, values: dict[str, Any], **counts: int) -> Shape:
    """The shape by the values of keys, and how many items the lists have."""
    return memory.shape_of(weights, Keys(values, counts))


SMALL = shape_of(13_793_422_144, GPT_OSS)
LARGE = shape_of(65_369_818_941, GPT_OSS | {"gptoss.block_count": 36})
_GEMMA: dict[str, Any] = {
    "general.architecture": "gemma3",
    "gemma3.block_count": 18,
    "gemma3.context_length": 32_768,
    "gemma3.embedding_length": 640,
    "gemma3.attention.head_count": 4,
    "gemma3.attention.head_count_kv": 1,
    "gemma3.attention.key_length": 256,
    "gemma3.attention.value_length": 256,
    "gemma3.attention.sliding_window": 512,
}
_POOLED = _GEMMA | {"gemma3.pooling_type": 1}
GEMMA = shape_of(253_110_272, _GEMMA)


class TestShape:
    def test_gpt_oss_has_the_published_bytes_a_token(self) -> None:
        assert (SMALL.whole * 2, LARGE.whole * 2) == (24_576, 36_864)
        assert SMALL.windowed == SMALL.whole
        assert (SMALL.window, SMALL.trained) == (128, 131_072)

    def test_heads_share_the_embedding_where_no_length_is_told(self) -> None:
        keys = {
            "general.architecture": "llama",
            "llama.block_count": 32,
            "llama.embedding_length": 4_096,
            "llama.attention.head_count": 32,
            "llama.attention.head_count_kv": 8,
        }
        # Llama 3 8B: 128 KiB a token at f16.
        assert shape_of(0, keys).whole * 2 == 131_072

    def test_another_number_of_heads_in_each_layer(self) -> None:
        keys = GPT_OSS | {"gptoss.block_count": 3, "gptoss.attention.head_count_kv": [8, 4, 2]}
        assert shape_of(0, keys).whole == 4 * 128
        assert shape_of(0, keys).windowed == 10 * 128

    def test_windows_of_unknown_architectures_are_not_counted_on(self) -> None:
        keys = {key.replace("gptoss", "new"): value for key, value in GPT_OSS.items()}
        shape = shape_of(0, keys | {"general.architecture": "new"})
        assert (shape.whole, shape.windowed) == (SMALL.whole * 2, 0)

    def test_windows_that_the_file_tells_of(self) -> None:
        """A flag for each layer, and heads of another size in those with a window."""
        keys = {key.replace("gptoss", "new"): value for key, value in GPT_OSS.items()} | {
            "general.architecture": "new",
            "new.attention.sliding_window_pattern": ([True] * 5 + [False]) * 4,
            "new.attention.key_length_swa": 32,
            "new.attention.value_length_swa": 32,
        }
        shape = shape_of(0, keys)
        assert (shape.whole, shape.windowed) == (4 * 8 * 128, 20 * 8 * 64)
        assert shape_of(0, keys | {"new.attention.sliding_window": 0}).windowed == 0
        # Some writers tell of how many layers one keeps the whole context.
        every = shape_of(0, keys | {"new.attention.sliding_window_pattern": 4})
        assert (every.whole, every.windowed) == (6 * 8 * 128, 18 * 8 * 64)

    @pytest.mark.parametrize(("arch", "whole"), [("gemma3n", 4), ("cohere2", 6)])
    def test_windows_of_known_architectures(self, arch: str, whole: int) -> None:
        keys = {key.replace("gptoss", arch): value for key, value in GPT_OSS.items()}
        shape = shape_of(0, keys | {"general.architecture": arch})
        assert (shape.whole, shape.windowed) == (whole * 8 * 128, (24 - whole) * 8 * 128)

    def test_missing_keys_are_named(self) -> None:
        keys = {key: value for key, value in GPT_OSS.items() if "block_count" not in key}
        with pytest.raises(ValueError, match=r"gptoss\.block_count"):
            shape_of(0, keys)

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("block_count", 2**32), ("block_count", 0), ("block_count", -1), ("block_count", "24"),
            ("block_count", [24]), ("block_count", True), ("block_count", 24.0),
            ("attention.head_count", 0), ("attention.head_count", []),
            ("attention.head_count", [0] * 24), ("attention.head_count", [64] * 25),
            ("attention.head_count", 2**31), ("attention.head_count_kv", "8"),
            ("attention.head_count_kv", [8]), ("attention.head_count_kv", [8.5] * 24),
            ("attention.key_length", 2**40), ("attention.value_length", -64),
            ("attention.sliding_window", 1e30), ("attention.sliding_window_pattern", ["x"] * 24),
            ("context_length", "long"), ("embedding_length", None), ("embedding_length", [2_880]),
        ],
    )  # fmt: skip
    def test_numbers_that_cannot_be(self, key: str, value: Any) -> None:
        """Refused in a sentence, and in no time."""
        if value is None:
            value = float("nan")
        with pytest.raises(ValueError, match=r"GGUF file|heads"):
            shape_of(0, GPT_OSS | {f"gptoss.{key}": value})

    @pytest.mark.parametrize("value", [7, [], "\ud800", None])
    def test_architecture_that_is_none(self, value: Any) -> None:
        with pytest.raises(ValueError, match="architecture"):
            shape_of(0, GPT_OSS | {"general.architecture": value})

    def test_weights_are_the_layers_that_are_loaded(self) -> None:
        kind = "application/vnd.ollama.image."
        layers = [("model", 100), ("projector", 20), ("license", 3), ("params", 4)]
        manifest = {"layers": [{"mediaType": kind + name, "size": size} for name, size in layers]}
        assert weights_of(manifest) == 120


class TestNeed:
    @pytest.mark.parametrize(
        ("shape", "context", "gibibytes"),
        [
            *((SMALL, k * 1_024, g) for k, g in ((8, 0.19), (32, 0.75), (64, 1.5), (128, 3.0))),
            *((LARGE, k * 1_024, g) for k, g in ((8, 0.28), (32, 1.12), (64, 2.25), (128, 4.5))),
        ],
    )
    def test_published_caches(self, shape: Shape, context: int, gibibytes: float) -> None:
        """The table of gpt-oss's full-attention layers; the windows are a few megabytes more."""
        windows = shape.windowed * 2 * (128 + 2_048)
        cache = need(shape, Load(context)).cache
        assert gibibytes * GIB - 0.01 * GIB <= cache <= (gibibytes + 0.01) * GIB + windows

    # What /api/ps of the real server showed on the CPU; compute buffers are in it too.
    @pytest.mark.parametrize(
        ("load", "size"),
        [
            (Load(4_096), 287_246_908),
            (Load(4_096, 4, batch=1_024), 393_960_488),
            (Load(8_192, batch=1_024), 328_424_488),
            (Load(8_192, 4, batch=1_024), 402_349_096),
            (Load(2_048, 4, batch=1_024), 389_766_184),
            (Load(4_096, cache="q8_0"), 280_431_163),
        ],
    )
    def test_observed_sizes(self, load: Load, size: int) -> None:
        known = need(GEMMA, load)
        reckoned = known.weights + known.cache
        assert reckoned <= size <= known.total + 150 * MIB
        assert reckoned == pytest.approx(size, rel=0.25)

    def test_observed_size_of_a_model_that_makes_embeddings(self) -> None:
        """Of the same file with a `pooling_type`: a batch of 2048 for 262144 words."""
        pooled = shape_of(253_110_272, _POOLED, **{"tokenizer.ggml.tokens": 262_144})
        assert need(pooled, Load(4_096)).total == pytest.approx(2_448_697_588, rel=0.005)
        assert need(pooled, Load(4_096, batch=512)) == need(pooled, Load(4_096))
        assert need(GEMMA, Load(4_096)).total < 300 * MIB

    @pytest.mark.parametrize("count", [0, 2**24, 2**60])
    def test_vocabulary_that_cannot_be(self, count: int) -> None:
        with pytest.raises(ValueError, match="vocabulary"):
            shape_of(0, _POOLED, **{"tokenizer.ggml.tokens": count})

    def test_vocabulary_that_nobody_tells(self) -> None:
        with pytest.raises(ValueError, match=r"does not tell gemma3\.vocab_size"):
            shape_of(0, _POOLED)
        assert shape_of(0, _POOLED | {"gemma3.vocab_size": 30_522}).vocabulary == 30_522

    def test_context_is_that_of_the_model_at_most(self) -> None:
        assert need(GEMMA, Load(262_144)) == need(GEMMA, Load(32_768))

    def test_requests_at_once_have_a_context_each(self) -> None:
        one, four = need(SMALL, Load(32_768)), need(SMALL, Load(32_768, 4))
        assert four.cache > 3.9 * one.cache

    def test_types_of_the_cache(self) -> None:
        f16, q8, q4 = (
            need(SMALL, Load(8_192, cache=kind)).cache for kind in ("f16", "q8_0", "q4_0")
        )
        assert (q8 / f16, q4 / f16) == (pytest.approx(0.53125), pytest.approx(0.28125))

    def test_large_batches_are_counted_when_declared(self) -> None:
        """What Ollama chooses by itself it lowers before a model leaves the GPU."""
        assert need(SMALL, Load(65_536)).overhead == 0
        declared = [need(SMALL, Load(65_536, batch=n)).overhead for n in (256, 1_024, 4_096)]
        assert declared == [0, 768 * MIB, 2 * GIB]

    @pytest.mark.parametrize(
        ("shape", "gpus", "context", "fits"),
        [
            (SMALL, [15_360 * MIB], None, True),  # a T4, and Ollama's own default of 4096
            (SMALL, [15_360 * MIB], 32_768, True),
            (SMALL, [15_360 * MIB], 65_536, False),
            (SMALL, [16_303 * MIB], 16_384, True),  # seen to fit: an RTX 5080
            (SMALL, [16_376 * MIB], 65_536, True),
            (LARGE, [81_559 * MIB], None, True),  # an H100, with the whole context
            (LARGE, [49_140 * MIB], None, False),
            (LARGE, [40_960 * MIB] * 2, 32_768, True),
            (SMALL, [12_288 * MIB], None, False),
        ],
    )
    def test_gpt_oss_on_known_gpus(
        self, shape: Shape, gpus: list[int], context: int | None, fits: bool
    ) -> None:
        load = Load(context or default_context(gpus))
        assert (need(shape, load, len(gpus)).total <= sum(gpus)) is fits

    def test_what_ollama_expects(self) -> None:
        """Weights, and 24 layers of 8 heads with 2880 / 64 elements, whatever they really have."""
        assert prediction(SMALL, Load(32_768)) == 13_793_422_144 + 2 * 2 * 24 * 8 * 45 * 32_768
        assert (PUBLISHED["gpt-oss:20b"], PUBLISHED["gpt-oss:120b"]) == (SMALL, LARGE)

    def test_shown(self) -> None:
        assert str(need(SMALL, Load(4_096), 1)) == (
            "14.0 GiB (weights 12.8, cache 0.1, overhead 1.0)"
        )


@pytest.mark.parametrize(
    ("gibibytes", "context"), [([], 4_096), ([15], 4_096), ([24], 32_768), ([24, 24], 262_144)]
)
def test_default_context_is_by_all_gpus(gibibytes: list[int], context: int) -> None:
    assert default_context([n * GIB for n in gibibytes]) == context


class TestWaysToFit:
    def test_nearest_first(self) -> None:
        ways = list(ways_to_fit(SMALL, Load(32_768, 4), 18 * GIB, 1))
        assert ways == [Load(32_768, 2), Load(32_768, 4, "q8_0"), Load(16_384, 4)]

    def test_every_way_fits(self) -> None:
        budget = 15 * GIB
        ways = list(ways_to_fit(SMALL, Load(65_536, 2), budget, 1))
        assert ways
        assert all(need(SMALL, way, 1).total <= budget for way in ways)

    def test_nothing_helps_when_the_weights_alone_are_too_large(self) -> None:
        assert list(ways_to_fit(LARGE, Load(131_072, 8), 15 * GIB, 1)) == []

    def test_context_is_counted_from_what_the_model_has(self) -> None:
        *_, way = ways_to_fit(SMALL, Load(262_144), 17 * GIB, 1)
        assert way == Load(65_536)
