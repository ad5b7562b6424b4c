"""Commands of several operations, run by a real shell."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from pyinfra.api import StringCommand

from fleet.kit.commands import fail, or_journal, verify_unit, when_answers

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


class TestEvidence:
    """Whichever way a command fails, the unit's journal follows."""

    @pytest.fixture(autouse=True)
    def _tools(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "journalctl").write_text('#!/bin/sh\necho "the journal: $*"\n')
        (tmp_path / "journalctl").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    @pytest.mark.parametrize(
        "command",
        [
            StringCommand("false"),
            fail("the reason"),
            StringCommand("exit 3"),
            when_answers("http://127.0.0.1:1/", seconds=1),
            StringCommand("/no/such/program"),
        ],
        ids=["false", "fail", "exit", "no answer", "no program"],
    )
    def test_journal_follows_a_failure(self, command: StringCommand) -> None:
        result = _sh(or_journal(command, "a.service"))
        assert result.returncode == 1
        assert "-u a.service" in result.stderr.partition("the journal:")[2]

    def test_nothing_follows_a_success(self) -> None:
        result = _sh(or_journal(StringCommand("read line; echo got $line"), "a.service"), "text")
        assert (result.returncode, result.stdout, result.stderr) == (0, "got text\n", "")


def _sh(command: StringCommand, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", "-c", command.get_raw_value()],
        input=stdin, capture_output=True, text=True, check=False,
    )  # fmt: skip
