"""The packages that `examples/` are run with: installed from their locks, once, into the cache."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from lab.state import CACHE, lock
from lab.upstream import build
from lab.upstream.artifacts import ensure_tool
from tests.lab.conftest import ROOT

EXAMPLES = ROOT / "examples"
_NODE_FILES = ("package.json", "package-lock.json")
# Some packages ask what is not there, on this machine and in a private network.
_QUIET = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "NPM_CONFIG_UPDATE_NOTIFIER": "false"}


def python() -> Path:
    """The interpreter of an environment with what `examples/requirements.lock` says."""
    requirements = EXAMPLES / "requirements.lock"

    def fill(into: Path) -> None:
        # A copy of pip in each would be a third of what the installation takes.
        _run(sys.executable, "-m", "venv", "--without-pip", into)
        _run(
            sys.executable, "-m", "pip", "--python", into / "bin" / "python", "install", "--quiet",
            "--no-compile", "--no-cache-dir", "--require-hashes", "--requirement", requirements,
        )  # fmt: skip

    name = build.key(requirements, extra=sys.version)
    return _cached(f"clients-python-{name}", fill) / "bin" / "python"


def node_modules() -> Path:
    """The folder with what `examples/node/package-lock.json` says, and Node itself on the PATH."""
    files = [EXAMPLES / "node" / name for name in _NODE_FILES]
    ensure_tool("node", "nodejs")
    npm = ensure_tool("npm", "npm")

    def fill(into: Path) -> None:
        for file in files:
            shutil.copy(file, into)
        _run(npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", into)

    return _cached(f"clients-node-{build.key(*files)}", fill) / "node_modules"


def _cached(name: str, fill: Callable[[Path], None]) -> Path:
    """The folder of that name, filled when it is not there; other ones of its kind go."""
    store = CACHE / "clients"
    with lock("clients", "waiting for other tests that install clients"):
        store.mkdir(parents=True, exist_ok=True)
        if not (store / name).exists():
            for former in store.glob(f"{name.rpartition('-')[0]}-*"):
                shutil.rmtree(former)
            build.once(store / name, fill)
    return store / name


def _run(*command: str | Path) -> None:
    done = subprocess.run(
        command, env=os.environ | _QUIET, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"
