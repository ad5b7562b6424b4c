"""What a planned deploy would restart, told once all its hosts are planned."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from weakref import WeakKeyDictionary, WeakSet

from pyinfra import logger
from pyinfra.api import Host, State
from pyinfra.context import ctx_host, ctx_state

from fleet.kit.events import tell
from fleet.kit.planned import Restart, restarts

_PLANNED: WeakKeyDictionary[State, WeakSet[Host]] = WeakKeyDictionary()
_DONE = {"restart": "restarted", "reload": "reloaded", "stop": "stopped", "reboot": "rebooted"}

# A host's name and what it would restart there to whom that cuts off; empty for nobody known.
Whom = Callable[[str, Restart], str]


def tell_restarts(whom: Whom) -> None:
    """Say what would be restarted, a line a host and unit; by the last host that is planned.

    pyinfra plans hosts side by side, and has no word for all of them.
    """
    state: State = ctx_state.get()  # type: ignore[no-untyped-call]
    here: Host = ctx_host.get()  # type: ignore[no-untyped-call]
    planned = _PLANNED.setdefault(state, WeakSet())
    planned.add(here)
    if state.is_executing or not state.active_hosts <= set(planned):
        return
    if lines := list(_lines(state, whom)):
        logger.info("--> Would be restarted:")
    for line in lines:
        logger.info("    %s", line)


def _lines(state: State, whom: Whom) -> Iterator[str]:
    for host in state.inventory:
        for item in restarts(host) if host in state.active_hosts else ():
            why = ", ".join(item.because) or "what runs is not what lies on the disk"
            cuts = whom(host.name, item)
            tell("would restart", host, cuts_off=cuts, **asdict(item))
            yield (
                f"{host.name}: {item.unit} would be {_DONE[item.verb]}"
                + (f" ({why})" if item.verb in ("restart", "reload") else "")
                + (f": cuts off {cuts}" if cuts else "")
            )
