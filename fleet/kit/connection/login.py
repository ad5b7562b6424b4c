"""What a login must be for commands to mean the same on every host."""

from __future__ import annotations

from collections.abc import Callable

from pyinfra.api import QuoteString, StringCommand
from pyinfra.api.exceptions import ConnectError
from pyinfra.connectors.util import CommandOutput

# Told apart by shells that are not sh's kin: a line feed, and what stands between quotes.
_TEXT = "llm-fleet: it's a\\b$c!d\ne"
_ECHO = "llm-fleet-login"

# Runs a command as the login itself, or as root by the login's way.
Ask = Callable[[StringCommand], tuple[bool, CommandOutput]]


def examine(user: str, as_login: Ask, as_root: Ask) -> None:
    """Refuse a login under which commands would not do what they say.

    Raises:
        ConnectError: what is in the way, and what to do about it.
    """
    heard = as_login(StringCommand("printf '%s\\n'", QuoteString(_TEXT)))[1]
    if heard.stdout_lines != _TEXT.split("\n"):
        raise ConnectError(_why_not(user, as_login))
    ok, answer = as_root(StringCommand("id -u"))
    if not ok or not answer.stdout_lines:
        said = " ".join(answer.stderr.split()) or "it said nothing"
        raise ConnectError(
            f"{user} does not become root without being asked: {said}; let sudo ask for no "
            f"password: `{user} ALL=(ALL) NOPASSWD: ALL` in /etc/sudoers.d"
        )
    if answer.stdout_lines != ["0"]:
        raise ConnectError(
            f"commands run with user id {answer.stdout_lines[-1]} and not as root; declare "
            "_sudo = True for this host, or log in as root"
        )


def _why_not(user: str, as_login: Ask) -> str:
    heard = as_login(StringCommand("echo", _ECHO))[1]
    lines = heard.stdout_lines
    if lines == [_ECHO]:
        shell = as_login(StringCommand("echo $SHELL"))[1].stdout or "unknown"
        return (
            f"the login shell of {user} is {shell}, which does not pass a command on as it is "
            f"written; give that user sh or bash: usermod --shell /bin/bash {user}"
        )
    if _ECHO in lines:
        greeting = next(line for line in lines if line != _ECHO)
        return (
            f"the login of {user} writes {greeting!r} before what a command writes; let it greet "
            "people only: in .bashrc, /etc/bash.bashrc or what else writes it, go behind "
            "`case $- in *i*) ;; *) return ;; esac`"
        )
    said = " ".join((heard.stdout or heard.stderr).split()) or "it said nothing"
    return (
        f"the login of {user} runs no command ({said}); it needs a shell, and no forced command "
        "in sshd's configuration or authorized_keys"
    )
