"""`fleet doctor`: a line a check, the fix in it, and nothing of a host that cannot be asked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from fleet.capabilities import CAPABILITIES
from fleet.declare.capability import Capability
from fleet.declare.fleet import Fleet, FleetHost
from fleet.declare.preflight import Line, UnansweredError, Verdict, fail, not_checked, ok, warn
from fleet.kit.errors import FleetError
from fleet.operate import doctor
from fleet.operate.command import Commands
from fleet.platform.settings import Platform
from tests.fleets import GPU, fleet_of

LONG = (
    "a line with the fix in it, and with more words than eighty columns have, so that it is wrapped"
)


def run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, found: dict[str, doctor.Lines], *options: str
) -> Result:
    """The command where the hosts answer `found`."""
    path = tmp_path / "prod.py"
    path.write_text('gpu = ["gpu1", "gpu2"]\n')
    monkeypatch.setattr(doctor, "examine", lambda *_: found)
    arguments = ["doctor", str(path), *options]
    runner = CliRunner(env={"COLUMNS": "80"})
    return runner.invoke(Commands(commands=[doctor.doctor]), arguments, obj=CAPABILITIES)


def lines(*found: Line) -> doctor.Lines:
    return [("platform", line) for line in found]


DEAD = doctor._unreachable(FleetError("Could not connect\n(timed out)"))
WELL = lines(ok("login"), ok("system", "debian 13"))


@pytest.mark.parametrize(
    ("found", "status"),
    [
        ({"gpu1": WELL}, 0),
        ({"gpu1": lines(ok("login"), warn("time service", "x"), not_checked("y", "z"))}, 0),
        ({"gpu1": lines(ok("login"), fail("ports", "x")), "gpu2": WELL}, 1),
        ({"gpu1": WELL, "gpu2": DEAD}, 1),
        ({"gpu1": DEAD, "gpu2": DEAD}, 2),
    ],
)
def test_status(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, found: dict[str, doctor.Lines], status: int
) -> None:
    assert run(monkeypatch, tmp_path, found).exit_code == status


def test_host_that_cannot_be_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    output = run(monkeypatch, tmp_path, {"gpu1": DEAD}).output
    assert output.splitlines() == [
        "gpu1: 1 fail, 1 not checked",
        "  fail         login: Could not connect (timed out)",
        "  not checked  everything else: the host cannot be asked",
    ]


def test_what_is_well_is_counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = {"gpu1": lines(*[item for _, item in WELL], warn("names", LONG))}
    output = run(monkeypatch, tmp_path, found).output
    assert output.splitlines()[0] == "gpu1: 2 ok, 1 warn"
    assert "debian 13" not in output
    assert max(map(len, output.splitlines())) <= 80
    assert "debian 13" in run(monkeypatch, tmp_path, found, "--verbose").output


def test_a_group_stands_for_its_hosts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "prod.py"
    path.write_text('gpu = ["gpu1", "gpu2"]\nother = [("o1", {"docker_enabled": True})]\n')
    asked: list[str] = []

    def examine(_: Any, __: Any, hosts: list[FleetHost], ___: Any) -> dict[str, doctor.Lines]:
        asked.extend(host.name for host in hosts)
        return {"gpu1": WELL}

    monkeypatch.setattr(doctor, "examine", examine)
    commands = Commands(commands=[doctor.doctor])
    result = CliRunner().invoke(commands, ["doctor", str(path), "gpu"], obj=CAPABILITIES)
    assert result.exit_code == 0, result.output
    assert asked == ["gpu1", "gpu2"]


def test_json(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    output = run(monkeypatch, tmp_path, {"gpu1": WELL, "gpu2": DEAD}, "--json").output
    found = json.loads(output)
    assert found["schema"] == "fleet-doctor/1"
    assert found["hosts"][0] == {
        "name": "gpu1",
        "checks": [
            {"capability": "platform", "check": "login", "verdict": "ok", "text": ""},
            {"capability": "platform", "check": "system", "verdict": "ok", "text": "debian 13"},
        ],
    }
    page = Path("docs/operating/doctor.md").read_text()
    keys = {*found, *found["hosts"][0], *found["hosts"][0]["checks"][0], *Verdict}
    assert [key for key in sorted(keys) if f"`{key}`" not in page] == []


def test_host_is_named_once() -> None:
    """... above its lines, and not again by the refusals of a deploy."""
    refusal = fail("ports", "gpu1: ollama_port = 11434: nc listens on it already")
    told = Capability(Platform, preflight=lambda *_: [refusal])
    whole = fleet_of({"gpu1": GPU})
    fleet = Fleet(whole, (told,), whole.secrets, whole.root)
    found = list(doctor._checks(fleet["gpu1"], fleet, lambda *_, **__: None))
    assert [line.text for _, line in found][1:] == ["ollama_port = 11434: nc listens on it already"]


def test_capability_that_is_told_of_nothing_is_not_checked() -> None:
    def silent(*_: Any) -> Iterator[Line]:
        raise UnansweredError("the connection was lost")
        yield

    whole = fleet_of({"gpu1": GPU})
    fleet = Fleet(whole, (Capability(Platform, preflight=silent),), whole.secrets, whole.root)
    found = list(doctor._checks(fleet["gpu1"], fleet, lambda *_, **__: None))
    assert found[1:] == [("platform", not_checked("platform", "the connection was lost"))]
