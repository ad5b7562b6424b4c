"""`fleet --version` and a deploy say which checkout they are run from."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from fleet import cli
from fleet.version import ROOT, Build, build, standing, version

DECLARED = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git checkout with one commit."""
    # Of git's settings and of a repository around the tests, nothing may count here.
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    root = tmp_path / "checkout"
    root.mkdir()
    (root / "pyproject.toml").write_text('[project]\nversion = "1.2.3"\n')
    git(root, "init", "--quiet")
    git(root, "config", "user.name", "test")
    git(root, "config", "user.email", "test@example.com")
    git(root, "add", "pyproject.toml")
    git(root, "commit", "--quiet", "--message", "one")
    return root


def git(root: Path, *words: str) -> str:
    command = ["git", "-C", str(root), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_version_names_the_commit(checkout: Path) -> None:
    commit = git(checkout, "rev-parse", "HEAD")[:12]
    assert version(checkout) == f"1.2.3 ({commit})"
    git(checkout, "tag", "v1.2.3")
    (checkout / "untracked").touch()
    assert version(checkout) == f"1.2.3 ({commit})"
    (checkout / "pyproject.toml").write_text('[project]\nversion = "1.2.4"\n')
    assert version(checkout) == f"1.2.4 ({commit}-dirty)"


def test_copy_without_git_has_no_commit(checkout: Path) -> None:
    """Not even that of a repository which the copy happens to lie in."""
    copy = checkout / "copy"
    copy.mkdir()
    (copy / "pyproject.toml").write_text('[project]\nversion = "1.2.3"\n')
    assert version(copy) == "1.2.3"


@pytest.mark.parametrize(
    ("built", "shown"),
    [
        (f"{'0123456789' * 4}", "1.2.3 (012345678901)"),
        ("ab-dirty", "1.2.3 (ab-dirty)"),
        ("", "1.2.3"),
    ],
)
def test_wheel_has_the_commit_that_it_was_built_of(built: str, shown: str, checkout: Path) -> None:
    """... whatever repository it is installed in."""
    (checkout / "COMMIT").write_text(f"{built}\n")
    assert version(checkout) == shown


def test_commit_that_git_does_not_tell_is_said_to_be_unknown(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (checkout / ".git" / "HEAD").write_text("ref: refs/heads/none\n")
    assert version(checkout).startswith("1.2.3 (commit unknown: fatal: ")
    monkeypatch.setenv("PATH", str(checkout))
    assert "No such file or directory: 'git'" in version(checkout)


def commit(root: Path, name: str) -> str:
    git(root, "commit", "--quiet", "--allow-empty", "--message", name)
    return git(root, "rev-parse", "HEAD")


def test_how_two_commits_stand_to_each_other(checkout: Path) -> None:
    first = git(checkout, "rev-parse", "HEAD")
    second = commit(checkout, "two")
    git(checkout, "checkout", "--quiet", "-b", "aside", first)
    aside = commit(checkout, "aside")
    git(checkout, "checkout", "--quiet", "--detach", second)
    found = {other: standing(other, checkout) for other in (first, second, aside, "ab" * 20)}
    assert list(found.values()) == ["newer", "same", "apart", "unknown"]
    git(checkout, "checkout", "--quiet", "--detach", first)
    build.cache_clear()
    standing.cache_clear()
    assert standing(second, checkout) == "older"


def test_build_is_version_commit_and_whether_files_differ(checkout: Path) -> None:
    assert build(checkout) == Build("1.2.3", git(checkout, "rev-parse", "HEAD"), dirty=False)
    build.cache_clear()
    (checkout / "pyproject.toml").write_text('[project]\nversion = "1.2.4"\n')
    assert build(checkout).dirty
    copy = checkout / "copy"
    copy.mkdir()
    (copy / "pyproject.toml").write_text('[project]\nversion = "1.2.3"\n')
    assert build(copy) == Build("1.2.3", None, dirty=False)


def test_command_says_its_version() -> None:
    result = CliRunner().invoke(cli.main, ["--version"])
    assert result.exit_code == 0
    assert result.output == f"llm-fleet {version()}\n"
    assert result.output.startswith(f"llm-fleet {DECLARED}")


def test_deploy_says_its_version_first(tmp_path: Path) -> None:
    """Once, and before anything is connected; and by which name its locks know it."""
    (tmp_path / "empty.py").write_text("gpu = []\n")
    result = subprocess.run(
        [Path(sys.executable).parent / "pyinfra", tmp_path / "empty.py", "deploy.py", "--dry"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = (result.stdout + result.stderr).splitlines()
    [line] = [line for line in lines if "llm-fleet" in line]
    assert re.fullmatch(rf"--> llm-fleet {re.escape(version())}, run [0-9a-f]{{8}}", line)
