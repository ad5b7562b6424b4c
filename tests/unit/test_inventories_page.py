"""The inventory that docs/operating/inventories.md shows, with a Terraform that answers."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fleet import cli
from fleet.declare.fleet import PRODUCT_ROOT

PAGE = PRODUCT_ROOT / "docs" / "operating" / "inventories.md"
OUTPUTS = {
    "gpu_hosts": {
        "sensitive": False,
        "type": ["map", ["object", {"private": "string", "public": "string"}]],
        "value": {
            "gpu2": {"private": "10.20.0.12", "public": "203.0.113.12"},
            "gpu1": {"private": "10.20.0.11", "public": "203.0.113.11"},
        },
    },
    "gateways": {"value": {"edge": {"private": "10.20.0.10", "public": "edge.example.com"}}},
}


@pytest.fixture
def inventory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The page's inventory, in a directory with `terraform/`; $OUTPUTS is what Terraform says."""
    [text] = re.findall(r"(?ms)^```python\n(.*?)^```", PAGE.read_text())
    path = tmp_path / "site" / "inventory" / "cloud.py"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    terraform = tmp_path / "bin" / "terraform"
    terraform.parent.mkdir()
    terraform.write_text(
        f'#!/bin/sh\n[ "$*" = "-chdir={path.parents[1]}/terraform output -json" ] || exit 64\n'
        '[ -n "$OUTPUTS" ] || { echo "No state file was found!" >&2; exit 1; }\necho "$OUTPUTS"\n'
    )
    terraform.chmod(0o755)
    monkeypatch.setenv("PATH", f"{terraform.parent}:/usr/bin:/bin")
    monkeypatch.setenv("OUTPUTS", json.dumps(OUTPUTS))
    return path


def check(inventory: Path) -> Result:
    return CliRunner().invoke(cli.main, ["check", str(inventory)])


def test_hosts_are_those_that_terraform_made(inventory: Path) -> None:
    result = check(inventory)
    assert result.exit_code == 0, result.output
    rows = {line.split()[0]: line for line in result.output.splitlines()[1:-1]}
    assert list(rows) == ["gpu1", "gpu2", "edge"]
    assert "ssh 203.0.113.11:22, ollama 10.20.0.11:11434" in rows["gpu1"]
    assert "ssh edge.example.com:22, gateway 10.20.0.10:8434" in rows["edge"]


@pytest.mark.parametrize(
    ("outputs", "why"),
    [
        ("", r"cloud\.py:\d+: CalledProcessError: .* exit status 1"),
        ("{", r"cloud\.py:\d+: JSONDecodeError"),
        ("{}", r"cloud\.py:\d+: KeyError: 'gpu_hosts'"),
        ('{"gpu_hosts": {"value": {}}, "gateways": {"value": {}}}', "no host is declared"),
        (
            '{"gpu_hosts": {"value": {"gpu1": {"private": "10.20.0.300", "public": "gpu1"}}}, '
            '"gateways": {"value": {}}}',
            r"gpu1: private_address = '10\.20\.0\.300'",
        ),
    ],
)
def test_what_terraform_does_not_say_is_one_line(
    inventory: Path, outputs: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUTPUTS", outputs)
    result = check(inventory)
    assert result.exit_code == 1
    assert re.search(why, result.output), result.output
    assert "Traceback" not in result.output


def test_without_terraform(inventory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    result = check(inventory)
    assert result.exit_code == 1
    assert re.search(r"cloud\.py:\d+: FileNotFoundError: .*'terraform'", result.output)
