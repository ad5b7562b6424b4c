"""Requests in flight: by nginx's own count, or else by its connections."""

from __future__ import annotations

import pytest

from fleet.declare.capability import Server
from fleet.declare.fleet import Endpoint
from fleet.gateway.traffic import NginxTraffic, traffic
from tests.fleets import EDGE, GPU, fleet_of

# As on a gateway of the lab.
SOCKETS = """\
0      0         10.0.0.2:8434       10.0.0.9:50000 users:(("nginx",pid=7,fd=3))
0      0         10.0.0.2:41000      10.0.0.11:11434 users:(("nginx",pid=7,fd=4))
0      0         10.0.0.2:41001      10.0.0.11:11434 users:(("nginx",pid=7,fd=5))
0      0         10.0.0.2:41002      10.0.0.12:11434 users:(("curl",pid=9,fd=5))
0      0         10.0.0.2:41003      10.0.0.12:11434
0      0     [fd00::2]:41003       [fd00::11]:11434 users:(("nginx",pid=7,fd=6))
0      0     [::ffff:10.0.0.2]:1   [::ffff:10.0.0.13]:11434 users:(("nginx",pid=7,fd=6))
""".splitlines()


@pytest.fixture
def servers(own_secrets: object) -> list[Server]:
    """Two servers of one host."""
    two = [{"name": name, "port": 11434 + n, "gpus": []} for n, name in enumerate("ab")]
    hosts = {"gpu1": ("gpu", {**GPU[1], "ollama_instances": two}), "edge": EDGE}
    return list(fleet_of(hosts).servers())


def test_nginx_counts(servers: list[Server]) -> None:
    """What is open for health checks, or kept between requests, is none of them."""
    found = traffic(['{"gpu1/a": 2, "gpu1/b": 1, "gone": 4}', *SOCKETS])
    assert found
    assert [found.to([item]) for item in servers] == [2, 1]
    assert found.to(servers) == 3
    assert found.ports[8434] == 1


def test_one_of_before_has_connections_only(servers: list[Server]) -> None:
    found = NginxTraffic().process(SOCKETS)
    assert found
    assert found.peers == {
        Endpoint("10.0.0.9", 50000): 1,
        Endpoint("10.0.0.11", 11434): 2,
        Endpoint("fd00::11", 11434): 1,
        Endpoint("10.0.0.13", 11434): 1,
    }
    assert [found.to([item]) for item in servers] == [2, 0]


@pytest.mark.parametrize("line", ["", "x", 'a b c d ("nginx")', '0 0 a:b c:d users:(("nginx"))'])
def test_lines_that_are_none(line: str) -> None:
    found = traffic([line])
    assert found
    assert (found.peers, found.ports) == ({}, {})


@pytest.mark.parametrize("line", ["{", '{"a": "b"}', '{"a": null}'])
def test_what_is_no_count(line: str) -> None:
    assert traffic([line]) is None
