"""The NVIDIA driver on a host: installed, loaded, and brought to the GPUs by a reboot."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager

import gevent  # type: ignore[import-untyped]
from gevent.lock import BoundedSemaphore  # type: ignore[import-untyped]
from paramiko import SSHException
from pyinfra import host, logger
from pyinfra import state as run_state
from pyinfra.api import FunctionCommand, QuoteString, StringCommand, operation
from pyinfra.api.host import Host
from pyinfra.api.state import State
from pyinfra.facts.deb import DebPackages
from pyinfra.facts.files import FileContents

from fleet.driver.facts import BootId, DriverState, DriverStateFact
from fleet.driver.paths import DRIVER_JOB, DRIVER_LOGS, DRIVER_NOUVEAU, DRIVER_WARNING
from fleet.driver.plan import Plan, on_kernel
from fleet.driver.settings import RebootPolicy
from fleet.kit.apt import kept_files_told
from fleet.kit.commands import Commands, fail
from fleet.kit.facts.jobs import LoggedJob, LoggedRun
from fleet.kit.jobs import run_job, start_job
from fleet.kit.paths import LIB
from fleet.kit.planned import HOST, Restart, will_restart
from fleet.kit.refuse import refusal
from fleet.kit.units import run_unit

INSTALLER = f"{LIB}/driver_install.py"

_BOOT_ID = (
    '[ "$(systemctl is-system-running 2>/dev/null)" = stopping ] || '
    "cat /proc/sys/kernel/random/boot_id"
)
# Held by the host that reboots, when they do it one after the other.
_TURN = BoundedSemaphore(1)
_LOST: list[str] = []


@operation()
def install_driver(plan: Plan, version: str | None, hold: bool) -> Commands:
    """Have the plan's packages installed and held, and their module there for the running kernel.

    The host does it by itself, in a unit: a lost connection stops no build.
    """
    state = host.get_fact(DriverStateFact, nouveau_conf=DRIVER_NOUVEAU)
    installed = host.get_fact(DebPackages)
    plan = on_kernel(plan, state.kernel, installed)
    if not _needs_install(plan, state, installed, version=version, hold=hold):
        host.noop(f"driver {state.installed} is installed for kernel {state.kernel}")
        return
    words: list[str | QuoteString] = [f"--logs {DRIVER_LOGS}"]
    words += [] if version else [f"--stay {plan.branch}"]
    words += ["--dkms"] if plan.dkms else []
    words += ["--hold"] if hold else []
    for option, names in (
        ("--pinning", plan.pinning),
        ("--package", plan.packages),
        ("--fabric", plan.fabric),
    ):
        for name in names:
            words += [option, QuoteString(name)]
    start = start_job(
        DRIVER_JOB,
        # Nothing: what packages' scripts do, and a build of a module, may need all of the host.
        [],
        "--property=Type=exec",
        "--setenv=PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "/usr/bin/python3",
        INSTALLER,
        *words,
    )

    def describe(job: LoggedRun) -> str:
        return f"driver: {(job.line or 'working')[:100]}"

    with kept_files_told():
        yield from run_job(
            DRIVER_JOB, start, lambda: host.get_fact(LoggedJob, unit=DRIVER_JOB), describe
        )
    if run_state.is_executing:
        for line in host.get_fact(FileContents, path=DRIVER_WARNING) or []:
            host.log(line, log_func=logger.warning)


def _needs_install(
    plan: Plan,
    state: DriverState,
    installed: dict[str, list[str]],
    *,
    version: str | None,
    hold: bool,
) -> bool:
    names = {*plan.packages, *plan.fabric}
    if not {*names, *plan.pinning} <= set(installed) or state.stale_initramfs:
        return True
    module = state.installed
    if module is None or module.branch != plan.branch or version not in (None, module.version):
        return True
    if any(upstream(found) != module.version for n in plan.fabric for found in installed[n]):
        return True
    return (state.held & names) != (names if hold else set())


def upstream(version: str) -> str:
    """The driver's version in a package's: `580.178.04` of `1:580.178.04-1ubuntu1`."""
    return version.rpartition(":")[2].partition("-")[0]


@operation()
def reboot_into_driver(
    policy: RebootPolicy, timeout: float
) -> Generator[StringCommand | FunctionCommand, None, None]:
    """Reboot when the module on the disk is not the one that runs the GPUs.

    `policy` is the setting `driver_reboot`; `timeout` is in seconds. States are compared: a run
    that was cut short before the reboot leaves it to the next one.
    """
    state = host.get_fact(DriverStateFact, nouveau_conf=DRIVER_NOUVEAU)
    if not state.needs_reboot:
        host.noop(f"driver {state.loaded or state.installed}: no reboot needed")
        return
    reason = _reason(state)
    if policy == "never":
        message = f"{reason}; reboot this host yourself (driver_reboot = 'never')"
        host.log(message, log_func=logger.warning)
        return
    will_restart(Restart(HOST, "reboot"))
    with _turn(policy == "one-at-a-time"):
        if policy == "one-at-a-time" and _LOST:
            yield fail(
                f"{host.name}: {reason}, but {', '.join(_LOST)} did not come back from the same "
                "reboot; this host was left running"
            )
            return
        host.log(f"{reason}; rebooting")
        before = host.get_fact(BootId)
        # Detached, so that the session's end is no error.
        yield StringCommand("( sleep 1; systemctl reboot ) </dev/null >/dev/null 2>&1 &")
        yield FunctionCommand(wait_for_boot, (before, timeout), {})
        yield FunctionCommand(judge_boot, (), {})


def _reason(state: DriverState) -> str:
    if state.nouveau:
        return f"nouveau holds the GPU, driver {state.installed} waits for a reboot"
    loaded, installed = state.loaded, state.installed
    if loaded and installed and loaded.version == installed.version:
        return (
            f"driver {installed} is installed with {installed.flavor} modules, {loaded.flavor} "
            "ones are still loaded"
        )
    return f"driver {installed} is installed, {loaded} is still loaded"


@contextmanager
def _turn(alone: bool) -> Iterator[None]:
    if not alone:
        yield
        return
    with _TURN:
        yield


def wait_for_boot(state: State, host: Host, before: str | None, timeout: float) -> bool:
    """Connect again, to another boot than `before`; whether it was back in `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        gevent.sleep(2)
        # A new session each time: the old one may be of a host that is still going down.
        host.disconnect()
        host.connect(show_errors=False)
        if host.connected and _boot_id(host) not in (None, before):
            return True
    _LOST.append(host.name)
    host.log(
        f"{host.name} did not come back within {timeout:.0f} s; look at its console",
        log_func=logger.error,
    )
    return False


def judge_boot(state: State, host: Host) -> bool:
    """Whether our reboot brought the driver; one that did not would follow at every deploy."""
    now = host.get_fact(DriverStateFact, nouveau_conf=DRIVER_NOUVEAU)
    if now.installed and not now.needs_reboot:
        return True
    why = (
        f"{_reason(now)}, but that was just done; see which initramfs brings it"
        if now.installed
        else f"it came up with kernel {now.kernel}, which has no module of the driver; deploy again"
    )
    host.log(f"{host.name}: {why}", log_func=logger.error)
    return False


def _boot_id(host: Host) -> str | None:
    """The running boot's id; None when the session ends meanwhile, which for a fact is fatal.

    A host that is still going down has none: in a container it may have lost its own already.
    """
    try:
        ok, output = host.run_shell_command(_BOOT_ID)
    except (OSError, EOFError, SSHException):
        return None
    return output.stdout.strip() or None if ok else None


@operation()
def require_driver(floor: int, remedy: str, *, installed_here: bool) -> Commands:
    """Fail a host whose loaded driver is not of branch `floor` at least, and say the `remedy`.

    One that was `installed_here` and waits for its operator's reboot is left to that.
    """
    state = host.get_fact(DriverStateFact, nouveau_conf=DRIVER_NOUVEAU)
    if installed_here and state.needs_reboot:
        host.noop("the driver is judged after the reboot")
    elif state.loaded is None:
        # One of ours is installed by now; another one nobody brings.
        yield (fail if installed_here else refusal)(
            f"{host.name}: no NVIDIA driver is loaded, and Ollama would use the CPU without a "
            f"word; {remedy}"
        )
    elif state.loaded.branch < floor:
        yield (fail if installed_here else refusal)(
            f"{host.name}: driver {state.loaded} is loaded, and Ollama needs {floor} or newer for "
            f"these GPUs: it would use the CPU without a word; {remedy}"
        )


@operation()
def run_with_driver(unit: str, files: list[str]) -> Commands:
    """`run_unit`, unless the host still waits for a reboot that is nobody's but the operator's."""
    state = host.get_fact(DriverStateFact, nouveau_conf=DRIVER_NOUVEAU)
    if state.needs_reboot:
        host.noop(f"{unit} starts after the reboot")
        return
    yield from run_unit._inner(unit=unit, files=files)
