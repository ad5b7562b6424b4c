"""GPU hosts that get no requests though they could: a roll was killed, or a server had stopped.

They are served again before any other one is interrupted, or the last that serves would be
restarted with nobody to take its requests.
"""

from __future__ import annotations

import time
from itertools import chain

import gevent  # type: ignore[import-untyped]
from gevent.lock import BoundedSemaphore  # type: ignore[import-untyped]
from pyinfra import host, logger, state
from pyinfra.api import Host, QuoteString, State, StringCommand, operation
from pyinfra.context import ctx_host, ctx_state

from fleet.declare.fleet import Fleet, FleetHost
from fleet.gates.operations import judge_placement
from fleet.gateway.front import Change
from fleet.kit.commands import Commands
from fleet.kit.errors import FleetError
from fleet.kit.nested import carry_out, trouble
from fleet.models.facts import ModelsCheck
from fleet.ollama.facts import OllamaServers, Servers
from fleet.ollama.operations import interrupted
from fleet.ollama.servers import instances_of
from fleet.serving.ready import answering, answers, chats, models_of, servers_there, there
from fleet.serving.replace import lay_down, refuse_without_room, replace, start
from fleet.serving.turn import Roll, Turn, roll_of
from fleet.vllm.servers import vllm_instances

_LOOKING = BoundedSemaphore()
_LOOK = 2.0  # seconds between two looks at a host whose servers have just been started
_LOADING = 120.0  # seconds until what was started has in memory what is on its disk


@operation()
def let_back_in(me: FleetHost, fleet: Fleet) -> Commands:
    """Have hosts served that answer by what runs there, though a killed run left them out.

    The first host that comes here looks after all of the run: with `--serial` its own turn comes
    before their steps.
    """
    if not state.is_executing:
        host.noop("whether a killed deploy has left it out is asked in the deploy")
        return
    roll = roll_of(fleet)
    with _LOOKING:
        if not roll.has_looked:
            roll.has_looked = True
            run: State = ctx_state.get()  # type: ignore[no-untyped-call]
            looks = [gevent.spawn(_look_after, run, roll, gpu) for gpu in roll.left_out()]
            gevent.joinall(looks, raise_error=True)
    if me.name in roll.back:
        yield StringCommand(":", QuoteString("answers, and gets requests again"))
    else:
        host.noop("no killed deploy has left it out, or it is not ready")


def _look_after(run: State, roll: Roll, gpu: FleetHost) -> None:
    here: Host = run.inventory.get_host(gpu.name)
    if here in run.failed_hosts or why_not_ready(run, roll, gpu):
        return
    here.log("answers, and no deploy is at work on it: it gets requests again")
    try:
        roll.front.change(Change(gpu, served=True))
    except FleetError as error:
        # The step that lets it in comes to the same, and fails it.
        here.log(str(error), log_func=logger.warning)
    else:
        roll.back.add(gpu.name)


@operation()
def start_who_is_out(me: FleetHost, fleet: Fleet) -> Commands:
    """Have a host that gets no requests run what is declared, and served if it is ready.

    Only where others are served meanwhile, and where there were servers before: a new host comes in
    when its models are there.
    """
    if not state.is_executing:
        host.noop("whether it gets requests is asked in the deploy")
        return
    roll = roll_of(fleet)
    yield from _start(me, roll)
    # Not where it failed.
    roll.settled.add(me.name)


def _start(me: FleetHost, roll: Roll) -> Commands:
    instances, servers = list(instances_of(me)), host.get_fact(OllamaServers)
    units = {item.unit for item in instances}
    has_stopped = not units <= set(servers.running)
    if roll.front.sends_to(me) and has_stopped and not interrupted(instances, servers.running):
        _keep_requests_away(me, roll)
    if not is_out(me, roll) or not _has_any(servers, units):
        host.noop("gets requests, or is ready by the steps that follow only")
        return
    if interrupted(instances, servers.running):
        yield from refuse_without_room(me)
        yield from replace(me, Turn(roll, me))
    elif has_stopped:
        yield from lay_down(me)
        yield from start(me)
        yield from answers(me, instances, [])
    if why := _why_not_soon(me, roll):
        host.log(f"gets no requests yet: {why}")
        return
    roll.front.change(Change(me, served=True))
    yield StringCommand(":", QuoteString("ready, and gets requests again"))


def _keep_requests_away(me: FleetHost, roll: Roll) -> None:
    if not roll.front.leave(me):
        host.log("gets no requests until its servers are ready")
        roll.front.change(Change(me, served=False))


def is_out(me: FleetHost, roll: Roll) -> bool:
    """Whether it gets no requests, others do, and these are to be interrupted in turn."""
    return (
        bool(roll.served)
        and not roll.is_at_once
        and not roll.front.sends_to(me)
        and roll.front.leaves_out(me)
    )


def _has_any(servers: Servers, units: set[str]) -> bool:
    return any(path.rsplit("/", 1)[-1] in units for path in servers.paths)


def _why_not_soon(me: FleetHost, roll: Roll) -> str:
    """Why it is not ready, though whatever was started here, or by the killed run, had its time."""
    run: State = ctx_state.get()  # type: ignore[no-untyped-call]
    end = time.monotonic() + _LOADING
    while (why := why_not_ready(run, roll, me)) and time.monotonic() < end:
        gevent.sleep(_LOOK)
    return why


def why_not_ready(run: State, roll: Roll, gpu: FleetHost) -> str:
    """Why `gpu` is not to get requests by what runs there; empty when it is.

    What others serve without a model of it, it may too: that one is new in this deploy.
    """
    here: Host = run.inventory.get_host(gpu.name)
    with ctx_state.use(run), ctx_host.use(here):
        servers, others = instances_of(gpu), vllm_instances(gpu)
        there_now = {item.unit for item in servers_there(gpu)}
        there_now |= {item.unit for item in answering(gpu)}
        units = [*(item.unit for item in servers), *(item.unit for item in others)]
        if silent := [unit for unit in units if unit not in there_now]:
            return f"{', '.join(silent)} does not answer"
        if not servers:
            return ""
        check = models_of(gpu)
        if not check.is_known:
            return check.why or "its models cannot be asked about"
        has = there(check)
        if not has or (lacking := _lacking(run, roll, gpu, check)):
            return f"{', '.join(lacking if has else check.models)} is not there yet"
        why = carry_out(run, here, chain(chats(servers, has[0]), judge_placement._inner(me=gpu)))
        return why or (trouble(here) if here in run.failed_hosts else "")


def _lacking(run: State, roll: Roll, gpu: FleetHost, check: ModelsCheck) -> list[str]:
    """The models that it lacks, but for those that no host has which gets requests."""
    lacking = set(check.models) & set(check.pending)
    others = {item.name: item for item in roll.here if item.name in roll.served - {gpu.name}}
    if not lacking or not others or set(others) != roll.served - {gpu.name}:
        return sorted(lacking)
    nowhere = set(lacking)
    for name, other in others.items():
        with ctx_host.use(run.inventory.get_host(name)):
            nowhere -= set(there(models_of(other)))
    return sorted(lacking - nowhere)
