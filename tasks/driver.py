"""The NVIDIA driver: of the declared branch, held there, loaded, and with its nodes in place."""

from __future__ import annotations

from pyinfra import host
from pyinfra.api import deploy
from pyinfra.facts.server import Arch, LinuxDistribution
from pyinfra.operations import files

from fleet.declare.fleet import Fleet, FleetHost
from fleet.driver.facts import DriverStateFact, GpuHardware, GpuHardwareFact
from fleet.driver.files import (
    DEVICES_PROGRAM,
    devices_program,
    fabric_file,
    guard_files,
    preferences_file,
    programs,
    repository,
    unit_files,
)
from fleet.driver.operations import (
    install_driver,
    require_driver,
    run_with_driver,
)
from fleet.driver.paths import (
    DEVICES_UNIT,
    DRIVER_NOUVEAU,
    DRIVER_PREFERENCES,
    FABRIC_UNIT,
    PERSISTENCED_UNIT,
)
from fleet.driver.plan import Refusal, System, floor_of, make_plan
from fleet.driver.settings import Driver
from fleet.kit.commands import verify_unit
from fleet.kit.durations import seconds
from fleet.kit.files import install_files
from fleet.kit.packages import install_packages
from fleet.kit.refuse import refuse
from fleet.kit.repositories import forget_repository, trust_repository
from fleet.kit.units import enable_unit
from fleet.ollama.servers import wants_gpus
from fleet.serving.operations import roll_reboot
from fleet.vllm import servers as vllm

_SOMEBODY_ELSES = (
    "with driver_source = 'none' the driver is yours: install or load it, or declare "
    "driver_source = 'nvidia'; ollama_instances with gpus = [] run on the CPU by declaration"
)


@deploy("Driver")
def driver(me: FleetHost, fleet: Fleet) -> None:
    """Have the GPUs driven by the declared driver; a host without NVIDIA GPUs is left alone."""
    hardware = host.get_fact(GpuHardwareFact)
    if not hardware.gpus:
        return
    if me[Driver].source == "none":
        if host.get_fact(DriverStateFact, nouveau_conf=DRIVER_NOUVEAU).loaded:
            _make_nodes()
        _require_driver(me, hardware, _SOMEBODY_ELSES)
        return
    release = host.get_fact(LinuxDistribution)["release_meta"]
    system = System(release["ID"], release["VERSION_ID"], host.get_fact(Arch))
    try:
        plan = make_plan(me[Driver], system, hardware)
    except Refusal as refusal:
        refuse(name="Refuse what cannot work", message=str(refusal))
        return
    install_files(name="Keep nouveau and unattended upgrades away", files=guard_files())
    source = repository(me, system)
    # The installer is a Python program; a bare Debian has no Python.
    install_packages(name="Install tools", packages=["ca-certificates", "gpg", "python3"])
    if me[Driver].source == "nvidia":
        # The preferences first: at no moment does apt see the repository without them.
        install_files(name="Pin the branch", files=[preferences_file(me, plan)])
        trust_repository(name="Trust NVIDIA's repository", repository=source)
    else:
        forget_repository(name="Forget NVIDIA's repository", repository=source)
        files.file(name="Unpin the branch", path=DRIVER_PREFERENCES, present=False)
    install_files(name="Install the programs", files=programs())
    install_driver(
        name=f"Install driver {me[Driver].version or plan.branch} ({plan.flavor} modules)",
        plan=plan,
        version=me[Driver].version,
        hold=me[Driver].hold,
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
    roll_reboot(
        name="Reboot into the driver",
        me=me,
        fleet=fleet,
        policy=me[Driver].reboot,
        timeout=seconds(me[Driver].reboot_timeout),
    )
    run_with_driver(
        name="Make the device nodes", unit=DEVICES_UNIT, files=[devices.path, DEVICES_PROGRAM]
    )
    run_with_driver(
        name="Run the persistence daemon", unit=PERSISTENCED_UNIT, files=[persistenced.path]
    )
    if plan.fabric:
        # The drop-in is an order for boots: a running one need not be restarted for it.
        enable_unit(name="Enable the fabric manager", unit=FABRIC_UNIT)
        run_with_driver(name="Run the fabric manager", unit=FABRIC_UNIT, files=[])
    _require_driver(me, hardware, f"see the journal of {DEVICES_UNIT}")


def _make_nodes() -> None:
    """Make the device nodes at each boot, of a driver that is somebody else's.

    nvidia-modprobe makes them for whoever asks first, but not for a hardened Ollama.
    """
    devices = unit_files()[0]
    install_files(name="Install the program of the device nodes", files=[devices_program()])
    install_files(
        name="Install the unit of the device nodes",
        files=[devices],
        check=verify_unit(devices.staged_name),
    )
    run_with_driver(
        name="Make the device nodes", unit=DEVICES_UNIT, files=[devices.path, DEVICES_PROGRAM]
    )


def _require_driver(me: FleetHost, hardware: GpuHardware, remedy: str) -> None:
    """Ollama drops GPUs of an older driver; a host whose servers are all on the CPU needs none."""
    if wants_gpus(me) or vllm.wants_gpus(me):
        require_driver(
            name="Require what Ollama needs",
            floor=floor_of(hardware),
            remedy=remedy,
            installed_here=me[Driver].source != "none",
        )
