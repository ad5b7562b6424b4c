"""The state of systemd units, compared with the files that they were started from."""

from __future__ import annotations

from dataclasses import dataclass

from pyinfra.api import FactBase, QuoteString, StringCommand
from typing_extensions import override


@dataclass(frozen=True)
class Unit:
    """A unit as it runs.

    Times are seconds since boot. `started` is when the main process started, `worker_started` when
    its youngest child did (a reload of nginx makes new workers). `newest_file` is the latest
    change of the files that were asked about.
    """

    load_state: str
    active_state: str
    file_state: str
    needs_daemon_reload: bool
    started: float
    worker_started: float
    newest_file: float

    @property
    def is_active(self) -> bool:
        """Whether the unit runs (or, for a one-shot unit, has run and counts as active)."""
        return self.active_state == "active"

    @property
    def is_enabled(self) -> bool:
        """Whether the unit starts at boot."""
        return self.file_state == "enabled"


ABSENT = Unit("not-found", "inactive", "", False, 0.0, 0.0, 0.0)


class UnitState(FactBase[Unit]):
    """State of `unit`, and of the `files` that it reads when it starts or reloads."""

    @override
    @staticmethod
    def default() -> Unit:
        return ABSENT

    @override
    def command(self, unit: str, files: list[str]) -> StringCommand:
        # `stat` without -L: a link that was switched counts as changed. Process start times are
        # clock ticks since boot, field 22 of /proc/PID/stat, counted after the parenthesis that
        # ends the process name. All times are brought to the boot clock: it never steps. It is read
        # before the wall clock, so that a busy host makes files look older, not younger, than they
        # are: a unit that was just restarted must not look stale.
        return StringCommand(
            "u=",
            QuoteString(unit),
            ";systemctl show -p LoadState -p ActiveState -p UnitFileState"
            ' -p NeedDaemonReload -p ExecMainStartTimestampMonotonic -- "$u";'
            'pid=$(systemctl show -p MainPID --value -- "$u");'
            'echo "Ticks=$(getconf CLK_TCK)";'
            'echo "Now=$(cut -d" " -f1 /proc/uptime) $(date +%s.%N)";'
            'started() { sed "s/.*) //" "/proc/$1/stat" 2>/dev/null | cut -d" " -f20; };'
            'if [ "${pid:-0}" != 0 ]; then echo "Started=$(started "$pid")";'
            ' for c in $(cat "/proc/$pid/task/$pid/children" 2>/dev/null); do'
            ' echo "Worker=$(started "$c")"; done; fi;'
            "for f in ''",
            *[StringCommand("", QuoteString(path)) for path in files],
            '; do [ -z "$f" ] || echo "File=$(stat -c %.Z -- "$f" 2>/dev/null)"; done',
            _separator="",
        )

    @override
    def process(self, output: list[str]) -> Unit:
        values: dict[str, list[str]] = {}
        for line in output:
            name, _, value = line.partition("=")
            values.setdefault(name, []).append(value)

        def first(name: str) -> str:
            return values.get(name, [""])[0]

        uptime, now = (float(part) for part in first("Now").split())
        ticks = float(first("Ticks"))
        starts = [float(tick) / ticks for tick in values.get("Started", []) if tick]
        # A one-shot unit has no process left to ask.
        starts = starts or [float(first("ExecMainStartTimestampMonotonic") or 0) / 1e6]
        workers = [float(tick) / ticks for tick in values.get("Worker", []) if tick]
        changes = [float(time) - now + uptime for time in values.get("File", []) if time]
        return Unit(
            load_state=first("LoadState"),
            active_state=first("ActiveState"),
            file_state=first("UnitFileState"),
            needs_daemon_reload=first("NeedDaemonReload") == "yes",
            started=max(starts, default=0.0),
            worker_started=max(workers, default=0.0),
            newest_file=max(changes, default=0.0),
        )
