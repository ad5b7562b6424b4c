"""Ollama runs as declared, and nothing else does."""

from __future__ import annotations

import json

import pytest

from fleet import paths
from fleet.facts.files import FileStates
from fleet.facts.ollama import OllamaReleases
from fleet.facts.units import UnitState
from tasks.ollama import release_source, running_files, unit_file
from tests.compliance.connection import Target

# What systemd itself adds to a service's environment (systemd.exec(5), "Environment variables").
_FROM_SYSTEMD = {
    "HOME", "INVOCATION_ID", "JOURNAL_STREAM", "LANG", "LOGNAME", "MEMORY_PRESSURE_WATCH",
    "MEMORY_PRESSURE_WRITE", "PATH", "SHELL", "STATE_DIRECTORY", "SYSTEMD_EXEC_PID", "USER",
}  # fmt: skip
_HIGHEST_EXPOSURE = 1.6


def test_active(gpu_host: Target) -> None:
    """The unit is active and starts at boot."""
    service = gpu_host.testinfra.service(paths.OLLAMA_UNIT)
    assert service.is_running, gpu_host.journal(paths.OLLAMA_UNIT)
    assert service.is_enabled


def test_unit(gpu_host: Target) -> None:
    """The unit is the declared one, without additions, and the running one."""
    file = unit_file(gpu_host.declared)
    shown = gpu_host.run("systemctl show -p FragmentPath -p DropInPaths %s", paths.OLLAMA_UNIT)
    assert dict(line.split("=", 1) for line in shown.splitlines()) == {
        "FragmentPath": file.path,
        "DropInPaths": "",
    }
    assert gpu_host.fact(FileStates, paths=[file.path]).get(file.path) == file.state, (
        f"{file.path} was changed: {gpu_host.testinfra.file(file.path).content_string}"
    )
    unit = gpu_host.fact(UnitState, unit=paths.OLLAMA_UNIT, files=running_files(gpu_host.declared))
    assert not unit.needs_daemon_reload
    assert unit.started > unit.newest_file, "the process is older than its unit or its release"


def test_environment(gpu_host: Target) -> None:
    """The running process has exactly the declared environment."""
    raw = gpu_host.run("tr '\\0' '\\n' < /proc/%s/environ", _main_pid(gpu_host))
    running = dict(line.split("=", 1) for line in raw.splitlines() if "=" in line)
    declared = gpu_host.declared.instances[0].env
    assert {key: running.get(key) for key in declared} == declared
    assert sorted(set(running) - set(declared) - _FROM_SYSTEMD) == []


def test_release(gpu_host: Target) -> None:
    """The running binary is the declared release, from the pinned tarball."""
    version = gpu_host.declared.ollama.version
    machine = gpu_host.run("uname -m")
    releases = gpu_host.fact(OllamaReleases, version=version)
    assert releases["sha256"] == release_source(gpu_host.declared, machine)[1]
    binary = gpu_host.run("readlink /proc/%s/exe", _main_pid(gpu_host))
    assert binary == f"{paths.OLLAMA_ROOT}/{version}/bin/ollama"
    answer = gpu_host.run(
        "curl -fsS --noproxy '*' %s", f"http://{gpu_host.declared.ollama_endpoint}/api/version"
    )
    assert json.loads(answer)["version"] == version


def test_hardening(gpu_host: Target, measured) -> None:
    """The unit's exposure is at most 1.6 of 10."""
    text = gpu_host.run("systemd-analyze security --no-pager %s | tail -n 1", paths.OLLAMA_UNIT)
    exposure = float(text.split(":")[1].split()[0])
    measured(f"{exposure}")
    assert exposure <= _HIGHEST_EXPOSURE, text


def _main_pid(target: Target) -> str:
    pid = target.run("systemctl show --value -p MainPID %s", paths.OLLAMA_UNIT)
    if pid == "0":
        pytest.fail(f"no process{target.journal(paths.OLLAMA_UNIT)}", pytrace=False)
    return pid
