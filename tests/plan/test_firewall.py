"""The firewall's own steps."""

from __future__ import annotations

import re
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest
from pyinfra.api import Host, StringCommand
from pyinfra.connectors.util import CommandOutput
from pyinfra.facts.files import File

from fleet.firewall import operations
from fleet.firewall.facts import (
    Carrier,
    Closed,
    Filters,
    Login,
    LoginCarrier,
    OtherFilters,
    OtherFirewalls,
    Ruleset,
    RulesetState,
    SshLogin,
    Uplinks,
)
from fleet.firewall.operations import run_anew
from fleet.firewall.preflight import remarks
from fleet.kit.commands import or_journal
from fleet.kit.errors import FleetError
from fleet.kit.facts.units import UnitState
from tests.fleets import GPU, fleet_of
from tests.plan.conftest import from_bare, in_declared_state
from tests.plan.simulation import RUNNING, Answers, bare, plan

HOSTS = {"gpu1": ("gpu", {})}
APPLY = "Apply the ruleset, and keep it if a new login succeeds"


def converged() -> dict[str, Answers]:
    return in_declared_state("gpu only", from_bare("gpu only"))


def test_from_bare() -> None:
    planned = from_bare("gpu only")
    assert [name for name in planned.names("gpu1") if name.startswith("Firewall")] == [
        "Firewall | Install nftables",
        "Firewall | Install the guard that undoes rules nobody can log in under",
        "Firewall | Create the directory",
        f"Firewall | {APPLY}",
        "Firewall | Install the unit",
        "Firewall | Install the drop-in that survives nftables.service",
        "Firewall | Load the ruleset at boot",
    ]


def test_ruleset_is_for_root_alone() -> None:
    """It says which addresses are trusted."""
    state = from_bare("gpu only").files("gpu1")["/etc/llm-fleet/firewall.nft"][1]
    assert (state.mode, state.user, state.group) == ("600", "root", "root")


def test_nobody_elses_rules_are_flushed() -> None:
    for scenario in ("gpu only", "both on one", "two hosts", "alternative"):
        planned = from_bare(scenario)
        for host in planned.steps:
            texts = [*planned.lines(host), *(text for text, _ in planned.files(host).values())]
            assert not [text for text in texts if re.search(r"\bflush (ruleset|table|chain)", text)]


@pytest.mark.parametrize(
    "ruleset",
    [Ruleset("", "declared"), Ruleset("opened by hand", "declared"), Ruleset("", "")],
    ids=["dropped", "changed", "neither"],
)
def test_live_rules_are_compared_with_the_declared(ruleset: Ruleset) -> None:
    answers = converged()
    answers["gpu1"][RulesetState] = lambda table, path: ruleset
    planned = plan(HOSTS, answers)
    assert planned.names("gpu1") == [f"Firewall | {APPLY}"]
    [line] = planned.lines("gpu1")
    assert re.fullmatch(r"/usr/local/lib/llm-fleet/firewall-guard try [0-9a-f]{16} 60", line)


class AnotherLogin:
    """A second connection to a host, over which every command ends as it is told, in silence."""

    def __init__(self, succeeds: bool) -> None:
        self.succeeds = succeeds
        self.state = None
        self.connector = self

    def __call__(self, *_: object) -> AnotherLogin:
        return self

    def connect(self) -> None:
        pass

    def disconnect(self) -> None:
        pass

    def run_shell_command(self, *_: object, **__: object) -> tuple[bool, CommandOutput]:
        return self.succeeds, CommandOutput([])


@pytest.mark.parametrize(("succeeds", "reason"), [(True, None), (False, "it said nothing")])
def test_login_that_fails_in_silence_has_failed(
    monkeypatch: pytest.MonkeyPatch, succeeds: bool, reason: str | None
) -> None:
    login = AnotherLogin(succeeds)
    monkeypatch.setattr(operations, "type", lambda _: login, raising=False)
    monkeypatch.setattr(operations, "_arguments", dict)
    assert run_anew(login, StringCommand("true"), 5) == reason


def test_rules_without_a_new_login_fail_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "run_anew", lambda *_: "timed out")
    monkeypatch.setattr(Host, "run_shell_command", lambda *_, **__: (True, None))
    answers = converged()
    answers["gpu1"][RulesetState] = lambda table, path: Ruleset("", "declared")
    tried, failed = plan(HOSTS, answers).lines("gpu1")
    assert "firewall-guard try" in tried
    assert "no new login from this machine succeeded (timed out); the old rules are back" in failed
    assert failed.endswith("exit 1")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ufw", "gpu1: ufw is in force here, .*`ufw disable` .*'none' and open TCP 22, 9100 in it"),
        ("firewalld", "gpu1: firewalld is in force here, .*`systemctl disable --now firewalld`"),
    ],
)
def test_two_firewalls_on_one_host_are_refused(name: str, words: str) -> None:
    answers = bare() | {OtherFirewalls: lambda: [name]}
    with pytest.raises(FleetError, match=words):
        plan({"gpu1": ("gpu", {"firewall_open_tcp": [9100]})}, {"gpu1": answers})
    elsewhere = {"gpu1": ("gpu", {"firewall_backend": "none"})}
    assert plan(elsewhere, {"gpu1": answers}).names("gpu1")


@pytest.mark.parametrize(
    ("login", "data", "words"),
    [
        (
            Login(ip_address("192.0.2.7"), 22),
            {"firewall_ssh_from": ["10.0.0.0/8", "fd00::/8"]},
            r"firewall_ssh_from = \['10.0.0.0/8', 'fd00::/8'\] would shut out this machine, which "
            'the host sees as 192.0.2.7; add "192.0.2.7" or its network',
        ),
        (
            Login(ip_address("fe80::1"), 22),
            {"firewall_ssh_from": ["0.0.0.0/0"]},
            "would shut out this machine, which the host sees as fe80::1",
        ),
        (
            Login(ip_address("10.0.0.9"), 2022),
            {},
            "ssh_port = 22, but sshd took this connection on port 2022",
        ),
    ],
    ids=["other network", "other family", "other port"],
)
def test_rules_that_shut_this_machine_out_are_refused(
    login: Login, data: dict[str, Any], words: str
) -> None:
    answers = bare() | {SshLogin: lambda _sudo: login}
    with pytest.raises(FleetError, match=words):
        plan({"gpu1": ("gpu", data)}, {"gpu1": answers})


@pytest.mark.parametrize(
    "data",
    [
        {"firewall_ssh_from": ["10.0.0.9/32"]},
        {"ssh_port": 2222, "firewall_open_tcp": [22]},
        {"firewall_backend": "none", "firewall_ssh_from": ["192.0.2.0/24"]},
    ],
    ids=["exact address", "behind a port forwarding", "filtered elsewhere"],
)
def test_rules_that_let_this_machine_in_are_not_refused(data: dict[str, Any]) -> None:
    answers = bare() | {SshLogin: lambda _sudo: Login(ip_address("10.0.0.9"), 22)}
    assert plan({"gpu1": ("gpu", data)}, {"gpu1": answers}).names("gpu1")


LOGIN = Login(ip_address("10.9.0.2"), 22)


@pytest.mark.parametrize(
    ("carrier", "data", "words"),
    [
        (
            Carrier("wg0", "wireguard", (51820,)),
            {"firewall_open_udp": [500]},
            r"firewall_open_udp = \[500\] would close UDP 51820, on which this login from 10.9.0.2 "
            r"comes through wg0 \(wireguard\)",
        ),
        (Carrier("tun0", "tun", (51820,)), {}, "add 51820"),
        (Carrier("vx0", "vxlan", (4789,)), {"firewall_open_tcp": [4789]}, "add 4789"),
        (Carrier("gre1", "gre", ()), {}, 'firewall_open_protocols = .* add "gre"'),
        (Carrier("ipsec0", "xfrm", ()), {"firewall_open_protocols": ["gre"]}, 'add "esp"'),
    ],
    ids=["kernel's", "program's", "udp in the kernel", "protocol", "ipsec"],
)
def test_rules_that_close_the_logins_tunnel_are_refused(
    carrier: Carrier, data: dict[str, Any], words: str
) -> None:
    answers = bare() | {SshLogin: lambda _sudo: LOGIN, LoginCarrier: lambda source: carrier}
    with pytest.raises(FleetError, match=words):
        plan({"gpu1": ("gpu", data)}, {"gpu1": answers})


@pytest.mark.parametrize(
    ("carrier", "data"),
    [
        (Carrier("eth0", "", ()), {}),
        (Carrier("tun0", "tun", ()), {}),  # left to the trial
        (Carrier("wg0", "wireguard", (51820,)), {"firewall_open_udp": [51820]}),
        (Carrier("gre1", "gre", ()), {"firewall_open_protocols": ["gre"]}),
    ],
    ids=["a card", "not known", "udp open", "protocol open"],
)
def test_login_through_what_stays_open_is_tried(carrier: Carrier, data: dict[str, Any]) -> None:
    answers = bare() | {SshLogin: lambda _sudo: LOGIN, LoginCarrier: lambda source: carrier}
    lines = plan({"gpu1": ("gpu", data)}, {"gpu1": answers}).lines("gpu1")
    assert [line for line in lines if re.search(r"firewall-guard try [0-9a-f]{16} 60 22$", line)]


def test_pattern_of_containers_that_matches_an_uplink_is_refused() -> None:
    answers = bare() | {Uplinks: lambda: ["br-lan", "ens3"]}
    for pattern, name in (("br-*", "br-lan"), ("ens3", "ens3")):
        hosts = {"gpu1": ("gpu", {"firewall_container_interfaces": [pattern]})}
        with pytest.raises(FleetError, match=re.escape(f"holds '{pattern}', which {name} matches")):
            plan(hosts, {"gpu1": answers})
    hosts = {"gpu1": ("gpu", {"firewall_container_interfaces": ["docker0"]})}
    assert plan(hosts, {"gpu1": answers}).names("gpu1")


def test_filter_that_closes_a_service_is_refused_with_its_rule() -> None:
    def closing(probes: list[str], bridges: list[str]) -> Filters:
        assert closed in probes
        return Filters((Closed(closed, "ip filter INPUT rule reject"),), ("iptables-nft why",))

    closed = "2606:4700:4700::1111,,22,input"
    answers = bare() | {OtherFilters: closing, SshLogin: lambda _sudo: LOGIN}
    with pytest.raises(
        FleetError,
        match=r"gpu1: another packet filter here closes what is declared: "
        r"ssh_port = 22 for 2606:4700:4700::1111 by `ip filter INPUT rule reject`; ",
    ):
        plan({"gpu1": ("gpu", {"firewall_open_tcp": [9100]})}, {"gpu1": answers})
    # Who may call what is not ours, another filter may well decide.
    closed = "10.9.0.2,,9100,input"
    assert plan({"gpu1": ("gpu", {"firewall_open_tcp": [9100]})}, {"gpu1": answers}).names("gpu1")


def test_bridge_that_nobody_declared_is_remarked() -> None:
    found = Filters((), ("iptables-nft why",))
    ways = [{"incoming": "virbr0", "outgoing": "*"}]
    fleet = fleet_of({"gpu1": ("gpu", {"firewall_forward": ways})})
    bridges = ["docker0", "br-1a2b", "virbr0", "backend0"]
    unjudged, undeclared = remarks(fleet["gpu1"], [], found, bridges)
    assert unjudged == "another packet filter could not be judged: iptables-nft why"
    assert undeclared.startswith("backend0 is a bridge that nobody declared")


def test_other_port_of_ssh_replaces_the_ruleset() -> None:
    answers = converged()
    planned = plan({"gpu1": ("gpu", {"ssh_port": 2222})}, answers)
    # The units too: what is open on a host without a whole ruleset is in their command.
    assert planned.names("gpu1") == [
        f"Firewall | {APPLY}",
        "Firewall | Install the unit",
        "Firewall | Install the drop-in that survives nftables.service",
    ]
    files = {path: text for path, (text, _) in planned.files("gpu1").items()}
    text = files.pop("/etc/llm-fleet/firewall.nft")
    assert all("firewall-guard load tcp/2222\n" in unit for unit in files.values())
    assert 'tcp dport 2222 accept comment "ssh"' in text
    assert "dport 22 " not in text


class TestDisabled:
    HOSTS = {"gpu1": ("gpu", {**GPU[1], "firewall_backend": "none"})}  # noqa: RUF012

    def test_nothing_of_ours_is_made(self) -> None:
        planned = plan(self.HOSTS, {"gpu1": bare()})
        assert not [name for name in planned.names("gpu1") if name.startswith("Firewall")]
        assert not [line for line in planned.lines("gpu1") if "nft" in line]

    def test_what_was_ours_is_removed(self) -> None:
        answers = converged()["gpu1"]
        answers[RulesetState] = lambda table, path: Ruleset("table", "table")
        planned = plan(self.HOSTS, {"gpu1": self.with_files(answers)})
        lines = [
            line
            for step in planned.steps["gpu1"]
            if step.name.startswith("Firewall")
            for line in step.lines
        ]
        assert lines == [
            "systemctl disable --quiet llm-fleet-firewall.service",
            or_journal(
                StringCommand("systemctl stop llm-fleet-firewall.service"),
                "llm-fleet-firewall.service",
            ).get_raw_value(),
            "rm -f /etc/systemd/system/nftables.service.d/llm-fleet.conf",
            "rm -f /etc/llm-fleet/firewall.nft",
            "rm -f /etc/systemd/system/llm-fleet-firewall.service",
            "rm -f /usr/local/lib/llm-fleet/firewall-guard",
            "nft delete table inet llm_fleet",
        ]

    def test_stopped_unit_is_still_disabled(self) -> None:
        """... or it would close the host again at the next boot."""
        answers = self.with_files(converged()["gpu1"])
        answers[UnitState] = lambda unit, files: replace(RUNNING, active_state="inactive")
        planned = plan(self.HOSTS, {"gpu1": answers})
        assert "systemctl disable --quiet llm-fleet-firewall.service" in planned.lines("gpu1")

    @staticmethod
    def with_files(answers: Answers) -> Answers:
        return answers | {File: lambda path: {"mode": 600, "user": "root", "group": "root"}}
