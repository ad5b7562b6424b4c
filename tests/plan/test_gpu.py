"""A host that lacks a GPU is refused before anything is changed; what it has is noted."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fleet.driver.facts import DrivenGpu, DrivenGpus, Gpu, GpuHardware, GpuHardwareFact
from fleet.gpu.facts import GpuNote, GpuNoteFact, SeenGpu
from fleet.gpu.paths import GPU_NOTE
from tests.fleets import EDGE, GPU
from tests.plan.simulation import Answers, Plan, bare, plan

REFUSE = "GPUs | Refuse a host that lacks GPUs"
HOLD = "GPUs | Hold the host to its GPUs"
ADDRESSES = [f"0000:{0x17 + place:02x}:00.0" for place in range(8)]
UUIDS = [f"GPU-5a3f1c00-0000-4000-8000-{place:012x}" for place in range(8)]


def host(bus: int, driven: int = 0, noted: int | None = None, **more: Any) -> Answers:
    """A host with the first of eight GPUs on its bus, in its driver and in its note."""
    hardware = GpuHardware(tuple(Gpu(address, 0x2330) for address in ADDRESSES[:bus]))
    drives = tuple(DrivenGpu(i, UUIDS[i], "NVIDIA H100", ADDRESSES[i]) for i in range(driven))
    seen = None if noted is None else tuple(map(SeenGpu, ADDRESSES[:noted], UUIDS))
    return bare() | {
        GpuHardwareFact: lambda: hardware,
        DrivenGpus: lambda: drives,
        GpuNoteFact: lambda traces: GpuNote(seen, **more),
    }


def planned(answers: Answers, **settings: Any) -> Plan:
    data = {**GPU[1], "gpu_count": None, "driver_source": "none", **settings}
    return plan({"gpu1": ("gpu", data), "edge": EDGE}, {"gpu1": answers, "edge": bare()})


@pytest.mark.parametrize(
    ("answers", "settings", "words"),
    [
        (host(0), {"gpu_count": 1}, "0 of 1 GPUs on the bus"),
        (host(7, 7), {"gpu_count": 8}, "7 of 8 GPUs on the bus"),
        (host(7, 7, 8), {}, f"missing: {ADDRESSES[7]} ({UUIDS[7]})"),
        (host(8, 7, 8), {}, f"7 of 8 GPUs in the driver ({GPU_NOTE}"),
        (host(0, traces=("/etc/modprobe.d/x",)), {}, "a driver was installed here"),
        (host(1), {"gpu_count": 0}, "declare gpu_count = 1"),
    ],
)
def test_refused_before_anything(answers: Answers, settings: dict[str, Any], words: str) -> None:
    done = planned(answers, **settings)
    assert done.names("gpu1")[0] == REFUSE
    assert words in done.step("gpu1", REFUSE).lines[0]
    assert "exit 1" in done.step("gpu1", REFUSE).lines[0]
    # The others go on.
    assert "Gateway" in {name.split(" | ")[0] for name in done.names("edge")}


def test_lost_by_the_driver_of_this_very_run() -> None:
    """What the bus cannot tell beforehand."""
    done = planned(host(8, 7), gpu_count=8)
    assert REFUSE not in done.names("gpu1")
    [line] = done.step("gpu1", HOLD).lines
    assert "7 of 8 GPUs in the driver" in line
    assert "exit 1" in line


def test_driver_is_asked_of_nobody_who_needs_none() -> None:
    servers = [{"name": "slow", "port": 11434, "gpus": []}]
    done = planned(host(8), gpu_count=8, ollama_instances=servers)
    assert ">&2; exit 1" not in "".join(done.step("gpu1", HOLD).lines)
    done = planned(host(8), gpu_count=8)
    assert "0 of 8 GPUs in the driver" in "".join(done.step("gpu1", HOLD).lines)


def test_what_is_there_is_noted() -> None:
    done = planned(host(2, 2, 1))
    noted = json.loads(done.files("gpu1")[GPU_NOTE][0])["gpus"]
    assert [item["address"] for item in noted] == ADDRESSES[:2]
    assert [item["uuid"] for item in noted] == UUIDS[:2]


@pytest.mark.parametrize(
    ("answers", "settings", "forgotten"),
    [
        (host(1, 1, 2), {"gpu_count": 1}, True),
        (host(0, 0, 2), {"gpu_count": 0}, True),
        (host(0), {"gpu_count": 0}, False),
        (host(0), {}, False),
    ],
)
def test_another_number_forgets(
    answers: Answers, settings: dict[str, Any], forgotten: bool
) -> None:
    done = planned(answers, **settings)
    assert REFUSE not in done.names("gpu1")
    assert (GPU_NOTE in done.files("gpu1")) == forgotten


@pytest.mark.parametrize(
    ("answers", "settings", "warned"),
    [
        (host(0), {}, "WARN: no GPU was ever seen here"),
        (host(2, 2), {"gpu_count": 1}, "WARN: there are 2 GPUs and gpu_count = 1 is declared"),
        (host(0), {"gpu_count": 0}, None),
        (host(2, 2), {}, None),
    ],
)
def test_what_should_be_declared(
    answers: Answers,
    settings: dict[str, Any],
    warned: str | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("WARNING", "pyinfra")
    planned(answers, **settings)
    if warned is None:
        assert "WARN:" not in caplog.text
    else:
        assert warned in caplog.text
