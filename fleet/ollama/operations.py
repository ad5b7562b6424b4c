"""Ollama on a host: its releases, its images, and the units of its servers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath

from pyinfra import host, logger
from pyinfra.api import QuoteString, StringCommand, operation

from fleet.driver.facts import DrivenGpus, DriverState, DriverStateFact, GpuHardwareFact
from fleet.driver.paths import DRIVER_NOUVEAU
from fleet.kit.commands import Commands, fail, verify_unit
from fleet.kit.errors import FleetError
from fleet.kit.facts.files import FileStates
from fleet.kit.files import install_files
from fleet.kit.paths import UNITS
from fleet.kit.releases import Tarball, fetch_release
from fleet.ollama.facts import OllamaReleases, OllamaServers
from fleet.ollama.files import unit_file
from fleet.ollama.instances import bind_gpus
from fleet.ollama.paths import LOADER_UNIT, OLLAMA_CURRENT, OLLAMA_ROOT, OLLAMA_UNIT
from fleet.ollama.servers import Instance


@operation()
def install_release(
    version: str, url: str, sha256: str, environment: Mapping[str, str]
) -> Commands:
    """Have the tarball at `url` unpacked beside the other releases, and `current` point to it.

    A tarball with another SHA-256 changes nothing. `environment` is what curl is told of a proxy.
    """
    directory = f"{OLLAMA_ROOT}/{version}"
    release = host.get_fact(OllamaReleases, version=version)
    if release.sha256 != sha256:
        yield from fetch_release(
            f"llm-fleet-fetch-ollama-{version}.service",
            Tarball(url, sha256, directory),
            environment,
            shown=url.rsplit("/", 1)[-1],
        )
    if release.current != directory:
        # A fetch that somebody stopped has not failed either, so look at what there is. The link
        # is renamed over the old one: there is no moment without one.
        yield StringCommand(
            f'[ "$(cat {directory}/.sha256)" = {sha256} ] &&',
            "ln -sfn", directory, f"{OLLAMA_CURRENT}.new",
            "&& mv -T", f"{OLLAMA_CURRENT}.new", OLLAMA_CURRENT,
        )  # fmt: skip


@operation()
def install_instances(instances: list[Instance]) -> Commands:
    """Have the unit of each of `instances` in place, with the GPUs that it is given.

    Decided when the step is executed: the driver that tells of the GPUs may be of this very run.
    While that one waits for its operator's reboot, units that are there stay as they are.
    """
    present, hardware = host.get_fact(DrivenGpus), host.get_fact(GpuHardwareFact)
    try:
        bound = bind_gpus(instances, present, hardware)
    except FleetError as error:
        if not present and _waits_for_reboot():
            yield from _stay_until_reboot(instances)
        else:
            yield fail(f"{host.name}: {error}")
        return
    files = [unit_file(item, bound[item.name]) for item in instances]
    checks = [StringCommand("(", verify_unit(file.staged_name), ")") for file in files]
    for item in instances:
        host.log(f"{item.unit}: {', '.join(bound[item.name]) or 'no GPU'}")
    yield from install_files._inner(files=files, check=StringCommand(*checks, _separator=" && "))


def _waits_for_reboot() -> bool:
    """Whether nvidia-smi is newer than the loaded module, and so cannot tell of any GPU."""
    state: DriverState = host.get_fact(DriverStateFact, nouveau_conf=DRIVER_NOUVEAU)
    return state.needs_reboot


def _stay_until_reboot(instances: list[Instance]) -> Commands:
    units = [f"{UNITS}/{item.unit}" for item in instances]
    there = host.get_fact(FileStates, paths=units)
    if missing := [path for path in units if path not in there]:
        yield fail(
            f"{host.name}: {', '.join(missing)} can be given GPUs after the reboot only: the "
            "installed driver is not the loaded one; reboot this host (driver_reboot = 'never' "
            "leaves that to you), and deploy again"
        )
    else:
        host.log(
            "the units stay as they are until the reboot: the installed driver is not the loaded "
            "one, and tells of no GPU",
            log_func=logger.warning,
        )


@operation()
def remove_servers(keep: list[str]) -> Commands:
    """Have no Ollama server but the units `keep`, and the loader started by no other than they say.

    They are stopped first: who comes after them may have their port.
    """
    servers = host.get_fact(OllamaServers)
    gone = [path for path in servers.paths if not _belongs(path, keep)]
    for unit in servers.running:
        if unit not in keep:
            # One that has failed would be listed for ever.
            name = QuoteString(unit)
            yield StringCommand(
                "systemctl stop", name, "&& { ! systemctl is-failed --quiet", name,
                "|| systemctl reset-failed", name, "; }",
            )  # fmt: skip
    if gone:
        folders = {str(PurePosixPath(path).parent) for path in gone}
        emptied = sorted(folder for folder in folders if folder.endswith(".service.wants"))
        tidy = StringCommand("&& rmdir", *emptied, "--ignore-fail-on-non-empty") if emptied else ""
        yield StringCommand("rm -f", *map(QuoteString, gone), tidy, "&& systemctl daemon-reload")


def _belongs(path: str, keep: list[str]) -> bool:
    """Whether a file or link is of the servers `keep`, or starts the loader when they say so."""
    folder, name = PurePosixPath(path).parent.name, PurePosixPath(path).name
    if name != LOADER_UNIT:
        return name in keep
    return folder == (f"{OLLAMA_UNIT}.wants" if OLLAMA_UNIT in keep else "multi-user.target.wants")
