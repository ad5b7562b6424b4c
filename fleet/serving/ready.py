"""When a GPU host may get requests: its servers answer a chat, with the models that it had."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

import gevent  # type: ignore[import-untyped]
from pyinfra import host

from fleet.declare.fleet import FleetHost
from fleet.kit.commands import Commands, fail, or_journal, when_answers
from fleet.kit.durations import seconds
from fleet.models.facts import ModelsCheck, ModelsState
from fleet.models.files import loader_config
from fleet.models.settings import Models
from fleet.models.warm import converse, served_by
from fleet.ollama.paths import LOADER_UNIT
from fleet.ollama.servers import Instance, instances_of
from fleet.serving.facts import ServersThere
from fleet.vllm.facts import MakesToken
from fleet.vllm.servers import VllmInstance, vllm_instances

_LOOK = 2.0  # seconds between two looks at the host
_STARTING = 300  # seconds: after a boot the driver and its units come first


def servers_there(me: FleetHost) -> tuple[Instance, ...]:
    """The declared servers that the host has already; others may only come in this deploy."""
    declared = instances_of(me)
    asked = {item.unit: str(item.endpoint) for item in declared}
    found: tuple[str, ...] = host.get_fact(ServersThere, servers=asked)
    return tuple(item for item in declared if item.unit in found)


def answering(me: FleetHost) -> tuple[VllmInstance, ...]:
    """The declared vLLM servers that answer one token now."""
    return tuple(
        item
        for item in vllm_instances(me)
        if host.get_fact(MakesToken, url=item.url, model=item.model)
    )


def models_of(me: FleetHost, servers: Sequence[Instance] = ()) -> ModelsCheck:
    """What the loader says of the host's models, by what is declared now.

    Of `servers` only, where some are given.
    """
    check: ModelsCheck = host.get_fact(ModelsState, config=json.dumps(loader_config(me, servers)))
    return check


def there(check: ModelsCheck) -> list[str]:
    """The declared models that are as declared."""
    return [name for name in check.models if name not in check.pending]


def answers(me: FleetHost, servers: Sequence[Instance], had: list[str]) -> Commands:
    """Wait until `servers` have the models that they `had`, and answer a chat with one."""
    for item in servers:
        yield or_journal(when_answers(f"{item.url}/api/version", seconds=_STARTING), item.unit)
    if not had or not servers:
        return
    lost = _wait_for(me, servers, had)
    if lost:
        told = "; ".join(f"{name} {why}" for name, why in lost.items())
        yield or_journal(fail(f"{me.name}: it has lost what it served: {told}"), LOADER_UNIT)
        return
    yield from chats(servers, had)


def chats(servers: Sequence[Instance], models: Sequence[str]) -> Commands:
    """Have each of `servers` answer with the first of its host's `models` that it is for."""
    for item in servers:
        for model in served_by(item, models)[:1]:
            for command in converse(item, model):
                yield or_journal(command, item.unit)


def _wait_for(me: FleetHost, servers: Sequence[Instance], had: list[str]) -> dict[str, str]:
    """The models of those that the host `had` which it still lacks at the deadline, and why.

    Its loader is at work: it starts with the servers, and again by itself after a failure.
    """
    end = time.monotonic() + seconds(me[Models].wait_timeout)
    told: dict[str, str] = {}
    while True:
        check = models_of(me, servers)
        lost = {name: why for name, why in check.pending.items() if name in had}
        if check.is_known and not lost:
            return {}
        if lost != told:
            host.log("; ".join(f"{name} {why}" for name, why in lost.items()))
            told = lost
        if time.monotonic() > end:
            return lost or {", ".join(had): check.why or "cannot be asked about"}
        gevent.sleep(_LOOK)
