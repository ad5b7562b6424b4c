"""Which names a key may ask for, and which models a host alone has."""

from __future__ import annotations

from typing import Any

import pytest

from fleet.declare.fleet import Fleet
from fleet.gateway.declared_lua import declared_lua
from fleet.gateway.offered import alone, declared_names, meant, offered
from fleet.gateway.settings import Gateway
from fleet.kit.secrets import Making
from tests.fleets import EDGE, GPU, fleet_of

pytestmark = pytest.mark.usefixtures("own_secrets")
KEYS = [
    "all",
    {"name": "some", "models": ["A:latest", "gpt-4o"]},
    {"name": "large", "models": ["library/b:1"]},
]


def fleet(**gateway: Any) -> Fleet:
    """Three hosts, two of which have a model in common, and one has servers that differ."""
    two = [
        {"name": "x", "port": 1, "gpus": [0], "models": ["c"]},
        {"name": "y", "port": 2, "gpus": [1], "models": ["b:1", "c"]},
    ]
    models = {
        "gpu1": {"ollama_models": ["a", "b:1"]},
        "gpu2": {"ollama_models": ["c", "b:1"], "ollama_instances": two},
        "gpu3": {"ollama_models": ["auto"]},
    }
    hosts: dict[str, Any] = {
        name: ("gpu", {**GPU[1], "private_address": f"10.0.0.1{name[-1]}", **own})
        for name, own in models.items()
    }
    edge = {"gateway_keys": KEYS, "gateway_aliases": {"GPT-4o": "b:1"}, **gateway}
    return fleet_of({**hosts, "edge": ("gateway", {**EDGE[1], **edge})})


def test_a_key_may_ask_for_its_models_by_all_their_names() -> None:
    made = fleet()
    gateway = made["edge"][Gateway]
    every, some, large = (offered(made, gateway, key) for key in gateway.keys)
    assert declared_names(made) == ("a", "b:1", "c", "auto")
    assert every == ("a", "b:1", "c", "auto", "GPT-4o")
    assert some == ("a", "b:1", "GPT-4o")
    assert large == ("b:1", "GPT-4o")
    assert meant(gateway, "gpt-4O:latest") == "b:1"


def test_servers_of_a_host_are_asked_for_their_own_models() -> None:
    """... though all of them have whatever is on its disk."""
    made = fleet()
    assert [(item.name, item.models, item.closed) for item in made.servers()] == [
        ("gpu1", ("a", "b:1"), False),
        ("gpu2/x", ("c",), True),
        ("gpu2/y", ("c", "b:1"), False),
        ("gpu3", ("auto",), False),
    ]
    made.secrets.making = Making.KEPT
    text = declared_lua(made["edge"], made, None)
    assert text.count('["closed"] = true') == 1


@pytest.mark.parametrize(
    ("host", "others", "missed"),
    [
        ("gpu1", ("gpu1", "gpu2", "gpu3"), ["a"]),
        ("gpu1", ("gpu3",), ["a", "b:1"]),
        ("gpu2", ("gpu1", "gpu3"), ["c"]),
        ("gpu3", ("gpu1", "gpu2"), ["auto"]),
    ],
)
def test_models_that_a_host_alone_has(
    host: str, others: tuple[str, ...], missed: list[str]
) -> None:
    made = fleet()
    left = [item for item in made.servers() if item.host.name in others]
    assert alone(made, made[host], left) == missed


def test_what_stands_in_answers_unless_it_is_gone_too() -> None:
    made = fleet(gateway_fallbacks={"a": "c", "c": "auto"})
    servers = list(made.servers())
    assert alone(made, made["gpu1"], servers) == []
    assert alone(made, made["gpu1"], [servers[-1]]) == ["b:1"]
    assert alone(made, made["gpu1"], []) == ["a", "b:1"]
