"""What of the settings of models is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet.models.settings import Models
from tests.fleets import (
    Hosts,
)
from tests.unit.exposing import exposing
from tests.unit.refusals import assert_refused, pair

# id: (the fleet, whose host, what the one line must hold: key, value, fix)
REFUSED: dict[str, tuple[Hosts, str, list[str]]] = {
    "retry that begins above its bound": (
        pair({"models_retry_delay": "10m"}),
        "gpu1",
        ["models_retry_delay: 10m is longer than models_retry_delay_max = 5m"],
    ),
    "no patience at all": (
        pair({"models_no_progress": 0}),
        "gpu1",
        ["models_no_progress = 0", "not between a second and ten years"],
    ),
    "no attempt at all": (
        pair({"models_attempts": 0}),
        "gpu1",
        ["models_attempts = 0", "greater than or equal to 1"],
    ),
    "reserve below nothing": (
        pair({"models_disk_reserve": -1}),
        "gpu1",
        ["models_disk_reserve = -1", "greater than or equal to 0"],
    ),
    "insecure without a mirror": (
        pair({"models_registry_insecure": True}),
        "gpu1",
        ["models_registry_insecure", "set models_registry"],
    ),
    "mirror with a scheme": (
        pair({"models_registry": "http://mirror:5000"}),
        "gpu1",
        ["models_registry = 'http://mirror:5000'", "without http://", "mirror.internal:5000"],
    ),
}


@pytest.mark.parametrize(("hosts", "host", "parts"), REFUSED.values(), ids=REFUSED)
def test_refused(hosts: Hosts, host: str, parts: list[str], own_secrets: Path) -> None:
    assert_refused(hosts, host, parts, own_secrets)


def test_what_opens_something_is_marked() -> None:
    """Whoever adds a setting that can open something adds it here, and so writes its warning."""
    assert exposing(Models) == {"registry_insecure"}
