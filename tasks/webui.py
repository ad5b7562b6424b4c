"""Open WebUI: a pinned image under a hardened unit, wired to the gateway and backed up."""

from __future__ import annotations

import json

from pydantic import SecretStr
from pyinfra.api import deploy

from fleet.declare.load import Fleet, FleetHost
from fleet.docker.operations import pull_image
from fleet.gateway import tls
from fleet.kit import paths
from fleet.kit.commands import verify_unit
from fleet.kit.durations import due_after, seconds
from fleet.kit.files import ManagedFile, install_files
from fleet.kit.packages import install_packages
from fleet.kit.render import host_program, render
from fleet.kit.units import run_unit
from fleet.webui import declared
from fleet.webui.operations import have_backup

# Its database is migrated before it answers, and the models of its image are loaded.
_START = 300


@deploy("Open WebUI")
def webui(me: FleetHost, fleet: Fleet) -> None:
    """Run the declared image with exactly the declared environment, and keep backups."""
    install_packages(name="Install tools", packages=["ca-certificates", "curl", "python3"])
    pull_image(
        name="Pull the image", image=str(me.webui.image), unit="llm-fleet-pull-webui.service"
    )
    settings = config_files(me, fleet)
    install_files(name="Install the settings", files=settings)
    unit, *backup = unit_files(me, fleet)
    install_files(name="Install the unit", files=[unit], check=verify_unit(unit.staged_name))
    run_unit(
        name="Run Open WebUI as declared",
        unit=paths.WEBUI_UNIT,
        files=[unit.path, *(file.path for file in settings)],
        health_url=f"http://{me.webui_endpoint}/health",
        answers_within=_START,
    )
    install_files(name="Install the backup's program", files=backup_files(me))
    install_files(
        name="Install the backup's unit", files=backup, check=verify_unit(paths.WEBUI_BACKUP_TIMER)
    )
    run_unit(name="Ask every hour for a backup", unit=paths.WEBUI_BACKUP_TIMER, files=[])
    have_backup(
        name="Have a backup",
        directory=me.webui.backup_dir,
        younger_than=seconds(me.webui.backup_every),
    )


def managed_files(me: FleetHost, fleet: Fleet) -> list[ManagedFile]:
    """Every file of Open WebUI that the deploy writes."""
    return [*config_files(me, fleet), *unit_files(me, fleet), *backup_files(me)]


def config_files(me: FleetHost, fleet: Fleet) -> list[ManagedFile]:
    """What the container is given: its environment, which is root's alone, and whom it trusts."""
    values = declared.environment(me, fleet)
    text = "".join(f"{name}={value}\n" for name, value in values.items())
    files = [ManagedFile(paths.WEBUI_ENVIRONMENT, SecretStr(text), mode="600")]
    if declared.door_of(me, fleet).own_ca:
        files.append(ManagedFile(paths.WEBUI_CA, tls.ca_certificate(fleet.secrets)))
    return files


def unit_files(me: FleetHost, fleet: Fleet) -> tuple[ManagedFile, ManagedFile, ManagedFile]:
    """The unit that runs the container, the one that makes a backup, and its timer."""
    texts = {
        paths.WEBUI_UNIT_FILE: render(
            "webui/webui.service.j2",
            name=declared.NAME,
            image=me.webui.image,
            endpoint=me.webui_endpoint,
            environment=paths.WEBUI_ENVIRONMENT,
            ca=paths.WEBUI_CA if declared.door_of(me, fleet).own_ca else None,
            ca_in_container=declared.CA_IN_CONTAINER,
        ),
        paths.WEBUI_BACKUP_UNIT_FILE: render(
            "webui/backup.service.j2",
            program=paths.WEBUI_BACKUP_PROGRAM,
            config=paths.WEBUI_BACKUP_CONFIG,
        ),
        paths.WEBUI_BACKUP_TIMER_FILE: render("webui/backup.timer.j2"),
    }
    unit, service, timer = (ManagedFile(path, text) for path, text in texts.items())
    return unit, service, timer


def backup_files(me: FleetHost) -> list[ManagedFile]:
    """The program that makes a backup, and what it reads."""
    config = {
        "volume": declared.NAME,
        "directory": me.webui.backup_dir,
        "keep": me.webui.backup_keep,
        "due": due_after(me.webui.backup_every),
    }
    return [
        ManagedFile(
            paths.WEBUI_BACKUP_PROGRAM, host_program("webui", "webui_backup.py"), mode="755"
        ),
        ManagedFile(paths.WEBUI_BACKUP_CONFIG, json.dumps(config, indent=1) + "\n"),
    ]
