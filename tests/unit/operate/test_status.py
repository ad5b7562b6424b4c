"""`fleet status`: a row for each host, whatever it answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from pyinfra.api import Host, State

from fleet.capabilities import CAPABILITIES
from fleet.kit.errors import FleetError
from fleet.operate import status
from fleet.operate.command import Commands

INVENTORY = """\
_gpu = {"ollama_listen": "private", "gpu_count": 0}
_gateway = {"gateway_keys": ["team-a"], "gateway_tls": "off"}
_addresses = {"gpu1.a-rather-long-name.example.internal": "10.0.0.11", "gpu2": "10.0.0.12"}
gpu = ([(name, {"private_address": where}) for name, where in _addresses.items()], _gpu)
gateway = ([("edge", {"private_address": "10.0.0.2"})], _gateway)
"""
GPU1 = "gpu1.a-rather-long-name.example.internal"
READY = (
    '{"models": {"gpt-oss:20b": '
    '{"phase": "ready", "completed": 1, "total": 1, "rate": 0, "error": ""}}}'
)
# A part of each command to what the host answers to it.
GOOD = {
    "ss -Hltn": "L 0 0 10.0.0.11:11434 *:*\nL 0 0 10.0.0.12:11434 *:*\n"
    + "".join(f"L 0 0 *:{port} *:*\n" for port in (8434, 9100, 9113, 9145)),
    "/api/version": '{"version": "0.32.7"}',
    "/healthz": "yes",
    "state.json": READY,
    "established": '0 0 10.0.0.2:1 10.0.0.11:11434 users:(("nginx",pid=1,fd=1))',
}
Ask = Callable[[Host], list[list[str]]]


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    path = tmp_path / "prod.py"
    path.write_text(INVENTORY)
    return path


def run(
    monkeypatch: pytest.MonkeyPatch, inventory: Path, *arguments: str,
    dead: tuple[str, ...] = (), answers: dict[str, str] = GOOD,
) -> Result:  # fmt: skip
    """The command on hosts that answer by `answers`; `dead` do not."""

    def by_part(_: Any, commands: list[Any], mark: str) -> list[list[str]]:
        assert mark
        found = [[text for part, text in answers.items() if part in str(item)] for item in commands]
        return [(texts or [""])[0].splitlines() for texts in found]

    def together(state: State, hosts: list[Host], ask: Ask, deadline: float) -> dict[str, Any]:
        def answer(host: Host) -> Any:
            if host.name in dead:
                return FleetError("no answer within 2 s:\nits power is off")
            monkeypatch.setattr(host, "get_fact", by_part)
            return ask(host)

        return {host.name: answer(host) for host in hosts}

    monkeypatch.setattr(status, "asked_together", together)
    runner = CliRunner(env={"COLUMNS": "80"})
    return runner.invoke(
        Commands(commands=[status.status]), ["status", str(inventory), *arguments], obj=CAPABILITIES
    )


def test_all_is_well(monkeypatch: pytest.MonkeyPatch, inventory: Path) -> None:
    result = run(monkeypatch, inventory)
    assert result.exit_code == 0, result.output
    assert max(map(len, result.output.splitlines())) <= 80
    assert "gpu2" in result.output
    assert "models 1/1 ready" in result.output
    assert "1 in flight" in result.output


def test_dead_host_is_a_row_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, inventory: Path
) -> None:
    result = run(monkeypatch, inventory, dead=("gpu2",))
    assert result.exit_code == 1
    assert "gpu2" in result.output
    assert "its power is off" in " ".join(result.output.split())


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch, inventory: Path) -> None:
    assert run(monkeypatch, inventory, dead=(GPU1, "gpu2", "edge")).exit_code == 2


def test_one_host_is_told_of_by_its_gateway(
    monkeypatch: pytest.MonkeyPatch, inventory: Path
) -> None:
    """... which has no row of its own then, and whose death is no finding."""
    result = run(monkeypatch, inventory, GPU1)
    assert result.exit_code == 0, result.output
    assert "1 in flight" in result.output
    assert not [line for line in result.output.splitlines() if line.startswith(("edge", "gpu2"))]
    assert run(monkeypatch, inventory, GPU1, dead=("edge",)).exit_code == 0


def test_a_group_stands_for_its_hosts(monkeypatch: pytest.MonkeyPatch, inventory: Path) -> None:
    result = run(monkeypatch, inventory, "gpu", "--json")
    assert result.exit_code == 0, result.output
    assert [host["name"] for host in json.loads(result.output)["hosts"]] == [GPU1, "gpu2"]


def test_finding(monkeypatch: pytest.MonkeyPatch, inventory: Path) -> None:
    result = run(monkeypatch, inventory, answers={**GOOD, "/api/version": ""})
    assert result.exit_code == 1
    assert "1 finding " in result.output
    assert max(map(len, result.output.splitlines())) <= 80
    assert "gpu2: ollama.service does not answer at http://10.0.0.12:11434" in result.output


def test_json(monkeypatch: pytest.MonkeyPatch, inventory: Path) -> None:
    result = run(monkeypatch, inventory, "--json", dead=("gpu2",))
    found = json.loads(result.output)
    assert found.keys() == {"schema", "asked_at", "hosts"}
    assert found["schema"] == "fleet-status/1"
    first, second, edge = found["hosts"]
    keys = {"name", "groups", "reachable", "reason", "findings", "facts"}
    assert [host.keys() for host in found["hosts"]] == [keys] * 3
    assert second["reachable"] is False
    assert first["facts"]["gateway"] == {"in_flight": {"edge": 1}, "drained_by": {"edge": False}}
    assert edge["facts"]["gateway"]["requests"] == 1


def test_every_key_of_json_is_in_the_page(monkeypatch: pytest.MonkeyPatch, inventory: Path) -> None:
    page = Path("docs/operating/status.md").read_text()
    found = json.loads(run(monkeypatch, inventory, "--json").output)
    keys = set(found) | set(found["hosts"][0])
    keys |= {key for host in found["hosts"] for facts in host["facts"].values() for key in facts}
    assert [key for key in sorted(keys) if f"`{key}`" not in page] == []


def test_what_a_host_says_gives_no_orders(monkeypatch: pytest.MonkeyPatch, inventory: Path) -> None:
    """... to the terminal, and fills no screen."""
    odd = json.dumps({"version": "\x1b[2J\r\n" + "9" * 5_000})
    result = run(monkeypatch, inventory, answers={**GOOD, "/api/version": odd})
    assert "\x1b" not in result.output
    assert len(result.output) < 10_000
