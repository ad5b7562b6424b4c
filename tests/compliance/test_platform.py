"""What holds for every unit of this project on a host, whichever capability it is of."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

import pytest

from fleet.kit.facts.foreign import MARK
from fleet.kit.paths import UNITS
from fleet.kit.sandbox import MOST_EXPOSED, NOT_OURS
from tests.compliance.connection import Target


def test_sandboxes(each_host: Target, measured) -> None:
    """Every service of this project is kept from what it does not need."""
    listed = each_host.run("grep -rlF %s %s || true", MARK, UNITS).split()
    names = sorted({name for path in listed if (name := _service(path)) and name not in NOT_OURS})
    if not names:
        pytest.skip("no service here")
    exposed, most = {}, ("", 0.0)
    for name in names:
        said = each_host.run("systemd-analyze security --no-pager %s", name)
        [level] = re.findall(r"Overall exposure level for \S+: ([\d.]+)", said)
        most = max(most, (name, float(level)), key=lambda item: item[1])
        if float(level) > MOST_EXPOSED:
            exposed[name] = said
    measured(f"most exposed: {most[0]}, {most[1]} of 10")
    assert exposed == {}


def _service(path: str) -> str:
    """The service that a file is, or adds to; empty for a timer and the like."""
    file = PurePosixPath(path)
    name = file.parent.name.removesuffix(".d") if file.parent.suffix == ".d" else file.name
    return name if name.endswith(".service") else ""
