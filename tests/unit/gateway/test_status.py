"""What a gateway tells: requests by host, who is drained, and what ends soon."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fleet.declare.fleet import Fleet
from fleet.declare.status import Told
from fleet.gateway import status, tls
from tests.fleets import EDGE, GPU, Hosts, fleet_of

HOSTS: Hosts = {
    "gpu1": GPU,
    "gpu2": ("gpu", {**GPU[1], "private_address": "10.0.0.12"}),
    "edge": EDGE,
}
BOTH = ["# found ready", "gpu1", "gpu2"]
FLYING = ['{"gpu1": 2, "gpu2": 0}']


def told(fleet: Fleet, number: int, *found: list[str]) -> list[Told]:
    return list(list(status.looks(fleet["edge"], fleet))[number].tell(list(found)))


def problems(items: list[Told]) -> list[str]:
    return [item.problem for item in items if item.problem]


def test_hosts_are_told_of_by_the_gateway() -> None:
    lines = ["# by", "gpu2 by alice@desk since yesterday"]
    items = told(fleet_of(HOSTS), 1, FLYING, lines, BOTH)
    assert [(item.about, item.text) for item in items if item.about] == [
        ("gpu1", "2 in flight"),
        ("gpu2", "0 in flight"),
        ("gpu2", "drained by alice@desk since yesterday"),
    ]
    [note] = [item.values["drained_note"] for item in items if "drained_note" in item.values]
    assert note == {"edge": "by alice@desk since yesterday"}
    assert items[0].values == {"in_flight": {"edge": 2}, "drained_by": {"edge": False}}
    assert problems(items) == []


def test_what_is_no_count_is_said_to_be_none() -> None:
    items = told(fleet_of(HOSTS), 1, ['{"gpu1": "many"}'], [], BOTH)
    assert problems(items) == ["nginx does not tell its requests in flight: deploy the gateway"]


def test_nobody_is_left() -> None:
    items = told(fleet_of(HOSTS), 1, [], ["gpu1", "gpu2"], BOTH)
    assert len(problems(items)) == 1
    assert "`fleet undrain`" in problems(items)[0]


def test_host_that_was_never_found_ready() -> None:
    items = told(fleet_of(HOSTS), 1, FLYING, [], ["gpu1"])
    [item] = [item for item in items if item.problem]
    assert (item.about, item.text) == ("gpu2", "not served yet")
    assert "gpu2 gets no requests from edge" in item.problem
    assert problems(told(fleet_of(HOSTS), 1, [], [], [])) == []


def test_several_gateways_are_told_apart() -> None:
    fleet = fleet_of({**HOSTS, "edge2": ("gateway", {**EDGE[1], "private_address": "10.0.0.3"})})
    assert "2 in flight from edge" in [item.text for item in told(fleet, 1, FLYING, [], BOTH)]


@pytest.mark.parametrize(("answered", "number"), [(["yes"], 0), ([], 1), (["<html>"], 1)])
def test_whether_it_answers(answered: list[str], number: int) -> None:
    assert len(problems(told(fleet_of(HOSTS), 0, answered))) == number


class TestCertificate:
    def pem(self, fleet: Fleet, monkeypatch: pytest.MonkeyPatch, age: int = 0) -> list[str]:
        class Then(datetime):
            @classmethod
            def now(cls, tz: Any = None) -> datetime:
                return datetime.now(UTC) - timedelta(days=age)

        monkeypatch.setattr(tls, "datetime", Then)
        return tls.issued(fleet.secrets, "edge", ["edge"], ["edge"])[0].splitlines()

    @pytest.mark.parametrize(
        ("age", "said"), [(0, None), (805, None), (807, "ends on"), (821, "ended on")]
    )
    def test_end(self, monkeypatch: pytest.MonkeyPatch, age: int, said: str | None) -> None:
        """They last 820 days, and the last 14 are told of."""
        fleet = fleet_of(HOSTS)
        found = problems(told(fleet, 2, self.pem(fleet, monkeypatch, age)))
        assert (found == []) if said is None else (said in found[0])

    @pytest.mark.parametrize(
        "lines",
        [
            [],
            ["no certificate"],
            ["-----BEGIN CERTIFICATE-----", "AAAA", "-----END CERTIFICATE-----"],
        ],
    )
    def test_that_is_none(self, lines: list[str]) -> None:
        [item] = told(fleet_of(HOSTS), 2, lines)
        assert item.values == {"certificate_ends": None}
        assert "holds no certificate" in item.problem


class TestKeys:
    def keys(self) -> Iterator[dict[str, Any]]:
        now = datetime.now(UTC)
        for name, days in (("past", -3), ("soon", 13), ("later", 15)):
            yield {"name": name, "expires": (now + timedelta(days=days)).isoformat()}

    def test_that_end_soon(self) -> None:
        edge = ("gateway", {**EDGE[1], "gateway_keys": ["team-a", *self.keys()]})
        items = told(fleet_of({"gpu1": GPU, "edge": edge}), 3)
        said = problems(items)
        assert ["'past' ended on" in said[0], "'soon' ends on" in said[1]] == [True, True]
        assert len(said) == 2
        assert set(items[-1].values["keys_ending"]) == {"past", "soon"}

    def test_value_before_a_rotation(self) -> None:
        fleet = fleet_of(HOSTS)
        fleet.secrets.api_key("gateway_key_team-a")
        until = datetime.now(UTC) + timedelta(days=3)
        fleet.secrets.rotate("gateway_key_team-a", until)
        items = told(fleet, 3)
        assert items[0].text == f"old value of key 'team-a' until {until:%Y-%m-%d}"
        assert problems(items) == []
