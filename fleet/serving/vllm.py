"""vLLM servers that run and are not what is declared, replaced while nobody asks them."""

from __future__ import annotations

from pyinfra import host, state
from pyinfra.api import QuoteString, State, StringCommand, operation
from pyinfra.context import ctx_state

from fleet.declare.fleet import Fleet, FleetHost
from fleet.gateway.front import Change
from fleet.kit.commands import Commands
from fleet.kit.units import run_unit
from fleet.serving.again import is_out, why_not_ready
from fleet.serving.replace import refuse_without_room
from fleet.serving.turn import Turn, in_turn, roll_of
from fleet.vllm.facts import VllmServers, VllmUnits
from fleet.vllm.files import running_files
from fleet.vllm.operations import (
    install_units,
    interrupted,
    remove_servers,
    switch_venv,
    wait_for_all,
)
from fleet.vllm.servers import vllm_instances
from fleet.vllm.settings import Vllm


@operation()
def roll_vllm(me: FleetHost, fleet: Fleet) -> Commands:
    """Have servers that run, and are not what is declared, replaced in the host's turn.

    What does not run is for the steps after this one, and gets no requests until it is ready. One
    that does not answer again fails its host, which gets none then; the others keep theirs.
    """
    running: tuple[str, ...] = host.get_fact(VllmServers).running
    if not interrupted(me, fleet, running):
        host.noop("no server that runs has to be restarted")
        return
    if not state.is_executing:
        yield from _replace(me, fleet)
        return
    # Before its turn: others go on without it.
    yield from refuse_without_room(me)

    def work(_: Turn) -> Commands:
        yield from _replace(me, fleet)
        yield from wait_for_all(vllm_instances(me))

    yield from in_turn(roll_of(fleet), me, work)


@operation()
def start_vllm_who_is_out(me: FleetHost, fleet: Fleet) -> Commands:
    """Have a host that gets no requests run what is declared, and served when that answers.

    Only where others are served meanwhile, and where there were servers before: it is served again
    before the last of the others may have to be interrupted.
    """
    if not state.is_executing:
        host.noop("whether it gets requests is asked in the deploy")
        return
    roll = roll_of(fleet)
    units: VllmUnits = host.get_fact(VllmServers)
    if not is_out(me, roll) or not units.paths:
        host.noop("gets requests, or is ready by the steps that follow only")
    else:
        yield from _replace(me, fleet)
        yield from wait_for_all(vllm_instances(me))
        run: State = ctx_state.get()  # type: ignore[no-untyped-call]
        if why := why_not_ready(run, roll, me):
            host.log(f"gets no requests yet: {why}")
        else:
            roll.front.change(Change(me, served=True))
            yield StringCommand(":", QuoteString("ready, and gets requests again"))
    # Not where it failed.
    roll.settled.add(me.name)


def _replace(me: FleetHost, fleet: Fleet) -> Commands:
    if me[Vllm].runtime == "venv":
        yield from switch_venv._inner(me=me, fleet=fleet)
    yield from install_units._inner(me=me)
    # Before the new ones start, which may have a port or a GPU of theirs.
    yield from remove_servers._inner(me=me)
    for item in vllm_instances(me):
        yield from run_unit._inner(unit=item.unit, files=running_files(item))
