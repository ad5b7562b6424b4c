"""Every file of Open WebUI."""

from __future__ import annotations

import json

from pydantic import SecretStr

from fleet.declare.fleet import Fleet, FleetHost
from fleet.gateway.declared import authority_certificate
from fleet.kit.backups import timer_file
from fleet.kit.durations import due_after
from fleet.kit.files import ManagedFile
from fleet.kit.host_programs import program_files
from fleet.kit.paths import LIB
from fleet.kit.render import render
from fleet.webui import declared
from fleet.webui.declared import webui_endpoint
from fleet.webui.paths import (
    WEBUI_BACKUP_CONFIG,
    WEBUI_BACKUP_PROGRAM,
    WEBUI_BACKUP_TIMER_FILE,
    WEBUI_BACKUP_UNIT_FILE,
    WEBUI_CA,
    WEBUI_ENVIRONMENT,
    WEBUI_UNIT,
    WEBUI_UNIT_FILE,
)
from fleet.webui.settings import Webui


def managed_files(me: FleetHost, fleet: Fleet) -> list[ManagedFile]:
    """Every file of Open WebUI that the deploy writes."""
    return [*config_files(me, fleet), *unit_files(me, fleet), *backup_files(me)]


def config_files(me: FleetHost, fleet: Fleet) -> list[ManagedFile]:
    """What the container is given: its environment, which is root's alone, and whom it trusts."""
    values = declared.environment(me, fleet)
    text = "".join(f"{name}={value}\n" for name, value in values.items())
    files = [ManagedFile(WEBUI_ENVIRONMENT, SecretStr(text), mode="600")]
    if declared.access(me, fleet).own_ca:
        # First: the environment's gateway is one that is trusted by it.
        files.insert(0, ManagedFile(WEBUI_CA, authority_certificate(fleet)))
    return files


def unit_files(me: FleetHost, fleet: Fleet) -> tuple[ManagedFile, ManagedFile, ManagedFile]:
    """The unit that runs the container, the one that makes a backup, and its timer."""
    texts = {
        WEBUI_UNIT_FILE: render(
            "webui/webui.service.j2",
            name=declared.NAME,
            image=me[Webui].image,
            endpoint=webui_endpoint(me),
            environment=WEBUI_ENVIRONMENT,
            ca=WEBUI_CA if declared.access(me, fleet).own_ca else None,
            ca_in_container=declared.CA_IN_CONTAINER,
        ),
        WEBUI_BACKUP_UNIT_FILE: render(
            "webui/backup.service.j2",
            program=WEBUI_BACKUP_PROGRAM,
            config=WEBUI_BACKUP_CONFIG,
            directory=me[Webui].backup_dir,
        ),
    }
    unit, service = (ManagedFile(path, text) for path, text in texts.items())
    return unit, service, timer_file(WEBUI_BACKUP_TIMER_FILE, "Open WebUI")


def backup_files(me: FleetHost) -> list[ManagedFile]:
    """The program that makes a backup, and what it reads."""
    config = {
        "volume": declared.NAME,
        "image": me[Webui].image,
        "unit": WEBUI_UNIT,
        "programs": LIB,
        "databases": declared.DATABASES,
        "directory": me[Webui].backup_dir,
        "keep": me[Webui].backup_keep,
        "due": due_after(me[Webui].backup_every),
    }
    return [
        *program_files("webui", "webui_copy", "webui_backup"),
        ManagedFile(WEBUI_BACKUP_CONFIG, json.dumps(config, indent=1) + "\n"),
    ]
