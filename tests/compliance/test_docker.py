"""Docker runs as declared, and is open to nobody else."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from fleet.docker.facts import DockerInfo, GroupMembers
from fleet.docker.merge import leaves, merge
from fleet.docker.operations import refuse_exposed
from fleet.docker.packages import CE_PACKAGES, LEAST_COMPOSE, repository, versions
from fleet.docker.paths import DOCKER_BINARIES, DOCKER_CONFIG, DOCKER_OWNED, DOCKER_UNIT
from fleet.docker.settings import Docker, docker_configuration
from fleet.kit.facts.apt import KeyringFingerprints, PackageVersions
from fleet.kit.facts.places import Places
from fleet.kit.facts.units import UnitState

from .connection import Target
from .outcomes import Record, Say


def test_active(docker_host: Target) -> None:
    """Docker is active, starts at boot, and runs the installed daemon with its present settings."""
    service = docker_host.testinfra.service(DOCKER_UNIT)
    assert service.is_running, docker_host.journal(DOCKER_UNIT)
    assert service.is_enabled
    unit = docker_host.fact(UnitState, unit=DOCKER_UNIT, files=[DOCKER_CONFIG, *DOCKER_BINARIES])
    assert not unit.needs_daemon_reload
    assert not unit.is_outdated, "the daemon is older than its binary or its settings"


def test_versions(docker_host: Target, measured: Say, record: Record) -> None:
    """Docker and Compose have the declared versions, from a repository with the pinned key."""
    declared = docker_host.declared[Docker]
    compose = docker_host.run("docker compose version --short").removeprefix("v")
    server = _info(docker_host)["ServerVersion"]
    measured(f"{server}, Compose {compose}")
    record("versions", "Docker", server)
    record("versions", "Compose", compose)
    assert _numbers(compose) >= _numbers(LEAST_COMPOSE), compose
    installed = docker_host.fact(PackageVersions, packages=[*CE_PACKAGES, "docker.io"])
    if declared.source == "distribution":
        assert list(installed) == ["docker.io"]
        return
    wanted = versions(docker_host.declared)
    assert sorted(installed) == sorted(wanted)
    for name, package in installed.items():
        assert package.version.startswith(wanted[name].removesuffix("*")), (name, package)
        assert package.held, f"{name}: apt would upgrade it"
    # Distributions add to the version that the daemon was built with (`26.1.5+dfsg1`).
    assert server.split("+")[0] == declared.version
    trusted = repository(docker_host.declared, _release(docker_host))
    assert docker_host.fact(KeyringFingerprints, path=trusted.keyring) == (
        declared.repository_fingerprint,
    )


def test_configuration(docker_host: Target) -> None:
    """daemon.json has every declared value, and nothing that was declared before."""
    declared = docker_configuration(docker_host.declared[Docker])
    config = _json(docker_host, DOCKER_CONFIG)
    assert merge(config, [], declared) == config, f"{declared} is not wholly in {config}"
    recorded = _json(docker_host, DOCKER_OWNED)["paths"]
    assert sorted(map(tuple, recorded)) == sorted(path for path, _ in leaves(declared))


def test_running_configuration(docker_host: Target) -> None:
    """The daemon says of itself what is declared: logs, live-restore, root, mirrors, CDI."""
    declared = docker_host.declared[Docker]
    info = _info(docker_host)
    assert info["LoggingDriver"] == declared.log_driver
    assert info["LiveRestoreEnabled"] == declared.live_restore
    if declared.data_root:
        used, declared_root = info["DockerRootDir"], declared.data_root
        places = docker_host.fact(Places, paths=[used, declared_root])
        assert places[used].resolved == places[declared_root].resolved
    mirrors = [item.rstrip("/") for item in info["RegistryConfig"]["Mirrors"] or []]
    assert set(declared.registry_mirrors) <= set(mirrors)
    assert (info.get("HttpProxy") or "") == (declared.http_proxy or "")
    assert (info.get("HttpsProxy") or "") == (declared.https_proxy or "")
    assert info["CDISpecDirs"], "containers get no devices by CDI"


def test_socket(docker_host: Target) -> None:
    """Docker's socket is root's and its group's alone."""
    shown = docker_host.run("stat -L -c '%A %U %G' /run/docker.sock")
    assert shown == "srw-rw---- root docker"


def test_members(docker_host: Target) -> None:
    """The group docker, whose members are root here, has exactly the declared ones."""
    declared = sorted(docker_host.declared[Docker].users)
    assert docker_host.fact(GroupMembers, group="docker") == declared
    primary = docker_host.run(
        "gid=$(getent group docker | cut -d: -f3); getent passwd | awk -F: -v g=$gid '$4 == g'"
    )
    assert primary == ""


def test_no_tcp(docker_host: Target) -> None:
    """Docker listens on no TCP port, and leaves the firewall its hold on containers."""
    listening = docker_host.run("ss -Hltnp").splitlines()
    assert listening, "ss saw nothing, not even sshd"
    # Published ports are docker-proxy's; whether they may be is the firewall's to say. containerd
    # has a port for Kubernetes on loopback.
    daemons = [line for line in listening if '"dockerd"' in line or '"containerd"' in line]
    assert [line for line in daemons if not line.split()[3].startswith("127.")] == []
    assert [line for line in daemons if '"dockerd"' in line] == []
    sockets = docker_host.run("systemctl show --value -p Listen docker.socket")
    assert sockets.split() == ["/run/docker.sock", "(Stream)"]
    refuse_exposed(_json(docker_host, DOCKER_CONFIG))


def _info(target: Target) -> dict[str, Any]:
    info: dict[str, Any] = target.fact(DockerInfo)
    if not info:
        pytest.fail(f"Docker does not answer{target.journal(DOCKER_UNIT)}", pytrace=False)
    return info


def _json(target: Target, path: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(target.run("cat %s", path))
    return value


def _release(target: Target) -> dict[str, str]:
    text = target.run("cat /etc/os-release")
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line)
    return {name: value.strip('"') for name, value in pairs}


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])
