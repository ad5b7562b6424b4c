"""What tests of rendered files have in common: how they are read, and who judges them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from fleet.firewall.paths import FIREWALL_GUARD
from fleet.kit.files import ManagedFile
from fleet.ollama.paths import OLLAMA_BINARY


def lines(text: str) -> list[str]:
    """The lines of `text` without their indentation."""
    return [line.strip() for line in text.splitlines()]


def nft_listing(directory: Path, ruleset: str) -> str:
    """What nft lists after it has loaded `ruleset` in a network namespace that ends with it."""
    path = directory / "ruleset.nft"
    path.write_text(ruleset)
    script = f"nft -f {path} && nft --stateless list ruleset"
    return subprocess.run(
        ["unshare", "--user", "--map-root-user", "--net", "sh", "-c", script],
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def lay(directory: Path, file: ManagedFile) -> None:
    """Lay a unit's file where `complaints` looks for it."""
    # systemd-analyze wants the programs, which this machine has no reason to have.
    text = file.text.replace("/usr/bin/docker", "/bin/true")
    for program in (OLLAMA_BINARY, FIREWALL_GUARD):
        text = text.replace(f"={program}", "=/bin/true")
    (directory / file.staged_name).write_text(text)


def complaints(directory: Path, name: str) -> str:
    """What systemd says of a unit: of a misspelt key too, which does not make the exit status."""
    result = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", f"./{name}"],
        cwd=directory,
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{directory}:"},
        check=False,
        capture_output=True,
        text=True,
    )
    return result.stdout + result.stderr
