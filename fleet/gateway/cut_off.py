"""Whom a restart cuts off: who is served there at the moment, and who serves meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any

from pyinfra.api import FactBase

from fleet.declare.capability import Server
from fleet.declare.fleet import Fleet, FleetHost
from fleet.gateway.facts import DrainedHosts, ServedServers
from fleet.gateway.files import without_requests
from fleet.gateway.offered import alone, holders
from fleet.gateway.paths import GATEWAY_UNIT
from fleet.gateway.settings import Gateway
from fleet.gateway.traffic import NginxTraffic, Traffic
from fleet.kit.planned import HOST, Restart
from fleet.ollama.servers import Instance, instances_of
from fleet.vllm.servers import VllmInstance, vllm_instances

# A gateway's name and a fact to the answer; None where the gateway is not asked in this run.
Look = Callable[[str, type[FactBase[Any]]], Any]


def cut_off(me: FleetHost, fleet: Fleet, restart: Restart, look: Look) -> str:
    """Who is cut off by `restart` on `me`, in a few words; empty where nobody is known to be."""
    ours: list[Instance | VllmInstance] = [*instances_of(me), *vllm_instances(me)]
    instances = {item.name for item in ours if restart.unit in (item.unit, HOST)}
    servers = [
        item for item in fleet.servers() if item.host.name == me.name and item.instance in instances
    ]
    parts = []
    if restart.unit in (GATEWAY_UNIT, HOST) and me.runs(Gateway):
        parts.append(_of_clients(me, fleet, restart, look))
    if servers and (others := _in_its_turn(me, fleet, look)):
        parts.append(
            f"nobody: it is restarted in its turn; meanwhile served by {', '.join(others)}"
        )
    elif servers:
        parts += [*_of_requests(me, fleet, servers, look), _meanwhile(me, fleet, look)]
    if not parts:
        names = sorted(
            {
                service.name
                for service in fleet.services(me)
                if any(fnmatchcase(restart.unit, pattern) for pattern in service.held_by)
            }
        )
        parts = [f"whoever uses {', '.join(names)}"] if names else []
    return "; ".join(parts)


def _in_its_turn(me: FleetHost, fleet: Fleet, look: Look) -> list[str]:
    """Who gets requests while `me` is out of the gateways; nobody where it is not taken out."""
    gateways = fleet.running(Gateway)
    if any(gateway[Gateway].roll == "at-once" for gateway in gateways):
        return []
    found: list[set[str]] = []
    for gateway in gateways:
        busy = _sent_to(gateway, fleet, look) or []
        is_missed = alone(fleet, me, busy) or me.name not in [item.host.name for item in busy]
        found.append(set() if is_missed else _instead(me, busy))
    return sorted(set[str].intersection(*found)) if found else []


def _instead(me: FleetHost, busy: Sequence[Server]) -> set[str]:
    """The hosts of `busy` that have a model of `me`, or else those that have what stands in."""
    sharing = {
        item.host.name
        for servers in holders(busy).values()
        if me.name in [item.host.name for item in servers]
        for item in servers
    }
    return sharing - {me.name} or {item.host.name for item in busy} - {me.name}


def _sent_to(gateway: FleetHost, fleet: Fleet, look: Look) -> list[Server] | None:
    """The servers that get requests from `gateway`; None where that is not known."""
    served = look(gateway.name, ServedServers)
    if served is None:
        return None
    idle = without_requests(fleet, look(gateway.name, DrainedHosts) or (), served)
    return [item for item in fleet.servers() if item.name not in idle]


def _of_clients(me: FleetHost, fleet: Fleet, restart: Restart, look: Look) -> str:
    if restart.verb == "reload":
        return "nobody: requests in flight end as they began"
    others = [item.name for item in fleet.running(Gateway) if item.name != me.name]
    traffic: Traffic | None = look(me.name, NginxTraffic)
    clients = "an unknown number of" if traffic is None else str(traffic.ports[me[Gateway].port])
    left = f"{', '.join(others)} go on" if others else "there is no other gateway"
    return f"{clients} connections of clients, {left}"


def _of_requests(
    me: FleetHost, fleet: Fleet, servers: Sequence[Server], look: Look
) -> Iterator[str]:
    gateways = fleet.running(Gateway)
    if not gateways:
        yield "whoever calls it: no gateway is declared"
    for gateway in gateways:
        traffic: Traffic | None = look(gateway.name, NginxTraffic)
        if traffic is None:
            yield f"requests through {gateway.name} are not known, which is not asked in this run"
            continue
        flying = traffic.to(servers)
        drained = ", drained there" if me.name in (look(gateway.name, DrainedHosts) or ()) else ""
        yield f"{flying} requests in flight through {gateway.name}{drained}"


def _meanwhile(me: FleetHost, fleet: Fleet, look: Look) -> str:
    left = list(fleet.servers())
    for gateway in fleet.running(Gateway):
        if (busy := _sent_to(gateway, fleet, look)) is not None:
            left = [item for item in left if item in busy]
    names = ", ".join(sorted({item.host.name for item in left} - {me.name}))
    missed = alone(fleet, me, left)
    if not names or len(missed) == len(alone(fleet, me, ())):
        return "no other host could serve"
    but = f", but none {', '.join(missed)}" if missed else ""
    return f"{names} could serve meanwhile{but}"
