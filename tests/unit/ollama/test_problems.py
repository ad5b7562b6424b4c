"""What of Ollama's settings cannot work on a host."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fleets import (
    Hosts,
)
from tests.unit.refusals import assert_refused, pair

# id: (the fleet, whose host, what the one line must hold: key, value, fix)
REFUSED: dict[str, tuple[Hosts, str, list[str]]] = {
    "version without a checksum": (
        pair({"ollama_version": "9.9.9"}),
        "gpu1",
        ["ollama_version = '9.9.9'", "no checksum", "set ollama_sha256"],
    ),
}


@pytest.mark.parametrize(("hosts", "host", "parts"), REFUSED.values(), ids=REFUSED)
def test_refused(hosts: Hosts, host: str, parts: list[str], own_secrets: Path) -> None:
    assert_refused(hosts, host, parts, own_secrets)
