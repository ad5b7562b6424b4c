"""Fleets and their plans, shared by the tests of all tasks."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from pyinfra.context import ctx_config, ctx_host, ctx_inventory, ctx_state

import fleet.declare.load
from fleet import pins
from fleet.declare import inventory_file
from fleet.firewall import operations as firewall
from fleet.kit import jobs
from fleet.kit.quick import be_quick
from tests.fleets import BOX, EDGE, GPU, Hosts, alternative
from tests.plan.simulation import Answers, Plan, bare, converged, plan

# On a host without a GPU; those with some have tests of their own.
_INSTANCES = [{"name": "a", "port": 11434}, {"name": "b", "port": 11435, "gpus": []}]
# The fleets that every task is planned for.
SCENARIOS: dict[str, Hosts] = {
    "gpu only": {"gpu1": ("gpu", {})},
    "both on one": {"box": BOX},
    "two hosts": {"gpu1": GPU, "edge": EDGE},
    "alternative": alternative("gpu1", "edge"),
    "instances": {"gpu1": ("gpu", {**GPU[1], "ollama_instances": _INSTANCES}), "edge": EDGE},
}
_RELEASE = (pins.OLLAMA_VERSION, pins.OLLAMA_SHA256[pins.OLLAMA_VERSION, "amd64"])
# What a converged host of each scenario has.
DECLARED = {
    name: {
        "models_dir": "/var/lib/ollama/models",
        "release": _RELEASE,
        "models": ["gpt-oss:20b"],
    }
    for name in SCENARIOS
} | {
    "alternative": {
        "models_dir": "/data/models",
        "release": ("0.40.0-rc1", "ab" * 32),
        "kept": ["/etc/llm-fleet/gateway/tls.crt", "/etc/llm-fleet/gateway/tls.key"],
        "acme_names": ["llm.example.com", "llm.example.internal"],
        "models": ["gpt-oss:120b", "hf.co/team/model:Q4", "embed:latest", "analyst:latest"],
    }
}


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stands for the project's directory where secrets are kept: all plans have the same keys."""
    return tmp_path_factory.mktemp("project")


@pytest.fixture(scope="session", autouse=True)
def _quick_pyinfra() -> None:
    be_quick()


@pytest.fixture(autouse=True)
def secrets_store(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the keys of every planned fleet are kept."""
    monkeypatch.setattr(fleet.declare.load, "project_of", lambda _: project)
    return project / ".secrets"


@pytest.fixture(autouse=True)
def nothing_leaks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No plan starts or ends with another one's context, and none waits for a host's work."""
    monkeypatch.setattr(jobs, "POLL", 0.0)
    # Of a test that opened a file.
    monkeypatch.setattr(inventory_file, "_asked", [])
    # No host is there to log in to anew.
    monkeypatch.setattr(firewall, "run_anew", lambda *_: None)
    managers = (ctx_state, ctx_inventory, ctx_config, ctx_host)
    assert not any(manager.isset() for manager in managers)
    yield
    assert not any(manager.isset() for manager in managers)


@pytest.fixture(params=SCENARIOS)
def scenario(request: pytest.FixtureRequest) -> str:
    """The name of each scenario in turn."""
    name: str = request.param
    return name


@cache
def from_bare(scenario: str, distribution: str = "debian", release: str = "13") -> Plan:
    """The plan for a scenario's hosts when nothing of ours is on them; made once a session."""
    hosts = SCENARIOS[scenario]
    return plan(hosts, {name: bare(distribution, release) for name in hosts})


def in_declared_state(scenario: str, first: Plan) -> dict[str, Answers]:
    """What the scenario's hosts answer once `first` has been run."""
    return {
        name: converged(first, name, bare(), **DECLARED[scenario]) for name in SCENARIOS[scenario]
    }


@pytest.fixture
def bare_plan(scenario: str) -> Plan:
    """The plan for each scenario's bare hosts."""
    return from_bare(scenario)


@pytest.fixture
def two_hosts() -> Plan:
    """A GPU host and a gateway, from bare."""
    return from_bare("two hosts")
