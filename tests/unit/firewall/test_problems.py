"""Ports that several services have."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fleets import (
    BOX,
    Hosts,
)
from tests.unit.refusals import assert_refused, pair

# id: (the fleet, whose host, what the one line must hold: key, value, fix)
REFUSED: dict[str, tuple[Hosts, str, list[str]]] = {
    "ollama on the port of sshd": (
        pair({"ssh_port": 11434}),
        "gpu1",
        ["ssh_port and ollama_port", "11434", "a port of its own"],
    ),
    "gateway on the port of ollama": (
        {"box": ("gpu gateway", {**BOX[1], "gateway_port": 11434})},
        "box",
        ["ollama_port and gateway_port", "11434", "a port of its own"],
    ),
    "open port is a service's own": (
        pair({"firewall_open_tcp": [9100, 11434]}),
        "gpu1",
        ["ollama_port and firewall_open_tcp", "11434", "a port of its own"],
    ),
}


@pytest.mark.parametrize(("hosts", "host", "parts"), REFUSED.values(), ids=REFUSED)
def test_refused(hosts: Hosts, host: str, parts: list[str], own_secrets: Path) -> None:
    assert_refused(hosts, host, parts, own_secrets)
