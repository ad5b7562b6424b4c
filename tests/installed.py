"""The wheel, built of this checkout, and an environment that has it and not the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path

from fleet.declare.fleet import PRODUCT_ROOT

_QUIET = {"PIP_DISABLE_PIP_VERSION_CHECK": "1"}
# What would lead the product back to the checkout.
_OURS = ("PYTHONPATH", "INVENTORY", "LLM_FLEET_LAB_ID")


def build_wheel(folder: Path) -> Path:
    """The one wheel of this checkout, in `folder`."""
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    run([*command, "--no-index", "--wheel-dir", folder, PRODUCT_ROOT], folder)
    [wheel] = folder.glob("*.whl")
    return wheel


def lend_packages(environment: Path) -> None:
    """Have in the virtual `environment` the packages of this one, without downloading them.

    The checkout is not among them: what leads to it is not read in a folder that is lent.
    """
    [site] = environment.glob("lib/python3*/site-packages")
    (site / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    for name in ("pyinfra", "pytest"):
        program = environment / "bin" / name
        lines = (Path(sys.executable).parent / name).read_text().splitlines(keepends=True)
        program.write_text("".join([f"#!{environment}/bin/python\n", *lines[1:]]))
        program.chmod(0o755)


def run(
    command: Sequence[str | Path], folder: Path, *, check: bool = True, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run `command` in `folder`; what it says is in the error when it must succeed."""
    kept: Mapping[str, str] = {key: value for key, value in os.environ.items() if key not in _OURS}
    result = subprocess.run(
        [str(word) for word in command], cwd=folder, env={**kept, **_QUIET, **environment},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert not check or result.returncode == 0, (
        f"{command}: {result.returncode}\n{result.stdout[-4000:]}\n{result.stderr[-4000:]}"
    )
    return result
