"""Who has to reach what, by way of example."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from fleet.firewall.probes import bridges, probes
from tests.fleets import BOX, EDGE, GPU, Hosts, fleet_of

LOGIN = ip_address("10.0.0.254")


def of(host: str, hosts: Hosts, login: Any = LOGIN) -> list[str]:
    fleet = fleet_of(hosts)
    return [f"{probe.setting} {probe}" for probe in probes(fleet[host], fleet, login)]


def test_service_is_called_from_each_of_its_callers() -> None:
    other = ("gateway", {**EDGE[1], "private_address": "10.0.0.3"})
    assert of("gpu1", {"gpu1": GPU, "edge": EDGE, "other": other})[2:] == [
        "ollama_port 10.0.0.2,10.0.0.11,11434,input",
        "ollama_port 10.0.0.3,10.0.0.11,11434,input",
    ]


def test_everybody_is_the_one_who_logs_in_or_somebody() -> None:
    assert of("gpu1", {"gpu1": GPU}) == [
        "ssh_port 10.0.0.254,,22,input",
        "ssh_port 2606:4700:4700::1111,,22,input",
    ]
    assert of("gpu1", {"gpu1": GPU}, None)[0] == "ssh_port 1.1.1.1,,22,input"


def test_network_is_its_first_address() -> None:
    data = {**EDGE[1], "gateway_allow_from": ["192.0.2.0/24", "10.0.0.0/8"]}
    assert of("edge", {"gpu1": GPU, "edge": ("gateway", data)})[2:] == [
        "gateway_port 192.0.2.1,10.0.0.2,8434,input",
        "gateway_port 10.0.0.254,10.0.0.2,8434,input",
    ]


def test_any_address_is_the_one_that_would_be_called() -> None:
    data = {**EDGE[1], "gateway_listen": "any", "gateway_allow_from": ["fd00::/8"]}
    assert of("edge", {"gpu1": GPU, "edge": ("gateway", data)})[2:] == [
        "gateway_port fd00::1,,8434,input"
    ]


def test_what_nobody_may_call_is_not_tried() -> None:
    names = {line.split()[0] for line in of("box", {"box": BOX})}
    assert names == {"ssh_port", "gateway_port"}


def test_open_ports_are_tried() -> None:
    data = {**GPU[1], "firewall_open_tcp": [9100]}
    assert "firewall_open_tcp 10.0.0.254,,9100,input" in of("gpu1", {"gpu1": ("gpu", data)})


def test_published_ports_are_reached_by_another_way() -> None:
    data = {
        **GPU[1],
        "ollama_instances": [{"name": "a", "port": 11500, "runtime": "docker"}],
        "ollama_image": f"ollama/ollama:0.32.7@sha256:{'ab' * 32}",
        "docker_enabled": True,
    }
    assert of("gpu1", {"gpu1": ("gpu", data), "edge": EDGE})[2:] == [
        "ollama_instances a 10.0.0.2,10.0.0.11,11500,forward"
    ]


def test_bridges_are_called_as_declared() -> None:
    assert bridges(fleet_of({"gpu1": GPU})["gpu1"]) == ["docker0", "br-llm", "podmanllm"]
