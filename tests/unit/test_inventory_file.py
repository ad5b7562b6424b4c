"""Inventory files: pyinfra loses no host of one that is accepted, and each mistake has its line."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from itertools import dropwhile, takewhile
from pathlib import Path

import pytest
from click.testing import CliRunner
from pyinfra.api import State
from pyinfra.context import ctx_config, ctx_inventory, ctx_state

from fleet import cli
from fleet.capabilities import CAPABILITIES
from fleet.declare.inventory_file import check
from fleet.declare.load import group_names
from fleet.declare.open import make_inventory, open_inventory
from fleet.kit.errors import FleetError, SettingsError

ROOT = Path(__file__).resolve().parents[2]
BOX = '("box", {"private_address": "10.0.0.5", "gateway_keys": ["team-a"]})'


@pytest.fixture(autouse=True)
def own_context() -> Iterator[None]:
    """What `open_inventory` leaves in pyinfra's context ends with its test."""
    yield
    for context in (ctx_config, ctx_inventory, ctx_state):
        context.reset()


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    return tmp_path / "site.py"


def block(page: str, start: str) -> str:
    """The sample of a page that begins with `start`, indented or fenced."""
    lines = (ROOT / page).read_text().splitlines()
    rest = list(dropwhile(lambda line: not line.strip().startswith(start), lines))
    indent = rest[0].partition(start)[0]
    sample = takewhile(lambda line: line != "```" and (not line or line.startswith(indent)), rest)
    return "".join(f"{line.removeprefix(indent)}\n" for line in sample)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("x = 1", ["no host is declared", 'write gpu = ["gpu1.example.internal"]']),
        ("gpu = []", ["no host is declared"]),
        ('all = ([], {"ssh_user": "ops"})', ["no host is declared"]),
        ('gpu = {"gpu1": {}}', ["gpu: ", "not a list of hosts", 'gpu = [("gpu1", {...})]']),
        ('gpu = ("gpu1.lan", {})', ["gpu: ", 'write gpu = ["gpu1.lan"], or']),
        ('gpu = ("gpu1", "gpu2")', ["gpu: ", 'write gpu = ["gpu1"]']),
        ('gpu = (["gpu1"],)', ["gpu: ", 'write gpu = ["gpu1"]']),
        ('gpu = ({"gpu1": {}}, {})', ["gpu: ", 'gpu = [("gpu1", {...})]']),
        ('gpu = [["gpu1", {}]]', ["gpu: ", 'gpu = [("gpu1", {...})]']),
        ('gpu = [("gpu1",)]', ["gpu: ", 'gpu = [("gpu1", {...})]']),
        ('webui = "page"', ["webui: ", 'webui = ["page"]']),
        ('all = "gpu1"', ["all: ", 'all = ["gpu1"]']),
        ('gpu = ["a"]\nNETWORKS = ("10.0.0.0/8", "fd00::/8")', ["NETWORKS: ", "call it _NETWORKS"]),
        ('gpu = ["a"]\nall = ["b"]', ["gpu: a would be left out", "group_data/site.py"]),
        ('gpu = ["a", ("b", {}), "c"]\nall = (["b"], {})', ["gpu: a, c would be left out"]),
        ('dify = ["a"]\ngpu = ["b"]\nall = ["b"]', ["dify: a would be left out"]),
        ('boxes = (["a"], {})\ngpu = ["b"]\nall = ["b"]', ["boxes: a would be left out"]),
    ],
)
def test_refused(inventory: Path, text: str, parts: list[str]) -> None:
    inventory.write_text(text)
    with pytest.raises(SettingsError) as refused:
        check(inventory, group_names(CAPABILITIES))
    [line] = refused.value.problems
    assert line.startswith(f"{inventory}: ")
    assert [part for part in parts if part not in line] == [], line


@pytest.mark.parametrize(
    "text",
    [
        'gpu = ["a"]',
        'gpu = [("a", {})]\nall = ["a", "b"]',
        'gpu = (["a", "b"], {"ollama_port": 1})\n_all = ("x",)',
        # Harmless: pyinfra passes over it, and has no host of it.
        'gpu = ["a"]\nPORTS = [1, 2]\nNETWORKS = ["10.0.0.0/8"]\nall = ["a"]',
        # Its hosts, and what groups they are in, are known later.
        'all = ["@terraform"]\ngpu = (["a"], {})',
    ],
)
def test_accepted(inventory: Path, text: str) -> None:
    inventory.write_text(text)
    check(inventory, group_names(CAPABILITIES))


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
    assert result.exit_code == 1
    assert result.output.startswith(f"Error: {inventory}{line}")
    assert result.output.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "line"), [("a = (\n", ":1: '(' was never closed"), ("a = 1\nb\n", ":2: NameError: ")]
)
def test_broken_group_data_is_one_line(inventory: Path, text: str, line: str) -> None:
    inventory.write_text(f"gpu = gateway = [{BOX}]\n")
    data = inventory.parent / "group_data" / "gpu.py"
    data.parent.mkdir()
    data.write_text(text)
    with pytest.raises(FleetError, match=f"^{re.escape(f'{data}{line}')}.*$"):
        open_inventory(inventory, CAPABILITIES)


def test_pyinfra_refuses_before_it_reads_the_inventory(inventory: Path) -> None:
    """Without a host it would end well, and never run deploy.py."""
    inventory.write_text('gpu = {"gpu1": {}}\n')
    ended = subprocess.run(
        [Path(sys.executable).parent / "pyinfra", inventory, "deploy.py", "--dry"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 1, ended.stderr
    assert "gpu: not a list of hosts" in ended.stderr
    assert "Loading inventory" not in ended.stderr


def test_first_place_with_a_key_decides(inventory: Path) -> None:
    """pyinfra's order is as docs/settings.md tells it."""
    inventory.write_text(
        'gpu = ([("a", {"k1": "host"})], dict.fromkeys(["k1", "k2", "k3", "k5"], "gpu"))\n'
        'gateway = (["a"], {"k5": "gateway"})\n'
        'all = (["a"], dict.fromkeys(["k1", "k2", "k3", "k4", "k5", "k6", "k7"], "all"))\n'
    )
    data = inventory.parent / "group_data"
    data.mkdir()
    (data / "gpu.py").write_text('k0 = k1 = k2 = k8 = "group_data gpu"\n')
    (data / "site.py").write_text('k8 = "group_data site"\n')
    (data / "all.py").write_text('k0 = k1 = k2 = k3 = k4 = "group_data all"\n')
    ctx_state.set(State(check_for_changes=False))  # type: ignore[no-untyped-call]
    [host] = make_inventory(str(inventory), override_data={"k0": "--data"})
    assert [host.data.get(f"k{number}") for number in range(9)] == [
        "--data", "host", "group_data gpu", "gpu", "group_data all", "gateway", "all", "all",
        "group_data site",
    ]  # fmt: skip


def test_check_prints_what_is_declared(inventory: Path, own_secrets: Path) -> None:
    inventory.write_text(f'gpu = gateway = [{BOX}]\nother = [("b", {{"docker_enabled": True}})]\n')
    result = CliRunner().invoke(cli.main, ["check", str(inventory)])
    assert result.output.splitlines() == [
        "HOST  GROUPS              ADDRESSES",
        "box   gateway, gpu, site  ssh box:22, ollama 127.0.0.1:11434, gateway 10.0.0.5:8434, "
        "gateway metrics requests 127.0.0.1:9145, gateway metrics nginx 127.0.0.1:9113, "
        "gateway metrics node 127.0.0.1:9100",
        "b     other, site         ssh b:22",
        f"secrets: {own_secrets / 'site'}",
    ]
    assert result.exit_code == 0
    assert not own_secrets.exists()


def test_check_names_what_is_refused(inventory: Path) -> None:
    inventory.write_text('gpu = [("box", {"olama_port": 1})]\n')
    result = CliRunner().invoke(cli.main, ["check", str(inventory)])
    assert result.exit_code == 1
    assert "box: olama_port = 1: unknown setting; did you mean ollama_port?" in result.output


LOGIN = {"ssh_user": "ops", "_sudo": True, "ssh_strict_host_key_checking": "yes"}


def test_sample_inventory_is_sound_and_logs_in() -> None:
    state, fleet = open_inventory(ROOT / "inventory" / "prod.py", CAPABILITIES)
    names = ["gpu1.example.internal", "gpu2.example.internal", "edge.example.internal"]
    assert [host.name for host in fleet] == names
    assert [{key: host.data.get(key) for key in LOGIN} for host in state.inventory] == [LOGIN] * 3


def test_sample_of_the_readme_is_sound(tmp_path: Path) -> None:
    path = tmp_path / "prod.py"
    path.write_text(block("README.md", "gpu = ("))
    fleet = open_inventory(path, CAPABILITIES)[1]
    assert [host.name for host in fleet] == ["gpu1.example.internal", "edge.example.internal"]
    path.write_text(block("README.md", "ssh_user = "))
    assert LOGIN.items() <= runpy.run_path(str(path)).items()


def test_samples_of_the_manual_lose_no_host(tmp_path: Path) -> None:
    """They are added to an inventory as they are."""
    path = tmp_path / "prod.py"
    pages = ("dify", "webui")
    samples = [block(f"docs/operating/{page}.md", f"{page} = (") for page in pages]
    path.write_text("\n".join([(ROOT / "inventory" / "prod.py").read_text(), *samples]))
    check(path, group_names(CAPABILITIES))
    ctx_state.set(State(check_for_changes=False))  # type: ignore[no-untyped-call]
    hosts = {host.name for host in make_inventory(str(path), cwd=str(ROOT))}
    assert {"chat.example.internal", "page.example.internal"} < hosts
