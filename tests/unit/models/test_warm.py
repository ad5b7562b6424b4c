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
from fleet.models.warm import converse, first_model, served_by
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
    [auto], [embed] = (instances_of(_host(name)) for name in ("auto", "embed:latest"))
    assert first_model(auto, Memory((), 32 * GIB)) == "gpt-oss:20b"
    assert first_model(auto, Memory((), 32 * GIB, has_silent_gpu=True)) is None
    assert first_model(embed, Memory((), 0)) == "embed:latest"


def test_each_server_is_asked_for_its_own_models() -> None:
    two = [
        {"name": "a", "port": 1, "gpus": [0], "models": ["embed"]},
        {"name": "b", "port": 2, "gpus": [1]},
    ]
    declared = {"ollama_models": ["gpt-oss:20b", "embed"], "ollama_instances": two}
    a, b = instances_of(fleet_of({"gpu1": ("gpu", {**GPU[1], **declared})})["gpu1"])
    assert first_model(a, Memory((), 0)) == "embed:latest"
    assert first_model(b, Memory((), 0)) == "gpt-oss:20b"
    there = ["gpt-oss:20b", "embed:latest"]
    assert (served_by(a, there), served_by(b, there)) == (["embed:latest"], there)
    # The only server of a host is asked for what the host says that it has: `auto` by its choice.
    [only] = instances_of(_host("auto"))
    assert served_by(only, ["gpt-oss:120b"]) == ["gpt-oss:120b"]


def _host(*models: str) -> FleetHost:
    return fleet_of({"gpu1": ("gpu", {**GPU[1], "ollama_models": list(models)})})["gpu1"]
