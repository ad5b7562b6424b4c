"""Long work that a host does by itself in a unit, and how far it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from pyinfra.api import FactBase, QuoteString, StringCommand
from typing_extensions import override

from fleet.kit.journal import journal_of
from fleet.kit.on_host.outside import counted


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
_RUN = "/run"


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
    """A download by `fetch-release` into `directory`; `unit` has a directory in /run."""

    default = Download

    @override
    def command(self, unit: str, directory: str) -> StringCommand:
        return StringCommand(
            show_job(unit),
            "stat -c %s",
            QuoteString(f"{directory}.part"),
            '2>/dev/null || echo 0; echo "$(head -c 20',
            QuoteString(f"{runtime_directory(unit)}/total"),
            '2>/dev/null)"',
        )

    @override
    def process(self, output: list[str]) -> Download:
        active_state, result, completed, total = output
        # The file of the size is there before its number is.
        return Download(active_state, result, counted(completed) or 0, counted(total) or 0)


def runtime_directory(unit: str) -> str:
    """The directory of a unit with a `RuntimeDirectory` of its own name; it goes with the unit."""
    return f"{_RUN}/{unit.removesuffix('.service')}"


class LoggedJob(FactBase[LoggedRun]):
    """Any unit that tells how far it is in its journal."""

    default = LoggedRun

    @override
    def command(self, unit: str) -> StringCommand:
        return StringCommand(show_job(unit), journal_of(unit, 1))

    @override
    def process(self, output: list[str]) -> LoggedRun:
        active_state, result, *lines = output
        return LoggedRun(active_state, result, lines[-1] if lines else None)


class FailedJobs(FactBase[list[str]]):
    """Jobs that failed: transient units of ours, which nothing but a deploy starts."""

    default = list

    @override
    def command(self) -> StringCommand:
        return StringCommand(
            "systemctl list-units --state=failed --plain --no-legend 'llm-fleet-*' 2>/dev/null"
            ' | while read -r unit rest; do if [ "$(systemctl show --value -p Transient --'
            ' "$unit")" = yes ]; then echo "$unit"; fi; done'
        )

    @override
    def process(self, output: list[str]) -> list[str]:
        return [line.strip() for line in output if line.strip()]
