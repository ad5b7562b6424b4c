"""What of the toolkit's settings is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fleets import (
    Hosts,
)
from tests.unit.refusals import assert_refused, pair

# id: (the fleet, whose host, what the one line must hold: key, value, fix)
REFUSED: dict[str, tuple[Hosts, str, list[str]]] = {
    "version of a package without its revision": (
        pair({"toolkit_version": "1.20.0"}),
        "gpu1",
        ["toolkit_version = '1.20.0'", "with its revision, such as 1.19.1-1"],
    ),
}


@pytest.mark.parametrize(("hosts", "host", "parts"), REFUSED.values(), ids=REFUSED)
def test_refused(hosts: Hosts, host: str, parts: list[str], own_secrets: Path) -> None:
    assert_refused(hosts, host, parts, own_secrets)
