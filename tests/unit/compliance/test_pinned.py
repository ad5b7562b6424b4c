"""When a check leaves a model unasked, so that it pushes none out that is to stay."""

from __future__ import annotations

from typing import Any

import pytest

from fleet.gates.fit import Budget
from fleet.gates.memory import GIB
from fleet.ollama.servers import Instance, instances_of
from tests.compliance.pinned import may_load
from tests.fleets import GPU, fleet_of

pytestmark = pytest.mark.usefixtures("own_secrets")

PINNED, FOR_A_WHILE = "2319-03-03T02:18:13Z", "2026-11-21T09:00:00Z"


def instance(**settings: Any) -> Instance:
    return instances_of(fleet_of({"gpu1": ("gpu", {**GPU[1], **settings})})["gpu1"])[0]


def budget(gib: int, **settings: Any) -> Budget:
    return Budget(instance(**settings), (("GPU-1", gib * GIB),), 256 * GIB)


def loaded(gib: int, expires: str = PINNED) -> dict[str, Any]:
    return {"size": gib * GIB, "expires_at": expires}


def test_fits_beside_the_pinned_with_ollamas_headroom() -> None:
    assert may_load(budget(80), 16 * GIB, [loaded(60)], 0)
    assert not may_load(budget(80), 17 * GIB, [loaded(60)], 0)
    assert not may_load(budget(80), 16 * GIB, [loaded(60)], GIB)


def test_nothing_is_pinned() -> None:
    assert may_load(budget(80), 70 * GIB, [loaded(60, FOR_A_WHILE)], 0)
    assert may_load(budget(80), 70 * GIB, [], 0)


def test_number_of_models_is_bounded_too() -> None:
    three = [loaded(1), loaded(1), loaded(1, FOR_A_WHILE)]
    assert may_load(budget(80), 1 * GIB, three[:2], 0)
    assert not may_load(budget(80), 1 * GIB, three, 0)
    assert not may_load(budget(80, ollama_max_loaded_models=1), 1 * GIB, three[:1], 0)


def test_unknown_size_is_no_yes() -> None:
    assert not may_load(budget(80), None, [loaded(1)], 0)
