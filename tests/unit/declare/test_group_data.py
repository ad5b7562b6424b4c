"""Files of group_data that nobody reads are told, before a host is reached."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fleet.capabilities import CAPABILITIES
from fleet.declare import group_data
from fleet.declare.fleet import PRODUCT_ROOT
from fleet.declare.group_data import problems
from fleet.declare.inventory_file import check
from fleet.declare.load import group_names
from fleet.declare.open import open_inventory
from fleet.kit.errors import SettingsError

BOX = '("box", {"private_address": "10.0.0.5", "gateway_keys": ["team-a"]})'


def declared(inventory: Path, text: str, *names: str) -> Path:
    """The inventory, with these files in a `group_data` beside it."""
    inventory.write_text(text)
    folder = inventory.parent / "group_data"
    folder.mkdir()
    for name in names:
        (folder / name).write_text('ssh_strict_host_key_checking = "yes"\n')
    return folder


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("gpus.py", ["no group is called gpus", "did you mean gpu?"]),
        # The login's file, misnamed: without it host keys are not checked.
        ("sites.py", ["no group is called sites", "did you mean site?"]),
        ("GPU.py", ["no group is called GPU"]),
        ("everyone.py", ["no group is called everyone", "rename it (there are all, "]),
        ("gpu.yaml", ["reads files that end with .py only"]),
        ("site.py.txt", ["reads files that end with .py only"]),
    ],
)
def test_refused(inventory: Path, name: str, parts: list[str]) -> None:
    folder = declared(inventory, f"gpu = gateway = [{BOX}]\n", "all.py", name)
    with pytest.raises(SettingsError) as refused:
        check(inventory, group_names(CAPABILITIES))
    [line] = refused.value.problems
    assert line.startswith(f"{folder / name}: ")
    assert [part for part in parts if part not in line] == [], line


@pytest.mark.parametrize(
    "name",
    [
        "all.py", "site.py", "gpu.py", "lovely.py", "_shared.py", "README.md",
        # A group that this inventory has no host of, and those of an inventory beside it.
        "webui.py", "other.py", "theirs.py",
    ],
)  # fmt: skip
def test_read_by_somebody(inventory: Path, name: str) -> None:
    (inventory.parent / "other.py").write_text('theirs = ["b"]\n')
    text = f'gpu = gateway = [{BOX}]\nlovely = ["box"]\n'
    declared(inventory, text, name)
    check(inventory, group_names(CAPABILITIES))
    assert open_inventory(inventory, CAPABILITIES)


def test_groups_of_a_connector_are_known_later(inventory: Path) -> None:
    declared(inventory, 'gpu = ["@docker/debian"]\n', "gpus.py")
    check(inventory, group_names(CAPABILITIES))
    with pytest.raises(SettingsError, match="no group is called gpus"):
        open_inventory(inventory, CAPABILITIES)


def test_folder_of_the_project(tmp_path: Path) -> None:
    """It is read for every inventory, wherever that is."""
    project, inventory = tmp_path / "project", tmp_path / "elsewhere" / "site.py"
    for folder in (project / "group_data", project / "inventory", inventory.parent):
        folder.mkdir(parents=True)
    (project / "inventory" / "prod.py").write_text('gpu = ["a"]\n')
    for name in ("prod.py", "gpu.py", "prd.py"):
        (project / "group_data" / name).touch()
    [line] = problems(inventory, project, {"gpu", "site"})
    assert line.startswith(f"{project / 'group_data' / 'prd.py'}: no group is called prd")
    assert "did you mean prod?" in line


@pytest.mark.parametrize("what", ["folder", "file", "nothing"])
def test_what_the_command_line_names_besides(
    tmp_path: Path, inventory: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--group-data` is read over all others, so a misnamed file there is lost as well."""
    inventory.write_text(f"gpu = gateway = [{BOX}]\n")
    folder = tmp_path / "more"
    folder.mkdir()
    for name in ("gpu.py", "prd.py"):
        (folder / name).touch()
    named = {"folder": folder, "file": folder / "prd.py", "nothing": folder / "none"}[what]
    monkeypatch.setattr(group_data, "_asked", [])
    group_data.also([str(named)])
    [line] = problems(inventory, inventory.parent, {"gpu", "gateway", "site"})
    told = "there is no such folder" if what == "nothing" else "no group is called prd"
    assert told in line
    group_data.also([])
    assert list(problems(inventory, inventory.parent, {"gpu", "gateway", "site"})) == []


@pytest.mark.parametrize(
    ("name", "more", "said"),
    [
        ("sites.py", (), "no group is called sites"),
        ("site.py", ("--group-data", "/no/such"), "--group-data /no/such: there is no such"),
    ],
)
def test_no_host_is_reached(inventory: Path, name: str, more: tuple[str, ...], said: str) -> None:
    declared(inventory, f"gpu = gateway = [{BOX}]\n", name)
    ended = subprocess.run(
        [Path(sys.executable).parent / "pyinfra", inventory, "deploy.py", "--dry", *more],
        cwd=PRODUCT_ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 1, ended.stderr
    assert said in ended.stderr
    assert "Loading inventory" not in ended.stderr
