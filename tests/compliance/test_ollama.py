"""Ollama runs as declared, and nothing else does."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fleet.kit import paths
from fleet.kit.facts.files import FileStates
from fleet.kit.facts.places import Places
from fleet.kit.facts.units import UnitState
from fleet.kit.places import problem_of
from fleet.ollama.facts import OllamaReleases, OllamaServers
from fleet.ollama.files import running_files, unit_file
from fleet.ollama.instances import SHOWN_TO_CONTAINERS
from fleet.ollama.paths import OLLAMA_USER, release_binary
from fleet.ollama.release import release_source
from fleet.ollama.servers import instances_of
from fleet.ollama.storage import Storage, asked_paths, home, models_directory

from .conftest import Server
from .connection import Target
from .outcomes import Record, Say

# What systemd itself adds to a service's environment (systemd.exec(5), "Environment variables");
# the host's locale, LC_*, too.
_FROM_SYSTEMD = {
    "HOME", "INVOCATION_ID", "JOURNAL_STREAM", "LANG", "LOGNAME", "MEMORY_PRESSURE_WATCH",
    "MEMORY_PRESSURE_WRITE", "PATH", "SHELL", "SYSTEMD_EXEC_PID", "USER",
}  # fmt: skip
_FROM_DOCKER = {"HOSTNAME", "HOME", "PATH"}
_HIGHEST_EXPOSURE = 1.6


def test_active(instance: Server) -> None:
    """The unit is active and starts at boot."""
    service = instance.target.testinfra.service(instance.declared.unit)
    assert service.is_running, instance.target.journal(instance.declared.unit)
    assert service.is_enabled


def test_unit(instance: Server) -> None:
    """The unit is the declared one, without additions, and the running one."""
    host, name = instance.target, instance.declared.unit
    file = unit_file(instance.declared, _storage(instance), instance.uuids)
    shown = host.run("systemctl show -p FragmentPath -p DropInPaths %s", name)
    assert dict(line.split("=", 1) for line in shown.splitlines()) == {
        "FragmentPath": file.path,
        "DropInPaths": "",
    }
    assert host.fact(FileStates, paths=[file.path]).get(file.path) == file.state, (
        f"{file.path} was changed: {host.testinfra.file(file.path).content_string}"
    )
    unit = host.fact(UnitState, unit=name, files=running_files(instance.declared))
    assert not unit.needs_daemon_reload
    assert not unit.is_outdated, "the process is older than its unit or its release"


def test_no_other_server(gpu_host: Target) -> None:
    """No Ollama unit but the declared ones is installed or runs."""
    servers = gpu_host.fact(OllamaServers)
    declared = {item.unit for item in instances_of(gpu_host.declared)}
    assert set(servers.running) - declared == set()
    folder = f"{paths.UNITS}/"
    installed = {path.removeprefix(folder) for path in servers.paths}
    assert {name for name in installed if "/" not in name} - declared == set()


def test_environment(instance: Server) -> None:
    """The running process has exactly the declared environment."""
    raw = instance.target.run("tr '\\0' '\\n' < /proc/%s/environ", _main_pid(instance))
    running = dict(line.split("=", 1) for line in raw.splitlines() if "=" in line)
    declared = instance.declared.environment(instance.uuids)
    assert {key: running.get(key) for key in declared} == declared
    others = _FROM_SYSTEMD
    if instance.declared.runtime == "docker":
        image = _inspect(instance, "image", str(instance.declared.settings.image))
        given = {text.split("=", 1)[0] for text in image["Config"]["Env"] or []}
        # CDI says of itself what it gave.
        others = _FROM_DOCKER | given | {key for key in running if key.startswith("NVIDIA_")}
    added = {key for key in running if not key.startswith("LC_")}
    assert sorted(added - set(declared) - others) == []


def test_release(instance: Server, record: Record) -> None:
    """The running binary is the declared release, from the pinned tarball or image."""
    host, version = instance.target, instance.declared.settings.version
    if instance.declared.runtime == "docker":
        image = _inspect(instance, "image", str(instance.declared.settings.image))
        assert _container(instance)["Image"] == image["Id"]
    else:
        machine = host.run("uname -m")
        release = host.fact(OllamaReleases, version=version)
        record("digests", f"Ollama {version}", release.sha256)
        assert release.sha256 == release_source(host.declared, machine)[1]
        binary = host.run("readlink /proc/%s/exe", _main_pid(instance))
        assert binary == host.run("realpath %s", release_binary(version))
    answer = host.run("curl -fsS --noproxy '*' %s", f"{instance.declared.url}/api/version")
    record("versions", instance.declared.unit, json.loads(answer)["version"])
    assert json.loads(answer)["version"] == version


def test_directories(instance: Server) -> None:
    """Home and models directory are the server's own, and nobody else could put others there."""
    directories = (home(), models_directory(instance.declared.settings))
    places = instance.target.fact(Places, paths=[item.path for item in directories])
    for item in directories:
        place = places[item.path]
        assert problem_of(item, place) is None
        assert (place.is_directory, place.user) == (True, OLLAMA_USER)


def test_hardening(instance: Server, measured: Say, record: Record) -> None:
    """The unit's exposure is at most 1.6 of 10."""
    text = instance.target.run(
        "systemd-analyze security --no-pager %s | tail -n 1", instance.declared.unit
    )
    exposure = float(text.split(":")[1].split()[0])
    measured(f"{instance.label}{exposure}")
    record("exposure", instance.declared.unit, exposure)
    assert exposure <= _HIGHEST_EXPOSURE, text


def test_container(instance: Server) -> None:
    """The container writes models and home only, has no capability, and no GPU but its own."""
    if instance.declared.runtime != "docker":
        pytest.skip("runtime = 'systemd'")
    container = _container(instance)
    config = container["HostConfig"]
    assert config["ReadonlyRootfs"]
    assert config["CapDrop"] == ["ALL"]
    assert not config["CapAdd"]
    assert not config["Privileged"]
    assert "no-new-privileges" in config["SecurityOpt"]
    user = instance.target.run("echo $(id -u ollama):$(id -g ollama)")
    assert container["Config"]["User"] == user
    mounts = {item["Source"]: item["RW"] for item in container["Mounts"]}
    written = _storage(instance).mounts
    assert mounts == dict.fromkeys(written, True) | dict.fromkeys(SHOWN_TO_CONTAINERS, False)
    endpoint = instance.declared.endpoint
    published = {port: to for port, to in container["NetworkSettings"]["Ports"].items() if to}
    assert published == {
        f"{endpoint.port}/tcp": [{"HostIp": endpoint.address, "HostPort": str(endpoint.port)}]
    }
    devices = [name for item in config["DeviceRequests"] or [] for name in item["DeviceIDs"]]
    assert devices == [f"nvidia.com/gpu={uuid}" for uuid in instance.uuids]


def _storage(instance: Server) -> Storage:
    settings = instance.declared.settings
    return Storage.of(settings, instance.target.fact(Places, paths=asked_paths(settings)))


def _main_pid(instance: Server) -> str:
    """Process of the server; in a container, as its host counts it."""
    if instance.declared.runtime == "docker":
        return str(_container(instance)["State"]["Pid"])
    unit = instance.declared.unit
    pid = instance.target.run("systemctl show --value -p MainPID %s", unit)
    if pid == "0":
        pytest.fail(f"no process{instance.target.journal(unit)}", pytrace=False)
    return pid


def _container(instance: Server) -> dict[str, Any]:
    return _inspect(instance, "container", str(instance.declared.container))


def _inspect(instance: Server, kind: str, name: str) -> dict[str, Any]:
    result = instance.target.testinfra.run("docker %s inspect %s", kind, name)
    if result.rc:
        journal = instance.target.journal(instance.declared.unit)
        pytest.fail(f"no {kind} {name}: {result.stderr}{journal}", pytrace=False)
    [found] = json.loads(result.stdout)
    return dict(found)
