"""Dify: the release's own compose stack with its own secrets, set up and wired to the models."""

from __future__ import annotations

from pyinfra.api import deploy
from pyinfra.operations import files

from fleet.declare.fleet import Fleet, FleetHost
from fleet.declare.types import is_http
from fleet.dify import declared
from fleet.dify.files import config_files, programs, unit_files
from fleet.dify.operations import fetch_dify, keep_app_keys, run_stack, set_up_dify
from fleet.dify.paths import DIFY_BACKUP_TIMER, DIFY_BACKUP_UNIT, DIFY_BOOT_UNIT, DIFY_PACKAGE
from fleet.dify.settings import Dify
from fleet.kit.backups import have_backup
from fleet.kit.commands import verify_unit
from fleet.kit.durations import seconds
from fleet.kit.files import install_files
from fleet.kit.packages import install_packages
from fleet.kit.proxy import proxy_environment
from fleet.kit.units import enable_unit, run_unit


@deploy("Dify")
def dify(me: FleetHost, fleet: Fleet) -> None:
    """Run the declared release, set it up as declared, and keep backups of it."""
    install_packages(
        name="Install tools", packages=["ca-certificates", "curl", "gzip", "python3", "tar"]
    )
    install_files(name="Install the programs", files=programs())
    install_files(name="Install the settings", files=config_files(me, fleet))
    fetch_dify(
        name=f"Fetch Dify {me[Dify].version}",
        version=me[Dify].version,
        url=f"{me[Dify].release_url}/{me[Dify].version}.tar.gz",
        sha256=str(me[Dify].sha256),
        environment=proxy_environment(me[Dify].http_proxy, me[Dify].no_proxy),
    )
    run_stack(name="Run the containers as declared")
    _bring_package(me, fleet)
    set_up_dify(name="Set up owner, plugin, models and apps")
    keep_app_keys(
        name="Keep the apps' keys",
        store=fleet.secrets,
        names={role: declared.SECRETS.name(me, f"app_{role}") for role in declared.APPS},
    )
    boot, service, timer = unit_files()
    install_files(name="Install the boot's unit", files=[boot], check=verify_unit(DIFY_BOOT_UNIT))
    enable_unit(name="Have Dify well after a boot", unit=DIFY_BOOT_UNIT)
    install_files(
        name="Install the backup's unit",
        files=[service, timer],
        check=verify_unit(DIFY_BACKUP_TIMER),
    )
    run_unit(
        name="Ask every hour for a backup",
        unit=DIFY_BACKUP_TIMER,
        files=[],
    )
    have_backup(
        name="Have a backup",
        unit=DIFY_BACKUP_UNIT,
        directory=me[Dify].backup_dir,
        prefix="dify",
        younger_than=seconds(me[Dify].backup_every),
    )


def _bring_package(me: FleetHost, fleet: Fleet) -> None:
    """The plugin's package, where it does not come from the marketplace."""
    package = me[Dify].plugin_package
    if package is None:
        return
    if is_http(package):
        files.download(
            name="Fetch the plugin",
            src=package,
            dest=DIFY_PACKAGE,
            sha256sum=me[Dify].plugin_sha256,
            mode="600",
        )
    else:
        files.put(
            name="Bring the plugin",
            src=str(fleet.root / package),
            dest=DIFY_PACKAGE,
            mode="600",
        )
