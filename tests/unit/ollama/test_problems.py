"""What of Ollama's settings cannot work on a host."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fleets import Hosts, fleet_of
from tests.unit.refusals import assert_refused, pair

INSTANCES = {"ollama_instances": [{"name": "a", "port": 11435}]}
# id: (the fleet, whose host, what the one line must hold: key, value, fix)
REFUSED: dict[str, tuple[Hosts, str, list[str]]] = {
    "version without a checksum": (
        pair({"ollama_version": "9.9.9"}),
        "gpu1",
        ["ollama_version = '9.9.9'", "no checksum", "set ollama_sha256"],
    ),
    "port beside instances": (
        pair({"ollama_port": 11434, **INSTANCES}),
        "gpu1",
        ["ollama_port = 11434: has no effect beside ollama_instances", "leave it out"],
    ),
}


@pytest.mark.parametrize(("hosts", "host", "parts"), REFUSED.values(), ids=REFUSED)
def test_refused(hosts: Hosts, host: str, parts: list[str], own_secrets: Path) -> None:
    assert_refused(hosts, host, parts, own_secrets)


def test_host_without_ollama_is_not_judged() -> None:
    """Its settings may be set for all hosts of an inventory, the gateway too."""
    fleet_of(pair(edge={"ollama_port": 11434, **INSTANCES}))
