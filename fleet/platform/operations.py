"""The record of deploys that a host keeps; see `fleet.platform.record`."""

from __future__ import annotations

from pyinfra import state
from pyinfra.api import QuoteString, StringCommand, operation

from fleet.kit.commands import Commands
from fleet.kit.paths import ETC
from fleet.kit.run import quietly
from fleet.kit.secrets import keep_planned
from fleet.platform.record import DEPLOYED, DEPLOYING, begun_now, of_now, text_of
from fleet.version import build


@operation()
def begin_deploy() -> Commands:
    """Note on the host that a deploy of it has begun, until `end_deploy`.

    Before the first step that has a secret: those that the plan has made are kept from now on.
    """
    if state.is_executing:
        keep_planned()
        quietly(_put(DEPLOYING, text_of(begun_now(build()))))
    yield from ()


@operation()
def end_deploy(settings: str) -> Commands:
    """Note on the host what was deployed: the last thing of a deploy that ends well there.

    It counts as no change, of which a second deploy has none: it tells of the run, and not of what
    the host is.
    """
    if state.is_executing:
        record = text_of(of_now(build(), settings))
        quietly(StringCommand(_put(DEPLOYED, record), "&& rm -f", DEPLOYING))
    yield from ()


def _put(path: str, line: str) -> StringCommand:
    """Have `line` as the file `path`. Unlike a shell, tee says why it could not write."""
    new = f"{path}.new"
    return StringCommand(
        "install -d -m 755", ETC, "&& printf '%s\\n'", QuoteString(line), f"| tee {new} >/dev/null",
        f"&& chmod 644 {new} && mv -f {new} {path} || {{ rm -f {new}; exit 1; }}",
    )  # fmt: skip
