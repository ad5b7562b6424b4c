"""A unit file that systemd would partly ignore is refused before it replaces anything."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from fleet.kit.commands import verify_unit

_UNIT = "[Service]\nExecStart=/bin/true\n{line}\n"


def _verify(directory: Path, line: str) -> subprocess.CompletedProcess[str]:
    (directory / "probe.service").write_text(_UNIT.format(line=line))
    return subprocess.run(
        ["/bin/sh", "-c", verify_unit("probe.service").get_raw_value()],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
    )


def test_good_unit_is_accepted(tmp_path: Path) -> None:
    result = _verify(tmp_path, "ProtectHome=yes")
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("ProtectHme=yes", "Unknown key"),
        ("ProtectHome=perhaps", "perhaps"),
        ("ExecStartPre=/no/such/program", "/no/such/program"),
    ],
)
def test_line_that_systemd_would_ignore_is_refused(tmp_path: Path, line: str, said: str) -> None:
    result = _verify(tmp_path, line)
    assert result.returncode != 0
    assert said in result.stderr
