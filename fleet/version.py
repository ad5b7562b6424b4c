"""Which llm-fleet this is: the version of `pyproject.toml`, and the commit that it was made of."""

from __future__ import annotations

import subprocess
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def version(root: Path = ROOT) -> str:
    """As in `0.2.0 (1a2b3c4d5e6f-dirty)`; without the commit where `root` is no git checkout.

    `-dirty` says that tracked files differ from the commit.
    """
    project = release(root)
    # Written when a wheel is built.
    if (built := root / "COMMIT").exists():
        commit, *dirty = built.read_text().strip().split("-")
        return f"{project} ({'-'.join([commit[:12], *dirty])})" if commit else project
    # A checkout has a .git of its own: that of a folder above would tell of something else.
    if not (root / ".git").exists():
        return project
    return f"{project} ({_commit(root)})"


def release(root: Path = ROOT) -> str:
    """The version alone, as in `0.2.0`."""
    return str(tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"])


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
