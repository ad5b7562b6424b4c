"""Hosts are refused whose ports somebody else has."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from fleet.declare.fleet import FleetHost
from fleet.kit.errors import FleetError
from fleet.kit.facts.listeners import Listener
from fleet.platform.ports import refuse_taken_ports
from tests.fleets import FLEETS, Hosts, fleet_of

each_fleet = pytest.mark.parametrize("hosts", FLEETS.values(), ids=FLEETS)


def everywhere(port: int, *whose: str) -> Listener:
    return Listener(None, port, *whose)


def refused(host: FleetHost, hosts: Hosts, *listeners: Listener) -> str | None:
    try:
        refuse_taken_ports(host, fleet_of(hosts).services(host), listeners)
    except FleetError as error:
        return str(error)
    return None


@each_fleet
def test_every_port_of_every_capability_is_looked_for(hosts: Hosts) -> None:
    for host in fleet_of(hosts):
        for service in fleet_of(hosts).services(host):
            said = refused(host, hosts, everywhere(service.port, "7", "x", "x.service"))
            if service.ours:
                assert f"{host.name}: " in str(said)
                assert f"{service.setting} = {service.port}: x (process 7 of x.ser" in str(said)
            else:
                assert said is None


@each_fleet
def test_every_service_says_who_may_have_its_port(hosts: Hosts) -> None:
    """Or the second deploy of each host would be refused."""
    for host in fleet_of(hosts):
        for service in fleet_of(hosts).services(host):
            if not service.ours:
                continue
            assert service.held_by, service.name
            for pattern in service.held_by:
                name = pattern.replace("*", "x")
                whose = ("5", "docker-proxy", "docker.service", name)
                held = everywhere(service.port, *(whose if service.published else ("5", "x", name)))
                if service.published or name.endswith(".service"):
                    assert refused(host, hosts, held) is None


def test_other_address_is_not_in_the_way() -> None:
    hosts: Hosts = {"gpu1": ("gpu", {})}
    gpu = fleet_of(hosts)["gpu1"]
    other = Listener(ip_address("10.9.9.9"), 11434, "7", "x", "x.service")
    assert refused(gpu, hosts, other) is None
    said = refused(gpu, hosts, Listener(ip_address("127.0.0.1"), 11434))
    assert said == (
        "gpu1: ollama_port = 11434: the kernel listens on it already. Stop it there, or declare "
        "another port"
    )


def test_container_of_somebody_else_is_named() -> None:
    hosts: Hosts = {"gpu1": ("gpu", {})}
    gpu = fleet_of(hosts)["gpu1"]
    held = everywhere(11434, "5", "docker-proxy", "docker.service", "webchat", "home")
    assert "11434: the container webchat listens" in str(refused(gpu, hosts, held))
