"""Ollama on a host: its releases, its images, and the units of its servers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import PurePosixPath

from pyinfra import host, logger
from pyinfra.api import QuoteString, StringCommand, operation

from fleet.driver.facts import DrivenGpu, DrivenGpus, DriverState, DriverStateFact, GpuHardwareFact
from fleet.driver.paths import DRIVER_NOUVEAU
from fleet.kit.commands import Commands, fail, or_journal, verify_unit
from fleet.kit.errors import FleetError
from fleet.kit.facts.files import FileStates
from fleet.kit.facts.listeners import Listener, Listeners
from fleet.kit.facts.places import Place, Places
from fleet.kit.facts.units import Unit, UnitState
from fleet.kit.files import ManagedFile, install_files
from fleet.kit.paths import UNITS
from fleet.kit.planned import Restart, will_restart, will_write
from fleet.kit.releases import Tarball, fetch_release
from fleet.kit.trials import try_unit
from fleet.kit.units import next_verb
from fleet.ollama.facts import OllamaReleases, OllamaServers
from fleet.ollama.files import running_files, trial_container, trial_name, trial_text, unit_file
from fleet.ollama.instances import Bound, bind_gpus
from fleet.ollama.paths import LOADER_UNIT, OLLAMA_CURRENT, OLLAMA_ROOT, OLLAMA_UNIT
from fleet.ollama.servers import Instance
from fleet.ollama.storage import Storage, asked_paths

# Until it answers: it looks at every GPU first.
_TRIAL_SECONDS = 60


@operation()
def install_release(
    version: str, url: str, sha256: str, environment: Mapping[str, str]
) -> Commands:
    """Have the tarball at `url` unpacked beside the other releases.

    A tarball with another SHA-256 changes nothing. `environment` is what curl is told of a proxy.
    """
    release = host.get_fact(OllamaReleases, version=version)
    if release.sha256 != sha256:
        yield from fetch_release(
            f"llm-fleet-fetch-ollama-{version}.service",
            Tarball(url, sha256, f"{OLLAMA_ROOT}/{version}"),
            environment,
            shown=url.rsplit("/", 1)[-1],
        )
        # A fetch that somebody stopped has not failed either, so look at what there is.
        yield StringCommand(f'[ "$(cat {OLLAMA_ROOT}/{version}/.sha256)" = {sha256} ]')


@operation()
def switch_release(version: str) -> Commands:
    """Have `current` point to a release that is there."""
    directory = f"{OLLAMA_ROOT}/{version}"
    if host.get_fact(OllamaReleases, version=version).current != directory:
        will_write([OLLAMA_CURRENT])
        # Renamed over the old one: there is no moment without a link.
        yield StringCommand(
            "ln -sfn", directory, f"{OLLAMA_CURRENT}.new",
            "&& mv -T", f"{OLLAMA_CURRENT}.new", OLLAMA_CURRENT,
        )  # fmt: skip


@operation()
def try_servers(instances: list[Instance]) -> Commands:
    """Start each of `instances` whose unit or release is to change beside what runs, and end it.

    One that does not answer fails the host, whose servers go on as they are.
    """
    try:
        files = _unit_files(instances)
    except FleetError:
        return  # GPUs that are not told of: the step that installs the units says so
    there = host.get_fact(FileStates, paths=[file.path for file in files.values()])
    listeners: tuple[Listener, ...] = host.get_fact(Listeners)
    for item in instances:
        if there.get(files[item.unit].path) == files[item.unit].state and _has_release(item):
            continue
        yield from try_unit(
            trial_name(item),
            trial_text(
                item,
                _storage(item),
                _bound(instances)[item.name],
                any_port=any(_has_port_of(listener, item) for listener in listeners),
            ),
            "/api/version",
            seconds=_TRIAL_SECONDS,
            else_=(
                f"{host.name}: Ollama does not answer with what is declared for {item.unit}, as "
                "its output above says; nothing was changed, and what ran goes on"
            ),
            container=trial_container(item),
        )


@operation()
def install_units(instances: list[Instance]) -> Commands:
    """Have the unit of each of `instances` in place, with the GPUs that it is given.

    Decided when the step is executed: the driver that tells of the GPUs may be of this very run.
    While that one waits for its operator's reboot, units that are there stay as they are.
    """
    try:
        files = list(_unit_files(instances).values())
    except FleetError as error:
        if not host.get_fact(DrivenGpus) and _waits_for_reboot():
            yield from _stay_until_reboot(instances)
        else:
            yield fail(f"{host.name}: {error}")
        return
    checks = [StringCommand("(", verify_unit(file.staged_name), ")") for file in files]
    for item in instances:
        if item.name:
            host.log(f"{item.unit}: {', '.join(_bound(instances)[item.name]) or 'no GPU'}")
    yield from install_files._inner(files=files, check=StringCommand(*checks, _separator=" && "))


def interrupted(instances: list[Instance], running: Collection[str]) -> list[str]:
    """Of the units that are `running`, those that these steps and `run_unit` would interrupt.

    None of what GPUs that are not told of belong to: the step that installs the units says so.
    """
    keep = [item.unit for item in instances]
    try:
        files = _unit_files(instances)
    except FleetError:
        return []
    there = host.get_fact(FileStates, paths=[file.path for file in files.values()])
    changed = [
        item.unit
        for item in instances
        if item.unit in running
        and (
            there.get(files[item.unit].path) != files[item.unit].state
            or not _has_release(item)
            or _is_outdated(item)
        )
    ]
    return [*changed, *(unit for unit in running if unit not in keep)]


def _is_outdated(item: Instance) -> bool:
    now: Unit = host.get_fact(UnitState, unit=item.unit, files=running_files(item))
    return now.is_active and next_verb(now, now) == "restart"


def _unit_files(instances: list[Instance]) -> dict[str, ManagedFile]:
    """Unit to its file, as this host is to have it.

    Raises:
        FleetError: a GPU is not there.
    """
    bound = _bound(instances)
    return {item.unit: unit_file(item, _storage(item), bound[item.name]) for item in instances}


def _bound(instances: list[Instance]) -> Bound:
    present: tuple[DrivenGpu, ...] = host.get_fact(DrivenGpus)
    return bind_gpus(instances, present, host.get_fact(GpuHardwareFact))


def _storage(item: Instance) -> Storage:
    places: dict[str, Place] = host.get_fact(Places, paths=asked_paths(item.settings))
    return Storage.of(item.settings, places)


def _has_release(item: Instance) -> bool:
    """Whether what runs is of the release that `item` is declared with; an image is in its unit."""
    version = item.settings.version
    current = host.get_fact(OllamaReleases, version=version).current
    return item.runtime == "docker" or current == f"{OLLAMA_ROOT}/{version}"


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
def remove_servers(instances: list[Instance]) -> Commands:
    """Have no Ollama server but `instances`, and the loader started by no other than they say.

    They are stopped first: who comes after them may have their port, as may one of the others.
    """
    servers = host.get_fact(OllamaServers)
    keep = [item.unit for item in instances]
    gone = [path for path in servers.paths if not _belongs(path, keep)]
    for unit in servers.running:
        if unit not in keep:
            will_restart(Restart(unit, "stop"))
            # One that has failed would be listed for ever.
            name = QuoteString(unit)
            yield or_journal(
                StringCommand(
                    "systemctl stop", name, "&& { ! systemctl is-failed --quiet", name,
                    "|| systemctl reset-failed", name, "; }",
                ),
                unit,
            )  # fmt: skip
    for unit in _in_the_way(instances, host.get_fact(Listeners)):
        yield or_journal(StringCommand("systemctl stop", QuoteString(unit)), unit)
    if gone:
        folders = {str(PurePosixPath(path).parent) for path in gone}
        emptied = sorted(folder for folder in folders if folder.endswith(".service.wants"))
        tidy = StringCommand("&& rmdir", *emptied, "--ignore-fail-on-non-empty") if emptied else ""
        yield StringCommand("rm -f", *map(QuoteString, gone), tidy, "&& systemctl daemon-reload")


def _in_the_way(instances: list[Instance], listeners: tuple[Listener, ...]) -> list[str]:
    """Units of `instances` that run with a port which is another one's from now on."""
    return [
        item.unit
        for item in instances
        for listener in listeners
        if (item.container or item.unit) in listener.holders
        and any(_has_port_of(listener, other) for other in instances if other is not item)
    ]


def _has_port_of(listener: Listener, item: Instance) -> bool:
    return listener.is_in_the_way(item.endpoint.address, item.endpoint.port)


def _belongs(path: str, keep: list[str]) -> bool:
    """Whether a file or link is of the servers `keep`, or starts the loader when they say so."""
    folder, name = PurePosixPath(path).parent.name, PurePosixPath(path).name
    if name != LOADER_UNIT:
        return name in keep
    return folder == (f"{OLLAMA_UNIT}.wants" if OLLAMA_UNIT in keep else "multi-user.target.wants")
