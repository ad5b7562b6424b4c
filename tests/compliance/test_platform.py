"""What holds on every host, whichever capability it has: its units, ports and directories."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

import pytest

from fleet.kit.facts.foreign import MARK
from fleet.kit.facts.listeners import Listeners
from fleet.kit.facts.places import Places
from fleet.kit.paths import UNITS
from fleet.kit.places import problem_of
from fleet.kit.sandbox import MOST_EXPOSED, NOT_OURS

from .connection import Target
from .outcomes import Record, Say


def test_sandboxes(each_host: Target, measured: Say, record: Record) -> None:
    """Every service of this project is kept from what it does not need."""
    listed = each_host.run("grep -rlF %s %s || true", MARK, UNITS).split()
    names = sorted({name for path in listed if (name := _service(path)) and name not in NOT_OURS})
    if not names:
        pytest.skip("no service here")
    told = each_host.run(
        f"for name in {' '.join(['%s'] * len(names))}; do "
        'systemd-analyze security --no-pager "$name"; done',
        *names,
    )
    parts = re.findall(r"(.*?Overall exposure level for (\S+): ([\d.]+))", told, re.DOTALL)
    levels = {name: float(level) for _, name, level in parts}
    assert sorted(levels) == names, told
    for name, level in levels.items():
        record("exposure", name, level)
    most = max(names, key=levels.__getitem__)
    measured(f"most exposed: {most}, {levels[most]} of 10")
    assert {name: said for said, name, _ in parts if levels[name] > MOST_EXPOSED} == {}


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


def _service(path: str) -> str:
    """The service that a file is, or adds to; empty for a timer and the like."""
    file = PurePosixPath(path)
    name = file.parent.name.removesuffix(".d") if file.parent.suffix == ".d" else file.name
    return name if name.endswith(".service") else ""
