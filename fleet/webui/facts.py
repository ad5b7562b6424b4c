"""Open WebUI on a host: its backups."""

from __future__ import annotations

from fleet.kit.facts.backups import NewestBackup


class NewestWebuiBackup(NewestBackup):
    """Age in seconds of the newest archive of Open WebUI in `directory`; None without any."""

    archives = "webui-*.tar"
