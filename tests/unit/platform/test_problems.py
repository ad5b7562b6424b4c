"""Addresses that cannot work."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fleets import (
    BOX,
    GPU,
    Hosts,
)
from tests.unit.refusals import assert_refused, pair, without

# id: (the fleet, whose host, what the one line must hold: key, value, fix)
REFUSED: dict[str, tuple[Hosts, str, list[str]]] = {
    "ollama private without an address": (
        {"gpu1": ("gpu", {"ollama_listen": "private"})},
        "gpu1",
        ["ollama_listen = 'private'", "needs private_address"],
    ),
    "gateway private without an address": (
        {"box": ("gpu gateway", without(BOX[1], "private_address"))},
        "box",
        ["gateway_listen = 'private'", "needs private_address"],
    ),
    **{
        f"private_address {address}": (
            pair({"private_address": address}),
            "gpu1",
            [f"private_address = '{address}'", "not a private address", "gateway_listen = 'any'"],
        )
        for address in ("8.8.8.8", "2600::1", "127.0.0.1", "0.0.0.0")
    },
    "one address for two hosts": (
        {**pair(), "gpu2": GPU},
        "gpu1, gpu2",
        ["private_address = '10.0.0.11'", "declared for 2 hosts"],
    ),
}


@pytest.mark.parametrize(("hosts", "host", "parts"), REFUSED.values(), ids=REFUSED)
def test_refused(hosts: Hosts, host: str, parts: list[str], own_secrets: Path) -> None:
    assert_refused(hosts, host, parts, own_secrets)
