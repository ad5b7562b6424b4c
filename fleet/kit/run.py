"""A run over many hosts: what goes wrong on one is that host's, and is named at the end."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from weakref import WeakKeyDictionary

from gevent.lock import BoundedSemaphore  # type: ignore[import-untyped]
from pyinfra import host, logger, state
from pyinfra.api import FunctionCommand, Host, State, StringCommand, operation
from pyinfra.api.command import PyinfraCommand
from pyinfra.api.exceptions import ConnectError, PyinfraError
from pyinfra.context import ctx_host, ctx_state

from fleet.kit.commands import Commands, fail
from fleet.kit.connection.careful import Careful
from fleet.kit.connection.losable import LOSS, words_of
from fleet.kit.errors import FleetError
from fleet.kit.refuse import refused

_Make = Callable[[], Iterator[PyinfraCommand]]

# Host to why it failed, as far as that is no failed command of an operation.
_REASONS: WeakKeyDictionary[Host, str] = WeakKeyDictionary()
# Host to the other run that has its lock, empty when this one has it, or to why nobody can.
_LOCKS: WeakKeyDictionary[Host, str | ConnectError] = WeakKeyDictionary()
_LOCKING = BoundedSemaphore()
# In the environment: a deploy takes the locks of other runs away. No inventory is to say so.
FORCE = "LLM_FLEET_FORCE"


@contextmanager
def alone() -> Iterator[None]:
    """Plan a host: whatever goes wrong in here, and later in its operations, fails it alone.

    pyinfra ends the run of all hosts by an exception of one.

    Raises:
        PyinfraError: no host is left.
    """
    # What they stand for, which in another greenlet is another host.
    state: State = ctx_state.get()  # type: ignore[no-untyped-call]
    host: Host = ctx_host.get()  # type: ignore[no-untyped-call]
    try:
        yield
    except Exception as error:
        _REASONS[host] = _reason(state, host, error)
        host.log_styled(_REASONS[host], fg="red", log_func=logger.error)
        state.fail_hosts({host})  # type: ignore[no-untyped-call]
        return
    if host in state.failed_hosts:
        _REASONS[host] = _trouble(host)
    elif why := refused(host):
        _REASONS[host] = why
        host.log_styled(why, fg="red", log_func=logger.error)
        state.fail_hosts({host})  # type: ignore[no-untyped-call]
        return
    for op_hash, data in state.ops[host].items():
        names = ", ".join(state.op_meta[op_hash].names)
        data.command_generator = _guarded(state, host, names, data.command_generator)


@operation()
def lock_host() -> Commands:
    """Hold the host's lock, that two deploys never mix their settings.

    It is freed by the end of the run, whatever that is.

    Raises:
        ConnectError: the host cannot be locked.
    """
    if not state.is_executing:
        return
    with _LOCKING:
        _lock_all(ctx_state.get())  # type: ignore[no-untyped-call]
    outcome = _LOCKS.get(ctx_host.get())  # type: ignore[no-untyped-call]
    if isinstance(outcome, ConnectError):
        raise outcome
    yield from ()


def is_forced() -> bool:
    """Whether this run is to end others that are at work on its hosts."""
    return os.environ.get(FORCE) == "1"


def _lock_all(state: State) -> None:
    """One host after the other, in the inventory's order, until another run is met.

    Of two runs, the one that is first at the first host that they share gets all: side by side,
    each could be first somewhere, and both would give way.
    """
    for item in state.inventory:
        if item not in state.active_hosts or item in _LOCKS or _taken(state):
            continue
        connector = item.connector
        try:
            _LOCKS[item] = (
                connector.hold(force=is_forced()) if isinstance(connector, Careful) else ""
            )
        except ConnectError as error:
            _LOCKS[item] = error
        except LOSS as error:
            _LOCKS[item] = ConnectError(f"the host cannot be locked: {words_of(error)}")


@operation()
def give_way() -> Commands:
    """Change nothing on any host when another run is at work on one of them."""
    if taken := _taken(state):
        where = "; ".join(f"{name} by {other}" for name, other in taken.items())
        yield fail(
            f"{host.name}: nothing was changed on any host, another deploy is at work: {where}; "
            f"deploy when it has ended; {FORCE}=1 in the environment (`fleet deploy --force`) ends "
            "it first"
        )


def quietly(command: StringCommand) -> None:
    """Run `command` on the host of an operation that is executed, which is no change of that.

    Raises:
        FleetError: it failed.
    """
    here: Host = ctx_host.get()  # type: ignore[no-untyped-call]
    connector = here.connector
    ok, output = (
        connector.aside(command)
        if isinstance(connector, Careful)
        else here.run_shell_command(command)
    )
    if not ok:
        raise FleetError(f"{here.name}: {output.stderr or 'a command failed without a word'}")


@contextmanager
def locked(hosts: Iterable[Host]) -> Iterator[None]:
    """Hold the locks of `hosts`, for a command that is no deploy and changes something.

    Raises:
        FleetError: another run has one of them, or one cannot be locked.
    """
    held: list[Careful] = []
    try:
        for host in hosts:
            connector = host.connector
            if isinstance(connector, Careful):
                held.append(connector)
                try:
                    other = connector.hold()
                except LOSS as error:
                    why = words_of(error)
                    raise FleetError(f"{host.name}: the host cannot be locked: {why}") from None
                if other:
                    raise FleetError(f"{host.name}: another deploy is at work there: by {other}")
        yield
    finally:
        for connector in held:
            # Where the connection is lost, nothing is held.
            with suppress(*LOSS):
                connector.let_go()


def failures(state: State) -> dict[str, str]:
    """Each host that failed, in the inventory's order, to why; its name is not said twice."""
    found = {
        host.name: _REASONS.get(host) or _failed_step(state, host) or _trouble(host)
        for host in state.inventory
        if host in state.failed_hosts
    }
    return {name: why.removeprefix(f"{name}: ") for name, why in found.items()}


def _taken(state: State) -> dict[str, str]:
    found = ((item.name, _LOCKS.get(item)) for item in state.inventory)
    return {name: other for name, other in found if other and isinstance(other, str)}


def _guarded(state: State, host: Host, names: str, make: _Make) -> _Make:
    """`make`, with an exception of it, or a question without an answer, turned into a failure."""

    def commands() -> Iterator[PyinfraCommand]:
        try:
            yield from make()
        except Exception as error:
            reason = _reason(state, host, error)
        else:
            if host not in state.failed_hosts:
                return
            reason = _trouble(host)
        _REASONS.setdefault(host, f"{names}: {reason.removeprefix(f'{host.name}: ')}")
        yield FunctionCommand(_fail, (reason,), {})

    return commands


def _fail(state: State, host: Host, reason: str) -> bool:
    host.log_styled(reason, fg="red", log_func=logger.error)
    return False


def _reason(state: State, host: Host, error: Exception) -> str:
    """What `error` says; of one that nobody has put into words, where it was raised too.

    pyinfra goes on after a question without an answer: that is then the reason, and not what came
    of it.
    """
    if host in state.failed_hosts and (trouble := _trouble(host)):
        return trouble
    text = " ".join(str(part) for part in error.args)
    if not isinstance(error, PyinfraError):
        logger.error("".join(traceback.format_exception(error)))
        text = f"{type(error).__name__}: {text}"
    return text if text.startswith(f"{host.name}:") else f"{host.name}: {text}"


def _failed_step(state: State, host: Host) -> str:
    for op_hash in state.get_op_order():  # type: ignore[no-untyped-call]
        data = state.ops[host].get(op_hash)
        meta = data and data.operation_meta
        if meta and meta.is_complete() and not meta.did_succeed():
            names = ", ".join(state.op_meta[op_hash].names)
            lines = meta.stderr_lines or [_trouble(host)]
            # Our own sentence, where there is one: evidence may come after it.
            ours = [line for line in lines if line.startswith(f"{host.name}: ")]
            said = (ours or lines)[-1]
            return f"{names}: {said.removeprefix(f'{host.name}: ')}".removesuffix(": ")
    return ""


def _trouble(host: Host) -> str:
    """The last line of what the host's last failed command wrote, or why it has no connection."""
    connector = host.connector
    lines = connector.trouble.splitlines() if isinstance(connector, Careful) else []
    return lines[-1] if lines else ""
