"""Whom a restart of a GPU host cuts off, by what its gateways say."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from fleet.gateway.cut_off import cut_off
from fleet.gateway.facts import DrainedHosts, ServedServers
from fleet.gateway.traffic import NginxTraffic, Traffic
from fleet.kit.planned import Restart
from tests.fleets import EDGE, GPU, fleet_of

pytestmark = pytest.mark.usefixtures("own_secrets")
BOTH = ("gpu1", "gpu2")
CUT = "2 requests in flight through edge"


@pytest.mark.parametrize(
    ("served", "drained", "roll", "said"),
    [
        (BOTH, (), "in-turn", "nobody: it is restarted in its turn; meanwhile served by gpu2"),
        (
            ("gpu1/x", "gpu2/x"),
            (),
            "in-turn",
            "nobody: it is restarted in its turn; meanwhile served by gpu2",
        ),
        (BOTH, (), "at-once", CUT),
        (BOTH, ("gpu2",), "in-turn", CUT),
        (BOTH, ("gpu1",), "in-turn", f"{CUT}, drained there"),
        (("gpu1",), (), "in-turn", CUT),
        (None, (), "in-turn", CUT),
    ],
    ids=[
        "in turn",
        "other names",
        "at once",
        "other drained",
        "drained",
        "alone",
        "no gateway yet",
    ],
)
def test_a_server(
    served: tuple[str, ...] | None, drained: tuple[str, ...], roll: str, said: str
) -> None:
    assert told(served, drained, roll).split("; no ")[0].split("; gpu")[0] == said


@pytest.mark.parametrize(
    ("served", "drained", "meanwhile"),
    [
        (BOTH, (), "gpu2 could serve meanwhile"),
        (("gpu1",), (), "no other host could serve"),
        (BOTH, ("gpu2",), "no other host could serve"),
        (None, (), "gpu2 could serve meanwhile"),
    ],
)
def test_who_serves_meanwhile(
    served: tuple[str, ...] | None, drained: tuple[str, ...], meanwhile: str
) -> None:
    assert told(served, drained, "at-once").endswith(f"; {meanwhile}")


@pytest.mark.parametrize(
    ("models", "said"),
    [
        ((["a"], ["a", "b"]), "nobody: it is restarted in its turn; meanwhile served by gpu2"),
        ((["a", "b"], ["a"]), f"{CUT}; gpu2 could serve meanwhile, but none b"),
        ((["a"], ["b"]), f"{CUT}; no other host could serve"),
    ],
)
def test_another_host_serves_what_it_has(models: tuple[list[str], ...], said: str) -> None:
    assert told(BOTH, (), "in-turn", models) == said


def told(
    served: tuple[str, ...] | None,
    drained: tuple[str, ...],
    roll: str,
    models: tuple[list[str], ...] = (["a"], ["a"]),
) -> str:
    """Whom a restart of gpu1's server cuts off."""
    hosts = {
        f"gpu{n}": (
            "gpu",
            {**GPU[1], "private_address": f"10.0.0.1{n}", "ollama_models": models[n - 1]},
        )
        for n in (1, 2)
    }
    fleet = fleet_of({**hosts, "edge": ("gateway", {**EDGE[1], "gateway_roll": roll})})
    answers: dict[type, Any] = {
        ServedServers: served,
        DrainedHosts: dict.fromkeys(drained, ""),
        NginxTraffic: Traffic(Counter({"gpu1": 2, "gpu2": 1}), Counter(), Counter()),
    }
    return cut_off(
        fleet["gpu1"], fleet, Restart("ollama.service", "restart"), lambda _, fact: answers[fact]
    )
