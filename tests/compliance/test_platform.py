"""Ports and directories of a host are its services' own."""

from __future__ import annotations

from fleet.kit.facts.listeners import Listeners
from fleet.kit.facts.places import Places
from fleet.kit.places import problem_of
from tests.compliance.connection import Target


def test_ports(each_host: Target) -> None:
    """What listens on a declared port is what was started for it."""
    listeners = each_host.fact(Listeners)
    for service in each_host.fleet.services(each_host.declared):
        for at in service.endpoints if service.ours else ():
            found = [item for item in listeners if item.is_in_the_way(at.address, at.port)]
            strangers = [str(item) for item in found if not item.is_of(service.held_by)]
            assert strangers == [], f"{service.setting} = {at.port}"
            assert found, f"{service.setting} = {at.port}: nothing listens"


def test_directories(each_host: Target) -> None:
    """Directories of data are their services', and nobody else could put others there."""
    directories = each_host.fleet.directories(each_host.declared)
    places = each_host.fact(Places, paths=[item.path for item in directories])
    found = [problem_of(item, places[item.path]) for item in directories]
    assert [problem for problem in found if problem] == []
