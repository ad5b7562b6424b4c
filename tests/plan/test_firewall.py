"""The firewall's own steps."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from pyinfra.facts.files import File

from fleet.facts.firewall import Ruleset, RulesetState
from fleet.facts.units import UnitState
from tests.fleets import GPU
from tests.plan.conftest import from_bare, in_declared_state
from tests.plan.simulation import RUNNING, Answers, bare, plan

HOSTS = {"gpu1": ("gpu", {})}


def converged() -> dict[str, Answers]:
    return in_declared_state("gpu only", from_bare("gpu only"))


def test_from_bare() -> None:
    planned = from_bare("gpu only")
    assert [name for name in planned.names("gpu1") if name.startswith("Firewall")] == [
        "Firewall | Install nftables",
        "Firewall | Install the ruleset",
        "Firewall | Install the unit",
        "Firewall | Load the ruleset now and at boot",
        "Firewall | Apply the ruleset",
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
    assert planned.names("gpu1") == ["Firewall | Apply the ruleset"]
    [line] = planned.lines("gpu1")
    assert "systemctl reload-or-restart llm-fleet-firewall.service" in line
    assert "journalctl" in line


def test_other_port_of_ssh_replaces_the_ruleset_only() -> None:
    answers = converged()
    planned = plan({"gpu1": ("gpu", {"ssh_port": 2222})}, answers)
    assert planned.names("gpu1") == ["Firewall | Install the ruleset"]
    [(text, _)] = planned.files("gpu1").values()
    assert 'tcp dport 2222 accept comment "ssh"' in text
    assert "dport 22 " not in text


class TestDisabled:
    HOSTS = {"gpu1": ("gpu", {**GPU[1], "firewall_enabled": False})}  # noqa: RUF012

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
            "systemctl disable --now --quiet llm-fleet-firewall.service",
            "nft delete table inet llm_fleet",
            "rm -f /etc/llm-fleet/firewall.nft",
            "rm -f /etc/systemd/system/llm-fleet-firewall.service",
        ]

    def test_stopped_unit_is_still_disabled(self) -> None:
        """... or it would close the host again at the next boot."""
        answers = self.with_files(converged()["gpu1"])
        answers[UnitState] = lambda unit, files: replace(RUNNING, active_state="inactive")
        planned = plan(self.HOSTS, {"gpu1": answers})
        assert "systemctl disable --now --quiet llm-fleet-firewall.service" in planned.lines("gpu1")

    @staticmethod
    def with_files(answers: Answers) -> Answers:
        return answers | {File: lambda path: {"mode": 600, "user": "root", "group": "root"}}
