"""vLLM's servers run as declared, answer, and nothing else does."""

from __future__ import annotations

import json
from ipaddress import ip_address
from typing import Any

import pytest

from fleet.kit import paths
from fleet.kit.facts.files import FileStates
from fleet.kit.facts.listeners import Listener, Listeners
from fleet.kit.facts.places import Places
from fleet.kit.facts.units import UnitState
from fleet.kit.places import problem_of
from fleet.vllm.asked import gpus_of, judged, weights_of
from fleet.vllm.facts import MakesToken, Venvs, VllmServers
from fleet.vllm.files import lock_file, running_files, unit_file, venv_directory, watch_files
from fleet.vllm.paths import VLLM_USER, watch_timer, watch_unit
from fleet.vllm.servers import MODULE, VllmInstance, caches, vllm_instances
from fleet.vllm.settings import Vllm

from .connection import Target
from .outcomes import Record, Say

_HIGHEST_EXPOSURE = 1.6


def test_units(vllm_host: Target) -> None:
    """Units and watches are the declared ones, without additions, and the running ones."""
    bound = gpus_of(vllm_host.declared, vllm_host.fact)
    for item in vllm_instances(vllm_host.declared):
        config = weights_of(item, vllm_host.fact).config
        file = unit_file(item, bound[item.name], config)
        files = [file, *watch_files(item)]
        there = vllm_host.fact(FileStates, paths=[it.path for it in files])
        for it in files:
            shown = vllm_host.run("systemctl show -p DropInPaths --value %s", it.staged_name)
            assert not shown, f"{it.staged_name} has drop-ins: {shown}"
            assert there.get(it.path) == it.state, (
                f"{it.path} was changed: {vllm_host.testinfra.file(it.path).content_string}"
            )
        for unit in (item.unit, watch_timer(item.name)):
            service = vllm_host.testinfra.service(unit)
            assert service.is_running, vllm_host.journal(unit)
            assert service.is_enabled
        now = vllm_host.fact(UnitState, unit=item.unit, files=running_files(item))
        assert not now.needs_daemon_reload
        assert not now.is_outdated, f"{item.unit} is older than its unit or its packages"


def test_no_other_server(vllm_host: Target) -> None:
    """No vLLM unit but the declared ones is installed or runs."""
    found = vllm_host.fact(VllmServers)
    items = vllm_instances(vllm_host.declared)
    declared = {
        name for it in items for name in (it.unit, watch_unit(it.name), watch_timer(it.name))
    }
    assert set(found.running) - declared == set()
    installed = {path.removeprefix(f"{paths.UNITS}/") for path in found.paths}
    assert {name for name in installed if "/" not in name} - declared == set()


def test_flags(vllm_host: Target) -> None:
    """The running processes have exactly the declared flags and variables."""
    bound = gpus_of(vllm_host.declared, vllm_host.fact)
    for item in vllm_instances(vllm_host.declared):
        pid = _main_pid(vllm_host, item)
        uuids = bound[item.name]
        config = weights_of(item, vllm_host.fact).config
        words = vllm_host.run("tr '\\0' '\\n' < /proc/%s/cmdline", pid).splitlines()
        assert MODULE in words, words
        assert words[words.index(MODULE) + 1 :] == item.arguments(len(uuids), config)
        raw = vllm_host.run("tr '\\0' '\\n' < /proc/%s/environ", pid)
        running = dict(line.split("=", 1) for line in raw.splitlines() if "=" in line)
        declared = item.environment(uuids)
        assert {key: running.get(key) for key in declared} == declared


def test_pinned(vllm_host: Target, record: Record) -> None:
    """What runs is the image of the declared digest, or was made of the declared lock."""
    settings = vllm_host.declared[Vllm]
    for item in vllm_instances(vllm_host.declared):
        answer = vllm_host.run("curl -fsS --noproxy '*' %s", f"{item.url}/version")
        record("versions", item.unit, json.loads(answer)["version"])
        if item.container:
            image = _inspect(vllm_host, item, "image", str(settings.image))
            record("digests", item.unit, str(settings.image).rpartition("@")[2])
            container = _inspect(vllm_host, item, "container", item.container)
            assert container["Image"] == image["Id"]
    if settings.runtime == "venv":
        directory = venv_directory(vllm_host.declared, vllm_host.fleet)
        [lock] = lock_file(vllm_host.declared, vllm_host.fleet)
        found = vllm_host.fact(Venvs, directory=directory)
        record("digests", "vLLM's lock", found.lock)
        assert (found.lock, found.current) == (lock.state.sha256, directory)


def test_answers(vllm_host: Target, measured: Say) -> None:
    """Every server lists its declared names, and its engine makes a token of each."""
    for item in vllm_instances(vllm_host.declared):
        answer = vllm_host.run("curl -fsS --noproxy '*' %s", f"{item.url}/v1/models")
        listed = [model["id"] for model in json.loads(answer)["data"]]
        assert listed == list(item.declared.served_names)
        for name in listed:
            assert vllm_host.fact(MakesToken, url=item.url, model=name), (
                f"{item.unit} makes no token of {name}{vllm_host.journal(item.unit)}"
            )
        measured(f"{item.name}: {', '.join(listed)}")


def test_fits(vllm_host: Target) -> None:
    """Driver, GPUs and memory are what the servers need."""
    assert judged(vllm_host.declared, vllm_host.fact, final=True).refusals == ()


def test_on_its_gpus(vllm_host: Target, measured: Say) -> None:
    """What a server takes of memory is on its GPUs, and on no other."""
    bound = gpus_of(vllm_host.declared, vllm_host.fact)
    if not any(bound.values()):
        pytest.skip("gpus = []: on the CPU by declaration")
    rows = vllm_host.run(
        "nvidia-smi --query-compute-apps=pid,gpu_uuid,used_memory --format=csv,noheader,nounits"
    )
    used = [[word.strip() for word in row.split(",")] for row in rows.splitlines()]
    for item in vllm_instances(vllm_host.declared):
        own = _pids(vllm_host, item)
        found = {row[1] for row in used if row[0] in own}
        assert found == set(bound[item.name]), f"{item.unit}: {rows}"
        measured(f"{item.name}: {len(found)} GPUs")


def test_listens(vllm_host: Target) -> None:
    """A server listens on its declared address, and beside that on loopback alone."""
    listeners: tuple[Listener, ...] = vllm_host.fact(Listeners)
    for item in vllm_instances(vllm_host.declared):
        where = item.endpoint
        own = [it for it in listeners if item.unit in it.holders or item.container in it.holders]
        api = [it for it in own if it.port == where.port]
        assert [it.address for it in api] == [ip_address(where.address)], own
        # Of the workers, which talk to each other there; the bus of a container is its own.
        others = [it for it in own if it.port != where.port]
        assert [it for it in others if it.address is None or not it.address.is_loopback] == []


def test_directories(vllm_host: Target) -> None:
    """What a server has compiled is its own, and nobody else could put code there."""
    directories = caches(vllm_host.declared)
    places = vllm_host.fact(Places, paths=[item.path for item in directories])
    for item in directories:
        place = places[item.path]
        assert problem_of(item, place) is None
        assert (place.is_directory, place.user, place.mode) == (True, VLLM_USER, "700")


def test_hardening(vllm_host: Target, measured: Say, record: Record) -> None:
    """The exposure of each unit is at most 1.6 of 10."""
    for item in vllm_instances(vllm_host.declared):
        for unit in (item.unit, watch_unit(item.name)):
            text = vllm_host.run("systemd-analyze security --no-pager %s | tail -n 1", unit)
            exposure = float(text.split(":")[1].split()[0])
            measured(f"{unit}: {exposure}")
            record("exposure", unit, exposure)
            assert exposure <= _HIGHEST_EXPOSURE, text


def test_container(vllm_host: Target) -> None:
    """A container writes its cache only, has no capability, and no GPU but its own."""
    if vllm_host.declared[Vllm].runtime != "docker":
        pytest.skip("vllm_runtime = 'venv'")
    bound = gpus_of(vllm_host.declared, vllm_host.fact)
    user = vllm_host.run(f"echo $(id -u {VLLM_USER}):$(id -g {VLLM_USER})")
    for item in vllm_instances(vllm_host.declared):
        container = _inspect(vllm_host, item, "container", str(item.container))
        config = container["HostConfig"]
        assert config["ReadonlyRootfs"]
        assert config["CapDrop"] == ["ALL"]
        assert not config["CapAdd"]
        assert not config["Privileged"]
        assert "no-new-privileges" in config["SecurityOpt"]
        assert config["IpcMode"] != "host"
        assert container["Config"]["User"] == user
        mounts = {it["Source"]: it["RW"] for it in container["Mounts"]}
        assert mounts == {item.folder: False, item.cache: True}
        where = item.endpoint
        published = {port: to for port, to in container["NetworkSettings"]["Ports"].items() if to}
        assert published == {
            f"{where.port}/tcp": [{"HostIp": where.address, "HostPort": str(where.port)}]
        }
        devices = [name for it in config["DeviceRequests"] or [] for name in it["DeviceIDs"]]
        assert devices == [f"nvidia.com/gpu={uuid}" for uuid in bound[item.name]]


def _main_pid(host: Target, item: VllmInstance) -> str:
    """Process of the server; in a container, as its host counts it."""
    if item.container:
        container = _inspect(host, item, "container", item.container)
        return str(container["State"]["Pid"])
    pid = host.run("systemctl show --value -p MainPID %s", item.unit)
    if pid == "0":
        pytest.fail(f"no process{host.journal(item.unit)}", pytrace=False)
    return pid


def _pids(host: Target, item: VllmInstance) -> set[str]:
    """Every process of the server."""
    if item.container:
        return set(host.run("docker top %s -o pid", item.container).split()[1:])
    group = host.run("systemctl show --value -p ControlGroup %s", item.unit)
    return set(host.run("cat %s", f"/sys/fs/cgroup{group}/cgroup.procs").split())


def _inspect(host: Target, item: VllmInstance, kind: str, name: str) -> dict[str, Any]:
    result = host.testinfra.run("docker %s inspect %s", kind, name)
    if result.rc:
        pytest.fail(f"no {kind} {name}: {result.stderr}{host.journal(item.unit)}", pytrace=False)
    [found] = json.loads(result.stdout)
    return dict(found)
