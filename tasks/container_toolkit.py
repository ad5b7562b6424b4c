"""NVIDIA Container Toolkit: the host's GPUs for its containers."""

from __future__ import annotations

from pyinfra import host
from pyinfra.api import deploy
from pyinfra.facts.server import Arch

from fleet.container_toolkit.operations import provide_cdi, register_runtime
from fleet.declare.load import FleetHost
from fleet.driver.facts import GpuHardwareFact
from fleet.kit import paths
from fleet.kit.apt import AptRepository, install_versions, trust_repository
from fleet.kit.errors import FleetError
from fleet.kit.files import ManagedFile, install_files
from fleet.kit.packages import install_packages
from fleet.kit.render import render
from fleet.kit.units import enable_unit, run_unit

# They must all have one version: a mixture installs, and fails when a container starts.
PACKAGES = (
    "nvidia-container-toolkit",
    "nvidia-container-toolkit-base",
    "libnvidia-container-tools",
    "libnvidia-container1",
)
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@deploy("Container toolkit")
def container_toolkit(me: FleetHost) -> None:
    """Give containers the GPUs by CDI, and by the runtime `nvidia` where that is declared."""
    if not me.toolkit.enabled or not host.get_fact(GpuHardwareFact).gpus:
        return
    install_packages(name="Install tools", packages=["ca-certificates", "gpg"])
    trust_repository(
        name="Trust NVIDIA's repository", repository=repository(me, host.get_fact(Arch))
    )
    install_versions(
        name=f"Install the toolkit {me.toolkit.version}",
        versions=dict.fromkeys(PACKAGES, me.toolkit.version),
    )
    install_files(name="Count any driver's module", files=[cdi_dropin()])
    # They write CDI's registry: at boot, and when the driver changes.
    enable_unit(name="Describe the GPUs at boot", unit=paths.CDI_UNIT)
    run_unit(name="Watch the driver", unit=paths.CDI_WATCH_UNIT, files=[])
    provide_cdi(name="Provide the GPUs by CDI")
    register_runtime(name="Set the runtime nvidia", wanted=me.toolkit.runtime)
    run_unit(name="Run Docker as configured", unit=paths.DOCKER_UNIT, files=[paths.DOCKER_CONFIG])


def cdi_dropin() -> ManagedFile:
    """The drop-in that has the GPUs described whichever name the driver's module has on disk."""
    return ManagedFile(
        paths.CDI_DROPIN, render("container_toolkit/nvidia-cdi-refresh.dropin.conf.j2")
    )


def repository(me: FleetHost, machine: str) -> AptRepository:
    """NVIDIA's repository for a host whose `uname -m` is `machine`.

    Raises:
        FleetError: it has none for this architecture.
    """
    arch = _ARCHITECTURES.get(machine)
    if arch is None:
        raise FleetError(
            f"{me.name}: no container toolkit for {machine}; set toolkit_enabled = False"
        )
    url = me.toolkit.repository_url
    return AptRepository(
        name="nvidia-container-toolkit",
        url=f"{url}/stable/deb/{arch}",
        suites="/",
        components="",
        key=f"{url}/gpgkey",
        fingerprint=me.toolkit.repository_fingerprint,
        # The first is NVIDIA's own of today; the others are of before, and without a key: apt
        # refuses all of a repository whose sources name different keys.
        replaces=(
            "nvidia-container-toolkit.list", "libnvidia-container.list", "nvidia-docker.list",
            "nvidia-container-runtime.list",
        ),
    )  # fmt: skip
