"""Nothing that a capability writes is forgotten when it is taken back."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

import pytest

from fleet.capabilities import CAPABILITIES
from fleet.container_toolkit import files as toolkit
from fleet.declare.capability import Capability
from fleet.docker import packages as docker
from fleet.driver import files as driver
from fleet.driver.plan import System
from fleet.kit.footprint import Part, Trace, without
from tests.fleets import EDGE, FLEETS, GPU, fleet_of
from tests.unit.rendered import make_files

_UNITS = "/etc/systemd/system/"


def parts(item: Capability, name: str) -> list[Part]:
    """What goes of a capability from a host of the fleet `name`."""
    fleet = fleet_of(FLEETS[name])
    return [
        part
        for host in fleet.running(item.settings)
        for trace in item.footprint(host)
        if trace.fate == "goes"
        for part in trace.parts
    ]


def room(item: Capability) -> str:
    return item.settings.__module__.split(".")[1]


@pytest.mark.parametrize("name", FLEETS)
@pytest.mark.parametrize("item", CAPABILITIES, ids=room)
def test_every_file_is_in_the_footprint(item: Capability, name: str) -> None:
    """What is kept by the driver against nouveau stays with the driver, and is told."""
    known = parts(item, name) + [
        part
        for host in fleet_of(FLEETS[name]).running(item.settings)
        for trace in item.footprint(host)
        if trace.fate == "stays"
        for part in trace.parts
    ]
    written = {file.path for file in make_files(item, fleet_of(FLEETS[name]))}
    assert {path for path in written if not any(part.covers(path) for part in known)} == set()


@pytest.mark.parametrize("item", CAPABILITIES, ids=room)
def test_every_unit_is_ended_before_its_file_goes(item: Capability) -> None:
    for name, hosts in FLEETS.items():
        ended = {part.name for part in parts(item, name) if part.kind == "unit"}
        for file in make_files(item, fleet_of(hosts)):
            unit = file.path.removeprefix(_UNITS)
            if unit == file.path or "/" in unit:
                continue
            assert any(fnmatchcase(unit, name) for name in ended), unit


@pytest.mark.parametrize("item", CAPABILITIES, ids=room)
def test_directories_are_in_the_footprint(item: Capability) -> None:
    for hosts in FLEETS.values():
        for host in fleet_of(hosts).running(item.settings):
            known = [part for trace in item.footprint(host) for part in trace.parts]
            for directory in item.directories(host):
                if directory.setting in ("docker_data_root", "/var/lib/docker"):
                    continue  # Docker's own, and with containers of others
                assert any(
                    part.covers(directory.path) or part.covers(f"{directory.path}/x")
                    for part in known
                ), directory


def test_repositories_are_in_the_footprint() -> None:
    host = fleet_of(FLEETS["one GPU host"])["gpu1"]
    repositories = [
        toolkit.repository(host, "x86_64"),
        docker.repository(host, {"ID": "debian"}),
        driver.repository(host, System("debian", "13")),
    ]
    known = [
        part for item in CAPABILITIES for trace in item.footprint(host) for part in trace.parts
    ]
    for repository in repositories:
        for path in (repository.source.path, repository.keyring):
            assert any(part.covers(path) for part in known), path


def test_what_stays_says_why() -> None:
    host = fleet_of(FLEETS["one GPU host"])["gpu1"]
    for item in CAPABILITIES:
        for trace in item.footprint(host):
            assert bool(trace.why) == (trace.fate != "goes"), trace


def test_nothing_of_somebody_elses_name_goes_without_a_sign() -> None:
    """A path without our name in it has to tell by itself that it is ours."""
    for hosts in FLEETS.values():
        for host in fleet_of(hosts):
            for item in CAPABILITIES:
                for trace in item.footprint(host):
                    for part in trace.parts:
                        if part.kind in ("package", "hold", "volumes", "project"):
                            assert part.kind == "package" or part.sign, part
                        elif "llm" not in part.name and trace.fate != "data":
                            assert part.sign, part


def test_what_a_host_still_needs_is_not_taken_back() -> None:
    fleet = fleet_of(FLEETS["two hosts"])
    gone = {
        part.name
        for traces in fleet.forgone(fleet["gpu1"])
        for trace in traces
        for part in trace.parts
    }
    assert "/etc/llm-fleet/gateway" in gone
    assert "nginx.service" in gone
    assert "ollama.service" not in gone
    # Dify fetches its release with it too.
    assert "/usr/local/lib/llm-fleet/fetch-release" not in gone
    edge = {
        part.name
        for traces in fleet.forgone(fleet["edge"])
        for trace in traces
        for part in trace.parts
    }
    assert {"ollama.service", "/usr/local/lib/llm-fleet/fetch-release"} <= edge
    assert "/etc/llm-fleet/gateway" not in edge


@pytest.mark.parametrize(
    ("data", "goes"),
    [
        ({"docker_enabled": True}, False),
        ({"docker_enabled": True, "toolkit_enabled": False}, True),
        ({}, True),
    ],
    ids=["on", "switched off", "no containers"],
)
def test_what_a_setting_switches_off_is_taken_back(data: dict[str, Any], goes: bool) -> None:
    fleet = fleet_of({"gpu1": ("gpu", {**GPU[1], **data}), "edge": EDGE})
    gone = {
        part.name
        for traces in fleet.forgone(fleet["gpu1"])
        for trace in traces
        for part in trace.parts
    }
    source = "/etc/apt/sources.list.d/llm-fleet-nvidia-container-toolkit.sources"
    assert (source in gone) is goes


def test_without_keeps_the_rest_of_a_trace() -> None:
    one, two = Part("file", "/a"), Part("file", "/b", "sign")
    (trace,) = without([Trace("", "", (one, two))], [Trace("", "", (Part("file", "/b"),))])
    assert trace.parts == (one,)


@pytest.mark.parametrize(
    ("part", "path", "covers"),
    [
        (Part("tree", "/opt/x"), "/opt/x/y/z", True),
        (Part("tree", "/opt/x"), "/opt/xy", False),
        (Part("tree", "/opt/*"), "/opt/x/y", True),
        (Part("file", "/opt/x"), "/opt/x", True),
        (Part("file", "/opt/x"), "/opt/x/y", False),
        (Part("unit", "/opt/x"), "/opt/x", False),
    ],
)
def test_covers(part: Part, path: str, covers: bool) -> None:
    assert part.covers(path) is covers
