"""The examples for clients: all are told of, and their locks are of what they say they need."""

from __future__ import annotations

import json
import re

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from fleet.declare.fleet import PRODUCT_ROOT

EXAMPLES = PRODUCT_ROOT / "examples"


def test_its_page_names_each() -> None:
    programs = {path.name for path in EXAMPLES.glob("*.py")}
    programs |= {f"node/{path.name}" for path in (EXAMPLES / "node").glob("*.mjs")}
    named = re.findall(r"`((?:node/)?\w+\.(?:py|mjs))`", (EXAMPLES / "README.md").read_text())
    assert set(named) == programs


def test_lock_has_what_is_needed() -> None:
    lines = (EXAMPLES / "requirements.in").read_text().splitlines()
    needed = {canonicalize_name(Requirement(line).name) for line in lines}
    entries = re.findall(r"(?m)^([\w.-]+)==\S+(.*(?:\n .*)*)", _lock())
    locked = {canonicalize_name(name): rest for name, rest in entries}
    assert needed
    assert needed <= set(locked)
    assert [name for name, rest in locked.items() if "--hash=sha256:" not in rest] == []


def _lock() -> str:
    return (EXAMPLES / "requirements.lock").read_text()


def test_lock_of_node_is_of_the_same_versions() -> None:
    package = json.loads((EXAMPLES / "node" / "package.json").read_text())
    lock = json.loads((EXAMPLES / "node" / "package-lock.json").read_text())["packages"]
    assert lock.pop("")["dependencies"] == package["dependencies"]
    assert {f"node_modules/{name}" for name in package["dependencies"]} <= set(lock)
    assert [name for name, entry in lock.items() if "integrity" not in entry] == []
