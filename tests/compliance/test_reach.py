"""What all other claims need: hosts that can be looked into, and gateways that clients find."""

from __future__ import annotations

import json

import pytest

from fleet.declare.fleet import FleetHost
from fleet.gateway.declared import gateway_url

from .connection import Connections, Target
from .outcomes import Record, Say

_DEPLOYED = "/etc/llm-fleet/deployed.json"


def test_host(declared_host: FleetHost, connections: Connections) -> None:
    """This machine logs in to the host, and commands there are root's."""
    if reason := connections.why_unreached(declared_host.name):
        pytest.fail(reason, pytrace=False)


def test_gateway(declared_gateway: FleetHost, connections: Connections, measured: Say) -> None:
    """Clients find the gateway: its name, its port, a certificate that they trust."""
    if gateway_url(declared_gateway) is None:
        pytest.skip("gateway_listen = 'loopback': not reachable from here, by declaration")
    connections.host(declared_gateway.name)
    if reason := connections.why_no_door(declared_gateway):
        pytest.fail(reason, pytrace=False)
    measured(str(gateway_url(declared_gateway)))


def test_deployed(each_host: Target, record: Record) -> None:
    """Which deploy was here last is on record."""
    system, kernel, text = each_host.run(
        ". /etc/os-release; echo \"$PRETTY_NAME\"; uname -r; cat %s 2>/dev/null || echo '{}'",
        _DEPLOYED,
    ).split("\n", 2)
    record("versions", "system", system)
    record("versions", "kernel", kernel)
    deployed = json.loads(text)
    for name, value in deployed.items():
        record("deployed", name, value)
    if not deployed:
        pytest.skip(f"no {_DEPLOYED}: the last deploy was of a release that writes none")
