"""What `fleet` says of an inventory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from fleet import cli
from fleet.kit.secrets import SecretStore

BOX = '("box", {"private_address": "10.0.0.5", "gateway_keys": ["team-a"]})'


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("gpu = [\n", ":1: '[' was never closed"),
        ('\ngpu = [os.environ["X"]]\n', ":2: NameError: name 'os' is not defined"),
        ("import json\njson.loads('{')\n", ":2: JSONDecodeError: "),
    ],
)
@pytest.mark.parametrize("command", [["check"], ["key", "list"], ["drain"]])
def test_broken_file_is_one_line(inventory: Path, text: str, line: str, command: list[str]) -> None:
    inventory.write_text(text)
    host = ["box"] if command == ["drain"] else []
    result = CliRunner().invoke(cli.main, [*command, str(inventory), *host])
    assert result.exit_code == (1 if command == ["check"] else 2)
    assert result.output.startswith(f"Error: {inventory}{line}")
    assert result.output.count("\n") == 1


@pytest.mark.parametrize("module", ["fleet.cli", "fleet.kit.events", "fleet.operate.run"])
def test_a_command_keeps_the_standard_library_as_it_is(module: str) -> None:
    """pyinfra's command line replaces its sockets, threads and processes when it is imported."""
    program = f"import {module}, gevent.monkey as m; assert not m.is_module_patched('threading')"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_check_prints_what_is_declared(inventory: Path, own_secrets: Path) -> None:
    inventory.write_text(f'gpu = gateway = [{BOX}]\nother = [("b", {{"docker_enabled": True}})]\n')
    result = CliRunner().invoke(cli.main, ["check", str(inventory)])
    assert result.output.splitlines() == [
        "HOST  GROUPS              ADDRESSES",
        "box   gateway, gpu, site  ssh box:22, ollama 127.0.0.1:11434, gateway 10.0.0.5:8434, "
        "gateway metrics requests 127.0.0.1:9145, gateway metrics nginx 127.0.0.1:9113, "
        "gateway metrics node 127.0.0.1:9100",
        "b     other, site         ssh b:22",
        f"secrets: {own_secrets / 'elsewhere' / 'site'}",
    ]
    assert result.exit_code == 0
    assert not own_secrets.exists()


def test_check_names_what_is_refused(inventory: Path) -> None:
    inventory.write_text('gpu = [("box", {"olama_port": 1})]\n')
    result = CliRunner().invoke(cli.main, ["check", str(inventory)])
    assert result.exit_code == 1
    assert "box: olama_port = 1: unknown setting; did you mean ollama_port?" in result.output


@pytest.mark.parametrize(
    ("command", "missing"),
    [
        (["key", "show", "{}", "team-a"], "gateway_key_team-a"),
        (["key", "rotate", "{}", "team-a"], "gateway_key_team-a"),
        (["chat", "{}", "Hello?"], "gateway_key_team-a"),
        (["ca", "{}"], "gateway_ca_key"),
    ],
    ids=["show", "rotate", "chat", "ca"],
)
def test_reading_makes_no_secret(
    inventory: Path, own_secrets: Path, command: list[str], missing: str
) -> None:
    """A fresh clone has no store: a key that is made there is one that no gateway knows."""
    inventory.write_text(f"gpu = gateway = [{BOX}]\n")
    result = CliRunner().invoke(cli.main, [word.format(inventory) for word in command])
    assert result.exit_code == 2, result.output
    place = own_secrets / "elsewhere" / "site" / missing
    assert result.output.startswith(f"Error: {place}: ")
    assert "deploy" in result.output
    assert "sk-" not in result.output
    assert not own_secrets.exists()


def test_key_of_a_store_is_shown_whatever_else_it_lacks(inventory: Path, own_secrets: Path) -> None:
    box = '("box", {"private_address": "10.0.0.5", "gateway_keys": ["team-a", "new"]})'
    inventory.write_text(f"gpu = gateway = [{box}]\n")
    store = SecretStore(own_secrets / "elsewhere" / "site")
    value = store.api_key("gateway_key_team-a").get_secret_value()
    result = CliRunner().invoke(cli.main, ["key", "show", str(inventory), "team-a"])
    assert result.output == f"{value}\n"
    result = CliRunner().invoke(cli.main, ["key", "list", str(inventory)])
    assert result.exit_code == 0
    assert [path.name for path in store.root.iterdir()] == ["gateway_key_team-a"]
