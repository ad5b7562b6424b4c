"""Whether weights fit a host, by what the deploy and the doctor ask of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pyinfra.facts.files import Directory

from fleet.declare.fleet import Fleet, FleetHost
from fleet.declare.preflight import Verdict
from fleet.kit.errors import FleetError
from fleet.kit.facts.reach import FreeRoom, Reach, Reachable
from fleet.kit.loaders import LoaderCheck
from fleet.weights.checks import checks
from fleet.weights.facts import WeightsState
from fleet.weights.preflight import refuse_without_room

GB = 1_000_000_000
# Of the alternative fleet: 65 GB, and 50 GB to leave.
NEEDED = 65 * GB + 22


def asking(
    free: int | None, check: LoaderCheck | None = None, *, there: bool = False, status: int = 200
) -> Callable[..., Any]:
    answers = {
        FreeRoom: {} if free is None else {"/data/weights": free},
        WeightsState: check or LoaderCheck(),
        Directory: {"mode": 755} if there else None,
        Reachable: Reach(status),
    }
    return lambda fact, **_: answers[fact]


@pytest.fixture
def me(alternative: Fleet) -> FleetHost:
    return alternative["gpu1"]


def test_bare_host_needs_all_of_it(me: FleetHost) -> None:
    assert refuse_without_room(me, asking(NEEDED + 50 * GB)) == (
        "/data/weights: 115.0 GB free, 65.0 GB to fetch"
    )
    with pytest.raises(FleetError) as caught:
        refuse_without_room(me, asking(NEEDED + 50 * GB - 1))
    assert str(caught.value) == (
        "gpu1: weights_dir = /data/weights: 115.0 GB free, 65.0 GB to fetch and 50 GB to leave "
        "(weights_disk_reserve); make room, or put weights_dir on a larger disk"
    )


def test_loader_knows_what_is_there(me: FleetHost) -> None:
    """A full disk is none of our business when all weights are on it."""
    assert refuse_without_room(me, asking(0, LoaderCheck(True, to_fetch=0)))
    with pytest.raises(FleetError):
        refuse_without_room(me, asking(50 * GB, LoaderCheck(True, to_fetch=1)))


@pytest.mark.parametrize("ask", [asking(0, there=True), asking(None)])
def test_what_nobody_knows_is_left_to_the_loader(me: FleetHost, ask: Callable[..., Any]) -> None:
    assert "judged by the loader itself" in refuse_without_room(me, ask)


def test_doctor_judges_alike(alternative: Fleet) -> None:
    me = alternative["gpu1"]
    lines = list(checks(me, alternative, asking(0)))
    assert [(line.verdict, line.what) for line in lines] == [
        (Verdict.FAIL, "disk for weights"), (Verdict.OK, "weights toy"),
    ]  # fmt: skip
    [_, line] = checks(me, alternative, asking(0, status=404))
    assert line.verdict is Verdict.FAIL
    assert "http://mirror.internal:8080/modelscope/api/v1/models/team/toy/repo?" in line.text
    [_, line] = checks(me, alternative, asking(0, status=401))
    assert line.verdict is Verdict.OK, "a gated one answers so to whoever has no token"


def test_host_without_weights_is_asked_nothing(default: Fleet) -> None:
    assert list(checks(default["gpu1"], default, asking(0))) == []
