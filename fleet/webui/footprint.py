"""What Open WebUI puts on a host."""

from __future__ import annotations

from collections.abc import Iterator

from fleet.declare.fleet import FleetHost
from fleet.kit.footprint import Part, Trace, backups, files, units
from fleet.kit.host_programs import program_files
from fleet.webui.declared import NAME
from fleet.webui.paths import (
    WEBUI_BACKUP_TIMER,
    WEBUI_BACKUP_UNIT,
    WEBUI_ENVIRONMENT,
    WEBUI_UNIT,
)
from fleet.webui.settings import Webui


def footprint(me: FleetHost) -> Iterator[Trace]:
    """The container and its settings; its data and backups are kept."""
    yield Trace(
        f"`{WEBUI_UNIT}`, on hosts in the group `webui`",
        "one container, its settings, and a timer for backups",
        (
            *units(WEBUI_BACKUP_TIMER, WEBUI_BACKUP_UNIT, WEBUI_UNIT),
            *files(*(file.path for file in program_files("webui", "webui_copy", "webui_backup"))),
            Part("tree", WEBUI_ENVIRONMENT.rpartition("/")[0]),
        ),
    )
    yield Trace(
        f"Docker's volume `{NAME}`",
        "what Open WebUI knows: accounts, chats, uploads",
        (Part("volume", NAME),),
        "data",
        "it may be the only copy",
    )
    yield backups("webui", me[Webui].backup_dir)
