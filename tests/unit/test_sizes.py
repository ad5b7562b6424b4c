"""A file has one reason to change, and so has a class: neither is longer than one reads."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet.declare.fleet import PRODUCT_ROOT

FOLDERS = ("fleet", "tasks", "tests/unit", "tests/plan", "tests/compliance")
MOST_OF_A_FILE = 500
MOST_OF_A_CLASS = 250


def too_long(folder: Path) -> Iterator[str]:
    """What of the Python files below `folder` is longer than that, and how many lines it has."""
    for path in sorted(folder.rglob("*.py")):
        name, text = path.relative_to(folder), path.read_text()
        if (lines := len(text.splitlines())) > MOST_OF_A_FILE:
            yield f"{name}: {lines}"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ClassDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                if lines > MOST_OF_A_CLASS:
                    yield f"{name}: {node.name}: {lines}"


@pytest.mark.parametrize("folder", FOLDERS)
def test_nothing_is_too_long(folder: str) -> None:
    assert list((PRODUCT_ROOT / folder).rglob("*.py"))
    assert list(too_long(PRODUCT_ROOT / folder)) == []


def test_what_is_too_long_is_noticed(tmp_path: Path) -> None:
    """... one line above the limit, and not at it."""
    room = tmp_path / "chess"
    room.mkdir()
    for surplus in (0, 1):
        (room / f"file{surplus}.py").write_text("\n" * (MOST_OF_A_FILE + surplus))
        lines = ["class Board:", *["    x = 1"] * (MOST_OF_A_CLASS - 1 + surplus)]
        (room / f"class{surplus}.py").write_text("\n".join(lines))
    assert list(too_long(tmp_path)) == ["chess/class1.py: Board: 251", "chess/file1.py: 501"]
