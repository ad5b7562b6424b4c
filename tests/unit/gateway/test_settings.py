"""What of a gateway's settings is refused."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import ValidationError

from fleet.gateway.backend import Backend
from fleet.gateway.settings import Gateway, GatewayKey
from tests.fleets import (
    Hosts,
)
from tests.unit.exposing import exposing
from tests.unit.refusals import assert_refused, pair

# id: (the fleet, whose host, what the one line must hold: key, value, fix)
REFUSED: dict[str, tuple[Hosts, str, list[str]]] = {
    "gateway for nobody": (
        pair(edge={"gateway_allow_from": []}),
        "edge",
        ["gateway_allow_from", "at least one network"],
    ),
    "date of another country": (
        pair(edge={"gateway_keys": [{"name": "a", "expires": "30.06.2027"}]}),
        "edge",
        ["gateway_keys[0]['expires'] = '30.06.2027'", "write 2027-06-30"],
    ),
}


@pytest.mark.parametrize(("hosts", "host", "parts"), REFUSED.values(), ids=REFUSED)
def test_refused(hosts: Hosts, host: str, parts: list[str], own_secrets: Path) -> None:
    assert_refused(hosts, host, parts, own_secrets)


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("expires", "soon", "not a date: write 2027-06-30"),
        ("expires", "2027-01-31T12:00:00", "without its zone"),
        ("expires", 5, "not a date"),
        ("rate", "10", "5/s or 120/m"),
        ("rate", "0/s", "5/s or 120/m"),
        ("rate", "10/h", "5/s or 120/m"),
        ("burst", 5, "burst without a rate"),
        ("concurrent", 0, "greater than or equal to 1"),
        ("role", "root", "'inference' or 'admin'"),
        ("allow_from", ["10.0.0.1/8"], "host bits are set"),
        ("colour", "red", "Extra inputs"),
    ],
)
def test_refused_key(field: str, value: object, reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        GatewayKey(**{"name": "a", field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"keys": ["a", {"name": "a"}]}, "a is declared more than once"),
        ({"tls": "given"}, "which needs it"),
        ({"tls_certificate": "x.pem"}, "belongs to gateway_tls = 'given'"),
        ({"tls": "acme", "names": ["a.example.com"]}, "gateway_acme_email"),
        (
            {"tls": "acme", "names": ["a.example.com"], "acme_email": "a@b.c", "http_port": 8080},
            "gateway_http_port = 80, which is 8080",
        ),
        ({"tls": "off", "http_port": 80}, "redirects to https"),
        ({"metrics_from": ["10.0.0.0/8"]}, "set gateway_metrics = 'private'"),
        ({"metrics": "private"}, "without gateway_metrics_from: nobody could read them"),
        ({"cors_origins": ["*"]}, "not an origin"),
        ({"cors_origins": ["https://a.example/path"]}, "not an origin"),
        ({"names": ["Example"]}, "not a DNS name"),
        ({"acme_email": "ops"}, "not an email address, such as"),
    ],
)
def test_refused_settings(settings: dict[str, object], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        Gateway(**settings)  # type: ignore[arg-type]


def test_a_day_is_valid_to_its_end() -> None:
    key = GatewayKey(name="a", expires="2027-01-31")
    assert not key.has_ended(datetime(2027, 1, 31, 23, 59, 59, tzinfo=UTC))
    assert key.has_ended(datetime(2027, 2, 1, tzinfo=UTC))


def test_keys_are_used_by_what_they_have_least_of() -> None:
    """What an operator asks with spends nobody's tokens, where there is another key."""
    kinds: dict[str, dict[str, object]] = {
        "few": {"models": ["a"]}, "quota": {"tokens": "1M/d"}, "slow": {"rate": "1/s"},
        "narrow": {"concurrent": 1}, "free": {}, "far": {"allow_from": ["10.0.0.0/8"]},
    }  # fmt: skip
    keys = [{"name": name, **own} for name, own in kinds.items()]
    usable = Gateway(keys=keys).usable_keys(datetime.now(UTC))  # type: ignore[arg-type]
    assert [key.name for key in usable] == ["free", "narrow", "slow", "quota", "few"]


def test_what_opens_something_is_marked() -> None:
    """Whoever adds a setting that can open something adds it here, and so writes its warning."""
    assert exposing(Gateway) == {
        "listen",
        "tls",
        "http_port",
        "cors_origins",
        "metrics",
        "backends",
    }
    assert exposing(Backend) == {"address"}
    assert exposing(GatewayKey) == {"role", "overrides"}


@pytest.mark.parametrize(
    ("text", "amount", "window"),
    [("2M/d", 2_000_000, "d"), ("500k/h", 500_000, "h"), ("1.5G/mo", 1_500_000_000, "mo"),
     ("7/d", 7, "d")],
)  # fmt: skip
def test_amounts_of_tokens(text: str, amount: int, window: str) -> None:
    tokens = GatewayKey(name="a", tokens=text).tokens
    assert tokens is not None
    assert (tokens.amount, tokens.window, str(tokens)) == (amount, window, text)


@pytest.mark.parametrize(
    "text", ["2M", "2m/d", "0/d", "0.0001k/d", "2M/day", "-1/d", "2 M/d", "1/s", ""]
)
def test_no_amount_of_tokens(text: str) -> None:
    with pytest.raises(ValueError, match="not an amount of tokens"):
        GatewayKey(name="a", tokens=text)
