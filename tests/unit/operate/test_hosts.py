"""Hosts that a command is about are named by host or group, and nothing is taken for none."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from fleet import cli
from fleet.declare.fleet import Fleet
from fleet.kit.errors import FleetError
from fleet.operate.hosts import chosen_hosts
from tests.fleets import EDGE, GPU, fleet_of


@pytest.fixture
def three() -> Fleet:
    return fleet_of(
        {"gpu1": GPU, "edge": EDGE, "gpu2": ("gpu", {**GPU[1], "private_address": "10.0.0.12"})}
    )


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        ((), ["gpu1", "edge", "gpu2"]),
        (("gpu2", "gpu1"), ["gpu1", "gpu2"]),
        (("gpu",), ["gpu1", "gpu2"]),
        (("gateway", "gpu2", "edge"), ["edge", "gpu2"]),
    ],
)
def test_chosen(three: Fleet, asked: tuple[str, ...], names: list[str]) -> None:
    """... each once, in the inventory's order."""
    found = [host.name for host in chosen_hosts(three, asked, or_groups=True)]
    assert sorted(found) == sorted(names)
    assert found == [host.name for host in three if host.name in names]


def test_what_there_is_not_is_refused(three: Fleet) -> None:
    with pytest.raises(FleetError) as refusal:
        chosen_hosts(three, ("gpu1", "gpu9", "gpu1,gpu2", "x"), or_groups=True)
    lines = str(refusal.value).splitlines()
    assert lines[0].startswith("gpu1,gpu2: no such host")
    assert lines[1].startswith("gpu9: no such host or group in this inventory; did you mean gpu")
    assert re.fullmatch(
        r"x: no such host or group in this inventory; there are (gpu1|gpu2|edge|, )+, and the "
        r"groups gateway, gpu",
        lines[2],
    )


def test_a_group_is_no_host_where_hosts_alone_are_meant(three: Fleet) -> None:
    with pytest.raises(FleetError, match=r"^gpu: no such host in this inventory; did you mean gpu"):
        chosen_hosts(three, ("gpu1", "gpu"))


def completed(inventory: Path, begun: str) -> list[str]:
    complete = ShellComplete(cli.main, {}, "fleet", "_FLEET_COMPLETE")
    return [item.value for item in complete.get_completions(["deploy", str(inventory)], begun)]


def test_hosts_and_groups_are_completed(inventory: Path, own_secrets: Path) -> None:
    inventory.write_text('gpu = ["gpu1"]\nother = [("o1", {"docker_enabled": True})]\n')
    assert completed(inventory, "g") == ["gpu1", "gpu"]
    assert completed(inventory, "o") == ["o1", "other"]
    assert not own_secrets.exists()


def test_a_broken_inventory_completes_nothing(inventory: Path) -> None:
    inventory.write_text("gpu = [\n")
    assert completed(inventory, "g") == []
