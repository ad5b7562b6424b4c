"""The firewall's files, which nft and systemd judge as they will on the host."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from fleet.declare.fleet import Fleet
from fleet.firewall.files import managed_files, ruleset_file, unit_files
from fleet.firewall.rules import accept_rules
from tests.unit.firewall.packets import seen
from tests.unit.rendered import complaints, lay, nft_listing


def test_nft_takes_the_ruleset(fleet: Fleet, tmp_path: Path) -> None:
    for host in fleet:
        listed = nft_listing(tmp_path, managed_files(host, fleet)[0].text)
        assert "policy drop;" in listed
        for rule in accept_rules(host, fleet):
            # nft has its own order of words; the port and the comment stay as they are.
            kept = f'dport {rule.port} accept comment "{rule.comment}"'
            assert kept in listed, rule


def test_nft_refuses_a_bad_rule(default: Fleet, tmp_path: Path) -> None:
    ruleset = ruleset_file(default["gpu1"], default).text
    assert "tcp dport 22 accept" in ruleset
    with pytest.raises(subprocess.CalledProcessError):
        nft_listing(tmp_path, ruleset.replace("tcp dport 22 accept", "tcp dport x accept"))


def test_ruleset_replaces_our_table_only(default: Fleet, tmp_path: Path) -> None:
    ruleset = ruleset_file(default["gpu1"], default).text
    other = "table inet other { chain c { accept; }; }\n"
    listed = nft_listing(tmp_path, f"{other}{ruleset}{ruleset}")
    assert listed.count("chain input {") == 1
    assert "table inet other" in listed


def test_systemd_takes_the_unit(default: Fleet, tmp_path: Path) -> None:
    unit, _ = unit_files(default["gpu1"])
    lay(tmp_path, unit)
    assert complaints(tmp_path, unit.staged_name) == ""


def test_flow_that_others_began_before_the_rules_is_closed_by_them(tmp_path: Path) -> None:
    track = "nft 'table inet t { chain c { type filter hook input priority 0; ct state new; }; }'"
    comes = "from_caller 4000 10.0.0.11 51820"
    flow = f"{track}; {comes}; udp 51820 10.0.0.2 4000; {comes}"
    again = f"seen 'udp dport 51820'; {comes}"
    assert seen(tmp_path, f"{flow}; {again}")
    assert not seen(tmp_path, f"{flow}; rules; {again}")
    assert seen(tmp_path, f"{flow}; rules; {again}", firewall_open_udp=[51820])


def test_answers_come_in(tmp_path: Path) -> None:
    ask = "udp 51820 10.0.0.2 4000; from_caller 4000 10.0.0.11 51820"
    assert seen(tmp_path, f"rules; seen 'udp dport 51820'; {ask}")


def test_dhcp_is_for_ipv4_and_dhcpv6_for_neighbours(tmp_path: Path) -> None:
    six = "ip addr add fd00::11/64 dev eth0 nodad; on_caller ip addr add fd00::2/64 dev eth0 nodad"
    assert seen(tmp_path, "rules; seen 'udp dport 68'; from_caller 67 10.0.0.11 68")
    assert not seen(tmp_path, f"{six}; rules; seen 'udp dport 68'; from_caller 67 fd00::11 68")
    assert not seen(tmp_path, f"{six}; rules; seen 'udp dport 546'; from_caller 547 fd00::11 546")


# Behind the host is what only forwarding reaches, by an interface of any name.
_BEHIND = """
ip link add vmbr9 type veth peer name far; ip addr add 10.1.0.1/24 dev vmbr9; ip link set vmbr9 up
ip link set far up; ip neigh add 10.1.0.9 lladdr 02:00:00:00:00:09 dev vmbr9
echo 1 > /proc/sys/net/ipv4/ip_forward
on_caller ip route add 10.1.0.0/24 via 10.0.0.11
"""


def test_way_through_the_host_is_closed_unless_declared(tmp_path: Path) -> None:
    script = f"{_BEHIND}rules; seen 'udp dport 7' f; from_caller 4000 10.1.0.9 7"
    way = {"incoming": "eth0", "outgoing": "vmbr*"}
    back = {"incoming": "vmbr9", "outgoing": "eth0"}
    assert not seen(tmp_path, script)
    assert seen(tmp_path, script, firewall_forward=[way])
    assert not seen(tmp_path, script, firewall_forward=[back])
    assert not seen(tmp_path, script, firewall_container_interfaces=["vmbr9"])
