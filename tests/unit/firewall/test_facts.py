"""What is asked of a host's ruleset."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from fleet.firewall.facts import Bridges, Carrier, LoginCarrier, Ruleset, RulesetState, Uplinks
from tests.unit.firewall.namespaces import run


class TestRulesetState:
    """The real nft, in a network namespace of the test's own."""

    TABLE = "inet t"

    def state(self, path: Path, *before: str) -> Ruleset:
        """The fact in a namespace where the commands `before` have been run."""
        command = RulesetState().command(table=self.TABLE, path=str(path)).get_raw_value()
        script = "\n".join([*before, command])
        output = subprocess.run(
            ["unshare", "--user", "--map-root-user", "--net", "sh", "-c", script],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        return RulesetState().process(output.splitlines())

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        path = tmp_path / "a ruleset.nft"
        path.write_text(
            f"table {self.TABLE}\ndelete table {self.TABLE}\n"
            f"table {self.TABLE} {{ chain c {{ ip saddr 10.0.0.1 counter accept; }}; }}\n"
        )
        return path

    def test_loaded_equals_declared(self, path: Path) -> None:
        state = self.state(path, f"nft -f {shlex.quote(str(path))}")
        assert "10.0.0.1" in state.live
        assert state.live == state.declared

    def test_changed_by_hand(self, path: Path) -> None:
        state = self.state(
            path,
            f"nft -f {shlex.quote(str(path))}",
            f"nft add rule {self.TABLE} c tcp dport 11434 accept",
        )
        assert "11434" in state.live
        assert "11434" not in state.declared
        assert state.declared

    def test_not_loaded(self, path: Path) -> None:
        state = self.state(path)
        assert state.live == ""
        assert "10.0.0.1" in state.declared

    def test_looking_changes_nothing(self, path: Path) -> None:
        """What is declared is loaded elsewhere: asking twice finds the same live rules."""
        command = RulesetState().command(table=self.TABLE, path=str(path)).get_raw_value()
        assert self.state(path, f"({command}) >/dev/null").live == ""

    def test_file_that_nft_does_not_take(self, path: Path) -> None:
        """... is no reason not to replace it."""
        path.write_text(path.read_text()[:-20])
        state = self.state(path, f"nft add table {self.TABLE}")
        assert state.declared == ""
        assert self.TABLE in state.live

    def test_neither_file_nor_table(self, tmp_path: Path) -> None:
        assert self.state(tmp_path / "missing") == Ruleset("", "")


class TestLoginCarrier:
    """The real ip, in networks of the test's own."""

    @staticmethod
    def of(source: str, *before: str) -> Carrier | None:
        command = LoginCarrier().command(source=source).get_raw_value()
        return LoginCarrier().process(run("\n".join([*before, command])))

    def test_card(self) -> None:
        assert self.of("10.0.0.2") == Carrier("eth0", "veth", ())

    def test_tunnel_of_the_kernel(self) -> None:
        tunnel = "ip link add vx0 type vxlan id 1 dstport 4789 local 10.0.0.11 remote 10.0.0.2"
        up = "ip addr add 10.9.0.1/24 dev vx0; ip link set vx0 up"
        assert self.of("10.9.0.2", tunnel, up) == Carrier("vx0", "vxlan", (4789,))

    def test_no_way(self) -> None:
        assert self.of("10.9.0.2", "ip route del default") is None


def test_bridges_are_told_from_other_interfaces() -> None:
    made = "ip link add lan0 type bridge; "
    assert Bridges().process(run(made + Bridges().command())) == ["lan0"]


def test_default_route_leads_out() -> None:
    assert Uplinks().process(run(Uplinks().command())) == ["eth0"]
