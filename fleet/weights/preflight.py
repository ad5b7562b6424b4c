"""What of a host is refused that is to have weights, before anything is changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from pyinfra.facts.files import Directory

from fleet.declare.fleet import FleetHost
from fleet.kit.errors import FleetError
from fleet.kit.facts.reach import FreeRoom
from fleet.kit.loaders import LoaderCheck
from fleet.kit.on_host.common import size_text
from fleet.weights.declared import declared
from fleet.weights.facts import WeightsState
from fleet.weights.files import loader_config
from fleet.weights.settings import Weights


def refuse_without_room(me: FleetHost, ask: Callable[..., Any]) -> str:
    """What is to be fetched, in words.

    Raises:
        FleetError: it does not fit where the weights are kept.
    """
    settings = me[Weights]
    needed = _to_fetch(me, ask)
    free = ask(FreeRoom, paths=[settings.dir]).get(settings.dir)
    if needed is None or free is None:
        return f"{settings.dir}: how much is to be fetched is judged by the loader itself"
    text = f"{settings.dir}: {size_text(free)} free, {size_text(needed)} to fetch"
    if needed and needed + settings.limits["disk_reserve"] > free:
        raise FleetError(
            f"{me.name}: weights_dir = {text} and {settings.disk_reserve:g} GB to leave "
            "(weights_disk_reserve); make room, or put weights_dir on a larger disk"
        )
    return text


def _to_fetch(me: FleetHost, ask: Callable[..., Any]) -> int | None:
    """Bytes that are still to come; None where there is something, and no loader that knows it."""
    check: LoaderCheck = ask(WeightsState, config=json.dumps(loader_config(me)))
    if check.is_known:
        return check.to_fetch
    if ask(Directory, path=me[Weights].dir):
        return None
    return sum(item.bytes for item in declared(me).values())
