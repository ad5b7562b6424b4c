"""The product as another directory uses it: what `config.py` and `deploy.py` of a fleet call.

Beside this module lie the product's files: in a checkout where it is itself, installed in a folder
of their own.
"""

from __future__ import annotations

import sys
from pathlib import Path

_HERE = Path(__file__).resolve().parent
_INSTALLED = _HERE / "llm_fleet_product"
ROOT = _INSTALLED if _INSTALLED.is_dir() else _HERE

# Before the operator's own directory: a folder `tasks` there is none of this product's.
if sys.path[0] != str(ROOT):
    sys.path.insert(0, str(ROOT))


def config() -> None:
    """What pyinfra has to know before it reads an inventory."""
    _execute("config.py")


def deploy() -> None:
    """Every step of a deploy, on the host that pyinfra is at."""
    _execute("deploy.py")


def fleet() -> None:
    """The command `fleet`."""
    from fleet.cli import main  # noqa: PLC0415 - it is found by the path above

    main()


def _execute(name: str) -> None:
    # What is run so keeps pyinfra's order of operations, and its errors name the right file.
    from pyinfra_cli.util import exec_file  # noqa: PLC0415 - patches sockets and threads

    exec_file(str(ROOT / name))
