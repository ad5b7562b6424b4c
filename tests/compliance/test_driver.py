"""The GPUs are driven by the declared driver, and stay so."""

from __future__ import annotations

import pytest
from pyinfra.facts.deb import DebPackages
from pyinfra.facts.server import Arch, LinuxDistribution

from fleet.driver.facts import DriverState, DriverStateFact, GpuHardware, GpuHardwareFact
from fleet.driver.files import guard_files, preferences_file, repository, unit_files
from fleet.driver.operations import upstream
from fleet.driver.paths import DEVICES_UNIT, DRIVER_NOUVEAU, FABRIC_UNIT
from fleet.driver.plan import Plan, System, floor_of, make_plan, on_kernel
from fleet.driver.settings import Driver
from fleet.gates.asked import CPU_BY_DECLARATION, on_gpu
from fleet.kit.facts.apt import ExistingFiles, KeyringFingerprints
from fleet.kit.facts.files import FileStates
from fleet.ollama.servers import instances_of

from .connection import Target
from .outcomes import Record, Say


def test_loaded(driven_host: Target, measured: Say, record: Record) -> None:
    """The loaded driver is the installed one, and new enough for Ollama."""
    hardware = _hardware(driven_host)
    _skip_without_need(driven_host)
    state = _state(driven_host)
    loaded = f"{state.loaded} ({state.loaded.flavor})" if state.loaded else "none (not loaded)"
    measured(loaded)
    record("versions", "NVIDIA driver", loaded)
    assert not state.nouveau, "nouveau holds the GPU; reboot this host"
    assert state.installed, f"no NVIDIA module for the running kernel {state.kernel}"
    evidence = f"reboot this host{driven_host.journal(DEVICES_UNIT)}"
    assert state.loaded, f"driver {state.installed} is installed, none is loaded; {evidence}"
    assert state.loaded == state.installed, (
        f"driver {state.installed} ({state.installed.flavor} modules) is installed, {state.loaded} "
        f"({state.loaded.flavor}) is loaded; {evidence}"
    )
    floor = floor_of(hardware)
    assert state.loaded.branch >= floor, (
        f"driver {state.loaded}: Ollama needs {floor} or newer for these GPUs, and would use the "
        "CPU without a word"
    )


def test_declared_driver(driven_host: Target) -> None:
    """The driver is of the declared branch, and its modules of the declared kind."""
    plan, state = _plan(driven_host), _state(driven_host)
    version = driven_host.declared[Driver].version
    assert state.installed, f"no NVIDIA module for the running kernel {state.kernel}"
    assert state.installed.branch == plan.branch
    assert version in (None, state.installed.version)
    assert state.loaded, "no NVIDIA driver is loaded"
    assert state.loaded.flavor == plan.flavor


def test_every_gpu_answers(driven_host: Target) -> None:
    """nvidia-smi lists each GPU that is on the bus."""
    hardware = _hardware(driven_host)
    _skip_without_need(driven_host)
    listed = driven_host.testinfra.run("nvidia-smi --query-gpu=pci.bus_id --format=csv,noheader")
    assert listed.rc == 0, listed.stdout + listed.stderr
    # nvidia-smi writes the domain with eight digits, sysfs with four.
    answering = {line.strip().lower()[-12:] for line in listed.stdout.splitlines()}
    assert answering == {gpu.address for gpu in hardware.gpus}


def test_packages(driven_host: Target) -> None:
    """The driver's packages are whole, held as declared, and left alone by unattended upgrades."""
    plan, state = _plan(driven_host), _state(driven_host)
    plan = on_kernel(plan, state.kernel, driven_host.fact(DebPackages))
    names = {*plan.packages, *plan.fabric}
    assert driven_host.run("dpkg --audit") == ""
    missing = [n for n in sorted(names) if not driven_host.testinfra.package(n).is_installed]
    assert missing == []
    assert state.held & names == (names if driven_host.declared[Driver].hold else set())
    excluded = driven_host.run("apt-config dump Unattended-Upgrade::Package-Blacklist")
    assert '"^libnvidia-"' in excluded


def test_source(driven_host: Target) -> None:
    """The driver's repository is the declared one, with the pinned key, and gives nothing else."""
    plan = _plan(driven_host)
    settings = driven_host.declared[Driver]
    files = guard_files()
    if settings.source == "nvidia":
        trusted = repository(driven_host.declared, _platform(driven_host))
        files += [preferences_file(driven_host.declared, plan), trusted.source]
        keys = driven_host.fact(KeyringFingerprints, path=trusted.keyring)
        assert keys == (trusted.fingerprint,)
        assert driven_host.fact(ExistingFiles, paths=trusted.replaced) == []
    states = driven_host.fact(FileStates, paths=[file.path for file in files])
    assert states == {file.path: file.state for file in files}


def test_ready_before_ollama(driven_host: Target) -> None:
    """The device nodes and the persistence daemon are there, at boot before Ollama starts."""
    _hardware(driven_host)
    _skip_without_need(driven_host)
    # Of somebody else's driver the nodes alone are ours.
    units = unit_files()[: 1 if driven_host.declared[Driver].source == "none" else 2]
    states = driven_host.fact(FileStates, paths=[file.path for file in units])
    assert states == {file.path: file.state for file in units}
    orders = [
        driven_host.run("systemctl show --value -p After %s", item.unit).split()
        for item in instances_of(driven_host.declared)
    ]
    for unit in (file.path.rpartition("/")[2] for file in units):
        service = driven_host.testinfra.service(unit)
        assert service.is_running, driven_host.journal(unit)
        assert service.is_enabled
        assert all(unit in after for after in orders)
    for node in ("nvidiactl", "nvidia-uvm", "nvidia0"):
        assert driven_host.run("stat -c %%F /dev/%s", node) == "character special file"


def test_fabric_manager(driven_host: Target) -> None:
    """The fabric manager has exactly the driver's version and runs, where there are NVSwitches."""
    plan, state = _plan(driven_host), _state(driven_host)
    if not plan.fabric:
        pytest.skip("no NVSwitches")
    for name in plan.fabric:
        assert upstream(driven_host.testinfra.package(name).version) == str(state.loaded)
    service = driven_host.testinfra.service(FABRIC_UNIT)
    assert service.is_running, driven_host.journal(FABRIC_UNIT)
    assert service.is_enabled


def _hardware(target: Target) -> GpuHardware:
    hardware: GpuHardware = target.fact(GpuHardwareFact)
    if not hardware.gpus:
        pytest.skip("no NVIDIA GPU on the bus")
    return hardware


def _skip_without_need(target: Target) -> None:
    """Nobody has to bring a driver where no server uses a GPU."""
    declared = target.declared
    if declared[Driver].source == "none" and not on_gpu(declared, target.fact):
        pytest.skip(CPU_BY_DECLARATION)


def _state(target: Target) -> DriverState:
    state: DriverState = target.fact(DriverStateFact, nouveau_conf=DRIVER_NOUVEAU)
    return state


def _platform(target: Target) -> System:
    release = target.fact(LinuxDistribution)["release_meta"]
    return System(release["ID"], release["VERSION_ID"], target.fact(Arch))


def _plan(target: Target) -> Plan:
    """What is declared for the host; somebody else's driver is not ours to judge further."""
    hardware = _hardware(target)
    if target.declared[Driver].source == "none":
        pytest.skip("driver_source = 'none'")
    return make_plan(target.declared[Driver], _platform(target), hardware)
