"""What `fleet doctor` looks at of a host's GPUs: by the plan that the deploy makes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from pyinfra.facts.server import Arch, LinuxDistribution

from fleet.declare.fleet import Fleet, FleetHost
from fleet.declare.preflight import Ask, Line, Verdict, judged, reached
from fleet.driver.facts import DriverState, DriverStateFact, GpuHardware, GpuHardwareFact
from fleet.driver.files import repository
from fleet.driver.paths import DRIVER_NOUVEAU
from fleet.driver.plan import Refusal, System, floor_of, make_plan
from fleet.driver.settings import Driver
from fleet.kit.errors import FleetError


def checks(me: FleetHost, _: Fleet, ask: Ask) -> Iterator[Line]:
    """The GPUs and their generation, the driver that they would get, and where it is from."""
    yield (gpus := judged("GPUs", lambda: _gpus(ask)))
    if gpus.text == _NONE:
        return
    yield judged("driver", lambda: _driver(me, ask))
    yield judged("Secure Boot", lambda: _secure_boot(me, ask))
    if me[Driver].source == "nvidia":
        yield from _repository(me, ask)


_NONE = "no NVIDIA GPU on the bus"


def _gpus(ask: Ask) -> str:
    hardware: GpuHardware = ask(GpuHardwareFact)
    kinds = Counter(gpu.generation.value for gpu in hardware.gpus)
    return ", ".join(f"{number} {kind}" for kind, number in kinds.items()) or _NONE


def _system(ask: Ask) -> System:
    release = ask(LinuxDistribution)["release_meta"]
    return System(release["ID"], release["VERSION_ID"], ask(Arch))


def _driver(me: FleetHost, ask: Ask) -> str:
    hardware: GpuHardware = ask(GpuHardwareFact)
    state: DriverState = ask(DriverStateFact, nouveau_conf=DRIVER_NOUVEAU)
    now = f"{state.loaded} is loaded" if state.loaded else "none is loaded"
    if me[Driver].source == "none":
        floor = floor_of(hardware)
        if state.loaded is None or state.loaded.branch < floor:
            raise FleetError(
                f"{me.name}: {now}, and Ollama needs {floor} or newer; with driver_source = 'none' "
                "it is yours to install: do so, or declare driver_source = 'nvidia'"
            )
        return f"{now}, and yours"
    try:
        plan = make_plan(me[Driver], _system(ask), hardware)
    except Refusal as refusal:
        raise FleetError(f"{me.name}: {refusal}") from None
    return f"branch {plan.branch} with {plan.flavor} modules fits; {now}"


def _secure_boot(me: FleetHost, ask: Ask) -> str:
    """Whether it is in the way is a part of the plan, and said with the driver."""
    if not ask(GpuHardwareFact).secure_boot:
        return "off"
    return "on, and the host's key is enrolled" if me[Driver].mok_enrolled else "on"


def _repository(me: FleetHost, ask: Ask) -> Iterator[Line]:
    what = "NVIDIA's repository"
    system = judged(what, lambda: repository(me, _system(ask)).key)
    if system.verdict is not Verdict.OK:
        yield system
        return
    yield reached(ask, what, system.text, {})
