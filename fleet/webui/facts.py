"""Open WebUI on a host: its backups."""

from __future__ import annotations

from fleet.dify.facts import NewestBackup


class NewestWebuiBackup(NewestBackup):
    """Age in seconds of the newest archive of Open WebUI in `directory`; None without any."""

    archives = "webui-*.tar"
