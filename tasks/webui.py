"""Open WebUI: a pinned image under a hardened unit, wired to the gateway and backed up."""

from __future__ import annotations

from pyinfra.api import deploy

from fleet.declare.fleet import Fleet, FleetHost
from fleet.docker.images import pull_image
from fleet.kit.backups import have_backup
from fleet.kit.commands import verify_unit
from fleet.kit.durations import seconds
from fleet.kit.files import install_files
from fleet.kit.packages import install_packages
from fleet.kit.units import run_unit
from fleet.webui.declared import NAME, webui_endpoint
from fleet.webui.files import backup_files, config_files, unit_files
from fleet.webui.paths import WEBUI_BACKUP_TIMER, WEBUI_BACKUP_UNIT, WEBUI_UNIT
from fleet.webui.settings import Webui

# Its database is migrated before it answers, and the models of its image are loaded.
_START = 300


@deploy("Open WebUI")
def webui(me: FleetHost, fleet: Fleet) -> None:
    """Run the declared image with exactly the declared environment, and keep backups."""
    install_packages(name="Install tools", packages=["ca-certificates", "curl", "python3"])
    pull_image(
        name="Pull the image", image=str(me[Webui].image), unit="llm-fleet-pull-webui.service"
    )
    settings = config_files(me, fleet)
    install_files(name="Install the settings", files=settings)
    unit, *backup = unit_files(me, fleet)
    install_files(name="Install the unit", files=[unit], check=verify_unit(unit.staged_name))
    run_unit(
        name="Run Open WebUI as declared",
        unit=WEBUI_UNIT,
        files=[unit.path, *(file.path for file in settings)],
        health_url=f"http://{webui_endpoint(me)}/health",
        answers_within=_START,
        container=NAME,
    )
    install_files(name="Install the backup's program", files=backup_files(me))
    install_files(
        name="Install the backup's unit", files=backup, check=verify_unit(WEBUI_BACKUP_TIMER)
    )
    run_unit(name="Ask every hour for a backup", unit=WEBUI_BACKUP_TIMER, files=[])
    have_backup(
        name="Have a backup",
        unit=WEBUI_BACKUP_UNIT,
        directory=me[Webui].backup_dir,
        prefix="webui",
        younger_than=seconds(me[Webui].backup_every),
    )
