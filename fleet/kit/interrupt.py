"""A run that is interrupted ends at once, and says what it leaves behind."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType

import click
from pyinfra.api import Host, State

from fleet.kit.events import tell
from fleet.kit.jobs import awaited
from fleet.kit.run import failures

INTERRUPTED = 130
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def end_when_interrupted(state: Callable[[], State | None]) -> None:
    """End this process with 130 by an interrupt (Ctrl-C) or SIGTERM, whatever it waits for.

    pyinfra itself ends with 0, and only once each host has done with what it is at. The kernel
    closes the connections, and by that the hosts' locks are free: nothing here needs to wait.
    """

    def end(number: int, _: FrameType | None) -> None:
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        try:
            click.echo(f"\n--> Interrupted ({signal.Signals(number).name}):", err=True)
            for line in left_behind(state()):
                click.echo(f"    {line}", err=True)
                tell("left", text=line)
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            # Whoever read this may be gone, and their end is why it is interrupted.
            os._exit(INTERRUPTED)

    for each in _SIGNALS:
        signal.signal(each, end)


def left_behind(state: State | None) -> Iterator[str]:
    """What an interrupt leaves where, a line a host that is not as it was."""
    if state is None or not state.initialised or not state.is_executing:
        yield "nothing was changed on any host"
        return
    failed = failures(state)
    for host in state.inventory:
        if host.name in failed:
            yield f"{host.name}: failed before: {failed[host.name]}".removesuffix(": ")
        elif host in state.active_hosts:
            yield f"{host.name}: {_at(state, host)}"
    yield "nothing is undone, and the hosts' locks are free: deploy again to go on from here"


def _at(state: State, host: Host) -> str:
    if unit := awaited.get(host):
        return (
            f"{unit} goes on by itself; look there with: journalctl -f -u {unit}, stop it with: "
            f"systemctl stop {unit}"
        )
    step = host.executing_op_hash
    if step is None:
        return "between two steps"
    names = ", ".join(sorted(state.op_meta[step].names))
    return f'cut off in "{names}"; a command that it runs may go on to its end'
