"""Which lines of a unit's journal are evidence."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from fleet.kit.journal import evidence_of, journal_of


@pytest.mark.parametrize(
    ("invocation", "restarts", "asked"),
    [
        ("0123abcd", "0", "_SYSTEMD_INVOCATION_ID=0123abcd + INVOCATION_ID=0123abcd"),
        ("0123abcd", "", "_SYSTEMD_INVOCATION_ID=0123abcd + INVOCATION_ID=0123abcd"),
        ("0123abcd", "12", "-u it's a.service"),
        ("", "0", "-u it's a.service"),
        ("", "", "-u it's a.service"),
    ],
)
def test_run_that_is_asked_for(  # noqa: PLR0917 - three of them are the case
    systemctl: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    invocation: str,
    restarts: str,
    asked: str,
) -> None:
    systemctl.update(InvocationID=invocation, NRestarts=restarts)
    (tmp_path / "journalctl").write_text('#!/bin/sh\necho "$*"\n')
    (tmp_path / "journalctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    command = journal_of("it's a.service", 20).get_raw_value()
    said = subprocess.run(["sh", "-c", command], check=True, capture_output=True, text=True)
    assert said.stdout == f"--no-pager -o cat -n 20 {asked}\n"


@pytest.mark.parametrize(
    ("own", "last"), [("port 1 is taken", "a.service: port 1 is taken"), ("", "Consumed 2 s")]
)
def test_the_units_own_last_line_comes_last(
    systemctl: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str, last: str
) -> None:
    systemctl.update(InvocationID="0123abcd", NRestarts="0")
    (tmp_path / "journalctl").write_text(
        "#!/bin/sh\n"
        'case "$*" in *" -n 1 _SYSTEMD_INVOCATION_ID=0123abcd") printf %s "$SAID";;'
        ' *) printf "%s\\n" "$SAID" "Consumed 2 s";; esac\n'
    )
    (tmp_path / "journalctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SAID", own)
    command = evidence_of("a.service").get_raw_value()
    said = subprocess.run(["sh", "-c", command], check=False, capture_output=True, text=True)
    assert said.stdout.splitlines()[-1] == last
