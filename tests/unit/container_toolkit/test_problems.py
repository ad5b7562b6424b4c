"""What of the toolkit's settings would have no effect."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fleets import (
    Hosts,
)
from tests.unit.refusals import assert_refused, pair

# id: (the fleet, whose host, what the one line must hold: key, value, fix)
REFUSED: dict[str, tuple[Hosts, str, list[str]]] = {
    "runtime without Docker": (
        pair({"toolkit_runtime": True}),
        "gpu1",
        ["toolkit_runtime = True", "set docker_enabled = True"],
    ),
}


@pytest.mark.parametrize(("hosts", "host", "parts"), REFUSED.values(), ids=REFUSED)
def test_refused(hosts: Hosts, host: str, parts: list[str], own_secrets: Path) -> None:
    assert_refused(hosts, host, parts, own_secrets)
