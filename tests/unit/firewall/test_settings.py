"""What of the firewall's settings is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet.firewall.settings import Firewall
from tests.fleets import (
    Hosts,
)
from tests.unit.exposing import exposing
from tests.unit.refusals import assert_refused, pair

# id: (the fleet, whose host, what the one line must hold: key, value, fix)
REFUSED: dict[str, tuple[Hosts, str, list[str]]] = {
    "sshd for nobody": (
        pair({"firewall_ssh_from": []}),
        "gpu1",
        ["firewall_ssh_from", "at least one network"],
    ),
    "way through the host by no interface": (
        pair({"firewall_forward": [{"incoming": "eth0; accept", "outgoing": "*"}]}),
        "gpu1",
        ["firewall_forward[0]['incoming']", "eth0; accept", "such as virbr0"],
    ),
    "protocol that has ports": (
        pair({"firewall_open_protocols": ["tcp"]}),
        "gpu1",
        ["firewall_open_protocols[0]", "tcp", "'esp'"],
    ),
}


@pytest.mark.parametrize(("hosts", "host", "parts"), REFUSED.values(), ids=REFUSED)
def test_refused(hosts: Hosts, host: str, parts: list[str], own_secrets: Path) -> None:
    assert_refused(hosts, host, parts, own_secrets)


def test_what_opens_something_is_marked() -> None:
    """Whoever adds a setting that can open something adds it here, and so writes its warning."""
    assert exposing(Firewall) == {
        "backend", "open_tcp", "open_udp", "open_protocols", "open_to_containers", "forward",
    }  # fmt: skip
