"""Inventory files: pyinfra loses no host of one that is accepted, and each mistake has its line."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from itertools import dropwhile, takewhile
from pathlib import Path

import pytest
from pyinfra.api import State
from pyinfra.context import ctx_state

from fleet.capabilities import CAPABILITIES
from fleet.declare.fleet import PRODUCT_ROOT
from fleet.declare.inventory_file import check
from fleet.declare.load import group_names
from fleet.declare.open import make_inventory, open_inventory
from fleet.kit.errors import FleetError, SettingsError

BOX = '("box", {"private_address": "10.0.0.5", "gateway_keys": ["team-a"]})'


def block(page: str, start: str) -> str:
    """The sample of a page that begins with `start`, indented or fenced."""
    lines = (PRODUCT_ROOT / page).read_text().splitlines()
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
        ('gpu = ["a", "b", "a"]', ["gpu: a is there 2 times", "a name of its own"]),
        ('gpu = [("a", {"x": 1}), ("a", {"x": 1})]', ["gpu: a is there 2 times"]),
        ('gpu = (["a"], {})\nall = ["a", ("a", {})]', ["all: a is there 2 times"]),
        ('site_a = ["a", "a"]\ngpu = ["a"]', ["site_a: a is there 2 times"]),
        (
            'gpu = [("a", {"ssh_port": 1})]\ngateway = [("a", {"ssh_port": 2})]',
            ["gateway: a has another ssh_port here than in gpu", "declare it once"],
        ),
        (
            'gpu = [("a", {"ssh_port": 1})]\nall = ([("a", {"ssh_port": 2})], {})',
            ["all: a has another ssh_port here than in gpu"],
        ),
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
        'gpu = gateway = [("a", {"ssh_port": 2})]\nall = [("a", {"ssh_user": "ops"})]',
        '_names = ["a", "a"]\ngpu = ["a"]',
        'gpu = ["a"]\ngpu = gpu + ["b"]\ngpu += ["c"]\nport = 1\nport = 2',
        '_some = ["a"]\n_some = ["b"]\ngpu = _some',
        # Its hosts, and what groups they are in, are known later.
        'all = ["@terraform"]\ngpu = (["a"], {})',
    ],
)
def test_accepted(inventory: Path, text: str) -> None:
    inventory.write_text(text)
    check(inventory, group_names(CAPABILITIES))


def test_group_that_is_there_twice(inventory: Path) -> None:
    """Python has the second one only."""
    inventory.write_text('gpu = ["a"]\ngateway = ["c"]\n\ngpu = (["b"], {})\n')
    with pytest.raises(SettingsError) as refused:
        check(inventory, group_names(CAPABILITIES))
    [line] = refused.value.problems
    assert line.startswith(f"{inventory}:4: gpu is there from line 1 on already")


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
        cwd=PRODUCT_ROOT, capture_output=True, text=True, check=False,
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


LOGIN = {"ssh_user": "ops", "_sudo": True, "ssh_strict_host_key_checking": "yes"}


def test_sample_inventory_is_sound_and_logs_in() -> None:
    state, fleet = open_inventory(PRODUCT_ROOT / "inventory" / "prod.py", CAPABILITIES)
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
    path.write_text("\n".join([(PRODUCT_ROOT / "inventory" / "prod.py").read_text(), *samples]))
    check(path, group_names(CAPABILITIES))
    ctx_state.set(State(check_for_changes=False))  # type: ignore[no-untyped-call]
    hosts = {host.name for host in make_inventory(str(path), cwd=str(PRODUCT_ROOT))}
    assert {"chat.example.internal", "page.example.internal"} < hosts
