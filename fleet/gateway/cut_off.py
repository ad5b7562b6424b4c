"""Whom a restart cuts off: who is served there at the moment, and who serves meanwhile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from pyinfra.api import FactBase
from typing_extensions import override

from fleet.declare.fleet import Fleet, FleetHost
from fleet.gateway.facts import DrainedHosts, ServedServers
from fleet.gateway.files import without_requests
from fleet.gateway.paths import GATEWAY_UNIT
from fleet.gateway.settings import Gateway
from fleet.kit.on_host.outside import counted
from fleet.kit.planned import HOST, Restart
from fleet.ollama.servers import instances_of

# A gateway's name and a fact to the answer; None where the gateway is not asked in this run.
Look = Callable[[str, type[FactBase[Any]]], Any]


@dataclass(frozen=True)
class Traffic:
    """Connections of nginx: to each server (`address:port`), and from others to each own port."""

    servers: Counter[str]
    ports: Counter[int]


class NginxTraffic(FactBase[Traffic]):
    """What nginx is connected to at the moment: a connection to a server is a request in flight."""

    @override
    @staticmethod
    def default() -> Traffic:
        return Traffic(Counter(), Counter())

    @override
    def command(self) -> str:
        return "ss -Htnp state established | grep '\"nginx\"' || true"

    @override
    def process(self, output: list[str]) -> Traffic:
        ends = [line.split()[2:4] for line in output if len(line.split()) >= 4]
        ports = [counted(local.rpartition(":")[2]) for local, _ in ends]
        return Traffic(
            Counter(peer for _, peer in ends), Counter(port for port in ports if port is not None)
        )


def cut_off(me: FleetHost, fleet: Fleet, restart: Restart, look: Look) -> str:
    """Who is cut off by `restart` on `me`, in a few words; empty where nobody is known to be."""
    endpoints = [
        str(item.endpoint) for item in instances_of(me) if restart.unit in (item.unit, HOST)
    ]
    parts = []
    if restart.unit in (GATEWAY_UNIT, HOST) and me.runs(Gateway):
        parts.append(_of_clients(me, fleet, restart, look))
    if endpoints and (others := _in_its_turn(me, fleet, look)):
        parts.append(
            f"nobody: it is restarted in its turn; meanwhile served by {', '.join(others)}"
        )
    elif endpoints:
        parts += [*_of_requests(me, fleet, endpoints, look), _meanwhile(me, fleet, look)]
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
        busy = _sent_to(gateway, fleet, look) or set()
        found.append(busy - {me.name} if me.name in busy else set())
    return sorted(set[str].intersection(*found)) if found else []


def _sent_to(gateway: FleetHost, fleet: Fleet, look: Look) -> set[str] | None:
    """The hosts that get requests from `gateway`; None where that is not known."""
    served = look(gateway.name, ServedServers)
    if served is None:
        return None
    idle = without_requests(fleet, look(gateway.name, DrainedHosts) or (), served)
    return {item.host.name for item in fleet.servers() if item.name not in idle}


def _of_clients(me: FleetHost, fleet: Fleet, restart: Restart, look: Look) -> str:
    if restart.verb == "reload":
        return "nobody: requests in flight end as they began"
    others = [item.name for item in fleet.running(Gateway) if item.name != me.name]
    traffic: Traffic | None = look(me.name, NginxTraffic)
    clients = "an unknown number of" if traffic is None else str(traffic.ports[me[Gateway].port])
    left = f"{', '.join(others)} go on" if others else "there is no other gateway"
    return f"{clients} connections of clients, {left}"


def _of_requests(me: FleetHost, fleet: Fleet, endpoints: list[str], look: Look) -> Iterator[str]:
    gateways = fleet.running(Gateway)
    if not gateways:
        yield "whoever calls it: no gateway is declared"
    for gateway in gateways:
        traffic: Traffic | None = look(gateway.name, NginxTraffic)
        if traffic is None:
            yield f"requests through {gateway.name} are not known, which is not asked in this run"
            continue
        flying = sum(traffic.servers[endpoint] for endpoint in endpoints)
        drained = ", drained there" if me.name in (look(gateway.name, DrainedHosts) or ()) else ""
        yield f"{flying} requests in flight through {gateway.name}{drained}"


def _meanwhile(me: FleetHost, fleet: Fleet, look: Look) -> str:
    left = {item.host.name for item in fleet.servers()} - {me.name}
    for gateway in fleet.running(Gateway):
        if (busy := _sent_to(gateway, fleet, look)) is not None:
            left &= busy
    names = ", ".join(sorted(left))
    return f"{names} could serve meanwhile" if left else "no other host could serve"
