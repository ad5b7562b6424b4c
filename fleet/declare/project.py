"""Where the operator's files are; the product's own are in `PRODUCT_ROOT`, a checkout or installed.

An operator's directory has `inventory/`, `group_data/`, the secrets and the files that settings
name. It is known by `config.py` and `deploy.py`, which pyinfra executes where it is run, and which
import the product, both of them: others deploy by pyinfra too, and may use a part of this product
beside what they have written. A checkout is one; `fleet init` makes others.
"""

from __future__ import annotations

import re
from pathlib import Path

import pyinfra

from fleet.declare.fleet import PRODUCT_ROOT
from fleet.kit.errors import FleetError

_CONFIG, _DEPLOY = "config.py", "deploy.py"
# What the starter's files have, or those of a checkout.
_IMPORTS_US = re.compile(
    r"^\s*(?:import|from)\s+(?:llm_fleet|fleet\.(?:capabilities|declare|kit))\b", re.MULTILINE
)
_entered: list[Path] = []


def enter() -> None:
    """Say that pyinfra has run the `config.py` of the directory it was started in."""
    _entered[:] = [Path.cwd()]


def project_of(inventory: Path | None) -> Path:
    """The operator's directory: that of the file `inventory`, else that of this process.

    In a process of pyinfra's it is where that was started.

    Raises:
        FleetError: there is none, or pyinfra's command line was started elsewhere.
    """
    here = Path.cwd()
    if pyinfra.is_cli:
        if here not in (PRODUCT_ROOT, *_entered):
            # pyinfra reads group_data from where it is run, and says nothing when there is none.
            raise FleetError(f"run pyinfra in {_wanted()}, or group_data there is not read")
        return here
    folders = [here, *here.parents]
    if inventory is not None:
        # A link to it is the operator's as well as what it leads to.
        beside = inventory.parent.resolve()
        folders = [beside, *beside.parents, *inventory.resolve().parents, *folders]
    for folder in [*folders, PRODUCT_ROOT]:
        if _is_ours(folder) and not _is_installed(folder):
            return folder
    raise FleetError(f"{here}: no fleet's directory; run this in {_wanted()}")


def _is_ours(folder: Path) -> bool:
    """Whether pyinfra deploys this product there, and not what somebody else has written."""
    try:
        texts = [(folder / name).read_text(errors="replace") for name in (_CONFIG, _DEPLOY)]
    except OSError:
        return False
    return all(map(_IMPORTS_US.search, texts))


def _is_installed(folder: Path) -> bool:
    """Whether it is the product in somebody's environment, where no operator's files belong."""
    return (folder / "COMMIT").exists()


def _wanted() -> str:
    if _is_installed(PRODUCT_ROOT):
        return "the directory that `fleet init` has made, with config.py and deploy.py"
    return f"{PRODUCT_ROOT} or in a directory that `fleet init` has made"
