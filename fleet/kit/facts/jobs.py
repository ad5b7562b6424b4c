"""Long work that a host does by itself in a unit, and how far it is."""

from __future__ import annotations

from dataclasses import dataclass

from pyinfra.api import FactBase, QuoteString, StringCommand
from typing_extensions import override


@dataclass(frozen=True)
class Job:
    """A unit's state, and what it reports of its progress: two sizes in bytes, or JSON."""

    active_state: str = "inactive"
    result: str = ""
    report: tuple[str, ...] = ()

    @property
    def is_running(self) -> bool:
        """Whether it still works."""
        return self.active_state in ("active", "activating", "reloading", "deactivating")

    @property
    def has_failed(self) -> bool:
        """Whether its last run failed."""
        return self.active_state == "failed"


class _JobFact(FactBase[Job]):
    default = Job

    @override
    def process(self, output: list[str]) -> Job:
        active_state, result, *report = output
        return Job(active_state, result, tuple(report))

    @staticmethod
    def show(unit: str) -> StringCommand:
        """Print the unit's state and result, a line each."""
        bits = [
            StringCommand("systemctl show --value -p", name, "--", QuoteString(unit), ";")
            for name in ("ActiveState", "Result")
        ]
        return StringCommand(*bits)


class FetchJob(_JobFact):
    """A download by `fetch-release` into `directory`: bytes fetched and bytes in all."""

    @override
    def command(self, unit: str, directory: str) -> StringCommand:
        return StringCommand(
            self.show(unit),
            "stat -c %s",
            QuoteString(f"{directory}.part"),
            '2>/dev/null || echo 0; echo "$(cat',
            QuoteString(f"{directory}.total"),
            '2>/dev/null)"',
        )


class LoggedJob(_JobFact):
    """Any unit that tells how far it is in its journal: the report is the last line of it."""

    @override
    def command(self, unit: str) -> StringCommand:
        return StringCommand(
            self.show(unit), "journalctl --no-pager -q -o cat -n 1 -u", QuoteString(unit)
        )
