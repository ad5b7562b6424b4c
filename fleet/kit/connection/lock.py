"""The lock of a run on a host: who deploys there, from where, since when."""

from __future__ import annotations

import getpass
import socket
from datetime import UTC, datetime
from pathlib import Path

from pyinfra.api import QuoteString, StringCommand

from fleet.kit.paths import RUN, RUN_ID

SILENCE = 120  # seconds without a word after which a host frees the lock
_PROGRAM = (Path(__file__).parents[1] / "on_host" / "hold-lock").read_text()


def holder() -> str:
    """This run, as others are told of it: `alice@laptop, run 1a2b3c4d since 2026-11-30 16:00 UTC`.

    Printable ASCII, one line.
    """
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user id without a name
        user = "somebody"
    who = f"{user}@{socket.gethostname()}".encode("ascii", "replace").decode()
    now = datetime.now(UTC)
    return f"{''.join(filter(str.isprintable, who))}, run {RUN_ID} since {now:%Y-%m-%d %H:%M} UTC"


def hold_command(text: str) -> StringCommand:
    """The command that holds the lock for `text`; it ends with its standard input."""
    return StringCommand(
        "exec bash -c", QuoteString(_PROGRAM), "hold-lock", RUN, SILENCE, QuoteString(text)
    )
