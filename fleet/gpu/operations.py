"""The GPUs of a host, held to what is declared and noted for the next time."""

from __future__ import annotations

from pyinfra import host
from pyinfra.api import operation

from fleet.driver.facts import DriverStateFact
from fleet.driver.paths import DRIVER_NOUVEAU
from fleet.gpu.asked import find
from fleet.gpu.facts import GpuNote
from fleet.gpu.files import note
from fleet.gpu.presence import missing_in_driver, missing_on_bus
from fleet.gpu.settings import Gpus
from fleet.kit.commands import Commands, fail
from fleet.kit.files import install_files


@operation()
def hold_to_gpus(declared: Gpus, *, driven: bool) -> Commands:
    """Fail a host that lacks a GPU, on its bus or in its driver, and note what it has.

    `driven` says whether its driver is to tell of them; one that waits for its operator's reboot
    is asked after that. A reboot of this very run may have lost one.
    """
    found = find(host.get_fact)
    problem = missing_on_bus(declared, found)
    if problem is None and driven:
        state = host.get_fact(DriverStateFact, nouveau_conf=DRIVER_NOUVEAU)
        problem = None if state.needs_reboot else missing_in_driver(declared, found)
    if problem is not None:
        yield fail(f"{host.name}: {problem}")
        return
    if not found.seen and found.note == GpuNote(traces=found.note.traces):
        host.noop("no GPU, and none was ever noted")
        return
    yield from install_files._inner(files=[note(found.seen)])
