"""What callers without a key may cost: by the gateway's own nginx, and by nft."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet.gateway.files import connection_files
from tests.fleets import GPU, fleet_of
from tests.unit.gateway.running import Running, running
from tests.unit.rendered import nft_listing


@pytest.fixture
def gateway() -> Iterator[Running]:
    with (
        tempfile.TemporaryDirectory() as directory,
        running(Path(directory), gateway_refusals=3) as gateway,
    ):
        yield gateway


def test_many_refusals_are_neither_answered_nor_logged_as_the_first(gateway: Running) -> None:
    """Whatever is wrong with their keys; a valid one of the same address is served as ever."""
    keys = ["", "sk-" + "0" * 64, "nonsense", "", "", ""]
    assert [gateway.call("GET", "/v1/models", key)[0] for key in keys] == [401] * 3 + [429] * 3
    assert gateway.call("GET", "/v1/models", "plain")[0] == 200
    # A stranger may still ask whether the gateway is there.
    assert gateway.call("GET", "/healthz", "")[0] == 200
    gateway.ends()
    assert [entry["status"] for entry in gateway.log()] == [401, 401, 401, 429, 200]


def test_a_line_of_the_log_is_short(gateway: Running) -> None:
    path = "/" + "p" * 5000
    assert gateway.call("GET", path, "")[0] == 401
    assert gateway.call("A" * 900, "/x", "")[0] == 401
    assert gateway.call("GET", f"/{'%0a' * 300}", "")[0] == 401
    gateway.ends()
    assert max(map(len, (gateway.directory / "gateway.log").read_text().splitlines())) < 700
    assert [len(entry["path"]) for entry in gateway.log()] == [203, 2, 203]


def test_a_stranger_writes_nothing_to_the_error_log(gateway: Running) -> None:
    """A body above the limit would have its whole request line there."""
    headers = {"Content-Length": str(1 << 40)}
    status, _, _ = gateway.call("POST", "/v1/models?" + "q" * 5000, "", None, headers)
    assert status == 401
    gateway.ends()
    assert "qqq" not in (gateway.directory / "error.log").read_text()


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({}, "ip saddr { 10.0.0.2, 10.0.0.11 } accept"),
        ({"gateway_connections_free": ["10.0.0.0/8", "fd00::/8"]}, "ip6 saddr fd00::/8 accept"),
        ({"gateway_connections": 8}, "ct count over 8 } reject with tcp reset"),
    ],
)
def test_nft_takes_the_limit(tmp_path: Path, settings: dict[str, object], rule: str) -> None:
    edge = {"private_address": "10.0.0.2", "gateway_keys": ["team-a"], **settings}
    fleet = fleet_of({"gpu1": GPU, "edge": ("gateway", edge)})
    rules, _ = connection_files(fleet["edge"], fleet)
    listed = nft_listing(tmp_path, rules.text)
    assert rule in " ".join(listed.split())
    assert "tcp dport != 8434 accept" in listed
