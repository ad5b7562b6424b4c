"""`fleet remove` shows what it would do, and does nothing that nobody has said yes to."""

from __future__ import annotations

import json
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from fleet import cli
from fleet.declare.fleet import PRODUCT_ROOT
from fleet.kit.errors import FleetError
from fleet.kit.facts.listeners import Listener
from fleet.kit.footprint import Fate, Part, Trace, files
from fleet.operate import remove as module
from fleet.operate.remove import Plan, _ask, _plan

UNIT = Part("unit", "llm-fleet-a.service")
(FILE,) = files("/etc/llm-fleet/a")
TREE = Part("tree", "/etc/llm-fleet")
TABLE = Part("table", "inet llm_fleet")
DATA, PACKAGE = Part("tree", "/var/lib/a"), Part("package", "a")
TRACES = [
    Trace("a", "a", (UNIT, FILE, TREE, TABLE)),
    Trace("b", "b", (DATA,), "data", "only copy"),
    Trace("c", "c", (PACKAGE,), "stays", "others use it"),
]
FOUND = {part: [part.name] for part in (UNIT, FILE, TREE, TABLE, DATA, PACKAGE)}
ON_ALL = Listener(None, 80, "1", "mine", "mine.service")
LISTENERS = [
    ON_ALL,
    Listener(ip_address("127.0.0.1"), 81, "2", "mine", "mine.service"),
    Listener(None, 82, "3", "ours", UNIT.name),
]
NO_ONE = '[("box", {"ssh_hostname": "127.0.0.1", "ssh_port": 1})]'


def planned(*fates: Fate, found: dict[Part, list[str]] = FOUND) -> Plan:
    return _plan([TRACES], found, LISTENERS, ["goes", *fates])


def test_what_goes_is_said_once() -> None:
    """... and not what is in a directory that goes."""
    assert planned().goes == [f"unit {UNIT.name}", TREE.name, f"nftables table {TABLE.name}"]


def test_data_stays_unless_it_is_asked_for() -> None:
    why = "only copy; --data removes it"
    assert planned().stays == [(DATA.name, why), ("package a", "others use it")]
    assert DATA.name in planned("data").goes
    assert planned("data").stays == [("package a", "others use it")]


def test_who_can_be_reached_without_the_firewall_is_named() -> None:
    assert planned().opens == [f"port 80: {ON_ALL}"]
    assert planned(found={FILE: [FILE.name]}).opens == []


def test_a_package_alone_was_not_ours() -> None:
    plan = planned(found={PACKAGE: ["a"]})
    assert (plan.goes, plan.stays) == ([], [])
    assert list(plan.lines("box")) == ["box: nothing to remove"]


def test_data_alone_is_told_with_its_option() -> None:
    assert planned(found={DATA: [DATA.name]}).stays == [(DATA.name, "only copy; --data removes it")]


@pytest.mark.parametrize("flag", [[], ["--json"]])
def test_unknown_host(inventory: Path, flag: list[str]) -> None:
    inventory.write_text(f"gpu = {NO_ONE}\n")
    result = CliRunner().invoke(cli.main, ["remove", str(inventory), "bix", *flag])
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: bix: no such host")
    assert result.stdout == ""


def test_a_host_that_cannot_be_reached(inventory: Path) -> None:
    """... is said to be so, and not to be free of us; the keys are those of the page."""
    inventory.write_text(f"gpu = {NO_ONE}\n")
    result = CliRunner().invoke(cli.main, ["remove", str(inventory), "box", "--yes", "--json"])
    assert result.exit_code == 2, result.output
    told = json.loads(result.stdout)
    assert list(told) == ["schema", "dry", "hosts"]
    assert told["schema"] == "fleet-remove/1"
    box = told["hosts"]["box"]
    assert box["failed"]
    page = (PRODUCT_ROOT / "docs" / "operating" / "removing.md").read_text()
    assert [key for key in (*told, *box) if f"`{key}`" not in page and f'"{key}"' not in page] == []


@pytest.mark.parametrize("is_shown", [False, True])
def test_who_is_asked_sees_what_of(
    is_shown: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """... beside what is printed for programs, and once."""
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("click.confirm", lambda *_, **__: False)
    with pytest.raises(FleetError, match="nothing was changed"):
        _ask({"box": Plan(goes=["all of it"])}, is_shown=is_shown)
    assert capsys.readouterr() == ("", "" if is_shown else "box: goes\n    all of it\n")


class TestDrained:
    """A host that was drained and then not removed is said to be so."""

    @pytest.fixture
    def box(self, inventory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setattr(module, "_look", lambda *_: {"box": Plan(goes=["all of it"])})
        monkeypatch.setattr(module, "_retire", lambda *_: iter(["box"]))
        inventory.write_text(f"gpu = {NO_ONE}\n")
        return inventory

    def told(self, box: Path) -> str:
        result = CliRunner().invoke(cli.main, ["remove", str(box), "box", "--yes", "--json"])
        assert result.exit_code == 2
        return result.stderr

    def test_locked_by_another(self, box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(_: object) -> None:
            raise FleetError("box: another deploy is at work there")

        monkeypatch.setattr(module, "locked", refuse)
        monkeypatch.setattr(module, "_connect", lambda *_: [])
        assert self.told(box) == (
            "Error: box: another deploy is at work there; box is drained, and gets no requests: "
            f"run this again, or `fleet undrain {box} box`\n"
        )

    def test_lost(self, box: Path) -> None:
        assert f"box is drained, and gets no requests: run this again, or `fleet undrain {box}" in (
            self.told(box)
        )


def test_help_fits() -> None:
    text = CliRunner().invoke(cli.main, ["remove", "--help"], terminal_width=80).output
    assert max(map(len, text.splitlines())) <= 80
    assert "Example:" in text
