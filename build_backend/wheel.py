"""What a wheel of the product is: the checkout's product files, below one folder of their own.

They lie there as in a checkout, so that the code finds its templates, programs and checks in the
same way. `llm_fleet.py` beside that folder is the only name that is added to an environment.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = "llm_fleet_product"
# Not the lab and the tests of the product itself; a fleet's files are those of the example.
PRODUCT = (
    "CHANGELOG.md", "LICENSE", "README.md", "config.py", "deploy.py", "docs", "fleet",
    "group_data/all.py", "group_data/prod.py", "inventory/prod.py", "pyproject.toml", "tasks",
    "templates", "tests/__init__.py", "tests/compliance",
)  # fmt: skip


class Product(BuildHookInterface):
    """Adds to a wheel what is no Python package, and to an editable installation the lab."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Say what is in it; `version` is `standard` or `editable`."""
        root = Path(self.root)
        if version == "editable":
            build_data["shared_scripts"][str(root / "build_backend" / "lab")] = "lab"
            return
        self._scratch = Path(tempfile.mkdtemp())
        commit = self._scratch / "COMMIT"
        commit.write_text(f"{_commit(root)}\n")
        build_data["force_include"] |= {str(root / name): f"{FOLDER}/{name}" for name in PRODUCT}
        build_data["force_include"][str(commit)] = f"{FOLDER}/{commit.name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Leave nothing behind."""
        if version != "editable":
            shutil.rmtree(self._scratch)


def _commit(root: Path) -> str:
    """The commit that is built, `-dirty` with changes; empty where there is no git checkout."""
    if not (root / ".git").exists():
        return ""
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40"]
    command += ["--exclude", "*"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
