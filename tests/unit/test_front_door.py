"""The declared keys as nginx's tables, and what a static analysis says of the whole."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from fleet.gateway.files import config_files
from fleet.gateway.keys import at_or_after, key_entries, key_tables
from fleet.gateway.settings import Gateway, GatewayKey
from fleet.kit.secrets import Previous
from tests.fleets import ALTERNATIVE_GATEWAY, ALTERNATIVE_GPU, EDGE, GPU, Hosts, fleet_of

END = datetime(2027, 1, 31, 11, tzinfo=UTC)
EPOCH = int(END.timestamp())

# What gixy finds, and why it stays. A finding that is not here fails the test.
REASONS = {
    "ssl_ecdh_curve": "the group is only named where the host's OpenSSL is 3.5 or newer (a fact)",
    "worker_rlimit_nofile_vs_connections": "LimitNOFILE in the unit's drop-in sets it for all",
    "missing_resolver": "the variable is one of two upstreams of this file; nothing is resolved",
    "proxy_pass_normalized": "the path is matched whole against a fixed list without escapes",
}


@pytest.mark.parametrize("epoch", [EPOCH, 1_999_999_999, 2_000_000_000, 1_763_698_401, 10])
def test_pattern_is_a_comparison(epoch: int) -> None:
    """Around the moment and far from it, the pattern says what >= says."""
    pattern = re.compile(at_or_after(epoch))
    for distance in (0, 1, 9, 10, 99, 12345, 10**6, 10**9 - 1):
        for moment in {epoch - distance, epoch + distance}:
            if 0 <= moment < 10**10:
                assert bool(pattern.match(f"{moment:010d}.500")) == (moment >= epoch), moment


def test_names_are_all_that_the_tables_hold() -> None:
    keys = [
        GatewayKey(name="a"),
        GatewayKey(name="b", role="admin", expires="2027-01-31"),
        GatewayKey(name="c", rate="90/m", concurrent=2),
        GatewayKey(name="d", rate="90/m", burst=7),
        GatewayKey(name="e", rate="90/m", overrides=True),
    ]
    tables = key_tables(keys, {})
    assert tables.admins == ("b",)
    assert tables.overriding == ("b", "e")
    assert [(limit.zone, limit.rate, limit.burst, limit.names) for limit in tables.limits] == [
        ("rate_90m_7", "90r/m", 7, ("d",)),
        ("rate_90m_default", "90r/m", 2, ("c", "e")),
    ]
    assert {limit.retry_after for limit in tables.limits} == {1}
    assert [(item.at_once, item.names) for item in tables.concurrency] == [(2, ("c",))]
    assert list(tables.ends) == [int(datetime(2027, 2, 1, tzinfo=UTC).timestamp())]


def test_value_before_a_rotation_ends_with_the_overlap_or_with_the_key() -> None:
    values = {"a": SecretStr("new")}
    before = {"a": Previous(SecretStr("old"), END + timedelta(days=1))}
    for key, end in (
        (GatewayKey(name="a"), EPOCH + 86400),
        (GatewayKey(name="a", expires=END), EPOCH),
    ):
        entries = key_entries([key], values, before)
        assert entries["old"] == f"a$ended_{end}"
        assert entries["new"] == (f"a$ended_{EPOCH}" if key.expires else "a")
        assert end in key_tables([key], before).ends


def test_interrupted_rotation_leaves_the_key_open() -> None:
    """Both files hold the same value then: it is the present one."""
    value = SecretStr("same")
    entries = key_entries([GatewayKey(name="a")], {"a": value}, {"a": Previous(value, END)})
    assert entries == {"same": "a"}


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
        ({"keys": [{"name": f"k{n}", "rate": f"{n}/s"} for n in range(1, 40)]}, "more than 32"),
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


@pytest.mark.parametrize(
    "hosts",
    [
        {"gpu1": GPU, "edge": EDGE},
        {"gpu1": ("gpu", ALTERNATIVE_GPU), "edge": ("gateway", ALTERNATIVE_GATEWAY)},
    ],
    ids=["default", "alternative"],
)
def test_gixy_finds_nothing_without_a_reason(hosts: Hosts, tmp_path: Path) -> None:
    found = findings(hosts, tmp_path)
    assert {item["plugin"]: item["reason"] for item in found if item["plugin"] not in REASONS} == {}


def test_gixy_looks_at_it(tmp_path: Path) -> None:
    """A hole in the very configuration is found: the test above is not about nothing."""
    hosts: Hosts = {"gpu1": GPU, "edge": EDGE}
    found = findings(hosts, tmp_path, ("proxy_pass http://$native;", "proxy_pass http://$arg_x;"))
    assert "ssrf" in {item["plugin"] for item in found}


def findings(hosts: Hosts, directory: Path, change: tuple[str, str] = ("", "")) -> list[dict]:
    fleet = fleet_of(hosts)
    for file in config_files(fleet["edge"], fleet, (3, 5), []):
        (directory / file.staged_name).write_text(file.text.replace(*change))
    result = subprocess.run(
        [Path(sys.executable).parent / "gixy", "-f", "json", directory / "nginx.conf"],
        capture_output=True,
        text=True,
        check=False,
    )
    return json.loads(result.stdout)
