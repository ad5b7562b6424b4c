"""What of Docker's settings would have no effect."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fleets import (
    Hosts,
)
from tests.unit.refusals import assert_refused

# id: (the fleet, whose host, what the one line must hold: key, value, fix)
REFUSED: dict[str, tuple[Hosts, str, list[str]]] = {
    "version of the distribution's Docker": (
        {
            "box": (
                "",
                {
                    "docker_enabled": True,
                    "docker_source": "distribution",
                    "docker_version": "28.5.2",
                },
            )
        },
        "box",
        ["docker_version", "set docker_source = 'docker'"],
    ),
}


@pytest.mark.parametrize(("hosts", "host", "parts"), REFUSED.values(), ids=REFUSED)
def test_refused(hosts: Hosts, host: str, parts: list[str], own_secrets: Path) -> None:
    assert_refused(hosts, host, parts, own_secrets)
