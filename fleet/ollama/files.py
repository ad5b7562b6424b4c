"""Every file of Ollama's units."""

from __future__ import annotations

from collections.abc import Iterable

from fleet.driver.paths import DEVICES_UNIT
from fleet.kit import paths
from fleet.kit.files import ManagedFile
from fleet.kit.render import render
from fleet.ollama.instances import SHOWN_TO_CONTAINERS, container_name
from fleet.ollama.paths import LOADER_UNIT, OLLAMA_BINARY, OLLAMA_CURRENT, OLLAMA_HOME, OLLAMA_ROOT
from fleet.ollama.servers import Instance


def unit_file(instance: Instance, uuids: Iterable[str] = ()) -> ManagedFile:
    """The unit of `instance`, with its whole environment, when its GPUs are those with `uuids`."""
    uuids = tuple(uuids)
    common = {
        "name": instance.name,
        "environment": instance.environment(uuids),
        "models_dir": instance.settings.models_dir,
        "loader": LOADER_UNIT,
        "devices": DEVICES_UNIT,
    }
    if instance.runtime == "systemd":
        content = render("ollama/ollama.service.j2", binary=OLLAMA_BINARY, **common)
    else:
        content = render(
            "ollama/container.service.j2",
            container=container_name(instance),
            image=instance.settings.image,
            endpoint=instance.endpoint,
            home=OLLAMA_HOME,
            shown=SHOWN_TO_CONTAINERS,
            uuids=uuids,
            **common,
        )
    return ManagedFile(f"{paths.UNITS}/{instance.unit}", content)


def running_files(instance: Instance) -> list[str]:
    """What the running server must not be older than."""
    unit = f"{paths.UNITS}/{instance.unit}"
    if instance.runtime == "docker":
        return [unit]
    tarball = f"{OLLAMA_ROOT}/{instance.settings.version}/.sha256"
    return [unit, OLLAMA_CURRENT, tarball]
