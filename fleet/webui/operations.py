"""Open WebUI on a host: its backups."""

from __future__ import annotations

from pyinfra import host
from pyinfra.api import operation

from fleet.kit.commands import Commands
from fleet.kit.jobs import run_backup
from fleet.webui.facts import NewestWebuiBackup
from fleet.webui.paths import WEBUI_BACKUP_UNIT


@operation()
def have_backup(directory: str, younger_than: float) -> Commands:
    """Have a backup younger than so many seconds; the timer on the host makes all later ones."""
    age = host.get_fact(NewestWebuiBackup, directory=directory)
    yield from run_backup(WEBUI_BACKUP_UNIT, age, younger_than)
