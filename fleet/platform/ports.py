"""Ports of a host that somebody else has; pure over what was asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fleet.declare.capability import Service
from fleet.declare.fleet import FleetHost
from fleet.kit.errors import FleetError
from fleet.kit.facts.listeners import Listener


def refuse_taken_ports(
    me: FleetHost, services: Iterable[Service], listeners: Iterable[Listener]
) -> None:
    """Refuse a host on which somebody else has a port of `services`.

    What a deploy of before has started there is ours, whichever service has the port from now on.

    Raises:
        FleetError: somebody has; with all such ports.
    """
    services, listeners = list(services), list(listeners)
    ours = [pattern for service in services for pattern in service.held_by]
    foreign = [item for item in listeners if not item.is_of(ours)]
    if taken := list(dict.fromkeys(_taken(services, foreign))):
        raise FleetError(f"{me.name}: {'; '.join(taken)}. Stop it there, or declare another port")


def _taken(services: list[Service], foreign: list[Listener]) -> Iterator[str]:
    for service in services:
        if not service.ours:
            continue
        for endpoint in service.endpoints:
            for item in foreign:
                if item.is_in_the_way(endpoint.address, endpoint.port):
                    yield f"{service.setting} = {endpoint.port}: {item} listens on it already"
