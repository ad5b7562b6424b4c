"""Units that are tried beside what runs, before they replace it."""

from __future__ import annotations

from pyinfra.api import QuoteString, StringCommand

from fleet.kit.commands import Commands
from fleet.kit.render import host_program

_PROGRAM = host_program("kit", "try-unit")
# Not /etc: a trial that is cut short is gone with the next boot.
_UNITS = "/run/systemd/system"


def try_unit(  # noqa: PLR0913 - what is tried, and how it is asked
    unit: str, text: str, path: str, *, seconds: int, else_: str, container: str | None = None
) -> Commands:
    """Start a unit of the content `text`, and end it once it answers on the HTTP `path`.

    It may listen on a port of its own choice, or its `container` be published on one. If it does
    not answer within so many seconds, its journal is shown, then `else_`; nothing else has changed.
    """
    yield StringCommand(
        "mkdir -p", _UNITS, "&& cat >", QuoteString(f"{_UNITS}/{unit}"), _stdin=text.split("\n")
    )
    yield StringCommand(
        "sh -c", QuoteString(_PROGRAM), "try-unit", QuoteString(unit), seconds, QuoteString(path),
        *([QuoteString(container)] if container else []),
        "|| { printf '%s\\n'", QuoteString(else_), ">&2; exit 1; }",
    )  # fmt: skip
