"""Which GPUs a server is given, by index and by UUID, beside others and beside Ollama."""

from __future__ import annotations

from typing import Any

import pytest

from fleet.driver.facts import DrivenGpu
from fleet.kit.errors import FleetError
from fleet.ollama.servers import instances_of
from fleet.vllm.gpus import bind, refuse_ollamas
from tests.fleets import fleet_of
from tests.unit.vllm.servers import UUIDS, instance

PRESENT = [DrivenGpu(index, uuid, "NVIDIA H100") for index, uuid in enumerate(UUIDS)]


@pytest.mark.parametrize(
    ("gpus", "expected"),
    [
        ([1, 0], (UUIDS[1], UUIDS[0])),
        (UUIDS, tuple(UUIDS)),
        ("all", tuple(UUIDS)),
        ([], ()),
    ],
)
def test_bound(gpus: Any, expected: tuple[str, ...]) -> None:
    assert bind([instance(gpus=gpus)], PRESENT) == {"gpt-oss": expected}


@pytest.mark.parametrize(
    ("servers", "said"),
    [
        ([{"gpus": [0, 2]}], "the host has no 2; it has 0: NVIDIA H100"),
        ([{"gpus": [0, UUIDS[0]]}], "names a GPU twice"),
        ([{"gpus": "all", "tensor_parallel": 4}], "take 4 GPUs, and it has 2"),
        ([{"gpus": "all", "tensor_parallel": 1}], "take 1 GPUs, and it has 2"),
        ([{"gpus": "all", "flags": {"pipeline-parallel-size": 3}}], "take 3 GPUs, and it has 2"),
        ([{"gpus": [0]}, {"name": "b", "gpus": [UUIDS[0]]}], "gpt-oss and b both have"),
    ],
)
def test_refused(servers: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(FleetError) as refused:
        bind([instance(**server) for server in servers], PRESENT)
    assert said in str(refused.value)


def test_all_of_a_host_without_a_driver() -> None:
    with pytest.raises(FleetError, match="no GPU that its driver tells of"):
        bind([instance(gpus="all")], [])


class TestBesideOllama:
    @staticmethod
    def refuse(*, shared: bool) -> None:
        """Ollama has the first GPU by its index, vLLM by its UUID."""
        declared = {"ollama_instances": [{"name": "a", "port": 1, "gpus": [0]}]}
        ollama = instances_of(fleet_of({"gpu1": ("gpu", declared)})["gpu1"])
        items = [instance(gpus=[UUIDS[0]], shared_gpus=shared)]
        refuse_ollamas(items, bind(items, PRESENT), ollama, {"a": (UUIDS[0],)}, PRESENT)

    def test_the_same_gpu_by_another_word(self) -> None:
        with pytest.raises(FleetError, match=r"which ollama@a\.service uses too"):
            self.refuse(shared=False)

    def test_shared(self) -> None:
        self.refuse(shared=True)
