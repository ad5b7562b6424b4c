"""Every file of vLLM's servers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from fleet.declare.fleet import Fleet, FleetHost
from fleet.driver.paths import DEVICES_UNIT
from fleet.kit import paths
from fleet.kit.durations import seconds
from fleet.kit.files import ManagedFile
from fleet.kit.host_programs import program_files
from fleet.kit.render import host_program, render
from fleet.vllm.model import ModelConfig
from fleet.vllm.paths import (
    RESTART_PROGRAM,
    VENV_PROGRAM,
    VLLM_CURRENT,
    VLLM_PYTHON,
    VLLM_ROOT,
    VLLM_USER,
    WATCH_PROGRAM,
    watch_timer,
    watch_unit,
)
from fleet.vllm.servers import MODULE, VllmInstance
from fleet.vllm.settings import Vllm

# Of /dev/shm in a container; a limit, and nothing that is taken.
_SHM = "16g"
# After the time that answers get, the engine and its workers end.
_END = 15


def unit_file(
    item: VllmInstance, uuids: Sequence[str] = (), config: ModelConfig | None = None
) -> ManagedFile:
    """The unit of a server, when its GPUs are those with `uuids` and its model is `config`."""
    common = {
        "name": item.name,
        "devices": DEVICES_UNIT,
        "folder": item.folder,
        "cache": item.cache,
        "user": VLLM_USER,
        "module": MODULE,
        "arguments": item.arguments(len(uuids), config),
        "environment": item.environment(uuids),
        "stop_seconds": item.shutdown_seconds + _END,
    }
    path = f"{paths.UNITS}/{item.unit}"
    if item.container:
        where = item.endpoint
        text = render(
            "vllm/container.service.j2",
            container=item.container,
            image=item.settings.image,
            published=f"{where.host}:{where.port}:{where.port}",
            shm=_SHM,
            uuids=uuids,
            **common,
        )
        return ManagedFile(path, text)
    text = render(
        "vllm/vllm.service.j2",
        python=VLLM_PYTHON,
        has_gpus=bool(uuids),
        alone=item.settings.listen == "loopback",
        **common,
    )
    return ManagedFile(path, text)


def watch_files(item: VllmInstance) -> list[ManagedFile]:
    """What asks a server again and again whether it answers."""
    unit = render(
        "vllm/watch.service.j2",
        name=item.name,
        unit=item.unit,
        program=WATCH_PROGRAM,
        restart=RESTART_PROGRAM,
        url=item.url,
        model=item.model,
        start_seconds=item.start_seconds,
        timeout=round(seconds(item.settings.watch_timeout)),
    )
    timer = render(
        "vllm/watch.timer.j2",
        name=item.name,
        unit=item.unit,
        every=round(seconds(item.settings.watch_every)),
    )
    return [
        ManagedFile(f"{paths.UNITS}/{watch_unit(item.name)}", unit),
        ManagedFile(f"{paths.UNITS}/{watch_timer(item.name)}", timer),
    ]


def programs() -> list[ManagedFile]:
    """The watch with its modules, and what makes a virtual environment."""
    return [
        *program_files("vllm", "vllm_watch"),
        ManagedFile(RESTART_PROGRAM, host_program("vllm", "vllm-restart"), mode="755"),
        ManagedFile(VENV_PROGRAM, host_program("vllm", "vllm-venv"), mode="755"),
    ]


def lock_file(me: FleetHost, fleet: Fleet) -> list[ManagedFile]:
    """The requirements of the virtual environment, where there is one."""
    if me[Vllm].runtime != "venv":
        return []
    text = _text(fleet.root / str(me[Vllm].lock))
    return [ManagedFile(f"{paths.ETC}/vllm-requirements.txt", text)]


def venv_directory(me: FleetHost, fleet: Fleet) -> str:
    """Where the virtual environment of these requirements and this interpreter is."""
    [lock] = lock_file(me, fleet)
    made_of = f"{lock.state.sha256} {me[Vllm].python}"
    return f"{VLLM_ROOT}/{hashlib.sha256(made_of.encode()).hexdigest()[:16]}"


def running_files(item: VllmInstance) -> list[str]:
    """What the running server must not be older than."""
    unit = f"{paths.UNITS}/{item.unit}"
    return [unit] if item.container else [unit, VLLM_CURRENT]


@cache  # the same for every host of a deploy
def _text(path: Path) -> str:
    return path.read_text()
