"""Hosts are refused whose directories are somebody else's, or could be turned."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fleet.capabilities import CAPABILITIES
from fleet.declare.capability import Capability
from fleet.kit.errors import FleetError
from fleet.kit.facts.places import Place
from fleet.platform.directories import refuse_directories
from tests.fleets import FLEETS, Hosts, fleet_of

each_fleet = pytest.mark.parametrize("hosts", FLEETS.values(), ids=FLEETS)


@each_fleet
def test_every_directory_of_every_capability_is_looked_at(hosts: Hosts) -> None:
    fleet = fleet_of(hosts)
    for host in fleet:
        directories = fleet.directories(host)
        places = {item.path: Place(item.path, item.path) for item in directories}
        refuse_directories(host, directories, places)
        for item in directories:
            pipe = replace(places[item.path], kind="fifo")
            with pytest.raises(FleetError) as refused:
                refuse_directories(host, directories, {**places, item.path: pipe})
            said = str(refused.value)
            assert said.startswith(f"{host.name}: {item.setting}")
            assert f"{item.path}: is a fifo; move it away" in said


def test_all_of_a_host_are_told_at_once() -> None:
    fleet = fleet_of({"gpu1": ("gpu", {})})
    directories = fleet.directories(fleet["gpu1"])
    places = {item.path: Place(item.path, item.path, kind="fifo") for item in directories}
    with pytest.raises(FleetError) as refused:
        refuse_directories(fleet["gpu1"], directories, places)
    assert len(str(refused.value).splitlines()) == len(directories)


@pytest.mark.parametrize(
    "item",
    [item for item in CAPABILITIES if {"models_dir", "backup_dir", "data_root"} & set(
        item.settings.model_fields
    )],
    ids=lambda item: item.settings.__name__,
)  # fmt: skip
def test_every_setting_of_a_directory_is_told(item: Capability) -> None:
    """By the name that an inventory has it by."""
    told = {
        directory.setting
        for hosts in FLEETS.values()
        for host in fleet_of(hosts)
        if host.runs(item.settings)
        for directory in item.directories(host)
    }
    fields = {"models_dir", "backup_dir", "data_root"} & set(item.settings.model_fields)
    assert {f"{item.settings.prefix}{name}" for name in fields} <= told
