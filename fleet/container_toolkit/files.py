"""The toolkit's packages, repository and drop-in."""

from __future__ import annotations

from fleet.container_toolkit.paths import CDI_DROPIN
from fleet.container_toolkit.settings import ContainerToolkit
from fleet.declare.fleet import FleetHost
from fleet.kit.errors import FleetError
from fleet.kit.files import ManagedFile
from fleet.kit.render import render
from fleet.kit.repositories import AptRepository

# They must all have one version: a mixture installs, and fails when a container starts.
PACKAGES = (
    "nvidia-container-toolkit",
    "nvidia-container-toolkit-base",
    "libnvidia-container-tools",
    "libnvidia-container1",
)
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def cdi_dropin() -> ManagedFile:
    """The drop-in that has the GPUs described whichever name the driver's module has on disk."""
    return ManagedFile(CDI_DROPIN, render("container_toolkit/nvidia-cdi-refresh.dropin.conf.j2"))


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
    url = me[ContainerToolkit].repository_url
    return AptRepository(
        name="nvidia-container-toolkit",
        url=f"{url}/stable/deb/{arch}",
        suites="/",
        components="",
        key=f"{url}/gpgkey",
        fingerprint=me[ContainerToolkit].repository_fingerprint,
        # The first is NVIDIA's own of today; the others are of before, and without a key: apt
        # refuses all of a repository whose sources name different keys.
        replaces=(
            "nvidia-container-toolkit.list", "libnvidia-container.list", "nvidia-docker.list",
            "nvidia-container-runtime.list",
        ),
    )  # fmt: skip
