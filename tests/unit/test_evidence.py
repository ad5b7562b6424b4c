"""What waits for a unit shows the unit's journal when it fails, wherever it is written."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# A start that nobody waits for has nothing to tell yet; `run_job` shows the journal by itself.
_WAITS = re.compile(
    r"systemctl (?!.*--no-block)(start|restart|reload|stop)\b|systemctl', verb|systemd-run"
)
_SHOWS = {"or_journal", "run_job"}
# What others hand to `run_job`.
_HANDED_ON = {("fleet/kit/jobs.py", "start_job"), ("fleet/kit/loaders.py", "_start")}


def _waiting(path: Path) -> Iterator[tuple[str, str, bool]]:
    """Function, source, and whether evidence follows, of each command in `path` that waits."""
    tree = ast.parse(path.read_text())
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
            continue
        waits = node.func.id == "when_answers"
        if node.func.id == "StringCommand":
            waits = bool(_WAITS.search(ast.unparse(node)))
        if not waits:
            continue
        above = list(_above(node, parents))
        calls = {
            item.func.id
            for item in above
            if isinstance(item, ast.Call) and isinstance(item.func, ast.Name)
        }
        [function, *_] = [item.name for item in above if isinstance(item, ast.FunctionDef)]
        shown = bool(calls & _SHOWS) or "journal_of(" in ast.unparse(node)
        yield function, ast.unparse(node), shown


def _above(node: ast.AST, parents: dict[ast.AST, ast.AST]) -> Iterator[ast.AST]:
    while node in parents:
        node = parents[node]
        yield node


_FILES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "fleet").rglob("*.py"))


@pytest.mark.parametrize("name", [name for name in _FILES if "/on_host/" not in name])
def test_evidence_follows(name: str) -> None:
    silent = [
        source
        for function, source, shown in _waiting(ROOT / name)
        if not shown and (name, function) not in _HANDED_ON
    ]
    assert silent == []


def test_the_search_finds_some() -> None:
    """... or it would find nothing silent either."""
    found = {name for name in _FILES if any(_waiting(ROOT / name))}
    assert {"fleet/kit/units.py", "fleet/gates/operations.py", "fleet/dify/backups.py"} <= found
