"""How the checks of a gateway call it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
import requests

from fleet.declare.fleet import Fleet
from fleet.gateway.declared import gateway_keys, gateway_url, trust_of
from fleet.gateway.facts import DrainedHosts, SeenServers
from fleet.gateway.offered import holders, offered, plain_of
from fleet.gateway.settings import Gateway, GatewayKey
from fleet.kit.proxy import ask_directly_if_private

from .connection import Target
from .outcomes import Say


def url(target: Target, path: str) -> str:
    """Where clients find `path`; a check without such a place is skipped."""
    found = gateway_url(target.declared)
    if found is None:
        pytest.skip("gateway_listen = 'loopback': not reachable from here, by declaration")
    target.need_door()
    ask_directly_if_private(str(found))
    return f"{found}{path}"


def call(target: Target, method: str, path: str, **arguments: Any) -> requests.Response:
    """A request of a client."""
    return requests.request(
        method,
        url(target, path),
        verify=trust_of(target.fleet, target.declared),
        timeout=30,
        **arguments,
    )


def presented(header: str, value: str) -> str:
    """How a key is written in `header`."""
    return f"Bearer {value}" if header == "Authorization" else value


def usable(target: Target) -> list[GatewayKey]:
    """The keys that are let in from anywhere now."""
    return target.declared[Gateway].usable_keys(datetime.now(UTC))


def name(target: Target) -> str:
    """The first of them; a check without one is skipped."""
    found = usable(target)
    if not found:
        pytest.skip("every key has ended or is bound to networks")
    return found[0].name


def key(target: Target) -> str:
    """Its value."""
    return gateway_keys(target.fleet, target.declared)[name(target)].get_secret_value()


def headers(target: Target) -> dict[str, str]:
    """The header with it."""
    return {"Authorization": f"Bearer {key(target)}"}


def native(fleet: Fleet) -> set[str]:
    """The plain names of models that can be asked for by Ollama's own API."""
    return set(holders(item for item in fleet.servers() if "ollama" in item.surfaces))


def look_at_backends(target: Target) -> None:
    """Fail unless nginx has had a good answer of each."""
    seen = target.fact(SeenServers, fresh=True)
    assert seen is not None, "nginx does not tell which backends answer"
    down = {
        item.name: seen[item.name].why if item.name in seen else "nobody looks at it"
        for item in target.declared[Gateway].backends
        if item.name not in seen or not seen[item.name].well
    }
    assert down == {}


def chat_with_backends(target: Target, measured: Say, warns: Say) -> None:
    """Fail unless each answers a chat of a token with a model that no host of ours has."""
    fleet, declared = target.fleet, target.declared[Gateway]
    name(target)
    drained = target.fact(DrainedHosts, fresh=True)
    others = holders(item for item in fleet.servers() if item.ours)
    names = offered(fleet, declared, usable(target)[0])
    for item in declared.backends:
        own = [model for model in item.models if model in names and plain_of(model) not in others]
        if item.name in drained or not own:
            warns(f"{item.name} is drained, or has no model of its own: it was asked for none")
            continue
        talk = [{"role": "user", "content": "Hi"}]
        body = {"model": own[0], "max_tokens": 1, "messages": talk}
        answer = call(target, "POST", "/v1/chat/completions", headers=headers(target), json=body)
        # 429: there is nothing more for this key now, at its operator's or here.
        assert answer.status_code in (200, 429), f"{item.name}: {answer.text}"
        measured(f"{own[0]} of {item.name}: {answer.status_code}")
