"""What may come in, rule by rule; compared whole, so that nothing more may."""

from __future__ import annotations

import pytest

from fleet.firewall.rules import (
    accept_rules,
    forward_rules,
    protocol_rules,
    published_rules,
    reserved,
)
from tests.fleets import BOX, EDGE, GPU, Hosts, fleet_of


def rules(host: str, hosts: Hosts) -> list[str]:
    fleet = fleet_of(hosts)
    return [str(rule) for rule in accept_rules(fleet[host], fleet)]


SSH = [
    'meta nfproto ipv4 tcp dport 22 accept comment "ssh"',
    'meta nfproto ipv6 tcp dport 22 accept comment "ssh"',
]
GATEWAY = [
    'meta nfproto ipv4 tcp dport 8434 accept comment "front door"',
    'meta nfproto ipv6 tcp dport 8434 accept comment "front door"',
]


def ollama(source: str, port: int = 11434) -> str:
    return f'{source} tcp dport {port} accept comment "ollama, from the gateways"'


def test_gpu_host_lets_the_gateway_only_to_ollama() -> None:
    assert rules("gpu1", {"gpu1": GPU, "edge": EDGE}) == [*SSH, ollama("ip saddr { 10.0.0.2/32 }")]


def test_gateway_is_open_to_its_callers() -> None:
    assert rules("edge", {"gpu1": GPU, "edge": EDGE}) == [*SSH, *GATEWAY]


def test_both_roles_on_one_host_open_no_ollama() -> None:
    assert rules("box", {"box": BOX}) == [*SSH, *GATEWAY]


def test_both_roles_and_another_gateway() -> None:
    """A gateway that is a GPU host too serves the others' requests, its own come over loopback."""
    box = (BOX[0], {**BOX[1], "ollama_listen": "private"})
    gpu_edge = ("gpu gateway", {**EDGE[1], "ollama_listen": "private"})
    hosts = {"box": box, "edge": gpu_edge}
    assert rules("box", hosts) == [*SSH, ollama("ip saddr { 10.0.0.2/32 }"), *GATEWAY]
    assert rules("edge", hosts) == [*SSH, ollama("ip saddr { 10.0.0.5/32 }"), *GATEWAY]


def test_several_gateways() -> None:
    hosts = {
        "gpu1": GPU,
        "b": ("gateway", {**EDGE[1], "private_address": "10.0.0.4"}),
        "a": ("gateway", {**EDGE[1], "private_address": "10.0.0.3"}),
    }
    assert rules("gpu1", hosts) == [*SSH, ollama("ip saddr { 10.0.0.3/32, 10.0.0.4/32 }")]


def test_gpu_host_on_loopback_opens_nothing() -> None:
    assert rules("gpu1", {"gpu1": ("gpu", {})}) == SSH


def test_private_gpu_host_without_a_gateway_opens_nothing() -> None:
    assert rules("gpu1", {"gpu1": GPU}) == SSH


@pytest.mark.parametrize(
    ("listen", "expected"),
    [("loopback", SSH), ("private", [*SSH, *GATEWAY]), ("any", [*SSH, *GATEWAY])],
)
def test_gateway_by_where_it_listens(listen: str, expected: list[str]) -> None:
    hosts = {"gpu1": GPU, "edge": ("gateway", {**EDGE[1], "gateway_listen": listen})}
    assert rules("edge", hosts) == expected


def test_sources_of_both_families() -> None:
    data = {
        **EDGE[1],
        "ssh_port": 2222,
        "firewall_ssh_from": ["10.0.0.0/8", "fd00::/8"],
        "gateway_port": 8443,
        "gateway_allow_from": ["192.168.1.0/24", "10.1.0.0/16", "::/0"],
    }
    assert rules("edge", {"gpu1": GPU, "edge": ("gateway", data)}) == [
        'ip saddr { 10.0.0.0/8 } tcp dport 2222 accept comment "ssh"',
        'ip6 saddr { fd00::/8 } tcp dport 2222 accept comment "ssh"',
        'ip saddr { 10.1.0.0/16, 192.168.1.0/24 } tcp dport 8443 accept comment "front door"',
        'meta nfproto ipv6 tcp dport 8443 accept comment "front door"',
    ]


def test_a_family_without_sources_stays_closed() -> None:
    assert rules("gpu1", {"gpu1": ("gpu", {"firewall_ssh_from": ["10.0.0.0/8"]})}) == [
        'ip saddr { 10.0.0.0/8 } tcp dport 22 accept comment "ssh"'
    ]


def test_declared_ports() -> None:
    assert rules("gpu1", {"gpu1": ("gpu", {"firewall_open_tcp": [9100, 9400]})}) == [
        *SSH,
        'tcp dport 9100 accept comment "declared"',
        'tcp dport 9400 accept comment "declared"',
    ]


def test_declared_udp_ports_are_open_on_the_host_and_where_they_are_published() -> None:
    hosts: Hosts = {"gpu1": ("gpu", {"firewall_open_udp": [51820]})}
    assert rules("gpu1", hosts) == [*SSH, 'udp dport 51820 accept comment "declared"']
    fleet = fleet_of(hosts)
    assert [str(rule) for rule in published_rules(fleet["gpu1"], fleet)] == [
        'meta l4proto udp ct original proto-dst 51820 accept comment "declared"'
    ]


def test_declared_protocols_go_by_number() -> None:
    fleet = fleet_of({"gpu1": ("gpu", {"firewall_open_protocols": ["esp", "vrrp"]})})
    assert list(protocol_rules(fleet["gpu1"])) == [
        'meta l4proto 50 accept comment "declared esp"',
        'meta l4proto 112 accept comment "declared vrrp"',
    ]


def test_declared_ways_through_the_host() -> None:
    ways = [
        {"incoming": "virbr0", "outgoing": "*"},
        {"incoming": "wg0", "outgoing": "eth*"},
        {"incoming": "*", "outgoing": "*"},
    ]
    fleet = fleet_of({"gpu1": ("gpu", {"firewall_forward": ways})})
    assert list(forward_rules(fleet["gpu1"])) == [
        'iifname "virbr0" accept comment "declared way"',
        'iifname "wg0" oifname "eth*" accept comment "declared way"',
        'accept comment "declared way"',
    ]


class TestReserved:
    """Which servers only the gateway's account may call from the gateway's host."""

    def of(self, host: str, hosts: Hosts) -> list[tuple[str, str]]:
        fleet = fleet_of(hosts)
        return [(str(item.endpoint), item.accounts) for item in reserved(fleet[host], fleet)]

    def test_gateway_calls_by_its_account(self) -> None:
        hosts: Hosts = {"gpu1": GPU, "edge": EDGE}
        assert self.of("edge", hosts) == [("10.0.0.11:11434", "{ root, www-data }")]
        assert self.of("gpu1", hosts) == []

    def test_own_server_is_called_by_packages_accounts_too(self) -> None:
        assert self.of("box", {"gpu1": GPU, "box": BOX}) == [
            ("10.0.0.11:11434", "{ root, www-data }"),
            ("127.0.0.1:11434", "0-999"),
        ]
