"""What nginx's programs know of the fleet: servers, names of models, and keys with their limits."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import datetime
from hashlib import sha256
from ipaddress import IPv4Address, IPv6Address

from pydantic import SecretStr

from fleet.declare.capability import Server
from fleet.declare.fleet import Fleet, FleetHost
from fleet.gateway.backend import LIST, Backend
from fleet.gateway.backends import backends_of, socket_of
from fleet.gateway.declared import gateway_keys, previous_gateway_key
from fleet.gateway.paths import GATEWAY_STATE
from fleet.gateway.settings import Gateway, GatewayKey
from fleet.kit.durations import seconds
from fleet.kit.lua import literal
from fleet.kit.secrets import Previous

_SECONDS = {"s": 1, "m": 60}


def declared_lua(me: FleetHost, fleet: Fleet, calls_from: IPv4Address | IPv6Address | None) -> str:
    """All of it as a Lua program that returns one table; no key is in it, only their SHA-256.

    `calls_from` is the address that servers are called from, None for whichever the kernel takes.
    """
    declared, backends = me[Gateway], backends_of(fleet)
    previous = {
        key.name: before
        for key in declared.keys
        if (before := previous_gateway_key(fleet, key.name)) is not None
    }
    table = {
        "read_timeout": round(seconds(declared.read_timeout)),
        "max_body": declared.max_body,
        "refusals": declared.refusals or 0,
        "state": GATEWAY_STATE,
        "keys": key_entries(declared.keys, gateway_keys(fleet, me), previous),
        "callers": {key.name: _caller(key) for key in declared.keys},
        "calls_from": str(calls_from) if calls_from else None,
        "servers": [
            _server(item) if item.ours else _backend(item, backends[item.name])
            for item in fleet.servers()
        ],
        "aliases": dict(declared.aliases),
        "fallbacks": dict(declared.fallbacks),
    }
    return (
        f"-- Managed by llm-fleet: change the settings instead. Root alone reads this file.\n"
        f"return {literal(table)}\n"
    )


def key_entries(
    keys: Iterable[GatewayKey], values: Mapping[str, SecretStr], previous: Mapping[str, Previous]
) -> dict[str, dict[str, object]]:
    """The SHA-256 of each value that may be let in, to whose it is and when it ends.

    `ends` is in seconds since 1970; None for one that does not end.
    """
    entries: dict[str, dict[str, object]] = {}
    for key in keys:
        if before := previous.get(key.name):
            end = min(before.until, key.expires) if key.expires else before.until
            entries[_digest(before.value)] = {"name": key.name, "ends": _epoch(end)}
        ends = _epoch(key.expires) if key.expires else None
        # Last: after an interrupted rotation both values are the same one, which did not end.
        entries[_digest(values[key.name])] = {"name": key.name, "ends": ends}
    return entries


def _digest(value: SecretStr) -> str:
    return sha256(value.get_secret_value().encode()).hexdigest()


def _caller(key: GatewayKey) -> dict[str, object]:
    rate = key.rate and {
        "requests": key.rate.requests,
        "seconds": _SECONDS[key.rate.unit],
        "burst": math.ceil(key.rate.a_second) if key.burst is None else key.burst,
    }
    tokens = key.tokens and {"amount": key.tokens.amount, "window": key.tokens.window}
    return {
        "admin": key.role == "admin",
        "overrides": key.way,
        "models": list(key.models) or None,
        "rate": rate,
        "concurrent": key.concurrent,
        "tokens": tokens,
        # With all eight groups of IPv6.
        "from": [f"{net.network_address.exploded}/{net.prefixlen}" for net in key.allow_from]
        or None,
    }


def _server(server: Server) -> dict[str, object]:
    return {
        "name": server.name,
        "host": server.host.name,
        "address": f"[{server.endpoint.address}]"
        if ":" in server.endpoint.address
        else server.endpoint.address,
        "port": server.endpoint.port,
        "surfaces": dict.fromkeys(server.surfaces, True),
        "models": list(server.models),
        "closed": server.closed or None,
    }


def _backend(server: Server, backend: Backend) -> dict[str, object]:
    return {
        "name": server.name,
        "host": server.host.name,
        "address": f"unix:{socket_of(server.name)}",
        "surfaces": dict.fromkeys(server.surfaces, True),
        "models": list(server.models),
        # What it calls them itself.
        "own": dict(backend.models),
        "health": backend.health,
        "is_listed": backend.health == LIST,
        "relayed": True,
    }


def _epoch(moment: datetime) -> int:
    return math.ceil(moment.timestamp())
