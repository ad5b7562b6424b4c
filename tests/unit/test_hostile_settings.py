"""Whatever is declared is refused with its place, or is safe in every file that is made of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given, seed, settings

from fleet.capabilities import CAPABILITIES
from fleet.declare.fleet import Fleet
from fleet.firewall.paths import FIREWALL_RULESET
from fleet.gateway.paths import GATEWAY_CONFIG
from fleet.kit.errors import SettingsError
from fleet.kit.files import ManagedFile
from fleet.kit.paths import UNITS
from fleet.ollama.paths import LOADER_UNIT
from tests.fleets import ALTERNATIVE, fleet_of
from tests.hostile import Mutation, mutations
from tests.judges import Judges
from tests.unit.rendered import make_files

# Of the slow one: so many parts, for as many workers, with so many inputs each.
PARTS, INPUTS = 8, 1250
# What means something in nginx's maps.
WORDS_OF_NGINX = ["default", "include", "hostnames", "volatile"]


def accepted(mutation: Mutation) -> Fleet | None:
    """The fleet so declared; None when it is refused, as it must be, by a line with its place."""
    try:
        return fleet_of(mutation.hosts)
    except SettingsError as refused:
        for line in refused.problems:
            assert line.startswith(f"{mutation.host}: ") or mutation.key in line
            assert line.isprintable(), repr(line)
            assert len(line) < 1000, line
        return None


def all_files(fleet: Fleet) -> Iterator[ManagedFile]:
    for item in CAPABILITIES:
        yield from make_files(item, fleet)


@given(mutations())
def test_refused_or_written(mutation: Mutation) -> None:
    if fleet := accepted(mutation):
        for file in all_files(fleet):
            file.text.encode()


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_refused_or_taken_by_what_reads_it(part: int, tmp_path: Path) -> None:
    judges = Judges(tmp_path)
    sound = fleet_of(ALTERNATIVE)
    assert judges.complaint(all_files(sound), sound) == ""

    @seed(part)
    @settings(max_examples=INPUTS, derandomize=False)
    @example(Mutation("edge", "gateway_keys", WORDS_OF_NGINX))
    @given(mutations())
    def judged(mutation: Mutation) -> None:
        if fleet := accepted(mutation):
            assert judges.complaint(all_files(fleet), fleet) == ""

    judged()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "before", "after"),
    [
        (GATEWAY_CONFIG, "worker_processes auto", "worker_processes some"),
        (FIREWALL_RULESET, "policy drop", "policy maybe"),
        (f"{UNITS}/{LOADER_UNIT}", "ProtectSystem=", "ProtectSistem="),
    ],
)
def test_judges_find_fault(path: str, before: str, after: str, tmp_path: Path) -> None:
    fleet = fleet_of(ALTERNATIVE)
    files = list(all_files(fleet))
    broken = [
        replace(file, content=file.text.replace(before, after)) if file.path == path else file
        for file in files
    ]
    assert broken != files
    assert Judges(tmp_path).complaint(files, fleet) == ""
    assert Judges(tmp_path).complaint(broken, fleet) != ""
