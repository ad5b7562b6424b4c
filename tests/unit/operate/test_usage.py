"""`fleet usage`: what all gateways have counted, as one."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from pyinfra.api import Host

from fleet import cli
from fleet.capabilities import CAPABILITIES
from fleet.gateway.facts import UsageFiles
from fleet.kit.errors import FleetError
from fleet.operate import usage
from fleet.operate.command import Commands

INVENTORY = """\
gpu = ([("gpu1", {"private_address": "10.0.0.11"})], {"ollama_listen": "private", "gpu_count": 0})
gateway = (
    [("edge", {"private_address": "10.0.0.2"}), ("edge2", {"private_address": "10.0.0.3"})],
    {"gateway_keys": ["team-a"], "gateway_tls": "off"},
)
"""


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    path = tmp_path / "prod.py"
    path.write_text(INVENTORY)
    return path


def file(*rows: dict[str, Any]) -> str:
    day = f"{datetime.now(UTC):%Y-%m-%d}"
    return json.dumps({"schema": "llm-fleet-usage/1", "day": day, "hours": {}, "rows": rows})


def row(number: int = 1, **names: str) -> dict[str, Any]:
    return {
        "key": "team-a", "model": "gpt-oss:20b", "host": "gpu1", **names, "requests": number,
        "prompt": 1000 * number, "cached": 0, "completion": 30 * number, "estimated": 0,
    }  # fmt: skip


BOTH: dict[str, Any] = {"edge": [file(row(), row(2, key="b"))], "edge2": [file(row(4))]}


def run(
    monkeypatch: pytest.MonkeyPatch, inventory: Path, *arguments: str,
    answers: dict[str, Any] = BOTH,
) -> Result:  # fmt: skip
    """The command on gateways that answer by `answers`; an error is why one does not."""

    def get_fact(host: Host, fact: Any, **asked: Any) -> Any:
        assert fact is UsageFiles
        # Days, and nothing that a shell would take for more.
        assert all(len(day) == len("2026-11-01") for day in asked["days"])
        answer = answers[host.name]
        if isinstance(answer, FleetError):
            raise answer
        return answer

    monkeypatch.setattr(Host, "connect", lambda *_, **__: None)
    monkeypatch.setattr(Host, "get_fact", get_fact)
    group = Commands("fleet", commands={"usage": usage.usage})
    return CliRunner().invoke(group, ["usage", str(inventory), *arguments], obj=CAPABILITIES)


def test_gateways_are_added_up(monkeypatch: pytest.MonkeyPatch, inventory: Path) -> None:
    result = run(monkeypatch, inventory)
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[0].split() == ["key", "model", "requests", "prompt", "completion"]
    assert [line.split() for line in lines[1:4]] == [
        ["b", "gpt-oss:20b", "2", "2,000", "60"],
        ["team-a", "gpt-oss:20b", "5", "5,000", "150"],
        ["all", "7", "7,000", "210"],
    ]
    assert "counted by edge, edge2." in lines[4]


def test_json_is_as_documented(monkeypatch: pytest.MonkeyPatch, inventory: Path) -> None:
    result = run(monkeypatch, inventory, "--json", "--by", "host,day", "--since", "7d")
    told = json.loads(result.output)
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    numbers = {
        "requests": 7, "prompt_tokens": 7000, "cached_tokens": 0, "completion_tokens": 210,
        "estimated_tokens": 0,
    }  # fmt: skip
    assert told == {
        "schema": "fleet-usage/1", "since": told["since"], "until": today, "by": ["host", "day"],
        "gateways": [{"name": "edge", "reason": None}, {"name": "edge2", "reason": None}],
        "rows": [{"host": "gpu1", "day": today, **numbers}], "total": numbers,
    }  # fmt: skip
    page = (Path(__file__).parents[3] / "docs" / "operating" / "gateway.md").read_text()
    names = {*told, *numbers, "reason", "fleet-usage/1"}
    assert [name for name in names if f"`{name}`" not in page] == []


def test_csv_is_a_row_each(monkeypatch: pytest.MonkeyPatch, inventory: Path) -> None:
    answers = {"edge": [file(row(key='a,"b'))], "edge2": []}
    result = run(monkeypatch, inventory, "--csv", "--by", "key", answers=answers)
    assert list(csv.reader(io.StringIO(result.output))) == [
        ["key", "requests", "prompt_tokens", "cached_tokens", "completion_tokens",
         "estimated_tokens"],
        ['a,"b', "1", "1000", "0", "30", "0"],
    ]  # fmt: skip


LOST = FleetError("no answer within 70 s")


@pytest.mark.parametrize("options", [(), ("--json",), ("--csv",)])
@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (LOST, "no answer within 70 s"),
        (None, "it has never counted: deploy it"),
        (["{"], "a file of its usage is damaged"),
    ],
)
def test_a_gateway_that_cannot_be_asked_is_said_and_the_others_shown(
    monkeypatch: pytest.MonkeyPatch, inventory: Path, options: tuple[str, ...], answer: Any,
    why: str,
) -> None:  # fmt: skip
    answers = {**BOTH, "edge2": answer}
    result = run(monkeypatch, inventory, "--by", "key", *options, answers=answers)
    assert result.exit_code == 2
    assert "team-a" in result.stdout
    if options == ("--json",):
        told = json.loads(result.stdout)["gateways"]
        assert [item["name"] for item in told if item["reason"] is None] == ["edge"]
        assert why in told[1]["reason"]
    else:
        assert f"edge2 could not be asked, its counts are missing: {why}" in result.stderr


def test_nothing_is_said_to_be_nothing(monkeypatch: pytest.MonkeyPatch, inventory: Path) -> None:
    result = run(monkeypatch, inventory, answers={"edge": [], "edge2": []})
    assert result.exit_code == 0
    assert result.output.startswith("Nothing since ")


def test_a_table_fits_a_terminal(monkeypatch: pytest.MonkeyPatch, inventory: Path) -> None:
    long = {"key": "k" * 60, "model": "hf.co/" + "m" * 90, "host": "[bold]gpu1.example.internal"}
    answers = {"edge": [file({**row(10**9, **long), "cached": 7, "estimated": 7})], "edge2": []}
    result = run(monkeypatch, inventory, "--by", "key,model,host,day", answers=answers)
    assert max(len(line) for line in result.output.splitlines()) <= 80
    assert "1.0G" in result.output
    assert "1.0T" in result.output
    assert f"{datetime.now(UTC):%Y-%m-%d}" in result.output


def test_a_name_is_no_markup(monkeypatch: pytest.MonkeyPatch, inventory: Path) -> None:
    answers = {"edge": [file(row(host="[bold]:smile:"))], "edge2": []}
    assert "[bold]:smile:" in run(monkeypatch, inventory, "--by", "host", answers=answers).output


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--by", "keys"), "'keys' is none of key, model, host, day"),
        (("--by", ""), "'' is none of"),
        (("--since", "yesterday"), "days (30d) or a day (2026-11-01) are known here"),
        (("--json", "--csv"), "one of them"),
    ],
)
def test_other_questions_are_refused(
    monkeypatch: pytest.MonkeyPatch, inventory: Path, options: tuple[str, ...], why: str
) -> None:
    result = run(monkeypatch, inventory, *options)
    assert result.exit_code == 2
    assert why in " ".join(result.stderr.replace("│", " ").split())


def test_a_fleet_without_a_gateway_counts_nothing(
    monkeypatch: pytest.MonkeyPatch, inventory: Path
) -> None:
    inventory.write_text(INVENTORY.partition("gateway = ")[0])
    result = run(monkeypatch, inventory)
    assert result.exit_code == 2
    assert "no host of this inventory is a gateway" in result.output


def test_parts_complete() -> None:
    option = next(item for item in cli.main.commands["usage"].params if item.name == "by")
    context = usage.usage.make_context("usage", ["prod.py"], resilient_parsing=True)
    found = [item.value for item in option.shell_complete(context, "key,")]
    assert found == ["key,model", "key,host", "key,day"]
    assert [item.value for item in option.shell_complete(context, "mo")] == ["model"]
