"""Which llm-fleet this is: the version of `pyproject.toml`, and the commit that it was made of."""

from __future__ import annotations

import subprocess
import tomllib
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

ROOT = Path(__file__).resolve().parent.parent

# How this checkout's commit stands to another one.
Standing = Literal["same", "newer", "older", "apart", "unknown"]


class Build(NamedTuple):
    """What a deploy is made with: version, full commit (None when it is not known), uncommitted."""

    version: str
    commit: str | None
    dirty: bool


def version(root: Path = ROOT) -> str:
    """As in `0.2.0 (1a2b3c4d5e6f-dirty)`; without the commit where `root` is no git checkout.

    `-dirty` says that tracked files differ from the commit.
    """
    project = release(root)
    if (built := _built(root)) is not None:
        commit, mark, dirty = built.partition("-")
        return f"{project} ({commit[:12]}{mark}{dirty})" if commit else project
    # A checkout has a .git of its own: that of a folder above would tell of something else.
    if not (root / ".git").exists():
        return project
    return f"{project} ({_commit(root)})"


@cache
def build(root: Path = ROOT) -> Build:
    """The same for programs; no git checkout, and one of which git does not tell, have no commit.

    Asked once: what is changed while a run goes on is not what it was planned with.
    """
    if (built := _built(root)) is not None:
        commit, _, mark = built.partition("-")
        return Build(release(root), commit or None, dirty=bool(mark))
    head = _git(root, "rev-parse", "HEAD") if (root / ".git").exists() else None
    if head is None or head.returncode != 0:
        return Build(release(root), None, dirty=False)
    changed = _git(root, "diff-index", "--quiet", "HEAD", "--")
    dirty = changed is None or changed.returncode != 0
    return Build(release(root), head.stdout.strip(), dirty=dirty)


@cache
def standing(other: str, root: Path = ROOT) -> Standing:
    """How this checkout's commit stands to `other`, a full commit; what git does not know is so."""
    own = build(root).commit
    if own is None:
        return "unknown"
    if own == other:
        return "same"
    behind, ahead = _is_ancestor(root, own, other), _is_ancestor(root, other, own)
    if behind is None or ahead is None:
        return "unknown"
    return "older" if behind else "newer" if ahead else "apart"


def _is_ancestor(root: Path, first: str, second: str) -> bool | None:
    """Whether `second` has `first` in its history; None when git does not know one of them."""
    result = _git(root, "merge-base", "--is-ancestor", first, second)
    return None if result is None or result.returncode not in (0, 1) else result.returncode == 0


def release(root: Path = ROOT) -> str:
    """The version alone, as in `0.2.0`."""
    return str(tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"])


def _built(root: Path) -> str | None:
    """What a wheel has of the commit that it was built of, perhaps `-dirty`; None in a checkout."""
    path = root / "COMMIT"
    return path.read_text().strip() if path.exists() else None


def _git(root: Path, *words: str) -> subprocess.CompletedProcess[str] | None:
    """What git answers; None where there is no git."""
    try:
        return subprocess.run(
            ["git", "-C", str(root), *words], capture_output=True, text=True, check=False
        )
    except OSError:
        return None


def _commit(root: Path) -> str:
    # Tags are left out: the version is said already.
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        result = subprocess.run(
            [*command, "--exclude", "*"], capture_output=True, text=True, check=True
        )
    except OSError as error:
        return f"commit unknown: {error}"
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.strip().splitlines() or [f"git ended with {error.returncode}"])[0]
        return f"commit unknown: {reason}"
    return result.stdout.strip()
