"""Backups that a host makes of what it runs: the first by a deploy, all later ones by a timer."""

from __future__ import annotations

from pyinfra import host
from pyinfra.api import StringCommand, operation

from fleet.kit.commands import Commands
from fleet.kit.facts.backups import NewestBackup
from fleet.kit.facts.jobs import LoggedJob
from fleet.kit.files import ManagedFile
from fleet.kit.jobs import newest_line, run_job
from fleet.kit.render import render


def timer_file(path: str, what: str) -> ManagedFile:
    """The timer that asks every hour whether a backup of `what` is due."""
    return ManagedFile(path, render("kit/backup.timer.j2", what=what))


@operation()
def have_backup(unit: str, directory: str, prefix: str, younger_than: float) -> Commands:
    """Have an archive `<prefix>-*.tar` in `directory` that is younger than so many seconds.

    `unit` makes it; its timer makes all later ones.
    """
    age = host.get_fact(NewestBackup, directory=directory, prefix=prefix)
    if age is not None and age < younger_than:
        host.noop(f"the newest backup is {age / 3600:.1f} h old")
        return
    yield from run_job(
        unit,
        StringCommand("systemctl start --no-block", unit),
        lambda: host.get_fact(LoggedJob, unit=unit),
        newest_line,
    )
