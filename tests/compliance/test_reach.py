"""What all other claims need: hosts that can be looked into, and gateways that clients find."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from fleet.declare.fleet import FleetHost
from fleet.gateway.declared import gateway_url
from fleet.platform.record import DeployedRecord
from fleet.platform.record import Record as DeployRecord

from .connection import Connections, Target
from .outcomes import Record, Say


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


def test_deployed(each_host: Target, record: Record, measured: Say, warns: Say) -> None:
    """The last deploy is on record, and came to its end."""
    lines = each_host.run('. /etc/os-release; echo "$PRETTY_NAME"; uname -r').splitlines()
    for name, value in zip(("system", "kernel"), lines, strict=True):
        record("versions", name, value)
    found: DeployRecord = each_host.fact(DeployedRecord)
    assert not found.unreadable, "\n".join(found.unreadable)
    if found.unfinished:
        begun = found.unfinished
        state = "is at work" if found.at_work else "did not end"
        warns(f"the deploy of {begun.who} (run {begun.run}, since {begun.since}) {state}")
    if found.deployed is None:
        pytest.skip("no deploy has ended here that keeps a record")
    measured(f"{found.deployed.when} by {found.deployed.who}")
    for name, value in asdict(found.deployed).items():
        record("deployed", name, value)
