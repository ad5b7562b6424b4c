"""Which hosts are checked, and that a name which means nothing is refused."""

from __future__ import annotations

import pytest

from fleet.kit.errors import FleetError
from tests.compliance.selection import selected
from tests.fleets import EDGE, GPU, fleet_of

pytestmark = pytest.mark.usefixtures("own_secrets")

HOSTS = {"gpu1": GPU, "gpu2": ("gpu", {**GPU[1], "private_address": "10.0.0.12"}), "edge": EDGE}


@pytest.mark.parametrize(
    ("names", "hosts"),
    [
        ([], ["gpu1", "gpu2", "edge"]),
        (["gpu2"], ["gpu2"]),
        (["gpu"], ["gpu1", "gpu2"]),
        (["gateway", "gpu1", "gpu1"], ["gpu1", "edge"]),
    ],
)
def test_selected(names: list[str], hosts: list[str]) -> None:
    assert [host.name for host in selected(fleet_of(HOSTS), names)] == hosts


@pytest.mark.parametrize("name", ["gpus", "GPU1", "", "gpu1,gpu2", "dify"])
def test_a_name_of_nobody_is_refused(name: str) -> None:
    with pytest.raises(FleetError, match="neither a host of this inventory nor a group"):
        selected(fleet_of(HOSTS), ["gpu1", name])
