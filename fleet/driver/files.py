"""Every file of the GPU driver, and its repository."""

from __future__ import annotations

from fleet import pins
from fleet.declare.fleet import FleetHost
from fleet.driver.paths import (
    DEVICES_UNIT,
    DEVICES_UNIT_FILE,
    DRIVER_NOUVEAU,
    DRIVER_PREFERENCES,
    DRIVER_UNATTENDED,
    FABRIC_DROPIN,
    PERSISTENCED_UNIT_FILE,
)
from fleet.driver.plan import Plan, System
from fleet.driver.settings import Driver
from fleet.kit import paths
from fleet.kit.files import ManagedFile
from fleet.kit.host_programs import program_files
from fleet.kit.render import host_program, render
from fleet.kit.repositories import AptRepository

DEVICES_PROGRAM = f"{paths.LIB}/nvidia-devices"


def guard_files() -> list[ManagedFile]:
    """What keeps others from the GPUs and from the driver's packages."""
    return [
        ManagedFile(DRIVER_NOUVEAU, render("driver/nouveau.conf.j2")),
        ManagedFile(DRIVER_UNATTENDED, render("driver/unattended.conf.j2")),
    ]


def repository(me: FleetHost, system: System) -> AptRepository:
    """NVIDIA's repository for a system."""
    name = system.nvidia_name
    url = f"{me[Driver].repository_url}/{name}/{system.nvidia_arch}"
    fingerprint = me[Driver].repository_fingerprint or pins.NVIDIA_FINGERPRINTS[name]
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
        replaces=(f"cuda-{name}-{system.nvidia_arch}.list",),
    )


def preferences_file(me: FleetHost, plan: Plan) -> ManagedFile:
    """What lets the repository give the declared driver only."""
    version = f"{me[Driver].version}*" if me[Driver].version else f"{plan.branch}.*"
    return ManagedFile(DRIVER_PREFERENCES, render("driver/preferences.j2", version=version))


def programs() -> list[ManagedFile]:
    """The installer with its way to apt, and what makes the device nodes."""
    patient = f"{paths.LIB}/when-apt-is-free"
    return [
        ManagedFile(patient, host_program("kit", "when-apt-is-free"), mode="755"),
        *program_files("driver", "driver_install"),
        devices_program(),
    ]


def devices_program() -> ManagedFile:
    """What makes the device nodes."""
    return ManagedFile(DEVICES_PROGRAM, host_program("driver", "nvidia-devices"), mode="755")


def unit_files() -> tuple[ManagedFile, ManagedFile]:
    """The units of the device nodes and of the persistence daemon."""
    devices = render("driver/llm-fleet-gpu-devices.service.j2", program=DEVICES_PROGRAM)
    persistenced = render("driver/nvidia-persistenced.service.j2", devices_unit=DEVICES_UNIT)
    return (
        ManagedFile(DEVICES_UNIT_FILE, devices),
        ManagedFile(PERSISTENCED_UNIT_FILE, persistenced),
    )


def fabric_file() -> ManagedFile:
    """The drop-in that starts the fabric manager between the driver and Ollama."""
    return ManagedFile(
        FABRIC_DROPIN,
        render("driver/nvidia-fabricmanager.dropin.conf.j2", devices_unit=DEVICES_UNIT),
    )
