"""What a host is asked before it gets requests. Whether it answers is for tests/lab."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest
from pyinfra.context import ctx_host

from fleet.declare.fleet import FleetHost
from fleet.models.choice import GIB, Memory
from fleet.models.facts import ModelCapabilities
from fleet.models.warm import converse, first_model
from fleet.ollama.servers import instances_of
from tests.fleets import GPU, fleet_of

pytestmark = pytest.mark.usefixtures("own_secrets")


class Told:
    """A host on which what is called so makes embeddings."""

    def get_fact(self, fact: type, *, url: str, model: str) -> tuple[str, ...]:
        """What the server says of `model`."""
        assert (fact, url) == (ModelCapabilities, "http://10.0.0.11:11434")
        return ("embedding",) if "embed" in model else ("completion",)


@pytest.mark.parametrize(
    ("declared", "path", "more"),
    [
        (
            "gpt-oss:20b",
            "chat",
            {
                "messages": [{"role": "user", "content": "Hello"}],
                "options": {"num_predict": 1},
            },
        ),
        ("embed:latest", "embed", {"input": "x"}),
    ],
)
def test_model_is_asked_for_what_it_can(declared: str, path: str, more: dict[str, Any]) -> None:
    [item] = instances_of(_host(declared))
    with ctx_host.use(Told()):
        [command] = converse(item, declared)
    words = shlex.split(command.get_raw_value())
    asked = words.index("-d")
    assert json.loads(words[asked + 1]) == {"model": declared, "stream": False, **more}
    assert words[asked + 2] == f"{item.url}/api/{path}"


def test_auto_is_the_hosts_choice() -> None:
    assert first_model(_host("auto"), Memory((), 32 * GIB)) == "gpt-oss:20b"
    assert first_model(_host("auto"), Memory((), 32 * GIB, has_silent_gpu=True)) is None
    assert first_model(_host("embed:latest"), Memory((), 0)) == "embed:latest"


def _host(*models: str) -> FleetHost:
    return fleet_of({"gpu1": ("gpu", {**GPU[1], "ollama_models": list(models)})})["gpu1"]
