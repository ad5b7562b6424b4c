"""What every command of ours runs under, whatever the login brings."""

from __future__ import annotations

from typing import Any

from pyinfra.api import StringCommand

LOCALE = "C"
# sbin is missing for many logins, and sudo without secure_path keeps what the login has.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/snap/bin"
UMASK = "022"

PREFIX = f"export LC_ALL={LOCALE} PATH={PATH}; umask {UMASK};"
# For a unit that systemd-run starts: it has systemd's own PATH and umask, but the host's locale.
UNIT_OPTIONS = f"--setenv LC_ALL={LOCALE}"


def prefixed(command: Any) -> StringCommand:
    """`command`, a text or a StringCommand, as it is run: numbers with a point, parents at 755."""
    return StringCommand(PREFIX, command)
