"""Errors that an operator reads: each names the host, the setting, the value and the fix."""

from __future__ import annotations

from pyinfra.api.exceptions import PyinfraError


class FleetError(PyinfraError):
    """A deploy or a check that cannot go on, worded for the person who runs it."""


class SettingsError(FleetError):
    """Declared settings that are refused; `problems` holds one line per refusal."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        count = f"{len(problems)} setting{'s' if len(problems) != 1 else ''} refused"
        super().__init__(
            f"{count}, no host was changed:\n" + "\n".join(f"  - {line}" for line in problems)
        )
