"""What a host says of its clock and of the servers that it fetches from."""

from __future__ import annotations

import time

import pytest

from fleet.platform.facts import AptArchives, Archives, Clock, HostClock
from tests.unit.facts import ask


def test_clock_of_this_machine() -> None:
    before = time.time()
    clock = ask(HostClock())
    assert before <= clock.time <= time.time()


@pytest.mark.parametrize(
    ("output", "clock"),
    [
        (["1700000000.500000000", "yes"], Clock(1_700_000_000.5, True)),
        (["1700000000.500000000", "no"], Clock(1_700_000_000.5, False)),
        (["1700000000.500000000"], Clock(1_700_000_000.5, None)),
        # BusyBox has no nanoseconds.
        (["1700000000.N", "n/a"], Clock(1_700_000_000, None)),
        (["", ""], Clock(0, None)),
    ],
)
def test_clock(output: list[str], clock: Clock) -> None:
    assert HostClock().process(output) == clock


def test_servers_of_this_machine() -> None:
    """The command is one for sh, and says nothing else."""
    found = ask(AptArchives())
    assert all(name and " " not in name and "/" not in name for name in found.names)


@pytest.mark.parametrize(
    ("output", "archives"),
    [
        (["yes a.example", "no b.example"], Archives({"a.example": True, "b.example": False})),
        (["proxy", "no b.example"], Archives({"b.example": False}, by_proxy=True)),
        (["", "x y"], Archives()),
    ],
)
def test_servers(output: list[str], archives: Archives) -> None:
    assert AptArchives().process(output) == archives
