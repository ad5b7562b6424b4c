"""What capabilities tell of a host that runs, whatever it answers to what they ask."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fleet.declare.status import Told
from tests.fleets import FLEETS, fleet_of

VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-2, 2**70), st.floats(), st.text(max_size=8),
        st.sampled_from(["\ud800", "ready", "9" * 5_000]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["models", "version", "a", "phase"]), inner, max_size=3),
    ),
    max_leaves=6,
)  # fmt: skip
LINES = st.lists(
    st.one_of(
        st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\n\r")),
        VALUES.map(json.dumps),
        st.sampled_from(["note", "trace x", "lock x", "0, GPU-a, b, c", 'a b c d:5 ("nginx")']),
    ),
    max_size=4,
)


def told(name: str, lines: list[str]) -> list[Told]:
    """What every capability of a fleet makes of `lines`, as the answer to whatever it asks."""
    fleet = fleet_of(FLEETS[name])
    return [
        item
        for me in fleet
        for capability in fleet.capabilities_of(me)
        for look in capability.status(me, fleet)
        for item in look.tell([lines for _ in look.commands])
    ]


@pytest.mark.parametrize("name", FLEETS)
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(lines=LINES)
@example(lines=[])
@example(lines=["\x1b[2Jx" * 1_000])
def test_whatever_is_answered(name: str, lines: list[str]) -> None:
    for item in told(name, lines):
        json.dumps(dict(item.values))


@pytest.mark.parametrize("name", FLEETS)
def test_host_that_answers_nothing_is_not_well(name: str) -> None:
    assert [item.problem for item in told(name, []) if item.problem]


@pytest.mark.parametrize("name", FLEETS)
def test_what_is_asked_only_reads(name: str) -> None:
    """None of it writes, installs or starts anything."""
    fleet = fleet_of(FLEETS[name])
    commands: list[Any] = [
        command
        for me in fleet
        for capability in fleet.capabilities_of(me)
        for look in capability.status(me, fleet)
        for command in look.commands
    ]
    assert commands
    words = {word for command in commands for word in command.get_raw_value().split()}
    assert (
        words & {"rm", "mv", "cp", "install", "apt-get", "tee", "mkdir", "restart", "start"}
        == set()
    )
