"""Secrets of one capability on a host: kept under a name of its own, and judged as they are."""

from __future__ import annotations

from fleet.declare.secrets import OwnSecrets, Secret
from tests.fleets import GPU, fleet_of

OWN = OwnSecrets("page", {"key": Secret(), "pin": Secret(lambda: "1234", r"\d{4}", "four digits")})


def test_made_once_and_kept_under_its_name() -> None:
    fleet = fleet_of({"@fake/gpu1": GPU})
    host = fleet["@fake/gpu1"]
    assert list(OWN.stored(host, fleet)) == []
    made = OWN.of(host, fleet)
    assert made["pin"] == "1234"
    assert OWN.of(host, fleet) == made
    assert OWN.name(host, "pin") == "page_fake-gpu1_pin"
    assert [value for _, value, _ in OWN.stored(host, fleet)] == list(made.values())
    assert [secret.problem(path, value) for path, value, secret in OWN.stored(host, fleet)] == [
        None,
        None,
    ]


def test_value_that_does_not_fit_is_named_by_its_place_only() -> None:
    fleet = fleet_of({"gpu1": GPU})
    fleet.secrets.replace(OWN.name(fleet["gpu1"], "pin"), "none")
    [(path, value, secret)] = OWN.stored(fleet["gpu1"], fleet)
    problem = secret.problem(path, value)
    assert problem == f"{path} is not four digits; delete it to have one generated"
