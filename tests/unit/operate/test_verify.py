"""`fleet verify` where nothing can be reached: what it says, writes and ends with."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from fleet.cli import main
from fleet.declare.fleet import PRODUCT_ROOT
from fleet.operate import verify
from fleet.operate.verify import checked_capabilities

FLEET = [Path(sys.executable).with_name("fleet")]


@pytest.fixture
def dead(tmp_path: Path) -> Path:
    """An inventory of two hosts that refuse every connection."""
    path = tmp_path / "site.py"
    path.write_text(
        'gpu = [("gpu1", {"ssh_hostname": "127.0.0.1", "private_address": "10.0.0.5"})]\n'
        # Another way to the same address, or it would be the same machine twice.
        'other = [("host2", {"ssh_hostname": "127.0.0.1", "ssh_config_file": "/dev/null", '
        '"docker_enabled": True})]\n'
        'all = (["gpu1", "host2"], {"ssh_port": 1, "ssh_connect_retries": 0})\n'
    )
    return path


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """A port of this machine that takes connections, and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(120)
        yield server


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*FLEET, "verify", *map(str, arguments)],
        cwd=PRODUCT_ROOT, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


def test_nothing_reachable_is_not_green(dead: Path, tmp_path: Path) -> None:
    junit, html = tmp_path / "junit.xml", tmp_path / "report.html"
    result = run(dead, "--json", "--junit", junit, "--html", html)
    assert result.returncode == 2, result.stderr
    assert "Error: no host can be reached" in result.stderr
    found = json.loads(result.stdout)
    assert (found["schema"], found["status"]) == ("fleet-verify/1", "could-not-tell")
    assert found["selection"] == {"names": [], "capabilities": [], "left_out": []}
    outcomes = {check["claim"]: check["outcome"] for check in found["checks"]}
    login = "This machine logs in to the host, and commands there are root's"
    assert outcomes.pop(login) == "failed"
    assert set(outcomes.values()) == {"unchecked"}
    assert len(outcomes) > 20
    # The table has the reason once, of both hosts, and pytest no page for each claim.
    table = result.stderr.partition(" compliance ")[2]
    assert table.count("gpu1, host2: ") == 1
    assert len(result.stderr.splitlines()) < len(outcomes) + 40
    suite = ET.parse(junit).getroot()[0]  # noqa: S314 - ours
    assert (suite.get("failures"), suite.get("errors")) == ("2", "0")
    assert int(suite.get("skipped", 0)) > 20
    # No deploy has given its store an identity, and reading gives it none.
    assert "not signed" in result.stderr
    assert "Not signed" in html.read_text()


def test_what_was_not_selected_is_told(dead: Path) -> None:
    found = json.loads(run(dead, "gpu", "--capability", "models", "--json").stdout)
    assert found["selection"] == {
        "names": ["gpu"], "capabilities": ["models"], "left_out": ["host2"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--capability", "model"], "--capability model: there is container_toolkit, dify"),
        (["--capability", "reach"], "--capability reach: there is"),
        (["--no-such"], "No such option"),
        (["--check-report", "/dev/null"], "has no identity"),
    ],
)
def test_what_cannot_be_done_is_refused(dead: Path, arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(main, ["verify", str(dead), *arguments])
    assert result.exit_code == 2
    assert said in result.output


@pytest.mark.parametrize(
    ("option", "path", "said"),
    [
        ("--html", "none/report.html", "none: no such directory"),
        ("--html", "file/report.html", "file: no such directory"),
        ("--html", "closed/report.html", "closed: cannot be written to"),
        ("--html", "kept.html", "kept.html: cannot be written to"),
        ("--junit", "file/junit.xml", "file: no such directory"),
        ("--junit", "closed/of/pytest/junit.xml", "closed: cannot be written to"),
    ],
)
def test_a_report_that_cannot_be_written_is_refused_before_the_checks(
    dead: Path, monkeypatch: pytest.MonkeyPatch, option: str, path: str, said: str
) -> None:
    folder = dead.parent

    def access(path: str | Path, mode: int) -> bool:
        # Whoever runs this may be root, who is refused by no mode.
        return mode != os.W_OK or Path(path).name not in {"closed", "kept.html"}

    monkeypatch.setattr(verify, "_run", lambda *_, **__: pytest.fail("checks have run"))
    monkeypatch.setattr(os, "access", access)
    for name in ("file", "kept.html"):
        (folder / name).touch()
    (folder / "closed").mkdir()
    result = CliRunner().invoke(main, ["verify", str(dead), option, str(folder / path)])
    assert result.exit_code == 2, result.output
    assert result.output == f"Error: {option} {folder / path}: {folder / said}\n"
    assert not (folder / "none").exists()


def test_a_name_of_nobody_is_refused(dead: Path) -> None:
    result = run(dead, "gpus")
    assert result.returncode == 2
    assert "gpus: neither a host of this inventory nor a group with hosts; did you mean gpu?" in (
        result.stderr
    )


@pytest.mark.parametrize(
    ("check", "said"),
    [
        ("assert False", "a check ended as none should"),
        ("import os; os._exit(3)", "the checks did not come to their end"),
        ("pass", ""),
    ],
)
def test_a_failure_of_no_claim_is_not_green(
    dead: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, check: str, said: str
) -> None:
    """... as of a process that died: what it left as results is not all of them."""
    checks = tmp_path / "checks"
    checks.mkdir()
    (checks / "test_it.py").write_text(f"def test_it():\n    {check}\n")
    (checks / "conftest.py").write_text(
        "import pathlib\n"
        "def pytest_addoption(parser):\n"
        "    for name in ('inventory', 'json', 'jobs', 'hash-up-to'):\n"
        "        parser.addoption(f'--{name}')\n"
        "def pytest_xdist_auto_num_workers():\n"
        "    return 0\n"
        "def pytest_sessionfinish(session):\n"
        "    path = pathlib.Path(session.config.getoption('--json'))\n"
        """    path.write_text('{"status": "good", "why": ""}')\n"""
    )
    monkeypatch.setattr("fleet.operate.verify.CHECKS", checks)
    result = CliRunner().invoke(main, ["verify", str(dead)])
    assert said in result.output
    assert result.exit_code == (2 if said else 0)


def test_no_inventory_is_an_error(tmp_path: Path) -> None:
    result = run(tmp_path / "none.py")
    assert result.returncode == 2
    assert "no such inventory file" in result.stderr
    assert "Traceback" not in result.stderr


def test_interrupted(silent: socket.socket, tmp_path: Path) -> None:
    """Ctrl-C reaches all processes of a terminal at once."""
    inventory = tmp_path / "site.py"
    data = {"ssh_hostname": "127.0.0.1", "ssh_port": silent.getsockname()[1]}
    inventory.write_text(f'gpu = [("a", {data})]\n')
    process = subprocess.Popen(
        [*FLEET, "verify", inventory], cwd=PRODUCT_ROOT, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    with silent.accept()[0]:  # it waits for the greeting of an SSH server
        os.killpg(process.pid, signal.SIGINT)
        output = process.communicate(timeout=120)[0]
    assert process.returncode == 130, output
    assert output.rstrip().endswith("interrupted")
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


def test_help_is_whole_at_80_columns() -> None:
    text = CliRunner().invoke(main, ["verify", "--help"], terminal_width=80).output
    assert max(map(len, text.splitlines())) <= 80
    for word in ("--capability", "--html", "--junit", "--json", "--check-report", "130"):
        assert word in text


def test_every_capability_can_be_selected() -> None:
    assert {"gateway", "models", "ollama", "firewall", "dify"} <= set(checked_capabilities())
    assert "reach" not in checked_capabilities()
