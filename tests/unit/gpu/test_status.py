"""GPUs on the bus, in the driver, and as many as there are to be."""

from __future__ import annotations

import json

import pytest

from fleet.declare.status import Told
from fleet.gpu import status
from tests.fleets import GPU, fleet_of

BUS = ["pci 0000:17:00.0 0x2330 0x030200", "pci 0000:18:00.0 0x2330 0x030200", "secure-boot"]
NONE = ["secure-boot"]
SEEN = ["note", json.dumps({"gpus": [{"address": "0000:17:00.0"}, {"address": "0000:18:00.0"}]})]


def told(bus: list[str], smi: list[str], note: list[str], count: int | None = None) -> list[Told]:
    declared = {**GPU[1], "gpu_count": count}
    if count is None:
        del declared["gpu_count"]
    fleet = fleet_of({"gpu1": ("gpu", declared)})
    [look] = status.looks(fleet["gpu1"], fleet)
    return list(look.tell([bus, smi, note]))


@pytest.fixture
def smi() -> list[str]:
    """Two GPUs as their driver tells of them, in the fact's own format."""
    return [
        "0, GPU-a, 00000000:17:00.0, NVIDIA H100",
        "1, GPU-b, 00000000:18:00.0, NVIDIA H100",
    ]


def test_all_are_there(smi: list[str]) -> None:
    [item] = told(BUS, smi, SEEN)
    assert (item.text, item.problem) == ("GPUs 2/2", "")
    assert item.values == {"on_bus": 2, "in_driver": 2, "expected": 2}


def test_one_left_the_bus(smi: list[str]) -> None:
    """What was once seen is expected, without any declaration."""
    item = told(BUS[1:], smi[1:], SEEN)[0]
    assert item.text == "GPUs 1/2"
    assert "1 of 2 GPUs on the bus" in item.problem


def test_one_does_not_answer_its_driver(smi: list[str]) -> None:
    assert "1 of 2 GPUs in the driver" in told(BUS, smi[:1], SEEN, 2)[0].problem


def test_nobody_said_that_there_is_none() -> None:
    assert [item.text for item in told(NONE, [], [])] == ["no GPU", ""]
    assert "gpu_count = 0" in told(NONE, [], [])[1].problem
    assert [(item.text, item.problem) for item in told(NONE, [], [], 0)] == [("no GPU", "")]
