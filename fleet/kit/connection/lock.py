"""The lock of a run on a host: who deploys there, from where, since when."""

from __future__ import annotations

import getpass
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from paramiko import ChannelException, SSHClient
from pyinfra.api import QuoteString, StringCommand
from pyinfra.api.exceptions import ConnectError

from fleet.kit.paths import RUN, RUN_ID

NO_SESSION = (
    "sshd allows no further session on a connection; a deploy needs two, one for its lock: "
    "MaxSessions 10 in sshd_config"
)
PATIENCE = 5  # seconds: a run that was killed a moment ago is on its way out
SILENCE = 120  # seconds without a word after which a host frees the lock
_PROGRAM = (Path(__file__).parents[1] / "on_host" / "hold-lock").read_text()


def who() -> str:
    """Whoever runs this, and where: `alice@laptop`; printable ASCII, one line."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user id without a name
        user = "somebody"
    name = f"{user}@{socket.gethostname()}".encode("ascii", "replace").decode()
    return "".join(filter(str.isprintable, name))


def holder() -> str:
    """This run, as others are told of it: `alice@laptop, run 1a2b3c4d since 2026-11-30 16:00 UTC`.

    Printable ASCII, one line.
    """
    return f"{who()}, run {RUN_ID} since {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"


class HostLock:
    """A host's lock, held by a process there that lives as long as its standard input."""

    def __init__(self) -> None:
        # This run as the lock names it; kept when the lock is lost, to take it again.
        self.held_as = ""
        self._stdin: Any = None

    def take(
        self, client: SSHClient, as_root: Callable[[StringCommand], str], *, force: bool = False
    ) -> str:
        """Take it over a channel of `client`; who has it, if that is another run.

        Taken again, it must not have been another's meanwhile. `as_root` makes a command's line.
        By `force` it is taken away: the host ends the other run's connection, and what that does.

        Raises:
            ConnectError: the host cannot be locked.
        """
        text = self.held_as or holder()
        command = StringCommand(
            "exec bash -c",
            QuoteString(_PROGRAM),
            "hold-lock",
            RUN,
            SILENCE,
            QuoteString(text),
            PATIENCE,
            *(["force"] if force else []),
        )
        stdin, stdout, stderr = client.exec_command(as_root(command))
        word, _, who = stdout.readline().rstrip("\n").partition(" ")
        if word not in ("held", "taken"):
            why = stderr.read().decode(errors="replace").strip()
            raise ConnectError(f"the host cannot be locked against other deploys: {why}")
        # A host that was restarted has forgotten who held it.
        if word == "taken" or (self.held_as and who not in ("", self.held_as)):
            return who or "somebody who did not leave a name"
        self.held_as, self._stdin = text, stdin
        _need_a_second_session(client)
        return ""

    def beat(self) -> bool:
        """Tell the host that this run lives; whether the lock is still there, if it was held."""
        if self._stdin is None:
            return True
        try:
            self._stdin.write("\n")
            self._stdin.flush()
        except OSError:
            # The host had heard nothing for too long, as while pyinfra asks whether to go on.
            self._stdin = None
        return self._stdin is not None

    def release(self) -> None:
        """Let go of it, and wait until the host has noticed."""
        stdin, self._stdin = self._stdin, None
        if stdin is not None:
            stdin.channel.shutdown_write()
            stdin.channel.status_event.wait(5)


def _need_a_second_session(client: SSHClient) -> None:
    transport = client.get_transport()
    assert transport is not None
    try:
        transport.open_session(timeout=60).close()
    except ChannelException:
        raise ConnectError(NO_SESSION) from None
