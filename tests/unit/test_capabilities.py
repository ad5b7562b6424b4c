"""Every room is in the list of capabilities, and every task in the list of a deploy."""

from __future__ import annotations

import ast
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet.capabilities import CAPABILITIES
from fleet.declare.fleet import PRODUCT_ROOT

ROOMS = {item.settings.__module__.split(".")[1] for item in CAPABILITIES}


def rooms_off_the_list(root: Path) -> set[str]:
    """The folders of `fleet/` with settings that belong to no capability."""
    # What all settings are made of is declare's.
    return (
        {path.parent.name for path in (root / "fleet").glob("*/settings.py")} - ROOMS - {"declare"}
    )


def tasks_off_the_list(root: Path) -> set[str]:
    """The deploys of `tasks/`, as `module.name`, that `deploy.py` does not call."""
    deploy = ast.parse((root / "deploy.py").read_text())
    called = {
        node.func.id
        for node in ast.walk(deploy)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    imported = {
        f"{node.module.removeprefix('tasks.')}.{alias.name}"
        for node in deploy.body
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tasks.")
        for alias in node.names
        if alias.name in called
    }
    return set(deploys(root)) - imported


def deploys(root: Path) -> Iterator[str]:
    """Each deploy of `tasks/`, and `module.` for a module without any."""
    for path in (root / "tasks").glob("[!_]*.py"):
        functions = [
            node.name
            for node in ast.parse(path.read_text()).body
            if isinstance(node, ast.FunctionDef)
            and any("deploy" in ast.unparse(item) for item in node.decorator_list)
        ]
        yield from (f"{path.stem}.{name}" for name in functions or [""])


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of what a deploy is made of."""
    for name in ("fleet", "tasks"):
        shutil.copytree(PRODUCT_ROOT / name, tmp_path / name)
    shutil.copy(PRODUCT_ROOT / "deploy.py", tmp_path)
    return tmp_path


def test_every_room_is_on_the_list() -> None:
    assert rooms_off_the_list(PRODUCT_ROOT) == set()


def test_every_task_is_called() -> None:
    assert tasks_off_the_list(PRODUCT_ROOT) == set()


def test_every_capability_has_its_task() -> None:
    assert {name.partition(".")[0] for name in deploys(PRODUCT_ROOT)} >= ROOMS


def test_room_that_was_forgotten_is_noticed(copy: Path) -> None:
    (copy / "fleet" / "chess").mkdir()
    (copy / "fleet" / "chess" / "settings.py").touch()
    assert rooms_off_the_list(copy) == {"chess"}


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("@deploy('Chess')\ndef chess(me):\n    pass\n", "chess.chess"),
        ("def chess(me):\n    pass\n", "chess."),
    ],
)
def test_task_that_was_forgotten_is_noticed(copy: Path, text: str, name: str) -> None:
    (copy / "tasks" / "chess.py").write_text(text)
    assert tasks_off_the_list(copy) == {name}


def test_task_that_is_imported_only_is_noticed(copy: Path) -> None:
    path = copy / "deploy.py"
    text = path.read_text()
    assert "    webui(me, fleet)\n" in text
    path.write_text(text.replace("    webui(me, fleet)\n", "    pass\n"))
    assert tasks_off_the_list(copy) == {"webui.webui"}
