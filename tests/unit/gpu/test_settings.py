"""What may be declared of GPUs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fleet.gpu.settings import Gpus
from tests.fleets import fleet_of
from tests.unit.refusals import assert_refused, pair

UUID = "GPU-5a3f1c00-0000-4000-8000-000000000000"


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ({}, None),
        ({"gpu_count": 0}, 0),
        ({"gpu_count": 8}, 8),
        ({"gpus": [UUID, "0000:17:00.0"]}, 2),
        ({"gpus": [UUID], "gpu_count": 1}, 1),
    ],
)
def test_declared(settings: dict[str, Any], count: int | None) -> None:
    """The very names, one of them without the prefix."""
    host = fleet_of({"gpu1": ("gpu", settings)})["gpu1"]
    assert host[Gpus].declared == count
    assert host[Gpus].on_cpu == (count == 0)


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({"gpu_count": -1}, ["gpu_count = -1", "greater than or equal to 0"]),
        ({"gpu_count": "8"}, ["gpu_count = '8'", "without quotes"]),
        ({"gpus": []}, ["gpus = []", "gpu_count = 0"]),
        ({"gpus": [UUID, UUID]}, ["names a GPU twice"]),
        ({"gpus": [UUID.upper()]}, ["gpus[0] = 'GPU-5A3F", "nvidia-smi -L"]),
        ({"gpus": [0]}, ["gpus[0] = 0"]),
        ({"gpus": [UUID], "gpu_count": 2}, ["gpu_count: 2, but gpus names 1"]),
        ({"gpu_gpus": [UUID]}, ["gpu_gpus", "unknown setting", "did you mean"]),
    ],
)
def test_refused(settings: dict[str, Any], parts: list[str], own_secrets: Path) -> None:
    base = {key: None for key in ("gpu_count",) if key not in settings}
    assert_refused(pair({**base, **settings}), "gpu1", parts, own_secrets)
