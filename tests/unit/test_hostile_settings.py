"""Whatever is declared is refused with its place, or is safe in every file that is made of it."""

from __future__ import annotations

from hypothesis import given

from fleet.capabilities import CAPABILITIES
from fleet.kit.errors import SettingsError
from tests.fleets import fleet_of
from tests.hostile import Mutation, mutations
from tests.unit.rendered import make_files


@given(mutations())
def test_refused_or_written(mutation: Mutation) -> None:
    try:
        fleet = fleet_of(mutation.hosts)
    except SettingsError as refused:
        for line in refused.problems:
            assert line.startswith(f"{mutation.host}: ") or mutation.key in line
            line.encode()
            assert line.isprintable(), repr(line)
        return
    for item in CAPABILITIES:
        for file in make_files(item, fleet):
            file.text.encode()
