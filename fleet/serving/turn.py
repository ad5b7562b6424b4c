"""Who may be interrupted, and when: one GPU host after the other, none while it is asked."""

from __future__ import annotations

from collections.abc import Callable
from weakref import WeakKeyDictionary

from gevent.lock import BoundedSemaphore  # type: ignore[import-untyped]
from pyinfra import logger
from pyinfra.api import Host, State, StringCommand
from pyinfra.context import ctx_host, ctx_state

from fleet.declare.fleet import Fleet, FleetHost
from fleet.gateway.front import Change, Front, no_other_host
from fleet.gateway.settings import Gateway
from fleet.kit.commands import Commands, fail
from fleet.kit.durations import seconds
from fleet.kit.errors import FleetError

_MAKING = BoundedSemaphore()


class Roll:
    """A run's turns: `width` hosts at once are out of the gateways, and one always stays."""

    def __init__(self, front: Front, fleet: Fleet) -> None:
        self.front = front
        # The host whose failure ended the roll, if one did.
        self.stopped_by = ""
        declared = [me[Gateway] for me in fleet.running(Gateway)]
        self.is_at_once = any(item.roll == "at-once" for item in declared)
        self.drain_timeout = max((seconds(item.drain_timeout) for item in declared), default=0.0)
        width = min((item.roll_width for item in declared), default=1)
        self.turn = BoundedSemaphore(max(1, min(width, front.most_at_once())))

    def may_get_requests(self, me: FleetHost) -> bool:
        """Whether `me` gets requests, as far as the gateways can be asked."""
        return bool(self.front.sends_to(me) or self.front.missing or self.front.taken)


_ROLLS: WeakKeyDictionary[State, Roll] = WeakKeyDictionary()


def roll_of(fleet: Fleet) -> Roll:
    """The run's one roll; the gateways are asked when it is first wanted."""
    state: State = ctx_state.get()  # type: ignore[no-untyped-call]
    with _MAKING:
        if state not in _ROLLS:
            _ROLLS[state] = Roll(Front(state, fleet), fleet)
        return _ROLLS[state]


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
    if roll.front.taken:
        yield fail(
            f"{me.name}: left as it is, and it gets requests as before: "
            f"{'; '.join(roll.front.taken.values())}; deploy again when that has ended"
        )
        return
    if roll.stopped_by:
        yield _left(me, roll.stopped_by)
        return
    has_failed = True
    try:
        yield from _out(roll, me, work)
        has_failed = False
    finally:
        if has_failed and not roll.stopped_by:
            roll.stopped_by = me.name


def _out(roll: Roll, me: FleetHost, work: Callable[[Turn], Commands]) -> Commands:
    turn = Turn(roll, me)
    for name, why in roll.front.missing.items():
        _warn(f"{name} may go on to send it requests, and they are cut off: {why}")
    if lonely := roll.front.leave(me):
        _warn(f"restarted at once, and requests in flight are cut off: {no_other_host(lonely)}")
    elif roll.front.sends_to(me):
        turn.take_out()
    yield from work(turn)
    turn.let_in()


def _left(me: FleetHost, first: str) -> StringCommand:
    return fail(
        f"{me.name}: left as it is, and it gets requests as before: {first} failed before its turn "
        "came; mend that one, and deploy again"
    )


def _warn(text: str) -> None:
    host: Host = ctx_host.get()  # type: ignore[no-untyped-call]
    host.log(text, log_func=logger.warning)
