"""Which models an instance has to have room for: those that it serves."""

from __future__ import annotations

from typing import Any

import pytest

from fleet.gates.fit import Budget, Candidate, judge
from fleet.gates.memory import GIB, Shape
from fleet.ollama.models import with_bases
from fleet.ollama.servers import instances_of
from fleet.ollama.settings import Ollama
from tests.fleets import GPU, fleet_of

pytestmark = pytest.mark.usefixtures("own_secrets")


def _refusals(*models: list[str] | None, load: bool = False) -> tuple[str, ...]:
    """What is refused of a host with a small and a large GPU, whose servers have these models."""
    own: list[dict[str, Any]] = [{"models": names} if names else {} for names in models]
    declared = {
        "ollama_models": [
            {"name": "small", "load": load},
            {"name": "analyst", "base": "large", "system": "Be brief.", "load": load},
        ],
        "ollama_instances": [
            {"name": "a", "port": 1, "gpus": [0], **own[0]},
            {"name": "b", "port": 2, "gpus": [1], **own[1]},
        ],
        "ollama_context_length": 4096,
    }
    host = fleet_of({"gpu1": ("gpu", {**GPU[1], **declared})})["gpu1"]
    a, b = instances_of(host)
    weights = {"small:latest": 2 * GIB, "large:latest": 40 * GIB}
    candidates = [
        Candidate(model, Shape(weights[model.root]), None, model.name)
        for model in with_bases(host[Ollama].models)
    ]
    budgets = [
        Budget(a, (("GPU-a", 10 * GIB),), 64 * GIB),
        Budget(b, (("GPU-b", 80 * GIB),), 64 * GIB),
    ]
    return judge(budgets, candidates, ()).refusals


@pytest.mark.parametrize("load", [False, True])
def test_model_needs_room_where_it_is_served(load: bool) -> None:
    """A base that nobody declared is loaded for those that are made of it."""
    assert _refusals(["small"], ["small", "analyst"], load=load) == ()
    assert _refusals(["small"], None, load=load) == ()
    base, made = _refusals(["analyst"], ["small"], load=load)
    assert base.startswith("instance a: analyst:latest needs")
    assert made.startswith("instance a: large:latest needs")


def test_every_instance_has_all_of_them_by_default() -> None:
    assert all(line.startswith("instance a: ") for line in _refusals(None, None))
