"""GPUs on the bus and in the driver."""

from __future__ import annotations

from fleet.declare.status import Told
from fleet.driver import status
from tests.fleets import GPU, fleet_of

BUS = ["pci 0000:17:00.0 0x2330 0x030200", "pci 0000:18:00.0 0x2330 0x030200", "secure-boot"]
SMI = ["0, GPU-a, NVIDIA H100", "1, GPU-b, NVIDIA H100"]


def told(*found: list[str]) -> list[Told]:
    fleet = fleet_of({"gpu1": GPU})
    [look] = status.looks(fleet["gpu1"], fleet)
    assert len(look.commands) == len(found)
    return list(look.tell(list(found)))


def test_all_are_driven() -> None:
    first, second = told(["580.95.05"], BUS, SMI)
    assert (first.text, first.problem, second.text) == ("GPUs 2/2", "", "driver 580.95.05")
    assert first.values["gpus_in_driver"] == 2


def test_one_does_not_answer() -> None:
    assert "1 of 2 GPUs answer the driver" in told(["580.95.05"], BUS, SMI[:1])[0].problem


def test_no_driver() -> None:
    said = "NVIDIA-SMI has failed because it could not communicate with the NVIDIA driver."
    first, second = told([], BUS, [said])
    assert (first.text, second.text) == ("GPUs 0/2", "no driver")


def test_no_gpu() -> None:
    [item] = told([], ["secure-boot"], [])
    assert (item.text, item.problem) == ("no GPU", "")
