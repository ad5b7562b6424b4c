"""Whether a model fits a server's GPUs, by what its files tell."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fleet.kit.on_host.outside import FormError
from fleet.vllm.memory import GIB, Weights, contradictions, judge, shared_too_far
from fleet.vllm.model import ModelConfig, read_config
from tests.unit.vllm.servers import GPTOSS, UUIDS, instance

# Of openai/gpt-oss-120b, what counts.
CONFIG: dict[str, Any] = {
    "architectures": ["GptOssForCausalLM"],
    "num_hidden_layers": 36,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "hidden_size": 2880,
    "max_position_embeddings": 131_072,
    "sliding_window": 128,
    "layer_types": ["sliding_attention", "full_attention"] * 18,
    "rope_scaling": {"factor": 32.0},
}
WEIGHTS = Weights(round(60.8 * GIB), GPTOSS)


def changed(**values: Any) -> str:
    kept = {key: value for key, value in {**CONFIG, **values}.items() if value is not None}
    return json.dumps(kept)


class TestConfig:
    def test_gptoss(self) -> None:
        assert read_config(changed()) == GPTOSS

    def test_without_a_list_every_layer_keeps_all(self) -> None:
        found = read_config(changed(layer_types=None))
        assert (found.whole, found.windowed) == (36, 0)

    def test_layers_of_another_kind_keep_nothing(self) -> None:
        kinds = ["linear_attention"] * 27 + ["full_attention"] * 9
        found = read_config(changed(layer_types=kinds))
        assert (found.whole, found.windowed) == (9, 0)

    def test_heads_without_a_size_are_parts_of_the_layer(self) -> None:
        found = read_config(changed(head_dim=None, hidden_size=4096, num_key_value_heads=None))
        assert (found.row, found.kv_heads) == (128, 64)

    def test_latent_cache_is_one_row(self) -> None:
        found = read_config(
            changed(kv_lora_rank=512, qk_rope_head_dim=64, layer_types=None, num_hidden_layers=61)
        )
        assert found.elements(1) == found.elements(8) == (576 * 61, 0)

    def test_model_for_text_and_more(self) -> None:
        outer = {"architectures": ["Gemma3ForConditionalGeneration"], "text_config": CONFIG}
        found = read_config(json.dumps(outer))
        assert (found.architecture, found.context) == ("Gemma3ForConditionalGeneration", 131_072)

    @pytest.mark.parametrize(
        "text",
        ["", "[]", "{", "{}", changed(num_hidden_layers="36"), changed(num_hidden_layers=-1)],
    )
    def test_what_is_none(self, text: str) -> None:
        with pytest.raises(FormError):
            read_config(text)


class TestJudge:
    def test_one_request_takes_what_vllm_says_it_does(self) -> None:
        """36864 bytes a token and 16-bit cache, as published; half of it on each of two."""
        found = judge(instance(), dict.fromkeys(UUIDS, 80 * GIB), WEIGHTS)
        assert found.request is not None
        windowed = 18_432 * (128 + 8_192)
        assert found.request == 18_432 * 131_072 + windowed

    def test_two_gpus_of_80_hold_it(self) -> None:
        found = judge(instance(), dict.fromkeys(UUIDS, 80 * GIB), WEIGHTS)
        assert found.refusal == ""
        assert found.requests == 16
        assert "16 requests of the whole context" in str(found)

    def test_one_does_with_what_its_makers_say(self) -> None:
        tight = {"gpus": UUIDS[:1], "memory_share": 0.95, "flags": {"max-num-batched-tokens": 1024}}
        found = judge(instance(**tight), {UUIDS[0]: 80 * GIB}, WEIGHTS)
        assert found.refusal == ""

    def test_smallest_gpu_decides(self) -> None:
        found = judge(instance(), {UUIDS[0]: 80 * GIB, UUIDS[1]: 24 * GIB}, WEIGHTS)
        assert "raise memory_share, or give it more GPUs" in found.refusal

    def test_context_that_does_not_fit_says_to_lower_it(self) -> None:
        found = judge(instance(), dict.fromkeys(UUIDS, 38 * GIB), WEIGHTS)
        assert "lower its context" in found.refusal
        less = judge(instance(context=16_384), dict.fromkeys(UUIDS, 38 * GIB), WEIGHTS)
        assert less.refusal == ""

    def test_smaller_cache_and_no_graphs_make_room(self) -> None:
        item = instance(kv_cache="fp8", flags={"enforce-eager": True})
        found = judge(item, dict.fromkeys(UUIDS, 38 * GIB), WEIGHTS)
        assert found.refusal == ""

    def test_without_its_config_the_weights_alone_are_judged(self) -> None:
        bare = Weights(WEIGHTS.bytes)
        assert judge(instance(), dict.fromkeys(UUIDS, 80 * GIB), bare).requests is None
        assert judge(instance(), dict.fromkeys(UUIDS, 30 * GIB), bare).refusal

    def test_stages_share_weights_and_layers(self) -> None:
        item = instance(tensor_parallel=1, flags={"pipeline-parallel-size": 2})
        found = judge(item, dict.fromkeys(UUIDS, 80 * GIB), WEIGHTS)
        assert found.weights == WEIGHTS.bytes // 2


class TestContradictions:
    def test_context_beyond_the_model(self) -> None:
        [line] = contradictions(instance(context=200_000), 2, GPTOSS)
        assert "context = 200000: the model was made for 131072" in line

    def test_heads_that_cannot_be_shared_out(self) -> None:
        item = instance(gpus=[0, 1, 2])
        [line] = contradictions(item, 3, GPTOSS)
        assert "does not divide the model's 64 attention heads" in line

    def test_unknown_is_no_contradiction(self) -> None:
        assert list(contradictions(instance(), 2, ModelConfig())) == []


def test_three_that_share_a_gpu() -> None:
    items = [instance(name=f"s{place}", memory_share=0.4) for place in range(3)]
    [line] = shared_too_far((item, UUIDS[:1]) for item in items)
    assert "1.20 of its memory" in line
    assert list(shared_too_far((item, UUIDS[:1]) for item in items[:2])) == []
