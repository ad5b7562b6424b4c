"""Where a capability's log is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Logs:
    """The journals of `units` (shell patterns), `files`, and containers of the Compose `project`.

    Of units, the first is no pattern: journalctl refuses patterns of which none fits.
    """

    units: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    project: str | None = None


NO_LOGS = Logs()
