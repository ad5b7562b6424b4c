"""Who may be interrupted, and when: one GPU host after the other, none while it is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from weakref import WeakKeyDictionary

import gevent  # type: ignore[import-untyped]
from gevent.lock import BoundedSemaphore  # type: ignore[import-untyped]
from pyinfra import logger
from pyinfra.api import Host, State
from pyinfra.context import ctx_host, ctx_state

from fleet.declare.fleet import Fleet, FleetHost
from fleet.gateway.front import Change, Front, no_other_host
from fleet.gateway.offered import alone
from fleet.gateway.settings import Gateway
from fleet.kit.commands import Commands, fail
from fleet.kit.durations import seconds
from fleet.kit.errors import FleetError
from fleet.ollama.settings import Ollama
from fleet.vllm.settings import Vllm

_MAKING = BoundedSemaphore()
# Gateway to the models for which it has one host only.
Lonely = Mapping[str, Sequence[str]]
_LOOK = 1.0  # seconds between two looks whether others are back


class Roll:
    """A run's turns: `width` hosts at once are out of the gateways, and one always stays.

    `here` are the GPU hosts that the run has reached.
    """

    def __init__(self, front: Front, fleet: Fleet, here: Iterable[FleetHost] = ()) -> None:
        self.front, self._fleet = front, fleet
        self.here = tuple(here)
        # The host whose failure ended the roll, if one did.
        self.stopped_by = ""
        # Those in their turn now, each of which ends it whatever happens.
        self.out: set[str] = set()
        # Whether those that a killed run left out were looked for, and those that were let in.
        self.has_looked = False
        self.back: set[str] = set()
        # Those that have done all that may let them in before the others' turns.
        self.settled: set[str] = set()
        declared = [me[Gateway] for me in fleet.running(Gateway)]
        self.is_at_once = any(item.roll == "at-once" for item in declared)
        self.drain_timeout = max((seconds(item.drain_timeout) for item in declared), default=0.0)
        self._width = min((item.roll_width for item in declared), default=1)

    @cached_property
    def turn(self) -> BoundedSemaphore:
        """What those in their turn hold; made for the first, when whoever can serve does."""
        return BoundedSemaphore(max(1, min(self._width, self.front.most_at_once())))

    @property
    def served(self) -> set[str]:
        """The hosts of ours that get requests from any gateway."""
        return {name for door in self.front.doors for name in door.in_service()}

    def left_out(self) -> list[FleetHost]:
        """The hosts of the run that get no requests, or not from every gateway."""
        return [gpu for gpu in self.here if self.front.leaves_out(gpu)]

    def coming(self) -> set[str]:
        """The hosts of the run that may serve before it ends, or have failed to in it."""
        return {gpu.name for gpu in self.left_out() if gpu.name not in self.settled}

    def instead_of(self, me: FleetHost, lonely: Lonely, names: set[str]) -> list[str]:
        """Those of the hosts `names` that could answer for some models of `lonely` without `me`."""
        wanted = {model for models in lonely.values() for model in models}
        servers = self._fleet.servers()
        return sorted(
            name
            for name in names
            if wanted - {*alone(self._fleet, me, [it for it in servers if it.host.name == name])}
        )

    def may_get_requests(self, me: FleetHost) -> bool:
        """Whether `me` gets requests, as far as the gateways can be asked."""
        return bool(self.front.sends_to(me) or self.front.missing or self.front.taken)


_ROLLS: WeakKeyDictionary[State, Roll] = WeakKeyDictionary()


def roll_of(fleet: Fleet) -> Roll:
    """The run's one roll; the gateways are asked when it is first wanted."""
    state: State = ctx_state.get()  # type: ignore[no-untyped-call]
    with _MAKING:
        if state not in _ROLLS:
            here = {item.name for item in state.activated_hosts}
            gpus = [gpu for gpu in fleet if _serves(gpu) and gpu.name in here]
            _ROLLS[state] = Roll(Front(state, fleet), fleet, gpus)
        return _ROLLS[state]


def _serves(gpu: FleetHost) -> bool:
    return gpu.runs(Ollama) or gpu.runs(Vllm)


class Turn:
    """What one host does while it gets no requests."""

    def __init__(self, roll: Roll, me: FleetHost) -> None:
        self._roll, self._me = roll, me
        self._is_out = False
        self._host: Host = ctx_host.get()  # type: ignore[no-untyped-call]

    @property
    def is_out(self) -> bool:
        """Whether gateways have been told to send no requests."""
        return self._is_out

    def take_out(self) -> None:
        """Have no request at the host, and none that comes.

        Raises:
            FleetError: a gateway could not be changed, or requests still run; it is served again.
        """
        self._is_out = True
        front = self._roll.front
        try:
            front.change(Change(self._me, served=False))
            front.wait_until_idle(self._me, self._roll.drain_timeout, self._host.log)
        except FleetError as error:
            self.let_in()
            raise FleetError(
                f"{error}; the host was left as it is and gets requests as before"
            ) from None

    def let_in(self) -> None:
        """Have the host served again, where it was taken out.

        Raises:
            FleetError: a gateway could not be changed.
        """
        if self._is_out:
            self._roll.front.change(Change(self._me, served=True))
            self._is_out = False


def in_turn(roll: Roll, me: FleetHost, work: Callable[[Turn], Commands]) -> Commands:
    """What `work` yields, which interrupts `me`, while it gets no requests.

    Hosts that get requests come one after the other. Each is let in again at the end of `work`,
    which lets in before that whoever serves in spite of a failure. One that fails ends the roll:
    those after it are left as they are, and fail with its name. One that got no requests ends
    nothing: it may be broken for long, and the others are not.
    """
    if not roll.may_get_requests(me):
        yield from work(Turn(roll, me))
    elif roll.is_at_once:
        _warn("restarted at once, as gateway_roll says: requests in flight are cut off")
        yield from work(Turn(roll, me))
    else:
        with roll.turn:
            yield from _alone(roll, me, work)


def _alone(roll: Roll, me: FleetHost, work: Callable[[Turn], Commands]) -> Commands:
    lonely: Lonely = {}
    if not (why := _why_not(roll)):
        lonely = _leave(roll, me)
        # Somebody may have failed meanwhile.
        why = _why_not(roll) or _why_alone(roll, me, lonely)
    if why:
        yield fail(f"{me.name}: left as it is, and it gets requests as before: {why}")
        return
    has_failed = True
    roll.out.add(me.name)
    try:
        yield from _out(roll, me, work, lonely)
        has_failed = False
    finally:
        roll.out.discard(me.name)
        if has_failed and not roll.stopped_by:
            roll.stopped_by = me.name


def _why_not(roll: Roll) -> str:
    """Why nobody is to be interrupted any more; empty while somebody is."""
    if taken := roll.front.taken:
        return f"{'; '.join(taken.values())}; deploy again when that has ended"
    if roll.stopped_by:
        return f"{roll.stopped_by} failed before its turn came; mend that one, and deploy again"
    return ""


def _leave(roll: Roll, me: FleetHost) -> Lonely:
    """The gateways that have nobody but `me` for a model, once nobody is out who comes back.

    Those in their turn are waited for: each turn has an end, by the limits of its steps.
    """
    told: list[str] = []
    while not roll.stopped_by:
        lonely = roll.front.leave(me)
        others = roll.instead_of(me, lonely, roll.out)
        if not others:
            return lonely
        if others != told:
            told = others
            host: Host = ctx_host.get()  # type: ignore[no-untyped-call]
            host.log(f"waits for {', '.join(told)}, which would take its requests")
        gevent.sleep(_LOOK)
    return {}


def _why_alone(roll: Roll, me: FleetHost, lonely: Lonely) -> str:
    """Why the last one that serves is not to be restarted at once, if somebody is to come."""
    if not (coming := roll.instead_of(me, lonely, roll.coming())):
        return ""
    return (
        f"nobody else gets any, and {', '.join(coming)} has failed, or comes later in this run; "
        "mend what failed, and deploy again, without --serial; with --limit to this host, or "
        "gateway_roll = 'at-once', it is restarted at once, which cuts requests off"
    )


def _out(roll: Roll, me: FleetHost, work: Callable[[Turn], Commands], lonely: Lonely) -> Commands:
    turn = Turn(roll, me)
    for name, why in roll.front.missing.items():
        _warn(f"{name} may go on to send it requests, and they are cut off: {why}")
    if lonely:
        _warn(f"restarted at once, and requests in flight are cut off: {no_other_host(lonely)}")
    elif roll.front.sends_to(me):
        turn.take_out()
    yield from work(turn)
    turn.let_in()


def _warn(text: str) -> None:
    host: Host = ctx_host.get()  # type: ignore[no-untyped-call]
    host.log(text, log_func=logger.warning)
