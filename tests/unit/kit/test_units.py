"""A reload that systemctl takes for done, and what the unit itself says of it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from pyinfra.api import StringCommand

from fleet.kit import units
from fleet.kit.units import Reload


def _reload(directory: Path, does: str) -> subprocess.CompletedProcess[str]:
    """Reload a unit that does so by the shell's `does`, and tells by the file `runs`."""
    systemctl = directory / "systemctl"
    systemctl.write_text(f"#!/bin/sh\n[ \"$*\" = 'reload a.service' ] && {does}\n")
    systemctl.chmod(0o755)
    (directory / "error.log").write_text("of long ago\n" * 9)
    told = Reload((), StringCommand("cat runs 2>/dev/null"), str(directory / "error.log"))
    return subprocess.run(
        ["sh", "-c", units._taken("a.service", told).get_raw_value()],
        cwd=directory, env={"PATH": f"{directory}:{os.environ['PATH']}"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("does", ["echo 2 > runs", "{ (sleep 0.5; echo 2 > runs) & }"])
def test_taken_at_once_and_after_a_while(tmp_path: Path, does: str) -> None:
    (tmp_path / "runs").write_text("1")
    done = _reload(tmp_path, does)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "runs").read_text() == "2\n"


def test_taken_by_one_that_did_not_tell_before(tmp_path: Path) -> None:
    assert _reload(tmp_path, "{ (sleep 0.3; echo 2 > runs) & }").returncode == 0


@pytest.mark.parametrize("does", ["true", "rm runs"])
def test_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, does: str) -> None:
    monkeypatch.setattr(units, "_LOOKS", 3)
    (tmp_path / "runs").write_text("1")
    done = _reload(tmp_path, f"{{ {does}; printf 'what is wrong:\\n and where\\n' >> error.log; }}")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "what is wrong:",
        " and where",
        "a.service runs on with the configuration of before: what is wrong:",
    ]


def test_refused_by_systemd(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("1")
    done = _reload(tmp_path, "{ echo 'no such unit' >&2; exit 5; }")
    assert done.returncode == 1
    assert done.stderr.startswith("no such unit\n")
