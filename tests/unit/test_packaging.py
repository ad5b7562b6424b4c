"""What is fetched is pinned, and the lock is what pyproject.toml asks for."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ASKED = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]
LOCK = (ROOT / "requirements.lock").read_text()
LOCKED = dict(re.findall(r"(?m)^([a-z0-9.-]+)==(\S+)", LOCK))


@pytest.mark.parametrize("line", ASKED)
def test_lock_has_what_is_asked_for(line: str) -> None:
    """A raised bound in pyproject.toml alone would change nothing that is installed."""
    requirement = Requirement(line)
    assert requirement.name in LOCKED, "lock it: CONTRIBUTING.md says how"
    assert requirement.specifier.contains(LOCKED[requirement.name])


def test_every_locked_package_has_its_checksums() -> None:
    entries = re.split(r"(?m)^(?=\S)", LOCK)[1:]
    assert len(entries) == len(LOCKED)
    assert [entry.split("\n")[0] for entry in entries if "--hash=sha256:" not in entry] == []


def test_decision_says_why_each_dependency_is_there() -> None:
    table = (ROOT / "docs" / "decisions" / "0001-dependencies.md").read_text()
    cells = re.findall(r"(?m)^\| (.+?) \|", table)
    named = {word for cell in cells for word in re.split(r"[ ,]+", cell)}
    families = tuple(word.removesuffix("*") for word in named if word.endswith("*"))
    names = [Requirement(line).name for line in ASKED]
    assert [n for n in names if n not in named and not n.startswith(families)] == []


def test_actions_are_pinned_by_commit() -> None:
    """A tag can be moved; the comment is what the dependency bot and people read."""
    workflows = (ROOT / ".github" / "workflows").glob("*.yml")
    lines = [
        line for path in workflows for line in path.read_text().splitlines() if "uses:" in line
    ]
    assert lines
    pinned = re.compile(r"\s*- uses: [\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")
    assert [line for line in lines if not pinned.fullmatch(line)] == []


def test_changelog_has_this_version() -> None:
    headings = re.findall(r"(?m)^## (.+)$", (ROOT / "CHANGELOG.md").read_text())
    assert headings[0] == "Unreleased"
    version, date = headings[1].split(" - ")
    assert version == f"v{PROJECT['version']}"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", date)
    kinds = re.findall(r"(?m)^### (.+)$", (ROOT / "CHANGELOG.md").read_text())
    assert set(kinds) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
