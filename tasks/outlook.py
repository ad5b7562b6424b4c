"""What a deploy that is only planned would restart, and whom that would cut off."""

from __future__ import annotations

from typing import Any

from pyinfra.api import FactBase, Host
from pyinfra.context import ctx_host, ctx_state

from fleet.declare.fleet import Fleet
from fleet.gateway.cut_off import cut_off
from fleet.kit.outlook import tell_restarts


def outlook(fleet: Fleet) -> None:
    """Say it before anything is done: in a dry run, and before the question whether to go on."""
    answers: dict[tuple[str, type], Any] = {}

    def look(name: str, fact: type[FactBase[Any]]) -> Any:
        key = name, fact
        if key not in answers:
            answers[key] = _asked(name, fact)
        return answers[key]

    tell_restarts(lambda name, restart: cut_off(fleet[name], fleet, restart, look))


def _asked(name: str, fact: type[FactBase[Any]]) -> Any:
    """What the gateway `name` answers; None where it is not connected in this run."""
    state = ctx_state.get()  # type: ignore[no-untyped-call]
    host: Host = state.inventory.get_host(name)
    if host not in state.active_hosts:
        return None
    with ctx_host.use(host):
        return host.get_fact(fact)
