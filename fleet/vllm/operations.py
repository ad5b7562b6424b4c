"""vLLM on a host: its virtual environments, and the units of its servers."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import PurePosixPath

from pyinfra import host, logger
from pyinfra.api import QuoteString, StringCommand, operation

from fleet.declare.fleet import Fleet, FleetHost
from fleet.driver.facts import DrivenGpus, DriverState, DriverStateFact
from fleet.driver.paths import DRIVER_NOUVEAU
from fleet.kit.commands import Commands, fail, or_journal, verify_unit
from fleet.kit.errors import FleetError
from fleet.kit.facts.files import FileStates
from fleet.kit.facts.jobs import LoggedJob
from fleet.kit.facts.units import Unit, UnitState
from fleet.kit.files import ManagedFile, install_files
from fleet.kit.jobs import newest_line, run_job, start_job
from fleet.kit.listeners import is_own
from fleet.kit.paths import UNITS
from fleet.kit.planned import Restart, will_restart, will_write
from fleet.kit.refuse import refusal
from fleet.kit.sandbox import sandbox
from fleet.kit.units import next_verb
from fleet.vllm.asked import gpus_of, judged, weights_of
from fleet.vllm.facts import MakesToken, Venvs, VllmServers, ask_one_token
from fleet.vllm.files import (
    lock_file,
    running_files,
    unit_file,
    venv_directory,
    watch_files,
)
from fleet.vllm.paths import (
    VENV_PROGRAM,
    VLLM_CURRENT,
    VLLM_ROOT,
    watch_timer,
    watch_unit,
)
from fleet.vllm.servers import VllmInstance, vllm_instances
from fleet.vllm.settings import Vllm

# Starts of a server that does not come up, after which it is waited for no more.
_STARTS = 3
_VENV_UNIT = "llm-fleet-vllm-venv.service"


@operation()
def judge_servers(me: FleetHost, *, final: bool) -> Commands:
    """Fail this host, and change nothing on it, when a declared server could not start.

    Decided when the step is executed: the driver, and the weights, may be of this very run.
    """
    verdict = judged(me, host.get_fact, final=final)
    for note in verdict.notes if final else ():
        host.log(note)
    if verdict.refusals:
        text = "\n".join(f"{host.name}: {line}" for line in verdict.refusals)
        yield fail(text) if final else refusal(text)


@operation()
def install_venv(me: FleetHost, fleet: Fleet) -> Commands:
    """Have the locked packages in a virtual environment of their own beside the others.

    A package that is not the locked one ends it, and changes nothing that runs.
    """
    directory = venv_directory(me, fleet)
    [lock] = lock_file(me, fleet)
    if host.get_fact(Venvs, directory=directory).lock == lock.state.sha256:
        host.noop(f"{directory} is what the lock says")
        return
    closed = sandbox(
        RestrictAddressFamilies="AF_UNIX AF_INET AF_INET6",
        ReadWritePaths=VLLM_ROOT,
        # The interpreter of somebody may be there.
        ProtectHome="read-only",
        UMask="0022",
    )
    words = [QuoteString(str(it)) for it in (directory, me[Vllm].python, me[Vllm].index_url)]
    start = start_job(_VENV_UNIT, closed, VENV_PROGRAM, *words, lock.path)
    yield from run_job(
        _VENV_UNIT, start, lambda: host.get_fact(LoggedJob, unit=_VENV_UNIT), newest_line
    )
    # One that somebody stopped has not failed either, so look at what there is.
    note = QuoteString(f"{directory}/.llm-fleet-lock")
    yield or_journal(StringCommand('[ "$(cat', note, f')" = {lock.state.sha256} ]'), _VENV_UNIT)


@operation()
def switch_venv(me: FleetHost, fleet: Fleet) -> Commands:
    """Have `current` point to the virtual environment of the lock."""
    directory = venv_directory(me, fleet)
    if host.get_fact(Venvs, directory=directory).current != directory:
        will_write([VLLM_CURRENT])
        # Renamed over the old one: there is no moment without a link.
        yield StringCommand(
            "ln -sfn", QuoteString(directory), f"{VLLM_CURRENT}.new",
            "&& mv -T", f"{VLLM_CURRENT}.new", VLLM_CURRENT,
        )  # fmt: skip


@operation()
def install_units(me: FleetHost) -> Commands:
    """Have the units of the servers and of their watches in place, with the GPUs of each.

    While the driver waits for its operator's reboot, units that are there stay as they are.
    """
    try:
        files = [*unit_files(me).values(), *watches(me)]
    except FleetError as error:
        state: DriverState = host.get_fact(DriverStateFact, nouveau_conf=DRIVER_NOUVEAU)
        if state.needs_reboot and not host.get_fact(DrivenGpus):
            yield from _stay_until_reboot(me)
        else:
            yield fail(f"{host.name}: {error}")
        return
    checks = [StringCommand("(", verify_unit(file.staged_name), ")") for file in files]
    yield from install_files._inner(files=files, check=StringCommand(*checks, _separator=" && "))


def unit_files(me: FleetHost) -> dict[str, ManagedFile]:
    """Unit to its file, as this host is to have it.

    Raises:
        FleetError: a GPU is not there.
    """
    bound = gpus_of(me, host.get_fact)
    return {
        item.unit: unit_file(item, bound[item.name], weights_of(item, host.get_fact).config)
        for item in vllm_instances(me)
    }


def watches(me: FleetHost) -> list[ManagedFile]:
    """The files of all watches."""
    return [file for item in vllm_instances(me) for file in watch_files(item)]


def interrupted(me: FleetHost, fleet: Fleet, running: Collection[str]) -> list[str]:
    """Of the units that are `running`, those that these steps would interrupt.

    None of what GPUs that are not told of belong to: the step that installs the units says so.
    """
    try:
        files = unit_files(me)
    except FleetError:
        return []
    there = host.get_fact(FileStates, paths=[file.path for file in files.values()])
    changed = [
        item.unit
        for item in vllm_instances(me)
        if item.unit in running
        and (
            there.get(files[item.unit].path) != files[item.unit].state
            or not _has_venv(me, fleet)
            or _is_outdated(item)
        )
    ]
    return [*changed, *(unit for unit in running if unit not in files)]


def _has_venv(me: FleetHost, fleet: Fleet) -> bool:
    if me[Vllm].runtime == "docker":
        return True
    directory = venv_directory(me, fleet)
    return bool(host.get_fact(Venvs, directory=directory).current == directory)


def _is_outdated(item: VllmInstance) -> bool:
    now: Unit = host.get_fact(UnitState, unit=item.unit, files=running_files(item))
    return now.is_active and next_verb(now, now) == "restart"


def _stay_until_reboot(me: FleetHost) -> Commands:
    units = [f"{UNITS}/{item.unit}" for item in vllm_instances(me)]
    there = host.get_fact(FileStates, paths=units)
    if missing := [path for path in units if path not in there]:
        yield fail(
            f"{host.name}: {', '.join(missing)} can be given GPUs after the reboot only: the "
            "installed driver is not the loaded one; reboot this host (driver_reboot = 'never' "
            "leaves that to you), and deploy again"
        )
        return
    host.log(
        "vLLM's units stay as they are until the reboot: the installed driver is not the loaded "
        "one, and tells of no GPU",
        log_func=logger.warning,
    )


@operation()
def remove_servers(me: FleetHost) -> Commands:
    """Have no vLLM server but the declared ones.

    They are stopped first: who comes after them may have their port, or their GPUs.
    """
    servers = host.get_fact(VllmServers)
    items = vllm_instances(me)
    units = {item.unit for item in items}
    keep = {name for it in items for name in (it.unit, watch_unit(it.name), watch_timer(it.name))}
    for unit in servers.running:
        if unit not in units:
            will_restart(Restart(unit, "stop"))
            name = QuoteString(unit)
            yield or_journal(
                StringCommand(
                    "systemctl stop", name, "&& { ! systemctl is-failed --quiet", name,
                    "|| systemctl reset-failed", name, "; }",
                ),
                unit,
            )  # fmt: skip
    if gone := [path for path in servers.paths if PurePosixPath(path).name not in keep]:
        folders = {str(PurePosixPath(path).parent) for path in gone}
        emptied = sorted(folder for folder in folders if folder.endswith(".service.wants"))
        tidy = (
            StringCommand("&& rmdir --ignore-fail-on-non-empty", *map(QuoteString, emptied))
            if emptied
            else ""
        )
        yield StringCommand("rm -f", *map(QuoteString, gone), tidy, "&& systemctl daemon-reload")


@operation()
def answer(item: VllmInstance) -> Commands:
    """Have the server answer one token, by its own engine; only then it is ready.

    It is waited for while it starts, and given up when it has died again and again.
    """
    if host.get_fact(MakesToken, url=item.url, model=item.model):
        host.noop(f"{item.unit} answers {item.model}")
        return
    yield from wait_for(item)


def wait_for(item: VllmInstance) -> Commands:
    """Wait until the server answers one token, and fail with its journal when it does not."""
    unit = QuoteString(item.unit)
    limit = item.start_seconds
    said = (
        f"{item.unit} does not answer one token of {item.model}: within {limit} s "
        f"(vllm_start_timeout), or it has died {_STARTS} times; its output is above"
    )
    yield or_journal(
        StringCommand(
            "began=$(date +%s); first=$(systemctl show -p NRestarts --value", unit, ");",
            "until", StringCommand(ask_one_token(item.url, item.model, 60)), ">/dev/null 2>&1;",
            f"do [ $(($(date +%s) - began)) -lt {limit} ]",
            "&& [ $(($(systemctl show -p NRestarts --value", unit,
            f") - first)) -lt {_STARTS} ] || {{", fail(said), "; }; sleep 1; done;",
            is_own(item.unit, item.endpoint.port, item.container),
        ),
        item.unit,
    )  # fmt: skip


def wait_for_all(items: Sequence[VllmInstance]) -> Commands:
    """Wait until each of the servers answers one token."""
    for item in items:
        if not host.get_fact(MakesToken, url=item.url, model=item.model):
            yield from wait_for(item)
