"""The NVIDIA driver: of the declared branch, held there, loaded, and with its nodes in place."""

from __future__ import annotations

from pyinfra import host
from pyinfra.api import deploy
from pyinfra.facts.server import Arch, LinuxDistribution
from pyinfra.operations import files

from fleet import pins
from fleet.declare.load import FleetHost
from fleet.driver.facts import DriverStateFact, GpuHardware, GpuHardwareFact
from fleet.driver.operations import (
    INSTALLER,
    install_driver,
    reboot_into_driver,
    refuse,
    require_driver,
    run_with_driver,
)
from fleet.driver.plan import Plan, Platform, Refusal, floor_of, make_plan
from fleet.kit import paths
from fleet.kit.apt import AptRepository, forget_repository, trust_repository
from fleet.kit.commands import verify_unit
from fleet.kit.durations import seconds
from fleet.kit.files import ManagedFile, install_files
from fleet.kit.packages import install_packages
from fleet.kit.render import host_program, render
from fleet.kit.units import enable_unit

_DEVICES = f"{paths.LIB}/nvidia-devices"
_SOMEBODY_ELSES = (
    "with driver_source = 'none' the driver is yours: install or load it, or declare "
    "driver_source = 'nvidia'; ollama_instances with gpus = [] run on the CPU by declaration"
)


@deploy("Driver")
def driver(me: FleetHost) -> None:
    """Have the GPUs driven by the declared driver; a host without NVIDIA GPUs is left alone."""
    hardware = host.get_fact(GpuHardwareFact)
    if not hardware.gpus:
        return
    if me.driver.source == "none":
        if host.get_fact(DriverStateFact, nouveau_conf=paths.DRIVER_NOUVEAU).loaded:
            _make_nodes()
        _require_driver(me, hardware, _SOMEBODY_ELSES)
        return
    release = host.get_fact(LinuxDistribution)["release_meta"]
    platform = Platform(release["ID"], release["VERSION_ID"], host.get_fact(Arch))
    try:
        plan = make_plan(me.driver, platform, hardware)
    except Refusal as refusal:
        refuse(name="Refuse what cannot work", message=str(refusal))
        return
    install_files(name="Keep nouveau and unattended upgrades away", files=guard_files())
    source = repository(me, platform)
    # The installer is a Python program; a bare Debian has no Python.
    install_packages(name="Install tools", packages=["ca-certificates", "gpg", "python3"])
    if me.driver.source == "nvidia":
        # The preferences first: at no moment does apt see the repository without them.
        install_files(name="Pin the branch", files=[preferences_file(me, plan)])
        trust_repository(name="Trust NVIDIA's repository", repository=source)
    else:
        forget_repository(name="Forget NVIDIA's repository", repository=source)
        files.file(name="Unpin the branch", path=paths.DRIVER_PREFERENCES, present=False)
    install_files(name="Install the programs", files=programs())
    install_driver(
        name=f"Install driver {me.driver.version or plan.branch} ({plan.flavor} modules)",
        plan=plan,
        version=me.driver.version,
        hold=me.driver.hold,
    )
    devices, persistenced = unit_files()
    install_files(
        name="Install the unit of the device nodes",
        files=[devices],
        check=verify_unit(devices.staged_name),
    )
    install_files(
        name="Install the persistence daemon's unit",
        files=[persistenced],
        check=verify_unit(persistenced.staged_name),
    )
    if plan.fabric:
        install_files(name="Order the fabric manager", files=[fabric_file()])
    reboot_into_driver(
        name="Reboot into the driver",
        policy=me.driver.reboot,
        timeout=seconds(me.driver.reboot_timeout),
    )
    run_with_driver(
        name="Make the device nodes", unit=paths.DEVICES_UNIT, files=[devices.path, _DEVICES]
    )
    run_with_driver(
        name="Run the persistence daemon", unit=paths.PERSISTENCED_UNIT, files=[persistenced.path]
    )
    if plan.fabric:
        # The drop-in is an order for boots: a running one need not be restarted for it.
        enable_unit(name="Enable the fabric manager", unit=paths.FABRIC_UNIT)
        run_with_driver(name="Run the fabric manager", unit=paths.FABRIC_UNIT, files=[])
    _require_driver(me, hardware, f"see the journal of {paths.DEVICES_UNIT}")


def _make_nodes() -> None:
    """Make the device nodes at each boot, of a driver that is somebody else's.

    nvidia-modprobe makes them for whoever asks first, but not for a hardened Ollama.
    """
    devices = unit_files()[0]
    install_files(name="Install the program of the device nodes", files=programs()[1:])
    install_files(
        name="Install the unit of the device nodes",
        files=[devices],
        check=verify_unit(devices.staged_name),
    )
    run_with_driver(
        name="Make the device nodes", unit=paths.DEVICES_UNIT, files=[devices.path, _DEVICES]
    )


def _require_driver(me: FleetHost, hardware: GpuHardware, remedy: str) -> None:
    """Ollama drops GPUs of an older driver; a host whose servers are all on the CPU needs none."""
    if any(item.gpus != () for item in me.instances):
        require_driver(
            name="Require what Ollama needs",
            floor=floor_of(hardware),
            remedy=remedy,
            installed_here=me.driver.source != "none",
        )


def guard_files() -> list[ManagedFile]:
    """What keeps others from the GPUs and from the driver's packages."""
    return [
        ManagedFile(paths.DRIVER_NOUVEAU, render("driver/nouveau.conf.j2")),
        ManagedFile(paths.DRIVER_UNATTENDED, render("driver/unattended.conf.j2")),
    ]


def repository(me: FleetHost, platform: Platform) -> AptRepository:
    """NVIDIA's repository for a platform."""
    name = platform.nvidia_name
    url = f"{me.driver.repository_url}/{name}/{platform.nvidia_arch}"
    fingerprint = me.driver.repository_fingerprint or pins.NVIDIA_FINGERPRINTS[name]
    # The key's file is named by the end of its fingerprint: 3bf863cc.pub, but 8793F200.pub.
    end = fingerprint[-8:]
    return AptRepository(
        name="nvidia",
        url=url,
        suites="/",
        components="",
        key=f"{url}/{end if name in pins.NVIDIA_UPPER_CASE_KEYS else end.lower()}.pub",
        fingerprint=fingerprint,
        # What NVIDIA's package cuda-keyring brings.
        replaces=(f"cuda-{name}-{platform.nvidia_arch}.list",),
    )


def preferences_file(me: FleetHost, plan: Plan) -> ManagedFile:
    """What lets the repository give the declared driver only."""
    version = f"{me.driver.version}*" if me.driver.version else f"{plan.branch}.*"
    return ManagedFile(paths.DRIVER_PREFERENCES, render("driver/preferences.j2", version=version))


def programs() -> list[ManagedFile]:
    """What the host runs by itself."""
    return [
        ManagedFile(INSTALLER, host_program("driver", "driver_install.py"), mode="755"),
        ManagedFile(_DEVICES, host_program("driver", "nvidia-devices"), mode="755"),
    ]


def unit_files() -> tuple[ManagedFile, ManagedFile]:
    """The units of the device nodes and of the persistence daemon."""
    devices = render("driver/llm-fleet-gpu-devices.service.j2", program=_DEVICES)
    persistenced = render("driver/nvidia-persistenced.service.j2", devices_unit=paths.DEVICES_UNIT)
    return (
        ManagedFile(paths.DEVICES_UNIT_FILE, devices),
        ManagedFile(paths.PERSISTENCED_UNIT_FILE, persistenced),
    )


def fabric_file() -> ManagedFile:
    """The drop-in that starts the fabric manager between the driver and Ollama."""
    return ManagedFile(
        paths.FABRIC_DROPIN,
        render("driver/nvidia-fabricmanager.dropin.conf.j2", devices_unit=paths.DEVICES_UNIT),
    )
