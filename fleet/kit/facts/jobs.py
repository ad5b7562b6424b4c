"""Long work that a host does by itself in a unit, and how far it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from pyinfra.api import FactBase, QuoteString, StringCommand
from typing_extensions import override


@dataclass(frozen=True)
class Job:
    """A unit's state and result, in systemd's words."""

    active_state: str = "inactive"
    result: str = ""

    @property
    def is_running(self) -> bool:
        """Whether it still works."""
        return self.active_state in ("active", "activating", "reloading", "deactivating")

    @property
    def has_failed(self) -> bool:
        """Whether its last run failed."""
        return self.active_state == "failed"


AnyJob = TypeVar("AnyJob", bound=Job)


@dataclass(frozen=True)
class Download(Job):
    """A job that fetches one file: bytes that are there, and bytes in all; 0 while not known."""

    completed: int = 0
    total: int = 0


@dataclass(frozen=True)
class LoggedRun(Job):
    """A job that tells how far it is in its journal: the newest line, None before the first."""

    line: str | None = None


def show_job(unit: str) -> StringCommand:
    """Print the unit's state and result, a line each."""
    bits = [
        StringCommand("systemctl show --value -p", name, "--", QuoteString(unit), ";")
        for name in ("ActiveState", "Result")
    ]
    return StringCommand(*bits)


class FetchJob(FactBase[Download]):
    """A download by `fetch-release` into `directory`."""

    default = Download

    @override
    def command(self, unit: str, directory: str) -> StringCommand:
        return StringCommand(
            show_job(unit),
            "stat -c %s",
            QuoteString(f"{directory}.part"),
            '2>/dev/null || echo 0; echo "$(cat',
            QuoteString(f"{directory}.total"),
            '2>/dev/null)"',
        )

    @override
    def process(self, output: list[str]) -> Download:
        active_state, result, completed, total = output
        # The file of the size is there before its number is.
        return Download(active_state, result, int(completed), int(total or 0))


class LoggedJob(FactBase[LoggedRun]):
    """Any unit that tells how far it is in its journal."""

    default = LoggedRun

    @override
    def command(self, unit: str) -> StringCommand:
        return StringCommand(
            show_job(unit), "journalctl --no-pager -q -o cat -n 1 -u", QuoteString(unit)
        )

    @override
    def process(self, output: list[str]) -> LoggedRun:
        active_state, result, *lines = output
        return LoggedRun(active_state, result, lines[-1] if lines else None)
