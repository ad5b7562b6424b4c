"""A host is held to the GPUs that it must have, whatever else is well."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from fleet.driver.facts import DrivenGpu, Gpu, GpuHardware
from fleet.gpu.facts import GpuNote, SeenGpu
from fleet.gpu.presence import (
    NEVER_SEEN,
    Found,
    lost_by_driver,
    missing_in_driver,
    missing_on_bus,
    warnings,
)
from fleet.gpu.settings import Gpus

ADDRESSES = [f"0000:{0x17 + place:02x}:00.0" for place in range(8)]
UUIDS = [f"GPU-5a3f1c00-0000-4000-8000-{place:012x}" for place in range(8)]
ALL = range(8)
WITHOUT_ONE = [0, 1, 2, 4, 5, 6, 7]
TRACES = ("/etc/modprobe.d/llm-fleet-nouveau.conf",)


def found(
    bus: Sequence[int] = (),
    driven: Sequence[int] = (),
    noted: Sequence[int] | None = None,
    **more: Any,
) -> Found:
    """A host with some of eight GPUs on its bus, in its driver and in its note."""
    seen = None if noted is None else tuple(SeenGpu(ADDRESSES[n], UUIDS[n]) for n in noted)
    return Found(
        GpuHardware(tuple(Gpu(ADDRESSES[n], 0x2330) for n in bus)),
        tuple(DrivenGpu(i, UUIDS[n], "NVIDIA H100", ADDRESSES[n]) for i, n in enumerate(driven)),
        GpuNote(seen, **more),
    )


@pytest.mark.parametrize(
    ("declared", "there", "words"),
    [
        ({"count": 8}, found(WITHOUT_ONE), ["7 of 8 GPUs on the bus (gpu_count = 8). See"]),
        ({"count": 1}, found(), ["0 of 1 GPUs on the bus (gpu_count = 1)"]),
        # Which one, as soon as a deploy has seen it.
        (
            {"count": 8},
            found(WITHOUT_ONE, noted=ALL),
            [f"missing: {ADDRESSES[3]} ({UUIDS[3]}). See"],
        ),
        ({}, found(WITHOUT_ONE, noted=ALL), ["so many were seen", f"{ADDRESSES[3]} ({UUIDS[3]})"]),
        ({}, found(noted=[0]), ["0 of 1", "gpu_count = 0 for the CPU alone", ADDRESSES[0]]),
        ({"gpus": [ADDRESSES[0], ADDRESSES[3]]}, found(WITHOUT_ONE), [f"missing: {ADDRESSES[3]}."]),
        (
            {"gpus": [UUIDS[2], UUIDS[3]]},
            found([2], noted=ALL),
            ["1 of 2 GPUs", f"missing: {ADDRESSES[3]} ({UUIDS[3]})"],
        ),
        # Of a host that was deployed to before there was a note.
        ({}, found(traces=TRACES), ["a driver was installed here", TRACES[0], "gpu_count = 0"]),
        ({}, found([0], spoilt="it is no JSON"), ["cannot be read (it is no JSON)", "remove the"]),
        ({"count": 0}, found([0]), ["gpu_count = 0, and on the bus", "declare gpu_count = 1"]),
    ],
)
def test_missing_on_the_bus(declared: dict[str, Any], there: Found, words: list[str]) -> None:
    said = missing_on_bus(Gpus(**declared), there)
    assert said is not None
    assert [word for word in words if word not in said] == []


@pytest.mark.parametrize(
    ("declared", "there"),
    [
        ({}, found()),
        ({}, found(ALL)),
        ({}, found(ALL, noted=[0, 1])),
        # Another number forgets what was there: declared, nothing else counts.
        ({"count": 7}, found(WITHOUT_ONE, noted=ALL)),
        ({"count": 0}, found(noted=ALL, traces=TRACES)),
        ({"count": 0}, found(spoilt="it is no JSON")),
        ({"count": 2}, found([0, 1], spoilt="it is no JSON")),
        ({"count": 1}, found([0, 1])),
        # The bus was numbered anew: as many are there.
        ({}, found([4, 5], noted=[0, 1])),
        ({"gpus": [UUIDS[0]]}, found([4], noted=[0])),
        # Which they are, only the driver can tell.
        ({"gpus": UUIDS[:2]}, found([0, 1])),
        ({"gpus": ADDRESSES[:2]}, found(ALL)),
    ],
)
def test_nothing_is_missing_on_the_bus(declared: dict[str, Any], there: Found) -> None:
    assert missing_on_bus(Gpus(**declared), there) is None


@pytest.mark.parametrize(
    ("declared", "there", "words"),
    [
        ({"count": 8}, found(ALL, WITHOUT_ONE), ["7 of 8 GPUs in the driver", ADDRESSES[3]]),
        ({}, found(ALL, WITHOUT_ONE), ["7 of 8 GPUs in the driver", ADDRESSES[3], "nvidia-smi"]),
        ({}, found(ALL, WITHOUT_ONE, noted=ALL), [f"missing: {ADDRESSES[3]} ({UUIDS[3]})"]),
        ({"count": 1}, found([0]), ["0 of 1 GPUs in the driver"]),
        # As many as before, and one is another.
        ({"gpus": UUIDS[:2]}, found([0, 3], [0, 3]), ["2 of 2", f"missing: {UUIDS[1]}"]),
        ({"gpus": [ADDRESSES[3]]}, found(ALL, WITHOUT_ONE), [f"missing: {ADDRESSES[3]}"]),
    ],
)
def test_missing_in_the_driver(declared: dict[str, Any], there: Found, words: list[str]) -> None:
    assert missing_on_bus(Gpus(**declared), there) is None
    said = missing_in_driver(Gpus(**declared), there)
    assert said is not None
    assert [word for word in words if word not in said] == []


@pytest.mark.parametrize(
    ("declared", "there"),
    [
        ({}, found()),
        ({}, found(ALL, ALL)),
        ({"count": 8}, found(ALL, ALL, noted=ALL)),
        # One is given to something else.
        ({"count": 7}, found(ALL, WITHOUT_ONE, noted=ALL)),
        ({"gpus": [UUIDS[0], ADDRESSES[1]]}, found(ALL, WITHOUT_ONE)),
        ({"count": 0}, found(noted=ALL)),
    ],
)
def test_driver_tells_of_all(declared: dict[str, Any], there: Found) -> None:
    assert missing_in_driver(Gpus(**declared), there) is None


@pytest.mark.parametrize(
    ("there", "is_lost"),
    [
        (found(ALL, WITHOUT_ONE, noted=ALL), True),
        # What a deploy may mend: a driver that does not work, and a GPU that it never drove.
        (found(ALL, noted=ALL), False),
        (found(ALL, WITHOUT_ONE, noted=WITHOUT_ONE), False),
        (found(ALL, ALL, noted=ALL), False),
    ],
)
def test_lost_by_the_driver(there: Found, is_lost: bool) -> None:
    assert (lost_by_driver(Gpus(), there) is not None) == is_lost
    assert (lost_by_driver(Gpus(count=8), there) is not None) == is_lost
    assert lost_by_driver(Gpus(count=7), there) is None


@pytest.mark.parametrize(
    ("declared", "there", "said"),
    [
        ({}, found(), [NEVER_SEEN]),
        ({"count": 0}, found(), []),
        ({}, found([0]), []),
        ({"count": 7}, found(ALL, ALL), ["declare gpu_count = 8"]),
        ({"count": 7}, found(ALL, WITHOUT_ONE), []),
    ],
)
def test_warnings(declared: dict[str, Any], there: Found, said: list[str]) -> None:
    lines = list(warnings(Gpus(**declared), there))
    assert len(lines) == len(said)
    assert all(words in line for words, line in zip(said, lines, strict=True))


def test_seen_has_what_the_driver_once_told() -> None:
    """A driver that does not work just now makes no GPU forget its name."""
    assert found([0, 1], noted=[0]).seen == (
        SeenGpu(ADDRESSES[0], UUIDS[0]),
        SeenGpu(ADDRESSES[1], None),
    )
    assert found([0], [0]).seen == (SeenGpu(ADDRESSES[0], UUIDS[0]),)
