"""NVIDIA Container Toolkit: the host's GPUs for its containers."""

from __future__ import annotations

from pyinfra import host
from pyinfra.api import deploy
from pyinfra.facts.server import Arch

from fleet.container_toolkit.declared import is_off
from fleet.container_toolkit.files import PACKAGES, cdi_dropin, repository
from fleet.container_toolkit.operations import provide_cdi, register_runtime
from fleet.container_toolkit.paths import CDI_UNIT, CDI_WATCH_UNIT, TOOLKIT_OWNED
from fleet.container_toolkit.settings import ContainerToolkit
from fleet.declare.fleet import FleetHost
from fleet.docker.paths import DOCKER_BINARIES, DOCKER_CONFIG, DOCKER_UNIT
from fleet.driver.facts import GpuHardwareFact
from fleet.kit.facts.files import FileStates
from fleet.kit.files import install_files
from fleet.kit.packages import install_packages, install_versions
from fleet.kit.repositories import trust_repository
from fleet.kit.units import enable_unit, run_unit


@deploy("Container toolkit")
def container_toolkit(me: FleetHost) -> None:
    """Give containers the GPUs by CDI, and by the runtime `nvidia` where that is declared."""
    if is_off(me):
        if TOOLKIT_OWNED in host.get_fact(FileStates, paths=[TOOLKIT_OWNED]):
            # The rest goes at the end of the deploy, with all that is declared no more.
            register_runtime(name="Take the runtime nvidia back", wanted=False)
            _run_docker()
        return
    if not host.get_fact(GpuHardwareFact).gpus:
        return
    install_packages(name="Install tools", packages=["ca-certificates", "gpg"])
    trust_repository(
        name="Trust NVIDIA's repository", repository=repository(me, host.get_fact(Arch))
    )
    install_versions(
        name=f"Install the toolkit {me[ContainerToolkit].version}",
        versions=dict.fromkeys(PACKAGES, me[ContainerToolkit].version),
    )
    install_files(name="Count any driver's module", files=[cdi_dropin()])
    # They write CDI's registry: at boot, and when the driver changes.
    enable_unit(name="Describe the GPUs at boot", unit=CDI_UNIT)
    run_unit(name="Watch the driver", unit=CDI_WATCH_UNIT, files=[])
    provide_cdi(name="Provide the GPUs by CDI")
    register_runtime(name="Set the runtime nvidia", wanted=me[ContainerToolkit].runtime)
    _run_docker()


def _run_docker() -> None:
    run_unit(
        name="Run Docker as configured", unit=DOCKER_UNIT, files=[DOCKER_CONFIG, *DOCKER_BINARIES]
    )
