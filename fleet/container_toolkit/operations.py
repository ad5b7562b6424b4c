"""NVIDIA's container toolkit: devices by CDI, and Docker's runtime `nvidia` where declared."""

from __future__ import annotations

from pyinfra import host
from pyinfra.api import StringCommand, operation

from fleet.container_toolkit.facts import ALL_GPUS, CdiDevices
from fleet.container_toolkit.paths import CDI_UNIT, TOOLKIT_OWNED
from fleet.docker.merge import merge
from fleet.docker.operations import VALIDATE, RefusedError, install_owned, read_owned
from fleet.docker.paths import DOCKER_CONFIG
from fleet.driver.facts import DrivenGpu, DrivenGpus
from fleet.kit.commands import Commands, or_journal
from fleet.kit.files import ManagedFile, install_files
from fleet.kit.paths import RUN, STAGE
from fleet.kit.refuse import refusal

_RUNTIME = ("runtimes", "nvidia")


@operation()
def provide_cdi() -> Commands:
    """Have the GPUs in CDI's registry, once the kernel has a driver for them.

    Without one there is nothing to describe yet: the toolkit's own unit does it at the boot that
    brings the driver.
    """
    cdi = host.get_fact(CdiDevices)
    gpus: tuple[DrivenGpu, ...] = host.get_fact(DrivenGpus)
    if not cdi.lacks(gpus):
        host.noop(f"CDI has {', '.join(cdi.devices)}")
        return
    if not cdi.has_driver:
        host.noop("no NVIDIA driver is loaded: CDI has devices after the boot that loads it")
        return
    yield or_journal(
        StringCommand(f"systemctl restart {CDI_UNIT} && nvidia-ctk cdi list | grep -qx {ALL_GPUS}"),
        CDI_UNIT,
    )


@operation()
def register_runtime(wanted: bool) -> Commands:
    """Have the runtime `nvidia` in daemon.json, or not, when it was us who put it there."""
    try:
        current, owned = read_owned(TOOLKIT_OWNED)
    except RefusedError as error:
        yield refusal(f"{host.name}: {error}")
        return
    if not wanted:
        if owned:
            yield from install_owned(
                TOOLKIT_OWNED, current, merge(current, owned, {}), owned, set()
            )
        return
    if "nvidia" in current.get("runtimes", {}):
        host.noop("the runtime nvidia is registered")
        return
    record = ManagedFile(TOOLKIT_OWNED, f'{{"paths": [["{_RUNTIME[0]}", "{_RUNTIME[1]}"]]}}\n')
    yield from install_files._inner(files=[record])
    stage = f"{STAGE}-toolkit"
    yield StringCommand(
        f"rm -rf {stage} && install -d -m 700 {RUN} {stage} && cd {stage} &&",
        f"{{ [ ! -e {DOCKER_CONFIG} ] || cp {DOCKER_CONFIG} daemon.json; }} &&",
        "nvidia-ctk --quiet runtime configure --runtime=docker --config=daemon.json &&",
        VALIDATE,
        f"&& install -m 644 daemon.json {DOCKER_CONFIG}.new && mv -f {DOCKER_CONFIG}.new",
        f"{DOCKER_CONFIG} && rm -rf {stage}",
    )
