"""Every file of Ollama's units."""

from __future__ import annotations

from collections.abc import Iterable

from fleet.driver.paths import DEVICES_UNIT
from fleet.kit import paths
from fleet.kit.files import ManagedFile
from fleet.kit.render import render
from fleet.ollama.instances import SHOWN_TO_CONTAINERS
from fleet.ollama.paths import (
    LOADER_UNIT,
    OLLAMA_BINARY,
    OLLAMA_CURRENT,
    OLLAMA_ROOT,
    release_binary,
)
from fleet.ollama.servers import Instance
from fleet.ollama.settings import ollama_host
from fleet.ollama.storage import Storage

# Of a trial that nobody ends, as when the connection is lost.
_TRIAL_SECONDS = 180


def unit_file(instance: Instance, storage: Storage, uuids: Iterable[str] = ()) -> ManagedFile:
    """The unit of `instance`, with its whole environment, when its GPUs are those with `uuids`.

    `storage` is where its host keeps the models.
    """
    text = _unit(instance, storage, tuple(uuids), is_trial=False)
    return ManagedFile(f"{paths.UNITS}/{instance.unit}", text)


def trial_name(instance: Instance) -> str:
    """The unit that is tried before it is that of `instance`."""
    return f"llm-fleet-trial-{instance.unit.replace('@', '-')}"


def trial_container(instance: Instance) -> str | None:
    """What Docker calls the container of the trial, where it has one."""
    return f"{instance.container}-trial" if instance.container else None


def trial_text(
    instance: Instance, storage: Storage, uuids: Iterable[str] = (), *, any_port: bool
) -> str:
    """The same unit beside the one that runs: its release, its sandbox and its settings.

    It starts no loader and is not started again. While something of ours has its port, it takes
    `any_port` that is free; otherwise its own, which it may be unable to take.
    """
    return _unit(instance, storage, tuple(uuids), is_trial=True, any_port=any_port)


def _unit(
    instance: Instance,
    storage: Storage,
    uuids: tuple[str, ...],
    *,
    is_trial: bool,
    any_port: bool = False,
) -> str:
    environment = instance.environment(uuids)
    where = instance.endpoint
    common = {
        "name": instance.name,
        "needed": storage.needed,
        "devices": DEVICES_UNIT,
        "loader": None if is_trial else LOADER_UNIT,
        "trial_seconds": _TRIAL_SECONDS if is_trial else None,
    }
    if instance.runtime == "docker":
        return render(
            "ollama/container.service.j2",
            environment=environment,
            container=trial_container(instance) if is_trial else instance.container,
            image=instance.settings.image,
            published=f"{where.host}:{'' if any_port else where.port}:{where.port}",
            mounts=storage.mounts,
            shown=SHOWN_TO_CONTAINERS,
            uuids=uuids,
            **common,
        )
    if any_port:
        environment |= {"OLLAMA_HOST": ollama_host(where.address, 0)}
    version = instance.settings.version
    return render(
        "ollama/ollama.service.j2",
        environment=environment,
        binary=release_binary(version) if is_trial else OLLAMA_BINARY,
        written=storage.written,
        **common,
    )


def running_files(instance: Instance) -> list[str]:
    """What the running server must not be older than."""
    unit = f"{paths.UNITS}/{instance.unit}"
    if instance.runtime == "docker":
        return [unit]
    tarball = f"{OLLAMA_ROOT}/{instance.settings.version}/.sha256"
    return [unit, OLLAMA_CURRENT, tarball]
