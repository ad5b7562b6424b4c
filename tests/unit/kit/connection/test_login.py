"""Which logins are refused, and with which words."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest
from pyinfra.api import QuoteString, StringCommand
from pyinfra.api.exceptions import ConnectError
from pyinfra.connectors.util import CommandOutput, OutputLine

from fleet.kit.connection.login import Ask, examine


def heard(ok: bool, stdout: str = "", stderr: str = "") -> tuple[bool, CommandOutput]:
    lines = [OutputLine("stdout", line) for line in stdout.splitlines()]
    return ok, CommandOutput(lines + [OutputLine("stderr", line) for line in stderr.splitlines()])


def shell(*words: str, change: Callable[[str], str] = str) -> Ask:
    """A login with this shell, which is given each command as sshd gives it."""

    def ask(command: StringCommand) -> tuple[bool, CommandOutput]:
        line = StringCommand("sh", "-c", QuoteString(command)).get_raw_value()
        done = subprocess.run(
            [*words, "-c", change(line)], capture_output=True, text=True, check=False
        )
        return heard(done.returncode == 0, done.stdout, done.stderr)

    return ask


def root(_: StringCommand) -> tuple[bool, CommandOutput]:
    return heard(True, "0\n")


def refusal(as_login: Ask, as_root: Ask = root) -> str:
    with pytest.raises(ConnectError) as refused:
        examine("ops", as_login, as_root)
    return str(refused.value)


@pytest.mark.parametrize("name", ["sh", "bash"])
def test_usual_logins(name: str) -> None:
    examine("ops", shell(name), root)


def test_greeting_on_standard_error_spoils_nothing() -> None:
    examine("ops", shell("sh", change=lambda line: f"echo Welcome >&2; {line}"), root)


@pytest.mark.parametrize("greeting", ["echo Welcome; {}", "{}; echo Bye"])
def test_greeting(greeting: str) -> None:
    said = refusal(shell("sh", change=greeting.format))
    word = "Welcome" if "Welcome" in greeting else "Bye"
    assert said.startswith(f"the login of ops writes '{word}' before what a command writes; let it")
    assert "case $- in *i*)" in said


def test_shell_that_reads_quotes_otherwise() -> None:
    """As tcsh, for which a quoted text ends with its line, or fish, which reads the backslash."""
    said = refusal(shell("sh", change=lambda line: line.replace("\n", "")))
    assert said.startswith("the login shell of ops is ")
    assert said.endswith("give that user sh or bash: usermod --shell /bin/bash ops")
    assert refusal(shell("sh", change=lambda line: line.replace("\\b", "b"))) == said


def test_login_that_runs_nothing() -> None:
    said = refusal(shell("sh", change=lambda _: "echo This account is not available.; false"))
    assert said == (
        "the login of ops runs no command (This account is not available.); it needs a shell, and "
        "no forced command in sshd's configuration or authorized_keys"
    )


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            heard(False, "", "sudo: a password is required"),
            "ops does not become root without being asked: sudo: a password is required; let sudo "
            "ask for no password: `ops ALL=(ALL) NOPASSWD: ALL` in /etc/sudoers.d",
        ),
        (
            heard(True, "1000\n"),
            "commands run with user id 1000 and not as root; declare _sudo = True for this host, "
            "or log in as root",
        ),
    ],
)
def test_login_that_is_not_roots(answer: tuple[bool, CommandOutput], words: str) -> None:
    assert refusal(shell("sh"), lambda _: answer) == words
