"""Hosts are named in full, and one that is misspelt is no reason to ask others."""

from __future__ import annotations

import pytest

from fleet.kit.errors import FleetError
from fleet.operate.hosts import chosen_hosts
from tests.fleets import EDGE, GPU, fleet_of


def test_all_without_a_name() -> None:
    fleet = fleet_of({"gpu1": GPU, "edge": EDGE})
    assert [host.name for host in chosen_hosts(fleet, ())] == ["gpu1", "edge"]
    assert [host.name for host in chosen_hosts(fleet, ("edge", "gpu1", "edge"))] == ["gpu1", "edge"]
    assert [host.name for host in chosen_hosts(fleet, ("edge",))] == ["edge"]


@pytest.mark.parametrize(("name", "said"), [("gpu2", "mean gpu1?"), ("xyz", "gpu1, edge")])
def test_unknown_name(name: str, said: str) -> None:
    with pytest.raises(FleetError, match=rf"{name}: no such host.*{said.replace('?', '.')}"):
        chosen_hosts(fleet_of({"gpu1": GPU, "edge": EDGE}), ("gpu1", name))
