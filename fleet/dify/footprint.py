"""What Dify puts on a host."""

from __future__ import annotations

from collections.abc import Iterator

from fleet.declare.fleet import FleetHost
from fleet.dify.declared import PROJECT
from fleet.dify.paths import (
    DIFY_BACKUP_TIMER,
    DIFY_BACKUP_UNIT,
    DIFY_BOOT_UNIT,
    DIFY_JOB,
    DIFY_PRISTINE,
    DIFY_ROOT,
    DIFY_SETUP_JOB,
    DIFY_STACK_CONFIG,
)
from fleet.dify.settings import Dify
from fleet.kit.footprint import Part, Trace, backups, files, folders, units
from fleet.kit.host_programs import program_files
from fleet.kit.releases import FETCHER

# Of each release that ever ran.
_OVERRIDE = f"{DIFY_ROOT}/releases/*/docker-compose.override.yaml"


def footprint(me: FleetHost) -> Iterator[Trace]:
    """The stack and its release; its data and backups are kept."""
    yield Trace(
        f"`{DIFY_PRISTINE}/<version>`, on hosts in the group `dify`",
        f"the release; containers of the Compose project `{PROJECT}`, units for boot and backup",
        (
            *units(DIFY_BACKUP_TIMER, DIFY_BACKUP_UNIT, DIFY_BOOT_UNIT),
            Part("unit", DIFY_JOB),
            Part("unit", DIFY_SETUP_JOB),
            Part("project", PROJECT, _OVERRIDE),
            *files(*(file.path for file in program_files("dify", "dify_client", "dify_stack"))),
            *files(FETCHER),
            Part("file", f"{DIFY_PRISTINE}/[0-9]*.*", FETCHER),
            Part("tree", f"{DIFY_PRISTINE}/[0-9]*.new", FETCHER),
            Part("tree", f"{DIFY_PRISTINE}/*", ".sha256"),
            Part("tree", DIFY_STACK_CONFIG.rpartition("/")[0]),
            *folders(DIFY_PRISTINE),
        ),
    )
    yield Trace(
        f"`{DIFY_ROOT}`",
        "what Dify knows: accounts, apps, documents, conversations",
        (
            Part("volumes", PROJECT, _OVERRIDE),
            # The mark goes with the last of them.
            Part("tree", f"{DIFY_ROOT}/[!r]*", _OVERRIDE),
            Part("tree", f"{DIFY_ROOT}/.[!.]*", _OVERRIDE),
            Part("file", f"{DIFY_ROOT}/*", _OVERRIDE),
            Part("file", f"{DIFY_ROOT}/.[!.]*", _OVERRIDE),
            Part("tree", f"{DIFY_ROOT}/releases", _OVERRIDE),
            *folders(DIFY_ROOT),
        ),
        "data",
        "it may be the only copy",
    )
    yield backups("dify", me[Dify].backup_dir)
