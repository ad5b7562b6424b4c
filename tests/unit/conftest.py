"""Fleets and stand-ins that tests of several rooms have in common."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from pyinfra.context import ctx_config, ctx_host, ctx_inventory, ctx_state

from fleet.declare.fleet import PRODUCT_ROOT, Fleet
from tests.fleets import EDGE, GPU, Hosts, alternative, fleet_of, own_secrets
from tests.unit.facts import systemctl

# As on a host, where they lie flat and find each other by their plain names.
sys.path += [str(path) for path in sorted(PRODUCT_ROOT.glob("fleet/*/on_host"))]

from tests.unit.dify.dify_host import host
from tests.unit.models.loader_rig import ollama, other, run

__all__ = ["host", "ollama", "other", "own_secrets", "run", "systemctl"]

# The same inputs in every run: what a run finds is found again, and no change fails by chance.
settings.register_profile(
    "fleet",
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("fleet")

SCENARIOS: dict[str, Hosts] = {
    "default": {"gpu1": GPU, "edge": EDGE},
    "alternative": alternative("gpu1", "edge"),
}


@pytest.fixture(params=SCENARIOS)
def fleet(request: pytest.FixtureRequest) -> Fleet:
    """The smallest fleet on two machines, and the one whose settings all differ from it."""
    return fleet_of(SCENARIOS[request.param])


@pytest.fixture
def default() -> Fleet:
    """The smallest fleet on two machines."""
    return fleet_of(SCENARIOS["default"])


@pytest.fixture(name="alternative")
def alternative_pair() -> Fleet:
    """The fleet on two machines whose settings all differ from their defaults."""
    return fleet_of(SCENARIOS["alternative"])


@pytest.fixture(autouse=True)
def own_context() -> Iterator[None]:
    """What a test leaves in pyinfra's context, as `open_inventory` does, ends with it."""
    unset = [
        context
        for context in (ctx_config, ctx_host, ctx_inventory, ctx_state)
        if not context.isset()
    ]
    yield
    for context in unset:
        context.reset()


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    """A place for an inventory's file."""
    return tmp_path / "site.py"
