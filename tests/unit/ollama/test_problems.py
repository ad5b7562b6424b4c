"""What of Ollama's settings cannot work on a host."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fleets import Hosts, fleet_of
from tests.unit.refusals import assert_refused, pair

INSTANCES = {"ollama_instances": [{"name": "a", "port": 11435}]}


def _two(a: list[str], b: list[str] | None) -> Hosts:
    """A host with two models and two servers, which have these of them."""
    own = {"models": b} if b else {}
    two = [{"name": "a", "port": 1, "gpus": [0], "models": a},
           {"name": "b", "port": 2, "gpus": [1], **own}]  # fmt: skip
    return pair({"ollama_models": ["gpt-oss:20b", "embed"], "ollama_instances": two})


# id: (the fleet, whose host, what the one line must hold: key, value, fix)
REFUSED: dict[str, tuple[Hosts, str, list[str]]] = {
    "version without a checksum": (
        pair({"ollama_version": "9.9.9"}),
        "gpu1",
        ["ollama_version = '9.9.9'", "no checksum", "set ollama_sha256"],
    ),
    "port beside instances": (
        pair({"ollama_port": 11434, **INSTANCES}),
        "gpu1",
        ["ollama_port = 11434: has no effect beside ollama_instances", "leave it out"],
    ),
    "instance with a model that the host lacks": (
        _two(["gpt-oss:2b"], None),
        "gpu1",
        ["ollama_instances: a: models: 'gpt-oss:2b' is none of ollama_models", "gpt-oss:20b"],
    ),
    "instance with a model twice": (
        _two(["embed", "embed:latest", "gpt-oss:20b"], None),
        "gpu1",
        ["ollama_instances: a: models: 'embed:latest' is there twice", "keep one"],
    ),
    "model that no instance serves": (
        _two(["gpt-oss:20b"], ["gpt-oss:20b"]),
        "gpu1",
        ["ollama_models: 'embed' is served by none of ollama_instances", "add it to one"],
    ),
}


@pytest.mark.parametrize(("hosts", "host", "parts"), REFUSED.values(), ids=REFUSED)
def test_refused(hosts: Hosts, host: str, parts: list[str], own_secrets: Path) -> None:
    assert_refused(hosts, host, parts, own_secrets)


def test_host_without_ollama_is_not_judged() -> None:
    """Its settings may be set for all hosts of an inventory, the gateway too."""
    fleet_of(pair(edge={"ollama_port": 11434, **INSTANCES}))
