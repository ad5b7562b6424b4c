"""Containers can have the host's GPUs, and in the way that is declared."""

from __future__ import annotations

import pytest

from fleet.container_toolkit.facts import CdiDevices
from fleet.container_toolkit.files import PACKAGES, cdi_dropin, repository
from fleet.container_toolkit.paths import CDI_UNIT, CDI_WATCH_UNIT
from fleet.container_toolkit.settings import ContainerToolkit
from fleet.docker.facts import DockerInfo
from fleet.driver.facts import DrivenGpus, GpuHardwareFact
from fleet.kit.facts.apt import ExistingFiles, KeyringFingerprints, PackageVersions
from fleet.kit.facts.files import FileStates

from .connection import Target
from .outcomes import Say


def test_packages(docker_host: Target) -> None:
    """All four packages of the toolkit have the declared version, held."""
    _needs_toolkit(docker_host)
    installed = docker_host.fact(PackageVersions, packages=list(PACKAGES))
    versions = {name: package.version for name, package in installed.items()}
    assert versions == dict.fromkeys(PACKAGES, docker_host.declared[ContainerToolkit].version)
    assert [name for name, package in installed.items() if not package.held] == []


def test_repository(docker_host: Target) -> None:
    """NVIDIA's repository is trusted by the pinned key, and named by no other source."""
    _needs_toolkit(docker_host)
    declared = docker_host.declared
    trusted = repository(declared, docker_host.run("uname -m"))
    assert docker_host.fact(KeyringFingerprints, path=trusted.keyring) == (
        declared[ContainerToolkit].repository_fingerprint,
    )
    assert docker_host.testinfra.file(trusted.source.path).content_string == trusted.source.text
    assert docker_host.fact(ExistingFiles, paths=trusted.replaced) == []


def test_cdi(docker_host: Target, measured: Say) -> None:
    """CDI describes every GPU of the host, and does so again at boot and for a new driver."""
    count = _needs_toolkit(docker_host)
    cdi = docker_host.fact(CdiDevices)
    assert cdi.has_driver, "no NVIDIA driver is loaded"
    assert cdi.lacks(docker_host.fact(DrivenGpus)) == [], docker_host.journal(CDI_UNIT)
    measured(f"{count} GPUs")
    dropin = cdi_dropin()
    assert docker_host.fact(FileStates, paths=[dropin.path]) == {dropin.path: dropin.state}
    for unit in (CDI_UNIT, CDI_WATCH_UNIT):
        assert docker_host.testinfra.service(unit).is_enabled, unit
    assert docker_host.testinfra.service(CDI_WATCH_UNIT).is_running


def test_runtime(docker_host: Target) -> None:
    """Docker has the runtime nvidia when it is declared."""
    _needs_toolkit(docker_host)
    if not docker_host.declared[ContainerToolkit].runtime:
        pytest.skip("toolkit_runtime = False: an operator may have one of their own")
    runtimes = docker_host.fact(DockerInfo).get("Runtimes", {})
    assert runtimes.get("nvidia", {}).get("path", "").endswith("nvidia-container-runtime")


def _needs_toolkit(target: Target) -> int:
    """How many GPUs containers can have; skips hosts where that is none by declaration."""
    if not target.declared[ContainerToolkit].enabled:
        pytest.skip("toolkit_enabled = False")
    count = len(target.fact(GpuHardwareFact).gpus)
    if not count:
        pytest.skip("no NVIDIA GPU on the bus")
    return count
