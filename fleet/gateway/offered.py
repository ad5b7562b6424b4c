"""Which models the gateways of a fleet offer, by which names, and which servers have each."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from fleet.declare.capability import Server
from fleet.declare.fleet import Fleet, FleetHost
from fleet.gateway.names import plain
from fleet.gateway.settings import Gateway, GatewayKey


def plain_of(name: str) -> str:
    """The plain name of a model; a name that nginx could not read is its own."""
    return plain(name) or name


def holders(servers: Iterable[Server]) -> dict[str, list[Server]]:
    """Plain name of each model to those of `servers` that are to have it, as they are declared."""
    found: dict[str, list[Server]] = {}
    for server in servers:
        for name in server.models:
            found.setdefault(plain_of(name), []).append(server)
    return found


def declared_names(fleet: Fleet) -> tuple[str, ...]:
    """The models of all hosts, each once, as the first one that has it writes it."""
    names: dict[str, str] = {}
    for server in fleet.servers():
        for name in server.models:
            names.setdefault(plain_of(name), name)
    return tuple(names.values())


def meant(gateway: Gateway, name: str) -> str:
    """The plain name of the model that a client gets from `gateway` for `name`."""
    targets = {plain_of(alias): target for alias, target in gateway.aliases.items()}
    return plain_of(targets.get(plain_of(name), name))


def may_use(gateway: Gateway, key: GatewayKey, name: str) -> bool:
    """Whether `key` may ask for `name`: all, or a model that its `models` list, or an alias of."""
    allowed = {meant(gateway, item) for item in key.models}
    return not allowed or meant(gateway, name) in allowed


def offered(fleet: Fleet, gateway: Gateway, key: GatewayKey) -> tuple[str, ...]:
    """The names of models that `key` may ask for: the declared ones, then the aliases."""
    names = (*declared_names(fleet), *gateway.aliases)
    return tuple(name for name in names if may_use(gateway, key, name))


def instead_of(gateway: Gateway, key: GatewayKey | None = None) -> dict[str, str]:
    """Plain name of a model to that of the one which answers in its place: of all, or for `key`."""
    return {
        plain_of(model): plain_of(other)
        for model, other in gateway.fallbacks.items()
        if key is None or may_use(gateway, key, other)
    }


def stand_ins(fleet: Fleet) -> dict[str, str]:
    """Plain name of a model to that of the one which every gateway has answer in its place."""
    tables = [instead_of(host[Gateway]) for host in fleet.running(Gateway)]
    first, *others = tables or [{}]
    return {
        model: other
        for model, other in first.items()
        if all(table.get(model) == other for table in others)
    }


def alone(fleet: Fleet, host: FleetHost, others: Iterable[Server]) -> list[str]:
    """The models of `host` that nobody could answer for without it, as they are declared.

    `others` get requests meanwhile. One that has what stands in for a model answers for it.
    """
    left = set(holders(item for item in others if item.host.name != host.name))
    instead = stand_ins(fleet)
    mine = {
        plain_of(name): name
        for item in fleet.servers()
        if item.host.name == host.name
        for name in item.models
    }
    return [name for model, name in mine.items() if not is_answered(model, left, instead)]


def is_answered(model: str, left: Collection[str], instead: Mapping[str, str]) -> bool:
    """Whether a model is among those that are `left`, or what is `instead` of it; plain names."""
    seen: set[str] = set()
    while model not in left:
        if model in seen or model not in instead:
            return False
        seen.add(model)
        model = instead[model]
    return True
