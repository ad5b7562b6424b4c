"""Steps that interrupt a GPU host which gets requests, and the one that lets a new one in."""

from __future__ import annotations

from pyinfra import host, logger, state
from pyinfra.api import QuoteString, StringCommand, operation
from pyinfra.context import ctx_state

from fleet.declare.fleet import Fleet, FleetHost
from fleet.docker.paths import DOCKER_BINARIES, DOCKER_CONFIG, DOCKER_UNIT
from fleet.driver.facts import DriverState, DriverStateFact
from fleet.driver.operations import reboot_into_driver
from fleet.driver.paths import DRIVER_NOUVEAU
from fleet.driver.settings import RebootPolicy
from fleet.gates.asked import too_early
from fleet.gates.operations import judge_placement, restart_too_early
from fleet.gateway.front import Change, Front, found_ready, leads_elsewhere
from fleet.kit.commands import Commands, fail
from fleet.kit.facts.units import Unit, UnitState
from fleet.kit.units import next_verb, run_unit
from fleet.ollama.facts import OllamaServers
from fleet.ollama.operations import interrupted
from fleet.ollama.servers import instances_of
from fleet.serving.ready import answering, answers, chats, models_of, servers_there, there
from fleet.serving.replace import lay_down, refuse_without_room, replace, start
from fleet.serving.turn import Turn, in_turn, roll_of
from fleet.vllm.operations import wait_for_all
from fleet.vllm.servers import vllm_instances


@operation()
def roll_servers(me: FleetHost, fleet: Fleet) -> Commands:
    """Have servers that run, and are not what is declared, replaced in the host's turn.

    What ran comes back when the new does not answer; the host fails then, and gets requests as
    before. What does not run is for the steps after this one, and gets no requests until it is
    ready.
    """
    instances = list(instances_of(me))
    running: tuple[str, ...] = host.get_fact(OllamaServers).running
    if not interrupted(instances, running):
        host.noop("no server that runs has to be restarted")
        return
    if not state.is_executing:
        yield from lay_down(me)
        yield from start(me)
        return

    # Before its turn: others go on without it.
    yield from refuse_without_room(me)

    def work(turn: Turn) -> Commands:
        yield from replace(me, turn)
        yield from judge_placement._inner(me=me)

    yield from in_turn(roll_of(fleet), me, work)


def _interrupted_in_turn(me: FleetHost, fleet: Fleet, interruption: Commands) -> Commands:
    """`interruption` in the host's turn, which ends when it answers as before."""

    def work(turn: Turn) -> Commands:
        before = servers_there(me) if turn.is_out else ()
        had = there(models_of(me, before)) if before else []
        answered = answering(me) if turn.is_out else ()
        yield from interruption
        if turn.is_out:
            yield from answers(me, before, had)
            yield from wait_for_all(answered)

    yield from in_turn(roll_of(fleet), me, work)


@operation()
def roll_too_early(me: FleetHost, fleet: Fleet) -> Commands:
    """Have servers that looked for their GPUs too early restarted, in the host's turn."""
    if not too_early(me, host.get_fact):
        host.noop("every server found its GPUs")
        return
    if not state.is_executing:
        yield from restart_too_early._inner(me=me)
        return

    yield from _interrupted_in_turn(me, fleet, restart_too_early._inner(me=me))


@operation()
def roll_docker(me: FleetHost, fleet: Fleet) -> Commands:
    """Have Docker restarted in the host's turn, where servers run in its containers.

    Docker's restart restarts them. Where it does not run yet, or they do not, that is for the steps
    after this one.
    """
    files = [DOCKER_CONFIG, *DOCKER_BINARIES]
    now: Unit = host.get_fact(UnitState, unit=DOCKER_UNIT, files=files)
    names = [item.container for item in instances_of(me)]
    names += [item.container for item in vllm_instances(me)]
    if not any(names) or not now.is_active or next_verb(now, now) != "restart":
        host.noop("Docker's restart would interrupt nobody, or is not due")
        return
    if not state.is_executing:
        yield from run_unit._inner(unit=DOCKER_UNIT, files=files)
        return

    yield from _interrupted_in_turn(me, fleet, run_unit._inner(unit=DOCKER_UNIT, files=files))


@operation()
def roll_reboot(me: FleetHost, fleet: Fleet, policy: RebootPolicy, timeout: float) -> Commands:
    """Have a host that needs its driver's reboot make it in its turn; see `reboot_into_driver`.

    Where `policy` has all reboot together, or none, nobody is waited for.
    """
    driver: DriverState = host.get_fact(DriverStateFact, nouveau_conf=DRIVER_NOUVEAU)
    if policy != "one-at-a-time" or not driver.needs_reboot or not state.is_executing:
        yield from reboot_into_driver._inner(policy=policy, timeout=timeout)
        return

    yield from _interrupted_in_turn(
        me, fleet, reboot_into_driver._inner(policy=policy, timeout=timeout)
    )


@operation()
def let_in(me: FleetHost, fleet: Fleet) -> Commands:
    """Have the host served by every gateway: what is declared is there, and answers a chat."""
    if not state.is_executing:
        return
    front = roll_of(fleet).front
    front.look_again()
    for name, why in front.missing.items():
        host.log(f"{name} was not told that it is ready: {why}", log_func=logger.warning)
    if front.doors or front.bare:
        yield from _tell(me, front)
    if front.taken:
        yield fail(
            f"{me.name}: not everywhere told that it is ready: {'; '.join(front.taken.values())}; "
            "deploy again when that has ended"
        )
    elif (
        front.missing
        and not (front.doors or front.bare)
        # Then no gateway can be asked, and the host itself is what the run is about.
        and not leads_elsewhere(ctx_state.get())  # type: ignore[no-untyped-call]
    ):
        yield fail(
            f"{me.name}: no gateway could be told that it is ready, and one that has not served it "
            "will not: deploy again when a gateway answers"
        )


def _tell(me: FleetHost, front: Front) -> Commands:
    if front.doors and not front.bare and front.serves_wholly(me):
        host.noop(f"known to be ready at {', '.join(door.me.name for door in front.doors)}")
        return
    if instances := instances_of(me):
        check = models_of(me)
        if not check.is_known or set(check.pending) & set(check.models):
            host.log(
                "gets no requests yet: its models are not all there; deploy again when they are",
                log_func=logger.warning,
            )
            return
        yield from chats(instances, check.models)
    yield from wait_for_all(vllm_instances(me))
    found_ready(ctx_state.get()).add(me.name)  # type: ignore[no-untyped-call]
    front.change(Change(me, served=True))
    names = ", ".join(door.me.name for door in (*front.doors, *front.bare))
    yield StringCommand(":", QuoteString(f"ready, and told to {names}"))
